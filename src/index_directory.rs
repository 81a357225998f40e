//! INDEX, the user's index directory on NFS, and the claim in it.
//!
//! Every backend that serves the user puts a new file here, the *claim*. Its inode number and
//! modification time, not its text, tell whether somebody else has claimed the user since.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::config::HostName;
use crate::system::credentials::effective_user;
use crate::system::statx::Attributes;

/// What tells one claim from every other: inode number and modification time in nanoseconds.
///
/// Neither suffices alone: a file server gives the number of a deleted file to the next one at
/// once, and time stamps can be coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Modification time, seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds of the modification time.
    pub nanoseconds: u32,
}

impl Identity {
    fn of(attributes: &Attributes) -> Identity {
        let (seconds, nanoseconds) = attributes.modified();
        Identity {
            inode: attributes.inode(),
            seconds,
            nanoseconds,
        }
    }

    /// Seconds from the making of the claim, by the clock of the backend that made it, to `now`;
    /// negative if that clock is ahead.
    pub fn age_at(&self, now: SystemTime) -> i64 {
        seconds_of(now).0.saturating_sub(self.seconds)
    }
}

/// What a claim says. Nothing is compared with it: it is for people, and for a migration that has
/// to be finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimText {
    /// The backend that claimed.
    pub host: String,
    /// Whether it did so in order to take over the list index in INDEX.
    pub migrating: bool,
}

/// The second line of a migration's claim.
const MIGRATING: &str = "migrating";

impl ClaimText {
    fn parse(text: &[u8]) -> ClaimText {
        let text = String::from_utf8_lossy(text);
        let mut lines = text.lines();
        ClaimText {
            host: lines.next().unwrap_or_default().to_owned(),
            migrating: lines.next() == Some(MIGRATING),
        }
    }

    /// Whether `text` is a claim's, and nothing besides.
    pub fn is(text: &str) -> bool {
        let claim = ClaimText::parse(text.as_bytes());
        claim.to_string() == text && HostName::try_from(claim.host).is_ok()
    }
}

impl fmt::Display for ClaimText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.host)?;
        if self.migrating {
            writeln!(f, "{MIGRATING}")?;
        }
        Ok(())
    }
}

/// A list index that a Dovecot without local list indexes left in INDEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedListIndex {
    /// There is none, or it is nobody's business.
    None,
    /// `dovecot.list.index` without its `.log`: what an interrupted migration leaves.
    Litter,
    /// `dovecot.list.index.log` is there: a Dovecot without this program uses it.
    InUse,
}

/// What a file looks like as long as nobody writes to it: identity and size in bytes.
pub type Version = (Identity, u64);

/// What one forced look at INDEX showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The claim that stands, if there is one.
    pub claim: Option<Identity>,
    /// A list index to migrate.
    pub shared_list_index: SharedListIndex,
}

/// Why INDEX cannot say who holds the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexError {
    /// There is no INDEX: a new user's first login, or NFS is not mounted.
    Missing(PathBuf),
    /// INDEX or a file in it could not be looked at.
    Unreadable(PathBuf, Errno),
    /// The claim's name is taken by something that is not a regular file.
    NotAFile(PathBuf),
    /// The claim could not be written.
    ClaimFailed(PathBuf, Errno),
    /// A file of the shared list index could not be deleted.
    Undeletable(PathBuf, Errno),
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexError::Missing(path) => write!(
                f,
                "{} does not exist (a new user's first login, or NFS is not mounted)",
                path.display()
            ),
            IndexError::Unreadable(path, errno) => {
                write!(f, "cannot look at {}: {}", path.display(), errno.desc())
            }
            IndexError::NotAFile(path) => {
                write!(f, "{} is not a regular file; move it away", path.display())
            }
            IndexError::ClaimFailed(path, errno) => {
                write!(f, "cannot write {}: {}", path.display(), errno.desc())
            }
            IndexError::Undeletable(path, errno) => {
                write!(f, "cannot delete {}: {}", path.display(), errno.desc())
            }
        }
    }
}

/// The names that a Dovecot without LISTINDEX gives to the list index in INDEX.
pub const SHARED_PREFIX: &CStr = c"dovecot.list.index";
/// The file without which there is no list index.
pub const SHARED_LOG: &CStr = c"dovecot.list.index.log";

/// What the administrator said about list indexes in INDEX.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Migration {
    /// They are nobody's business.
    #[default]
    Off,
    /// They are to be taken over.
    On,
    /// Unknown: the configuration cannot be used. One may be there that is newer than the local
    /// one.
    Unknown,
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
    /// If INDEX is not there or cannot be vouched for. ESTALE, which a directory gives that was
    /// replaced on the server, is tried again.
    pub fn look(&self) -> Result<(IndexDirectory<'_>, Look), IndexError> {
        match self.look_once() {
            Err(IndexError::Unreadable(_, Errno::ESTALE)) => {
                // Opening asks nobody, so it would find the same stale directory again. Asking by
                // path makes the kernel look every name on the way up anew.
                let _ = Attributes::of_path(&self.path);
                self.look_once()
            }
            result => result,
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
    fn open(index: &'a Index) -> Result<IndexDirectory<'a>, IndexError> {
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
                        Ok(identity_of(&status))
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
            return Ok(SharedListIndex::None);
        }
        let is_file = |name| Ok(self.status_of(name)?.as_ref().is_some_and(is_regular));
        Ok(if is_file(SHARED_LOG)? {
            SharedListIndex::InUse
        } else if self.index.migration == Migration::On && is_file(SHARED_PREFIX)? {
            SharedListIndex::Litter
        } else {
            SharedListIndex::None
        })
    }

    /// The present version of `name` as the server has it, `None` if there is no such file. Files
    /// that Dovecot appends to do not change their directory, so a look at that is not enough.
    pub fn version_of(&self, name: &CStr) -> Result<Option<Version>, IndexError> {
        match Attributes::of_name(&self.fd, name) {
            Ok(attributes) => Ok(Some((Identity::of(&attributes), attributes.size()))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.unreadable(name, errno)),
        }
    }

    fn status_of(&self, name: &CStr) -> Result<Option<FileStat>, IndexError> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.unreadable(name, errno)),
        }
    }

    fn unreadable(&self, name: &CStr, errno: Errno) -> IndexError {
        IndexError::Unreadable(self.index.path_of(name), errno)
    }

    /// When `name` was last changed, by the server's clock, past every cache.
    pub fn changed_at(&self, name: &CStr) -> Result<(i64, u32), IndexError> {
        Attributes::of_name(&self.fd, name)
            .map(|attributes| attributes.changed())
            .map_err(|errno| self.unreadable(name, errno))
    }

    /// What the standing claim says; `None` if it cannot be read.
    pub fn claim_text(&self) -> Option<ClaimText> {
        // Opened for writing too: for reading alone a server lends a delegation, which has to be
        // given back when the file is replaced a moment later.
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, self.claim_name(), flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        // A longer one is not ours.
        File::from(file).take(256).read_to_end(&mut text).ok()?;
        Some(ClaimText::parse(&text))
    }

    /// What the claim is called.
    pub fn claim_name(&self) -> &CStr {
        &self.index.claim_name
    }

    /// Claims the user for the backend `host`: from now on no older record equals the claim.
    ///
    /// Always a new file by rename: a file rewritten in place keeps its number, and other
    /// clients' cached looks at the directory would not notice. The identity comes from the
    /// descriptor, because by path another backend's claim might already be found.
    ///
    /// # Errors
    /// If the claim was not made, as on a full or read-only file system.
    pub fn claim_for(
        &self,
        host: &HostName,
        migrating: bool,
        replaced: Option<Identity>,
    ) -> Result<Identity, IndexError> {
        let name = &self.index.claim_name;
        let failed = |errno| IndexError::ClaimFailed(self.index.path_of(name), errno);
        let temporary = self.temporary_name(host);
        let file = self.create(&temporary).map_err(failed)?;
        let text = ClaimText {
            host: host.to_string(),
            migrating,
        };
        let made = self
            .fill(file, &text, replaced)
            .and_then(|identity| {
                renameat(&self.fd, temporary.as_c_str(), &self.fd, name.as_c_str())?;
                Ok(identity)
            })
            .map_err(failed);
        if made.is_err() {
            let _ = unlinkat(&self.fd, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
        made
    }

    /// One name for each backend, so that the next claim from here clears away what a crash left.
    fn temporary_name(&self, host: &HostName) -> CString {
        let mut name = self.index.claim_name.as_bytes().to_vec();
        name.push(b'.');
        name.extend_from_slice(host.as_str().as_bytes());
        // A host name holds visible ASCII characters only, so no NUL byte is ever cut off here.
        CString::new(name).unwrap_or_else(|_| self.index.claim_name.clone())
    }

    /// A new file. Without O_EXCL at first: with it, NFS keeps a verifier in the file's times, and
    /// it takes one more call to put those right. What a crash left, or something else that is in
    /// the way, is removed.
    fn create(&self, name: &CStr) -> nix::Result<OwnedFd> {
        let open = |exclusive| {
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_NOFOLLOW
                | OFlag::O_NONBLOCK
                | OFlag::O_CLOEXEC
                | exclusive;
            openat(&self.fd, name, flags, Mode::from_bits_truncate(0o600))
        };
        let refused = match open(OFlag::empty()) {
            Ok(file) if is_new(&fstat(&file)?) => return Ok(file),
            Ok(_) => Errno::EEXIST,
            Err(errno) => errno,
        };
        // If there is nothing to be removed, it was the directory that refused.
        unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir).map_err(|_| refused)?;
        open(OFlag::O_EXCL)
    }

    fn fill(
        &self,
        file: OwnedFd,
        text: &ClaimText,
        replaced: Option<Identity>,
    ) -> nix::Result<Identity> {
        let mut file = File::from(file);
        file.write_all(text.to_string().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        // Set by us, and last: a delegation or the server's clock cannot move it later.
        let modified = modification_time(replaced);
        futimens(&file, &TimeSpec::UTIME_OMIT, &modified)?;
        // The server's answer to that brought the attributes along as it keeps them.
        Ok(identity_of(&fstat(&file)?))
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

/// Now, but later than the claim that is replaced: a server with whole seconds may give the new
/// file the inode number of one that was claimed within the same second.
fn modification_time(replaced: Option<Identity>) -> TimeSpec {
    let now = seconds_of(SystemTime::now());
    let (seconds, nanoseconds) = match replaced {
        // Without nanoseconds it may stand for any moment of its second.
        Some(old) if old.nanoseconds == 0 && old.seconds >= now.0 => {
            (old.seconds.saturating_add(1), 0)
        }
        Some(old) if (old.seconds, old.nanoseconds) >= now => (old.seconds.saturating_add(1), 0),
        _ => now,
    };
    TimeSpec::new(seconds, nanoseconds.into())
}

/// Seconds since the epoch and nanoseconds; the epoch itself for a clock that is before it.
fn seconds_of(time: SystemTime) -> (i64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        since.subsec_nanos(),
    )
}

/// Whether a file is as good as one that was just made: nobody else's, with no other name, and
/// with nothing in it.
fn is_new(status: &FileStat) -> bool {
    is_regular(status)
        && status.st_size == 0
        && status.st_nlink == 1
        && status.st_uid == effective_user().0
}

fn is_regular(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

fn identity_of(status: &FileStat) -> Identity {
    Identity {
        inode: status.st_ino,
        seconds: status.st_mtime,
        // The kernel keeps it below 1,000,000,000.
        nanoseconds: status.st_mtime_nsec as u32,
    }
}
