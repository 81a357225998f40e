//! How much room there is for list indexes.
//!
//! A session whose list index no longer fits silently keeps it in memory, and what is on disk lacks
//! everything that happens from then on. Nobody outside the session can see that. So a
//! reserve is kept, for list indexes in use to grow: no new one is started in it.

use std::fmt;
use std::os::fd::AsFd;

use nix::sys::statfs::fstatfs;

/// The reserve is this fraction of the whole, up to an amount that is always enough.
const RESERVED: u64 = 10;
const MOST_BYTES: u64 = 256 << 20;
const MOST_FILES: u64 = 10_000;

/// Blocks or inodes: how many, and how many of them are free. 0 of 0 means that there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// All of them.
    pub total: u64,
    /// Those that a user may have.
    pub free: u64,
}

impl Share {
    fn reserve(self, most: u64) -> u64 {
        (self.total / RESERVED).min(most)
    }

    fn is_below(self, times: u64, most: u64) -> bool {
        self.free < self.reserve(most).saturating_mul(times)
    }
}

/// The room on the file system of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In bytes.
    pub bytes: Share,
    /// In files.
    pub files: Share,
}

impl Room {
    /// What there is on the file system of an open directory.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(directory: impl AsFd) -> nix::Result<Self> {
        let all = fstatfs(directory)?;
        // The type of the size differs between architectures; it is never negative.
        let size = all.block_size() as u64;
        Ok(Self {
            bytes: Share {
                total: all.blocks().saturating_mul(size),
                free: all.blocks_available().saturating_mul(size),
            },
            files: Share {
                total: all.files(),
                free: all.files_free(),
            },
        })
    }

    /// Whether only the reserve is left: no new list index is started.
    pub fn is_short(&self) -> bool {
        self.is_below(1)
    }

    /// Whether it will be soon.
    pub fn is_getting_short(&self) -> bool {
        self.is_below(2)
    }

    /// How many bytes and files there are besides the reserve.
    pub fn without_reserve(&self) -> (u64, u64) {
        (
            self.bytes.total - self.bytes.reserve(MOST_BYTES),
            self.files.total - self.files.reserve(MOST_FILES),
        )
    }

    fn is_below(&self, times: u64) -> bool {
        self.bytes.is_below(times, MOST_BYTES) || self.files.is_below(times, MOST_FILES)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} KiB and {} of {} files are free",
            self.bytes.free >> 10,
            self.bytes.total >> 10,
            self.files.free,
            self.files.total
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Room, Share};

    const GIGABYTE: u64 = 1 << 30;

    fn room(bytes: (u64, u64), files: (u64, u64)) -> Room {
        let share = |(free, total)| Share { total, free };
        Room {
            bytes: share(bytes),
            files: share(files),
        }
    }

    #[test]
    fn a_tenth_is_reserved_up_to_an_amount_that_is_enough() {
        let files = (50_000, 100_000);
        assert!(!room((103, 1000), files).is_short());
        assert!(room((99, 1000), files).is_short());
        assert!(room((199, 1000), files).is_getting_short());
        assert!(!room((200, 1000), files).is_getting_short());
        assert!(!room((GIGABYTE, 100 * GIGABYTE), files).is_getting_short());
        assert!(room((GIGABYTE / 5, 100 * GIGABYTE), files).is_short());
    }

    #[test]
    fn files_count_as_much_as_bytes() {
        let bytes = (GIGABYTE, GIGABYTE);
        assert!(room(bytes, (9, 100)).is_short());
        assert!(!room(bytes, (10, 100)).is_short());
    }

    #[test]
    fn zero_of_zero_is_no_limit() {
        assert!(!room((0, 0), (0, 0)).is_getting_short());
    }
}
