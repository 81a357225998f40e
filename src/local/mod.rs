//! LISTINDEX, the directory of the list index, which is this backend's alone.

pub mod directory;
pub mod files;
pub mod lock;
pub mod notes;
pub mod record;
pub mod room;
pub mod seat;
pub mod session;
pub mod sign;
pub mod step;
