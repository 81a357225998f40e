//! The claim: the file in INDEX that names the backend which serves the user.
//!
//! Its inode number and modification time, not its text, show whether another backend has claimed
//! the user since.

use std::ffi::{CStr, CString, OsString};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, futimens, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, gettid, unlinkat};

use crate::decimal::decimal;
use crate::names::hash;
use crate::nfs::directory::{IndexDirectory, IndexError};
use crate::nfs::host::HostName;
use crate::nfs::identity::{Identity, Version, seconds_of};
use crate::system::credentials::effective_user;
use crate::system::file_status::is_regular;
use crate::system::umask::UmaskCleared;

/// The text of a claim. Nothing is compared with it: it is for people, for a migration that has to
/// be finished, and for sessions that have no other place for their sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimText {
    /// The backend that claimed.
    pub host: String,
    /// The `.log` of the list index in INDEX that is being taken over with this claim.
    pub migrating: Option<Version>,
    /// The list index that it was made for; that of the claim before it on the same backend, if it was
    /// made for none.
    pub list_index: Option<PathBuf>,
    /// Sessions without list index that could not leave their sign on their own backend.
    pub without: Vec<Without>,
}

/// A session without list index, for the next login on its backend. Every claim carries on what the
/// one before it said of other backends' sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Without {
    /// The backend.
    pub host: HostName,
    /// Who the session is, as its backend writes it.
    pub session: String,
    /// When it began, in seconds since the epoch, if the line says so.
    pub since: Option<u64>,
}

/// How the second line of a migration's claim begins.
const MIGRATING: &str = "migrating";

/// How the line of the list index begins.
const LIST_INDEX: &str = "list-index";

/// How the line of a session begins.
const WITHOUT: &str = "without";

/// Who can look into INDEX may know who has claimed it: a user of another uid whose mailbox it is too
/// must find out that there is somebody else.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// How the time begins at the end of such a line.
const SINCE: &str = " @";

/// A claim that is longer is not ours.
pub const LONGEST: u64 = 96 * 1024;

impl Without {
    fn parse(line: &str) -> Option<Self> {
        let (host, session) = line
            .strip_prefix(WITHOUT)?
            .strip_prefix(' ')?
            .split_once(' ')?;
        let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let timed = session.rsplit_once(SINCE);
        let timed = timed.and_then(|(session, since)| Some((session, decimal(since.as_bytes())?)));
        let (session, since) = timed.map_or((session, None), |(text, since)| (text, Some(since)));
        Some(Self {
            host: HostName::try_from(host.to_owned()).ok()?,
            session: Some(session)
                .filter(|session| session.bytes().all(is_plain))?
                .to_owned(),
            since,
        })
    }
}

/// The line of a claim.
impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, session) = (&self.host, &self.session);
        write!(f, "{WITHOUT} {host} {session}")?;
        match self.since {
            Some(since) => write!(f, "{SINCE}{since}"),
            None => Ok(()),
        }
    }
}

impl ClaimText {
    /// Reads `text`, whatever it is.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut lines = text.split_terminator('\n');
        let host = lines.next().unwrap_or_default().to_owned();
        // In any order.
        let after = |word: &str| {
            let mut lines = lines.clone();
            lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
        };
        Self {
            host,
            migrating: after(MIGRATING).and_then(Version::parse),
            list_index: after(LIST_INDEX)
                .and_then(from_plain)
                .map(|path| OsString::from_vec(path).into()),
            without: lines.filter_map(Without::parse).collect(),
        }
    }

    /// Whether `text` is a claim's, of this version or another.
    pub fn is(text: &str) -> bool {
        let Some(text) = text.strip_suffix('\n') else {
            return false;
        };
        let mut lines = text.split('\n');
        let host = lines.next().unwrap_or_default().to_owned();
        let is_known = |line: &str| {
            [MIGRATING, LIST_INDEX, WITHOUT].iter().any(|word| {
                let rest = line.strip_prefix(word);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
        };
        HostName::try_from(host).is_ok() && lines.all(is_known)
    }
}

/// `name` in one word of ASCII: whatever is not plain is `%` and two digits.
pub fn plain(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(byte.into());
        } else {
            // A string takes everything.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

/// What [`plain`] was given, if it wrote `text`.
pub fn from_plain(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else if byte.is_ascii_graphic() {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    Some(bytes)
}

impl fmt::Display for ClaimText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.host)?;
        if let Some(version) = self.migrating {
            writeln!(f, "{MIGRATING} {version}")?;
        }
        if let Some(path) = &self.list_index {
            writeln!(f, "{LIST_INDEX} {}", plain(path.as_os_str().as_bytes()))?;
        }
        for without in &self.without {
            writeln!(f, "{without}")?;
        }
        Ok(())
    }
}

/// How often a claim is tried while others of the same backend get in its way.
const MOST_ATTEMPTS: u32 = 8;

impl IndexDirectory<'_> {
    /// The text of the claim that stands; `None` if it cannot be read.
    pub fn claim_text(&self) -> Option<ClaimText> {
        self.text_of(self.claim_name())
    }

    /// What a login is to know where `standing` is the claim: what that says, an empty text if it cannot be
    /// read; and if there is none, what one said that was set aside, but for a migration. Sessions that it
    /// names, or that use the list index that it names, may go on.
    pub fn standing_text(&self, standing: Option<Identity>) -> Option<ClaimText> {
        if standing.is_some() {
            return Some(self.claim_text().unwrap_or_else(|| ClaimText::parse(b"")));
        }
        let void = self.text_of(&self.void_name())?;
        (!void.host.is_empty()).then_some(ClaimText {
            migrating: None,
            ..void
        })
    }

    fn text_of(&self, name: &CStr) -> Option<ClaimText> {
        // Opened for writing too: for reading alone a server grants a delegation, which has to be
        // returned when the file is replaced a moment later.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = |access| openat(self.as_fd(), name, access | flags, Mode::empty());
        let file = open(OFlag::O_RDWR).or_else(|errno| match errno {
            Errno::EROFS | Errno::EACCES => open(OFlag::O_RDONLY),
            errno => Err(errno),
        });
        let file = file.ok()?;
        let mut text = Vec::new();
        File::from(file).take(LONGEST).read_to_end(&mut text).ok()?;
        Some(ClaimText::parse(&text))
    }

    /// Claims the user for the backend `host`: from now on no older record equals the claim. Its text
    /// has `migrating` and `without`.
    ///
    /// Always a new file that is renamed into place: a file that is rewritten keeps its inode number,
    /// and other clients, which cache the directory, would not notice. The identity comes from the
    /// descriptor, because by path another backend's claim might already be found.
    ///
    /// # Errors
    /// If the claim was not made, on a full or read-only file system for example.
    pub fn claim_for(
        &self,
        text: &ClaimText,
        replaced: Option<Identity>,
    ) -> Result<Identity, IndexError> {
        let name = self.claim_name();
        // One that was set aside is replaced as well.
        let void = match replaced {
            Some(_) => None,
            None => self.status_of(&self.void_name())?,
        };
        let replaced = replaced.or(void.as_ref().map(Identity::of_status));
        let mut made = Err(Errno::EEXIST);
        for attempt in 0..MOST_ATTEMPTS {
            made = self.try_claim(text, replaced, attempt);
            // Deliveries of one backend may claim at the same moment, and backends that share the temporary
            // name: the other one has cleared this one's file away, or has renamed it.
            if !matches!(made, Err(Errno::ENOENT | Errno::EEXIST)) {
                break;
            }
        }
        if made.is_ok() && void.is_some() {
            let _ = self.delete(&self.void_name());
        }
        made.map_err(|errno| IndexError::ClaimFailed(self.path_of(name), errno))
    }

    fn try_claim(
        &self,
        text: &ClaimText,
        replaced: Option<Identity>,
        attempt: u32,
    ) -> nix::Result<Identity> {
        let temporary = self.temporary_name(&text.host, attempt);
        let file = self.create(&temporary)?;
        let made = self.fill(file, text, replaced).and_then(|identity| {
            let (from, to) = (temporary.as_c_str(), self.claim_name());
            renameat(self.as_fd(), from, self.as_fd(), to).map(|()| identity)
        });
        // What is not found was cleared away, and another claim may have the name by now.
        if made.is_err_and(|errno| errno != Errno::ENOENT) {
            let _ = unlinkat(
                self.as_fd(),
                temporary.as_c_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
        made
    }

    /// Takes the claim away, so that no record counts; that needs no space. The claim keeps another
    /// name, which shows later logins that there was one. If there was none, an empty file is made,
    /// for which a full file system may still have room.
    ///
    /// # Errors
    /// If the claim is still there, or nothing shows that somebody wanted to claim.
    pub fn unclaim(&self) -> Result<(), IndexError> {
        let (index, name, void) = (self.as_fd(), self.claim_name(), self.void_name());
        let renamed = renameat(index, name, index, void.as_c_str());
        let left = match renamed {
            Err(Errno::ENOENT) => mknodat(index, void.as_c_str(), SFlag::S_IFREG, MODE, 0),
            renamed => renamed,
        };
        match left {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(IndexError::ClaimFailed(self.path_of(name), errno)),
        }
    }

    /// Whether nobody ever claimed the user: there is no claim, and none was set aside.
    pub fn is_unclaimed(&self, standing: Option<Identity>) -> Result<bool, IndexError> {
        Ok(standing.is_none() && !self.has(&self.void_name())?)
    }

    /// The name of a claim that was set aside. It cannot be a backend's temporary name: those have a
    /// dot in that place.
    fn void_name(&self) -> CString {
        let name = [self.claim_name().to_bytes(), b"-void"].concat();
        // Made from a C string, so there is no NUL byte in it.
        CString::new(name).unwrap_or_default()
    }

    /// A backend's own name in most cases, so that its next claim clears away what a crash left; but
    /// one of few, since backends may change theirs, as containers do. Two that share one and claim at
    /// the same moment get in each other's way, and at most one of them finds its claim in place; the
    /// other one tries again with a name that only it is likely to try.
    fn temporary_name(&self, host: &str, attempt: u32) -> CString {
        let own = attempt.wrapping_mul(gettid().as_raw().unsigned_abs() | 1);
        let number = (hash(host.as_bytes()).wrapping_add(own.into())) & 0xff;
        let mut name = self.claim_name().to_bytes().to_vec();
        // Two digits.
        name.extend_from_slice(format!(".{number:02x}").as_bytes());
        // Made from a C string, so there is no NUL byte in it.
        CString::new(name).unwrap_or_default()
    }

    /// Makes a new file. Without O_EXCL at first: with it, NFS stores a verifier in the file's times,
    /// and correcting those takes one more call. What a crash left, or anything else in that place,
    /// is removed.
    fn create(&self, name: &CStr) -> nix::Result<OwnedFd> {
        let open = |exclusive| {
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_NOFOLLOW
                | OFlag::O_NONBLOCK
                | OFlag::O_CLOEXEC
                | exclusive;
            openat(self.as_fd(), name, flags, MODE)
        };
        let _umask = UmaskCleared::clear();
        let refused = match open(OFlag::empty()) {
            Ok(file) if is_new(&fstat(&file)?) => return Ok(file),
            Ok(_) => Errno::EEXIST,
            Err(errno) => errno,
        };
        // If there is nothing to remove, it was the directory that refused.
        unlinkat(self.as_fd(), name, UnlinkatFlags::NoRemoveDir).map_err(|_| refused)?;
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
            .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))?;
        let now = seconds_of(SystemTime::now());
        for wanted in modification_times(now, replaced) {
            // Set by us, and last, so that neither a delegation nor the server's clock changes it.
            let modified = TimeSpec::new(wanted.0, wanted.1.into());
            futimens(&file, &TimeSpec::UTIME_OMIT, &modified)?;
            // The server's answer to that had the attributes as it stores them.
            let kept = Identity::of_status(&fstat(&file)?);
            if is_new_time(kept, wanted, replaced) {
                return Ok(kept);
            }
        }
        // EOVERFLOW: "Value too large for defined data type".
        Err(Errno::EOVERFLOW)
    }
}

/// A claim that is more seconds ahead than this was made by a wrong clock.
const TOO_FAR_AHEAD: i64 = 86_400;

/// The times to try, in turn, for a claim that is made `now`: one later than the claim that is
/// replaced; and if that one is far in the future, where a server may not store a later time, now.
fn modification_times(
    now: (i64, u32),
    replaced: Option<Identity>,
) -> impl Iterator<Item = (i64, u32)> {
    let is_too_far_ahead = |old: &Identity| old.seconds > now.0.saturating_add(TOO_FAR_AHEAD);
    let later = later_than(now, replaced);
    let second = replaced.filter(is_too_far_ahead).map(|_| now);
    std::iter::once(later).chain(second)
}

/// Whether the server stored a time that distinguishes the claim from the one that is `replaced` and
/// from every other. A file system with a last possible time stores that for everything later.
fn is_new_time(kept: Identity, wanted: (i64, u32), replaced: Option<Identity>) -> bool {
    // Servers store at least whole seconds.
    let is_kept = kept.seconds == wanted.0;
    let time = |claim: Identity| (claim.seconds, claim.nanoseconds);
    is_kept && replaced.is_none_or(|old| time(old) != time(kept))
}

/// `now`, but later than the claim that is replaced: a server with whole seconds may give the new
/// file the inode number of one that was claimed within the same second.
fn later_than(now: (i64, u32), replaced: Option<Identity>) -> (i64, u32) {
    match replaced {
        // Without nanoseconds it may stand for any moment of its second.
        Some(old) if old.nanoseconds == 0 && old.seconds >= now.0 => {
            (old.seconds.saturating_add(1), 0)
        }
        Some(old) if (old.seconds, old.nanoseconds) >= now => (old.seconds.saturating_add(1), 0),
        _ => now,
    }
}

/// Whether a file is as good as a new one: the user's, with one name, and empty.
fn is_new(status: &FileStat) -> bool {
    is_regular(status)
        && status.st_size == 0
        && status.st_nlink == 1
        && status.st_uid == effective_user().0
}

#[cfg(test)]
mod tests {
    use super::{ClaimText, is_new_time, later_than, modification_times};
    use crate::nfs::identity::Identity;

    fn claimed_at(seconds: i64, nanoseconds: u32) -> Option<Identity> {
        Some(Identity {
            inode: 17,
            seconds,
            nanoseconds,
        })
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        let claim = ClaimText::parse(b"a.example.org\n");
        assert_eq!(
            (claim.host.as_str(), claim.migrating),
            ("a.example.org", None)
        );
        assert_eq!(claim.to_string(), "a.example.org\n");
        let text = "a\nmigrating 17/1700000000.000000123/4711\n";
        let claim = ClaimText::parse(text.as_bytes());
        let version = claim.migrating.expect("it says so");
        assert_eq!((version.identity.nanoseconds, version.size), (123, 4711));
        assert_eq!(claim.to_string(), text);
        let text =
            "a\nmigrating 17/1700000000.000000123/4711\nwithout b 1f 77.5 - @17\nwithout c 0 - x\n";
        let claim = ClaimText::parse(text.as_bytes());
        assert_eq!(claim.without.len(), 2);
        assert_eq!(claim.without[0].since, Some(17));
        assert_eq!(claim.to_string(), text);
        // Which list index?
        assert_eq!(ClaimText::parse(b"a\nmigrating\n").migrating, None);
    }

    #[test]
    fn whatever_is_not_a_claim_is_not_taken_for_one() {
        assert!(ClaimText::is("a\n"));
        assert!(ClaimText::is("a\nmigrating\n"));
        assert!(ClaimText::is("a\nmigrating 17/1700000000.000000123/4711\n"));
        for text in [
            "",
            "\n",
            "a",
            "a b\n",
            "a/b\n",
            "a\nother\n",
            "migrating\nmigrating",
        ] {
            assert!(!ClaimText::is(text), "{text:?}");
        }
    }

    #[test]
    fn a_claim_is_later_than_the_one_it_replaces() {
        let now = (1_700_000_000, 123);
        assert_eq!(later_than(now, None), now);
        assert_eq!(later_than(now, claimed_at(1, 1)), now);
        let ahead = now.0 + 1000;
        assert_eq!(later_than(now, claimed_at(ahead, 5)), (ahead + 1, 0));
        // A server with whole seconds: this may stand for any moment of its second.
        assert_eq!(later_than(now, claimed_at(now.0, 0)), (now.0 + 1, 0));
    }

    #[test]
    fn where_time_ends_a_claim_is_made_now_or_not_at_all() {
        let now = (1_700_000_000, 123);
        let end = claimed_at(i64::from(i32::MAX), 0);
        let times: Vec<_> = modification_times(now, end).collect();
        assert_eq!(times, [(i64::from(i32::MAX) + 1, 0), now]);
        let kept = |at| claimed_at(at, 0).expect("some");
        assert!(!is_new_time(kept(i64::from(i32::MAX)), times[0], end));
        assert!(is_new_time(kept(now.0), now, end));
        // Nor for the first claim, if the clock here is past the end.
        let past = (i64::from(i32::MAX) + 5, 0);
        assert!(!is_new_time(kept(i64::from(i32::MAX)), past, None));
        // A time that is only ahead is followed by a later one, and nothing else.
        let times: Vec<_> = modification_times(now, claimed_at(now.0 + 60, 0)).collect();
        assert_eq!(times, [(now.0 + 61, 0)]);
    }
}
