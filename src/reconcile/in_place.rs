//! The protocol for a caller that lives inside Dovecot: instead of deleting a list index it has
//! Dovecot forget what is in it, so that no other session's open files are touched.
//!
//! The claim comes before the forgetting. Other sessions of this backend have the list index open
//! and fill it again at once; what they read between the two would be older than the claim.

use std::time::Duration;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::files;
use crate::local::lock::{Deadline, Exclusive, Lock, LockError, Shared};
use crate::local::step::is_index;
use crate::nfs::directory::{IndexError, Migration};
use crate::nfs::identity::Identity;
use crate::reconcile::migration::Owner;
use crate::reconcile::outcome::{Doubt, Outcome};
use crate::reconcile::{Difference, Reconciliation, Sides, has_room, until_locked};
use crate::system::signals::WriteSignalsIgnored;

/// The time of the last use is noted once in so long: what a cleaner asks about is days.
const NOTED_EVERY: Duration = Duration::from_secs(3600);

/// What a look at both sides showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// LISTINDEX is INDEX by another path.
    NothingLocal,
    /// The record equals this claim.
    In(Identity),
    /// It does not.
    Out,
    /// There is no INDEX yet, so nobody can claim.
    NoIndex,
}

/// Who may make LISTINDEX if it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Whoever is about to use it.
    Make,
    /// Whoever only looks leaves it.
    Leave,
}

impl Reconciliation<'_> {
    /// Compares both sides, and changes nothing but the time of the last use.
    ///
    /// # Errors
    /// If nobody can tell; and for whoever is about to use it, if another session without a list
    /// index is still open.
    pub fn compare_only(&self, missing: Missing) -> Result<Step, Doubt> {
        let deadline = Deadline::after(self.lock_timeout);
        until_locked(&deadline, || self.compare_once(missing, &deadline))
    }

    fn compare_once(&self, missing: Missing, deadline: &Deadline) -> Result<Step, Doubt> {
        let path = &self.list_index_directory;
        let there =
            (missing == Missing::Leave).then(|| ListIndexDirectory::open(path, self.actor.user()));
        if let Some(Err(DirectoryError::Missing(_))) = there {
            // Whatever the file server says: a delivery where the user has never been asks it nothing.
            return Ok(Step::Out);
        }
        let looked = match self.index.look() {
            Ok(looked) => Some(looked),
            Err(IndexError::Missing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let directory =
            there.unwrap_or_else(|| ListIndexDirectory::open_or_make(path, self.actor))?;
        let Some((index, look)) = looked else {
            return Ok(Step::NoIndex);
        };
        if is_index(&directory, &index)? {
            return Ok(Step::NothingLocal);
        }
        let lock = match (missing, Lock::<Shared>::acquire_existing(&directory)) {
            // Somebody just takes over; or nobody ever did.
            (Missing::Leave, Err(LockError::TimedOut(_) | LockError::Missing(_))) => {
                return Ok(Step::Out);
            }
            (Missing::Make, Err(_)) => Lock::<Shared>::acquire(&directory, deadline)?,
            (_, lock) => lock?,
        };
        if self.compared(&look, &lock).is_settled(&look) {
            // A report on all users must not keep their list indexes for ever; what a delivery writes
            // is seen by the files' times.
            if missing == Missing::Make && !lock.was_marked_within(NOTED_EVERY) {
                self.mark_used(&lock);
            }
            return Ok(look.claim.map_or(Step::Out, Step::In));
        }
        if missing == Missing::Make {
            self.confirm_no_open_session(&directory, deadline)?;
        }
        Ok(Step::Out)
    }

    /// Takes over a list index that a Dovecot without LISTINDEX left in INDEX, if there is one and
    /// nobody has the local one open; before Dovecot opens that here.
    pub fn migrate_unopened(&self) -> Option<Outcome> {
        let (index, look) = self.index.look().ok()?;
        let directory =
            ListIndexDirectory::open(&self.list_index_directory, self.actor.user()).ok()?;
        let standing = look.claim.and_then(|_| index.claim_text());
        let shared = match self.index.migration {
            Migration::On => self.shared_list_index(&index, &look, standing.as_ref()),
            Migration::Off | Migration::Unknown => Ok(None),
        };
        let waits = matches!(shared, Ok(Some(Owner::User(_))));
        (waits && !files::is_in_use(&directory, &self.prefix)).then(|| self.run())
    }

    /// Claims the user, has Dovecot `forget` what is in the open list index, and records the claim.
    ///
    /// # Errors
    /// If there is no record afterwards. Whatever was recorded before is void then, as far as that
    /// is possible.
    pub fn take_over_open(&self, mut forget: impl FnMut() -> bool) -> Result<Identity, Doubt> {
        let deadline = Deadline::after(self.lock_timeout);
        until_locked(&deadline, || {
            self.try_take_over_open(&deadline, &mut forget)
        })
    }

    fn try_take_over_open(
        &self,
        deadline: &Deadline,
        forget: &mut impl FnMut() -> bool,
    ) -> Result<Identity, Doubt> {
        let directory = ListIndexDirectory::open_or_make(&self.list_index_directory, self.actor)?;
        let lock = Lock::<Exclusive>::acquire(&directory, deadline)?;
        let _ignored = WriteSignalsIgnored::new();
        let taken = self.take_over_locked(&lock, deadline, forget);
        if taken.is_err() {
            if let Err(error) = lock.empty_record(&self.prefix) {
                self.events.error(error);
            }
        }
        taken
    }

    fn take_over_locked(
        &self,
        lock: &Lock<'_, Exclusive>,
        deadline: &Deadline,
        forget: &mut impl FnMut() -> bool,
    ) -> Result<Identity, Doubt> {
        let difference = match self.look_again(lock, deadline)? {
            Sides::Equal(claim) => return Ok(claim),
            Sides::Differ(difference) => difference,
        };
        let Difference { index, look, .. } = &*difference;
        has_room(lock.directory())?;
        let text = self.claim_here(difference.standing.as_ref(), None);
        let claim = index.claim_for(&text, look.claim)?;
        // The local one is open, so that the user's own in INDEX cannot take its place.
        if let Some(Owner::User(originals)) = &difference.shared {
            originals.delete(index, self.events)?;
        }
        if !forget() {
            return Err(Doubt::NotForgotten);
        }
        self.record(lock, deadline, claim, &difference)?;
        self.tell_of_open(&difference);
        Ok(claim)
    }

    /// Whether the claim that was `known` still stands; `None` if INDEX does not say.
    pub fn still_stands(&self, known: Option<Identity>) -> Option<bool> {
        let (_, look) = self.index.look().ok()?;
        Some(known.is_some() && look.claim == known)
    }
}
