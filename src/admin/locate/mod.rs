//! `nfs-hostchange locate`: where one user's INDEX and LISTINDEX are, as
//! `doveadm` on this host would find them.

mod print;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde_json::{Map, Value};

use crate::admin::output::{insert_path, printable};
use crate::dovecot::location::{
    self, ExpandError, Layout, ListIndex, Location, Lookup, ParseError, Setting, Tracking,
    UserdbField, Variables,
};
use crate::system::accounts;
use crate::system::host;

pub use print::run;

/// Whose location is asked for, and what is known about the user.
#[derive(Debug)]
pub struct LocateRequest {
    /// The user name as Dovecot has it in the end
    pub user: Vec<u8>,
    /// The home directory that the userdb returns
    pub home: Option<Vec<u8>>,
    /// The template for users of whom the userdb returns no home
    pub mail_home: Option<Vec<u8>>,
    /// The template of the location
    pub mail_location: Vec<u8>,
    /// The uid that mail is accessed with
    pub uid: u32,
    /// The gid that mail is accessed with
    pub gid: u32,
}

/// The user's location, and what a login would do with it.
#[derive(Debug)]
pub struct LocateAnswer {
    location: Location,
    tracking: Tracking,
}

/// Resolves the location of one user.
///
/// # Errors
///
/// If one of the templates or the location that comes out is refused.
pub fn locate(request: &LocateRequest) -> Result<LocateAnswer, LocateError> {
    let mut variables = Variables {
        user: &request.user,
        home: request.home.as_deref(),
        auth_user: None,
        uid: Some(request.uid),
        gid: Some(request.gid),
        service: Some(b"doveadm"),
        // doveadm has no client, and a session and process id of its own.
        local_ip: Some(b""),
        remote_ip: Some(b""),
        session: None,
        pid: None,
        lookup: request,
    };
    let expanded_home = match (&request.home, &request.mail_home) {
        (None, Some(template)) => Some(
            location::expand(template, Setting::MailHome, &variables).map_err(LocateError::Home)?,
        ),
        (given, _) => given.clone(),
    }
    .filter(|home| !home.is_empty());
    let home = expanded_home.as_deref();
    variables.home = home;

    let expanded = location::expand(&request.mail_location, Setting::MailLocation, &variables)
        .map_err(LocateError::Location)?;
    let location =
        location::parse(&expanded, home, &accounts::home_of).map_err(LocateError::Parse)?;
    let tracking = location::tracking(&location, &request.user, home, None);
    Ok(LocateAnswer { location, tracking })
}

impl Lookup for LocateRequest {
    fn host_name(&self) -> Option<Vec<u8>> {
        match std::env::var_os("DOVECOT_HOSTNAME") {
            Some(name) => Some(name.into_vec()),
            None => Some(nix::unistd::gethostname().ok()?.into_vec()),
        }
    }

    fn host_domain(&self) -> Option<Vec<u8>> {
        if let Some(name) = std::env::var_os("DOVECOT_HOSTDOMAIN") {
            return Some(name.into_vec());
        }
        let name = self.host_name()?;
        Some(host::canonical_name(&name).unwrap_or(name))
    }

    /// Dovecot empties the environment, except for what `import_environment` names.
    fn environment(&self, name: &[u8]) -> Option<Vec<u8>> {
        const IMPORTED: [&[u8]; 5] = [
            b"TZ",
            b"CORE_OUTOFMEM",
            b"CORE_ERROR",
            b"LISTEN_PID",
            b"LISTEN_FDS",
        ];
        let value = IMPORTED
            .contains(&name)
            .then(|| std::env::var_os(OsStr::from_bytes(name)))
            .flatten();
        Some(value.unwrap_or_default().into_vec())
    }

    fn userdb(&self, field: &[u8]) -> Option<UserdbField> {
        let value = match field {
            b"home" => self.home.clone(),
            b"uid" => Some(self.uid.to_string().into_bytes()),
            b"gid" => Some(self.gid.to_string().into_bytes()),
            _ => None,
        };
        Some(value.map_or(UserdbField::Absent, UserdbField::Value))
    }
}

impl LocateAnswer {
    /// What a login would do.
    #[must_use]
    pub fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// The layout of the user's folders.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.location.layout
    }

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
impl fmt::Display for LocateAnswer {
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
impl From<&LocateAnswer> for Value {
    fn from(answer: &LocateAnswer) -> Value {
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
        Value::Object(map)
    }
}

/// Why a user's location is not known.
#[derive(Debug)]
pub enum LocateError {
    /// `mail_home` cannot be expanded
    Home(ExpandError),
    /// The location cannot be expanded
    Location(ExpandError),
    /// The location that comes out is refused
    Parse(ParseError),
}

impl std::error::Error for LocateError {}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(error) => write!(f, "mail_home: {error}"),
            Self::Location(error) => write!(f, "mail_location: {error}"),
            Self::Parse(error) => write!(f, "mail_location: {error}"),
        }
    }
}
