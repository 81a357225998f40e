//! Who the user is, as Dovecot says.

use std::fmt;

use crate::actor::{Actor, ActorError};
use crate::decimal::decimal;
use crate::dovecot::environment::Environment;
use crate::error::from_errors;
use crate::system::accounts;
use crate::system::credentials::{GroupId, Identity, UserId, effective_user};

/// Why there is nobody whose rights the work may be done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// Started as root, and the userdb returns no uid or gid (the field's name).
    Unknown(&'static str),
    /// The userdb returns this as well, which only newer versions of Dovecot use.
    Newer(String),
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
            Self::Newer(field) => write!(
                f,
                "the userdb returns {field}, which counts only since Dovecot 2.4.2: return the same \
                 without set/"
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

from_errors!(UserError: ActorError => Actor);

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

/// The setting that the field stands for, if the userdb returns that, or the field.
fn id(environment: &Environment, field: &'static str) -> Result<u32, UserError> {
    let key = field.to_ascii_uppercase();
    let value = |name: &str| environment.userdb_field(name.as_bytes());
    let setting = format!("MAIL_{key}");
    let given = value(&setting).or_else(|| value(&key));
    if value(&format!("SET/{setting}")).is_some_and(|newer| Some(newer) != given) {
        return Err(UserError::Newer(format!("set/mail_{field}")));
    }
    let value = given.ok_or(UserError::Unknown(field))?;
    decimal(value)
        // Which stands for "leave as it is" (setresuid(2)).
        .filter(|&number| number != u32::MAX)
        .ok_or_else(|| UserError::NotANumber(field, value.to_vec()))
}
