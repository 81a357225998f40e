//! What Dovecot says: the environment of a post-login script, locations, ages.

pub mod age;
#[cfg(feature = "admin")]
pub mod doveadm;
pub mod environment;
pub mod location;
