//! The real program killed at every one of its system calls, every one of them failing, and two
//! programs at once in every order of them.
//!
//! With `NFS_HOSTCHANGE_TESTS=long` every call fails with every errno of the list, and loses
//! its answer too; and there is one preemption more where that takes minutes.

#![cfg(target_arch = "x86_64")]

mod behind;
#[path = "../common/mod.rs"]
mod common;
mod interleave;
mod tracer;
mod world;

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::Instant;

use nix::errno::Errno;

use common::{HERE, PREFIX, THERE};
use interleave::Program;
use tracer::{Act, End, Process};
use world::{Cleaning, World};

fn long() -> bool {
    std::env::var_os("NFS_HOSTCHANGE_TESTS").is_some_and(|value| value == "long")
}

/// What a login may meet.
struct Situation {
    name: &'static str,
    prepare: fn(&World),
    /// Undoes what the next login must not meet any more.
    mend: fn(&World),
    /// There are originals in INDEX.
    migrates: bool,
    /// The session can get at the mail.
    has_mail: bool,
}

fn nothing(_: &World) {}

fn migration_on(world: &World) {
    world.lab.configure("migration = true\n");
}

fn moved(world: &World) {
    world.settle(HERE);
    world.settle(THERE);
}

const USUAL: Situation = Situation {
    name: "",
    prepare: nothing,
    mend: nothing,
    migrates: false,
    has_mail: true,
};

const SITUATIONS: [Situation; 9] = [
    Situation {
        name: "first login",
        ..USUAL
    },
    Situation {
        name: "settled user",
        prepare: |world| world.settle(HERE),
        ..USUAL
    },
    Situation {
        name: "moved user",
        prepare: moved,
        ..USUAL
    },
    Situation {
        name: "moved user, migration on",
        prepare: |world| {
            migration_on(world);
            moved(world);
        },
        ..USUAL
    },
    Situation {
        name: "migration",
        prepare: |world| {
            migration_on(world);
            world.put_originals();
        },
        migrates: true,
        ..USUAL
    },
    Situation {
        name: "somebody else's list index in INDEX",
        prepare: |world| {
            migration_on(world);
            world.settle(HERE);
            world.put_originals();
        },
        ..USUAL
    },
    Situation {
        name: "interrupted migration's litter",
        prepare: |world| {
            migration_on(world);
            world.settle(HERE);
            world.say_migrating();
            let litter = world.lab.index().join(PREFIX);
            world.lab.write(&litter, "old");
        },
        ..USUAL
    },
    Situation {
        name: "garbled record",
        prepare: |world| {
            world.settle(HERE);
            let record = world.lab.record_file(HERE);
            world.lab.write(&record, "2 0071 23 4");
            world.change(None);
        },
        ..USUAL
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
        has_mail: false,
        ..USUAL
    },
];

/// The system calls of the login in this situation.
fn calls(world: &World, situation: &Situation) -> Vec<u64> {
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
    let world = World::new(by_user);
    let mut points = 0;
    for situation in &SITUATIONS {
        let calls = calls(&world, situation);
        for (point, number) in calls.iter().enumerate() {
            let what = format!("{}, killed before call {point} ({number})", situation.name);
            world.forget();
            (situation.prepare)(&world);
            let end = world.login(
                HERE,
                |place, _| {
                    if place == point { Act::Kill } else { Act::Pass }
                },
            );
            assert_eq!(end, End::Killed, "{what}");
            (situation.mend)(&world);
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
/// of the C library before it calls the program: a static glibc does not start without its heap and
/// without its constants write-protected.
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
        libc::SYS_brk,
        libc::SYS_mprotect,
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
    let world = World::new(by_user);
    let (mut runs, mut wrong) = (0, Vec::new());
    let errnos = if long() { &ERRNOS[..] } else { &ERRNOS[..2] };
    for situation in &SITUATIONS {
        let calls = calls(&world, situation);
        for (point, &number) in calls.iter().enumerate() {
            for &errno in errnos {
                for act in [Act::Fail(errno), Act::LoseAnswer(errno)] {
                    if matches!(act, Act::LoseAnswer(_)) && !long() {
                        continue;
                    }
                    if cannot_fail(number) {
                        continue;
                    }
                    let what = format!("{}, call {point} ({number}): {act:?}", situation.name);
                    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        fail(&world, situation, point, number, act, &what);
                    }));
                    if tried.is_err() {
                        wrong.push(what);
                        if !world.lab.index().exists() {
                            (situation.mend)(&world);
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

fn fail(world: &World, situation: &Situation, point: usize, number: u64, act: Act, what: &str) {
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
    // What the login could not do is made up for.
    world.wait_for_who_stays_behind();
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

/// What the administrator's command is tried with. Only root sweeps.
fn cleanings(by_user: bool) -> &'static [Cleaning] {
    if by_user {
        &[Cleaning::Clean]
    } else {
        &[Cleaning::Clean, Cleaning::Sweep]
    }
}

/// The system calls of cleaning a settled user's list index.
fn calls_of_cleaning(world: &World, command: Cleaning) -> Vec<u64> {
    world.forget();
    world.settle(HERE);
    let mut calls = Vec::new();
    let end = world.clean(command, |_, number| {
        calls.push(number);
        Act::Pass
    });
    assert_eq!(end, End::Exited(0), "{command:?}");
    assert!(world.is_clean(), "{command:?}");
    calls
}

fn cleaning_killed_anywhere(by_user: bool) {
    let began = Instant::now();
    let world = World::new(by_user);
    let mut points = 0;
    for &command in cleanings(by_user) {
        let calls = calls_of_cleaning(&world, command);
        for (point, number) in calls.iter().enumerate() {
            let what = format!("{command:?}, killed before call {point} ({number})");
            world.forget();
            world.settle(HERE);
            let end = world.clean(
                command,
                |place, _| {
                    if place == point { Act::Kill } else { Act::Pass }
                },
            );
            assert_eq!(end, End::Killed, "{what}");
            world.assert_nothing_stale_is_trusted(&what);
            world.assert_healed(&what);
            points += 1;
        }
    }
    println!("{points} crash points of cleaning, {:.1?}", began.elapsed());
}

#[test]
fn a_cleaning_of_root_s_may_be_killed_at_any_system_call() {
    cleaning_killed_anywhere(false);
}

#[test]
fn a_cleaning_of_the_mail_user_s_may_be_killed_at_any_system_call() {
    cleaning_killed_anywhere(true);
}

#[test]
fn whoever_opens_the_log_while_it_is_cleaned_waits_until_it_is_gone() {
    let world = World::new(true);
    world.settle(HERE);
    let log = world.lab.list_index(HERE).join("dovecot.list.index.log");
    let mut cleaner = world.start_command(HERE, Cleaning::Clean);
    // From here on it deletes.
    cleaner.run_to_call(libc::SYS_pwrite64);
    let refused = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&log)
        .expect_err("the cleaner has a lease");
    assert_eq!(refused.raw_os_error(), Some(libc::EWOULDBLOCK));
    let began = Instant::now();
    let opener = std::thread::spawn(move || fs::File::open(log));
    while cleaner.next_call().number != libc::SYS_exit_group {}
    // What it opened has no name any more, or it came too late.
    if let Ok(file) = opener.join().expect("it ends") {
        assert_eq!(file.metadata().expect("it is open").nlink(), 0);
    }
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    drop(cleaner);
    assert!(world.is_clean());
    world.assert_healed("the log was opened while it was cleaned");
}

/// Calls for memory, threads and random numbers, and for the end. Rust's library and the C library give
/// up where there are none.
fn is_the_library_s(number: u64) -> bool {
    [
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_brk,
        libc::SYS_clone3,
        libc::SYS_rseq,
        libc::SYS_set_robust_list,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_getrandom,
        libc::SYS_exit_group,
    ]
    .contains(&(number as i64))
}

fn cleaning_failing_anywhere(by_user: bool) {
    let began = Instant::now();
    let world = World::new(by_user);
    let mut runs = 0;
    let errnos = if long() { &ERRNOS[..] } else { &ERRNOS[..2] };
    for &command in cleanings(by_user) {
        let calls = calls_of_cleaning(&world, command);
        // Up to here the loader and the libraries start.
        let first = calls
            .iter()
            .position(|&number| number == libc::SYS_openat2 as u64)
            .expect("it opens a directory without following links");
        for (point, &number) in calls.iter().enumerate().skip(first) {
            // Not knowing of how many processors, a sweep would have threads that nobody follows.
            if number == libc::SYS_sched_getaffinity as u64 {
                continue;
            }
            for &errno in errnos {
                let what = format!("{command:?}, call {point} ({number}): {errno}");
                world.forget();
                world.settle(HERE);
                let end = world.clean(command, |place, _| {
                    if place == point {
                        Act::Fail(errno)
                    } else {
                        Act::Pass
                    }
                });
                match end {
                    End::Exited(0) if command == Cleaning::Clean => {
                        assert!(world.is_clean(), "{what}: says that it was done");
                    }
                    End::Exited(0 | 64..=78) => {}
                    _ if is_the_library_s(number) => {}
                    _ => panic!("{what}: {end:?}"),
                }
                world.assert_nothing_stale_is_trusted(&what);
                world.assert_healed(&what);
                runs += 1;
            }
        }
    }
    println!("{runs} failing calls of cleaning, {:.1?}", began.elapsed());
}

#[test]
fn any_system_call_of_a_cleaning_of_root_s_may_fail() {
    cleaning_failing_anywhere(false);
}

#[test]
fn any_system_call_of_a_cleaning_of_the_mail_user_s_may_fail() {
    cleaning_failing_anywhere(true);
}

/// What takes part in a race.
#[derive(Debug, Clone, Copy)]
enum Part {
    Login(&'static str),
    Cleaning(&'static str, Cleaning),
}

impl Part {
    fn start<'a>(&self, world: &'a World) -> Program<'a> {
        let traced = match *self {
            Part::Login(host) => world.start(host),
            Part::Cleaning(host, command) => world.start_command(host, command),
        };
        Program::new(Process::new(traced))
    }
}

/// Tries every order of `parts` that has few preemptions.
fn race(preemptions: usize, prepare: fn(&World), parts: &[Part]) {
    let began = Instant::now();
    let world = World::new(true);
    let count = interleave::all_schedules(parts.len(), preemptions, |first, schedule| {
        let what = format!("{parts:?}, {first} first, {schedule:?}");
        world.forget();
        prepare(&world);
        let programs = parts.iter().map(|part| part.start(&world)).collect();
        let mut sessions = Vec::new();
        let decisions = interleave::run(programs, first, schedule, &what, |who, end| {
            match (parts[who], end) {
                // Done, or the user is logging in, or has logged in, or a login has just deleted all.
                (Part::Cleaning(..), End::Exited(0 | 66 | 75)) => {}
                (Part::Login(host), End::Executed { .. }) => {
                    sessions.extend(world.open_list_index(host, end, &what));
                }
                _ => panic!("{what}: {end:?}"),
            }
            world.assert_only_the_last_claimer_is_trusted(&what);
        });
        world.assert_nothing_stale_is_trusted(&what);
        for log in sessions {
            let names = log.metadata().expect("it is open").nlink();
            // Between a login and its session nobody has the list index open, so cleaning what was used
            // this very moment may hit it: that session reads on, and nobody trusts the rest.
            let cleaned = matches!(parts[1], Part::Cleaning(..)) && !world.is_trusted(HERE);
            assert!(
                names > 0 || cleaned,
                "{what}: a session's list index was deleted"
            );
        }
        world.assert_healed_here(&what);
        decisions
    });
    println!(
        "{parts:?}: {count} schedules with up to {preemptions} preemptions, {:.1?}",
        began.elapsed()
    );
}

fn stayed(world: &World) {
    world.settle(HERE);
}

#[test]
fn two_logins_on_one_backend_may_interleave() {
    race(2, moved, &[Part::Login(HERE), Part::Login(HERE)]);
}

#[test]
fn logins_on_two_backends_may_interleave() {
    let preemptions = if long() { 3 } else { 2 };
    race(preemptions, moved, &[Part::Login(HERE), Part::Login(THERE)]);
}

#[test]
fn a_login_that_claims_and_clean_may_interleave() {
    let clean = Part::Cleaning(HERE, Cleaning::Clean);
    race(2, moved, &[Part::Login(HERE), clean]);
}

#[test]
fn a_login_that_has_nothing_to_do_and_clean_may_interleave() {
    let clean = Part::Cleaning(HERE, Cleaning::Clean);
    let preemptions = if long() { 3 } else { 2 };
    race(preemptions, stayed, &[Part::Login(HERE), clean]);
}

#[test]
fn a_first_login_and_clean_of_a_user_who_only_got_mail_may_interleave() {
    let delivered = |world: &World| {
        world.settle(HERE);
        for name in [".lasthost", ".lasthost.without"] {
            let _ = fs::remove_file(world.lab.list_index(HERE).join(name));
        }
    };
    let clean = Part::Cleaning(HERE, Cleaning::Clean);
    let preemptions = if long() { 3 } else { 2 };
    race(preemptions, delivered, &[Part::Login(HERE), clean]);
}

#[test]
fn a_login_that_claims_and_a_sweep_may_interleave() {
    let sweep = Part::Cleaning(HERE, Cleaning::Sweep);
    race(2, moved, &[Part::Login(HERE), sweep]);
}

#[test]
fn a_login_that_has_nothing_to_do_and_a_sweep_may_interleave() {
    let sweep = Part::Cleaning(HERE, Cleaning::Sweep);
    race(2, stayed, &[Part::Login(HERE), sweep]);
}

#[test]
fn two_migrations_may_interleave() {
    let prepare = |world: &World| {
        migration_on(world);
        world.put_originals();
    };
    let preemptions = if long() { 2 } else { 1 };
    race(
        preemptions,
        prepare,
        &[Part::Login(HERE), Part::Login(THERE)],
    );
}
