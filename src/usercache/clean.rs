//! Cleaning one user's directory.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, Whence, lseek, unlinkat};

use crate::local::directory::{
    DirectoryError, ListIndexDirectory, is_roots_own, open_without_links,
};
use crate::local::files::{self, DeleteError, Size, belongs};
use crate::local::lock::{Deadline, Exclusive, Lock, LockError};
use crate::local::record::Content;
use crate::local::sign::{self, SignError};
use crate::names::{LOCK_FILE, SIGN_FILE};
use crate::store;
use crate::system::credentials::{RootThread, UserId, effective_user};
use crate::system::entries::{Entries, EntryType, open_here};
use crate::system::file_system::FileSystem;
use crate::system::lease::{Lease, Leases};
use crate::system::statx::Attributes;

use super::last_used::{age, last_login, last_written};

/// What is to be cleaned, and how.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long ago the user must have used the list index last.
    pub min_age: Duration,
    /// What the list index is called where no record says so.
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
    /// There is neither a record nor a list index in it.
    Nothing,
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
    /// It holds mail, or indexes beside it.
    Store(PathBuf),
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
            Self::Directory(error) => error.fmt(f),
            Self::Network(path) => write!(
                f,
                "{} is on a network file system: a local list index is not",
                path.display()
            ),
            Self::Index(path) => write!(
                f,
                "{} is an INDEX directory (its .lasthost is a claim), not a LISTINDEX",
                path.display()
            ),
            Self::Store(path) => write!(
                f,
                "{} holds mail or its indexes: it is no LISTINDEX",
                path.display()
            ),
            Self::OfRoot(path) => {
                write!(
                    f,
                    "{} belongs to root, not to a mail user: it is no user's directory",
                    path.display()
                )
            }
            Self::Refused(path, errno) => write!(
                f,
                "cannot take on the rights of the owner of {}: {}",
                path.display(),
                errno.desc()
            ),
            Self::Lock(error) => error.fmt(f),
            Self::Sign(error) => error.fmt(f),
            Self::Delete(error) => error.fmt(f),
            Self::Lease(path, errno) => write!(
                f,
                "cannot find out whether a session has {} open: {}",
                path.display(),
                errno.desc()
            ),
        }
    }
}

impl std::error::Error for CleanError {}

impl From<DirectoryError> for CleanError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

impl From<LockError> for CleanError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<SignError> for CleanError {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

impl From<DeleteError> for CleanError {
    fn from(error: DeleteError) -> Self {
        Self::Delete(error)
    }
}

/// Looks at users' directories.
#[derive(Debug)]
pub struct Surveyor {
    leases: Leases,
    entries: Entries,
}

/// A user's list indexes, looked at file by file.
#[derive(Debug)]
pub struct Survey {
    /// Number and sizes of the files.
    pub size: Size,
    /// When one of them was last written.
    pub last_written: SystemTime,
    /// Whether a session has one of them open. If not, nobody opens it while this lives.
    pub is_in_use: bool,
    /// Whether there is a sign of sessions without list index.
    pub has_sign: bool,
    /// Whether there is something else that a mail store or an INDEX has.
    is_store: bool,
    has_directory: bool,
    names: Vec<CString>,
    /// Of the files that whoever uses the list index has open.
    leases: Vec<Lease>,
}

impl Surveyor {
    /// The one of this thread.
    #[must_use]
    pub fn prepare() -> Self {
        Self {
            leases: Leases::prepare(),
            entries: Entries::default(),
        }
    }

    /// Looks at the list index called `prefix` in `directory` and at those that `content` lists, with
    /// the rights of the directory's owner.
    ///
    /// # Errors
    /// If it cannot be listed, is not made of files, or the kernel does not say whether they are
    /// open.
    pub fn survey(
        &mut self,
        directory: &ListIndexDirectory,
        prefix: &CStr,
        content: &Content,
    ) -> Result<Survey, CleanError> {
        let unreadable = |errno| DeleteError::Unreadable(directory.path().to_owned(), errno);
        let has_sign = Cell::new(false);
        let is_store = Cell::new(false);
        let has_directory = Cell::new(false);
        let is_ours = |name: &CStr, entry_type| {
            has_sign.set(has_sign.get() || name == SIGN_FILE);
            is_store.set(is_store.get() || store::is_of_store(name.to_bytes()));
            let may_be_one = matches!(entry_type, EntryType::Directory | EntryType::Unknown);
            has_directory.set(has_directory.get() || may_be_one);
            let listed = belongs(name.to_bytes(), prefix.to_bytes()) || content.lists(name);
            listed && name != LOCK_FILE
        };
        let names = files::names(directory.as_fd(), &mut self.entries, is_ours);
        let mut survey = Survey {
            size: Size::default(),
            last_written: UNIX_EPOCH,
            is_in_use: false,
            has_sign: false,
            is_store: false,
            has_directory: false,
            names: Vec::new(),
            leases: Vec::new(),
        };
        let names = names.map_err(unreadable)?;
        survey.has_sign = has_sign.get();
        survey.is_store = is_store.get();
        survey.has_directory = has_directory.get();
        for (name, entry_type) in names {
            match entry_type {
                EntryType::Directory => continue,
                EntryType::Other => {
                    return Err(DeleteError::NotAFile(directory.path_of(&name)).into());
                }
                EntryType::File | EntryType::Unknown => {}
            }
            match self.look_at(directory, &name, &mut survey) {
                Ok(()) => survey.names.push(name),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(CleanError::Lease(directory.path_of(&name), errno)),
            }
        }
        Ok(survey)
    }

    /// Whoever uses a list index has its `.log` open, or after a rotation `.log.2`.
    fn look_at(
        &self,
        directory: &ListIndexDirectory,
        name: &CStr,
        survey: &mut Survey,
    ) -> nix::Result<()> {
        let is_log = [&b".log"[..], b".log.2"]
            .iter()
            .any(|suffix| name.to_bytes().ends_with(suffix));
        let attributes = if is_log {
            match self.lease(directory, name)? {
                Some(lease) => {
                    let attributes = lease.attributes()?;
                    survey.leases.push(lease);
                    attributes
                }
                None => {
                    survey.is_in_use = true;
                    Attributes::known(directory.as_fd(), name)?
                }
            }
        } else {
            Attributes::known(directory.as_fd(), name)?
        };
        survey.size += Size {
            files: 1,
            bytes: attributes.size(),
        };
        survey.last_written = survey.last_written.max(last_written(&attributes));
        Ok(())
    }

    fn lease(&self, directory: &ListIndexDirectory, name: &CStr) -> nix::Result<Option<Lease>> {
        // The name may have become a FIFO's, which must not block.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        match open_here(directory.as_fd(), name, flags, Mode::empty()) {
            Ok(file) => self.leases.take(file),
            // Somebody who has it open holds a lease.
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Survey {
    /// Whether there is no list index.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a session without list index is, or may be, open. The sign of it must stay.
    fn has_open_session(&self, directory: &ListIndexDirectory) -> bool {
        self.has_sign && sign::open_session(directory, None).map_or(true, |open| open.is_some())
    }

    /// That it is a cache, where no record says so.
    fn confirm_cache(&self, directory: &ListIndexDirectory) -> Result<(), CleanError> {
        let path = || directory.path().to_owned();
        let is_map = match self.has_directory {
            true => store::sign_of_map(directory.as_fd())
                .map(|sign| sign.is_some())
                .map_err(|errno| DeleteError::Unreadable(path(), errno))?,
            false => false,
        };
        if self.is_store || is_map {
            return Err(CleanError::Store(path()));
        }
        Ok(())
    }

    fn delete(&self, lock: &Lock<'_, Exclusive>) -> Result<(), DeleteError> {
        self.names
            .iter()
            .try_for_each(|name| files::delete_file(lock, name))
    }

    /// What keeps the list index from being deleted, if the user was last seen then.
    fn spared(
        &self,
        last_seen: Option<SystemTime>,
        session_open: bool,
        rules: &Rules,
    ) -> Option<Outcome> {
        let age = age(last_seen.unwrap_or(UNIX_EPOCH).max(self.last_written));
        if age < rules.min_age {
            Some(Outcome::Recent(age))
        } else if self.is_in_use || session_open {
            Some(Outcome::InUse)
        } else if rules.dry_run {
            Some(Outcome::WouldClean(self.size))
        } else {
            None
        }
    }
}

/// A thread that works in users' directories with the rights of their owners, so that a hostile one
/// can make root do nothing that he could not do himself.
#[derive(Debug)]
pub struct Rights {
    root: Option<RootThread>,
    user: UserId,
}

impl Rights {
    /// Prepares this thread: as root it has no groups from now on.
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            root: RootThread::new()?,
            user: effective_user(),
        })
    }

    /// Does `work` in `directory` with its owner's rights.
    ///
    /// # Errors
    /// If the kernel refuses them, the directory is root's, or the work fails.
    pub fn of_owner<T>(
        &self,
        directory: &ListIndexDirectory,
        work: impl FnOnce() -> Result<T, CleanError>,
    ) -> Result<T, CleanError> {
        let (owner, path) = (directory.owner(), || directory.path().to_owned());
        match &self.root {
            Some(_) if owner == UserId(0) => Err(CleanError::OfRoot(path())),
            Some(root) => root
                .work_as(owner, work)
                .map_err(|errno| CleanError::Refused(path(), errno))?,
            None if owner != self.user => {
                Err(DirectoryError::ForeignOwner(path(), owner, self.user).into())
            }
            None => work(),
        }
    }
}

/// Whoever cleans, in one thread.
#[derive(Debug)]
pub struct Cleaner<'a> {
    rules: &'a Rules,
    rights: Rights,
    surveyor: Surveyor,
}

impl<'a> Cleaner<'a> {
    /// Prepares this thread: as root it has no groups from now on.
    pub fn new(rules: &'a Rules) -> nix::Result<Self> {
        Ok(Cleaner {
            rules,
            rights: Rights::new()?,
            surveyor: Surveyor::prepare(),
        })
    }

    /// Cleans the directory `path` (absolute).
    ///
    /// # Errors
    /// If it cannot be cleaned, or not completely; a record that is left is empty then.
    pub fn clean(&mut self, path: &Path) -> Result<Outcome, CleanError> {
        let unusable = |errno| DirectoryError::Unusable(path.to_owned(), errno);
        let parts = path.parent().zip(path.file_name());
        let (parent, name) = parts.ok_or_else(|| unusable(Errno::EINVAL))?;
        let name = CString::new(name.as_bytes()).map_err(|_| unusable(Errno::EINVAL))?;
        let parent = open_without_links(parent)?;
        let directory = ListIndexDirectory::open_in(&parent, &name, path.to_owned())?;
        match FileSystem::of(directory.as_fd()).map_err(unusable)? {
            FileSystem::Network => Err(CleanError::Network(path.to_owned())),
            FileSystem::Memory | FileSystem::Disk => self.clean_in(&parent, &name, &directory),
        }
    }

    /// Cleans `directory`, which is called `name` in `parent`.
    ///
    /// # Errors
    /// As [`Cleaner::clean`].
    pub fn clean_in(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        directory: &ListIndexDirectory,
    ) -> Result<Outcome, CleanError> {
        let remove_directory = || unlinkat(parent, name, UnlinkatFlags::RemoveDir);
        let (rules, surveyor) = (self.rules, &mut self.surveyor);
        let clean = || clean_as_owner(directory, rules, surveyor, remove_directory);
        match self.rights.of_owner(directory, clean) {
            // Where root made the user's directory, it takes root to remove it.
            Ok(Outcome::Cleaned(size, Directory::Kept(Errno::EACCES | Errno::EPERM)))
                if self.rights.root.is_some() && is_roots_own(parent).unwrap_or(false) =>
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
    surveyor: &mut Surveyor,
    remove_directory: impl FnOnce() -> nix::Result<()>,
) -> Result<Outcome, CleanError> {
    let mut survey = |content: &Content| surveyor.survey(directory, &rules.prefix, content);
    let (lock, last_login) = match Lock::acquire_existing(directory) {
        Ok(lock) => {
            let last_login = last_login(lock.attributes());
            (lock, Some(last_login))
        }
        Err(LockError::TimedOut(_)) => return Ok(Outcome::LoggingIn),
        Err(LockError::Missing(_)) => {
            // He never logged in. A lock is made only in order to delete something.
            let survey = survey(&Content::Nothing)?;
            if survey.is_empty() {
                return Ok(Outcome::Nothing);
            }
            survey.confirm_cache(directory)?;
            if let Some(outcome) = survey.spared(None, survey.has_open_session(directory), rules) {
                return Ok(outcome);
            }
            // It has been listed to its end.
            let rewound = lseek(directory.as_fd(), 0, Whence::SeekSet);
            rewound.map_err(|errno| DeleteError::Unreadable(directory.path().to_owned(), errno))?;
            match Lock::acquire(directory, &Deadline::after(Duration::ZERO)) {
                Ok(lock) => (lock, None),
                Err(LockError::TimedOut(_)) => return Ok(Outcome::LoggingIn),
                Err(LockError::DirectoryGone(_)) => return Ok(Outcome::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    // From here on no login can come in between.
    let content = lock.content();
    if content == Content::Claim {
        return Err(CleanError::Index(directory.path().to_owned()));
    }
    let survey = survey(&content)?;
    if content == Content::Nothing && last_login.is_some() {
        survey.confirm_cache(directory)?;
    }
    // Who removes the sign learns whether there is such a session.
    let session_open = rules.dry_run && survey.has_open_session(directory);
    let mut spared = survey.spared(last_login, session_open, rules);
    if spared.is_none() && survey.has_sign && !sign::remove(directory)? {
        spared = Some(Outcome::InUse);
    }
    if let Some(outcome) = spared {
        if last_login.is_none() && lock.attributes().size() == 0 {
            lock.remove()?;
        }
        return Ok(outcome);
    }
    // The record first and the lock file last: should this process be killed in between, then
    // nothing vouches for what is left of the list index.
    lock.empty_records()?;
    survey.delete(&lock)?;
    let size = survey.size;
    // With its leases: whoever waits for the log need not wait for the rest.
    drop(survey);
    lock.remove()?;
    Ok(Outcome::Cleaned(size, remove_directory().into()))
}

impl From<nix::Result<()>> for Directory {
    fn from(removed: nix::Result<()>) -> Self {
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Self::Removed,
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Self::NotEmpty,
            Err(errno) => Self::Kept(errno),
        }
    }
}
