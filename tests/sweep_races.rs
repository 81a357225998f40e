//! Cleaning while somebody else is at work: logins, and an owner who means harm.
//!
//! NFS_HOSTCHANGE_ROUNDS sets how often each user is raced.

mod common;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nfs_hostchange::system::credentials::{Assumed, GroupId, Identity, UserId};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use common::record;
use common::scratch::{
    ALICE, DAY, MALLORY, Run, Scratch, give, is_cleaned, is_root, set_age, snapshot, user_directory,
};

const OLD: Duration = Duration::from_secs(7 * 86_400 + 60);

fn rounds() -> u32 {
    std::env::var("NFS_HOSTCHANGE_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(500)
}

/// A user whose logins are raced.
struct User {
    name: String,
    uid: u32,
    /// Logins are started as root, and become the user; otherwise they are the user from the start.
    by_root: bool,
    index: PathBuf,
    list_index: PathBuf,
    configuration: PathBuf,
}

impl User {
    fn new(scratch: &Scratch, configuration: &Path, number: u32) -> User {
        let name = format!("user{number}");
        let uid = ALICE + number;
        let index = scratch.path().join(format!("index{number}"));
        fs::create_dir(&index).expect("mkdir");
        give(&index, uid);
        let list_index = scratch.path().join("list-indexes/00").join(&name);
        User {
            name,
            uid,
            by_root: number % 2 == 0,
            index,
            list_index,
            configuration: configuration.to_owned(),
        }
    }

    /// One login. The session finds its directory and its record, and makes its list index there.
    fn log_in(&self, wrapper: &Path) {
        let script = r#"[ "${MAIL_LOCATION%:LISTINDEX=}" = "$MAIL_LOCATION" ] && [ -s "$1/.lasthost" ] &&
            echo transactions >"$1/dovecot.list.index.log""#;
        let uid = self.uid.to_string();
        let mut command = Command::new(wrapper);
        command.arg(format!("--config={}", self.configuration.display()));
        if self.by_root {
            command.args(["/usr/bin/setpriv", "--reuid", &uid, "--clear-groups"]);
        } else {
            command.uid(self.uid).gid(self.uid);
        }
        command
            .args(["/bin/sh", "-c", script, "sh"])
            .arg(&self.list_index)
            .env_clear()
            .env("USER", &self.name)
            .env("UID", &uid)
            .env("GID", &uid)
            .env("HOME", "/nowhere")
            .env(
                "MAIL_LOCATION",
                format!(
                    "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/dovecot.list.index",
                    self.index.display(),
                    self.list_index.display()
                ),
            );
        let run = Run::of(&mut command);
        assert_eq!(run.status, Some(0), "{}: {run:?}", self.name);
        for complaint in ["without list index", "cannot", "error"] {
            assert!(!run.stderr.contains(complaint), "{}: {run:?}", self.name);
        }
    }

    /// Cleans as root, or as the user himself.
    fn clean(&self, scratch: &Scratch) {
        let path = self.list_index.to_str().expect("UTF-8");
        let arguments = ["usercache", "clean", "7days", path];
        let run = if self.by_root {
            scratch.run(arguments)
        } else {
            scratch.run_as(self.uid, arguments)
        };
        assert!(matches!(run.status, Some(0 | 66 | 75)), "{run:?}");
    }

    /// The record equals the claim.
    fn is_vouched_for(&self) -> bool {
        let record = fs::read_to_string(self.list_index.join(".lasthost")).expect("a record");
        let claim = self.index.join(".lasthost");
        record.ends_with(&record::line_of(&claim, "dovecot.list.index"))
    }

    fn grow_old(&self) {
        for name in [".lasthost", "dovecot.list.index.log"] {
            let path = self.list_index.join(name);
            if path.exists() {
                set_age(&path, OLD);
            }
        }
    }
}

#[test]
fn logins_win_or_wait_whenever_a_cleaner_comes() {
    if !is_root() {
        return;
    }
    const USERS: u32 = 4;
    const LOGINS: u32 = 3;
    let scratch = Scratch::new();
    let root = scratch.hash_directory("list-indexes");
    scratch.hash_directory("list-indexes/00");
    let configuration = scratch.path().join("nfs-hostchange.toml");
    let settings = "hostname = \"a.example.org\"\n[log]\ntarget = \"stderr\"\n";
    fs::write(&configuration, settings).expect("write");
    let users: Vec<_> = (0..USERS)
        .map(|number| User::new(&scratch, &configuration, number))
        .collect();
    let wrapper = scratch.copy(env!("CARGO_BIN_EXE_nfs-hostchange-login"));
    let working = AtomicU64::new(u64::from(USERS));
    let cleaned = AtomicU64::new(0);

    thread::scope(|scope| {
        for user in &users {
            let (scratch, wrapper, working) = (&scratch, &wrapper, &working);
            scope.spawn(move || {
                let _done = Done(working);
                for _ in 0..rounds() {
                    // Nobody but cleaners is here now, so nothing vouches for the user's age.
                    user.grow_old();
                    thread::scope(|logins| {
                        for _ in 0..LOGINS {
                            logins.spawn(|| user.log_in(wrapper));
                        }
                        user.clean(scratch);
                    });
                    assert!(user.is_vouched_for(), "{}", user.name);
                    assert!(user.list_index.join("dovecot.list.index.log").exists());
                }
            });
        }
        scope.spawn(|| {
            while working.load(Ordering::Relaxed) > 0 {
                let path = root.to_str().expect("UTF-8");
                let run = scratch.exits(0, ["usercache", "sweep", "7days", path, "--json"]);
                let summary: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
                cleaned.fetch_add(
                    summary["cleaned"].as_u64().expect("a number"),
                    Ordering::Relaxed,
                );
            }
        });
    });
    println!(
        "{} rounds of {LOGINS} logins, {} cleaned by sweeps between them",
        USERS * rounds(),
        cleaned.load(Ordering::Relaxed)
    );
    assert!(
        cleaned.load(Ordering::Relaxed) > 0,
        "the sweep never came first"
    );
}

/// Counts one worker less, however it ends.
struct Done<'a>(&'a AtomicU64);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes this thread, and no other, work as `uid`.
fn become_user(uid: u32) -> Assumed {
    Assumed::new(Identity {
        user: UserId(uid),
        group: GroupId(uid),
        groups: Vec::new(),
    })
    .expect("root may do that")
}

const NAMES: [&str; 3] = [".lasthost", "dovecot.list.index", "dovecot.list.index.log"];

/// Swaps everything under the names of `own` for something else, again and again. `links` has hard
/// links to somebody else's file, under the same names.
fn swap(own: &Path, targets: &[PathBuf], links: &Path, round: u64) {
    let name = NAMES[(round % 3) as usize];
    let path = own.join(name);
    let target = &targets[(round / 3) as usize % targets.len()];
    if fs::symlink_metadata(&path).is_ok_and(|status| status.nlink() > 1) {
        let _ = fs::rename(&path, links.join(name));
    }
    let _ = fs::remove_file(&path);
    let _ = fs::remove_dir(&path);
    let write = || File::create_new(&path)?.write_all(b"2 0024 1 1.000000000 a\n");
    // Much of this is refused, depending on what is there just now.
    let _ = match (round / 7) % 7 {
        0 => symlink(target, &path),
        1 => fs::rename(links.join(name), &path),
        2 => mkfifo(&path, Mode::from_bits_truncate(0o600)).map_err(Into::into),
        3 => fs::create_dir(&path),
        4 => UnixListener::bind(&path).map(drop),
        5 => write().and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o000))),
        _ => write(),
    };
    make_old(&path);
}

/// If it is still there.
fn make_old(path: &Path) {
    let old = (SystemTime::now() - OLD)
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let old = TimeSpec::from_duration(old);
    let _ = utimensat(AT_FDCWD, path, &old, &old, UtimensatFlags::NoFollowSymlink);
}

/// How many directories have a lock file that is a hard link to somebody else's.
const HARD_LINKS: usize = 50;

/// Exchanges directories for links to `targets` in one step, and back again the next time. So it
/// may happen at any moment after a sweep has seen that there is a directory.
fn exchange(directories: &[PathBuf], targets: &[PathBuf], links: &Path) {
    for (number, directory) in directories.iter().enumerate() {
        // A sweep removes what it has cleaned.
        if fs::create_dir(directory).is_ok() {
            let lock_file = directory.join(".lasthost");
            if fs::rename(links.join(format!("hard{number}")), &lock_file).is_err() {
                let _ = fs::write(&lock_file, "");
                make_old(&lock_file);
            }
        }
        let link = links.join(number.to_string());
        let _ = symlink(&targets[number % targets.len()], &link);
        let flags = RenameFlags::RENAME_EXCHANGE;
        let _ = renameat2(AT_FDCWD, directory, AT_FDCWD, &link, flags);
    }
}

#[test]
fn a_hostile_owner_harms_nobody_but_himself() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.hash_directory("list-indexes");
    let hash = scratch.hash_directory("list-indexes/00");
    // What must survive: somebody's recent directory beside his own, and old ones elsewhere.
    let outside = scratch.hash_directory("outside");
    let recent = user_directory(&hash.join("alice"), ALICE, DAY);
    let targets = [
        user_directory(&outside.join("alice"), ALICE, OLD),
        user_directory(&outside.join("root"), 0, OLD),
        recent.clone(),
        outside.clone(),
    ];
    fs::write(targets[1].join("dovecot.list.index.keep"), "root's").expect("write");
    let linked = user_directory(&outside.join("linked"), ALICE, OLD);
    let before = (snapshot(&outside), snapshot(&recent));
    let own = hash.join("mallory");
    let root_path = root.to_str().expect("UTF-8");
    // Where everybody may remove everything: in directories with the sticky bit, the kernel may
    // not follow links even for a program that does (fs.protected_symlinks in proc(5)).
    let careless = scratch.hash_directory("list-indexes/01");
    fs::set_permissions(&careless, Permissions::from_mode(0o733)).expect("chmod");
    let exchanged: Vec<_> = (0..200)
        .map(|user| careless.join(user.to_string()))
        .collect();
    let away = scratch.hash_directory("away");
    let links = scratch.hash_directory("links");
    give(&links, MALLORY);
    let seconds = u64::from(rounds()).div_ceil(50);
    let end = Instant::now() + Duration::from_secs(seconds);
    let working = AtomicU64::new(1);
    let swaps = AtomicU64::new(0);
    let mut sweeps = 0_u32;

    thread::scope(|scope| {
        let (working, swaps) = (&working, &swaps);
        let (own, exchanged, away, links, targets) = (&own, &exchanged, &away, &links, &targets);
        // In the directory.
        scope.spawn(move || {
            let _mallory = become_user(MALLORY);
            let mut round = 0;
            while working.load(Ordering::Relaxed) > 0 {
                let _ = fs::create_dir(own);
                swap(own, targets, links, round);
                round += 1;
                swaps.store(round, Ordering::Relaxed);
            }
        });
        // The directories themselves.
        scope.spawn(move || {
            let _mallory = become_user(MALLORY);
            while working.load(Ordering::Relaxed) > 0 {
                exchange(exchanged, targets, links);
                exchange(std::slice::from_ref(own), targets, away);
                // A lock file on the way, to hide everybody.
                let _ = fs::write(own.with_file_name(".lasthost"), "");
            }
        });
        let _done = Done(working);
        while Instant::now() < end {
            let old = user_directory(&hash.join("bob"), ALICE + 100, OLD);
            // Where the kernel lets everybody link to everything (fs.protected_hardlinks=0 in
            // proc(5)), mallory does this himself.
            let numbered = (0..HARD_LINKS).map(|number| format!("hard{number}"));
            for name in NAMES.map(str::to_owned).into_iter().chain(numbered) {
                let _ = fs::hard_link(linked.join(".lasthost"), links.join(name));
            }
            let run = Run::of(
                Command::new("timeout")
                    .arg("60")
                    .arg(scratch.program())
                    .args(["usercache", "sweep", "7days", "--json"])
                    .arg(&root),
            );
            assert!(matches!(run.status, Some(0 | 65..=77)), "{run:?}");
            // The others that work in users' directories as root.
            let path = own.to_str().expect("UTF-8");
            for arguments in [
                ["usercache", "clean", "7days", path],
                ["status", "--json", "--below", root_path],
            ] {
                let run = scratch.run(arguments);
                assert!(
                    matches!(run.status, Some(0 | 65..=77)),
                    "{arguments:?}: {run:?}"
                );
                assert!(!run.stderr.contains("panicked"), "{run:?}");
            }
            assert!(!run.stderr.contains("panicked"), "{run:?}");
            assert!(is_cleaned(&old), "nobody is hidden: {run:?}");
            sweeps += 1;
        }
    });

    // What is linked has one name again.
    for path in [&own, &away, &links, &careless] {
        let _ = fs::remove_dir_all(path);
    }
    println!("{sweeps} sweeps, {} swaps", swaps.load(Ordering::Relaxed));
    assert!(sweeps > 10, "only {sweeps} sweeps");
    let harmed = "what is not mallory's was touched";
    assert_eq!(before.0, snapshot(&outside), "{harmed}");
    assert_eq!(before.1, snapshot(&recent), "{harmed}");
}
