//! The settings of Dovecot 2.4, as userdb fields.
//!
//! The rules were taken from real logins (tests/oracle/env-2.4.jsonl). A default is never filled
//! in: what the userdb does not return may be set in dovecot.conf, which a login does not see.

use super::{Driver, Given, Layout, ListIndex, Location, LocationError, Shown, in_home};
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
) -> Result<Location, LocationError> {
    let setting =
        |name: &str| environment.setting(inbox, name.to_ascii_uppercase().as_bytes(), set_fields);
    let needed = [DRIVER, PATH, LIST_INDEX];
    let [Some(driver), Some(mail_path), Some(list_index)] = needed.map(setting) else {
        let missing = needed.into_iter().filter(|name| setting(name).is_none());
        return Err(without(missing));
    };
    let home = environment.home(set_fields);
    if let Some(relative) = home.filter(|home| !home.starts_with(b"/")) {
        return Err(LocationError::relative_home(relative));
    }
    // `~name/` is nobody's home here, but a directory of that name.
    let resolved = |name: &'static str, path: &[u8]| {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let is_own_home = matches!(path, [b'~'] | [b'~', b'/', ..]);
        if is_own_home {
            in_home(path, home).ok_or_else(|| LocationError::no_home(name))
        } else {
            Ok(path.to_vec())
        }
    };

    let driver = match Driver::named(driver) {
        None | Some(Driver::Raw) => {
            let words = "is not one that keeps mail in local directories";
            let message = format!("mail_driver '{}' {words}", Shown(driver));
            return Err(LocationError::of_driver(driver, message));
        }
        Some(driver) => driver,
    };
    let layout = match setting(LAYOUT) {
        None => driver.layout(),
        Some(name) => Layout::named(name).ok_or_else(|| {
            let name = Shown(name);
            LocationError::refused(format!("unknown mailbox_list_layout '{name}'"))
        })?,
    };
    let unsupported = |what: &str| {
        let layout = layout.name();
        let message = format!("mailbox_list_layout {layout} does not go with {what}");
        Err(LocationError::refused(message))
    };
    let is_set = |name: &str| setting(name).is_some_and(|value| !value.is_empty());
    if matches!(layout, Layout::MaildirPlusPlus | Layout::Imapdir) {
        if driver.is_dbox() {
            return unsupported("mdbox and sdbox");
        }
        if let Some(name) = [DIRECTORY_NAME, ALT_PATH]
            .into_iter()
            .find(|name| is_set(name))
        {
            return unsupported(name);
        }
    }
    if layout == Layout::None && driver != Driver::Mbox {
        return unsupported("any driver but mbox");
    }
    let mail_path = resolved(PATH, mail_path)?;
    if mail_path.is_empty() {
        return Err(LocationError::unknown(
            "mail_path is empty: set it in dovecot.conf, or take it out of userdb_fields { }",
        ));
    }
    let index_path = resolved(INDEX_PATH, setting(INDEX_PATH).unwrap_or_default())?;
    let index = match index_path.as_slice() {
        b"MEMORY" if driver == Driver::Mdbox => {
            return Err(LocationError::unknown(
                "Dovecot crashes with mdbox and mail_index_path MEMORY",
            ));
        }
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
        return Err(LocationError::unknown(
            "mailbox_list_index_prefix has a relative directory, and mail_index_path is not set",
        ));
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

fn without<'n>(names: impl Iterator<Item = &'n str> + Clone) -> LocationError {
    let listed: Vec<_> = names.clone().collect();
    let lines: Vec<_> = names
        .map(|name| format!("'{name} = $SET:{name}'"))
        .collect();
    LocationError::unknown(format!(
        "the userdb does not return {}; in userdb_fields {{ }} of dovecot.conf write {}",
        listed.join(", "),
        lines.join(", ")
    ))
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
