//! The protocol of the mail plugin, as a state machine for an exhaustive search: sessions that overlap
//! as they like, on one backend and on two, and may be killed at any step.
//!
//! As in the model of logins, what the mail consists of is reduced to one question: one change is made,
//! at any moment and by any session, and then a list index shows it or does not. Nobody is assumed to
//! stop because another backend has claimed the user. What is promised is promised to whoever begins, or
//! looks again, after the session that made the change has ended or looked again; if that was killed,
//! nothing is.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

const STALE: &str = "whoever begins or looks again after a change sees it";

/// What can be left out or done in the wrong order. `None` is the protocol as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Nobody looks at the claim once more after a change.
    NoLookAfter,
    /// A session that uses the list index does not look once more.
    NoLookOfUsers,
    /// Dovecot forgets before the user is claimed.
    ForgetBeforeClaim,
    /// The record is written before Dovecot has forgotten.
    RecordBeforeForget,
    /// Nothing is forgotten.
    NoForget,
    /// A session that goes on forgets what is in the list index when another has claimed, but does
    /// not claim.
    LookAgainWithoutClaim,
    /// It claims, but forgets nothing.
    LookAgainWithoutForget,
}

/// When a session claims and looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Takes the list index over when it begins, and looks once more at its end.
    Imap,
    /// Claims before a change if it has no list index, and looks once more at its end.
    Command,
    /// The same, but looks after each change: at its end it has other rights.
    Delivery,
}

/// Claims are told apart, and nothing else.
type Claim = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// There is no session.
    Idle,
    /// The claim was looked at, the record not yet.
    Looked(Option<Claim>),
    /// To be taken over, and not locked yet.
    ToTakeOver,
    /// Locked; the first of the following is the next one.
    Locked(&'static [Part]),
    Open,
    /// The change is in the store, but not in the list index.
    Changed,
    /// It looks again before it reads.
    ToLookAgain,
    /// It looks once more, and goes on or ends.
    ToLookOnceMore,
    /// The claim was another; is it that of the record here?
    ToCompare(Option<Claim>),
    /// The same, by one who looks again before it reads.
    ToCompareAgain(Option<Claim>),
}

/// What is done under the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Look,
    Empty,
    Claim,
    Forget,
    Record,
}

use Part::{Claim as MakeClaim, Empty, Forget, Look, Record};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Session {
    step: Step,
    uses_list_index: bool,
    known: Option<Claim>,
    has_changed: bool,
    /// Began after the session with the change had ended, or looked again after that.
    is_late: bool,
    is_ending: bool,
}

const NOBODY: Session = Session {
    step: Step::Idle,
    uses_list_index: false,
    known: None,
    has_changed: false,
    is_late: false,
    is_ending: false,
};

impl Session {
    fn claims(&mut self) -> impl Iterator<Item = &mut Claim> {
        let seen = match &mut self.step {
            Step::Looked(claim) | Step::ToCompare(claim) | Step::ToCompareAgain(claim) => {
                claim.as_mut()
            }
            _ => None,
        };
        self.known.as_mut().into_iter().chain(seen)
    }
}

/// One backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Host {
    record: Option<Claim>,
    /// Whether the list index shows the change; `None` if it is to be read from the store.
    shows: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    claim: Option<Claim>,
    hosts: [Host; 2],
    sessions: Vec<Session>,
    changed: bool,
    /// The session that made the change has ended, or has looked again since.
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Begin(usize),
    Step(usize),
    Read(usize),
    LookAgain(usize),
    Change(usize),
    End(usize),
    Kill(usize),
}

struct Protocol {
    /// Which sessions there may be at once: the backend of each, and what it is.
    sessions: Vec<(usize, Kind)>,
    mistake: Mistake,
}

impl State {
    fn is_locked(&self, protocol: &Protocol, backend: usize) -> bool {
        let mut sessions = self.sessions.iter().zip(&protocol.sessions);
        sessions.any(|(session, (on, _))| *on == backend && matches!(session.step, Step::Locked(_)))
    }

    /// Every claim that anybody knows of.
    fn claims(&mut self) -> Vec<&mut Claim> {
        let of_hosts = self
            .hosts
            .iter_mut()
            .filter_map(|host| host.record.as_mut());
        let of_sessions = self.sessions.iter_mut().flat_map(Session::claims);
        (self.claim.as_mut().into_iter())
            .chain(of_hosts)
            .chain(of_sessions)
            .collect()
    }

    fn new_claim(&mut self) -> Claim {
        let taken = self.claims();
        (0..)
            .find(|claim| !taken.iter().any(|taken| **taken == *claim))
            .expect("there are few")
    }

    /// Sessions of a kind cannot be told apart, and claims only from one another.
    fn canonical(mut self, protocol: &Protocol) -> State {
        for first in 0..self.sessions.len() {
            for second in first + 1..self.sessions.len() {
                let is_alike = protocol.sessions[first] == protocol.sessions[second];
                if is_alike && self.sessions[second] < self.sessions[first] {
                    self.sessions.swap(first, second);
                }
            }
        }
        let mut seen = Vec::new();
        for claim in self.claims() {
            let place = seen.iter().position(|other| other == claim);
            let number = place.unwrap_or_else(|| {
                seen.push(*claim);
                seen.len() - 1
            });
            *claim = number as Claim;
        }
        self
    }
}

impl Protocol {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn parts(&self) -> &'static [Part] {
        match self.mistake {
            Mistake::ForgetBeforeClaim => &[Look, Empty, Forget, MakeClaim, Record],
            Mistake::RecordBeforeForget => &[Look, Empty, MakeClaim, Record, Forget],
            Mistake::NoForget => &[Look, Empty, MakeClaim, Record],
            _ => &[Look, Empty, MakeClaim, Forget, Record],
        }
    }

    /// The session in SLOT does its next step.
    fn step(&self, state: &mut State, slot: usize) -> Option<()> {
        let (backend, kind) = self.sessions[slot];
        let host = state.hosts[backend];
        let mut session = state.sessions[slot];
        match session.step {
            Step::Idle | Step::Open => return None,
            Step::Looked(claim) => {
                if state.is_locked(self, backend) {
                    if kind == Kind::Imap {
                        return None;
                    }
                    session.step = Step::Open;
                } else if claim.is_some() && host.record == claim {
                    session.uses_list_index = true;
                    session.known = claim;
                    session.step = Step::Open;
                } else if kind == Kind::Imap {
                    session.step = Step::ToTakeOver;
                } else {
                    session.step = Step::Open;
                }
            }
            Step::ToTakeOver => {
                if state.is_locked(self, backend) {
                    return None;
                }
                session.step = Step::Locked(self.parts());
            }
            Step::Locked([]) => {
                state.is_over |= session.has_changed;
                session.uses_list_index = true;
                session.step = Step::Open;
            }
            Step::Locked([part, rest @ ..]) => {
                session.step = Step::Locked(rest);
                match part {
                    Look if state.claim.is_some() && state.claim == host.record => {
                        session.known = state.claim;
                        session.step = Step::Locked(&[]);
                    }
                    Look => {}
                    Empty => state.hosts[backend].record = None,
                    MakeClaim => {
                        session.known = Some(state.new_claim());
                        state.claim = session.known;
                    }
                    Forget => state.hosts[backend].shows = None,
                    Record => state.hosts[backend].record = session.known,
                }
            }
            Step::Changed => {
                if session.uses_list_index {
                    state.hosts[backend].shows = Some(true);
                }
                let looks_now = !session.uses_list_index || kind == Kind::Delivery;
                session.step = if looks_now {
                    Step::ToLookOnceMore
                } else {
                    Step::Open
                };
            }
            Step::ToLookAgain => {
                // What is over by now is to be seen from now on.
                session.is_late |= state.is_over;
                let claim = state.claim;
                let is_known = |session: &Session| claim.is_some() && session.known == claim;
                session.step = if is_known(&session) {
                    state.is_over |= session.has_changed;
                    Step::Open
                } else {
                    Step::ToCompareAgain(claim)
                };
            }
            Step::ToCompareAgain(claim) => {
                let is_in_step = claim.is_some() && host.record == claim;
                session.step = Step::Open;
                if state.is_locked(self, backend) {
                    return None;
                } else if is_in_step || self.makes(Mistake::LookAgainWithoutClaim) {
                    session.known = claim;
                    state.is_over |= session.has_changed;
                    if !is_in_step {
                        state.hosts[backend].shows = None;
                    }
                } else if self.makes(Mistake::LookAgainWithoutForget) {
                    session.known = Some(state.new_claim());
                    state.claim = session.known;
                } else {
                    session.step = Step::ToTakeOver;
                }
            }
            Step::ToLookOnceMore => {
                let is_left_out = self.makes(Mistake::NoLookAfter)
                    || session.uses_list_index && self.makes(Mistake::NoLookOfUsers);
                if is_left_out || session.known.is_some() && session.known == state.claim {
                    session.step = Step::Open;
                } else {
                    session.step = Step::ToCompare(state.claim);
                }
            }
            Step::ToCompare(claim) => {
                if session.uses_list_index && claim.is_some() && host.record == claim {
                    session.known = claim;
                } else {
                    session.known = Some(state.new_claim());
                    state.claim = session.known;
                }
                session.step = Step::Open;
            }
        }
        if session.is_ending && session.step == Step::Open {
            state.is_over |= session.has_changed;
            session = NOBODY;
        }
        state.sessions[slot] = session;
        Some(())
    }

    fn change(&self, state: &mut State, slot: usize) -> Option<()> {
        let session = state.sessions[slot];
        if session.step != Step::Open || session.is_ending || state.changed {
            return None;
        }
        if !session.uses_list_index && session.known.is_none() {
            // The claim comes first; the change is the session's next step.
            let claim = state.new_claim();
            state.claim = Some(claim);
            state.sessions[slot].known = Some(claim);
            return Some(());
        }
        state.changed = true;
        state.sessions[slot].has_changed = true;
        state.sessions[slot].step = Step::Changed;
        Some(())
    }

    fn end(&self, state: &mut State, slot: usize) -> Option<()> {
        let session = state.sessions[slot];
        if session.step != Step::Open || session.is_ending {
            return None;
        }
        let (_, kind) = self.sessions[slot];
        if session.has_changed && kind != Kind::Delivery {
            state.sessions[slot].is_ending = true;
            state.sessions[slot].step = Step::ToLookOnceMore;
        } else {
            state.is_over |= session.has_changed;
            state.sessions[slot] = NOBODY;
        }
        Some(())
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let host = Host {
            record: None,
            shows: None,
        };
        vec![State {
            claim: None,
            hosts: [host, host],
            sessions: vec![NOBODY; self.sessions.len()],
            changed: false,
            is_over: false,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        for slot in 0..self.sessions.len() {
            actions.extend([
                Action::Begin(slot),
                Action::Step(slot),
                Action::Read(slot),
                Action::LookAgain(slot),
                Action::Change(slot),
                Action::End(slot),
                Action::Kill(slot),
            ]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin(slot) if state.sessions[slot] == NOBODY => {
                state.sessions[slot] = Session {
                    step: Step::Looked(state.claim),
                    is_late: state.is_over,
                    ..NOBODY
                };
            }
            Action::Begin(_) => return None,
            Action::Step(slot) => self.step(&mut state, slot)?,
            Action::Read(slot) => {
                let session = state.sessions[slot];
                let host = &mut state.hosts[self.sessions[slot].0];
                if session.step != Step::Open || !session.uses_list_index || host.shows.is_some() {
                    return None;
                }
                host.shows = Some(state.changed);
            }
            Action::LookAgain(slot) => {
                let session = &mut state.sessions[slot];
                let is_imap = self.sessions[slot].1 == Kind::Imap;
                if session.step != Step::Open || !session.uses_list_index || !is_imap {
                    return None;
                }
                session.step = Step::ToLookAgain;
            }
            Action::Change(slot) => self.change(&mut state, slot)?,
            Action::End(slot) => self.end(&mut state, slot)?,
            Action::Kill(slot) => state.sessions[slot] = NOBODY,
        }
        let state = state.canonical(self);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(STALE, |protocol: &Protocol, state: &State| {
                let mut sessions = state.sessions.iter().zip(&protocol.sessions);
                sessions.all(|(session, (backend, _))| {
                    let is_open = session.step == Step::Open && session.uses_list_index;
                    !(session.is_late && is_open && state.hosts[*backend].shows == Some(false))
                })
            }),
            Property::sometimes("a late session uses the list index", |_, state: &State| {
                let uses = |session: &Session| session.is_late && session.uses_list_index;
                state.sessions.iter().any(uses)
            }),
        ]
    }
}

const A: usize = 0;
const B: usize = 1;
const IMAP_A: (usize, Kind) = (A, Kind::Imap);
const IMAP_B: (usize, Kind) = (B, Kind::Imap);

/// Searches everything; nothing may be found.
fn check(sessions: &[(usize, Kind)]) {
    let began = Instant::now();
    let protocol = Protocol {
        sessions: sessions.to_vec(),
        mistake: Mistake::None,
    };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{sessions:?}: {} states, up to {} steps deep, {:.1?}",
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
}

#[test]
fn sessions_that_overlap_on_two_backends_hide_no_change_from_later_ones() {
    check(&[IMAP_A, IMAP_B]);
    check(&[IMAP_A, IMAP_A, IMAP_B]);
}

#[test]
fn deliveries_and_commands_beside_sessions_hide_no_change_from_later_ones() {
    for kind in [Kind::Delivery, Kind::Command] {
        check(&[IMAP_A, (B, kind)]);
        check(&[IMAP_A, IMAP_B, (B, kind)]);
    }
}

#[test]
#[ignore = "takes minutes"]
fn four_sessions_at_once_hide_no_change_from_later_ones() {
    check(&[IMAP_A, IMAP_A, IMAP_B, IMAP_B]);
    check(&[IMAP_A, IMAP_B, (A, Kind::Command), (B, Kind::Delivery)]);
}

#[test]
fn the_search_finds_what_is_left_out_or_in_the_wrong_order() {
    let with_delivery = &[IMAP_A, IMAP_B, (B, Kind::Delivery)][..];
    let with_another = &[IMAP_A, IMAP_A, IMAP_B][..];
    for (mistake, sessions) in [
        (Mistake::NoLookAfter, with_delivery),
        (Mistake::NoLookOfUsers, with_another),
        (Mistake::ForgetBeforeClaim, with_another),
        (Mistake::RecordBeforeForget, with_another),
        (Mistake::NoForget, with_another),
        (Mistake::LookAgainWithoutClaim, with_another),
        (Mistake::LookAgainWithoutForget, with_another),
    ] {
        let protocol = Protocol {
            sessions: sessions.to_vec(),
            mistake,
        };
        let checker = (protocol.checker().threads(2))
            .finish_when(HasDiscoveries::AnyOf([STALE].into()))
            .spawn_bfs()
            .join();
        let path = checker.assert_any_discovery(STALE).into_actions();
        println!("{mistake:?}: {} steps", path.len());
    }
}
