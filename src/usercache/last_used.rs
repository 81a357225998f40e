//! When a list index was last used: the latest of its lock file's times and its files'
//! modification times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::system::statx::Attributes;

/// The later of the lock file's access time, which each login sets, and its modification time.
#[must_use]
pub fn last_login(lock_file: &Attributes) -> SystemTime {
    last_written(lock_file).max(time(lock_file.accessed()))
}

/// When a file of the list index was last written, by a session or a delivery.
#[must_use]
pub fn last_written(file: &Attributes) -> SystemTime {
    time(file.modified())
}

/// Time since then; none if the clock was set back.
#[must_use]
pub fn age(last_used: SystemTime) -> Duration {
    SystemTime::now()
        .duration_since(last_used)
        .unwrap_or_default()
}

/// Times before 1970 are as old as can be.
fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    // The kernel keeps nanoseconds below 1,000,000,000.
    let since_epoch = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds);
    // std counts seconds in an i64 as the kernel does, so everything fits.
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}
