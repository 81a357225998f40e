//! Asking a running Dovecot through doveadm.

use std::ffi::{CString, NulError, OsStr};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::dovecot::environment::of_userdb_fields;

/// A field's name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// What sysexits(3) calls an unknown user.
const NO_USER: i32 = 67;

/// Why doveadm does not say what a user's login would get.
#[derive(Debug)]
pub enum DoveadmError {
    /// It cannot be executed.
    Missing(io::Error),
    /// No userdb knows the user.
    NoSuchUser,
    /// It refuses to answer, mostly because Dovecot does not run.
    Refused(String),
    /// The answer has a NUL byte, which no environment can hold.
    Nul(NulError),
}

impl std::error::Error for DoveadmError {}

impl fmt::Display for DoveadmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(error) => write!(f, "cannot execute doveadm: {error}"),
            Self::NoSuchUser => f.write_str("no such user"),
            Self::Refused(reason) => write!(f, "doveadm failed: {reason}"),
            Self::Nul(error) => write!(f, "the userdb's answer has a NUL byte: {error}"),
        }
    }
}

/// The environment that a login of `user` would have, as far as it comes from the userdb. doveadm
/// reads `configuration` if that is given.
///
/// # Errors
/// As [`fields_of`].
pub fn environment_of(
    user: &OsStr,
    configuration: Option<&Path>,
) -> Result<Vec<CString>, DoveadmError> {
    let (names, fields): (Vec<_>, Vec<_>) = fields_of(user, configuration)?
        .into_iter()
        .partition(|(field, _)| field == b"user");
    // A userdb may give the user another name.
    let user = names.first().map_or(user.as_bytes(), |(_, name)| name);
    of_userdb_fields(user, fields).map_err(DoveadmError::Nul)
}

/// The userdb fields that a login of `user` would have. Only the userdb is asked (`-u`): what doveadm
/// otherwise fills in from dovecot.conf, no post-login script sees.
///
/// # Errors
/// If doveadm does not know.
pub fn fields_of(user: &OsStr, configuration: Option<&Path>) -> Result<Vec<Field>, DoveadmError> {
    let answer = ask(user, configuration, &["user", "-u"])?;
    Ok(answer
        .split(|&byte| byte == b'\n')
        .filter_map(field_of)
        .collect())
}

/// What a mail process has in the end, with what dovecot.conf adds to the userdb's answer.
///
/// # Errors
/// If doveadm does not know.
pub fn final_fields_of(
    user: &OsStr,
    configuration: Option<&Path>,
) -> Result<Vec<Field>, DoveadmError> {
    let answer = ask(user, configuration, &["-f", "tab", "user"])?;
    let field = |line: &[u8]| {
        let tab = line.iter().position(|&byte| byte == b'\t')?;
        Some((line[..tab].to_vec(), line[tab + 1..].to_vec()))
    };
    let lines = answer.split(|&byte| byte == b'\n').skip(1);
    Ok(lines.filter_map(field).collect())
}

/// What a mail process makes of the variables in a setting for `user`.
///
/// # Errors
/// If doveadm does not know.
pub fn expanded(
    template: &str,
    user: &OsStr,
    configuration: Option<&Path>,
) -> Result<Vec<u8>, DoveadmError> {
    let answer = ask(user, configuration, &["user", "-e", template])?;
    Ok(answer.strip_suffix(b"\n").unwrap_or(&answer).to_vec())
}

/// Everybody whom the userdb can list.
///
/// # Errors
/// If it cannot.
pub fn all_users(configuration: Option<&Path>) -> Result<Vec<String>, DoveadmError> {
    let answer = answer(configuration, &["user"], OsStr::new("*"))?;
    let names = String::from_utf8_lossy(&answer);
    Ok(names.lines().map(str::to_owned).collect())
}

fn ask(
    user: &OsStr,
    configuration: Option<&Path>,
    command: &[&str],
) -> Result<Vec<u8>, DoveadmError> {
    if user.as_bytes().iter().any(|byte| b"*?".contains(byte)) {
        // It would list everybody who fits.
        return Err(DoveadmError::Refused("this is a pattern".to_owned()));
    }
    answer(configuration, command, user)
}

fn answer(
    configuration: Option<&Path>,
    command: &[&str],
    user: &OsStr,
) -> Result<Vec<u8>, DoveadmError> {
    let mut doveadm = Command::new("doveadm");
    if let Some(file) = configuration {
        doveadm.arg("-c").arg(file);
    }
    let output = doveadm
        .args(command)
        .arg("--")
        .arg(user)
        .stdin(Stdio::null())
        .output()
        .map_err(DoveadmError::Missing)?;
    if output.status.code() == Some(NO_USER) {
        return Err(DoveadmError::NoSuchUser);
    }
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let reason = reason.lines().next().unwrap_or("it says nothing");
        return Err(DoveadmError::Refused(reason.to_owned()));
    }
    Ok(output.stdout)
}

/// `  <name><blanks>: <value>`; the heading has no blanks in front.
fn field_of(line: &[u8]) -> Option<Field> {
    let line = line.strip_prefix(b"  ")?;
    let colon = line.windows(2).position(|pair| pair == b": ")?;
    Some((
        line[..colon].trim_ascii_end().to_vec(),
        line[colon + 2..].to_vec(),
    ))
}
