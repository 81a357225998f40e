//! Users' directories and the administrator's command, for its black-box tests. They need no file
//! server and no host name of their own, and so neither root nor a name space.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{geteuid, mkdtemp};

use super::{copy_program, record, starting};

/// Mail users; no account has these ids, and none is needed.
pub const ALICE: u32 = 410_001;
pub const MALLORY: u32 = 410_002;

pub const DAY: Duration = Duration::from_secs(86_400);

/// A directory of this test's own on the local tmpfs, removed in the end. Everybody may pass.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        let path = mkdtemp("/dev/shm/nfs-hostchange-test.XXXXXX").expect("mkdtemp");
        fs::set_permissions(&path, Permissions::from_mode(0o711)).expect("chmod");
        let scratch = Scratch(path);
        scratch.copy(env!("CARGO_BIN_EXE_nfs-hostchange"));
        scratch
    }

    /// A copy of a program that any uid may execute, wherever the build directory is.
    pub fn copy(&self, program: &str) -> PathBuf {
        let name = Path::new(program)
            .file_name()
            .expect("a program has a name");
        let copy = self.0.join(name);
        copy_program(Path::new(program), &copy);
        copy
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn program(&self) -> PathBuf {
        self.0.join("nfs-hostchange")
    }

    /// A directory as tmpfiles.d makes it for many uids.
    pub fn hash_directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("mkdir");
        fs::set_permissions(&path, Permissions::from_mode(0o1733)).expect("chmod");
        path
    }

    /// A doveadm that answers this, in place of the machine's own.
    pub fn doveadm(&self, answer: &str) {
        fs::write(self.0.join("doveadm.answer"), answer).expect("write");
        // It does not know its module's command unless that is installed.
        let namespaces = "[ -e \"$0.namespaces\" ] || exit 64; exec cat \"$0.namespaces\"";
        let lines =
            format!("case $* in *' nfs namespaces '*) {namespaces} ;; esac\ncat \"$0.answer\"");
        self.script("doveadm", &lines);
    }

    /// What the doveadm module answers, line by line.
    pub fn namespaces(&self, lines: &str) {
        let answer = format!("the names\n{lines}");
        fs::write(self.0.join("doveadm.namespaces"), answer).expect("write");
    }

    /// A program that comes before the machine's own.
    pub fn script(&self, name: &str, lines: &str) {
        let program = self.0.join(name);
        let _nobody_is_started = starting();
        fs::write(&program, format!("#!/bin/sh\n{lines}\n")).expect("write");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.program());
        command.args(arguments).current_dir("/");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.0.display()));
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// A run that ends with this exit status.
    #[track_caller]
    pub fn exits<S: AsRef<OsStr>>(
        &self,
        status: i32,
        arguments: impl IntoIterator<Item = S>,
    ) -> Run {
        let mut command = self.command(arguments);
        let run = Run::of(&mut command);
        assert_eq!(run.status, Some(status), "{command:?}: {run:?}");
        run
    }

    pub fn run_as<S: AsRef<OsStr>>(&self, uid: u32, arguments: impl IntoIterator<Item = S>) -> Run {
        let mut command = self.command(arguments);
        if geteuid().is_root() {
            command.uid(uid).gid(uid);
        }
        Run::of(&mut command)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Starts a program, its standard output and error read by the test.
pub fn start(command: &mut Command) -> Child {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Starts a program.
pub fn spawn(command: &mut Command) -> Child {
    let _nobody_else_is_started = starting();
    let child = command.stdin(Stdio::null()).spawn();
    child.expect("the program starts")
}

/// What a run of the program said.
#[derive(Debug)]
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Run {
        Run::from(start(command).wait_with_output().expect("the program ends"))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// A user's directory with a record and a list index, all of it last used `age` ago; made, or filled again
/// after it was cleaned.
pub fn user_directory(path: &Path, uid: u32, age: Duration) -> PathBuf {
    assert!(is_cleaned(path), "{path:?}");
    let _ = fs::remove_dir(path);
    fs::create_dir(path).expect("mkdir");
    fs::set_permissions(path, Permissions::from_mode(0o700)).expect("chmod");
    let files = [
        (".lasthost", ""),
        ("dovecot.list.index", "index"),
        ("dovecot.list.index.log", "transactions"),
    ];
    for (name, content) in files {
        let file = path.join(name);
        fs::write(&file, content).expect("write");
        if name == ".lasthost" {
            let line = record::line((4711, 1_700_000_000, 0), 4712, "dovecot.list.index");
            let record = record::text(&file, "a.example.org", &line);
            fs::write(&file, record).expect("write");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
        give(&file, uid);
        set_age(&file, age);
    }
    give(path, uid);
    path.to_owned()
}

/// Makes `uid` the owner, where this test may do so.
pub fn give(path: &Path, uid: u32) {
    if geteuid().is_root() {
        chown(path, Some(uid), Some(uid)).expect("chown");
    }
}

/// Sets both times to `age` ago.
pub fn set_age(path: &Path, age: Duration) {
    set_times(path, age, age);
}

/// Sets the access time and the modification time to so long ago.
pub fn set_times(path: &Path, accessed: Duration, modified: Duration) {
    let ago = |age: Duration| {
        let time = (SystemTime::now() - age)
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        TimeSpec::from_duration(time)
    };
    utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &ago(accessed),
        &ago(modified),
        UtimensatFlags::NoFollowSymlink,
    )
    .expect("utimensat");
}

/// Everything below `path`, with whatever of it could be changed.
pub fn snapshot(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        let status = fs::symlink_metadata(&directory).expect("lstat");
        found.insert(directory.clone(), describe(&status));
        for entry in fs::read_dir(&directory).expect("readdir") {
            let path = entry.expect("readdir").path();
            let status = fs::symlink_metadata(&path).expect("lstat");
            if status.is_dir() {
                directories.push(path);
            } else {
                found.insert(path, describe(&status));
            }
        }
        // Reading it has just changed this.
        let accessed = TimeSpec::new(status.atime(), status.atime_nsec());
        let modified = TimeSpec::new(status.mtime(), status.mtime_nsec());
        utimensat(
            nix::fcntl::AT_FDCWD,
            &directory,
            &accessed,
            &modified,
            UtimensatFlags::NoFollowSymlink,
        )
        .expect("utimensat");
    }
    found
}

/// The status change time is left out for directories: the snapshot itself sets it.
fn describe(status: &fs::Metadata) -> String {
    format!(
        "{:o} {}:{} inode {} links {} size {} accessed {}.{:09} modified {}.{:09}",
        status.mode(),
        status.uid(),
        status.gid(),
        status.ino(),
        status.nlink(),
        status.len(),
        status.atime(),
        status.atime_nsec(),
        status.mtime(),
        status.mtime_nsec(),
    )
}

/// Locks a user's lock file as a login does, until the file is dropped.
pub fn lock(directory: &Path) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .open(directory.join(".lasthost"))
        .expect("open");
    fs2::FileExt::try_lock_shared(&file).expect("lock");
    file
}

/// Whether nothing is left in a user's directory, or not even that.
pub fn is_cleaned(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Whether this test may become other users; says so if not.
pub fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("skipped: this takes root");
    }
    root
}
