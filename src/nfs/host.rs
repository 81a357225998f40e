//! The name of a backend.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use serde::Deserialize;

/// A host name that is safe in a file name, a record and a log line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl HostName {
    /// The longest host name (HOST_NAME_MAX, sethostname(2)).
    const LONGEST: usize = 64;

    /// The system's own host name, uname(2); what does not fit is replaced.
    pub fn of_system() -> Self {
        let name = nix::unistd::gethostname().unwrap_or_default();
        let mut name: String = name
            .as_bytes()
            .iter()
            .map(|&byte| {
                if byte.is_ascii_graphic() && byte != b'/' {
                    byte.into()
                } else {
                    '_'
                }
            })
            .take(Self::LONGEST)
            .collect();
        if name.is_empty() {
            name.push_str("unknown");
        }
        Self(name)
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if name.is_empty() || name.len() > Self::LONGEST || !name.bytes().all(usable) {
            return Err(format!(
                "host name '{}' must be 1 to {} visible ASCII characters without '/'",
                name.escape_default(),
                Self::LONGEST
            ));
        }
        Ok(Self(name))
    }
}

impl HostName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::HostName;

    #[test]
    fn a_host_name_is_safe_in_a_file_name_a_record_and_a_log_line() {
        for name in ["a", "backend-1.example.org", &"x".repeat(64)] {
            assert_eq!(HostName::try_from(name.to_owned()).unwrap().as_str(), name);
        }
        for name in ["", "a b", "a/b", "a\nb", "ä", "a\0", &"x".repeat(65)] {
            assert!(HostName::try_from(name.to_owned()).is_err(), "{name:?}");
        }
    }
}
