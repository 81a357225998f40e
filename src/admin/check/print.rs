//! `nfs-hostchange check`.

use serde_json::{Value, json};

use crate::admin::check::dovecot::{Settings, SettingsError};
use crate::admin::check::{Finding, Remedy, Severity, check, tmpfiles};
use crate::admin::command_line::Check;
use crate::admin::output::{Exit, complain, say};

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
        return print_tmpfiles(&settings);
    }
    let findings = check(&settings);
    if options.json {
        let findings: Vec<Value> = findings.iter().map(Value::from).collect();
        say(json!({ "findings": findings }));
    } else if findings.is_empty() {
        say("nothing found");
    } else {
        findings.iter().for_each(print);
    }
    let is_wrong = |finding: &Finding| finding.severity > Severity::Hint;
    if findings.iter().any(is_wrong) {
        Exit::Findings
    } else {
        Exit::Ok
    }
}

fn print_tmpfiles(settings: &Settings) -> Exit {
    match tmpfiles(settings) {
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
    say(format_args!(
        "{}: {}",
        finding.severity.name(),
        finding.reason
    ));
    let lines = match &finding.remedy {
        None => return,
        Some(Remedy::Write(file, lines)) => {
            say(format_args!("  write to {}:", file.display()));
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
    fn from(finding: &Finding) -> Value {
        let (file, line, command) = match &finding.remedy {
            None => (None, None, None),
            Some(Remedy::Write(file, lines)) => (Some(file.to_string_lossy()), Some(lines), None),
            Some(Remedy::Run(command)) => (None, None, Some(command)),
        };
        json!({
            "id": finding.id,
            "severity": finding.severity.name(),
            "reason": finding.reason,
            "file": file,
            "lines": line,
            "command": command,
        })
    }
}
