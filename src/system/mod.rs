//! The one layer that talks to the kernel past what `std` and `nix` offer safely.
//!
//! Everything above this module denies `unsafe`. What is here is small on purpose: the
//! entry point without Rust's start-up, the forced look at a file (`statx`), changing the
//! ids of one thread, asking whether a file, a connection or a process is still there, locks,
//! reading directories, and signal dispositions that must come back exactly as they were.

#![allow(unsafe_code)]

pub mod accounts;
pub mod arena;
pub mod boot;
pub mod connection;
pub mod credentials;
pub mod descriptors;
pub mod detach;
pub mod entries;
pub mod file_status;
#[cfg(feature = "admin")]
pub mod file_system;
pub mod lease;
pub mod process;
pub mod range_lock;
pub mod signals;
pub mod start;
pub mod statx;
pub mod umask;
