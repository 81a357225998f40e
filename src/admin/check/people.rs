//! Whose mail it is: the uids, and the users who are asked about.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::finding::{Findings, Kind};
use crate::dovecot::doveadm;
use crate::dovecot::settings::Settings;
use crate::names::LOCK_FILE;

/// So many users are asked about; each takes a few hundredths of a second.
const MOST: usize = 20;

/// Somebody whom the system knows, or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, or the number as text.
    pub name: String,
    /// The uid.
    pub uid: u32,
}

impl Account {
    /// Looks for a name or a number.
    pub fn of(name: &str) -> Option<Self> {
        Self::known(name)
            .filter(|account| account.name == name)
            .or_else(|| name.parse().ok().map(Self::of_uid))
    }

    /// Whoever has this uid.
    pub fn of_uid(uid: u32) -> Self {
        let name = uid.to_string();
        Self::known(&name)
            .filter(|account| account.uid == uid)
            .unwrap_or(Self { name, uid })
    }

    /// Not by the C library: in a static program it would load modules for LDAP and the like, which are made
    /// for another one and can make it crash.
    fn known(name_or_uid: &str) -> Option<Self> {
        let entry = answer("getent", &["passwd", name_or_uid]);
        let mut fields = entry.split(':');
        Some(Self {
            name: fields.next()?.to_owned(),
            uid: fields.nth(1)?.parse().ok()?,
        })
    }

    /// Whether a service can run as this one: a number is no user to Dovecot.
    pub fn has_name(&self) -> bool {
        self.name.parse::<u32>().is_err()
    }

    /// The gids of all groups, as the whole system knows them.
    pub fn groups(&self) -> Vec<u32> {
        let groups = answer("id", &["-G", "--", &self.name]);
        let groups = groups.split_whitespace();
        groups.filter_map(|group| group.parse().ok()).collect()
    }

    /// Whether a file's permission bits let this one, who may have more groups than the system knows, do what these
    /// bits say.
    pub fn may(&self, status: &Metadata, bits: u32, more_groups: &[u32]) -> bool {
        let (owner, group) = (status.uid(), status.gid());
        let counted = if self.uid == 0 {
            0o777
        } else if self.uid == owner {
            0o700
        } else if more_groups.contains(&group) || self.groups().contains(&group) {
            0o070
        } else {
            0o007
        };
        status.mode() & bits & counted != 0
    }
}

/// The same for one, or for mail users of whom nobody knows who they are: all of them may be in the file's group.
pub fn may(who: Option<&Account>, status: &Metadata, bits: u32, more_groups: &[u32]) -> bool {
    who.map_or(status.mode() & bits & 0o077 != 0, |account| {
        account.may(status, bits, more_groups)
    })
}

/// The gids of groups in a list of settings.
pub fn gids_of(groups: &str) -> Vec<u32> {
    let names = groups.split([' ', ',']).filter(|name| !name.is_empty());
    names.filter_map(gid_of).collect()
}

/// The gid of a group, whoever knows it.
pub fn gid_of(group: &str) -> Option<u32> {
    answer("getent", &["group", group])
        .split(':')
        .nth(2)?
        .parse()
        .ok()
}

/// What a program of the system prints; nothing if it fails.
fn answer(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// With whose rights mail is accessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailUsers {
    /// All users share one uid.
    One(Account),
    /// They have several; none is named where each user is known to have his own.
    Many(Vec<u32>),
    /// Nobody can be asked.
    Unknown,
}

impl MailUsers {
    /// What the configuration itself says.
    pub fn configured(settings: &Settings) -> Self {
        let blocks = settings.names("userdb");
        let drivers: Vec<&str> = blocks
            .iter()
            .map(
                |name| match settings.get(&format!("userdb/{name}/driver")) {
                    // Dovecot 2.4 calls a userdb by its driver, unless told otherwise.
                    "" => *name,
                    driver => driver,
                },
            )
            .collect();
        if drivers.contains(&"passwd") {
            return Self::Many(Vec::new());
        }
        let is_static = !drivers.is_empty() && drivers.iter().all(|driver| *driver == "static");
        let uid = blocks
            .iter()
            .find_map(|name| field_of_userdb(settings, name, "uid"))
            .or_else(|| Some(settings.get("mail_uid")).filter(|uid| !uid.is_empty()));
        match uid.and_then(Account::of) {
            Some(account) if is_static || !settings.get("mail_uid").is_empty() => {
                Self::One(account)
            }
            _ => Self::Unknown,
        }
    }

    /// What the users who were asked about have.
    pub fn of_uids(mut uids: Vec<u32>) -> Self {
        uids.sort_unstable();
        uids.dedup();
        match uids[..] {
            [] => Self::Unknown,
            [uid] => Self::One(Account::of_uid(uid)),
            _ => Self::Many(uids),
        }
    }
}

/// A field that a userdb's own settings give to every user.
pub fn field_of_userdb<'a>(settings: &'a Settings, userdb: &str, field: &str) -> Option<&'a str> {
    let of_2_4 = settings.get(&format!("userdb/{userdb}/fields/{field}"));
    if !of_2_4.is_empty() {
        return Some(of_2_4);
    }
    ["override_fields", "args", "default_fields"]
        .into_iter()
        .flat_map(|setting| {
            settings
                .get(&format!("userdb/{userdb}/{setting}"))
                .split(' ')
        })
        .find_map(|word| word.strip_prefix(field)?.strip_prefix('='))
}

/// Whether a userdb's own settings name this one as everybody's uid.
pub fn is_named(settings: &Settings, account: &Account) -> bool {
    let mut userdbs = settings.names("userdb").into_iter();
    userdbs.any(|userdb| {
        field_of_userdb(settings, userdb, "uid")
            .and_then(Account::of)
            .as_ref()
            == Some(account)
    })
}

/// The users to ask about: those named, or some that Dovecot or this backend knows; and how many Dovecot knows.
pub fn users(
    settings: &Settings,
    named: &[String],
    base: Option<&Path>,
    findings: &mut Findings,
) -> (Vec<String>, usize) {
    if !named.is_empty() {
        return (named.to_vec(), 0);
    }
    let mut users = doveadm::all_users(settings.given_file()).unwrap_or_default();
    let known = users.len();
    if users.is_empty() {
        users = base.map(local_users).unwrap_or_default();
    }
    if users.is_empty() {
        findings.add(Kind::NoUser, None);
    }
    (of_each_domain(users), known)
}

/// One of each domain first, then the others, but not too many.
fn of_each_domain(users: Vec<String>) -> Vec<String> {
    let mut domains: BTreeMap<String, u32> = BTreeMap::new();
    let mut ranked: Vec<(u32, String)> = users
        .into_iter()
        .map(|user| {
            let domain = user.rsplit_once('@').map_or("", |(_, domain)| domain);
            let rank = domains.entry(domain.to_owned()).or_default();
            *rank += 1;
            (*rank, user)
        })
        .collect();
    ranked.sort();
    ranked.truncate(MOST);
    ranked.into_iter().map(|(_, user)| user).collect()
}

/// The names of directories with a list index, which mostly are those of their users.
fn local_users(base: &Path) -> Vec<String> {
    fn search(directory: &Path, depth: u8, users: &mut Vec<String>) {
        let lock_file = OsStr::from_bytes(LOCK_FILE.to_bytes());
        for entry in directory.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            if users.len() > 8 * MOST || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if path.join(lock_file).exists() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // LISTINDEX may be DOMAIN/NAME.
                let above = directory.file_name().unwrap_or_default().to_string_lossy();
                users.push(match above.contains('.') && !name.contains('@') {
                    true => format!("{name}@{above}"),
                    false => name,
                });
            } else if depth > 0 {
                search(&path, depth - 1, users);
            }
        }
    }
    let mut users = Vec::new();
    search(base, 3, &mut users);
    users
}

#[cfg(test)]
mod tests {
    use super::of_each_domain;

    #[test]
    fn one_user_of_each_domain_comes_before_a_second_of_any() {
        let mut users: Vec<String> = (0..30).map(|n| format!("{n:02}@a")).collect();
        users.push("z@b".to_owned());
        users.push("z@c".to_owned());
        let chosen = of_each_domain(users);
        assert_eq!(chosen[..4], ["00@a", "z@b", "z@c", "01@a"]);
        assert_eq!(chosen.len(), 20);
    }
}
