//! Where list indexes are: what a login is told about real users, and what the mail processes will use.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

use super::configuration::Wrapper;
use super::finding::{Findings, Kind, Remedy, quoted, write};
use super::people::{Account, MailUsers};
use super::person::{Person, environment};
use super::post_login::{PostLogin, in_use};
use super::wording::{
    LOCAL_2_3, LOCAL_2_4, LOCATIONS, OPTIONAL, OwnLocation, REQUIRED, add_userdb_field,
    fields_of_2_4, for_userdb, inbox, is_for_several, list_index_of, local, one_each, own_field,
    removed, replaced, template, userdb_location, without,
};
use crate::dovecot::environment::{Environment, Namespace};
use crate::dovecot::files::Place;
use crate::dovecot::location::{
    Layout, Location, LocationError, Shared, Tracked, Tracking, Unvouchable, resolve,
};
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
        for (setting, id, limit) in self.person.limits(settings) {
            let user = self.user();
            let kind = match setting.ends_with("uid") {
                true => Kind::UidNotValid {
                    user,
                    uid: id,
                    setting,
                    limit,
                },
                false => Kind::GidNotValid {
                    user,
                    gid: id,
                    setting,
                    limit,
                },
            };
            let remedy = write(settings, format!("{setting} = {id}"));
            found.add_of_user(kind, settings.place(setting), Some(remedy));
        }
        let Some(root) = post_logins.iter().find(|service| service.is_root()) else {
            return;
        };
        let is_unknown = |field: &&str| !self.person.fields.contains_key(*field);
        if let Some(field) = ["uid", "gid"].into_iter().find(is_unknown) {
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
        let settings = self.settings;
        if self.person.is_chrooted(settings) {
            // No post-login script is told of mail_chroot.
            let is_local = matches!(login, Ok(Tracking::Tracked(_) | Tracking::Unvouchable(_)));
            if is_local || template(settings).starts_with('/') {
                let kind = Kind::Chrooted { user: self.user() };
                let remedy = self.mended(&kind);
                found.add_of_user(kind, settings.place("mail_chroot"), remedy);
            }
            return None;
        }
        if let Some((kind, place, remedy)) = self.missing(login.is_err()) {
            found.add_of_user(kind, place, remedy);
            return None;
        }
        let login = match login {
            Ok(tracking) => tracking,
            Err(error) => {
                let (user, reason) = (self.user(), error.to_string());
                let home = self.person.final_fields.get("home");
                let has_home = home.is_some_and(|home| !home.is_empty());
                let is_refused = error.is_refused() || error.needs_home() && !has_home;
                let kind = match is_refused {
                    true => Kind::RefusedLocation { user, reason },
                    false => Kind::BadLocation { user, reason },
                };
                found.add_of_user(kind, None, self.in_capitals(&error));
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
        if matches!(login, Tracking::Tracked(_)) {
            self.cannot_be_switched_off(found);
        }
        self.judge(login, found)
    }

    /// With Dovecot 2.3 the wrapper switches a list index off by changing the field that has the location. A
    /// location in the namespace's own block wins over all fields but one.
    fn cannot_be_switched_off(&self, found: &mut Findings) {
        let settings = self.settings;
        let Some(own) = OwnLocation::of_inbox(settings) else {
            return;
        };
        if !self.person.fields.contains_key(&own.field()) {
            let kind = Kind::OwnLocation {
                namespace: own.namespace.to_owned(),
                field: own.field(),
            };
            found.add_of_user(kind, own.place(settings), own.returned(settings));
        }
    }

    /// A field without which the wrapper cannot know, or would know something else than Dovecot.
    fn missing(&self, is_unknown: bool) -> Option<(Kind, Option<Place>, Option<Remedy>)> {
        let settings = self.settings;
        let fields = &self.person.fields;
        let home = self.person.final_fields.get("home");
        let home = home.filter(|_| !settings.get("mail_home").is_empty());
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
                return Some((
                    kind,
                    None,
                    Some(fields_of_2_4(settings, &wanted, ("userdb_fields", ""))),
                ));
            }
        } else if !has("location") && !LOCATIONS.into_iter().any(has) {
            let location = for_userdb(settings);
            if location.starts_with(':') {
                return Some((Kind::NoDriver { user: self.user() }, None, None));
            }
            let kind = Kind::NoLocation { user: self.user() };
            let own = OwnLocation::of_inbox(settings).filter(OwnLocation::has_field);
            let (field, place) = match &own {
                Some(own) => (own.field(), own.place(settings)),
                None => ("mail_location".to_owned(), settings.place("mail_location")),
            };
            return Some((kind, place, add_userdb_field(settings, &field, &location)));
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

    /// What the mail process will use, by the settings of its protocol, and what makes a post-login script
    /// know; `None` if it is what the login has by construction.
    fn used(&self, settings: &Settings) -> Option<(Tracking, Option<Remedy>)> {
        let fields = &self.person.fields;
        if settings.generation == Generation::V2_4 {
            // Fields win there but for what blocks() finds.
            return None;
        }
        let own = OwnLocation::of_inbox(settings);
        let name = inbox(settings).unwrap_or("inbox");
        let location = if let Some(field) = fields.get(&own_field(name)) {
            field.clone()
        } else if let Some(own) = &own {
            self.person.expanded(settings, own.location)?
        } else if let Some(field) = LOCATIONS.into_iter().find_map(|field| fields.get(field)) {
            field.clone()
        } else {
            self.person
                .expanded(settings, settings.get("mail_location"))?
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
        Some((used, own.and_then(|own| own.returned(self.settings))))
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
                fields.insert(setting.to_owned(), self.person.expanded(settings, value)?);
            }
        }
        resolved(
            &environment(&self.person.name, &fields),
            &self.wrapper.inbox,
        )
        .ok()
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
            Tracking::Shared(Shared::NotSet) => self.without_list_index(),
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

    /// Keys of a location are in capital letters.
    fn in_capitals(&self, error: &LocationError) -> Option<Remedy> {
        let key = error.unknown_key()?;
        let (field, location) = userdb_location(self.settings)?;
        let key = format!(":{}=", String::from_utf8_lossy(key));
        let mended = location.replace(&key, &key.to_ascii_uppercase());
        (mended != location)
            .then(|| add_userdb_field(self.settings, &field, &mended))
            .flatten()
    }

    /// Such a list index belongs into INDEX.
    fn has_layout_index(&self) -> bool {
        let entries = self.person.environment();
        let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
        let location = Location::read(&Environment::new(&entries), &self.wrapper.inbox);
        location.is_ok_and(|location| location.layout == Layout::Index)
    }

    /// Who says that the list index is not local: the database, or the configuration.
    fn without_list_index(&self) -> Kind {
        let user = self.user();
        let wanted = LOCAL_2_3;
        let fields = &self.person.fields;
        let own = LOCATIONS.into_iter().find_map(|field| fields.get(field));
        let common = userdb_location(self.settings).map(|(_, location)| list_index_of(location));
        match (
            own.map(|own| String::from_utf8_lossy(own).into_owned()),
            common,
        ) {
            (Some(location), None) => Kind::DatabaseWithoutListIndex {
                user,
                location,
                wanted,
            },
            (Some(location), Some(Some(path))) if path.starts_with('/') => {
                Kind::RowWithoutListIndex {
                    user,
                    location,
                    wanted,
                }
            }
            _ => Kind::NoListIndex { user },
        }
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
                Kind::LayoutIndex { .. } | Kind::Chrooted { .. } => {
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
            Kind::LayoutIndex { .. } | Kind::Chrooted { .. } => without(location, "LISTINDEX="),
            Kind::IndexInMemory { .. } => without(location, "INDEX=MEMORY"),
            Kind::ListIndexOff { .. } => local(&without(location, "INDEX=MEMORY")),
            _ => return None,
        };
        match setting {
            Some(field) => add_userdb_field(settings, &field, &mended),
            None => Some(write(settings, format!("mail_location = {mended}"))),
        }
    }
}

fn resolved(entries: &[CString], inbox: &Namespace) -> Result<Tracking, LocationError> {
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    resolve(&Environment::new(&entries), inbox)
}

fn place_of(tracking: &Tracking) -> String {
    match tracking {
        Tracking::Tracked(tracked) => tracked.list_index_dir().to_string_lossy().into_owned(),
        other => other.to_string(),
    }
}

/// Two users of whom one would throw away what is the other's.
fn same_directories(settings: &Settings, people: &[Person], findings: &mut Findings) {
    let mut list_indexes: BTreeMap<&Path, &str> = BTreeMap::new();
    let mut indexes: BTreeMap<&Path, &str> = BTreeMap::new();
    for person in people {
        let Some(tracked) = &person.tracked else {
            continue;
        };
        let user = person.name.as_str();
        let is_other = |other: &&str| *other != user;
        let directory = tracked.list_index_dir();
        if list_indexes
            .insert(directory, user)
            .filter(is_other)
            .is_some()
        {
            let directory = directory.display().to_string();
            let kind = Kind::OneDirectory { directory };
            // Where the database says it, a line of the configuration would not count.
            let is_of_database = settings.generation == Generation::V2_3
                && userdb_location(settings).is_none()
                && LOCATIONS
                    .iter()
                    .any(|field| person.fields.contains_key(*field));
            let remedy = (!is_of_database).then(|| one_each(settings)).flatten();
            findings.add_of_user(kind, None, remedy);
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
        if template.starts_with('/') && is_for_several(directory) && list_indexes.len() < 2 {
            let directory = directory.to_owned();
            let kind = Kind::OneDirectory { directory };
            findings.add_of_user(kind, None, one_each(settings));
        }
    }
}

/// Users can make and change their INDEX.
pub fn index_is_open(settings: &Settings, people: &[Person], findings: &mut Findings) {
    for person in people {
        let (Some(tracked), Some(uid)) = (&person.tracked, person.uid()) else {
            continue;
        };
        let index = tracked.index_dir();
        // Nobody could be asked, or who has groups of his own may write where this does not show.
        if index.to_string_lossy().contains('%') || person.fields.contains_key("system_groups_user")
        {
            continue;
        }
        let account = Account::of_uid(uid);
        let Some((there, missing)) = as_far_as_it_is_there(index) else {
            continue;
        };
        let status = there.metadata();
        if status.map_or(true, |status| {
            account.may(&status, 0o222, &person.groups(settings))
        }) {
            continue;
        }
        let user = person.name.clone();
        let directory = missing.unwrap_or(there).display().to_string();
        if missing.is_some() {
            // Whether it has to be made or mounted, nobody can say.
            findings.add_of_user(Kind::NoStore { user, directory }, None, None);
        } else {
            let owner = quoted(&account.name);
            let remedy = Remedy::Run(format!("chown {owner} {}", quoted(&directory)));
            findings.add_of_user(Kind::ClosedIndex { user, directory }, None, remedy);
        }
    }
}

/// The deepest directory of a path that is there, and the first below it that is not; `None` if nobody can say, as where
/// a server takes root for nobody.
fn as_far_as_it_is_there(path: &Path) -> Option<(&Path, Option<&Path>)> {
    let mut missing = None;
    for directory in path.ancestors() {
        match directory.metadata() {
            Ok(status) => return status.is_dir().then_some((directory, missing)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = Some(directory),
            Err(_) => return None,
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::as_far_as_it_is_there;

    #[test]
    fn the_first_directory_that_is_missing_is_known() {
        let far = |path| as_far_as_it_is_there(Path::new(path));
        let (root, etc) = (Path::new("/"), Path::new("/etc"));
        assert_eq!(far("/etc"), Some((etc, None)));
        assert_eq!(
            far("/etc/nosuch"),
            Some((etc, Some(Path::new("/etc/nosuch"))))
        );
        assert_eq!(far("/nosuch/a/b"), Some((root, Some(Path::new("/nosuch")))));
        // Neither there nor missing.
        assert_eq!(far("/etc/passwd/a"), None);
    }
}
