//! The process that stays behind when a session runs without list index: it holds the sign of the
//! session, and makes sure that every later session knows what this one does.
//!
//! As long as the login's own claim stands, it covers what the session does. If the login could not
//! claim, this process tries again until it can. If another backend has claimed meanwhile, it claims
//! once more when the session is over, so that nobody trusts a list index that was built beside the
//! session. If this process is killed, the next login judges by what the sign says of the session.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::actor::Actor;
use crate::config::{LogSettings, Target};
use crate::event::{Events, Level};
use crate::local::session::{LINGERS, Session, State};
use crate::local::sign::{Former, PATIENCE, Sign};
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

/// How long to wait for a file server after this process was told to end.
const ENDS_WITHOUT_ANSWER: Duration = Duration::from_secs(10);

/// For the thread that does so. The least that every C library takes.
const STACK: usize = 16 * 1024;

/// How long to watch a process whose session has lost its connection: it may be expunging.
const EXPUNGES: Duration = Duration::from_secs(3600);

/// How long after the end of a session to wait for an INDEX that is missing or cannot be claimed.
const AWAY: Duration = Duration::from_secs(3600);

/// The same where LISTINDEX does not show who else waits: there may be many.
const AWAY_UNSEEN: Duration = Duration::from_secs(300);

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
    let is_named = claimed != Claimed::No && !sign.as_ref().is_some_and(Sign::is_noted);
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
        former: None,
        claimed,
        is_named,
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
    /// Readable from the moment on when this process is told to end.
    requests: OwnedFd,
    /// While it runs.
    process: Option<OwnedFd>,
    session: Session,
    sign: Option<Sign>,
    /// In place of the sign, when the session is over.
    former: Option<Former>,
    claimed: Claimed,
    /// Whether a claim names the session.
    is_named: bool,
    is_over: bool,
    /// Whether this process was told to end.
    is_to_end: bool,
    began: Instant,
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
            if self.is_to_end && until.is_none() {
                let _ = self.claim_again();
                until = Some(Instant::now() + ENDS_TOGETHER);
            } else if Instant::now() >= next_attempt {
                self.make_up();
                pause = (pause * 2).min(LONGEST_PAUSE);
                next_attempt = Instant::now() + pause;
            }
            self.wait(if self.began.elapsed() < YOUNG {
                LOOK_OFTEN
            } else {
                LOOK_SELDOM
            });
        }
    }

    /// Does what could not be done when the session began.
    fn make_up(&mut self) {
        match &self.sign {
            Some(sign) => sign.note(PATIENCE),
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

    /// Claims the user unless what this session claimed still stands. A claim that names it does not
    /// stay when it is over: its host may be called otherwise later, and nobody else takes the name out.
    fn claim_again(&mut self) -> Result<(), IndexError> {
        if self.is_named && (self.is_over || self.session.state() == State::Over) {
            self.claimed = ending_in_time(&self.requests, || {
                self.reconciliation.claim_after(&self.session)
            })?;
            self.is_named = false;
            return Ok(());
        }
        let noted = self.is_over || self.sign.as_ref().is_some_and(Sign::is_noted);
        let session = (!noted).then_some(self.session);
        let before = self.claimed;
        self.claimed = ending_in_time(&self.requests, || {
            self.reconciliation.claim_unless(before, session)
        })?;
        if self.claimed != before {
            self.is_named = session.is_some();
        }
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
                self.former = Some(sign.take_back(claimed.is_ok()));
            }
            let Err(error) = claimed else {
                if let Some(former) = &self.former {
                    former.take_back_note();
                }
                return;
            };
            // Each login of a user whose INDEX cannot be written comes here.
            let is_to_go_on = self.former.as_ref().is_none_or(Former::is_to_go_on);
            if self.is_to_end || !is_to_go_on {
                return;
            }
            let index = self.reconciliation.index.path.display();
            let is_missing = matches!(error, IndexError::Missing(_));
            let most = self.former.as_ref().map_or(AWAY_UNSEEN, |_| AWAY);
            if ended.elapsed() >= most {
                let minutes = most.as_secs() / 60;
                let level = if is_missing {
                    Level::Info
                } else {
                    Level::Error
                };
                return self.log.event(level, &format_args!(
                    "gave up claiming {index}, {minutes} minutes after a session without list index: {error}"
                ));
            }
            if !is_missing && !told {
                told = true;
                self.log.error(format_args!(
                    "cannot claim {index} after a session without list index, trying again; until then other backends may show old folders: {error}"
                ));
            }
            self.wait(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn wait_for_process(&mut self) {
        let began = Instant::now();
        // A process that serves many sessions, one after the other, does not end with this one.
        let is_to_go_on = self.former.as_ref().is_some_and(Former::is_to_go_on);
        let most = if is_to_go_on { EXPUNGES } else { LINGERS };
        while self.process.is_some() && !self.is_to_end && began.elapsed() < most {
            self.wait(most.saturating_sub(began.elapsed()));
        }
        self.process = None;
    }

    /// Waits until the mail process ends or this one is told to end, but not longer than `time`.
    fn wait(&mut self, time: Duration) {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // An array: this is done for days, and no memory is given back.
        let process = self.process.as_ref();
        let mut polled = [
            polled(&self.requests, !self.is_to_end),
            polled(process.unwrap_or(&self.requests), process.is_some()),
        ];
        let _ = poll(&mut polled, timeout);
        self.is_to_end |= polled[0].any().unwrap_or(false);
        if process.is_some_and(process::has_ended) {
            self.process = None;
        }
    }
}

/// Does `work`, which waits for the file server. If that does not answer, nothing ends a call to it but
/// the end of the process: so that comes in time when this process is told to end.
fn ending_in_time<T>(requests: &OwnedFd, work: impl FnOnce() -> T) -> T {
    // Where there is no room for this, SIGKILL has to do it.
    let Ok((working, done)) = UnixStream::pair() else {
        return work();
    };
    thread::scope(|scope| {
        let end = move || {
            let mut polled = [
                PollFd::new(done.as_fd(), PollFlags::POLLIN),
                PollFd::new(requests.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut polled, PollTimeout::NONE);
            let patience = PollTimeout::try_from(ENDS_WITHOUT_ANSWER);
            if poll(&mut polled[..1], patience.unwrap_or(PollTimeout::MAX)) == Ok(0) {
                start::exit(0);
            }
        };
        let thread = thread::Builder::new().stack_size(STACK);
        let _ = thread.spawn_scoped(scope, end);
        let result = work();
        // That is, done.
        drop(working);
        result
    })
}

fn polled(descriptor: &OwnedFd, is_wanted: bool) -> PollFd<'_> {
    let events = if is_wanted {
        PollFlags::POLLIN
    } else {
        PollFlags::empty()
    };
    PollFd::new(descriptor.as_fd(), events)
}
