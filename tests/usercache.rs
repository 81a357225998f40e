//! `nfs-hostchange usercache clean` on a real tmpfs.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use common::record;
use common::scratch::{
    self, ALICE, DAY, MALLORY, Scratch, give, is_cleaned, is_root, lock, set_age, set_times,
    snapshot, user_directory,
};
use common::{HERE, Lab, close, list_index_names, names_in};

const WEEK_OLD: Duration = Duration::from_secs(7 * 86_400 + 60);

fn clean(path: &Path) -> [&std::ffi::OsStr; 4] {
    [
        "usercache".as_ref(),
        "clean".as_ref(),
        "7days".as_ref(),
        path.as_os_str(),
    ]
}

/// A user who has not been here for a week.
fn one_user() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let user = user_directory(&scratch.hash_directory("00").join("user"), ALICE, WEEK_OLD);
    (scratch, user)
}

/// Cleaning ends with this exit status and one line, and nothing here has changed.
#[track_caller]
fn assert_left_alone(scratch: &Scratch, user: &Path, status: i32, words: &str) {
    let parent = user.parent().expect("it has one");
    let before = snapshot(parent);
    let run = scratch.exits(status, clean(user));
    assert!(run.stderr.contains(words), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert_eq!(before, snapshot(parent));
}

#[test]
fn the_line_of_the_plugins_manual_removes_what_was_not_used_for_seven_days() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let old = user_directory(&parent.join("testuser"), ALICE, WEEK_OLD);
    let other = user_directory(&parent.join("testuser2"), ALICE, WEEK_OLD);

    let run = scratch.run(clean(&old));

    assert_eq!(
        (run.status, run.stdout.as_str(), run.stderr.as_str()),
        (Some(0), "", "")
    );
    assert!(is_cleaned(&old), "it is empty");
    assert!(
        other.join("dovecot.list.index").exists(),
        "nobody else's is"
    );
}

#[test]
fn every_minimum_age_is_accepted_or_refused_as_dovecot_does() {
    let scratch = Scratch::new();
    let nobody = scratch.path().join("nobody");
    let mut asked = 0;
    for row in include_str!("oracle/times-2.3.jsonl").lines() {
        let row: Value = serde_json::from_str(row).expect("the oracle is JSON");
        let age = row["input"].as_str().expect("each row has its input");
        if age.contains('\0') || age.starts_with('-') {
            continue; // no argument can be that, or it looks like an option
        }
        let run = scratch.run(["usercache", "clean", age, nobody.to_str().expect("UTF-8")]);
        // An age that is accepted leads to a directory that is not there.
        let expected = if row["ok"] == true { 66 } else { 64 };
        assert_eq!(run.status, Some(expected), "{age:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        asked += 1;
    }
    assert!(asked >= 240, "only {asked} ages asked");
}

#[test]
fn whatever_was_used_later_keeps_everything() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    type MakeYounger = fn(&Path);
    let uses: [MakeYounger; 4] = [
        // A login, a new record, a session, a delivery.
        |user| set_times(&user.join(".lasthost"), 6 * DAY, WEEK_OLD),
        |user| set_times(&user.join(".lasthost"), WEEK_OLD, 6 * DAY),
        |user| set_age(&user.join("dovecot.list.index"), 6 * DAY),
        |user| set_times(&user.join("dovecot.list.index.log"), WEEK_OLD, 6 * DAY),
    ];
    for (number, make_younger) in uses.into_iter().enumerate() {
        let user = user_directory(&parent.join(number.to_string()), ALICE, WEEK_OLD);
        make_younger(&user);
        assert_left_alone(&scratch, &user, 0, "left: last used 6 days ago");
    }
}

#[test]
fn a_login_that_makes_the_lock_file_after_a_cleaner_missed_it_keeps_its_list_index() {
    if !is_root() {
        return;
    }
    let lab = Lab::with_settled_user();
    let command = lab.install(Path::new(env!("CARGO_BIN_EXE_nfs-hostchange")), "command");
    let path = lab.list_index(HERE);
    // As of a user who only got mail here.
    fs::remove_file(lab.record_file(HERE)).expect("unlink");
    let mut cleaner = lab
        .login()
        .with_program(command)
        .executing(&["usercache", "clean", "0", path.to_str().expect("UTF-8")])
        .trace();
    let missed = cleaner.run_to(|cleaner, call| {
        let opened = cleaner.opened(call);
        opened.is_some_and(|(name, _)| name == ".lasthost")
    });
    assert!(missed.is_some(), "it looks for the lock file");
    cleaner.complete_call();
    lab.login().run().assert_vouched();
    // Its session has come and gone.
    lab.plant_list_index(HERE);
    let cleaned = cleaner.finish();
    assert_eq!(cleaned.code(), Some(75), "{}", cleaned.told());
    assert!(cleaned.stderr.contains("logging in"), "{}", cleaned.told());
    assert_eq!(lab.planted(HERE), list_index_names());
    assert!(lab.is_recorded(HERE));
}

#[test]
fn a_reader_of_the_list_index_does_not_count_as_use() {
    let (scratch, user) = one_user();
    set_times(&user.join("dovecot.list.index"), Duration::ZERO, WEEK_OLD);
    scratch.exits(0, clean(&user));
    assert!(is_cleaned(&user));
}

#[test]
fn only_our_names_are_deleted() {
    let (scratch, user) = one_user();
    let ours = [
        "dovecot.list.index.log.2",
        "dovecot.list.index.migrating.log",
    ];
    let others = [
        "dovecot.list.indexes",
        "dovecot.list",
        "dovecot.list.index.doe",
        "dovecot.list.index.doe.log",
        "dovecot.list.indexfoo.log",
        ".dovecot.list.index",
        ".lasthost2",
        "dovecot.autoexpunge.lock",
    ];
    for name in ours.into_iter().chain(others) {
        fs::write(user.join(name), name).expect("write");
        give(&user.join(name), ALICE);
        set_age(&user.join(name), WEEK_OLD);
    }
    // The shape that VOLATILEDIR gives to directories here.
    for directory in ["INBOX", "dovecot.list.index.d"] {
        fs::create_dir(user.join(directory)).expect("mkdir");
        fs::write(user.join(directory).join("dovecot.list.index"), "other").expect("write");
    }

    let mut arguments = clean(&user).to_vec();
    arguments.push("-v".as_ref());
    let run = scratch.exits(0, arguments);
    assert!(run.stdout.contains("deleted 4 files (73 bytes)"), "{run:?}");
    let mut left: Vec<_> = fs::read_dir(&user)
        .expect("readdir")
        .map(|entry| {
            entry
                .expect("readdir")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    left.sort();
    let mut expected = [&others[..], &["INBOX", "dovecot.list.index.d"]].concat();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert!(user.join("INBOX/dovecot.list.index").exists());
    assert!(
        user.join("dovecot.list.index.d/dovecot.list.index")
            .exists()
    );
}

#[test]
fn list_indexes_are_cleaned_by_the_names_given_and_recorded_and_no_other() {
    let (scratch, user) = one_user();
    let record = user.join(".lasthost");
    let lines = ["bob", "al%20ice"].map(|name| record::line((4711, 1_700_000_000, 0), 4712, name));
    fs::write(
        &record,
        record::text(&record, "a.example.org", &lines.concat()),
    )
    .expect("write");
    for name in ["alice.log", "bob", "bob.log", "al ice.log", "al.log"] {
        fs::write(user.join(name), "transactions").expect("write");
        give(&user.join(name), ALICE);
        set_age(&user.join(name), WEEK_OLD);
    }
    set_age(&record, WEEK_OLD);

    let mut arguments = clean(&user).to_vec();
    arguments.extend(["--prefix".as_ref(), std::ffi::OsStr::new("alice")]);
    scratch.exits(0, arguments);
    let left: BTreeSet<_> = fs::read_dir(&user)
        .expect("readdir")
        .map(|entry| entry.expect("readdir").file_name())
        .collect();
    let expected = ["al.log", "dovecot.list.index", "dovecot.list.index.log"];
    assert_eq!(left, expected.map(Into::into).into());
    for name in ["", ".", "..", "a/b", ".lasthost"] {
        scratch.exits(64, ["usercache", "clean", "7d", "/x", "--prefix", name]);
    }
}

#[test]
fn the_record_of_one_list_index_does_not_make_a_cache_of_a_map_beside_it() {
    let (scratch, user) = one_user();
    let record = user.join(".lasthost");
    let line = record::line((4711, 1_700_000_000, 0), 4712, "inbox.index");
    fs::write(&record, record::text(&record, "a.example.org", &line)).expect("write");
    // Another namespace's, with LAYOUT=index, has its INDEX there.
    let folder = user.join("mailboxes/0d3f67a12b5c0e5f8a7b000012345678");
    fs::create_dir_all(&folder).expect("mkdir");
    for path in [&folder.parent().expect("it has one").to_owned(), &folder] {
        give(path, ALICE);
    }
    set_age(&record, WEEK_OLD);
    assert_left_alone(&scratch, &user, 77, "is no LISTINDEX");
}

#[test]
fn a_list_index_that_a_session_has_open_is_kept_whatever_its_age() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    // Nobody ever has the list index open without its log; after a rotation, it may be the old one.
    for name in ["dovecot.list.index.log", "dovecot.list.index.log.2"] {
        let user = user_directory(&parent.join(name), ALICE, 400 * DAY);
        let log = user.join("dovecot.list.index.log.2");
        fs::write(&log, "transactions").expect("write");
        give(&log, ALICE);
        set_age(&log, 400 * DAY);
        let session = File::open(user.join(name)).expect("open");
        assert_left_alone(&scratch, &user, 75, "left: a session is open");
        close(session);
        scratch.exits(0, clean(&user));
        assert!(is_cleaned(&user));
    }
}

#[test]
fn the_sign_of_a_session_without_list_index_is_kept_while_that_is_open() {
    let (scratch, user) = one_user();
    let mut mail_process = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("coreutils");
    let note = format!("1 4 0 0 0 {}.0 -", mail_process.id());
    let sign = user.join(".lasthost.without");
    fs::write(&sign, format!("{note:255}\n")).expect("write");
    give(&sign, ALICE);
    set_age(&sign, WEEK_OLD);
    // Reading it sets its access time, once a day.
    fs::read(&sign).expect("it is there");
    assert_left_alone(&scratch, &user, 75, "");
    mail_process.kill().expect("a child of this test");
    mail_process.wait().expect("a child of this test");
    scratch.exits(0, clean(&user));
    // Nobody has claimed for it.
    assert_eq!(names_in(&user), [".lasthost.without"]);
}

#[test]
fn a_time_far_in_the_future_keeps_no_list_index() {
    let (scratch, user) = one_user();
    let far = std::time::SystemTime::now() + Duration::from_secs(1_000_000_000);
    for name in [".lasthost", "dovecot.list.index.log"] {
        let file = File::options().append(true).open(user.join(name));
        let times = fs::FileTimes::new().set_accessed(far).set_modified(far);
        file.and_then(|file| file.set_times(times))
            .expect("root may");
    }
    scratch.exits(0, clean(&user));
    assert!(is_cleaned(&user));
}

#[test]
fn whoever_holds_a_lease_holds_up_nobody() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    for name in ["dovecot.list.index.log", ".lasthost"] {
        let user = user_directory(&parent.join(name), ALICE, WEEK_OLD);
        let file = File::options()
            .write(true)
            .open(user.join(name))
            .expect("open");
        take_lease(&file);
        assert_left_alone(&scratch, &user, 75, "");
        close(file);
        scratch.exits(0, clean(&user));
    }
}

/// A write lease, with a signal that does not end this process when it is asked for.
fn take_lease(file: &File) {
    use std::os::fd::AsRawFd;
    let control = |command, argument: i32| {
        // SAFETY: these commands take an integer and touch no memory of this process.
        let result = unsafe { nix::libc::fcntl(file.as_raw_fd(), command, argument) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    };
    control(10, nix::libc::SIGURG); // F_SETSIG
    control(nix::libc::F_SETLEASE, nix::libc::F_WRLCK);
}

#[test]
fn an_index_directory_is_not_taken_for_the_local_one() {
    let (scratch, user) = one_user();
    for claim in ["backend-a\n", "backend-a\nmigrating 4711/1.000000000/20\n"] {
        fs::write(user.join(".lasthost"), claim).expect("write");
        set_age(&user.join(".lasthost"), WEEK_OLD);
        assert_left_alone(&scratch, &user, 77, "is an INDEX directory");
    }
}

#[test]
fn a_user_who_is_logging_in_is_left_alone() {
    let (scratch, user) = one_user();
    let login = lock(&user);
    assert_left_alone(&scratch, &user, 75, "left: the user is logging in");
    close(login);
    scratch.exits(0, clean(&user));
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_delete() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let user = user_directory(&parent.join("user"), ALICE, WEEK_OLD);
    let before = snapshot(&parent);
    let mut arguments = clean(&user).to_vec();
    arguments.push("--dry-run".as_ref());

    let run = scratch.exits(0, arguments);
    assert!(
        run.stdout
            .ends_with("/user: would delete 2 files (17 bytes)\n"),
        "{run:?}"
    );
    assert_eq!(before, snapshot(&parent));
}

#[test]
fn a_list_index_without_a_record_is_aged_by_its_files() {
    let (scratch, user) = one_user();
    fs::remove_file(user.join(".lasthost")).expect("unlink");
    set_age(&user.join("dovecot.list.index"), 6 * DAY);
    assert_left_alone(&scratch, &user, 0, "left: last used 6 days");

    set_age(&user.join("dovecot.list.index"), WEEK_OLD);
    let delivery = File::open(user.join("dovecot.list.index.log")).expect("open");
    assert_left_alone(&scratch, &user, 75, "");
    close(delivery);

    let run = scratch.run(clean(&user));
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert!(is_cleaned(&user));
}

#[test]
fn a_directory_without_a_list_index_is_never_touched() {
    let (scratch, user) = one_user();
    for name in [".lasthost", "dovecot.list.index", "dovecot.list.index.log"] {
        fs::remove_file(user.join(name)).expect("unlink");
    }
    fs::write(user.join("other"), "other").expect("write");
    assert_left_alone(&scratch, &user, 66, "there is no list index here");
}

#[test]
fn several_paths_are_all_tried_and_the_greatest_status_counts() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let missing = parent.join("missing");
    let busy = user_directory(&parent.join("busy"), ALICE, WEEK_OLD);
    let _login = lock(&busy);
    let old = user_directory(&parent.join("old"), ALICE, WEEK_OLD);

    let mut arguments = clean(&missing).to_vec();
    arguments.extend([busy.as_os_str(), old.as_os_str()]);
    let run = scratch.exits(75, arguments);
    assert_eq!(run.stderr.lines().count(), 2, "{run:?}");
    assert!(run.stderr.contains("missing does not exist"), "{run:?}");
    assert!(is_cleaned(&old));
}

#[test]
fn whatever_is_not_a_file_under_our_names_stops_the_cleaning() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let canary = scratch.path().join("canary");
    fs::write(&canary, "precious").expect("write");
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 4] = [
        ("a symbolic link", |at, canary| {
            symlink(canary, at).expect("symlink")
        }),
        ("a FIFO", |at, _| {
            mkfifo(at, Mode::from_bits_truncate(0o600)).expect("mkfifo")
        }),
        ("a socket", |at, _| {
            drop(UnixListener::bind(at).expect("bind"))
        }),
        ("a hard link", |at, canary| {
            fs::hard_link(canary, at).expect("link")
        }),
    ];
    let mut number = 0;
    for (what, plant) in plants {
        for name in [".lasthost", "dovecot.list.index.log"] {
            if what == "a hard link" && name != ".lasthost" {
                continue; // deleting that harms nobody
            }
            number += 1;
            let user = user_directory(&parent.join(number.to_string()), ALICE, WEEK_OLD);
            fs::remove_file(user.join(name)).expect("unlink");
            plant(&user.join(name), &canary);
            if what != "a hard link" {
                std::os::unix::fs::lchown(user.join(name), Some(ALICE), Some(ALICE)).unwrap_or(());
            }
            let before = snapshot(&user);

            let run = scratch.run(clean(&user));

            let expected = if what == "a hard link" && is_root() {
                77
            } else {
                65
            };
            assert_eq!(run.status, Some(expected), "{what} as {name}: {run:?}");
            assert!(run.stderr.contains(name), "{what} as {name}: {run:?}");
            assert_eq!(before, snapshot(&user), "{what} as {name}");
        }
    }
    assert_eq!(fs::read(&canary).expect("read"), b"precious");
}

#[test]
fn a_symbolic_link_in_the_directorys_place_is_not_followed() {
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let user = user_directory(&parent.join("user"), ALICE, WEEK_OLD);
    symlink(&user, parent.join("link")).expect("symlink");
    let before = snapshot(&parent);
    scratch.exits(77, clean(&parent.join("link")));
    assert_eq!(before, snapshot(&parent));
}

#[test]
fn root_cleans_with_the_rights_of_the_owner() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    // What the owner may not open, root must not open for him.
    let canary = scratch.path().join("canary");
    fs::write(&canary, "root's").expect("write");
    fs::set_permissions(&canary, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("chmod");
    set_age(&canary, WEEK_OLD);
    let user = user_directory(&parent.join("user"), ALICE, WEEK_OLD);
    fs::remove_file(user.join("dovecot.list.index.log")).expect("unlink");
    fs::hard_link(&canary, user.join("dovecot.list.index.log")).expect("link");

    let run = scratch.exits(77, clean(&user));
    assert!(run.stderr.contains("Permission denied"), "{run:?}");
    assert!(user.join(".lasthost").exists());

    // A file in his directory that he may not even see the age of as root's is no reason either.
    let roots = user_directory(&parent.join("roots"), 0, WEEK_OLD);
    scratch.exits(77, clean(&roots));
    assert!(roots.join("dovecot.list.index").exists());
}

#[test]
fn a_directory_is_removed_only_where_its_owner_alone_can_make_it_again() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let parent = scratch.path().join("parent");
    fs::create_dir(&parent).expect("mkdir");
    let user = parent.join("user");
    for (owner, mode, is_removed) in [
        (ALICE, 0o700, true),
        (ALICE, 0o711, true),
        (ALICE, 0o1733, false),
        (ALICE, 0o770, false),
        // Logins make it again, but deliveries cannot.
        (0, 0o711, false),
        (0, 0o1733, false),
        (MALLORY, 0o711, false),
    ] {
        give(&parent, owner);
        fs::set_permissions(&parent, Permissions::from_mode(mode)).expect("chmod");
        user_directory(&user, ALICE, WEEK_OLD);
        let run = scratch.run(clean(&user));
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
        assert_eq!(user.exists(), !is_removed, "{owner} {mode:o}");
        assert!(is_cleaned(&user));
    }

    give(&parent, ALICE);
    fs::set_permissions(&parent, Permissions::from_mode(0o700)).expect("chmod");
    user_directory(&user, ALICE, WEEK_OLD);
    fs::write(user.join("other"), "other").expect("write");
    let run = scratch.exits(0, clean(&user));
    let complaint = "the directory is left: there are other files in it";
    assert!(run.stderr.contains(complaint), "{run:?}");
}

#[test]
fn what_is_in_the_way_of_all_is_not_taken_for_the_owners_doing() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let user = user_directory(&parent.join("user"), ALICE, WEEK_OLD);
    user_directory(&parent.join("recent"), ALICE, DAY);
    // As where a service's unit does not name the place (ReadWritePaths=), or with SELinux's rules.
    let script = r#"
        mount --bind "$2" "$2" && mount -o remount,bind,ro "$2" || exit 99
        exec "$1" usercache sweep 7days "$2" --json
    "#;
    let run = scratch::Run::of(
        std::process::Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .args([scratch.program(), parent]),
    );
    if run.status == Some(99) || run.stderr.starts_with("unshare") {
        return eprintln!("skipped: nothing can be mounted here: {run:?}");
    }
    assert_eq!(run.status, Some(74), "{run:?}");
    let summary: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        (&summary["spoiled"], &summary["failed"]),
        (&0.into(), &1.into())
    );
    assert!(user.join("dovecot.list.index").exists());
}

#[test]
fn a_user_cleans_his_own_directory_and_nobody_elses() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let parent = scratch.hash_directory("00");
    let user = user_directory(&parent.join("user"), ALICE, WEEK_OLD);
    let run = scratch.run_as(MALLORY, clean(&user));
    assert_eq!(run.status, Some(77), "{run:?}");
    assert!(user.join("dovecot.list.index").exists());
    let run = scratch.run_as(ALICE, clean(&user));
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert!(is_cleaned(&user));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let scratch = Scratch::new();
    for path in ["user", "./user", "/", "//", "/dev/shm/x/../y", "/.."] {
        let run = scratch.exits(64, ["usercache", "clean", "7days", path]);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}
