//! Cleaning all users' directories below a root.

use std::path::Path;
use std::sync::Mutex;

use crate::local::directory::DirectoryError;
use crate::local::files::Size;

use super::clean::{CleanError, Cleaner, Directory, Outcome, Rules};
use super::last_used::age;
use super::tree::{Found, Tree, Visitor, guard};

/// What was found and done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Users' directories.
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
    /// Those that their owners kept from being cleaned.
    pub spoiled: u64,
    /// What was deleted, or would be.
    pub deleted: Size,
    /// Directories that were removed.
    pub directories: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.cleaned += other.cleaned;
        self.recent += other.recent;
        self.in_use += other.in_use;
        self.logging_in += other.logging_in;
        self.failed += other.failed;
        self.spoiled += other.spoiled;
        self.deleted += other.deleted;
        self.directories += other.directories;
    }

    fn count(&mut self, outcome: &Result<Outcome, CleanError>) {
        let counter = match outcome {
            Ok(Outcome::Nothing) => return,
            Ok(Outcome::Cleaned(size, directory)) => {
                self.deleted += *size;
                self.directories += u64::from(*directory == Directory::Removed);
                &mut self.cleaned
            }
            Ok(Outcome::WouldClean(size)) => {
                self.deleted += *size;
                &mut self.cleaned
            }
            Ok(Outcome::Recent(_)) => &mut self.recent,
            Ok(Outcome::InUse) => &mut self.in_use,
            Ok(Outcome::LoggingIn) => &mut self.logging_in,
            Err(CleanError::Spoiled(_)) => &mut self.spoiled,
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
    fn user(&mut self, user: Found<'_>) {
        if age(user.last_seen) < self.rules.min_age {
            self.own.users += 1;
            self.own.recent += 1;
            return;
        }
        let removed_from = user.removable_from();
        let directory = user.open();
        let outcome = self.cleaner.clean_in(&directory, removed_from);
        // If it is gone, somebody else has just cleaned it.
        if outcome != Ok(Outcome::Nothing) {
            self.own.count(&outcome);
            (self.report)(directory.path(), &outcome);
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
