//! What kind of file it is.

use nix::sys::stat::{FileStat, SFlag};

/// The type of a file, without its permissions.
pub fn file_type(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

/// Whether it is a regular file.
pub fn is_regular(status: &FileStat) -> bool {
    file_type(status) == SFlag::S_IFREG
}
