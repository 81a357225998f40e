//! `nfs-hostchange locate`.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{Answer, LocateError, locate};
use crate::admin::command_line::Locate;
use crate::admin::output::{Exit, complain, insert_path, printable, say_as_it_is, say_json};
use crate::dovecot::location::{ListIndex, Tracking};

/// Prints where one user's indexes are, or why that is not known.
pub fn run(options: &Locate) -> Exit {
    match locate(options) {
        Ok(answer) if options.json => say_json(&Value::from(&answer)),
        Ok(answer) => say_as_it_is(&answer.to_string()),
        Err(error) => {
            if options.json {
                say_json(&json!({ "error": error.to_string() }));
            } else {
                complain(&error);
            }
            return Exit::from(&error);
        }
    }
    Exit::Ok
}

impl From<&LocateError> for Exit {
    fn from(error: &LocateError) -> Self {
        match error {
            LocateError::Configuration(_) => Self::Configuration,
            LocateError::Doveadm(error) => error.into(),
            LocateError::Location(_) => Self::Data,
        }
    }
}

impl Answer {
    fn list_index(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        match &self.location.list_index {
            ListIndex::File {
                directory, prefix, ..
            } => (Some(directory), Some(prefix)),
            ListIndex::Memory { prefix } => (None, Some(prefix)),
            ListIndex::Disabled => (None, None),
        }
    }

    fn is_tracked(&self) -> bool {
        matches!(self.tracking, Tracking::Tracked(_))
    }
}

/// For people: one line for each value.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list_index_dir, prefix) = self.list_index();
        let path = |path: Option<&[u8]>| path.map_or_else(|| "none".to_owned(), printable);
        writeln!(f, "INDEX      {}", path(self.location.index_dir.as_deref()))?;
        writeln!(f, "LISTINDEX  {}", path(list_index_dir))?;
        writeln!(f, "prefix     {}", path(prefix))?;
        writeln!(f, "layout     {}", self.location.layout.name())?;
        writeln!(
            f,
            "tracked    {}",
            if self.is_tracked() { "yes" } else { "no" }
        )?;
        writeln!(f, "reason     {}", self.tracking)
    }
}

/// For programs.
impl From<&Answer> for Value {
    fn from(answer: &Answer) -> Self {
        let (list_index_dir, prefix) = answer.list_index();
        let mut map = Map::new();
        for (name, value) in [
            ("index_dir", answer.location.index_dir.as_deref()),
            ("list_index_dir", list_index_dir),
            ("list_index_prefix", prefix),
        ] {
            insert_path(&mut map, name, value);
        }
        map.insert("layout".to_owned(), answer.location.layout.name().into());
        map.insert("tracked".to_owned(), answer.is_tracked().into());
        map.insert("reason".to_owned(), answer.tracking.to_string().into());
        Self::Object(map)
    }
}
