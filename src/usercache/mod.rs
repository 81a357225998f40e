//! Throwing away list indexes that nobody has used for a while: [`clean`] one user's, [`sweep`]
//! all users'.

pub mod age;
#[cfg(feature = "admin")]
pub mod clean;
#[cfg(feature = "admin")]
pub mod last_used;
#[cfg(feature = "admin")]
pub mod sweep;
#[cfg(feature = "admin")]
pub mod tree;
