//! The heart of a login: does this backend's list index still belong to the claim that stands?

pub mod in_place;
pub mod migration;

use std::cell::RefCell;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::actor::Actor;
use crate::event::{Events, Level};
use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::files::{self, DeleteError, Size};
use crate::local::lock::{self, Deadline, Exclusive, Kind, Lock, LockError, Shared};
use crate::local::record::Record;
use crate::local::room::Room;
use crate::local::sessions::{self, Session, Sign, SignError, State};
use crate::local::step::{Comparison, is_index};
use crate::names::{SHARED_LOG, SHARED_PREFIX};
use crate::nfs::claim::{ClaimText, Without, from_plain, plain};
use crate::nfs::directory::{Index, IndexDirectory, IndexError, Look, Migration, SharedListIndex};
use crate::nfs::host::HostName;
use crate::nfs::identity::{Identity, Version};
use crate::reconcile::migration::{MigrateError, Originals, Owner};
use crate::system::signals::WriteSignalsIgnored;

/// A claim younger than this, in seconds, means that the user alternates between backends.
const ALTERNATES: i64 = 60;

/// What is left of the time for waiting when the lock was not had: the sign may have to be waited
/// for too, if its user keeps it.
const TIME_FOR_THE_SIGN: Duration = Duration::from_millis(400);

/// A login that does not wait for NFS has the lock no longer than this.
const A_MOMENT: Duration = Duration::from_millis(100);

/// So many sessions of one backend a claim names; Dovecot's mail_max_userip_connections is 10.
const MOST_NAMED: usize = 32;

/// For so long a delivery that has the list index open is waited for.
const DELIVERY_TAKES: Duration = Duration::from_millis(200);
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// For so long a process that has lost its client's connection is waited for.
const ENDING_TAKES: Duration = Duration::from_millis(100);

/// For so long whoever holds the sign of a session that has ended is waited for: he claims once more.
const LETTING_GO_TAKES: Duration = Duration::from_secs(1);

/// What came of it, and what has to be done as long as a session without list index lasts.
#[derive(Debug)]
pub enum Outcome {
    /// The session may use the list index.
    Vouched,
    /// It may not.
    Unvouched(Unvouched),
}

/// A session without list index, which changes the store without telling any list index. Every
/// other one must know in the end.
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
    /// The lock cannot be taken, or the record cannot be read.
    Lock(LockError),
    /// The old list index may still be there.
    Delete(DeleteError),
    /// The list index on NFS cannot be taken over.
    Migrate(MigrateError),
    /// A session without a list index is still open on this backend.
    OpenSession,
    /// Nobody knows whether one is.
    Sessions(SignError),
    /// A session that was vouched for has the old list index open.
    InUse,
    /// This backend keeps another list index of the same mailbox.
    OtherListIndex(PathBuf),
    /// Only the reserve is left in this directory.
    NoRoom(PathBuf, Room),
    /// More is to be done than to compare, and nobody knows what the administrator wants.
    UnknownConfiguration,
    /// Another backend claimed the user during the migration.
    Overtaken,
    /// A backend without this program wrote to the list index in INDEX during the migration.
    OriginalsChanged,
    /// Dovecot could not forget what is in its open list index.
    NotForgotten,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Index(error) => error.fmt(f),
            Doubt::Directory(error) => error.fmt(f),
            Doubt::Lock(error) => error.fmt(f),
            Doubt::Delete(error) => error.fmt(f),
            Doubt::Migrate(error) => error.fmt(f),
            Doubt::OpenSession => {
                f.write_str("an earlier session without list index is still open")
            }
            Doubt::Sessions(error) => write!(
                f,
                "cannot tell whether an earlier session without list index is still open: {error}"
            ),
            Doubt::InUse => f.write_str(
                "an earlier session still has the list index open, and another backend has served the user since",
            ),
            Doubt::OtherListIndex(path) => write!(
                f,
                "this backend keeps {} for the same mailbox: two user names lead to it, or LISTINDEX \
                 was changed (then run \"nfs-hostchange usercache forget\" where it was)",
                path.display()
            ),
            Doubt::NoRoom(path, room) => write!(
                f,
                "no list index is begun in {}, where only {room}: the rest is for those that are in use",
                path.display()
            ),
            Doubt::UnknownConfiguration => f.write_str(
                "a new list index is needed, but the configuration cannot be used",
            ),
            Doubt::OriginalsChanged => f.write_str(
                "the list index changed while it was migrated: another backend still serves the user",
            ),
            Doubt::NotForgotten => f.write_str("the list index cannot be written to"),
            Doubt::Overtaken => f.write_str("another backend claimed the user at the same moment"),
        }
    }
}

impl Doubt {
    /// How important it is.
    pub fn level(&self) -> Level {
        match self {
            // In the life of every user: the first session, and those beside it.
            Doubt::Index(IndexError::Missing(_)) | Doubt::OpenSession | Doubt::InUse => Level::Info,
            _ => Level::Error,
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
doubt_from!(IndexError => Index, DirectoryError => Directory, LockError => Lock, SignError => Sessions, DeleteError => Delete, MigrateError => Migrate);

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
    /// Who is told what happens.
    pub events: &'a dyn Events,
}

/// Where the sign of this session is put when it has been left.
type SignSlot = RefCell<Option<Sign>>;

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
        loop {
            let attempt = match self.index.look() {
                Ok((index, look)) => self.compare(&index, &look, &deadline, sign),
                Err(error) => self.give_up(error, &deadline, sign),
            };
            match attempt {
                // A cleaner removed the directory between opening and locking it. It had the
                // lock, so its work is done, and this login starts again.
                Err(Doubt::Lock(LockError::DirectoryGone(_))) if !deadline.has_passed() => {}
                result => return result,
            }
        }
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
            Ok(lock) => self.under_lock(&lock, sign, |lock| self.settle(lock)),
        }
    }

    /// INDEX cannot be asked. Nothing here may be trusted by a later login either: without NFS,
    /// IMAP would strip the list index down to nothing, and this session changes what is in it.
    #[cold]
    fn give_up(
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
            // Started again: the sign must have a place.
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
    fn refuse(&self, error: LockError, directory: &ListIndexDirectory, sign: &SignSlot) -> Doubt {
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
        let emptied = Lock::<Exclusive>::acquire(directory, &Deadline::after(A_MOMENT))
            .and_then(|lock| lock.empty_record(&self.prefix));
        if emptied.is_ok() {
            return;
        }
        if let Err(error) = lock::take_away(directory) {
            self.events.error(error);
        }
    }

    fn leave_sign(&self, directory: &ListIndexDirectory, sign: &SignSlot) {
        if sign.borrow().is_some() {
            return;
        }
        match Sign::leave(directory, &self.prefix, (self.session)()) {
            Ok(left) => *sign.borrow_mut() = Some(left),
            Err(error) => self.events.error(error),
        }
    }

    /// Does `work`; if it fails, empties the record and leaves the sign before the lock is given
    /// back. The list index stays: a session that was vouched for may have it open, and without a
    /// record nobody else believes it.
    fn under_lock(
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

    /// A session that nobody vouches for changes the store all the same, so no backend's record
    /// may survive it: neither one elsewhere, nor one here that could not be emptied.
    #[cold]
    fn claim_regardless(&self, doubt: &Doubt, sign: Option<&Sign>) -> Claimed {
        if matches!(doubt, Doubt::Overtaken) {
            // Another backend has just done so.
            return Claimed::As(None);
        }
        let session = (!sign.is_some_and(Sign::is_noted)).then(self.session);
        match (self.claim(session), doubt) {
            (Ok(claim), _) => return Claimed::As(claim),
            // Said already.
            (Err(_), Doubt::Index(_)) => {}
            (Err(error), _) => self.events.error(error),
        }
        Claimed::No
    }

    /// Claims the user although nothing is recorded; `None` if that took away the claim that stood.
    /// The claim names `session` if its sign has no place here.
    fn claim(&self, session: Option<Session>) -> Result<Option<Identity>, IndexError> {
        let _ignored = WriteSignalsIgnored::new();
        let (index, look) = self.index.look()?;
        let standing = look.claim.and_then(|_| index.claim_text());
        let text = self.claim_without(standing.as_ref(), session);
        let waiting = self.waiting_originals(&index, &look);
        let claimed = match index.claim_for(&text, look.claim) {
            Ok(claim) => Some(claim),
            Err(_) => index.unclaim().map(|()| None)?,
        };
        // Once the user is claimed nobody takes them over: should this process be killed here, they
        // are only in the way.
        if let Some(log) = waiting {
            Originals::delete_own(&index, log, self.events)?;
        }
        Ok(claimed)
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
        self.claim(session).map(Claimed::As)
    }

    /// Leaves the sign of `session` if there was no place for it when it began. What was recorded
    /// since is lost.
    pub fn leave_sign_late(&self, session: Session) -> Option<Sign> {
        let directory = ListIndexDirectory::open_or_make(&self.list_index_directory, self.actor);
        let directory = directory.ok()?;
        let sign = Sign::leave(&directory, &self.prefix, session).ok()?;
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

    /// The fast path: nothing is logged, and nothing written on NFS.
    fn mark_used<K: Kind>(&self, lock: &Lock<'_, K>) {
        if let Err(error) = lock.mark_used() {
            // Only the cleaner reads it; the list index itself is as good as before.
            self.events.warning(error);
        }
    }

    #[cold]
    fn settle(&self, lock: &Lock<'_, Exclusive>) -> Result<(), Doubt> {
        // Both sides once more: another login may have done the work while this one waited.
        let (index, look) = self.index.look()?;
        lock.confirm()?;
        if self.compared(&look, lock) == Comparison::Equal {
            self.delete_litter(&index, &look);
            self.mark_used(lock);
            return Ok(());
        }
        self.configuration_is_known()?;
        self.confirm_no_open_session(lock)?;
        // A claim that cannot be read is one all the same: sessions may have run under it.
        let standing = look
            .claim
            .map(|_| index.claim_text().unwrap_or_else(|| ClaimText::parse(b"")));
        self.confirm_none_claimed_for(standing.as_ref())?;
        self.confirm_no_other_list_index(standing.as_ref())?;
        let shared = self.shared_list_index(&index, &look, standing.as_ref())?;
        self.delete_litter(&index, &look);
        lock.empty_record(&self.prefix)?;
        if self.is_in_use(lock) {
            return Err(Doubt::InUse);
        }
        lock.confirm()?;
        let deleted = files::delete(lock, &self.prefix)?;
        let own = match &shared {
            Some(Owner::User(originals)) => Some(originals),
            Some(Owner::Other) | None => None,
        };
        if let Err(doubt) = self.begin_anew(lock, &index, &look, standing.as_ref(), own) {
            // Nobody has opened the copy, and memory is not to be filled with it.
            if own.is_some() && lock.confirm().is_ok() {
                files::delete(lock, &self.prefix)?;
            }
            return Err(doubt);
        }
        self.tell(&self.host(), standing.as_ref(), &look, deleted, own);
        if matches!(shared, Some(Owner::Other)) {
            self.tell_of_foreign(&index);
        }
        Ok(())
    }

    /// Claims the user and records that, where there is no list index any more; `own` is the user's
    /// in INDEX, which is moved here.
    fn begin_anew(
        &self,
        lock: &Lock<'_, Exclusive>,
        index: &IndexDirectory<'_>,
        look: &Look,
        standing: Option<&ClaimText>,
        own: Option<&Originals>,
    ) -> Result<(), Doubt> {
        has_room(lock.directory())?;
        if let Some(originals) = own {
            originals.copy(index, lock, &self.prefix)?;
        }
        let host = self.host();
        let migrating = own.map(|originals| originals.log);
        let text = self.claim_here(standing, migrating);
        let claim = index.claim_for(&text, look.claim)?;
        if let Some(originals) = own {
            self.confirm(claim, originals)?;
        }
        sessions::prepare(lock.directory())?;
        let record = Record {
            claim,
            index: look.index,
            shared: look.shared_list_index.version().filter(|_| own.is_none()),
        };
        lock.write_record(&self.prefix, record, &host)?;
        // A session that could not wait for this lock may have left its sign meanwhile.
        self.confirm_no_open_session(lock)?;
        if let Some(originals) = own {
            originals.delete(index, self.events)?;
        }
        Ok(())
    }

    fn confirm_no_open_session<K: Kind>(&self, lock: &Lock<'_, K>) -> Result<(), Doubt> {
        let began = Instant::now();
        loop {
            match sessions::open_session(lock.directory(), Some(&self.prefix))? {
                None => return Ok(()),
                Some(open)
                    if open.is_only_held && began.elapsed() < LETTING_GO_TAKES
                        || open.is_only_lingering && began.elapsed() < ENDING_TAKES =>
                {
                    std::thread::sleep(SHORT_PAUSE);
                }
                Some(_) => return Err(Doubt::OpenSession),
            }
        }
    }

    /// What a claim says that is made for the list index here.
    fn claim_here(&self, standing: Option<&ClaimText>, migrating: Option<Version>) -> ClaimText {
        ClaimText {
            host: self.host().to_string(),
            migrating,
            list_index: Some(self.list_index_name()),
            without: self.carried_on(standing, None),
        }
    }

    /// What a claim says that is made for no list index, but for `session`.
    fn claim_without(&self, standing: Option<&ClaimText>, session: Option<Session>) -> ClaimText {
        let host = self.host().to_string();
        let before = standing.filter(|standing| standing.host == host);
        ClaimText {
            list_index: before.and_then(|standing| standing.list_index.clone()),
            host,
            migrating: None,
            without: self.carried_on(standing, session),
        }
    }

    /// The list index here, as a claim names it.
    fn list_index_name(&self) -> String {
        let path = self
            .list_index_directory
            .join(OsStr::from_bytes(self.prefix.to_bytes()));
        plain(path.as_os_str().as_bytes())
    }

    /// That this backend keeps no other list index of the same mailbox, as where two names lead to it:
    /// neither would learn of what is done with the other.
    fn confirm_no_other_list_index(&self, standing: Option<&ClaimText>) -> Result<(), Doubt> {
        let host = self.host();
        let named = standing
            .filter(|standing| standing.host == host.as_str())
            .and_then(|standing| standing.list_index.as_ref())
            .filter(|&name| *name != self.list_index_name())
            .and_then(|name| from_plain(name));
        let Some(other) = named.map(OsString::from_vec).map(PathBuf::from) else {
            return Ok(());
        };
        let is_kept = || {
            let prefix = CString::new(other.file_name()?.as_bytes()).ok()?;
            let directory = ListIndexDirectory::open(other.parent()?, self.actor.user()).ok()?;
            match Lock::<Shared>::acquire_existing(&directory) {
                Ok(lock) => lock.record(&prefix, Some(&host)).map(drop),
                Err(LockError::TimedOut(_)) => Some(()),
                Err(_) => None,
            }
        };
        match is_kept() {
            Some(()) => Err(Doubt::OtherListIndex(other)),
            None => Ok(()),
        }
    }

    /// Of the sessions that the standing claim names, those that the next one must name too: other
    /// backends' and those here that are not over; and `session`.
    fn carried_on(&self, standing: Option<&ClaimText>, session: Option<Session>) -> Vec<Without> {
        let host = self.host();
        let mut carried: Vec<_> = standing
            .into_iter()
            .flat_map(|standing| &standing.without)
            .filter(|without| without.host != host || is_still_open(without))
            .cloned()
            .collect();
        if let Some(session) = session {
            let here = carried.iter().filter(|without| without.host == host);
            let session = if here.count() < MOST_NAMED {
                session.to_string()
            } else {
                // More than can be told apart: over when the host has been booted anew.
                session.anonymous().to_string()
            };
            let named = Without { host, session };
            if !carried.contains(&named) {
                carried.push(named);
            }
        }
        carried
    }

    /// That none of the sessions is open for whose sign there was no place here.
    fn confirm_none_claimed_for(&self, standing: Option<&ClaimText>) -> Result<(), Doubt> {
        let host = self.host();
        let mut named = standing.into_iter().flat_map(|standing| &standing.without);
        if named.any(|without| without.host == host && is_still_open(without)) {
            return Err(Doubt::OpenSession);
        }
        Ok(())
    }

    /// Whether a session has the old list index open. It goes on with it, but what it writes must
    /// not get into a new one.
    fn is_in_use(&self, lock: &Lock<'_, Exclusive>) -> bool {
        let began = Instant::now();
        while files::is_in_use(lock.directory(), &self.prefix) {
            if began.elapsed() >= DELIVERY_TAKES {
                return true;
            }
            std::thread::sleep(SHORT_PAUSE);
        }
        false
    }

    /// The record of the list index here. If nobody knows what this backend is called, any name
    /// will do: then nothing but the comparison is done.
    fn record_in<K: Kind>(&self, lock: &Lock<'_, K>) -> Option<Record> {
        lock.record(&self.prefix, self.known_host().as_ref())
    }

    /// Whose the list index in INDEX is, if there is one.
    fn shared_list_index(
        &self,
        index: &IndexDirectory<'_>,
        look: &Look,
        standing: Option<&ClaimText>,
    ) -> Result<Option<Owner>, Doubt> {
        match look.shared_list_index {
            SharedListIndex::None | SharedListIndex::Litter => Ok(None),
            SharedListIndex::Present(log) => Ok(Some(Owner::find(index, look, log, standing)?)),
        }
    }

    /// Whether more may be done than to compare.
    fn configuration_is_known(&self) -> Result<(), Doubt> {
        match self.index.migration {
            Migration::Unknown => Err(Doubt::UnknownConfiguration),
            Migration::On | Migration::Off => Ok(()),
        }
    }

    /// What this backend is called, unless the configuration cannot be used.
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

    #[cold]
    fn tell_of_foreign(&self, index: &IndexDirectory<'_>) {
        self.events.warning(format_args!(
            "{} is left alone: another namespace, another user or a backend without this program \
             writes to it; give that one an INDEX or a LISTINDEX of its own, or delete the file if nobody writes to it",
            index.path_of(SHARED_LOG).display()
        ));
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

    #[cold]
    fn tell(
        &self,
        host: &HostName,
        standing: Option<&ClaimText>,
        look: &Look,
        deleted: Size,
        taken: Option<&Originals>,
    ) {
        let list_index = self.list_index_directory.display();
        let index = self.index.path.display();
        let from = standing.map_or("unknown", |standing| &standing.host);
        if let Some(originals) = taken {
            self.events.info(format_args!(
                "migrated: moved {} of the list index from {index} to {list_index}",
                originals.size
            ));
        }
        let why = match look.claim {
            None => "first login on any backend".to_owned(),
            Some(_) if from == host.as_str() => {
                format!("no record of the last login on {host}")
            }
            Some(_) => format!("host changed from {from} to {host}"),
        };
        self.events.info(format_args!(
            "{why}: deleted {deleted} of the list index in {list_index}, claimed {index}"
        ));
        let age = look.claim.map(|claim| claim.age_at(SystemTime::now()));
        if age.is_some_and(|age| age.abs() < ALTERNATES) && from != host.as_str() {
            self.events.warning(format_args!(
                "user alternates between backends: {from} claimed {index} less than a minute ago; \
                 the proxy in front must send a user to one backend at a time"
            ));
        }
    }
}

/// That there is room for one more list index. Where the kernel does not say, there may be.
fn has_room(directory: &ListIndexDirectory) -> Result<(), Doubt> {
    match Room::of(directory.as_fd()) {
        Ok(room) if room.is_short() => Err(Doubt::NoRoom(directory.path().to_owned(), room)),
        _ => Ok(()),
    }
}

/// Whether a session of this backend's that a claim names is not over.
fn is_still_open(without: &Without) -> bool {
    let session = without.session.parse::<Session>();
    session.map_or(true, |session| session.state() != State::Over)
}
