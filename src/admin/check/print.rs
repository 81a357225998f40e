//! `nfs-hostchange check`.

use serde_json::{Value, json};

use crate::admin::check::finding::{Finding, Remedy, Severity};
use crate::admin::check::{check, tmpfiles};
use crate::admin::command_line::Check;
use crate::admin::output::{Exit, complain, say, say_json};
use crate::dovecot::settings::{Settings, SettingsError};

/// Prints what is wrong with this backend.
pub fn run(options: &Check) -> Exit {
    let settings = match Settings::ask(options.dovecot_config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return match error {
                SettingsError::NoDoveconf(_) => Exit::Unavailable,
                SettingsError::Refused(_) => Exit::Configuration,
            };
        }
    };
    if options.tmpfiles {
        return print_tmpfiles(&settings, &options.user);
    }
    let findings = check(&settings, &options.user);
    if options.json {
        let findings: Vec<Value> = findings.iter().map(Value::from).collect();
        say_json(&json!({ "findings": findings }));
    } else if findings.is_empty() {
        say("nothing found");
    } else {
        findings.iter().for_each(print);
    }
    let is_wrong = |finding: &Finding| finding.kind.severity() > Severity::Hint;
    if findings.iter().any(is_wrong) {
        Exit::Findings
    } else {
        Exit::Ok
    }
}

fn print_tmpfiles(settings: &Settings, users: &[String]) -> Exit {
    match tmpfiles(settings, users) {
        Some(lines) => {
            lines.lines().for_each(say);
            Exit::Ok
        }
        None => {
            complain("there is no local LISTINDEX to make directories for: see check");
            Exit::Configuration
        }
    }
}

/// For people. What is to be written or run is indented, and can be copied.
fn print(finding: &Finding) {
    let severity = finding.kind.severity().name();
    match &finding.place {
        Some(place) => say(format_args!("{severity}: {finding} ({place})")),
        None => say(format_args!("{severity}: {finding}")),
    }
    let lines = match &finding.remedy {
        None => return,
        Some(Remedy::Append(file, lines)) => {
            say(format_args!("  write to the end of {}:", file.display()));
            lines
        }
        Some(Remedy::Prepend(file, lines)) => {
            say(format_args!(
                "  write to the beginning of {}:",
                file.display()
            ));
            lines
        }
        Some(Remedy::After(place, lines)) => {
            say(format_args!(
                "  write after line {} of {}:",
                place.line,
                place.file.display()
            ));
            lines
        }
        Some(Remedy::Replace(place, lines)) if lines.is_empty() => {
            say(format_args!(
                "  delete line {} of {}",
                place.line,
                place.file.display()
            ));
            lines
        }
        Some(Remedy::Replace(place, lines)) => {
            say(format_args!(
                "  write instead of line {} of {}:",
                place.line,
                place.file.display()
            ));
            lines
        }
        Some(Remedy::Run(command)) => {
            say("  run:");
            command
        }
    };
    for line in lines.lines() {
        say(format_args!("    {line}"));
    }
}

/// For programs.
impl From<&Finding> for Value {
    fn from(finding: &Finding) -> Self {
        let (file, line, lines) = match &finding.remedy {
            None | Some(Remedy::Run(_)) => (None, None, None),
            Some(Remedy::Append(file, lines)) => (Some(file), None, Some(lines)),
            Some(Remedy::Prepend(file, lines)) => (Some(file), Some(0), Some(lines)),
            Some(Remedy::After(place, lines) | Remedy::Replace(place, lines)) => {
                (Some(&place.file), Some(place.line), Some(lines))
            }
        };
        let command = match &finding.remedy {
            Some(Remedy::Run(command)) => Some(command),
            _ => None,
        };
        json!({
            "id": finding.kind.id(),
            "severity": finding.kind.severity().name(),
            "reason": finding.to_string(),
            "place": finding.place.as_ref().map(ToString::to_string),
            "file": file.map(|file| file.to_string_lossy()),
            "line": line,
            "replaces": matches!(finding.remedy, Some(Remedy::Replace(..))),
            "lines": lines,
            "command": command,
        })
    }
}
