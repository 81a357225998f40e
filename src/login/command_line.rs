//! `nfs-hostchange-login [--config=FILE] [--] PROGRAM [ARG...]`.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::names::DEFAULT_CONFIGURATION;

/// What the wrapper was asked to do.
#[derive(Debug)]
pub struct CommandLine<'a> {
    /// The configuration file.
    pub configuration: &'a Path,
    /// The program to execute, an absolute path, and its whole argv beginning with it.
    pub program: &'a [&'a CStr],
}

/// A command line that names no program to execute. There is nothing to hand the login to.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    /// Nothing follows the options.
    NoProgram,
    /// The program's path does not begin with `/`.
    NotAbsolute(Vec<u8>),
    /// An option that does not exist.
    UnknownOption(Vec<u8>),
    /// `--config` without a value.
    EmptyConfiguration,
}

impl std::error::Error for UsageError {}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => f.write_str("no program to execute"),
            Self::NotAbsolute(program) => write!(
                f,
                "the program '{}' must be an absolute path",
                String::from_utf8_lossy(program)
            ),
            Self::UnknownOption(option) => {
                write!(f, "unknown option '{}'", String::from_utf8_lossy(option))
            }
            Self::EmptyConfiguration => f.write_str("--config=FILE needs a file"),
        }?;
        f.write_str("; usage: nfs-hostchange-login [--config=FILE] [--] PROGRAM [ARG...]")
    }
}

/// Reads argv, the wrapper's own name first.
pub fn parse<'a>(arguments: &'a [&'a CStr]) -> Result<CommandLine<'a>, UsageError> {
    let mut configuration = DEFAULT_CONFIGURATION.as_bytes();
    let mut rest = arguments.get(1..).unwrap_or_default();
    while let Some((first, following)) = rest.split_first() {
        let first = first.to_bytes();
        if first == b"--" {
            rest = following;
            break;
        } else if let Some(file) = first.strip_prefix(b"--config=") {
            configuration = file;
        } else if first.starts_with(b"-") {
            return Err(UsageError::UnknownOption(first.to_vec()));
        } else {
            break;
        }
        rest = following;
    }
    if configuration.is_empty() {
        return Err(UsageError::EmptyConfiguration);
    }
    let program = rest.first().ok_or(UsageError::NoProgram)?.to_bytes();
    if !program.starts_with(b"/") {
        return Err(UsageError::NotAbsolute(program.to_vec()));
    }
    Ok(CommandLine {
        configuration: Path::new(OsStr::from_bytes(configuration)),
        program: rest,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::path::Path;

    use super::{UsageError, parse};

    const NAME: &CStr = c"nfs-hostchange-login";

    #[test]
    fn everything_from_the_program_on_is_left_alone() {
        let arguments = [
            NAME,
            c"--config=/etc/x.toml",
            c"/bin/true",
            c"--config=y",
            c"--",
        ];
        let command = parse(&arguments).unwrap();
        assert_eq!(command.configuration, Path::new("/etc/x.toml"));
        assert_eq!(command.program, &arguments[2..]);
    }

    #[test]
    fn two_hyphens_end_the_options() {
        let arguments = [NAME, c"--", c"/bin/true"];
        assert_eq!(parse(&arguments).unwrap().program, &arguments[2..]);
        let error = parse(&[NAME, c"--", c"--config=x"]).unwrap_err();
        assert_eq!(error, UsageError::NotAbsolute(b"--config=x".to_vec()));
    }

    #[test]
    fn without_a_program_there_is_nothing_to_hand_the_login_to() {
        assert_eq!(parse(&[]).unwrap_err(), UsageError::NoProgram);
        assert_eq!(parse(&[NAME]).unwrap_err(), UsageError::NoProgram);
        assert_eq!(parse(&[NAME, c"--"]).unwrap_err(), UsageError::NoProgram);
        let error = parse(&[NAME, c"true"]).unwrap_err();
        assert_eq!(error, UsageError::NotAbsolute(b"true".to_vec()));
        let error = parse(&[NAME, c"-x", c"/bin/true"]).unwrap_err();
        assert_eq!(error, UsageError::UnknownOption(b"-x".to_vec()));
        let error = parse(&[NAME, c"--config=", c"/bin/true"]).unwrap_err();
        assert_eq!(error, UsageError::EmptyConfiguration);
    }
}
