//! On what kind of file system a directory is.

use std::os::fd::AsFd;

use nix::sys::statfs::fstatfs;

/// What matters about a file system that holds list indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Memory of this host: tmpfs or ramfs.
    Memory,
    /// Anything else that is this host's own.
    Disk,
    /// Shared with other hosts, or it may be.
    Network,
}

/// The numbers of file systems (statfs(2)) that several hosts can have mounted.
const NETWORK: [u32; 9] = [
    0x6969,      // nfs
    0x517b,      // smb
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x6573_5546, // fuse: glusterfs, sshfs and others
    0x00c3_6400, // ceph
    0x0116_1970, // gfs2
    0x7461_636f, // ocfs2
    0x0bd0_0bd0, // lustre
];

const MEMORY: [u32; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

impl FileSystem {
    /// The file system of an open directory.
    pub fn of(directory: impl AsFd) -> nix::Result<Self> {
        // The type of the number differs between architectures; it always has 32 bits.
        let number = fstatfs(directory)?.filesystem_type().0 as u32;
        Ok(if NETWORK.contains(&number) {
            Self::Network
        } else if MEMORY.contains(&number) {
            Self::Memory
        } else {
            Self::Disk
        })
    }
}
