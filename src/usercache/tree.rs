//! Finding all users' directories below a root.
//!
//! A user's directory is one that holds a lock file of its owner's, or a list index of his: who
//! only gets mail has no lock file. So may be the root itself, and directories in a user's. Everything
//! else is a directory on the way, whatever somebody has put there. Nothing is kept in memory but the
//! entries that are being looked at, one buffer of them for each thread and level.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::stat::stat;

use crate::local::directory::{DirectoryError, ListIndexDirectory, open_without_links};
use crate::local::room::Room;
use crate::names::{LOCK_FILE, SIGN_FILE};
use crate::system::credentials::UserId;
use crate::system::entries::{Entries, EntryType, open_directory};
use crate::system::file_system::FileSystem;
use crate::system::statx::Attributes;

use super::last_used::{last_login, last_written};
use super::queue::Queue;

/// Users' directories are that many levels below the root at the most.
const DEEPEST: usize = 8;

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
            Self::Shared(path) => write!(
                f,
                "{} belongs to other programs too: name the directory in it that LISTINDEX begins with",
                path.display()
            ),
            Self::Network(path) => write!(
                f,
                "{} is on a network file system: list indexes that may be thrown away are local",
                path.display()
            ),
            Self::Directory(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RootError {}

/// What is done with the users' directories, in one thread.
pub trait Visitor {
    /// Called for each user's directory.
    fn user(&mut self, user: Found<'_>);
    /// Called for each directory that cannot be searched.
    fn cannot_search(&mut self, error: DirectoryError);
    /// Called now and then, and at the end.
    fn pause(&mut self) {}
}

/// A user's directory.
#[derive(Debug)]
pub struct Found<'a> {
    place: Whereabouts<'a>,
    /// When the user was last seen: when he logged in, or where he never did, when his mail came.
    pub last_seen: SystemTime,
    fd: OwnedFd,
    owner: UserId,
}

#[derive(Debug, Clone, Copy)]
enum Whereabouts<'a> {
    Root(&'a Searched),
    In(&'a Searched, &'a CStr),
}

impl<'a> Found<'a> {
    /// Where it can be removed from, and its name there, if nobody but its owner can make it again.
    pub fn removable_from(&self) -> Option<(&'a OwnedFd, &'a CStr)> {
        match self.place {
            Whereabouts::In(parent, name) if parent.belongs_to_alone(self.owner) => {
                Some((&parent.fd, name))
            }
            Whereabouts::In(..) | Whereabouts::Root(_) => None,
        }
    }

    /// The directory itself.
    pub fn open(self) -> ListIndexDirectory {
        let path = match self.place {
            Whereabouts::Root(root) => root.path(),
            Whereabouts::In(parent, name) => parent.path_of(name),
        };
        ListIndexDirectory::opened(self.fd, self.owner, path)
    }
}

/// Everything below one directory.
#[derive(Debug)]
pub struct Tree {
    root: Arc<Searched>,
    /// The root is a user's directory: when he was last seen.
    user: Option<SystemTime>,
    device: (u32, u32),
    /// What a list index has whenever there is one: who only gets mail has no lock file.
    log: CString,
}

impl Tree {
    /// Opens the root, an absolute path. Users without a lock file are those with a list index called
    /// `prefix`.
    ///
    /// # Errors
    /// If it cannot be the root.
    pub fn new(path: &Path, prefix: &CStr) -> Result<Self, RootError> {
        let unusable =
            |errno| RootError::Directory(DirectoryError::Unusable(path.to_owned(), errno));
        let directory = open_without_links(path).map_err(RootError::Directory)?;
        let fd = open_directory(&directory, c".").map_err(unusable)?;
        let attributes = Attributes::of_local(&fd).map_err(unusable)?;
        let is_root = |other: &CStr| {
            stat(other).is_ok_and(|other| {
                let (major, minor, inode) = attributes.device_and_inode();
                (libc::makedev(major, minor), inode) == (other.st_dev, other.st_ino)
            })
        };
        if is_root(c"/") || is_root(c"/dev/shm") {
            return Err(RootError::Shared(path.to_owned()));
        }
        if FileSystem::of(&fd).map_err(unusable)? == FileSystem::Network {
            return Err(RootError::Network(path.to_owned()));
        }
        let user = user_in(&fd, attributes.owner()).map_err(unusable)?;
        let root = Searched::new(
            Place::Root(path.to_owned()),
            fd,
            &attributes,
            user.is_some(),
            0,
        );
        let log = [prefix.to_bytes(), b".log"].concat();
        Ok(Self {
            root: Arc::new(root),
            user,
            device: attributes.device(),
            // Made of C strings, so there is no NUL byte in it.
            log: CString::new(log).unwrap_or_default(),
        })
    }

    /// The root, open, and its path.
    pub fn root(&self) -> (&OwnedFd, &Path) {
        let path = match &self.root.place {
            Place::Root(path) => path,
            // It is no other place.
            Place::In(..) => Path::new(""),
        };
        (&self.root.fd, path)
    }

    /// The number of the file system that the root is on (major, minor).
    pub fn device(&self) -> (u32, u32) {
        self.device
    }

    /// The file system that the root is on, and the room there.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn room(&self) -> nix::Result<(FileSystem, Room)> {
        Ok((FileSystem::of(&self.root.fd)?, Room::of(&self.root.fd)?))
    }

    /// Visits everything below the root, in as many threads as the process has processors, this one
    /// among them.
    ///
    /// # Errors
    /// If a thread could not make its visitor.
    pub fn visit<V: Visitor, E: Send>(
        &self,
        visitor: impl Fn() -> Result<V, E> + Sync,
    ) -> Result<(), E> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let work = &Queue::new(&self.root);
        let visitor = &visitor;
        thread::scope(|scope| {
            let others: Vec<_> = (1..processors.min(MOST_THREADS))
                .map(|_| scope.spawn(move || self.work(work, None, visitor)))
                .collect();
            let mut result = self.work(work, self.user, visitor);
            for other in others {
                let ended = other.join();
                result = result.and(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            result
        })
    }

    fn work<V: Visitor, E>(
        &self,
        work: &Queue<Searched>,
        user_in_root: Option<SystemTime>,
        visitor: impl Fn() -> Result<V, E>,
    ) -> Result<(), E> {
        let mut worker = Worker {
            tree: self,
            visitor: visitor()?,
            work,
            buffers: Default::default(),
        };
        if let Some(last_seen) = user_in_root {
            worker.found_on_the_way(&self.root, last_seen);
        }
        while let Some(held) = work.take() {
            worker.read(&held.directory);
        }
        worker.visitor.pause();
        Ok(())
    }
}

/// A directory on the way from the root to the users' directories, open.
#[derive(Debug)]
struct Searched {
    place: Place,
    fd: OwnedFd,
    owner: UserId,
    /// Nobody but its owner and root can make anything in it.
    is_private: bool,
    /// It has been visited as a user's directory.
    is_users: bool,
    /// How many levels below the root.
    depth: usize,
}

/// Where a directory is.
#[derive(Debug)]
enum Place {
    Root(PathBuf),
    In(Arc<Searched>, CString),
}

impl Searched {
    fn new(
        place: Place,
        fd: OwnedFd,
        attributes: &Attributes,
        is_users: bool,
        depth: usize,
    ) -> Self {
        Self {
            place,
            fd,
            owner: attributes.owner(),
            is_private: attributes.mode() & 0o022 == 0,
            is_users,
            depth,
        }
    }

    fn belongs_to_alone(&self, owner: UserId) -> bool {
        self.is_private && self.owner == owner
    }

    fn path(&self) -> PathBuf {
        match &self.place {
            Place::Root(path) => path.clone(),
            Place::In(parent, name) => parent.path_of(name),
        }
    }

    fn path_of(&self, name: &CStr) -> PathBuf {
        self.path().join(OsStr::from_bytes(name.to_bytes()))
    }
}

struct Worker<'a, V> {
    tree: &'a Tree,
    visitor: V,
    work: &'a Queue<Searched>,
    /// One for each level.
    buffers: [Entries; DEEPEST + 1],
}

impl<V: Visitor> Worker<'_, V> {
    /// Looks at what is in `directory`. Other threads may read the same open directory; the kernel gives
    /// each its own part.
    fn read(&mut self, directory: &Arc<Searched>) {
        let mut entries = std::mem::take(&mut self.buffers[directory.depth]);
        loop {
            match entries.read(&directory.fd) {
                Ok(true) => self.look_at(directory, &entries),
                // ENOENT: the directory has just been removed.
                Ok(false) | Err(Errno::ENOENT) => break,
                Err(errno) => break self.cannot_search(directory.path(), errno),
            }
        }
        self.work.is_read(directory);
        self.buffers[directory.depth] = entries;
    }

    fn look_at(&mut self, directory: &Arc<Searched>, entries: &Entries) {
        for (name, entry_type) in entries.iter() {
            if is_directory(directory, name, entry_type) {
                if directory.depth < DEEPEST {
                    self.look_into(directory, name);
                }
            } else if !directory.is_users && self.shows_user(directory, name) {
                self.look_at_file(directory, name);
            }
        }
        self.visitor.pause();
    }

    /// A user's directory with a lock file, or one to be searched.
    fn look_into(&mut self, parent: &Arc<Searched>, name: &CStr) {
        let (mut fd, attributes, user) = match open_and_look(parent, name) {
            Ok(looked) => looked,
            // It is gone, is no directory any more, or something is mounted there.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => return,
            Err(errno) => return self.cannot_search(parent.path_of(name), errno),
        };
        // A kernel without openat2(2) has crossed a mount point.
        if attributes.device() != self.tree.device {
            return;
        }
        if let Some(last_seen) = user {
            self.visitor.user(Found {
                place: Whereabouts::In(parent, name),
                last_seen,
                fd,
                owner: attributes.owner(),
            });
            // Most have no directories in them. (Where the number says nothing, it is another one.)
            if attributes.links() == 2 {
                return;
            }
            let is_same =
                |now: &Attributes| now.device_and_inode() == attributes.device_and_inode();
            fd = match open_and_look(parent, name) {
                Ok((fd, now, _)) if is_same(&now) => fd,
                // It has been removed, or another one is there.
                _ => return,
            };
        }
        self.search(Arc::new(Searched::new(
            Place::In(Arc::clone(parent), name.to_owned()),
            fd,
            &attributes,
            user.is_some(),
            parent.depth + 1,
        )));
    }

    /// Whether this name, in a directory without a lock file, is that of a user who only gets mail; or
    /// all that is left of one.
    fn shows_user(&self, directory: &Searched, name: &CStr) -> bool {
        let log = self.tree.log.as_c_str();
        name == log
            || name == SIGN_FILE
                && Attributes::known(&directory.fd, log).is_err_and(|errno| errno == Errno::ENOENT)
    }

    fn look_at_file(&mut self, directory: &Searched, name: &CStr) {
        match Attributes::known(&directory.fd, name) {
            Ok(file) if may_be_believed(&file) && file.owner() == directory.owner => {
                self.found_on_the_way(directory, last_written(&file));
            }
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => self.cannot_search(directory.path_of(name), errno),
        }
    }

    /// A user's directory that is searched, too.
    fn found_on_the_way(&mut self, directory: &Searched, last_seen: SystemTime) {
        // This one is being read.
        match open_directory(&directory.fd, c".") {
            Ok(fd) => self.visitor.user(Found {
                place: match &directory.place {
                    Place::Root(_) => Whereabouts::Root(directory),
                    Place::In(parent, name) => Whereabouts::In(parent, name),
                },
                last_seen,
                fd,
                owner: directory.owner,
            }),
            Err(Errno::ENOENT) => {}
            Err(errno) => self.cannot_search(directory.path(), errno),
        }
    }

    /// Leaves the directory to another thread that has nothing to do, or reads it.
    fn search(&mut self, directory: Arc<Searched>) {
        if let Some(directory) = self.work.offer(directory) {
            self.read(&directory);
        }
    }

    fn cannot_search(&mut self, path: PathBuf, errno: Errno) {
        self.visitor
            .cannot_search(DirectoryError::Unusable(path, errno));
    }
}

/// The directory `name`, what it is, and if it is a user's, when he was last seen.
fn open_and_look(
    parent: &Searched,
    name: &CStr,
) -> nix::Result<(OwnedFd, Attributes, Option<SystemTime>)> {
    let fd = open_directory(&parent.fd, name)?;
    let attributes = Attributes::of_local(&fd)?;
    let user = user_in(&fd, attributes.owner())?;
    Ok((fd, attributes, user))
}

/// When the user last logged in whose directory this is, if the lock file in it says so.
///
/// Where everybody may make a directory, everybody may make a lock file too, and who has one uid
/// with others may be called like it: nobody below would be looked at any more. So the lock
/// file is believed only if it is the directory's owner's, who is not root.
fn user_in(directory: &OwnedFd, owner: UserId) -> nix::Result<Option<SystemTime>> {
    match Attributes::known(directory, LOCK_FILE) {
        Ok(file) if may_be_believed(&file) && file.owner() == owner => Ok(Some(last_login(&file))),
        Ok(_) | Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether `file` is a user's and nobody else's.
fn may_be_believed(file: &Attributes) -> bool {
    file.is_regular() && file.links() == 1 && file.owner() != UserId(0) && !file.is_mount_point()
}

fn is_directory(parent: &Searched, name: &CStr, entry_type: EntryType) -> bool {
    match entry_type {
        EntryType::Directory => true,
        EntryType::File | EntryType::Other => false,
        EntryType::Unknown => {
            Attributes::known(&parent.fd, name).is_ok_and(|attributes| attributes.is_directory())
        }
    }
}

/// What a panic in another thread left is counters and directories, and right as it is.
pub fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
