//! `nfs-hostchange usercache`.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use super::command_line::{Clean, Forget, Sweep, Unused};
use super::output::{
    Exit, Span, and_of_these, cannot_drop_groups, complain, counted, insert_path, say,
};
use super::room::alarms;
use crate::local::directory::DirectoryError;
use crate::local::files::DeleteError;
use crate::local::lock::LockError;
use crate::local::sign::SignError;
use crate::usercache::clean::{CleanError, Cleaner, Directory, Outcome, Rules};
use crate::usercache::forget;
use crate::usercache::sweep::{self, Totals};
use crate::usercache::tree::{RootError, Tree, guard};

/// How often the progress is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Cleans the directories given.
pub fn clean(options: &Clean) -> Exit {
    let rules = Rules::from(&options.unused);
    let mut cleaner = match Cleaner::new(&rules, false) {
        Ok(cleaner) => cleaner,
        Err(errno) => return cannot_drop_groups(errno),
    };
    let mut exit = Exit::Ok;
    for path in &options.paths {
        let outcome = cleaner.clean(path);
        let line = Line::of(path, &outcome);
        match &outcome {
            Ok(Outcome::WouldClean(_)) => say(line),
            Ok(Outcome::Cleaned(..)) if options.unused.verbose => say(line),
            Ok(Outcome::Cleaned(_, Directory::Removed)) => {}
            _ => complain(line),
        }
        exit = exit.max(Exit::from(&outcome));
    }
    exit
}

/// Cleans everything below a root.
pub fn sweep(options: &Sweep) -> Exit {
    let rules = Rules::from(&options.unused);
    let tree = match Tree::new(&options.root, Some(&rules.prefix)) {
        Ok(tree) => tree,
        Err(error) => {
            complain(&error);
            return Exit::from(&error);
        }
    };
    let start = Instant::now();
    let totals = Mutex::default();
    let exit = Mutex::new(Exit::Ok);
    let done = with_progress(&totals, |bar| {
        sweep::sweep(&tree, &rules, &totals, &|path, outcome| {
            // Users who are here are nothing that a sweep has to report as a failure.
            if outcome.is_err() {
                let mut exit = guard(&exit);
                *exit = (*exit).max(Exit::from(outcome));
            }
            if outcome.is_err() || options.unused.verbose {
                bar.suspend(|| complain(Line::of(path, outcome)));
            }
        })
    });
    if let Err(errno) = done {
        return cannot_drop_groups(errno);
    }
    let (totals, exit) = (*guard(&totals), *guard(&exit));
    let alarms = alarms(&options.root, &tree);
    if options.json {
        say(json(options, &totals, start.elapsed(), alarms));
    } else {
        say(summary(options, &totals, start.elapsed()));
        alarms.iter().for_each(complain);
    }
    exit
}

/// Empties all records below a root.
pub fn forget(options: &Forget) -> Exit {
    let tree = match Tree::new(&options.root, None) {
        Ok(tree) => tree,
        Err(error) => {
            complain(&error);
            return Exit::from(&error);
        }
    };
    let start = Instant::now();
    let totals = Mutex::default();
    let exit = Mutex::new(Exit::Ok);
    let done = forget::forget(&tree, &totals, &|error| {
        let mut exit = guard(&exit);
        *exit = (*exit).max(Exit::from(error));
        complain(error);
    });
    if let Err(errno) = done {
        return cannot_drop_groups(errno);
    }
    let (totals, exit) = (*guard(&totals), *guard(&exit));
    if options.json {
        say(forgotten_json(options, &totals, start.elapsed()));
    } else {
        say(format_args!(
            "{}: {}, {} emptied{}; {:.1} s",
            options.root.display(),
            counted(totals.users, "user"),
            counted(totals.emptied, "record"),
            and_of_these(&[(totals.failed, "failed")]),
            start.elapsed().as_secs_f64()
        ));
    }
    exit
}

/// As [`json`].
fn forgotten_json(options: &Forget, totals: &forget::Totals, duration: Duration) -> Value {
    let mut object = Map::new();
    let root = options.root.as_os_str().as_bytes();
    insert_path(&mut object, "root", Some(root));
    let fields = [
        ("users", Value::from(totals.users)),
        ("emptied", totals.emptied.into()),
        ("failed", totals.failed.into()),
        ("duration_seconds", duration.as_secs_f64().into()),
    ];
    object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

/// Does `work`, and if standard error is a terminal shows there how far it is.
fn with_progress<T>(totals: &Mutex<Totals>, work: impl FnOnce(&ProgressBar) -> T) -> T {
    // Draws on standard error, and on a terminal only.
    let bar = ProgressBar::new_spinner();
    // In every locale.
    bar.set_style(ProgressStyle::default_spinner().tick_chars("-\\|/ "));
    let (working, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        if !bar.is_hidden() {
            scope.spawn(|| {
                let stopped = stopped;
                loop {
                    let totals = *guard(totals);
                    bar.set_message(format!(
                        "{} seen, {} cleaned, {} freed",
                        counted(totals.users, "user"),
                        totals.cleaned,
                        HumanBytes(totals.deleted.bytes)
                    ));
                    bar.tick();
                    if stopped.recv_timeout(REDRAW) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
                bar.finish_and_clear();
            });
        }
        let result = work(&bar);
        drop(working);
        result
    })
}

fn summary(options: &Sweep, totals: &Totals, duration: Duration) -> String {
    let (cleaned, freed) = if options.unused.dry_run {
        ("would be cleaned", "to be freed")
    } else {
        ("cleaned", "freed")
    };
    format!(
        "{}: {}, {} {cleaned}, {} {freed}{}; {:.1} s",
        options.root.display(),
        counted(totals.users, "user"),
        totals.cleaned,
        HumanBytes(totals.deleted.bytes),
        and_of_these(&[
            (totals.recent, "recent"),
            (totals.in_use, "in use"),
            (totals.logging_in, "logging in"),
            (totals.failed, "failed"),
        ]),
        duration.as_secs_f64()
    )
}

/// The fields are documented: a new one may come, none changes.
fn json(options: &Sweep, totals: &Totals, duration: Duration, alarms: Vec<String>) -> Value {
    let mut object = Map::new();
    insert_path(
        &mut object,
        "root",
        Some(options.root.as_os_str().as_bytes()),
    );
    let fields = [
        (
            "min_age_seconds",
            Value::from(options.unused.min_age.as_secs()),
        ),
        ("dry_run", options.unused.dry_run.into()),
        ("users", totals.users.into()),
        ("cleaned", totals.cleaned.into()),
        ("recent", totals.recent.into()),
        ("in_use", totals.in_use.into()),
        ("logging_in", totals.logging_in.into()),
        ("failed", totals.failed.into()),
        ("files_deleted", totals.deleted.files.into()),
        ("bytes_deleted", totals.deleted.bytes.into()),
        ("directories_removed", totals.directories.into()),
        ("alarms", alarms.into()),
        ("duration_seconds", duration.as_secs_f64().into()),
    ];
    object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

impl From<&Unused> for Rules {
    fn from(unused: &Unused) -> Rules {
        Rules {
            min_age: unused.min_age,
            prefix: unused.prefix.clone(),
            dry_run: unused.dry_run,
        }
    }
}

/// What became of one directory, in one line.
struct Line<'a> {
    path: &'a Path,
    outcome: &'a Result<Outcome, CleanError>,
}

impl<'a> Line<'a> {
    fn of(path: &'a Path, outcome: &'a Result<Outcome, CleanError>) -> Line<'a> {
        Line { path, outcome }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Errors name the path themselves, some that of a file in it.
        let outcome = match self.outcome {
            Err(error) => return error.fmt(f),
            Ok(outcome) => outcome,
        };
        write!(f, "{}: ", self.path.display())?;
        match outcome {
            Outcome::Cleaned(size, Directory::Removed) => write!(f, "deleted {size}"),
            Outcome::Cleaned(size, Directory::NotEmpty) => write!(
                f,
                "deleted {size}; the directory is left: there are other files in it"
            ),
            Outcome::Cleaned(size, Directory::Kept(errno)) => {
                write!(f, "deleted {size}; the directory is left: {}", errno.desc())
            }
            Outcome::WouldClean(size) => write!(f, "would delete {size}"),
            Outcome::Recent(age) => write!(f, "left: last used {} ago", Span(*age)),
            Outcome::InUse => f.write_str("left: a session is open"),
            Outcome::LoggingIn => f.write_str("left: the user is logging in"),
            Outcome::Nothing => f.write_str("there is no list index here"),
        }
    }
}

impl From<&Result<Outcome, CleanError>> for Exit {
    fn from(outcome: &Result<Outcome, CleanError>) -> Exit {
        match outcome {
            Ok(Outcome::Cleaned(..) | Outcome::WouldClean(_) | Outcome::Recent(_)) => Exit::Ok,
            Ok(Outcome::InUse | Outcome::LoggingIn) => Exit::TryAgain,
            Ok(Outcome::Nothing) => Exit::NoInput,
            Err(error) => error.into(),
        }
    }
}

impl From<&RootError> for Exit {
    fn from(error: &RootError) -> Exit {
        match error {
            RootError::Shared(_) => Exit::Usage,
            RootError::Network(_) => Exit::Permission,
            RootError::Directory(error) => error.into(),
        }
    }
}

impl From<&DirectoryError> for Exit {
    fn from(error: &DirectoryError) -> Exit {
        match error {
            DirectoryError::Missing(_) => Exit::NoInput,
            DirectoryError::SymbolicLink(_) | DirectoryError::ForeignOwner(..) => Exit::Permission,
            DirectoryError::Unusable(_, errno) | DirectoryError::CannotMake(_, errno) => {
                Exit::from(*errno)
            }
        }
    }
}

impl From<&CleanError> for Exit {
    fn from(error: &CleanError) -> Exit {
        match error {
            CleanError::Directory(error) => error.into(),
            CleanError::Network(_) | CleanError::Index(_) | CleanError::OfRoot(_) => {
                Exit::Permission
            }
            CleanError::Refused(..) => Exit::System,
            CleanError::Lock(error) => match error {
                LockError::TimedOut(_) | LockError::Lost(_) => Exit::TryAgain,
                LockError::NotAFile(_) => Exit::Data,
                LockError::Failed(_, errno) => Exit::from(*errno),
                LockError::DirectoryGone(_) | LockError::Missing(_) => Exit::NoInput,
            },
            CleanError::Delete(error) => match error {
                DeleteError::NotAFile(_) => Exit::Data,
                DeleteError::Unreadable(_, errno) | DeleteError::Undeletable(_, errno) => {
                    Exit::from(*errno)
                }
            },
            CleanError::Sign(SignError::NotAFile(_)) => Exit::Data,
            CleanError::Sign(SignError::Failed(_, errno)) | CleanError::Lease(_, errno) => {
                Exit::from(*errno)
            }
        }
    }
}
