//! Names of files, each in one place.

use std::ffi::CStr;

/// Where the configuration is unless `--config=` says otherwise.
pub const DEFAULT_CONFIGURATION: &str = "/etc/dovecot/nfs-hostchange.toml";

/// The lock file of LISTINDEX, which holds the record. No name of a list index may begin with it.
pub const LOCK_FILE: &CStr = c".lasthost";
/// The sign beside it that sessions run without a list index.
pub const SIGN_FILE: &CStr = c".lasthost.without";

/// The names that a Dovecot without LISTINDEX gives to the list index in INDEX.
pub const SHARED_PREFIX: &CStr = c"dovecot.list.index";
/// The file without which there is no list index.
pub const SHARED_LOG: &CStr = c"dovecot.list.index.log";
