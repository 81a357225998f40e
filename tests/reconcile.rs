//! Logins that go well: who claims, what is thrown away, and when nothing is done.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::trace::{Call, Traced};
use common::{
    GID, HERE, Lab, Login, OTHER_UID, PREFIX, STARTS, Session, THERE, UID, claim_in, close,
    list_index_names, names_in, record, set_owner_and_mode,
};
use nix::mount::{MsFlags, mount};

#[test]
fn the_first_login_claims_the_user_and_records_the_claim() {
    for started in STARTS {
        let lab = Lab::new();
        started(&lab)
            .run()
            .assert_vouched()
            .assert_logged(&["user=alice: ", "first login", HERE]);
        assert_eq!(lab.claim().text, "backend-a\n");
        assert!(lab.is_recorded(HERE));
        for file in [lab.claim_file(), lab.record_file(HERE)] {
            let status = fs::metadata(&file).expect("it was made");
            assert_eq!(
                (status.uid(), status.gid()),
                (UID, GID),
                "{}",
                file.display()
            );
            // Another user whose mailbox it is too must be able to read the claim.
            let mode = if file == lab.claim_file() {
                0o644
            } else {
                0o600
            };
            assert_eq!(status.mode() & 0o7777, mode, "{}", file.display());
        }
        assert_eq!(names_in(&lab.index()), [".lasthost"]);
        assert_eq!(
            names_in(&lab.list_index(HERE)),
            [".lasthost", ".lasthost.without"]
        );
    }
}

#[test]
fn steady_logins_never_claim_never_log_and_leave_the_list_index_alone() {
    let lab = Lab::with_settled_user();
    let claim = lab.claim();
    let unchanged = || {
        let index = fs::metadata(lab.index()).expect("INDEX is there");
        let record = fs::metadata(lab.record_file(HERE)).expect("the record is there");
        (
            (index.ctime(), index.ctime_nsec()),
            (record.ino(), record.mtime(), record.mtime_nsec()),
            list_index_names().map(|name| fs::read(lab.list_index(HERE).join(name)).ok()),
        )
    };
    let before = unchanged();
    for _ in 0..5 {
        lab.login().run().assert_vouched().assert_silent();
        lab.login().by_user().run().assert_vouched().assert_silent();
    }
    assert_eq!(lab.claim(), claim);
    assert_eq!(unchanged(), before);
}

#[test]
fn each_move_claims_by_a_new_file_that_is_later_and_throws_the_local_list_index_away() {
    let lab = Lab::with_settled_user();
    let mut hosts = [(HERE, THERE), (THERE, HERE)].iter().cycle();
    for _ in 0..6 {
        let (from, to) = hosts.next().expect("a cycle");
        let before = lab.claim();
        let old_claim = File::open(lab.claim_file()).expect("the user is claimed");
        let session = lab.login_at(to).run();
        session.assert_vouched();
        session.assert_logged(&["user=alice: ", &format!("host changed from {from} to {to}")]);

        let after = lab.claim();
        assert_eq!(after.text, format!("{to}\n"));
        assert_ne!(after.inode, before.inode);
        assert!((after.seconds, after.nanoseconds) > (before.seconds, before.nanoseconds));
        // Not rewritten: other backends would not notice.
        let mut text = vec![0; 100];
        let length = old_claim.read_at(&mut text, 0).expect("it is open");
        assert!(text[..length].starts_with(before.text.as_bytes()));

        assert!(lab.is_recorded(to));
        assert!(!lab.is_recorded(from));
        assert_eq!(lab.planted(to), [""; 0], "stale");
        assert_eq!(lab.planted(from), list_index_names(), "another backend's");
        lab.plant_list_index(to);
    }
    assert_eq!(names_in(&lab.index()), [".lasthost"]);
}

#[test]
fn two_hosts_of_one_name_are_two_backends() {
    let lab = Lab::with_settled_user();
    let other = lab.location(THERE);
    let claim = lab.claim();
    // Neither sees the other's files.
    let (here, away) = (lab.list_index(HERE), Path::new("/dev/shm/away"));
    fs::rename(&here, away).expect("it is the lab's own");
    lab.login().location(&other).run().assert_vouched();
    assert_ne!(lab.claim(), claim);
    fs::rename(away, &here).expect("its name is free");
    fs::remove_dir_all(lab.list_index(THERE)).expect("it is there");
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn a_claim_that_is_gone_is_not_what_was_recorded() {
    let lab = Lab::with_settled_user();
    fs::remove_file(lab.claim_file()).expect("the user is claimed");
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn neither_inode_nor_time_alone_identifies_a_claim() {
    // What is added to inode number, seconds and nanoseconds.
    for difference in [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]] {
        let lab = Lab::with_settled_user();
        let claim = lab.claim();
        let [inode, seconds, nanoseconds] = difference;
        let changed = (
            claim.inode.wrapping_add_signed(inode),
            claim.seconds + seconds,
            (claim.nanoseconds + nanoseconds).rem_euclid(1_000_000_000),
        );
        let index = fs::metadata(lab.index()).expect("it is there").ino();
        let line = record::line(changed, index, PREFIX);
        let record = record::text(&lab.record_file(HERE), HERE, &line);
        fs::write(lab.record_file(HERE), record).expect("the record is there");
        lab.login().run().assert_vouched();
        let kept = lab.planted(HERE) == list_index_names();
        assert_eq!(kept, difference == [0; 3], "{difference:?}");
        assert!(lab.is_recorded(HERE));
    }
}

#[test]
fn a_claim_in_the_future_is_followed_by_a_later_one() {
    let lab = Lab::with_settled_user();
    let ahead = SystemTime::now() + Duration::from_secs(86_400);
    File::open(lab.claim_file())
        .and_then(|claim| claim.set_modified(ahead))
        .expect("root may");
    let before = lab.claim();
    lab.login_at(THERE).run().assert_vouched();
    let after = lab.claim();
    assert!((after.seconds, after.nanoseconds) > (before.seconds, before.nanoseconds));
    lab.login().run().assert_vouched();
    assert!((lab.claim().seconds, lab.claim().nanoseconds) > (after.seconds, after.nanoseconds));
    assert!(lab.is_recorded(HERE));
}

/// The last second that a file system with 32-bit times knows.
const END_OF_TIME: i64 = i32::MAX as i64;

/// A login that finds the claim on such a file system.
fn before_the_end_of_time(login: Login<'_>) -> Session<'_> {
    let mut login = login.trace();
    while let Some(call) = login.run_to(|_, call| call.number == libc::SYS_utimensat) {
        let modified = call.arguments[2] + size_of::<libc::timespec>() as u64;
        let mut seconds = [0; 8];
        let memory = login.memory();
        memory
            .read_exact_at(&mut seconds, modified)
            .expect("two times");
        let kept = i64::from_ne_bytes(seconds).min(END_OF_TIME);
        memory
            .write_all_at(&kept.to_ne_bytes(), modified)
            .expect("its own");
    }
    login.finish()
}

#[test]
fn a_claim_at_the_end_of_time_is_followed_by_one_that_differs() {
    let lab = Lab::with_settled_user();
    let end = UNIX_EPOCH + Duration::from_secs(END_OF_TIME as u64);
    File::open(lab.claim_file())
        .and_then(|claim| claim.set_modified(end))
        .expect("root may");
    let mut times = vec![lab.claim().seconds];
    for host in [THERE, HERE, "backend-c"] {
        before_the_end_of_time(lab.login_at(host)).assert_vouched();
        assert!(lab.is_recorded(host));
        times.push(lab.claim().seconds);
    }
    assert!(
        times[1..].iter().all(|&time| time < END_OF_TIME),
        "{times:?}"
    );
}

#[test]
fn a_claim_that_does_not_differ_from_others_is_none() {
    let lab = Lab::new();
    let mut login = lab.login().trace();
    while let Some(call) = login.run_to(|_, call| call.number == libc::SYS_utimensat) {
        let modified = call.arguments[2] + size_of::<libc::timespec>() as u64;
        let memory = login.memory();
        memory
            .write_all_at(&END_OF_TIME.to_ne_bytes(), modified)
            .expect("its own");
    }
    login.finish().assert_refused(&[
        "session without list index: cannot write ",
        &lab.claim_file().display().to_string(),
        "Value too large",
    ]);
    assert!(!lab.claim_file().exists());
    assert_eq!(lab.record(HERE), None);
}

/// The calls that change something, as words.
fn change(login: &Traced<'_>, call: &Call) -> Option<String> {
    let [first, second, third, fourth, ..] = call.arguments;
    let name = |address| login.string(address);
    if let Some((name, flags)) = login.opened(call) {
        let creates = flags & libc::O_CREAT as u64 != 0;
        return creates.then(|| format!("create {name}"));
    }
    match call.number {
        libc::SYS_ftruncate => Some("truncate".to_owned()),
        libc::SYS_unlinkat => Some(format!("unlink {}", name(second))),
        libc::SYS_renameat => Some(format!("rename {} {}", name(second), name(fourth))),
        libc::SYS_fsync => Some("sync".to_owned()),
        libc::SYS_utimensat => Some("set times".to_owned()),
        libc::SYS_write if first > 2 => Some("write".to_owned()),
        libc::SYS_pwrite64 => Some("write".to_owned()),
        libc::SYS_statx if third & libc::AT_STATX_FORCE_SYNC as u64 != 0 => {
            Some("look at INDEX".to_owned())
        }
        _ => None,
    }
}

#[test]
fn the_record_is_emptied_then_the_list_index_deleted_then_claimed_then_recorded() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    let mut login = lab.login().by_user().trace();
    let mut changes: Vec<String> = Vec::new();
    loop {
        let call = login.next_call();
        match call.number {
            libc::SYS_execve => break,
            // How the new claim's attributes are asked for does not matter here.
            libc::SYS_statx if changes.last().is_some_and(|last| last == "set times") => {}
            libc::SYS_socket => {
                changes.push("log".to_owned());
                break;
            }
            _ => changes.extend(change(&login, &call)),
        }
    }
    login.finish().assert_vouched();
    let deleted = changes.iter().filter(|change| change.starts_with("unlink"));
    assert_eq!(deleted.count(), 4, "{changes:#?}");
    changes.retain(|change| !change.starts_with("unlink dovecot.list.index."));
    assert_eq!(
        changes,
        [
            "look at INDEX",
            "create .lasthost",
            "look at INDEX",
            "write",
            "unlink dovecot.list.index",
            "create .lasthost.45",
            "write",
            "sync",
            "set times",
            "rename .lasthost.45 .lasthost",
            "create .lasthost.without",
            "write",
            "truncate",
            "set times",
            "log",
        ]
    );
}

/// The next login on [`HERE`] does not believe what stands there, and then all is well.
fn assert_begins_anew(lab: &Lab, what: &str) {
    let claim = lab.claim();
    lab.login().run().assert_vouched();
    assert_ne!(lab.claim(), claim, "{what} was believed");
    assert_eq!(lab.planted(HERE), [""; 0], "{what}");
    assert!(lab.is_recorded(HERE), "{what}");
}

#[test]
fn a_copy_of_a_local_directory_vouches_for_nothing() {
    let lab = Lab::with_settled_user();
    let before = fs::read_to_string(lab.record_file(HERE)).expect("there is one");
    let directory = lab.list_index(HERE);
    let backup = directory.with_extension("backup");
    for (from, to) in [(&directory, &backup), (&backup, &directory)] {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.expect("cp runs").success());
        fs::remove_dir_all(from).expect("it is there");
    }
    assert_eq!(
        fs::read_to_string(lab.record_file(HERE)).expect("a copy"),
        before
    );
    assert_begins_anew(&lab, "a copy");
}

#[test]
fn a_file_that_got_the_number_of_the_one_before_it_vouches_for_nothing() {
    let lab = Lab::with_settled_user();
    let file = lab.record_file(HERE);
    let record = lab.record(HERE).expect("there is one");
    let first = record.lines().next().expect("it has lines");
    let born = first.split(' ').nth(3).expect("it says so");
    // As if this file had another time of birth than the one that the record was written to.
    let other = format!("2{}", &born[1..]);
    assert_ne!(born, other);
    fs::write(&file, record.replacen(born, &other, 1)).expect("it is there");
    assert_begins_anew(&lab, "the number of an inode");
}

#[test]
fn a_claim_in_another_directory_than_before_is_not_what_was_recorded() {
    let lab = Lab::with_settled_user();
    let old = lab.path("old-index");
    fs::rename(lab.index(), &old).expect("it is there");
    fs::create_dir(lab.index()).expect("its name is free");
    set_owner_and_mode(&lab.index(), UID, 0o700);
    fs::rename(old.join(".lasthost"), lab.claim_file()).expect("the user is claimed");
    assert_begins_anew(&lab, "a claim that was moved");
}

#[test]
fn a_cloned_machine_vouches_for_nothing_under_its_new_name() {
    let lab = Lab::with_settled_user();
    lab.configure("hostname = 'clone'\n");
    let claim = lab.claim();
    lab.login().run().assert_vouched();
    assert_ne!(lab.claim(), claim);
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn two_list_indexes_in_one_directory_have_a_record_each() {
    let lab = Lab::with_settled_user();
    let archive = lab.home().join("archive");
    fs::create_dir(&archive).expect("its name is free");
    set_owner_and_mode(&archive, UID, 0o700);
    let location = format!(
        "mdbox:~/archive:LISTINDEX={}/archive%lists",
        lab.list_index(HERE).display()
    );
    let first = lab.claim();
    lab.login().location(&location).run().assert_vouched();
    let second = claim_in(&archive.join(".lasthost"));
    for _ in 0..2 {
        lab.login().run().assert_vouched().assert_silent();
        let other = lab.login().location(&location).run();
        other.assert_vouched().assert_silent();
    }
    assert_eq!(lab.claim(), first);
    assert_eq!(claim_in(&archive.join(".lasthost")), second);
    assert_eq!(lab.planted(HERE), list_index_names());
    // One begins anew, the other does not notice.
    fs::remove_file(archive.join(".lasthost")).expect("it is there");
    lab.login().location(&location).run().assert_vouched();
    lab.login().run().assert_vouched().assert_silent();
    assert_eq!(lab.claim(), first);
}

#[test]
fn of_two_names_for_one_mailbox_one_has_a_list_index() {
    let lab = Lab::with_settled_user();
    let other = lab.list_index(HERE).with_file_name("alice@example.org");
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
        lab.index().display(),
        other.display()
    );
    let first = lab.list_index(HERE).join(PREFIX).display().to_string();
    for _ in 0..2 {
        let session = lab.login().location(&location).run();
        session.assert_refused(&[&first, "two user names"]);
        assert!(session.log[0].is_error());
        // Else it may find another claim at its end.
        common::wait_until("over", || lab.helpers().is_empty());
        // What that session did is not in the list index of the other name.
        let claim = lab.claim();
        lab.login().run().assert_vouched();
        assert_ne!(lab.claim(), claim);
        assert_eq!(lab.planted(HERE), [""; 0]);
        lab.plant_list_index(HERE);
    }
    // Elsewhere it is a user who moves, as ever.
    lab.login_at(THERE).run().assert_vouched();
    lab.login().run().assert_vouched();
    // LISTINDEX was changed, and the administrator says so.
    fs::write(lab.record_file(HERE), " \n").expect("it is there");
    lab.login().location(&location).run().assert_vouched();
    lab.login()
        .location(&location)
        .run()
        .assert_vouched()
        .assert_silent();
    lab.login().run().assert_not_vouched();
}

#[test]
fn a_session_by_another_name_counts_although_its_lock_file_was_taken_away() {
    let lab = Lab::with_settled_user();
    let other = lab.list_index(HERE).with_file_name("alice@example.org");
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
        lab.index().display(),
        other.display()
    );
    let session = File::open(lab.list_index(HERE).join("dovecot.list.index.log"));
    let session = session.expect("it is there");
    fs::remove_file(lab.record_file(HERE)).expect("it is there");
    lab.login().location(&location).run().assert_not_vouched();
    common::close(session);
    common::wait_until("over", || lab.helpers().is_empty());
    lab.login().location(&location).run().assert_vouched();
}

#[test]
fn a_directory_by_another_path_is_the_same_one() {
    let lab = Lab::new();
    let directory = lab.list_index(HERE).display().to_string();
    let spelled = directory.replacen("/dev/shm/", "/dev/shm//", 1);
    let location = |directory: &str, prefix: &str| {
        let index = lab.index();
        format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={directory}/{prefix}",
            index.display()
        )
    };
    let login = |directory: &str, prefix| lab.login().location(location(directory, prefix)).run();
    login(&spelled, PREFIX).assert_vouched();
    // Booted anew, and written otherwise.
    fs::remove_dir_all(&directory).expect("/dev/shm is the lab's own");
    login(&directory, PREFIX).assert_vouched();
    // Another list index there, of which nothing is recorded after "usercache forget", is none.
    fs::write(lab.record_file(HERE), " \n").expect("it is there");
    login(&directory, "list").assert_vouched();
    // With a record it is one.
    login(&directory, PREFIX).assert_not_vouched();
}

#[test]
fn a_claim_that_another_user_made_leads_to_no_list_index() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    set_owner_and_mode(&lab.claim_file(), OTHER_UID, 0o600);
    lab.login()
        .run()
        .assert_refused(&["cannot read", "another user of this mailbox"]);
    assert!(!lab.is_recorded(HERE));
    // If there is none any more, it is over with that.
    lab.login().run().assert_vouched();
}

#[test]
fn a_list_index_of_another_name_or_path_heals_by_itself() {
    let lab = Lab::with_settled_user();
    let directory = lab.list_index(HERE);
    let location = |list_index: &Path| {
        format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={}",
            lab.index().display(),
            list_index.display()
        )
    };
    let by_another_path = lab.path("link").join(PREFIX);
    let parent = directory.parent().expect("it has one");
    symlink(parent, lab.path("link")).expect("the lab's own");
    let name = directory.file_name().expect("it has one");
    let by_another_path = by_another_path.with_file_name(name).join(PREFIX);
    // It is the same one, whose record was lost.
    fs::write(lab.record_file(HERE), " \n").expect("it is there");
    let login = || lab.login().location(location(&by_another_path));
    login().run().assert_vouched();
    login().run().assert_vouched().assert_silent();
    fs::write(lab.record_file(HERE), " \n").expect("it is there");
    lab.login().run().assert_vouched();
    // Another name in the same directory, and another directory: the old one counts as long as it is
    // in step.
    let elsewhere = directory.with_file_name("elsewhere");
    for place in [directory.join("list"), elsewhere.join(PREFIX)] {
        let login = || lab.login().location(location(&place));
        login().run().assert_refused(&["for the same mailbox"]);
        login().run().assert_vouched();
        login().run().assert_vouched().assert_silent();
    }
}

#[test]
fn a_list_index_that_a_session_of_another_name_has_open_counts() {
    let lab = Lab::with_settled_user();
    let other = lab.list_index(HERE).with_file_name("alice@example.org");
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
        lab.index().display(),
        other.display()
    );
    let log = lab.list_index(HERE).join(format!("{PREFIX}.log"));
    let open = File::open(log).expect("it is there");
    for _ in 0..2 {
        lab.login().location(&location).run().assert_not_vouched();
    }
    drop(open);
    lab.login().location(&location).run().assert_vouched();
}

#[test]
fn two_uids_with_one_mailbox_are_not_both_vouched_for() {
    let lab = Lab::new();
    set_owner_and_mode(&lab.index(), UID, 0o2777);
    set_owner_and_mode(&lab.home(), UID, 0o755);
    lab.login().run().assert_vouched();
    let other = lab.list_index(HERE).with_file_name("bob");
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
        lab.index().display(),
        other.display()
    );
    let login = || {
        lab.login()
            .set_field("UID", OTHER_UID.to_string())
            .location(&location)
    };
    let first = lab.list_index(HERE).join(PREFIX).display().to_string();
    for _ in 0..2 {
        login().run().assert_refused(&[&first, "two user names"]);
    }
    // Else the last of them counts as open.
    common::wait_until("over", || lab.helpers().is_empty());
    // A claim as earlier versions made it.
    lab.login().run().assert_vouched();
    set_owner_and_mode(&lab.claim_file(), UID, 0o600);
    login()
        .run()
        .assert_refused(&["cannot read", &lab.claim_file().display().to_string()]);
}

#[test]
fn what_is_recorded_is_the_own_claim_even_if_another_backend_s_is_in_its_place_at_once() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    let mut login = lab.login().trace();
    login.run_to_call(libc::SYS_renameat);
    login.complete_call();
    let own = lab.claim();
    fs::remove_file(lab.record_file(THERE)).expect("it is there");
    lab.login_at(THERE).run().assert_vouched();
    assert_ne!(lab.claim(), own);
    login.finish();
    assert!(!lab.is_recorded(HERE));
    let record = lab.record(HERE).expect("there is one");
    assert!(
        record.contains(&format!("\n{} {}.", own.inode, own.seconds)),
        "{record}"
    );
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
}

#[test]
fn of_two_logins_at_once_exactly_one_claims() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    let before = lab.claim();
    let mut first = lab.login().trace();
    first.run_to_call(libc::SYS_renameat);
    let mut second = lab.login().trace();
    // It has seen the mismatch, and waits for the lock.
    second.run_to_call(libc::SYS_clock_nanosleep);
    let first = first.finish();
    first.assert_vouched().assert_logged(&["host changed"]);
    let claim = lab.claim();
    assert_ne!(claim, before);
    lab.plant_list_index(HERE);
    second.finish().assert_vouched().assert_silent();
    assert_eq!(lab.claim(), claim);
    assert_eq!(lab.planted(HERE), list_index_names());
}

#[test]
fn of_many_logins_at_once_exactly_one_claims() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    let running: Vec<_> = (0..20)
        .map(|number| {
            let login = if number % 2 == 0 {
                lab.login()
            } else {
                lab.login().by_user()
            };
            login.start()
        })
        .collect();
    let sessions: Vec<_> = running.into_iter().map(|login| login.wait()).collect();
    for session in &sessions {
        session.assert_vouched();
    }
    let claims: usize = sessions
        .iter()
        .filter(|session| !session.log.is_empty())
        .count();
    assert_eq!(claims, 1);
    assert!(lab.is_recorded(HERE));
}

#[test]
fn a_lock_file_that_a_cleaner_removes_before_it_is_locked_is_made_anew() {
    let lab = Lab::with_settled_user();
    for started in STARTS {
        let mut login = started(&lab).trace();
        login.run_to_call(libc::SYS_flock);
        fs::remove_file(lab.record_file(HERE)).expect("it is there");
        login.finish().assert_vouched();
        assert!(lab.is_recorded(HERE), "on the new file");
        assert_eq!(lab.planted(HERE), [""; 0]);
        lab.plant_list_index(HERE);
    }
}

#[test]
fn a_directory_that_a_cleaner_removes_before_it_is_locked_is_made_anew() {
    let lab = Lab::with_settled_user();
    let directory = lab.list_index(HERE);
    let mut login = lab.login().trace();
    login.run_to(|login, call| {
        let opened = login.opened(call);
        opened.is_some_and(|(name, _)| name == ".lasthost")
    });
    fs::remove_dir_all(&directory).expect("it is there");
    login.finish().assert_vouched();
    assert!(lab.is_recorded(HERE));
}

#[test]
fn killed_at_any_system_call_of_a_move_the_next_login_is_right() {
    let lab = Lab::with_settled_user();
    let mut calls = 0;
    loop {
        lab.plant_list_index(HERE);
        lab.login_at(THERE).run().assert_vouched();
        let mut login = lab.login().trace();
        // Before the look at INDEX nothing is touched.
        login.run_to_call(libc::SYS_statx);
        let mut ended = false;
        for _ in 0..=calls {
            ended = login.next_call().number == libc::SYS_execve;
        }
        if ended {
            login.finish().assert_vouched();
            break;
        }
        drop(login);
        if lab.is_recorded(HERE) {
            assert_eq!(
                lab.planted(HERE),
                [""; 0],
                "stale and recorded, call {calls}"
            );
        }
        lab.login().run().assert_vouched();
        assert!(lab.is_recorded(HERE), "call {calls}");
        assert_eq!(lab.planted(HERE), [""; 0], "stale, call {calls}");
        assert_eq!(names_in(&lab.index()), [".lasthost"], "call {calls}");
        calls += 1;
    }
    assert!(calls > 20, "only {calls} calls");
}

#[test]
fn a_list_index_that_a_session_has_open_is_neither_deleted_nor_followed_by_another() {
    let lab = Lab::with_settled_user();
    let log = lab.list_index(HERE).join(format!("{PREFIX}.log"));
    let log = File::options().append(true).open(log).expect("it is there");
    lab.login_at(THERE).run().assert_vouched();
    for _ in 0..2 {
        let beside = lab.login().run();
        beside.assert_refused(&["still has the list index open"]);
        assert_eq!(lab.planted(HERE), list_index_names());
        assert!(!lab.is_recorded(HERE));
    }
    common::close(log);
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
    assert!(lab.is_recorded(HERE));
}

#[test]
fn a_login_that_fails_leaves_the_list_index_of_an_open_session_alone() {
    let lab = Lab::with_settled_user();
    let log = lab.list_index(HERE).join(format!("{PREFIX}.log"));
    let log = File::options().append(true).open(log).expect("it is there");
    // NFS is away for a moment.
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    lab.login().run().assert_not_vouched();
    fs::rename(lab.path("elsewhere"), lab.index()).expect("it is there");
    assert_eq!(lab.planted(HERE), list_index_names());
    assert!(!lab.is_recorded(HERE));
    lab.login().run().assert_not_vouched();
    assert_eq!(lab.planted(HERE), list_index_names());
    common::close(log);
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn the_access_time_is_the_last_login_however_the_file_system_is_mounted() {
    for flags in [MsFlags::MS_NOATIME, MsFlags::MS_RELATIME, MsFlags::empty()] {
        let lab = Lab::with_settled_user();
        let flags = MsFlags::MS_REMOUNT | flags;
        let shm = Path::new("/dev/shm");
        mount(None::<&str>, shm, None::<&str>, flags, None::<&str>).expect("it is the lab's");
        // Later than the modification time, so that relatime would not move it.
        let old = SystemTime::now() + Duration::from_secs(1000);
        let record = lab.record_file(HERE);
        let times = fs::FileTimes::new().set_accessed(old);
        File::open(&record)
            .and_then(|file| file.set_times(times))
            .expect("root may");
        let before = SystemTime::now() - Duration::from_millis(20);
        lab.login().run().assert_vouched().assert_silent();
        let accessed = fs::metadata(&record).and_then(|status| status.accessed());
        let accessed = accessed.expect("the record is there");
        assert!(
            accessed >= before && accessed <= SystemTime::now(),
            "{flags:?}"
        );
    }
}

#[test]
fn only_files_of_exactly_this_prefix_are_deleted() {
    let lab = Lab::new();
    // One directory for all users, which belongs to their one uid.
    let directory = Path::new("/dev/shm/shared");
    fs::create_dir(directory).expect("/dev/shm is private");
    set_owner_and_mode(directory, UID, 0o700);
    let all = [
        ".bob",
        "Bob",
        "bo",
        "bob",
        "bob-old",
        "bob.",
        "bob.doe",
        "bob.doe.log",
        "bob.log",
        "bob.log.2",
        "bob.migrating.log",
        "bob_",
        "bobby",
        "bobby.log",
        "xbob",
    ];
    for name in all {
        lab.write(&directory.join(name), name);
    }
    fs::create_dir(directory.join("bob.d")).expect("a directory can be made");
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX=/dev/shm/shared/bob",
        lab.index().display()
    );
    lab.login()
        .set("USER", "bob")
        .location(location)
        .run()
        .assert_vouched();
    assert_eq!(
        names_in(directory),
        [
            ".bob",
            ".lasthost",
            ".lasthost.without",
            "Bob",
            "bo",
            "bob-old",
            "bob.",
            "bob.d",
            "bob.doe",
            "bob.doe.log",
            "bob_",
            "bobby",
            "bobby.log",
            "xbob",
        ]
    );
}

/// Nothing local: the login is none of the wrapper's business.
#[track_caller]
fn assert_left_alone(lab: &Lab, login: Login<'_>) {
    login.run().assert_vouched().assert_silent();
    assert_eq!(names_in(&lab.index()), [""; 0]);
    assert_eq!(names_in(Path::new("/dev/shm")), [""; 0]);
}

#[test]
fn a_list_index_that_is_not_local_is_left_alone() {
    let lab = Lab::new();
    let index = lab.index();
    let index = index.display();
    for location in [
        // Not set, relative, switched off.
        format!("mdbox:~/mdbox:INDEX={index}"),
        format!("mdbox:~/mdbox:INDEX={index}:LISTINDEX=list"),
        format!("mdbox:~/mdbox:INDEX={index}:LISTINDEX=sub/list"),
        format!("mdbox:~/mdbox:INDEX={index}:LISTINDEX="),
        // The same directory.
        format!("mdbox:~/mdbox:INDEX={index}:LISTINDEX={index}/dovecot.list.index"),
        format!("mdbox:~/mdbox:INDEX={index}:LISTINDEX={index}/./other"),
        "mdbox:~/index:LISTINDEX=~/index/list".to_owned(),
        "maildir:~/index".to_owned(),
    ] {
        println!("{location}");
        assert_left_alone(&lab, lab.login().location(location));
    }
}

#[test]
fn a_list_index_in_index_by_another_path_is_left_alone() {
    let lab = Lab::new();
    let index = lab.index();
    // A link of root's on the way.
    let alias = lab.path("alias");
    symlink(lab.home(), &alias).expect("a link can be made");
    let location = |directory: &Path| {
        format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/list",
            index.display(),
            directory.display()
        )
    };
    assert_left_alone(&lab, lab.login().location(location(&alias.join("index"))));
    // The same directory, mounted twice.
    let twice = lab.path("twice");
    fs::create_dir(&twice).expect("a directory can be made");
    mount(
        Some(&index),
        &twice,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("a mount");
    assert_left_alone(&lab, lab.login().location(location(&twice)));
}

#[test]
fn with_layout_index_nothing_is_touched_whatever_happens() {
    let lab = Lab::with_settled_user();
    let location = format!("{}:LAYOUT=index", lab.location(HERE));
    let list_index = names_in(&lab.list_index(HERE));
    for there_is_an_index in [true, false] {
        // A move, and then NFS is gone.
        if there_is_an_index {
            lab.login_at(THERE).run().assert_vouched();
        } else {
            fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
        }
        lab.login()
            .location(&location)
            .run()
            .assert_vouched()
            .assert_logged(&["user=alice: ", "layout index"]);
        assert_eq!(names_in(&lab.list_index(HERE)), list_index);
    }
    assert_eq!(
        claim_in(&lab.path("elsewhere/.lasthost")).text,
        "backend-b\n"
    );
}

#[test]
fn with_index_in_memory_nobody_vouches_for_a_local_list_index() {
    let lab = Lab::with_settled_user();
    let directory = lab.list_index(HERE);
    let location = format!(
        "maildir:~/Maildir:INDEX=MEMORY:LISTINDEX={}/{PREFIX}",
        directory.display()
    );
    let before = names_in(&directory);
    lab.login()
        .location(location)
        .run()
        .assert_refused(&["indexes in memory"]);
    assert_eq!(names_in(&directory), before);
}

#[test]
fn paths_and_users_that_could_lead_astray_are_neither_touched_nor_vouched_for() {
    let lab = Lab::with_settled_user();
    let (index, list) = (lab.index(), lab.list_index(HERE));
    let (index, list) = (index.display(), list.display());
    let claim = lab.claim();
    let home = lab.home();
    let home = home.display();
    let astray = [
        (
            "LISTINDEX contains '..'",
            lab.login().location(format!(
                "mdbox:~/mdbox:INDEX={index}:LISTINDEX={list}/../alice/{PREFIX}"
            )),
        ),
        (
            "INDEX contains '..'",
            lab.login().location(format!(
                "mdbox:~/mdbox:INDEX={index}/../index:LISTINDEX={list}/{PREFIX}"
            )),
        ),
        (
            "INDEX contains '..'",
            lab.login()
                .location(format!("mdbox:{index}/..:LISTINDEX={list}/{PREFIX}")),
        ),
        ("user name", lab.login().set("USER", "..")),
        ("user name", lab.login().set("USER", ".")),
        ("user name", lab.login().set("USER", "a/b")),
        ("user name", lab.login().set("USER", "")),
        ("chroot", lab.login().set_field("CHROOT", "/srv")),
        (
            "chroot",
            lab.login().set_field("HOME", format!("{home}/./x")),
        ),
        (
            "relative",
            lab.login()
                .location(format!("mdbox:mdbox:LISTINDEX={list}/{PREFIX}")),
        ),
        (
            ".lasthost",
            lab.login().location(format!(
                "mdbox:~/mdbox:INDEX={index}:LISTINDEX={list}/.lasthost"
            )),
        ),
    ];
    for (reason, login) in astray {
        login.run().assert_refused(&[reason]);
        assert_eq!(lab.claim(), claim);
        assert!(lab.is_recorded(HERE));
        assert_eq!(lab.planted(HERE), list_index_names());
    }
}

#[test]
fn in_maildir_plus_plus_the_claim_is_no_dot_name_at_any_moment() {
    for (location, expected) in [
        ("maildir:~/index", "dovecot.lasthost"),
        ("maildir:~/Maildir:INDEX=~/index", "dovecot.lasthost"),
        (
            "maildir:~/Maildir:INDEX=~/index:LAYOUT=maildir++",
            "dovecot.lasthost",
        ),
        ("maildir:~/index:LAYOUT=fs", ".lasthost"),
        ("mdbox:~/index", ".lasthost"),
        ("sdbox:~/sdbox:INDEX=~/index", ".lasthost"),
        ("mbox:~/mail:INDEX=~/index:DIRNAME=dir", ".lasthost"),
    ] {
        let lab = Lab::new();
        let location = format!(
            "{location}:LISTINDEX={}/{PREFIX}",
            lab.list_index(HERE).display()
        );
        let mut login = lab.login().location(location).trace();
        let mut made = Vec::new();
        while let Some(call) = login.run_to(|_, call| {
            let new_file = (libc::O_WRONLY | libc::O_CREAT) as u64;
            call.number == libc::SYS_openat && call.arguments[2] & new_file == new_file
        }) {
            made.push(login.string(call.arguments[1]));
        }
        login.finish().assert_vouched();
        assert_eq!(made, [format!("{expected}.45")]);
        assert_eq!(names_in(&lab.index()), [expected]);
    }
}

/// The backends of `names` whose LISTINDEX a login used.
fn used<'a>(lab: &Lab, names: &[&'a str]) -> Vec<&'a str> {
    let used = names
        .iter()
        .copied()
        .filter(|name| lab.record(name).is_some())
        .collect();
    fs::read_dir("/dev/shm")
        .expect("it is there")
        .for_each(|entry| fs::remove_dir_all(entry.expect("an entry").path()).expect("the lab's"));
    used
}

#[test]
fn the_strongest_location_that_dovecot_will_see_counts() {
    let lab = Lab::new();
    let names = ["namespace", "mail_location", "mail"];
    let field = |name: &str| match name {
        "namespace" => "NAMESPACE/INBOX/LOCATION".to_owned(),
        name => name.to_ascii_uppercase(),
    };
    for first in 0..names.len() {
        // All from `first` on, the weakest first.
        let mut login = lab.login().without_field("MAIL_LOCATION");
        for name in names[first..].iter().rev() {
            login = login.set_field(&field(name), lab.location(name));
        }
        login.run().assert_vouched();
        assert_eq!(used(&lab, &names), [names[first]]);
    }
}

#[test]
fn a_field_that_userdb_keys_does_not_name_is_not_what_dovecot_will_see() {
    let lab = Lab::new();
    let names = ["script", "userdb"];
    let login = || lab.login().without_field("MAIL_LOCATION");
    login()
        .set("MAIL_LOCATION", lab.location("script"))
        .run()
        .assert_vouched()
        .assert_logged(&["mail_location"]);
    assert_eq!(used(&lab, &names), [""; 0]);
    login()
        .set("NAMESPACE/INBOX/LOCATION", lab.location("script"))
        .set_field("MAIL", lab.location("userdb"))
        .run()
        .assert_vouched();
    assert_eq!(used(&lab, &names), ["userdb"]);
    // A script that tells Dovecot is believed.
    login()
        .set_field("MAIL_LOCATION", lab.location("script"))
        .run()
        .assert_vouched();
    assert_eq!(used(&lab, &names), ["script"]);
    // Part of another name is not the name.
    login()
        .set("MAIL_LOCATION", lab.location("script"))
        .set("USERDB_KEYS", "UID GID HOME XMAIL_LOCATION MAIL_LOCATIONX ")
        .run()
        .assert_vouched();
    assert_eq!(used(&lab, &names), [""; 0]);
}

#[test]
fn without_any_location_there_is_nothing_to_do_and_an_error_in_the_log() {
    let lab = Lab::new();
    let session = lab.login().without_field("MAIL_LOCATION").run();
    session.assert_vouched().assert_logged(&["mail_location"]);
    assert!(session.log[0].is_error());
    for nonsense in [
        "nonsense",
        "mdbox",
        "maildir:",
        "mdbox:~/x:NO=1",
        "",
        "auto:~/x",
    ] {
        let session = lab.login().location(nonsense).run();
        session
            .assert_vouched()
            .assert_logged(&["userdb field mail_location: "]);
        assert!(session.log[0].is_error());
    }
}

#[test]
fn the_configured_host_name_is_the_one_that_is_claimed_for() {
    let lab = Lab::new();
    lab.configure("hostname = 'imap7.example.org'\n");
    lab.login().run().assert_vouched();
    assert_eq!(lab.claim().text, "imap7.example.org\n");
    let record = lab.record(HERE).expect("there is a record");
    let first = record.lines().next();
    assert!(
        first.is_some_and(|line| line.ends_with(" imap7.example.org")),
        "{record}"
    );
    fs::remove_dir_all(lab.list_index(HERE)).expect("it is not seen there");
    lab.login_at(THERE)
        .location(lab.location(THERE))
        .run()
        .assert_vouched();
    lab.configure("# the system's\n");
    lab.login()
        .run()
        .assert_logged(&["host changed from imap7.example.org to backend-a"]);
}

#[test]
fn a_user_who_alternates_between_backends_is_warned_about() {
    let lab = Lab::with_settled_user();
    let session = lab.login_at(THERE).run();
    session
        .assert_vouched()
        .assert_logged(&["alternates", HERE, "proxy"]);
    let warning = session
        .log
        .iter()
        .find(|line| line.text.contains("alternates"));
    assert!(warning.expect("it was just counted").is_warning());
    // The same backend again, its memory having been emptied.
    fs::remove_dir_all(lab.list_index(THERE)).expect("it is there");
    let session = lab.login_at(THERE).run();
    session.assert_vouched();
    assert_eq!(session.log.len(), 1, "{}", session.told());
    // A claim of more than a minute ago.
    let ago = SystemTime::now() - Duration::from_secs(90);
    File::open(lab.claim_file())
        .and_then(|claim| claim.set_modified(ago))
        .expect("root may");
    let session = lab.login().run();
    session.assert_vouched();
    assert_eq!(session.log.len(), 1, "{}", session.told());
}

#[test]
fn log_settings_are_followed() {
    let facilities = [
        ("mail", 2),
        ("auth", 4),
        ("authpriv", 10),
        ("daemon", 3),
        ("user", 1),
        ("local0", 16),
        ("local7", 23),
    ];
    for (facility, number) in facilities {
        let lab = Lab::new();
        lab.configure(&format!("[log]\nfacility = '{facility}'\n"));
        let session = lab.login().run();
        session.assert_vouched().assert_logged(&["first login"]);
        let info = libc::LOG_INFO as u32;
        assert_eq!(session.log[0].priority, number * 8 + info);
    }
    let lab = Lab::new();
    lab.configure("[log]\nlevel = 'warning'\n");
    lab.login().run().assert_vouched().assert_silent();
    let session = lab.login_at(THERE).run();
    assert_eq!(session.log.len(), 1, "the warning about alternation");
    assert!(session.log[0].is_warning());
    lab.configure("[log]\ntarget = 'stderr'\n");
    let session = lab.login().run();
    assert_eq!(session.log, []);
    assert_eq!(session.stderr.lines().count(), 2, "{}", session.stderr);
    for line in session.stderr.lines() {
        assert!(line.starts_with("nfs-hostchange: user=alice: "), "{line}");
    }
}

#[test]
fn a_log_line_is_one_line_whatever_names_and_paths_hold() {
    let lab = Lab::new();
    let user = b"al\nice\x1b[1m\xff\\n";
    let home = format!("{}/x\n<22>forged: y", lab.home().display());
    // The lab refuses lines with control characters in them.
    lab.login()
        .set("USER", user)
        .set_field("HOME", home)
        .location("mdbox:~/m:LISTINDEX=/dev/shm/a/b")
        .run()
        .assert_refused(&[r"user=al\nice\u{1b}[1m\xff\\n: ", r"/x\n<22>forged: y/m"]);
    // A claim's text is another backend's, or the user's own.
    lab.login().run().assert_vouched();
    lab.write(&lab.claim_file(), "evil\u{1b}\r<22>\nsecond");
    lab.login()
        .run()
        .assert_vouched()
        .assert_logged(&[r"from evil\u{1b}\r<22> to backend-a"]);
}

#[test]
fn secrets_are_never_logged() {
    let lab = Lab::new();
    let login = |lab: &Lab| -> String {
        let session = lab
            .login()
            .set_field("AUTH_TOKEN", "opensesame")
            .set_field("PASS", "opensesame")
            .run();
        session.told()
    };
    lab.configure("[log]\nlevel = 'info'\n");
    let mut told = login(&lab);
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    told += &login(&lab);
    lab.configure("broken");
    told += &login(&lab);
    assert!(told.contains("user=alice"));
    assert!(!told.contains("opensesame"), "{told}");
}

#[test]
fn on_a_server_with_whole_seconds_the_claim_itself_is_asked_for() {
    let lab = Lab::with_settled_user();
    let mut login = lab.login().trace();
    let mut forced = Vec::new();
    while let Some(call) = login.run_to(|_, call| call.number == libc::SYS_statx) {
        let [_, name, flags, _, buffer, _] = call.arguments;
        if flags & libc::AT_STATX_FORCE_SYNC as u64 == 0 {
            continue;
        }
        forced.push(login.string(name));
        login.complete_call();
        // The nanoseconds of the directory's ctime, as such a server would answer.
        let offset = std::mem::offset_of!(libc::statx, stx_ctime)
            + std::mem::offset_of!(libc::statx_timestamp, tv_nsec);
        let memory = login.memory();
        memory
            .write_at(&[0; 4], buffer + offset as u64)
            .expect("it stands still");
    }
    login.finish().assert_vouched().assert_silent();
    assert_eq!(forced, ["", ".lasthost"]);
}

#[test]
fn a_session_that_nobody_vouched_for_ends_every_backend_s_record() {
    let lab = Lab::with_settled_user();
    // It changes folders without any list index's knowing it.
    let unusable = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX=/proc/x/y",
        lab.index().display()
    );
    lab.login_at(THERE)
        .location(unusable)
        .run()
        .assert_not_vouched();
    assert!(!lab.is_recorded(HERE));
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn beside_an_open_session_without_list_index_nobody_is_vouched_for() {
    let lab = Lab::new();
    fs::remove_dir(lab.index()).expect("it is empty");
    // A new user: there is no INDEX until IMAP makes it.
    let first = lab.login().staying_open().run();
    first.assert_refused(&["does not exist"]);
    fs::create_dir(lab.index()).expect("its parent is there");
    set_owner_and_mode(&lab.index(), UID, 0o700);
    let second = lab.login().staying_open().run();
    second.assert_refused(&["still open"]);
    close(first);
    lab.login().run().assert_not_vouched();
    close(second);
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
}
