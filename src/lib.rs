//! Keeps Dovecot's local mailbox list indexes right on NFS clusters.
//!
//! The life of a login, in the order in which it happens:
//!
//! 1. [`command_line`]: what to execute in the end.
//! 2. [`environment`]: what script-login told about the user.
//! 3. [`config`]: the administrator's settings; [`log`] from here on.
//! 4. [`location`]: where INDEX and LISTINDEX are.
//! 5. [`user`]: taking on the user's ids, if Dovecot started the wrapper as root.
//! 6. [`index_directory`]: the forced look at INDEX, on NFS; [`claim`]: the claim there.
//! 7. [`list_index_directory`]: LISTINDEX, local; [`lock`]: its lock, [`record`]: its record of
//!    the claim, [`list_index`]: the files that are thrown away.
//! 8. [`reconcile`]: comparing both sides; [`migrate`]: taking over a list index from NFS;
//!    [`open_sessions`]: who else must be gone first.
//! 9. [`login`]: all of it, from the start to the verdict and the executed program.

#![deny(unsafe_code)]

pub mod accounts;
#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "admin")]
pub mod check;
pub mod claim;
pub mod command_line;
pub mod config;
pub mod environment;
#[cfg(feature = "admin")]
pub mod file_system;
pub mod index_directory;
pub mod list_index;
pub mod list_index_directory;
#[cfg(feature = "admin")]
pub mod locate;
pub mod location;
pub mod lock;
pub mod log;
pub mod login;
pub mod migrate;
pub mod open_sessions;
pub mod reconcile;
pub mod record;
#[cfg(feature = "admin")]
pub mod status;
pub mod system;
pub mod user;
pub mod usercache;
