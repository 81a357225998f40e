//! Cleaning one user's directory.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::list_index::{self, DeleteError, Size, file_type};
use crate::list_index_directory::{
    DirectoryError, ListIndexDirectory, is_roots_own, open_without_links,
};
use crate::open_sessions;
use crate::record::{Exclusive, Lock, LockError};
use crate::user::{Actor, UserError};

use super::last_used::{age, last_login, last_written};

/// What is to be cleaned, and how.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long ago the user must have used the list index last.
    pub min_age: Duration,
    /// What the list index is called.
    pub prefix: CString,
    /// Find out only, delete nothing.
    pub dry_run: bool,
}

/// What became of a user's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The list index and the record are gone.
    Cleaned(Size, Directory),
    /// They would be, were it not for a dry run.
    WouldClean(Size),
    /// They were used later than the minimum age, this long ago.
    Recent(Duration),
    /// A session has the list index open.
    InUse,
    /// Somebody holds the lock: the user is just logging in.
    LoggingIn,
    /// No login made this directory: there is no record in it.
    NoRecord,
}

/// What became of the directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// It was empty, and is removed.
    Removed,
    /// There is more in it, which is not ours.
    NotEmpty,
    /// It is empty, but may not be removed.
    Kept(Errno),
}

/// Why a directory was not cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanError {
    /// The directory cannot be used.
    Directory(DirectoryError),
    /// Its owner's rights cannot be taken on.
    Owner(PathBuf, UserError),
    /// The lock file cannot be used.
    Lock(LockError),
    /// A file cannot be deleted, or must not be.
    Delete(DeleteError),
    /// It is not known whether a session has the file open.
    Lease(PathBuf, Errno),
}

impl fmt::Display for CleanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CleanError::Directory(error) => error.fmt(f),
            CleanError::Owner(path, error) => write!(f, "{}: {error}", path.display()),
            CleanError::Lock(error) => error.fmt(f),
            CleanError::Delete(error) => error.fmt(f),
            CleanError::Lease(path, errno) => write!(
                f,
                "cannot find out whether a session has {} open: {}",
                path.display(),
                errno.desc()
            ),
        }
    }
}

impl From<DirectoryError> for CleanError {
    fn from(error: DirectoryError) -> CleanError {
        CleanError::Directory(error)
    }
}

impl From<LockError> for CleanError {
    fn from(error: LockError) -> CleanError {
        CleanError::Lock(error)
    }
}

impl From<DeleteError> for CleanError {
    fn from(error: DeleteError) -> CleanError {
        CleanError::Delete(error)
    }
}

/// A list index, looked at file by file, however many there are.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Number and sizes of its files.
    pub size: Size,
    /// When one of them was last written.
    pub last_written: SystemTime,
    /// Whether a session has one of them open.
    pub is_in_use: bool,
}

impl Survey {
    /// Looks at the list index called `prefix`, with the rights of the directory's owner.
    ///
    /// # Errors
    /// If it cannot be listed, is not made of files, or the kernel does not say whether they are
    /// open.
    pub fn of(directory: &ListIndexDirectory, prefix: &CStr) -> Result<Survey, CleanError> {
        let unreadable = |errno| DeleteError::Unreadable(directory.path().to_owned(), errno);
        let mut survey = Survey {
            size: Size::default(),
            last_written: UNIX_EPOCH,
            is_in_use: false,
        };
        let entries = list_index::entries(directory.as_fd(), prefix.to_bytes());
        for entry in entries.map_err(unreadable)? {
            let (name, status) = entry.map_err(unreadable)?;
            match file_type(&status) {
                SFlag::S_IFREG => {}
                SFlag::S_IFDIR => continue,
                _ => return Err(DeleteError::NotAFile(directory.path_of(&name)).into()),
            }
            survey.size.add(&status);
            survey.last_written = survey.last_written.max(last_written(&status));
            survey.is_in_use = survey.is_in_use
                || list_index::is_open(directory, &name)
                    .map_err(|errno| CleanError::Lease(directory.path_of(&name), errno))?;
        }
        Ok(survey)
    }
}

/// Cleans the directory `path` (absolute).
///
/// # Errors
/// If it cannot be cleaned, or not completely; a record that is left is empty then.
pub fn clean(path: &Path, rules: &Rules) -> Result<Outcome, CleanError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(DirectoryError::Unusable(path.to_owned(), Errno::EINVAL).into());
    };
    use std::os::unix::ffi::OsStrExt;
    let name = CString::new(name.as_bytes())
        .map_err(|_| DirectoryError::Unusable(path.to_owned(), Errno::EINVAL))?;
    clean_in(&open_without_links(parent)?, &name, path.to_owned(), rules)
}

/// Cleans the directory `name` of `parent`; `path` is its path, for messages.
///
/// # Errors
/// As [`clean`].
pub fn clean_in(
    parent: &OwnedFd,
    name: &CStr,
    path: PathBuf,
    rules: &Rules,
) -> Result<Outcome, CleanError> {
    let directory = ListIndexDirectory::open_in(parent, name, path)?;
    let owner = directory.owner();
    let actor = Actor::as_owner(owner)
        .map_err(|error| CleanError::Owner(directory.path().to_owned(), error))?;
    if actor.user() != owner {
        let path = directory.path().to_owned();
        return Err(DirectoryError::ForeignOwner(path, owner, actor.user()).into());
    }
    let lock = match Lock::acquire_existing(&directory) {
        Ok(lock) => lock,
        Err(LockError::Missing(_)) => return Ok(Outcome::NoRecord),
        Err(LockError::TimedOut(_)) => return Ok(Outcome::LoggingIn),
        Err(error) => return Err(error.into()),
    };
    clean_locked(lock, rules, || remove_directory(parent, name, &actor))
}

/// From here on no login can come in between.
fn clean_locked(
    lock: Lock<'_, Exclusive>,
    rules: &Rules,
    remove_directory: impl FnOnce() -> Directory,
) -> Result<Outcome, CleanError> {
    let survey = Survey::of(lock.directory(), &rules.prefix)?;
    let age = age(survey.last_written.max(last_login(&lock.status()?)));
    if age < rules.min_age {
        return Ok(Outcome::Recent(age));
    }
    if survey.is_in_use || has_open_session(&lock) {
        return Ok(Outcome::InUse);
    }
    if rules.dry_run {
        return Ok(Outcome::WouldClean(survey.size));
    }
    // The record first and the lock file last: should this process be killed in between, then
    // nothing vouches for what is left of the list index.
    lock.empty_record()?;
    let deleted = list_index::delete(&lock, &rules.prefix)?;
    lock.remove()?;
    Ok(Outcome::Cleaned(deleted, remove_directory()))
}

/// Whether a session without a list index is, or may be, open. The note of it must stay.
fn has_open_session(lock: &Lock<'_, Exclusive>) -> bool {
    open_sessions::still_open(lock.content().sessions()).map_or(true, |open| !open.is_empty())
}

/// Removes the directory `name` of `parent` if it is empty.
fn remove_directory(parent: &OwnedFd, name: &CStr, actor: &Actor) -> Directory {
    let remove = || unlinkat(parent, name, UnlinkatFlags::RemoveDir);
    let removed = match (remove(), actor.root()) {
        // Where root made the user's directory, it takes root to remove it.
        (Err(Errno::EACCES | Errno::EPERM), Some(root)) => root.run(|| {
            if is_roots_own(parent)? {
                remove()
            } else {
                Err(Errno::EACCES)
            }
        }),
        (removed, _) => removed,
    };
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Directory::Removed,
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Directory::NotEmpty,
        Err(errno) => Directory::Kept(errno),
    }
}
