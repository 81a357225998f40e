//! The lock of a LISTINDEX directory: flock(2) on the lock file in it.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::local::directory::ListIndexDirectory;
use crate::local::seat::Seat;
use crate::names::LOCK_FILE;
use crate::system::entries::open_here;
use crate::system::statx::Attributes;

/// Between two attempts to get a lock.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A lock that is held for longer is waited for by only a few logins of one user.
const HELD_LONG: Duration = Duration::from_millis(1500);

/// Why the lock file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockError {
    /// Another login or a cleaner kept it.
    TimedOut(PathBuf),
    /// A symbolic link, a directory, a FIFO, or a file with a second name.
    NotAFile(PathBuf),
    /// It could not be opened, locked, read or written.
    Failed(PathBuf, Errno),
    /// The directory itself was removed.
    DirectoryGone(PathBuf),
    /// There is none, and none was to be made.
    Missing(PathBuf),
    /// It is no longer in the directory: another login has made a new one.
    Lost(PathBuf),
}

impl std::error::Error for LockError {}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(path) => {
                write!(f, "timed out waiting for the lock on {}", path.display())
            }
            Self::NotAFile(path) => write!(
                f,
                "{} is not a regular file with one name; remove it",
                path.display()
            ),
            Self::Failed(path, errno) => {
                write!(f, "cannot use {}: {}", path.display(), errno.desc())
            }
            Self::DirectoryGone(path) => {
                write!(
                    f,
                    "cannot make {}: its directory was removed",
                    path.display()
                )
            }
            Self::Missing(path) => write!(f, "{} does not exist", path.display()),
            Self::Lost(path) => write!(f, "{} was removed while in use", path.display()),
        }
    }
}

/// How long one login waits for locks, all of them together. The clock starts when it has to wait
/// for the first time; most never do.
#[derive(Debug)]
pub struct Deadline {
    wait: Duration,
    end: Cell<Option<Instant>>,
}

impl Deadline {
    /// `wait` from the first time on.
    pub fn after(wait: Duration) -> Self {
        Self {
            wait,
            end: Cell::new(None),
        }
    }

    /// Whether it is over.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// What is left of it.
    pub fn remaining(&self) -> Duration {
        let now = Instant::now();
        let end = self.end.get().unwrap_or_else(|| {
            // A wait past the end of time: a year will do.
            let year = Duration::from_secs(31_536_000);
            now.checked_add(self.wait).unwrap_or(now + year)
        });
        self.end.set(Some(end));
        end.saturating_duration_since(now)
    }
}

/// How the directory is locked: [`Shared`] or [`Exclusive`].
pub trait Kind {
    /// Takes the lock, or says [`io::ErrorKind::WouldBlock`].
    fn try_lock(file: &File) -> io::Result<()>;
}

/// The record may be read and used.
#[derive(Debug)]
pub enum Shared {}

/// The directory may be changed.
#[derive(Debug)]
pub enum Exclusive {}

impl Kind for Shared {
    fn try_lock(file: &File) -> io::Result<()> {
        fs2::FileExt::try_lock_shared(file)
    }
}

impl Kind for Exclusive {
    fn try_lock(file: &File) -> io::Result<()> {
        fs2::FileExt::try_lock_exclusive(file)
    }
}

/// The lock file of a LISTINDEX directory, locked with flock(2) and still in the directory when
/// the lock was taken. The lock belongs to the descriptor, so it ends with the process at the latest.
#[derive(Debug)]
pub struct Lock<'a, K> {
    directory: &'a ListIndexDirectory,
    file: File,
    /// As it was when the lock was taken.
    attributes: Attributes,
    kind: PhantomData<K>,
}

impl<'a, K: Kind> Lock<'a, K> {
    /// Locks `directory`; makes the lock file if it is missing.
    ///
    /// # Errors
    /// If the lock is not free by `deadline`, or the lock file cannot be used.
    pub fn acquire(
        directory: &'a ListIndexDirectory,
        deadline: &Deadline,
    ) -> Result<Self, LockError> {
        loop {
            let file = open(directory, OFlag::O_CREAT)?;
            if let Some(lock) = Lock::wait(directory, file, deadline)? {
                return Ok(lock);
            }
        }
    }

    /// Locks `directory` if it has a lock file and nobody holds that now. Reading the content
    /// leaves the access time as it is.
    ///
    /// # Errors
    /// [`LockError::Missing`] if there is none, [`LockError::TimedOut`] if somebody holds it.
    pub fn acquire_existing(directory: &'a ListIndexDirectory) -> Result<Self, LockError> {
        loop {
            // A cleaner must not make the user's last login look later than it was.
            let file = open(directory, OFlag::O_NOATIME)?;
            if let Some(lock) = Lock::wait(directory, file, &Deadline::after(Duration::ZERO))? {
                return Ok(lock);
            }
        }
    }

    /// `None` if the file that was locked in the end is not the directory's any more: whoever
    /// removed it had the exclusive lock, and the directory has to be looked at again.
    fn wait(
        directory: &'a ListIndexDirectory,
        file: File,
        deadline: &Deadline,
    ) -> Result<Option<Self>, LockError> {
        wait_in_line::<K>(directory, &file, deadline).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => LockError::TimedOut(path(directory)),
            _ => failed(directory, errno_of(error)),
        })?;
        let attributes = attributes_of(directory, &file)?;
        if !attributes.is_regular() || attributes.links() > 1 {
            return Err(LockError::NotAFile(path(directory)));
        }
        Ok((attributes.links() == 1).then_some(Lock {
            directory,
            file,
            attributes,
            kind: PhantomData,
        }))
    }

    /// Whether the locked file is still the one in the directory. It has its name there or none, since
    /// nobody moves it.
    pub fn is_current(&self) -> Result<bool, LockError> {
        Ok(attributes_of(self.directory, &self.file)?.links() > 0)
    }

    /// Notes that the user logged in now, as the file's access time. Explicitly: reading does not
    /// set it on file systems mounted noatime or relatime.
    pub fn mark_used(&self) -> Result<(), LockError> {
        futimens(&self.file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_OMIT)
            .map_err(|errno| failed(self.directory, errno))
    }

    /// Whether that was noted not longer than `time` ago when the lock was taken.
    pub fn was_marked_within(&self, time: Duration) -> bool {
        let (seconds, nanoseconds) = self.attributes.accessed();
        let noted = u64::try_from(seconds).map(|seconds| Duration::new(seconds, nanoseconds));
        let noted = noted.ok().and_then(|noted| UNIX_EPOCH.checked_add(noted));
        // A time in the future was set by a wrong clock.
        let age = noted.and_then(|noted| SystemTime::now().duration_since(noted).ok());
        age.is_some_and(|age| age <= time)
    }

    /// The lock file's attributes when the lock was taken: its access time was the user's last
    /// login here.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The lock file itself: what it says is the business of [`record`](crate::local::record).
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// `error`, as one of this lock file.
    pub(crate) fn failed(&self, error: io::Error) -> LockError {
        failed(self.directory, errno_of(error))
    }

    /// The locked directory.
    pub fn directory(&self) -> &'a ListIndexDirectory {
        self.directory
    }
}

impl<'a> Lock<'a, Shared> {
    /// Exchanges the shared lock for the exclusive one. Others may hold it in between (flock(2): a
    /// conversion is not atomic), so whatever was read before has to be read again.
    pub fn into_exclusive(self, deadline: &Deadline) -> Result<Lock<'a, Exclusive>, LockError> {
        match Lock::wait(self.directory, self.file, deadline)? {
            Some(lock) => Ok(lock),
            None => Lock::acquire(self.directory, deadline),
        }
    }
}

impl Lock<'_, Exclusive> {
    /// Makes sure that the directory is still ours to change. A login that waited too long for the
    /// lock removes its file, and whoever comes then locks a new one; so after every wait for NFS
    /// this is asked before anything here is touched.
    pub fn confirm(&self) -> Result<(), LockError> {
        if self.is_current()? {
            Ok(())
        } else {
            Err(LockError::Lost(path(self.directory)))
        }
    }

    /// Removes the lock file, as the last thing under the lock: whoever waits for it starts again.
    ///
    /// # Errors
    /// If it cannot be removed, or is not in the directory any more.
    pub fn remove(self) -> Result<(), LockError> {
        if self.is_current()? {
            take_away(self.directory)
        } else {
            Err(LockError::Lost(path(self.directory)))
        }
    }
}

/// Takes the lock file away from whoever holds its lock for too long: what he records is lost.
///
/// Whoever does this must have left his [sign](crate::local::sign) before. Then nothing that is
/// recorded beside him lasts: what is in this file goes with it, and whoever makes the next one
/// finds the sign.
///
/// # Errors
/// If it cannot be removed.
pub fn take_away(directory: &ListIndexDirectory) -> Result<(), LockError> {
    match unlinkat(directory.as_fd(), LOCK_FILE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed(directory, errno)),
    }
}

/// Waits for the lock on `file`. If it is held for long, only a few logins go on waiting: each of them
/// occupies one of Dovecot's processes, which other users may need.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if it was not released in time.
fn wait_in_line<K: Kind>(
    directory: &ListIndexDirectory,
    file: &File,
    deadline: &Deadline,
) -> io::Result<()> {
    let is_held = |result: &io::Result<()>| {
        let blocks = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        result.as_ref().is_err_and(blocks) && !deadline.has_passed()
    };
    let always = || true;
    let first = wait_for::<K>(file, Duration::ZERO, always);
    // Three others have waited for long already, or nobody may.
    if !is_held(&first) || Seat::are_all_taken(directory) {
        return first;
    }
    let second = wait_for::<K>(file, deadline.remaining().min(HELD_LONG), always);
    if !is_held(&second) {
        return second;
    }
    match Seat::take(directory) {
        Some(seat) => wait_for::<K>(file, deadline.remaining(), || seat.is_there()),
        None => second,
    }
}

/// Tries to lock `file` for as long as `patience`, and while the caller `may_wait`.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if it was never free.
fn wait_for<K: Kind>(
    file: &File,
    patience: Duration,
    may_wait: impl Fn() -> bool,
) -> io::Result<()> {
    let deadline = Deadline::after(patience);
    let mut pause = SHORTEST_PAUSE;
    loop {
        match K::try_lock(file) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let remaining = deadline.remaining();
                if remaining.is_zero() || !may_wait() {
                    return Err(error);
                }
                std::thread::sleep(pause.min(remaining));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

fn open(directory: &ListIndexDirectory, further: OFlag) -> Result<File, LockError> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | further;
    // openat2(2) takes a mode for a new file alone.
    let mode = if further.contains(OFlag::O_CREAT) {
        Mode::S_IRUSR | Mode::S_IWUSR
    } else {
        Mode::empty()
    };
    match open_here(directory.as_fd(), LOCK_FILE, flags, mode) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => {
            Err(LockError::NotAFile(path(directory)))
        }
        Err(Errno::ENOENT) if !further.contains(OFlag::O_CREAT) => {
            Err(LockError::Missing(path(directory)))
        }
        // With O_CREAT only a directory without a name gives this.
        Err(Errno::ENOENT) => Err(LockError::DirectoryGone(path(directory))),
        Err(errno) => Err(failed(directory, errno)),
    }
}

fn attributes_of(directory: &ListIndexDirectory, file: &File) -> Result<Attributes, LockError> {
    Attributes::of_local(file).map_err(|errno| failed(directory, errno))
}

fn path(directory: &ListIndexDirectory) -> PathBuf {
    directory.path_of(LOCK_FILE)
}

fn failed(directory: &ListIndexDirectory, errno: Errno) -> LockError {
    LockError::Failed(path(directory), errno)
}

fn errno_of(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EIO)
}
