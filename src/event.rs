//! How the core reports to its caller: it never prints or logs anything itself.

use std::fmt::Display;

use serde::Deserialize;

/// How important a line is, the most important first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something an administrator must fix.
    Error,
    /// Something an administrator should know.
    Warning,
    /// What was done.
    #[default]
    Info,
}

/// Takes the lines that an administrator should read: the wrapper's log, or Dovecot's own.
pub trait Events {
    /// Reports an event of importance `level`.
    fn event(&self, level: Level, message: &dyn Display);
}

impl dyn Events + '_ {
    /// Something an administrator must fix.
    pub fn error(&self, message: impl Display) {
        self.event(Level::Error, &message);
    }

    /// Something an administrator should know.
    pub fn warning(&self, message: impl Display) {
        self.event(Level::Warning, &message);
    }

    /// Something that was done.
    pub fn info(&self, message: impl Display) {
        self.event(Level::Info, &message);
    }
}
