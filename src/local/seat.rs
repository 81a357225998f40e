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
///
/// Where the file cannot be used, there is none: whoever owns it may have brought that about, and no login
/// there is vouched for after its wait.
#[derive(Debug)]
pub struct Seat<'a> {
    directory: &'a ListIndexDirectory,
    file: File,
}

impl<'a> Seat<'a> {
    /// Whether all seats are taken.
    pub fn are_all_taken(directory: &ListIndexDirectory) -> bool {
        match sign::open(directory, OFlag::empty()) {
            Ok(Some(file)) => SEATS
                .clone()
                .all(|seat| range_lock::is_held(&file, seat, 1).unwrap_or(false)),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Takes a seat, if there is one left.
    pub fn take(directory: &'a ListIndexDirectory) -> Option<Self> {
        let file = sign::open(directory, OFlag::O_CREAT).ok()??;
        let is_taken = SEATS.clone().any(|seat| {
            let taken = range_lock::try_exclusive(&file, seat, 1);
            taken != Err(Errno::EAGAIN) && taken != Err(Errno::EACCES)
        });
        is_taken.then_some(Self { directory, file })
    }

    /// Whether it still counts: in another file there are others.
    pub fn is_there(&self) -> bool {
        sign::is_current(self.directory, &self.file).unwrap_or(false)
    }
}
