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
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::local::directory::ListIndexDirectory;
use crate::names::SIGN_FILE;
use crate::system::connection::{self, Connection};
use crate::system::file_status::is_regular;
use crate::system::process::Process;
use crate::system::{boot, range_lock};

/// How long a process without its connection may still work for the session, on commands that it has
/// read, or expunging. After that it serves other sessions.
pub const LINGERS: Duration = Duration::from_secs(60);

/// The length of a slot. No slot crosses the end of a page, so each is written as a whole or not at
/// all.
const SLOT: usize = 256;

/// How much of the file is read. Anything behind that counts as an open session.
const LONGEST: u64 = 4096 * SLOT as u64;

/// The byte that is locked while slots are written.
const SLOTS: u64 = 0;

/// The bytes that are locked by logins which wait long for the directory's lock.
const SEATS: std::ops::Range<u64> = 1..4;

/// Where the bytes begin that are locked by sessions.
const PLACES: u64 = 4;

/// How long to wait for the lock on the slots, and for whoever is removing the file.
const PATIENCE: Duration = Duration::from_millis(200);
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Who a session is, apart from its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    boot: u64,
    process: Option<Process>,
    connection: Option<Connection>,
}

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Open,
    /// Its connection is gone, but its process exists.
    Lingering,
    /// It has ended.
    Over,
}

impl Session {
    /// The session whose login this process is: the client is at descriptor 0, the process that serves
    /// it at the other end of descriptor 3 (Dovecot's script-login). If there is neither, the session
    /// is this process and the program that it executes.
    pub fn of_login() -> Session {
        let connection = Connection::of_client();
        let process = Process::at_other_end_of(3);
        Session {
            boot: boot::identity(),
            process: process.or_else(|| connection.is_none().then(Process::own)),
            connection,
        }
    }

    /// The session that this process serves for as long as it lives.
    pub fn of_process() -> Session {
        Session {
            boot: boot::identity(),
            process: Some(Process::own()),
            connection: None,
        }
    }

    /// The process that serves it.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Nothing but the boot of its host: one of many.
    pub fn anonymous(&self) -> Session {
        Session {
            process: None,
            connection: None,
            ..*self
        }
    }

    /// What became of it. In doubt it is open.
    pub fn state(&self) -> State {
        let here = boot::identity();
        if self.boot != 0 && here != 0 && self.boot != here {
            return State::Over;
        }
        if self.process.is_none() && self.connection.is_none() {
            return State::Open;
        }
        let connection = self.connection.map(|connection| connection.state());
        if matches!(connection, Some(Ok(connection::State::Open) | Err(_))) {
            return State::Open;
        }
        let runs = self.process.is_some_and(|process| process.is_running());
        match connection {
            _ if !runs => State::Over,
            Some(Ok(connection::State::Gone)) => State::Lingering,
            _ => State::Open,
        }
    }
}

/// `<boot> <process> <connection>`, each `-` if it is not known.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.boot)?;
        match &self.process {
            Some(process) => write!(f, " {process}")?,
            None => f.write_str(" -")?,
        }
        match &self.connection {
            Some(connection) => write!(f, " {connection}"),
            None => f.write_str(" -"),
        }
    }
}

impl FromStr for Session {
    type Err = ();

    fn from_str(text: &str) -> Result<Session, ()> {
        fn known<T: FromStr>(text: Option<&str>) -> Result<Option<T>, ()> {
            match text.ok_or(())? {
                "-" => Ok(None),
                text => text.parse().map(Some).map_err(|_| ()),
            }
        }
        let mut fields = text.split(' ');
        let boot = u64::from_str_radix(fields.next().ok_or(())?, 16).map_err(|_| ())?;
        let session = Session {
            boot,
            process: known(fields.next())?,
            connection: known(fields.next())?,
        };
        match fields.next() {
            None => Ok(session),
            Some(_) => Err(()),
        }
    }
}

/// One slot: `1 <place> <since> <lingers since> <session>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    /// Of which list index in the directory.
    place: u64,
    /// Since when, in seconds since the epoch, there was always a session without list index.
    since: u64,
    /// When its connection was first found gone, in seconds since the boot; 0 if it was not.
    lingers_since: u64,
    session: Session,
}

impl Note {
    fn to_slot(self) -> [u8; SLOT] {
        let mut slot = [b' '; SLOT];
        let Note {
            place,
            since,
            lingers_since,
            session,
        } = self;
        let text = format!("1 {place:x} {since} {lingers_since} {session}");
        slot[..text.len()].copy_from_slice(text.as_bytes());
        slot[SLOT - 1] = b'\n';
        slot
    }

    /// `None` for a slot that is free.
    fn of_slot(slot: &[u8]) -> Result<Option<Note>, ()> {
        let text = std::str::from_utf8(slot).map_err(|_| ())?;
        // A file system that lost the last write returns zeros.
        let text = text.trim_end_matches(['\n', ' ', '\0']);
        if text.is_empty() {
            return Ok(None);
        }
        let mut fields = text.splitn(5, ' ');
        let mut next = || fields.next().ok_or(());
        if next()? != "1" {
            return Err(());
        }
        Ok(Some(Note {
            place: u64::from_str_radix(next()?, 16).map_err(|_| ())?,
            since: next()?.parse().map_err(|_| ())?,
            lingers_since: next()?.parse().map_err(|_| ())?,
            session: next()?.parse()?,
        }))
    }
}

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
                // Whoever removes it holds it exclusively meanwhile.
                Ok(()) | Err(Errno::EAGAIN | Errno::EACCES) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(SHORT_PAUSE);
                }
                Ok(()) => return Err(failed(directory, Errno::ESTALE)),
                Err(errno) => return Err(failed(directory, errno)),
            }
        }
    }

    /// Whose it is.
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
        if self.is_noted() {
            return;
        }
        let Some(turn) = Turn::take(&self.file) else {
            return;
        };
        let Ok(notes) = Notes::read(&self.file) else {
            return;
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let open = |note: &&Note| note.place == self.place && note.session.state() != State::Over;
        let note = Note {
            place: self.place,
            since: (notes.notes.iter().map(|(_, note)| note).filter(open))
                .map(|note| note.since)
                .fold(now.as_secs(), u64::min),
            lingers_since: 0,
            session: self.session,
        };
        let slot = notes.free();
        if turn.write(slot, &note.to_slot()).is_ok() {
            self.slot.set(Some(slot));
        }
    }

    /// The session is over: takes back the note, and the lock with it.
    pub fn take_back(self) {
        if let (Some(slot), Some(turn)) = (self.slot.get(), Turn::take(&self.file)) {
            // If it fails: whoever reads it finds that the session is over.
            let _ = turn.write(slot, &FREE);
        }
    }
}

/// A slot without a note.
const FREE: [u8; SLOT] = {
    let mut slot = [b' '; SLOT];
    slot[SLOT - 1] = b'\n';
    slot
};

/// A session without list index is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSession {
    /// Since when there always was one, if its note says so.
    pub since: Option<SystemTime>,
    /// Whether the lock alone says so, and no note: the session may just have ended, and its holder be
    /// about to release it.
    pub is_only_held: bool,
    /// Whether all of them have lost their connection: their processes may be about to end.
    pub is_only_lingering: bool,
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
    let noted = noted_in(&file, place).map_err(|error| failed(directory, errno_of(&error)))?;
    Ok(noted.or(held.then_some(OpenSession {
        since: None,
        is_only_held: true,
        is_only_lingering: false,
    })))
}

fn noted_in(file: &File, place: Option<u64>) -> io::Result<Option<OpenSession>> {
    let notes = Notes::read(file)?;
    let ours = (notes.notes.iter())
        .filter(|(_, note)| place.is_none_or(|place| place == note.place))
        .filter(|(slot, note)| !note.is_over(file, *slot));
    let mut is_only_lingering = !notes.doubtful;
    let since = ours
        .map(|(_, note)| {
            is_only_lingering &= note.session.state() != State::Open;
            note.since
        })
        .min();
    Ok((since.is_some() || notes.doubtful).then(|| OpenSession {
        since: since.and_then(|since| UNIX_EPOCH.checked_add(Duration::from_secs(since))),
        is_only_held: false,
        is_only_lingering,
    }))
}

impl Note {
    /// Whether its session is over. The first who finds that only the process is left, says so in
    /// the note.
    fn is_over(&self, file: &File, slot: u64) -> bool {
        let now = boot::time().as_secs().max(1);
        match self.session.state() {
            State::Over => true,
            State::Open => false,
            State::Lingering if self.lingers_since == 0 => {
                let turn = Turn::take(file);
                let mut there = [0; SLOT];
                let unchanged = file.read_exact_at(&mut there, slot).is_ok()
                    && Note::of_slot(&there) == Ok(Some(*self));
                if let (Some(turn), true) = (turn, unchanged) {
                    let lingering = Note {
                        lingers_since: now,
                        ..*self
                    };
                    // Without room nobody knows since when, and it stays so until it is over.
                    let _ = turn.write(slot, &lingering.to_slot());
                }
                false
            }
            State::Lingering => now.saturating_sub(self.lingers_since) >= LINGERS.as_secs(),
        }
    }
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
    match noted_in(&file, None) {
        Ok(None) => {}
        Ok(Some(_)) => return Ok(false),
        Err(error) => return Err(failed(directory, errno_of(&error))),
    }
    match unlinkat(directory.as_fd(), SIGN_FILE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(errno) => Err(failed(directory, errno)),
    }
}

/// What is in the slots.
#[derive(Debug, Default)]
struct Notes {
    /// Each with the place in the file.
    notes: Vec<(u64, Note)>,
    first_free: Option<u64>,
    end: u64,
    /// There is something that cannot be understood.
    doubtful: bool,
}

impl Notes {
    fn read(file: &File) -> io::Result<Notes> {
        let mut notes = Notes::default();
        let mut slot = [0; SLOT];
        while notes.end < LONGEST {
            let length = file.read_at(&mut slot, notes.end)?;
            if length == 0 {
                return Ok(notes);
            }
            match Note::of_slot(&slot[..length]) {
                Ok(Some(note)) => notes.notes.push((notes.end, note)),
                Ok(None) => notes.first_free = notes.first_free.or(Some(notes.end)),
                Err(()) => notes.doubtful = true,
            }
            notes.end += SLOT as u64;
        }
        notes.doubtful = true;
        Ok(notes)
    }

    /// Where the next one is to be written.
    fn free(&self) -> u64 {
        let over =
            |(slot, note): &(u64, Note)| (note.session.state() == State::Over).then_some(*slot);
        self.first_free
            .or_else(|| self.notes.iter().find_map(over))
            .unwrap_or(self.end)
    }
}

/// Held while slots are written: what is free now may be another's in a moment.
struct Turn<'a>(&'a File);

impl<'a> Turn<'a> {
    /// `None` if somebody else has it for too long.
    fn take(file: &'a File) -> Option<Turn<'a>> {
        let began = Instant::now();
        loop {
            match range_lock::try_exclusive(file, SLOTS, 1) {
                Ok(()) => return Some(Turn(file)),
                Err(Errno::EAGAIN | Errno::EACCES) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(SHORT_PAUSE);
                }
                Err(_) => return None,
            }
        }
    }

    fn write(&self, slot: u64, content: &[u8; SLOT]) -> io::Result<()> {
        self.0.write_all_at(content, slot)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = range_lock::unlock(self.0, SLOTS);
    }
}

/// One of the few seats for logins that wait longer for the directory's lock than it should be held.
#[derive(Debug)]
pub struct Seat {
    _file: Option<File>,
}

impl Seat {
    /// Whether all seats are taken. In doubt there is one: a login that waits harms only itself.
    pub fn are_all_taken(directory: &ListIndexDirectory) -> bool {
        let Ok(Some(file)) = open(directory, OFlag::empty()) else {
            return false;
        };
        SEATS
            .clone()
            .all(|seat| range_lock::is_held(&file, seat, 1).unwrap_or(false))
    }

    /// Takes a seat, if there is one left.
    pub fn take(directory: &ListIndexDirectory) -> Option<Seat> {
        let Ok(Some(file)) = open(directory, OFlag::O_CREAT) else {
            return Some(Seat { _file: None });
        };
        let taken = SEATS
            .clone()
            .map(|seat| range_lock::try_exclusive(&file, seat, 1))
            .find(|taken| *taken != Err(Errno::EAGAIN) && *taken != Err(Errno::EACCES));
        taken.map(|_| Seat { _file: Some(file) })
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
fn open(directory: &ListIndexDirectory, further: OFlag) -> Result<Option<File>, SignError> {
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

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
