//! `nfs-hostchange locate`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use serde_json::{Value, json};

use super::command_line::Locate;
use super::output::{Exit, complain, say};
use crate::locate::{self, LocateAnswer, LocateRequest};

/// Prints where one user's indexes are, or why that is not known.
pub fn run(options: Locate) -> Exit {
    let json = options.json;
    match locate(options) {
        Ok(answer) if json => say(Value::from(&answer)),
        Ok(answer) => print!("{answer}"),
        Err((exit, reason)) => {
            if json {
                say(json!({ "error": reason }));
            } else {
                complain(reason);
            }
            return exit;
        }
    }
    Exit::Ok
}

fn locate(options: Locate) -> Result<LocateAnswer, (Exit, String)> {
    let bytes = |option: Option<OsString>| option.map(OsStringExt::into_vec);
    let mail_location = bytes(options.location).ok_or_else(|| {
        let reason = "mail_location is not set: give --location";
        (Exit::Configuration, reason.to_owned())
    })?;
    let request = LocateRequest {
        user: options.user.into_vec(),
        home: bytes(options.home),
        mail_home: None,
        mail_location,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    locate::locate(&request).map_err(|error| (Exit::Data, error.to_string()))
}
