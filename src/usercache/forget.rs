//! Emptying all records below a root, whether they are in use or not.
//!
//! Unlike a sweep, this must miss none: what it leaves is trusted. So it looks for lock files in every
//! directory, the root and users' own included, and whatever it does not enter or believe is a failure.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::lock::{self, Deadline, Exclusive, Lock, LockError};
use crate::local::record::Content;
use crate::names::LOCK_FILE;
use crate::system::entries::{Entries, EntryType, open_directory};
use crate::system::statx::Attributes;

use super::clean::{CleanError, Rights};
use super::tree::Tree;

/// A login that holds the lock for longer than this loses it, and what it records with it.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// Empties every record in `tree`: the next login of each user begins a new list index. Nothing else
/// is touched, so sessions that are open go on as before.
///
/// # Errors
/// If root may not give up its groups.
pub fn forget(tree: &Tree, report: &dyn Fn(&ForgetError)) -> nix::Result<Totals> {
    let mut forgetter = Forgetter {
        rights: Rights::new()?,
        device: tree.device(),
        totals: Totals::default(),
        report,
    };
    let (root, path) = tree.root();
    match open_directory(root, c".") {
        Ok(root) => forgetter.visit(root, path, 0),
        Err(errno) => forgetter.fail(DirectoryError::Unusable(path.to_owned(), errno)),
    }
    Ok(forgetter.totals)
}

struct Forgetter<'a> {
    rights: Rights,
    /// The file system of the root.
    device: (u32, u32),
    totals: Totals,
    report: &'a dyn Fn(&ForgetError),
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
            // A login cannot use anything else.
            Ok(file) if !file.is_regular() => {}
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
                if !matches!(entry_type, EntryType::Directory | EntryType::Unknown) {
                    continue;
                }
                let path = path.join(OsStr::from_bytes(name.to_bytes()));
                match open_directory(directory.as_fd(), name) {
                    Ok(_) if depth == DEEPEST => self.fail(ForgetError::TooDeep(path)),
                    Ok(below) => self.visit(below, &path, depth + 1),
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
            // Somebody has just cleaned it; or it is root's, where no login records anything.
            Err(
                CleanError::Lock(LockError::Missing(_) | LockError::DirectoryGone(_))
                | CleanError::OfRoot(_),
            ) => return,
            Ok(emptied) => self.totals.emptied += u64::from(emptied),
            Err(error) => self.fail(error),
        }
        self.totals.users += 1;
    }
}

/// A login that comes now finds no record, one that is under way records nothing, and one that was
/// vouched for before is over.
fn empty(directory: &ListIndexDirectory) -> Result<bool, CleanError> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match Lock::<Exclusive>::acquire_existing(directory) {
            Ok(lock) => return Ok(empty_locked(&lock)?),
            Err(LockError::TimedOut(_)) if deadline.has_passed() => {
                lock::take_away(directory)?;
                return Ok(true);
            }
            Err(LockError::TimedOut(_)) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn empty_locked(lock: &Lock<'_, Exclusive>) -> Result<bool, LockError> {
    match lock.content() {
        Content::Nothing => return Ok(false),
        // Some user's INDEX, in which this is the claim.
        Content::Claim => return Ok(false),
        Content::Records(_) => {}
    }
    lock.empty_records()?;
    // The user has not logged in, whatever the time of the last change says to a cleaner.
    let time = |(seconds, nanoseconds)| TimeSpec::new(seconds, i64::from(nanoseconds));
    let (accessed, modified) = (lock.attributes().accessed(), lock.attributes().modified());
    let _ = futimens(lock.file(), &time(accessed), &time(modified));
    Ok(true)
}
