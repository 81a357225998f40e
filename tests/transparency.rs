//! The executed program cannot tell that the wrapper ran, but for the fields that switch the list index off.
//!
//! Each test starts the probe once directly and once through the wrapper, in the same state, and
//! compares everything that the probe can learn about its process.

mod common;

use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use common::{GID, HERE, Lab, Login, THERE, set_owner_and_mode};
use nix::sys::stat::{Mode, umask};

/// How Dovecot starts a post-login script.
#[derive(Debug, Clone, Copy)]
enum Start {
    AsRoot,
    AsUser,
}

const STARTS: [Start; 2] = [Start::AsRoot, Start::AsUser];

/// What the wrapper finds to do.
#[derive(Debug, Clone, Copy)]
enum Situation {
    NothingToDo,
    FirstLogin,
    HostChange,
    Migration,
    BrokenConfiguration,
    NoLocation,
    IndexMissing,
    ListIndexUnusable,
}

impl Situation {
    const ALL: [Situation; 8] = [
        Situation::NothingToDo,
        Situation::FirstLogin,
        Situation::HostChange,
        Situation::Migration,
        Situation::BrokenConfiguration,
        Situation::NoLocation,
        Situation::IndexMissing,
        Situation::ListIndexUnusable,
    ];

    fn lab(self) -> Lab {
        let lab = match self {
            Situation::FirstLogin | Situation::Migration => Lab::new(),
            _ => Lab::with_settled_user(),
        };
        match self {
            Situation::NothingToDo | Situation::FirstLogin | Situation::NoLocation => {}
            Situation::HostChange => {
                lab.login_at(THERE).run().assert_vouched();
            }
            Situation::Migration => {
                lab.configure("migration = true\n");
                for name in common::list_index_names() {
                    lab.write(&lab.index().join(name), name);
                }
            }
            Situation::BrokenConfiguration => lab.configure("migration = maybe\n"),
            Situation::IndexMissing => {
                fs::rename(lab.index(), lab.path("elsewhere")).expect("the lab's own");
            }
            Situation::ListIndexUnusable => {
                set_owner_and_mode(&lab.list_index(HERE), common::OTHER_UID, 0o700);
            }
        }
        lab
    }

    fn login(self, lab: &Lab, start: Start) -> Login<'_> {
        let login = match self {
            Situation::NoLocation => lab.login().without_field("MAIL_LOCATION"),
            _ => lab.login(),
        };
        match start {
            Start::AsRoot => login,
            Start::AsUser => login.by_user(),
        }
    }

    fn is_vouched(self) -> bool {
        !matches!(self, Situation::IndexMissing | Situation::ListIndexUnusable)
    }
}

/// Both ways to the probe, from the same state.
#[track_caller]
fn assert_transparent(
    situation: Situation,
    start: Start,
    lab: &Lab,
    state: impl for<'a> Fn(Login<'a>) -> Login<'a>,
) {
    let directly = state(situation.login(lab, start)).run_directly();
    directly.assert_vouched();
    let session = state(situation.login(lab, start)).run();
    let difference = difference(&directly.report().process(), &session.report().process());
    assert!(
        difference.is_empty(),
        "{situation:?} {start:?}: {difference:#?}, {}",
        session.told()
    );
    if situation.is_vouched() {
        session.assert_vouched();
    } else {
        session.assert_not_vouched();
    }
}

/// What only one of both has.
fn difference(directly: &[&str], wrapped: &[&str]) -> Vec<String> {
    let lacking = |mark, these: &[&str], those: &[&str]| -> Vec<String> {
        let lacking = these.iter().filter(|line| !those.contains(line));
        lacking.map(|line| format!("{mark} {line}")).collect()
    };
    let mut difference = lacking("directly:", directly, wrapped);
    difference.extend(lacking("wrapped:", wrapped, directly));
    difference
}

#[test]
fn nothing_changes_in_a_process_as_dovecot_starts_it() {
    for situation in Situation::ALL {
        for start in STARTS {
            let lab = situation.lab();
            assert_transparent(situation, start, &lab, |login| {
                login.at_last(|| {
                    // Dovecot's processes ignore SIGPIPE, and so do their children.
                    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
                    duplicate(0, 3);
                })
            });
        }
    }
}

#[test]
fn nothing_changes_in_a_process_with_everything_set_to_something_odd() {
    for situation in Situation::ALL {
        for start in STARTS {
            let lab = situation.lab();
            let file = lab.path("file");
            fs::write(&file, "0123456789").expect("the lab's own");
            let file = CString::new(file.as_os_str().as_bytes()).expect("it has no NUL");
            assert_transparent(situation, start, &lab, |login| {
                let file = file.clone();
                login
                    .with_groups(&[7, GID, 4, 1_900_000_100])
                    .at_first(make_odd_as_root)
                    .at_last(move || {
                        make_odd();
                        open_odd_descriptors(&file);
                    })
            });
        }
    }
}

#[test]
fn no_signal_is_ignored_or_blocked_for_the_program() {
    for start in STARTS {
        let lab = Situation::HostChange.lab();
        assert_transparent(Situation::HostChange, start, &lab, |login| {
            login.at_last(|| {
                for signal in 1..=64 {
                    set_disposition(signal, libc::SIG_DFL);
                }
                block_signals(&[]);
            })
        });
    }
}

#[test]
fn every_signal_that_can_be_ignored_and_blocked_stays_so() {
    for start in STARTS {
        let lab = Situation::HostChange.lab();
        assert_transparent(Situation::HostChange, start, &lab, |login| {
            login.at_last(|| {
                let all: Vec<c_int> = (1..=64).collect();
                for &signal in &all {
                    set_disposition(signal, libc::SIG_IGN);
                }
                block_signals(&all);
            })
        });
    }
}

#[test]
fn descriptors_0_1_and_2_that_are_closed_stay_closed() {
    for situation in [
        Situation::NothingToDo,
        Situation::HostChange,
        Situation::IndexMissing,
    ] {
        for start in STARTS {
            for closed in 1..8 {
                let lab = situation.lab();
                assert_transparent(situation, start, &lab, |login| {
                    login.at_last(move || {
                        for number in (0..3).filter(|number| closed & (1 << number) != 0) {
                            // SAFETY: the process is about to execute another program.
                            unsafe { libc::close(number) };
                        }
                    })
                });
            }
        }
    }
}

#[test]
fn a_closed_standard_error_without_syslog_keeps_messages_out_of_other_files() {
    for start in STARTS {
        let lab = Situation::IndexMissing.lab();
        lab.stop_syslog(false);
        for closed in [&[2][..], &[0, 1, 2]] {
            let session = Situation::IndexMissing
                .login(&lab, start)
                .at_last(move || {
                    for &number in closed {
                        // SAFETY: the process is about to execute another program.
                        unsafe { libc::close(number) };
                    }
                })
                .run();
            assert_eq!(session.stderr, "");
            session.report();
            let content =
                fs::read_to_string(lab.record_file(HERE)).expect("the lock file is there");
            assert!(!content.contains("nfs-hostchange"), "{content:?}");
        }
    }
}

/// An environment and arguments that no parser of text would bring through.
fn make_strings_odd(login: Login<'_>) -> Login<'_> {
    let mut login = login
        .entry("TWICE=first")
        .entry("TWICE=second")
        .entry("EMPTY=")
        .entry("=NAMELESS")
        .entry("NO_EQUALS_SIGN")
        .entry("")
        .entry(b"\xff\xfe=\x80\xc3\x28")
        .entry("LINES=one\ntwo\r\n\ttab \u{1b}[0m")
        .entry("NAMESPACE/INBOX/SEPARATOR=/")
        .entry([b"LONG=".to_vec(), vec![b'x'; 100_000]].concat());
    for argument in [
        &b""[..],
        b"--config=/nowhere",
        b"--",
        b"-x",
        b"two words",
        b"\xff\xfe\n",
        b"",
    ] {
        login = login.argument(argument);
    }
    login
}

#[test]
fn arguments_and_environment_arrive_in_order_and_to_the_byte() {
    for situation in Situation::ALL {
        for start in STARTS {
            let lab = situation.lab();
            assert_transparent(situation, start, &lab, make_strings_odd);
        }
    }
}

#[test]
fn an_empty_environment_stays_empty() {
    let lab = Lab::new();
    lab.login().environment(Vec::new()).run().assert_vouched();
}

#[test]
fn a_session_without_list_index_keeps_everything_else_of_its_environment() {
    let lab = Situation::IndexMissing.lab();
    for start in STARTS {
        let login = || Situation::IndexMissing.login(&lab, start);
        // The fields of every kind of Dovecot, once or twice.
        let location = lab.location(HERE);
        login()
            .set_field("MAIL", "mdbox:~/x")
            .run()
            .assert_not_vouched();
        let own = login().set_field("NAMESPACE/INBOX/LOCATION", &location);
        own.entry("MAIL_LOCATION=x").run().assert_not_vouched();
        // The store of other namespaces.
        let own = login().set_field("NAMESPACE/INBOX/LOCATION", &location);
        own.set_field("MAIL_LOCATION", "mdbox:~/other:LISTINDEX=/x/y")
            .run()
            .assert_not_vouched();
        // getenv(3) finds the first of two, and so does script-login.
        login()
            .entry("USERDB_KEYS=SECOND ")
            .run()
            .assert_not_vouched();
    }
}

#[test]
fn the_list_index_is_switched_off_in_the_words_of_the_dovecot_that_the_fields_are_of() {
    let lab = Situation::IndexMissing.lab();
    let location = lab.location(HERE);
    let of_2_4 = || lab.login().of_2_4();
    of_2_4().run().assert_not_vouched();
    // Fields of both: a location of the namespace would end the login on Dovecot 2.4.2.
    let both = || of_2_4().set_field("MAIL_LOCATION", &location);
    both().run().assert_not_vouched();
    let own = both().set_field("NAMESPACE/INBOX/LOCATION", &location);
    own.run().assert_not_vouched();
    // Where the userdb itself switches it on.
    for field in [
        "NAMESPACE/INBOX/MAILBOX_LIST_INDEX",
        "SET/NAMESPACE/INBOX/MAILBOX_LIST_INDEX",
        "NAMESPACE/INBOX/MDBOX/MAILBOX_LIST_INDEX",
        "SET/NAMESPACE/INBOX/LAYOUT_FS/MAILBOX_LIST_INDEX",
        "NAMESPACE/INBOX/MAILBOX_LIST_INDEX+",
        // Those of others are theirs.
        "NAMESPACE/OTHER/MDBOX/MAILBOX_LIST_INDEX",
        "MDBOX/MAILBOX_LIST_INDEX",
    ] {
        of_2_4().set_field(field, "yes").run().assert_not_vouched();
    }
    let directory = lab.list_index(HERE);
    let prefix = directory.join("other").as_os_str().as_bytes().to_vec();
    for field in [
        "SET/MAILBOX_LIST_INDEX_PREFIX",
        "SET/NAMESPACE/INBOX/MAILBOX_LIST_INDEX_PREFIX",
        "NAMESPACE/INBOX/MAILBOX_LIST_INDEX_PREFIX",
    ] {
        of_2_4()
            .set_field(field, &prefix)
            .run()
            .assert_not_vouched();
    }
    // The global one may be all that another namespace has.
    let own = of_2_4().without_field("MAILBOX_LIST_INDEX_PREFIX");
    let own = own.set_field("NAMESPACE/INBOX/MAILBOX_LIST_INDEX_PREFIX", &prefix);
    let session = own.run();
    session.assert_not_vouched();
    let environment = session.report().all("environment");
    let is_global = |entry: &String| entry.starts_with("MAILBOX_LIST_INDEX_PREFIX=");
    assert!(!environment.iter().any(is_global), "{environment:?}");
}

#[test]
fn the_namespace_may_have_another_name() {
    let lab = Situation::IndexMissing.lab();
    lab.configure("inbox_namespace = \"Main\"\n");
    let location = lab.location(HERE);
    let own = lab.login().set_field("NAMESPACE/MAIN/LOCATION", &location);
    let sessions = [own.run(), lab.login().of_2_4().run()];
    let expected = [
        &format!("NAMESPACE/MAIN/LOCATION={location}:LISTINDEX="),
        "NAMESPACE/MAIN/MAILBOX_LIST_INDEX=no",
    ];
    for (session, expected) in sessions.iter().zip(expected) {
        let environment = session.report().all("environment");
        let is_there = |entry: &String| entry.starts_with(expected);
        assert!(environment.iter().any(is_there), "{environment:?}");
        assert!(!environment.iter().any(|entry| entry.contains("/INBOX/")));
    }
    lab.configure("");
    let login = lab.login().without_field("MAIL_LOCATION");
    let login = login.set_field("NAMESPACE/MAIN/LOCATION", &location);
    login
        .run()
        .assert_vouched()
        .assert_logged(&["does not return"]);
}

#[test]
fn fields_of_two_dovecots_that_lead_to_different_places_vouch_for_neither() {
    let lab = Lab::with_settled_user();
    let claim = lab.claim();
    let both = || lab.login().of_2_4();
    let same = both().set_field("MAIL_LOCATION", lab.location(HERE));
    same.run().assert_vouched().assert_silent();
    let other = both().set_field("MAIL_LOCATION", lab.location("elsewhere"));
    other.run().assert_refused(&["different places"]);
    // An address is no location.
    let address = both().set_field("MAIL", "alice@example.org");
    address.run().assert_vouched().assert_silent();
    assert_eq!(lab.claim(), claim);
}

#[test]
fn no_field_says_where_mails_are_that_the_userdb_did_not_return() {
    let lab = Situation::IndexMissing.lab();
    for keys in ["HOME UID GID MAIL_LOCATION ", " MAIL HOME UID GID "] {
        let login = lab.login().set("MAIL", lab.location(HERE));
        let session = login.set("USERDB_KEYS", keys).run();
        let environment = session.report().all("environment");
        assert!(
            environment.contains(&format!("USERDB_KEYS={keys}")),
            "{}",
            session.told()
        );
        assert!(common::is_switched_off(&environment), "{environment:?}");
    }
}

#[test]
fn userdb_keys_gets_the_keys_at_its_end_whatever_it_was() {
    let lab = Situation::IndexMissing.lab();
    const ADDED: &str =
        "NAMESPACE/INBOX/MAILBOX_LIST_INDEX NAMESPACE/INBOX/MAILBOX_LIST_INDEX_PREFIX ";
    for (keys, separator) in [
        (
            "HOME UID GID MAIL_DRIVER MAIL_PATH MAILBOX_LIST_INDEX_PREFIX ",
            "",
        ),
        // Another script of the chain may have trimmed the space that Dovecot puts there.
        (
            " MAIL_DRIVER MAIL_PATH MAILBOX_LIST_INDEX_PREFIX HOME UID GID",
            " ",
        ),
    ] {
        let session = lab.login().of_2_4().set("USERDB_KEYS", keys).run();
        let environment = session.report().all("environment");
        let keys = format!("USERDB_KEYS={keys}{separator}{ADDED}");
        assert!(environment.contains(&keys), "{}", session.told());
        assert!(common::is_switched_off(&environment), "{environment:?}");
    }
}

#[test]
fn wrappers_chain() {
    let lab = Lab::new();
    let wrapper = lab.wrapper();
    lab.login()
        .option(wrapper.as_os_str().as_bytes())
        .run()
        .assert_vouched();
    assert!(lab.is_recorded(HERE));
    let claim = lab.claim();
    lab.login()
        .option(wrapper.as_os_str().as_bytes())
        .run()
        .assert_vouched()
        .assert_silent();
    assert_eq!(lab.claim(), claim);
}

#[test]
fn a_list_index_that_one_wrapper_of_a_chain_refused_stays_refused() {
    let lab = Situation::IndexMissing.lab();
    let wrapper = lab.wrapper();
    let session = lab.login().option(wrapper.as_os_str().as_bytes()).run();
    let environment = session.report().all("environment");
    assert!(common::is_switched_off(&environment), "{environment:?}");
}

/// Things that only root can set, or only on files of root's.
fn make_odd_as_root() {
    let failed = "root may do this";
    fs::write("/proc/self/oom_score_adj", "321").expect(failed);
    fs::write("/proc/self/coredump_filter", "0x13").expect(failed);
    // SAFETY: these calls take numbers, and structures that live long enough.
    unsafe {
        assert_eq!(libc::setpriority(libc::PRIO_PROCESS, 0, 7), 0);
        let parameters = MaybeUninit::<libc::sched_param>::zeroed().assume_init();
        assert_eq!(
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters),
            0
        );
        // Best effort, the second last level.
        assert_eq!(libc::syscall(libc::SYS_ioprio_set, 1, 0, (2 << 13) | 6), 0);
        const CAP_NET_BIND_SERVICE: libc::c_ulong = 10;
        const CAP_SYS_BOOT: libc::c_ulong = 22;
        assert_eq!(libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_BOOT), 0);
        // capget(2), version 3: effective, permitted, inheritable, twice.
        let header = [0x2008_0522u32, 0];
        let mut sets = [0u32; 6];
        assert_eq!(libc::syscall(libc::SYS_capget, &header, &mut sets), 0);
        sets[2] |= 1 << CAP_NET_BIND_SERVICE;
        assert_eq!(libc::syscall(libc::SYS_capset, &header, &sets), 0);
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        assert_eq!(
            libc::prctl(libc::PR_CAP_AMBIENT, raise, CAP_NET_BIND_SERVICE, 0, 0),
            0
        );
        const SECBIT_NO_CAP_AMBIENT_RAISE: libc::c_ulong = 1 << 6;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE),
            0
        );
    }
}

fn make_odd() {
    std::env::set_current_dir("/dev/shm").expect("everybody may be there");
    umask(Mode::from_bits_truncate(0o027));
    for (resource, soft) in [
        (libc::RLIMIT_AS, 256 << 20),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_CPU, 1000),
        (libc::RLIMIT_DATA, 200 << 20),
        (libc::RLIMIT_FSIZE, 1 << 30),
        (libc::RLIMIT_MEMLOCK, 4096),
        (libc::RLIMIT_NOFILE, 300),
        (libc::RLIMIT_NPROC, 5000),
        (libc::RLIMIT_STACK, 1 << 20),
        (libc::RLIMIT_SIGPENDING, 100),
        (libc::RLIMIT_RTTIME, 1 << 30),
    ] {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: 2 * soft,
        };
        // SAFETY: setrlimit reads one structure.
        assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
    }
    // SAFETY: these calls take numbers, and structures that live long enough.
    unsafe {
        assert_ne!(libc::personality(libc::ADDR_NO_RANDOMIZE as _), -1);
        for (option, value) in [
            (libc::PR_SET_PDEATHSIG, libc::SIGUSR2 as libc::c_ulong),
            (libc::PR_SET_TIMERSLACK, 77_777),
            (libc::PR_SET_CHILD_SUBREAPER, 1),
            (libc::PR_SET_THP_DISABLE, 1),
            (libc::PR_SET_NO_NEW_PRIVS, 1),
        ] {
            assert_eq!(libc::prctl(option, value, 0, 0, 0), 0, "prctl {option}");
        }
        for (which, seconds) in [
            // In the middle of a minute, since the probe counts these.
            (libc::ITIMER_REAL, 1050),
            (libc::ITIMER_VIRTUAL, 2010),
            (libc::ITIMER_PROF, 3030),
        ] {
            let value = libc::itimerval {
                it_value: time(seconds, 0),
                it_interval: time(7, 500_000),
            };
            assert_eq!(libc::setitimer(which, &value, std::ptr::null_mut()), 0);
        }
    }
    for signal in [
        libc::SIGPIPE,
        libc::SIGHUP,
        libc::SIGXFSZ,
        libc::SIGCHLD,
        40,
    ] {
        set_disposition(signal, libc::SIG_IGN);
    }
    let queued = libc::SIGRTMIN() + 3;
    block_signals(&[libc::SIGTERM, libc::SIGUSR1, libc::SIGPIPE, queued]);
    // SAFETY: signals to this process itself, all of them blocked.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGTERM);
        libc::raise(libc::SIGUSR1);
        for value in [4711, 4712] {
            let value = libc::sigval {
                sival_ptr: std::ptr::without_provenance_mut(value),
            };
            assert_eq!(libc::sigqueue(libc::getpid(), queued, value), 0);
        }
    }
}

fn time(seconds: i64, microseconds: i64) -> libc::timeval {
    libc::timeval {
        tv_sec: seconds,
        tv_usec: microseconds,
    }
}

/// Files, a directory, a pipe and sockets at the numbers that script-login has them, and others.
fn open_odd_descriptors(file: &CStr) {
    // SAFETY: numbers, and strings that live long enough. Whatever these descriptors were, the
    // process is about to execute another program.
    unsafe {
        let append = libc::open(
            file.as_ptr(),
            libc::O_RDONLY | libc::O_APPEND | libc::O_CLOEXEC,
        );
        assert_eq!(libc::lseek(append, 5, libc::SEEK_SET), 5);
        let path = libc::open(file.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
        let directory = libc::open(c"/".as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC);
        let mut pipe = [0; 2];
        assert_eq!(
            libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC),
            0
        );
        for (from, to) in [
            (append, 280),
            (path, 281),
            (directory, 282),
            (pipe[0], 283),
            (pipe[1], 284),
        ] {
            assert_eq!(libc::dup3(from, to, libc::O_CLOEXEC), to);
        }
        // The second one is another name for the same open file.
        for (from, to) in [
            (0, 3),
            (280, 4),
            (280, 5),
            (281, 6),
            (282, 9),
            (283, 200),
            (284, 251),
        ] {
            duplicate(from, to);
        }
        assert_eq!(libc::dup3(280, 7, libc::O_CLOEXEC), 7);
        libc::close(8);
    }
}

fn duplicate(from: c_int, to: c_int) {
    // SAFETY: numbers only; the process is about to execute another program.
    assert_eq!(unsafe { libc::dup2(from, to) }, to);
}

fn set_disposition(signal: c_int, disposition: libc::sighandler_t) {
    // SAFETY: no handler is installed. It fails for SIGKILL and SIGSTOP, and the C library's own.
    unsafe { libc::signal(signal, disposition) };
}

fn block_signals(signals: &[c_int]) {
    // SAFETY: zero is a valid empty set, and the calls only change it.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}
