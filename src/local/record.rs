//! `LISTINDEX/.lasthost`: this backend's record of the claim, or a note of open sessions. The file
//! is the directory's [lock](crate::local::lock), too.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::local::lock::{Exclusive, Kind, Lock, LockError};
use crate::nfs::claim::ClaimText;
use crate::nfs::host::HostName;
use crate::nfs::identity::Identity;

/// The format's version. A record of another one counts as none.
const VERSION: &str = "1";

/// Neither a record nor a note nor a claim begins so.
const NO_RECORD: &str = " \n";

/// How a note of sessions begins.
const SESSIONS: &str = "sessions";

/// A record and a note of [`MOST`](crate::local::sessions::MOST) sessions are shorter than this.
const LONGEST: usize = 1536;

/// What the lock file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// `1 <inode> <seconds>.<nanoseconds, 9 digits> <host name>`: the record, the claim that the
    /// list index here belongs to.
    Record(Identity),
    /// `sessions <inode>...`: no record, and these sessions, known by the inode numbers of their
    /// sockets, run without a list index.
    Sessions(Vec<u64>),
    /// A claim: the directory is some user's INDEX, not a LISTINDEX.
    Claim,
    /// No record: empty, torn, garbled, or of another version.
    Nothing,
}

impl Content {
    /// What these bytes mean; whatever is not complete means nothing.
    pub fn parse(content: &[u8]) -> Content {
        let Ok(content) = std::str::from_utf8(content) else {
            return Content::Nothing;
        };
        match content.split_once('\n') {
            Some((line, "")) => Content::parse_record(line).map(Content::Record),
            _ => None,
        }
        .or_else(|| {
            // What stands behind the first line is the rest of a longer text that it replaced.
            let (line, _) = content.split_once('\n')?;
            Content::parse_sessions(line).map(Content::Sessions)
        })
        .or_else(|| ClaimText::is(content).then_some(Content::Claim))
        .unwrap_or(Content::Nothing)
    }

    fn parse_record(line: &str) -> Option<Identity> {
        let mut fields = line.split(' ');
        let (version, inode, modified, host) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let (seconds, nanoseconds) = modified.split_once('.')?;
        let complete = version == VERSION
            && nanoseconds.len() == 9
            && HostName::try_from(host.to_owned()).is_ok()
            && fields.next().is_none();
        complete.then_some(Identity {
            inode: decimal(inode)?,
            seconds: seconds.parse().ok()?,
            nanoseconds: decimal(nanoseconds)?.try_into().ok()?,
        })
    }

    fn parse_sessions(line: &str) -> Option<Vec<u64>> {
        let sessions = line.strip_prefix(SESSIONS)?.strip_prefix(' ')?;
        sessions.split(' ').map(decimal).collect()
    }

    /// What the lock file `file` says. One that cannot be read says nothing.
    pub(crate) fn of(file: &File) -> Content {
        let mut buffer = [0; LONGEST];
        let length = file.read_at(&mut buffer, 0).unwrap_or_default();
        Content::parse(&buffer[..length])
    }

    /// The record, if there is one.
    pub fn record(&self) -> Option<Identity> {
        match self {
            Content::Record(identity) => Some(*identity),
            Content::Sessions(_) | Content::Claim | Content::Nothing => None,
        }
    }

    /// Sessions that were without a list index when the content was written.
    pub fn sessions(&self) -> &[u64] {
        match self {
            Content::Sessions(sessions) => sessions,
            Content::Record(_) | Content::Claim | Content::Nothing => &[],
        }
    }
}

impl<K: Kind> Lock<'_, K> {
    /// What the lock file says. A file that cannot be read says nothing.
    pub fn content(&self) -> Content {
        Content::of(self.file())
    }
}

impl Lock<'_, Exclusive> {
    /// From now on nothing vouches for the list index here.
    ///
    /// The file keeps its length if it can: on a full tmpfs, whoever had a record has room for one,
    /// or for a note.
    pub fn empty_record(&self) -> Result<(), LockError> {
        match self.file().metadata().map(|metadata| metadata.len()) {
            Ok(0) => Ok(()),
            Ok(_) => self
                .file()
                .write_all_at(NO_RECORD.as_bytes(), 0)
                .or_else(|_| self.file().set_len(0)),
            Err(error) => Err(error),
        }
        .map_err(|error| self.failed(&error))
    }

    /// Notes sessions that run without a list index, in place of the record.
    pub fn note_sessions(&self, sessions: &[u64]) -> Result<(), LockError> {
        let mut note = SESSIONS.to_owned();
        for session in sessions {
            note.push_str(&format!(" {session}"));
        }
        note.push('\n');
        self.write(&note)
    }

    /// In place of what is there. Only the first line of a note counts, so there is no moment without
    /// it; and a record with anything behind it is none yet.
    fn write(&self, content: &str) -> Result<(), LockError> {
        self.file()
            .write_all_at(content.as_bytes(), 0)
            .and_then(|()| self.file().set_len(content.len() as u64))
            .map_err(|error| self.failed(&error))
    }

    /// Records that the list index here belongs to `claim`, which `host` made, and that the user
    /// logged in now.
    ///
    /// # Errors
    /// If it cannot be written, or the lock file is not in the directory any more: then whatever
    /// was written is lost, and the directory is somebody else's.
    pub fn write_record(&self, claim: Identity, host: &HostName) -> Result<(), LockError> {
        let record = format!(
            "{VERSION} {} {}.{:09} {host}\n",
            claim.inode, claim.seconds, claim.nanoseconds
        );
        self.write(&record)?;
        self.mark_used()?;
        self.confirm()
    }
}

/// Only digits; `parse` alone would take a sign.
fn decimal(digits: &str) -> Option<u64> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}
