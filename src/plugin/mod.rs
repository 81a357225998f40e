//! The mail plugin: what Dovecot's hooks lead to.
//!
//! `nfs-hostchange-plugin.c` knows Dovecot's structures and nothing else; [`border`] is what it
//! calls; [`list`] decides, with the same core as the wrapper.

#![deny(unsafe_code)]

pub mod border;
pub mod list;
