//! List indexes are local, and nothing else than a cache.

use std::ffi::{CStr, CString};
use std::path::{Component, Path, PathBuf};

use super::dovecot::{LocationSource, Settings};
use super::{Findings, Remedy, Severity};
use crate::dovecot::environment::{Environment, Namespace, of_userdb_fields};
use crate::dovecot::location::{Layout, Location, Shared, Tracking, Unvouchable};
use crate::local::directory::open_without_links;
use crate::system::file_system::FileSystem;

/// Where list indexes should be.
const LOCAL: &str = "LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index";

/// Where the list indexes of all users are.
pub struct ListIndexes {
    /// The directory of one user, with %variables for names.
    pub directory: PathBuf,
    /// The directory above all that depends on the user.
    pub base: PathBuf,
    /// What puts them where they should be.
    pub remedy: Option<Remedy>,
}

/// Looks at the location of the namespace with the inbox, and at the other namespaces. `None` if no
/// list index is local.
pub fn check(settings: &Settings, findings: &mut Findings) -> Option<ListIndexes> {
    let (template, source) = settings.location();
    let (location, tracking) = match read(template) {
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
    let (severity, id) = match &tracking {
        Tracking::Tracked(tracked) => {
            index_is_shared(settings, tracked.index_dir(), findings);
            let directory = tracked.list_index_dir().to_owned();
            let base = base_of(&directory);
            if base == directory {
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
                directory,
                base,
                remedy: Some(write(local(template))),
            });
        }
        Tracking::LayoutIndex => (Severity::Error, "layout_index"),
        Tracking::Shared(_) if location.layout == Layout::Index => (Severity::Hint, "layout_index"),
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
    let remedy = mended(template, &location, &tracking).map(write);
    findings.add(severity, id, &tracking, remedy);
    None
}

/// The location as it should be: Dovecot's, or what this check says to write instead.
pub fn wanted(settings: &Settings) -> String {
    let (template, _) = settings.location();
    let mended = read(template).map(|(location, tracking)| mended(template, &location, &tracking));
    mended.ok().flatten().unwrap_or_else(|| template.to_owned())
}

/// What makes the list index local, or, if it is no cache, leaves it in INDEX; `None` if nothing is
/// wrong, or more than a word.
fn mended(template: &str, location: &Location, tracking: &Tracking) -> Option<String> {
    match tracking {
        Tracking::LayoutIndex => Some(without(template, "LISTINDEX=")),
        Tracking::Shared(_) if location.layout == Layout::Index => None,
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
fn index_is_shared(settings: &Settings, index_dir: &Path, findings: &mut Findings) {
    let mut base = base_of(index_dir);
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

/// Home directories of the users who are asked about.
const HOMES: &str = "/homes";

/// What a login would make of a location, if its %variables were names.
fn read(template: &str) -> Result<(Location, Tracking), String> {
    let home = (b"home".to_vec(), format!("{HOMES}/%u").into_bytes());
    let location = (b"mail_location".to_vec(), template.as_bytes().to_vec());
    let entries = of_userdb_fields(b"user", [home, location]).map_err(|error| error.to_string())?;
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    let environment = Environment::new(&entries);
    let location =
        Location::read(&environment, &Namespace::default()).map_err(|error| error.to_string())?;
    let tracking = location.tracking(&environment);
    Ok((location, tracking))
}

fn write_location(settings: &Settings, source: LocationSource<'_>, location: &str) -> Remedy {
    settings.write(match source {
        LocationSource::MailLocation => format!("mail_location = {location}"),
        LocationSource::Namespace(name) => {
            format!("namespace {name} {{\n  location = {location}\n}}")
        }
        LocationSource::Userdb => userdb_lines(location),
    })
}

/// What lets every userdb return the location to a login, within the block that is there already.
pub fn userdb_lines(location: &str) -> String {
    format!("userdb {{\n  default_fields = mail_location={location}\n}}")
}

fn without(template: &str, beginning: &str) -> String {
    let parts = template
        .split(':')
        .filter(|part| !part.starts_with(beginning));
    parts.collect::<Vec<_>>().join(":")
}

/// The deepest directory that all users have in common.
fn base_of(directory: &Path) -> PathBuf {
    let is_constant = |name: &Component<'_>| !name.as_os_str().as_encoded_bytes().contains(&b'%');
    directory.components().take_while(is_constant).collect()
}
