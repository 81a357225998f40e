//! Asking a running Dovecot through doveadm.

use std::ffi::{CString, NulError, OsStr};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::decimal::decimal;
use crate::dovecot::environment::of_userdb_fields;
use crate::system::credentials::{GroupId, Identity, UserId};

/// A field's name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// What sysexits(3) calls an unknown user.
const NO_USER: i32 = 67;
/// The same of a command that doveadm does not know.
const USAGE: i32 = 64;

/// A namespace whose list index has a directory of its own, as Dovecot resolved it for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// What its mailbox names begin with.
    pub prefix: Vec<u8>,
    /// It holds the inbox.
    pub has_inbox: bool,
    /// `private`, `shared` or `public`.
    pub kind: String,
    /// Whose it is; empty if it is nobody's.
    pub owner: Vec<u8>,
    /// INDEX; empty if indexes are in memory.
    pub index_dir: Vec<u8>,
    /// The directory of the list index.
    pub list_index_dir: Vec<u8>,
    /// How the names of its files begin.
    pub list_index_name: Vec<u8>,
    /// The layout's name.
    pub layout: Vec<u8>,
    /// Why it cannot be kept in step; empty if it can.
    pub problem: Vec<u8>,
    /// Whose rights Dovecot works with.
    pub rights: Identity,
}

impl Namespace {
    /// A line of the doveadm module; it separates values by tabs.
    fn of(line: &[u8]) -> Option<Self> {
        let values: Vec<_> = line.split(|&byte| byte == b'\t').map(unescaped).collect();
        let [
            prefix,
            has_inbox,
            kind,
            owner,
            index_dir,
            list_index_dir,
            list_index_name,
            layout,
            problem,
            rights,
        ] = <[Vec<u8>; 10]>::try_from(values).ok()?;
        Some(Self {
            prefix,
            has_inbox: has_inbox == b"yes",
            kind: String::from_utf8_lossy(&kind).into_owned(),
            owner,
            index_dir,
            list_index_dir,
            list_index_name,
            layout,
            problem,
            rights: identity(&rights)?,
        })
    }
}

/// The uid, the gid and the groups.
fn identity(rights: &[u8]) -> Option<Identity> {
    let mut ids = rights.split(|&byte| byte == b' ').map(decimal);
    Some(Identity {
        user: UserId(ids.next()??),
        group: GroupId(ids.next()??),
        groups: ids.collect::<Option<_>>()?,
    })
}

/// The opposite of Dovecot's `str_tabescape`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(&byte) = bytes.next() {
        plain.push(match (byte, bytes.as_slice().first()) {
            (1, Some(&escaped)) => {
                bytes.next();
                match escaped {
                    b'0' => 0,
                    b'1' => 1,
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'n' => b'\n',
                    other => other,
                }
            }
            (byte, _) => byte,
        });
    }
    plain
}

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
    /// The answer of our module is not one of this version.
    Module,
}

impl std::error::Error for DoveadmError {}

impl fmt::Display for DoveadmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(error) => write!(f, "cannot execute doveadm: {error}"),
            Self::NoSuchUser => f.write_str("no such user"),
            Self::Refused(reason) => write!(f, "doveadm failed: {reason}"),
            Self::Nul(error) => write!(f, "the userdb's answer has a NUL byte: {error}"),
            Self::Module => f.write_str(
                "'doveadm nfs namespaces' is of another version: install both packages in the same",
            ),
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

/// The user's namespaces whose list indexes have a directory of their own; `None` where the doveadm
/// module that knows them is not installed.
///
/// # Errors
/// If Dovecot cannot open the user's mail.
pub fn namespaces_of(
    user: &OsStr,
    configuration: Option<&Path>,
) -> Result<Option<Vec<Namespace>>, DoveadmError> {
    let command = ["-f", "tab", "nfs", "namespaces", "-u"];
    let output = run(configuration, &command, &[user])?;
    if output.status.code() == Some(USAGE) {
        return Ok(None);
    }
    let answer = successful(output)?;
    let lines = answer.split(|&byte| byte == b'\n').skip(1);
    let namespaces = lines.filter(|line| !line.is_empty()).map(Namespace::of);
    match namespaces.collect() {
        Some(namespaces) => Ok(Some(namespaces)),
        None => Err(DoveadmError::Module),
    }
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
    successful(run(configuration, command, &[OsStr::new("--"), user])?)
}

fn run(
    configuration: Option<&Path>,
    command: &[&str],
    operands: &[&OsStr],
) -> Result<Output, DoveadmError> {
    let mut doveadm = Command::new("doveadm");
    if let Some(file) = configuration {
        doveadm.arg("-c").arg(file);
    }
    doveadm
        .args(command)
        .args(operands)
        .stdin(Stdio::null())
        .output()
        .map_err(DoveadmError::Missing)
}

fn successful(output: Output) -> Result<Vec<u8>, DoveadmError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_read_back_as_dovecot_had_it() {
        let line =
            b"a\x01tb/\tno\tprivate\tal\x011ice\t/i\x01nx\t/l\tdovecot.list.index\tfs\t\t7 8 8 9";
        let namespace = Namespace::of(line).expect("ten values");
        assert_eq!(namespace.prefix, b"a\tb/");
        assert_eq!(namespace.owner, b"al\x01ice");
        assert_eq!(namespace.index_dir, b"/i\nx");
        assert_eq!(
            (namespace.has_inbox, namespace.problem.as_slice()),
            (false, b"".as_slice())
        );
        let rights = &namespace.rights;
        assert_eq!(
            (rights.user, rights.group, rights.groups.as_slice()),
            (UserId(7), GroupId(8), [8, 9].as_slice())
        );
        assert_eq!(Namespace::of(b"a\tb"), None);
    }
}
