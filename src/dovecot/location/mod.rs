//! Where INDEX and LISTINDEX are, by the userdb fields that Dovecot hands over.
//!
//! There are two readers, one for each spelling: [`expanded`] for the location of Dovecot 2.3, in
//! which every %variable is replaced already, and [`settings`] for the settings of 2.4. Both make
//! the same [`Location`], and [`Location::tracking`] decides what a login may do with it. Nothing
//! is guessed: what the fields do not say is an error that names the line to write.
//!
//! Paths are bytes, as Dovecot would use them: `//` and `/./` stay. But for the homes of system
//! users nothing in here looks at the file system, and no input makes it panic.

mod expanded;
mod settings;

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::dovecot::environment::{Environment, Namespace, SetFields};
use crate::names::LOCK_FILE;

/// How mailbox names become directories: `LAYOUT` in Dovecot 2.3, `mailbox_list_layout` in 2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `maildir++`: a dot name is a folder's name.
    MaildirPlusPlus,
    /// `fs`.
    Fs,
    /// `index`: the list index is the only map from names to directories.
    Index,
    /// `imapdir`.
    Imapdir,
    /// `none`: no directories at all.
    None,
}

/// Where the index files of one user's inbox namespace are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The directory layout.
    pub layout: Layout,
    /// INDEX; `None` means that indexes are in memory.
    pub index_dir: Option<Vec<u8>>,
    /// The mailbox list index.
    pub list_index: ListIndex,
    /// Every file in INDEX shows up as a mailbox (mbox with ITERINDEX).
    lists_index_files: bool,
    /// Other fields may lead elsewhere.
    doubt: Option<Unvouchable>,
}

/// Where the mailbox list index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListIndex {
    /// Files called `<prefix>`, `<prefix>.log` and so on.
    File {
        /// The directory as Dovecot uses it.
        directory: Vec<u8>,
        /// The file names' first part.
        prefix: Vec<u8>,
        /// How the directory was given.
        given: Given,
    },
    /// In memory, because INDEX is.
    Memory {
        /// The file names' first part, which nothing uses.
        prefix: Vec<u8>,
    },
    /// There is none: its path has an empty file part, or the layout is none.
    Disabled,
}

/// How the directory of the list index was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Not at all.
    Not,
    /// There is no directory, or one below INDEX.
    Relative,
    /// As an absolute directory.
    Absolute,
}

/// What a login may do with the list index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracking {
    /// The list index is local: reconcile it.
    Tracked(Tracked),
    /// Nothing is local, nothing to do.
    Shared(Shared),
    /// Layout index: never deleted, never switched off.
    LayoutIndex,
    /// The list index is local, but nobody can vouch for it: it is left alone,
    /// and this session must not use it.
    Unvouchable(Unvouchable),
}

/// Where a list index is that can be kept in step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    index_dir: PathBuf,
    list_index_dir: PathBuf,
    prefix: CString,
    claim_name: &'static CStr,
}

impl Tracked {
    /// Proves what is said of each of the four.
    ///
    /// # Errors
    /// If one of them is not so.
    pub fn new(
        index_dir: &[u8],
        list_index_dir: &[u8],
        prefix: &[u8],
        claim_name: &'static CStr,
    ) -> Result<Self, Unvouchable> {
        if !index_dir.starts_with(b"/") {
            return Err(Unvouchable::IndexRelative);
        }
        if !list_index_dir.starts_with(b"/") {
            return Err(Unvouchable::ListIndexRelative);
        }
        if has_parent(index_dir) {
            return Err(Unvouchable::IndexParent);
        }
        if has_parent(list_index_dir) || prefix == b".." {
            return Err(Unvouchable::ListIndexParent);
        }
        if index_dir.contains(&0) || list_index_dir.contains(&0) {
            return Err(Unvouchable::Nul);
        }
        Ok(Self {
            index_dir: path(index_dir),
            list_index_dir: path(list_index_dir),
            prefix: list_index_name(prefix).ok_or(Unvouchable::Prefix)?,
            claim_name,
        })
    }

    /// INDEX, on NFS: an absolute path without `..` and NUL.
    #[must_use]
    pub fn index_dir(&self) -> &Path {
        &self.index_dir
    }

    /// The directory of LISTINDEX, local: an absolute path without `..` and NUL.
    #[must_use]
    pub fn list_index_dir(&self) -> &Path {
        &self.list_index_dir
    }

    /// The first part of the file names in LISTINDEX, which can be a file's name.
    #[must_use]
    pub fn prefix(&self) -> &CStr {
        &self.prefix
    }

    /// What the claim is called in INDEX.
    #[must_use]
    pub fn claim_name(&self) -> &'static CStr {
        self.claim_name
    }
}

/// A name that a list index may have: a file's, and none of this program's own.
#[must_use]
pub fn list_index_name(name: &[u8]) -> Option<CString> {
    let is_reserved = matches!(name, b"" | b"." | b"..")
        || name.contains(&b'/')
        || name.starts_with(LOCK_FILE.to_bytes());
    if is_reserved {
        None
    } else {
        CString::new(name).ok()
    }
}

/// Why nothing is local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// LISTINDEX is not set.
    NotSet,
    /// LISTINDEX is below INDEX.
    Relative,
    /// LISTINDEX and INDEX are the same directory.
    SameDirectory,
    /// The list index is in memory.
    Memory,
    /// The path of the list index has an empty file part, or the layout is none.
    Disabled,
}

/// Why a local list index cannot be vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unvouchable {
    /// The user name is empty, `.` or `..`, or has a `/` or NUL.
    UserName,
    /// INDEX is in memory: nowhere to claim.
    IndexInMemory,
    /// INDEX is relative to the process's directory.
    IndexRelative,
    /// LISTINDEX is relative to the process's directory.
    ListIndexRelative,
    /// INDEX has a `..` component.
    IndexParent,
    /// LISTINDEX has a `..` component.
    ListIndexParent,
    /// A path has a NUL byte.
    Nul,
    /// The user is chrooted, so the paths are not ours.
    Chrooted,
    /// The list index has a name of this program's own, or none that a file can have.
    Prefix,
    /// The claim would show up as a mailbox.
    ClaimIsMailbox,
    /// The fields say different things to different versions of Dovecot.
    Contradiction,
    /// A field sets something for one driver or layout, or with a plus sign.
    Special,
}

/// What a login may do with the list index of the user whose userdb fields these are.
///
/// # Errors
/// If the fields do not say where it is, or Dovecot would refuse them.
pub fn resolve(
    environment: &Environment<'_>,
    inbox: &Namespace,
) -> Result<Tracking, LocationError> {
    Ok(Location::read(environment, inbox)?.tracking(environment))
}

impl Location {
    /// Where the indexes of the user are whose userdb fields these are.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn read(environment: &Environment<'_>, inbox: &Namespace) -> Result<Self, LocationError> {
        let of_2_3 = environment.location(inbox).map(|(field, location)| {
            let home = environment.home(SetFields::Ignored);
            expanded::parse(location, home).map_err(|error| LocationError {
                message: format!("userdb field {}: {error}", field.to_ascii_lowercase()),
                ..error
            })
        });
        if !environment.is_of_2_4(inbox) {
            return of_2_3.unwrap_or(Err(LocationError::nowhere()));
        }
        let read = |set_fields| settings::read(environment, inbox, set_fields);
        // Which of these Dovecot takes depends on its version. What 2.3 would refuse was not meant for
        // it: `mail` may be somebody's address.
        let has_set_fields = environment.has_set_fields();
        let readings = [
            has_set_fields.then(|| read(SetFields::Preferred)),
            Some(read(SetFields::Ignored)),
            of_2_3.filter(Result::is_ok),
        ];
        let mut readings = readings.into_iter().flatten();
        let mut location = readings.next().unwrap_or(Err(LocationError::nowhere()));
        let mut is_contradicted = false;
        let special = settings::special(environment, inbox);
        let mut is_layout_index = special == Some(settings::Special::LayoutIndex);
        for other in readings {
            is_layout_index |= other
                .as_ref()
                .is_ok_and(|other| other.layout == Layout::Index);
            is_contradicted |= location.as_ref().ok() != other.as_ref().ok();
            location = location.or(other);
        }
        let mut location = location?;
        location.doubt = if is_contradicted {
            Some(Unvouchable::Contradiction)
        } else {
            special.map(|_| Unvouchable::Special)
        };
        if is_layout_index {
            location.layout = Layout::Index;
        }
        Ok(location)
    }

    /// Decides what a login may do with the list index.
    ///
    /// Nothing is wrong with any user whose list index is shared, so that is asked
    /// first; and layout index must not be touched, whatever else is wrong.
    #[must_use]
    pub fn tracking(&self, environment: &Environment<'_>) -> Tracking {
        if let Some(doubt) = self.doubt {
            return match self.layout {
                Layout::Index => Tracking::LayoutIndex,
                _ => Tracking::Unvouchable(doubt),
            };
        }
        let (directory, prefix) = match &self.list_index {
            ListIndex::Memory { .. } => return Tracking::Shared(Shared::Memory),
            ListIndex::Disabled => return Tracking::Shared(Shared::Disabled),
            ListIndex::File {
                directory,
                prefix,
                given,
            } => match given {
                Given::Not => return Tracking::Shared(Shared::NotSet),
                Given::Relative => return Tracking::Shared(Shared::Relative),
                Given::Absolute => (directory, prefix),
            },
        };
        let index_dir = self.index_dir.as_deref();
        if index_dir.is_some_and(|index_dir| is_same_path(index_dir, directory)) {
            return Tracking::Shared(Shared::SameDirectory);
        }
        if self.layout == Layout::Index {
            return Tracking::LayoutIndex;
        }
        let tracked = match index_dir {
            None => Err(Unvouchable::IndexInMemory),
            Some(_) if !is_user_name(environment.get(b"USER").unwrap_or_default()) => {
                Err(Unvouchable::UserName)
            }
            Some(_) if is_chrooted(environment) => Err(Unvouchable::Chrooted),
            Some(_) if self.lists_index_files => Err(Unvouchable::ClaimIsMailbox),
            Some(index_dir) => Tracked::new(index_dir, directory, prefix, self.layout.claim_name()),
        };
        tracked.map_or_else(Tracking::Unvouchable, Tracking::Tracked)
    }
}

fn is_user_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| b"/\0".contains(byte))
}

/// A `/./` in the home or a directory to chroot to means that the user's paths are below another
/// root.
fn is_chrooted(environment: &Environment<'_>) -> bool {
    let is_set = |key: &[u8]| {
        environment
            .userdb_field(key)
            .is_some_and(|directory| !directory.is_empty())
    };
    let directories: [&[u8]; 3] = [b"CHROOT", b"MAIL_CHROOT", b"SET/MAIL_CHROOT"];
    let home = environment.userdb_field(b"HOME").unwrap_or_default();
    directories.into_iter().any(is_set) || home.windows(3).any(|part| part == b"/./")
}

fn has_parent(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|name| name == b"..")
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Compares two paths without their `//`, `/./` and trailing slashes.
fn is_same_path(one: &[u8], other: &[u8]) -> bool {
    fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
        path.split(|&byte| byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."))
    }
    one.starts_with(b"/") == other.starts_with(b"/") && names(one).eq(names(other))
}

/// Puts the home directory in for a `~` at the beginning; `None` if there is none, or another
/// user's is meant.
fn in_home(path: &[u8], home: Option<&[u8]>) -> Option<Vec<u8>> {
    match path.strip_prefix(b"~") {
        None => Some(path.to_vec()),
        Some(below) if below.is_empty() || below.starts_with(b"/") => Some([home?, below].concat()),
        Some(_) => None,
    }
}

impl Layout {
    /// The layout of that name, in any case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"maildir++" => Self::MaildirPlusPlus,
            b"fs" => Self::Fs,
            b"index" => Self::Index,
            b"imapdir" => Self::Imapdir,
            b"none" => Self::None,
            _ => return None,
        })
    }

    /// Its name in Dovecot's configuration.
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

    /// What the claim is called in INDEX.
    ///
    /// In Maildir++ a dot name is a folder's name: a claim called `.lasthost` shows
    /// up as a folder on some NFS mounts, and collides with a folder of that name.
    #[must_use]
    pub fn claim_name(self) -> &'static CStr {
        match self {
            Self::MaildirPlusPlus => c"dovecot.lasthost",
            Self::Fs | Self::Index | Self::Imapdir | Self::None => LOCK_FILE,
        }
    }
}

/// The mail storage driver, as far as it decides anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Maildir,
    Mbox,
    Mdbox,
    Sdbox,
    Raw,
}

impl Driver {
    /// The driver of that name, in any case.
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"maildir" => Self::Maildir,
            b"mbox" => Self::Mbox,
            b"mdbox" => Self::Mdbox,
            b"sdbox" | b"dbox" => Self::Sdbox,
            b"raw" => Self::Raw,
            _ => return None,
        })
    }

    fn is_dbox(self) -> bool {
        matches!(self, Self::Mdbox | Self::Sdbox)
    }

    /// The layout unless another one is set.
    fn layout(self) -> Layout {
        match self {
            Self::Maildir => Layout::MaildirPlusPlus,
            Self::Mbox | Self::Mdbox | Self::Sdbox | Self::Raw => Layout::Fs,
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

/// Why it is not known where a user's list index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationError {
    message: String,
    is_refused: bool,
    needs_home: bool,
    unknown_key: Option<Vec<u8>>,
}

impl LocationError {
    /// Whether Dovecot does not take it either.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Whether a home directory is missing, which dovecot.conf may have.
    #[must_use]
    pub fn needs_home(&self) -> bool {
        self.needs_home
    }

    /// The key that a location of Dovecot 2.3 cannot have.
    #[must_use]
    pub fn unknown_key(&self) -> Option<&[u8]> {
        self.unknown_key.as_deref()
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_refused: false,
            needs_home: false,
            unknown_key: None,
        }
    }

    fn refused(message: impl Into<String>) -> Self {
        Self {
            is_refused: true,
            ..Self::unknown(message)
        }
    }

    fn nowhere() -> Self {
        Self::unknown(
            "the userdb does not return the location of the mail; in dovecot.conf write, for \
             Dovecot 2.3, 'default_fields = mail_location=...' in userdb { }, for 2.4, \
             'mail_driver = $SET:mail_driver', 'mail_path = $SET:mail_path' and \
             'mailbox_list_index_prefix = $SET:mailbox_list_index_prefix' in userdb_fields { }",
        )
    }

    fn of_driver(name: &[u8], message: String) -> Self {
        // Dovecot has these, but they have no indexes here that could be kept in step.
        let name = name.to_ascii_lowercase();
        let others = ["", "auto", "imapc", "pop3c", "raw", "shared", "virtual"];
        let is_known = others.iter().any(|other| other.as_bytes() == name);
        Self {
            is_refused: !is_known,
            ..Self::unknown(message)
        }
    }

    fn of_key(key: &[u8]) -> Self {
        Self {
            unknown_key: Some(key.to_vec()),
            ..Self::refused(format!("unknown setting in the location: {}", Shown(key)))
        }
    }

    fn relative_home(home: &[u8]) -> Self {
        Self::refused(format!(
            "the home directory is a relative path: {}",
            Shown(home)
        ))
    }

    fn no_home(setting: impl fmt::Display) -> Self {
        Self {
            needs_home: true,
            ..Self::unknown(format!(
                "the userdb returns no home, but {setting} begins with ~/: return 'home' too"
            ))
        }
    }
}

impl std::error::Error for LocationError {}

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracked(_) => f.write_str("the list index is local"),
            Self::Shared(reason) => reason.fmt(f),
            Self::LayoutIndex => f.write_str(
                "with layout index the list index is the only map from mailbox names to \
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
            Self::Relative => {
                "the path of the list index is relative: the list index is in or below INDEX"
            }
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
            Self::IndexInMemory => {
                "with indexes in memory there is no shared directory for the claim"
            }
            Self::IndexRelative => "INDEX is a relative path",
            Self::ListIndexRelative => "LISTINDEX is a relative path",
            Self::IndexParent => "INDEX contains '..'",
            Self::ListIndexParent => "LISTINDEX contains '..'",
            Self::Nul => "INDEX or LISTINDEX contains a NUL byte",
            Self::Chrooted => "the user is chrooted: the paths are below another root",
            Self::ClaimIsMailbox => "mbox with ITERINDEX shows every file in INDEX as a mailbox",
            Self::Prefix => {
                "the list index has a name that no file can have, or one of this program's own \
                 ('.lasthost...')"
            }
            Self::Contradiction => {
                "the userdb returns fields that lead to different places in different versions of \
                 Dovecot: mail_location or mail counts for 2.3, mail_driver, mail_path and others for \
                 2.4, set/mail_path and others only since 2.4.2"
            }
            Self::Special => {
                "the userdb returns a setting for one driver or layout, such as mdbox/mail_path, or \
                 with a plus sign: return mail_path or namespace/inbox/mail_path instead"
            }
        })
    }
}
