//! What `nfs-hostchange usercache` prints.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use crate::admin::command_line::{Forget, Sweep};
use crate::admin::output::{Span, and_of_these, counted, insert_path};
use crate::usercache::clean::{CleanError, Directory, Outcome};
use crate::usercache::forget;
use crate::usercache::sweep::Totals;
use crate::usercache::tree::guard;

/// How often the progress is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Does `work`, and if standard error is a terminal shows there how far it is.
pub fn with_progress<T>(totals: &Mutex<Totals>, work: impl FnOnce(&ProgressBar) -> T) -> T {
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

/// The summary of a sweep.
pub fn swept(options: &Sweep, totals: &Totals, duration: Duration) -> String {
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
            (totals.spoiled, "spoiled by their owners"),
            (totals.failed, "failed"),
        ]),
        duration.as_secs_f64()
    )
}

/// The fields are documented: a new one may come, none changes.
pub fn swept_json(
    options: &Sweep,
    totals: &Totals,
    duration: Duration,
    alarms: Vec<String>,
) -> Value {
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
        ("spoiled", totals.spoiled.into()),
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

/// The summary of a `forget`.
pub fn forgotten(options: &Forget, totals: &forget::Totals, duration: Duration) -> String {
    format!(
        "{}: {}, {} emptied{}; {:.1} s",
        options.root.display(),
        counted(totals.users, "user"),
        counted(totals.emptied, "record"),
        and_of_these(&[(totals.failed, "failed")]),
        duration.as_secs_f64()
    )
}

/// As [`swept_json`].
pub fn forgotten_json(options: &Forget, totals: &forget::Totals, duration: Duration) -> Value {
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

/// What became of one directory, in one line.
pub struct Line<'a> {
    path: &'a Path,
    outcome: &'a Result<Outcome, CleanError>,
}

impl<'a> Line<'a> {
    pub fn of(path: &'a Path, outcome: &'a Result<Outcome, CleanError>) -> Self {
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
            Outcome::Cleaned(size, Directory::Stays) => write!(
                f,
                "deleted {size}; the directory is left, so that nobody else takes its place"
            ),
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
