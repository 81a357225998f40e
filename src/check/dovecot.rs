//! Dovecot's configuration, as `doveconf -S` prints it: one `path/to/setting=value` in a line.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All settings, the defaults too.
#[derive(Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

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
        Ok(Settings::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    fn parse(text: &str) -> Settings {
        let settings = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Settings(settings.collect())
    }

    /// The value of a setting; empty if there is none.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The number of processes that a service may have.
    pub fn process_limit(&self, service: &str) -> u64 {
        let number = |key: &str| self.get(key).parse().unwrap_or(0);
        match number(&format!("service/{service}/process_limit")) {
            0 => number("default_process_limit"),
            limit => limit,
        }
    }

    /// Where the mails of the namespace with the inbox are: its own location or mail_location.
    pub fn mail_location(&self) -> &str {
        let own = self
            .below("namespace")
            .find(|(_, rest, value)| *rest == "inbox" && *value == "yes")
            .map_or("", |(name, ..)| {
                self.get(&format!("namespace/{name}/location"))
            });
        if own.is_empty() {
            self.get("mail_location")
        } else {
            own
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

    /// Whether a userdb's own settings give every user a location; `None` if that depends on what
    /// a database returns.
    pub fn userdb_has_location(&self) -> Option<bool> {
        const FIELDS: [&str; 3] = ["mail_location=", "mail=", "namespace/inbox/location="];
        let mut databases = false;
        for (_, setting, value) in self.below("userdb") {
            match setting {
                "args" | "default_fields" | "override_fields"
                    if value
                        .split(' ')
                        .any(|word| FIELDS.iter().any(|field| word.starts_with(field))) =>
                {
                    return Some(true);
                }
                "driver" if !matches!(value, "static" | "passwd") => databases = true,
                _ => {}
            }
        }
        (!databases).then_some(false)
    }

    /// A program that a service executes: names without a slash are in libexec_dir.
    pub fn program(&self, name: &str) -> PathBuf {
        Path::new(self.get("libexec_dir")).join(name)
    }

    /// `(name, rest, value)` of each `<kind>/<name>/<rest>=<value>`.
    fn below(&self, kind: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().filter_map(move |(key, value)| {
            let (name, rest) = key.strip_prefix(kind)?.strip_prefix('/')?.split_once('/')?;
            Some((name, rest, value.as_str()))
        })
    }
}
