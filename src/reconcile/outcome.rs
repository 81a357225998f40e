//! What comes of it: a session that may use the list index, or a doubt about it.

use std::fmt;
use std::path::PathBuf;

use crate::error::from_errors;
use crate::event::Level;
use crate::local::directory::DirectoryError;
use crate::local::files::DeleteError;
use crate::local::lock::LockError;
use crate::local::room::Room;
use crate::local::sign::{Sign, SignError};
use crate::nfs::claim::Without;
use crate::nfs::directory::IndexError;
use crate::nfs::identity::Identity;
use crate::reconcile::migration::MigrateError;

/// What came of it, and what has to be done as long as a session without list index lasts.
#[derive(Debug)]
pub enum Outcome {
    /// The session may use the list index.
    Vouched,
    /// It may not.
    Unvouched(Unvouched),
}

/// A session without list index: what it changes in the store reaches no list index, and every other
/// session must learn of it in the end.
#[derive(Debug)]
pub struct Unvouched {
    /// Must be held until the session is over; `None` where there is no place for it.
    pub sign: Option<Sign>,
    /// What no other session's record equals since it began.
    pub claimed: Claimed,
}

/// What stood in INDEX after a session without list index had claimed the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing: it could not claim.
    No,
    /// This claim, or for want of room none.
    As(Option<Identity>),
}

/// Why nobody can vouch for the local list index.
#[derive(Debug)]
pub enum Doubt {
    /// INDEX does not say who holds the user, or cannot be claimed.
    Index(IndexError),
    /// LISTINDEX cannot be used.
    Directory(DirectoryError),
    /// The lock cannot be taken, or the record cannot be read.
    Lock(LockError),
    /// The old list index may still be there.
    Delete(DeleteError),
    /// The list index on NFS cannot be taken over.
    Migrate(MigrateError),
    /// A session without a list index is still open on this backend.
    OpenSession,
    /// The same, says the claim: there was no place for its sign here.
    NamedSession(Without),
    /// Nobody knows whether one is.
    Sessions(SignError),
    /// A session that was vouched for has the old list index open.
    InUse,
    /// This backend keeps another list index of the same mailbox.
    OtherListIndex(PathBuf),
    /// The claim that stands cannot be read.
    UnreadableClaim(PathBuf),
    /// Only the reserve is left in this directory.
    NoRoom(PathBuf, Room),
    /// There is more to do than to compare, and the configuration does not say what is wanted.
    UnknownConfiguration,
    /// Another backend claimed the user during the migration.
    Overtaken,
    /// A backend without this program wrote to the list index in INDEX during the migration.
    OriginalsChanged,
    /// Dovecot could not forget what is in its open list index.
    NotForgotten,
}

impl std::error::Error for Doubt {}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Delete(error) => error.fmt(f),
            Self::Migrate(error) => error.fmt(f),
            Self::OpenSession => {
                f.write_str("an earlier session without list index is still open")
            }
            Self::NamedSession(line) => write!(
                f,
                "an earlier session without list index is still open: the claim says \"{line}\""
            ),
            Self::Sessions(error) => write!(
                f,
                "cannot tell whether an earlier session without list index is still open: {error}"
            ),
            Self::InUse => f.write_str(
                "an earlier session still has the list index open, and the user was served without it since",
            ),
            Self::OtherListIndex(path) => write!(
                f,
                "this backend keeps {} for the same mailbox: two user names lead to it, or LISTINDEX \
                 was changed (then a later login starts a new one)",
                path.display()
            ),
            Self::UnreadableClaim(path) => write!(
                f,
                "cannot read {}: another user of this mailbox may have made it",
                path.display()
            ),
            Self::NoRoom(path, room) => write!(
                f,
                "no new list index is started in {}: only {room}, kept for those in use",
                path.display()
            ),
            Self::UnknownConfiguration => f.write_str(
                "a new list index is needed, but the configuration cannot be used",
            ),
            Self::OriginalsChanged => f.write_str(
                "the list index changed while it was migrated: another backend still serves the user",
            ),
            Self::NotForgotten => f.write_str("the list index cannot be written to"),
            Self::Overtaken => f.write_str("another backend claimed the user at the same moment"),
        }
    }
}

impl Doubt {
    /// How important it is.
    pub fn level(&self) -> Level {
        match self {
            // Every user has these: the first session, and those beside it.
            Self::Index(IndexError::Missing(_))
            | Self::OpenSession
            | Self::NamedSession(_)
            | Self::InUse => Level::Info,
            _ => Level::Error,
        }
    }
}

from_errors!(Doubt: IndexError => Index, DirectoryError => Directory, LockError => Lock, SignError => Sessions, DeleteError => Delete, MigrateError => Migrate);
