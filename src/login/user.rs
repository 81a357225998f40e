//! Who the user is, as Dovecot says.

use std::fmt;

use crate::actor::{Actor, ActorError};
use crate::config::{Account, Configuration};
use crate::dovecot::environment::Environment;
use crate::system::accounts;
use crate::system::credentials::{GroupId, Identity, UserId, effective_user};

/// Why nobody can be become, or nobody that the work may be done as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// Started as root, and nothing names the user's uid or gid (the userdb field's name).
    Unknown(&'static str),
    /// The userdb field is not a number.
    NotANumber(&'static str, Vec<u8>),
    /// A name in the configuration that /etc/passwd or /etc/group does not have.
    NoSuchAccount(String),
    /// Nobody that the work may be done as.
    Actor(ActorError),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::Unknown(field) => write!(
                f,
                "started as root without {field} from the userdb; set mail_{} in the configuration file",
                field.to_ascii_lowercase()
            ),
            UserError::NotANumber(field, value) => {
                let value = String::from_utf8_lossy(value);
                write!(f, "{field}='{value}' is not a number")
            }
            UserError::NoSuchAccount(name) => {
                write!(
                    f,
                    "'{name}' of the configuration file is not in /etc/passwd or /etc/group"
                )
            }
            UserError::Actor(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UserError {}

impl From<ActorError> for UserError {
    fn from(error: ActorError) -> UserError {
        UserError::Actor(error)
    }
}

/// Who does the work: this process's own user, or as root the user whom Dovecot named.
///
/// # Errors
/// If as root nothing says who the user is, or the user is root.
pub fn actor(environment: &Environment, configuration: &Configuration) -> Result<Actor, UserError> {
    if effective_user().0 != 0 {
        return Ok(Actor::current()?);
    }
    let user = UserId(id(
        environment,
        "UID",
        &configuration.mail_uid,
        accounts::user_id,
    )?);
    let group = GroupId(id(
        environment,
        "GID",
        &configuration.mail_gid,
        accounts::group_id,
    )?);
    let groups = groups(environment, configuration, group)?;
    Ok(Actor::assume(Identity {
        user,
        group,
        groups,
    })?)
}

fn id(
    environment: &Environment,
    field: &'static str,
    configured: &Option<Account>,
    look_up: impl Fn(&str) -> Option<u32>,
) -> Result<u32, UserError> {
    match (environment.get(field.as_bytes()), configured) {
        (Some(value), _) => {
            number(value).ok_or_else(|| UserError::NotANumber(field, value.to_vec()))
        }
        (None, Some(account)) => resolve(account, look_up),
        (None, None) => Err(UserError::Unknown(field)),
    }
}

/// A decimal number; not 4294967295, which stands for "leave as it is" (setresuid(2)).
fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())??;
    (number != u32::MAX).then_some(number)
}

/// The id of a user or group of the configuration file; `look_up` finds that of a name.
///
/// # Errors
/// If the system knows nobody of that name.
pub fn resolve(account: &Account, look_up: impl Fn(&str) -> Option<u32>) -> Result<u32, UserError> {
    match account {
        Account::Id(id) => Ok(*id),
        Account::Name(name) => number(name.as_bytes())
            .or_else(|| look_up(name))
            .ok_or_else(|| UserError::NoSuchAccount(name.clone())),
    }
}

fn groups(
    environment: &Environment,
    configuration: &Configuration,
    group: GroupId,
) -> Result<Vec<u32>, UserError> {
    let mut groups = vec![group.0];
    for account in &configuration.mail_access_groups {
        groups.push(resolve(account, accounts::group_id)?);
    }
    if let Some(user) = environment.get(b"SYSTEM_GROUPS_USER") {
        groups.extend(accounts::groups_of(user));
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}
