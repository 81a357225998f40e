//! This run of the kernel, and its clock.

use std::io::Read as _;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What no other run of the kernel has: the first half of /proc/sys/kernel/random/boot_id; 0 where
/// that cannot be read.
pub fn identity() -> u64 {
    let mut text = [0; 64];
    let file = std::fs::File::open("/proc/sys/kernel/random/boot_id");
    let length = file.and_then(|mut file| file.read(&mut text)).unwrap_or(0);
    let digits = text[..length]
        .iter()
        .filter_map(|&byte| char::from(byte).to_digit(16));
    digits
        .take(16)
        .fold(0, |identity, digit| (identity << 4) | u64::from(digit))
}

/// Time since the boot, which nobody sets.
pub fn time() -> Duration {
    // Every kernel has this clock (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
