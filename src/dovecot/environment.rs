//! What script-login tells a post-login script, and the one thing the wrapper tells Dovecot.
//!
//! script-login puts every userdb field into the environment, its name in upper case, and lists
//! those names in USERDB_KEYS. After the last script it hands the fields named there, with the
//! values that the environment has then, to the mail process (Dovecot's src/util/script-login.c).

use std::ffi::{CStr, CString, NulError};

use serde::Deserialize;

/// The field of Dovecot 2.3 that holds a location, also called MAIL.
const MAIL_LOCATION: &[u8] = b"MAIL_LOCATION";
const USERDB_KEYS: &[u8] = b"USERDB_KEYS";
const LIST_INDEX: &[u8] = b"MAILBOX_LIST_INDEX";
const LIST_INDEX_PREFIX: &[u8] = b"MAILBOX_LIST_INDEX_PREFIX";

/// The name of the namespace that holds the inbox, as userdb fields address it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Namespace(String);

impl Namespace {
    /// The field that sets `name` for this namespace alone.
    fn field(&self, name: &[u8]) -> Vec<u8> {
        [b"NAMESPACE/", self.0.as_bytes(), b"/", name].concat()
    }
}

/// An entry of the environment, taken for a userdb field of Dovecot 2.4 that concerns one namespace:
/// `[set/][namespace/<name>/]<setting>`.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
    /// Set for this namespace alone, and as `set/<setting>`: of two fields the greater one wins.
    rank: (bool, bool),
    setting: &'a [u8],
}

impl<'a> Field<'a> {
    /// `None` for one that another namespace's name is in.
    fn of(entry: &'a CStr, inbox: &Namespace) -> Option<Self> {
        let entry = entry.to_bytes();
        let equals = entry.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&entry[..equals], &entry[equals + 1..]);
        let set = name.strip_prefix(b"SET/");
        let field = set.unwrap_or(name);
        let own = match field.strip_prefix(b"NAMESPACE/") {
            None => None,
            Some(rest) => Some(rest.strip_prefix(inbox.0.as_bytes())?.strip_prefix(b"/")?),
        };
        Some(Self {
            name,
            value,
            rank: (own.is_some(), set.is_some()),
            setting: own.unwrap_or(field),
        })
    }

    /// The setting, if it is set for one driver or layout (`mdbox/mail_path`), or with a plus sign
    /// (`mail_path+`).
    fn special_setting(&self) -> Option<&'a [u8]> {
        let plain = self.setting.strip_suffix(b"+").unwrap_or(self.setting);
        let last = plain.iter().rposition(|&byte| byte == b'/');
        let setting = &plain[last.map_or(0, |slash| slash + 1)..];
        (setting.len() < self.setting.len()).then_some(setting)
    }
}

/// As Dovecot's own default configuration calls it.
impl Default for Namespace {
    fn default() -> Self {
        Self("INBOX".to_owned())
    }
}

impl TryFrom<String> for Namespace {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let usable = |byte: u8| byte.is_ascii_graphic() && !b"/=".contains(&byte);
        if name.is_empty() || !name.bytes().all(usable) {
            return Err(format!(
                "namespace '{}' must be visible ASCII characters without '/' and '=': \
                 userdb fields cannot name any other",
                name.escape_default()
            ));
        }
        Ok(Self(name.to_ascii_uppercase()))
    }
}

/// What Dovecot 2.4 makes of fields called `set/<setting>`. Nothing tells which version it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetFields {
    /// Before 2.4.2.
    Ignored,
    /// Since then they win over those without `set/`.
    Preferred,
}

/// The environment as it came, in order and byte for byte.
#[derive(Debug, Clone, Copy)]
pub struct Environment<'a>(&'a [&'a CStr]);

impl<'a> Environment<'a> {
    /// Wraps the environment vector.
    pub fn new(entries: &'a [&'a CStr]) -> Self {
        Self(entries)
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
        if self.is_handed_over(key) {
            self.get(key)
        } else {
            None
        }
    }

    fn is_handed_over(&self, key: &[u8]) -> bool {
        self.get(USERDB_KEYS).is_none_or(|keys| {
            keys.split(|&byte| byte == b' ')
                .any(|name| name.eq_ignore_ascii_case(key))
        })
    }

    /// The location that Dovecot 2.3 gives to the namespace `inbox`, and the field's name.
    pub fn location(&self, inbox: &Namespace) -> Option<(String, &'a [u8])> {
        location_fields(inbox).into_iter().find_map(|key| {
            let location = self.userdb_field(&key)?;
            Some((String::from_utf8_lossy(&key).into_owned(), location))
        })
    }

    /// The user's home directory: a field `mail_home` comes before `home`, in both Dovecots.
    pub fn home(&self, set_fields: SetFields) -> Option<&'a [u8]> {
        let newer = match set_fields {
            SetFields::Ignored => None,
            SetFields::Preferred => self.userdb_field(b"SET/MAIL_HOME"),
        };
        newer
            .or_else(|| self.userdb_field(b"MAIL_HOME"))
            .or_else(|| self.userdb_field(b"HOME"))
            .filter(|home| !home.is_empty())
    }

    /// The values that Dovecot 2.4 gives to these settings of the namespace `inbox`.
    pub fn settings<const N: usize>(
        &self,
        inbox: &Namespace,
        names: [&[u8]; N],
        set_fields: SetFields,
    ) -> [Option<&'a [u8]>; N] {
        let mut found: [Option<Field<'a>>; N] = [None; N];
        for field in self.fields(inbox) {
            let (_, is_set) = field.rank;
            if is_set && set_fields == SetFields::Ignored {
                continue;
            }
            let Some(at) = names.iter().position(|name| *name == field.setting) else {
                continue;
            };
            if found[at].is_none_or(|other| field.rank > other.rank)
                && self.is_handed_over(field.name)
            {
                found[at] = Some(field);
            }
        }
        found.map(|field| field.map(|field| field.value))
    }

    fn fields(&self, inbox: &Namespace) -> impl Iterator<Item = Field<'a>> {
        let entries = self.0.iter();
        entries.filter_map(move |entry| Field::of(entry, inbox))
    }

    /// The settings, with their values, that a driver, a layout or a plus sign in the field's name
    /// makes stronger than the plain ones of the namespace `inbox`.
    pub fn special_settings(
        &self,
        inbox: &Namespace,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields(inbox).filter_map(|field| {
            let setting = field.special_setting()?;
            self.is_handed_over(field.name)
                .then_some((setting, field.value))
        })
    }

    /// Whether a field is called `set/<setting>`.
    pub fn has_set_fields(&self) -> bool {
        let mut entries = self.0.iter();
        entries.any(|entry| entry.to_bytes().starts_with(&set(b"")))
    }

    /// Whether the fields are those of Dovecot 2.4. Nothing else in the environment tells its
    /// version.
    pub fn is_of_2_4(&self, inbox: &Namespace) -> bool {
        const SETTINGS: [&[u8]; 4] = [
            b"MAIL_DRIVER",
            b"MAIL_PATH",
            b"MAIL_INDEX_PATH",
            LIST_INDEX_PREFIX,
        ];
        self.fields(inbox)
            .any(|field| SETTINGS.contains(&field.setting) && self.is_handed_over(field.name))
    }

    /// The same environment for a session that must not use the list index of the namespace
    /// `inbox`. Other namespaces keep theirs, and every namespace keeps its store: of a location only
    /// the list index is taken away, in the very field that the userdb gave it in. No field is added
    /// that says where mails are, since dovecot.conf may say something else for its namespace.
    ///
    /// Dovecot 2.3 ignores what is for 2.4, and 2.4 ignores MAIL_LOCATION.
    pub fn without_list_index(&self, inbox: &Namespace) -> Vec<CString> {
        let location = self.location(inbox).map(|(_, location)| location);
        let mut fields = Vec::new();
        if let Some(location) = location {
            let same = location_fields(inbox).into_iter();
            let same = same.filter(|key| self.userdb_field(key) == Some(location));
            fields.extend(same.map(|key| (key, switched_off(location))));
        }
        if self.is_of_2_4(inbox) || location.is_none() {
            fields.push((inbox.field(LIST_INDEX), b"no".to_vec()));
            let own = inbox.field(LIST_INDEX_PREFIX);
            let is_given = |key: &[u8]| {
                let fields = [set(key), key.to_vec()];
                fields.iter().any(|key| self.userdb_field(key).is_some())
            };
            // Another namespace's may be the global one, and all that it has.
            if is_given(LIST_INDEX_PREFIX) || !is_given(&own) {
                fields.push((LIST_INDEX_PREFIX.to_vec(), Vec::new()));
            }
            fields.push((own, Vec::new()));
        }
        self.with_fields(inbox, &fields)
    }

    /// The environment with these userdb fields, in place of others that set the same, and of those
    /// that would win over them.
    fn with_fields(&self, inbox: &Namespace, fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<CString> {
        let is_stronger = |entry: &CStr| {
            let field = Field::of(entry, inbox).filter(|field| field.rank.0);
            let setting = field.and_then(|field| field.special_setting());
            matches!(setting, Some(LIST_INDEX | LIST_INDEX_PREFIX))
        };
        let is_replaced = |entry: &CStr| {
            fields.iter().any(|(name, _)| {
                value_of(entry, name).is_some() || value_of(entry, &set(name)).is_some()
            }) || is_stronger(entry)
        };
        let kept = self.0.iter().filter(|entry| !is_replaced(entry));
        let mut entries: Vec<CString> = kept.map(|&entry| entry.to_owned()).collect();
        if let Some(keys) = entries
            .iter_mut()
            .find(|entry| value_of(entry, USERDB_KEYS).is_some())
        {
            *keys = with_names(keys, fields.iter().map(|(name, _)| name.as_slice()));
        }
        // Made of C strings and of a namespace's name, which has no NUL: none is ever left out.
        entries.extend(fields.iter().filter_map(|(name, value)| {
            CString::new([name, b"=".as_slice(), value].concat()).ok()
        }));
        entries
    }
}

/// The fields in which Dovecot 2.3 looks for the location of the namespace `inbox`, in turn.
fn location_fields(inbox: &Namespace) -> [Vec<u8>; 3] {
    let of_all: [&[u8]; 2] = [MAIL_LOCATION, b"MAIL"];
    let [mail_location, mail] = of_all.map(<[u8]>::to_vec);
    [inbox.field(b"LOCATION"), mail_location, mail]
}

/// The environment that script-login would make of these userdb fields.
///
/// # Errors
/// If a name or a value has a NUL byte.
pub fn of_userdb_fields(
    user: &[u8],
    fields: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<Vec<CString>, NulError> {
    let mut entries = vec![CString::new([b"USER=", user].concat())?];
    let mut keys = [USERDB_KEYS, b"="].concat();
    for (name, value) in fields {
        let name = name.to_ascii_uppercase();
        entries.push(CString::new([name.as_slice(), b"=", &value].concat())?);
        keys.extend_from_slice(&name);
        keys.push(b' ');
    }
    entries.push(CString::new(keys)?);
    Ok(entries)
}

fn set(name: &[u8]) -> Vec<u8> {
    [b"SET/", name].concat()
}

/// A location of Dovecot 2.3 without list index: of several LISTINDEX the last counts, and an empty
/// one means that there is none. A single colon at the end means nothing, two are one.
fn switched_off(location: &[u8]) -> Vec<u8> {
    let colons = location.iter().rev().take_while(|&&byte| byte == b':');
    let end = location.len() - colons.count() % 2;
    [&location[..end], b":LISTINDEX="].concat()
}

fn value_of<'a>(entry: &'a CStr, key: &[u8]) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(key)?.strip_prefix(b"=")
}

/// `entry` is USERDB_KEYS=...; Dovecot ends the list with a space.
fn with_names<'n>(entry: &CStr, names: impl Iterator<Item = &'n [u8]>) -> CString {
    let mut keys = entry.to_bytes().to_vec();
    for name in names {
        let list = &keys[USERDB_KEYS.len() + 1..];
        if list.split(|&byte| byte == b' ').any(|key| key == name) {
            continue;
        }
        if !list.is_empty() && !list.ends_with(b" ") {
            keys.push(b' ');
        }
        keys.extend_from_slice(name);
        keys.push(b' ');
    }
    // Neither a C string nor the names hold a NUL byte, so nothing is ever cut off here.
    CString::new(keys).unwrap_or_else(|_| entry.to_owned())
}
