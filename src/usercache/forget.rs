//! Emptying all records below a root, whether they are in use or not.
//!
//! Unlike a sweep, this must miss none: what it leaves is trusted. So it looks for lock files in every
//! directory, the root and users' own included, and whatever it does not enter or believe is a failure.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::local::directory::{DirectoryError, ListIndexDirectory, is_roots_own};
use crate::local::lock::{Deadline, Exclusive, Lock, LockError};
use crate::local::record::Content;
use crate::names::LOCK_FILE;
use crate::system::credentials::UserId;
use crate::system::entries::{Entries, EntryType, open_directory};
use crate::system::statx::Attributes;

use super::clean::{self, CleanError, Rights};
use super::tree::Tree;

/// How long to wait for logins that are under way, all of them together.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Deeper than anybody's list index.
const DEEPEST: usize = 16;

/// What was found and done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Directories with a lock file.
    pub users: u64,
    /// Of these, records that were emptied.
    pub emptied: u64,
    /// Places where there may still be a record.
    pub failed: u64,
}

/// Why there may still be a record below or in this directory.
#[derive(Debug)]
pub enum ForgetError {
    /// It cannot be searched, or its record cannot be emptied.
    Clean(CleanError),
    /// It is too deep below the root.
    TooDeep(PathBuf),
    /// Something else is mounted there.
    Mounted(PathBuf),
    /// Nobody knows whose this lock file is.
    Doubtful(PathBuf),
    /// Somebody holds its lock.
    Locked(PathBuf),
    /// It leads somewhere else.
    Link(PathBuf),
}

impl fmt::Display for ForgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean(error) => error.fmt(f),
            Self::TooDeep(path) => write!(
                f,
                "{} is too deep below the root: name it itself",
                path.display()
            ),
            Self::Mounted(path) => {
                write!(f, "{} is a mount point: name it itself", path.display())
            }
            Self::Doubtful(path) => write!(
                f,
                "{} has a second name, or does not belong to the user whose directory it is in: remove it",
                path.display()
            ),
            ForgetError::Locked(path) => write!(
                f,
                "{} is locked, by a login or by its owner: try again",
                path.display()
            ),
            ForgetError::Link(path) => write!(
                f,
                "{} is a symbolic link of root's: name the directory that it leads to",
                path.display()
            ),
        }
    }
}

impl From<CleanError> for ForgetError {
    fn from(error: CleanError) -> Self {
        Self::Clean(error)
    }
}

impl From<DirectoryError> for ForgetError {
    fn from(error: DirectoryError) -> Self {
        Self::Clean(error.into())
    }
}

/// Empties every record in `tree`: the next login of each user starts a new list index. Nothing else
/// is touched, so sessions that are open go on as before.
///
/// # Errors
/// If root may not give up its groups.
pub fn forget(tree: &Tree, report: &mut dyn FnMut(&ForgetError)) -> nix::Result<Totals> {
    let mut forgetter = Forgetter {
        rights: Rights::new()?,
        device: tree.device(),
        totals: Totals::default(),
        locked: Vec::new(),
        report,
    };
    let (root, path) = tree.root();
    match open_directory(root, c".") {
        Ok(root) => forgetter.visit(root, path, 0),
        Err(errno) => forgetter.fail(DirectoryError::Unusable(path.to_owned(), errno)),
    }
    forgetter.wait();
    Ok(forgetter.totals)
}

struct Forgetter<'a> {
    rights: Rights,
    /// The file system of the root.
    device: (u32, u32),
    totals: Totals,
    /// Directories that somebody holds the lock of.
    locked: Vec<PathBuf>,
    report: &'a mut dyn FnMut(&ForgetError),
}

impl Forgetter<'_> {
    fn fail(&mut self, error: impl Into<ForgetError>) {
        self.totals.failed += 1;
        (self.report)(&error.into());
    }

    /// Empties the record in `directory`, which is so many levels below the root, and all below it.
    fn visit(&mut self, directory: OwnedFd, path: &Path, depth: usize) {
        let unusable = |errno| DirectoryError::Unusable(path.to_owned(), errno);
        let owner = match Attributes::of_local(&directory) {
            // A kernel without openat2(2) has crossed a mount point.
            Ok(attributes) if attributes.device() != self.device => {
                return self.fail(ForgetError::Mounted(path.to_owned()));
            }
            Ok(attributes) => attributes.owner(),
            Err(errno) => return self.fail(unusable(errno)),
        };
        let directory = ListIndexDirectory::opened(directory, owner, path.to_owned());
        match Attributes::known(directory.as_fd(), LOCK_FILE) {
            // A login cannot use anything else, and nothing that is root's.
            Ok(file) if !file.is_regular() || owner == UserId(0) => {}
            Ok(file) if file.links() == 1 && file.owner() == owner && !file.is_mount_point() => {
                self.forget(&directory);
            }
            Ok(_) => self.fail(ForgetError::Doubtful(directory.path_of(LOCK_FILE))),
            Err(Errno::ENOENT) => {}
            Err(errno) => self.fail(unusable(errno)),
        }
        let mut entries = Entries::default();
        loop {
            match entries.read(directory.as_fd()) {
                Ok(true) => {}
                // ENOENT: the directory has just been removed.
                Ok(false) | Err(Errno::ENOENT) => return,
                Err(errno) => return self.fail(unusable(errno)),
            }
            for (name, entry_type) in entries.iter() {
                if entry_type == EntryType::File {
                    continue;
                }
                let path = path.join(OsStr::from_bytes(name.to_bytes()));
                match open_directory(directory.as_fd(), name) {
                    Ok(_) if depth == DEEPEST => self.fail(ForgetError::TooDeep(path)),
                    Ok(below) => self.visit(below, &path, depth + 1),
                    // Logins follow such links.
                    Err(Errno::ELOOP | Errno::ENOTDIR) if leads_on(&directory, name) => {
                        self.fail(ForgetError::Link(path));
                    }
                    // It is gone, or no directory.
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                    Err(Errno::EXDEV) => self.fail(ForgetError::Mounted(path)),
                    Err(errno) => self.fail(DirectoryError::Unusable(path, errno)),
                }
            }
        }
    }

    fn forget(&mut self, directory: &ListIndexDirectory) {
        match self.rights.of_owner(directory, || empty(directory)) {
            // Somebody has just cleaned it.
            Err(CleanError::Lock(LockError::Missing(_) | LockError::DirectoryGone(_))) => {}
            // One that is kept must not keep others from being forgotten.
            Err(CleanError::Lock(LockError::TimedOut(_))) => {
                self.locked.push(directory.path().to_owned());
            }
            Ok(emptied) => {
                self.totals.users += 1;
                self.totals.emptied += u64::from(emptied);
            }
            Err(error) => {
                self.totals.users += 1;
                self.fail(error);
            }
        }
    }

    /// Goes back to the directories that were locked, until all of them were free or it has been long
    /// enough. Nothing is taken from whoever keeps a lock: he may be deleting a list index, and whoever
    /// came after him would lose his own.
    fn wait(&mut self) {
        let deadline = Deadline::after(PATIENCE);
        while !self.locked.is_empty() && !deadline.has_passed() {
            std::thread::sleep(PAUSE);
            for path in std::mem::take(&mut self.locked) {
                if deadline.has_passed() {
                    self.locked.push(path);
                    continue;
                }
                match clean::open(&path) {
                    Ok((_, _, directory)) => self.forget(&directory),
                    Err(DirectoryError::Missing(_)) => {}
                    Err(error) => self.fail(error),
                }
            }
        }
        for path in std::mem::take(&mut self.locked) {
            self.totals.users += 1;
            self.fail(ForgetError::Locked(path));
        }
    }
}

/// Whether a login would go on through `name`: a link of root's, in a directory of root's own.
fn leads_on(directory: &ListIndexDirectory, name: &CStr) -> bool {
    let is_roots_link = Attributes::known(directory.as_fd(), name)
        .is_ok_and(|link| link.is_symbolic_link() && link.owner() == UserId(0));
    is_roots_link && is_roots_own(directory.as_fd()).unwrap_or(true)
}

/// A login that comes now finds no record, and one that was vouched for before is over.
fn empty(directory: &ListIndexDirectory) -> Result<bool, CleanError> {
    let lock = Lock::<Exclusive>::acquire_existing(directory)?;
    match lock.content() {
        Content::Records(_) => {}
        Content::Nothing => return Ok(false),
        Content::Claim => return Err(CleanError::Index(directory.path().to_owned())),
    }
    lock.empty_records()?;
    // The user has not logged in, whatever the time of the last change says to a cleaner.
    let time = |(seconds, nanoseconds)| TimeSpec::new(seconds, i64::from(nanoseconds));
    let (accessed, modified) = (lock.attributes().accessed(), lock.attributes().modified());
    let _ = futimens(lock.file(), &time(accessed), &time(modified));
    Ok(true)
}
