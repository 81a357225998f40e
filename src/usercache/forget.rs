//! Emptying the records of all users below a root, whether they are in use or not.

use std::sync::Mutex;
use std::time::Duration;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::lock::{self, Deadline, Exclusive, Lock, LockError};
use crate::local::record::Content;
use crate::system::credentials::{RootThread, UserId, effective_user};

use super::clean::CleanError;
use super::tree::{Found, Tree, Visitor, guard};

/// A login that holds the lock for longer than this loses it, and what it records with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found and done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Directories that hold a lock file.
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
            root: RootThread::new()?,
            totals,
            report,
        })
    })
}

/// One thread of it.
struct Forgetter<'a> {
    root: Option<RootThread>,
    totals: &'a Mutex<Totals>,
    report: &'a (dyn Fn(&CleanError) + Sync),
}

impl Visitor for Forgetter<'_> {
    fn user(&mut self, user: &Found<'_>) {
        let emptied = match user.open() {
            Ok(None) => return,
            Ok(Some(directory)) => self.as_owner(&directory),
            Err(error) => Err(error.into()),
        };
        let mut totals = guard(self.totals);
        match emptied {
            // Somebody has just cleaned it.
            Err(CleanError::Lock(LockError::Missing(_) | LockError::DirectoryGone(_)))
            | Err(CleanError::Directory(DirectoryError::Missing(_))) => return,
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

impl Forgetter<'_> {
    /// With the rights of the directory's owner; whether there was something to empty.
    fn as_owner(&self, directory: &ListIndexDirectory) -> Result<bool, CleanError> {
        let path = || directory.path().to_owned();
        let owner = directory.owner();
        match &self.root {
            Some(_) if owner == UserId(0) => Err(CleanError::OfRoot(path())),
            Some(root) => root
                .work_as(owner, || empty(directory))
                .map_err(|errno| CleanError::Refused(path(), errno))?,
            None if owner != effective_user() => {
                Err(DirectoryError::ForeignOwner(path(), owner, effective_user()).into())
            }
            None => empty(directory),
        }
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
    let status = lock.status();
    let accessed = TimeSpec::new(status.st_atime, status.st_atime_nsec);
    let modified = TimeSpec::new(status.st_mtime, status.st_mtime_nsec);
    let _ = futimens(lock.file(), &accessed, &modified);
    Ok(true)
}
