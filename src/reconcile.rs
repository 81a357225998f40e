//! The heart of a login: does this backend's list index still belong to the claim that stands?

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::HostName;
use crate::index_directory::{
    Identity, Index, IndexDirectory, IndexError, Look, SHARED_PREFIX, SharedListIndex,
};
use crate::list_index::{self, DeleteError, Deleted};
use crate::list_index_directory::{DirectoryError, ListIndexDirectory};
use crate::log::{Escaped, Log};
use crate::migrate::{self, Copied, MigrateError};
use crate::record::{Deadline, Exclusive, Kind, Lock, LockError, Shared, remove_lock_file};
use crate::user::Actor;

/// A claim younger than this, in seconds, means that the user alternates between backends.
const ALTERNATES: i64 = 60;

/// What the session may do with the local list index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use it: the record equals the claim, or nothing about it is local.
    Use,
    /// Leave it alone: nobody can vouch for it.
    DoNotUse,
}

/// Why nobody can vouch for the local list index.
#[derive(Debug)]
pub enum Doubt {
    /// INDEX does not say who holds the user, or cannot be claimed.
    Index(IndexError),
    /// LISTINDEX cannot be used.
    Directory(DirectoryError),
    /// The lock or the record cannot be had.
    Lock(LockError),
    /// The old list index may still be there.
    Delete(DeleteError),
    /// The list index on NFS cannot be taken over.
    Migrate(MigrateError),
    /// Another backend claimed the user during the migration.
    Overtaken,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Index(error) => error.fmt(f),
            Doubt::Directory(error) => error.fmt(f),
            Doubt::Lock(error) => error.fmt(f),
            Doubt::Delete(error) => error.fmt(f),
            Doubt::Migrate(error) => error.fmt(f),
            Doubt::Overtaken => f.write_str("another backend took the user over at this moment"),
        }
    }
}

macro_rules! doubt_from {
    ($($error:ty => $variant:ident),*) => {
        $(impl From<$error> for Doubt {
            fn from(error: $error) -> Doubt {
                Doubt::$variant(error)
            }
        })*
    };
}
doubt_from!(IndexError => Index, DirectoryError => Directory, LockError => Lock, DeleteError => Delete, MigrateError => Migrate);

/// Where everything of one user is, and how to work on it.
#[derive(Debug)]
pub struct Reconciliation<'a> {
    /// The user's index directory, on NFS.
    pub index: Index,
    /// LISTINDEX, the directory part.
    pub list_index_directory: PathBuf,
    /// LISTINDEX, the file part.
    pub prefix: CString,
    /// Whose rights the work is done with.
    pub actor: &'a Actor,
    /// This backend, if the configuration names it.
    pub host: Option<&'a HostName>,
    /// How long to wait for other logins of the same user.
    pub lock_timeout: Duration,
    /// Where events are told.
    pub log: &'a Log,
}

impl Reconciliation<'_> {
    /// Makes sure that the local list index is the user's present one, or that the session does
    /// not use it.
    pub fn run(&self) -> Verdict {
        match self.vouch() {
            Ok(()) => Verdict::Use,
            Err(doubt) => {
                self.log
                    .error(format_args!("session without list index: {doubt}"));
                Verdict::DoNotUse
            }
        }
    }

    fn vouch(&self) -> Result<(), Doubt> {
        let deadline = Deadline::after(self.lock_timeout);
        loop {
            let attempt = match self.index.look() {
                Ok((index, look)) => self.compare(&index, &look, deadline),
                Err(error) => self.give_up(error, deadline),
            };
            match attempt {
                // A cleaner removed the directory between opening and locking it. It had the
                // lock, so its work is done, and this login begins anew.
                Err(Doubt::Lock(LockError::DirectoryGone(_))) if !deadline.has_passed() => {}
                result => return result,
            }
        }
    }

    fn compare(
        &self,
        index: &IndexDirectory<'_>,
        look: &Look,
        deadline: Deadline,
    ) -> Result<(), Doubt> {
        let directory = ListIndexDirectory::open_or_make(&self.list_index_directory, self.actor)?;
        if directory.device_and_inode() == index.device_and_inode() {
            // LISTINDEX is INDEX by another path: shared by all backends, nothing is local.
            return Ok(());
        }
        let shared = self.lock(Lock::<Shared>::acquire(&directory, deadline), &directory)?;
        if is_settled(look, shared.record()) {
            self.mark_used(&shared);
            return Ok(());
        }
        let exclusive = self.lock(shared.into_exclusive(deadline), &directory)?;
        self.under_lock(&exclusive, |lock| self.settle(lock))
    }

    /// INDEX cannot be asked. Whatever is here locally must not be trusted by a later login
    /// either: IMAP may do to it in the meantime what it likes.
    fn give_up(&self, error: IndexError, deadline: Deadline) -> Result<(), Doubt> {
        match ListIndexDirectory::open(&self.list_index_directory, self.actor.user()) {
            Ok(directory) => {
                let lock =
                    self.lock(Lock::<Exclusive>::acquire(&directory, deadline), &directory)?;
                self.under_lock(&lock, |_| Err(error.into()))
            }
            Err(_) => Err(error.into()),
        }
    }

    /// A lock that was not had in time: its holder must not leave a record behind that a later
    /// login would trust, because this session, without a list index, may change what is in it.
    fn lock<L>(
        &self,
        attempt: Result<L, LockError>,
        directory: &ListIndexDirectory,
    ) -> Result<L, LockError> {
        if let Err(LockError::TimedOut(_)) = attempt {
            if let Err(error) = remove_lock_file(directory) {
                self.log.error(error);
            }
        }
        attempt
    }

    /// Does `work`; if it fails, empties the record and deletes the list index, as far as that is
    /// possible, before the lock is given back.
    fn under_lock(
        &self,
        lock: &Lock<'_, Exclusive>,
        work: impl FnOnce(&Lock<'_, Exclusive>) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let result = work(lock);
        // After a loss the directory belongs to whoever locked the new file.
        if matches!(result, Ok(()) | Err(Doubt::Lock(LockError::Lost(_)))) {
            return result;
        }
        if let Err(error) = lock.empty_record() {
            self.log.error(error);
        }
        if let Err(error) = list_index::delete(lock, &self.prefix) {
            self.log.error(error);
        }
        result
    }

    /// The fast path: nothing is logged, and nothing written on NFS.
    fn mark_used<K: Kind>(&self, lock: &Lock<'_, K>) {
        if let Err(error) = lock.mark_used() {
            // Only the cleaner reads it; the list index itself is as good as before.
            self.log.warning(error);
        }
    }

    fn settle(&self, lock: &Lock<'_, Exclusive>) -> Result<(), Doubt> {
        // Both sides once more: another login may have done the work while this one waited.
        let (index, look) = self.index.look()?;
        if look.shared_list_index == SharedListIndex::Litter {
            self.delete_litter(&index);
        }
        if look.shared_list_index != SharedListIndex::InUse && is_claimed(&look, lock.record()) {
            self.mark_used(lock);
            return Ok(());
        }
        let host = match self.host {
            Some(host) => host.clone(),
            None => HostName::of_system(),
        };
        lock.empty_record()?;
        let deleted = list_index::delete(lock, &self.prefix)?;
        let copied = match look.shared_list_index {
            SharedListIndex::InUse => Some(migrate::copy(&index, lock, &self.prefix)?),
            SharedListIndex::Litter | SharedListIndex::None => None,
        };
        let from = look.claim.and_then(|_| index.claimed_by());
        let claim = index.claim_for(&host, look.claim)?;
        if let Some(copied) = &copied {
            self.confirm(claim, copied)?;
        }
        lock.write_record(claim, &host)?;
        if let Some(copied) = &copied {
            copied.delete_originals(&index)?;
        }
        self.tell(&host, from, &look, deleted, copied.as_ref());
        Ok(())
    }

    fn delete_litter(&self, index: &IndexDirectory<'_>) {
        match index.delete(SHARED_PREFIX) {
            Ok(()) => self.log.info(format_args!(
                "deleted {}, which an interrupted migration left",
                index.path_of(SHARED_PREFIX).display()
            )),
            Err(error) => self.log.warning(error),
        }
    }

    /// Whether nobody used the originals since they were copied, and nobody else claimed.
    fn confirm(&self, claim: Identity, copied: &Copied) -> Result<(), Doubt> {
        let (index, look) = self.index.look()?;
        if look.claim == Some(claim) && copied.is_unchanged(&index)? {
            Ok(())
        } else {
            Err(Doubt::Overtaken)
        }
    }

    fn tell(
        &self,
        host: &HostName,
        from: Option<String>,
        look: &Look,
        deleted: Deleted,
        copied: Option<&Copied>,
    ) {
        let from = from.map(|from| Escaped(from.as_bytes()).to_string());
        let from = from.as_deref().unwrap_or("unknown");
        let list_index = self.list_index_directory.display();
        let index = self.index.path.display();
        match (look.claim, copied) {
            (_, Some(copied)) => self.log.info(format_args!(
                "took over the list index: moved {} from {index} to {list_index}, deleted {deleted} there before; now on {host}",
                copied.size,
            )),
            (Some(_), None) => self.log.info(format_args!(
                "user came from {from}: deleted {deleted} of the list index in {list_index}; now on {host}"
            )),
            (None, None) => self.log.info(format_args!(
                "first login: deleted {deleted} of the list index in {list_index}; now on {host}"
            )),
        }
        let age = look.claim.map(|claim| claim.age_at(SystemTime::now()));
        if age.is_some_and(|age| age.abs() < ALTERNATES) && from != host.as_str() {
            self.log.warning(format_args!(
                "user alternates between backends: {from} claimed {index} less than a minute ago; does the proxy in front send a user to one backend at a time?"
            ));
        }
    }
}

/// Whether the local record equals the claim.
fn is_claimed(look: &Look, record: Option<Identity>) -> bool {
    record.is_some() && record == look.claim
}

/// Whether there is nothing to do.
fn is_settled(look: &Look, record: Option<Identity>) -> bool {
    look.shared_list_index == SharedListIndex::None && is_claimed(look, record)
}
