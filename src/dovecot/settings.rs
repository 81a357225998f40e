//! Dovecot's configuration, as doveconf reads it: one map from `path/to/setting` to its value, the same for
//! both versions. Dovecot 2.3 prints it so (`-S`); of 2.4 the blocks of `-n` are read, and the defaults that
//! matter are asked for by name.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::files::{Files, Place};

/// The file that doveconf reads unless told otherwise.
const DEFAULT_FILE: &str = "/etc/dovecot/dovecot.conf";

/// The settings whose defaults matter.
const GLOBAL: [&str; 27] = [
    "base_dir",
    "default_internal_group",
    "default_internal_user",
    "default_login_user",
    "default_process_limit",
    "default_vsz_limit",
    "first_valid_gid",
    "first_valid_uid",
    "imap_hibernate_timeout",
    "last_valid_gid",
    "last_valid_uid",
    "libexec_dir",
    "mail_access_groups",
    "mail_chroot",
    "mail_driver",
    "mail_gid",
    "mail_home",
    "mail_index_path",
    "mail_path",
    "mail_plugin_dir",
    "mail_uid",
    "mailbox_list_index",
    "mailbox_list_index_prefix",
    "mailbox_list_index_very_dirty_syncs",
    "mailbox_list_layout",
    "protocols",
    "valid_chroot_dirs",
];
const OF_SERVICE: [&str; 6] = [
    "chroot",
    "executable",
    "process_limit",
    "restart_request_count",
    "user",
    "vsz_limit",
];
const SERVICES: [&str; 4] = ["imap", "pop3", "submission", "managesieve"];

/// Which Dovecot it is: they name the same things differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `mail_location`
    V2_3,
    /// `mail_driver`, `mail_path` and others
    V2_4,
}

/// All settings, the defaults too.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file given instead of doveconf's own.
    file: Option<PathBuf>,
    /// Whose settings these are.
    pub generation: Generation,
    values: BTreeMap<String, String>,
    files: Files,
}

/// Why the settings are not known.
#[derive(Debug)]
pub enum SettingsError {
    /// doveconf cannot be executed.
    NoDoveconf(io::Error),
    /// doveconf refuses the configuration; its first line says why.
    Refused(String),
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDoveconf(error) => write!(f, "cannot execute doveconf: {error}"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl Settings {
    /// Asks doveconf, which is looked for in PATH.
    ///
    /// # Errors
    /// If it is not there, or refuses `file`.
    pub fn ask(file: Option<&Path>) -> Result<Self, SettingsError> {
        let changed = doveconf(file, &["-n"])?;
        // "# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf"
        let first = changed.lines().next().unwrap_or_default();
        let read = first.split_once("): ").map(|(_, path)| path.trim());
        let generation = if first.starts_with("# 2.3") {
            Generation::V2_3
        } else {
            Generation::V2_4
        };
        let path = file.unwrap_or(Path::new(read.unwrap_or(DEFAULT_FILE)));
        let mut settings = Self {
            file: file.map(Path::to_owned),
            generation,
            values: BTreeMap::new(),
            files: Files::read(path),
        };
        settings.fill(&changed, &[])?;
        Ok(settings)
    }

    /// What blocks for this protocol make of the settings.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn in_protocol(&self, protocol: &str) -> Result<Self, SettingsError> {
        let filter = format!("protocol={protocol}");
        let file = self.file.as_deref();
        let mut settings = Self {
            values: BTreeMap::new(),
            ..self.clone()
        };
        settings.fill(&doveconf(file, &["-f", &filter, "-n"])?, &["-f", &filter])?;
        Ok(settings)
    }

    /// Why Dovecot would not start with this configuration: its master process asks for more than doveconf shows.
    pub fn refusal(&self) -> Option<String> {
        let all: &[&str] = match self.generation {
            Generation::V2_3 => &["-e", "/bin/true"],
            Generation::V2_4 => &["-F"],
        };
        match doveconf(self.file.as_deref(), all) {
            Err(SettingsError::Refused(reason)) if is_of_configuration(&reason) => Some(reason),
            _ => None,
        }
    }

    fn fill(&mut self, changed: &str, filter: &[&str]) -> Result<(), SettingsError> {
        let file = self.file.as_deref();
        let changed = blocks(changed);
        match self.generation {
            Generation::V2_3 => {
                // Only these are missing in -S.
                let filters = ["protocol/", "local/", "remote/", "local_name/"];
                let is_filter = |key: &str| filters.iter().any(|kind| key.starts_with(kind));
                let kept = changed.into_iter().filter(|(key, _)| is_filter(key));
                self.values = kept.collect();
                let all = doveconf(file, &[filter, &["-S"]].concat())?;
                let lines = all.lines().filter_map(|line| line.split_once('='));
                self.values
                    .extend(lines.map(|(key, value)| (key.to_owned(), value.to_owned())));
            }
            Generation::V2_4 => {
                let services: Vec<String> = names_below(&changed, "service")
                    .chain(SERVICES)
                    .flat_map(|service| {
                        OF_SERVICE.map(|setting| format!("service/{service}/{setting}"))
                    })
                    .collect();
                let mut arguments = filter.to_vec();
                arguments.extend(GLOBAL);
                arguments.extend(services.iter().map(String::as_str));
                self.values = blocks(&doveconf(file, &arguments)?);
                self.values.extend(changed);
            }
        }
        Ok(())
    }

    /// The file that was given, for the options of other programs.
    pub fn given_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The main configuration file.
    pub fn main_file(&self) -> &Path {
        self.files.main()
    }

    /// What the files themselves say.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Where a setting is written down.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.files.place(key)
    }

    /// The value of a setting; empty if there is none.
    pub fn get(&self, key: &str) -> &str {
        self.values
            .get(key)
            .map_or("", |value| self.dereferenced(value))
    }

    /// `$default_internal_user`, or with Dovecot 2.4 `$SET:default_internal_user`.
    fn dereferenced<'a>(&'a self, value: &'a str) -> &'a str {
        let name = value.strip_prefix(match self.generation {
            Generation::V2_3 => "$",
            Generation::V2_4 => "$SET:",
        });
        name.and_then(|name| self.values.get(name.trim_matches(['{', '}'])))
            .map_or(value, String::as_str)
    }

    /// The number that a setting is; 0 if it is none.
    pub fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or(0)
    }

    /// Whether a setting is switched on.
    pub fn is_on(&self, key: &str) -> bool {
        is_yes(self.get(key))
    }

    /// Whether a setting is switched off, and not only left out.
    pub fn is_off(&self, key: &str) -> bool {
        is_no(self.get(key))
    }

    /// The words of a list, however it is written: `mail_plugins = a b`, or a block with `a = yes`.
    pub fn words<'a>(&'a self, key: &'a str) -> Vec<&'a str> {
        let own = self.get(key).split_whitespace();
        let block = self
            .below(key)
            .filter(|(_, value)| is_yes(value))
            .map(|(name, _)| name);
        own.chain(block).collect()
    }

    /// Whether a word is in that list anywhere, blocks included.
    pub fn mentions(&self, list: &str, word: &str) -> bool {
        self.values.iter().any(|(key, value)| {
            let is_list = key.split('/').any(|name| name == list);
            is_list && (key.ends_with(word) || value.split(' ').any(|other| other == word))
        })
    }

    /// The number of processes that a service may have.
    pub fn process_limit(&self, service: &str) -> u64 {
        match self.number(&format!("service/{service}/process_limit")) {
            0 => self.number("default_process_limit"),
            limit => limit,
        }
    }

    /// What a socket is called in base_dir, which may be written before it.
    pub fn socket_name<'a>(&self, socket: &'a str) -> &'a str {
        // /var/run is /run.
        fn in_run(path: &str) -> &str {
            path.strip_prefix("/var")
                .filter(|path| path.starts_with("/run/"))
                .unwrap_or(path)
        }
        in_run(socket)
            .strip_prefix(in_run(self.get("base_dir")))
            .and_then(|name| name.strip_prefix('/'))
            .unwrap_or(socket)
    }

    /// The services that listen on the socket called `name`.
    pub fn services_of_socket(&self, name: &str) -> Vec<&str> {
        let is_called = |socket: &str| self.socket_name(socket) == name;
        let services = self.names("service").into_iter();
        let listens = |service: &&str| {
            let listeners = format!("service/{service}/unix_listener");
            self.names(&listeners).into_iter().any(|socket| {
                let path = self.get(&format!("{listeners}/{socket}/path"));
                is_called(path) || is_called(&unescaped(socket))
            }) || self.get(&listeners).split(' ').any(is_called)
        };
        services.filter(listens).collect()
    }

    /// A program that a service executes: names without a slash are in libexec_dir.
    pub fn program(&self, name: &str) -> PathBuf {
        Path::new(self.get("libexec_dir")).join(name)
    }

    /// The names of all blocks of this kind: those of `namespace/...` for example.
    pub fn names(&self, kind: &str) -> Vec<&str> {
        let mut names: Vec<&str> = names_below(&self.values, kind).collect();
        // A block that is empty.
        if let Some(listed) = self.values.get(kind) {
            names.extend(listed.split(' ').filter(|name| !name.is_empty()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// `(rest, value)` of each `<prefix>/<rest>=<value>`.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values.iter().filter_map(move |(key, value)| {
            let rest = key.strip_prefix(prefix)?.strip_prefix('/')?;
            Some((rest, self.dereferenced(value)))
        })
    }

    /// `(key, value)` of each `<block>/<setting>=<value>`.
    pub fn ending_with<'a>(&'a self, setting: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let is_in_block = move |key: &str| {
            let block = key.strip_suffix(setting);
            block.is_some_and(|block| block.ends_with('/'))
        };
        self.values
            .iter()
            .filter(move |(key, _)| is_in_block(key))
            .map(|(key, value)| (key.as_str(), self.dereferenced(value)))
    }
}

/// As Dovecot reads a switch: it prints the word that was written.
pub fn is_yes(value: &str) -> bool {
    let words = ["yes", "y", "1", "true"];
    words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

/// The same for a switch that is off.
pub fn is_no(value: &str) -> bool {
    value.eq_ignore_ascii_case("no")
}

/// Whether doveconf failed because of what is written there, and not because of who asked, or in what environment.
fn is_of_configuration(reason: &str) -> bool {
    reason.contains("in configuration file") && !reason.contains("Permission denied")
}

fn names_below<'a, 'k>(
    values: &'a BTreeMap<String, String>,
    kind: &'k str,
) -> impl Iterator<Item = &'a str> + use<'a, 'k> {
    values.keys().filter_map(move |key| {
        let rest = key.strip_prefix(kind)?.strip_prefix('/')?;
        Some(rest.split('/').next().unwrap_or(rest))
    })
}

/// A slash in a name, as -S writes it.
fn unescaped(name: &str) -> String {
    name.replace("\\s", "/")
}

/// The settings of nested blocks. An empty block is there as a key with no value.
fn blocks(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    let mut unnamed = 0;
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(block) = line.strip_suffix('{') {
            let mut words = block.trim().splitn(2, ' ');
            let kind = words.next().unwrap_or_default();
            let name = words.next().map(|name| name.replace('/', "\\s"));
            let is_unnamed = name.is_none() && matches!(kind, "namespace" | "userdb" | "passdb");
            path.push(match name {
                Some(name) => format!("{kind}/{name}"),
                None if is_unnamed => {
                    unnamed += 1;
                    format!("{kind}/{}", unnamed - 1)
                }
                None => kind.to_owned(),
            });
            values.entry(path.join("/") + "/").or_default();
        } else if line == "}" {
            path.pop();
        } else if let Some((key, value)) = line.split_once('=') {
            path.push(key.trim().to_owned());
            values.insert(path.join("/"), unquoted(value.trim()));
            path.pop();
        }
    }
    values
}

/// A value with a `#` is printed in quotes.
fn unquoted(value: &str) -> String {
    let inside = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut text = String::new();
    let mut characters = inside.unwrap_or_default().chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            // Several words in quotes.
            '"' => return value.to_owned(),
            _ => text.push(character),
        }
    }
    inside.map_or_else(|| value.to_owned(), |_| text)
}

fn doveconf(file: Option<&Path>, arguments: &[&str]) -> Result<String, SettingsError> {
    let mut doveconf = Command::new("doveconf");
    if let Some(file) = file {
        doveconf.arg("-c").arg(file);
    }
    let output = doveconf
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(SettingsError::NoDoveconf)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    let fatal = reason.lines().find(|line| line.contains("Fatal:"));
    let reason = fatal.or(reason.lines().next());
    let reason = reason.unwrap_or("doveconf failed");
    Err(SettingsError::Refused(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{blocks, is_of_configuration, is_yes};

    #[test]
    fn a_value_in_quotes_is_what_is_inside() {
        for (printed, value) in [
            (r#""/srv/mail#1/%{user}""#, "/srv/mail#1/%{user}"),
            (r#""a \"b\" \\#""#, r#"a "b" \#"#),
            (r#""one" "two""#, r#""one" "two""#),
            (r#"imap "two""#, r#"imap "two""#),
            ("\"", "\""),
            ("", ""),
        ] {
            let values = blocks(&format!("mail_path = {printed}\n"));
            assert_eq!(values["mail_path"], value, "{printed}");
        }
    }

    #[test]
    fn every_word_for_a_switch_that_is_on_counts() {
        assert!(["yes", "Yes", "y", "1"].into_iter().all(is_yes));
        assert!(!["no", "", "0"].into_iter().any(is_yes));
    }

    #[test]
    fn only_what_is_written_there_refuses_a_configuration() {
        for (reason, is_one) in [
            (
                "doveconf: Fatal: Error in configuration file /d.conf line 3: ssl_cert: Can't open file /x: No such file or directory",
                true,
            ),
            (
                "doveconf: Fatal: Error in configuration file /d.conf line 3: ssl_key: Can't open file /x: Permission denied",
                false,
            ),
            (
                "doveconf: Fatal: execvp(/bin/true) failed: Argument list too long",
                false,
            ),
        ] {
            assert_eq!(is_of_configuration(reason), is_one, "{reason}");
        }
    }
}
