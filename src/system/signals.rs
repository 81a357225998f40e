//! Signals that a write can raise, kept from ending the login.

use std::os::fd::OwnedFd;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// While this lives, SIGPIPE and SIGXFSZ are ignored; afterwards their dispositions are
/// exactly those from before.
///
/// A write to a file past RLIMIT_FSIZE or to a closed pipe raises these, and their default is
/// to kill the process (setrlimit(2), pipe(7)). The failing write is reported as EFBIG or EPIPE.
#[derive(Debug)]
pub struct WriteSignalsIgnored {
    previous: [(Signal, nix::Result<SigAction>); 2],
}

impl WriteSignalsIgnored {
    /// Starts ignoring both signals.
    pub fn new() -> Self {
        Self {
            previous: [Signal::SIGPIPE, Signal::SIGXFSZ].map(|signal| (signal, ignore(signal))),
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
            if let Ok(action) = action {
                // SAFETY: `action` is what sigaction itself returned for this signal.
                let _ = unsafe { sigaction(*signal, action) };
            }
        }
    }
}

/// Ignores a signal; returns what was done on it before.
pub(crate) fn ignore(signal: Signal) -> nix::Result<SigAction> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { sigaction(signal, &action) }
}

/// Blocks every signal of this process for good; those that ask a process to end can be read from
/// the descriptor (signalfd(2)).
///
/// # Errors
/// If no descriptor is left.
pub fn requests_to_end() -> nix::Result<OwnedFd> {
    SigSet::all().thread_set_mask()?;
    let requests = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&requests, flags).map(OwnedFd::from)
}
