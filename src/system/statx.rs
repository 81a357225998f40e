//! The forced look: statx(2) with AT_STATX_FORCE_SYNC.
//!
//! A plain stat is answered from the NFS client's attribute cache for up to `actimeo`
//! seconds. AT_STATX_FORCE_SYNC makes the client ask the server, which costs one GETATTR.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use crate::system::credentials::UserId;

/// Attributes fresh from the server.
#[derive(Debug, Clone, Copy)]
pub struct Attributes(libc::statx);

impl Attributes {
    /// Asks the file server for the attributes of the open file `fd`.
    pub fn of(fd: impl AsFd) -> nix::Result<Self> {
        Self::ask(fd, c"", libc::AT_EMPTY_PATH)
    }

    /// Asks the file server for the attributes of `name` in `directory`; a symbolic link is
    /// not followed.
    pub fn of_name(directory: impl AsFd, name: &CStr) -> nix::Result<Self> {
        Self::ask(directory, name, libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Asks the file server for the attributes of `path`.
    pub fn of_path(path: &Path) -> nix::Result<Self> {
        path.with_nix_path(|path| Self::ask(AT_FDCWD, path, 0))?
    }

    /// The attributes of the open file `fd`, which is on this host: there is no server to ask.
    pub fn of_local(fd: impl AsFd) -> nix::Result<Self> {
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        Self::ask_for(mask, fd, c"", libc::AT_EMPTY_PATH)
    }

    /// What the kernel knows of `name` in `directory` by itself: no file server is asked, and no
    /// program that serves a file system, which may never answer.
    pub fn known(directory: impl AsFd, name: &CStr) -> nix::Result<Self> {
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
        Self::ask_for(libc::STATX_BASIC_STATS, directory, name, flags)
    }

    fn ask(fd: impl AsFd, name: &CStr, flags: libc::c_int) -> nix::Result<Self> {
        let flags = flags | libc::AT_STATX_FORCE_SYNC;
        Self::ask_for(libc::STATX_BASIC_STATS, fd, name, flags)
    }

    fn ask_for(
        mask: libc::c_uint,
        fd: impl AsFd,
        name: &CStr,
        flags: libc::c_int,
    ) -> nix::Result<Self> {
        let mut buffer = MaybeUninit::<libc::statx>::zeroed();
        // By number: the musl of Debian 12 (1.2.3) has no function for it.
        // SAFETY: `name` is a C string and `buffer` has room for one struct statx.
        let result = unsafe {
            libc::syscall(
                libc::SYS_statx,
                fd.as_fd().as_raw_fd(),
                name.as_ptr(),
                flags,
                mask,
                buffer.as_mut_ptr(),
            )
        };
        Errno::result(result)?;
        // SAFETY: zeroed is a valid struct statx, and the kernel filled it in.
        Ok(Self(unsafe { buffer.assume_init() }))
    }

    /// Device number (major, minor) and inode number: what tells one file from another.
    pub fn device_and_inode(&self) -> (u32, u32, u64) {
        (self.0.stx_dev_major, self.0.stx_dev_minor, self.0.stx_ino)
    }

    /// Inode number.
    pub fn inode(&self) -> u64 {
        self.0.stx_ino
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.0.stx_size
    }

    /// Last modification: seconds since the epoch and nanoseconds.
    pub fn modified(&self) -> (i64, u32) {
        (self.0.stx_mtime.tv_sec, self.0.stx_mtime.tv_nsec)
    }

    /// Last access: seconds since the epoch and nanoseconds.
    pub fn accessed(&self) -> (i64, u32) {
        (self.0.stx_atime.tv_sec, self.0.stx_atime.tv_nsec)
    }

    /// Whom it belongs to.
    pub fn owner(&self) -> UserId {
        UserId(self.0.stx_uid)
    }

    /// Who may do what with it.
    pub fn mode(&self) -> u32 {
        u32::from(self.0.stx_mode) & 0o7777
    }

    /// How many names it has.
    pub fn links(&self) -> u32 {
        self.0.stx_nlink
    }

    /// Whether a file system is mounted there. Its number would not say so everywhere: on overlayfs
    /// files have others than directories.
    pub fn is_mount_point(&self) -> bool {
        /// In include/uapi/linux/stat.h, since Linux 5.8.
        const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
        self.0.stx_attributes & STATX_ATTR_MOUNT_ROOT != 0
    }

    /// Device number (major, minor).
    pub fn device(&self) -> (u32, u32) {
        (self.0.stx_dev_major, self.0.stx_dev_minor)
    }

    /// Last status change, by the server's clock: seconds since the epoch and nanoseconds.
    pub fn changed(&self) -> (i64, u32) {
        (self.0.stx_ctime.tv_sec, self.0.stx_ctime.tv_nsec)
    }

    /// When it was made, if its file system keeps that, else the epoch: no copy has it.
    pub fn born(&self) -> (i64, u32) {
        (self.0.stx_btime.tv_sec, self.0.stx_btime.tv_nsec)
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.file_type() == libc::S_IFREG
    }

    /// Whether it is a symbolic link.
    pub fn is_symbolic_link(&self) -> bool {
        self.file_type() == libc::S_IFLNK
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.file_type() == libc::S_IFDIR
    }

    fn file_type(&self) -> u32 {
        u32::from(self.0.stx_mode) & libc::S_IFMT
    }
}
