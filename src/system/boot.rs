//! This run of the kernel, and its clock.

use std::time::Duration;

/// What no other run of the kernel has: the first half of /proc/sys/kernel/random/boot_id; 0 where
/// that cannot be read.
pub fn identity() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Time since the boot, which nobody sets.
pub fn time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: there is room for the answer, and every kernel has this clock (clock_gettime(2)).
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
