//! Keeps Dovecot's local mailbox list indexes right on NFS clusters.
//!
//! The rooms of this house, in the order in which a login passes them:
//!
//! - [`login`]: the wrapper, a post-login script, from its command line to the executed program.
//! - [`dovecot`]: what Dovecot says about the user and where INDEX and LISTINDEX are.
//! - [`config`], [`log`]: the administrator's settings, and the lines that the administrator reads.
//! - [`actor`]: whose rights the work is done with; [`event`]: how the core reports to its caller.
//! - [`reconcile`]: the protocol, which compares both sides and makes them equal; it does not know
//!   its callers.
//! - [`nfs`]: INDEX, and the claim in it; [`local`]: LISTINDEX, its lock and its record.
//! - `plugin`, a crate of its own: the mail plugin, the other front end, in front of the same core.
//! - [`usercache`]: deleting list indexes that nobody uses.
//! - [`admin`]: the administrator's command, `nfs-hostchange`.
//! - [`names`]: names of files; `decimal`: numbers; [`system`]: everything that talks to the kernel past `std` and `nix`.

#![deny(unsafe_code)]

// Inode numbers, sizes and times of files are 64-bit everywhere here.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("nfs-hostchange is for 64-bit systems");

pub mod actor;
#[cfg(feature = "admin")]
pub mod admin;
pub mod config;
mod decimal;
pub mod dovecot;
mod error;
pub mod event;
pub mod local;
pub mod log;
pub mod login;
pub mod names;
pub mod nfs;
pub mod reconcile;
pub mod store;
pub mod system;
#[cfg(feature = "admin")]
pub mod usercache;
