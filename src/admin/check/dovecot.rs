//! Dovecot's configuration, as `doveconf -S` prints it: one `path/to/setting=value` in a line.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Remedy;

/// The file that doveconf reads unless told otherwise.
const DEFAULT_FILE: &str = "/etc/dovecot/dovecot.conf";

/// All settings, the defaults too.
#[derive(Debug)]
pub struct Settings {
    /// The file given instead of doveconf's own.
    file: Option<PathBuf>,
    values: BTreeMap<String, String>,
}

/// Why the settings are not known.
#[derive(Debug)]
pub enum SettingsError {
    /// doveconf cannot be executed.
    NoDoveconf(io::Error),
    /// doveconf refuses the configuration; its first line says why.
    Refused(String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::NoDoveconf(error) => write!(f, "cannot execute doveconf: {error}"),
            SettingsError::Refused(reason) => f.write_str(reason),
        }
    }
}

/// Where a location is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocationSource<'a> {
    /// In the namespace of this name.
    Namespace(&'a str),
    /// In a userdb's args or fields.
    Userdb,
    /// mail_location.
    MailLocation,
}

/// What a userdb's own settings say about locations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserdbLocation<'a> {
    /// Every user gets this one.
    Given(&'a str),
    /// Nobody gets any.
    Missing,
    /// It depends on what a database returns.
    Unknown,
}

/// With whose rights mail is accessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailUsers {
    /// All users share one uid, which has this name or number in the configuration.
    One(String, u32),
    /// Each has his own.
    Many,
    /// It depends on what a database returns.
    Unknown,
}

impl Settings {
    /// Asks doveconf, which is looked for in PATH.
    ///
    /// # Errors
    /// If it is not there, or refuses `file`.
    pub fn ask(file: Option<&Path>) -> Result<Settings, SettingsError> {
        let mut doveconf = Command::new("doveconf");
        if let Some(file) = file {
            doveconf.arg("-c").arg(file);
        }
        let output = doveconf
            .arg("-S")
            .stdin(Stdio::null())
            .output()
            .map_err(SettingsError::NoDoveconf)?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            let reason = reason.lines().next().unwrap_or("doveconf failed");
            return Err(SettingsError::Refused(reason.to_owned()));
        }
        let values = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Ok(Settings {
            file: file.map(Path::to_owned),
            values,
        })
    }

    /// Lines for Dovecot's configuration file.
    pub fn write(&self, lines: impl Into<String>) -> Remedy {
        let file = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        Remedy::Write(file.to_owned(), lines.into())
    }

    /// The option that names the file, if it is not doveconf's own.
    pub fn option(&self) -> String {
        self.file.as_ref().map_or_else(String::new, |file| {
            format!(
                " --dovecot-config {}",
                super::quoted(&file.to_string_lossy())
            )
        })
    }

    /// The value of a setting; empty if there is none.
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// The number of processes that a service may have.
    pub fn process_limit(&self, service: &str) -> u64 {
        let number = |key: &str| self.get(key).parse().unwrap_or(0);
        match number(&format!("service/{service}/process_limit")) {
            0 => number("default_process_limit"),
            limit => limit,
        }
    }

    /// The service that listens on the socket called `name`.
    pub fn service_of_socket(&self, name: &str) -> Option<&str> {
        let absolute = format!("{}/{name}", self.get("base_dir"));
        self.below("service")
            .find(|(_, rest, value)| {
                rest.starts_with("unix_listener/")
                    && rest.ends_with("/path")
                    && (*value == name || *value == absolute)
            })
            .map(|(service, ..)| service)
    }

    /// A program that a service executes: names without a slash are in libexec_dir.
    pub fn program(&self, name: &str) -> PathBuf {
        Path::new(self.get("libexec_dir")).join(name)
    }

    /// Where the mails of the namespace with the inbox are, and where that is set: in this order, as
    /// Dovecot has it.
    pub fn location(&self) -> (&str, LocationSource<'_>) {
        if let Some(inbox) = self.inbox() {
            let own = self.get(&format!("namespace/{inbox}/location"));
            if !own.is_empty() {
                return (own, LocationSource::Namespace(inbox));
            }
        }
        match self.userdb_location() {
            UserdbLocation::Given(location) => (location, LocationSource::Userdb),
            _ => (self.get("mail_location"), LocationSource::MailLocation),
        }
    }

    /// The namespace with the inbox.
    fn inbox(&self) -> Option<&str> {
        self.below("namespace")
            .find(|(_, setting, value)| *setting == "inbox" && *value == "yes")
            .map(|(name, ..)| name)
    }

    /// What the userdbs' own settings say about every user's location.
    pub fn userdb_location(&self) -> UserdbLocation<'_> {
        let given = ["namespace/inbox/location", "mail_location", "mail"]
            .into_iter()
            .find_map(|field| self.userdb_field(field));
        match given {
            Some(location) => UserdbLocation::Given(location),
            None if self
                .drivers()
                .all(|driver| matches!(driver, "static" | "passwd")) =>
            {
                UserdbLocation::Missing
            }
            None => UserdbLocation::Unknown,
        }
    }

    /// A field that a userdb's own settings give to every user.
    pub fn userdb_field(&self, field: &str) -> Option<&str> {
        self.below("userdb")
            .filter(|(_, setting, _)| {
                matches!(*setting, "args" | "default_fields" | "override_fields")
            })
            .flat_map(|(.., value)| value.split(' '))
            .find_map(|word| word.strip_prefix(field)?.strip_prefix('='))
    }

    /// Whose rights mail is accessed with. A post-login service that does not run as root can serve
    /// its own user alone.
    pub fn mail_users<'a>(&'a self, mut services: impl Iterator<Item = &'a str>) -> MailUsers {
        let mut drivers = self.drivers();
        let configured = services
            .find(|service| !matches!(*service, "" | "root"))
            .or_else(|| self.userdb_field("uid"))
            .unwrap_or_else(|| self.get("mail_uid"));
        let uid = configured.parse().ok();
        match uid.or_else(|| crate::system::accounts::user_id(configured)) {
            Some(uid) => MailUsers::One(configured.to_owned(), uid),
            None if drivers.any(|driver| driver == "passwd") => MailUsers::Many,
            None => MailUsers::Unknown,
        }
    }

    fn drivers(&self) -> impl Iterator<Item = &str> {
        self.below("userdb")
            .filter(|(_, setting, _)| *setting == "driver")
            .map(|(.., driver)| driver)
    }

    /// `(name, rest, value)` of each `<kind>/<name>/<rest>=<value>`.
    fn below(&self, kind: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        self.values.iter().filter_map(move |(key, value)| {
            let (name, rest) = key.strip_prefix(kind)?.strip_prefix('/')?.split_once('/')?;
            Some((name, rest, value.as_str()))
        })
    }
}
