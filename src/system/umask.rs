//! The umask, where a mode must be what it says.

use nix::sys::stat::{Mode, umask};

/// While this lives the umask is 0.
#[derive(Debug)]
pub struct UmaskCleared(Mode);

impl UmaskCleared {
    /// Clears it.
    pub fn clear() -> Self {
        Self(umask(Mode::empty()))
    }
}

impl Drop for UmaskCleared {
    fn drop(&mut self) {
        umask(self.0);
    }
}
