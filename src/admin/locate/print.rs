//! `nfs-hostchange locate`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use crate::admin::command_line::Locate;
use crate::admin::locate::{self, LocateAnswer, LocateRequest};
use crate::admin::output::{Exit, complain, say, say_as_it_is};
use crate::config::{Account, Configuration};
use crate::login::user::resolve;
use crate::system::accounts;

/// Prints where one user's indexes are, or why that is not known.
pub fn run(options: Locate) -> Exit {
    let json = options.json;
    match locate(options) {
        Ok(answer) if json => say(Value::from(&answer)),
        Ok(answer) => say_as_it_is(&answer.to_string()),
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
    let wrong = |reason| (Exit::Configuration, reason);
    let configuration = Configuration::read(&options.configuration.path)
        .map_err(|error| wrong(error.to_string()))?
        .unwrap_or_default();
    let bytes = |option: Option<OsString>, setting: Option<String>| {
        option
            .map(OsStringExt::into_vec)
            .or(setting.map(String::into_bytes))
    };
    let mail_location = bytes(options.location, configuration.mail_location).ok_or_else(|| {
        let reason =
            "mail_location is not set: give --location, or set it in the configuration file";
        wrong(reason.to_owned())
    })?;
    let id = |account: Option<Account>, look_up: fn(&str) -> Option<u32>, own| match account {
        Some(account) => resolve(&account, look_up).map_err(|error| wrong(error.to_string())),
        // As in Dovecot, where nobody says whose.
        None => Ok(own),
    };
    let request = LocateRequest {
        user: options.user.into_vec(),
        home: bytes(options.home, None),
        mail_home: bytes(None, configuration.mail_home),
        mail_location,
        uid: id(
            configuration.mail_uid,
            accounts::user_id,
            geteuid().as_raw(),
        )?,
        gid: id(
            configuration.mail_gid,
            accounts::group_id,
            getegid().as_raw(),
        )?,
    };
    locate::locate(&request).map_err(|error| (Exit::Data, error.to_string()))
}
