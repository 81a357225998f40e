//! The administrator's command together with a running Dovecot: what it asks doveadm, and as
//! doveadm executes it.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use common::dovecot::{Dovecot, Location, Version};
use common::scratch::{
    ALICE, DAY, Run, Scratch, give, is_cleaned, is_root, lock, start, user_directory,
};

/// A running Dovecot that knows one user, and has the command in its libexec directory.
struct Running {
    scratch: Scratch,
    dovecot: Dovecot,
    process: Option<Child>,
}

impl Running {
    fn new(dovecot: Dovecot) -> Running {
        let scratch = Scratch::new();
        dovecot.put_into(&scratch);
        let directory = scratch.path().display();
        let libexec = scratch.path().join("libexec");
        fs::create_dir(&libexec).expect("mkdir");
        // Dovecot's own programs, and ours.
        const LIBEXEC: &str = "/usr/lib/dovecot";
        for program in fs::read_dir(dovecot.place(LIBEXEC)).expect("Dovecot is installed") {
            let name = program.expect("readdir").file_name();
            symlink(Path::new(LIBEXEC).join(&name), libexec.join(&name)).expect("symlink");
        }
        symlink(scratch.program(), libexec.join("nfs-hostchange")).expect("symlink");
        let users = match dovecot.version {
            Version::V2_3 => format!(
                "passdb {{\n driver = passwd-file\n args = {directory}/users\n}}\n\
                 userdb {{\n driver = passwd-file\n args = {directory}/users\n}}\n"
            ),
            Version::V2_4 => format!(
                "passdb passwd-file {{\n passwd_file_path = {directory}/users\n}}\n\
                 userdb passwd-file {{\n passwd_file_path = {directory}/users\n}}\n"
            ),
        };
        fs::write(
            scratch.path().join("dovecot.conf"),
            format!(
                "{}protocols =\nssl = no\nbase_dir = {directory}/run\nstate_dir = {directory}/state\n\
                 libexec_dir = {directory}/libexec\nlog_path = {directory}/log\n{users}",
                dovecot.version.first_lines()
            ),
        )
        .expect("write");
        let index = scratch.path().join("index");
        fs::create_dir(&index).expect("mkdir");
        give(&index, ALICE);
        let mut location = Location::new(&format!("{directory}/00/@USER@/dovecot.list.index"));
        location.index = Some(format!("{directory}/index"));
        let fields: Vec<_> = location
            .fields(dovecot.version)
            .into_iter()
            .map(|(name, value)| format!("userdb_{name}={value}"))
            .collect();
        fs::write(
            scratch.path().join("users"),
            format!("alice::{ALICE}:{ALICE}::/nowhere::{}\n", fields.join(" ")),
        )
        .expect("write");
        scratch.hash_directory("00");
        fs::write(
            scratch.path().join("nfs-hostchange.toml"),
            "hostname = \"a.example.org\"\n[log]\ntarget = \"stderr\"\n",
        )
        .expect("write");
        let mut running = Running {
            scratch,
            dovecot,
            process: None,
        };
        running.start();
        running
    }

    fn start(&mut self) {
        let mut dovecot = self.dovecot.command("dovecot");
        self.process = Some(start(dovecot.arg("-F").args(self.configuration())));
        let socket = self.path().join("run/auth-userdb");
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "Dovecot does not answer");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = i32::try_from(process.id()).expect("a pid");
            kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
            process.wait().expect("it ends");
        }
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn configuration(&self) -> [PathBuf; 2] {
        ["-c".into(), self.path().join("dovecot.conf")]
    }

    fn list_index(&self) -> PathBuf {
        self.path().join("00/alice")
    }

    /// With the fields that doveadm has of the user, as script-login hands them over.
    fn log_in(&self) {
        let fields = Run::of(
            self.dovecot
                .command("doveadm")
                .args(self.configuration())
                .args(["user", "alice"]),
        );
        let fields: Vec<_> = fields
            .stdout
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once('\t'))
            // doveadm's own addition: the location that Dovecot uses in the end.
            .filter(|(field, _)| *field != "mail")
            .collect();
        // Identity and home, and the location.
        let expected = match self.dovecot.version {
            Version::V2_3 => 3 + 1,
            Version::V2_4 => 3 + 4,
        };
        assert_eq!(fields.len(), expected, "{fields:?}");
        let own = self.path().join("nfs-hostchange.toml");
        let run = Run::of(
            Command::new(env!("CARGO_BIN_EXE_nfs-hostchange-login"))
                .arg(format!("--config={}", own.display()))
                .arg("/bin/true")
                .env_clear()
                .env("USER", "alice")
                .envs(
                    fields
                        .into_iter()
                        .map(|(field, value)| (field.to_uppercase(), value)),
                ),
        );
        assert_eq!(run.status, Some(0), "{run:?}");
    }

    fn status(&self, user: &str, options: &[&str]) -> Run {
        Run::of(
            self.scratch
                .command(["status", "--user", user])
                .args(options)
                .arg("--dovecot-config")
                .arg(self.path().join("dovecot.conf"))
                .arg("--config")
                .arg(self.path().join("nfs-hostchange.toml")),
        )
    }

    /// The command as doveadm executes it.
    fn exec(&self, arguments: &[&str]) -> Run {
        Run::of(
            self.dovecot
                .command("doveadm")
                .args(self.configuration())
                .args(["exec", "nfs-hostchange"])
                .args(arguments),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn the_userdb_says_where_a_users_list_index_is() {
    if !is_root() {
        return;
    }
    for dovecot in Dovecot::both() {
        says_where(Running::new(dovecot));
    }
}

fn says_where(mut dovecot: Running) {
    dovecot.log_in();
    let run = dovecot.status("alice", &["--json"]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    let status = json(&run);
    assert_eq!(status["in_step"], true, "{status}");
    assert_eq!(status["claimed_by"], "a.example.org");
    let list_index = dovecot.list_index();
    assert_eq!(
        status["list_index_dir"],
        list_index.to_str().expect("UTF-8")
    );
    let run = dovecot.status("alice", &[]);
    assert!(run.stdout.contains("\nin step     yes: "), "{run:?}");

    let run = dovecot.status("nobody-is-called-so", &[]);
    assert_eq!((run.status, run.stdout.as_str()), (Some(66), ""));
    assert_eq!(
        run.stderr,
        "nfs-hostchange: nobody-is-called-so: no such user\n"
    );
    // doveadm would list everybody.
    let run = dovecot.status("al*", &[]);
    assert_eq!((run.status, run.stderr.lines().count()), (Some(64), 1));

    dovecot.stop();
    let run = dovecot.status("alice", &[]);
    assert_eq!((run.status, run.stdout.as_str()), (Some(69), ""));
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert!(run.stderr.contains("doveadm failed: "), "{run:?}");
    assert!(run.stderr.contains("auth-userdb"), "{run:?}");
}

#[test]
fn another_backend_of_the_same_name_is_noticed() {
    if !is_root() {
        return;
    }
    for dovecot in Dovecot::both() {
        notices_the_other(&Running::new(dovecot));
    }
}

fn notices_the_other(dovecot: &Running) {
    dovecot.log_in();
    let claim = dovecot.path().join("index/.lasthost");
    for (host, expected) in [
        ("a.example.org", "each needs a host name of its own"),
        ("b.example.org", "another backend has served the user since"),
    ] {
        fs::remove_file(&claim).expect("unlink");
        fs::write(&claim, format!("{host}\n")).expect("write");
        give(&claim, ALICE);
        let status = json(&dovecot.status("alice", &["--json"]));
        assert_eq!(
            (&status["in_step"], &status["claimed_by"]),
            (&Value::from(false), &Value::from(host))
        );
        let reason = status["reason"].as_str().expect("a reason");
        assert!(reason.ends_with(expected), "{reason}");
    }
}

#[test]
fn doveadm_executes_the_command() {
    if !is_root() {
        return;
    }
    // In another root, the program of this build may lack a library.
    let dovecot = Running::new(Dovecot::machine());
    let user = user_directory(&dovecot.list_index(), ALICE, 8 * DAY);
    let path = user.to_str().expect("UTF-8");
    let login = lock(&user);
    // Its exit status is doveadm's.
    assert_eq!(
        dovecot.exec(&["usercache", "clean", "7days", path]).status,
        Some(75)
    );
    common::close(login);
    let run = dovecot.exec(&["usercache", "clean", "7", path]);
    assert_eq!(
        (run.status, run.stderr.lines().count()),
        (Some(64), 1),
        "{run:?}"
    );
    let run = dovecot.exec(&["usercache", "clean", "7days", path, "--dry-run"]);
    assert_eq!(
        run.stdout,
        format!("{path}: would delete 2 files (17 bytes)\n")
    );
    let run = dovecot.exec(&["usercache", "clean", "7days", path]);
    assert_eq!(
        (run.status, run.stdout.as_str(), run.stderr.as_str()),
        (Some(0), "", "")
    );
    assert!(is_cleaned(&user));

    let root = dovecot.path().join("00");
    let run = dovecot.exec(&[
        "usercache",
        "sweep",
        "1 week",
        root.to_str().expect("UTF-8"),
        "--json",
    ]);
    assert_eq!(
        (run.status, &json(&run)["users"]),
        (Some(0), &Value::from(0)),
        "{run:?}"
    );
}
