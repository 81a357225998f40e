//! Cleaning all users' directories below a root.

use std::path::Path;
use std::sync::Mutex;

use crate::local::directory::DirectoryError;
use crate::local::files::Size;

use super::clean::{CleanError, Cleaner, Directory, Outcome, Rules};
use super::last_used::{age, last_login};
use super::tree::{Found, Tree, Visitor, guard};

/// What was found and done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Directories that hold a lock file.
    pub users: u64,
    /// Those that were cleaned, or would be but for a dry run.
    pub cleaned: u64,
    /// Those that were used later than the minimum age.
    pub recent: u64,
    /// Those whose list index a session has open.
    pub in_use: u64,
    /// Those that somebody held the lock of.
    pub logging_in: u64,
    /// Those that could not be cleaned, and directories that could not be searched.
    pub failed: u64,
    /// What was deleted, or would be.
    pub deleted: Size,
    /// Directories that were removed.
    pub directories: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.users += other.users;
        self.cleaned += other.cleaned;
        self.recent += other.recent;
        self.in_use += other.in_use;
        self.logging_in += other.logging_in;
        self.failed += other.failed;
        self.deleted.files += other.deleted.files;
        self.deleted.bytes += other.deleted.bytes;
        self.directories += other.directories;
    }

    fn count(&mut self, outcome: &Result<Outcome, CleanError>) {
        let counter = match outcome {
            // It was there a moment ago, so somebody else has just cleaned it.
            Ok(Outcome::NoRecord) => return,
            Ok(Outcome::Cleaned(size, directory)) => {
                self.deleted.files += size.files;
                self.deleted.bytes += size.bytes;
                self.directories += u64::from(*directory == Directory::Removed);
                &mut self.cleaned
            }
            Ok(Outcome::WouldClean(size)) => {
                self.deleted.files += size.files;
                self.deleted.bytes += size.bytes;
                &mut self.cleaned
            }
            Ok(Outcome::Recent(_)) => &mut self.recent,
            Ok(Outcome::InUse) => &mut self.in_use,
            Ok(Outcome::LoggingIn) => &mut self.logging_in,
            Err(_) => &mut self.failed,
        };
        *counter += 1;
        self.users += 1;
    }
}

/// Called with the path and the outcome of whatever was not just used lately.
pub type Report<'a> = &'a (dyn Fn(&Path, &Result<Outcome, CleanError>) + Sync);

/// Cleans every user's directory in `tree`, and keeps `totals` up to date.
///
/// # Errors
/// If root may not give up its groups.
pub fn sweep(
    tree: &Tree,
    rules: &Rules,
    totals: &Mutex<Totals>,
    report: Report<'_>,
) -> nix::Result<()> {
    tree.visit(|| {
        Ok(Sweeper {
            rules,
            cleaner: Cleaner::new(rules)?,
            all: totals,
            own: Totals::default(),
            report,
        })
    })
}

/// One thread of a sweep.
struct Sweeper<'a> {
    rules: &'a Rules,
    cleaner: Cleaner<'a>,
    all: &'a Mutex<Totals>,
    /// What this thread did since the last pause.
    own: Totals,
    report: Report<'a>,
}

impl Visitor for Sweeper<'_> {
    fn user(&mut self, user: &Found<'_>) {
        if age(last_login(&user.lock_file)) < self.rules.min_age {
            self.own.users += 1;
            self.own.recent += 1;
            return;
        }
        let outcome = match user.open() {
            Ok(None) => return,
            Ok(Some(directory)) => self.cleaner.clean_in(user.parent(), user.name, &directory),
            Err(error) => Err(error.into()),
        };
        if !is_gone(&outcome) {
            self.own.count(&outcome);
            (self.report)(&user.path(), &outcome);
        }
    }

    fn cannot_search(&mut self, error: DirectoryError) {
        self.own.failed += 1;
        // The error names the path itself.
        (self.report)(Path::new(""), &Err(error.into()));
    }

    fn pause(&mut self) {
        guard(self.all).add(&std::mem::take(&mut self.own));
    }
}

/// Whether there is nothing to be cleaned any more.
fn is_gone(outcome: &Result<Outcome, CleanError>) -> bool {
    matches!(
        outcome,
        Ok(Outcome::NoRecord) | Err(CleanError::Directory(DirectoryError::Missing(_)))
    )
}
