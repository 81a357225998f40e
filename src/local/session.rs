//! Who a session is, and whether it is over.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::system::boot;
use crate::system::connection::{self, Connection};
use crate::system::process::Process;

/// How long a process without its connection may still work for the session, on commands that it has
/// read, or expunging. After that it serves other sessions.
pub const LINGERS: Duration = Duration::from_secs(60);

/// Who a session is, apart from its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    boot: u64,
    process: Option<Process>,
    connection: Option<Connection>,
}

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Open,
    /// Its connection is gone, but its process exists.
    Lingering,
    /// It has ended.
    Over,
}

impl Session {
    /// The session whose login this process is: the client is at descriptor 0, the process that serves
    /// it at the other end of descriptor 3 (Dovecot's script-login). If there is neither, the session
    /// is this process and the program that it executes.
    pub fn of_login() -> Self {
        let connection = Connection::of_client();
        let process = Process::at_other_end_of(3);
        Self {
            boot: boot::identity(),
            process: process.or_else(|| connection.is_none().then(Process::own)),
            connection,
        }
    }

    /// The session that this process serves for as long as it lives.
    pub fn of_process() -> Self {
        Self {
            boot: boot::identity(),
            process: Some(Process::own()),
            connection: None,
        }
    }

    /// What can be known of one that another version of this program has written as `text`: nothing but
    /// the boot of its host.
    pub fn of_boot(text: &str) -> Option<Self> {
        let boot = text.split(' ').next()?;
        Some(Self {
            boot: u64::from_str_radix(boot, 16).ok()?,
            process: None,
            connection: None,
        })
    }

    /// The process that serves it.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Whether anything but the boot of its host is known of it.
    pub fn is_named(&self) -> bool {
        self.process.is_some() || self.connection.is_some()
    }

    /// Nothing but the boot of its host: one of many.
    pub fn anonymous(&self) -> Self {
        Self {
            process: None,
            connection: None,
            ..*self
        }
    }

    /// What became of it. In doubt it is open.
    pub fn state(&self) -> State {
        let here = boot::identity();
        if self.boot != 0 && here != 0 && self.boot != here {
            return State::Over;
        }
        if !self.is_named() {
            return State::Open;
        }
        let connection = self.connection.map(|connection| connection.state());
        if matches!(connection, Some(Ok(connection::State::Open) | Err(_))) {
            return State::Open;
        }
        let runs = self.process.is_some_and(|process| process.is_running());
        match connection {
            _ if !runs => State::Over,
            Some(Ok(connection::State::Gone)) => State::Lingering,
            _ => State::Open,
        }
    }
}

/// `<boot> <process> <connection>`, each `-` if it is not known.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.boot)?;
        match &self.process {
            Some(process) => write!(f, " {process}")?,
            None => f.write_str(" -")?,
        }
        match &self.connection {
            Some(connection) => write!(f, " {connection}"),
            None => f.write_str(" -"),
        }
    }
}

impl FromStr for Session {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        fn known<T: FromStr>(text: Option<&str>) -> Result<Option<T>, ()> {
            match text.ok_or(())? {
                "-" => Ok(None),
                text => text.parse().map(Some).map_err(|_| ()),
            }
        }
        let mut fields = text.split(' ');
        let boot = u64::from_str_radix(fields.next().ok_or(())?, 16).map_err(|_| ())?;
        let session = Self {
            boot,
            process: known(fields.next())?,
            connection: known(fields.next())?,
        };
        match fields.next() {
            None => Ok(session),
            Some(_) => Err(()),
        }
    }
}
