//! Throwing away list indexes that nobody has used for a while: [`clean`] one user's, `sweep`
//! all users'.

pub mod age;
pub mod clean;
pub mod last_used;
