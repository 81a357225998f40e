//! `nfs-hostchange locate`: where one user's INDEX and LISTINDEX are, as a login would find them.

pub mod print;

use std::ffi::{CStr, CString};
use std::fmt;

use crate::admin::command_line::Locate;
use crate::config::{Configuration, ConfigurationError};
use crate::dovecot::doveadm::{self, DoveadmError};
use crate::dovecot::environment::{Environment, of_userdb_fields};
use crate::dovecot::location::{Location, LocationError, Tracking};

/// The user's location, and what a login would do with it.
#[derive(Debug)]
pub struct Answer {
    location: Location,
    tracking: Tracking,
}

/// Why a user's location is not known.
#[derive(Debug)]
pub enum LocateError {
    /// The configuration file cannot be used.
    Configuration(ConfigurationError),
    /// Dovecot does not say what the userdb returns.
    Doveadm(DoveadmError),
    /// The userdb fields do not say where.
    Location(LocationError),
}

impl std::error::Error for LocateError {}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(f),
            Self::Doveadm(error) => error.fmt(f),
            Self::Location(error) => error.fmt(f),
        }
    }
}

/// Resolves the location of one user.
///
/// # Errors
/// If it is not known, or Dovecot would refuse it.
fn locate(options: &Locate) -> Result<Answer, LocateError> {
    let configuration = Configuration::read(&options.configuration.path)
        .map_err(LocateError::Configuration)?
        .unwrap_or_default();
    let entries = environment_of(options).map_err(LocateError::Doveadm)?;
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    let environment = Environment::new(&entries);
    let location = Location::read(&environment, &configuration.inbox_namespace)
        .map_err(LocateError::Location)?;
    let tracking = location.tracking(&environment);
    Ok(Answer { location, tracking })
}

fn environment_of(options: &Locate) -> Result<Vec<CString>, DoveadmError> {
    use std::os::unix::ffi::OsStrExt;
    if options.fields.is_empty() {
        doveadm::environment_of(&options.user, options.dovecot_config.as_deref())
    } else {
        let fields = options.fields.iter().cloned();
        of_userdb_fields(options.user.as_bytes(), fields).map_err(DoveadmError::Nul)
    }
}
