//! Where INDEX and LISTINDEX are: `mail_location` as Dovecot 2.3 reads it.
//!
//! The steps are Dovecot's own, and come in its order:
//!
//! 1. [`expand`] replaces the %variables of the template in the configuration
//!    file. Values from the userdb have been expanded already, and an expanded
//!    value is never expanded again.
//! 2. [`parse`] splits the result into the driver and the keys, and puts in the
//!    home directories for `~/` and `~name/`.
//! 3. [`tracking`] decides what a login may do with the outcome.
//!
//! Nothing in here looks at the file system, and no input makes it panic.
//! Paths are bytes, and are returned as Dovecot would use them: `//`, `/./` and
//! `/../` stay.

mod condition;
mod expand;
mod field;
mod hash;
mod parse;
pub mod source;
mod variables;

use std::fmt;

use crate::names::LOCK_FILE;

pub use expand::{ExpandError, expand};
pub use parse::{ParseError, parse};
pub use variables::{Lookup, Setting, UserdbField, Variables};

/// The mail storage driver, the part of `mail_location` before the first colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `maildir`
    Maildir,
    /// `mbox`
    Mbox,
    /// `mdbox`
    Mdbox,
    /// `sdbox`, also called `dbox`
    Sdbox,
    /// `raw`
    Raw,
}

/// How mailbox names become directories, the `LAYOUT` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `maildir++`: a dot name is a folder's name
    MaildirPlusPlus,
    /// `fs`
    Fs,
    /// `index`: the list index is the only map from names to directories
    Index,
    /// `imapdir`
    Imapdir,
    /// `none`: no directories at all
    None,
}

/// Where the index files of one user's inbox namespace are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The mail storage driver
    pub driver: Driver,
    /// The directory layout
    pub layout: Layout,
    /// The root mail directory
    pub root_dir: Vec<u8>,
    /// INDEX; `None` means that indexes are in memory
    pub index_dir: Option<Vec<u8>>,
    /// The mailbox list index
    pub list_index: ListIndex,
    /// Every file in INDEX shows up as a mailbox (mbox with ITERINDEX)
    pub lists_index_files: bool,
}

/// Where the mailbox list index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListIndex {
    /// Files called `<prefix>`, `<prefix>.log` and so on
    File {
        /// The directory as Dovecot uses it
        directory: Vec<u8>,
        /// The file names' first part
        prefix: Vec<u8>,
        /// How LISTINDEX named the directory
        given: Given,
    },
    /// In memory, because INDEX is
    Memory {
        /// The file names' first part, which nothing uses
        prefix: Vec<u8>,
    },
    /// There is none: LISTINDEX has an empty file part, or with LAYOUT=none
    Disabled,
}

/// How the directory of the list index was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// LISTINDEX is not set
    NotAtAll,
    /// LISTINDEX has no directory, or one below INDEX
    Relative,
    /// LISTINDEX has an absolute directory
    Absolute,
}

impl Layout {
    /// The name as in `LAYOUT=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaildirPlusPlus => "maildir++",
            Self::Fs => "fs",
            Self::Index => "index",
            Self::Imapdir => "imapdir",
            Self::None => "none",
        }
    }
}

/// What a login may do with the list index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracking {
    /// The list index is local: reconcile it
    Tracked(Tracked),
    /// Nothing is local, nothing to do
    Shared(Shared),
    /// LAYOUT=index: never deleted, never switched off
    LayoutIndex,
    /// The list index is local, but nobody can vouch for it: it is left alone,
    /// and this session must not use it
    Unvouchable(Unvouchable),
}

/// What reconciling needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// INDEX, on NFS
    pub index_dir: Vec<u8>,
    /// The directory of LISTINDEX, local
    pub list_index_dir: Vec<u8>,
    /// The file names' first part in LISTINDEX
    pub prefix: Vec<u8>,
    /// What the claim is called in INDEX
    pub claim_name: &'static str,
}

/// Why nothing is local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// LISTINDEX is not set
    NotSet,
    /// LISTINDEX is below INDEX
    Relative,
    /// LISTINDEX and INDEX are the same directory
    SameDirectory,
    /// The list index is in memory
    Memory,
    /// LISTINDEX has an empty file part, or LAYOUT=none: there is no list index
    Disabled,
}

/// Why a local list index cannot be vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unvouchable {
    /// The user name is empty, `.` or `..`, or has a `/` or NUL
    UserName,
    /// INDEX=MEMORY: nowhere to claim
    IndexInMemory,
    /// INDEX is relative to the process's directory
    IndexRelative,
    /// INDEX has a `..` component
    IndexParent,
    /// LISTINDEX has a `..` component
    ListIndexParent,
    /// The user is chrooted, so the paths are not ours
    Chrooted,
    /// The prefix is `.lasthost`, the name of the record
    PrefixIsRecord,
    /// The claim would show up as a mailbox
    ClaimIsMailbox,
}

/// Decides what a login may do with a user's list index.
///
/// `home` and `chroot` are what the userdb returned: a `/./` in the home or a
/// chroot directory means that the user's paths are below another root.
///
/// Nothing is wrong with any user whose list index is shared, so that is asked
/// first; and LAYOUT=index must not be touched, whatever else is wrong.
#[must_use]
pub fn tracking(
    location: &Location,
    user: &[u8],
    home: Option<&[u8]>,
    chroot: Option<&[u8]>,
) -> Tracking {
    let (directory, prefix) = match &location.list_index {
        ListIndex::Memory { .. } => return Tracking::Shared(Shared::Memory),
        ListIndex::Disabled => return Tracking::Shared(Shared::Disabled),
        ListIndex::File {
            directory,
            prefix,
            given,
        } => match given {
            Given::NotAtAll => return Tracking::Shared(Shared::NotSet),
            Given::Relative => return Tracking::Shared(Shared::Relative),
            Given::Absolute => (directory, prefix),
        },
    };
    let index_dir = location.index_dir.as_deref();
    if index_dir.is_some_and(|index_dir| is_same_path(index_dir, directory)) {
        return Tracking::Shared(Shared::SameDirectory);
    }
    if location.layout == Layout::Index {
        return Tracking::LayoutIndex;
    }

    let has_parent = |path: &[u8]| path.split(|&byte| byte == b'/').any(|name| name == b"..");
    let Some(index_dir) = index_dir else {
        return Tracking::Unvouchable(Unvouchable::IndexInMemory);
    };
    let reason = if matches!(user, b"" | b"." | b"..") || user.iter().any(|b| b"/\0".contains(b)) {
        Unvouchable::UserName
    } else if chroot.is_some_and(|chroot| !chroot.is_empty())
        || home.is_some_and(|home| home.windows(3).any(|part| part == b"/./"))
    {
        Unvouchable::Chrooted
    } else if !index_dir.starts_with(b"/") {
        Unvouchable::IndexRelative
    } else if has_parent(index_dir) {
        Unvouchable::IndexParent
    } else if has_parent(directory) || prefix == b".." {
        Unvouchable::ListIndexParent
    } else if prefix == LOCK_FILE.to_bytes() {
        Unvouchable::PrefixIsRecord
    } else if location.lists_index_files {
        Unvouchable::ClaimIsMailbox
    } else {
        return Tracking::Tracked(Tracked {
            index_dir: index_dir.to_vec(),
            list_index_dir: directory.clone(),
            prefix: prefix.clone(),
            claim_name: location.layout.claim_name(),
        });
    };
    Tracking::Unvouchable(reason)
}

/// Compares two paths without their `//`, `/./` and trailing slashes.
fn is_same_path(one: &[u8], other: &[u8]) -> bool {
    fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
        path.split(|&byte| byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."))
    }
    one.starts_with(b"/") == other.starts_with(b"/") && names(one).eq(names(other))
}

impl Layout {
    /// What the claim is called in INDEX.
    ///
    /// In Maildir++ a dot name is a folder's name: a claim called `.lasthost` shows
    /// up as a folder on some NFS mounts, and collides with a folder of that name.
    #[must_use]
    pub fn claim_name(self) -> &'static str {
        match self {
            Self::MaildirPlusPlus => "dovecot.lasthost",
            Self::Fs | Self::Index | Self::Imapdir | Self::None => ".lasthost",
        }
    }
}

/// Bytes in an error message: escaped, and no longer than a reader wants.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 100;
        let dots = if self.0.len() > MOST { "..." } else { "" };
        let beginning = &self.0[..self.0.len().min(MOST)];
        write!(f, "{}{dots}", beginning.escape_ascii())
    }
}

impl fmt::Display for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracked(_) => f.write_str("the list index is local"),
            Self::Shared(reason) => reason.fmt(f),
            Self::LayoutIndex => f.write_str(
                "with LAYOUT=index the list index is the only map from mailbox names to \
                 directories: it must not be local",
            ),
            Self::Unvouchable(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSet => "LISTINDEX is not set: the list index is in INDEX",
            Self::Relative => "LISTINDEX is a relative path: the list index is below INDEX",
            Self::SameDirectory => "LISTINDEX and INDEX are the same directory",
            Self::Memory => "the list index is in memory",
            Self::Disabled => "the location switches the list index off",
        })
    }
}

impl fmt::Display for Unvouchable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserName => "the user name is empty, '.' or '..', or contains '/' or NUL",
            Self::IndexInMemory => "with INDEX=MEMORY there is no shared directory for the claim",
            Self::IndexRelative => "INDEX is a relative path",
            Self::IndexParent => "INDEX contains '..'",
            Self::ListIndexParent => "LISTINDEX contains '..'",
            Self::Chrooted => "the user is chrooted: the paths are below another root",
            Self::ClaimIsMailbox => "mbox with ITERINDEX shows every file in INDEX as a mailbox",
            Self::PrefixIsRecord => "the list index has the name of the record, '.lasthost'",
        })
    }
}
