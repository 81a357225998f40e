//! A user's mail with a version, two backends, and what must never be.

use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::common::trace::Traced;
use crate::common::{
    HERE, Lab, PREFIX, THERE, UID, names_in, record, release_wrapper, set_owner_and_mode,
};
use crate::tracer::{self, Act, End};

/// What stays behind tries again after a second, two, four...
const LONGEST_STAY: Duration = Duration::from_secs(30);

/// The files of a list index.
const FILES: [&str; 2] = [PREFIX, "dovecot.list.index.log"];

/// What the administrator's command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    Clean,
    Sweep,
}

/// Both backends' list indexes, INDEX, and the number of the mail's last change.
pub struct World {
    pub lab: Lab,
    /// The program as it is shipped: a dynamic one fails in the loader, not in our hands.
    wrapper: PathBuf,
    /// The administrator's command.
    command: PathBuf,
    version: Cell<u32>,
    by_user: bool,
    /// Ids that every login must execute the next program with.
    ids: OnceCell<String>,
}

impl World {
    pub fn new(by_user: bool) -> World {
        // The build wants the system's own /etc.
        let shipped = release_wrapper();
        let lab = Lab::new();
        let wrapper = lab.install(shipped, "shipped");
        let command = Path::new(env!("CARGO_BIN_EXE_nfs-hostchange"));
        let command = lab.install(command, "nfs-hostchange");
        World {
            lab,
            wrapper,
            command,
            version: Cell::new(0),
            by_user,
            ids: OnceCell::new(),
        }
    }

    /// A user of whom nobody knows anything.
    pub fn forget(&self) {
        self.wait_for_who_stays_behind();
        // A full syslog would take other calls.
        drop(self.lab.log());
        for directory in [self.lab.index(), "/dev/shm".into()] {
            for name in names_in(&directory) {
                let path = directory.join(name);
                let removed = if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removed.expect("it is the test's");
            }
        }
        let _ = fs::remove_file("/etc/dovecot/nfs-hostchange.toml");
    }

    /// A login at `host` has claimed and recorded, and its session built a list index.
    pub fn settle(&self, host: &str) {
        let directory = self.lab.list_index(host);
        fs::create_dir_all(&directory).expect("/dev/shm is the test's");
        let parent = directory.parent().expect("it has one");
        set_owner_and_mode(parent, 0, 0o1733);
        set_owner_and_mode(&directory, UID, 0o700);
        let claim = self.lab.claim_file();
        let new = claim.with_extension("new");
        self.lab.write(&new, format!("{host}\n"));
        fs::rename(&new, &claim).expect("it is the test's");
        let file = self.lab.record_file(host);
        self.lab.write(&file, "");
        let record = record::text(&file, host, &record::line_of(&claim, PREFIX));
        self.lab.write(&file, record);
        self.change(Some(host));
    }

    /// The standing claim says that it was made for a migration.
    pub fn say_migrating(&self) {
        let claim = self.lab.claim_file();
        let made = fs::metadata(&claim).and_then(|status| status.modified());
        let mut file = File::options()
            .append(true)
            .open(&claim)
            .expect("it stands");
        file.write_all(b"migrating 1/1.000000001/1\n")
            .and_then(|()| file.set_modified(made?))
            .expect("root may");
    }

    /// Whether the record of `host` is what a login there would write: beside a list index in INDEX,
    /// if that matters, that is as it was.
    fn is_recorded(&self, host: &str) -> bool {
        let log = self.lab.index().join(FILES[1]);
        let matters = Path::new("/etc/dovecot/nfs-hostchange.toml").exists();
        if matters && log.exists() {
            self.lab.is_recorded_beside_another(host)
        } else {
            self.lab.is_recorded(host)
        }
    }

    /// A session changes the mail, and tells the list index of `host` if it uses one.
    pub fn change(&self, host: Option<&str>) {
        self.version.set(self.version.get() + 1);
        if let Some(host) = host {
            self.put(&self.lab.list_index(host));
        }
    }

    /// A Dovecot without this program has served the user.
    pub fn put_originals(&self) {
        self.version.set(self.version.get() + 1);
        let changed = |path: &Path| {
            let status = fs::metadata(path).ok()?;
            Some((status.ctime(), status.ctime_nsec()))
        };
        let log = self.lab.index().join(FILES[1]);
        // The clock of the file system must have gone on since the claim.
        loop {
            self.put(&self.lab.index());
            if changed(&log) > changed(&self.lab.claim_file()) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn put(&self, directory: &Path) {
        for name in FILES {
            self.lab
                .write(&directory.join(name), self.version.get().to_string());
        }
    }

    fn contents(&self, directory: &Path) -> Vec<Option<String>> {
        FILES
            .iter()
            .map(|name| fs::read_to_string(directory.join(name)).ok())
            .collect()
    }

    fn is_current(&self, directory: &Path) -> bool {
        let current = Some(self.version.get().to_string());
        self.contents(directory).iter().all(|file| *file == current)
    }

    /// What a login at `host` would trust must be whole and up to date.
    pub fn assert_nothing_stale_is_trusted(&self, what: &str) {
        for host in [HERE, THERE] {
            let directory = self.lab.list_index(host);
            let contents = self.contents(&directory);
            let absent = contents.iter().all(Option::is_none);
            // With a list index in INDEX the local one is passed over.
            let trusted = self.is_trusted(host) && !self.lab.index().join(FILES[1]).exists();
            assert!(
                !trusted || absent || self.is_current(&directory),
                "{what}: {host} would trust {contents:?}, the mail is at {}",
                self.version.get()
            );
        }
    }

    /// The originals are all there, or a whole copy of them is trusted.
    pub fn assert_nothing_is_lost(&self, what: &str) {
        let copied = self.is_trusted(HERE) && self.is_current(&self.lab.list_index(HERE));
        assert!(
            copied || self.is_current(&self.lab.index()),
            "{what}: an original is gone: {:?}",
            self.contents(&self.lab.index())
        );
    }

    /// A login at `host` that stands still.
    pub fn start(&self, host: &str) -> Traced<'_> {
        let login = self.lab.login_at(host).with_program(self.wrapper.clone());
        if self.by_user { login.by_user() } else { login }.trace()
    }

    /// A login at `host` that stands still, and whose client stays connected.
    pub fn start_open(&self, host: &str) -> Traced<'_> {
        let login = self.lab.login_at(host).with_program(self.wrapper.clone());
        let login = login.staying_open();
        if self.by_user { login.by_user() } else { login }.trace()
    }

    /// The administrator's command working on all that `host` has, standing still.
    pub fn start_command(&self, host: &str, command: Cleaning) -> Traced<'_> {
        let directory = self.lab.list_index(host);
        let root = Path::new("/dev/shm").join(host);
        let (word, path) = match command {
            Cleaning::Clean => ("clean", directory),
            Cleaning::Sweep => ("sweep", root),
        };
        let path = path.to_str().expect("the lab's names are ASCII");
        let login = self.lab.login_at(host).with_program(self.command.clone());
        // Only root may look into the directories on the way to all users.
        let login = match command {
            Cleaning::Clean if self.by_user => login.by_user(),
            Cleaning::Clean | Cleaning::Sweep => login,
        };
        login
            .executing(&["usercache", word, "0", path])
            // A sweep has as many threads as it may use processors.
            .at_last(use_one_processor)
            .trace()
    }

    /// The administrator's command working on all that [`HERE`] has.
    pub fn clean(&self, command: Cleaning, decide: impl FnMut(usize, u64) -> Act) -> End {
        tracer::run(self.start_command(HERE, command), decide)
    }

    /// Whether nothing of a list index is left at [`HERE`].
    pub fn is_clean(&self) -> bool {
        let directory = self.lab.list_index(HERE);
        self.contents(&directory).iter().all(Option::is_none)
    }

    /// The session that `end` began at `host` opens its list index, or builds it if there is none, and changes
    /// the mail. If the record does not equal the claim any more, somebody else is at work there, and nobody trusts
    /// the outcome.
    pub fn open_list_index(&self, host: &str, end: &End, what: &str) -> Option<File> {
        let End::Executed {
            uses_list_index: true,
            ..
        } = end
        else {
            return None;
        };
        let directory = self.lab.list_index(host);
        if !self.is_trusted(host) {
            return None;
        }
        if self.contents(&directory).iter().all(Option::is_none) {
            self.put(&directory);
        }
        assert!(
            self.is_current(&directory),
            "{what}: the session at {host} uses {:?}, the mail is at {}",
            self.contents(&directory),
            self.version.get()
        );
        self.change(Some(host));
        let log = directory.join(FILES[1]);
        Some(File::open(log).expect("it was read a moment ago"))
    }

    /// Whether a login at `host` would find its record equal to the claim.
    pub fn is_trusted(&self, host: &str) -> bool {
        self.lab.claim_file().exists() && self.is_recorded(host)
    }

    /// Whose record equals the claim is who claimed last.
    pub fn assert_only_the_last_claimer_is_trusted(&self, what: &str) {
        if !self.lab.claim_file().exists() {
            return;
        }
        let claim = self.lab.claim();
        for host in [HERE, THERE] {
            let last = claim.text.lines().next() == Some(host);
            assert!(last || !self.is_recorded(host), "{what}: {host} is trusted");
        }
    }

    /// A login at `host`.
    pub fn login(&self, host: &str, decide: impl FnMut(usize, u64) -> Act) -> End {
        tracer::run(self.start(host), decide)
    }

    /// The session that follows: what it finds must be right. It changes the mail if `changes`.
    pub fn session(&self, host: &str, end: &End, changes: bool, what: &str) -> bool {
        let End::Executed {
            uses_list_index,
            ids,
        } = end
        else {
            panic!("{what}: nothing was executed: {end:?}");
        };
        let expected = self.ids.get_or_init(|| ids.clone());
        assert_eq!(ids, expected, "{what}");
        let directory = self.lab.list_index(host);
        if *uses_list_index {
            let contents = self.contents(&directory);
            let absent = contents.iter().all(Option::is_none);
            assert!(
                absent || self.is_current(&directory),
                "{what}: the session at {host} uses {contents:?}, the mail is at {}",
                self.version.get()
            );
        }
        if changes {
            self.change(uses_list_index.then_some(host));
        }
        *uses_list_index
    }

    /// Waits until nothing stays behind for a login of this test's.
    pub fn wait_for_who_stays_behind(&self) {
        let probe = self.lab.probe();
        let programs = probe.parent().expect("it is in a directory").as_os_str();
        let is_ours = |process: fs::DirEntry| {
            let arguments = fs::read(process.path().join("cmdline"));
            arguments.is_ok_and(|arguments| arguments.starts_with(programs.as_bytes()))
        };
        let began = Instant::now();
        while fs::read_dir("/proc").expect("proc").flatten().any(is_ours) {
            assert!(began.elapsed() < LONGEST_STAY, "something stays behind");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A login without trouble heals everything, and leaves nothing lying around, and the other backend
    /// notices.
    pub fn assert_healed(&self, what: &str) {
        self.assert_healed_here(what);
        let end = self.login(THERE, |_, _| Act::Pass);
        self.session(THERE, &end, true, what);
        self.assert_nothing_stale_is_trusted(what);
    }

    /// The same, without the other backend.
    pub fn assert_healed_here(&self, what: &str) {
        let what = &format!("{what}, then logged in again");
        self.wait_for_who_stays_behind();
        let end = self.login(HERE, |_, _| Act::Pass);
        assert!(
            self.session(HERE, &end, true, what),
            "{what}: without list index"
        );
        assert!(self.is_recorded(HERE), "{what}: no record");
        let mut left = names_in(&self.lab.index());
        if left.iter().any(|name| name == FILES[1]) {
            // Somebody else's, and all of it is there.
            left.retain(|name| !FILES.contains(&name.as_str()));
        }
        assert_eq!(left, [".lasthost"], "{what}");
        let directory = self.lab.list_index(HERE);
        let mut expected = vec![".lasthost"];
        expected.extend(FILES);
        let mut names = names_in(&directory);
        // The place of the sign may be there already.
        names.retain(|name| name != ".lasthost.without");
        assert_eq!(names, expected, "{what}");
        let parent = directory.parent().map(PathBuf::from).expect("it has one");
        assert_eq!(names_in(&parent), ["alice"], "{what}");
    }
}

fn use_one_processor() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("a process may ask");
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&processor| allowed.is_set(processor) == Ok(true));
    one.set(first.expect("it runs on one")).expect("it exists");
    sched_setaffinity(this, &one).expect("it is allowed");
}
