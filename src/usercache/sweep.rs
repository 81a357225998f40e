//! Cleaning all users' directories below a root.
//!
//! A user's directory is one that holds a lock file. Those that were used lately cost one
//! fstatat(2) each and are not even opened. Nothing is kept in memory but the entries that are
//! being looked at, and no more than one list of them for each thread and level.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, stat};

use crate::file_system::FileSystem;
use crate::list_index::{Size, file_type};
use crate::list_index_directory::{DirectoryError, ListIndexDirectory, open_without_links};
use crate::record::{LOCK_FILE, LockError};
use crate::system::entries::{Entries, EntryType, open_directory};

use super::clean::{CleanError, Cleaner, Directory, Outcome, Rules};
use super::last_used::{age, last_login};

/// Users' directories are that many levels below the root at the most.
const DEEPEST: u8 = 4;

/// More threads than this only wait for each other in the kernel.
const MOST_THREADS: usize = 8;

/// What was found and done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Directories that hold a lock file.
    pub users: u64,
    /// Those that were cleaned, or would be but for a dry run.
    pub cleaned: u64,
    /// Those that were used later than the minimum age.
    pub recent: u64,
    /// Those whose list index a session has open.
    pub in_use: u64,
    /// Those that somebody held the lock of.
    pub logging_in: u64,
    /// Those that could not be cleaned, and directories that could not be searched.
    pub failed: u64,
    /// What was deleted, or would be.
    pub deleted: Size,
    /// Directories that were removed.
    pub directories: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.users += other.users;
        self.cleaned += other.cleaned;
        self.recent += other.recent;
        self.in_use += other.in_use;
        self.logging_in += other.logging_in;
        self.failed += other.failed;
        self.deleted.files += other.deleted.files;
        self.deleted.bytes += other.deleted.bytes;
        self.directories += other.directories;
    }

    fn count(&mut self, outcome: &Result<Outcome, CleanError>) {
        let counter = match outcome {
            // It was there a moment ago, so somebody else has just cleaned it.
            Ok(Outcome::NoRecord) => return,
            Ok(Outcome::Cleaned(size, directory)) => {
                self.deleted.files += size.files;
                self.deleted.bytes += size.bytes;
                self.directories += u64::from(*directory == Directory::Removed);
                &mut self.cleaned
            }
            Ok(Outcome::WouldClean(size)) => {
                self.deleted.files += size.files;
                self.deleted.bytes += size.bytes;
                &mut self.cleaned
            }
            Ok(Outcome::Recent(_)) => &mut self.recent,
            Ok(Outcome::InUse) => &mut self.in_use,
            Ok(Outcome::LoggingIn) => &mut self.logging_in,
            Err(_) => &mut self.failed,
        };
        *counter += 1;
        self.users += 1;
    }
}

/// Why a directory cannot be the root of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootError {
    /// The whole of `/` or `/dev/shm`.
    Shared(PathBuf),
    /// A file system of several hosts. The claims are on one, and have the records' name.
    Network(PathBuf),
    /// It cannot be used.
    Directory(DirectoryError),
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootError::Shared(path) => write!(
                f,
                "{} belongs to other programs too: name the directory in it that LISTINDEX begins with",
                path.display()
            ),
            RootError::Network(path) => write!(
                f,
                "{} is on a network file system: list indexes that may be thrown away are local",
                path.display()
            ),
            RootError::Directory(error) => error.fmt(f),
        }
    }
}

/// Called with the path and the outcome of whatever was not just used lately.
pub type Report<'a> = &'a (dyn Fn(&Path, &Result<Outcome, CleanError>) + Sync);

/// A sweep of everything below one directory.
#[derive(Debug)]
pub struct Sweep<'a> {
    root: Arc<Searched>,
    rules: &'a Rules,
    totals: Mutex<Totals>,
}

impl<'a> Sweep<'a> {
    /// Opens the root, an absolute path.
    ///
    /// # Errors
    /// If it cannot be the root of a sweep.
    pub fn new(path: &Path, rules: &'a Rules) -> Result<Sweep<'a>, RootError> {
        let unusable =
            |errno| RootError::Directory(DirectoryError::Unusable(path.to_owned(), errno));
        let directory = open_without_links(path).map_err(RootError::Directory)?;
        let fd = open_directory(&directory, c".").map_err(unusable)?;
        let root = Searched::new(path.to_owned(), fd, 0).map_err(unusable)?;
        let is_root = |other: &CStr| {
            stat(other).is_ok_and(|other| {
                (other.st_dev, other.st_ino) == (root.status.st_dev, root.status.st_ino)
            })
        };
        if is_root(c"/") || is_root(c"/dev/shm") {
            return Err(RootError::Shared(path.to_owned()));
        }
        if FileSystem::of(&root.fd).map_err(unusable)? == FileSystem::Network {
            return Err(RootError::Network(path.to_owned()));
        }
        Ok(Sweep {
            root: Arc::new(root),
            rules,
            totals: Mutex::default(),
        })
    }

    /// Cleans everything below the root, in as many threads as the process has processors.
    ///
    /// # Errors
    /// If root may not give up its groups.
    pub fn run(&self, report: Report<'_>) -> nix::Result<()> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers = processors.min(MOST_THREADS);
        let queue = &Queue::new(workers);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|number| scope.spawn(move || self.work(number == 0, queue, report)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn work(&self, is_first: bool, queue: &Queue, report: Report<'_>) -> nix::Result<()> {
        // Should this thread not come to its end, the others must not wait for it.
        let leaver = Leaver(queue);
        let worker = Worker {
            sweep: self,
            cleaner: Cleaner::new(self.rules)?,
            queue,
            report,
        };
        if is_first {
            worker.search(&self.root);
        }
        while let Some((directory, entries)) = queue.take() {
            worker.look_at(&directory, &entries);
        }
        std::mem::forget(leaver);
        Ok(())
    }

    /// What was found and done so far.
    pub fn totals(&self) -> Totals {
        *lock(&self.totals)
    }
}

/// A directory on the way from the root to the users' directories, open.
#[derive(Debug)]
struct Searched {
    path: PathBuf,
    fd: OwnedFd,
    status: FileStat,
    /// How many levels below the root.
    depth: u8,
}

impl Searched {
    fn new(path: PathBuf, fd: OwnedFd, depth: u8) -> nix::Result<Searched> {
        let status = fstat(&fd)?;
        Ok(Searched {
            path,
            fd,
            status,
            depth,
        })
    }

    fn path_of(&self, name: &CStr) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.to_bytes()))
    }

    fn is_writable_by_others(&self) -> bool {
        Mode::from_bits_truncate(self.status.st_mode).intersects(Mode::S_IWGRP | Mode::S_IWOTH)
    }
}

/// Entries to be looked at, and where they are.
type Task = (Arc<Searched>, Entries);

/// What every thread knows.
struct Worker<'a> {
    sweep: &'a Sweep<'a>,
    cleaner: Cleaner<'a>,
    queue: &'a Queue,
    report: Report<'a>,
}

impl Worker<'_> {
    /// Looks at everything in `directory`, or lets another thread that has nothing to do.
    fn search(&self, directory: &Arc<Searched>) {
        loop {
            let mut entries = Entries::new();
            match entries.read(&directory.fd) {
                Ok(true) => {}
                // ENOENT: the directory has just been removed.
                Ok(false) | Err(Errno::ENOENT) => return,
                Err(errno) => return self.cannot_search(&directory.path, errno),
            }
            if let Some((directory, entries)) = self.queue.offer((Arc::clone(directory), entries)) {
                self.look_at(&directory, &entries);
            }
        }
    }

    fn look_at(&self, directory: &Arc<Searched>, entries: &Entries) {
        let mut totals = Totals::default();
        for (name, entry_type) in entries.iter() {
            if is_directory(directory, name, entry_type) {
                self.look_into(directory, name, &mut totals);
            }
        }
        lock(&self.sweep.totals).add(&totals);
    }

    /// A user's directory, or one on the way to them. As long as it is not opened this is a look at
    /// times alone, so it does not matter if the name is made a link in between.
    fn look_into(&self, parent: &Arc<Searched>, name: &CStr, totals: &mut Totals) {
        match status_of_lock_file(parent, name) {
            Ok(lock_file) if is_users(parent, name, &lock_file) => {
                self.user(parent, name, &lock_file, totals);
            }
            Ok(_) | Err(Errno::ENOENT) => self.descend(parent, name),
            // It is not a directory any more.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => self.cannot_search(&parent.path_of(name), errno),
        }
    }

    fn user(&self, parent: &Searched, name: &CStr, lock_file: &FileStat, totals: &mut Totals) {
        if age(last_login(lock_file)) < self.sweep.rules.min_age {
            totals.users += 1;
            totals.recent += 1;
            return;
        }
        let path = parent.path_of(name);
        let outcome = match ListIndexDirectory::open_in(&parent.fd, name, path.clone()) {
            Ok(directory) if directory.device() != self.device() => return,
            Ok(directory) => self.cleaner.clean_in(&parent.fd, name, &directory),
            Err(error) => Err(error.into()),
        };
        if is_gone(&outcome) {
            return;
        }
        totals.count(&outcome);
        (self.report)(&path, &outcome);
    }

    fn descend(&self, parent: &Searched, name: &CStr) {
        let depth = parent.depth + 1;
        if depth >= DEEPEST {
            return;
        }
        let path = parent.path_of(name);
        let opened =
            open_directory(&parent.fd, name).and_then(|fd| Searched::new(path.clone(), fd, depth));
        match opened {
            Ok(directory) if directory.status.st_dev != self.device() => {}
            Ok(directory) => self.search(&Arc::new(directory)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => self.cannot_search(&path, errno),
        }
    }

    fn device(&self) -> libc::dev_t {
        self.sweep.root.status.st_dev
    }

    fn cannot_search(&self, path: &Path, errno: Errno) {
        lock(&self.sweep.totals).failed += 1;
        let error = DirectoryError::Unusable(path.to_owned(), errno);
        (self.report)(path, &Err(error.into()));
    }
}

fn is_directory(parent: &Searched, name: &CStr, entry_type: EntryType) -> bool {
    match entry_type {
        EntryType::Directory => true,
        EntryType::Other => false,
        EntryType::Unknown => fstatat(&parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|status| file_type(&status) == SFlag::S_IFDIR),
    }
}

/// The one system call for each user: the attributes of the lock file in `name`.
fn status_of_lock_file(parent: &Searched, name: &CStr) -> nix::Result<FileStat> {
    // A name has at most 255 bytes (NAME_MAX).
    let mut path = [0; 256 + 1 + LOCK_FILE.count_bytes() + 1];
    let parts = [name.to_bytes(), b"/", LOCK_FILE.to_bytes_with_nul()];
    let mut end = 0;
    for part in parts {
        let room = path.get_mut(end..end + part.len());
        room.ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(part);
        end += part.len();
    }
    let path = CStr::from_bytes_with_nul(&path[..end]).map_err(|_| Errno::EINVAL)?;
    fstatat(&parent.fd, path, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Whether a directory with this lock file is a user's.
///
/// Everybody can put a lock file into a directory on the way in which everybody may make his own,
/// and nobody below it would be looked at any more. But such directories are themselves made where
/// nobody else may make any, and the lock file's owner gives it away.
fn is_users(parent: &Searched, name: &CStr, lock_file: &FileStat) -> bool {
    lock_file.st_uid == parent.status.st_uid
        || parent.is_writable_by_others()
        || fstatat(&parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|directory| directory.st_uid == lock_file.st_uid)
}

/// Whether there is nothing to be cleaned any more.
fn is_gone(outcome: &Result<Outcome, CleanError>) -> bool {
    matches!(
        outcome,
        Ok(Outcome::NoRecord)
            | Err(CleanError::Directory(DirectoryError::Missing(_))
                | CleanError::Lock(LockError::Missing(_)))
    )
}

/// Work for threads that have none. It never holds more than there are threads.
#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    workers: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    tasks: Vec<Task>,
    /// Threads that have nothing to do.
    waiting: usize,
}

impl Queue {
    fn new(workers: usize) -> Queue {
        Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
            workers,
        }
    }

    /// Gives the task to a thread that waits for one; gives it back if none does.
    fn offer(&self, task: Task) -> Option<Task> {
        let mut state = lock(&self.state);
        if state.waiting <= state.tasks.len() {
            return Some(task);
        }
        state.tasks.push(task);
        self.changed.notify_one();
        None
    }

    /// Waits for a task; `None` when every thread waits, so that none will come.
    fn take(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        state.waiting += 1;
        loop {
            if let Some(task) = state.tasks.pop() {
                state.waiting -= 1;
                return Some(task);
            }
            if state.waiting == self.workers {
                self.changed.notify_all();
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells the other threads that this one takes no more tasks.
struct Leaver<'a>(&'a Queue);

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiting += 1;
        self.0.changed.notify_all();
    }
}

/// What a panic in another thread left is counters and tasks, and right as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
