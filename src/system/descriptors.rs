//! Descriptors 0, 1 and 2: they are the client's and Dovecot's, never ours.

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

/// The longest line that is written to standard error at once. Up to PIPE_BUF (4096 bytes)
/// a write to a pipe that poll(2) calls writable neither blocks nor mixes with others (pipe(7)).
const LONGEST_LINE: usize = 4096;

/// Fills closed descriptors among 0, 1 and 2 so that no file of ours can get such a number and
/// then receive a message meant for the administrator.
///
/// The fillers are close-on-exec: the executed program finds the descriptors closed, as we did.
pub fn occupy_standard() {
    // By number: what may be closed cannot be borrowed.
    let mut polled = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the array lives while poll looks at it, and it has that length.
    let found = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
    // A failing poll says nothing about the descriptors; then nothing needs to be filled.
    if found < 1 {
        return;
    }
    for polled in polled {
        if polled.revents == libc::POLLNVAL {
            fill(polled.fd);
        }
    }
}

fn fill(number: RawFd) {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let Ok(filler) = open(c"/", flags, Mode::empty()) else {
        return;
    };
    use std::os::fd::{AsRawFd, IntoRawFd};
    if filler.as_raw_fd() == number {
        let _ = filler.into_raw_fd();
    } else {
        // Lower numbers are filled first, so this one is free: F_DUPFD takes exactly it.
        let _ = fcntl(&filler, FcntlArg::F_DUPFD_CLOEXEC(number));
    }
}

/// Writes one line to standard error unless that would block or there is none.
pub fn write_line_to_standard_error(line: &[u8]) {
    let standard_error = borrow(2);
    let mut polled = [PollFd::new(standard_error.as_fd(), PollFlags::POLLOUT)];
    let writable = matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
        && polled[0].revents() == Some(PollFlags::POLLOUT);
    if !writable {
        return;
    }
    let mut bytes = line[..line.len().min(LONGEST_LINE - 1)].to_vec();
    bytes.push(b'\n');
    let _ignored = crate::system::signals::WriteSignalsIgnored::new();
    while nix::unistd::write(standard_error, &bytes) == Err(Errno::EINTR) {}
}

/// The client's connection, descriptor 0.
pub fn client() -> BorrowedFd<'static> {
    borrow(0)
}

fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are open, since both programs begin with `occupy_standard`, which fills
    // those that were closed, and nothing closes them. Should filling have failed, the kernel answers
    // EBADF or POLLNVAL, which the callers expect.
    unsafe { BorrowedFd::borrow_raw(number) }
}
