//! The settings of Dovecot 2.4, as userdb fields.
//!
//! The rules were taken from real logins (tests/oracle/env-2.4.jsonl). A default is never filled
//! in: what the userdb does not return may be set in dovecot.conf, which a login does not see.

use super::{Driver, Given, Layout, ListIndex, Location, LocationError, Shown, in_home};
use crate::dovecot::environment::{Environment, Namespace, SetFields};

/// As userdb fields in an environment are called.
const NAMES: [&[u8]; 8] = [
    b"MAIL_DRIVER",
    b"MAIL_PATH",
    LIST_INDEX,
    b"MAIL_INDEX_PATH",
    LAYOUT,
    b"MAILBOX_DIRECTORY_NAME",
    b"MAIL_ALT_PATH",
    b"MAILBOX_LIST_INDEX",
];
const LIST_INDEX: &[u8] = b"MAILBOX_LIST_INDEX_PREFIX";
const LAYOUT: &[u8] = b"MAILBOX_LIST_LAYOUT";
/// So many of them must be there.
const NEEDED: usize = 3;

/// Reads the settings among the userdb fields of one user.
///
/// # Errors
/// Where one is missing, where Dovecot refuses one, and where it would guess.
pub(super) fn read(
    environment: &Environment<'_>,
    inbox: &Namespace,
    set_fields: SetFields,
) -> Result<Location, LocationError> {
    let values = environment.settings(inbox, NAMES, set_fields);
    let [
        driver,
        mail_path,
        list_index,
        index_path,
        layout,
        directory_name,
        alt_path,
        switch,
    ] = values;
    let (Some(driver), Some(mail_path), Some(list_index)) = (driver, mail_path, list_index) else {
        let needed = NAMES.into_iter().zip(values).take(NEEDED);
        let missing = needed.filter(|(_, value)| value.is_none());
        return Err(without(missing.map(|(name, _)| name)));
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
    let layout = match layout {
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
    let is_set = |value: Option<&[u8]>| value.is_some_and(|value| !value.is_empty());
    if matches!(layout, Layout::MaildirPlusPlus | Layout::Imapdir) {
        if driver.is_dbox() {
            return unsupported("mdbox and sdbox");
        }
        if is_set(directory_name) {
            return unsupported("mailbox_directory_name");
        }
        if is_set(alt_path) {
            return unsupported("mail_alt_path");
        }
    }
    if layout == Layout::None && driver != Driver::Mbox {
        return unsupported("any driver but mbox");
    }
    let mail_path = resolved("mail_path", mail_path)?;
    if mail_path.is_empty() {
        return Err(LocationError::unknown(
            "mail_path is empty: set it in dovecot.conf, or take it out of userdb_fields { }",
        ));
    }
    let index_path = resolved("mail_index_path", index_path.unwrap_or_default())?;
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
    let own_directory: &[u8] = if driver == Driver::Mbox && !is_set(directory_name) {
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
    let is_off = switch.is_some_and(|value| value.eq_ignore_ascii_case(b"no"));
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

fn without<'n>(names: impl Iterator<Item = &'n [u8]>) -> LocationError {
    let names = names.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase());
    let names: Vec<_> = names.collect();
    let lines = names.iter().map(|name| format!("'{name} = $SET:{name}'"));
    LocationError::unknown(format!(
        "the userdb does not return {}; in userdb_fields {{ }} of dovecot.conf write {}",
        names.join(", "),
        lines.collect::<Vec<_>>().join(", ")
    ))
}

/// Whether a field says otherwise in a way that is not read here, such as `mdbox/mail_path`; if so,
/// whether it may set layout index.
pub(super) fn special(environment: &Environment<'_>, inbox: &Namespace) -> Option<Special> {
    let is_read = |name: &[u8]| NAMES.contains(&name) || name == b"MAIL_HOME";
    let mut found = None;
    for (name, value) in environment.special_settings(inbox) {
        let is_layout_index = name == LAYOUT && value.eq_ignore_ascii_case(b"index");
        if is_layout_index {
            return Some(Special::LayoutIndex);
        }
        if is_read(name) {
            found = Some(Special::Setting);
        }
    }
    found
}

/// What a field sets in a way that is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Setting,
    LayoutIndex,
}
