//! List indexes of other namespaces: the wrapper knows the inbox's alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::configuration::Wrapper;
use super::finding::{Findings, Kind, Remedy, write};
use super::person::Person;
use super::wording::{LOCAL_2_3, LOCAL_2_4, inbox, list_index_of, variables, without};
use crate::dovecot::settings::{Generation, Settings, is_no};

/// A namespace as far as its list index goes, with Dovecot's variables left in.
struct Namespace<'a> {
    name: &'a str,
    /// Where the mails are.
    store: String,
    /// Where the indexes are.
    index: String,
    /// The path of the list index; `None` if there is none.
    list_index: Option<String>,
    is_shared: bool,
    is_public: bool,
    /// Its location is not that of all namespaces.
    is_by_itself: bool,
    /// Its indexes are in a directory of their own.
    has_index: bool,
}

/// Looks at every namespace but the inbox's.
pub fn check(
    settings: &Settings,
    people: &[Person],
    wrapper: &Wrapper,
    has_plugin: bool,
    findings: &mut Findings,
) {
    let Some(name) = inbox(settings) else {
        return;
    };
    let inbox = read(settings, name);
    let is_believed = settings.is_on("mailbox_list_index_very_dirty_syncs");
    for name in settings.names("namespace") {
        let is_other = name != inbox.name && !settings.is_on(&format!("namespace/{name}/disabled"));
        if !is_other || settings.is_off("mailbox_list_index") {
            continue;
        }
        let other = read(settings, name);
        let Some(list_index) = &other.list_index else {
            continue;
        };
        let same_store = other.store == inbox.store;
        let in_inbox_index = people
            .iter()
            .any(|person| other.is_in_index_of(person, settings));
        let is_local = list_index.starts_with('/') && !in_inbox_index;
        let in_anothers_index = other.is_shared && (in_inbox_index || !other.has_index);
        let place = settings.place(&format!("namespace/{name}"));
        let namespace = name.to_owned();
        let path = list_index.clone();
        let same_list_index = other.list_index == inbox.list_index;
        let (kind, remedy) = if has_plugin && other.is_shared && is_local {
            // One list index of each owner can be kept in step.
            if is_by_owner(list_index) {
                continue;
            }
            (
                Kind::SharedByReader { namespace, path },
                by_owner(settings, &other),
            )
        } else if has_plugin && other.is_public && is_local {
            (
                Kind::PublicNamespace { namespace },
                in_index(settings, &other),
            )
        } else if wrapper.migrates && !is_local && (in_anothers_index || same_store) {
            (
                Kind::MigrationNamespace { namespace },
                off(settings, &other),
            )
        } else if other.is_shared && is_believed {
            (Kind::SharedNamespace { namespace }, off(settings, &other))
        } else if same_store && is_believed {
            (Kind::TwoNames { namespace }, off(settings, &other))
        } else if same_store && is_local && same_list_index && other.is_by_itself {
            (
                Kind::SecondLocation { namespace, path },
                off(settings, &other),
            )
        } else if in_inbox_index && !same_store && !other.is_shared {
            let remedy = match list_index.contains('/') {
                true => in_index(settings, &other),
                false => off(settings, &other),
            };
            (Kind::InboxIndex { namespace, path }, remedy)
        } else if !is_local || same_store {
            continue;
        } else if same_list_index {
            (
                Kind::SameListIndex { namespace, path },
                in_index(settings, &other),
            )
        } else if let Some((one, two)) = collision(list_index, inbox.list_index.as_deref()) {
            let kind = Kind::PrefixCollision {
                namespace,
                one: one.to_owned(),
                other: two.to_owned(),
            };
            (kind, in_index(settings, &other))
        } else if has_plugin {
            continue;
        } else {
            (
                Kind::OtherListIndex { namespace, path },
                in_index(settings, &other),
            )
        };
        findings.add_at(kind, place, remedy);
    }
}

fn read<'a>(settings: &'a Settings, name: &'a str) -> Namespace<'a> {
    let own = |setting: &str| settings.get(&format!("namespace/{name}/{setting}"));
    let or_global = |setting: &str| match own(setting) {
        "" => settings.get(setting),
        own => own,
    };
    let (store, index, list_index) = match settings.generation {
        Generation::V2_4 => (
            format!("{}:{}", or_global("mail_driver"), or_global("mail_path")),
            [or_global("mail_index_path"), or_global("mail_path")]
                .into_iter()
                .find(|path| !path.is_empty())
                .unwrap_or_default(),
            (!is_no(own("mailbox_list_index")))
                .then(|| or_global("mailbox_list_index_prefix").to_owned()),
        ),
        Generation::V2_3 => {
            let location = match own("location") {
                "" => settings.get("mail_location"),
                own => own,
            };
            let list_index = match list_index_of(location) {
                Some("") => None,
                Some(path) => Some(path.to_owned()),
                None => Some("dovecot.list.index".to_owned()),
            };
            let store = location.split(":LISTINDEX=").next().unwrap_or(location);
            let mut parts = store.split(':').skip(1);
            let path = parts.next().unwrap_or_default();
            let index = parts.find_map(|part| part.strip_prefix("INDEX="));
            (store.to_owned(), index.unwrap_or(path), list_index)
        }
    };
    let has_index = store.contains(":INDEX=") || !own("mail_index_path").is_empty();
    Namespace {
        name,
        index: index.to_owned(),
        store,
        list_index: list_index.filter(|path| !path.ends_with('/')),
        is_shared: own("type") == "shared",
        is_public: own("type") == "public",
        is_by_itself: !own("location").is_empty() || !own("mailbox_list_index_prefix").is_empty(),
        has_index,
    }
}

impl Namespace<'_> {
    /// Whether the list index is where that user's inbox has its own without LISTINDEX. What a shared namespace
    /// has of another user is looked for at each one's.
    fn is_in_index_of(&self, person: &Person, settings: &Settings) -> bool {
        let (Some(tracked), Some(list_index)) = (&person.tracked, &self.list_index) else {
            return false;
        };
        let path = match list_index.contains('/') {
            true => list_index.clone(),
            false => format!("{}/{list_index}", self.index),
        };
        let path = path.replace("%%", "%").replace("{owner_", "{");
        let path = person
            .expanded(settings, &path)
            .unwrap_or(path.into_bytes());
        let path = match (path.strip_prefix(b"~/"), person.final_fields.get("home")) {
            (Some(rest), Some(home)) => [home, b"/".as_slice(), rest].concat(),
            _ => path,
        };
        let index = tracked.index_dir().join("dovecot.list.index");
        Path::new(OsStr::from_bytes(&path)) == index
    }
}

/// Two list indexes in one directory, of which one is called as a file of the other's: the deleting one
/// would delete both.
fn collision<'a>(one: &'a str, other: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    let (directory, name) = one.rsplit_once('/')?;
    let (other_directory, other_name) = other?.rsplit_once('/')?;
    let begins = |long: &str, short: &str| {
        let rest = long.strip_prefix(short);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let collide = begins(name, other_name) || begins(other_name, name);
    (directory == other_directory && collide).then_some((name, other_name))
}

/// Whether a path's variables are all of the mailboxes' owner: `%%u`, `%{owner_user}`.
fn is_by_owner(path: &str) -> bool {
    variables(path)
        .iter()
        .all(|variable| variable.contains("owner_"))
}

/// One list index of each owner, in the place of his own.
fn by_owner(settings: &Settings, namespace: &Namespace<'_>) -> Option<Remedy> {
    let name = namespace.name;
    match settings.generation {
        Generation::V2_4 => {
            let path = LOCAL_2_4.replace("{user", "{owner_user");
            let lines = format!("namespace {name} {{\n  mailbox_list_index_prefix = {path}\n}}");
            Some(write(settings, lines))
        }
        Generation::V2_3 => own_location(settings, name, |location| {
            let path = LOCAL_2_3.replace('%', "%%");
            format!("{}:LISTINDEX={path}", without(location, "LISTINDEX="))
        }),
    }
}

/// No list index for that namespace, so that Dovecot looks at its folders themselves.
fn off(settings: &Settings, namespace: &Namespace<'_>) -> Option<Remedy> {
    let name = namespace.name;
    match settings.generation {
        Generation::V2_4 => Some(write(
            settings,
            format!("namespace {name} {{\n  mailbox_list_index = no\n}}"),
        )),
        Generation::V2_3 => own_location(settings, name, |location| {
            format!("{}:LISTINDEX=", location.trim_end_matches(':'))
        }),
    }
}

/// The list index of that namespace where its mails are, on NFS.
fn in_index(settings: &Settings, namespace: &Namespace<'_>) -> Option<Remedy> {
    let name = namespace.name;
    match settings.generation {
        Generation::V2_4 => Some(write(
            settings,
            format!("namespace {name} {{\n  mailbox_list_index_prefix = dovecot.list.index\n}}"),
        )),
        Generation::V2_3 => own_location(settings, name, |location| {
            let list_index = list_index_of(location).unwrap_or_default();
            location.replace(&format!(":LISTINDEX={list_index}"), "")
        }),
    }
}

fn own_location(
    settings: &Settings,
    name: &str,
    change: impl FnOnce(&str) -> String,
) -> Option<Remedy> {
    let key = format!("namespace/{name}/location");
    let location = match settings.get(&key) {
        "" => settings.get("mail_location"),
        own => own,
    };
    let line = format!("location = {}", change(location));
    match (
        settings.place(&key),
        settings.place(&format!("namespace/{name}")),
    ) {
        (Some(place), _) => Some(Remedy::Replace(place, line)),
        (None, Some(block)) => Some(Remedy::After(block, line)),
        (None, None) => None,
    }
}
