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

/// A number for a name, the same on every backend (FNV-1a).
pub fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
