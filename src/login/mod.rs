//! A login, from what Dovecot hands over to the verdict about the list index.

pub mod command_line;
mod helper;
pub mod user;

use std::ffi::CString;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;

use crate::config::Configuration;
use crate::dovecot::environment::{Environment, Namespace};
use crate::dovecot::location::{Tracked, Tracking, resolve};
use crate::event::{Events, Level};
use crate::local::session::Session;
use crate::log::Log;
use crate::login::command_line::{CommandLine, UsageError};
use crate::login::user::actor;
use crate::nfs::directory::Index;
use crate::reconcile::Reconciliation;
use crate::reconcile::outcome::Outcome;
use crate::system::start::exit;

/// What the session may do with the local list index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use it: the record equals the claim, or nothing about it is local.
    Use,
    /// Leave it alone: nobody can vouch for it.
    DoNotUse,
}

/// Decides whether the session may use its list index, and puts the list index right if it was not.
/// Returns the environment for a session that may not use it.
///
/// Never fails: whatever goes wrong, a mistake in this program included, is logged and becomes a
/// verdict.
pub fn decide(command: &CommandLine, environment: &Environment) -> Option<Vec<CString>> {
    let mut log = Log::new(environment.get(b"USER").unwrap_or_default());
    let mut inbox = Namespace::default();
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        let login = Login::new(command, environment, &mut log);
        inbox.clone_from(&login.configuration.inbox_namespace);
        login.run()
    }));
    let verdict = verdict.unwrap_or_else(|_| {
        log.event(Level::Error, &"session without list index: internal error");
        Verdict::DoNotUse
    });
    match verdict {
        Verdict::Use => None,
        Verdict::DoNotUse => Some(environment.without_list_index(&inbox)),
    }
}

/// Why nothing is executed. Only mistakes in Dovecot's configuration lead here.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong.
    Usage(UsageError),
    /// The program cannot be executed.
    Execute(CString, Errno),
    /// A set-uid installation's privileges cannot be dropped.
    Privileges(Errno),
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Execute(program, errno) => write!(
                f,
                "cannot execute {}: {}",
                program.to_string_lossy(),
                errno.desc()
            ),
            Self::Privileges(errno) => {
                write!(f, "cannot drop the caller's privileges: {}", errno.desc())
            }
        }
    }
}

impl Failure {
    /// The exit status, of sysexits(3).
    fn status(&self) -> i32 {
        match self {
            Self::Usage(_) => 64,
            Self::Execute(_, Errno::EAGAIN | Errno::ENOMEM | Errno::EIO) => 75,
            Self::Execute(_, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => 72,
            Self::Execute(..) | Self::Privileges(_) => 71,
        }
    }
}

/// Ends the process without executing anything, with a message for the administrator in syslog
/// and in Dovecot's log.
#[cold]
pub fn fail(failure: &Failure) -> ! {
    Log::new(b"").fatal(failure);
    exit(failure.status())
}

struct Login<'a> {
    environment: &'a Environment<'a>,
    configuration: Configuration,
    events: &'a dyn Events,
}

impl<'a> Login<'a> {
    fn new(command: &CommandLine, environment: &'a Environment<'a>, log: &'a mut Log) -> Self {
        let configuration = match Configuration::read(command.configuration) {
            Ok(configuration) => configuration.unwrap_or_default(),
            Err(error) => {
                log.event(
                    Level::Error,
                    &format_args!("using the built-in defaults: {error}"),
                );
                Configuration::of_unusable_file()
            }
        };
        log.configure(configuration.log);
        Login {
            environment,
            configuration,
            events: log,
        }
    }

    fn run(&self) -> Verdict {
        match resolve(self.environment, &self.configuration.inbox_namespace) {
            Ok(Tracking::Tracked(tracked)) => self.reconcile(&tracked),
            Ok(Tracking::Shared(_)) => Verdict::Use,
            Ok(layout @ Tracking::LayoutIndex) => {
                self.events.error(layout);
                Verdict::Use
            }
            Ok(unvouchable @ Tracking::Unvouchable(_)) => self.without_list_index(unvouchable),
            Err(error) => {
                self.events.error(error);
                Verdict::Use
            }
        }
    }

    fn reconcile(&self, tracked: &Tracked) -> Verdict {
        let actor = match actor(self.environment) {
            Ok(actor) => actor,
            Err(error) => return self.without_list_index(error),
        };
        let reconciliation = Reconciliation {
            index: Index {
                path: tracked.index_dir().to_owned(),
                claim_name: tracked.claim_name().to_owned(),
                migration: self.configuration.migration,
            },
            list_index_directory: tracked.list_index_dir().to_owned(),
            prefix: tracked.prefix().to_owned(),
            actor: &actor,
            host: self.configuration.hostname.as_ref(),
            lock_timeout: self.configuration.lock_timeout,
            session: Session::of_login,
            events: self.events,
        };
        match reconciliation.run() {
            Outcome::Vouched => Verdict::Use,
            Outcome::Unvouched(unvouched) => {
                let user = self.environment.get(b"USER").unwrap_or_default();
                let settings = self.configuration.log;
                let stayed = helper::stay_behind(&reconciliation, unvouched, user, settings);
                if let Err(errno) = stayed {
                    self.events.error(format_args!(
                        "cannot leave a process behind that claims for this session: {}",
                        errno.desc()
                    ));
                }
                Verdict::DoNotUse
            }
        }
    }

    #[cold]
    fn without_list_index(&self, reason: impl fmt::Display) -> Verdict {
        self.events
            .error(format_args!("session without list index: {reason}"));
        Verdict::DoNotUse
    }
}
