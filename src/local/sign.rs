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
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::local::directory::ListIndexDirectory;
use crate::local::notes::{self, OpenSession, Said};
use crate::local::session::Session;
use crate::names::{SIGN_FILE, hash};
use crate::system::entries::open_here;
use crate::system::file_status::is_regular;
use crate::system::range_lock;
use crate::system::statx::Attributes;

/// Where the bytes begin that are locked by sessions. Before them are that of the
/// [notes](crate::local::notes) and those of the [seats](crate::local::seat).
/// There are 2^62 places.
const PLACES: u64 = 4;

/// Where the bytes begin that are locked by those who go on trying to claim, one for each place.
const WATCHES: u64 = 5 << 60;

/// How long to wait for a cleaner that is removing the file, and for whoever writes a note.
pub const PATIENCE: Duration = Duration::from_millis(200);
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
            Self::Failed(path, errno) => {
                write!(f, "cannot use {}: {}", path.display(), errno.desc())
            }
            Self::NotAFile(path) => write!(
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
    /// If it cannot be locked. Without room for the note, or where others write theirs for longer than
    /// `patience`, there is the lock alone, see [`Sign::is_noted`].
    pub fn leave(
        directory: &ListIndexDirectory,
        prefix: &CStr,
        session: Session,
        patience: Duration,
    ) -> Result<Self, SignError> {
        let place = place_of(prefix);
        let began = Instant::now();
        loop {
            let file =
                open(directory, OFlag::O_CREAT)?.ok_or_else(|| failed(directory, Errno::ENOENT))?;
            match range_lock::try_shared(&file, place) {
                Ok(()) if is_current(directory, &file)? => {
                    let sign = Self {
                        file,
                        place,
                        slot: Cell::new(None),
                        session,
                    };
                    sign.note(patience);
                    return Ok(sign);
                }
                // A cleaner holds it exclusively while it removes the file.
                Ok(()) | Err(Errno::EAGAIN | Errno::EACCES) if began.elapsed() < patience => {
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
    pub fn note(&self, patience: Duration) {
        if !self.is_noted() {
            let slot = notes::leave(&self.file, self.place, self.session, patience);
            self.slot.set(slot);
        }
    }

    /// The session is over: takes back the lock; and the note, if that `is_claimed_for`. If not, a login
    /// that comes before it is must know.
    pub fn take_back(self, is_claimed_for: bool) -> Former {
        if is_claimed_for {
            self.take_back_note();
        }
        let _ = range_lock::unlock(&self.file, self.place);
        Former(self)
    }

    fn take_back_note(&self) {
        if let Some(slot) = self.slot.take() {
            notes::take_back(&self.file, slot, self.place, self.session, PATIENCE);
        }
    }
}

/// What is left of the sign of a session that is over.
#[derive(Debug)]
pub struct Former(Sign);

impl Former {
    /// Whether it is for this process to go on trying to claim. One is enough for all sessions of a list
    /// index that are over: what is claimed now is claimed for all of them. In doubt it is.
    pub fn is_to_go_on(&self) -> bool {
        let Sign { file, place, .. } = &self.0;
        let watch = WATCHES + (place - PLACES) / 2;
        let taken = range_lock::try_exclusive(file, watch, 1);
        taken != Err(Errno::EAGAIN) && taken != Err(Errno::EACCES)
    }

    /// The session is claimed for now: takes back its note.
    pub fn take_back_note(&self) {
        self.0.take_back_note();
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
    let (from, length) = place.map_or((PLACES, WATCHES - PLACES), |place| (place, 1));
    let held = range_lock::is_held(&file, from, length);
    let held = held.map_err(|errno| failed(directory, errno))?;
    let noted = read(directory, &file, place)?.open;
    Ok(noted.or(held.then_some(OpenSession {
        since: None,
        is_only_held: true,
        is_only_lingering: false,
    })))
}

/// Whether a session without the list index called `prefix` is open, or was, and nobody has taken its
/// note back: whoever was to claim for it was killed, and nobody may have done so.
///
/// # Errors
/// If it is not known.
pub fn is_left(directory: &ListIndexDirectory, prefix: &CStr) -> Result<bool, SignError> {
    let Some(file) = open(directory, OFlag::empty())? else {
        return Ok(false);
    };
    Ok(read(directory, &file, Some(place_of(prefix)))?.is_any)
}

fn read(
    directory: &ListIndexDirectory,
    file: &File,
    place: Option<u64>,
) -> Result<Said, SignError> {
    notes::read(file, place).map_err(|error| failed(directory, errno_of(error)))
}

/// The sessions without the list index called `prefix` that are over have been claimed for.
pub fn take_back_over(directory: &ListIndexDirectory, prefix: &CStr) {
    if let Ok(Some(file)) = open(directory, OFlag::empty()) {
        notes::take_back_over(&file, place_of(prefix));
    }
}

/// Makes the file together with the record: later there may be no room for it.
///
/// # Errors
/// If it cannot be made.
pub fn prepare(directory: &ListIndexDirectory) -> Result<(), SignError> {
    open(directory, OFlag::O_CREAT).map(drop)
}

/// What a cleaner makes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaned {
    /// It is removed.
    Removed,
    /// A session goes without a list index of this directory.
    InUse,
    /// Sessions are over for which nobody has claimed: the next login is to know.
    Owed,
}

/// Removes the file if nobody needs it any more. The caller holds the exclusive lock of the directory.
///
/// # Errors
/// If it is not known, or the file cannot be removed.
pub fn clean(directory: &ListIndexDirectory) -> Result<Cleaned, SignError> {
    let Some(file) = open(directory, OFlag::empty())? else {
        return Ok(Cleaned::Removed);
    };
    match range_lock::try_exclusive(&file, PLACES, WATCHES - PLACES) {
        Ok(()) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Cleaned::InUse),
        Err(errno) => return Err(failed(directory, errno)),
    }
    let said = read(directory, &file, None)?;
    if said.open.is_some() {
        return Ok(Cleaned::InUse);
    } else if said.is_any {
        return Ok(Cleaned::Owed);
    }
    match unlinkat(directory.as_fd(), SIGN_FILE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Cleaned::Removed),
        Err(errno) => Err(failed(directory, errno)),
    }
}

/// The byte that is the lock of the list index called `prefix`.
fn place_of(prefix: &CStr) -> u64 {
    // Two list indexes with one number would only wait for each other.
    PLACES + (hash(prefix.to_bytes()) >> 2)
}

/// `None` if there is no such file, and none is to be made.
pub(super) fn open(
    directory: &ListIndexDirectory,
    further: OFlag,
) -> Result<Option<File>, SignError> {
    let path = || directory.path_of(SIGN_FILE);
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | further;
    let own = Mode::S_IRUSR | Mode::S_IWUSR;
    // openat2(2) takes a mode for a new file alone.
    let is_made = further.contains(OFlag::O_CREAT);
    let mode = if is_made { own } else { Mode::empty() };
    let file = match open_here(directory.as_fd(), SIGN_FILE, flags, mode) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) if !is_made => return Ok(None),
        // EXDEV: something is mounted there, which may never answer.
        Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO | Errno::EXDEV) => {
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
        fchmod(&file, own).map_err(|errno| failed(directory, errno))?;
    }
    Ok(Some(file))
}

pub(super) fn is_current(directory: &ListIndexDirectory, file: &File) -> Result<bool, SignError> {
    let ours = Attributes::of_local(file).map_err(|errno| failed(directory, errno))?;
    match Attributes::known(directory.as_fd(), SIGN_FILE) {
        Ok(there) => Ok(there.device_and_inode() == ours.device_and_inode()),
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
