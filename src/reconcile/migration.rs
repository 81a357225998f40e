//! Taking over a list index that the user's sessions left in INDEX before there were local ones.
//!
//! Once for each user, and only if nobody else can have written it: from the first claim on, the
//! user's own sessions do not write there any more. Who does is another namespace, another user or
//! a backend without this program, and that list index is theirs.
//!
//! The order is what makes it safe to be killed anywhere: the copies are complete before the
//! claim, the claim stands before the record, and the originals go only when the record is
//! written. Until then all originals are on NFS; afterwards the copy is complete and recorded. The
//! record says that they are to go, and counts when they are gone: so nothing has changed since they
//! were copied for whoever finds them under such a claim, whatever the configuration says by then.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag};

use crate::error::from_errors;
use crate::event::Events;
use crate::local::directory::ListIndexDirectory;
use crate::local::files::{self, Size};
use crate::local::lock::{Exclusive, Lock, LockError};
use crate::local::room::Room;
use crate::names::{SHARED_LOG, SHARED_PREFIX};
use crate::nfs::claim::ClaimText;
use crate::nfs::directory::{IndexDirectory, IndexError, Look};
use crate::nfs::identity::Version;
use crate::store;
use crate::system::credentials::effective_user;
use crate::system::file_status::file_type;

/// Why the list index was not taken over.
#[derive(Debug)]
pub enum MigrateError {
    /// INDEX or a file in it cannot be looked at.
    Index(IndexError),
    /// The directory is not ours any more.
    Lock(LockError),
    /// It would take more than half of what is free: LISTINDEX, and the size in bytes.
    TooLarge(PathBuf, u64),
    /// INDEX has more files of its name, this many, than Dovecot makes.
    TooMany(PathBuf, u64),
    /// A file could not be copied: from, to.
    CannotCopy(PathBuf, PathBuf, io::Error),
}

impl std::error::Error for MigrateError {}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::TooLarge(path, bytes) => write!(
                f,
                "a list index of {bytes} bytes is more than half of what is free in {}",
                path.display()
            ),
            Self::TooMany(path, files) => write!(
                f,
                "{files} files in {} are called like a list index's; delete those that are none",
                path.display()
            ),
            Self::CannotCopy(from, to, error) => write!(
                f,
                "cannot copy {} to {}: {error}",
                from.display(),
                to.display()
            ),
        }
    }
}

from_errors!(MigrateError: IndexError => Index, LockError => Lock);

/// Dovecot makes three files, and some more for moments.
const MOST_FILES: u64 = 16;

/// The list index in INDEX.
#[derive(Debug)]
pub struct Originals {
    names: Vec<CString>,
    /// What there is of it.
    pub size: Size,
    /// What its `.log` was when it was found.
    pub log: Version,
}

/// Whose a list index in INDEX is.
#[derive(Debug)]
pub enum Owner {
    /// The user's own: no session of his has used a local list index yet, and nobody else writes
    /// here. Or the takeover of it was interrupted.
    User(Originals),
    /// The user's own, but a session without list index ran that did not write to it: it is deleted.
    Outdated(Originals),
    /// Somebody else's, or nobody knows: it is left alone.
    Other,
    /// A namespace's with LAYOUT=index, or it may be: this name in INDEX says so. It is left alone.
    Map(CString),
}

impl Owner {
    /// Whose the list index in INDEX is whose `.log` is `log`, under the claim that stands.
    ///
    /// # Errors
    /// If INDEX cannot be looked at.
    pub fn find(
        index: &IndexDirectory<'_>,
        look: &Look,
        log: Version,
        standing: Option<&ClaimText>,
    ) -> Result<Self, IndexError> {
        let interrupted = standing.is_some_and(|claim| claim.migrating == Some(log));
        if let Some(name) = sign_of_map(index)? {
            return Ok(Self::Map(name));
        }
        if !interrupted && !index.is_unclaimed(look.claim)? {
            return Ok(Self::Other);
        }
        let originals = Originals::find(index, log)?;
        Ok(originals.map_or(Self::Other, Owner::User))
    }
}

/// Why the list index in INDEX may be a map, of whatever namespace, if it may.
fn sign_of_map(index: &IndexDirectory<'_>) -> Result<Option<CString>, IndexError> {
    store::sign_of_map(index.as_fd())
        .map_err(|errno| IndexError::Unreadable(index.path().to_owned(), errno))
}

impl Originals {
    /// Finds the list index's regular files in INDEX; `None` if one of them is not the user's alone.
    pub fn find(index: &IndexDirectory<'_>, log: Version) -> Result<Option<Self>, IndexError> {
        let unreadable = |errno| IndexError::Unreadable(index.path().to_owned(), errno);
        let mut names = Vec::new();
        let mut size = Size::default();
        let entries = files::entries(index.as_fd(), SHARED_PREFIX.to_bytes());
        for entry in entries.map_err(unreadable)? {
            let (name, status) = entry.map_err(unreadable)?;
            if file_type(&status) == SFlag::S_IFREG {
                if status.st_uid != effective_user().0 || status.st_nlink > 1 {
                    return Ok(None);
                }
                size.add(&status);
                names.push(name);
            }
        }
        Ok(Some(Self { names, size, log }))
    }

    /// Copies it into the locked LISTINDEX directory, under its local name `prefix`. The directory
    /// must hold no list index.
    ///
    /// # Errors
    /// If anything is missing in the copy. What there is of it must then be deleted.
    pub fn copy(
        &self,
        index: &IndexDirectory<'_>,
        lock: &Lock<'_, Exclusive>,
        prefix: &CStr,
    ) -> Result<(), MigrateError> {
        let directory = lock.directory();
        let failed = |original: &CStr, target: &CStr, error| {
            MigrateError::CannotCopy(index.path_of(original), directory.path_of(target), error)
        };
        if self.size.files > MOST_FILES {
            let path = index.path().to_owned();
            return Err(MigrateError::TooMany(path, self.size.files));
        }
        // One user must not fill the memory of all, not even for the moment that a copy takes.
        let is_too_large = |room: Room| self.size.bytes > room.bytes.free / 2;
        if Room::of(directory.as_fd()).is_ok_and(is_too_large) {
            let path = directory.path().to_owned();
            return Err(MigrateError::TooLarge(path, self.size.bytes));
        }
        let mut left = self.size.bytes;
        for original in self.copied() {
            let (temporary, _) = local_names(prefix, original);
            left -= copy_file(index, original, directory, &temporary, left)
                .map_err(|error| failed(original, &temporary, error))?;
        }
        lock.confirm()?;
        for original in self.copied() {
            let (temporary, target) = local_names(prefix, original);
            let fd = directory.as_fd();
            renameat(fd, temporary.as_c_str(), fd, target.as_c_str())
                .map_err(|errno| failed(original, &target, errno.into()))?;
        }
        Ok(())
    }

    /// The files that are copied, not what Dovecot makes for moments: a lock that a crash left would hold up
    /// every session here.
    fn copied(&self) -> impl Iterator<Item = &CString> {
        let is_part = |name: &&CString| {
            let suffix = &name.to_bytes()[SHARED_PREFIX.to_bytes().len()..];
            [&b""[..], b".log", b".log.2", b".cache"].contains(&suffix)
        };
        self.names.iter().filter(is_part)
    }

    /// Deletes the list index in INDEX whose `.log` is `log`, if it is the user's own.
    pub fn delete_own(
        index: &IndexDirectory<'_>,
        log: Version,
        events: &dyn Events,
    ) -> Result<(), IndexError> {
        if sign_of_map(index)?.is_some() {
            return Ok(());
        }
        match Self::find(index, log)? {
            Some(originals) => originals.delete_outdated(index, events),
            None => Ok(()),
        }
    }

    /// Deletes it, since a session ran that did not write to it.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn delete_outdated(
        &self,
        index: &IndexDirectory<'_>,
        events: &dyn Events,
    ) -> Result<(), IndexError> {
        self.delete(index, events)?;
        events.info(format_args!(
            "deleted {} of the list index in {}: a session without list index does not keep it up to date",
            self.size,
            index.path().display()
        ));
        Ok(())
    }

    /// Whether no Dovecot has written to it since it was found.
    pub fn are_unchanged(&self, index: &IndexDirectory<'_>) -> Result<bool, IndexError> {
        Ok(index.version_of(SHARED_LOG)? == Some(self.log))
    }

    /// Deletes it, the `.log` first: without it Dovecot does not take the rest for a list index
    /// that another backend keeps up to date, and neither do we.
    ///
    /// # Errors
    /// If the `.log` is still there. The rest without it is litter, which is reported.
    pub fn delete(
        &self,
        index: &IndexDirectory<'_>,
        events: &dyn Events,
    ) -> Result<(), IndexError> {
        index.delete(SHARED_LOG)?;
        for name in &self.names {
            if let Err(error) = index.delete(name) {
                events.warning(error);
            }
        }
        Ok(())
    }
}

/// A file's temporary and final name here. Both belong to the list index, so that whatever deletes
/// that deletes an interrupted copy too.
fn local_names(prefix: &CStr, original: &CStr) -> (CString, CString) {
    let suffix = &original.to_bytes()[SHARED_PREFIX.to_bytes().len()..];
    let name = |middle: &[u8]| {
        let bytes = [prefix.to_bytes(), middle, suffix].concat();
        // Made from C strings, so there is no NUL byte in it.
        CString::new(bytes).unwrap_or_default()
    };
    (name(files::MIGRATING), name(b""))
}

fn copy_file(
    index: &IndexDirectory<'_>,
    original: &CStr,
    directory: &ListIndexDirectory,
    temporary: &CStr,
    most: u64,
) -> io::Result<u64> {
    let from = index.open_file(original)?;
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o600);
    let to = openat(directory.as_fd(), temporary, flags, mode)?;
    // No more than there was room for: its owner may let it grow meanwhile.
    let copied = io::copy(&mut from.take(most + 1), &mut File::from(to))?;
    if copied > most {
        return Err(io::Error::other("it grew meanwhile"));
    }
    Ok(copied)
}
