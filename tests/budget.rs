//! What a login costs that finds nothing to do: system calls, and everything that is not done at
//! all. Counted on the program as it is shipped. And how many system calls a sweep makes.

mod common;

use std::fs;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use common::trace::Call;
use common::{HERE, Lab, Login, PREFIX, UID, release_wrapper, set_owner_and_mode};

/// What a login may cost.
struct Budget {
    /// System calls between the wrapper's execve and the next one.
    calls_as_user: usize,
    /// The same where the ids are changed and changed back.
    calls_as_root: usize,
}

const BUDGET: Budget = Budget {
    calls_as_user: 30,
    calls_as_root: 40,
};

/// Where musl cannot be had: glibc's start-up makes calls of its own.
const BUDGET_WITH_GLIBC: Budget = Budget {
    calls_as_user: 40,
    calls_as_root: 50,
};

fn budget() -> Budget {
    let program = fs::read(release_wrapper()).expect("it is built");
    // The environment variable that glibc alone looks for when it starts.
    let name = b"GLIBC_TUNABLES";
    if program.windows(name.len()).any(|bytes| bytes == name) {
        BUDGET_WITH_GLIBC
    } else {
        BUDGET
    }
}

/// One way in which a login begins.
type MakeLogin = fn(&Lab) -> Login<'_>;

/// One login's system calls, and what was seen while they were made.
#[derive(Debug, Default)]
struct Cost {
    calls: Vec<Call>,
    opened: Vec<String>,
    forced: usize,
}

/// The fast path of `login`, step by step.
fn cost_of(login: Login<'_>) -> Cost {
    let mut login = login.trace();
    let mut cost = Cost::default();
    loop {
        let call = login.next_call();
        let [_, name, flags, ..] = call.arguments;
        match call.number {
            libc::SYS_execve => break,
            libc::SYS_openat | libc::SYS_openat2 => cost.opened.push(login.string(name)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => cost.opened.push(login.string(call.arguments[0])),
            libc::SYS_statx if flags & libc::AT_STATX_FORCE_SYNC as u64 != 0 => cost.forced += 1,
            _ => {}
        }
        cost.calls.push(call);
    }
    login.finish().assert_vouched().assert_silent();
    cost
}

/// Logins of a settled user, with a configuration file to read: as root and as the user, with the
/// fields of Dovecot 2.3 and of 2.4.
fn settled() -> (Lab, [MakeLogin; 4]) {
    // Building it wants the system's own /etc.
    let program = release_wrapper();
    let lab = Lab::with_settled_user();
    lab.install(program, "shipped");
    lab.configure(
        "# What an administrator may have written.\n\
         migration = true\n\
         lock_timeout = \"3 s\"\n\
         \n\
         [log]\n\
         facility = \"local1\"\n\
         level = \"info\"\n",
    );
    (
        lab,
        [
            |lab| shipped(lab, lab.login()),
            |lab| shipped(lab, lab.login().of_2_4()),
            |lab| shipped(lab, lab.login().by_user()),
            |lab| shipped(lab, lab.login().by_user().of_2_4()),
        ],
    )
}

fn shipped<'a>(lab: &Lab, login: Login<'a>) -> Login<'a> {
    login.with_program(lab.path("bin/shipped"))
}

#[test]
fn a_login_with_nothing_to_do_makes_few_system_calls() {
    let budget = budget();
    let (lab, logins) = settled();
    for (login, most) in logins.iter().zip([
        budget.calls_as_root,
        budget.calls_as_root,
        budget.calls_as_user,
        budget.calls_as_user,
    ]) {
        let cost = cost_of(login(&lab));
        let numbers: Vec<_> = cost.calls.iter().map(|call| call.number).collect();
        assert!(
            numbers.len() <= most,
            "{} calls: {numbers:?}",
            numbers.len()
        );
    }
}

#[test]
fn the_fields_of_dovecot_2_4_cost_no_further_system_call() {
    let (lab, logins) = settled();
    let calls = logins.map(|login| {
        let calls = cost_of(login(&lab)).calls;
        calls.iter().map(|call| call.number).collect::<Vec<_>>()
    });
    let [by_root, by_root_of_2_4, by_user, by_user_of_2_4] = calls;
    assert_eq!(by_root, by_root_of_2_4);
    assert_eq!(by_user, by_user_of_2_4);
}

#[test]
fn it_asks_the_file_server_once() {
    let (lab, logins) = settled();
    for login in logins {
        let cost = cost_of(login(&lab));
        assert_eq!(cost.forced, 1);
        let index = lab.index().display().to_string();
        let looks = cost.opened.iter().filter(|path| path.starts_with(&index));
        assert_eq!(looks.count(), 1, "{:?}", cost.opened);
    }
}

#[test]
fn it_opens_four_files_and_no_other() {
    let (lab, logins) = settled();
    for login in logins {
        let cost = cost_of(login(&lab));
        assert_eq!(
            cost.opened,
            [
                "/etc/dovecot/nfs-hostchange.toml".to_owned(),
                lab.index().display().to_string(),
                lab.list_index(HERE).display().to_string(),
                ".lasthost".to_owned(),
            ]
        );
    }
}

#[test]
fn it_starts_nothing_connects_nothing_lists_nothing_and_writes_nothing() {
    let (lab, logins) = settled();
    let never = [
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_getdents64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_ftruncate,
        libc::SYS_fsync,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
        libc::SYS_fchmod,
        libc::SYS_fchown,
        libc::SYS_umask,
        libc::SYS_clock_nanosleep,
    ];
    for login in logins {
        let cost = cost_of(login(&lab));
        for call in &cost.calls {
            assert!(!never.contains(&call.number), "{call:?}");
        }
        let times = cost
            .calls
            .iter()
            .filter(|call| call.number == libc::SYS_utimensat);
        assert_eq!(times.count(), 1, "the access time of the record");
    }
}

/// System calls of a sweep of so many users whose list index is old, and who have `files` besides.
fn calls_of_sweep(lab: &Lab, users: u32, by_user: bool, files: &[&str]) -> usize {
    let root = Path::new("/dev/shm/list-indexes");
    let hash = root.join("00");
    fs::create_dir_all(&hash).expect("/dev/shm is private");
    for user in 0..users {
        let directory = hash.join(user.to_string());
        fs::create_dir(&directory).expect("/dev/shm is private");
        for name in [".lasthost", PREFIX, "dovecot.list.index.log"] {
            lab.write(&directory.join(name), name);
        }
        for name in files {
            lab.write(&directory.join(name), "");
        }
        set_owner_and_mode(&directory, UID, 0o700);
    }
    set_owner_and_mode(&hash, UID, 0o700);
    set_owner_and_mode(root, UID, 0o700);
    let login = lab.login().with_program(lab.path("bin/command"));
    let mut sweep = if by_user { login.by_user() } else { login }
        .executing(&["usercache", "sweep", "0", "/dev/shm/list-indexes"])
        .at_last(use_one_processor)
        .trace();
    let mut calls = 0;
    loop {
        let call = sweep.next_call();
        match call.number {
            libc::SYS_exit_group => break,
            // Made by the standard library before each close, where it checks itself.
            libc::SYS_fcntl if call.arguments[1] == libc::F_GETFD as u64 => {}
            _ => calls += 1,
        }
    }
    drop(sweep);
    assert_eq!(fs::read_dir(&hash).expect("it stays").count(), 0);
    calls
}

#[test]
fn a_sweep_makes_few_system_calls_for_each_user() {
    let lab = Lab::new();
    lab.install(Path::new(env!("CARGO_BIN_EXE_nfs-hostchange")), "command");
    // With the sign of sessions without list index, somebody may hold that.
    for (files, most) in [(&[][..], 22), (&[".lasthost.without"], 28)] {
        for (by_user, most) in [(true, most), (false, most + 2)] {
            let one = calls_of_sweep(&lab, 1, by_user, files);
            let more = calls_of_sweep(&lab, 11, by_user, files) - one;
            assert!(more <= 10 * most, "{more} calls for ten users, {files:?}");
        }
    }
}

/// A sweep has as many threads as it may use processors.
fn use_one_processor() {
    let this = Pid::from_raw(0);
    let mut one = CpuSet::new();
    let allowed = sched_getaffinity(this).expect("a process may ask");
    let first = (0..CpuSet::count()).find(|&processor| allowed.is_set(processor) == Ok(true));
    one.set(first.expect("it runs on one")).expect("it exists");
    sched_setaffinity(this, &one).expect("it is allowed");
}
