//! The protocol between backends, as a state machine for an exhaustive search.
//!
//! Two backends serve one user. Logins and cleaners are processes that take one small step at a
//! time, in any order, and may be killed between any two. Their number is not limited, only how
//! many run at once. What the user's mail consists of is reduced to one question: one change
//! happens, at any moment, and then a list index either has it or lacks it. Nothing in the
//! protocol looks at the mail, so one change finds every way to miss one.
//!
//! What is assumed, because no program at login can do without:
//! - A session with a list index stops changing mail when another backend claimed: Dovecot itself
//!   demands that a user is served by one backend at a time. One without goes on, and what it does
//!   from then on must be known to whoever logs in after it has ended, and its helper has claimed.
//! - A session without list index that could not even leave its sign, because LISTINDEX cannot be
//!   used, stops when another login of its backend gets there; the claim that names it is not modelled.
//! - The helper of a session is not killed. The sign is left all the same, and whoever is killed in
//!   between leaves it too.
//! - The lock times out only while its holder waits for NFS: no login runs from its start to its
//!   end between two neighbouring local system calls of another.
//! - No session of a Dovecot without this program begins between a migrating login's last look at
//!   the originals and their deletion, a few system calls later.
//! - A session does not open its list index between the two neighbouring calls by which another
//!   login deletes it or puts it into place.
//! - INDEX is not unmounted while a login or a session works in it (the kernel refuses that).
//! - Of two user names for one mailbox on one backend, one logs in at a time: nothing locks both list
//!   indexes. If they log in at the same moment, both may be given one, until either logs in again.
//! - A store is restored while no session is open, and the restored claim is a new file. One that is
//!   rolled back to the same files is noticed by nobody; `usercache forget` is for that.

use std::hash::Hash;

use stateright::{Model, Property};

/// Backends are 0 and 1; or two list indexes on one backend, see [`Names`].
pub type Backend = usize;
const BACKENDS: [Backend; 2] = [0, 1];

/// What can be left out or done wrong. `None` is the protocol as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mistake {
    None,
    /// Claim and record first, delete the old list index then.
    RecordBeforeDeleting,
    /// The claim's identity is looked up by its path after the rename.
    IdentityByPath,
    /// What was seen before the exclusive lock is good enough under it.
    NoSecondLook,
    /// The claim's host name is compared, and two hosts have the same.
    HostName,
    /// Migrated originals go before the record is written.
    OriginalsBeforeRecord,
    /// The originals' `.log` is compared before the claim.
    ConfirmBeforeClaim,
    /// A login that does not get the lock uses the list index all the same.
    UseAfterTimeout,
    /// INDEX is missing: the record stays, and the session uses the list index.
    KeepWhenMissing,
    /// The cleaner deletes the list index first and the record last.
    CleanerRecordLast,
    /// The look at INDEX is answered from the NFS client's cache.
    PlainStat,
    /// A session without list index leaves the standing claim alone.
    SilentWithout,
    /// A record counts although the originals that were moved may still be in INDEX.
    ForgetMoved,
    /// A list index in INDEX is taken over whoever wrote it, and whenever.
    TakeOverAgain,
    /// The record does not say what the list index of somebody else in INDEX looked like.
    ForgetShared,
    /// A lock holder that waited for NFS does not look whether its lock file is still there.
    NoCheckAfterWaiting,
    /// A list index is built beside a session without one.
    IgnoreNotes,
    /// Nobody claims for a session without list index that has ended, although its own claim was
    /// never made or does not stand any more.
    SilentEnd,
    /// A login that does not get the lock leaves the lock file where it is.
    KeepLockFile,
    /// A record counts wherever it is found.
    BelieveCopies,
    /// A session that cannot claim a user whom nobody has claimed leaves nothing in INDEX.
    NoVoid,
    /// A claim is known by its time alone, which a copy of the store keeps.
    TimeAlone,
    /// Nobody looks whether the backend keeps another list index of the mailbox.
    OverlookOtherName,
    /// Another user's list index, which cannot be looked at, counts as none.
    ForeignIsNone,
    /// Another list index counts although nobody uses it any more.
    OtherForEver,
    /// A session that goes without because of another list index is not named by its claim.
    NotNamed,
    /// A claim that was set aside says nothing.
    ForgetVoid,
}

/// Who the two are that serve the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Names {
    /// Two backends.
    TwoBackends,
    /// Two user names on one backend, each with a LISTINDEX; or one user, whose LISTINDEX was changed.
    OneUid,
    /// Two user names with uids of their own.
    TwoUids,
}

/// Whether a list index has the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    Current,
    Stale,
}

/// The files of a list index; Dovecot is misled by one without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ListIndex {
    index: Option<Content>,
    log: Option<Content>,
}

impl ListIndex {
    const CURRENT: ListIndex = ListIndex {
        index: Some(Content::Current),
        log: Some(Content::Current),
    };
    const STALE: ListIndex = ListIndex {
        index: Some(Content::Stale),
        log: Some(Content::Stale),
    };

    fn is_stale(self) -> bool {
        [self.index, self.log].contains(&Some(Content::Stale))
    }

    fn is_absent(self) -> bool {
        self.index.is_none() && self.log.is_none()
    }

    fn is_complete(self) -> bool {
        self.index.is_some() && self.log.is_some()
    }

    fn miss_the_change(&mut self) {
        for file in [&mut self.index, &mut self.log] {
            *file = file.map(|_| Content::Stale);
        }
    }
}

/// Inode number and modification time: a number that no other claim has.
type Identity = u8;

/// What the originals' `.log` looks like; changed whenever somebody writes to it.
type Version = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    identity: Identity,
    by: Backend,
    /// It says that it was made to take over these originals.
    migrating: Option<Version>,
    /// The list index that it names, where there are two on one backend.
    names: Option<Backend>,
}

/// A file called `LISTINDEX/.lasthost`, as long as it has that name or somebody has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockFile {
    backend: Backend,
    linked: bool,
    record: Option<Identity>,
    /// The record says that this was in INDEX, and somebody else's.
    beside: Option<Version>,
    /// The record says that this was moved here, and is to be deleted in INDEX.
    moved: Option<Version>,
}

/// What a login does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Not running.
    Idle,
    ForceLook,
    ReadClaim,
    ReadLog,
    Open,
    LockShared,
    Compare,
    OpenForExclusive,
    LockExclusive,
    CheckLock,
    ForceSecondLook,
    ReadClaimAgain,
    ReadLogAgain,
    CompareAgain,
    Empty,
    Delete,
    DeleteRest,
    CopyIndex,
    CopyLog,
    MoveIndex,
    MoveLog,
    MakeClaim,
    TakeIdentity,
    Confirm,
    Record,
    CheckRecord,
    DeleteOriginalLog,
    DeleteOriginalIndex,
    JudgeOriginals,
    /// Failed with the lock in hand: nothing local may be trusted.
    CleanUp,
    /// Did not get the lock, and has left its sign.
    TakeAway,
    WithoutDeleteOriginal,
    WithoutClaim,
    ExecuteWithout,
    ExecuteUse,
    // The cleaner's.
    CleanerLock,
    CleanerEmpty,
    CleanerDelete,
    CleanerDeleteRest,
    CleanerUnlink,
}

impl Step {
    /// Whether the NFS client may answer it from its cache.
    fn reads(self) -> bool {
        matches!(
            self,
            Step::ReadClaim | Step::ReadLog | Step::ReadClaimAgain | Step::ReadLogAgain
        )
    }

    /// Whether a process may be held up here for as long as the lock's timeout.
    fn waits_for_nfs(self) -> bool {
        matches!(
            self,
            Step::ForceSecondLook
                | Step::ReadClaimAgain
                | Step::ReadLogAgain
                | Step::CopyIndex
                | Step::CopyLog
                | Step::MakeClaim
                | Step::TakeIdentity
                | Step::Confirm
                | Step::DeleteOriginalLog
                | Step::DeleteOriginalIndex
                | Step::JudgeOriginals
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Held {
    Nothing,
    Shared,
    Exclusive,
}

/// One login or cleaner, with what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    cleaner: bool,
    backend: Backend,
    step: Step,
    /// Migration is on: it looks for a list index in INDEX.
    looks: bool,
    /// The change had happened when it began.
    began_after_change: bool,
    /// Another Dovecot, without this program, served the user since it began.
    overtaken: bool,
    /// Index into the lock files.
    file: Option<usize>,
    held: Held,
    seen_claim: Option<Identity>,
    seen_log: bool,
    seen_version: Option<Version>,
    /// The originals waited for their migration when the user was claimed for it.
    waiting: bool,
    claim: Option<Identity>,
    copy: ListIndex,
    /// It left the sign that its session will run without list index.
    noted: bool,
    /// No claim of its session's own stands.
    owes: bool,
    /// The originals' `.log` was changed or deleted since the copy began.
    log_touched: bool,
    /// It goes without because of another list index of the mailbox.
    elsewhere: bool,
    /// The standing claim names its session.
    named: bool,
    /// No session was open when it began, and nothing failed since.
    undisturbed: bool,
}

impl Process {
    fn idle(backend: Backend, cleaner: bool) -> Process {
        Process {
            cleaner,
            backend,
            step: Step::Idle,
            looks: false,
            began_after_change: false,
            overtaken: false,
            file: None,
            held: Held::Nothing,
            seen_claim: None,
            seen_log: false,
            seen_version: None,
            waiting: false,
            claim: None,
            copy: ListIndex::default(),
            noted: false,
            owes: false,
            log_touched: false,
            elsewhere: false,
            named: false,
            undisturbed: false,
        }
    }
}

impl Process {
    /// Values that no later step looks at would only make equal states look different.
    fn forget_what_is_used_up(&mut self) {
        let decided = matches!(
            self.step,
            Step::ExecuteUse
                | Step::ExecuteWithout
                | Step::WithoutDeleteOriginal
                | Step::WithoutClaim
        );
        if decided || self.cleaner {
            self.began_after_change = false;
        }
        if decided {
            self.file = None;
            self.held = Held::Nothing;
            self.seen_log = false;
            self.seen_version = None;
            self.claim = None;
            self.copy = ListIndex::default();
        }
        let compares = matches!(
            self.step,
            Step::ReadLog
                | Step::Open
                | Step::LockShared
                | Step::Compare
                | Step::ReadLogAgain
                | Step::CompareAgain
        );
        if !compares {
            self.seen_claim = None;
        }
        let copies = matches!(
            self.step,
            Step::CopyIndex
                | Step::CopyLog
                | Step::MoveIndex
                | Step::MoveLog
                | Step::MakeClaim
                | Step::TakeIdentity
                | Step::Confirm
        );
        if !copies {
            self.log_touched = false;
        }
        if self.step != Step::WithoutDeleteOriginal {
            self.waiting = false;
        }
    }
}

/// What went wrong in the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A session uses a list index that lacks a change made before its login began.
    StaleTrusted,
    /// A session uses a part of a list index.
    PartTrusted,
    /// A list index that the record vouches for is thrown away.
    NeedlesslyDeleted,
    /// An original is deleted before a complete copy of it is trusted.
    OriginalLost,
    /// A list index in INDEX that somebody else writes to is deleted.
    ForeignDeleted,
    /// Two logins by one name, one after the other, that nothing disturbs both go without list index.
    DoesNotHeal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Without {
    No,
    /// With a sign.
    Noted,
    /// Without one.
    Unnoted,
}

/// One host, besides its lock files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host {
    mounted: bool,
    list_index: ListIndex,
    /// A session has the present list index open.
    session: bool,
    /// A session without list index is there, which may still change mail.
    without: Without,
    /// No claim of that session's own stands: what it changes is known to nobody else.
    owes: bool,
    /// The sign of such a session is in LISTINDEX.
    sign: bool,
    /// A claim names such a session.
    named: bool,
    /// What the NFS client would answer without asking the server.
    cached_claim: Option<Identity>,
    cached_log: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    changed: bool,
    /// The change was made by a session without list index that nobody has claimed for since.
    unclaimed_change: Option<Backend>,
    claim: Option<Claim>,
    originals: ListIndex,
    originals_version: Option<Version>,
    /// They were written after the user was claimed: not by his own sessions here.
    originals_others: bool,
    /// There is no claim, but there was one.
    void: bool,
    /// The list index that the claim named that was set aside.
    void_names: Option<Backend>,
    /// The last login was by this name, nothing disturbed it, and it went without list index.
    fruitless: Option<Backend>,
    hosts: [Host; 2],
    lock_files: Vec<LockFile>,
    processes: Vec<Process>,
    violation: Option<Violation>,
}

/// How a step turns out, where more than one way is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Turn {
    Normal,
    /// Answered from the NFS client's cache, or the files in the other order.
    Other,
    Fails,
    TimesOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Begin(usize),
    /// With migration switched off.
    BeginBlind(usize),
    Step(usize, Turn),
    Crash(usize),
    /// The sessions of a backend end, and who stayed behind for them claims.
    Close(Backend),
    /// Who stayed behind claims as soon as it can.
    MakeUp(Backend),
    /// A session of a backend changes the mail, with or without its list index.
    Change(Backend, bool),
    /// A Dovecot without this program serves the user, and changes the mail or not.
    Foreign(bool),
    Unmount(Backend),
    Mount(Backend),
    /// The other backend's LISTINDEX is copied to this one, a cloned machine for example.
    CopyDirectory(Backend),
    /// The store is restored from a backup: the mail is another, and the claim a copy.
    RestoreStore,
}

/// Which processes there may be at once, and what may happen to them.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// Backend and whether it is a cleaner.
    pub processes: Vec<(Backend, bool)>,
    pub names: Names,
    pub migration: bool,
    /// Migration may be on for one login and off for the next.
    pub switched: bool,
    /// Logins may fail: NFS full or read-only, tmpfs full.
    pub failures: bool,
    pub timeouts: bool,
    pub unmounts: bool,
    /// Directories and the store are copied and restored.
    pub copies: bool,
    pub mistake: Mistake,
}

impl Protocol {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }
}

impl State {
    fn begin(&mut self, slot: usize, looks: bool) -> Option<()> {
        let Process {
            cleaner, backend, ..
        } = self.processes[slot];
        if self.processes[slot].step != Step::Idle {
            return None;
        }
        let file = self.linked(backend);
        self.fruitless = self.fruitless.filter(|name| *name == backend);
        let is_open = |host: &Host| host.session || host.without != Without::No || !host.mounted;
        let undisturbed = !self.hosts.iter().any(is_open);
        let process = &mut self.processes[slot];
        process.looks = looks;
        process.undisturbed = undisturbed && !cleaner;
        // Whatever is not claimed for yet is of a session that has not ended.
        process.began_after_change = self.changed && self.unclaimed_change.is_none();
        if cleaner {
            process.file = Some(file?);
            process.step = Step::CleanerLock;
        } else {
            process.step = Step::ForceLook;
        }
        Some(())
    }

    fn linked(&self, backend: Backend) -> Option<usize> {
        self.lock_files
            .iter()
            .position(|file| file.linked && file.backend == backend)
    }

    fn end(&mut self, slot: usize) {
        let Process {
            backend, cleaner, ..
        } = self.processes[slot];
        self.processes[slot] = Process::idle(backend, cleaner);
    }

    fn is_held_by_others(&self, slot: usize, exclusively: bool) -> bool {
        self.holders(slot)
            .any(|other| other.held == Held::Exclusive || !exclusively)
    }

    fn holders(&self, slot: usize) -> impl Iterator<Item = &Process> {
        let file = self.processes[slot].file;
        self.processes
            .iter()
            .enumerate()
            .filter(move |(other, process)| {
                *other != slot && process.file == file && process.held != Held::Nothing
            })
            .map(|(_, process)| process)
    }

    /// The record that a login on `backend` would find.
    fn record(&self, backend: Backend) -> Option<Identity> {
        self.lock_files[self.linked(backend)?].record
    }

    fn touch_log(&mut self) {
        for process in &mut self.processes {
            process.log_touched = true;
        }
    }

    /// Mail is changed; whatever is not told about it lacks it from now on.
    fn change(&mut self) {
        self.changed = true;
        self.originals.miss_the_change();
        for host in &mut self.hosts {
            host.list_index.miss_the_change();
        }
        for process in &mut self.processes {
            process.copy.miss_the_change();
        }
    }

    fn delete(&mut self, backend: Backend, log: bool) {
        let host = &mut self.hosts[backend];
        let file = if log {
            &mut host.list_index.log
        } else {
            &mut host.list_index.index
        };
        if file.take().is_some() {
            host.session = false;
        }
    }

    /// The list index that a claim names that is made for none.
    fn named(&self) -> Option<Backend> {
        self.claim.map_or(self.void_names, |claim| claim.names)
    }

    /// A rename over the claim; sessions of an earlier time are out of the game.
    fn make_claim(&mut self, claim: Claim) {
        self.claim = Some(claim);
        self.void = false;
        self.void_names = None;
        for (backend, host) in self.hosts.iter_mut().enumerate() {
            if backend != claim.by {
                host.owes = true;
            } else if host.without == Without::Unnoted {
                host.without = Without::No;
            }
        }
        for process in &mut self.processes {
            if process.step == Step::ExecuteWithout {
                process.owes |= process.backend != claim.by;
                process.overtaken |= !process.noted && process.backend == claim.by;
            }
        }
    }

    /// Claims for the session without list index of `backend`.
    fn make_up(&mut self, backend: Backend) {
        let (identity, names) = (self.new_identity(), self.named());
        self.make_claim(Claim {
            identity,
            by: backend,
            migrating: None,
            names,
        });
        self.hosts[backend].owes = false;
        if self.unclaimed_change == Some(backend) {
            self.unclaimed_change = None;
        }
    }

    /// Whether a session or a process of ours is there.
    fn is_busy(&self, backend: Backend) -> bool {
        let host = &self.hosts[backend];
        let runs = |process: &Process| process.backend == backend && process.step != Step::Idle;
        host.session || host.without != Without::No || self.processes.iter().any(runs)
    }

    fn is_logging_in(&self, backend: Backend) -> bool {
        self.processes.iter().any(|process| {
            process.backend == backend && !process.cleaner && process.step != Step::Idle
        })
    }

    fn is_logging_in_anywhere(&self) -> bool {
        self.processes
            .iter()
            .any(|process| process.step != Step::Idle)
    }

    /// Whether a claim names a session that is not over.
    fn is_session_named(&self) -> bool {
        self.hosts.iter().any(|host| host.named)
            || self.processes.iter().any(|process| process.named)
    }

    /// Whether a session that left its sign on `backend` is not over.
    fn has_open_note(&self, backend: Backend) -> bool {
        let coming = |process: &Process| process.backend == backend && process.noted;
        let open = self.hosts[backend].without != Without::No || self.processes.iter().any(coming);
        self.hosts[backend].sign && open
    }

    fn leave_sign(&mut self, slot: usize) {
        let backend = self.processes[slot].backend;
        self.hosts[backend].sign = true;
        self.processes[slot].noted = true;
    }

    fn take_lock_file_away(&mut self, backend: Backend) {
        if let Some(file) = self.linked(backend) {
            self.lock_files[file].linked = false;
        }
    }

    fn new_identity(&self) -> Identity {
        // `canonical` numbers those in use from 0 without gaps, and there are few.
        self.identities().max().map_or(0, |largest| largest + 1)
    }

    fn identities(&self) -> impl Iterator<Item = Identity> {
        let claim = self.claim.map(|claim| claim.identity);
        let caches = self.hosts.iter().map(|host| host.cached_claim);
        let records = self.lock_files.iter().map(|file| file.record);
        let processes = self
            .processes
            .iter()
            .flat_map(|process| [process.seen_claim, process.claim]);
        std::iter::once(claim)
            .chain(caches)
            .chain(records)
            .chain(processes)
            .flatten()
    }

    /// Forgets what nobody can tell apart: lock files without a name that nobody has open, the
    /// numbers of the identities, which of two equal processes is which.
    fn canonical(mut self, protocol: &Protocol) -> State {
        for process in &mut self.processes {
            process.forget_what_is_used_up();
        }
        if protocol.names != Names::OneUid {
            (self.processes.iter_mut()).for_each(|process| process.undisturbed = false);
        }
        if self.originals.log.is_none() {
            self.originals_version = None;
            self.originals_others = false;
        }
        for backend in BACKENDS {
            // The sign of a session that is over does not keep anybody out.
            if !self.has_open_note(backend) {
                self.hosts[backend].sign = false;
            }
            if self.hosts[backend].without == Without::No {
                self.hosts[backend].owes = false;
                self.hosts[backend].named = false;
                if self.unclaimed_change == Some(backend) {
                    self.unclaimed_change = None;
                }
            }
            let reads = |process: &Process| process.backend == backend && process.step.reads();
            if !protocol.makes(Mistake::PlainStat) && !self.processes.iter().any(reads) {
                self.hosts[backend].cached_claim = None;
                self.hosts[backend].cached_log = false;
            }
        }
        self.processes.sort();
        let mut kept = Vec::new();
        let mut place = vec![None; self.lock_files.len()];
        for backend in BACKENDS {
            if let Some(file) = self.linked(backend) {
                place[file] = Some(kept.len());
                kept.push(self.lock_files[file]);
            }
        }
        for process in &mut self.processes {
            if let Some(file) = process.file {
                process.file = Some(*place[file].get_or_insert_with(|| {
                    kept.push(self.lock_files[file]);
                    kept.len() - 1
                }));
            }
        }
        self.lock_files = kept;
        for file in &mut self.lock_files {
            file.moved = file.moved.filter(|_| file.record.is_some());
        }

        let mut order: Vec<Identity> = Vec::new();
        for identity in self.identities() {
            if !order.contains(&identity) {
                order.push(identity);
            }
        }
        let renumber = |identity: &mut Option<Identity>| {
            *identity = identity.map(|old| {
                let new = order.iter().position(|&known| known == old);
                new.map_or(old, |new| new as Identity)
            });
        };
        if let Some(claim) = &mut self.claim {
            let mut identity = Some(claim.identity);
            renumber(&mut identity);
            claim.identity = identity.unwrap_or_default();
        }
        self.hosts
            .iter_mut()
            .for_each(|host| renumber(&mut host.cached_claim));
        self.lock_files
            .iter_mut()
            .for_each(|file| renumber(&mut file.record));
        for process in &mut self.processes {
            renumber(&mut process.seen_claim);
            renumber(&mut process.claim);
        }
        self.renumber_versions();
        self
    }

    fn renumber_versions(&mut self) {
        let mut versions: Vec<&mut Version> = self.originals_version.iter_mut().collect();
        if let Some(claim) = &mut self.claim {
            versions.extend(&mut claim.migrating);
        }
        for file in &mut self.lock_files {
            versions.extend(&mut file.beside);
            versions.extend(&mut file.moved);
        }
        for process in &mut self.processes {
            versions.extend(&mut process.seen_version);
        }
        let mut order: Vec<Version> = Vec::new();
        for version in versions {
            let known = order.iter().position(|known| known == version);
            let number = known.unwrap_or_else(|| {
                order.push(*version);
                order.len() - 1
            });
            *version = number as Version;
        }
    }

    /// A version that nothing has, for canonical states.
    fn new_version(&self) -> Version {
        let claim = self.claim.and_then(|claim| claim.migrating);
        let of_record = |file: &LockFile| [file.beside, file.moved];
        let records = self.lock_files.iter().flat_map(of_record).flatten();
        let processes = self
            .processes
            .iter()
            .filter_map(|process| process.seen_version);
        let all = self.originals_version.into_iter().chain(claim);
        let largest = all.chain(records).chain(processes).max();
        largest.map_or(0, |largest| largest + 1)
    }

    /// Whether the originals are the user's own, and wait for their migration.
    fn is_unclaimed(&self) -> bool {
        self.claim.is_none() && !self.void
    }
}

impl Protocol {
    fn step(&self, state: &mut State, slot: usize, turn: Turn) -> Option<()> {
        let step = state.processes[slot].step;
        let applicable = match turn {
            Turn::Normal => step != Step::Idle,
            Turn::Other => matches!(
                step,
                Step::ReadClaim
                    | Step::ReadLog
                    | Step::ReadClaimAgain
                    | Step::ReadLogAgain
                    | Step::Delete
                    | Step::CleanerDelete
                    | Step::WithoutClaim
            ),
            Turn::Fails => {
                self.failures
                    && matches!(
                        step,
                        Step::Open
                            | Step::CopyIndex
                            | Step::CopyLog
                            | Step::MakeClaim
                            | Step::Record
                            | Step::DeleteOriginalLog
                            | Step::DeleteOriginalIndex
                            | Step::WithoutClaim
                    )
            }
            Turn::TimesOut => {
                self.timeouts && matches!(step, Step::LockShared | Step::LockExclusive)
            }
        };
        if !applicable {
            return None;
        }
        state.processes[slot].undisturbed &= matches!(turn, Turn::Normal | Turn::Other);
        let next = match turn {
            Turn::Normal | Turn::Other => self.go(state, slot, turn == Turn::Other)?,
            Turn::Fails => match step {
                // Before the lock nothing can be done locally.
                Step::Open => self.without(),
                // No space on NFS for a claim, only for an empty file. Without a claim no record counts.
                Step::WithoutClaim => {
                    let waiting = state.is_unclaimed();
                    state.void |= state.claim.is_some() || !self.makes(Mistake::NoVoid);
                    if self.makes(Mistake::ForgetVoid) {
                        state.hosts.iter_mut().for_each(|host| host.named = false);
                    } else {
                        state.void_names = state.named();
                    }
                    state.claim = None;
                    self.after_claim_without(state, slot, waiting)
                }
                // What is left of the originals is litter from now on.
                Step::DeleteOriginalIndex => Step::ExecuteUse,
                _ => Step::CleanUp,
            },
            Turn::TimesOut => {
                let exclusively = step == Step::LockExclusive;
                let held_up = state.holders(slot).any(|holder| {
                    (exclusively || holder.held == Held::Exclusive) && holder.step.waits_for_nfs()
                });
                if !held_up {
                    return None;
                }
                self.time_out(state, slot)
            }
        };
        match next {
            Step::Idle => state.end(slot),
            next => state.processes[slot].step = next,
        }
        Some(())
    }

    /// Whatever the lock's holder records will be lost.
    fn time_out(&self, state: &mut State, slot: usize) -> Step {
        if self.makes(Mistake::UseAfterTimeout) {
            return self.vouch(state, slot);
        }
        state.leave_sign(slot);
        Step::TakeAway
    }

    /// The session will run without list index.
    fn without(&self) -> Step {
        if self.makes(Mistake::SilentWithout) {
            Step::ExecuteWithout
        } else {
            Step::WithoutClaim
        }
    }

    /// Claimed first: as long as the originals' `.log` is there, no record counts.
    fn after_claim_without(&self, state: &mut State, slot: usize, waiting: bool) -> Step {
        let looks = state.processes[slot].looks;
        if looks && waiting {
            state.processes[slot].waiting = true;
            Step::WithoutDeleteOriginal
        } else {
            Step::ExecuteWithout
        }
    }

    /// Whether the seen claim is the record's.
    fn is_settled(&self, state: &State, slot: usize, file: LockFile) -> bool {
        let process = &state.processes[slot];
        let record = file.record;
        let shared = process.seen_version.filter(|_| process.seen_log);
        let may_be_there = file.moved.is_some() && (!process.looks || shared.is_some());
        if may_be_there && !self.makes(Mistake::ForgetMoved) {
            return false;
        }
        if shared != file.beside && !(self.makes(Mistake::ForgetShared) && shared.is_some()) {
            return false;
        }
        if self.makes(Mistake::HostName) {
            // One name for both hosts: any claim has it, and any record.
            return process.seen_claim.is_some() && record.is_some();
        }
        record.is_some() && record == process.seen_claim
    }

    /// Does one step; returns the next.
    fn go(&self, state: &mut State, slot: usize, other: bool) -> Option<Step> {
        let process = state.processes[slot];
        let backend = process.backend;
        let first_waiting_check = !self.makes(Mistake::NoCheckAfterWaiting);
        Some(match process.step {
            Step::Idle => return None,
            Step::ForceLook | Step::ForceSecondLook => {
                if !state.hosts[backend].mounted {
                    return Some(if self.makes(Mistake::KeepWhenMissing) {
                        self.vouch(state, slot)
                    } else {
                        Step::OpenForExclusive
                    });
                }
                if !self.makes(Mistake::PlainStat) {
                    state.hosts[backend].cached_claim = state.claim.map(|claim| claim.identity);
                    state.hosts[backend].cached_log = state.originals.log.is_some();
                }
                if process.step == Step::ForceLook {
                    Step::ReadClaim
                } else {
                    Step::ReadClaimAgain
                }
            }
            Step::ReadClaim | Step::ReadClaimAgain => {
                let again = process.step == Step::ReadClaimAgain;
                let host = &mut state.hosts[backend];
                let present = state.claim.map(|claim| claim.identity);
                if !other {
                    host.cached_claim = present;
                } else if host.cached_claim == present {
                    return None;
                }
                state.processes[slot].seen_claim = host.cached_claim;
                match (process.looks, again) {
                    (true, false) => Step::ReadLog,
                    (true, true) => Step::ReadLogAgain,
                    (false, false) => Step::Open,
                    (false, true) => Step::CompareAgain,
                }
            }
            Step::ReadLog | Step::ReadLogAgain => {
                let host = &mut state.hosts[backend];
                let present = state.originals.log.is_some();
                if !other {
                    host.cached_log = present;
                } else if host.cached_log == present {
                    return None;
                }
                // What seems to be there is looked at past the cache.
                let seen = host.cached_log && present;
                state.processes[slot].seen_log = seen;
                state.processes[slot].seen_version = state.originals_version.filter(|_| seen);
                if process.step == Step::ReadLog {
                    Step::Open
                } else {
                    Step::CompareAgain
                }
            }
            Step::Open | Step::OpenForExclusive => {
                let file = state.linked(backend).unwrap_or_else(|| {
                    state.lock_files.push(LockFile {
                        beside: None,
                        moved: None,
                        backend,
                        linked: true,
                        record: None,
                    });
                    state.lock_files.len() - 1
                });
                state.processes[slot].file = Some(file);
                if state.hosts[backend].without == Without::Unnoted {
                    if self.names != Names::TwoBackends && state.hosts[backend].owes {
                        state.make_up(backend);
                    }
                    state.hosts[backend].without = Without::No;
                }
                if process.step == Step::Open {
                    Step::LockShared
                } else {
                    Step::LockExclusive
                }
            }
            Step::LockShared => {
                if state.is_held_by_others(slot, true) {
                    return None;
                }
                state.processes[slot].held = Held::Shared;
                Step::Compare
            }
            Step::Compare => {
                let file = state.lock_files[process.file?];
                if !file.linked {
                    state.processes[slot].held = Held::Nothing;
                    state.processes[slot].file = None;
                    Step::Open
                } else if self.is_settled(state, slot, file) {
                    self.vouch(state, slot)
                } else {
                    // The conversion is not atomic: others may come first (flock(2)).
                    state.processes[slot].held = Held::Nothing;
                    if !self.makes(Mistake::NoSecondLook) {
                        state.processes[slot].seen_log = false;
                    }
                    Step::LockExclusive
                }
            }
            Step::LockExclusive => {
                if state.is_held_by_others(slot, false) {
                    return None;
                }
                state.processes[slot].held = Held::Exclusive;
                Step::CheckLock
            }
            Step::CheckLock => {
                if !state.lock_files[process.file?].linked {
                    state.processes[slot].held = Held::Nothing;
                    state.processes[slot].file = None;
                    Step::OpenForExclusive
                } else if !state.hosts[backend].mounted {
                    Step::CleanUp
                } else if self.makes(Mistake::NoSecondLook) {
                    Step::Empty
                } else {
                    Step::ForceSecondLook
                }
            }
            Step::CompareAgain => {
                let file = state.lock_files[process.file?];
                let migrating = state.claim.is_some_and(|claim| claim.migrating.is_some());
                if !process.seen_log && state.originals.log.is_none() && migrating {
                    // Litter of an interrupted migration.
                    state.originals.index = None;
                }
                let standing = state.claim.map(|claim| claim.identity);
                let there = state
                    .originals_version
                    .filter(|_| state.originals.log.is_some());
                let is_unfinished = file.moved.is_some()
                    && file.record.is_some()
                    && file.record == process.seen_claim
                    && !self.makes(Mistake::ForgetMoved);
                if !file.linked && first_waiting_check {
                    Step::CleanUp
                } else if self.is_settled(state, slot, file) {
                    self.vouch(state, slot)
                } else if is_unfinished && there == file.moved {
                    state.processes[slot].claim = standing;
                    state.processes[slot].seen_log = true;
                    state.processes[slot].seen_version = there;
                    self.vouch(state, slot);
                    Step::DeleteOriginalLog
                } else if is_unfinished && there.is_none() {
                    state.lock_files[process.file?].moved = None;
                    self.vouch(state, slot)
                } else if state.has_open_note(backend) && !self.makes(Mistake::IgnoreNotes)
                    || state.is_session_named() && !self.makes(Mistake::NotNamed)
                {
                    Step::CleanUp
                } else if self.keeps_other(state, backend) {
                    state.processes[slot].elsewhere = true;
                    Step::CleanUp
                } else if self.makes(Mistake::RecordBeforeDeleting) {
                    Step::MakeClaim
                } else {
                    Step::Empty
                }
            }
            Step::Empty => {
                let file = &mut state.lock_files[process.file?];
                let standing = state.claim.map(|claim| claim.identity);
                if file.linked
                    && (process.looks || !self.switched)
                    && file.record.is_some()
                    && file.record == standing
                    && file.beside == state.originals_version
                {
                    state.violation = Some(Violation::NeedlesslyDeleted);
                }
                file.record = None;
                if state.hosts[backend].session && !self.makes(Mistake::RecordBeforeDeleting) {
                    // It goes on with what it has open.
                    Step::CleanUp
                } else {
                    Step::Delete
                }
            }
            Step::Delete => {
                if other && !state.hosts[backend].list_index.is_complete() {
                    return None;
                }
                state.delete(backend, other);
                Step::DeleteRest
            }
            Step::DeleteRest => {
                state.delete(backend, false);
                state.delete(backend, true);
                if self.makes(Mistake::RecordBeforeDeleting) {
                    Step::ExecuteUse
                } else if process.seen_log {
                    Step::JudgeOriginals
                } else {
                    Step::MakeClaim
                }
            }
            Step::JudgeOriginals => {
                let own = match state.claim {
                    None => !state.void,
                    Some(claim) => {
                        claim.migrating.is_some() && claim.migrating == process.seen_version
                    }
                };
                let touched = state.originals_version != process.seen_version;
                state.processes[slot].log_touched = touched;
                if own || self.makes(Mistake::TakeOverAgain) {
                    Step::CopyIndex
                } else {
                    // Left alone.
                    state.processes[slot].seen_log = false;
                    Step::MakeClaim
                }
            }
            Step::CopyIndex => {
                state.processes[slot].copy.index = state.originals.index;
                Step::CopyLog
            }
            Step::CopyLog => {
                state.processes[slot].copy.log = state.originals.log;
                if !state.lock_files[process.file?].linked && first_waiting_check {
                    return Some(Step::CleanUp);
                }
                Step::MoveIndex
            }
            Step::MoveIndex => {
                if process.copy.index.is_some() {
                    state.hosts[backend].list_index.index = process.copy.index;
                    state.hosts[backend].session = false;
                }
                Step::MoveLog
            }
            Step::MoveLog => {
                if process.copy.log.is_some() {
                    state.hosts[backend].list_index.log = process.copy.log;
                    state.hosts[backend].session = false;
                }
                state.processes[slot].copy = ListIndex::default();
                if self.makes(Mistake::ConfirmBeforeClaim) && process.log_touched {
                    Step::CleanUp
                } else {
                    Step::MakeClaim
                }
            }
            Step::MakeClaim => {
                let identity = state.new_identity();
                state.make_claim(Claim {
                    identity,
                    by: backend,
                    migrating: process.seen_version.filter(|_| process.seen_log),
                    names: (self.names != Names::TwoBackends).then_some(backend),
                });
                state.processes[slot].claim = Some(identity);
                if self.makes(Mistake::IdentityByPath) {
                    Step::TakeIdentity
                } else {
                    self.after_claim(&process)
                }
            }
            Step::TakeIdentity => {
                state.processes[slot].claim = state.claim.map(|claim| claim.identity);
                self.after_claim(&process)
            }
            Step::Confirm => {
                if process.claim != state.claim.map(|claim| claim.identity) {
                    // Another backend has just claimed, and the session's time is over.
                    state.processes[slot].overtaken = true;
                    Step::CleanUp
                } else if !process.log_touched {
                    if self.makes(Mistake::OriginalsBeforeRecord) {
                        Step::DeleteOriginalLog
                    } else {
                        Step::Record
                    }
                } else {
                    Step::CleanUp
                }
            }
            Step::Record => {
                let file = &mut state.lock_files[process.file?];
                file.record = process.claim;
                file.beside = process.seen_version.filter(|_| !process.seen_log);
                file.moved = process.seen_version.filter(|_| process.seen_log);
                Step::CheckRecord
            }
            Step::CheckRecord => {
                let lost = !state.lock_files[process.file?].linked;
                let open = state.has_open_note(backend) && !self.makes(Mistake::IgnoreNotes);
                if lost || open {
                    Step::CleanUp
                } else if self.makes(Mistake::RecordBeforeDeleting) {
                    Step::Delete
                } else if process.seen_log && !self.makes(Mistake::OriginalsBeforeRecord) {
                    self.vouch(state, slot);
                    Step::DeleteOriginalLog
                } else {
                    self.vouch(state, slot)
                }
            }
            Step::DeleteOriginalLog => {
                let file = state.lock_files[process.file?];
                let trusted = !file.linked
                    || file.record == process.claim
                        && state.hosts[backend].list_index.is_complete();
                if state.originals.log.take().is_some() {
                    state.touch_log();
                    if !trusted {
                        state.violation = Some(Violation::OriginalLost);
                    }
                    if state.originals_others {
                        state.violation = Some(Violation::ForeignDeleted);
                    }
                }
                Step::DeleteOriginalIndex
            }
            Step::DeleteOriginalIndex => {
                state.originals.index = None;
                if self.makes(Mistake::OriginalsBeforeRecord) {
                    Step::Record
                } else {
                    Step::ExecuteUse
                }
            }
            Step::CleanUp => {
                let file = &mut state.lock_files[process.file?];
                file.record = None;
                let lost = !file.linked;
                state.leave_sign(slot);
                if lost && first_waiting_check {
                    Step::TakeAway
                } else {
                    self.without()
                }
            }
            Step::TakeAway => {
                if let Some(file) = state.linked(backend) {
                    let holds = |process: &&Process| {
                        process.file == Some(file) && process.held != Held::Nothing
                    };
                    let holders = || state.processes.iter().filter(holds);
                    if self.makes(Mistake::KeepLockFile) {
                        return Some(self.without());
                    }
                    if holders().any(|holder| holder.step.waits_for_nfs()) {
                        state.take_lock_file_away(backend);
                    } else if holders().count() > 0 {
                        // He is done in a moment.
                        return None;
                    } else {
                        state.lock_files[file].record = None;
                    }
                }
                self.without()
            }
            Step::WithoutDeleteOriginal => {
                if state.hosts[backend].mounted && state.originals.log.take().is_some() {
                    state.touch_log();
                    if state.originals_others {
                        state.violation = Some(Violation::ForeignDeleted);
                    }
                }
                Step::ExecuteWithout
            }
            Step::WithoutClaim => {
                let waiting = state.is_unclaimed();
                // Not even an empty file can be made.
                let is_full = other;
                let may_be = self.failures && state.hosts[backend].mounted && process.noted;
                if is_full && !(may_be && waiting) {
                    return None;
                }
                if state.hosts[backend].mounted && !is_full {
                    let (identity, names) = (state.new_identity(), state.named());
                    state.make_claim(Claim {
                        identity,
                        by: backend,
                        migrating: None,
                        names,
                    });
                    let has_no_place = !process.noted && self.names != Names::TwoBackends;
                    let is_named = process.elsewhere || has_no_place;
                    state.processes[slot].named = is_named;
                } else {
                    state.processes[slot].owes = true;
                }
                self.after_claim_without(state, slot, waiting)
            }
            Step::ExecuteWithout => {
                if !process.overtaken {
                    let host = &mut state.hosts[backend];
                    host.without = if process.noted {
                        Without::Noted
                    } else {
                        Without::Unnoted
                    };
                    host.owes |= process.owes;
                    host.named |= process.named;
                }
                if process.undisturbed && self.names == Names::OneUid {
                    if state.fruitless == Some(backend) {
                        state.violation = Some(Violation::DoesNotHeal);
                    }
                    state.fruitless = Some(backend);
                }
                Step::Idle
            }
            Step::ExecuteUse => {
                let half_way = |other: &Process| {
                    other.backend == backend
                        && matches!(
                            other.step,
                            Step::DeleteRest | Step::MoveLog | Step::CleanerDeleteRest
                        )
                };
                if state.processes.iter().any(half_way) {
                    return None;
                }
                self.open_list_index(state, &process);
                Step::Idle
            }
            Step::CleanerLock => {
                let file = process.file?;
                let skips = state.is_held_by_others(slot, false)
                    || !state.lock_files[file].linked
                    || state.has_open_note(backend)
                    || state.hosts[backend].session;
                if skips {
                    return Some(Step::Idle);
                }
                state.processes[slot].held = Held::Exclusive;
                if self.makes(Mistake::CleanerRecordLast) {
                    Step::CleanerDelete
                } else {
                    Step::CleanerEmpty
                }
            }
            Step::CleanerEmpty => {
                let file = &mut state.lock_files[process.file?];
                file.record = None;
                Step::CleanerDelete
            }
            Step::CleanerDelete => {
                if other && !state.hosts[backend].list_index.is_complete() {
                    return None;
                }
                state.delete(backend, other);
                Step::CleanerDeleteRest
            }
            Step::CleanerDeleteRest => {
                state.delete(backend, false);
                state.delete(backend, true);
                Step::CleanerUnlink
            }
            Step::CleanerUnlink => {
                // A session may have left its sign meanwhile.
                if !state.has_open_note(backend) {
                    state.take_lock_file_away(backend);
                }
                Step::Idle
            }
        })
    }

    /// Whether the claim names another list index of this backend, which may still be used.
    fn keeps_other(&self, state: &State, backend: Backend) -> bool {
        let other = 1 - backend;
        if state.named() != Some(other) || self.makes(Mistake::OverlookOtherName) {
            return false;
        }
        match self.names {
            Names::TwoBackends => false,
            Names::TwoUids => !self.makes(Mistake::ForeignIsNone),
            Names::OneUid => {
                let standing = state.claim.map(|claim| claim.identity);
                standing.is_some() && state.record(other) == standing
                    || state.hosts[other].session
                    || state.has_open_note(other)
                    || self.makes(Mistake::OtherForEver)
            }
        }
    }

    fn after_claim(&self, process: &Process) -> Step {
        if process.seen_log && !self.makes(Mistake::ConfirmBeforeClaim) {
            Step::Confirm
        } else if process.seen_log && self.makes(Mistake::OriginalsBeforeRecord) {
            Step::DeleteOriginalLog
        } else {
            Step::Record
        }
    }

    /// The login is sure of its list index, as it is now; the session will find it so, or find
    /// that somebody was faster.
    fn vouch(&self, state: &mut State, slot: usize) -> Step {
        let process = state.processes[slot];
        let list_index = state.hosts[process.backend].list_index;
        if !list_index.is_absent() && !list_index.is_complete() {
            state.violation = Some(Violation::PartTrusted);
        }
        if list_index.is_stale() && process.began_after_change == state.changed {
            state.violation = Some(Violation::StaleTrusted);
        }
        state.fruitless = None;
        Step::ExecuteUse
    }

    /// A session begins and opens the list index; one that is not there is built from the mail.
    fn open_list_index(&self, state: &mut State, process: &Process) {
        let host = &mut state.hosts[process.backend];
        if host.mounted && host.list_index.is_absent() {
            host.list_index = ListIndex::CURRENT;
        } else if !host.mounted || !host.list_index.is_complete() {
            // No mailbox is to be seen, so the session throws them out of the list index; or it
            // makes do with a part.
            host.list_index = ListIndex::STALE;
        }
        host.session |= host.mounted && !process.overtaken;
    }

    fn change(&self, state: &mut State, backend: Backend, with: bool) -> Option<()> {
        let host = state.hosts[backend];
        let may = if with {
            // The user is still here.
            let is_here = |claim: Claim| claim.by == backend;
            host.session && (self.names != Names::TwoBackends || state.claim.is_some_and(is_here))
        } else {
            match host.without {
                Without::No => false,
                Without::Noted => true,
                Without::Unnoted => !state.is_logging_in(backend),
            }
        };
        if state.changed || !may || !host.mounted {
            return None;
        }
        state.change();
        if with {
            state.hosts[backend].list_index = host.list_index;
        } else if host.owes && !host.named {
            state.unclaimed_change = Some(backend);
        }
        Some(())
    }

    fn copy_directory(&self, state: &mut State, to: Backend) -> Option<()> {
        let from = 1 - to;
        if !self.copies || state.is_busy(to) {
            return None;
        }
        let file = state.lock_files[state.linked(from)?];
        state.take_lock_file_away(to);
        let is_believed = self.makes(Mistake::BelieveCopies);
        state.lock_files.push(LockFile {
            backend: to,
            record: file.record.filter(|_| is_believed),
            beside: file.beside.filter(|_| is_believed),
            moved: file.moved.filter(|_| is_believed),
            ..file
        });
        state.hosts[to].list_index = state.hosts[from].list_index;
        Some(())
    }

    fn restore_store(&self, state: &mut State) -> Option<()> {
        let is_busy = |&backend: &Backend| state.is_busy(backend);
        if !self.copies || state.changed || BACKENDS.iter().any(is_busy) {
            return None;
        }
        // What is in INDEX is of the same time as the mail.
        let originals = state.originals;
        state.change();
        state.originals = originals;
        if !self.makes(Mistake::TimeAlone) {
            let identity = state.new_identity();
            state.claim = state.claim.map(|claim| Claim { identity, ..claim });
        }
        Some(())
    }

    fn foreign(&self, state: &mut State, changes: bool) -> Option<()> {
        let deletes = |process: &Process| {
            matches!(
                process.step,
                Step::DeleteOriginalIndex | Step::WithoutDeleteOriginal
            ) || process.seen_log
                && matches!(
                    process.step,
                    Step::Record | Step::CheckRecord | Step::DeleteOriginalLog
                )
        };
        if !self.migration || (changes && state.changed) || state.processes.iter().any(deletes) {
            return None;
        }
        // Whoever does not look does not see what somebody else writes either.
        if self.switched && !state.is_unclaimed() {
            return None;
        }
        // The session here has ended, and whoever stays behind for it has claimed.
        let owes = |host: &Host| host.without != Without::No && host.owes;
        if state.hosts.iter().any(owes) {
            return None;
        }
        let mut originals = state.originals;
        if !originals.is_complete() {
            // Without one of the files Dovecot begins a new list index.
            originals = ListIndex::CURRENT;
        }
        if changes {
            state.change();
        }
        state.originals = originals;
        state.originals_version = Some(state.new_version());
        state.originals_others |= !state.is_unclaimed();
        state.touch_log();
        for host in &mut state.hosts {
            host.session = false;
            host.without = Without::No;
        }
        for process in &mut state.processes {
            process.overtaken |= process.step != Step::Idle;
        }
        Some(())
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let host = Host {
            mounted: true,
            list_index: ListIndex::default(),
            session: false,
            without: Without::No,
            owes: false,
            sign: false,
            named: false,
            cached_claim: None,
            cached_log: false,
        };
        let processes = self
            .processes
            .iter()
            .map(|&(backend, cleaner)| Process::idle(backend, cleaner))
            .collect();
        vec![
            State {
                changed: false,
                unclaimed_change: None,
                claim: None,
                originals: ListIndex::default(),
                originals_version: None,
                originals_others: false,
                void: false,
                void_names: None,
                fruitless: None,
                hosts: [host; 2],
                lock_files: Vec::new(),
                processes,
                violation: None,
            }
            .canonical(self),
        ]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (slot, process) in state.processes.iter().enumerate() {
            if process.step == Step::Idle {
                actions.push(Action::Begin(slot));
                if self.switched {
                    actions.push(Action::BeginBlind(slot));
                }
                continue;
            }
            for turn in [Turn::Normal, Turn::Other, Turn::Fails, Turn::TimesOut] {
                actions.push(Action::Step(slot, turn));
            }
            actions.push(Action::Crash(slot));
        }
        for backend in BACKENDS {
            actions.push(Action::Close(backend));
            actions.push(Action::MakeUp(backend));
            actions.push(Action::Change(backend, true));
            actions.push(Action::Change(backend, false));
            if self.unmounts {
                actions.push(Action::Unmount(backend));
                actions.push(Action::Mount(backend));
            }
        }
        if self.copies {
            actions.extend(BACKENDS.map(Action::CopyDirectory));
            actions.push(Action::RestoreStore);
        }
        actions.push(Action::Foreign(false));
        actions.push(Action::Foreign(true));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        // What follows a violation is not interesting.
        if last.violation.is_some() {
            return None;
        }
        let mut state = last.clone();
        match action {
            // Nothing locks both list indexes of a backend.
            Action::Begin(_)
                if self.names != Names::TwoBackends && state.is_logging_in_anywhere() =>
            {
                return None;
            }
            Action::Begin(slot) => state.begin(slot, self.migration)?,
            Action::BeginBlind(slot) => state.begin(slot, false)?,
            Action::Step(slot, turn) => self.step(&mut state, slot, turn)?,
            Action::Crash(slot) => state.end(slot),
            Action::Close(backend) => {
                let host = state.hosts[backend];
                let owes = host.without != Without::No && host.owes && host.mounted;
                if owes && !self.makes(Mistake::SilentEnd) {
                    state.make_up(backend);
                }
                state.hosts[backend].session = false;
                state.hosts[backend].without = Without::No;
            }
            Action::MakeUp(backend) => {
                let host = state.hosts[backend];
                if host.without == Without::No || !host.owes || !host.mounted {
                    return None;
                }
                if self.makes(Mistake::SilentEnd) {
                    return None;
                }
                state.make_up(backend);
            }
            Action::Change(backend, with) => self.change(&mut state, backend, with)?,
            Action::Foreign(changes) => self.foreign(&mut state, changes)?,
            Action::Unmount(backend) => {
                if state.is_busy(backend) {
                    return None;
                }
                state.hosts[backend].mounted = false;
            }
            Action::CopyDirectory(to) => self.copy_directory(&mut state, to)?,
            Action::RestoreStore => self.restore_store(&mut state)?,
            Action::Mount(backend) => {
                let busy = state
                    .processes
                    .iter()
                    .any(|process| process.backend == backend && process.step != Step::Idle);
                if busy {
                    return None;
                }
                state.hosts[backend].mounted = true;
            }
        }
        let state = state.canonical(self);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no stale list index is trusted", |_, state: &State| {
                state.violation != Some(Violation::StaleTrusted)
            }),
            Property::always("no part of a list index is trusted", |_, state: &State| {
                state.violation != Some(Violation::PartTrusted)
            }),
            Property::always("no trusted list index is deleted", |_, state: &State| {
                state.violation != Some(Violation::NeedlesslyDeleted)
            }),
            Property::always(
                "a list index that nobody uses any more keeps nobody from another",
                |_, state: &State| state.violation != Some(Violation::DoesNotHeal),
            ),
            Property::always("no original is lost", |_, state: &State| {
                state.violation != Some(Violation::OriginalLost)
            }),
            Property::always("nobody else's list index is deleted", |_, state: &State| {
                state.violation != Some(Violation::ForeignDeleted)
            }),
            Property::always(
                "only the last claimer's record equals the claim",
                |_, state: &State| {
                    BACKENDS.iter().all(|&backend| {
                        let record = state.record(backend);
                        state.claim.is_none_or(|claim| {
                            record != Some(claim.identity) || claim.by == backend
                        })
                    })
                },
            ),
            // That the search gets anywhere at all.
            Property::sometimes("a session changes the mail", |_, state: &State| {
                state.changed
            }),
        ]
    }
}
