//! What tells one claim from every other.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::FileStat;

use crate::system::statx::Attributes;

/// What tells one claim from every other: inode number and modification time in nanoseconds.
///
/// Neither suffices alone: a file server gives the number of a deleted file to the next one at
/// once, and time stamps can be coarse.
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
    pub fn of(attributes: &Attributes) -> Identity {
        let (seconds, nanoseconds) = attributes.modified();
        Identity {
            inode: attributes.inode(),
            seconds,
            nanoseconds,
        }
    }

    /// The identity of a file as the kernel knows it.
    pub fn of_status(status: &FileStat) -> Identity {
        Identity {
            inode: status.st_ino,
            seconds: status.st_mtime,
            // The kernel keeps it below 1,000,000,000.
            nanoseconds: status.st_mtime_nsec as u32,
        }
    }

    /// Seconds from the making of the claim, by the clock of the backend that made it, to `now`;
    /// negative if that clock is ahead.
    pub fn age_at(&self, now: SystemTime) -> i64 {
        seconds_of(now).0.saturating_sub(self.seconds)
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
