//! Backends, a user and logins, for the black-box tests of the wrapper.
//!
//! A [`Lab`] is a file server with one user's INDEX on it, and any number of backends, each with
//! a host name and a tmpfs of its own. The test's thread gets a mount namespace, so its
//! /dev/shm, /dev/log and /etc are private: tests run side by side, and nothing is left behind.
//! A [`Login`] starts the real program the way script-login does, with the probe (probe.rs) as
//! the program to execute in the end, and a [`Session`] is what came of it.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod dovecot;
#[path = "../lib/record.rs"]
pub mod record;
pub mod scratch;
pub mod trace;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::ptrace;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, execve, setgroups, setresgid, setresuid};

/// The user whose logins are tested; no account of this system has these ids.
pub const USER: &str = "alice";
pub const UID: u32 = 1_900_000_001;
pub const GID: u32 = 1_900_000_002;
/// Somebody else.
pub const OTHER_UID: u32 = 1_900_000_003;
pub const OTHER_GID: u32 = 1_900_000_004;

/// The backend that a login is on unless the test says otherwise.
pub const HERE: &str = "backend-a";
/// Another one.
pub const THERE: &str = "backend-b";

/// What [`HERE`] calls its claim until it takes the place of the one before.
pub const UNFINISHED_CLAIM: &str = ".lasthost.45";

/// The list index's prefix in LISTINDEX.
pub const PREFIX: &str = "dovecot.list.index";

/// No login takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A login started by script-login as root, and one started as the mail user.
pub const STARTS: [fn(&Lab) -> Login<'_>; 2] = [|lab| lab.login(), |lab| lab.login().by_user()];

/// One user's place on the file server, and backends.
pub struct Lab {
    directory: PathBuf,
    syslog: RefCell<Option<UnixDatagram>>,
    lines: RefCell<Vec<LogLine>>,
    hosts: RefCell<HashMap<String, OwnedFd>>,
    reports: Cell<u32>,
    /// What the test's thread was in before: mounts and host name.
    namespaces: [OwnedFd; 2],
    /// Its root there, which may be that of a chroot.
    root: File,
}

impl Lab {
    /// A user who has an empty INDEX and never logged in.
    pub fn new() -> Lab {
        // The build wants the system's own /etc and /dev.
        let (wrapper, probe) = (wrapper(), probe());
        let directory = temporary_directory();
        let root = File::open("/").expect("there is a root");
        let namespaces = enter_namespaces();
        let lab = Lab {
            directory,
            syslog: RefCell::new(None),
            lines: RefCell::default(),
            hosts: RefCell::default(),
            reports: Cell::new(0),
            namespaces,
            root,
        };
        lab.make_directory("bin", 0, 0o755);
        lab.make_directory("reports", 0, 0o1777);
        lab.install(wrapper, "nfs-hostchange-login");
        lab.install(probe, "probe");
        lab.mount_etc();
        lab.mount_dev();
        lab.make_directory("nfs", 0, 0o711);
        lab.make_directory("nfs/alice", UID, 0o700);
        lab.make_directory("nfs/alice/index", UID, 0o700);
        lab
    }

    /// A user who has logged in at [`HERE`] and has a list index there.
    pub fn with_settled_user() -> Lab {
        let lab = Lab::new();
        lab.login().run().assert_vouched();
        lab.plant_list_index(HERE);
        lab
    }

    fn make_directory(&self, name: &str, owner: u32, mode: u32) {
        let path = self.directory.join(name);
        fs::create_dir(&path).expect("a directory can be made");
        set_owner_and_mode(&path, owner, mode);
    }

    /// /etc with two accounts and without a configuration.
    fn mount_etc(&self) {
        mount_tmpfs(Path::new("/etc"), "mode=0755");
        fs::create_dir("/etc/dovecot").expect("/etc is private");
        let passwd = format!("root:x:0:0::/root:/bin/sh\nvmail:x:{UID}:{GID}::/:/bin/false\n");
        let group = format!("root:x:0:\nvmail:x:{GID}:\nshared:x:{OTHER_GID}:bob,{USER}\n");
        fs::write("/etc/passwd", passwd).expect("/etc is private");
        fs::write("/etc/group", group).expect("/etc is private");
    }

    /// /dev with a syslog socket, an empty /dev/shm, and the devices that programs expect.
    fn mount_dev(&self) {
        self.make_directory("dev", 0, 0o755);
        let dev = self.directory.join("dev");
        mount_tmpfs(&dev, "mode=0755");
        for device in ["null", "zero", "full", "urandom"] {
            bind(&Path::new("/dev").join(device), &dev.join(device));
        }
        let shm = dev.join("shm");
        fs::create_dir(&shm).expect("/dev is private");
        mount_tmpfs(&shm, "mode=1777");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&dev), "/dev", None::<&str>, flags, None::<&str>).expect("/dev is private");
        self.start_syslog();
    }

    /// Syslog's socket at /dev/log.
    pub fn start_syslog(&self) {
        let syslog = UnixDatagram::bind("/dev/log").expect("/dev/log can be made");
        syslog.set_nonblocking(true).expect("a socket");
        set_owner_and_mode(Path::new("/dev/log"), 0, 0o666);
        *self.syslog.borrow_mut() = Some(syslog);
    }

    /// Nobody listens to syslog any more; `leave_socket`: as when the daemon crashed.
    pub fn stop_syslog(&self, leave_socket: bool) {
        *self.syslog.borrow_mut() = None;
        if !leave_socket {
            fs::remove_file("/dev/log").expect("/dev/log was made by the lab");
        }
    }

    /// Syslog's queue takes nothing more.
    pub fn fill_syslog(&self) {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        socket.connect("/dev/log").expect("syslog listens");
        while socket.send(b"<22>filler").is_ok() {}
    }

    /// The host name of `host`, a UTS namespace.
    fn host(&self, host: &str) -> OwnedFd {
        let mut hosts = self.hosts.borrow_mut();
        let namespace = hosts.entry(host.to_owned()).or_insert_with(|| {
            unshare(CloneFlags::CLONE_NEWUTS).expect("root may have a host name of its own");
            nix::unistd::sethostname(host).expect("the host name is this test's");
            namespace("uts")
        });
        namespace.try_clone().expect("a descriptor")
    }

    /// The program under test.
    pub fn wrapper(&self) -> PathBuf {
        self.directory.join("bin/nfs-hostchange-login")
    }

    /// Makes `program` executable for all, as `name`.
    pub fn install(&self, program: &Path, name: &str) -> PathBuf {
        let path = self.directory.join("bin").join(name);
        bind(program, &path);
        path
    }

    /// Copies the wrapper to `path`.
    pub fn copy_wrapper(&self, path: &Path) {
        copy_program(&self.wrapper(), path);
    }

    /// The program that it executes.
    pub fn probe(&self) -> PathBuf {
        self.directory.join("bin/probe")
    }

    /// A path on the file server's disk that belongs to this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The user's home directory, on the file server.
    pub fn home(&self) -> PathBuf {
        self.directory.join("nfs/alice")
    }

    /// INDEX.
    pub fn index(&self) -> PathBuf {
        self.home().join("index")
    }

    /// The claim in INDEX.
    pub fn claim_file(&self) -> PathBuf {
        self.index().join(".lasthost")
    }

    /// LISTINDEX on `host`.
    pub fn list_index(&self, host: &str) -> PathBuf {
        Path::new("/dev/shm").join(host).join("f5").join(USER)
    }

    /// The record in LISTINDEX on `host`.
    pub fn record_file(&self, host: &str) -> PathBuf {
        self.list_index(host).join(".lasthost")
    }

    /// `mail_location` with INDEX and LISTINDEX where the lab has them.
    pub fn location(&self, host: &str) -> String {
        format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
            self.index().display(),
            self.list_index(host).display()
        )
    }

    /// Writes the configuration file.
    pub fn configure(&self, text: &str) {
        fs::write("/etc/dovecot/nfs-hostchange.toml", text).expect("/etc is private");
    }

    /// A file of the user's.
    pub fn write(&self, path: &Path, content: impl AsRef<[u8]>) {
        fs::write(path, content).expect("a file of the test's can be written");
        set_owner_and_mode(path, UID, 0o600);
    }

    /// What IMAP on `host` would leave in LISTINDEX, and in other files there.
    pub fn plant_list_index(&self, host: &str) {
        for name in list_index_names() {
            self.write(&self.list_index(host).join(name), format!("{name} {host}"));
        }
    }

    /// The files of the list index that are in LISTINDEX on `host`.
    pub fn planted(&self, host: &str) -> Vec<String> {
        names_in(&self.list_index(host))
            .into_iter()
            .filter(|name| name.starts_with(PREFIX))
            .collect()
    }

    /// What tells the standing claim from every other, and its text.
    pub fn claim(&self) -> Claim {
        claim_in(&self.claim_file())
    }

    /// Whether the record of `host` equals the standing claim. Other list indexes may have one there.
    pub fn is_recorded(&self, host: &str) -> bool {
        self.has_line(host, &record::line_of(&self.claim_file(), PREFIX))
    }

    /// The same beside a list index in INDEX that is somebody else's, and as it is now.
    pub fn is_recorded_beside_another(&self, host: &str) -> bool {
        let log = self.index().join(format!("{PREFIX}.log"));
        self.has_line(host, &record::line_beside(&log, &self.claim_file(), PREFIX))
    }

    fn has_line(&self, host: &str, line: &str) -> bool {
        let record = self.record(host);
        record.is_some_and(|text| {
            text.split_once('\n').is_some_and(|(_, lines)| {
                record::without_moved(lines).ends_with(line)
                    && text == record::text(&self.record_file(host), host, lines)
            })
        })
    }

    /// The record of `host`, if there is one.
    pub fn record(&self, host: &str) -> Option<String> {
        let content = fs::read_to_string(self.record_file(host)).unwrap_or_default();
        record::is_one(&content).then_some(content)
    }

    /// A login at [`HERE`], started as root by script-login with the userdb's UID and GID.
    pub fn login(&self) -> Login<'_> {
        self.login_at(HERE)
    }

    /// The same at `host`.
    pub fn login_at(&self, host: &str) -> Login<'_> {
        Login::new(self, host)
    }

    /// The lines in syslog that are not any session's.
    pub fn log(&self) -> Vec<LogLine> {
        self.collect_log();
        self.lines.take()
    }

    fn collect_log(&self) {
        if let Some(syslog) = &*self.syslog.borrow() {
            let mut datagram = [0; 16384];
            while let Ok(length) = syslog.recv(&mut datagram) {
                let line = LogLine::parse(&datagram[..length]);
                self.lines.borrow_mut().push(line);
            }
        }
    }
}

impl Lab {
    /// Processes of wrappers that stay behind until a session without list index is over.
    pub fn helpers(&self) -> Vec<nix::unistd::Pid> {
        let ours = bytes(&self.directory);
        let is_ours = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            command.starts_with(&ours) && status.contains("\nPPid:\t1\n")
        };
        fs::read_dir("/proc")
            .expect("it is mounted")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(is_ours)
            .map(nix::unistd::Pid::from_raw)
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for helper in self.helpers() {
            let _ = nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL);
        }
        // Out of the namespace: in there its mount points cannot be deleted. What a thread enters
        // is the namespace's own root, which is outside of a chroot.
        let [mounts, host] = &self.namespaces;
        let left = setns(mounts, CloneFlags::CLONE_NEWNS)
            .and_then(|()| nix::unistd::fchdir(&self.root))
            .and_then(|()| nix::unistd::chroot("."))
            .and_then(|()| setns(host, CloneFlags::CLONE_NEWUTS))
            .map_err(io::Error::from);
        if let Err(error) = left.and_then(|()| fs::remove_dir_all(&self.directory)) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

/// What a test can know about the file that claims the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub inode: u64,
    pub seconds: i64,
    pub nanoseconds: i64,
    /// Its first line: the backend that it names.
    pub text: String,
}

/// The claim at `path`, which must be there.
pub fn claim_in(path: &Path) -> Claim {
    let status = fs::symlink_metadata(path).expect("the user is claimed");
    let text = fs::read_to_string(path).expect("a claim is text");
    assert!(status.is_file(), "{} is not a file", path.display());
    // Whether others may read it is tested where it is made.
    assert_eq!(status.mode() & 0o7733, 0o600, "{}", path.display());
    Claim {
        inode: status.ino(),
        seconds: status.mtime(),
        nanoseconds: status.mtime_nsec(),
        text: text
            .split_inclusive('\n')
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// A list index's files.
pub fn list_index_names() -> [&'static str; 4] {
    [
        "dovecot.list.index",
        "dovecot.list.index.cache",
        "dovecot.list.index.log",
        "dovecot.list.index.log.2",
    ]
}

/// Every name in `directory`, sorted; none if it does not exist.
pub fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .map(|entries| {
            entries
                .map(|entry| {
                    let name = entry.expect("the directory can be listed").file_name();
                    name.to_string_lossy().into_owned()
                })
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// Leaves no room where `path` is, but for the file of that name.
pub fn fill(path: &Path) {
    let mut file = File::create(path).expect("it can be made");
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

pub fn set_owner_and_mode(path: &Path, owner: u32, mode: u32) {
    let group = if owner == 0 { 0 } else { owner + 1 };
    chown(path, Some(owner), Some(group)).expect("tests run as root");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("tests run as root");
}

/// A process started the way Dovecot's script-login starts its post-login script.
pub struct Login<'a> {
    lab: &'a Lab,
    host: String,
    ids: Option<(u32, u32)>,
    groups: Option<Vec<u32>>,
    program: PathBuf,
    options: Vec<Vec<u8>>,
    executed: Option<Vec<Vec<u8>>>,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    stays_open: bool,
    at_first: Hook,
    at_last: Hook,
}

/// Runs in the child process.
type Hook = Box<dyn FnMut() + Send + Sync>;

impl<'a> Login<'a> {
    fn new(lab: &'a Lab, host: &str) -> Login<'a> {
        let login = Login {
            lab,
            host: host.to_owned(),
            ids: None,
            groups: None,
            program: lab.wrapper(),
            options: Vec::new(),
            executed: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            stays_open: false,
            at_first: Box::new(|| {}),
            at_last: Box::new(|| {}),
        };
        // In the order of Dovecot's src/util/script-login.c.
        login
            .set("LOCAL_IP", "192.0.2.1")
            .set("IP", "192.0.2.2")
            .set("USER", USER)
            .set_field("UID", UID.to_string())
            .set_field("GID", GID.to_string())
            .set_field("HOME", lab.home().into_os_string().into_vec())
            .set_field("MAIL_LOCATION", lab.location(host))
    }

    /// Started as the mail user, by `user = vmail` of the service or by `script-login -d`.
    pub fn by_user(self) -> Login<'a> {
        self.by(UID, GID)
    }

    /// Started as somebody.
    pub fn by(mut self, uid: u32, gid: u32) -> Login<'a> {
        self.ids = Some((uid, gid));
        self
    }

    /// With these supplementary groups.
    pub fn with_groups(mut self, groups: &[u32]) -> Login<'a> {
        self.groups = Some(groups.to_vec());
        self
    }

    /// Puts `key` into the environment, in its place if it is there already.
    pub fn set(mut self, key: &str, value: impl AsRef<[u8]>) -> Login<'a> {
        let start = format!("{key}=").into_bytes();
        let entry = [&start, value.as_ref()].concat();
        match self
            .environment
            .iter_mut()
            .find(|old| old.starts_with(&start))
        {
            Some(old) => *old = entry,
            None => self.environment.push(entry),
        }
        self
    }

    /// Puts a userdb field into the environment, and its name into USERDB_KEYS.
    pub fn set_field(self, key: &str, value: impl AsRef<[u8]>) -> Login<'a> {
        let mut keys = self.userdb_keys();
        let name = format!("{key} ");
        if !keys.split_inclusive(' ').any(|present| present == name) {
            keys.push_str(&name);
        }
        let mut login = self.set(key, value);
        // script-login puts it last.
        login
            .environment
            .retain(|entry| !entry.starts_with(b"USERDB_KEYS="));
        login.set("USERDB_KEYS", keys)
    }

    /// The userdb did not return this field.
    pub fn without_field(self, key: &str) -> Login<'a> {
        let keys = self.userdb_keys().replace(&format!("{key} "), "");
        let mut login = self.set("USERDB_KEYS", keys);
        let start = format!("{key}=").into_bytes();
        login.environment.retain(|entry| !entry.starts_with(&start));
        login
    }

    fn userdb_keys(&self) -> String {
        let keys = self
            .environment
            .iter()
            .find_map(|entry| entry.strip_prefix(b"USERDB_KEYS="));
        String::from_utf8(keys.unwrap_or_default().to_vec()).expect("made here")
    }

    /// The userdb's mail_location.
    pub fn location(self, location: impl AsRef<[u8]>) -> Login<'a> {
        self.set_field("MAIL_LOCATION", location)
    }

    /// The same places in the words of Dovecot 2.4.
    pub fn of_2_4(self) -> Login<'a> {
        let index = bytes(&self.lab.index());
        let list_index = self.lab.list_index(&self.host).join(PREFIX);
        self.without_field("MAIL_LOCATION")
            .set_field("MAIL_DRIVER", "mdbox")
            .set_field("MAIL_PATH", "~/mdbox")
            .set_field("MAIL_INDEX_PATH", index)
            .set_field("MAILBOX_LIST_INDEX_PREFIX", bytes(&list_index))
    }

    /// The whole environment, entry by entry.
    pub fn environment(mut self, entries: Vec<Vec<u8>>) -> Login<'a> {
        self.environment = entries;
        self
    }

    /// One more entry at the end of the environment.
    pub fn entry(mut self, entry: impl AsRef<[u8]>) -> Login<'a> {
        self.environment.push(entry.as_ref().to_vec());
        self
    }

    /// An option of the wrapper.
    pub fn option(mut self, option: impl AsRef<[u8]>) -> Login<'a> {
        self.options.push(option.as_ref().to_vec());
        self
    }

    /// One more argument for the program that is executed in the end.
    pub fn argument(mut self, argument: impl AsRef<[u8]>) -> Login<'a> {
        self.arguments.push(argument.as_ref().to_vec());
        self
    }

    /// Something else than the probe is to be executed in the end.
    pub fn executing(mut self, command: &[&str]) -> Login<'a> {
        self.executed = Some(
            command
                .iter()
                .map(|word| word.as_bytes().to_vec())
                .collect(),
        );
        self
    }

    /// Another copy of the wrapper.
    pub fn with_program(mut self, program: PathBuf) -> Login<'a> {
        self.program = program;
        self
    }

    /// The client stays connected until the [`Session`] is dropped.
    pub fn staying_open(mut self) -> Login<'a> {
        self.stays_open = true;
        self
    }

    /// In the new process, while it is still root.
    pub fn at_first(mut self, hook: impl FnMut() + Send + Sync + 'static) -> Login<'a> {
        self.at_first = Box::new(hook);
        self
    }

    /// In the new process, the last thing before the program begins.
    pub fn at_last(mut self, hook: impl FnMut() + Send + Sync + 'static) -> Login<'a> {
        self.at_last = Box::new(hook);
        self
    }

    /// The login from beginning to end.
    pub fn run(self) -> Session<'a> {
        self.start().wait()
    }

    /// The login, going on by itself.
    pub fn start(self) -> Running<'a> {
        let words = [vec![bytes(&self.program)], self.options.clone()].concat();
        self.spawn(words, false)
    }

    /// The login, stopped at its first instruction.
    pub fn trace(self) -> trace::Traced<'a> {
        let words = [vec![bytes(&self.program)], self.options.clone()].concat();
        trace::Traced::new(self.spawn(words, true))
    }

    /// What would be without the wrapper: the probe itself is started.
    pub fn run_directly(self) -> Session<'a> {
        self.spawn(Vec::new(), false).wait()
    }

    fn spawn(mut self, mut words: Vec<Vec<u8>>, traced: bool) -> Running<'a> {
        let number = self.lab.reports.replace(self.lab.reports.get() + 1);
        let report = self.lab.directory.join(format!("reports/{number}"));
        let expects_report = self.executed.is_none();
        let mut command = self
            .executed
            .take()
            .unwrap_or_else(|| vec![bytes(&self.lab.probe()), bytes(&report)]);
        command.append(&mut self.arguments);
        let escaped_command = all_escaped(&command);
        words.append(&mut command);
        let words: Vec<CString> = words.into_iter().map(c_string).collect();
        let environment: Vec<CString> = self.environment.iter().cloned().map(c_string).collect();

        let (client, server) = UnixStream::pair().expect("a socket");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let server_too = server.try_clone().expect("a descriptor");
        let open_connection = self
            .stays_open
            .then(|| server.try_clone().expect("a descriptor"));
        let host = self.lab.host(&self.host);
        let (ids, mut at_first, mut at_last) = (self.ids, self.at_first, self.at_last);
        let groups = self.groups.or(ids.map(|(_, gid)| vec![gid]));
        let groups = groups.map(|ids| ids.into_iter().map(Gid::from_raw).collect::<Vec<_>>());
        // std's Command would sort the environment and drop duplicates, so the child process
        // executes by itself.
        let mut child = Command::new("/proc/self/exe");
        child
            .stdin(Stdio::from(OwnedFd::from(server)))
            .stdout(Stdio::from(OwnedFd::from(server_too)))
            .stderr(Stdio::piped());
        let become_script = move || {
            setns(host.as_fd(), CloneFlags::CLONE_NEWUTS)?;
            at_first();
            if let Some(groups) = &groups {
                setgroups(groups)?;
            }
            if let Some((uid, gid)) = ids {
                setresgid(gid.into(), gid.into(), gid.into())?;
                setresuid(uid.into(), uid.into(), uid.into())?;
            }
            umask(Mode::from_bits_truncate(0o077));
            if traced {
                ptrace::traceme()?;
            }
            at_last();
            execve(&words[0], &words, &environment)?;
            Ok(())
        };
        // SAFETY: it allocates, which glibc allows after a fork, and takes no lock that another
        // thread of the test may have held.
        unsafe { child.pre_exec(become_script) };
        let child = {
            let _nobody_else_is_started = starting();
            child.spawn().expect("the program can be started")
        };
        Running {
            lab: self.lab,
            child,
            client,
            open_connection,
            report: expects_report.then_some(report),
            environment: self.environment,
            command: escaped_command,
        }
    }
}

/// Copies a program by a process of its own. A descriptor of this one that is written to would be
/// inherited by whatever another test starts, and the kernel executes no file that is open for
/// writing.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.expect("cp starts").success(), "{}", from.display());
}

/// Held while a program is started: until it runs, it has copies of all descriptors of this
/// process, other tests' connections and locks too.
static STARTING: Mutex<()> = Mutex::new(());

pub fn starting() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes `file` or a connection, so that from now on no process has it.
pub fn close<T>(file: T) {
    let _nobody_is_started = starting();
    drop(file);
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "not in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A login under way.
pub struct Running<'a> {
    lab: &'a Lab,
    child: Child,
    client: UnixStream,
    open_connection: Option<UnixStream>,
    report: Option<PathBuf>,
    environment: Vec<Vec<u8>>,
    command: Vec<String>,
}

impl<'a> Running<'a> {
    /// Its process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Session<'a> {
        if self.open_connection.is_some() {
            self.child.wait().expect("a child of this test");
            self.client.set_nonblocking(true).expect("a socket");
        }
        let mut sent_to_client = Vec::new();
        match self.client.read_to_end(&mut sent_to_client) {
            Ok(_) => {}
            Err(_) if self.open_connection.is_some() => {}
            Err(error) => {
                let _ = self.child.kill();
                panic!("the login hangs: {error}");
            }
        }
        assert!(
            sent_to_client.is_empty(),
            "the client was sent {}",
            sent_to_client.escape_ascii()
        );
        let pid = self.child.id();
        let output = self.child.wait_with_output().expect("a child of this test");
        self.lab.collect_log();
        let mut lines = self.lab.lines.borrow_mut();
        let (log, others) = lines.drain(..).partition(|line| line.pid == pid);
        *lines = others;
        Session {
            status: output.status,
            report: self.report.map(|path| Report::read(&path)),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            log,
            given: self.environment,
            command: self.command,
            connection: self.open_connection,
            lab: self.lab,
        }
    }
}

/// What came of a login.
pub struct Session<'a> {
    pub status: ExitStatus,
    report: Option<Report>,
    /// What Dovecot would log as an error.
    pub stderr: String,
    /// What syslog got.
    pub log: Vec<LogLine>,
    given: Vec<Vec<u8>>,
    command: Vec<String>,
    connection: Option<UnixStream>,
    lab: &'a Lab,
}

impl Session<'_> {
    /// What the executed program saw. There is one in every login, whatever goes wrong.
    #[track_caller]
    pub fn report(&self) -> &Report {
        let report = self.report.as_ref().filter(|report| !report.0.is_empty());
        let Some(report) = report else {
            panic!("nothing was executed: {}", self.told());
        };
        assert!(self.status.success(), "{}", self.told());
        assert_eq!(report.all("argument"), self.command, "{}", self.told());
        report
    }

    /// Whether the session may use the local list index.
    pub fn is_vouched(&self) -> bool {
        self.report().all("environment") == all_escaped(&self.given)
    }

    /// The session may use the local list index: the environment came through untouched.
    #[track_caller]
    pub fn assert_vouched(&self) -> &Self {
        let environment = self.report().all("environment");
        assert_eq!(environment, all_escaped(&self.given), "{}", self.told());
        self
    }

    /// The session must not use it: the fields that switch it off, and nothing else, came to it.
    #[track_caller]
    pub fn assert_not_vouched(&self) -> &Self {
        let environment = self.report().all("environment");
        let expected = without_list_index(&self.given);
        assert_eq!(environment, expected, "{}", self.told());
        let reason = "session without list index: ";
        let told = |line: &LogLine| line.text.contains(reason);
        assert!(
            self.log.iter().any(told) || self.stderr.contains(reason),
            "nobody was told why: {}",
            self.told()
        );
        self
    }

    /// The session must not use it, and the line that says so has all of `parts` in it.
    #[track_caller]
    pub fn assert_refused(&self, parts: &[&str]) -> &Self {
        let line = [&["session without list index: "], parts].concat();
        self.assert_not_vouched().assert_logged(&line)
    }

    /// The same, and nothing that a later login at [`HERE`] would trust is left.
    #[track_caller]
    pub fn assert_forgotten(&self, parts: &[&str]) -> &Self {
        self.assert_refused(&[&["user=alice: "], parts].concat());
        assert_eq!(self.lab.record(HERE), None, "{}", self.told());
        self
    }

    /// Nothing was logged, neither in syslog nor in Dovecot's log.
    #[track_caller]
    pub fn assert_silent(&self) -> &Self {
        assert!(
            self.log.is_empty() && self.stderr.is_empty(),
            "{}",
            self.told()
        );
        self
    }

    /// Exactly one line in syslog has all of `parts` in it; Dovecot's log has none.
    #[track_caller]
    pub fn assert_logged(&self, parts: &[&str]) -> &Self {
        let has_all = |line: &&LogLine| parts.iter().all(|part| line.text.contains(part));
        assert_eq!(
            self.log.iter().filter(has_all).count(),
            1,
            "{parts:?} in {}",
            self.told()
        );
        assert_eq!(self.stderr, "", "{}", self.told());
        self
    }

    /// Everything that was said, for a failing test's message.
    pub fn told(&self) -> String {
        format!(
            "{}, standard error {:?}, syslog {:#?}, in {}",
            self.status,
            self.stderr,
            self.log,
            self.lab.directory.display()
        )
    }

    /// The exit status; a signal has none.
    pub fn code(&self) -> Option<i32> {
        assert_eq!(self.status.signal(), None, "{}", self.told());
        self.status.code()
    }
}

/// The only difference that the wrapper makes, for the namespace called inbox.
fn without_list_index(given: &[Vec<u8>]) -> Vec<String> {
    const OWN: &str = "NAMESPACE/INBOX/LOCATION";
    const OWN_PREFIX: &str = "NAMESPACE/INBOX/MAILBOX_LIST_INDEX_PREFIX";
    const PREFIX: &str = "MAILBOX_LIST_INDEX_PREFIX";
    let given = all_escaped(given);
    let value = |key: &str| {
        let mut values = given.iter().filter_map(|entry| entry.strip_prefix(key));
        values.find_map(|rest| rest.strip_prefix('='))
    };
    let keys = value("USERDB_KEYS");
    let field = |key: &str| {
        let named = keys.is_none_or(|keys| keys.split(' ').any(|name| name == key));
        value(key).filter(|_| named)
    };
    let location_fields = [OWN, "MAIL_LOCATION", "MAIL"];
    let location = location_fields.into_iter().find_map(field);
    let of_2_4 = ["MAIL_DRIVER", "MAIL_PATH", PREFIX];
    let is_of_2_4 = of_2_4.into_iter().any(|key| field(key).is_some());
    let mut added = Vec::new();
    if let Some(location) = location {
        let same = location_fields
            .iter()
            .filter(|key| field(key) == Some(location));
        added.extend(same.map(|key| format!("{key}={location}:LISTINDEX=")));
    }
    if is_of_2_4 || location.is_none() {
        added.push("NAMESPACE/INBOX/MAILBOX_LIST_INDEX=no".to_owned());
        let is_given = |key| field(key).or(field(&format!("SET/{key}"))).is_some();
        if is_given(PREFIX) || !is_given(OWN_PREFIX) {
            added.push(format!("{PREFIX}="));
        }
        added.push(format!("{OWN_PREFIX}="));
    }
    let names: Vec<&str> = added
        .iter()
        .filter_map(|entry| Some(entry.split_once('=')?.0))
        .collect();
    let mut first_keys = true;
    let mut expected = Vec::new();
    for entry in &given {
        let name = entry.split('=').next().unwrap_or_default();
        let plain = name.strip_prefix("SET/").unwrap_or(name);
        // For a driver or layout of the namespace, or with a plus sign.
        let own = plain.strip_prefix("NAMESPACE/INBOX/").unwrap_or_default();
        let last = own.rsplit('/').next().unwrap_or_default();
        let setting = last.trim_end_matches('+');
        let is_stronger = own != setting && ["MAILBOX_LIST_INDEX", PREFIX].contains(&setting);
        if names.contains(&plain) || is_stronger {
            continue;
        }
        let mut entry = entry.clone();
        if name == "USERDB_KEYS" && std::mem::take(&mut first_keys) {
            for name in &names {
                if !entry["USERDB_KEYS=".len()..]
                    .split(' ')
                    .any(|key| key == *name)
                {
                    let separator = if entry.ends_with([' ', '=']) { "" } else { " " };
                    entry = format!("{entry}{separator}{name} ");
                }
            }
        }
        expected.push(entry);
    }
    expected.extend(added);
    expected
}

/// Whether this is the environment of a session that must not use its list index.
pub fn is_switched_off(environment: &[String]) -> bool {
    environment.iter().any(|entry| {
        entry == "NAMESPACE/INBOX/MAILBOX_LIST_INDEX=no"
            || (entry.starts_with("MAIL") || entry.starts_with("NAMESPACE/INBOX/LOCATION="))
                && entry.ends_with(":LISTINDEX=")
    })
}

/// A line in syslog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Facility and severity (syslog(3)).
    pub priority: u32,
    pub pid: u32,
    /// What follows the program's name.
    pub text: String,
}

impl LogLine {
    fn parse(datagram: &[u8]) -> LogLine {
        let line = std::str::from_utf8(datagram).expect("lines are UTF-8");
        assert!(!line.contains(char::is_control), "{line:?} is not one line");
        let parts = line.strip_prefix('<').and_then(|line| {
            let (priority, line) = line.split_once('>')?;
            if line == "filler" {
                return Some((priority.parse().ok()?, 0, line));
            }
            let (pid, text) = line.strip_prefix("nfs-hostchange[")?.split_once("]: ")?;
            Some((priority.parse().ok()?, pid.parse().ok()?, text))
        });
        let Some((priority, pid, text)) = parts else {
            panic!("{line:?} is not a line of the program's");
        };
        LogLine {
            priority,
            pid,
            text: text.to_owned(),
        }
    }

    pub fn is_error(&self) -> bool {
        self.priority & 7 == libc::LOG_ERR as u32
    }

    pub fn is_warning(&self) -> bool {
        self.priority & 7 == libc::LOG_WARNING as u32
    }
}

/// What the probe wrote down: lines that begin with what they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(String);

impl Report {
    fn read(path: &Path) -> Report {
        Report(fs::read_to_string(path).unwrap_or_default())
    }

    /// Every value of `what`, in order.
    pub fn all(&self, what: &str) -> Vec<String> {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix(what)?.strip_prefix(' '))
            .map(str::to_owned)
            .collect()
    }

    /// All lines about the process itself, not about its program's arguments and environment.
    pub fn process(&self) -> Vec<&str> {
        let is_string =
            |line: &str| line.starts_with("argument ") || line.starts_with("environment ");
        self.0.lines().filter(|line| !is_string(line)).collect()
    }
}

/// As the probe writes bytes.
pub fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn all_escaped(all: &[Vec<u8>]) -> Vec<String> {
    all.iter().map(|bytes| escaped(bytes)).collect()
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn c_string(bytes: Vec<u8>) -> CString {
    CString::new(bytes).expect("tests pass no NUL")
}

/// A directory on disk, which everybody may pass.
fn temporary_directory() -> PathBuf {
    let mut template = std::env::temp_dir()
        .join("nfs-hostchange.XXXXXX")
        .into_os_string();
    template.push("\0");
    let path = nix::unistd::mkdtemp(OsStr::from_bytes(
        &template.as_bytes()[..template.len() - 1],
    ))
    .expect("the temporary directory is writable");
    set_owner_and_mode(&path, 0, 0o711);
    path
}

/// From here on, mounts are this thread's and its children's. Returns the namespaces left.
fn enter_namespaces() -> [OwnedFd; 2] {
    let left = ["mnt", "uts"].map(namespace);
    unshare(CloneFlags::CLONE_NEWNS).expect("the tests need root, and mount namespaces");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect(
        "/ is a mount point; in a chroot that is none, run tests/lib/own-root.sh cargo test",
    );
    left
}

fn namespace(kind: &str) -> OwnedFd {
    let file = File::open(format!("/proc/thread-self/ns/{kind}"));
    file.expect("/proc is mounted").into()
}

/// Mounts a tmpfs that nobody else sees.
pub fn mount_tmpfs(path: &Path, options: &str) {
    let none = MsFlags::empty();
    mount(Some("tmpfs"), path, Some("tmpfs"), none, Some(options)).expect("a tmpfs can be mounted");
}

/// Lets `path` (a file, made here) be `source`.
fn bind(source: &Path, path: &Path) {
    File::create(path).expect("a mount point can be made");
    let (bind, none) = (MsFlags::MS_BIND, None::<&str>);
    mount(Some(source), path, none, bind, none).expect("a file can be mounted");
}

/// Mounts `path` once more upon itself, with other flags.
pub fn remount(path: &Path, flags: MsFlags) {
    let bind = MsFlags::MS_BIND;
    mount(Some(path), path, None::<&str>, bind, None::<&str>).expect("it can be mounted again");
    let flags = bind | MsFlags::MS_REMOUNT | flags;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).expect("it can be remounted");
}

/// The program under test: the one to be shipped if the environment names it, else this build's.
fn wrapper() -> &'static Path {
    static WRAPPER: OnceLock<PathBuf> = OnceLock::new();
    WRAPPER.get_or_init(|| {
        let built = env!("CARGO_BIN_EXE_nfs-hostchange-login");
        let path = std::env::var_os("NFS_HOSTCHANGE_LOGIN").unwrap_or(built.into());
        executable_by_all(path.into())
    })
}

/// The program as it is shipped.
pub fn release_wrapper() -> &'static Path {
    static WRAPPER: OnceLock<PathBuf> = OnceLock::new();
    WRAPPER.get_or_init(|| {
        if let Some(path) = std::env::var_os("NFS_HOSTCHANGE_LOGIN") {
            return executable_by_all(path.into());
        }
        let script = "source tests/lib/common.sh && build_release >&2 && echo \"$WRAPPER\"";
        let output = Command::new("bash")
            .args(["-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "the program cannot be built");
        let path = String::from_utf8(output.stdout).expect("a path");
        executable_by_all(path.trim_end().into())
    })
}

fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        // Cargo builds examples before it runs all tests, but not before it runs some.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--example", "probe"])
            .args([
                "--manifest-path",
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            ])
            .args((!cfg!(debug_assertions)).then_some("--release"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the probe cannot be built");
        // This program is in deps/, the probe beside it in examples/.
        let mut path = std::env::current_exe().expect("/proc is mounted");
        path.pop();
        path.pop();
        executable_by_all(path.join("examples/probe"))
    })
}

fn executable_by_all(path: PathBuf) -> PathBuf {
    let mode = fs::metadata(&path).expect("the program is built").mode();
    assert_eq!(
        mode & 0o555,
        0o555,
        "{} is not executable by all",
        path.display()
    );
    path
}
