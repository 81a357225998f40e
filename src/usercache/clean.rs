//! Cleaning one user's directory.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::from_errors;
use crate::local::directory::{DirectoryError, ListIndexDirectory, open_without_links};
use crate::local::files::{self, DeleteError, Size, belongs};
use crate::local::lock::{Lock, LockError};
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
    /// It is left: others could take its place, and would learn what Dovecot writes into it.
    Stays,
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
    /// It holds mail, or indexes beside it, as this name in it shows.
    Store(PathBuf, CString),
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
    /// It has more list indexes than any user.
    TooMany(PathBuf),
    /// Its owner has done this to it. It harms nobody else.
    Spoiled(Box<CleanError>),
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
            Self::Store(path, sign) => write!(
                f,
                "{} is no LISTINDEX: it holds {}, as mail stores and INDEX do",
                path.display(),
                sign.to_string_lossy()
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
            Self::TooMany(path) => write!(
                f,
                "{} holds more than {MOST_LOGS} logs of list indexes",
                path.display()
            ),
            Self::Spoiled(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CleanError {}

impl CleanError {
    /// Whether the owner of `directory` can have brought it about there.
    fn is_owners_doing(&self, directory: &ListIndexDirectory) -> bool {
        match self {
            Self::Index(_)
            | Self::Store(..)
            | Self::TooMany(_)
            | Self::Lock(LockError::NotAFile(_))
            | Self::Sign(SignError::NotAFile(_))
            | Self::Delete(DeleteError::NotAFile(_)) => true,
            Self::Lock(LockError::Failed(path, errno))
            | Self::Sign(SignError::Failed(path, errno))
            | Self::Delete(
                DeleteError::Unreadable(path, errno) | DeleteError::Undeletable(path, errno),
            )
            | Self::Lease(path, errno) => match errno {
                // A lease, something mounted, something else under the name.
                Errno::EAGAIN
                | Errno::EBUSY
                | Errno::EISDIR
                | Errno::ELOOP
                | Errno::ENOTDIR
                | Errno::ENXIO
                | Errno::EXDEV => true,
                // Rules of the system (SELinux, a service's unit) keep out everybody alike.
                Errno::EACCES | Errno::EPERM => is_closed(directory, path),
                _ => false,
            },
            _ => false,
        }
    }
}

/// Whether the owner of `directory` has no right to use it, or the file at `path` in it.
fn is_closed(directory: &ListIndexDirectory, path: &Path) -> bool {
    let is_own = |attributes: nix::Result<Attributes>, rights: u32| {
        attributes.is_ok_and(|attributes| {
            attributes.owner() == directory.owner() && attributes.mode() & rights == rights
        })
    };
    let file = path.strip_prefix(directory.path()).unwrap_or(path);
    let file = CString::new(file.as_os_str().as_bytes()).unwrap_or_default();
    !is_own(Attributes::of_local(directory.as_fd()), 0o700)
        || !file.is_empty() && !is_own(Attributes::known(directory.as_fd(), &file), 0o600)
}

from_errors!(CleanError: DirectoryError => Directory, LockError => Lock, SignError => Sign, DeleteError => Delete);

/// So many logs of list indexes may be in a directory: a thread has all of them open at once.
const MOST_LOGS: usize = 64;

/// Looks at users' directories.
#[derive(Debug)]
pub struct Surveyor {
    leases: Leases,
    /// Leases are kept for as long as what was found out must stay true.
    keeps: bool,
    entries: Entries,
}

/// A user's list indexes, looked at file by file.
#[derive(Debug)]
pub struct Survey {
    /// Number and sizes of the files.
    pub size: Size,
    /// When one of them was last written.
    pub last_written: SystemTime,
    /// Whether a session has one of them open. If not, and the surveyor keeps leases, nobody opens it
    /// while this lives.
    pub is_in_use: bool,
    /// Whether there is a sign of sessions without list index.
    pub has_sign: bool,
    has_directory: bool,
    /// A name that shows that it holds mail or the indexes beside it.
    of_store: Option<CString>,
    names: Vec<CString>,
    /// Of the files that whoever uses the list index has open.
    leases: Vec<Lease>,
}

impl Surveyor {
    /// One that only looks.
    #[must_use]
    pub fn prepare() -> Self {
        Self {
            leases: Leases::prepare(),
            keeps: false,
            entries: Entries::default(),
        }
    }

    /// The one of a thread that cleans. The process cannot be stopped from the terminal any more
    /// (Ctrl-Z): whoever opens a leased file would wait.
    fn prepare_to_clean() -> Self {
        Self {
            leases: Leases::prepare_to_keep(),
            keeps: true,
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
        self.survey_if(directory, prefix, content, is_log)
    }

    /// Asks only of files that `is_asked` whether somebody has them open.
    fn survey_if(
        &mut self,
        directory: &ListIndexDirectory,
        prefix: &CStr,
        content: &Content,
        is_asked: fn(&CStr) -> bool,
    ) -> Result<Survey, CleanError> {
        let unreadable = |errno| DeleteError::Unreadable(directory.path().to_owned(), errno);
        let has_sign = Cell::new(false);
        let has_directory = Cell::new(false);
        let of_store = RefCell::new(None);
        let is_ours = |name: &CStr, entry_type| {
            if store::is_of_store(name.to_bytes()) {
                of_store.replace(Some(name.to_owned()));
            }
            let may_be_one = matches!(entry_type, EntryType::Directory | EntryType::Unknown);
            has_directory.set(has_directory.get() || may_be_one);
            has_sign.set(has_sign.get() || name == SIGN_FILE);
            let listed = belongs(name.to_bytes(), prefix.to_bytes()) || content.lists(name);
            listed && name != LOCK_FILE
        };
        let names = files::names(directory.as_fd(), &mut self.entries, is_ours);
        let mut survey = Survey {
            size: Size::default(),
            last_written: UNIX_EPOCH,
            is_in_use: false,
            has_sign: false,
            has_directory: false,
            of_store: None,
            names: Vec::new(),
            leases: Vec::new(),
        };
        let names = names.map_err(unreadable)?;
        survey.has_sign = has_sign.get();
        survey.has_directory = has_directory.get();
        survey.of_store = of_store.take();
        for (name, entry_type) in names {
            match entry_type {
                EntryType::Directory => continue,
                EntryType::Other => {
                    return Err(DeleteError::NotAFile(directory.path_of(&name)).into());
                }
                EntryType::File | EntryType::Unknown => {}
            }
            match self.look_at(directory, &name, is_asked(&name), &mut survey) {
                Ok(()) => survey.names.push(name),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(CleanError::Lease(directory.path_of(&name), errno)),
            }
            if survey.leases.len() > MOST_LOGS {
                return Err(CleanError::TooMany(directory.path().to_owned()));
            }
        }
        // Nobody begins to use the list index before he has the log, so that goes last.
        survey.names.sort_by_key(|name| is_log(name));
        Ok(survey)
    }

    fn look_at(
        &self,
        directory: &ListIndexDirectory,
        name: &CStr,
        is_asked: bool,
        survey: &mut Survey,
    ) -> nix::Result<()> {
        let attributes = if is_asked {
            match self.lease(directory, name)? {
                Some(lease) => {
                    let attributes = lease.attributes()?;
                    if self.keeps {
                        survey.leases.push(lease);
                    }
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
        let below = match self.has_directory {
            true => store::sign_of_map(directory.as_fd())
                .map_err(|errno| DeleteError::Unreadable(path(), errno))?,
            false => None,
        };
        match self.of_store.clone().or(below) {
            Some(sign) => Err(CleanError::Store(path(), sign)),
            None => Ok(()),
        }
    }

    /// Under the directory's lock, or with a lease on each file.
    fn delete(&self, directory: &ListIndexDirectory) -> Result<(), DeleteError> {
        self.names
            .iter()
            .try_for_each(|name| files::delete_file(directory, name))
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
    /// If they cannot be had, it is root's, or the work fails: [`CleanError::Spoiled`] if the owner
    /// himself stands in the way.
    pub fn of_owner<T>(
        &self,
        directory: &ListIndexDirectory,
        work: impl FnOnce() -> Result<T, CleanError>,
    ) -> Result<T, CleanError> {
        let (owner, path) = (directory.owner(), || directory.path().to_owned());
        let done = match &self.root {
            Some(_) if owner == UserId(0) => Err(CleanError::OfRoot(path())),
            Some(root) => root
                .work_as(owner, work)
                .map_err(|errno| CleanError::Refused(path(), errno))?,
            None if owner != self.user => {
                Err(DirectoryError::ForeignOwner(path(), owner, self.user).into())
            }
            None => work(),
        };
        done.map_err(|error| match error.is_owners_doing(directory) {
            true => CleanError::Spoiled(Box::new(error)),
            false => error,
        })
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
            surveyor: Surveyor::prepare_to_clean(),
        })
    }

    /// Cleans the directory `path` (absolute).
    ///
    /// # Errors
    /// If it cannot be cleaned, or not completely; a record that is left is empty then.
    pub fn clean(&mut self, path: &Path) -> Result<Outcome, CleanError> {
        let unusable = |errno| DirectoryError::Unusable(path.to_owned(), errno);
        let (parent, name, directory) = open(path)?;
        if FileSystem::of(directory.as_fd()).map_err(unusable)? == FileSystem::Network {
            return Err(CleanError::Network(path.to_owned()));
        }
        let around = Attributes::of_local(&parent).map_err(unusable)?;
        let is_owners = around.owner() == directory.owner() && around.mode() & 0o022 == 0;
        self.clean_in(&directory, is_owners.then_some((&parent, &name)))
    }

    /// Cleans `directory`. If it can be `removed_from` somewhere, under a name there, nobody but its
    /// owner can make it again.
    ///
    /// # Errors
    /// As [`Cleaner::clean`].
    pub fn clean_in(
        &mut self,
        directory: &ListIndexDirectory,
        removed_from: Option<(&OwnedFd, &CStr)>,
    ) -> Result<Outcome, CleanError> {
        let (rules, surveyor) = (self.rules, &mut self.surveyor);
        self.rights.of_owner(directory, || {
            let outcome = clean_as_owner(directory, rules, surveyor)?;
            Ok(match (outcome, removed_from) {
                (Outcome::Cleaned(size, _), Some((parent, name))) => {
                    let removed = unlinkat(parent, name, UnlinkatFlags::RemoveDir);
                    Outcome::Cleaned(size, removed.into())
                }
                (outcome, _) => outcome,
            })
        })
    }
}

/// Opens the directory `path` (absolute) for listing, and the one that it is in; and its name there.
///
/// # Errors
/// As [`ListIndexDirectory::open_in`].
pub fn open(path: &Path) -> Result<(OwnedFd, CString, ListIndexDirectory), DirectoryError> {
    let unusable = |errno| DirectoryError::Unusable(path.to_owned(), errno);
    let parts = path.parent().zip(path.file_name());
    let (parent, name) = parts.ok_or_else(|| unusable(Errno::EINVAL))?;
    let name = CString::new(name.as_bytes()).map_err(|_| unusable(Errno::EINVAL))?;
    let parent = open_without_links(parent)?;
    let directory = ListIndexDirectory::open_in(&parent, &name, path.to_owned())?;
    Ok((parent, name, directory))
}

/// Whoever uses a list index has its `.log` open, or after a rotation `.log.2`.
fn is_log(name: &CStr) -> bool {
    let name = name.to_bytes();
    name.ends_with(b".log") || name.ends_with(b".log.2")
}

fn clean_as_owner(
    directory: &ListIndexDirectory,
    rules: &Rules,
    surveyor: &mut Surveyor,
) -> Result<Outcome, CleanError> {
    let lock = match Lock::acquire_existing(directory) {
        Ok(lock) => lock,
        Err(LockError::TimedOut(_)) => return Ok(Outcome::LoggingIn),
        Err(LockError::Missing(_)) => return clean_without_lock(directory, rules, surveyor),
        Err(error) => return Err(error.into()),
    };
    // From here on no login can come in between.
    let content = lock.content();
    if content == Content::Claim {
        return Err(CleanError::Index(directory.path().to_owned()));
    }
    let survey = surveyor.survey(directory, &rules.prefix, &content)?;
    // The record of one list index says nothing of others.
    let is_listed = |name: &CString| content.lists(name);
    if content == Content::Nothing || !survey.names.iter().all(is_listed) {
        survey.confirm_cache(directory)?;
    }
    // Who removes the sign learns whether there is such a session.
    let session_open = rules.dry_run && survey.has_open_session(directory);
    let last_login = last_login(lock.attributes());
    if let Some(outcome) = survey.spared(Some(last_login), session_open, rules) {
        return Ok(outcome);
    }
    if survey.has_sign && sign::clean(directory)? == sign::Cleaned::InUse {
        return Ok(Outcome::InUse);
    }
    // The record first and the lock file last: should this process be killed in between, then
    // nothing vouches for what is left of the list index.
    lock.empty_records()?;
    survey.delete(directory)?;
    let size = survey.size;
    // With its leases: whoever waits for the log need not wait for the rest.
    drop(survey);
    lock.remove()?;
    Ok(Outcome::Cleaned(size, Directory::Stays))
}

/// Cleans the directory of a user who never logged in here, only got mail.
///
/// There is nothing that vouches for the list index, and the leases do what the lock would. No lock
/// file is made: that takes an inode, and that there is none may be why somebody sweeps.
fn clean_without_lock(
    directory: &ListIndexDirectory,
    rules: &Rules,
    surveyor: &mut Surveyor,
) -> Result<Outcome, CleanError> {
    let survey = surveyor.survey_if(directory, &rules.prefix, &Content::Nothing, |_| true)?;
    if survey.is_empty() && !survey.has_sign {
        return Ok(Outcome::Nothing);
    }
    survey.confirm_cache(directory)?;
    if let Some(outcome) = survey.spared(None, survey.has_open_session(directory), rules) {
        return Ok(outcome);
    }
    // A login that looked whether somebody has the list index open before the leases were taken has made
    // its lock file before that. One that comes later finds it open, and does not touch it.
    match Attributes::known(directory.as_fd(), LOCK_FILE) {
        Err(Errno::ENOENT) => {}
        Ok(_) => return Ok(Outcome::LoggingIn),
        Err(errno) => {
            return Err(DeleteError::Unreadable(directory.path().to_owned(), errno).into());
        }
    }
    if survey.has_sign {
        match sign::clean(directory)? {
            sign::Cleaned::InUse => return Ok(Outcome::InUse),
            sign::Cleaned::Owed if survey.is_empty() => return Ok(Outcome::Nothing),
            sign::Cleaned::Owed | sign::Cleaned::Removed => {}
        }
    }
    survey.delete(directory)?;
    Ok(Outcome::Cleaned(survey.size, Directory::Stays))
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
