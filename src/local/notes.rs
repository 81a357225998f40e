//! The notes in `LISTINDEX/.lasthost.without`, one for each session: a row of slots of one length.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use crate::local::session::{LINGERS, Session, State};
use crate::system::{boot, range_lock};

/// The length of a slot. No slot crosses the end of a page, so each is written as a whole or not at
/// all.
const SLOT: usize = 256;

/// How much of the file is read. Anything behind that counts as an open session.
const LONGEST: u64 = 4096 * SLOT as u64;

/// The byte that is locked while slots are written.
const SLOTS: u64 = 0;

/// Between two attempts to get the lock on the slots.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

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
        let Self {
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
    fn of_slot(slot: &[u8]) -> Result<Option<Self>, ()> {
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
        Ok(Some(Self {
            place: u64::from_str_radix(next()?, 16).map_err(|_| ())?,
            since: next()?.parse().map_err(|_| ())?,
            lingers_since: next()?.parse().map_err(|_| ())?,
            session: next()?.parse()?,
        }))
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

/// What the notes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// A session is open.
    pub open: Option<OpenSession>,
    /// There is a note, of a session that is open or of one whose note was not taken back.
    pub is_any: bool,
}

/// Leaves a note that `session` goes without the list index whose place is `place`. Says in which slot
/// it is, `None` if there is no room for one, or others write theirs for longer than `patience`.
pub fn leave(file: &File, place: u64, session: Session, patience: Duration) -> Option<u64> {
    let turn = Turn::take(file, patience)?;
    let notes = Notes::read(file).ok()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since = notes
        .notes
        .iter()
        .filter(|(_, note)| note.place == place && note.session.state() != State::Over)
        .map(|(_, note)| note.since);
    let note = Note {
        place,
        since: since.fold(now.as_secs(), u64::min),
        lingers_since: 0,
        session,
    };
    let slot = notes.free();
    turn.write(slot, &note.to_slot()).ok().map(|()| slot)
}

/// Takes back the note of `session` in `slot`. If that fails, whoever reads it finds that the session is
/// over; and somebody else may have found so already, and have left his in its place.
pub fn take_back(file: &File, slot: u64, place: u64, session: Session, patience: Duration) {
    let Some(turn) = Turn::take(file, patience) else {
        return;
    };
    let is_ours = |note: Note| note.session == session && note.place == place;
    if turn.read(slot).is_some_and(is_ours) {
        let _ = turn.write(slot, &FREE);
    }
}

/// What the notes say of sessions that go without the list index whose place is `place`, or without any if
/// that is `None`.
///
/// # Errors
/// If they cannot be read.
pub fn read(file: &File, place: Option<u64>) -> io::Result<Said> {
    let notes = Notes::read(file)?;
    let mut is_any = notes.doubtful;
    let now = boot::time().as_secs().max(1);
    let mut since: Option<u64> = None;
    let mut is_only_lingering = !notes.doubtful;
    let mut without_time = Vec::new();
    for &(slot, note) in &notes.notes {
        if place.is_some_and(|place| place != note.place) {
            continue;
        }
        is_any = true;
        match note.session.state() {
            State::Over => continue,
            State::Open => is_only_lingering = false,
            State::Lingering if note.lingers_since == 0 => without_time.push((slot, note)),
            State::Lingering if now.saturating_sub(note.lingers_since) >= LINGERS.as_secs() => {
                continue;
            }
            State::Lingering => {}
        }
        since = Some(since.map_or(note.since, |since| since.min(note.since)));
    }
    add_time(file, &without_time, now);
    let open = (since.is_some() || notes.doubtful).then(|| OpenSession {
        since: since.and_then(|since| UNIX_EPOCH.checked_add(Duration::from_secs(since))),
        is_only_held: false,
        is_only_lingering,
    });
    Ok(Said { open, is_any })
}

/// The sessions without the list index whose place is `place` that are over have been claimed for: frees
/// their notes. Nobody waits here either: what stays is freed the next time.
pub fn take_back_over(file: &File, place: u64) {
    let is_over = |note: &Note| note.place == place && note.session.state() == State::Over;
    let Ok(Notes { notes, .. }) = Notes::read(file) else {
        return;
    };
    let over: Vec<_> = (notes.into_iter().filter(|(_, note)| is_over(note))).collect();
    write_again(file, &over, |_| FREE);
}

/// Whoever first finds that only the process is left adds the time to the note. Without it the session
/// lingers until its process ends; so nobody waits here, however many notes somebody has written.
fn add_time(file: &File, notes: &[(u64, Note)], now: u64) {
    write_again(file, notes, |note| {
        let lingering = Note {
            lingers_since: now,
            ..note
        };
        lingering.to_slot()
    });
}

/// Writes something else in the place of `notes`, where they still are, and nobody else is writing.
fn write_again(file: &File, notes: &[(u64, Note)], slot_of: impl Fn(Note) -> [u8; SLOT]) {
    if notes.is_empty() {
        return;
    }
    let Some(turn) = Turn::take(file, Duration::ZERO) else {
        return;
    };
    for &(slot, note) in notes {
        if turn.read(slot) == Some(note) {
            let _ = turn.write(slot, &slot_of(note));
        }
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
    fn read(file: &File) -> io::Result<Self> {
        let mut notes = Self::default();
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
    /// `None` if somebody else has it for so long.
    fn take(file: &'a File, patience: Duration) -> Option<Self> {
        let began = Instant::now();
        loop {
            match range_lock::try_exclusive(file, SLOTS, 1) {
                Ok(()) => return Some(Turn(file)),
                Err(Errno::EAGAIN | Errno::EACCES) if began.elapsed() < patience => {
                    std::thread::sleep(SHORT_PAUSE);
                }
                Err(_) => return None,
            }
        }
    }

    fn read(&self, slot: u64) -> Option<Note> {
        let mut there = [0; SLOT];
        self.0.read_exact_at(&mut there, slot).ok()?;
        Note::of_slot(&there).ok()?
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
