//! Signs that a directory holds mail or its indexes. A list index there may be no cache but the only map from
//! folder names to directories (LAYOUT=index).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::system::entries::{Entries, EntryType, open_directory};
use crate::system::statx::Attributes;

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

/// What in or below `directory` shows that its list index is the only map from folder names to
/// directories, if anything does: a mailbox that is known by its number alone (LAYOUT=index, of
/// whatever namespace, and whatever MAILBOXDIR= is), or something that cannot be looked into.
///
/// # Errors
/// If a directory cannot be listed.
pub fn sign_of_map(directory: impl AsFd) -> nix::Result<Option<CString>> {
    // An O_PATH descriptor cannot be listed; "." is the same directory, whatever its path is now.
    let listing = open_directory(directory, c".")?;
    Search(MOST_DIRECTORIES).through(&listing, DEEPEST)
}

/// How many directories are searched, and how deep. What is not searched may be anything.
const MOST_DIRECTORIES: usize = 4096;
const DEEPEST: usize = 16;

/// Where mails are, often very many: no mailbox's directory is in there.
const OF_MAILS: [&[u8]; 4] = [b"cur", b"new", b"tmp", b"dbox-Mails"];

/// A search, with the number of directories that may still be looked into.
struct Search(usize);

impl Search {
    fn through(&mut self, listing: &OwnedFd, deeper: usize) -> nix::Result<Option<CString>> {
        let mut entries = Entries::default();
        // ENOENT: it has just been removed.
        while entries.read(listing).or_else(|errno| match errno {
            Errno::ENOENT => Ok(false),
            errno => Err(errno),
        })? {
            for (name, entry_type) in entries.iter() {
                if is_guid(name.to_bytes()) {
                    return Ok(Some(name.to_owned()));
                }
                if entry_type == EntryType::File || OF_MAILS.contains(&name.to_bytes()) {
                    continue;
                }
                if let Some(sign) = self.look_into(listing, name, deeper)? {
                    return Ok(Some(sign));
                }
            }
        }
        Ok(None)
    }

    /// Looks into `name`, if it is a directory.
    fn look_into(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        deeper: usize,
    ) -> nix::Result<Option<CString>> {
        let directory = match open_directory(parent, name) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ENOTDIR) if !is_link(parent, name) => return Ok(None),
            // A link, another file system, or closed to the user: nobody knows what is behind it.
            Err(Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::EACCES) => {
                return Ok(Some(name.to_owned()));
            }
            Err(errno) => return Err(errno),
        };
        if self.0 == 0 || deeper == 0 {
            return Ok(Some(name.to_owned()));
        }
        self.0 -= 1;
        self.through(&directory, deeper - 1)
    }
}

fn is_link(parent: &OwnedFd, name: &CStr) -> bool {
    Attributes::known(parent, name).is_ok_and(|attributes| attributes.is_symbolic_link())
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
