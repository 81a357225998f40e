//! `LISTINDEX/.lasthost.without`: the sign that sessions run without a list index.
//!
//! Such a session does not see what is in the list index, but it does not write to it either:
//! a folder that it creates would be missing in a list index that another session of the same
//! user builds beside it, and stay missing. So nobody is vouched for while one is open. A new
//! user's first session is one: it begins before there is an INDEX, and creates the first folders.
//!
//! The sign is a shared lock, held by a process that lives as long as the session, and a note that
//! says who the session is, in case that process is killed. The note names the connection, which
//! outlives the mail process while Dovecot hibernates it, and the mail process, which outlives the
//! connection while it works on commands that it has read. A session is over when nobody holds the
//! lock and neither exists any more.
//!
//! Each list index in the directory has a byte of the file as its lock, and its own notes, so that
//! users who share a directory do not disturb each other. The locks are those of fcntl(2) that belong
//! to an open file, as with flock(2), but can be queried without being taken.

use std::cell::Cell;
use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::local::directory::ListIndexDirectory;
use crate::local::notes::{self, OpenSession};
use crate::local::session::Session;
use crate::names::SIGN_FILE;
use crate::system::file_status::is_regular;
use crate::system::range_lock;

/// Where the bytes begin that are locked by sessions. Before them are that of the
/// [notes](crate::local::notes) and those of the [seats](crate::local::seat).
const PLACES: u64 = 4;

/// How long to wait for a cleaner that is removing the file.
const PATIENCE: Duration = Duration::from_millis(200);
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Why the sign cannot be left or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// It could not be opened, locked, read or written.
    Failed(PathBuf, Errno),
    /// A symbolic link, a directory, a FIFO, or a file with a second name.
    NotAFile(PathBuf),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Failed(path, errno) => {
                write!(f, "cannot use {}: {}", path.display(), errno.desc())
            }
            SignError::NotAFile(path) => write!(
                f,
                "{} is not a regular file with one name; remove it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SignError {}

/// The sign of one session: while this, or a copy of it in another process, is open, nobody else
/// is vouched for.
#[derive(Debug)]
pub struct Sign {
    file: File,
    place: u64,
    /// Where its note is; `None` if there was no room for one.
    slot: Cell<Option<u64>>,
    session: Session,
}

impl Sign {
    /// Leaves the sign of `session`, which runs without the list index called `prefix`. The record must
    /// be empty by then, or be removed before anybody can trust it.
    ///
    /// # Errors
    /// If it cannot be locked. Without room for the note there is the lock alone, see
    /// [`Sign::is_noted`].
    pub fn leave(
        directory: &ListIndexDirectory,
        prefix: &CStr,
        session: Session,
    ) -> Result<Sign, SignError> {
        let place = place_of(prefix);
        let began = Instant::now();
        loop {
            let file =
                open(directory, OFlag::O_CREAT)?.ok_or_else(|| failed(directory, Errno::ENOENT))?;
            match range_lock::try_shared(&file, place) {
                Ok(()) if is_current(directory, &file)? => {
                    let sign = Sign {
                        file,
                        place,
                        slot: Cell::new(None),
                        session,
                    };
                    sign.note();
                    return Ok(sign);
                }
                // A cleaner holds it exclusively while it removes the file.
                Ok(()) | Err(Errno::EAGAIN | Errno::EACCES) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(SHORT_PAUSE);
                }
                Ok(()) => return Err(failed(directory, Errno::ESTALE)),
                Err(errno) => return Err(failed(directory, errno)),
            }
        }
    }

    /// The session that left it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The open file, which a process must keep to hold the sign.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the session is known from it even if nobody holds it any more.
    pub fn is_noted(&self) -> bool {
        self.slot.get().is_some()
    }

    /// Writes the note, if there is none yet and there is room for it.
    pub fn note(&self) {
        if !self.is_noted() {
            self.slot
                .set(notes::leave(&self.file, self.place, self.session));
        }
    }

    /// The session is over: takes back the note, and the lock with it.
    pub fn take_back(self) {
        if let Some(slot) = self.slot.get() {
            notes::take_back(&self.file, slot);
        }
    }
}

/// Whether a session goes without the list index called `prefix`, or without any in this
/// directory if that is `None`. Whoever asks in order to trust a list index must hold the exclusive
/// lock of the directory.
///
/// # Errors
/// If it is not known.
pub fn open_session(
    directory: &ListIndexDirectory,
    prefix: Option<&CStr>,
) -> Result<Option<OpenSession>, SignError> {
    let Some(file) = open(directory, OFlag::empty())? else {
        return Ok(None);
    };
    let place = prefix.map(place_of);
    let (from, length) = place.map_or((PLACES, 0), |place| (place, 1));
    let held = range_lock::is_held(&file, from, length);
    let held = held.map_err(|errno| failed(directory, errno))?;
    let noted =
        notes::open_session(&file, place).map_err(|error| failed(directory, errno_of(error)))?;
    Ok(noted.or(held.then_some(OpenSession {
        since: None,
        is_only_held: true,
        is_only_lingering: false,
    })))
}

/// Makes the file together with the record: later there may be no room for it.
///
/// # Errors
/// If it cannot be made.
pub fn prepare(directory: &ListIndexDirectory) -> Result<(), SignError> {
    open(directory, OFlag::O_CREAT).map(drop)
}

/// Removes the file, unless a session goes without a list index of this directory: `false` then.
/// The caller holds the exclusive lock of the directory.
///
/// # Errors
/// If it is not known, or the file cannot be removed.
pub fn remove(directory: &ListIndexDirectory) -> Result<bool, SignError> {
    let Some(file) = open(directory, OFlag::empty())? else {
        return Ok(true);
    };
    match range_lock::try_exclusive(&file, PLACES, 0) {
        Ok(()) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
        Err(errno) => return Err(failed(directory, errno)),
    }
    match notes::open_session(&file, None) {
        Ok(None) => {}
        Ok(Some(_)) => return Ok(false),
        Err(error) => return Err(failed(directory, errno_of(error))),
    }
    match unlinkat(directory.as_fd(), SIGN_FILE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(errno) => Err(failed(directory, errno)),
    }
}

/// The byte that is the lock of the list index called `prefix`.
fn place_of(prefix: &CStr) -> u64 {
    // FNV-1a. Two list indexes with one number would only wait for each other.
    let hash = prefix
        .to_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    PLACES + (hash >> 2)
}

/// `None` if there is no such file, and none is to be made.
pub(super) fn open(
    directory: &ListIndexDirectory,
    further: OFlag,
) -> Result<Option<File>, SignError> {
    let path = || directory.path_of(SIGN_FILE);
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o600);
    let file = match openat(directory.as_fd(), SIGN_FILE, flags | further, mode) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) if !further.contains(OFlag::O_CREAT) => return Ok(None),
        Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => {
            return Err(SignError::NotAFile(path()));
        }
        Err(errno) => return Err(failed(directory, errno)),
    };
    let status = fstat(&file).map_err(|errno| failed(directory, errno))?;
    if !is_regular(&status) || status.st_nlink > 1 {
        return Err(SignError::NotAFile(path()));
    }
    if status.st_mode & 0o600 != 0o600 {
        // Made under an umask that would keep its owner out.
        fchmod(&file, mode).map_err(|errno| failed(directory, errno))?;
    }
    Ok(Some(file))
}

fn is_current(directory: &ListIndexDirectory, file: &File) -> Result<bool, SignError> {
    let ours = fstat(file).map_err(|errno| failed(directory, errno))?;
    match fstatat(directory.as_fd(), SIGN_FILE, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(failed(directory, errno)),
    }
}

fn failed(directory: &ListIndexDirectory, errno: Errno) -> SignError {
    SignError::Failed(directory.path_of(SIGN_FILE), errno)
}

fn errno_of(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EIO)
}
