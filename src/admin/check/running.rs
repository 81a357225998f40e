//! The Dovecot that runs, if one does.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::finding::{Findings, Kind, Remedy};
use crate::dovecot::files::Place;
use crate::dovecot::master::{Master, is_systemd};
use crate::dovecot::settings::Settings;

/// When Dovecot read its configuration: at its start, or at a reload, which makes its sockets anew.
fn time_of_reading(settings: &Settings) -> Option<SystemTime> {
    let socket = Path::new(settings.get("base_dir")).join("config");
    fs::symlink_metadata(socket).ok()?.modified().ok()
}

/// What doveconf shows all the same keeps Dovecot from starting.
pub fn refusal(settings: &Settings, findings: &mut Findings) {
    let Some(reason) = settings.refusal() else {
        return;
    };
    let place = reason
        .split_once("in configuration file ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .and_then(|(place, _)| place.split_once(" line "))
        .and_then(|(file, line)| {
            Some(Place {
                file: file.into(),
                line: line.parse().ok()?,
            })
        });
    if !findings.is_critical_at(place.as_ref()) {
        findings.add_at(Kind::Refused { reason }, place, None);
    }
}

/// Whether the running Dovecot can be asked, and what keeps it from being.
pub fn check(settings: &Settings, master: Option<Master>, findings: &mut Findings) -> bool {
    if master.is_none() {
        let reason = "Dovecot does not run".to_owned();
        findings.add(Kind::NotRunning { reason }, None);
        return false;
    }
    if let (Some((file, changed)), Some(read)) =
        (settings.files().last_change(), time_of_reading(settings))
    {
        if changed > read {
            let file = file.display().to_string();
            let command = match is_systemd() {
                true => "systemctl restart dovecot",
                false => "doveadm reload",
            };
            findings.add(Kind::NotReloaded { file }, Remedy::Run(command.to_owned()));
            return false;
        }
    }
    true
}
