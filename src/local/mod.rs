//! LISTINDEX, the directory of the list index, which is this backend's alone.

pub mod directory;
pub mod files;
pub mod lock;
pub mod record;
pub mod room;
pub mod sessions;
pub mod step;
