//! `nfs-hostchange check`: what is wrong with this backend.
//!
//! One module for each thing that can be wrong: the [`services`] that a login passes, the wrapper's
//! own [`configuration`], [`location`]: where list indexes are, the [`directories`] that must be
//! there for them, and the [`host`] itself.

mod configuration;
mod directories;
pub mod dovecot;
mod host;
mod location;
mod print;
mod services;

use std::fmt;
use std::path::PathBuf;

use directories::Plan;
use dovecot::Settings;

pub use print::run;

/// The wrapper's name in Dovecot's libexec directory.
const WRAPPER: &str = "nfs-hostchange-login";

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; may well be meant so.
    Hint,
    /// Something will go wrong, sooner or later.
    Warning,
    /// Users see old folders, logins or deliveries fail, or somebody gets in.
    Error,
}

impl Severity {
    /// In lower case, as it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What mends it.
#[derive(Debug, Clone)]
pub enum Remedy {
    /// Lines to write into a file.
    Write(PathBuf, String),
    /// A command for root's shell.
    Run(String),
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// A name that stays the same.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and why that matters.
    pub reason: String,
    /// What mends it, if that can be written down.
    pub remedy: Option<Remedy>,
}

/// Everything that is found, the worst first.
#[must_use]
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = Findings::default();
    let post_logins = services::check(settings, &mut findings);
    configuration::check(settings, &post_logins, &mut findings);
    if let Some(list_indexes) = location::check(settings, &mut findings) {
        let plan = Plan::new(settings, &post_logins, &list_indexes);
        directories::check(settings, &list_indexes, &plan, &mut findings);
        host::check(&plan, &mut findings);
    }
    let Findings(mut findings) = findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// What tmpfiles.d(5) has to make at boot, a line for each directory; `None` if list indexes are
/// not local.
#[must_use]
pub fn tmpfiles(settings: &Settings) -> Option<String> {
    let mut ignored = Findings::default();
    let post_logins = services::check(settings, &mut ignored);
    let list_indexes = location::check(settings, &mut ignored)?;
    Some(Plan::new(settings, &post_logins, &list_indexes).tmpfiles())
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        id: &'static str,
        reason: impl fmt::Display,
        remedy: impl Into<Option<Remedy>>,
    ) {
        self.0.push(Finding {
            id,
            severity,
            reason: reason.to_string(),
            remedy: remedy.into(),
        });
    }
}

/// A word for the shell, quoted if it has to be.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
