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
use crate::event::Level;
use crate::nfs::directory::Migration;
use crate::nfs::host::HostName;
use crate::system::credentials::effective_user;

/// A file larger than this is not a configuration of ours.
const LARGEST: u64 = 64 * 1024;

/// Every setting, each with its default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// `mail_location` as in dovecot.conf, with %variables; used if the userdb returns none.
    pub mail_location: Option<String>,
    /// `mail_home` as in dovecot.conf; used if the userdb returns no home.
    pub mail_home: Option<String>,
    /// User for the work on the files, if the userdb returns no uid.
    pub mail_uid: Option<Account>,
    /// Group for the work on the files, if the userdb returns no gid.
    pub mail_gid: Option<Account>,
    /// Supplementary groups for the work on the files, as in dovecot.conf.
    pub mail_access_groups: Vec<Account>,
    /// Take over list indexes that are in INDEX.
    #[serde(deserialize_with = "migration")]
    pub migration: Migration,
    /// This backend's name; the system's host name if not set.
    pub hostname: Option<HostName>,
    /// How long a login waits for another one of the same user.
    #[serde(deserialize_with = "duration")]
    pub lock_timeout: Duration,
    /// Where log lines go.
    pub log: LogSettings,
}

impl Default for Configuration {
    fn default() -> Self {
        Configuration {
            mail_location: None,
            mail_home: None,
            mail_uid: None,
            mail_gid: None,
            mail_access_groups: Vec::new(),
            migration: Migration::default(),
            hostname: None,
            lock_timeout: Duration::from_secs(5),
            log: LogSettings::default(),
        }
    }
}

/// A user or a group: its number, or its name in /etc/passwd or /etc/group.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a number or a name")]
pub enum Account {
    /// The id itself.
    Id(u32),
    /// A name that is looked up at each login.
    Name(String),
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

/// Syslog facilities that fit a mail server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "syslog(3) explains them")]
pub enum Facility {
    #[default]
    Mail,
    Auth,
    Authpriv,
    Daemon,
    User,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
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

/// Why the built-in defaults are used instead of the file.
#[derive(Debug)]
pub enum ConfigurationError {
    /// The file cannot be opened or read.
    Unreadable(PathBuf, io::Error),
    /// Not a regular file, or too large.
    NotAFile(PathBuf),
    /// Belongs to, or may be written by, somebody who must not decide over logins.
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

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationError::Unreadable(path, error) => {
                write!(f, "{}: cannot be read: {error}", path.display())
            }
            ConfigurationError::NotAFile(path) => write!(
                f,
                "{}: must be a regular file of at most {LARGEST} bytes",
                path.display()
            ),
            ConfigurationError::Untrusted(path) => write!(
                f,
                "{}: must belong to root and be writable by nobody else (chown root, chmod go-w)",
                path.display()
            ),
            ConfigurationError::Syntax {
                path,
                line,
                column,
                message,
            } => write!(f, "{}:{line}:{column}: {message}", path.display()),
        }
    }
}

impl Configuration {
    /// What there is to go by if the file cannot be used.
    pub fn of_unusable_file() -> Configuration {
        Configuration {
            migration: Migration::Unknown,
            ..Configuration::default()
        }
    }

    /// Reads `path`; `Ok(None)` if there is no such file.
    ///
    /// # Errors
    /// Names the file, and for a mistake in it the line and the column.
    pub fn read(path: &Path) -> Result<Option<Configuration>, ConfigurationError> {
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
        let trusted_owner = metadata.uid() == 0 || metadata.uid() == effective_user().0;
        if !trusted_owner || metadata.mode() & 0o022 != 0 {
            return Err(ConfigurationError::Untrusted(path.to_owned()));
        }
        let bytes = read_once(&mut file, metadata.len()).map_err(unreadable)?;
        Configuration::parse(path, &bytes).map(Some)
    }

    /// Understands the text of the file `path`.
    ///
    /// # Errors
    /// [`ConfigurationError::Syntax`] for every mistake in it.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Configuration, ConfigurationError> {
        parse(text).map_err(|(offset, message)| syntax_error(path, text, offset, message))
    }
}

fn open(path: &Path) -> nix::Result<File> {
    // O_NONBLOCK: a FIFO in the file's place must not hold up a login.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path, flags, Mode::empty()).map(File::from)
}

/// One read(2) more than needed would be a system call in every login.
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
        let offset = error.span().map_or(0, |span| span.start);
        (offset, error.message().to_owned())
    })
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
