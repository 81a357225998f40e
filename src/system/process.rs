//! Other processes, known by more than a number that is given out again.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::str::FromStr;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A process, by its id and the moment at which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    /// In the kernel's ticks since the boot; 0 where /proc hides it (hidepid, proc(5)).
    began: u64,
}

impl Process {
    /// This one. The program that it executes is the same process.
    pub fn own() -> Self {
        Self::with_id(nix::unistd::getpid().as_raw())
    }

    /// The one at the other end of the UNIX socket `descriptor`; `None` if that is something else,
    /// or the process is not to be seen from here.
    pub fn at_other_end_of(descriptor: RawFd) -> Option<Self> {
        let mut peer = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: `peer` has room for `length` bytes; whatever else the descriptor is, is an error.
        let result = unsafe {
            libc::getsockopt(
                descriptor,
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut length,
            )
        };
        (result == 0 && peer.pid > 0).then(|| Self::with_id(peer.pid))
    }

    fn with_id(pid: i32) -> Self {
        Self {
            pid,
            began: began(pid).unwrap_or(0),
        }
    }

    /// Whether it still runs. In doubt it does: a process that /proc hides is not gone.
    pub fn is_running(&self) -> bool {
        match self.open() {
            Ok(descriptor) => !has_ended(&descriptor),
            Err(errno) => errno != Errno::ESRCH,
        }
    }

    /// A descriptor that becomes readable when the process ends (pidfd_open(2)).
    ///
    /// # Errors
    /// ESRCH if it has ended, and another process may have its number.
    pub fn open(&self) -> nix::Result<OwnedFd> {
        let descriptor = match open(self.pid) {
            // A kernel before 5.3, or a filter of system calls.
            Err(Errno::ENOSYS | Errno::EPERM) if !answers(self.pid) => Err(Errno::ESRCH),
            descriptor => descriptor,
        };
        match began(self.pid) {
            Some(began) if self.began != 0 && began != self.began => Err(Errno::ESRCH),
            _ => descriptor,
        }
    }
}

/// `<pid>.<beginning>`.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pid, self.began)
    }
}

impl FromStr for Process {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, began) = text.split_once('.').ok_or(())?;
        match (pid.parse(), began.parse()) {
            (Ok(pid), Ok(began)) if pid > 0 => Ok(Self { pid, began }),
            _ => Err(()),
        }
    }
}

/// Whether the process of this descriptor has ended, even if nobody has asked for its status yet.
pub fn has_ended(process: &OwnedFd) -> bool {
    use std::os::fd::AsFd;
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
}

fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: it takes two numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = Errno::result(result)? as RawFd;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether the kernel knows a process of that number.
fn answers(pid: i32) -> bool {
    // SAFETY: signal 0 is not sent.
    let result = unsafe { libc::kill(pid, 0) };
    Errno::result(result) != Err(Errno::ESRCH)
}

/// When the process of that number began, the 22nd field of /proc/PID/stat; the second one may
/// hold anything, but for a closing parenthesis behind the last.
fn began(pid: i32) -> Option<u64> {
    // Asked for again and again by a process whose memory is not given back.
    let mut status = [0; 1024];
    let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
    let length = file.read(&mut status).ok()?;
    let rest = status[..length].rsplit(|&byte| byte == b')').next()?;
    let field = std::str::from_utf8(rest)
        .ok()?
        .split_ascii_whitespace()
        .nth(19)?;
    field.parse().ok()
}
