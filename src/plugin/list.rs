//! One list index in one session, from the moment Dovecot knows where it is until the session ends.

use std::fmt;
use std::time::{Duration, Instant};

use nfs_hostchange::actor::Actor;
use nfs_hostchange::dovecot::location::Tracked;
use nfs_hostchange::event::{Events, Level};
use nfs_hostchange::local::lock::LockError;
use nfs_hostchange::local::session::Session;
use nfs_hostchange::local::sign::Sign;
use nfs_hostchange::nfs::directory::{Index, IndexError, Migration};
use nfs_hostchange::nfs::host::HostName;
use nfs_hostchange::nfs::identity::Identity;
use nfs_hostchange::reconcile::Reconciliation;
use nfs_hostchange::reconcile::in_place::{Missing, Step};
use nfs_hostchange::reconcile::outcome::{Doubt, Outcome};
use nfs_hostchange::system::credentials::UserId;

/// Who has the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An IMAP session of the owner: it takes the list index over when it begins.
    Serves,
    /// Whoever else has the owner's rights: deliveries, commands. Who only reads claims nothing, and
    /// who changes something claims because of that.
    Visits,
    /// Another user, who may not even look at the owner's directories.
    Guest,
}

/// What does not change.
#[derive(Debug)]
pub struct Place {
    /// Where the list index and INDEX are.
    pub tracked: Tracked,
    /// What to do with a list index in INDEX.
    pub migration: Migration,
    /// This backend, if the configuration names it.
    pub host: Option<HostName>,
    /// How long to wait for others.
    pub lock_timeout: Duration,
    /// Who has the list.
    pub role: Role,
    /// It has the user's rights at its end, too; otherwise it looks again after each change.
    pub keeps_rights: bool,
    /// How often to look again before something is read. Zero: never.
    pub looks_every: Duration,
}

impl Place {
    fn with<'a>(&'a self, actor: &'a Actor, events: &'a dyn Events) -> Reconciliation<'a> {
        Reconciliation {
            index: Index {
                path: self.tracked.index_dir().to_owned(),
                claim_name: self.tracked.claim_name().to_owned(),
                migration: self.migration,
            },
            list_index_directory: self.tracked.list_index_dir().to_owned(),
            prefix: self.tracked.prefix().to_owned(),
            actor,
            host: self.host.as_ref(),
            lock_timeout: self.lock_timeout,
            session: Session::of_process,
            events,
        }
    }
}

/// What the session does with the list index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing about it is local.
    NothingLocal,
    /// It uses it as it is.
    Used,
    /// It uses it, but has to [take it over](List::take_over) first.
    ToTakeOver,
    /// It uses it after Dovecot has forgotten what was in it, but nothing could be recorded.
    Unrecorded,
    /// It does not.
    Without,
}

/// One list index in one session.
#[derive(Debug)]
pub struct List {
    place: Place,
    /// Whose rights the session had when it began, unless they were root's.
    user: Option<UserId>,
    using: Use,
    /// The claim under which everything that this session knows is known to all backends.
    known: Option<Identity>,
    /// Held as long as the session goes without.
    sign: Option<Sign>,
    /// It cannot be recorded before Dovecot has made INDEX.
    waits_for_index: bool,
    /// Since the last look that showed it to be known everywhere.
    changed: bool,
    /// When it looked at the claim.
    looked: Instant,
}

/// A session that goes on changing things looks again after so long: should it be killed, what it
/// changed before is known.
const LOOKS_AFTER_CHANGES_EVERY: Duration = Duration::from_secs(1);

/// Passes on errors alone: what is said once at a login could be said every second here.
struct Quiet<'a>(&'a dyn Events);

impl Events for Quiet<'_> {
    fn event(&self, level: Level, message: &dyn fmt::Display) {
        if level == Level::Error {
            self.0.event(level, message);
        }
    }
}

impl List {
    /// What a session knows that has not looked yet: nothing, so that it goes without.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            user: None,
            using: Use::Without,
            known: None,
            sign: None,
            waits_for_index: false,
            changed: false,
            looked: Instant::now(),
        }
    }

    /// Looks at both sides before Dovecot opens the list index.
    pub fn begin(&mut self, events: &dyn Events) {
        match Actor::current() {
            Ok(actor) => {
                self.user = Some(actor.user());
                self.waiting(|list| list.look(&actor, events));
            }
            Err(error) => without(events, Level::Error, &error),
        }
    }

    /// The user, if the process still has the rights that it had when the session began: it may have
    /// root's by now, or those of the next user.
    fn actor(&self) -> Option<Actor> {
        let actor = Actor::current().ok()?;
        (self.user == Some(actor.user())).then_some(actor)
    }

    /// Does `work`, which may wait for others: all waits of a session together are bounded.
    fn waiting(&mut self, work: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        work(self);
        let left = self.place.lock_timeout.saturating_sub(began.elapsed());
        self.place.lock_timeout = left;
    }

    fn look(&mut self, actor: &Actor, events: &dyn Events) {
        let reconciliation = self.place.with(actor, events);
        let serves = self.place.role == Role::Serves;
        let missing = if serves {
            Missing::Make
        } else {
            Missing::Leave
        };
        (self.using, self.known) = match reconciliation.compare_only(missing) {
            Ok(Step::NothingLocal) => (Use::NothingLocal, None),
            Ok(Step::In(claim)) => (Use::Used, Some(claim)),
            Ok(Step::Out) if serves => match reconciliation.migrate_unopened() {
                // What it left is in step, and will be found so.
                Some(Outcome::Vouched) | None => (Use::ToTakeOver, None),
                Some(Outcome::Unvouched(unvouched)) => {
                    self.sign = unvouched.sign;
                    (Use::Without, None)
                }
            },
            Ok(Step::NoIndex) if serves => (Use::ToTakeOver, None),
            Ok(Step::Out | Step::NoIndex) => (Use::Without, None),
            // Once more when Dovecot opens it.
            Err(Doubt::Lock(LockError::TimedOut(_))) if serves => (Use::ToTakeOver, None),
            // The local directory is the owner's alone.
            Err(Doubt::Directory(_)) if self.place.role == Role::Guest => (Use::Without, None),
            Err(doubt) => {
                without(events, doubt.level(), &doubt);
                if serves {
                    self.sign = reconciliation.go_without(doubt);
                }
                (Use::Without, None)
            }
        };
    }

    /// What the session does with the list index now.
    pub fn using(&self) -> Use {
        self.using
    }

    /// Before the list index, which Dovecot can open now, is used to list folders or to answer for
    /// one of them. The first time it is made the user's present one: `forget` has Dovecot forget
    /// everything in it. Later, this session sees to it now and then that it still is.
    pub fn before_reading(
        &mut self,
        events: &dyn Events,
        in_memory: bool,
        mut forget: impl FnMut() -> bool,
    ) {
        let every = self.place.looks_every;
        if self.using == Use::ToTakeOver {
            self.take_over(events, &mut forget);
        } else if every.is_zero() || self.looked.elapsed() < every {
        } else if in_memory {
            // Nobody else writes to it.
            self.looked = Instant::now();
            self.leave_if(in_memory, events);
            forget();
        } else if matches!(self.using, Use::Used | Use::Unrecorded) {
            self.check(&Quiet(events), Some(&mut forget));
        }
    }

    fn take_over(&mut self, events: &dyn Events, forget: &mut dyn FnMut() -> bool) {
        self.waiting(|list| list.try_take_over(events, forget));
    }

    fn try_take_over(&mut self, events: &dyn Events, forget: &mut dyn FnMut() -> bool) {
        let mut forgotten = false;
        let Some(actor) = self.actor() else {
            return;
        };
        let taken = self.place.with(&actor, events).take_over_open(|| {
            forgotten = forget();
            forgotten
        });
        self.using = match taken {
            Ok(claim) => {
                self.known = Some(claim);
                self.waits_for_index = false;
                self.changed = false;
                Use::Used
            }
            Err(doubt) => {
                let level = match doubt {
                    // Everybody takes it over in turn, and not everybody waits.
                    Doubt::Lock(LockError::TimedOut(_)) => Level::Info,
                    _ => doubt.level(),
                };
                // A new user's first session, until Dovecot makes INDEX.
                self.waits_for_index = matches!(doubt, Doubt::Index(IndexError::Missing(_)));
                if !self.waits_for_index && self.using != Use::Unrecorded {
                    events.event(level, &format_args!("list index not recorded: {doubt}"));
                }
                // It has it open, and must not see what was in it.
                if !forgotten {
                    forget();
                }
                Use::Unrecorded
            }
        };
    }

    /// Before something is changed that a list index shows.
    pub fn before_change(&mut self, events: &dyn Events) {
        if self.using == Use::Without && self.known.is_none() {
            if let Some(actor) = self.actor() {
                self.known = self.place.with(&actor, events).claim_change(None);
            }
        }
    }

    /// After that. `in_memory` says that the list index is not in a file any more. A session that
    /// goes on has to [look](Self::look_after_change) after the time that is returned.
    pub fn after_change(
        &mut self,
        events: &dyn Events,
        in_memory: bool,
        mut forget: impl FnMut() -> bool,
    ) -> Option<Duration> {
        self.changed = true;
        self.leave_if(in_memory, events);
        if self.using == Use::Unrecorded
            && self.waits_for_index
            && self.place.tracked.index_dir().exists()
        {
            self.take_over(events, &mut forget);
        } else if self.using == Use::Without
            || !self.place.keeps_rights
            || self.looked.elapsed() >= LOOKS_AFTER_CHANGES_EVERY
        {
            let forget = self.goes_on().then_some(&mut forget as _);
            self.check(&Quiet(events), forget);
        }
        let left = LOOKS_AFTER_CHANGES_EVERY.saturating_sub(self.looked.elapsed());
        (self.changed && self.goes_on()).then_some(left)
    }

    /// Looks now, if something was changed since the last time.
    pub fn look_after_change(&mut self, events: &dyn Events, mut forget: impl FnMut() -> bool) {
        if self.changed {
            self.check(&Quiet(events), Some(&mut forget));
        }
    }

    /// Whether it looks again while it is open.
    fn goes_on(&self) -> bool {
        !self.place.looks_every.is_zero()
    }

    /// The session ends. No change comes after this.
    pub fn end(&mut self, events: &dyn Events, in_memory: bool) {
        self.leave_if(in_memory, events);
        if self.changed {
            self.check(events, None);
        }
        if let Some(sign) = self.sign.take() {
            sign.take_back(!self.changed);
        }
    }

    fn leave_if(&mut self, in_memory: bool, events: &dyn Events) {
        if !in_memory || !matches!(self.using, Use::Used | Use::Unrecorded) {
            return;
        }
        if let Some(actor) = self.actor() {
            self.place.with(&actor, events).void_record();
            let path = self.place.tracked.list_index_dir().display();
            events.event(
                Level::Error,
                &format_args!("Dovecot moved the list index of {path} into memory: is there room?"),
            );
        }
        self.using = Use::Without;
    }

    /// Whatever was changed until now is known to every later session, here and elsewhere, or a
    /// claim is made that voids what they have. With `forget` the session goes on, and what others
    /// have changed is known to it as well.
    fn check(&mut self, events: &dyn Events, forget: Option<&mut dyn FnMut() -> bool>) {
        let Some(actor) = self.actor() else {
            return;
        };
        self.looked = Instant::now();
        let reconciliation = self.place.with(&actor, events);
        let stands = reconciliation.still_stands(self.known);
        // Who cannot ask and only reads goes on as he is: Dovecot could not read anything else.
        if stands == Some(true) {
            self.changed = false;
        }
        if stands == Some(true) || stands.is_none() && !self.changed {
            return;
        }
        if self.using == Use::Used {
            if let Ok(Step::In(claim)) = reconciliation.compare_only(Missing::Leave) {
                // Another session of this backend has taken the list index over, with what this one
                // wrote to it.
                self.known = Some(claim);
                self.changed = false;
                return;
            }
        }
        let goes_on = stands.is_some() && self.using != Use::Without;
        let Some(forget) = forget.filter(|_| goes_on) else {
            self.claim_change(&actor, events);
            return;
        };
        if self.place.role == Role::Serves {
            self.take_over(events, forget);
            if self.using == Use::Used {
                return;
            }
        }
        if self.changed {
            self.claim_change(&actor, events);
        }
        // Not recorded, so that who only reads does it each time.
        self.using = Use::Unrecorded;
        forget();
    }

    fn claim_change(&mut self, actor: &Actor, events: &dyn Events) {
        self.known = self.place.with(actor, events).claim_change(self.known);
        self.changed &= self.known.is_none();
    }
}

fn without(events: &dyn Events, level: Level, reason: &dyn fmt::Display) {
    events.event(level, &format_args!("session without list index: {reason}"));
}
