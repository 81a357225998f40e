//! What shows that a directory holds mail, or the indexes beside it. The list index there may be the only
//! map from the names of folders to their directories (LAYOUT=index), and nobody else's cache.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::system::entries::{Entries, EntryType, open_directory};

/// Names that Dovecot gives to files and directories of a mail store and of an INDEX.
const NAMES: [&[u8]; 10] = [
    b"cur",
    b"dbox-Mails",
    b"dovecot-keywords",
    b"dovecot.lasthost",
    b"dovecot.mailbox.log",
    b"mailboxes",
    b"maildirfolder",
    b"new",
    b"storage",
    b"subscriptions",
];

/// How other names of that kind begin.
const BEGINNINGS: [&[u8]; 3] = [b"dovecot-uid", b"dovecot.index", b"dovecot.map.index"];

/// Whether a directory in which there is this name holds mail or its indexes. Locks of Dovecot's may be
/// in a LISTINDEX, too (VOLATILEDIR).
pub fn is_of_store(name: &[u8]) -> bool {
    let begins = |beginning: &&[u8]| name.starts_with(beginning);
    (NAMES.contains(&name) || is_guid(name) || BEGINNINGS.iter().any(begins))
        && !name.ends_with(b".lock")
}

/// Whether Dovecot would call a mailbox's directory so by the mailbox's number.
fn is_guid(name: &[u8]) -> bool {
    name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit)
}

/// Whether mailboxes in `directory` are known by their numbers alone, so that the list index there is the
/// only map to them: LAYOUT=index, whatever MAILBOXDIR= calls the directory between.
///
/// # Errors
/// If it, or a directory in it, cannot be listed.
pub fn is_map(directory: &OwnedFd) -> nix::Result<bool> {
    let mut entries = Entries::default();
    let mut below = Vec::new();
    let listing = open_directory(directory, c".")?;
    while entries.read(&listing)? {
        for (name, entry_type) in entries.iter() {
            if is_guid(name.to_bytes()) {
                return Ok(true);
            }
            // Mails and mailboxes have no mailboxes in them; a dot begins a folder's name in Maildir++.
            let holds_mail = [&b"cur"[..], b"new", b"tmp", b"storage"].contains(&name.to_bytes());
            let may_be_one = matches!(entry_type, EntryType::Directory | EntryType::Unknown);
            if may_be_one && !holds_mail && !name.to_bytes().starts_with(b".") {
                below.push(name.to_owned());
            }
        }
    }
    for name in below {
        let listing = match open_directory(directory, &name) {
            Ok(listing) => listing,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => continue,
            Err(errno) => return Err(errno),
        };
        while entries.read(&listing)? {
            if entries.iter().any(|(name, _)| is_guid(name.to_bytes())) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::is_of_store;

    #[test]
    fn names_of_a_store_are_known() {
        for name in [
            "dovecot.lasthost",
            "dovecot-uidvalidity",
            "dovecot-uidlist",
            "dovecot.index.log",
            "dovecot.map.index",
            "0d3f67a12b5c0e5f8a7b000012345678",
        ] {
            assert!(is_of_store(name.as_bytes()), "{name}");
        }
        for name in [
            ".lasthost",
            "dovecot.list.index",
            "dovecot.list.index.log",
            "dovecot-uidlist.lock",
            "archive",
        ] {
            assert!(!is_of_store(name.as_bytes()), "{name}");
        }
    }
}
