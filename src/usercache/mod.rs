//! Throwing away list indexes that nobody has used for a while: [`clean`] one user's, [`sweep`]
//! all users'.

pub mod clean;
pub mod last_used;
pub mod sweep;
pub mod tree;
