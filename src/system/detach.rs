//! A process of our own that outlives us and is nobody's child.

use std::os::fd::RawFd;

use libc::{c_int, c_long};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that there was before.
    Parent,
    /// The new one.
    Detached,
}

/// Becomes two processes. The new one is in a session of its own, and no child of the old one, which
/// gets no signal of it and has nobody to wait for: the program that it executes cannot tell.
///
/// Only for a process that has one thread.
///
/// # Errors
/// If the kernel refuses; then nothing has changed.
pub fn detach() -> nix::Result<Side> {
    match fork()? {
        0 => {
            let _ = setsid();
            match fork() {
                Ok(0) => Ok(Side::Detached),
                Ok(_) => super::start::exit(0),
                Err(errno) => super::start::exit(errno as c_int),
            }
        }
        child => match wait_for(Pid::from_raw(child))? {
            WaitStatus::Exited(_, 0) => Ok(Side::Parent),
            WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
            _ => Err(Errno::ECHILD),
        },
    }
}

/// fork(2) without a signal to the parent when the child ends: one that is blocked would still be
/// pending in the program that is executed later.
fn fork() -> nix::Result<c_int> {
    let nothing: c_long = 0;
    // SAFETY: without flags and a stack of its own the new process has a copy of everything, and
    // there is no other thread whose locks it could miss.
    let result =
        unsafe { libc::syscall(libc::SYS_clone, nothing, nothing, nothing, nothing, nothing) };
    Errno::result(result).map(|pid| pid as c_int)
}

/// Without __WALL only children with a signal count.
fn wait_for(child: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(child, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Closes every descriptor but these.
pub fn close_all_but(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut from = 0;
    for &number in kept.iter() {
        close_range(from, number - 1);
        from = number + 1;
    }
    close_range(from, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the caller, a process that was just made, uses none of them any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        return;
    }
    // A kernel before 5.9.
    // SAFETY: it takes a number.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for number in first..=last.min(most.clamp(1024, 65_536) as RawFd) {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}
