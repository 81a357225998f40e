//! `mail_location` of Dovecot 2.3, as userdb field: its %variables are expanded already.
//!
//! The rules are those of Dovecot's `mailbox-list.c`
//! (`mailbox_list_settings_parse`, `mailbox_list_create`), `mail-storage.c`
//! (`mail_storage_get_class`) and of the mail storage drivers.

use super::{Driver, Given, Layout, ListIndex, Location, LocationError, Shown, in_home};
use crate::system::accounts;

const DEFAULT_PREFIX: &[u8] = b"dovecot.list.index";

/// The keys after the root directory, as far as they decide anything here.
#[derive(Default)]
struct Keys {
    index: Option<Vec<u8>>,
    list_index: Option<Vec<u8>>,
    layout: Option<Vec<u8>>,
    alt: Option<Vec<u8>>,
    dirname: Vec<u8>,
    subscriptions: Option<Vec<u8>>,
    iterate_index: bool,
}

/// Reads an expanded location.
///
/// `home` is the user's home directory, if there is one.
///
/// # Errors
///
/// Where Dovecot refuses the location, where it runs into an assertion with it,
/// and where it would guess the driver from the files that exist.
pub(super) fn parse(expanded: &[u8], home: Option<&[u8]>) -> Result<Location, LocationError> {
    if let Some(relative) = home.filter(|home| !home.starts_with(b"/")) {
        return Err(LocationError::relative_home(relative));
    }
    let (driver, rest) = split_driver(expanded)?;
    let (root_dir, keys) = split_keys(rest, home)?;
    check_and_resolve(driver, root_dir, keys)
}

fn no_root() -> LocationError {
    LocationError::unknown("the location has no root mail directory")
}

fn refused<T>(message: impl Into<String>) -> Result<T, LocationError> {
    Err(LocationError::refused(message))
}

fn crashes<T>(reason: &str) -> Result<T, LocationError> {
    refused(format!("Dovecot crashes on this location: {reason}"))
}

fn split_driver(expanded: &[u8]) -> Result<(Driver, &[u8]), LocationError> {
    let length = expanded
        .iter()
        .take_while(|&&byte| byte.is_ascii_alphanumeric() || byte == b'_')
        .count();
    let (name, rest) = expanded.split_at(length);
    let given = length > 0 && name != b"auto";
    let Some(rest) = rest.strip_prefix(b":").filter(|_| given) else {
        return Err(LocationError::unknown(
            "the location names no driver, which Dovecot then guesses from the files that exist: \
             write maildir:, mbox:, mdbox: or sdbox: before it",
        ));
    };
    let driver = Driver::named(name).ok_or_else(|| {
        let words = "unknown mail storage driver, or none with local indexes";
        LocationError::of_driver(name, format!("{words}: {}", Shown(name)))
    })?;
    Ok((driver, rest))
}

/// Splits at single colons. A doubled one is a literal colon, and one at the
/// very end means nothing.
fn split_colons(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut fields = text.split(|&byte| byte == b':').peekable();
    std::iter::from_fn(move || {
        let mut part = fields.next()?.to_vec();
        while fields.next_if(|field| field.is_empty()).is_some() {
            let Some(field) = fields.next() else { break };
            part.push(b':');
            part.extend_from_slice(field);
        }
        Some(part)
    })
}

/// The root directory (`None` if nothing at all is given) and the keys.
fn split_keys(text: &[u8], home: Option<&[u8]>) -> Result<(Option<Vec<u8>>, Keys), LocationError> {
    let mut keys = Keys::default();
    if text.is_empty() {
        return Ok((None, keys));
    }
    let mut parts = split_colons(text);
    let root_dir = resolved(&parts.next().unwrap_or_default(), home, b"mail root dir")?;
    if root_dir.starts_with(b"INBOX=") {
        return Err(no_root());
    }
    for part in parts.filter(|part| part != b"UTF-8") {
        let equals = part.iter().position(|&byte| byte == b'=');
        let (key, value) = match equals {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part.as_slice(), &[][..]),
        };
        let path = || resolved(value, home, key);
        match key {
            b"INDEX" => keys.index = Some(path()?),
            b"LISTINDEX" => keys.list_index = Some(path()?),
            b"LAYOUT" => keys.layout = Some(path()?),
            b"ALT" => keys.alt = Some(path()?),
            b"DIRNAME" | b"FULLDIRNAME" => keys.dirname = path()?,
            b"SUBSCRIPTIONS" => keys.subscriptions = Some(path()?),
            // Nothing follows from these values, but Dovecot refuses the location if one of them has
            // a `~` that leads nowhere.
            b"INBOX" | b"INDEXPVT" | b"INDEXCACHE" | b"CONTROL" | b"MAILBOXDIR"
            | b"VOLATILEDIR" => drop(path()?),
            b"ITERINDEX" => keys.iterate_index = true,
            b"BROKENCHAR" if value.len() != 1 => {
                return refused("BROKENCHAR must be a single character");
            }
            b"BROKENCHAR" | b"ALTNOCHECK" | b"NO-NOSELECT" | b"NO-FS-VALIDATION" => {}
            _ => return Err(LocationError::of_key(key)),
        }
    }
    Ok((Some(root_dir), keys))
}

/// A path as Dovecot takes it: without one trailing slash, and with the home directory of the user,
/// or of the system user whom it names.
fn resolved(path: &[u8], home: Option<&[u8]>, key: &[u8]) -> Result<Vec<u8>, LocationError> {
    let path = match path.strip_suffix(b"/") {
        Some(cut) if !cut.is_empty() => cut,
        _ => path,
    };
    let key = Shown(key);
    let behind = match path.strip_prefix(b"~") {
        Some(behind) if !behind.is_empty() && behind[0] != b'/' => behind,
        _ => {
            return in_home(path, home)
                .ok_or_else(|| LocationError::no_home(format!("{key} of the location")));
        }
    };
    let end = behind.iter().position(|&byte| byte == b'/');
    let (name, below) = behind.split_at(end.unwrap_or(behind.len()));
    let home = accounts::home_of(name).ok_or_else(|| {
        let name = Shown(name);
        LocationError::unknown(format!(
            "there is no system user {name}, but {key} of the location begins with its home"
        ))
    })?;
    // `~name/` is the home without a slash.
    let below = if below == b"/" { b"" } else { below };
    Ok([&home, below].concat())
}

fn check_and_resolve(
    driver: Driver,
    root_dir: Option<Vec<u8>>,
    keys: Keys,
) -> Result<Location, LocationError> {
    let in_memory = keys
        .index
        .as_deref()
        .is_some_and(|index| index.is_empty() || index == b"MEMORY");
    if keys.iterate_index && (keys.index.is_none() || in_memory) {
        return refused("ITERINDEX needs an INDEX directory");
    }

    let (list_index_dir, prefix) = match &keys.list_index {
        None => (None, DEFAULT_PREFIX),
        Some(path) => match path.iter().rposition(|&byte| byte == b'/') {
            None => (None, path.as_slice()),
            Some(slash) => (Some(&path[..slash]), &path[slash + 1..]),
        },
    };
    let absolute = list_index_dir.is_some_and(|directory| directory.starts_with(b"/"));
    if list_index_dir.is_some() && !absolute && in_memory {
        return Err(LocationError::unknown(
            "the LISTINDEX directory is relative but INDEX=MEMORY",
        ));
    }

    let layout = match &keys.layout {
        None => driver.layout(),
        Some(name) => Layout::named(name)
            .ok_or_else(|| LocationError::refused(format!("unknown LAYOUT={}", Shown(name))))?,
    };
    let root_dir = root_dir.unwrap_or_default();
    if root_dir.is_empty() && !matches!(layout, Layout::Index | Layout::None) {
        return Err(no_root());
    }
    let dbox = driver.is_dbox();
    if matches!(layout, Layout::MaildirPlusPlus | Layout::Imapdir) {
        // dbox has a name for its mail directories even without DIRNAME.
        if dbox || !keys.dirname.is_empty() {
            let layout = layout.name();
            return refused(format!(
                "LAYOUT={layout} goes with neither DIRNAME nor dbox"
            ));
        }
        if keys.alt.is_some() {
            return refused(format!("LAYOUT={} does not go with ALT", layout.name()));
        }
    }
    if keys.subscriptions.is_some_and(|name| name.is_empty()) {
        return crashes("SUBSCRIPTIONS is empty");
    }
    if layout == Layout::None {
        if dbox || driver == Driver::Maildir {
            return crashes("LAYOUT=none has no directories");
        }
        return Ok(Location {
            layout,
            index_dir: None,
            list_index: ListIndex::Disabled,
            lists_index_files: false,
            doubt: None,
        });
    }
    // An INDEX equal to the root counts as not given, even if both are empty.
    let index = keys.index.filter(|_| !in_memory || !root_dir.is_empty());
    let in_memory = in_memory && index.is_some();
    if driver == Driver::Mdbox && in_memory {
        return crashes("mdbox has no indexes in memory");
    }
    if layout == Layout::Index && prefix.is_empty() {
        return crashes("LAYOUT=index needs its list index");
    }
    if layout == Layout::Index && in_memory && !absolute {
        return crashes("LAYOUT=index has no list index in memory");
    }

    // The mbox driver puts its own directory behind every path of an index,
    // unless mailboxes have directories of their own.
    let own_directory: &[u8] = if driver == Driver::Mbox && keys.dirname.is_empty() {
        b"/.imap"
    } else {
        b""
    };
    let index_path = if in_memory {
        None
    } else {
        Some(index.unwrap_or_else(|| root_dir.clone()))
    };
    let list_index = if prefix.is_empty() {
        ListIndex::Disabled
    } else {
        let directory = match (list_index_dir, &index_path) {
            (Some(directory), _) if absolute => Some(directory.to_vec()),
            (Some(below), Some(index)) => Some([index, &b"/"[..], below].concat()),
            (None, Some(index)) => Some(index.clone()),
            (_, None) => None,
        };
        match directory {
            None => ListIndex::Memory {
                prefix: prefix.to_vec(),
            },
            Some(directory) => ListIndex::File {
                directory: [&directory, own_directory].concat(),
                prefix: prefix.to_vec(),
                given: match &keys.list_index {
                    None => Given::Not,
                    Some(_) if absolute => Given::Absolute,
                    Some(_) => Given::Relative,
                },
            },
        }
    };
    Ok(Location {
        layout,
        index_dir: index_path.map(|index| [&index, own_directory].concat()),
        list_index,
        lists_index_files: driver == Driver::Mbox && keys.iterate_index,
        doubt: None,
    })
}
