//! Throwing away list indexes that nobody has used for a while.

pub mod age;
