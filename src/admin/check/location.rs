//! Where list indexes are: what a login is told about real users, and what the mail processes will use.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::path::Path;

use super::configuration::Wrapper;
use super::finding::{Findings, Kind, Remedy, write};
use super::people::MailUsers;
use super::person::{Person, UID_LIMITS, environment};
use super::post_login::{PostLogin, in_use};
use super::wording::{
    LOCAL_2_4, LOCATIONS, OPTIONAL, REQUIRED, add_userdb_field, for_userdb, inbox, list_index_of,
    local, one_each, removed, replaced, template, userdb_location, with_tilde, without,
};
use crate::dovecot::doveadm;
use crate::dovecot::environment::{Environment, Namespace};
use crate::dovecot::files::Place;
use crate::dovecot::location::{Layout, Location, Shared, Tracked, Tracking, Unvouchable, resolve};
use crate::dovecot::settings::{Generation, Settings};
use crate::local::directory::open_without_links;
use crate::system::file_system::FileSystem;

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
                service: root.name.clone(),
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
            Tracking::Shared(_) if self.has_layout_index() => Kind::SharedLayoutIndex,
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

    /// Such a list index belongs into INDEX.
    fn has_layout_index(&self) -> bool {
        let entries = self.person.environment();
        let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
        let location = Location::read(&Environment::new(&entries), &self.wrapper.inbox);
        location.is_ok_and(|location| location.layout == Layout::Index)
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
