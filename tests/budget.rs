//! What a login costs that finds nothing to do: system calls, and everything that is not done at
//! all. Counted on the program as it is shipped.

mod common;

use std::fs;

use common::trace::Call;
use common::{HERE, Lab, Login, release_wrapper};

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
/// location in the environment and in the file.
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
