//! `nfs-hostchange locate`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use serde::Serialize;

use super::command_line::Locate;
use super::output::{Exit, complain};
use crate::locate::{self, LocateRequest};

/// Prints where one user's indexes are.
pub fn run(options: Locate) -> Exit {
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
        Err((_, reason)) => complain(reason),
    }
    answer.map_or_else(|(exit, _)| exit, |_| Exit::Ok)
}
