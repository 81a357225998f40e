//! A user, as the configuration and Dovecot know him.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};

use super::people::{Account, gid_of, gids_of};
use super::wording::{LOCATIONS, userdb_fields, variables};
use crate::decimal::decimal;
use crate::dovecot::doveadm::{self, DoveadmError, Field};
use crate::dovecot::environment::of_userdb_fields;
use crate::dovecot::location::Tracked;
use crate::dovecot::settings::Settings;
use crate::system::accounts;

type IsWrong = fn(u64, u64) -> bool;

/// Settings that keep uids and gids from logging in, each with what it refuses.
pub const ID_LIMITS: [(&str, IsWrong); 4] = [
    ("first_valid_uid", |id, limit| id < limit),
    ("last_valid_uid", |id, limit| limit != 0 && id > limit),
    ("first_valid_gid", |id, limit| id < limit),
    ("last_valid_gid", |id, limit| limit != 0 && id > limit),
];

/// One user, as seen from both sides.
#[derive(Debug)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The userdb fields that a post-login script is told.
    pub fields: BTreeMap<String, Vec<u8>>,
    /// What the mail process has in the end: uid, gid, home.
    pub final_fields: BTreeMap<String, Vec<u8>>,
    /// Where the list index is, if it is local, and both sides agree.
    pub tracked: Option<Tracked>,
}

impl Person {
    /// The uid that mail is accessed with.
    pub fn uid(&self) -> Option<u32> {
        // Dovecot does not tell the final one where it refuses the user.
        let uid = self.final_fields.get("uid").or(self.fields.get("uid"));
        decimal(uid?)
    }

    /// The gid that a post-login script is told.
    pub fn gid(&self) -> Option<u32> {
        let gid = self.fields.get("gid")?;
        decimal(gid).or_else(|| gid_of(&String::from_utf8_lossy(gid)))
    }

    /// The groups that this one's mail process has beside those of the uid.
    pub fn groups(&self, settings: &Settings) -> Vec<u32> {
        let final_gid = self.final_fields.get("gid").and_then(|gid| decimal(gid));
        let of_all = gids_of(settings.get("mail_access_groups"));
        self.gid()
            .into_iter()
            .chain(final_gid)
            .chain(of_all)
            .collect()
    }

    /// The settings that keep this one from logging in, each with the id and the limit.
    pub fn limits(&self, settings: &Settings) -> Vec<(&'static str, u32, u64)> {
        ID_LIMITS
            .iter()
            .filter_map(|&(setting, is_wrong)| {
                let id = match setting.ends_with("uid") {
                    true => self.uid(),
                    false => self.gid(),
                };
                let limit = settings.number(setting);
                let id = id.filter(|&id| is_wrong(id.into(), limit))?;
                Some((setting, id, limit))
            })
            .collect()
    }

    /// Whether dovecot.conf or the userdb has him chrooted: his paths are below another root then.
    pub fn is_chrooted(&self, settings: &Settings) -> bool {
        let value = |field: &str| {
            self.fields
                .get(field)
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let has_root = |field: &str| value(field).windows(3).any(|part| part == b"/./");
        !settings.get("mail_chroot").is_empty()
            || !value("chroot").is_empty()
            || !value("mail_chroot").is_empty()
            || has_root("home")
            || has_root("mail_home")
    }

    /// A setting as this one's mail process expands its variables; `None` if nobody can say.
    pub fn expanded(&self, settings: &Settings, template: &str) -> Option<Vec<u8>> {
        doveadm::expanded(template, OsStr::new(&self.name), settings.given_file()).ok()
    }

    pub fn environment(&self) -> Vec<CString> {
        environment(&self.name, &self.fields)
    }
}

pub fn environment(user: &str, fields: &BTreeMap<String, Vec<u8>>) -> Vec<CString> {
    let fields = fields
        .iter()
        .filter(|(key, _)| key.as_str() != "user")
        .map(|(key, value)| (key.clone().into_bytes(), value.clone()));
    of_userdb_fields(user.as_bytes(), fields).unwrap_or_default()
}

/// Asks Dovecot about a user.
///
/// # Errors
/// If it does not know him.
pub fn ask(settings: &Settings, name: &str) -> Result<Person, DoveadmError> {
    let file = settings.given_file();
    let user = OsStr::new(name);
    let fields = lower_case(doveadm::fields_of(user, file)?);
    let final_fields = lower_case(doveadm::final_fields_of(user, file).unwrap_or_default());
    // The userdb may have another name for him.
    let name = match fields.get("user") {
        Some(user) => String::from_utf8_lossy(user).into_owned(),
        None => name.to_owned(),
    };
    Ok(Person {
        name,
        fields,
        final_fields,
        tracked: None,
    })
}

fn lower_case(fields: Vec<Field>) -> BTreeMap<String, Vec<u8>> {
    fields
        .into_iter()
        .map(|(key, value)| (String::from_utf8_lossy(&key).to_ascii_lowercase(), value))
        .collect()
}

/// What a login of anybody would be told by the configuration alone, with Dovecot's variables left in; `None` if a
/// database knows more.
pub fn anybody(settings: &Settings) -> Option<Person> {
    let userdbs = settings.names("userdb");
    let mut fields = BTreeMap::new();
    for userdb in &userdbs {
        let driver = match settings.get(&format!("userdb/{userdb}/driver")) {
            "" => *userdb,
            driver => driver,
        };
        match driver {
            "static" => {}
            "passwd" => {
                for (field, value) in [("uid", "1000"), ("gid", "1000"), ("home", "/%u")] {
                    fields.insert(field.to_owned(), value.to_owned());
                }
            }
            _ => return None,
        }
    }
    for (setting, value) in userdb_fields(settings) {
        let name = setting.rsplit('/').next().unwrap_or(&setting);
        if matches!(name, "args" | "default_fields" | "override_fields") {
            let words = value.split(' ').filter_map(|word| word.split_once('='));
            fields.extend(words.map(|(field, value)| (field.to_owned(), value.to_owned())));
        } else {
            let field = setting.strip_prefix("userdb_fields/").unwrap_or(name);
            fields.insert(field.to_owned(), value);
        }
    }
    let mut final_fields = fields.clone();
    for (field, setting) in [
        ("uid", "mail_uid"),
        ("gid", "mail_gid"),
        ("home", "mail_home"),
    ] {
        let value = settings.get(setting);
        if !value.is_empty() {
            final_fields
                .entry(field.to_owned())
                .or_insert(value.to_owned());
        }
    }
    for fields in [&mut fields, &mut final_fields] {
        if let Some(account) = fields.get("uid").and_then(|uid| Account::of(uid)) {
            fields.insert("uid".to_owned(), account.uid.to_string());
        }
    }
    let bytes = |fields: BTreeMap<String, String>| {
        let fields = fields.into_iter();
        fields
            .map(|(field, value)| (field, value.into_bytes()))
            .collect()
    };
    // Nobody knows what becomes of these.
    let is_for_nobody = |value: &String| {
        let mut variables = variables(value).into_iter();
        variables.any(|variable| variable.ends_with('h') || variable.contains("home"))
    };
    if LOCATIONS
        .into_iter()
        .filter_map(|field| fields.get(field))
        .any(is_for_nobody)
    {
        return None;
    }
    let is_known = userdbs.len() == 1 || !userdbs.is_empty() && !fields.is_empty();
    is_known.then(|| Person {
        name: "everybody".to_owned(),
        fields: bytes(fields),
        final_fields: bytes(final_fields),
        tracked: None,
    })
}

/// Groups of a system user that /etc/group does not have: from LDAP, for example.
pub fn unknown_groups(person: &Person) -> Vec<u32> {
    let Some(name) = person.fields.get("system_groups_user") else {
        return Vec::new();
    };
    let known = accounts::groups_of(name);
    let gid = person.fields.get("gid").and_then(|gid| decimal(gid));
    let account = Account::of(&String::from_utf8_lossy(name));
    let groups = account.as_ref().map(Account::groups).unwrap_or_default();
    groups
        .into_iter()
        .filter(|group| Some(*group) != gid && !known.contains(group))
        .collect()
}
