//! `nfs-hostchange usercache`.

use std::path::Path;

use super::command_line::{Clean, Unused};
use super::output::{Exit, Span, complain, printable};
use crate::list_index::DeleteError;
use crate::list_index_directory::DirectoryError;
use crate::record::LockError;
use crate::user::UserError;
use crate::usercache::clean::{self, CleanError, Directory, Outcome, Rules};

/// Cleans the directories given.
pub fn clean(options: &Clean) -> Exit {
    let rules = Rules::from(&options.unused);
    let mut exit = Exit::Ok;
    for path in &options.paths {
        let outcome = clean::clean(path, &rules);
        report(path, &outcome, options.unused.verbose);
        exit = exit.max(Exit::from(&outcome));
    }
    exit
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

/// One line: what was deleted to standard output, if anybody wants to know, and to standard error
/// always why something was left.
fn report(path: &Path, outcome: &Result<Outcome, CleanError>, verbose: bool) {
    let path = path.display();
    match outcome {
        Ok(Outcome::Cleaned(size, directory)) => {
            if verbose {
                println!(
                    "{}",
                    printable(format!("{path}: deleted {size}").as_bytes())
                );
            }
            match directory {
                Directory::Removed => {}
                Directory::NotEmpty => complain(format_args!(
                    "{path}: cleaned, but not removed: there are other files in it"
                )),
                Directory::Kept(errno) => complain(format_args!(
                    "{path}: cleaned, but not removed: {}",
                    errno.desc()
                )),
            }
        }
        Ok(Outcome::WouldClean(size)) => {
            println!(
                "{}",
                printable(format!("{path}: would delete {size}").as_bytes())
            );
        }
        Ok(Outcome::Recent(age)) => {
            complain(format_args!("{path}: left: last used {} ago", Span(*age)));
        }
        Ok(Outcome::InUse) => complain(format_args!("{path}: left: a session is open")),
        Ok(Outcome::LoggingIn) => complain(format_args!("{path}: left: the user is logging in")),
        Ok(Outcome::NoRecord) => complain(format_args!(
            "{path}: left: no login has made a list index here (there is no .lasthost)"
        )),
        Err(error) => complain(error),
    }
}

impl From<&Result<Outcome, CleanError>> for Exit {
    fn from(outcome: &Result<Outcome, CleanError>) -> Exit {
        match outcome {
            Ok(Outcome::Cleaned(..) | Outcome::WouldClean(_) | Outcome::Recent(_)) => Exit::Ok,
            Ok(Outcome::InUse | Outcome::LoggingIn) => Exit::TryAgain,
            Ok(Outcome::NoRecord) => Exit::NoInput,
            Err(error) => error.into(),
        }
    }
}

impl From<&CleanError> for Exit {
    fn from(error: &CleanError) -> Exit {
        match error {
            CleanError::Directory(error) => match error {
                DirectoryError::Missing(_) => Exit::NoInput,
                DirectoryError::SymbolicLink(_) | DirectoryError::ForeignOwner(..) => {
                    Exit::Permission
                }
                DirectoryError::Unusable(_, errno) | DirectoryError::CannotMake(_, errno) => {
                    Exit::from(*errno)
                }
            },
            CleanError::Owner(_, UserError::Root) => Exit::Permission,
            CleanError::Owner(..) => Exit::System,
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
            CleanError::Lease(_, errno) => Exit::from(*errno),
        }
    }
}
