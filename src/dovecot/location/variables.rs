//! What the %variables stand for.

use super::expand::{ExpandError, split_at_first};

/// The setting whose template is expanded: not all know the same self.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `mail_location`
    MailLocation,
    /// `mail_home`, which cannot use the home
    MailHome,
}

/// What the %variables stand for.
///
/// `None` means that the value is not known here, which is an error where the
/// template asks for it; what Dovecot knows to be empty is `Some(b"")`.
pub struct Variables<'a> {
    /// `%u`: the user name, after all of Dovecot's changes to it
    pub user: &'a [u8],
    /// `%h`: the home directory; `None` if the user has none
    pub home: Option<&'a [u8]>,
    /// `%{auth_user}`: who logged in, if that was somebody else (a master user)
    pub auth_user: Option<&'a [u8]>,
    /// `%i`: the user's numerical uid
    pub uid: Option<u32>,
    /// `%{gid}`: the user's numerical gid
    pub gid: Option<u32>,
    /// `%s`: `imap`, `pop3`, `lmtp`, `doveadm`...
    pub service: Option<&'a [u8]>,
    /// `%l`: the server's address
    pub local_ip: Option<&'a [u8]>,
    /// `%r`: the client's address
    pub remote_ip: Option<&'a [u8]>,
    /// `%{session}`
    pub session: Option<&'a [u8]>,
    /// `%p`: the process that uses the mailbox
    pub pid: Option<u32>,
    /// Values that are looked up only when a template asks for them
    pub lookup: &'a dyn Lookup,
}

/// Values that cost something to know.
pub trait Lookup {
    /// `%{hostname}` in `mail_location`: the name with its domain.
    fn host_domain(&self) -> Option<Vec<u8>>;
    /// `%{hostname}` in `mail_home`: the name alone.
    fn host_name(&self) -> Option<Vec<u8>>;
    /// `%{env:name}` in the process that uses the mailbox; empty if it is not set there.
    fn environment(&self, name: &[u8]) -> Option<Vec<u8>>;
    /// `%{userdb:field}`.
    fn userdb(&self, field: &[u8]) -> Option<UserdbField>;
}

/// The outcome of looking at the userdb's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserdbField {
    /// The field's value
    Value(Vec<u8>),
    /// The userdb did not return the field
    Absent,
}

impl Variables<'_> {
    /// A variable with a fixed, long name; `None` if the setting knows none of that name.
    pub(super) fn value(
        &self,
        name: &[u8],
        setting: Setting,
    ) -> Result<Option<Vec<u8>>, ExpandError> {
        let bytes = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        let number = |value: Option<u32>| value.map(|number| number.to_string().into_bytes());
        let mail_home = setting == Setting::MailHome;
        let auth_user = self.auth_user.unwrap_or(self.user);
        let value = match name {
            b"user" => bytes(Some(self.user)),
            b"username" => bytes(Some(local_part(self.user))),
            b"domain" => bytes(Some(domain(self.user))),
            b"auth_user" => bytes(Some(auth_user)),
            b"auth_username" => bytes(Some(local_part(auth_user))),
            b"auth_domain" => bytes(Some(domain(auth_user))),
            b"home" if mail_home => return Ok(None),
            b"home" => bytes(Some(self.home.unwrap_or_default())),
            b"service" => bytes(self.service),
            b"lip" | b"local_ip" => bytes(self.local_ip),
            b"rip" | b"remote_ip" => bytes(self.remote_ip),
            b"session" => bytes(self.session),
            b"pid" => number(self.pid),
            b"uid" => number(self.uid),
            b"gid" => number(self.gid),
            b"hostname" if mail_home => self.lookup.host_name(),
            b"hostname" => self.lookup.host_domain(),
            _ => return Ok(None),
        };
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(ExpandError::NotKnown(name.to_vec())),
        }
    }
}

fn local_part(user: &[u8]) -> &[u8] {
    split_at_first(user, b'@').0
}

fn domain(user: &[u8]) -> &[u8] {
    split_at_first(user, b'@').1.unwrap_or_default()
}
