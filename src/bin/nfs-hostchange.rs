//! The administrator's command.

#![no_main]
#![deny(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use nfs_hostchange::admin;
use nfs_hostchange::system::descriptors;
use nfs_hostchange::system::signals::WriteSignalsIgnored;
use nfs_hostchange::system::start::{self, Start};

nfs_hostchange::entry_point!(run);

/// Without Rust's start-up, which would open /dev/null in place of a closed standard output: what
/// is written there would be lost, and the exit status would not say so.
fn run(start: Start) -> ! {
    descriptors::occupy_standard();
    // A write that fails says so; no signal ends the work half-way.
    let _ignored = WriteSignalsIgnored::new();
    let arguments = start.arguments().iter().map(|argument| argument.to_bytes());
    start::exit(admin::run(arguments.map(|bytes| OsString::from_vec(bytes.to_vec()))) as i32)
}
