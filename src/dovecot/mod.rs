//! What Dovecot says: the environment of a post-login script, locations, ages.

pub mod age;
pub mod environment;
pub mod location;
