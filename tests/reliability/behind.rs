//! What stays behind for a session without list index, killed at every one of its system calls.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use crate::common::{HERE, THERE, close};
use crate::tracer::{Act, Behind, End};
use crate::world::World;

/// Why a login must do without list index, and something is left to be done for its session.
struct Situation {
    name: &'static str,
    prepare: fn(&World),
    mend: fn(&World),
    /// Whether that is done.
    is_made_up_for: fn(&World) -> bool,
}

/// LISTINDEX's parent at [`HERE`], and where it is meanwhile.
fn parent(world: &World) -> (PathBuf, PathBuf) {
    let directory = world.lab.list_index(HERE);
    let parent = directory.parent().expect("it has one").to_owned();
    let elsewhere = parent.with_extension("elsewhere");
    (parent, elsewhere)
}

const SITUATIONS: [Situation; 2] = [
    Situation {
        name: "INDEX missing",
        prepare: |world| {
            fs::rename(world.lab.index(), world.lab.path("away")).expect("it is there");
        },
        mend: |world| {
            fs::rename(world.lab.path("away"), world.lab.index()).expect("it is there");
        },
        is_made_up_for: |world| world.lab.claim().text.trim_end() == HERE,
    },
    Situation {
        name: "no place for the sign",
        prepare: |world| {
            let (parent, elsewhere) = parent(world);
            fs::rename(&parent, elsewhere).expect("it is there");
            // Nothing can be made below it.
            fs::write(parent, "").expect("/dev/shm is the test's");
        },
        mend: |world| {
            let (parent, elsewhere) = parent(world);
            fs::remove_file(&parent).expect("it is there");
            fs::rename(elsewhere, parent).expect("it is there");
        },
        is_made_up_for: |world| {
            let sign = world.lab.list_index(HERE).join(".lasthost.without");
            fs::metadata(sign).is_ok_and(|sign| sign.len() > 0)
        },
    },
];

/// A session without list index, beside which another backend serves the user as soon as it is made up
/// for. What stays behind for it is killed before its system call number `point`; `false` if it has
/// ended by then.
fn killed_at(world: &World, situation: &Situation, point: usize) -> bool {
    let what = format!("{}, killed before call {point}", situation.name);
    world.forget();
    world.settle(HERE);
    world.settle(THERE);
    (situation.prepare)(world);
    let (login, mut behind) = Behind::of(world.start_open(HERE));
    (situation.mend)(world);
    let mut login = Some(login);
    let mut calls = 0;
    let mut killed = false;
    while let Some(number) = behind.next_call() {
        if calls == point {
            behind.kill();
            killed = true;
            break;
        }
        calls += 1;
        let waits = number == libc::SYS_poll as u64 && login.is_some();
        if waits && (situation.is_made_up_for)(world) {
            let session = login.take().expect("asked for").wait();
            session.assert_not_vouched();
            let end = world.login(THERE, |_, _| Act::Pass);
            world.session(THERE, &end, true, &what);
            world.change(None);
            close(session);
        }
    }
    if let Some(login) = login {
        assert!(killed, "{what}: it ended before its session");
        let session = login.wait();
        session.assert_not_vouched();
        world.change(None);
        let end = world.login(HERE, |_, _| Act::Pass);
        let is_without = matches!(
            end,
            End::Executed {
                uses_list_index: false,
                ..
            }
        );
        assert!(
            is_without,
            "{what}: vouched for beside the session: {end:?}"
        );
        close(session);
    } else if !killed {
        // It has claimed once more.
        world.assert_nothing_stale_is_trusted(&what);
    }
    world.assert_healed_here(&what);
    world.assert_nothing_stale_is_trusted(&what);
    killed
}

fn may_be_killed_at_any_system_call(by_user: bool) {
    let began = Instant::now();
    let world = World::new(by_user);
    for situation in &SITUATIONS {
        let mut point = 0;
        while killed_at(&world, situation, point) {
            point += 1;
        }
        println!("{}: {point} calls, {:.1?}", situation.name, began.elapsed());
    }
}

#[test]
fn what_stays_behind_for_root_s_login_may_be_killed_at_any_system_call() {
    may_be_killed_at_any_system_call(false);
}

#[test]
fn what_stays_behind_for_the_mail_user_s_login_may_be_killed_at_any_system_call() {
    may_be_killed_at_any_system_call(true);
}
