//! Finding all users' directories below a root.
//!
//! A user's directory is one that holds a lock file. Finding it costs one fstatat(2), and it is
//! not even opened. Nothing is kept in memory but the entries that are being looked at, and no
//! more than one list of them for each thread and level.

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

use crate::local::directory::{DirectoryError, ListIndexDirectory, open_without_links};
use crate::names::LOCK_FILE;
use crate::system::entries::{Entries, EntryType, open_directory};
use crate::system::file_status::file_type;
use crate::system::file_system::FileSystem;

/// Users' directories are that many levels below the root at the most.
const DEEPEST: u8 = 4;

/// More threads than this only wait for each other in the kernel.
const MOST_THREADS: usize = 8;

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

/// What is done with the users' directories, in one thread.
pub trait Visitor {
    /// Called for each user's directory.
    fn user(&mut self, user: &Found<'_>);
    /// Called for each directory that cannot be searched.
    fn cannot_search(&mut self, error: DirectoryError);
    /// Called now and then, and at the end.
    fn pause(&mut self) {}
}

/// A user's directory that was found, but not opened.
#[derive(Debug)]
pub struct Found<'a> {
    searched: &'a Searched,
    root: &'a Searched,
    /// Its name.
    pub name: &'a CStr,
    /// The attributes of the lock file in it.
    pub lock_file: FileStat,
}

impl Found<'_> {
    /// The directory that it is in, open.
    pub fn parent(&self) -> &OwnedFd {
        &self.searched.fd
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.searched.path_of(self.name)
    }

    /// Opens it; `None` if a file system of its own is mounted there.
    pub fn open(&self) -> Result<Option<ListIndexDirectory>, DirectoryError> {
        let directory = ListIndexDirectory::open_in(self.parent(), self.name, self.path())?;
        let same = directory.device() == self.root.status.st_dev;
        Ok(same.then_some(directory))
    }
}

/// Everything below one directory.
#[derive(Debug)]
pub struct Tree {
    root: Arc<Searched>,
}

impl Tree {
    /// Opens the root, an absolute path.
    ///
    /// # Errors
    /// If it cannot be the root.
    pub fn new(path: &Path) -> Result<Tree, RootError> {
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
        Ok(Tree {
            root: Arc::new(root),
        })
    }

    /// Visits everything below the root, in as many threads as the process has processors.
    ///
    /// # Errors
    /// If a thread could not make its visitor.
    pub fn visit<V: Visitor, E: Send>(
        &self,
        visitor: impl Fn() -> Result<V, E> + Sync,
    ) -> Result<(), E> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers = processors.min(MOST_THREADS);
        let queue = &Queue::new(workers);
        let visitor = &visitor;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|number| scope.spawn(move || self.work(number == 0, queue, visitor)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn work<V: Visitor, E>(
        &self,
        is_first: bool,
        queue: &Queue,
        visitor: impl Fn() -> Result<V, E>,
    ) -> Result<(), E> {
        // Should this thread not come to its end, the others must not wait for it.
        let leaver = Leaver(queue);
        let mut worker = Worker {
            root: &self.root,
            visitor: visitor()?,
            queue,
        };
        if is_first {
            worker.search(&self.root);
        }
        while let Some((directory, entries)) = queue.take() {
            worker.look_at(&directory, &entries);
        }
        worker.visitor.pause();
        std::mem::forget(leaver);
        Ok(())
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

struct Worker<'a, V> {
    root: &'a Arc<Searched>,
    visitor: V,
    queue: &'a Queue,
}

impl<V: Visitor> Worker<'_, V> {
    /// Looks at everything in `directory`, or lets another thread that has nothing to do.
    fn search(&mut self, directory: &Arc<Searched>) {
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

    fn look_at(&mut self, directory: &Arc<Searched>, entries: &Entries) {
        for (name, entry_type) in entries.iter() {
            if is_directory(directory, name, entry_type) {
                self.look_into(directory, name);
            }
        }
        self.visitor.pause();
    }

    /// A user's directory, or one on the way to them. As long as it is not opened this is a look at
    /// times alone, so it does not matter if the name is made a link in between.
    fn look_into(&mut self, parent: &Arc<Searched>, name: &CStr) {
        match status_of_lock_file(parent, name) {
            Ok(lock_file) if is_users(parent, name, &lock_file) => self.visitor.user(&Found {
                searched: parent,
                root: self.root,
                name,
                lock_file,
            }),
            Ok(_) | Err(Errno::ENOENT) => self.descend(parent, name),
            // It is not a directory any more.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => self.cannot_search(&parent.path_of(name), errno),
        }
    }

    fn descend(&mut self, parent: &Searched, name: &CStr) {
        let depth = parent.depth + 1;
        if depth >= DEEPEST {
            return;
        }
        let path = parent.path_of(name);
        let opened =
            open_directory(&parent.fd, name).and_then(|fd| Searched::new(path.clone(), fd, depth));
        match opened {
            Ok(directory) if directory.status.st_dev != self.root.status.st_dev => {}
            Ok(directory) => self.search(&Arc::new(directory)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => self.cannot_search(&path, errno),
        }
    }

    fn cannot_search(&mut self, path: &Path, errno: Errno) {
        self.visitor
            .cannot_search(DirectoryError::Unusable(path.to_owned(), errno));
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
/// and nobody below it would be looked at any more. But the lock file's owner gives it away. For
/// the users themselves, deeper down where everybody may make a directory, nobody needs to ask.
fn is_users(parent: &Searched, name: &CStr, lock_file: &FileStat) -> bool {
    lock_file.st_uid == parent.status.st_uid
        || (parent.depth > 0 && parent.is_writable_by_others())
        || fstatat(&parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|directory| directory.st_uid == lock_file.st_uid)
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
        let mut state = guard(&self.state);
        if state.waiting <= state.tasks.len() {
            return Some(task);
        }
        state.tasks.push(task);
        self.changed.notify_one();
        None
    }

    /// Waits for a task; `None` when every thread waits, so that none will come.
    fn take(&self) -> Option<Task> {
        let mut state = guard(&self.state);
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
        guard(&self.0.state).waiting += 1;
        self.0.changed.notify_all();
    }
}

/// What a panic in another thread left is counters and tasks, and right as it is.
pub fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
