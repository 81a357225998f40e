//! The wrapper's own configuration file is one that it uses, and fits Dovecot.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::{Findings, Kind, Remedy, quoted};
use super::people::Account;
use super::post_login::PostLogin;
use super::wording::{inbox, usable_name};
use crate::config::{Configuration, ConfigurationError};
use crate::dovecot::environment::Namespace;
use crate::dovecot::files::Place;
use crate::dovecot::settings::{Generation, Settings};
use crate::names::DEFAULT_CONFIGURATION;
use crate::nfs::directory::Migration;
use crate::nfs::host::HostName;

/// What the wrapper goes by.
#[derive(Debug, Default)]
pub struct Wrapper {
    /// Whose fields it reads.
    pub inbox: Namespace,
    /// Whether it takes over list indexes that are in INDEX.
    pub migrates: bool,
}

/// Looks at each configuration file that a post-login service reads, or the mail process of a user with the plugin.
pub fn check(
    settings: &Settings,
    post_logins: &[PostLogin],
    plugin: Option<&Account>,
    findings: &mut Findings,
) -> Wrapper {
    let mut files: Vec<PathBuf> = post_logins
        .iter()
        .map(|service| service.configuration.clone())
        .collect();
    if files.is_empty() || plugin.is_some() {
        files.push(PathBuf::from(DEFAULT_CONFIGURATION));
    }
    files.sort();
    files.dedup();
    let mut wrapper = Wrapper::default();
    for file in files {
        let readers = post_logins
            .iter()
            .filter(|service| service.configuration == file)
            .filter_map(|service| service.user.as_ref())
            .chain(plugin.filter(|_| file == Path::new(DEFAULT_CONFIGURATION)));
        if let Some(configuration) = check_file(&file, readers, findings) {
            let namespace = namespace(settings, &file, &configuration, findings);
            wrapper.inbox = namespace.unwrap_or(configuration.inbox_namespace);
            wrapper.migrates |= configuration.migration == Migration::On;
        }
    }
    wrapper
}

fn check_file<'a>(
    path: &Path,
    mut readers: impl Iterator<Item = &'a Account>,
    findings: &mut Findings,
) -> Option<Configuration> {
    let file = quoted(&path.to_string_lossy());
    let configuration = match Configuration::read(path) {
        Ok(configuration) => configuration,
        Err(error) => {
            let remedy = match &error {
                ConfigurationError::Untrusted(_) => Some(Remedy::Run(format!(
                    "chown root {file} && chmod go-w {file}"
                ))),
                ConfigurationError::NotAFile(_) => {
                    Some(Remedy::Run(format!("mv {file} {file}.old")))
                }
                ConfigurationError::Empty(_) => Some(Remedy::Run(format!("rm {file}"))),
                _ => None,
            };
            let place = match &error {
                ConfigurationError::Syntax { path, line, .. } => Some(Place {
                    file: path.clone(),
                    line: *line,
                }),
                _ => None,
            };
            let reason = error.to_string();
            findings.add_at(Kind::Configuration { reason }, place, remedy);
            return None;
        }
    };
    if configuration.is_some() {
        let unable = readers.find_map(|user| Some((user, opened_to(user, path)?)));
        if let Some((user, command)) = unable {
            let kind = Kind::Unreadable {
                file: path.display().to_string(),
                user: user.name.clone(),
            };
            findings.add(kind, Remedy::Run(command));
        }
    }
    let configuration = configuration.unwrap_or_default();
    if configuration.migration == Migration::On {
        findings.add_at(
            Kind::Migration,
            place_of(path, "migration"),
            set(path, "migration", "false"),
        );
    }
    let host = configuration.hostname.clone();
    let host = host.unwrap_or_else(HostName::of_system);
    if host.as_str() == "localhost" || host.as_str().starts_with("localhost.") {
        findings.add_at(
            Kind::HostName,
            place_of(path, "hostname"),
            set(path, "hostname", "\"backend1.example.org\""),
        );
    }
    Some(configuration)
}

/// What lets somebody read a file who may not.
fn opened_to(user: &Account, path: &Path) -> Option<String> {
    let lacks = |path: &Path, bits: u32| {
        let status = path.metadata();
        status.is_ok_and(|status| !user.may(&status, bits, &[]))
    };
    let closed = path.ancestors().skip(1).find(|above| lacks(above, 0o111));
    match closed {
        Some(above) => Some(format!("chmod a+x {}", quoted(&above.to_string_lossy()))),
        None => {
            lacks(path, 0o444).then(|| format!("chmod a+r {}", quoted(&path.to_string_lossy())))
        }
    }
}

/// The wrapper must know the name of the namespace whose list index it may switch off. Returns the right one.
fn namespace(
    settings: &Settings,
    path: &Path,
    configuration: &Configuration,
    findings: &mut Findings,
) -> Option<Namespace> {
    let name = inbox(settings)?;
    let is_unnamed = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_odd = name.contains([' ', '\\']) || name.bytes().any(|byte| byte.is_ascii_uppercase());
    if settings.generation == Generation::V2_4 && is_odd {
        let kind = Kind::UnusableInboxName {
            name: name.to_owned(),
        };
        let place = settings.place(&format!("namespace/{name}"));
        let line = format!("namespace {} {{", usable_name(name));
        let remedy = place.clone().map(|place| Remedy::Replace(place, line));
        findings.add_at(kind, place, remedy);
        return None;
    }
    let namespace = Namespace::try_from(name.to_owned()).ok()?;
    if is_unnamed || namespace == configuration.inbox_namespace {
        return None;
    }
    let kind = Kind::InboxNamespace {
        name: name.to_owned(),
    };
    let remedy = set(path, "inbox_namespace", &format!("\"{name}\""));
    findings.add_at(kind, place_of(path, "inbox_namespace"), remedy);
    Some(namespace)
}

/// Sets a key of the file, where it is or before all tables.
fn set(path: &Path, key: &str, value: &str) -> Remedy {
    let line = format!("{key} = {value}");
    match place_of(path, key) {
        Some(place) => Remedy::Replace(place, line),
        None => Remedy::Prepend(path.to_owned(), line),
    }
}

fn place_of(path: &Path, key: &str) -> Option<Place> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let is_key = |line: &str| {
        let rest = line.trim_start().strip_prefix(key)?;
        rest.trim_start().starts_with('=').then_some(())
    };
    let line = text.lines().position(|line| is_key(line).is_some())?;
    Some(Place {
        file: path.to_owned(),
        line: line + 1,
    })
}
