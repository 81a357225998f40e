//! The real program killed at every one of its system calls, and every one of them failing.
//!
//! With `NFS_HOSTCHANGE_TESTS=long` every call fails with every errno of the list, and loses
//! its answer too.

#![cfg(target_arch = "x86_64")]

#[path = "../common/mod.rs"]
mod common;
mod tracer;
mod world;

use std::fs;
use std::time::Instant;

use nix::errno::Errno;

use common::{HERE, PREFIX, THERE};
use tracer::{Act, End};
use world::World;

fn long() -> bool {
    std::env::var_os("NFS_HOSTCHANGE_TESTS").is_some_and(|value| value == "long")
}

/// What a login may meet.
struct Situation {
    name: &'static str,
    prepare: fn(&mut World),
    /// Undoes what the next login must not meet any more.
    mend: fn(&mut World),
    /// There are originals in INDEX.
    migrates: bool,
    /// The session can get at the mail.
    has_mail: bool,
}

fn nothing(_: &mut World) {}

fn migration_on(world: &mut World) {
    world.lab.configure("migration = true\n");
}

fn moved(world: &mut World) {
    world.settle(HERE);
    world.settle(THERE);
}

const SITUATIONS: [Situation; 9] = [
    Situation {
        name: "first login",
        prepare: nothing,
        mend: nothing,
        migrates: false,
        has_mail: true,
    },
    Situation {
        name: "settled user",
        prepare: |world| world.settle(HERE),
        mend: nothing,
        migrates: false,
        has_mail: true,
    },
    Situation {
        name: "moved user",
        prepare: moved,
        mend: nothing,
        migrates: false,
        has_mail: true,
    },
    Situation {
        name: "moved user, migration on",
        prepare: |world| {
            migration_on(world);
            moved(world);
        },
        mend: nothing,
        migrates: false,
        has_mail: true,
    },
    Situation {
        name: "migration",
        prepare: |world| {
            migration_on(world);
            world.put_originals();
        },
        mend: nothing,
        migrates: true,
        has_mail: true,
    },
    Situation {
        name: "marker after migration",
        prepare: |world| {
            migration_on(world);
            world.settle(HERE);
            world.put_originals();
        },
        mend: nothing,
        migrates: true,
        has_mail: true,
    },
    Situation {
        name: "interrupted migration's litter",
        prepare: |world| {
            migration_on(world);
            world.settle(HERE);
            let litter = world.lab.index().join(PREFIX);
            world.lab.write(&litter, "old");
        },
        mend: nothing,
        migrates: false,
        has_mail: true,
    },
    Situation {
        name: "garbled record",
        prepare: |world| {
            world.settle(HERE);
            let record = world.lab.record_file(HERE);
            world.lab.write(&record, "1 23 4");
            world.change(None);
        },
        mend: nothing,
        migrates: false,
        has_mail: true,
    },
    Situation {
        name: "INDEX missing",
        prepare: |world| {
            world.settle(HERE);
            let (index, away) = (world.lab.index(), world.lab.path("away"));
            fs::rename(index, away).expect("it is there");
        },
        mend: |world| {
            let (index, away) = (world.lab.index(), world.lab.path("away"));
            fs::rename(away, index).expect("it is there");
        },
        migrates: false,
        has_mail: false,
    },
];

/// The system calls of the login in this situation.
fn calls(world: &mut World, situation: &Situation) -> Vec<u64> {
    world.forget();
    (situation.prepare)(world);
    let mut calls = Vec::new();
    let end = world.login(HERE, |_, number| {
        calls.push(number);
        Act::Pass
    });
    assert!(matches!(end, End::Executed { .. }), "{end:?}");
    (situation.mend)(world);
    calls
}

fn killed_anywhere(by_user: bool) {
    let began = Instant::now();
    let mut world = World::new(by_user);
    let mut points = 0;
    for situation in &SITUATIONS {
        let calls = calls(&mut world, situation);
        for (point, number) in calls.iter().enumerate() {
            let what = format!("{}, killed before call {point} ({number})", situation.name);
            world.forget();
            (situation.prepare)(&mut world);
            let end = world.login(
                HERE,
                |place, _| {
                    if place == point { Act::Kill } else { Act::Pass }
                },
            );
            assert_eq!(end, End::Killed, "{what}");
            (situation.mend)(&mut world);
            world.assert_nothing_stale_is_trusted(&what);
            if situation.migrates {
                world.assert_nothing_is_lost(&what);
            }
            world.assert_healed(&what);
            points += 1;
        }
        println!("{}: {} calls", situation.name, calls.len());
    }
    println!("{points} crash points, {:.1?}", began.elapsed());
}

#[test]
fn a_login_of_root_s_may_be_killed_at_any_system_call() {
    killed_anywhere(false);
}

#[test]
fn a_login_of_the_mail_user_s_may_be_killed_at_any_system_call() {
    killed_anywhere(true);
}

const ERRNOS: [Errno; 15] = [
    Errno::EIO,
    Errno::EACCES,
    Errno::ENOSPC,
    Errno::ESTALE,
    Errno::EINTR,
    Errno::EPERM,
    Errno::EDQUOT,
    Errno::EROFS,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::ETIMEDOUT,
    Errno::ELOOP,
    Errno::ENAMETOOLONG,
    Errno::EAGAIN,
];

/// Calls that cannot fail (their manual pages know no error, or none but a wrong address), and those
/// of the C library before it calls the program.
fn cannot_fail(number: u64) -> bool {
    [
        libc::SYS_arch_prctl,
        libc::SYS_set_tid_address,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_getpid,
        libc::SYS_umask,
        libc::SYS_uname,
    ]
    .contains(&(number as i64))
}

/// Calls that take on the user's ids. If that fails, nothing can be done with the user's rights.
fn takes_ids(number: u64) -> bool {
    [
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_getgroups,
        libc::SYS_prctl,
    ]
    .contains(&(number as i64))
}

/// Without its configuration a login does not know that there is a list index to migrate.
fn without_configuration(situation: &Situation, calls: &[u64], point: usize) -> bool {
    let opened = calls
        .iter()
        .position(|&number| number == libc::SYS_openat as u64);
    situation.name == "marker after migration"
        && opened.is_some_and(|opened| (opened..opened + 3).contains(&point))
}

/// Calls whose failure may end the process, never with a program executed: the last one, and those
/// that take the first ids back.
fn may_end_it(number: u64) -> bool {
    [
        libc::SYS_execve,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
    ]
    .contains(&(number as i64))
}

fn failing_anywhere(by_user: bool) {
    let began = Instant::now();
    let mut world = World::new(by_user);
    let (mut runs, mut wrong) = (0, Vec::new());
    let errnos = if long() { &ERRNOS[..] } else { &ERRNOS[..2] };
    for situation in &SITUATIONS {
        let calls = calls(&mut world, situation);
        for (point, &number) in calls.iter().enumerate() {
            for &errno in errnos {
                for act in [Act::Fail(errno), Act::LoseAnswer(errno)] {
                    if matches!(act, Act::LoseAnswer(_)) && !long() {
                        continue;
                    }
                    if cannot_fail(number) || without_configuration(situation, &calls, point) {
                        continue;
                    }
                    let what = format!("{}, call {point} ({number}): {act:?}", situation.name);
                    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        fail(&mut world, situation, point, number, act, &what);
                    }));
                    if tried.is_err() {
                        wrong.push(what);
                        if !world.lab.index().exists() {
                            (situation.mend)(&mut world);
                        }
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} failing calls, {:.1?}", began.elapsed());
    assert!(wrong.is_empty(), "{} of {runs}: {wrong:#?}", wrong.len());
}

fn fail(world: &mut World, situation: &Situation, point: usize, number: u64, act: Act, what: &str) {
    world.forget();
    (situation.prepare)(world);
    let mut failed = None;
    let end = world.login(HERE, |place, number| {
        if place == point {
            failed = Some(number);
            act
        } else {
            Act::Pass
        }
    });
    assert_eq!(
        failed,
        Some(number),
        "{what}: another call is at this place"
    );
    (situation.mend)(world);
    match &end {
        End::Exited(71..=75) if may_end_it(number) => {}
        // Rust aborts where there is no memory.
        End::Died(_) if number == libc::SYS_mmap as u64 => {}
        End::Executed {
            uses_list_index: false,
            ..
        } if takes_ids(number) => {
            world.session(HERE, &end, false, what);
        }
        end => {
            world.session(HERE, end, situation.has_mail, what);
        }
    }
    world.assert_nothing_stale_is_trusted(what);
    world.assert_healed(what);
}

#[test]
fn any_system_call_of_a_login_of_root_s_may_fail() {
    failing_anywhere(false);
}

#[test]
fn any_system_call_of_a_login_of_the_mail_user_s_may_fail() {
    failing_anywhere(true);
}
