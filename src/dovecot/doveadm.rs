//! Asking a running Dovecot through doveadm.

use std::ffi::{CString, NulError, OsStr};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::dovecot::environment::of_userdb_fields;

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
            Self::Refused(reason) => write!(f, "doveadm cannot say: {reason}"),
            Self::Nul(error) => write!(f, "the userdb's answer has a NUL byte: {error}"),
        }
    }
}

/// The environment that a login of `user` would have, as far as it comes from the userdb. doveadm
/// reads `configuration` if that is given.
///
/// Only the userdb is asked (`-u`): what doveadm otherwise fills in from dovecot.conf, no post-login
/// script sees.
///
/// # Errors
/// If doveadm does not know.
pub fn environment_of(
    user: &OsStr,
    configuration: Option<&Path>,
) -> Result<Vec<CString>, DoveadmError> {
    if user.as_bytes().iter().any(|byte| b"*?".contains(byte)) {
        // It would list everybody who fits.
        return Err(DoveadmError::Refused("this is a pattern".to_owned()));
    }
    let mut doveadm = Command::new("doveadm");
    if let Some(file) = configuration {
        doveadm.arg("-c").arg(file);
    }
    let output = doveadm
        .args(["user", "-u", "--"])
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
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let (names, fields): (Vec<_>, Vec<_>) = lines
        .filter_map(field_of)
        .partition(|(field, _)| field == b"user");
    // A userdb may give the user another name.
    let user = names.first().map_or(user.as_bytes(), |(_, name)| name);
    of_userdb_fields(user, fields).map_err(DoveadmError::Nul)
}

/// `  <name><blanks>: <value>`; the heading has no blanks in front.
fn field_of(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let line = line.strip_prefix(b"  ")?;
    let colon = line.windows(2).position(|pair| pair == b": ")?;
    Some((
        line[..colon].trim_ascii_end().to_vec(),
        line[colon + 2..].to_vec(),
    ))
}
