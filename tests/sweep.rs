//! `nfs-hostchange usercache sweep` on a real tmpfs.

mod common;

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use common::scratch::{
    ALICE, DAY, MALLORY, Run, Scratch, give, is_cleaned, is_root, lock, set_age, set_times,
    snapshot, spawn, start, user_directory,
};
use common::{close, record};

const OLD: Duration = Duration::from_secs(7 * 86_400 + 60);

/// A sweep of `root` that succeeds, with its summary for programs.
#[track_caller]
fn sweep(scratch: &Scratch, root: &Path, options: &[&str]) -> (Run, Value) {
    let run = scratch.exits(0, arguments(root, options));
    let summary = summary_of(&run);
    (run, summary)
}

fn summary_of(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or(Value::Null)
}

/// The summary of one that has nothing to complain about.
#[track_caller]
fn swept(scratch: &Scratch, root: &Path, options: &[&str]) -> Value {
    let (run, summary) = sweep(scratch, root, options);
    assert_eq!(run.stderr, "");
    summary
}

fn arguments<'a>(root: &'a Path, options: &[&'a str]) -> Vec<&'a str> {
    let root = root.to_str().expect("UTF-8");
    [&["usercache", "sweep", "7days", root, "--json"], options].concat()
}

/// The counters of a summary that are not zero.
fn counted(summary: &Value) -> Vec<(&str, u64)> {
    [
        "users",
        "cleaned",
        "recent",
        "in_use",
        "logging_in",
        "spoiled",
        "failed",
        "files_deleted",
        "bytes_deleted",
        "directories_removed",
    ]
    .into_iter()
    .map(|name| (name, summary[name].as_u64().expect("each counter is there")))
    .filter(|&(_, count)| count > 0)
    .collect()
}

#[test]
fn users_up_to_eight_levels_below_the_root_are_cleaned_and_nothing_else_is() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let mut gone = Vec::new();
    for way in ["", "1", "1/2", "1/2/3/4/5/6/7"] {
        let parent = scratch.hash_directory(&format!("root/{way}"));
        gone.push(user_directory(&parent.join("old"), ALICE, OLD));
        user_directory(&parent.join("recent"), ALICE, 6 * DAY);
    }
    let too_deep = scratch.hash_directory("root/1/2/3/4/5/6/7/8");
    let kept = user_directory(&too_deep.join("old"), ALICE, OLD);
    // Neither logins nor Dovecot make these.
    let unknown = scratch.hash_directory("root/unknown");
    fs::write(unknown.join("dovecot.list.index"), "index").expect("write");
    set_age(&unknown.join("dovecot.list.index"), OLD);
    scratch.hash_directory("root/empty");

    let summary = swept(&scratch, &root, &[]);
    let expected = [
        ("users", 8),
        ("cleaned", 4),
        ("recent", 4),
        ("files_deleted", 8),
        ("bytes_deleted", 4 * 17),
    ];
    assert_eq!(counted(&summary), expected);
    assert_eq!(summary["root"], root.to_str().expect("UTF-8"));
    assert_eq!(summary["min_age_seconds"], 7 * 86_400);
    assert_eq!(summary["dry_run"], false);
    assert!(summary["duration_seconds"].as_f64().expect("a number") >= 0.0);
    for user in gone {
        assert!(is_cleaned(&user), "{user:?} is gone");
        assert!(user.with_file_name("recent/dovecot.list.index").exists());
    }
    assert!(kept.join("dovecot.list.index").exists());
    assert!(unknown.join("dovecot.list.index").exists());
    assert!(root.join("empty").exists(), "parents stay");
}

#[test]
fn roots_that_belong_to_others_and_paths_that_lead_elsewhere_are_refused() {
    let scratch = Scratch::new();
    symlink("/dev/shm", scratch.path().join("link")).expect("symlink");
    let link = scratch.path().join("link");
    let refused = [
        ("/", 64),
        ("/dev/shm", 64),
        ("/dev/shm/", 64),
        ("//dev/./shm/.", 64),
        ("/dev/shm/../shm/x", 64),
        ("dovecot", 64),
        (".", 64),
        ("/dev/shm/nfs-hostchange-missing", 66),
        ("/etc/passwd", 65),
        (link.to_str().expect("UTF-8"), 77),
    ];
    for (root, status) in refused {
        let run = scratch.exits(status, ["usercache", "sweep", "7days", root]);
        assert_eq!(run.stdout, "", "{root}");
        assert_eq!(run.stderr.lines().count(), 1, "{root}: {run:?}");
    }
}

#[test]
fn nothing_that_is_kept_is_changed_not_even_an_access_time() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let parent = scratch.hash_directory("root/00");
    user_directory(&parent.join("recent"), ALICE, 6 * DAY);
    let delivered = user_directory(&parent.join("delivered"), ALICE, OLD);
    set_times(&delivered.join("dovecot.list.index.log"), OLD, DAY);
    let session = user_directory(&parent.join("session"), ALICE, OLD);
    let _session = File::open(session.join("dovecot.list.index.log")).expect("open");
    let login = user_directory(&parent.join("login"), ALICE, OLD);
    let _login = lock(&login);
    let before = snapshot(&root);

    let (_, summary) = sweep(&scratch, &root, &[]);
    let expected = [
        ("users", 4),
        ("recent", 2),
        ("in_use", 1),
        ("logging_in", 1),
    ];
    assert_eq!(counted(&summary), expected);
    assert_eq!(before, snapshot(&root));
}

#[test]
fn a_dry_run_counts_what_would_be_deleted_and_deletes_nothing() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    user_directory(&root.join("user"), ALICE, OLD);
    let before = snapshot(&root);
    let (run, summary) = sweep(&scratch, &root, &["--dry-run", "--verbose"]);
    assert!(
        run.stderr
            .ends_with("/root/user: would delete 2 files (17 bytes)\n"),
        "{run:?}"
    );
    let expected = [
        ("users", 1),
        ("cleaned", 1),
        ("files_deleted", 2),
        ("bytes_deleted", 17),
    ];
    assert_eq!(counted(&summary), expected);
    assert_eq!(summary["dry_run"], true);
    assert_eq!(before, snapshot(&root));
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let outside = scratch.hash_directory("outside");
    let user = user_directory(&outside.join("user"), ALICE, OLD);
    symlink(&user, root.join("user")).expect("symlink");
    symlink(&outside, root.join("all")).expect("symlink");
    let before = snapshot(&outside);
    let (_, summary) = sweep(&scratch, &root, &[]);
    assert_eq!(counted(&summary), []);
    assert_eq!(before, snapshot(&outside));
}

#[test]
fn what_stands_in_the_way_is_reported_and_the_rest_is_cleaned() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let odd = user_directory(&root.join("odd"), ALICE, OLD);
    symlink("/nowhere", odd.join("dovecot.list.index.log.2")).expect("symlink");
    let old = user_directory(&root.join("old"), ALICE, OLD);
    let before = snapshot(&odd);
    let (run, summary) = sweep(&scratch, &root, &[]);
    assert!(
        run.stderr
            .contains("odd/dovecot.list.index.log.2 is not a regular file"),
        "{run:?}"
    );
    assert_eq!(summary["spoiled"], 1);
    assert_eq!(summary["cleaned"], 1);
    assert!(is_cleaned(&old));
    assert_eq!(before, snapshot(&odd));
}

#[test]
fn a_mail_user_sweeps_his_own_directories_and_reports_those_of_others() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    give(&root, ALICE);
    fs::set_permissions(&root, PermissionsExt::from_mode(0o700)).expect("chmod");
    let own = user_directory(&root.join("own"), ALICE, OLD);
    let run = scratch.run_as(ALICE, arguments(&root, &[]));
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert!(!own.exists());

    let foreign = user_directory(&root.join("foreign"), MALLORY, OLD);
    let run = scratch.run_as(ALICE, arguments(&root, &[]));
    assert_eq!(run.status, Some(77), "{run:?}");
    assert!(run.stderr.contains("foreign"), "{run:?}");
    assert!(foreign.join("dovecot.list.index").exists());
}

#[test]
fn a_lock_file_planted_on_the_way_hides_nobody() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    fs::create_dir(&root).expect("mkdir");
    let hash = scratch.hash_directory("root/00");
    let planted = hash.join(".lasthost");
    fs::write(&planted, "").expect("write");
    give(&planted, MALLORY);
    let list_index = hash.join("dovecot.list.index");
    fs::write(&list_index, "whoever put it there").expect("write");
    give(&list_index, MALLORY);
    for age in [Duration::ZERO, OLD] {
        set_age(&planted, age);
        set_age(&list_index, age);
        let user = user_directory(&hash.join("user"), ALICE, OLD);
        let (_, summary) = sweep(&scratch, &root, &[]);
        assert_eq!(summary["users"], 1);
        assert!(is_cleaned(&user));
        assert!(planted.exists() && list_index.exists());
    }
}

#[test]
fn what_owners_did_to_their_own_directories_is_counted_and_decides_nothing() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let old = user_directory(&root.join("old"), ALICE, OLD);
    type Spoil = fn(&Path);
    let mut spoils: Vec<Spoil> = vec![
        |user| {
            fs::remove_file(user.join("dovecot.list.index.log")).expect("unlink");
            symlink("/nowhere", user.join("dovecot.list.index.log")).expect("symlink");
        },
        |user| fs::create_dir(user.join(".lasthost.without")).expect("mkdir"),
        |user| {
            fs::write(user.join(".lasthost"), "backend-a\n").expect("write");
            set_age(&user.join(".lasthost"), OLD);
        },
    ];
    if is_root() {
        let close: [Spoil; 3] = [
            |user| fs::set_permissions(user, Permissions::from_mode(0o500)).expect("chmod"),
            |user| fs::set_permissions(user, Permissions::from_mode(0o000)).expect("chmod"),
            |user| {
                let log = user.join("dovecot.list.index.log");
                fs::set_permissions(log, Permissions::from_mode(0o000)).expect("chmod");
            },
        ];
        spoils.extend(close);
    }
    let number = 90;
    for (spoil, directory) in spoils.iter().cycle().zip(0..number) {
        spoil(&user_directory(
            &root.join(format!("m{directory}")),
            MALLORY,
            OLD,
        ));
    }
    let path = root.to_str().expect("UTF-8");
    let status = ["status", "--below", path];
    for (arguments, failures) in [
        ([&status[..], &["--json"]].concat(), "\"failed\":0"),
        (
            [&status[..], &["--prometheus"]].concat(),
            "nfs_hostchange_failures{root=\"",
        ),
        (arguments(&root, &[]), "\"failed\":0"),
    ] {
        let run = scratch.exits(0, &arguments);
        assert!(run.stdout.contains(failures), "{run:?}");
        assert!(!run.stdout.contains("failures{root=\"1"), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 21, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains("nfs-hostchange: and "), "{run:?}");
    }
    assert!(is_cleaned(&old));
    // Without anybody else it may be the wrong root.
    for directory in 0..number {
        set_age(&root.join(format!("m{directory}/.lasthost")), OLD);
    }
    let run = scratch.run(arguments(&root, &[]));
    let summary = summary_of(&run);
    assert!(run.status > Some(64), "{run:?}");
    assert_eq!(counted(&summary), [("users", number), ("spoiled", number)]);
    for directory in 0..number {
        let directory = root.join(format!("m{directory}"));
        fs::set_permissions(directory, Permissions::from_mode(0o700)).expect("chmod");
    }
}

#[test]
fn the_root_and_directories_in_users_may_be_users_too() {
    let scratch = Scratch::new();
    let root = user_directory(&scratch.path().join("root"), ALICE, OLD);
    let mut users = vec![root.clone()];
    for below in ["archive", "archive/more", "recent", "recent/old", "gets"] {
        let age = if below == "recent" { DAY } else { OLD };
        users.push(user_directory(&root.join(below), ALICE, age));
    }
    let delivered = directory_of_deliveries(&root.join("recent/gets"), OLD);
    let (_, summary) = sweep(&scratch, &root, &["-v"]);
    assert_eq!(
        counted(&summary)[..3],
        [("users", 7), ("cleaned", 6), ("recent", 1)]
    );
    for user in users.iter().chain([&delivered]) {
        let is_left = user.join("dovecot.list.index").exists();
        assert_eq!(is_left, user.ends_with("recent"), "{user:?}");
    }
    assert!(root.exists(), "the root itself stays");
}

#[test]
fn a_sign_that_is_all_that_is_left_is_cleaned() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let user = root.join("user");
    for age in [DAY, OLD] {
        let _ = fs::create_dir(&user);
        fs::set_permissions(&user, Permissions::from_mode(0o700)).expect("chmod");
        fs::write(user.join(".lasthost.without"), "").expect("write");
        for path in [user.join(".lasthost.without"), user.clone()] {
            give(&path, ALICE);
        }
        set_age(&user.join(".lasthost.without"), age);
        let summary = swept(&scratch, &root, &[]);
        assert_eq!(summary["users"], 1, "{summary}");
        assert_eq!(is_cleaned(&user), age == OLD);
    }
}

/// A shell script that is given the program and `root`; it ends with 99 if nothing can be mounted.
fn with_mounts_of_its_own(scratch: &Scratch, script: &str, root: &Path) -> Option<Run> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.args(["sh", "-c", script, "sh"]);
    let run = Run::of(command.arg(scratch.program()).arg(root));
    if run.status == Some(99) || run.stderr.starts_with("unshare") {
        eprintln!("skipped: nothing can be mounted here: {run:?}");
        return None;
    }
    Some(run)
}

#[test]
fn where_there_is_no_inode_left_users_who_only_get_mail_are_cleaned_as_well() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let script = r#"
        mount -t tmpfs -o mode=1733,nr_inodes=100 none "$2" || exit 99
        number=0
        while mkdir -m 0700 "$2/$number" && echo x >"$2/$number/dovecot.list.index.log"; do
            echo x >"$2/$number/dovecot.list.index"
            number=$((number + 1))
        done 2>/dev/null
        find "$2" -mindepth 1 -exec chown 410001 {} + -exec touch -d '8 days ago' {} +
        touch "$2/more" 2>/dev/null && exit 98
        "$1" usercache sweep 7days "$2" --json || exit 97
        find "$2" -mindepth 2
    "#;
    let Some(run) = with_mounts_of_its_own(&scratch, script, &root) else {
        return;
    };
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
    let summary: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert!(
        summary["cleaned"].as_u64() > Some(20) && summary["failed"] == 0,
        "{summary}"
    );
}

#[test]
fn a_forged_record_makes_nobody_hold_hundreds_of_files() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let old = user_directory(&root.join("old"), ALICE, OLD);
    for is_of_this_file in [false, true] {
        let user = user_directory(&root.join(is_of_this_file.to_string()), MALLORY, OLD);
        let file = user.join(".lasthost");
        let line = |number| {
            let prefix = format!("{number}.log");
            record::line((4711, 1_700_000_000, 0), 4712, &prefix)
        };
        let lines: String = (0..40).map(line).collect();
        let of = if is_of_this_file { &file } else { &root };
        fs::write(&file, record::text(of, "a.example.org", &lines)).expect("write");
        set_age(&file, OLD);
        for number in 0..40 {
            for suffix in ["", ".log.2"] {
                let log = user.join(format!("{number}.log{suffix}"));
                fs::write(&log, "").expect("write");
                give(&log, MALLORY);
                set_age(&log, OLD);
            }
        }
    }
    let (run, summary) = sweep(&scratch, &root, &["-v"]);
    let expected = [
        ("users", 3),
        ("cleaned", 2),
        ("spoiled", 1),
        ("files_deleted", 4),
    ];
    assert_eq!(counted(&summary)[..4], expected, "{run:?}");
    assert!(is_cleaned(&old));
    let complaint = "true holds more than 64 logs of list indexes";
    assert!(run.stderr.contains(complaint), "{run:?}");
}

#[test]
fn whoever_holds_leases_cannot_be_stopped_from_the_terminal() {
    let scratch = Scratch::new();
    let status = status_at_the_end(&scratch, &many_users(&scratch, 10));
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("SigIgn").trim(), 16).expect("a number");
    for signal in [libc::SIGTSTP, libc::SIGTTOU, libc::SIGIO] {
        assert_ne!(ignored & (1 << (signal - 1)), 0, "{signal}");
    }
}

/// A user's directory as deliveries make it: without a record.
fn directory_of_deliveries(path: &Path, age: Duration) -> PathBuf {
    let user = user_directory(path, ALICE, age);
    fs::remove_file(user.join(".lasthost")).expect("unlink");
    user
}

#[test]
fn whoever_only_gets_mail_is_aged_by_his_files_and_cleaned() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let mut gone = Vec::new();
    for way in ["", "1", "1/2", "1/2/3"] {
        let parent = scratch.hash_directory(&format!("root/{way}"));
        gone.push(directory_of_deliveries(&parent.join("old"), OLD));
        directory_of_deliveries(&parent.join("recent"), 6 * DAY);
    }
    let open = directory_of_deliveries(&root.join("open"), OLD);
    let delivery = File::open(open.join("dovecot.list.index.log")).expect("open");
    // The newest of the files counts.
    let rewritten = directory_of_deliveries(&root.join("rewritten"), OLD);
    set_age(&rewritten.join("dovecot.list.index"), DAY);
    let before = snapshot(&root);

    let summary = swept(&scratch, &root, &["--dry-run"]);
    assert_eq!(summary["users"], 10);
    assert_eq!(summary["cleaned"], 4);
    assert_eq!(before, snapshot(&root));

    let summary = swept(&scratch, &root, &[]);
    let expected = [
        ("users", 10),
        ("cleaned", 4),
        ("recent", 5),
        ("in_use", 1),
        ("files_deleted", 8),
        ("bytes_deleted", 4 * 17),
    ];
    assert_eq!(counted(&summary), expected);
    for user in gone {
        assert!(is_cleaned(&user), "{user:?} is gone");
        let recent = user.with_file_name("recent");
        assert_eq!(fs::read_dir(recent).expect("readdir").count(), 2);
    }
    assert_eq!(fs::read_dir(&open).expect("readdir").count(), 2);
    close(delivery);
}

#[test]
fn a_mail_store_is_not_a_directory_of_list_indexes() {
    let guid = "0d3f67a12b5c0e5f8a7b000012345678";
    let marks = [
        "dovecot.lasthost".to_owned(),
        "dovecot-uidvalidity".to_owned(),
        "dovecot.index.log".to_owned(),
        "mailboxes/".to_owned(),
        "cur/".to_owned(),
        format!("boxes/{guid}/"),
    ];
    for mark in marks {
        for has_lock_file in [false, true] {
            let scratch = Scratch::new();
            let root = scratch.hash_directory("root");
            let index = directory_of_deliveries(&root.join("alice"), OLD);
            let path = index.join(mark.trim_end_matches('/'));
            if mark.ends_with('/') {
                fs::create_dir_all(&path).expect("mkdir");
            } else {
                fs::write(&path, "").expect("write");
            }
            for path in path.ancestors().take_while(|path| *path != index) {
                give(path, ALICE);
            }
            if has_lock_file {
                fs::write(index.join(".lasthost"), " \n").expect("write");
                give(&index.join(".lasthost"), ALICE);
                set_age(&index.join(".lasthost"), OLD);
            }
            let before = snapshot(&index);
            let run = scratch.exits(77, arguments(&root, &[]));
            assert!(run.stderr.contains("is no LISTINDEX"), "{mark}: {run:?}");
            assert_eq!(snapshot(&index), before, "{mark}");
        }
    }
}

#[test]
fn names_that_a_user_may_have_hide_nobody() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    // One uid for all of them, and a domain.
    let domain = scratch.hash_directory("root/example.org");
    give(&root, ALICE);
    give(&domain, ALICE);
    let names = [
        ".lasthost",
        ".lasthost.without",
        "dovecot.list.index",
        "dovecot.list.index.log",
        "carol",
    ];
    for name in names {
        user_directory(&domain.join(name), ALICE, OLD);
    }
    let summary = swept(&scratch, &root, &[]);
    assert_eq!(summary["cleaned"], names.len());
    assert!(names.iter().all(|name| is_cleaned(&domain.join(name))));
}

#[test]
fn a_link_to_a_file_of_roots_hides_nobody() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let hash = scratch.hash_directory("root/00");
    // Everybody may link to a file that everybody may write to (fs.protected_hardlinks in proc(5)).
    let world_writable = scratch.path().join("semaphore");
    fs::write(&world_writable, "").expect("write");
    for name in [".lasthost", "dovecot.list.index.log"] {
        fs::hard_link(&world_writable, hash.join(name)).expect("link");
    }
    let user = user_directory(&hash.join("user"), ALICE, OLD);
    let summary = swept(&scratch, &root, &[]);
    assert_eq!(counted(&summary)[..2], [("users", 1), ("cleaned", 1)]);
    assert!(is_cleaned(&user));
    assert!(hash.join(".lasthost").exists());
}

/// A file system below `target` whose program never answers.
fn mount_silence(target: &Path) -> std::io::Result<File> {
    let fuse = File::options().read(true).write(true).open("/dev/fuse")?;
    let mode = fs::metadata(target)?.mode();
    let options = format!(
        "fd={},rootmode={mode:o},user_id={MALLORY},group_id={MALLORY},allow_other",
        fuse.as_fd().as_raw_fd()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("silence"),
        target,
        Some("fuse"),
        flags,
        Some(options.as_str()),
    )?;
    Ok(fuse)
}

#[test]
fn whatever_a_user_mounts_holds_up_nobody() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    // In a name space of this thread's own.
    unshare(CloneFlags::CLONE_NEWNS).expect("root may do that");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let none = None::<&str>;
    mount(none, "/", none, private, none)
        .or_else(|_| mount(none, "/dev/shm", none, private, none))
        .expect("a mount point");
    let mounted: Vec<_> = [
        "directory",
        ".lasthost",
        ".lasthost.without",
        "dovecot.list.index",
        "dovecot.list.index.log",
    ]
    .into_iter()
    .enumerate()
    .map(|(number, name)| {
        let user = user_directory(&root.join(number.to_string()), MALLORY, OLD);
        let sign = user.join(".lasthost.without");
        fs::write(&sign, "").expect("write");
        give(&sign, MALLORY);
        if name == "directory" {
            user
        } else {
            user.join(name)
        }
    })
    .collect();
    let silences: Result<Vec<_>, _> = mounted.iter().map(|path| mount_silence(path)).collect();
    let silences = match silences {
        Ok(silences) => silences,
        Err(error) => return eprintln!("skipped: nothing can be mounted here: {error}"),
    };
    let old = user_directory(&root.join("old"), ALICE, OLD);
    let path = root.to_str().expect("UTF-8");
    for arguments in [
        vec!["usercache", "sweep", "7days", path],
        vec!["status", "--below", path],
    ] {
        let run = Run::of(
            Command::new("timeout")
                .args(["--signal=KILL", "30"])
                .arg(scratch.program())
                .args(&arguments),
        );
        assert!(
            matches!(run.status, Some(0 | 65..=77)),
            "{arguments:?}: {run:?}"
        );
    }
    assert!(is_cleaned(&old));
    for path in &mounted {
        umount2(path, MntFlags::MNT_DETACH).expect("it is mounted");
    }
    close(silences);
}

#[test]
fn other_file_systems_are_not_entered() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let mounted = scratch.hash_directory("root/00");
    let user = user_directory(&root.join("user"), ALICE, OLD);
    // In a namespace of its own, so that nothing has to be unmounted.
    let script = r#"
        mount -t tmpfs -o mode=1733 none "$2/00" || exit 99
        mkdir -m 0700 "$2/00/mounted"
        touch -d '8 days ago' "$2/00/mounted/.lasthost" "$2/00/mounted/dovecot.list.index"
        chown -R 410001 "$2/00/mounted"
        "$1" usercache sweep 7days "$2" --json || exit 98
        ls -A "$2/00/mounted"
    "#;
    let Some(run) = with_mounts_of_its_own(&scratch, script, &root) else {
        return;
    };
    assert_eq!(run.status, Some(0), "{run:?}");
    let mut lines = run.stdout.lines();
    let summary = serde_json::from_str(lines.next().expect("a summary")).expect("JSON");
    assert_eq!(counted(&summary)[..2], [("users", 1), ("cleaned", 1)]);
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [".lasthost", "dovecot.list.index"]
    );
    assert!(is_cleaned(&user));
    assert!(mounted.exists());
}

#[test]
fn progress_is_shown_on_a_terminal_only() {
    let scratch = Scratch::new();
    let root = many_users(&scratch, 20_000);
    let program = scratch.program();
    let line = format!(
        "{} usercache sweep 7days {}",
        program.display(),
        root.display()
    );
    let on_terminal = Run::of(
        Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm"),
    );
    assert!(on_terminal.stdout.contains("users seen"), "{on_terminal:?}");
    assert!(
        on_terminal.stdout.contains("20000 users, 0 cleaned"),
        "{on_terminal:?}"
    );
    let run = scratch.run(["usercache", "sweep", "7days", root.to_str().expect("UTF-8")]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
    let summary = ": 20000 users, 0 cleaned, 0 B freed; 20000 recent; ";
    assert!(run.stdout.contains(summary), "{run:?}");
}

#[test]
fn memory_does_not_grow_with_the_number_of_users() {
    let scratch = Scratch::new();
    let few = peak_of_sweep(&scratch, &many_users(&scratch, 1_000));
    let many = peak_of_sweep(&scratch, &many_users(&scratch, 60_000));
    println!("{few} KiB for 1,000 users, {many} KiB for 60,000");
    assert!(
        many < few + 512,
        "{few} KiB for 1,000 users, {many} KiB for 60,000"
    );
}

/// A directory of so many users, with nothing but their records, all recent.
fn many_users(scratch: &Scratch, number: u32) -> PathBuf {
    let root = scratch.hash_directory(&format!("many{number}"));
    for user in 0..number {
        let hash = root.join(format!("{:02x}", user % 256));
        if user < 256 {
            fs::create_dir(&hash).expect("mkdir");
        }
        let directory = hash.join(format!("user{user}"));
        fs::create_dir(&directory).expect("mkdir");
        File::create(directory.join(".lasthost")).expect("create");
        give(&directory.join(".lasthost"), ALICE);
        give(&directory, ALICE);
    }
    root
}

/// The most memory that a sweep ever has, in KiB.
fn peak_of_sweep(scratch: &Scratch, root: &Path) -> u64 {
    let status = status_at_the_end(scratch, root);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.expect("VmHWM").trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}

/// What /proc/PID/status says of a sweep that has done its work.
fn status_at_the_end(scratch: &Scratch, root: &Path) -> String {
    // A pipe that is full stops the program where it prints its summary.
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("pipe");
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
    while writer.write(&[b'\n'; 512]).is_ok() {}
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).expect("fcntl");
    let mut command = scratch.command(arguments(root, &[]));
    let mut child = spawn(command.stdout(writer));
    drop(command);
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let writes = format!("{} 0x1 ", libc::SYS_write);
    while !fs::read_to_string(proc.join("syscall")).is_ok_and(|call| call.starts_with(&writes)) {
        assert_eq!(
            child.try_wait().expect("wait"),
            None,
            "it cannot end by itself"
        );
        std::thread::yield_now();
    }
    let status = fs::read_to_string(proc.join("status")).expect("status");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("read");
    assert!(child.wait().expect("wait").success());
    status
}

#[test]
fn a_summary_that_nobody_reads_ends_nothing() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let old = user_directory(&root.join("old"), ALICE, OLD);
    let mut child = start(&mut scratch.command(arguments(&root, &["-v"])));
    close((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().expect("wait").success());
    assert!(is_cleaned(&old));
}
