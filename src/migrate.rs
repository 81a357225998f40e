//! Taking over a list index that a Dovecot without local list indexes left in INDEX.
//!
//! The order is what makes it safe to be killed anywhere: the copies are complete before the
//! claim, the claim stands before the record, and the originals go only when the record is
//! written. Until then all originals are on NFS; afterwards the copy is complete and recorded.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag};

use crate::index_directory::{IndexDirectory, IndexError, SHARED_LOG, SHARED_PREFIX, Version};
use crate::list_index::{self, Deleted, file_type};
use crate::list_index_directory::ListIndexDirectory;
use crate::record::{Exclusive, Lock};

/// Why the list index was not taken over.
#[derive(Debug)]
pub enum MigrateError {
    /// INDEX cannot be listed.
    Unreadable(PathBuf, Errno),
    /// The `.log` cannot be looked at.
    Log(IndexError),
    /// A file could not be copied: from, to.
    CannotCopy(PathBuf, PathBuf, io::Error),
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrateError::Unreadable(path, errno) => {
                write!(f, "cannot list {}: {}", path.display(), errno.desc())
            }
            MigrateError::Log(error) => error.fmt(f),
            MigrateError::CannotCopy(from, to, error) => write!(
                f,
                "cannot copy {} to {}: {error}",
                from.display(),
                to.display()
            ),
        }
    }
}

/// A list index that has been copied.
#[derive(Debug)]
pub struct Copied {
    originals: Vec<CString>,
    /// What `.log` was before the copy; `None` if it vanished before.
    log: Option<Version>,
    /// How much was copied.
    pub size: Deleted,
}

impl Copied {
    /// Whether no Dovecot has written to the originals since before the copy.
    pub fn is_unchanged(&self, index: &IndexDirectory<'_>) -> Result<bool, IndexError> {
        Ok(self.log.is_some() && self.log == index.version_of(SHARED_LOG)?)
    }

    /// Deletes the originals, the `.log` first: without it Dovecot does not take the rest for a
    /// list index that another backend keeps up to date, and neither do we.
    pub fn delete_originals(&self, index: &IndexDirectory<'_>) -> Result<(), IndexError> {
        index.delete(SHARED_LOG)?;
        self.originals
            .iter()
            .try_for_each(|original| index.delete(original))
    }
}

/// Copies the list index from INDEX into the locked LISTINDEX directory, under its local name
/// `prefix`. The directory must hold no list index.
///
/// # Errors
/// If anything is missing in the copy. What there is of it must then be deleted.
pub fn copy(
    index: &IndexDirectory<'_>,
    lock: &Lock<'_, Exclusive>,
    prefix: &CStr,
) -> Result<Copied, MigrateError> {
    let log = index.version_of(SHARED_LOG).map_err(MigrateError::Log)?;
    let files = list_index::list(index.as_fd(), SHARED_PREFIX.to_bytes())
        .map_err(|errno| MigrateError::Unreadable(index.path().to_owned(), errno))?;
    let mut copied = Copied {
        originals: Vec::new(),
        log,
        size: Deleted::default(),
    };
    let mut renames = Vec::new();
    for (original, status) in files {
        if file_type(&status) != SFlag::S_IFREG {
            continue;
        }
        let suffix = &original.to_bytes()[SHARED_PREFIX.to_bytes().len()..];
        let (temporary, target) = local_names(prefix, suffix);
        let bytes = copy_file(index, &original, lock.directory(), &temporary)
            .map_err(|error| failed(index, &original, lock.directory(), &temporary, error))?;
        copied.size.files += 1;
        copied.size.bytes += bytes;
        renames.push((temporary, target, original.clone()));
        copied.originals.push(original);
    }
    for (temporary, target, original) in renames {
        let directory = lock.directory().as_fd();
        renameat(
            directory,
            temporary.as_c_str(),
            directory,
            target.as_c_str(),
        )
        .map_err(|errno| failed(index, &original, lock.directory(), &target, errno.into()))?;
    }
    Ok(copied)
}

/// A file's temporary and final name here. Both belong to the list index, so that whatever deletes
/// that deletes an interrupted copy too.
fn local_names(prefix: &CStr, suffix: &[u8]) -> (CString, CString) {
    let name = |middle: &[u8]| {
        let bytes = [prefix.to_bytes(), middle, suffix].concat();
        // Made from C strings, so there is no NUL byte in it.
        CString::new(bytes).unwrap_or_default()
    };
    (name(b".migrating"), name(b""))
}

fn copy_file(
    index: &IndexDirectory<'_>,
    original: &CStr,
    directory: &ListIndexDirectory,
    temporary: &CStr,
) -> io::Result<u64> {
    let mut from = index.open_file(original)?;
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let to = openat(
        directory.as_fd(),
        temporary,
        flags,
        Mode::from_bits_truncate(0o600),
    )?;
    io::copy(&mut from, &mut File::from(to))
}

fn failed(
    index: &IndexDirectory<'_>,
    original: &CStr,
    directory: &ListIndexDirectory,
    target: &CStr,
    error: io::Error,
) -> MigrateError {
    MigrateError::CannotCopy(index.path_of(original), directory.path_of(target), error)
}
