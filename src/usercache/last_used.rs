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

/// A clock is not further ahead than this. Later times were set by hand, or by a clock that was wrong
/// for a moment: they would keep a list index for ever.
const AHEAD: Duration = Duration::from_secs(86_400);

/// Times before 1970 are as old as can be, and so are those far in the future.
fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    // The kernel keeps nanoseconds below 1,000,000,000.
    let since_epoch = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds);
    let latest = SystemTime::now().checked_add(AHEAD);
    UNIX_EPOCH
        .checked_add(since_epoch)
        .filter(|time| latest.is_none_or(|latest| *time <= latest))
        .unwrap_or(UNIX_EPOCH)
}
