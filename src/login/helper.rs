//! The process that stays behind when a session runs without list index: it holds the sign of the
//! session, and makes sure that every later session knows what this one does.
//!
//! As long as the login's own claim stands, it covers what the session does. If the login could not
//! claim, this process tries again until it can. If another backend has claimed meanwhile, it claims
//! once more when the session is over, so that nobody trusts a list index that was built beside the
//! session. If this process is killed, the next login judges by what the sign says of the session.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::actor::Actor;
use crate::config::{LogSettings, Target};
use crate::event::Events;
use crate::local::session::{LINGERS, Session, State};
use crate::local::sign::Sign;
use crate::log::Log;
use crate::nfs::directory::IndexError;
use crate::reconcile::Reconciliation;
use crate::reconcile::outcome::{Claimed, Unvouched};
use crate::system::detach::{Side, close_all_but, detach};
use crate::system::process::{self, Process};
use crate::system::{credentials, descriptors, signals, start};

/// Between two attempts to claim.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Between two looks at a connection, since nothing signals its end. A young session is looked at
/// more often: the next login may come soon.
const LOOK_OFTEN: Duration = Duration::from_millis(500);
const LOOK_SELDOM: Duration = Duration::from_secs(5);
const YOUNG: Duration = Duration::from_secs(60);

/// How long to wait for a session that ends together with this process.
const ENDS_TOGETHER: Duration = Duration::from_secs(5);

/// How long to watch a process whose session has lost its connection: it may be expunging.
const EXPUNGES: Duration = Duration::from_secs(3600);

/// How long after the end of a session to wait for a missing INDEX.
const AWAY: Duration = Duration::from_secs(3600);

/// Leaves a process behind that looks after the session `unvouched` until it is over.
///
/// # Errors
/// If it cannot be made. The sign then holds while the session's connection or process exists.
pub fn stay_behind(
    reconciliation: &Reconciliation<'_>,
    unvouched: Unvouched,
    user: &[u8],
    log: LogSettings,
) -> nix::Result<()> {
    // Found out before the fork: it is this process that becomes the program.
    let session = unvouched
        .sign
        .as_ref()
        .map_or_else(Session::of_login, |sign| *sign.session());
    let process = session.process().copied().unwrap_or_else(Process::own);
    match detach()? {
        Side::Parent => Ok(()),
        Side::Detached => {
            // Whatever happens, this process must not go on as the login.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                stay(reconciliation, unvouched, session, process, user, log)
            }));
            start::exit(0)
        }
    }
}

fn stay(
    reconciliation: &Reconciliation<'_>,
    unvouched: Unvouched,
    session: Session,
    process: Process,
    user: &[u8],
    settings: LogSettings,
) -> nix::Result<()> {
    let Unvouched { sign, claimed } = unvouched;
    let requests = signals::requests_to_end()?;
    let mut kept = vec![requests.as_raw_fd()];
    kept.extend(sign.as_ref().map(|sign| sign.file().as_raw_fd()));
    close_all_but(&mut kept);
    descriptors::occupy_standard();
    nix::unistd::chdir("/")?;
    credentials::keep_effective_for_good()?;
    let Ok(actor) = Actor::current() else {
        return Err(Errno::EPERM);
    };
    // Dovecot's log is closed.
    let mut log = Log::new(user);
    log.configure(LogSettings {
        target: Target::Syslog,
        ..settings
    });
    Watch {
        reconciliation: &Reconciliation {
            actor: &actor,
            events: &log,
            index: reconciliation.index.clone(),
            list_index_directory: reconciliation.list_index_directory.clone(),
            prefix: reconciliation.prefix.clone(),
            ..*reconciliation
        },
        log: &log,
        requests,
        process: process.open().ok(),
        session,
        sign,
        claimed,
        is_over: false,
        is_to_end: false,
        began: Instant::now(),
    }
    .run();
    Ok(())
}

struct Watch<'a> {
    reconciliation: &'a Reconciliation<'a>,
    log: &'a dyn Events,
    requests: OwnedFd,
    /// While it runs.
    process: Option<OwnedFd>,
    session: Session,
    sign: Option<Sign>,
    claimed: Claimed,
    is_over: bool,
    /// Whether this process was told to end.
    is_to_end: bool,
    began: Instant,
}

/// Why a wait ended.
#[derive(PartialEq, Eq)]
enum Woken {
    /// It is time to look again.
    ByTime,
    /// This process is to end.
    ByRequest,
}

impl Watch<'_> {
    fn run(mut self) {
        self.is_over = self.wait_for_session();
        if !self.is_over {
            // The session goes on, so its sign stays.
            let _ = self.claim_again();
            return;
        }
        self.claim_at_the_end();
        if self.process.is_some() {
            // It may serve another session by now, or still work for this one.
            self.wait_for_process();
            self.claim_at_the_end();
        }
    }

    /// Whether the session is over: if not, this process has to end before it.
    fn wait_for_session(&mut self) -> bool {
        let mut pause = SHORTEST_PAUSE;
        let mut next_attempt = self.began + pause;
        let mut lingers_since = None;
        let mut until: Option<Instant> = None;
        loop {
            match self.session.state() {
                State::Over => return true,
                State::Open => lingers_since = None,
                State::Lingering => {
                    let since = *lingers_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LINGERS {
                        return true;
                    }
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            if Instant::now() >= next_attempt {
                self.make_up();
                pause = (pause * 2).min(LONGEST_PAUSE);
                next_attempt = Instant::now() + pause;
            }
            let look = if self.began.elapsed() < YOUNG {
                LOOK_OFTEN
            } else {
                LOOK_SELDOM
            };
            if self.wait(look) == Woken::ByRequest {
                let _ = self.claim_again();
                until = until.or(Some(Instant::now() + ENDS_TOGETHER));
            }
        }
    }

    /// Does what could not be done when the session began.
    fn make_up(&mut self) {
        match &self.sign {
            Some(sign) => sign.note(),
            None => self.sign = self.reconciliation.leave_sign_late(self.session),
        }
        if self.claimed == Claimed::No && self.claim_again().is_ok() {
            let index = self.reconciliation.index.path.display();
            let seconds = self.began.elapsed().as_secs();
            self.log.info(format_args!(
                "claimed {index} for a session without list index, {seconds} s after its beginning"
            ));
        }
    }

    /// Claims the user unless what this session claimed still stands.
    fn claim_again(&mut self) -> Result<(), IndexError> {
        let noted = self.is_over || self.sign.as_ref().is_some_and(Sign::is_noted);
        let session = (!noted).then_some(self.session);
        self.claimed = self.reconciliation.claim_unless(self.claimed, session)?;
        Ok(())
    }

    fn claim_at_the_end(&mut self) {
        let ended = Instant::now();
        let mut pause = SHORTEST_PAUSE;
        let mut told = false;
        loop {
            let claimed = self.claim_again();
            // After the first attempt, so that a login which waits for it need not claim itself. A
            // session that is over keeps nobody from anything.
            if let Some(sign) = self.sign.take() {
                sign.take_back();
            }
            let index = self.reconciliation.index.path.display();
            match claimed {
                Ok(()) => return,
                Err(IndexError::Missing(_)) => {
                    if ended.elapsed() >= AWAY {
                        return self.log.info(format_args!(
                            "{index} did not exist during a session without list index, nor for an hour after it: nobody could claim the user"
                        ));
                    }
                }
                Err(error) if !told => {
                    told = true;
                    self.log.error(format_args!(
                        "cannot claim {index} after a session without list index, trying again; until then other backends may show old folders: {error}"
                    ));
                }
                Err(_) => {}
            }
            if self.is_to_end {
                return;
            }
            if self.wait_for_time(pause) == Woken::ByRequest {
                let _ = self.claim_again();
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn wait_for_process(&mut self) {
        let began = Instant::now();
        while self.process.is_some() && began.elapsed() < EXPUNGES {
            if self.wait(EXPUNGES - began.elapsed().min(EXPUNGES)) == Woken::ByRequest {
                return;
            }
        }
        self.process = None;
    }

    /// Waits until the mail process ends, but not longer than `time`.
    fn wait(&mut self, time: Duration) -> Woken {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut polled = vec![PollFd::new(self.requests.as_fd(), PollFlags::POLLIN)];
        let process = self.process.as_ref();
        polled.extend(process.map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut polled, timeout);
        let requested = polled[0].any().unwrap_or(false);
        if process.is_some_and(process::has_ended) {
            self.process = None;
        }
        if requested {
            // Read, so that it does not wake this process again.
            let _ = nix::unistd::read(&self.requests, &mut [0; 128]);
            return Woken::ByRequest;
        }
        Woken::ByTime
    }

    fn wait_for_time(&self, time: Duration) -> Woken {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.requests.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut polled, timeout);
        if polled[0].any().unwrap_or(false) {
            Woken::ByRequest
        } else {
            Woken::ByTime
        }
    }
}
