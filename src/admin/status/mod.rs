//! `nfs-hostchange status`: what this backend knows about list indexes. Nothing is changed.

pub mod print;

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::actor::Actor;
use crate::admin::output::Span;
use crate::config::Configuration;
use crate::dovecot::doveadm::Namespace;
use crate::dovecot::environment::Environment;
use crate::dovecot::location::{self, Layout, LocationError, Tracked, Tracking, resolve};
use crate::event::{Events, Level};
use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::files::Size;
use crate::local::lock::{Lock, LockError, Shared};
use crate::local::notes::OpenSession;
use crate::local::record::{Content, Record};
use crate::local::session::Session;
use crate::local::sign;
use crate::local::step::{Comparison, is_index};
use crate::login::user::{UserError, actor};
use crate::nfs::directory::{Index, IndexError};
use crate::nfs::host::HostName;
use crate::reconcile::migration::Owner;
use crate::reconcile::outcome::Doubt;
use crate::reconcile::{Reconciliation, Takes};
use crate::system::credentials::{UserId, effective_user};
use crate::usercache::clean::{CleanError, Rights, Surveyor};
use crate::usercache::last_used::{age, last_login};
use crate::usercache::tree::{Found, Tree, Visitor, guard};

/// One user's local directory.
#[derive(Debug, Clone)]
pub struct Local {
    /// What the list index belongs to, if there is a record of it.
    pub record: Option<Record>,
    /// How large the list index is.
    pub size: Size,
    /// How long ago it was last used.
    pub age: Duration,
    /// Whether a session is open, with the list index or without.
    pub session_open: bool,
    /// A session without list index.
    pub without: Option<OpenSession>,
}

impl Local {
    /// Looks at a directory of the backend `host`, opened for listing it, with its owner's rights;
    /// `None` if there is neither a record nor a list index in it.
    ///
    /// # Errors
    /// If it cannot be looked at, or is locked because the user is just logging in.
    pub fn of(
        surveyor: &mut Surveyor,
        directory: &ListIndexDirectory,
        prefix: &CStr,
        host: Option<&HostName>,
    ) -> Result<Option<Self>, CleanError> {
        let lock = match Lock::<Shared>::acquire_existing(directory) {
            Ok(lock) => Some(lock),
            Err(LockError::Missing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let content = lock.as_ref().map_or(Content::Nothing, Lock::content);
        let survey = surveyor.survey(directory, prefix, &content)?;
        if lock.is_none() && survey.is_empty() {
            return Ok(None);
        }
        let last_login = lock.as_ref().map(|lock| last_login(lock.attributes()));
        let record = lock.and_then(|lock| lock.record(prefix, host));
        // Whoever goes without the list index has emptied its record before.
        let without = match record {
            None if survey.has_sign => sign::open_session(directory, Some(prefix))?,
            _ => None,
        };
        Ok(Some(Self {
            record,
            size: survey.size,
            age: age(last_login.unwrap_or(UNIX_EPOCH).max(survey.last_written)),
            session_open: survey.is_in_use || without.is_some(),
            without,
        }))
    }
}

impl Local {
    /// For how long there has always been a session without list index; `None` if there is none.
    pub fn without_for(&self) -> Option<Duration> {
        let since = self.without?.since.unwrap_or_else(SystemTime::now);
        Some(age(since))
    }
}

/// A user whose list index is local.
#[derive(Debug)]
pub struct UserStatus {
    /// Where everything is.
    pub tracked: Tracked,
    /// The host name in the claim, and the claim's age in seconds.
    pub claim: Option<(String, i64)>,
    /// Local list index; `None` if there is none.
    pub local: Option<Local>,
    /// How both belong together.
    pub compared: Comparison,
    /// Another backend has claimed the user under the name of this one.
    pub is_namesake: bool,
    /// If they are not equal: what a login would find that came now, or why its session would run without
    /// list index.
    pub foreseen: Result<Option<Owner>, Doubt>,
}

impl UserStatus {
    /// Whether a login uses the list index as it is.
    pub fn is_in_step(&self) -> bool {
        self.compared == Comparison::Equal
    }

    /// Why the backend is in step, or not.
    pub fn reason(&self) -> String {
        match &self.foreseen {
            Err(doubt) => {
                let since = match doubt {
                    Doubt::NamedSession(line) => line.since,
                    _ => None,
                };
                let since = since.and_then(|since| UNIX_EPOCH.checked_add(Duration::from_secs(since)));
                let since = since.map_or_else(String::new, |since| format!(", for {}", Span(age(since))));
                format!("a login now would go on without list index: {doubt}{since}")
            }
            Ok(Some(Owner::User(_))) => {
                "the next login takes over the list index that is in INDEX".to_owned()
            }
            Ok(Some(Owner::Outdated(_))) => {
                "the next login deletes the list index that is in INDEX: a session without list index \
                 did not keep it up to date"
                    .to_owned()
            }
            Ok(_) if self.is_namesake => {
                "another backend has served the user since, under the name of this one: each needs a \
                 host name of its own"
                    .to_owned()
            }
            Ok(_) => self.compared.to_string(),
        }
    }
}

/// Why a user's state is not known.
#[derive(Debug)]
pub enum StatusError {
    /// Where the list index is.
    Location(LocationError),
    /// It is shared, or nobody may vouch for it.
    NotTracked(Tracking),
    /// No session keeps it in step, and this is why.
    NotKept(String),
    /// Whose rights to use.
    User(UserError),
    /// INDEX.
    Index(IndexError),
    /// LISTINDEX.
    Local(CleanError),
}

impl std::error::Error for StatusError {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(error) => error.fmt(f),
            Self::NotTracked(tracking) => tracking.fmt(f),
            Self::NotKept(reason) => f.write_str(reason),
            Self::User(error) => error.fmt(f),
            Self::Index(error) => error.fmt(f),
            Self::Local(error) => error.fmt(f),
        }
    }
}

/// The state of the user that `environment` describes as script-login would.
///
/// # Errors
/// If it is not known.
pub fn of_user(
    environment: &Environment<'_>,
    configuration: &Configuration,
) -> Result<UserStatus, StatusError> {
    let tracked = match resolve(environment, &configuration.inbox_namespace) {
        Ok(Tracking::Tracked(tracked)) => tracked,
        Ok(other) => return Err(StatusError::NotTracked(other)),
        Err(error) => return Err(StatusError::Location(error)),
    };
    // Whatever a login does with the user's rights, this does too.
    let actor = actor(environment).map_err(StatusError::User)?;
    of_tracked(tracked, &actor, configuration, Takes::Over)
}

/// The state of a namespace that Dovecot has resolved.
///
/// # Errors
/// If it is not known.
pub fn of_namespace(
    namespace: &Namespace,
    configuration: &Configuration,
) -> Result<UserStatus, StatusError> {
    if !namespace.problem.is_empty() {
        let problem = String::from_utf8_lossy(&namespace.problem);
        return Err(StatusError::NotKept(problem.into_owned()));
    }
    if namespace.kind == "public" {
        let reason = "with the plugin a public namespace runs without list index";
        return Err(StatusError::NotKept(reason.to_owned()));
    }
    let layout = Layout::named(&namespace.layout).unwrap_or(Layout::Fs);
    let tracked = Tracked::new(
        &namespace.index_dir,
        &namespace.list_index_dir,
        &namespace.list_index_name,
        layout.claim_name(),
    )
    .map_err(|reason| StatusError::NotTracked(Tracking::Unvouchable(reason)))?;
    let rights = namespace.rights.clone();
    let actor = match effective_user() {
        UserId(0) => Actor::assume(rights),
        _ => Actor::current(),
    };
    let actor = actor.map_err(|error| StatusError::User(error.into()))?;
    of_tracked(tracked, &actor, configuration, Takes::InPlace)
}

fn of_tracked(
    tracked: Tracked,
    actor: &Actor,
    configuration: &Configuration,
    takes: Takes,
) -> Result<UserStatus, StatusError> {
    let index = Index {
        path: tracked.index_dir().to_owned(),
        claim_name: tracked.claim_name().to_owned(),
        migration: configuration.migration,
    };
    let (directory, look) = index.look().map_err(StatusError::Index)?;
    let text = look.claim.and_then(|_| directory.claim_text());
    let claim = look.claim.map(|claim| {
        let host = text.map_or_else(String::new, |text| text.host);
        (host, claim.age_at(SystemTime::now()))
    });
    let own = configuration.hostname.clone();
    let here = own.unwrap_or_else(HostName::of_system);
    let reconciliation = Reconciliation {
        index: index.clone(),
        list_index_directory: tracked.list_index_dir().to_owned(),
        prefix: tracked.prefix().to_owned(),
        actor,
        host: configuration.hostname.as_ref(),
        lock_timeout: Duration::ZERO,
        session: Session::of_process,
        events: &Unheard,
    };
    let mut foreseen = Ok(None);
    let local = match ListIndexDirectory::open(tracked.list_index_dir(), actor.user()) {
        Ok(list_index)
            if is_index(&list_index, &directory)
                .map_err(|error| StatusError::Local(error.into()))? =>
        {
            let shared = Tracking::Shared(location::Shared::SameDirectory);
            return Err(StatusError::NotTracked(shared));
        }
        Ok(list_index) => {
            let look = || {
                let list_index = list_index.for_listing()?;
                let surveyor = &mut Surveyor::prepare();
                let local = Local::of(surveyor, &list_index, tracked.prefix(), Some(&here))?;
                let record = local.as_ref().and_then(|local| local.record);
                let compared = Comparison::of(&look, record);
                if !matches!(compared, Comparison::Equal | Comparison::Unfinished(_)) {
                    let lock = Lock::acquire_existing(&list_index).ok();
                    foreseen = reconciliation.foresee(
                        Some(&list_index),
                        lock.as_ref(),
                        &directory,
                        &look,
                        takes,
                    );
                }
                Ok(local)
            };
            look().map_err(StatusError::Local)?
        }
        Err(DirectoryError::Missing(_)) => {
            foreseen = reconciliation.foresee(None, None, &directory, &look, takes);
            None
        }
        Err(error) => return Err(StatusError::Local(error.into())),
    };
    let record = local.as_ref().and_then(|local| local.record);
    let compared = Comparison::of(&look, record);
    // Whatever this backend claims, it records before the lock is free again.
    let own_name = claim
        .as_ref()
        .is_some_and(|(host, _)| *host == here.as_str());
    let is_namesake = compared == Comparison::Behind && own_name;
    Ok(UserStatus {
        tracked,
        claim,
        local,
        compared,
        is_namesake,
        foreseen,
    })
}

/// Nothing is done that anybody should hear of.
struct Unheard;

impl Events for Unheard {
    fn event(&self, _: Level, _: &dyn fmt::Display) {}
}

/// The bounds of the age classes, in seconds; a last class has what is older.
pub const AGES: [u64; 5] = [3600, 86_400, 7 * 86_400, 30 * 86_400, 90 * 86_400];

/// That many of the biggest list indexes are named.
const BIGGEST: usize = 10;

/// Everything below a root.
#[derive(Debug, Clone, Default)]
pub struct TreeStatus {
    /// Users' directories.
    pub users: u64,
    /// Their list indexes.
    pub size: Size,
    /// Those that a session has open.
    pub in_use: u64,
    /// Those that have a record, so that a login may find them in step.
    pub recorded: u64,
    /// Those that somebody held the lock of.
    pub logging_in: u64,
    /// Those that their owners keep from being looked at.
    pub spoiled: u64,
    /// Those that could not be looked at.
    pub failed: u64,
    /// Users and bytes in each class of [`AGES`].
    pub ages: [(u64, u64); AGES.len() + 1],
    /// The biggest, by bytes and path.
    pub biggest: BTreeSet<(u64, PathBuf)>,
}

impl TreeStatus {
    fn count(&mut self, path: &Path, local: &Local) {
        self.users += 1;
        self.size += local.size;
        self.in_use += u64::from(local.session_open);
        self.recorded += u64::from(local.record.is_some());
        let seconds = local.age.as_secs();
        let class = AGES
            .iter()
            .position(|&bound| seconds < bound)
            .unwrap_or(AGES.len());
        self.ages[class].0 += 1;
        self.ages[class].1 += local.size.bytes;
        let smallest = self.biggest.first().map_or(0, |(bytes, _)| *bytes);
        if self.biggest.len() < BIGGEST || local.size.bytes > smallest {
            self.biggest.insert((local.size.bytes, path.to_owned()));
        }
        if self.biggest.len() > BIGGEST {
            self.biggest.pop_first();
        }
    }
}

/// Looks at every user's directory in `tree`.
///
/// # Errors
/// If root may not give up its groups.
pub fn of_tree(
    tree: &Tree,
    prefix: &CStr,
    report: &(dyn Fn(&CleanError) + Sync),
) -> nix::Result<TreeStatus> {
    let status = Mutex::default();
    tree.visit(|| {
        Ok(Counter {
            status: &status,
            prefix,
            looker: Looker::new()?,
            report,
        })
    })?;
    let status = guard(&status).clone();
    Ok(status)
}

struct Counter<'a> {
    status: &'a Mutex<TreeStatus>,
    prefix: &'a CStr,
    looker: Looker,
    report: &'a (dyn Fn(&CleanError) + Sync),
}

impl Visitor for Counter<'_> {
    fn user(&mut self, user: Found<'_>) {
        let directory = user.open();
        match self.looker.look_at(&directory, self.prefix) {
            Ok(None) => {}
            Ok(Some(local)) => guard(self.status).count(directory.path(), &local),
            Err(CleanError::Lock(LockError::TimedOut(_))) => {
                let mut status = guard(self.status);
                status.users += 1;
                status.logging_in += 1;
            }
            Err(error) => self.failed(&error),
        }
    }

    fn cannot_search(&mut self, error: DirectoryError) {
        self.failed(&error.into());
    }
}

impl Counter<'_> {
    fn failed(&self, error: &CleanError) {
        let mut status = guard(self.status);
        match error {
            CleanError::Spoiled(_) => status.spoiled += 1,
            _ => status.failed += 1,
        }
        drop(status);
        (self.report)(error);
    }
}

/// Whoever looks at users' directories, in one thread.
#[derive(Debug)]
pub struct Looker {
    rights: Rights,
    surveyor: Surveyor,
}

impl Looker {
    /// Prepares this thread: as root it has no groups from now on.
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            rights: Rights::new()?,
            surveyor: Surveyor::prepare(),
        })
    }

    /// Looks at a directory, with its owner's rights.
    ///
    /// # Errors
    /// As [`Local::of`].
    pub fn look_at(
        &mut self,
        directory: &ListIndexDirectory,
        prefix: &CStr,
    ) -> Result<Option<Local>, CleanError> {
        let surveyor = &mut self.surveyor;
        self.rights
            .of_owner(directory, || Local::of(surveyor, directory, prefix, None))
    }
}
