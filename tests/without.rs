//! Sessions without list index, from their beginning to their end: what they did is known to every
//! later one, whatever happens to the process that cares for it.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::scratch::Run;
use common::{
    GID, HERE, Lab, Login, Session, THERE, UID, USER, close, list_index_names, names_in,
    set_owner_and_mode, wait_until,
};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The one process that cares for the one session without list index.
#[track_caller]
fn helper(lab: &Lab) -> Pid {
    let helpers = lab.helpers();
    assert_eq!(helpers.len(), 1, "{helpers:?}");
    helpers[0]
}

fn make_index(lab: &Lab) {
    fs::create_dir(lab.index()).expect("its parent is there");
    set_owner_and_mode(&lab.index(), UID, 0o700);
}

/// Of a new user, for whom nothing can be claimed: there is no INDEX until IMAP makes it.
fn session_of_a_new_user(lab: &Lab) -> Session<'_> {
    fs::remove_dir(lab.index()).expect("it is empty");
    let session = lab.login().staying_open().run();
    session.assert_not_vouched();
    session
}

/// Beside which another backend serves the user.
fn session_that_another_backend_overtakes(lab: &Lab) -> Session<'_> {
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    let session = lab.login().staying_open().run();
    session.assert_not_vouched();
    fs::rename(lab.path("elsewhere"), lab.index()).expect("it is there");
    let claim = lab.claim();
    wait_until("claimed as soon as it can be", || lab.claim() != claim);
    lab.login_at(THERE).run().assert_vouched();
    assert!(lab.is_recorded(THERE));
    session
}

#[test]
fn what_could_not_be_claimed_at_the_beginning_is_claimed_as_soon_as_it_can_be() {
    for by_root in [false, true] {
        let lab = Lab::new();
        fs::remove_dir(lab.index()).expect("it is empty");
        let login = lab.login().staying_open();
        let session = if by_root { login } else { login.by_user() }.run();
        session.assert_not_vouched();
        make_index(&lab);
        wait_until("claimed", || lab.claim_file().exists());
        let status = fs::metadata(lab.claim_file()).expect("it is there");
        assert_eq!((status.uid(), status.mode() & 0o7777), (UID, 0o644));
        assert!(!lab.is_recorded(HERE));
        close(session);
    }
}

#[test]
fn nothing_is_claimed_again_at_the_end_if_nobody_else_did() {
    let lab = Lab::new();
    let session = session_of_a_new_user(&lab);
    make_index(&lab);
    wait_until("claimed", || lab.claim_file().exists());
    let claim = lab.claim();
    close(session);
    wait_until("over", || lab.helpers().is_empty());
    assert_eq!(lab.claim(), claim);
}

#[test]
fn what_another_backend_built_meanwhile_is_not_trusted_when_the_session_is_over() {
    let lab = Lab::with_settled_user();
    let session = session_that_another_backend_overtakes(&lab);
    close(session);
    wait_until("claimed once more", || !lab.is_recorded(THERE));
    wait_until("over", || lab.helpers().is_empty());
    lab.login().run().assert_vouched();
}

#[test]
fn a_session_that_ended_while_nfs_was_away_is_claimed_for_when_that_is_back() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    lab.login().run().assert_not_vouched();
    fs::rename(lab.path("elsewhere"), lab.index()).expect("it is there");
    wait_until("claimed", || !lab.is_recorded(THERE));
    wait_until("over", || lab.helpers().is_empty());
}

#[test]
fn a_helper_that_is_told_to_end_claims_first() {
    let lab = Lab::with_settled_user();
    let session = session_that_another_backend_overtakes(&lab);
    kill(helper(&lab), Signal::SIGTERM).expect("it runs");
    wait_until("claimed once more", || !lab.is_recorded(THERE));
    wait_until("ended", || lab.helpers().is_empty());
    // What it knows of the session is still there.
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    close(session);
    lab.login().run().assert_vouched();
}

/// How long a helper that is told to end may wait for what it still wants to do.
const GRACE: Duration = Duration::from_secs(15);

#[test]
fn a_helper_that_is_told_to_end_does_so_although_index_is_missing() {
    let lab = Lab::new();
    let session = session_of_a_new_user(&lab);
    kill(helper(&lab), Signal::SIGTERM).expect("it runs");
    // The session ends together with it, and nobody can be claimed.
    close(session);
    let began = Instant::now();
    wait_until("ended", || lab.helpers().is_empty());
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_helper_that_is_told_to_end_does_so_although_the_file_server_does_not_answer() {
    let lab = Lab::new();
    let session = session_of_a_new_user(&lab);
    let helper = helper(&lab);
    // Before a call to the server its thread stands still, and notices nothing but its end: as in a call
    // that a dead server does not answer (TASK_KILLABLE).
    ptrace::seize(helper, Options::PTRACE_O_TRACESYSGOOD).expect("it runs");
    ptrace::interrupt(helper).expect("it is traced");
    loop {
        let stopped = waitpid(helper, Some(WaitPidFlag::__WALL)).expect("it is traced");
        let registers = ptrace::getregs(helper).expect("it stands still");
        let memory = format!("/proc/{helper}/mem");
        let mut path = vec![0; lab.index().as_os_str().len() + 1];
        let opens = matches!(stopped, WaitStatus::PtraceSyscall(_))
            && registers.orig_rax == libc::SYS_openat as u64;
        let memory = fs::File::open(memory).expect("it is traced");
        if opens && memory.read_exact_at(&mut path, registers.rsi).is_ok() {
            path.pop();
            if path == lab.index().as_os_str().as_bytes() {
                break;
            }
        }
        ptrace::syscall(helper, None).expect("it stands still");
    }
    kill(helper, Signal::SIGTERM).expect("it is there");
    let began = Instant::now();
    wait_until("ended", || lab.helpers().is_empty());
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    let ended = waitpid(helper, Some(WaitPidFlag::__WALL));
    assert!(ended.is_ok(), "{ended:?}");
    // What it knows of the session is still there.
    make_index(&lab);
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    close(session);
    lab.login().run().assert_vouched();
}

#[test]
fn a_helper_that_is_killed_leaves_behind_who_its_session_is() {
    let lab = Lab::new();
    let session = session_of_a_new_user(&lab);
    let killed = helper(&lab);
    kill(killed, Signal::SIGKILL).expect("it runs");
    wait_until("gone", || lab.helpers().is_empty());
    make_index(&lab);
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    close(session);
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
}

#[test]
fn what_a_killed_helper_could_not_claim_for_does_not_migrate() {
    let lab = Lab::new();
    lab.configure("migration = true\n");
    lab.write(&lab.index().join("dovecot.list.index"), "old");
    lab.write(&lab.index().join("dovecot.list.index.log"), "old");
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    let session = lab.login().staying_open().run();
    session.assert_not_vouched();
    kill(helper(&lab), Signal::SIGKILL).expect("it runs");
    wait_until("gone", || lab.helpers().is_empty());
    // The session goes on, and what it changes no list index is told.
    fs::rename(lab.path("elsewhere"), lab.index()).expect("it is there");
    close(session);
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
    assert_eq!(names_in(&lab.index()), [".lasthost"]);
    assert_eq!(
        names_in(&lab.list_index(HERE)),
        [".lasthost", ".lasthost.without"]
    );
}

/// What `nfs-hostchange` says, as root on the backend.
fn command(lab: &Lab, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"));
    command.args(arguments).env("PATH", lab.path("bin"));
    let run = Run::of(&mut command);
    assert_eq!(run.status, Some(0), "{run:?}");
    assert_eq!(run.stderr, "", "{run:?}");
    run.stdout
}

/// What `status` says of the user.
fn status(lab: &Lab) -> String {
    let doveadm = format!(
        "#!/bin/sh\ncase $* in *' nfs namespaces '*) exit 64 ;; esac\necho 'userdb: {USER}\n  uid : {UID}\n  gid : {GID}\n  home : {}\n  mail_location: {}'\n",
        lab.home().display(),
        lab.location(HERE)
    );
    let path = lab.path("bin/doveadm");
    let is_started = common::starting();
    fs::write(&path, doveadm).expect("the lab's own");
    set_owner_and_mode(&path, 0, 0o755);
    drop(is_started);
    command(lab, &["status", "--user", USER])
}

#[test]
fn what_a_killed_helper_owes_is_not_forgotten_by_cleaning() {
    let lab = Lab::new();
    lab.configure("migration = true\nhostname = \"backend-a\"\n");
    for name in list_index_names() {
        lab.write(&lab.index().join(name), name);
    }
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    let session = lab.login().staying_open().run();
    session.assert_not_vouched();
    kill(helper(&lab), Signal::SIGKILL).expect("it runs");
    wait_until("gone", || lab.helpers().is_empty());
    fs::rename(lab.path("elsewhere"), lab.index()).expect("it is there");
    close(session);
    let directory = lab.list_index(HERE);
    let clean = || {
        let path = directory.to_str().expect("UTF-8");
        command(&lab, &["usercache", "clean", "0", path]);
        let swept = command(&lab, &["usercache", "sweep", "0", "/dev/shm/backend-a"]);
        (names_in(&directory), swept)
    };
    let (left, swept) = clean();
    assert_eq!(left, [".lasthost.without"]);
    assert!(swept.contains(": 0 users, 0 cleaned"), "{swept}");
    let foreseen = status(&lab);
    assert!(
        foreseen.contains("no: the next login deletes the list index that is in INDEX"),
        "{foreseen}"
    );
    let next = lab.login().run();
    next.assert_vouched().assert_logged(&[
        "deleted 4 files",
        "of the list index in",
        "keep it up to date",
    ]);
    assert_eq!(names_in(&lab.index()), [".lasthost"]);
    assert_eq!(lab.planted(HERE), [""; 0], "out of date");
    // Now that the user is claimed, nothing is owed.
    assert_eq!(clean().0, [""; 0]);
}

#[test]
fn status_says_what_keeps_a_user_without_list_index() {
    let lab = Lab::new();
    lab.configure("hostname = \"backend-a\"\n");
    let session = session_of_a_new_user(&lab);
    make_index(&lab);
    let without = "in step     no: a login now would go on without list index: an earlier session \
                   without list index is still open";
    assert!(
        status(&lab).contains(&format!("{without}\n")),
        "{}",
        status(&lab)
    );
    close(session);
    wait_until("over", || lab.helpers().is_empty());
    let begins =
        "in step     no: there is no record here: the next login starts a new list index\n";
    assert!(status(&lab).contains(begins), "{}", status(&lab));
    let yesterday = now() - 7_210;
    claim_naming(
        &lab,
        &format!("without backend-a in a new way @{yesterday}\n"),
    );
    let line = format!(
        "{without}: the claim says \"without backend-a in a new way @{yesterday}\", for 2 hours\n"
    );
    assert!(status(&lab).contains(&line), "{}", status(&lab));
}

#[test]
fn what_is_not_claimed_for_yet_does_not_migrate() {
    let lab = Lab::new();
    lab.configure("migration = true\n");
    for name in list_index_names() {
        lab.write(&lab.index().join(name), name);
    }
    set_owner_and_mode(&lab.index(), UID, 0o500);
    let session = lab.login().staying_open().run();
    session.assert_not_vouched();
    let later = helper(&lab);
    close(session);
    let told = |lab: &Lab| {
        lab.log()
            .iter()
            .any(|line| line.text.contains("trying again"))
    };
    wait_until("it has tried", || told(&lab));
    // As between two attempts.
    kill(later, Signal::SIGSTOP).expect("it runs");
    set_owner_and_mode(&lab.index(), UID, 0o700);
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0], "out of date");
    kill(later, Signal::SIGCONT).expect("it is stopped");
}

#[test]
fn a_helper_keeps_nothing_of_the_session_s_and_nothing_of_root_s() {
    for by_root in [false, true] {
        let lab = Lab::new();
        fs::remove_dir(lab.index()).expect("it is empty");
        let login = lab.login().staying_open();
        let session = if by_root { login } else { login.by_user() }.run();
        let process = format!("/proc/{}", helper(&lab));
        let link = |path: &str| {
            let target = fs::read_link(format!("{process}/{path}")).expect("root may look");
            target.to_string_lossy().into_owned()
        };
        let sign = lab.list_index(HERE).join(".lasthost.without");
        let sign = sign.display().to_string();
        let may_keep = |target: &String| {
            ["/", "anon_inode:[signalfd]", "anon_inode:[pidfd]"].contains(&target.as_str())
                || *target == sign
        };
        wait_until("everything else is closed", || {
            let open = fs::read_dir(format!("{process}/fd")).expect("root may look");
            let open = open.map(|entry| entry.expect("it is listed").file_name());
            open.map(|number| fs::read_link(format!("{process}/fd/{}", number.to_string_lossy())))
                .all(|target| {
                    target.is_ok_and(|target| may_keep(&target.to_string_lossy().into_owned()))
                })
        });
        assert_eq!(link("cwd"), "/");
        let status = fs::read_to_string(format!("{process}/status")).expect("root may look");
        let ids = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let ids = line.expect("it has them").split_whitespace().skip(1);
            ids.map(|id| id.parse().expect("a number"))
                .collect::<Vec<u32>>()
        };
        assert_eq!(ids("Uid:"), [UID; 4], "{status}");
        assert_eq!(ids("Gid:"), [common::GID; 4], "{status}");
        assert!(status.contains("\nCapPrm:\t0000000000000000\n"), "{status}");
        close(session);
    }
}

#[test]
fn whoever_ends_late_takes_nobody_else_s_note_along() {
    let lab = Lab::new();
    let first = session_of_a_new_user(&lab);
    let slow = helper(&lab);
    // As in a call to a slow server.
    kill(slow, Signal::SIGSTOP).expect("it runs");
    close(first);
    let second = lab.login().staying_open().run();
    second.assert_not_vouched();
    let mut others = lab.helpers().into_iter().filter(|&helper| helper != slow);
    let other = others
        .next_back()
        .expect("it stays behind for the second one");
    kill(slow, Signal::SIGCONT).expect("it is stopped");
    make_index(&lab);
    wait_until("it has ended", || !lab.helpers().contains(&slow));
    kill(other, Signal::SIGKILL).expect("it runs");
    wait_until("gone", || lab.helpers().is_empty());
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    close(second);
    lab.login().run().assert_vouched();
}

#[test]
fn of_sessions_whose_index_cannot_be_written_one_process_goes_on() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    set_owner_and_mode(&lab.index(), UID, 0o500);
    for _ in 0..5 {
        lab.login().run().assert_not_vouched();
    }
    wait_until("one is left", || lab.helpers().len() <= 1);
    lab.login().run().assert_not_vouched();
    wait_until("one is left again", || lab.helpers().len() == 1);
    assert!(lab.is_recorded(THERE));
    set_owner_and_mode(&lab.index(), UID, 0o700);
    wait_until("claimed for all of them", || !lab.is_recorded(THERE));
    wait_until("over", || lab.helpers().is_empty());
    lab.login().run().assert_vouched();
}

/// Whose sign has no place in LISTINDEX, but another login's in a moment.
fn session_without_a_place(lab: &Lab) -> Session<'_> {
    session_without_a_place_of(lab, lab.login())
}

fn session_without_a_place_of<'a>(lab: &'a Lab, login: Login<'a>) -> Session<'a> {
    let session = without_a_place(lab, || login.staying_open().run());
    session.assert_not_vouched();
    session
}

/// Does something while nothing can be made in LISTINDEX.
fn without_a_place<T>(lab: &Lab, work: impl FnOnce() -> T) -> T {
    let parent = lab
        .list_index(HERE)
        .parent()
        .expect("it has one")
        .to_owned();
    fs::rename(&parent, parent.with_extension("elsewhere")).expect("it is there");
    // Nothing can be made below it.
    fs::write(&parent, "").expect("/dev/shm is the lab's own");
    let done = work();
    fs::remove_file(&parent).expect("it is there");
    fs::rename(parent.with_extension("elsewhere"), &parent).expect("it is there");
    done
}

/// Whether it is in the text of the standing claim.
fn claim_says(lab: &Lab, part: &str) -> bool {
    let text = fs::read_to_string(lab.claim_file());
    text.expect("the user is claimed").contains(part)
}

#[test]
fn a_session_whose_sign_has_no_place_here_is_named_by_the_claim() {
    let lab = Lab::with_settled_user();
    let session = session_without_a_place(&lab);
    // Nobody leaves its sign later, and nobody holds it.
    kill(helper(&lab), Signal::SIGKILL).expect("it runs");
    assert!(claim_says(&lab, "\nwithout backend-a "));
    // Other backends carry on what it says.
    lab.login_at(THERE).run().assert_vouched();
    assert_eq!(lab.claim().text, "backend-b\n");
    assert!(claim_says(&lab, "\nwithout backend-a "));
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    close(session);
    // Its own backend finds it over.
    lab.login().run().assert_vouched();
    assert!(!claim_says(&lab, "without"));
}

#[test]
fn a_session_that_a_claim_named_which_was_set_aside_is_not_overlooked() {
    let lab = Lab::with_settled_user();
    let session = session_without_a_place(&lab);
    // Nobody leaves its sign later, and nobody holds it.
    kill(helper(&lab), Signal::SIGKILL).expect("it runs");
    // As another session did for want of room.
    let void = lab.index().join(".lasthost-void");
    fs::rename(lab.claim_file(), void).expect("it is there");
    let beside = lab.login().run();
    beside.assert_not_vouched().assert_logged(&["still open"]);
    assert!(claim_says(&lab, "\nwithout backend-a "));
    close(session);
    lab.login().run().assert_vouched();
    assert!(!claim_says(&lab, "without"));
}

#[test]
fn a_session_whose_sign_had_no_place_leaves_it_as_soon_as_there_is_one() {
    let lab = Lab::with_settled_user();
    let session = session_without_a_place(&lab);
    let sign = lab.list_index(HERE).join(".lasthost.without");
    wait_until("it has left its sign", || {
        fs::metadata(&sign).is_ok_and(|sign| sign.len() > 0)
    });
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    close(session);
    // Nor does the claim name it any longer: who carries that on may never be called as before.
    wait_until("over", || lab.helpers().is_empty());
    assert!(!claim_says(&lab, "without"));
    lab.login().run().assert_vouched();
}

/// What another backend's claim says of sessions.
fn claim_naming(lab: &Lab, sessions: &str) {
    lab.write(&lab.claim_file(), format!("backend-b\n{sessions}"));
}

#[test]
fn a_session_that_another_version_wrote_ends_with_the_boot_of_its_host() {
    let lab = Lab::with_settled_user();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it is mounted");
    let boot = boot.replace('-', "");
    claim_naming(
        &lab,
        &format!("without backend-a {} in a new way\n", &boot[..16]),
    );
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    assert!(claim_says(&lab, "in a new way"));
    claim_naming(&lab, "without backend-a 1f in a new way\n");
    lab.login().run().assert_vouched();
    assert!(!claim_says(&lab, "without"));
}

/// In seconds since the epoch.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

#[test]
fn a_line_of_which_nobody_can_tell_whether_it_is_over_counts_for_a_day() {
    let lab = Lab::with_settled_user();
    // Another version that writes it differently, and one on a host that hides its boot.
    for who in ["in a new way", "0 - -"] {
        claim_naming(&lab, &format!("without backend-a {who}\n"));
        let began = now();
        let beside = lab.login().run();
        beside
            .assert_not_vouched()
            .assert_logged(&["still open", who]);
        // Its time begins when it is first seen here.
        let said = (began..=now())
            .any(|time| claim_says(&lab, &format!("\nwithout backend-a {who} @{time}\n")));
        assert!(said, "{:?}", fs::read_to_string(lab.claim_file()));
        claim_naming(
            &lab,
            &format!("without backend-a {who} @{}\n", now() - 86_300),
        );
        lab.login().run().assert_not_vouched();
        claim_naming(
            &lab,
            &format!("without backend-a {who} @{}\n", now() - 86_401),
        );
        lab.login().run().assert_vouched();
        assert!(!claim_says(&lab, "without"));
    }
}

#[test]
fn of_more_sessions_than_a_claim_names_one_line_stands_for_the_others() {
    let lab = Lab::with_settled_user();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it is mounted");
    let boot = &boot.replace('-', "")[..16];
    // All of them are this process's.
    let pid = std::process::id();
    let named = |number| {
        format!(
            "without backend-a {boot} {pid}.0 unix:0:{number:x}:1 @{}\n",
            now()
        )
    };
    let lines: String = (1..=192).map(named).collect();
    claim_naming(&lab, &lines);
    for _ in 0..2 {
        let session = without_a_place(&lab, || lab.login().run());
        session.assert_not_vouched();
        wait_until("over", || lab.helpers().is_empty());
    }
    let text = fs::read_to_string(lab.claim_file()).expect("the user is claimed");
    let many = format!("without backend-a {boot} - - @");
    let (first, rest) = text.split_once("without ").expect("it names some");
    let said: Vec<_> = rest.split("without ").collect();
    assert_eq!(said.len(), 193, "{first}{rest}");
    assert_eq!(text.matches(&many).count(), 1, "{text}");
    // The others are over, and nobody knows about these.
    claim_naming(&lab, &format!("{many}{}\n", now() - 3_600));
    let beside = lab.login().run();
    beside
        .assert_not_vouched()
        .assert_logged(&["still open", &many]);
    claim_naming(&lab, &format!("{many}{}\n", now() - 86_401));
    lab.login().run().assert_vouched();
}

#[test]
fn sessions_of_backends_that_are_gone_do_not_pile_up_in_claims() {
    let lab = Lab::with_settled_user();
    let session = |number| format!("without gone-{number} 1f - -\n");
    claim_naming(&lab, &(0..100).map(session).collect::<String>());
    lab.login().run().assert_vouched();
    let text = fs::read_to_string(lab.claim_file()).expect("the user is claimed");
    assert!(
        text.ends_with(&(36..100).map(session).collect::<String>()),
        "{text}"
    );
    assert!(!text.contains(&session(35)), "{text}");
}

#[test]
fn a_session_that_no_claim_names_any_more_is_claimed_for_at_its_end_all_the_same() {
    let lab = Lab::with_settled_user();
    let session = session_without_a_place(&lab);
    let waiting = helper(&lab);
    // As between two attempts to leave the sign.
    kill(waiting, Signal::SIGSTOP).expect("it runs");
    let named = fs::read_to_string(lab.claim_file()).expect("the user is claimed");
    let named = named.lines().find(|line| line.starts_with("without "));
    let others = |number| format!("without gone-{number} 1f - -\n");
    let others = (0..64).map(others).collect::<String>();
    claim_naming(&lab, &format!("{}\n{others}", named.expect("it is named")));
    lab.login_at("backend-c").run().assert_vouched();
    assert!(!claim_says(&lab, "without backend-a "), "too many");
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
    close(session);
    kill(waiting, Signal::SIGCONT).expect("it is stopped");
    wait_until("over", || lab.helpers().is_empty());
    assert!(!lab.is_recorded(HERE), "what the session did is not in it");
}

#[test]
fn a_session_that_a_claim_names_does_not_last_as_long_as_a_process_that_serves_many() {
    let lab = Lab::with_settled_user();
    let (mail_process, script) = UnixStream::pair().expect("a socket");
    let (from, to) = (script.as_raw_fd(), 3);
    let login = lab.login().at_last(move || {
        // SAFETY: the new process has no other use for that number.
        assert_eq!(unsafe { libc::dup2(from, to) }, to);
    });
    let session = session_without_a_place_of(&lab, login);
    assert!(claim_says(&lab, "\nwithout backend-a "));
    close(session);
    let began = Instant::now();
    while claim_says(&lab, "without") {
        assert!(began.elapsed().as_secs() < 90, "its process goes on");
        std::thread::sleep(Duration::from_millis(100));
    }
    lab.login().run().assert_vouched();
    assert_eq!(lab.helpers().len(), 1, "the process may still expunge");
    drop(mail_process);
}

#[test]
fn of_a_mailbox_with_many_sessions_none_is_open_when_all_have_ended() {
    let lab = Lab::with_settled_user();
    let login = |_| lab.login().staying_open().run();
    let sessions: Vec<_> = without_a_place(&lab, || (0..40).map(login).collect());
    sessions.into_iter().for_each(close);
    wait_until("over", || lab.helpers().is_empty());
    lab.login().run().assert_vouched();
}
