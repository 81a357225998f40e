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
    let standard = [0, 1, 2].map(borrow);
    let mut polled = standard.map(|fd| PollFd::new(fd, PollFlags::empty()));
    // A failing poll says nothing about the descriptors; then nothing needs to be filled.
    if !matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..)) {
        return;
    }
    for (fd, polled) in polled.iter().enumerate() {
        if polled.revents() == Some(PollFlags::POLLNVAL) {
            fill(fd as RawFd);
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

/// The inode number of the client's connection, descriptor 0, if that is a socket.
pub fn socket_of_client() -> Option<u64> {
    let status = nix::sys::stat::fstat(borrow(0)).ok()?;
    let is_socket = status.st_mode & libc::S_IFMT == libc::S_IFSOCK;
    is_socket.then_some(status.st_ino)
}

fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes 0, 1 or 2; if one was closed before we began, the
    // kernel answers EBADF or POLLNVAL, which the callers expect.
    unsafe { BorrowedFd::borrow_raw(number) }
}
