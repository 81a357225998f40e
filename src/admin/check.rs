//! `nfs-hostchange check`.

use serde_json::{Value, json};

use super::command_line::Check;
use super::output::{Exit, complain, say};
use crate::check::dovecot::{Settings, SettingsError};
use crate::check::{Severity, check};

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
    let findings = check(&settings);
    if options.json {
        let findings: Vec<Value> = findings
            .iter()
            .map(|finding| {
                json!({
                    "id": finding.id,
                    "severity": finding.severity.name(),
                    "reason": finding.reason,
                    "line": finding.line,
                })
            })
            .collect();
        say(json!({ "findings": findings }));
    } else {
        for finding in &findings {
            say(format_args!(
                "{}: {}",
                finding.severity.name(),
                finding.reason
            ));
            if let Some(line) = &finding.line {
                say(format_args!("    {line}"));
            }
        }
    }
    let is_finding = |severity| severity > Severity::Hint;
    if findings.iter().any(|finding| is_finding(finding.severity)) {
        Exit::Findings
    } else {
        Exit::Ok
    }
}
