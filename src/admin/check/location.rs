//! List indexes are local, and nothing else than a cache.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::dovecot::{LocationSource, Settings};
use super::{Findings, Remedy, Severity};
use crate::admin::locate::{LocateAnswer, LocateError, LocateRequest, locate};
use crate::dovecot::location::{Layout, Shared, Tracked, Tracking, Unvouchable};
use crate::local::directory::open_without_links;
use crate::system::file_system::FileSystem;

/// Where list indexes should be.
const LOCAL: &str = "LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index";

/// Where the list indexes of all users are.
pub struct ListIndexes<'a> {
    /// The location, with its %variables.
    template: &'a str,
    /// The directory above all that depends on the user.
    pub base: PathBuf,
    /// What puts them where they should be.
    pub remedy: Option<Remedy>,
}

impl ListIndexes<'_> {
    /// The LISTINDEX directories of some users.
    pub fn of_some_users(&self) -> impl Iterator<Item = PathBuf> {
        some_users().map_while(|user| match locate_for(self.template, &user) {
            Ok(answer) => Some(path(&tracked(&answer)?.list_index_dir)),
            Err(_) => None,
        })
    }
}

/// Users of whom no two have the same name, domain or, mostly, first letter.
fn some_users() -> impl Iterator<Item = String> {
    let letters = ('a'..='z').cycle();
    (0_u32..)
        .zip(letters)
        .map(|(number, letter)| format!("{letter}{number}@{number}.example.org"))
}

/// Looks at the location of the namespace with the inbox, and at the other namespaces. `None` if no
/// list index is local.
pub fn check<'a>(settings: &'a Settings, findings: &mut Findings) -> Option<ListIndexes<'a>> {
    let (template, source) = settings.location();
    let answer = match locate_for(template, "user") {
        Ok(answer) => answer,
        Err(error) => {
            findings.add(Severity::Error, "location", error, None);
            return None;
        }
    };
    if settings.get("mailbox_list_index") == "no" {
        findings.add(
            Severity::Warning,
            "list_index_off",
            "mailbox_list_index is off: there are no list indexes",
            settings.write("mailbox_list_index = yes"),
        );
    }
    let write = |location: String| write_location(settings, source, &location);
    let tracking = answer.tracking();
    let (severity, id) = match tracking {
        Tracking::Tracked(_) => {
            index_is_shared(settings, template, findings);
            other_namespaces(settings, findings);
            let base = base_of(template, |tracked| &tracked.list_index_dir)?;
            if base == path(&tracked(&answer)?.list_index_dir) {
                findings.add(
                    Severity::Error,
                    "one_directory",
                    format_args!(
                        "LISTINDEX is the directory {} for all users: they need one each",
                        base.display()
                    ),
                    write(local(template)),
                );
                return None;
            }
            return Some(ListIndexes {
                template,
                base,
                remedy: write(local(template)),
            });
        }
        Tracking::LayoutIndex => (Severity::Error, "layout_index"),
        Tracking::Shared(_) if answer.layout() == Layout::Index => (Severity::Hint, "layout_index"),
        Tracking::Shared(Shared::NotSet) => (Severity::Warning, "no_list_index"),
        Tracking::Shared(Shared::Relative | Shared::SameDirectory) => {
            (Severity::Warning, "shared_list_index")
        }
        Tracking::Shared(Shared::Memory | Shared::Disabled) => {
            (Severity::Warning, "list_index_off")
        }
        Tracking::Unvouchable(Unvouchable::IndexInMemory) => (Severity::Error, "index_in_memory"),
        Tracking::Unvouchable(_) => (Severity::Error, "location"),
    };
    let remedy = mended(template, &answer).and_then(write);
    findings.add(severity, id, tracking, remedy);
    None
}

/// The location as it should be: Dovecot's, or what this check says to write instead.
pub fn wanted(settings: &Settings) -> String {
    let (template, _) = settings.location();
    let mended = locate_for(template, "user").map(|answer| mended(template, &answer));
    mended.ok().flatten().unwrap_or_else(|| template.to_owned())
}

/// What makes the list index local, or, if it is no cache, leaves it in INDEX; `None` if nothing is
/// wrong, or more than a word.
fn mended(template: &str, answer: &LocateAnswer) -> Option<String> {
    match answer.tracking() {
        Tracking::LayoutIndex => Some(without(template, "LISTINDEX=")),
        Tracking::Shared(_) if answer.layout() == Layout::Index => None,
        Tracking::Shared(Shared::Memory) | Tracking::Unvouchable(Unvouchable::IndexInMemory) => {
            Some(local(&without(template, "INDEX=MEMORY")))
        }
        Tracking::Shared(_) => Some(local(template)),
        Tracking::Tracked(_) | Tracking::Unvouchable(_) => None,
    }
}

fn local(template: &str) -> String {
    format!("{}:{LOCAL}", without(template, "LISTINDEX="))
}

/// The claim must be where every backend sees it.
fn index_is_shared(settings: &Settings, template: &str, findings: &mut Findings) {
    let Some(mut base) = base_of(template, |tracked| &tracked.index_dir) else {
        return;
    };
    if base.starts_with(HOMES) {
        let home = settings.userdb_field("home");
        let home = home.unwrap_or_else(|| settings.get("mail_home"));
        let constant = home.split('%').next().unwrap_or_default();
        match constant.rsplit_once('/') {
            Some((directory, _)) if !directory.is_empty() => base = PathBuf::from(directory),
            // The userdb knows.
            _ => return,
        }
    }
    let file_system = open_without_links(&base).ok().map(FileSystem::of);
    if matches!(file_system, Some(Ok(FileSystem::Memory | FileSystem::Disk))) {
        findings.add(
            Severity::Hint,
            "index_not_shared",
            format_args!(
                "INDEX below {} is not on a network file system: do all backends share it?",
                base.display()
            ),
            None,
        );
    }
}

/// A session that must not use its list index gets MAILBOX_LIST_INDEX=no, which is for all
/// namespaces, and Dovecot refuses those with LAYOUT=index then (index_list_init() in
/// mailbox-list-index-backend.c).
fn other_namespaces(settings: &Settings, findings: &mut Findings) {
    for (name, location) in settings.other_namespaces() {
        let is_layout_index =
            locate_for(location, "user").is_ok_and(|answer| answer.layout() == Layout::Index);
        let key = format!("namespace/{name}/ignore_on_failure");
        if is_layout_index && settings.get(&key) == "no" {
            findings.add(
                Severity::Error,
                "other_layout_index",
                format_args!("namespace {name} has LAYOUT=index: logins fail when the list index must be left alone, unless that namespace may be missing then"),
                settings.write(format!("namespace {name} {{\n  ignore_on_failure = yes\n}}")),
            );
        }
    }
}

/// Home directories of the users who are asked about.
const HOMES: &str = "/homes";

fn locate_for(template: &str, user: &str) -> Result<LocateAnswer, LocateError> {
    locate(&LocateRequest {
        user: user.as_bytes().to_vec(),
        home: Some(format!("{HOMES}/{user}").into_bytes()),
        mail_home: None,
        mail_location: template.as_bytes().to_vec(),
        uid: 1000,
        gid: 1000,
    })
}

fn tracked(answer: &LocateAnswer) -> Option<&Tracked> {
    match answer.tracking() {
        Tracking::Tracked(tracked) => Some(tracked),
        _ => None,
    }
}

/// Only a line of Dovecot's own configuration can be written down.
fn write_location(
    settings: &Settings,
    source: LocationSource<'_>,
    location: &str,
) -> Option<Remedy> {
    match source {
        LocationSource::MailLocation => Some(settings.write(format!("mail_location = {location}"))),
        LocationSource::Namespace(name) => {
            Some(settings.write(format!("namespace {name} {{\n  location = {location}\n}}")))
        }
        LocationSource::Userdb => None,
    }
}

fn without(template: &str, beginning: &str) -> String {
    let parts = template
        .split(':')
        .filter(|part| !part.starts_with(beginning));
    parts.collect::<Vec<_>>().join(":")
}

/// The deepest directory that all users have in common.
fn base_of(template: &str, directory: fn(&Tracked) -> &Vec<u8>) -> Option<PathBuf> {
    /// So few would hardly all be in one hash directory.
    const USERS: usize = 16;
    let mut base: Option<PathBuf> = None;
    for user in some_users().take(USERS) {
        let answer = locate_for(template, &user).ok()?;
        let path = path(directory(tracked(&answer)?));
        base = Some(match base {
            Some(base) => base
                .ancestors()
                .find(|ancestor| path.starts_with(ancestor))?
                .to_owned(),
            None => path,
        });
    }
    base
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
