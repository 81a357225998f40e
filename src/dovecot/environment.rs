//! What script-login tells a post-login script, and the one thing the wrapper tells Dovecot.
//!
//! script-login puts every userdb field into the environment, its name in upper case, and lists
//! those names in USERDB_KEYS. After the last script it hands the fields named there, with the
//! values that the environment has then, to the mail process (Dovecot's src/util/script-login.c).

use std::ffi::{CStr, CString};

/// The userdb field that makes one session leave its list index alone.
const MAILBOX_LIST_INDEX: &[u8] = b"MAILBOX_LIST_INDEX";
const USERDB_KEYS: &[u8] = b"USERDB_KEYS";

/// The environment as it came, in order and byte for byte.
#[derive(Debug, Clone, Copy)]
pub struct Environment<'a>(&'a [&'a CStr]);

impl<'a> Environment<'a> {
    /// Wraps the environment vector.
    pub fn new(entries: &'a [&'a CStr]) -> Self {
        Environment(entries)
    }

    /// The value of the first entry called `key`, as getenv(3) would find it.
    pub fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.0.iter().find_map(|entry| value_of(entry, key))
    }

    /// The value of a userdb field that the mail process will see: an entry called `key`, which
    /// USERDB_KEYS names too. A script of the chain may have set the one without the other, and
    /// then Dovecot ignores it.
    ///
    /// Without any USERDB_KEYS nothing says so, and the entry alone counts.
    pub fn userdb_field(&self, key: &[u8]) -> Option<&'a [u8]> {
        let handed_over = self.get(USERDB_KEYS).is_none_or(|keys| {
            keys.split(|&byte| byte == b' ')
                .any(|name| name.eq_ignore_ascii_case(key))
        });
        if handed_over { self.get(key) } else { None }
    }

    /// The same environment for a session that must not use its list index.
    pub fn without_list_index(&self) -> Vec<CString> {
        let mut entries: Vec<CString> = self
            .0
            .iter()
            .filter(|entry| value_of(entry, MAILBOX_LIST_INDEX).is_none())
            .map(|&entry| entry.to_owned())
            .collect();
        if let Some(keys) = entries
            .iter_mut()
            .find(|entry| value_of(entry, USERDB_KEYS).is_some())
        {
            *keys = with_key(keys, MAILBOX_LIST_INDEX);
        }
        entries.push(c"MAILBOX_LIST_INDEX=no".to_owned());
        entries
    }
}

fn value_of<'a>(entry: &'a CStr, key: &[u8]) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(key)?.strip_prefix(b"=")
}

/// `entry` is USERDB_KEYS=...; Dovecot ends the list with a space.
fn with_key(entry: &CStr, key: &[u8]) -> CString {
    let keys = entry.to_bytes();
    let mut bytes = keys.to_vec();
    if !keys.ends_with(b" ") && !keys.ends_with(b"=") {
        bytes.push(b' ');
    }
    bytes.extend_from_slice(key);
    bytes.push(b' ');
    // Neither a C string nor the key holds a NUL byte, so nothing is ever cut off here.
    CString::new(bytes).unwrap_or_else(|_| entry.to_owned())
}
