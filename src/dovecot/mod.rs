//! What Dovecot says: the environment of a post-login script, locations, ages.

pub mod age;
#[cfg(feature = "admin")]
pub mod doveadm;
pub mod environment;
#[cfg(feature = "admin")]
pub mod files;
pub mod location;
#[cfg(feature = "admin")]
pub mod master;
#[cfg(feature = "admin")]
pub mod settings;
