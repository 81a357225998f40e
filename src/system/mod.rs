//! Everything that talks to the kernel beyond what `std` and `nix` offer.

#![allow(unsafe_code)]

pub mod host;
pub mod regex;
