//! Throwing away list indexes that nobody has used for a while: [`clean`] one user's, [`sweep`]
//! all users'. Or only [`forget`]ting what they belong to.

pub mod clean;
pub mod forget;
pub mod last_used;
mod queue;
pub mod sweep;
pub mod tree;

/// What [`queue`] uses.
mod sync {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}
