//! The administrator's command, `nfs-hostchange`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::locate::{self, LocateRequest};

pub mod command_line;

use command_line::{Command, CommandLine, Locate};

/// How the command ends, by the numbers of sysexits(3), which doveadm uses as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Ok = 0,
    /// The command line is wrong (EX_USAGE)
    Usage = 64,
    /// What was asked about is wrong (EX_DATAERR)
    Data = 65,
    /// The configuration is wrong, or a setting is missing (EX_CONFIG)
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Does what the command line says, and returns the process's exit code.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match CommandLine::try_parse_from(arguments) {
        Ok(CommandLine { command }) => match command {
            Command::Locate(options) => locate(options),
        },
        Err(error) => {
            // Nothing can be done about a closed standard output or error.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            }
        }
    }
    .into()
}

fn locate(options: Locate) -> Exit {
    let bytes = |option: Option<OsString>| option.map(OsStringExt::into_vec);
    let Some(mail_location) = bytes(options.location) else {
        return report::<String>(
            options.json,
            Err((
                Exit::Configuration,
                &"mail_location is not set: give --location",
            )),
        );
    };
    let request = LocateRequest {
        user: options.user.into_vec(),
        home: bytes(options.home),
        mail_home: None,
        mail_location,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    match locate::locate(&request) {
        Ok(answer) => report(options.json, Ok(&answer)),
        Err(error) => report::<String>(options.json, Err((Exit::Data, &error))),
    }
}

/// Prints an answer to standard output, or a reason why there is none: to standard
/// error, and as JSON to standard output as well.
fn report<T: Serialize + fmt::Display>(
    json: bool,
    answer: Result<&T, (Exit, &dyn fmt::Display)>,
) -> Exit {
    match answer {
        Ok(answer) if json => println!("{}", serde_json::json!(answer)),
        Ok(answer) => print!("{answer}"),
        Err((_, reason)) if json => {
            println!("{}", serde_json::json!({ "error": reason.to_string() }));
        }
        Err((_, reason)) => eprintln!("nfs-hostchange: {reason}"),
    }
    answer.map_or_else(|(exit, _)| exit, |_| Exit::Ok)
}
