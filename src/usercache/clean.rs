//! Cleaning one user's directory.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::local::directory::{
    DirectoryError, ListIndexDirectory, is_roots_own, open_without_links,
};
use crate::local::files::{self, DeleteError, Size};
use crate::local::lock::{Exclusive, Lock, LockError};
use crate::local::record::Content;
use crate::local::sessions::{self, SignError};
use crate::system::credentials::{RootThread, UserId, effective_user};
use crate::system::file_status::file_type;
use crate::system::file_system::FileSystem;

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
    /// It is on a file system of several hosts, and what is there is not only this host's.
    Network(PathBuf),
    /// It is some user's INDEX: the claim is in it.
    Index(PathBuf),
    /// It belongs to root, and no list index does.
    OfRoot(PathBuf),
    /// The kernel refused root the owner's rights.
    Refused(PathBuf, Errno),
    /// The lock file cannot be used.
    Lock(LockError),
    /// The sign of sessions cannot be removed.
    Sign(SignError),
    /// A file cannot be deleted, or must not be.
    Delete(DeleteError),
    /// It is not known whether a session has the file open.
    Lease(PathBuf, Errno),
}

impl fmt::Display for CleanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CleanError::Directory(error) => error.fmt(f),
            CleanError::Network(path) => write!(
                f,
                "{} is on a network file system: a local list index is not",
                path.display()
            ),
            CleanError::Index(path) => write!(
                f,
                "{} is an INDEX directory (its .lasthost is a claim), not a LISTINDEX",
                path.display()
            ),
            CleanError::OfRoot(path) => {
                write!(
                    f,
                    "{} belongs to root, not to a mail user: it is no user's directory",
                    path.display()
                )
            }
            CleanError::Refused(path, errno) => write!(
                f,
                "cannot take on the rights of the owner of {}: {}",
                path.display(),
                errno.desc()
            ),
            CleanError::Lock(error) => error.fmt(f),
            CleanError::Sign(error) => error.fmt(f),
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

impl From<SignError> for CleanError {
    fn from(error: SignError) -> CleanError {
        CleanError::Sign(error)
    }
}

impl From<DeleteError> for CleanError {
    fn from(error: DeleteError) -> CleanError {
        CleanError::Delete(error)
    }
}

/// More names than these are not remembered but listed again. Dovecot makes three files.
const MOST_NAMES: usize = 8;

/// A list index, looked at file by file, however many there are.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Number and sizes of its files.
    pub size: Size,
    /// When one of them was last written.
    pub last_written: SystemTime,
    /// Whether a session has one of them open.
    pub is_in_use: bool,
    /// The first few of them, which are nearly always all.
    names: Vec<CString>,
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
            names: Vec::new(),
        };
        let entries = files::entries(directory.as_fd(), prefix.to_bytes());
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
                || files::is_open(directory, &name)
                    .map_err(|errno| CleanError::Lease(directory.path_of(&name), errno))?;
            if survey.names.len() < MOST_NAMES {
                survey.names.push(name);
            }
        }
        Ok(survey)
    }

    fn delete(&self, lock: &Lock<'_, Exclusive>, prefix: &CStr) -> Result<(), DeleteError> {
        if self.names.len() == MOST_NAMES {
            return files::delete(lock, prefix).map(drop);
        }
        self.names
            .iter()
            .try_for_each(|name| files::delete_file(lock, name))
    }
}

/// Whoever cleans, in one thread.
#[derive(Debug)]
pub struct Cleaner<'a> {
    rules: &'a Rules,
    root: Option<RootThread>,
}

impl<'a> Cleaner<'a> {
    /// Prepares this thread: as root it has no groups from now on.
    pub fn new(rules: &'a Rules) -> nix::Result<Cleaner<'a>> {
        Ok(Cleaner {
            rules,
            root: RootThread::new()?,
        })
    }

    /// Cleans the directory `path` (absolute).
    ///
    /// # Errors
    /// If it cannot be cleaned, or not completely; a record that is left is empty then.
    pub fn clean(&self, path: &Path) -> Result<Outcome, CleanError> {
        let unusable = || DirectoryError::Unusable(path.to_owned(), Errno::EINVAL);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(unusable)?;
        let name = CString::new(name.as_bytes()).map_err(|_| unusable())?;
        let parent = open_without_links(parent)?;
        let directory = ListIndexDirectory::open_in(&parent, &name, path.to_owned())?;
        let file_system = FileSystem::of(directory.as_fd());
        if file_system.map_err(|errno| DirectoryError::Unusable(path.to_owned(), errno))?
            == FileSystem::Network
        {
            return Err(CleanError::Network(path.to_owned()));
        }
        self.clean_in(&parent, &name, &directory)
    }

    /// Cleans `directory`, which is called `name` in `parent`: as root with the rights of its owner,
    /// so that a hostile one can make root do nothing that he could not do himself.
    ///
    /// # Errors
    /// As [`Cleaner::clean`].
    pub fn clean_in(
        &self,
        parent: &OwnedFd,
        name: &CStr,
        directory: &ListIndexDirectory,
    ) -> Result<Outcome, CleanError> {
        let owner = directory.owner();
        let remove_directory = || unlinkat(parent, name, UnlinkatFlags::RemoveDir);
        let clean = || clean_as_owner(directory, self.rules, remove_directory);
        let Some(root) = &self.root else {
            let user = effective_user();
            if owner != user {
                let path = directory.path().to_owned();
                return Err(DirectoryError::ForeignOwner(path, owner, user).into());
            }
            return clean();
        };
        if owner == UserId(0) {
            return Err(CleanError::OfRoot(directory.path().to_owned()));
        }
        let outcome = root
            .work_as(owner, clean)
            .map_err(|errno| CleanError::Refused(directory.path().to_owned(), errno))?;
        match outcome {
            // Where root made the user's directory, it takes root to remove it.
            Ok(Outcome::Cleaned(size, Directory::Kept(Errno::EACCES | Errno::EPERM)))
                if is_roots_own(parent).unwrap_or(false) =>
            {
                Ok(Outcome::Cleaned(size, remove_directory().into()))
            }
            outcome => outcome,
        }
    }
}

fn clean_as_owner(
    directory: &ListIndexDirectory,
    rules: &Rules,
    remove_directory: impl FnOnce() -> nix::Result<()>,
) -> Result<Outcome, CleanError> {
    let lock = match Lock::acquire_existing(directory) {
        Ok(lock) => lock,
        Err(LockError::Missing(_)) => return Ok(Outcome::NoRecord),
        Err(LockError::TimedOut(_)) => return Ok(Outcome::LoggingIn),
        Err(error) => return Err(error.into()),
    };
    // From here on no login can come in between.
    let survey = Survey::of(directory, &rules.prefix)?;
    let age = age(survey.last_written.max(last_login(lock.status())));
    if age < rules.min_age {
        return Ok(Outcome::Recent(age));
    }
    let content = lock.content();
    if content == Content::Claim {
        return Err(CleanError::Index(directory.path().to_owned()));
    }
    if survey.is_in_use || has_open_session(directory) {
        return Ok(Outcome::InUse);
    }
    if rules.dry_run {
        return Ok(Outcome::WouldClean(survey.size));
    }
    // The record first and the lock file last: should this process be killed in between, then
    // nothing vouches for what is left of the list index.
    lock.empty_records()?;
    survey.delete(&lock, &rules.prefix)?;
    if !sessions::remove(directory)? {
        return Ok(Outcome::InUse);
    }
    lock.remove()?;
    Ok(Outcome::Cleaned(survey.size, remove_directory().into()))
}

/// Whether a session without a list index is, or may be, open. The sign of it must stay.
pub fn has_open_session(directory: &ListIndexDirectory) -> bool {
    sessions::open_session(directory, None).map_or(true, |open| open.is_some())
}

impl From<nix::Result<()>> for Directory {
    fn from(removed: nix::Result<()>) -> Directory {
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Directory::Removed,
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Directory::NotEmpty,
            Err(errno) => Directory::Kept(errno),
        }
    }
}
