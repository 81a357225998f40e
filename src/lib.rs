//! Keeps Dovecot's local mailbox list indexes right on NFS clusters.

#![deny(unsafe_code)]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "admin")]
pub mod locate;
pub mod location;
pub mod system;
pub mod usercache;
