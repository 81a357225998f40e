//! Who the user is, as Dovecot says.

use std::fmt;

use crate::actor::{Actor, ActorError};
use crate::decimal::decimal;
use crate::dovecot::environment::Environment;
use crate::system::accounts;
use crate::system::credentials::{GroupId, Identity, UserId, effective_user};

/// Why there is nobody whose rights the work may be done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// Started as root, and the userdb returns no uid or gid (the field's name).
    Unknown(&'static str),
    /// The userdb field is not a number.
    NotANumber(&'static str, Vec<u8>),
    /// The user's rights cannot be taken on.
    Actor(ActorError),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(field) => write!(
                f,
                "started as root, and the userdb returns no {field}: in dovecot.conf write \
                 'user = vmail' in the post-login service, or 'script-login -d', or let the userdb \
                 return {field}"
            ),
            Self::NotANumber(field, value) => {
                let value = String::from_utf8_lossy(value);
                write!(f, "userdb field {field}='{value}' is not a number")
            }
            Self::Actor(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UserError {}

impl From<ActorError> for UserError {
    fn from(error: ActorError) -> Self {
        Self::Actor(error)
    }
}

/// Whose rights the work is done with: those of this process, or, as root, of the user whom Dovecot
/// named.
///
/// # Errors
/// As root: if the userdb does not say who the user is, or the user is root.
pub fn actor(environment: &Environment) -> Result<Actor, UserError> {
    if effective_user().0 != 0 {
        return Ok(Actor::current()?);
    }
    let user = UserId(id(environment, "uid")?);
    let group = GroupId(id(environment, "gid")?);
    let mut groups = vec![group.0];
    if let Some(user) = environment.userdb_field(b"SYSTEM_GROUPS_USER") {
        groups.extend(accounts::groups_of(user));
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Actor::assume(Identity {
        user,
        group,
        groups,
    })?)
}

/// The field, or the setting of Dovecot 2.4 that it stands for.
fn id(environment: &Environment, field: &'static str) -> Result<u32, UserError> {
    let key = field.to_ascii_uppercase();
    let value = environment
        .userdb_field(key.as_bytes())
        .or_else(|| environment.userdb_field(format!("MAIL_{key}").as_bytes()))
        .ok_or(UserError::Unknown(field))?;
    decimal(value)
        // Which stands for "leave as it is" (setresuid(2)).
        .filter(|&number| number != u32::MAX)
        .ok_or_else(|| UserError::NotANumber(field, value.to_vec()))
}
