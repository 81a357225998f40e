//! A session without list index: it changes the store all the same, so every other one must know.
//!
//! It voids the record here, leaves its sign, and claims the user, so that no record elsewhere equals
//! the claim either.

use std::time::Duration;

use crate::local::directory::ListIndexDirectory;
use crate::local::lock::{self, Deadline, Exclusive, Lock, LockError};
use crate::local::session::Session;
use crate::local::sign::{PATIENCE, Sign};
use crate::nfs::claim::ClaimText;
use crate::nfs::directory::{IndexDirectory, IndexError, Look, Migration};
use crate::nfs::identity::{Identity, Version};
use crate::reconcile::migration::Originals;
use crate::reconcile::outcome::{Claimed, Doubt};
use crate::reconcile::{Reconciliation, SignSlot};
use crate::system::signals::WriteSignalsIgnored;

/// A login that does not wait for NFS holds the lock no longer than this.
const A_MOMENT: Duration = Duration::from_millis(100);

impl Reconciliation<'_> {
    /// INDEX cannot be asked. Nothing here may be trusted by a later login either: without NFS,
    /// IMAP would strip the list index down to nothing, and this session changes what is in it.
    #[cold]
    pub(super) fn give_up(
        &self,
        error: IndexError,
        deadline: &Deadline,
        sign: &SignSlot,
    ) -> Result<(), Doubt> {
        // There must be a place for the sign.
        let directory = ListIndexDirectory::open_or_make(&self.list_index_directory, self.actor);
        let directory = match directory {
            Ok(directory) => directory,
            Err(unusable) => {
                self.events.error(unusable);
                return Err(error.into());
            }
        };
        match Lock::<Exclusive>::acquire(&directory, deadline) {
            Ok(lock) => self.under_lock(&lock, sign, |_| Err(error.into())),
            // Start again: the sign must have a place.
            Err(gone @ LockError::DirectoryGone(_)) if !deadline.has_passed() => Err(gone.into()),
            Err(lock) => {
                self.events.error(self.refuse(lock, &directory, sign));
                Err(error.into())
            }
        }
    }

    /// The lock cannot be taken. What its holder records must be lost, since this session, without a
    /// list index, may change what is in it.
    #[cold]
    pub(super) fn refuse(
        &self,
        error: LockError,
        directory: &ListIndexDirectory,
        sign: &SignSlot,
    ) -> Doubt {
        let _ignored = WriteSignalsIgnored::new();
        if matches!(error, LockError::TimedOut(_)) {
            self.leave_sign(directory, sign);
            self.take_lock_away(directory);
        }
        error.into()
    }

    /// Voids the record in `directory` after this session's sign was left: whoever holds the lock
    /// just now may have looked for it before. If he does not let go in a moment, he loses it.
    fn take_lock_away(&self, directory: &ListIndexDirectory) {
        let moment = Deadline::after(A_MOMENT.min(self.lock_timeout));
        let emptied = Lock::<Exclusive>::acquire(directory, &moment)
            .and_then(|lock| lock.empty_record(&self.prefix));
        if emptied.is_ok() {
            return;
        }
        if let Err(error) = lock::take_away(directory) {
            self.events.error(error);
        }
    }

    pub(super) fn leave_sign(&self, directory: &ListIndexDirectory, sign: &SignSlot) {
        if sign.borrow().is_some() {
            return;
        }
        let patience = PATIENCE.min(self.lock_timeout);
        match Sign::leave(directory, &self.prefix, (self.session)(), patience) {
            Ok(left) => *sign.borrow_mut() = Some(left),
            Err(error) => self.events.error(error),
        }
    }

    /// Does `work`; if it fails, empties the record and leaves the sign before the lock is released.
    /// The list index stays: a session that was vouched for may have it open, and without a record
    /// nobody else believes it.
    pub(super) fn under_lock(
        &self,
        lock: &Lock<'_, Exclusive>,
        sign: &SignSlot,
        work: impl FnOnce(&Lock<'_, Exclusive>) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let _ignored = WriteSignalsIgnored::new();
        let result = work(lock);
        if result.is_ok() {
            return result;
        }
        if let Err(error) = lock.empty_record(&self.prefix) {
            self.events.error(error);
        }
        self.leave_sign(lock.directory(), sign);
        if lock.confirm().is_err() {
            // The directory belongs to whoever locked the new file, before he found the sign.
            self.take_lock_away(lock.directory());
        }
        result
    }

    /// Whoever was about to use the list index goes without, because of `doubt`: voids the record, and
    /// leaves the sign, which is to be kept as long as the session goes on.
    pub fn go_without(&self, doubt: Doubt) -> Option<Sign> {
        let sign = SignSlot::default();
        // Where there is no directory, nobody has a record either.
        let directory = ListIndexDirectory::open(&self.list_index_directory, self.actor.user());
        if let Ok(directory) = directory {
            let deadline = Deadline::after(self.lock_timeout);
            // The caller reports the doubt; further failures are reported here.
            let _ = match Lock::<Exclusive>::acquire(&directory, &deadline) {
                Ok(lock) => self.under_lock(&lock, &sign, |_| Err(doubt)),
                Err(error) => Err(self.refuse(error, &directory, &sign)),
            };
        }
        sign.into_inner()
    }

    /// A session that nobody vouches for changes the store all the same, so no backend's record
    /// may survive it: neither one elsewhere, nor one here that could not be emptied.
    #[cold]
    pub(super) fn claim_regardless(&self, doubt: &Doubt, sign: Option<&Sign>) -> Claimed {
        if matches!(doubt, Doubt::Overtaken) {
            // Another backend has just done so.
            return Claimed::As(None);
        }
        // Whoever uses the other list index does not look for a sign here.
        let is_elsewhere = matches!(doubt, Doubt::OtherListIndex(_));
        let session = (is_elsewhere || !sign.is_some_and(Sign::is_noted)).then(self.session);
        let deletes_litter = !matches!(doubt, Doubt::OriginalsChanged);
        let text = |standing: Option<&ClaimText>| self.claim_without(standing, session);
        match (self.claim(text, deletes_litter), doubt) {
            (Ok(claim), _) => return Claimed::As(claim),
            // Said already.
            (Err(_), Doubt::Index(_)) => {}
            (Err(error), _) => self.events.error(error),
        }
        Claimed::No
    }

    /// Claims the user although nothing is recorded; `None` if that took away the claim that stood.
    /// `text` makes the claim's of the one that stands. An interrupted migration's litter is deleted
    /// unless what looks like it is known to be somebody else's.
    fn claim(
        &self,
        text: impl FnOnce(Option<&ClaimText>) -> ClaimText,
        deletes_litter: bool,
    ) -> Result<Option<Identity>, IndexError> {
        let _ignored = WriteSignalsIgnored::new();
        let (index, look) = self.index.look()?;
        let text = text(index.standing_text(look.claim).as_ref());
        let waiting = self.waiting_originals(&index, &look);
        if deletes_litter {
            // The claim that says whose it is will not stand any more.
            self.delete_litter(&index, &look);
        }
        let claimed = match index.claim_for(&text, look.claim) {
            Ok(claim) => Ok(Some(claim)),
            Err(_) => index.unclaim().map(|()| None),
        };
        // Once the user is claimed, nobody takes them over: if this process is killed here, they are
        // merely in the way.
        let deleted = waiting.map_or(Ok(()), |log| {
            Originals::delete_own(&index, log, self.events)
        });
        claimed.and_then(|claim| deleted.map(|()| claim))
    }

    /// Claims the user for a session without list index, unless what it `claimed` still stands: no
    /// record equals that. The claim names `session` if its sign has no place here.
    ///
    /// # Errors
    /// If INDEX cannot be written.
    pub fn claim_unless(
        &self,
        claimed: Claimed,
        session: Option<Session>,
    ) -> Result<Claimed, IndexError> {
        if let Claimed::As(own) = claimed {
            let (_, look) = self.index.look()?;
            if look.claim == own {
                return Ok(claimed);
            }
        }
        let text = |standing: Option<&ClaimText>| self.claim_without(standing, session);
        self.claim(text, false).map(Claimed::As)
    }

    /// Claims the user when `session`, which a claim named, is over. Always: the claim that stands may have
    /// been made while it was open, by somebody who was not told of it.
    ///
    /// # Errors
    /// If INDEX cannot be written.
    pub fn claim_after(&self, session: &Session) -> Result<Claimed, IndexError> {
        let text = |standing: Option<&ClaimText>| self.claim_when_over(standing, session);
        self.claim(text, false).map(Claimed::As)
    }

    /// Leaves the sign of `session` if there was no place for it when it began. What was recorded
    /// since is lost.
    pub fn leave_sign_late(&self, session: Session) -> Option<Sign> {
        let directory = ListIndexDirectory::open_or_make(&self.list_index_directory, self.actor);
        let directory = directory.ok()?;
        let sign = Sign::leave(&directory, &self.prefix, session, PATIENCE).ok()?;
        self.take_lock_away(&directory);
        Some(sign)
    }

    /// The user's own list index in INDEX, by its `.log`, if it waits for its migration. A session
    /// without list index does not write to it, so that it is out of date from then on.
    fn waiting_originals(&self, index: &IndexDirectory<'_>, look: &Look) -> Option<Version> {
        let log = look
            .shared_list_index
            .version()
            .filter(|_| self.index.migration == Migration::On)?;
        // If nobody knows, it is left alone.
        index
            .is_unclaimed(look.claim)
            .is_ok_and(|unclaimed| unclaimed)
            .then_some(log)
    }

    /// Claims the user because of a change that the list index here does not show, or that another
    /// backend's does not: from now on no record counts, here or elsewhere. `None` if there is no
    /// claim of this session's own afterwards; the reason is reported, unless there is no INDEX.
    pub fn claim_change(&self, own: Option<Identity>) -> Option<Identity> {
        let _ignored = WriteSignalsIgnored::new();
        let claimed = self.index.look().and_then(|(index, look)| {
            if look.claim.is_some() && look.claim == own {
                return Ok(own);
            }
            let standing = index.standing_text(look.claim);
            let text = self.claim_without(standing.as_ref(), None);
            match index.claim_for(&text, look.claim) {
                Ok(claim) => Ok(Some(claim)),
                Err(error) => index.unclaim().and(Err(error)),
            }
        });
        match claimed {
            Ok(claim) => claim,
            Err(IndexError::Missing(_)) => None,
            Err(error) => {
                self.events.error(error);
                None
            }
        }
    }

    /// Voids the record here, if there is one: the list index shows less than was changed.
    pub fn void_record(&self) {
        let _ignored = WriteSignalsIgnored::new();
        let directory = ListIndexDirectory::open(&self.list_index_directory, self.actor.user());
        if let Ok(directory) = directory {
            self.take_lock_away(&directory);
        }
    }
}
