//! INDEX, the user's index directory on NFS: the forced look at it.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::names::{SHARED_LOG, SHARED_PREFIX};
use crate::nfs::identity::{Identity, Version};
use crate::system::file_status::is_regular;
use crate::system::statx::Attributes;

/// What the configuration says about list indexes in INDEX.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Migration {
    /// Ignore them.
    #[default]
    Off,
    /// Take them over.
    On,
    /// Unknown, because the configuration cannot be used. There may be one that is newer than the
    /// local one.
    Unknown,
}

/// A list index in INDEX: one that the user's own sessions wrote before there were local ones, or
/// that another namespace, another user or a backend without this program writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedListIndex {
    /// Nobody looked: it is ignored.
    Ignored,
    /// There is none.
    None,
    /// `dovecot.list.index` without its `.log`: what an interrupted migration leaves.
    Litter,
    /// `dovecot.list.index.log` exists, in this version.
    Present(Version),
}

impl SharedListIndex {
    /// The version of the `.log`, if there is one.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Present(version) => Some(version),
            Self::Ignored | Self::None | Self::Litter => None,
        }
    }
}

/// What one forced look at INDEX showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The inode number of INDEX.
    pub index: u64,
    /// The claim that stands, if there is one.
    pub claim: Option<Identity>,
    /// A list index to migrate.
    pub shared_list_index: SharedListIndex,
}

/// Why INDEX does not show which backend has the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexError {
    /// There is no INDEX: a new user's first login, or NFS is not mounted.
    Missing(PathBuf),
    /// The attributes of INDEX or of a file in it could not be read.
    Unreadable(PathBuf, Errno),
    /// The claim's name is taken by something that is not a regular file.
    NotAFile(PathBuf),
    /// The claim could not be written.
    ClaimFailed(PathBuf, Errno),
    /// A file of the shared list index could not be deleted.
    Undeletable(PathBuf, Errno),
}

impl std::error::Error for IndexError {}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                f,
                "{} does not exist (a new user's first login, or NFS is not mounted)",
                path.display()
            ),
            Self::Unreadable(path, errno) => {
                write!(f, "cannot look at {}: {}", path.display(), errno.desc())
            }
            Self::NotAFile(path) => {
                write!(f, "{} is not a regular file; move it away", path.display())
            }
            Self::ClaimFailed(path, errno) => {
                write!(f, "cannot write {}: {}", path.display(), errno.desc())
            }
            Self::Undeletable(path, errno) => {
                write!(f, "cannot delete {}: {}", path.display(), errno.desc())
            }
        }
    }
}

/// Where INDEX is and what the claim in it is called.
#[derive(Debug, Clone)]
pub struct Index {
    /// INDEX as Dovecot resolves it; a symbolic link in it is followed, with the user's rights.
    pub path: PathBuf,
    /// `.lasthost`, or `dovecot.lasthost` where a dot name would be a folder's.
    pub claim_name: CString,
    /// What to do with a list index in INDEX.
    pub migration: Migration,
}

impl Index {
    /// The path of `name` in INDEX, for messages.
    pub fn path_of(&self, name: &CStr) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
    }

    /// Looks at INDEX past every cache; one NFS GETATTR if nothing changed.
    ///
    /// # Errors
    /// If INDEX does not exist or cannot be read. After ESTALE, which is the answer for a directory
    /// that was replaced on the server, it is tried once more.
    pub fn look(&self) -> Result<(IndexDirectory<'_>, Look), IndexError> {
        match self.look_once() {
            Err(IndexError::Unreadable(_, Errno::ESTALE)) => {
                // open(2) with O_PATH asks no server, so it would find the same stale directory
                // again. Asking by path makes the kernel look up each name on the way again.
                let _ = Attributes::of_path(&self.path);
                self.look_once()
            }
            Err(IndexError::Missing(_)) => {
                self.force_the_way();
                self.look_once()
            }
            result => result,
        }
    }

    /// Makes the client forget that something on the way to INDEX did not exist: it has that from
    /// an earlier look, and another backend may have made it since. Asking for a directory that is
    /// there does so for the names in it: the deepest one first, then what is found in that.
    #[cold]
    fn force_the_way(&self) {
        let exists = |path: &&Path| Attributes::of_path(path).is_ok();
        let deepest_first: Vec<&Path> = self.path.ancestors().collect();
        if let Some(found) = deepest_first.iter().position(exists) {
            let deeper = deepest_first[..found].iter().rev();
            let _ = deeper.copied().take_while(exists).count();
        }
    }

    fn look_once(&self) -> Result<(IndexDirectory<'_>, Look), IndexError> {
        let directory = IndexDirectory::open(self)?;
        let look = directory.look()?;
        Ok((directory, look))
    }
}

/// INDEX, open.
#[derive(Debug)]
pub struct IndexDirectory<'a> {
    index: &'a Index,
    fd: OwnedFd,
    attributes: Attributes,
}

impl<'a> IndexDirectory<'a> {
    fn open(index: &'a Index) -> Result<Self, IndexError> {
        // O_PATH sends nothing to the server by itself; the forced statx on the descriptor is
        // the one question. It also makes the client drop what it believes about names in the
        // directory if the directory changed, so the look-ups that follow are right.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd =
            openat(AT_FDCWD, &index.path, flags, Mode::empty()).map_err(|errno| match errno {
                Errno::ENOENT => IndexError::Missing(index.path.clone()),
                errno => IndexError::Unreadable(index.path.clone(), errno),
            })?;
        let attributes = Attributes::of(&fd)
            .map_err(|errno| IndexError::Unreadable(index.path.clone(), errno))?;
        Ok(IndexDirectory {
            index,
            fd,
            attributes,
        })
    }

    /// Which directory this is, to tell whether LISTINDEX is the same one.
    pub fn device_and_inode(&self) -> (u32, u32, u64) {
        self.attributes.device_and_inode()
    }

    fn look(&self) -> Result<Look, IndexError> {
        Ok(Look {
            index: self.attributes.inode(),
            claim: self.claim()?,
            shared_list_index: self.shared_list_index()?,
        })
    }

    fn claim(&self) -> Result<Option<Identity>, IndexError> {
        let name = &self.index.claim_name;
        // A server that keeps whole seconds shows two changes within one second as one: then
        // the directory cannot tell, and the claim itself must be asked for.
        let claim = if self.attributes.changed().1 == 0 {
            match Attributes::of_name(&self.fd, name) {
                Ok(attributes) if !attributes.is_regular() => {
                    return Err(IndexError::NotAFile(self.index.path_of(name)));
                }
                Ok(attributes) => Some(Identity::of(&attributes)),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(self.unreadable(name, errno)),
            }
        } else {
            self.status_of(name)?
                .map(|status| {
                    if is_regular(&status) {
                        Ok(Identity::of_status(&status))
                    } else {
                        Err(IndexError::NotAFile(self.index.path_of(name)))
                    }
                })
                .transpose()?
        };
        Ok(claim)
    }

    fn shared_list_index(&self) -> Result<SharedListIndex, IndexError> {
        if self.index.migration == Migration::Off {
            return Ok(SharedListIndex::Ignored);
        }
        let is_file = |name| Ok(self.status_of(name)?.as_ref().is_some_and(is_regular));
        // Files that Dovecot appends to do not change their directory, so a look at that is not enough.
        let log = match is_file(SHARED_LOG)? {
            true => self.version_of(SHARED_LOG)?,
            false => None,
        };
        Ok(if let Some(version) = log {
            SharedListIndex::Present(version)
        } else if self.index.migration == Migration::On && is_file(SHARED_PREFIX)? {
            SharedListIndex::Litter
        } else {
            SharedListIndex::None
        })
    }

    /// The present version of `name` as the server has it, `None` if there is no such file.
    pub fn version_of(&self, name: &CStr) -> Result<Option<Version>, IndexError> {
        match Attributes::of_name(&self.fd, name) {
            Ok(attributes) => Ok(Some(Version {
                identity: Identity::of(&attributes),
                size: attributes.size(),
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.unreadable(name, errno)),
        }
    }

    /// Whether there is something called `name`.
    pub fn has(&self, name: &CStr) -> Result<bool, IndexError> {
        Ok(self.status_of(name)?.is_some())
    }

    /// What the client knows of `name`.
    pub fn status_of(&self, name: &CStr) -> Result<Option<FileStat>, IndexError> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.unreadable(name, errno)),
        }
    }

    fn unreadable(&self, name: &CStr, errno: Errno) -> IndexError {
        IndexError::Unreadable(self.index.path_of(name), errno)
    }

    /// What the claim is called.
    pub fn claim_name(&self) -> &CStr {
        &self.index.claim_name
    }

    /// Opens a file of the shared list index for copying.
    pub fn open_file(&self, name: &CStr) -> nix::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags, Mode::empty()).map(File::from)
    }

    /// Deletes a file of the shared list index; one that is gone already is fine.
    pub fn delete(&self, name: &CStr) -> Result<(), IndexError> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(IndexError::Undeletable(self.index.path_of(name), errno)),
        }
    }

    /// The directory itself, for listing it.
    pub fn as_fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Path of INDEX, for messages.
    pub fn path(&self) -> &Path {
        &self.index.path
    }

    /// Path of `name` in INDEX, for messages.
    pub fn path_of(&self, name: &CStr) -> PathBuf {
        self.index.path_of(name)
    }
}
