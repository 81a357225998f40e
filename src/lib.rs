//! Keeps Dovecot's local mailbox list indexes right on NFS clusters.

#![deny(unsafe_code)]

pub mod location;
pub mod system;
pub mod usercache;
