//! The few seats for logins that wait long for a directory's lock: bytes of the sign's file.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::local::directory::ListIndexDirectory;
use crate::local::sign;
use crate::system::range_lock;

/// The bytes that are locked by logins which wait long for the directory's lock.
const SEATS: std::ops::Range<u64> = 1..4;

/// One of the few seats for logins that wait longer for the directory's lock than it should be held.
#[derive(Debug)]
pub struct Seat {
    _file: Option<File>,
}

impl Seat {
    /// Whether all seats are taken. In doubt one is free: a login that waits harms only itself.
    pub fn are_all_taken(directory: &ListIndexDirectory) -> bool {
        let Ok(Some(file)) = sign::open(directory, OFlag::empty()) else {
            return false;
        };
        SEATS
            .clone()
            .all(|seat| range_lock::is_held(&file, seat, 1).unwrap_or(false))
    }

    /// Takes a seat, if there is one left.
    pub fn take(directory: &ListIndexDirectory) -> Option<Self> {
        let Ok(Some(file)) = sign::open(directory, OFlag::O_CREAT) else {
            return Some(Self { _file: None });
        };
        let taken = SEATS
            .clone()
            .map(|seat| range_lock::try_exclusive(&file, seat, 1))
            .find(|taken| *taken != Err(Errno::EAGAIN) && *taken != Err(Errno::EACCES));
        taken.map(|_| Self { _file: Some(file) })
    }
}
