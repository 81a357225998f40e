//! The settings of Dovecot 2.4, as userdb fields.
//!
//! The rules were taken from real logins (tests/oracle/env-2.4.jsonl). A default is never filled
//! in: what the userdb does not return may be set in dovecot.conf, which a login does not see.

use std::fmt;

use super::{Driver, Given, Layout, ListIndex, Location, Shown, in_home};
use crate::dovecot::environment::{Environment, Namespace, SetFields};

const DRIVER: &str = "mail_driver";
const PATH: &str = "mail_path";
const INDEX_PATH: &str = "mail_index_path";
const LIST_INDEX: &str = "mailbox_list_index_prefix";
const LAYOUT: &str = "mailbox_list_layout";
const DIRECTORY_NAME: &str = "mailbox_directory_name";
const ALT_PATH: &str = "mail_alt_path";
const SWITCH: &str = "mailbox_list_index";

/// Reads the settings among the userdb fields of one user.
///
/// # Errors
/// Where one is missing, where Dovecot refuses one, and where it would guess.
pub(super) fn read(
    environment: &Environment<'_>,
    inbox: &Namespace,
    set_fields: SetFields,
) -> Result<Location, SettingError> {
    let setting =
        |name: &str| environment.setting(inbox, name.to_ascii_uppercase().as_bytes(), set_fields);
    let needed = [DRIVER, PATH, LIST_INDEX];
    let [Some(driver), Some(mail_path), Some(list_index)] = needed.map(setting) else {
        let missing = needed.into_iter().filter(|name| setting(name).is_none());
        return Err(SettingError::Missing(missing.collect()));
    };
    let home = environment.home(set_fields);
    if let Some(relative) = home.filter(|home| !home.starts_with(b"/")) {
        return Err(SettingError::RelativeHome(relative.to_vec()));
    }
    // `~name/` is nobody's home here, but a directory of that name.
    let resolved = |name: &'static str, path: &[u8]| {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let is_own_home = matches!(path, [b'~'] | [b'~', b'/', ..]);
        if is_own_home {
            in_home(path, home).ok_or(SettingError::NoHome(name))
        } else {
            Ok(path.to_vec())
        }
    };

    let driver = match Driver::named(driver) {
        None | Some(Driver::Raw) => return Err(SettingError::Driver(driver.to_vec())),
        Some(driver) => driver,
    };
    let layout = match setting(LAYOUT) {
        None => driver.layout(),
        Some(name) => Layout::named(name).ok_or_else(|| SettingError::Layout(name.to_vec()))?,
    };
    let is_set = |name: &str| setting(name).is_some_and(|value| !value.is_empty());
    if matches!(layout, Layout::MaildirPlusPlus | Layout::Imapdir) {
        if driver.is_dbox() {
            return Err(SettingError::Unsupported(layout, "mdbox and sdbox"));
        }
        if let Some(name) = [DIRECTORY_NAME, ALT_PATH]
            .into_iter()
            .find(|name| is_set(name))
        {
            return Err(SettingError::Unsupported(layout, name));
        }
    }
    if layout == Layout::None && driver != Driver::Mbox {
        return Err(SettingError::Unsupported(layout, "any driver but mbox"));
    }
    let mail_path = resolved(PATH, mail_path)?;
    if mail_path.is_empty() {
        return Err(SettingError::NoPath);
    }
    let index_path = resolved(INDEX_PATH, setting(INDEX_PATH).unwrap_or_default())?;
    let index = match index_path.as_slice() {
        b"MEMORY" if driver == Driver::Mdbox => return Err(SettingError::MdboxInMemory),
        _ if layout == Layout::None => None,
        b"MEMORY" => None,
        b"" => Some(mail_path),
        _ => Some(index_path.clone()),
    };

    // mbox has a directory of its own behind every path of an index, unless mailboxes have theirs.
    let own_directory: &[u8] = if driver == Driver::Mbox && !is_set(DIRECTORY_NAME) {
        b"/.imap"
    } else {
        b""
    };
    let index_dir = index.map(|index| [&index, own_directory].concat());
    let (directory, prefix) = match list_index.iter().rposition(|&byte| byte == b'/') {
        None => (None, list_index),
        Some(slash) => (Some(&list_index[..slash]), &list_index[slash + 1..]),
    };
    let is_absolute = |directory: &&[u8]| directory.starts_with(b"/");
    let is_off = setting(SWITCH).is_some_and(|value| value.eq_ignore_ascii_case(b"no"));
    let list_index = if is_off || prefix.is_empty() || layout == Layout::None {
        ListIndex::Disabled
    } else if let Some(directory) = directory.filter(is_absolute) {
        ListIndex::File {
            directory: [directory, own_directory].concat(),
            prefix: prefix.to_vec(),
            given: Given::Absolute,
        }
    } else if directory.is_some() && index_path.is_empty() {
        return Err(SettingError::RelativeListIndex);
    } else {
        match &index_dir {
            Some(index_dir) => ListIndex::File {
                directory: index_dir.clone(),
                prefix: prefix.to_vec(),
                given: Given::Relative,
            },
            None => ListIndex::Memory {
                prefix: prefix.to_vec(),
            },
        }
    };
    Ok(Location {
        layout,
        index_dir,
        list_index,
        lists_index_files: false,
        doubt: None,
    })
}

/// Whether a field says otherwise in a way that is not read here, such as `mdbox/mail_path`.
pub(super) fn has_special(environment: &Environment<'_>, inbox: &Namespace) -> bool {
    const NAMES: [&str; 8] = [
        DRIVER,
        PATH,
        INDEX_PATH,
        LIST_INDEX,
        LAYOUT,
        DIRECTORY_NAME,
        SWITCH,
        "mail_home",
    ];
    let is_read = |name: &str, setting: &[u8]| setting.eq_ignore_ascii_case(name.as_bytes());
    let mut special = environment.special_settings(inbox);
    special.any(|(setting, _)| NAMES.into_iter().any(|name| is_read(name, setting)))
}

/// Whether such a field sets layout index.
pub(super) fn has_special_layout_index(environment: &Environment<'_>, inbox: &Namespace) -> bool {
    let mut special = environment.special_settings(inbox);
    special.any(|(setting, value)| {
        setting.eq_ignore_ascii_case(LAYOUT.as_bytes()) && value.eq_ignore_ascii_case(b"index")
    })
}

/// Why the settings lead nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingError {
    /// The userdb does not return these.
    Missing(Vec<&'static str>),
    /// The driver is unknown, or keeps no mail here, or would be guessed from the files that exist.
    Driver(Vec<u8>),
    /// The layout is unknown.
    Layout(Vec<u8>),
    /// The layout does not go with this.
    Unsupported(Layout, &'static str),
    /// mail_path is empty.
    NoPath,
    /// `~/` without a home directory, in that setting.
    NoHome(&'static str),
    /// The home directory does not begin with a slash.
    RelativeHome(Vec<u8>),
    /// The list index is in a directory relative to mail_index_path, which is not set.
    RelativeListIndex,
    /// mdbox has no indexes in memory.
    MdboxInMemory,
}

impl std::error::Error for SettingError {}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(names) => {
                write!(f, "the userdb does not return {}", names.join(", "))?;
                f.write_str("; in userdb_fields { } of dovecot.conf write")?;
                for (position, name) in names.iter().enumerate() {
                    let comma = if position == 0 { "" } else { "," };
                    write!(f, "{comma} '{name} = $SET:{name}'")?;
                }
                Ok(())
            }
            Self::Driver(name) => write!(
                f,
                "mail_driver '{}' is not one that keeps mail in local directories",
                Shown(name)
            ),
            Self::Layout(name) => write!(f, "unknown mailbox_list_layout '{}'", Shown(name)),
            Self::Unsupported(layout, what) => write!(
                f,
                "mailbox_list_layout {} does not go with {what}",
                layout.name()
            ),
            Self::NoPath => f.write_str(
                "mail_path is empty: set it in dovecot.conf, or take it out of userdb_fields { }",
            ),
            Self::NoHome(name) => write!(
                f,
                "the userdb returns no home, but {name} begins with ~/: return 'home' too"
            ),
            Self::RelativeHome(home) => {
                write!(f, "the home directory is a relative path: {}", Shown(home))
            }
            Self::RelativeListIndex => f.write_str(
                "mailbox_list_index_prefix has a relative directory, and mail_index_path is not set",
            ),
            Self::MdboxInMemory => {
                f.write_str("Dovecot crashes with mdbox and mail_index_path MEMORY")
            }
        }
    }
}
