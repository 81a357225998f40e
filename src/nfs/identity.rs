//! What distinguishes a claim from every other.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::FileStat;

use crate::decimal::decimal;
use crate::system::statx::Attributes;

/// What distinguishes a claim from every other: inode number and modification time in nanoseconds.
///
/// Neither suffices alone: a file server may give the number of a deleted file to the next one, and
/// time stamps can be coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Modification time, seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds of the modification time.
    pub nanoseconds: u32,
}

impl Identity {
    /// The identity of a file that the server was asked for.
    pub fn of(attributes: &Attributes) -> Self {
        let (seconds, nanoseconds) = attributes.modified();
        Self {
            inode: attributes.inode(),
            seconds,
            nanoseconds,
        }
    }

    /// The identity of a file as stat(2) gives it.
    pub fn of_status(status: &FileStat) -> Self {
        Self {
            inode: status.st_ino,
            seconds: status.st_mtime,
            // The kernel keeps it below 1,000,000,000.
            nanoseconds: status.st_mtime_nsec as u32,
        }
    }

    /// The age of the claim in seconds at `now`, by the clock of the backend that made it; negative if
    /// that clock is ahead.
    pub fn age_at(&self, now: SystemTime) -> i64 {
        seconds_of(now).0.saturating_sub(self.seconds)
    }
}

impl Identity {
    /// What [`Display`](fmt::Display) writes: an inode number, and `<seconds>.<nanoseconds, 9 digits>`.
    pub fn parse(inode: &str, time: &str) -> Option<Self> {
        let (seconds, nanoseconds) = time.split_once('.')?;
        if nanoseconds.len() != 9 {
            return None;
        }
        Some(Self {
            inode: decimal(inode.as_bytes())?,
            seconds: seconds.parse().ok()?,
            nanoseconds: decimal(nanoseconds.as_bytes())?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{:09}", self.inode, self.seconds, self.nanoseconds)
    }
}

/// What a file looks like as long as nobody writes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Which file it is, and when it was last written.
    pub identity: Identity,
    /// In bytes.
    pub size: u64,
}

impl Version {
    /// What [`Display`](fmt::Display) writes.
    pub fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split('/');
        let version = Self {
            identity: Identity::parse(parts.next()?, parts.next()?)?,
            size: decimal(parts.next()?.as_bytes())?,
        };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    /// One word: `<inode>/<seconds>.<nanoseconds>/<size>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            inode,
            seconds,
            nanoseconds,
        } = self.identity;
        write!(f, "{inode}/{seconds}.{nanoseconds:09}/{}", self.size)
    }
}

/// Seconds since the epoch and nanoseconds; the epoch itself for a clock that is before it.
pub fn seconds_of(time: SystemTime) -> (i64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        since.subsec_nanos(),
    )
}
