//! `nfs-hostchange usercache sweep` on a real tmpfs.

mod common;

use std::fs::{self, File};
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

use common::close;
use common::scratch::{
    ALICE, DAY, MALLORY, Run, Scratch, give, is_root, lock, set_age, set_times, snapshot, spawn,
    start, user_directory,
};

const OLD: Duration = Duration::from_secs(7 * 86_400 + 60);

/// A sweep of `root` with a summary for programs.
fn sweep(scratch: &Scratch, root: &Path, options: &[&str]) -> (Run, Value) {
    let run = scratch.run(arguments(root, options));
    let summary = serde_json::from_str(&run.stdout).unwrap_or(Value::Null);
    (run, summary)
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
fn users_up_to_four_levels_below_the_root_are_cleaned_and_nothing_else_is() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let mut gone = Vec::new();
    for way in ["", "1", "1/2", "1/2/3"] {
        let parent = scratch.hash_directory(&format!("root/{way}"));
        gone.push(user_directory(&parent.join("old"), ALICE, OLD));
        user_directory(&parent.join("recent"), ALICE, 6 * DAY);
    }
    let too_deep = scratch.hash_directory("root/1/2/3/4");
    let kept = user_directory(&too_deep.join("old"), ALICE, OLD);
    // Neither logins nor Dovecot make these.
    let unknown = scratch.hash_directory("root/unknown");
    fs::write(unknown.join("dovecot.list.index"), "index").expect("write");
    set_age(&unknown.join("dovecot.list.index"), OLD);
    scratch.hash_directory("root/empty");

    let (run, summary) = sweep(&scratch, &root, &[]);

    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    let expected = [
        ("users", 8),
        ("cleaned", 4),
        ("recent", 4),
        ("files_deleted", 8),
        ("bytes_deleted", 4 * 17),
        ("directories_removed", 4),
    ];
    assert_eq!(counted(&summary), expected);
    assert_eq!(summary["root"], root.to_str().expect("UTF-8"));
    assert_eq!(summary["min_age_seconds"], 7 * 86_400);
    assert_eq!(summary["dry_run"], false);
    assert!(summary["duration_seconds"].as_f64().expect("a number") >= 0.0);
    for user in gone {
        assert!(!user.exists(), "{user:?} is gone");
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
        let run = scratch.run(["usercache", "sweep", "7days", root]);
        assert_eq!(run.status, Some(status), "{root}: {run:?}");
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

    let (run, summary) = sweep(&scratch, &root, &[]);

    assert_eq!(
        run.status,
        Some(0),
        "users who are here are no failure: {run:?}"
    );
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
    assert_eq!(run.status, Some(0), "{run:?}");
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
    let (run, summary) = sweep(&scratch, &root, &[]);
    assert_eq!(run.status, Some(0), "{run:?}");
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
    assert_eq!(run.status, Some(65), "{run:?}");
    assert!(
        run.stderr
            .contains("odd/dovecot.list.index.log.2 is not a regular file"),
        "{run:?}"
    );
    assert_eq!(summary["failed"], 1);
    assert_eq!(summary["cleaned"], 1);
    assert!(!old.exists());
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
        let (run, summary) = sweep(&scratch, &root, &[]);
        assert_eq!(run.status, Some(0), "{run:?}");
        assert_eq!(summary["users"], 1);
        assert!(!user.exists());
        assert!(planted.exists() && list_index.exists());
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

    let (run, summary) = sweep(&scratch, &root, &["--dry-run"]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(summary["users"], 10);
    assert_eq!(summary["cleaned"], 4);
    assert_eq!(before, snapshot(&root));

    let (run, summary) = sweep(&scratch, &root, &[]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    let expected = [
        ("users", 10),
        ("cleaned", 4),
        ("recent", 5),
        ("in_use", 1),
        ("files_deleted", 8),
        ("bytes_deleted", 4 * 17),
        ("directories_removed", 4),
    ];
    assert_eq!(counted(&summary), expected);
    for user in gone {
        assert!(!user.exists(), "{user:?} is gone");
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
            let (run, _) = sweep(&scratch, &root, &[]);
            assert_eq!(run.status, Some(77), "{mark}: {run:?}");
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
    let (run, summary) = sweep(&scratch, &root, &[]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(summary["cleaned"], names.len());
    assert_eq!(fs::read_dir(&domain).expect("readdir").count(), 0);
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
    let (run, summary) = sweep(&scratch, &root, &[]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(counted(&summary)[..2], [("users", 1), ("cleaned", 1)]);
    assert!(!user.exists());
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
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .or_else(|_| {
            mount(
                None::<&str>,
                "/dev/shm",
                None::<&str>,
                private,
                None::<&str>,
            )
        })
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
    assert!(!old.exists());
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
    let run = Run::of(
        Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .args([scratch.program(), root]),
    );
    if run.status == Some(99) || run.stderr.starts_with("unshare") {
        eprintln!("skipped: nothing can be mounted here: {run:?}");
        return;
    }
    assert_eq!(run.status, Some(0), "{run:?}");
    let mut lines = run.stdout.lines();
    let summary = serde_json::from_str(lines.next().expect("a summary")).expect("JSON");
    assert_eq!(counted(&summary)[..2], [("users", 1), ("cleaned", 1)]);
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [".lasthost", "dovecot.list.index"]
    );
    assert!(!user.exists());
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
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.expect("VmHWM").trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}

#[test]
fn a_summary_that_nobody_reads_ends_nothing() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let old = user_directory(&root.join("old"), ALICE, OLD);
    let mut child = start(&mut scratch.command(arguments(&root, &["-v"])));
    close((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().expect("wait").success());
    assert!(!old.exists());
}
