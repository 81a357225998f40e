//! INDEX, the user's index directory on NFS, which all backends share: the forced look at it, and
//! the claim in it.

pub mod claim;
pub mod directory;
pub mod host;
pub mod identity;
