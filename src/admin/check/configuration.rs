//! The wrapper's own configuration says what Dovecot's does.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::dovecot::{LocationSource, Settings, UserdbLocation};
use super::services::PostLogin;
use super::{Findings, Remedy, Severity, location, quoted};
use crate::config::{Configuration, ConfigurationError};
use crate::names::DEFAULT_CONFIGURATION;
use crate::nfs::directory::Migration;
use crate::nfs::host::HostName;
use crate::system::accounts;

/// Looks at each configuration file that a post-login service reads.
pub fn check(settings: &Settings, post_logins: &[PostLogin<'_>], findings: &mut Findings) {
    let mut files: Vec<PathBuf> = post_logins
        .iter()
        .map(|service| service.configuration.clone())
        .collect();
    if files.is_empty() {
        files.push(PathBuf::from(DEFAULT_CONFIGURATION));
    }
    files.sort();
    files.dedup();
    for file in files {
        let readers = post_logins
            .iter()
            .filter(|service| service.configuration == file)
            .map(|service| service.user);
        check_file(settings, &file, readers, findings);
    }
    userdb_agrees(settings, findings);
}

fn check_file<'a>(
    settings: &Settings,
    path: &Path,
    readers: impl Iterator<Item = &'a str>,
    findings: &mut Findings,
) {
    let configuration = match Configuration::read(path) {
        Ok(configuration) => configuration,
        Err(error) => {
            let remedy = matches!(error, ConfigurationError::Untrusted(_)).then(|| {
                let file = quoted(&path.to_string_lossy());
                Remedy::Run(format!("chown root {file} && chmod go-w {file}"))
            });
            let reason = format_args!("the wrapper uses its defaults: {error}");
            return findings.add(Severity::Error, "configuration", reason, remedy);
        }
    };
    if configuration.is_some() {
        readable(path, readers, findings);
    }
    let configuration = configuration.unwrap_or_default();
    mail_location(
        settings,
        path,
        configuration.mail_location.as_deref(),
        findings,
    );
    if configuration.migration == Migration::On {
        findings.add(
            Severity::Hint,
            "migration",
            "migration is on: switch it off once everybody has logged in and the log shows no list index taken over any more",
            Remedy::Write(path.to_owned(), "migration = false".to_owned()),
        );
    }
    let host = configuration.hostname.unwrap_or_else(HostName::of_system);
    if host.as_str() == "localhost" || host.as_str().starts_with("localhost.") {
        findings.add(
            Severity::Warning,
            "host_name",
            "this backend is called localhost, and so may others be: the log cannot tell where a user came from",
            Remedy::Write(path.to_owned(), "hostname = \"backend1.example.org\"".to_owned()),
        );
    }
}

/// A service that does not run as root must be able to read the file.
fn readable<'a>(path: &Path, readers: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let Ok(status) = path.metadata() else {
        return;
    };
    for reader in readers.filter(|reader| !matches!(*reader, "" | "root")) {
        if !may_read(reader, &status) {
            findings.add(
                Severity::Error,
                "configuration",
                format_args!(
                    "the wrapper uses its defaults: {reader}, who executes it, may not read {}",
                    path.display()
                ),
                Remedy::Run(format!("chmod a+r {}", quoted(&path.to_string_lossy()))),
            );
            return;
        }
    }
}

fn may_read(user: &str, status: &Metadata) -> bool {
    let uid = user.parse().ok().or_else(|| accounts::user_id(user));
    status.mode() & 0o004 != 0
        || uid == Some(status.uid())
        // His primary group may be this one, too: no false alarm then.
        || (status.mode() & 0o040 != 0 && status.gid() != 0)
}

fn mail_location(settings: &Settings, path: &Path, own: Option<&str>, findings: &mut Findings) {
    let (dovecots, _) = settings.location();
    let value = location::wanted(settings)
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let remedy = Remedy::Write(path.to_owned(), format!("mail_location = \"{value}\""));
    match (own, settings.userdb_location()) {
        (Some(own), _) if own != dovecots => findings.add(
            Severity::Error,
            "other_location",
            format_args!(
                "mail_location in {} is '{own}', Dovecot's is '{dovecots}'",
                path.display()
            ),
            remedy,
        ),
        (Some(_), _) | (None, UserdbLocation::Given(_)) => {}
        (None, UserdbLocation::Missing) => findings.add(
            Severity::Error,
            "no_location",
            format_args!(
                "the wrapper does not know where list indexes are: mail_location is neither in the userdb's answer nor in {}",
                path.display()
            ),
            remedy,
        ),
        (None, UserdbLocation::Unknown) => findings.add(
            Severity::Hint,
            "unknown_location",
            format_args!(
                "unless the userdb returns mail_location for every user, {} needs it",
                path.display()
            ),
            remedy,
        ),
    }
}

/// What the userdb returns is what the wrapper believes; but Dovecot prefers a namespace's own.
fn userdb_agrees(settings: &Settings, findings: &mut Findings) {
    if let (UserdbLocation::Given(given), (used, LocationSource::Namespace(name))) =
        (settings.userdb_location(), settings.location())
    {
        if given != used {
            findings.add(
                Severity::Error,
                "other_location",
                format_args!("the userdb returns '{given}', but namespace {name} has a location of its own, '{used}'"),
                settings.write(format!("namespace {name} {{\n  location = {given}\n}}")),
            );
        }
    }
}
