//! Emptying the records of all users below a root, whether they are in use or not.

use std::sync::Mutex;
use std::time::Duration;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::lock::{self, Deadline, Exclusive, Lock, LockError};
use crate::local::record::Content;

use super::clean::{CleanError, Rights};
use super::tree::{Found, Tree, Visitor, guard};

/// A login that holds the lock for longer than this loses it, and what it records with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found and done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Users' directories with a lock file.
    pub users: u64,
    /// Of these, records that were emptied.
    pub emptied: u64,
    /// Of these, those that may still have a record; and directories that could not be searched.
    pub failed: u64,
}

/// Empties every record in `tree`: the next login of each user begins a new list index. Nothing else
/// is touched, so sessions that are open go on as before.
///
/// # Errors
/// If root may not give up its groups.
pub fn forget(
    tree: &Tree,
    totals: &Mutex<Totals>,
    report: &(dyn Fn(&CleanError) + Sync),
) -> nix::Result<()> {
    tree.visit(|| {
        Ok(Forgetter {
            rights: Rights::new()?,
            totals,
            report,
        })
    })
}

/// One thread of it.
struct Forgetter<'a> {
    rights: Rights,
    totals: &'a Mutex<Totals>,
    report: &'a (dyn Fn(&CleanError) + Sync),
}

impl Visitor for Forgetter<'_> {
    fn user(&mut self, user: Found<'_>) {
        let directory = user.open();
        let emptied = self.rights.of_owner(&directory, || empty(&directory));
        let mut totals = guard(self.totals);
        match emptied {
            // The user only gets mail, or somebody has just cleaned it.
            Err(CleanError::Lock(LockError::Missing(_) | LockError::DirectoryGone(_))) => return,
            Ok(emptied) => totals.emptied += u64::from(emptied),
            Err(error) => {
                totals.failed += 1;
                (self.report)(&error);
            }
        }
        totals.users += 1;
    }

    fn cannot_search(&mut self, error: DirectoryError) {
        guard(self.totals).failed += 1;
        (self.report)(&error.into());
    }
}

/// A login that comes now finds no record, one that is under way records nothing, and one that was
/// vouched for before is over.
fn empty(directory: &ListIndexDirectory) -> Result<bool, CleanError> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match Lock::<Exclusive>::acquire_existing(directory) {
            Ok(lock) => return Ok(empty_locked(&lock)?),
            Err(LockError::TimedOut(_)) if deadline.has_passed() => {
                lock::take_away(directory)?;
                return Ok(true);
            }
            Err(LockError::TimedOut(_)) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn empty_locked(lock: &Lock<'_, Exclusive>) -> Result<bool, LockError> {
    match lock.content() {
        Content::Nothing => return Ok(false),
        // Some user's INDEX, in which this is the claim.
        Content::Claim => return Ok(false),
        Content::Records(_) => {}
    }
    lock.empty_records()?;
    // The user has not logged in, whatever the time of the last change says to a cleaner.
    let time = |(seconds, nanoseconds)| TimeSpec::new(seconds, i64::from(nanoseconds));
    let (accessed, modified) = (lock.attributes().accessed(), lock.attributes().modified());
    let _ = futimens(lock.file(), &time(accessed), &time(modified));
    Ok(true)
}
