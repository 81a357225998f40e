//! Signals that a write can raise, kept from ending the login.

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::c_int;
use nix::errno::Errno;

/// While this lives, SIGPIPE and SIGXFSZ are ignored; afterwards their dispositions are
/// exactly those from before.
///
/// A write to a file past RLIMIT_FSIZE or to a closed pipe raises these, and their default is
/// to kill the process (setrlimit(2), pipe(7)). The failing write is reported as EFBIG or EPIPE.
#[derive(Debug)]
pub struct WriteSignalsIgnored {
    previous: [(c_int, libc::sigaction); 2],
}

impl WriteSignalsIgnored {
    /// Starts ignoring both signals.
    pub fn new() -> Self {
        Self {
            previous: [ignore(libc::SIGPIPE), ignore(libc::SIGXFSZ)],
        }
    }
}

impl Default for WriteSignalsIgnored {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for WriteSignalsIgnored {
    fn drop(&mut self) {
        for (signal, action) in &self.previous {
            // SAFETY: `action` is what sigaction itself returned for this signal.
            unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
        }
    }
}

/// Ignores a signal until the process ends.
pub(crate) fn ignore_for_good(signal: c_int) {
    ignore(signal);
}

fn ignore(signal: c_int) -> (c_int, libc::sigaction) {
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zero is a valid struct sigaction (no flags, empty mask), both pointers are to
    // structures of the right type, and ignoring a signal runs no code of ours.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = libc::SIG_IGN;
        libc::sigaction(signal, &action, previous.as_mut_ptr());
        (signal, previous.assume_init())
    }
}

/// Blocks every signal of this process for good; those that ask a process to end can be read from
/// the descriptor (signalfd(2)).
///
/// # Errors
/// If no descriptor is left.
pub fn requests_to_end() -> nix::Result<OwnedFd> {
    let mut signals = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is filled before it is read, and emptied before signals are added to it; the
    // descriptor is new, and nobody else has it.
    unsafe {
        libc::sigfillset(signals.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, signals.as_ptr(), std::ptr::null_mut());
        libc::sigemptyset(signals.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(signals.as_mut_ptr(), signal);
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let descriptor = Errno::result(libc::signalfd(-1, signals.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}
