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
        check_file(&file, readers, findings);
    }
    userdb_agrees(settings, findings);
}

fn check_file<'a>(path: &Path, readers: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let configuration = match Configuration::read(path) {
        Ok(configuration) => configuration,
        Err(error) => {
            let remedy = matches!(error, ConfigurationError::Untrusted(_)).then(|| {
                let file = quoted(&path.to_string_lossy());
                Remedy::Run(format!("chown root {file} && chmod go-w {file}"))
            });
            let reason = format!("the wrapper uses its defaults: {error}");
            return findings.add(Severity::Error, "configuration", reason, remedy);
        }
    };
    if configuration.is_some() {
        readable(path, readers, findings);
    }
    let configuration = configuration.unwrap_or_default();
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

/// What the userdb returns is all that the wrapper sees; but Dovecot prefers a namespace's own.
fn userdb_agrees(settings: &Settings, findings: &mut Findings) {
    let remedy = settings.write(location::userdb_lines(&location::wanted(settings)));
    match (settings.userdb_location(), settings.location()) {
        (UserdbLocation::Given(given), (used, LocationSource::Namespace(name)))
            if given != used =>
        {
            findings.add(
                Severity::Error,
                "other_location",
                format_args!("the userdb returns '{given}', but namespace {name} has a location of its own, '{used}'"),
                settings.write(format!("namespace {name} {{\n  location = {given}\n}}")),
            );
        }
        (UserdbLocation::Given(_), _) => {}
        (UserdbLocation::Missing, _) => findings.add(
            Severity::Error,
            "no_location",
            "the wrapper does not know where list indexes are: the userdb does not return mail_location",
            remedy,
        ),
        (UserdbLocation::Unknown, _) => findings.add(
            Severity::Hint,
            "unknown_location",
            "the wrapper needs mail_location from the userdb for every user: does the database return it?",
            remedy,
        ),
    }
}
