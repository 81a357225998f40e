//! The heart of a login: does this backend's list index still belong to the claim that stands?

mod claims;
pub mod in_place;
pub mod migration;
pub mod outcome;
mod telling;
mod without;

use std::cell::RefCell;
use std::ffi::CString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::actor::Actor;
use crate::event::Events;
use crate::local::directory::ListIndexDirectory;
use crate::local::files;
use crate::local::lock::{Deadline, Exclusive, Kind, Lock, LockError, Shared};
use crate::local::record::{self, Record};
use crate::local::room::Room;
use crate::local::session::Session;
use crate::local::sign::{self, Sign};
use crate::local::step::{Comparison, is_index};
use crate::names::{SHARED_LOG, SHARED_PREFIX};
use crate::nfs::claim::ClaimText;
use crate::nfs::directory::{Index, IndexDirectory, Look, Migration, SharedListIndex};
use crate::nfs::host::HostName;
use crate::nfs::identity::{Identity, Version};
use crate::reconcile::migration::{Originals, Owner};
use crate::reconcile::outcome::{Doubt, Outcome, Unvouched};

/// Reserved of the time for waiting, should the lock stay held: leaving the sign may take a wait as
/// well.
const TIME_FOR_THE_SIGN: Duration = Duration::from_millis(500);

/// How long to wait for a delivery that has the list index open.
const DELIVERY_TAKES: Duration = Duration::from_millis(200);
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// How long to wait for the end of a process that has lost its client's connection.
const ENDING_TAKES: Duration = Duration::from_millis(100);

/// How long to wait for the helper of a session that has ended, which claims once more and then
/// releases the sign.
const LETTING_GO_TAKES: Duration = Duration::from_secs(1);

/// Where everything of one user is, and how to work on it.
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
    /// How long to wait for other logins of the same user, all waits together.
    pub lock_timeout: Duration,
    /// Says who this session is, should it go without the list index.
    pub session: fn() -> Session,
    /// Receives what an administrator should read.
    pub events: &'a dyn Events,
}

/// What a session does with a list index that is not in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// The wrapper's: it begins a new one.
    Over,
    /// The plugin's: it has Dovecot forget what is in it.
    InPlace,
}

/// Where the sign of this session is put when it has been left.
type SignSlot = RefCell<Option<Sign>>;

/// The record here and the claim in INDEX, under the exclusive lock.
enum Sides<'a> {
    /// The record equals this claim.
    Equal(Identity),
    /// It does not, and this session may put that right.
    Differ(Box<Difference<'a>>),
}

/// What was found in INDEX.
struct Difference<'a> {
    index: IndexDirectory<'a>,
    look: Look,
    /// The claim that stands.
    standing: Option<ClaimText>,
    /// Whose the list index there is, if there is one.
    shared: Option<Owner>,
}

impl Reconciliation<'_> {
    /// Makes sure that the local list index is the user's present one, or that the session does
    /// not use it.
    pub fn run(&self) -> Outcome {
        let sign = SignSlot::default();
        match self.vouch(&sign) {
            Ok(()) => Outcome::Vouched,
            Err(doubt) => {
                self.events.event(
                    doubt.level(),
                    &format_args!("session without list index: {doubt}"),
                );
                let sign = sign.into_inner();
                let claimed = self.claim_regardless(&doubt, sign.as_ref());
                Outcome::Unvouched(Unvouched { sign, claimed })
            }
        }
    }

    fn vouch(&self, sign: &SignSlot) -> Result<(), Doubt> {
        let deadline = Deadline::after(
            self.lock_timeout
                .saturating_sub(TIME_FOR_THE_SIGN.min(self.lock_timeout / 4)),
        );
        until_locked(&deadline, || match self.index.look() {
            Ok((index, look)) => self.compare(&index, &look, &deadline, sign),
            Err(error) => self.give_up(error, &deadline, sign),
        })
    }

    fn compare(
        &self,
        index: &IndexDirectory<'_>,
        look: &Look,
        deadline: &Deadline,
        sign: &SignSlot,
    ) -> Result<(), Doubt> {
        let directory = ListIndexDirectory::open_or_make(&self.list_index_directory, self.actor)?;
        if is_index(&directory, index)? {
            return Ok(());
        }
        let shared = match Lock::<Shared>::acquire(&directory, deadline) {
            Err(error) => return Err(self.refuse(error, &directory, sign)),
            Ok(shared) => shared,
        };
        if self.compared(look, &shared).is_settled(look) {
            self.mark_used(&shared);
            return Ok(());
        }
        match shared.into_exclusive(deadline) {
            Err(error) => Err(self.refuse(error, &directory, sign)),
            Ok(lock) => self.under_lock(&lock, sign, |lock| self.settle(lock, deadline)),
        }
    }

    /// The fast path: nothing is logged, and nothing written on NFS.
    fn mark_used<K: Kind>(&self, lock: &Lock<'_, K>) {
        if let Err(error) = lock.mark_used() {
            // Only the cleaner reads it; the list index itself is as good as before.
            self.events.warning(error);
        }
    }

    /// Looks at both sides once more: another login may have done the work while this one waited.
    /// Otherwise nothing vouches for the list index here any more.
    #[cold]
    fn look_again<'s>(
        &'s self,
        lock: &Lock<'_, Exclusive>,
        deadline: &Deadline,
    ) -> Result<Sides<'s>, Doubt> {
        let (index, look) = self.index.look()?;
        lock.confirm()?;
        let is_equal = match self.compared(&look, lock) {
            Comparison::Equal => true,
            Comparison::Unfinished(log) if self.index.migration != Migration::Unknown => {
                self.finish_migration(lock, &index, &look, log)?
            }
            _ => false,
        };
        if let Some(claim) = look.claim.filter(|_| is_equal) {
            self.delete_litter(&index, &look);
            self.mark_used(lock);
            return Ok(Sides::Equal(claim));
        }
        if self.index.migration == Migration::Unknown {
            return Err(Doubt::UnknownConfiguration);
        }
        let (standing, shared) =
            self.judge(Some(lock.directory()), Some(lock), deadline, &index, &look)?;
        let shared = match shared {
            Some(Owner::Outdated(originals)) => {
                originals.delete_outdated(&index, self.events)?;
                None
            }
            shared => shared,
        };
        self.delete_litter(&index, &look);
        lock.empty_record(&self.prefix)?;
        Ok(Sides::Differ(Box::new(Difference {
            index,
            look,
            standing,
            shared,
        })))
    }

    /// What stands in INDEX if a new list index may be begun: the claim, and whose the list index there is.
    fn judge<K: Kind>(
        &self,
        directory: Option<&ListIndexDirectory>,
        lock: Option<&Lock<'_, K>>,
        deadline: &Deadline,
        index: &IndexDirectory<'_>,
        look: &Look,
    ) -> Result<(Option<ClaimText>, Option<Owner>), Doubt> {
        if let Some(directory) = directory {
            self.confirm_no_open_session(directory, deadline)?;
        }
        let standing = index.standing_text(look.claim);
        self.confirm_none_claimed_for(standing.as_ref())?;
        self.confirm_no_other_list_index(directory, lock, look, standing.as_ref())?;
        let is_left = |directory| sign::is_left(directory, &self.prefix);
        let shared = match self.shared_list_index(index, look, standing.as_ref())? {
            // A session without list index, for which nobody has claimed, did not write to it.
            Some(Owner::User(originals))
                if standing.is_none() && directory.map_or(Ok(false), is_left)? =>
            {
                Some(Owner::Outdated(originals))
            }
            shared => shared,
        };
        Ok((standing, shared))
    }

    /// What a login would find that comes now and does not find both sides equal: whose the list index in
    /// INDEX is. Nothing is changed. There may be no directory or no lock file here.
    ///
    /// # Errors
    /// Why its session would run without list index.
    pub fn foresee(
        &self,
        directory: Option<&ListIndexDirectory>,
        lock: Option<&Lock<'_, Shared>>,
        index: &IndexDirectory<'_>,
        look: &Look,
        takes: Takes,
    ) -> Result<Option<Owner>, Doubt> {
        let deadline = Deadline::after(Duration::ZERO);
        let (standing, shared) = self.judge(directory, lock, &deadline, index, look)?;
        let is_new = takes == Takes::Over;
        if is_new {
            Self::confirm_readable(index, standing.as_ref())?;
        }
        if let Some(directory) = directory {
            if is_new && self.is_in_use(directory, &deadline) {
                return Err(Doubt::InUse);
            }
            has_room(directory)?;
        }
        Ok(shared)
    }

    #[cold]
    fn settle(&self, lock: &Lock<'_, Exclusive>, deadline: &Deadline) -> Result<(), Doubt> {
        let difference = match self.look_again(lock, deadline)? {
            Sides::Equal(_) => return Ok(()),
            Sides::Differ(difference) => difference,
        };
        Self::confirm_readable(&difference.index, difference.standing.as_ref())?;
        if self.is_in_use(lock.directory(), deadline) {
            return Err(Doubt::InUse);
        }
        lock.confirm()?;
        let deleted = files::delete(lock, &self.prefix)?;
        let own = match &difference.shared {
            Some(Owner::User(originals)) => Some(originals),
            _ => None,
        };
        if let Err(doubt) = self.begin(lock, deadline, &difference, own) {
            // Nobody has opened the copy, and memory is not to be filled with it.
            if own.is_some() && lock.confirm().is_ok() {
                files::delete(lock, &self.prefix)?;
            }
            return Err(doubt);
        }
        self.tell(&difference, deleted, own);
        Ok(())
    }

    /// Claims the user and records that, where there is no list index any more; `own` is the user's
    /// in INDEX, which is moved here.
    fn begin(
        &self,
        lock: &Lock<'_, Exclusive>,
        deadline: &Deadline,
        difference: &Difference<'_>,
        own: Option<&Originals>,
    ) -> Result<(), Doubt> {
        let Difference { index, look, .. } = difference;
        has_room(lock.directory())?;
        if let Some(originals) = own {
            originals.copy(index, lock, &self.prefix)?;
        }
        let migrating = own.map(|originals| originals.log);
        let text = self.claim_here(difference.standing.as_ref(), migrating);
        let claim = index.claim_for(&text, look.claim)?;
        if let Some(originals) = own {
            self.confirm(claim, originals)?;
        }
        self.record(lock, deadline, claim, difference)?;
        if let Some(originals) = own {
            originals.delete(index, self.events)?;
        }
        Ok(())
    }

    fn record(
        &self,
        lock: &Lock<'_, Exclusive>,
        deadline: &Deadline,
        claim: Identity,
        difference: &Difference<'_>,
    ) -> Result<(), Doubt> {
        let log = difference.look.shared_list_index.version();
        let shared = match (&difference.shared, log) {
            (Some(Owner::User(_)), Some(log)) => record::Shared::Moved(log),
            (Some(Owner::Other | Owner::Map(_)), Some(log)) => record::Shared::Foreign(log),
            _ => record::Shared::Nothing,
        };
        let record = Record {
            claim,
            index: difference.look.index,
            shared,
        };
        sign::prepare(lock.directory())?;
        lock.write_record(&self.prefix, record, &self.host())?;
        // A session that could not wait for this lock may have left its sign meanwhile.
        self.confirm_no_open_session(lock.directory(), deadline)?;
        sign::take_back_over(lock.directory(), &self.prefix);
        Ok(())
    }

    /// Deletes what was moved here from INDEX, if it still is there as it was: then nobody has been
    /// vouched for since, and the copy is as good. `false` if it is not known to be.
    #[cold]
    fn finish_migration(
        &self,
        lock: &Lock<'_, Exclusive>,
        index: &IndexDirectory<'_>,
        look: &Look,
        log: Version,
    ) -> Result<bool, Doubt> {
        let there = index.version_of(SHARED_LOG)?;
        lock.confirm()?;
        match there {
            None => {}
            Some(there) if there == log => match Originals::find(index, log)? {
                Some(originals) => originals.delete(index, self.events)?,
                None => return Ok(false),
            },
            Some(_) => return Ok(false),
        }
        let Some(claim) = look.claim else {
            return Ok(false);
        };
        let record = Record {
            claim,
            index: look.index,
            shared: record::Shared::Nothing,
        };
        lock.write_record(&self.prefix, record, &self.host())?;
        Ok(true)
    }

    fn confirm_no_open_session(
        &self,
        directory: &ListIndexDirectory,
        deadline: &Deadline,
    ) -> Result<(), Doubt> {
        let began = Instant::now();
        let may_wait = |most| began.elapsed() < most && !deadline.has_passed();
        loop {
            match sign::open_session(directory, Some(&self.prefix))? {
                None => return Ok(()),
                Some(open)
                    if open.is_only_held && may_wait(LETTING_GO_TAKES)
                        || open.is_only_lingering && may_wait(ENDING_TAKES) =>
                {
                    std::thread::sleep(SHORT_PAUSE);
                }
                Some(_) => return Err(Doubt::OpenSession),
            }
        }
    }

    /// Whether a session has the old list index open. That session keeps using it, but what it writes
    /// must not get into a new one.
    fn is_in_use(&self, directory: &ListIndexDirectory, deadline: &Deadline) -> bool {
        let began = Instant::now();
        while files::is_in_use(directory, &self.prefix) {
            if began.elapsed() >= DELIVERY_TAKES || deadline.has_passed() {
                return true;
            }
            std::thread::sleep(SHORT_PAUSE);
        }
        false
    }

    /// The record of the list index here. If this backend's name is unknown, any name will do: then
    /// nothing but the comparison is done.
    fn record_in<K: Kind>(&self, lock: &Lock<'_, K>) -> Option<Record> {
        lock.record(&self.prefix, self.known_host().as_ref())
    }

    /// Who owns the list index in INDEX, if there is one.
    fn shared_list_index(
        &self,
        index: &IndexDirectory<'_>,
        look: &Look,
        standing: Option<&ClaimText>,
    ) -> Result<Option<Owner>, Doubt> {
        match look.shared_list_index {
            SharedListIndex::Ignored | SharedListIndex::None | SharedListIndex::Litter => Ok(None),
            SharedListIndex::Present(log) => Ok(Some(Owner::find(index, look, log, standing)?)),
        }
    }

    /// The name of this backend, unless the configuration cannot be used.
    fn known_host(&self) -> Option<HostName> {
        match (self.host, self.index.migration) {
            (None, Migration::Unknown) => None,
            _ => Some(self.host()),
        }
    }

    fn host(&self) -> HostName {
        match self.host {
            Some(host) => host.clone(),
            None => HostName::of_system(),
        }
    }

    fn compared<K: Kind>(&self, look: &Look, lock: &Lock<'_, K>) -> Comparison {
        Comparison::of(look, self.record_in(lock))
    }

    /// Deletes what an interrupted migration left of the originals. Another Dovecot that just moves
    /// the `.log` of its own away leaves the same for a moment, so the claim must say so.
    fn delete_litter(&self, index: &IndexDirectory<'_>, look: &Look) {
        let is_ours = || {
            index
                .claim_text()
                .is_some_and(|claim| claim.migrating.is_some())
        };
        if look.shared_list_index != SharedListIndex::Litter || !is_ours() {
            return;
        }
        match index.delete(SHARED_PREFIX) {
            Ok(()) => self.events.info(format_args!(
                "deleted {}, which an interrupted migration left",
                index.path_of(SHARED_PREFIX).display()
            )),
            Err(error) => self.events.warning(error),
        }
    }

    /// Whether nobody used the originals since they were copied, and nobody else claimed.
    fn confirm(&self, claim: Identity, originals: &Originals) -> Result<(), Doubt> {
        let (index, look) = self.index.look()?;
        if look.claim != Some(claim) {
            Err(Doubt::Overtaken)
        } else if originals.are_unchanged(&index)? {
            Ok(())
        } else {
            Err(Doubt::OriginalsChanged)
        }
    }
}

/// Does `attempt` again where a cleaner removed the directory between opening and locking it: it had
/// the lock, so its work is done.
fn until_locked<T>(
    deadline: &Deadline,
    mut attempt: impl FnMut() -> Result<T, Doubt>,
) -> Result<T, Doubt> {
    loop {
        match attempt() {
            Err(Doubt::Lock(LockError::DirectoryGone(_))) if !deadline.has_passed() => {}
            result => return result,
        }
    }
}

/// Confirms that there is room for one more list index. Where the kernel cannot say, there may be.
fn has_room(directory: &ListIndexDirectory) -> Result<(), Doubt> {
    match Room::of(directory.as_fd()) {
        Ok(room) if room.is_short() => Err(Doubt::NoRoom(directory.path().to_owned(), room)),
        _ => Ok(()),
    }
}
