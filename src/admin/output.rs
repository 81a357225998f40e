//! What the command prints, and the exit statuses of sysexits(3).

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Map, Value};

use crate::dovecot::doveadm::DoveadmError;
use crate::local::directory::DirectoryError;
use crate::local::files::DeleteError;
use crate::local::lock::LockError;
use crate::local::sign::SignError;
use crate::log::is_misleading;
use crate::usercache::clean::{CleanError, Outcome};
use crate::usercache::forget::ForgetError;
use crate::usercache::tree::RootError;

/// How the command ends, by the numbers of sysexits(3), which doveadm uses as well. Of several
/// the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Something was found that should be fixed.
    Findings = 1,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// What was asked about is wrong (EX_DATAERR).
    Data = 65,
    /// What was asked about is not there (EX_NOINPUT).
    NoInput = 66,
    /// A program that is needed is not there (EX_UNAVAILABLE).
    Unavailable = 69,
    /// The system is short of something, or refuses to change ids (EX_OSERR).
    System = 71,
    /// Reading or writing failed (EX_IOERR).
    InputOutput = 74,
    /// It may work later (EX_TEMPFAIL).
    TryAgain = 75,
    /// Not permitted (EX_NOPERM).
    Permission = 77,
    /// The configuration is wrong, or a setting is missing (EX_CONFIG).
    Configuration = 78,
}

impl From<Errno> for Exit {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT => Self::NoInput,
            Errno::ENOTDIR | Errno::ELOOP => Self::Data,
            Errno::EACCES | Errno::EPERM => Self::Permission,
            // Somebody holds a lease on the file.
            Errno::EAGAIN => Self::TryAgain,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Self::System,
            _ => Self::InputOutput,
        }
    }
}

impl From<&DoveadmError> for Exit {
    fn from(error: &DoveadmError) -> Self {
        match error {
            DoveadmError::NoSuchUser => Self::NoInput,
            DoveadmError::Missing(_) | DoveadmError::Refused(_) => Self::Unavailable,
            DoveadmError::Nul(_) | DoveadmError::Module => Self::Data,
        }
    }
}

impl From<&Result<Outcome, CleanError>> for Exit {
    fn from(outcome: &Result<Outcome, CleanError>) -> Self {
        match outcome {
            Ok(Outcome::Cleaned(..) | Outcome::WouldClean(_) | Outcome::Recent(_)) => Self::Ok,
            Ok(Outcome::InUse | Outcome::LoggingIn) => Self::TryAgain,
            Ok(Outcome::Nothing) => Self::NoInput,
            Err(error) => error.into(),
        }
    }
}

impl From<&RootError> for Exit {
    fn from(error: &RootError) -> Self {
        match error {
            RootError::Shared(_) => Self::Usage,
            RootError::Network(_) => Self::Permission,
            RootError::Directory(error) => error.into(),
        }
    }
}

impl From<&DirectoryError> for Exit {
    fn from(error: &DirectoryError) -> Self {
        match error {
            DirectoryError::Missing(_) => Self::NoInput,
            DirectoryError::SymbolicLink(_) | DirectoryError::ForeignOwner(..) => Self::Permission,
            DirectoryError::Unusable(_, errno) | DirectoryError::CannotMake(_, errno) => {
                Self::from(*errno)
            }
        }
    }
}

impl From<&ForgetError> for Exit {
    fn from(error: &ForgetError) -> Self {
        match error {
            ForgetError::Clean(error) => error.into(),
            ForgetError::Locked(_) => Self::TryAgain,
            ForgetError::TooDeep(_)
            | ForgetError::Mounted(_)
            | ForgetError::Doubtful(_)
            | ForgetError::Link(_) => Self::Data,
        }
    }
}

impl From<&CleanError> for Exit {
    fn from(error: &CleanError) -> Self {
        match error {
            CleanError::Directory(error) => error.into(),
            CleanError::Network(_)
            | CleanError::Index(_)
            | CleanError::Store(..)
            | CleanError::OfRoot(_) => Self::Permission,
            CleanError::Refused(..) => Self::System,
            CleanError::Lock(error) => match error {
                LockError::TimedOut(_) | LockError::Lost(_) => Self::TryAgain,
                LockError::NotAFile(_) => Self::Data,
                LockError::Failed(_, errno) => Self::from(*errno),
                LockError::DirectoryGone(_) | LockError::Missing(_) => Self::NoInput,
            },
            CleanError::Delete(error) => match error {
                DeleteError::NotAFile(_) => Self::Data,
                DeleteError::Unreadable(_, errno) | DeleteError::Undeletable(_, errno) => {
                    Self::from(*errno)
                }
            },
            CleanError::Sign(SignError::NotAFile(_)) | CleanError::TooMany(_) => Self::Data,
            CleanError::Spoiled(error) => Self::from(&**error),
            CleanError::Sign(SignError::Failed(_, errno)) | CleanError::Lease(_, errno) => {
                Self::from(*errno)
            }
        }
    }
}

/// Why the command's output is not complete: the first write that failed.
static LOST: OnceLock<Errno> = OnceLock::new();

/// Prints one line to standard output. If that fails, the work goes on, and [`finish`] reports it.
pub fn say(message: impl fmt::Display) {
    say_as_it_is(&format!("{}\n", one_line(message)));
}

/// Prints one line of JSON. Characters that mislead on a terminal are escaped as JSON does it.
pub fn say_json(value: &Value) {
    let mut line = String::new();
    // Others than ASCII are in strings only.
    for character in value.to_string().chars() {
        if is_misleading(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                line += &format!("\\u{unit:04x}");
            }
        } else {
            line.push(character);
        }
    }
    say_as_it_is(&format!("{line}\n"));
}

/// Prints text of several lines.
pub fn say_as_it_is(text: &str) {
    if LOST.get().is_none() {
        if let Err(errno) = write(text) {
            // Should another thread have been faster, its error counts.
            let _ = LOST.set(errno);
        }
    }
}

/// Not through the standard library's writer, which takes a closed descriptor for success.
fn write(text: &str) -> nix::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match nix::unistd::write(io::stdout(), rest) {
            Ok(length) => rest = &rest[length..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// How the command ends: with `exit`, unless some of its output was lost. A reader that wanted no
/// more (`| head`) has lost nothing.
pub fn finish(exit: Exit) -> Exit {
    match LOST.get() {
        Some(errno) if *errno != Errno::EPIPE => {
            complain(format_args!(
                "cannot write to standard output: {}",
                errno.desc()
            ));
            Exit::InputOutput
        }
        _ => exit,
    }
}

/// Prints one line to standard error.
pub fn complain(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "nfs-hostchange: {}", one_line(message));
}

/// Complains about `error`; the command ends because of it.
pub fn failed<E: fmt::Display>(error: &E) -> Exit
where
    for<'a> Exit: From<&'a E>,
{
    complain(error);
    Exit::from(error)
}

/// Says that root could not become a user without groups: a service unit that takes away the
/// capability, for example.
pub fn cannot_drop_groups(errno: Errno) -> Exit {
    complain(format_args!(
        "cannot give up root's groups: {}",
        errno.desc()
    ));
    Exit::System
}

fn one_line(message: impl fmt::Display) -> String {
    printable(message.to_string().as_bytes())
}

/// Adds a path to a JSON object. JSON has no bytes, so one that is not UTF-8 also comes in
/// hexadecimal digits, as `<field>_hex`.
pub fn insert_path(object: &mut Map<String, Value>, field: &str, path: Option<&[u8]>) {
    let text = path.map(String::from_utf8_lossy);
    object.insert(field.to_owned(), Value::from(text));
    if let Some(path) = path.filter(|path| std::str::from_utf8(path).is_err()) {
        let digits: String = path.iter().map(|byte| format!("{byte:02x}")).collect();
        object.insert(format!("{field}_hex"), Value::from(digits));
    }
}

/// Readable, and harmless on a terminal.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        if is_misleading(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// A number with its noun: "1 user", "2 users".
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The end of a line: the numbers that are not 0, each with its noun.
pub fn and_of_these(numbers: &[(u64, &str)]) -> String {
    let mut line = String::new();
    for (number, what) in numbers.iter().filter(|(number, _)| *number > 0) {
        let separator = if line.is_empty() { "; " } else { ", " };
        line += &format!("{separator}{number} {what}");
    }
    line
}

/// A time span for people, in the one or two greatest units that it has.
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("day", 86400), ("hour", 3600), ("minute", 60)];
        let seconds = self.0.as_secs();
        let Some(greatest) = UNITS.iter().position(|&(_, length)| seconds >= length) else {
            return f.write_str(&counted(seconds, "second"));
        };
        let (unit, length) = UNITS[greatest];
        f.write_str(&counted(seconds / length, unit))?;
        match UNITS.get(greatest + 1) {
            Some(&(unit, smaller)) if seconds % length >= smaller => {
                write!(f, " {}", counted(seconds % length / smaller, unit))
            }
            _ => Ok(()),
        }
    }
}
