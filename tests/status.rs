//! `nfs-hostchange status` against logins of the real wrapper.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use common::scratch::{ALICE, DAY, Run, Scratch, give, is_root, snapshot, user_directory};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// A user with an INDEX, and a doveadm that says what the userdb knows of him.
struct User {
    scratch: Scratch,
    index: PathBuf,
    list_index: PathBuf,
    location: String,
    configuration: PathBuf,
}

impl User {
    fn new() -> User {
        let scratch = Scratch::new();
        let index = scratch.path().join("index");
        fs::create_dir(&index).expect("mkdir");
        give(&index, ALICE);
        let list_index = scratch.hash_directory("00").join("alice");
        let configuration = scratch.path().join("nfs-hostchange.toml");
        let settings = "hostname = \"a.example.org\"\n[log]\ntarget = \"stderr\"\n";
        fs::write(&configuration, settings).expect("write");
        let location = format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/dovecot.list.index",
            index.display(),
            list_index.display()
        );
        let user = User {
            scratch,
            index,
            list_index,
            location,
            configuration,
        };
        user.tell();
        user
    }

    /// Lets the userdb return the location.
    fn tell(&self) {
        let location = &self.location;
        let fields = format!(
            "userdb: x\n  uid       : {ALICE}\n  gid       : {ALICE}\n  home      : /nowhere\n  mail_location: {location}\n"
        );
        self.scratch.doveadm(&fields);
    }

    fn log_in(&self) {
        let run = Run::of(
            Command::new(env!("CARGO_BIN_EXE_nfs-hostchange-login"))
                .arg(format!("--config={}", self.configuration.display()))
                .arg("/bin/true")
                .env_clear()
                .envs([("USER", "alice"), ("HOME", "/nowhere")])
                .envs(["UID", "GID"].map(|name| (name, ALICE.to_string())))
                .env("MAIL_LOCATION", &self.location),
        );
        assert_eq!(run.status, Some(0), "{run:?}");
    }

    fn status(&self, options: &[&str]) -> Run {
        let arguments = ["status", "-u", "alice", "--config"];
        let configuration = [text(&self.configuration)];
        self.scratch
            .run([&arguments[..], &configuration, options].concat())
    }
}

#[test]
fn a_user_is_in_step_after_a_login_and_behind_after_another_backends_claim() {
    if !is_root() {
        return;
    }
    let user = User::new();
    let status = json(&user.status(&["--json"]));
    assert_eq!(
        (&status["in_step"], &status["claimed_by"]),
        (&Value::from(false), &Value::Null)
    );

    user.log_in();
    let log = user.list_index.join("dovecot.list.index.log");
    fs::write(&log, "transactions").expect("write");
    give(&log, ALICE);
    let before = snapshot(&user.list_index);
    let status = json(&user.status(&["--json"]));
    assert_eq!(status["in_step"], true, "{status}");
    assert_eq!(status["claimed_by"], "a.example.org");
    assert_eq!(status["list_index_dir"], text(&user.list_index));
    assert_eq!(status["index_dir"], text(&user.index));
    assert_eq!(
        (&status["files"], &status["bytes"]),
        (&Value::from(1), &Value::from(12))
    );
    assert_eq!(status["session_open"], false);
    assert_eq!(before, snapshot(&user.list_index), "nothing was changed");

    let session = File::open(&log).expect("open");
    assert_eq!(json(&user.status(&["--json"]))["session_open"], true);
    drop(session);

    fs::remove_file(user.index.join(".lasthost")).expect("unlink");
    fs::write(user.index.join(".lasthost"), "b.example.org\n").expect("write");
    give(&user.index.join(".lasthost"), ALICE);
    let status = json(&user.status(&["--json"]));
    assert_eq!(status["in_step"], false, "{status}");
    assert_eq!(status["claimed_by"], "b.example.org");
    let people = user.status(&[]);
    assert!(
        people
            .stdout
            .contains("in step     no: the claim in INDEX was made after"),
        "{people:?}"
    );
}

#[test]
fn a_list_index_that_is_shared_through_a_link_is_nothing_to_keep_in_step() {
    if !is_root() {
        return;
    }
    let user = User::new();
    let link = user.scratch.path().join("link");
    std::os::unix::fs::symlink(user.scratch.path(), &link).expect("symlink");
    let mut user = user;
    user.list_index = link.join("index");
    user.location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/dovecot.list.index",
        user.index.display(),
        user.list_index.display()
    );
    user.tell();
    user.log_in();
    assert_eq!(fs::read_dir(&user.index).expect("readdir").count(), 0);
    let run = user.status(&[]);
    assert_eq!(run.status, Some(0), "{run:?}");
    assert!(run.stdout.contains("are the same directory"), "{run:?}");
    assert_eq!(json(&user.status(&["--json"]))["in_step"], Value::Null);
}

#[test]
fn a_list_index_that_is_to_be_migrated_is_not_in_step() {
    if !is_root() {
        return;
    }
    let user = User::new();
    let text = fs::read_to_string(&user.configuration).expect("read");
    fs::write(&user.configuration, format!("migration = true\n{text}")).expect("write");
    let original = user.index.join("dovecot.list.index.log");
    fs::write(&original, "before there were local ones").expect("write");
    give(&original, ALICE);
    let run = user.status(&[]);
    let expected = "in step     no: the next login takes over the list index that is in INDEX";
    assert!(run.stdout.contains(expected), "{run:?}");
    user.log_in();
    assert_eq!(json(&user.status(&["--json"]))["in_step"], true);

    fs::write(&original, "of a backend without this program").expect("write");
    give(&original, ALICE);
    let run = user.status(&[]);
    let expected = "in step     no: the list index in INDEX was written to since";
    assert!(run.stdout.contains(expected), "{run:?}");
}

#[test]
fn everything_below_a_root_is_counted() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    for number in 0..12 {
        user_directory(
            &root.join(format!("user{number}")),
            ALICE,
            DAY * number / 2 + Duration::from_secs(60),
        );
    }
    fs::write(root.join("user3/dovecot.list.index"), [b'x'; 5000]).expect("write");
    let _session = File::open(root.join("user5/dovecot.list.index.log")).expect("open");
    let below = ["status", "--below", text(&root)];

    let run = scratch.exits(0, [&below[..], &["--json"]].concat());
    let status = json(&run);
    assert_eq!(status["users"], 12);
    assert_eq!(status["files"], 24);
    assert_eq!(status["bytes"], 12 * 17 + 4995);
    assert_eq!(status["in_use"], 1);
    assert_eq!(status["recorded"], 12);
    assert_eq!(status["failed"], 0);
    let users: Vec<_> = status["ages"]
        .as_array()
        .expect("classes")
        .iter()
        .map(|class| class["users"].as_u64().expect("a number"))
        .collect();
    // user3 was written just now.
    assert_eq!(users, [2, 1, 9, 0, 0, 0], "{status}");
    let biggest = status["biggest"].as_array().expect("a list");
    assert_eq!(biggest.len(), 10);
    assert_eq!(biggest[0]["bytes"], 5012);
    assert_eq!(biggest[0]["list_index_dir"], text(&root.join("user3")));

    let run = scratch.run([&below[..], &["--prometheus"]].concat());
    let line = format!("nfs_hostchange_users{{root=\"{}\"}} 12\n", root.display());
    assert!(run.stdout.contains(&line), "{run:?}");
    let run = scratch.run(below);
    assert!(run.stdout.contains("12 users"), "{run:?}");
}

#[test]
fn a_directory_tells_its_own_state() {
    let scratch = Scratch::new();
    let user = user_directory(&scratch.hash_directory("00").join("user"), ALICE, DAY);
    let before = snapshot(&user);
    let status = json(&scratch.run(["status", "--json", text(&user)]));
    assert_eq!(
        (&status["files"], &status["record"]),
        (&Value::from(2), &Value::from(true))
    );
    assert_eq!(before, snapshot(&user));
    for (arguments, expected) in [
        (vec!["status", "/nowhere/user"], 66),
        (vec!["status", text(scratch.path())], 77),
        (vec!["status"], 64),
        (vec!["status", "user"], 64),
        (vec!["status", "--below", "/dev/shm"], 64),
    ] {
        scratch.exits(expected, &arguments);
    }
}
