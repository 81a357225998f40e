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

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NoProgram => f.write_str("no program to execute"),
            UsageError::NotAbsolute(program) => write!(
                f,
                "the program '{}' must be an absolute path",
                String::from_utf8_lossy(program)
            ),
            UsageError::UnknownOption(option) => {
                write!(f, "unknown option '{}'", String::from_utf8_lossy(option))
            }
            UsageError::EmptyConfiguration => f.write_str("--config=FILE needs a file"),
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
