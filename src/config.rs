//! The configuration file, `/etc/dovecot/nfs-hostchange.toml`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Deserializer};

use crate::dovecot::age::parse_age;
use crate::dovecot::environment::Namespace;
use crate::event::Level;
use crate::nfs::directory::Migration;
use crate::nfs::host::HostName;
use crate::system::credentials::effective_user;

/// The largest file that is read.
const LARGEST: u64 = 64 * 1024;

/// Every setting, each with its default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// The name of the namespace that holds the inbox.
    pub inbox_namespace: Namespace,
    /// Take over list indexes that are in INDEX.
    #[serde(deserialize_with = "migration")]
    pub migration: Migration,
    /// This backend's name; the system's host name if not set.
    pub hostname: Option<HostName>,
    /// How long a login waits for another one of the same user.
    #[serde(deserialize_with = "duration")]
    pub lock_timeout: Duration,
    /// How often the plugin's open sessions look whether another backend has claimed the user; zero:
    /// never.
    #[serde(deserialize_with = "duration")]
    pub recheck: Duration,
    /// Where log lines go.
    pub log: LogSettings,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            inbox_namespace: Namespace::default(),
            migration: Migration::default(),
            hostname: None,
            lock_timeout: Duration::from_secs(5),
            recheck: Duration::from_secs(1),
            log: LogSettings::default(),
        }
    }
}

/// The `[log]` table.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// syslog or standard error.
    pub target: Target,
    /// The syslog facility.
    pub facility: Facility,
    /// The least important lines that are written.
    pub level: Level,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// /dev/log, and standard error if that cannot take a line.
    #[default]
    Syslog,
    /// Standard error: Dovecot's own log, which calls each line an error.
    Stderr,
}

/// Syslog facilities that fit a mail server, with their numbers (RFC 5424, section 6.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "syslog(3) explains them")]
pub enum Facility {
    User = 1,
    #[default]
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

fn migration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Migration, D::Error> {
    Ok(match bool::deserialize(deserializer)? {
        true => Migration::On,
        false => Migration::Off,
    })
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_age(text.as_bytes()).map_err(serde::de::Error::custom)
}

/// Migration in Dovecot's own way of writing yes and no.
#[must_use]
pub fn migration_of_dovecot(text: &[u8]) -> Option<Migration> {
    match text.to_ascii_lowercase().as_slice() {
        b"yes" | b"y" | b"true" | b"1" => Some(Migration::On),
        b"no" | b"n" | b"false" | b"0" => Some(Migration::Off),
        _ => None,
    }
}

/// Seconds, or a time as Dovecot writes it.
#[must_use]
pub fn recheck_of_dovecot(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().map(u32::into).map(Duration::from_secs);
    seconds.or_else(|| parse_age(text.as_bytes()).ok())
}

/// Why the built-in defaults are used instead of the file.
#[derive(Debug)]
pub enum ConfigurationError {
    /// The file cannot be opened or read.
    Unreadable(PathBuf, io::Error),
    /// Not a regular file, or too large.
    NotAFile(PathBuf),
    /// Empty: it is just being written, or writing it was interrupted.
    Empty(PathBuf),
    /// Belongs to, or may be written by, somebody who must not decide about logins.
    Untrusted(PathBuf),
    /// Not UTF-8, not TOML, an unknown key or a wrong value.
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

impl std::error::Error for ConfigurationError {}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{}: cannot be read: {error}", path.display())
            }
            Self::NotAFile(path) => write!(
                f,
                "{}: must be a regular file of at most {LARGEST} bytes",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "{}: is empty; remove it if the defaults are wanted",
                path.display()
            ),
            Self::Untrusted(path) => write!(
                f,
                "{}: must belong to root and be writable by nobody else (chown root, chmod go-w)",
                path.display()
            ),
            Self::Syntax {
                path,
                line,
                column,
                message,
            } => write!(f, "{}:{line}:{column}: {message}", path.display()),
        }
    }
}

impl Configuration {
    /// The settings that hold if the file cannot be used.
    pub fn of_unusable_file() -> Self {
        Self {
            migration: Migration::Unknown,
            ..Self::default()
        }
    }

    /// Reads `path`; `Ok(None)` if there is no such file.
    ///
    /// # Errors
    /// Names the file, and for a mistake in it the line and the column.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigurationError> {
        let mut file = match open(path) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => {
                return Err(ConfigurationError::Unreadable(
                    path.to_owned(),
                    errno.into(),
                ));
            }
        };
        let unreadable = |error| ConfigurationError::Unreadable(path.to_owned(), error);
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(ConfigurationError::NotAFile(path.to_owned()));
        }
        if metadata.len() == 0 {
            return Err(ConfigurationError::Empty(path.to_owned()));
        }
        let trusted_owner = metadata.uid() == 0 || metadata.uid() == effective_user().0;
        if !trusted_owner || metadata.mode() & 0o022 != 0 {
            return Err(ConfigurationError::Untrusted(path.to_owned()));
        }
        let bytes = read_once(&mut file, metadata.len()).map_err(unreadable)?;
        Self::parse(path, &bytes).map(Some)
    }

    /// Parses the text of the file `path`.
    ///
    /// # Errors
    /// [`ConfigurationError::Syntax`] for every mistake in it.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ConfigurationError> {
        parse(text).map_err(|(offset, message)| syntax_error(path, text, offset, message))
    }
}

fn open(path: &Path) -> nix::Result<File> {
    // O_NONBLOCK: a FIFO in the file's place must not hold up a login.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path, flags, Mode::empty()).map(File::from)
}

/// With one read(2): a second one, for the end of the file, would be a system call in every login.
fn read_once(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    // At most LARGEST, so it fits.
    let mut bytes = vec![0; size as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Configuration, (usize, String)> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (error.valid_up_to(), "not UTF-8".to_owned()))?;
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let key = text.get(span.clone()).unwrap_or_default();
        let message = removed(key).unwrap_or_else(|| error.message().to_owned());
        (span.start, message)
    })
}

/// What to write into dovecot.conf instead of a key that earlier versions had: Dovecot itself says
/// where a user's mail is, and whose it is.
#[cold]
fn removed(key: &str) -> Option<String> {
    let lines = match key {
        "mail_location" => {
            "for Dovecot 2.3 'default_fields = mail_location=...' in userdb { }, for 2.4 \
             'mail_driver = $SET:mail_driver', 'mail_path = $SET:mail_path' and \
             'mailbox_list_index_prefix = $SET:mailbox_list_index_prefix' in userdb_fields { }"
        }
        "mail_home" => {
            "for Dovecot 2.3 'default_fields = home=...' in userdb { }, for 2.4 'home = ...' in \
             userdb_fields { }"
        }
        "mail_uid" | "mail_gid" => "'user = vmail' in the post-login service",
        "mail_access_groups" => "'user = vmail' and 'extra_groups = ...' in the post-login service",
        _ => return None,
    };
    Some(format!(
        "{key} is not a setting of this file any more; write in dovecot.conf {lines}"
    ))
}

#[cold]
fn syntax_error(path: &Path, bytes: &[u8], offset: usize, message: String) -> ConfigurationError {
    let before = &bytes[..offset.min(bytes.len())];
    let line_start = before
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |newline| newline + 1);
    ConfigurationError::Syntax {
        path: path.to_owned(),
        line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        column: 1 + String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count(),
        message: message.replace('\n', " "),
    }
}
