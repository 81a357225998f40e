//! Where list indexes are: what a login is told about real users, and what the mail processes will use.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::path::Path;

use super::configuration::Wrapper;
use super::finding::{Findings, Kind, Remedy};
use super::people::{Account, MailUsers, field_of, field_of_userdb};
use super::services::{PostLogin, in_use, write};
use crate::dovecot::doveadm::{self, DoveadmError, Field};
use crate::dovecot::environment::{Environment, Namespace, of_userdb_fields};
use crate::dovecot::files::Place;
use crate::dovecot::location::{Shared, Tracked, Tracking, Unvouchable, resolve};
use crate::dovecot::settings::{Generation, Settings};
use crate::local::directory::open_without_links;
use crate::system::accounts;
use crate::system::file_system::FileSystem;

/// Where list indexes should be.
const LOCAL_2_3: &str = "/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index";
const LOCAL_2_4: &str = "/dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index";

/// Without these, Dovecot 2.4 would have to guess.
const REQUIRED: [&str; 3] = ["mail_driver", "mail_path", "mailbox_list_index_prefix"];
/// These matter only if they are set.
const OPTIONAL: [&str; 2] = ["mail_index_path", "mailbox_list_layout"];
/// What says in Dovecot 2.3 where everything is, the first that is there.
const LOCATIONS: [&str; 2] = ["mail_location", "mail"];

type IsWrong = fn(u64, u64) -> bool;

/// Settings that keep uids from logging in, each with what it refuses.
const UID_LIMITS: [(&str, IsWrong); 2] = [
    ("first_valid_uid", |uid, limit| uid < limit),
    ("last_valid_uid", |uid, limit| limit != 0 && uid > limit),
];

/// One user, as seen from both sides.
#[derive(Debug)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The userdb fields that a post-login script is told.
    fields: BTreeMap<String, Vec<u8>>,
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
        number(uid?)
    }

    /// Whether Dovecot lets this uid log in.
    pub fn is_valid(&self, settings: &Settings) -> bool {
        self.uid().is_none_or(|uid| {
            UID_LIMITS
                .iter()
                .all(|(setting, is_wrong)| !is_wrong(uid.into(), settings.number(setting)))
        })
    }

    fn environment(&self) -> Vec<CString> {
        environment(&self.name, &self.fields)
    }
}

fn environment(user: &str, fields: &BTreeMap<String, Vec<u8>>) -> Vec<CString> {
    let fields = fields
        .iter()
        .filter(|(key, _)| key.as_str() != "user")
        .map(|(key, value)| (key.clone().into_bytes(), value.clone()));
    of_userdb_fields(user.as_bytes(), fields).unwrap_or_default()
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
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

/// The name of the namespace that holds the inbox.
pub fn inbox(settings: &Settings) -> Option<&str> {
    settings.names("namespace").into_iter().find(|name| {
        settings.is_on(&format!("namespace/{name}/inbox"))
            && !settings.is_on(&format!("namespace/{name}/disabled"))
    })
}

/// Where all list indexes of the inbox are, with Dovecot's variables left in; empty if nowhere.
pub fn template(settings: &Settings) -> String {
    let in_inbox = |setting: &str| {
        let own = inbox(settings).map_or("", |name| {
            settings.get(&format!("namespace/{name}/{setting}"))
        });
        if own.is_empty() {
            settings.get(setting).to_owned()
        } else {
            own.to_owned()
        }
    };
    match settings.generation {
        Generation::V2_4 => in_inbox("mailbox_list_index_prefix"),
        Generation::V2_3 => {
            let given = userdb_location(settings).map(|(_, location)| location.to_owned());
            let location = match in_inbox("location") {
                own if own.is_empty() => {
                    given.unwrap_or_else(|| settings.get("mail_location").to_owned())
                }
                own => own,
            };
            list_index_of(&location).unwrap_or_default().to_owned()
        }
    }
}

/// The LISTINDEX of a location of Dovecot 2.3; colons inside `%{...}` do not end it.
pub fn list_index_of(location: &str) -> Option<&str> {
    let (_, rest) = location.rsplit_once(":LISTINDEX=")?;
    let mut depth = 0;
    let end = rest.find(|character| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        character == ':' && depth == 0
    });
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// A location that the userdbs' own settings give to everybody, and the field.
fn userdb_location(settings: &Settings) -> Option<(&'static str, &str)> {
    settings.names("userdb").into_iter().find_map(|userdb| {
        let field = |field| Some((field, field_of_userdb(settings, userdb, field)?));
        field("namespace/inbox/location").or_else(|| LOCATIONS.into_iter().find_map(field))
    })
}

/// Looks at the configuration alone: what can be seen without any user.
pub fn check_settings(settings: &Settings, has_wrapper: bool, findings: &mut Findings) {
    variables_in_fields(settings, findings);
    match settings.generation {
        Generation::V2_3 => blanks(settings, findings),
        Generation::V2_4 => {
            left_over(settings, findings);
            empty_paths(settings, findings);
        }
    }
    // The plugin asks the mail process itself.
    if has_wrapper {
        prefetch(settings, findings);
        match settings.generation {
            Generation::V2_3 => clients(settings, findings),
            Generation::V2_4 => blocks(settings, findings),
        }
    }
    if settings.get("mailbox_list_index") == "no" {
        let kind = Kind::ListIndexOff {
            user: "everybody".to_owned(),
        };
        let place = settings.place("mailbox_list_index");
        findings.add_at(kind, place, write(settings, "mailbox_list_index = yes"));
    }
}

/// `(setting, value)` of everything that becomes a userdb field.
fn userdb_fields(settings: &Settings) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for (rest, value) in settings.below("userdb_fields") {
        fields.push((format!("userdb_fields/{rest}"), value.to_owned()));
    }
    for userdb in settings.names("userdb") {
        let key = |setting: &str| format!("userdb/{userdb}/{setting}");
        for setting in ["args", "default_fields", "override_fields"] {
            if !settings.get(&key(setting)).is_empty() {
                fields.push((key(setting), settings.get(&key(setting)).to_owned()));
            }
        }
        for (rest, value) in settings.below(&key("fields")) {
            fields.push((key(&format!("fields/{rest}")), value.to_owned()));
        }
    }
    fields
}

/// What auth does not know when it expands fields.
fn variables_in_fields(settings: &Settings, findings: &mut Findings) {
    for (field, value) in userdb_fields(settings) {
        let is_place = ["mail", "location", "path", "prefix"]
            .iter()
            .any(|word| field.contains(word) || value.contains(&format!("{word}=")));
        for variable in variables(&value).into_iter().filter(|_| is_place) {
            let name = variable
                .trim_start_matches(['%', '{'])
                .trim_end_matches('}')
                .trim_start_matches(|c: char| {
                    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.'
                })
                .split(['|', ' '])
                .next()
                .unwrap_or_default();
            let name = name.rsplit_once(':').map_or(name, |(_, last)| last);
            let is_field = field.ends_with("_fields") || field.contains("fields/");
            let (variable, setting) = (variable.to_owned(), field.clone());
            let (kind, other) = match name {
                "h" | "home" => (Kind::UserdbVariable { variable, setting }, "~"),
                "i" | "uid" | "gid" if is_field => {
                    (Kind::RefusedVariable { variable, setting }, "%u")
                }
                "s" | "service" | "protocol" | "l" | "r" | "a" | "b" if is_field => {
                    (Kind::ChangingVariable { variable, setting }, "mail")
                }
                "lip" | "rip" | "lport" | "rport" | "pid" | "session" if is_field => {
                    (Kind::ChangingVariable { variable, setting }, "mail")
                }
                _ => continue,
            };
            let mended = match &kind {
                Kind::UserdbVariable { variable, .. }
                | Kind::RefusedVariable { variable, .. }
                | Kind::ChangingVariable { variable, .. } => {
                    value.replace(variable.as_str(), other)
                }
                _ => continue,
            };
            replace_field(settings, &field, kind, mended, findings);
            break;
        }
    }
}

/// Writes a userdb field anew where it stands: the value may be a copy of a setting.
fn replace_field(
    settings: &Settings,
    setting: &str,
    kind: Kind,
    value: String,
    findings: &mut Findings,
) {
    let name = setting.rsplit('/').next().unwrap_or(setting);
    let original = settings
        .place(name)
        .filter(|_| settings.generation == Generation::V2_4);
    let place = original.or_else(|| settings.place(setting));
    let remedy = place
        .clone()
        .map(|place| Remedy::Replace(place, format!("{name} = {value}")));
    findings.add_at(kind, place, remedy);
}

/// The variables of a template, each as it is written.
fn variables(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find('%') {
        let after = &rest[start + 1..];
        let length = if after.starts_with('%') {
            1
        } else if let Some(brace) = after.find('{').filter(|&at| {
            after[..at]
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.')
        }) {
            after[brace..]
                .find('}')
                .map_or(after.len(), |end| brace + end + 1)
        } else {
            after
                .find(|c: char| c.is_ascii_lowercase())
                .map_or(after.len(), |at| at + 1)
        };
        let end = start + 1 + length;
        if !after.starts_with('%') {
            found.push(&rest[start..end]);
        }
        rest = &rest[end..];
    }
    found
}

/// Fields are separated by blanks in Dovecot 2.3.
fn blanks(settings: &Settings, findings: &mut Findings) {
    for (setting, value) in userdb_fields(settings) {
        let mut words = value.split(' ').filter(|word| !word.is_empty());
        let is_of_driver = setting.ends_with("/args") && !value.contains("home=");
        if is_of_driver {
            continue;
        }
        // The first words of args may be options of the driver.
        let mut in_fields = !setting.ends_with("/args");
        let lost = words.find(|word| {
            in_fields |= word.contains('=');
            in_fields && !word.contains('=') && *word != "allow_all_users"
        });
        if let Some(word) = lost {
            let kind = Kind::Blank {
                word: word.to_owned(),
                setting: setting.clone(),
            };
            findings.add_at(kind, settings.place(&setting), None);
        }
    }
}

/// Locations of the inbox for some clients only.
fn clients(settings: &Settings, findings: &mut Findings) {
    let inbox = format!("namespace/{}/location", inbox(settings).unwrap_or("inbox"));
    for (key, value) in settings.ending_with("location") {
        let is_filter = ["remote/", "local/", "local_name/"]
            .iter()
            .any(|kind| key.starts_with(kind));
        if is_filter && key.ends_with(&inbox) && value != settings.get(&inbox) {
            let place = settings.place(key);
            let block = key
                .strip_suffix(&inbox)
                .unwrap_or(key)
                .trim_end_matches('/');
            let kind = Kind::BlockSetting {
                setting: inbox.clone(),
                block: block.replacen('/', " ", 1).replace("\\s", "/"),
            };
            findings.add_at(kind, place.clone(), place.map(removed));
        }
    }
}

/// A prefetch userdb has no fields of its own: the passdb has to return them.
fn prefetch(settings: &Settings, findings: &mut Findings) {
    let is_prefetch = |name: &&str| {
        *name == "prefetch" || settings.get(&format!("userdb/{name}/driver")) == "prefetch"
    };
    let userdbs = settings.names("userdb");
    let Some(userdb) = userdbs.into_iter().find(is_prefetch) else {
        return;
    };
    let wanted: &[&str] = match settings.generation {
        Generation::V2_3 => &["mail_location"],
        Generation::V2_4 => &REQUIRED,
    };
    let passdbs = settings.names("passdb");
    let has = |field: &str| {
        let field = format!("userdb_{field}");
        !settings.get(&format!("passdb_fields/{field}")).is_empty()
            || passdbs.iter().any(|passdb| {
                let key = |setting: &str| format!("passdb/{passdb}/{setting}");
                !settings.get(&key(&format!("fields/{field}"))).is_empty()
                    || ["args", "default_fields", "override_fields"]
                        .iter()
                        .any(|setting| settings.get(&key(setting)).contains(&format!("{field}=")))
            })
    };
    let missing: Vec<&str> = wanted.iter().copied().filter(|field| !has(field)).collect();
    let Some(first) = missing.first() else {
        return;
    };
    let remedy = match settings.generation {
        Generation::V2_4 => {
            let lines: String = missing
                .iter()
                .map(|field| format!("  userdb_{field} = $SET:{field}\n"))
                .collect();
            Some(write(settings, format!("passdb_fields {{\n{lines}}}")))
        }
        Generation::V2_3 => {
            let location = for_userdb(settings);
            add_field(settings, "passdb", "userdb_mail_location", &location)
        }
    };
    let kind = Kind::Prefetch {
        field: format!("userdb_{first}"),
    };
    findings.add_at(kind, settings.place(&format!("userdb/{userdb}")), remedy);
}

/// A field for Dovecot 2.3.
fn left_over(settings: &Settings, findings: &mut Findings) {
    for field in LOCATIONS {
        let key = format!("userdb_fields/{field}");
        if !settings.get(&key).is_empty() {
            let place = settings.place(&key);
            let kind = Kind::LeftOver {
                field: field.to_owned(),
            };
            findings.add_at(kind, place.clone(), place.map(removed));
        }
    }
}

fn removed(place: Place) -> Remedy {
    Remedy::Replace(place, String::new())
}

/// `$SET:` of a setting that is not set.
fn empty_paths(settings: &Settings, findings: &mut Findings) {
    for (rest, value) in settings.below("userdb_fields") {
        let name = rest.rsplit('/').next().unwrap_or(rest);
        if value.is_empty() && ["mail_path", "mail_driver"].contains(&name) {
            let place = settings.place(&format!("userdb_fields/{rest}"));
            let kind = Kind::EmptyPath {
                setting: format!("userdb_fields/{rest}"),
            };
            findings.add_at(kind, place.clone(), place.map(removed));
        }
    }
}

/// Settings in blocks that can win over userdb fields in Dovecot 2.4.
fn blocks(settings: &Settings, findings: &mut Findings) {
    let inbox = inbox(settings).map(|name| format!("namespace/{name}/"));
    for setting in REQUIRED.into_iter().chain(OPTIONAL) {
        let field = settings.get(&format!("userdb_fields/{setting}"));
        let own_field = inbox.as_ref().map_or("", |inbox| {
            settings.get(&format!("userdb_fields/{inbox}{setting}"))
        });
        for (key, value) in settings.ending_with(setting) {
            let is_filter = ["protocol/", "remote/", "local/", "local_name/"]
                .iter()
                .any(|kind| key.starts_with(kind));
            let is_inbox = inbox
                .as_ref()
                .is_some_and(|inbox| key.starts_with(inbox.as_str()));
            let same = match own_field {
                "" => value == field,
                own => value == own || is_inbox,
            };
            if !(is_filter || is_inbox) || same {
                continue;
            }
            let place = settings.place(key);
            let block = key
                .strip_suffix(setting)
                .unwrap_or(key)
                .trim_end_matches('/');
            let kind = Kind::BlockSetting {
                setting: setting.to_owned(),
                block: block.replacen('/', " ", 1).replace("\\s", "/"),
            };
            let remedy = if is_inbox {
                let inbox = inbox.as_deref().unwrap_or_default();
                Some(write(
                    settings,
                    format!("userdb_fields {{\n  {inbox}{setting} = {value}\n}}"),
                ))
            } else {
                place.clone().map(removed)
            };
            findings.add_at(kind, place, remedy);
        }
    }
}

/// Looks at users, and at what every service that they log in to makes of them.
pub fn check(
    settings: &Settings,
    people: &mut [Person],
    users: &MailUsers,
    post_logins: &[PostLogin],
    wrapper: &Wrapper,
    has_wrapper: bool,
    findings: &mut Findings,
) {
    let services: Vec<(&str, Settings)> = in_use(settings)
        .into_iter()
        .filter_map(|service| {
            let protocol = if service == "managesieve" {
                "sieve"
            } else {
                service
            };
            Some((service, settings.in_protocol(protocol).ok()?))
        })
        .collect();
    for person in people.iter_mut() {
        let view = View {
            settings,
            person,
            wrapper,
            users,
        };
        view.ids(post_logins, findings);
        let tracked = if has_wrapper {
            view.look(&services, findings)
        } else {
            view.of_plugin().and_then(|used| view.judge(used, findings))
        };
        person.tracked = tracked;
    }
    same_directories(settings, people, findings);
}

struct View<'a> {
    settings: &'a Settings,
    person: &'a Person,
    wrapper: &'a Wrapper,
    users: &'a MailUsers,
}

impl View<'_> {
    fn user(&self) -> String {
        self.person.name.clone()
    }

    /// Dovecot lets only some uids log in. Started as root, the wrapper needs to be told who the user is.
    fn ids(&self, post_logins: &[PostLogin], found: &mut Findings) {
        let settings = self.settings;
        let uid = self.person.uid();
        for (setting, is_wrong) in UID_LIMITS {
            let limit = settings.number(setting);
            if let Some(uid) = uid.filter(|uid| is_wrong(u64::from(*uid), limit)) {
                let kind = Kind::UidNotValid {
                    user: self.user(),
                    uid,
                    setting,
                    limit,
                };
                let remedy = write(settings, format!("{setting} = {uid}"));
                found.add_of_user(kind, settings.place(setting), Some(remedy));
            }
        }
        let Some(root) = post_logins.iter().find(|service| service.is_root()) else {
            return;
        };
        for field in ["uid", "gid"] {
            if self.person.fields.contains_key(field) {
                continue;
            }
            let remedy = match self.users {
                MailUsers::One(user) if user.has_name() => write(
                    settings,
                    format!("service {} {{\n  user = {}\n}}", root.name, user.name),
                ),
                _ => root.with_users_ids(settings),
            };
            let kind = Kind::NoUid {
                user: self.user(),
                field,
            };
            found.add_of_user(kind, settings.place(&format!("mail_{field}")), Some(remedy));
        }
    }

    fn look(&self, services: &[(&str, Settings)], found: &mut Findings) -> Option<Tracked> {
        let entries = self.person.environment();
        let login = resolved(&entries, &self.wrapper.inbox);
        if let Some((kind, place, remedy)) = self.missing(login.is_err()) {
            found.add_of_user(kind, place, remedy);
            return None;
        }
        let login = match login {
            Ok(tracking) => tracking,
            Err(reason) => {
                let kind = Kind::BadLocation {
                    user: self.user(),
                    reason,
                };
                found.add_of_user(kind, None, None);
                return None;
            }
        };
        for (service, settings) in services {
            let Some((used, remedy)) = self.used(settings) else {
                continue;
            };
            if used != login {
                let kind = Kind::OtherLocation {
                    user: self.user(),
                    service: (*service).to_owned(),
                    login: place_of(&login),
                    used: place_of(&used),
                };
                found.add_of_user(kind, None, remedy);
                return None;
            }
        }
        self.judge(login, found)
    }

    /// A field without which the wrapper cannot know, or would know something else than Dovecot.
    fn missing(&self, is_unknown: bool) -> Option<(Kind, Option<Place>, Option<Remedy>)> {
        let settings = self.settings;
        let fields = &self.person.fields;
        if !settings.get("mail_chroot").is_empty() {
            let kind = Kind::Chrooted { user: self.user() };
            return Some((kind, settings.place("mail_chroot"), None));
        }
        let home = self.person.final_fields.get("home");
        let has = |field: &str| {
            let name = inbox(settings).unwrap_or("inbox").to_ascii_lowercase();
            let inbox = format!("namespace/{name}/{field}");
            fields.contains_key(field) || fields.contains_key(&inbox)
        };
        if settings.generation == Generation::V2_4 {
            let is_set = |field: &&str| settings.place(field).is_some();
            let wanted: Vec<&str> = REQUIRED
                .into_iter()
                .chain(OPTIONAL.into_iter().filter(is_set))
                .filter(|field| !has(field))
                .collect();
            if let Some(field) = wanted.first() {
                let kind = Kind::MissingField {
                    user: self.user(),
                    field,
                };
                return Some((kind, None, Some(self.fields_of_2_4(&wanted))));
            }
        } else if !has("location") && !LOCATIONS.into_iter().any(has) {
            let kind = Kind::NoLocation { user: self.user() };
            let location = for_userdb(settings);
            let remedy = add_userdb_field(settings, "mail_location", &location);
            return Some((kind, settings.place("mail_location"), remedy));
        }
        if is_unknown && !fields.contains_key("home") && home.is_some() {
            let kind = Kind::NoHome { user: self.user() };
            let home = settings.get("mail_home");
            let remedy = match settings.generation {
                Generation::V2_4 => Some(write(
                    settings,
                    "userdb_fields {\n  home = $SET:mail_home\n}",
                )),
                Generation::V2_3 => add_userdb_field(settings, "home", home),
            };
            return Some((kind, settings.place("mail_home"), remedy));
        }
        None
    }

    /// What makes Dovecot 2.4 tell these settings, and have them.
    fn fields_of_2_4(&self, wanted: &[&str]) -> Remedy {
        let settings = self.settings;
        let mut lines = String::new();
        let mut fields = String::new();
        for &field in wanted {
            let value = settings.get(field);
            let is_local = field != "mailbox_list_index_prefix" || value.starts_with('/');
            if !is_local {
                lines += &format!("{field} = {LOCAL_2_4}\n");
            } else if value.is_empty() && field == "mail_path" {
                lines += "mail_path = ~/mail\n";
            } else if with_tilde(value) != value {
                // The userdb does not know the home.
                lines += &format!("{field} = {}\n", with_tilde(value));
            }
            fields += &format!("  {field} = $SET:{field}\n");
        }
        write(settings, format!("{lines}userdb_fields {{\n{fields}}}"))
    }

    /// What the mail process will use, by the settings of its protocol, and what makes a post-login script
    /// know; `None` if it is what the login has by construction.
    fn used(&self, settings: &Settings) -> Option<(Tracking, Option<Remedy>)> {
        let fields = &self.person.fields;
        if settings.generation == Generation::V2_4 {
            // Fields win there but for what blocks() finds.
            return None;
        }
        let name = inbox(settings).unwrap_or("inbox");
        let own_field = format!("namespace/{}/location", name.to_ascii_lowercase());
        let own_setting = settings.get(&format!("namespace/{name}/location"));
        let location = if let Some(field) = fields.get(&own_field) {
            field.clone()
        } else if !own_setting.is_empty() {
            self.expanded(own_setting)?
        } else if let Some(field) = LOCATIONS.into_iter().find_map(|field| fields.get(field)) {
            field.clone()
        } else {
            self.expanded(settings.get("mail_location"))?
        };
        let mut used = fields.clone();
        used.retain(|field, _| {
            !field.ends_with("/location") && !LOCATIONS.contains(&field.as_str())
        });
        used.insert("mail_location".to_owned(), location);
        if let Some(home) = self.person.final_fields.get("home") {
            used.insert("home".to_owned(), home.clone());
        }
        let entries = environment(&self.person.name, &used);
        let used = resolved(&entries, &Namespace::default()).ok()?;
        let remedy = match own_setting {
            "" => None,
            own => add_userdb_field(self.settings, &own_field, &with_tilde(own)),
        };
        Some((used, remedy))
    }

    /// What the plugin will find in the mail process.
    fn of_plugin(&self) -> Option<Tracking> {
        let settings = self.settings;
        if settings.generation == Generation::V2_3 {
            return self.used(settings).map(|(used, _)| used);
        }
        let mut fields = self.person.fields.clone();
        fields.extend(self.person.final_fields.clone());
        for setting in REQUIRED.into_iter().chain(OPTIONAL) {
            let value = settings.get(setting);
            if !value.is_empty() && !fields.contains_key(setting) {
                fields.insert(setting.to_owned(), value.as_bytes().to_vec());
            }
        }
        resolved(
            &environment(&self.person.name, &fields),
            &self.wrapper.inbox,
        )
        .ok()
    }

    fn expanded(&self, template: &str) -> Option<Vec<u8>> {
        let file = self.settings.given_file();
        doveadm::expanded(template, OsStr::new(&self.person.name), file).ok()
    }

    fn judge(&self, tracking: Tracking, found: &mut Findings) -> Option<Tracked> {
        let user = self.user();
        let reason = tracking.to_string();
        let kind = match tracking {
            Tracking::Tracked(tracked) => {
                let prefix = tracked.prefix().to_string_lossy().into_owned();
                if prefix != user && !prefix.starts_with('%') {
                    return Some(tracked);
                }
                Kind::FileName {
                    user,
                    path: tracked
                        .list_index_dir()
                        .join(prefix)
                        .to_string_lossy()
                        .into_owned(),
                }
            }
            Tracking::LayoutIndex => Kind::LayoutIndex { user },
            Tracking::Shared(Shared::NotSet) => match self.own_location() {
                Some(location) => Kind::RowWithoutListIndex { user, location },
                None => Kind::NoListIndex { user },
            },
            Tracking::Shared(Shared::Relative | Shared::SameDirectory) => {
                Kind::SharedListIndex { user, reason }
            }
            Tracking::Shared(Shared::Memory | Shared::Disabled) => Kind::ListIndexOff { user },
            Tracking::Unvouchable(Unvouchable::IndexInMemory) => Kind::IndexInMemory { user },
            Tracking::Unvouchable(Unvouchable::Chrooted) => Kind::Chrooted { user },
            Tracking::Unvouchable(_) => Kind::BadLocation { user, reason },
        };
        let remedy = self.mended(&kind);
        found.add_of_user(kind, None, remedy);
        None
    }

    /// The location of this user alone, where that of all others has a local list index.
    fn own_location(&self) -> Option<String> {
        let (_, common) = userdb_location(self.settings)?;
        list_index_of(common).filter(|path| path.starts_with('/'))?;
        let fields = &self.person.fields;
        let own = LOCATIONS.into_iter().find_map(|field| fields.get(field))?;
        Some(String::from_utf8_lossy(own).into_owned())
    }

    /// The location as it should be, where the configuration itself has it.
    fn mended(&self, kind: &Kind) -> Option<Remedy> {
        let settings = self.settings;
        if settings.generation == Generation::V2_4 {
            return match kind {
                Kind::FileName { .. } => {
                    let value = settings.get("mailbox_list_index_prefix");
                    replaced(
                        settings,
                        "mailbox_list_index_prefix",
                        &format!("{value}/dovecot.list.index"),
                    )
                }
                Kind::NoListIndex { .. } | Kind::SharedListIndex { .. } => {
                    replaced(settings, "mailbox_list_index_prefix", LOCAL_2_4)
                }
                Kind::LayoutIndex { .. } => {
                    settings.place("mailbox_list_index_prefix").map(removed)
                }
                Kind::IndexInMemory { .. } => settings.place("mail_index_path").map(removed),
                _ => None,
            };
        }
        let (setting, location) = match userdb_location(settings) {
            Some((field, location)) => (Some(field), location),
            None => (None, settings.get("mail_location")),
        };
        let mended = match kind {
            Kind::FileName { .. } => {
                let list_index = list_index_of(location)?;
                location.replace(list_index, &format!("{list_index}/dovecot.list.index"))
            }
            Kind::NoListIndex { .. } | Kind::SharedListIndex { .. } => local(location),
            Kind::LayoutIndex { .. } => without(location, "LISTINDEX="),
            Kind::IndexInMemory { .. } => without(location, "INDEX=MEMORY"),
            Kind::ListIndexOff { .. } => local(&without(location, "INDEX=MEMORY")),
            _ => return None,
        };
        match setting {
            Some(field) => add_userdb_field(settings, field, &mended),
            None => Some(write(settings, format!("mail_location = {mended}"))),
        }
    }
}

/// A setting of Dovecot 2.4 written anew where it stands, so that copies of it change too.
fn replaced(settings: &Settings, setting: &str, value: &str) -> Option<Remedy> {
    let line = format!("{setting} = {value}");
    Some(match settings.place(setting) {
        Some(place) => Remedy::Replace(place, line),
        None => write(settings, line),
    })
}

fn resolved(entries: &[CString], inbox: &Namespace) -> Result<Tracking, String> {
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    resolve(&Environment::new(&entries), inbox).map_err(|error| error.to_string())
}

fn place_of(tracking: &Tracking) -> String {
    match tracking {
        Tracking::Tracked(tracked) => tracked.list_index_dir().to_string_lossy().into_owned(),
        other => other.to_string(),
    }
}

/// Two users of whom one would throw away what is the other's.
fn same_directories(settings: &Settings, people: &[Person], findings: &mut Findings) {
    let mut list_indexes: BTreeMap<(&Path, &CStr), &str> = BTreeMap::new();
    let mut indexes: BTreeMap<&Path, &str> = BTreeMap::new();
    for person in people {
        let Some(tracked) = &person.tracked else {
            continue;
        };
        let user = person.name.as_str();
        let is_other = |other: &&str| *other != user;
        let key = (tracked.list_index_dir(), tracked.prefix());
        if list_indexes.insert(key, user).filter(is_other).is_some() {
            let directory = tracked.list_index_dir().display().to_string();
            let kind = Kind::OneDirectory { directory };
            findings.add_of_user(kind, None, one_each(settings));
        }
        if let Some(other) = indexes.insert(tracked.index_dir(), user).filter(is_other) {
            let kind = Kind::OneIndex {
                user: user.to_owned(),
                other: other.to_owned(),
                directory: tracked.index_dir().display().to_string(),
            };
            findings.add_of_user(kind, None, None);
        }
    }
    // The configuration alone may show it, too.
    let template = template(settings);
    if let Some((directory, _)) = template.rsplit_once('/') {
        if template.starts_with('/') && !directory.contains('%') && list_indexes.len() < 2 {
            let directory = directory.to_owned();
            let kind = Kind::OneDirectory { directory };
            findings.add_of_user(kind, None, one_each(settings));
        }
    }
}

/// What gives each user a directory of his own.
pub fn one_each(settings: &Settings) -> Option<Remedy> {
    match settings.generation {
        Generation::V2_4 => replaced(settings, "mailbox_list_index_prefix", LOCAL_2_4),
        Generation::V2_3 => match userdb_location(settings) {
            Some((field, location)) => add_userdb_field(settings, field, &local(location)),
            None => {
                let location = local(settings.get("mail_location"));
                Some(write(settings, format!("mail_location = {location}")))
            }
        },
    }
}

/// The location as the userdb has to return it.
fn for_userdb(settings: &Settings) -> String {
    let own = inbox(settings).map_or("", |name| {
        settings.get(&format!("namespace/{name}/location"))
    });
    let location = match own {
        "" => settings.get("mail_location"),
        own => own,
    };
    let location = with_tilde(location);
    match list_index_of(&location) {
        Some(list_index) if list_index.starts_with('/') => location,
        _ => local(&location),
    }
}

fn with_tilde(location: &str) -> String {
    let mut text = location.to_owned();
    for variable in variables(location) {
        if variable.ends_with('h') || variable.ends_with("{home}") {
            text = text.replace(variable, "~");
        }
    }
    text
}

/// Makes every userdb of Dovecot 2.3 return a field, one after the other.
fn add_userdb_field(settings: &Settings, field: &str, value: &str) -> Option<Remedy> {
    add_field(settings, "userdb", field, value)
}

fn add_field(settings: &Settings, kind: &str, field: &str, value: &str) -> Option<Remedy> {
    let blocks = settings.names(kind);
    let name = blocks
        .iter()
        .find(|name| field_of(settings, kind, name, field) != Some(value))?;
    let word = format!("{field}={value}");
    for setting in ["args", "override_fields", "default_fields"] {
        let key = format!("{kind}/{name}/{setting}");
        let old = settings.get(&key);
        let begins = format!("{field}=");
        if old.split(' ').any(|other| other.starts_with(&begins)) {
            let words: Vec<&str> = old
                .split(' ')
                .map(|other| {
                    if other.starts_with(&begins) {
                        &word
                    } else {
                        other
                    }
                })
                .collect();
            let place = settings.place(&key)?;
            return Some(Remedy::Replace(
                place,
                format!("  {setting} = {}", words.join(" ")),
            ));
        }
    }
    let key = format!("{kind}/{name}/default_fields");
    let old = settings.get(&key);
    match (
        settings.place(&key),
        settings.place(&format!("{kind}/{name}")),
    ) {
        (Some(place), _) => Some(Remedy::Replace(
            place,
            format!("  default_fields = {old} {word}"),
        )),
        (None, Some(block)) => Some(Remedy::After(block, format!("  default_fields = {word}"))),
        (None, None) => None,
    }
}

fn local(location: &str) -> String {
    let location = without(location, "LISTINDEX=");
    format!("{location}:LISTINDEX={LOCAL_2_3}")
}

/// Without the parts that begin so.
fn without(location: &str, beginning: &str) -> String {
    let parts = location
        .split(':')
        .filter(|part| !part.starts_with(beginning));
    parts.collect::<Vec<_>>().join(":")
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
    let gid = person.fields.get("gid").and_then(|gid| number(gid));
    let account = Account::of(&String::from_utf8_lossy(name));
    let groups = account.as_ref().map(Account::groups).unwrap_or_default();
    groups
        .into_iter()
        .filter(|group| Some(*group) != gid && !known.contains(group))
        .collect()
}

/// The claim must be where every backend sees it.
pub fn index_is_shared(people: &[Person], findings: &mut Findings) {
    let Some(tracked) = people.iter().find_map(|person| person.tracked.as_ref()) else {
        return;
    };
    let index = tracked.index_dir();
    let has_variable = |path: &&Path| path.to_string_lossy().contains('%');
    let is_there = |path: &&Path| path.is_dir() && *path != Path::new("/");
    let directory = if has_variable(&index) {
        let constant = index.ancestors().find(|path| !has_variable(path));
        constant.filter(is_there)
    } else {
        index.ancestors().find(is_there)
    };
    let Some(directory) = directory else {
        return;
    };
    let file_system = open_without_links(directory).ok().map(FileSystem::of);
    if matches!(file_system, Some(Ok(FileSystem::Memory | FileSystem::Disk))) {
        let directory = directory.display().to_string();
        findings.add(Kind::IndexNotShared { directory }, None);
    }
}
