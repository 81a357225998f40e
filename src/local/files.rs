//! The list index itself: the files of LISTINDEX that Dovecot makes of a prefix.

use std::ffi::{CStr, CString};
use std::fmt;
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::local::directory::ListIndexDirectory;
use crate::local::lock::{Exclusive, Lock};
use crate::system::entries::{Entries, EntryType, open_directory};
use crate::system::file_status::file_type;
use crate::system::lease;

/// How much of a list index there is, or was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Number of files.
    pub files: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

impl Size {
    /// Adds one file.
    pub fn add(&mut self, status: &FileStat) {
        *self += Self {
            files: 1,
            bytes: status.st_size.unsigned_abs(),
        };
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.files == 1 { "" } else { "s" };
        write!(f, "{} file{plural} ({} bytes)", self.files, self.bytes)
    }
}

/// Why a list index may still be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteError {
    /// The directory cannot be listed.
    Unreadable(PathBuf, Errno),
    /// A file of the list index cannot be deleted.
    Undeletable(PathBuf, Errno),
    /// A name of the list index is taken by a symbolic link, a FIFO, a socket or a device, behind
    /// which IMAP might find anything.
    NotAFile(PathBuf),
}

impl std::error::Error for DeleteError {}

impl fmt::Display for DeleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, errno) => {
                write!(f, "cannot list {}: {}", path.display(), errno.desc())
            }
            Self::Undeletable(path, errno) => {
                write!(f, "cannot delete {}: {}", path.display(), errno.desc())
            }
            Self::NotAFile(path) => {
                write!(f, "{} is not a regular file; remove it", path.display())
            }
        }
    }
}

/// What Dovecot appends to the prefix of an index: its parts, the copy that it sets aside, what it
/// renames into place, and dotlocks.
const SUFFIXES: [&[u8]; 13] = [
    b"",
    b".log",
    b".log.2",
    b".cache",
    b".backup",
    b".tmp",
    b".cache.tmp",
    b".backup.tmp",
    b".lock",
    b".log.lock",
    b".log.2.lock",
    b".log.newlock",
    b".cache.lock",
];

/// What a migration puts between prefix and suffix until its copy is complete.
pub const MIGRATING: &[u8] = b".migrating";

/// Whether `name` belongs to the list index called `prefix`, and does not merely begin with it: with
/// LISTINDEX=/x/%u, john's must not be john.doe's.
pub fn belongs(name: &[u8], prefix: &[u8]) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| SUFFIXES.contains(&rest.strip_prefix(MIGRATING).unwrap_or(rest)))
}

/// Whether a process has the list index open. Where the kernel cannot say, none has.
pub fn is_in_use(directory: &ListIndexDirectory, prefix: &CStr) -> bool {
    let Ok(entries) = entries(directory.as_fd(), prefix.to_bytes()) else {
        return false;
    };
    entries
        .filter_map(Result::ok)
        .filter(|(_, status)| file_type(status) == SFlag::S_IFREG)
        .any(|(name, _)| is_open(directory, &name) == Ok(true))
}

/// Deletes the list index. Only regular files; directories are left, since IMAP cannot read a
/// list index from one.
///
/// # Errors
/// If anything of it may be left that IMAP could use.
pub fn delete(lock: &Lock<'_, Exclusive>, prefix: &CStr) -> Result<Size, DeleteError> {
    let directory = lock.directory();
    let unreadable = |errno| DeleteError::Unreadable(directory.path().to_owned(), errno);
    let mut deleted = Size::default();
    for entry in entries(directory.as_fd(), prefix.to_bytes()).map_err(unreadable)? {
        let (name, status) = entry.map_err(unreadable)?;
        match file_type(&status) {
            SFlag::S_IFREG => {}
            SFlag::S_IFDIR => continue,
            _ => return Err(DeleteError::NotAFile(directory.path_of(&name))),
        }
        delete_file(directory, &name)?;
        deleted.add(&status);
    }
    Ok(deleted)
}

/// Deletes one file of a directory that is locked, or whose list index is leased; one that is gone
/// already is fine.
pub fn delete_file(directory: &ListIndexDirectory, name: &CStr) -> Result<(), DeleteError> {
    match unlinkat(directory.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(DeleteError::Undeletable(directory.path_of(name), errno)),
    }
}

/// The entries of `directory` that belong to the list index called `prefix`, with their status.
pub fn entries<'a>(
    directory: &'a OwnedFd,
    prefix: &'a [u8],
) -> nix::Result<impl Iterator<Item = nix::Result<(CString, FileStat)>> + 'a> {
    // An O_PATH descriptor cannot be listed; "." is the same directory, whatever its path is now.
    let listing = open_directory(directory, c".")?;
    let is_ours = |name: &CStr, _| belongs(name.to_bytes(), prefix);
    let names = names(&listing, &mut Entries::default(), is_ours)?;
    Ok(names.into_iter().filter_map(move |(name, _)| {
        match fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => Some(Ok((name, status))),
            Err(Errno::ENOENT) => None,
            Err(errno) => Some(Err(errno)),
        }
    }))
}

/// The entries of the open directory that `is_ours` accepts, which must be few.
pub fn names(
    listing: &OwnedFd,
    entries: &mut Entries,
    is_ours: impl Fn(&CStr, EntryType) -> bool,
) -> nix::Result<Vec<(CString, EntryType)>> {
    let mut names = Vec::new();
    // ENOENT: the directory has just been removed.
    while entries.read(listing).or_else(|errno| match errno {
        Errno::ENOENT => Ok(false),
        errno => Err(errno),
    })? {
        let ours = entries
            .iter()
            .filter(|(name, entry_type)| is_ours(name, *entry_type));
        names.extend(ours.map(|(name, entry_type)| (name.to_owned(), entry_type)));
    }
    Ok(names)
}

/// Whether some process has the file `name` of `directory` open: a session that is going on.
///
/// # Errors
/// If the kernel cannot say.
pub fn is_open(directory: &ListIndexDirectory, name: &CStr) -> nix::Result<bool> {
    // The name may have become a FIFO's, which must not block.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match openat(directory.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => lease::is_open_elsewhere(file),
        Err(Errno::ENOENT) => Ok(false),
        // Somebody who has it open holds a lease.
        Err(Errno::EAGAIN) => Ok(true),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::belongs;

    #[test]
    fn only_dovecot_s_own_names_belong_to_a_prefix() {
        for name in [
            "john",
            "john.log",
            "john.log.2",
            "john.cache",
            "john.tmp",
            "john.log.newlock",
            "john.migrating.log",
        ] {
            assert!(belongs(name.as_bytes(), b"john"), "{name}");
        }
        for name in [
            "john.doe",
            "john.doe.log",
            "johnny",
            "john.",
            "john.log.20",
            "john.logs",
            "joh",
            ".john",
            "john.migratinglog",
        ] {
            assert!(!belongs(name.as_bytes(), b"john"), "{name}");
        }
    }
}
