//! `nfs-hostchange usercache forget`: from then on no list index counts, whoever is logged in.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use common::{HERE, Lab, PREFIX, THERE, mount_tmpfs, names_in, set_owner_and_mode};

fn forget(lab: &Lab, further: &[&str]) -> Output {
    let root = lab.list_index(HERE);
    let root = root.ancestors().nth(2).expect("below /dev/shm");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"));
    command
        .args(["usercache", "forget"])
        .arg(root)
        .args(further);
    command.output().expect("it can be started")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[track_caller]
fn assert_emptied(output: &Output, users: u32, records: u32) {
    let told = text(&output.stdout);
    let plural = |number| if number == 1 { "" } else { "s" };
    let (user, record) = (plural(users), plural(records));
    let expected = format!(": {users} user{user}, {records} record{record} emptied; ");
    assert!(told.contains(&expected), "{output:?}");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn the_next_login_begins_anew_and_until_then_nothing_else_changes() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    lab.login().run().assert_vouched();
    lab.plant_list_index(HERE);
    // A session is open, of course.
    let log = lab.list_index(HERE).join("dovecot.list.index.log");
    let session = File::open(&log).expect("it is planted");
    let names = names_in(&lab.list_index(HERE));
    let times = || {
        let status = fs::metadata(lab.record_file(HERE)).expect("it is there");
        (status.atime_nsec(), status.mtime_nsec(), status.len())
    };
    let before = times();
    assert_emptied(&forget(&lab, &[]), 1, 1);
    assert_emptied(&forget(&lab, &[]), 1, 0);
    // When the user was here last is for the sweep to know.
    assert_eq!(times(), before);
    assert_eq!(lab.record(HERE), None);
    assert_eq!(names_in(&lab.list_index(HERE)), names);
    drop(session);
    let claim = lab.claim();
    lab.login().run().assert_vouched();
    assert_ne!(lab.claim(), claim);
    assert!(lab.is_recorded(HERE));
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn a_login_that_is_under_way_is_waited_for_and_then_named() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    // It holds the lock, and has claimed.
    let mut login = lab.login().trace();
    login.run_to_call(libc::SYS_renameat);
    login.complete_call();
    let output = forget(&lab, &[]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let complaint = "is locked, by a login or by its owner: try again";
    assert!(text(&output.stderr).contains(complaint), "{output:?}");
    // Nothing is taken from it.
    login.finish().assert_vouched();
    assert!(lab.is_recorded(HERE));
    assert_emptied(&forget(&lab, &[]), 1, 1);
}

#[test]
fn whoever_keeps_locks_keeps_nobody_else_s_record() {
    let lab = Lab::with_settled_user();
    let root = lab.list_index(HERE);
    let root = root.parent().expect("it has one");
    let locked: Vec<_> = (0..12)
        .map(|number| {
            let directory = root.join(format!("a{number}"));
            fs::create_dir(&directory).expect("root may");
            let file = File::create(directory.join(".lasthost")).expect("root may");
            for path in [directory.join(".lasthost"), directory] {
                set_owner_and_mode(&path, common::OTHER_UID, 0o700);
            }
            fs2::FileExt::lock_exclusive(&file).expect("nobody else has it");
            file
        })
        .collect();
    let began = Instant::now();
    let output = forget(&lab, &["--json"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{output:?}");
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(text(&output.stderr).lines().count(), 12, "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let counted = ["users", "emptied", "failed"].map(|name| json[name].as_u64());
    assert_eq!(counted, [13, 1, 12].map(Some), "{output:?}");
    assert_eq!(lab.record(HERE), None);
    assert!(root.join("a0/.lasthost").exists());
    // One that is let go in time is no failure.
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(300));
            common::close(locked);
        });
        assert_emptied(&forget(&lab, &[]), 13, 0);
    });
}

#[test]
fn a_link_of_roots_on_the_way_is_named() {
    let lab = Lab::with_settled_user();
    let root = lab.list_index(HERE);
    let root = root.ancestors().nth(2).expect("below /dev/shm");
    std::os::unix::fs::symlink("/var/elsewhere", root.join("elsewhere")).expect("root may");
    let output = forget(&lab, &[]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(
        text(&output.stderr).contains("/elsewhere is a symbolic link"),
        "{output:?}"
    );
}

#[test]
fn a_login_that_waits_for_the_lock_finds_no_record() {
    let lab = Lab::with_settled_user();
    let claim = lab.claim();
    // The file is open, and not locked yet.
    let mut login = lab.login().trace();
    login.run_to_call(libc::SYS_flock);
    assert_emptied(&forget(&lab, &[]), 1, 1);
    login.finish().assert_vouched();
    assert_ne!(lab.claim(), claim);
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn a_record_that_may_still_be_there_is_a_failure() {
    let lab = Lab::with_settled_user();
    set_owner_and_mode(&lab.record_file(HERE), common::UID, 0o000);
    let output = forget(&lab, &["--json"]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["failed"], 1, "{output:?}");
    assert_eq!(json["emptied"], 0, "{output:?}");
}

/// The exit status of forgetting everything below `root`, and what it complained about.
fn forget_below(root: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"));
    command.args(["usercache", "forget"]).arg(root);
    let output = command.output().expect("it can be started");
    (output.status.code(), text(&output.stderr).to_owned())
}

#[test]
fn records_are_found_wherever_they_are() {
    let lab = Lab::with_settled_user();
    let directory = lab.list_index(HERE);
    // The root itself.
    assert_eq!(forget_below(&directory), (Some(0), String::new()));
    assert_eq!(lab.record(HERE), None);
    // Below a user's directory, and deeper than usual.
    for below in ["archive", "1/2/3/4/5/6"] {
        let archive = directory.join(below);
        let location = format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
            lab.index().display(),
            archive.display()
        );
        lab.login().location(&location).run().assert_vouched();
        let root = directory.parent().expect("it has one");
        assert_eq!(forget_below(root), (Some(0), String::new()));
        let record = fs::read_to_string(archive.join(".lasthost")).expect("it is there");
        assert!(record.starts_with(" \n"), "{record:?}");
    }
}

#[test]
fn whatever_may_hide_a_record_is_a_failure() {
    let lab = Lab::with_settled_user();
    let directory = lab.list_index(HERE);
    let root = directory.parent().expect("it has one");
    let second = root.join("second");
    fs::hard_link(lab.record_file(HERE), &second).expect("root may");
    let (status, complaint) = forget_below(root);
    assert_eq!(status, Some(65), "{complaint}");
    assert!(complaint.contains("second name"), "{complaint}");
    fs::remove_file(second).expect("it is there");
    assert_eq!(forget_below(root), (Some(0), String::new()));
    // There is nothing where nobody logged in.
    let empty = root.join("empty");
    let deep = empty.join("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17");
    fs::create_dir_all(&empty).expect("root may");
    assert_eq!(forget_below(&empty).0, Some(66));
    fs::create_dir_all(&deep).expect("root may");
    let (status, complaint) = forget_below(root);
    assert_eq!(status, Some(65), "{complaint}");
    assert!(complaint.contains("too deep"), "{complaint}");
    fs::remove_dir_all(&empty).expect("root may");
    let mounted = root.join("mounted");
    fs::create_dir(&mounted).expect("root may");
    mount_tmpfs(&mounted, "mode=0755");
    let (status, complaint) = forget_below(root);
    assert_eq!(status, Some(65), "{complaint}");
    assert!(complaint.contains("mount point"), "{complaint}");
}

#[test]
fn what_is_no_directory_of_list_indexes_is_refused() {
    let lab = Lab::with_settled_user();
    for (root, status) in [("/dev/shm", 64), ("/nowhere", 66), ("relative", 64)] {
        let output = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"))
            .args(["usercache", "forget", root])
            .output()
            .expect("it can be started");
        assert_eq!(output.status.code(), Some(status), "{root}: {output:?}");
    }
    assert!(lab.is_recorded(HERE));
}
