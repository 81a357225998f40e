//! Taking over a list index that a Dovecot without local list indexes left in INDEX.
//!
//! The order is what makes it safe to be killed anywhere: the copies are complete before the
//! claim, the claim stands before the record, and the originals go only when the record is
//! written. Until then all originals are on NFS; afterwards the copy is complete and recorded.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag};

use crate::event::Events;
use crate::local::directory::ListIndexDirectory;
use crate::local::files::{self, Size};
use crate::local::lock::{Exclusive, Lock, LockError};
use crate::names::{SHARED_LOG, SHARED_PREFIX};
use crate::nfs::claim::ClaimText;
use crate::nfs::directory::{IndexDirectory, IndexError, Version};
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

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrateError::Index(error) => error.fmt(f),
            MigrateError::Lock(error) => error.fmt(f),
            MigrateError::TooLarge(path, bytes) => write!(
                f,
                "a list index of {bytes} bytes is more than half of what is free in {}",
                path.display()
            ),
            MigrateError::TooMany(path, files) => write!(
                f,
                "{files} files in {} are called like a list index's; delete those that are none",
                path.display()
            ),
            MigrateError::CannotCopy(from, to, error) => write!(
                f,
                "cannot copy {} to {}: {error}",
                from.display(),
                to.display()
            ),
        }
    }
}

impl From<IndexError> for MigrateError {
    fn from(error: IndexError) -> MigrateError {
        MigrateError::Index(error)
    }
}

impl From<LockError> for MigrateError {
    fn from(error: LockError) -> MigrateError {
        MigrateError::Lock(error)
    }
}

/// Dovecot makes three files, and some more for moments.
const MOST_FILES: u64 = 16;

/// The list index in INDEX.
#[derive(Debug)]
pub struct Originals {
    names: Vec<CString>,
    /// What there is of it.
    pub size: Size,
    /// What its `.log` was when it was found; `None` if that vanished.
    log: Option<Version>,
}

impl Originals {
    /// Finds the list index's regular files in INDEX.
    pub fn find(index: &IndexDirectory<'_>) -> Result<Originals, IndexError> {
        let log = index.version_of(SHARED_LOG)?;
        let unreadable = |errno| IndexError::Unreadable(index.path().to_owned(), errno);
        let mut names = Vec::new();
        let mut size = Size::default();
        let entries = files::entries(index.as_fd(), SHARED_PREFIX.to_bytes());
        for entry in entries.map_err(unreadable)? {
            let (name, status) = entry.map_err(unreadable)?;
            if file_type(&status) == SFlag::S_IFREG {
                size.add(&status);
                names.push(name);
            }
        }
        Ok(Originals { names, size, log })
    }

    /// Whether the user's backends have kept it up to date until now.
    ///
    /// A claim that is newer than its last change means that a session has run since which did
    /// not write to it: one without a list index, or one with a local list index while migration
    /// was off. Both times are the file server's, so that no clocks are compared; a
    /// server's clock moves in steps, and within one of them the change is taken for the later. The claim of an
    /// interrupted migration does not count: no session has run under that.
    pub fn are_up_to_date(
        &self,
        index: &IndexDirectory<'_>,
        claim: Option<&ClaimText>,
    ) -> Result<bool, IndexError> {
        match claim {
            Some(claim) if !claim.migrating => {
                Ok(index.changed_at(SHARED_LOG)? >= index.changed_at(index.claim_name())?)
            }
            Some(_) | None => Ok(true),
        }
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
        if directory
            .free_space()
            .is_ok_and(|free| self.size.bytes > free / 2)
        {
            let path = directory.path().to_owned();
            return Err(MigrateError::TooLarge(path, self.size.bytes));
        }
        let mut left = self.size.bytes;
        for original in &self.names {
            let (temporary, _) = local_names(prefix, original);
            left -= copy_file(index, original, directory, &temporary, left)
                .map_err(|error| failed(original, &temporary, error))?;
        }
        lock.confirm()?;
        for original in &self.names {
            let (temporary, target) = local_names(prefix, original);
            let fd = directory.as_fd();
            renameat(fd, temporary.as_c_str(), fd, target.as_c_str())
                .map_err(|errno| failed(original, &target, errno.into()))?;
        }
        Ok(())
    }

    /// Whether no Dovecot has written to it since it was found.
    pub fn are_unchanged(&self, index: &IndexDirectory<'_>) -> Result<bool, IndexError> {
        Ok(self.log.is_some() && self.log == index.version_of(SHARED_LOG)?)
    }

    /// Deletes it, the `.log` first: without it Dovecot does not take the rest for a list index
    /// that another backend keeps up to date, and neither do we.
    ///
    /// # Errors
    /// If the `.log` is still there. The rest without it is litter, which `events` is told of.
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
