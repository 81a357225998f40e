//! Leases (fcntl(2), F_SETLEASE): the only way to ask the kernel whether a file is open.

use std::os::fd::{AsRawFd, OwnedFd};

use libc::c_int;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::system::signals::ignore;
use crate::system::statx::Attributes;

/// Not in the libc crate for musl; the number of every architecture that Rust runs Linux on
/// (asm-generic/fcntl.h).
const F_SETSIG: c_int = 10;

/// Whether any process has the file open, `file` itself aside, which is closed.
///
/// A write lease is only granted where nobody else has the file open or mapped. It is given back
/// at once, so whoever opens the file in between waits for no longer than that (with O_NONBLOCK
/// he is refused, EWOULDBLOCK).
///
/// # Errors
/// EACCES if the file belongs to somebody else, EINVAL if its file system has no leases.
pub fn is_open_elsewhere(file: OwnedFd) -> nix::Result<bool> {
    // Who opens the file while the lease is held makes the kernel send its holder a signal:
    // SIGIO, which would kill this process, unless another one is chosen. SIGURG is ignored by
    // every process that does not ask for it (signal(7)).
    control(&file, F_SETSIG, libc::SIGURG)?;
    match control(&file, libc::F_SETLEASE, libc::F_WRLCK) {
        // The lease ends with the descriptor.
        Ok(()) => Ok(false),
        Err(Errno::EAGAIN) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// The right to hold leases: whoever opens such a file makes the kernel send SIGIO, which this process
/// ignores from now on.
#[derive(Debug)]
pub struct Leases(());

impl Leases {
    /// Ignores SIGIO for good.
    pub fn prepare() -> Self {
        let _ = ignore(Signal::SIGIO);
        Self(())
    }

    /// Ignores for good what would stop this process from a terminal, too, so that nobody waits for a
    /// lease that it keeps.
    pub fn prepare_to_keep() -> Self {
        for signal in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
            let _ = ignore(signal);
        }
        Self::prepare()
    }

    /// Takes a lease on `file`, so that nobody else has it open until it is dropped; `None` if somebody
    /// has. Whoever opens it waits until then, at most /proc/sys/fs/lease-break-time.
    ///
    /// # Errors
    /// As [`is_open_elsewhere`].
    pub fn take(&self, file: OwnedFd) -> nix::Result<Option<Lease>> {
        match control(&file, libc::F_SETLEASE, libc::F_WRLCK) {
            Ok(()) => Ok(Some(Lease(file))),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// A file that nobody else has open.
#[derive(Debug)]
pub struct Lease(OwnedFd);

impl Lease {
    /// Its attributes.
    pub fn attributes(&self) -> nix::Result<Attributes> {
        Attributes::of_local(&self.0)
    }
}

fn control(file: &OwnedFd, command: c_int, argument: c_int) -> nix::Result<()> {
    // SAFETY: these commands take an integer and touch no memory of this process.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, argument) }).map(drop)
}
