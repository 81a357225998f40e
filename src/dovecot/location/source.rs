//! Which `mail_location` and which home directory a login has.
//!
//! The userdb's answer comes before the configuration file, as in Dovecot. What the userdb
//! returns is expanded already, but for `~/`.

use std::fmt;

use super::{
    ExpandError, Lookup, ParseError, Setting, Tracking, UserdbField, Variables, expand, parse,
    tracking,
};
use crate::config::Configuration;
use crate::dovecot::environment::Environment;
use crate::system::accounts;

/// The userdb fields that hold a location, the strongest first.
const LOCATION_FIELDS: [&str; 3] = ["NAMESPACE/INBOX/LOCATION", "MAIL_LOCATION", "MAIL"];

/// Why it is not known where a user's list index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceError {
    /// Neither the userdb nor the configuration file has a location.
    NoLocation,
    /// `mail_home` or `mail_location` of the configuration file cannot be expanded.
    Template(&'static str, ExpandError),
    /// A location cannot be understood: its source, and why.
    Location(&'static str, ParseError),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::NoLocation => f.write_str(
                "mail_location is neither in the userdb's answer nor in the configuration file",
            ),
            SourceError::Template(setting, error) => {
                write!(f, "{setting} of the configuration file: {error}")
            }
            SourceError::Location(source, error) => write!(f, "{source}: {error}"),
        }
    }
}

/// What may be done with the list index of the user who logs in.
///
/// # Errors
/// If the location is not known or not understood.
pub fn of_login(
    environment: &Environment,
    configuration: &Configuration,
) -> Result<Tracking, SourceError> {
    let user = environment.get(b"USER").unwrap_or_default();
    let mut variables = Variables {
        user,
        home: None,
        auth_user: environment.userdb_field(b"AUTH_USER").or(Some(user)),
        uid: number(environment.get(b"UID")),
        gid: number(environment.get(b"GID")),
        service: None,
        local_ip: environment.get(b"LOCAL_IP"),
        remote_ip: environment.get(b"IP"),
        session: None,
        pid: None,
        lookup: environment,
    };
    let configured_home = configuration.mail_home.as_ref().map(|template| {
        expand(template.as_bytes(), Setting::MailHome, &variables)
            .map_err(|error| SourceError::Template("mail_home", error))
    });
    // A field that a script of the chain set without telling Dovecot yields to the file.
    let home = match (environment.userdb_field(b"HOME"), configured_home) {
        (Some(home), _) => Some(home.to_vec()),
        (None, Some(home)) => Some(home?),
        (None, None) => environment.get(b"HOME").map(<[u8]>::to_vec),
    };
    variables.home = home.as_deref();
    let (source, location) = location(environment, configuration, &variables)?;
    let location = parse(&location, home.as_deref(), &accounts::home_of)
        .map_err(|error| SourceError::Location(source, error))?;
    let chroot = environment.get(b"CHROOT");
    Ok(tracking(&location, user, home.as_deref(), chroot))
}

fn location(
    environment: &Environment,
    configuration: &Configuration,
    variables: &Variables,
) -> Result<(&'static str, Vec<u8>), SourceError> {
    let found = |get: &dyn Fn(&[u8]) -> Option<Vec<u8>>| {
        LOCATION_FIELDS
            .iter()
            .find_map(|field| Some((*field, get(field.as_bytes())?)))
    };
    if let Some(handed_over) = found(&|field| Some(environment.userdb_field(field)?.to_vec())) {
        return Ok(handed_over);
    }
    if let Some(template) = &configuration.mail_location {
        return expand(template.as_bytes(), Setting::MailLocation, variables)
            .map(|location| ("mail_location of the configuration file", location))
            .map_err(|error| SourceError::Template("mail_location", error));
    }
    found(&|field| Some(environment.get(field)?.to_vec())).ok_or(SourceError::NoLocation)
}

fn number(text: Option<&[u8]>) -> Option<u32> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}

impl Lookup for Environment<'_> {
    fn host_domain(&self) -> Option<Vec<u8>> {
        None
    }

    fn host_name(&self) -> Option<Vec<u8>> {
        None
    }

    /// The mail process has an environment of its own, which a post-login script does not see.
    fn environment(&self, _name: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn userdb(&self, field: &[u8]) -> Option<UserdbField> {
        let value = self.userdb_field(&field.to_ascii_uppercase());
        Some(value.map_or(UserdbField::Absent, |value| {
            UserdbField::Value(value.to_vec())
        }))
    }
}
