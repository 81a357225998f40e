//! Directory entries, straight from the kernel (getdents64(2)).
//!
//! readdir(3) would do for a user's directory. A sweep reads directories of a million names, wants
//! to give parts of them to other threads, and must not keep the names.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// Room for about a thousand short names.
const SIZE: usize = 32 * 1024;

/// Opens `name` in the directory `parent`: not through a symbolic link, and not in another file
/// system that somebody has mounted there, which may never answer.
///
/// # Errors
/// EXDEV if something is mounted there. A kernel or a filter without openat2(2) does not say so.
pub fn open_here(parent: impl AsFd, name: &CStr, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(&parent, name, how) {
        // EPERM may be O_NOATIME's as well.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(&parent, name, flags, mode),
        result => result,
    }
}

/// Opens the directory `name` of `parent` for reading its entries, as [`open_here`] does, and
/// without changing its access time, as far as its owner or root asks.
pub fn open_directory(parent: impl AsFd, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match open_here(&parent, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        // Only the owner and root may ask for that (open(2)).
        Err(Errno::EPERM) => open_here(&parent, name, flags, Mode::empty()),
        result => result,
    }
}

/// Entries of one directory: as many as the kernel gave at once.
#[derive(Debug, Default)]
pub struct Entries(Vec<u8>);

/// What an entry is, as far as the file system says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// Anything else.
    Other,
    /// Not said: fstatat(2) knows it.
    Unknown,
}

impl Entries {
    /// Reads the next entries of the open directory in place of those before; `false` at its end. Nothing
    /// else shows the end: the kernel gives less than there is room for when a signal is pending.
    pub fn read(&mut self, directory: impl AsFd) -> nix::Result<bool> {
        let Self(buffer) = self;
        buffer.clear();
        buffer.reserve(SIZE);
        // SAFETY: the kernel writes at most as many bytes as the buffer has room for.
        let read = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_fd().as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.capacity(),
            )
        };
        let read = usize::try_from(Errno::result(read)?).unwrap_or(0);
        // SAFETY: so many bytes were written.
        unsafe { buffer.set_len(read) };
        Ok(read > 0)
    }

    /// Names and types, without `.` and `..`.
    pub fn iter(&self) -> impl Iterator<Item = (&CStr, EntryType)> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (entry, after) = split(rest)?;
            rest = after;
            Some(entry)
        })
        .filter(|(name, _)| *name != c"." && *name != c"..")
    }
}

/// The first of `records`, and those after it. A record is a struct linux_dirent64: inode number
/// and offset of 8 bytes, its own length of 2, a type of 1, and the name with its NUL byte.
fn split(records: &[u8]) -> Option<((&CStr, EntryType), &[u8])> {
    const LENGTH: usize = 16;
    const TYPE: usize = 18;
    const NAME: usize = 19;
    let length = u16::from_ne_bytes(records.get(LENGTH..TYPE)?.try_into().ok()?);
    let (record, after) = records.split_at_checked(length.into())?;
    let entry_type = match *record.get(TYPE)? {
        libc::DT_DIR => EntryType::Directory,
        libc::DT_REG => EntryType::File,
        libc::DT_UNKNOWN => EntryType::Unknown,
        _ => EntryType::Other,
    };
    let name = CStr::from_bytes_until_nul(record.get(NAME..)?).ok()?;
    Some(((name, entry_type), after))
}
