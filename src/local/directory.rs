//! LISTINDEX, the user's local directory: opening it safely, and making it.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use crate::actor::Actor;
use crate::system::credentials::{GroupId, UserId};
use crate::system::entries::{Entries, open_directory};
use crate::system::file_status::file_type;
use crate::system::statx::Attributes;
use crate::system::umask::UmaskCleared;

/// Directories on the way to LISTINDEX: everybody may pass, nobody may look or write.
const PARENT: u32 = 0o711;
/// The last of them: everybody may make his own directory, and nobody can remove another's.
const LAST_PARENT: u32 = 0o1733;
/// How many times the directory is made before giving up.
const MOST_ATTEMPTS: u32 = 20;
/// The user's own.
const OWN: u32 = 0o700;

/// The user's LISTINDEX directory: open, a real directory, and the user's own.
#[derive(Debug)]
pub struct ListIndexDirectory {
    path: PathBuf,
    fd: OwnedFd,
    owner: UserId,
    /// As it was when it was opened by its path.
    attributes: Option<Attributes>,
}

/// Why the directory cannot be used. IMAP could not use it either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryError {
    /// Nothing is there (and nothing was made).
    Missing(PathBuf),
    /// It cannot be opened: a parent that may not be entered, something that is no directory.
    Unusable(PathBuf, Errno),
    /// A symbolic link is on the way that others than root can place there, or it is in the
    /// directory's place.
    SymbolicLink(PathBuf),
    /// It belongs to somebody else: owner and expected owner.
    ForeignOwner(PathBuf, UserId, UserId),
    /// It, or a parent of it, cannot be made.
    CannotMake(PathBuf, Errno),
}

impl std::error::Error for DirectoryError {}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{} does not exist", path.display()),
            Self::Unusable(path, errno) => {
                write!(
                    f,
                    "cannot open directory {}: {}",
                    path.display(),
                    errno.desc()
                )
            }
            Self::SymbolicLink(path) => {
                write!(f, "{} is or passes a symbolic link", path.display())
            }
            Self::ForeignOwner(path, owner, expected) => write!(
                f,
                "{} belongs to uid {}, not to the user's uid {}",
                path.display(),
                owner.0,
                expected.0
            ),
            Self::CannotMake(path, errno) => {
                write!(
                    f,
                    "cannot make directory {}: {}",
                    path.display(),
                    errno.desc()
                )
            }
        }
    }
}

impl ListIndexDirectory {
    /// Opens the directory `path` (absolute), which must belong to `owner`.
    ///
    /// # Errors
    /// [`DirectoryError::Missing`] if it or a parent is not there, others if it cannot be used.
    pub fn open(path: &Path, owner: UserId) -> Result<Self, DirectoryError> {
        let fd = open_without_links(path)?;
        let unusable = |errno| DirectoryError::Unusable(path.to_owned(), errno);
        let attributes = Attributes::of_local(&fd).map_err(unusable)?;
        if attributes.owner() != owner {
            return Err(DirectoryError::ForeignOwner(
                path.to_owned(),
                attributes.owner(),
                owner,
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            fd,
            owner,
            attributes: Some(attributes),
        })
    }

    /// An open directory that belongs to `owner`. `path` is its path, for messages.
    pub fn opened(fd: OwnedFd, owner: UserId, path: PathBuf) -> Self {
        Self {
            path,
            fd,
            owner,
            attributes: None,
        }
    }

    /// Opens the directory `name` of `parent` for listing, whoever owns it: work in it has to be done
    /// with the rights of its [`owner`](ListIndexDirectory::owner). `path` is its path,
    /// for messages.
    ///
    /// # Errors
    /// As [`ListIndexDirectory::open`].
    pub fn open_in(parent: &OwnedFd, name: &CStr, path: PathBuf) -> Result<Self, DirectoryError> {
        let fd = step(parent, name, true, &path)?;
        match fstat(&fd) {
            Ok(status) => Self::opened(fd, UserId(status.st_uid), path).for_listing(),
            Err(errno) => Err(DirectoryError::Unusable(path, errno)),
        }
    }

    /// The same directory, opened for listing.
    pub fn for_listing(self) -> Result<Self, DirectoryError> {
        match open_directory(&self.fd, c".") {
            Ok(fd) => Ok(Self { fd, ..self }),
            Err(errno) => Err(DirectoryError::Unusable(self.path, errno)),
        }
    }

    /// Opens the directory, after making it and its parents if they are missing.
    ///
    /// # Errors
    /// As [`ListIndexDirectory::open`], and if something cannot be made.
    pub fn open_or_make(path: &Path, actor: &Actor) -> Result<Self, DirectoryError> {
        // Several first logins at once may remove what the others are making.
        for _ in 0..MOST_ATTEMPTS {
            match Self::open(path, actor.user()) {
                Err(DirectoryError::Missing(_)) => make(path, actor)?,
                // Another login is making it, or was killed while it did.
                Err(DirectoryError::ForeignOwner(_, UserId(0), _)) if actor.root().is_some() => {
                    make(path, actor)?;
                }
                result => return result,
            }
        }
        Self::open(path, actor.user())
    }

    /// Its device number (major, minor) and inode number.
    ///
    /// # Errors
    /// If they are not known.
    pub fn device_and_inode(&self) -> Result<(u32, u32, u64), DirectoryError> {
        let attributes = self
            .attributes
            .map_or_else(|| Attributes::of_local(&self.fd), Ok);
        match attributes {
            Ok(attributes) => Ok(attributes.device_and_inode()),
            Err(errno) => Err(DirectoryError::Unusable(self.path.clone(), errno)),
        }
    }

    /// Whether it is the same directory, by whatever path.
    ///
    /// # Errors
    /// If nobody knows.
    pub fn is_same_as(&self, other: &Self) -> Result<bool, DirectoryError> {
        Ok(self.device_and_inode()? == other.device_and_inode()?)
    }

    /// Whom it belongs to.
    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in it, for messages.
    pub fn path_of(&self, name: &CStr) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.to_bytes()))
    }

    /// The open directory, for working in it.
    pub fn as_fd(&self) -> &OwnedFd {
        &self.fd
    }
}

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Opens the directory `path` (absolute), whoever it belongs to, for working in it by name.
///
/// One system call where no link is on the way, which is nearly always.
pub fn open_without_links(path: &Path) -> Result<OwnedFd, DirectoryError> {
    let how = OpenHow::new()
        .flags(DIRECTORY)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT) => Err(DirectoryError::Missing(path.to_owned())),
        // A link on the way that root made (/dev/shm may be one), an old kernel, or a filter; or
        // something that is no directory, and if that is a link, it should be said.
        Err(Errno::ELOOP | Errno::ENOSYS | Errno::EPERM | Errno::ENOTDIR) => walk(path),
        Err(errno) => Err(DirectoryError::Unusable(path.to_owned(), errno)),
    }
}

/// Opens `path` one component after the other; on the way, only links of root's are followed, in
/// directories of root's own.
#[cold]
fn walk(path: &Path) -> Result<OwnedFd, DirectoryError> {
    let mut names = components(path)?.into_iter().peekable();
    let mut directory = open_root(path)?;
    while let Some(name) = names.next() {
        directory = step(&directory, &name, names.peek().is_none(), path)?;
    }
    Ok(directory)
}

fn step(
    directory: &OwnedFd,
    name: &CStr,
    last: bool,
    path: &Path,
) -> Result<OwnedFd, DirectoryError> {
    let unusable = |errno| match errno {
        Errno::ENOENT => DirectoryError::Missing(path.to_owned()),
        errno => DirectoryError::Unusable(path.to_owned(), errno),
    };
    match openat(directory, name, DIRECTORY, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            let status =
                fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(unusable)?;
            if file_type(&status) != SFlag::S_IFLNK {
                return Err(unusable(Errno::ENOTDIR));
            }
            // In a directory of others, a link of root's may have been moved or linked there.
            if last || status.st_uid != 0 || !is_roots_own(directory).map_err(unusable)? {
                return Err(DirectoryError::SymbolicLink(path.to_owned()));
            }
            let follow = DIRECTORY.difference(OFlag::O_NOFOLLOW);
            openat(directory, name, follow, Mode::empty()).map_err(unusable)
        }
        Err(errno) => Err(unusable(errno)),
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, DirectoryError> {
    open(c"/", DIRECTORY, Mode::empty())
        .map_err(|errno| DirectoryError::Unusable(path.to_owned(), errno))
}

fn components(path: &Path) -> Result<Vec<CString>, DirectoryError> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name)),
            Component::RootDir | Component::CurDir => None,
            Component::ParentDir | Component::Prefix(_) => Some(Err(Errno::EINVAL)),
        })
        .map(|name| CString::new(name?.as_bytes()).map_err(|_| Errno::EINVAL))
        .collect::<Result<_, Errno>>()
        .map_err(|errno| DirectoryError::Unusable(path.to_owned(), errno))
}

/// Makes `path` and whatever is missing above it.
///
/// As root, parents are made only where nobody but root can interfere, and the user's directory
/// becomes the user's. As the mail user everything is made as Dovecot itself would: 0700.
#[cold]
fn make(path: &Path, actor: &Actor) -> Result<(), DirectoryError> {
    let names = components(path)?;
    let Some((own, parents)) = names.split_last() else {
        return Err(DirectoryError::Unusable(path.to_owned(), Errno::EINVAL));
    };
    // script-login's umask is 0077: the parents' modes must not depend on it, and must be right
    // from the first moment, since another login may come in between.
    let _umask = UmaskCleared::clear();
    let mut directory = open_root(path)?;
    for (position, name) in parents.iter().enumerate() {
        let mode = if position + 1 == parents.len() {
            LAST_PARENT
        } else {
            PARENT
        };
        directory = enter_or_make(&directory, name, mode, path, actor)?;
    }
    make_own(&directory, own, path, actor)
}

fn enter_or_make(
    directory: &OwnedFd,
    name: &CStr,
    mode: u32,
    path: &Path,
    actor: &Actor,
) -> Result<OwnedFd, DirectoryError> {
    match step(directory, name, false, path) {
        Err(DirectoryError::Missing(_)) => {}
        result => return result,
    }
    let cannot = |errno| DirectoryError::CannotMake(path.to_owned(), errno);
    let made = match actor.root() {
        Some(root) if is_roots_own(directory).map_err(cannot)? => {
            root.run(|| mkdirat(directory, name, Mode::from_bits_truncate(mode)))
        }
        _ => mkdirat(directory, name, Mode::from_bits_truncate(OWN)),
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => step(directory, name, false, path),
        Err(errno) => Err(cannot(errno)),
    }
}

fn make_own(
    directory: &OwnedFd,
    name: &CStr,
    path: &Path,
    actor: &Actor,
) -> Result<(), DirectoryError> {
    let made = mkdirat(directory, name, Mode::from_bits_truncate(OWN));
    match (made, actor.root()) {
        (Err(errno @ (Errno::EACCES | Errno::EEXIST)), Some(root)) => root.run(|| {
            if is_roots_own(directory)? {
                make_for_user(directory, name, actor.user(), root.group)
            } else {
                Err(errno)
            }
        }),
        (made, _) => made,
    }
    .or_else(|errno| match errno {
        // Another login was faster, or removed what this one was just making.
        Errno::EEXIST | Errno::ENOENT => Ok(()),
        errno => Err(DirectoryError::CannotMake(path.to_owned(), errno)),
    })
}

/// As root, in a directory that is root's own. Until it is the user's it is as root made it, and
/// any login of his goes on from there, should the one that made it be killed.
fn make_for_user(
    directory: &OwnedFd,
    name: &CStr,
    user: UserId,
    group: GroupId,
) -> nix::Result<()> {
    match mkdirat(directory, name, Mode::from_bits_truncate(OWN)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let fd = openat(
        directory,
        name,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    if is_just_made(&fd)? {
        let (user, group) = (Uid::from_raw(user.0), Gid::from_raw(group.0));
        fchown(&fd, Some(user), Some(group))?;
    }
    Ok(())
}

/// Whether this is what a login leaves that is killed before it gave the directory to its user.
fn is_just_made(directory: &OwnedFd) -> nix::Result<bool> {
    let status = fstat(directory)?;
    let is_as_made = status.st_uid == 0 && status.st_mode & 0o7777 == OWN;
    let mut entries = Entries::default();
    Ok(is_as_made && (!entries.read(directory)? || entries.iter().next().is_none()))
}

/// Whether nobody but root can make, replace or remove root's entries in `directory`.
pub fn is_roots_own(directory: impl AsFd) -> nix::Result<bool> {
    let status = fstat(directory)?;
    let mode = Mode::from_bits_truncate(status.st_mode);
    let writable_by_others = mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(status.st_uid == 0 && (!writable_by_others || mode.contains(Mode::S_ISVTX)))
}
