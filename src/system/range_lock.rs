//! Locks on parts of a file that belong to the open file (fcntl(2), F_OFD_SETLK): whoever inherits
//! the descriptor has the lock, and asking who has one takes none.

use std::fs::File;

use libc::{c_int, c_short};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Takes the lock on the byte at `place` unless somebody has it exclusively.
///
/// # Errors
/// EAGAIN if somebody has.
pub fn try_shared(file: &File, place: u64) -> nix::Result<()> {
    set(file, libc::F_RDLCK, place, 1)
}

/// Takes the lock on `length` bytes from `place` on, all that follow if that is 0.
///
/// # Errors
/// EAGAIN if somebody has it on one of them.
pub fn try_exclusive(file: &File, place: u64, length: u64) -> nix::Result<()> {
    set(file, libc::F_WRLCK, place, length)
}

/// Gives back the lock on the byte at `place`.
pub fn unlock(file: &File, place: u64) -> nix::Result<()> {
    set(file, libc::F_UNLCK, place, 1)
}

/// Whether anybody else has a lock on one of `length` bytes from `place` on.
///
/// # Errors
/// If the file system has no such locks.
pub fn is_held(file: &File, place: u64, length: u64) -> nix::Result<bool> {
    let mut lock = description(libc::F_WRLCK, place, length)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(c_int::from(lock.l_type) != libc::F_UNLCK)
}

fn set(file: &File, kind: c_int, place: u64, length: u64) -> nix::Result<()> {
    let lock = description(kind, place, length)?;
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

fn description(kind: c_int, place: u64, length: u64) -> nix::Result<libc::flock> {
    // SAFETY: zero is a valid struct flock; l_pid must be 0 for these locks.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as c_short;
    lock.l_whence = libc::SEEK_SET as c_short;
    lock.l_start = place.try_into().map_err(|_| Errno::EINVAL)?;
    lock.l_len = length.try_into().map_err(|_| Errno::EINVAL)?;
    Ok(lock)
}
