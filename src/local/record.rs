//! `LISTINDEX/.lasthost`: this backend's records of the claim. The file is the directory's
//! [lock](crate::local::lock), too.
//!
//! A record vouches for a list index for as long as everything around both is what it was: so it
//! names its own file, this backend and INDEX as well. A copy of either side, a restored
//! store or a cloned machine differs in one of them, and so has no record.

use std::ffi::CStr;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;

use crate::decimal::decimal;
use crate::local::files;
use crate::local::lock::{Exclusive, Kind, Lock, LockError};
use crate::nfs::claim::{ClaimText, from_plain, plain};
use crate::nfs::directory::Look;
use crate::nfs::host::HostName;
use crate::nfs::identity::{Identity, Version};
use crate::system::statx::Attributes;

/// The format's version. A record of another one counts as none.
const VERSION: &str = "2";

/// Neither a record nor a claim begins like this.
const NO_RECORD: &str = " \n";

/// Whatever is written is shorter than this: the records of a few list indexes.
const LONGEST: usize = 4096;

/// How many digits the length has that a file of records begins with.
const LENGTH_DIGITS: usize = 4;

/// There is no list index in INDEX; before a version: none but that one, which was moved here.
const NO_SHARED: &str = "-";

/// What a list index belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The claim that stood when it was begun, or that was made for it.
    pub claim: Identity,
    /// The inode number of INDEX.
    pub index: u64,
    /// The list index in INDEX, as it was then.
    pub shared: Shared,
}

/// What a record says of the list index in INDEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// There was none, or it was ignored.
    Nothing,
    /// Somebody else's: who writes to it may change the mail without claiming the user.
    Foreign(Version),
    /// The user's own, which was copied here and is to be deleted. Nobody is vouched for while it is
    /// there: another backend would take it over as well.
    Moved(Version),
}

impl Record {
    /// What is to be recorded of what `look` showed; `None` if nobody has claimed the user.
    pub fn of(look: &Look) -> Option<Self> {
        look.claim.map(|claim| Self {
            claim,
            index: look.index,
            shared: (look.shared_list_index.version()).map_or(Shared::Nothing, Shared::Foreign),
        })
    }

    fn parse(fields: &str) -> Option<Self> {
        let mut fields = fields.split(' ');
        let record = Self {
            claim: Identity::parse(fields.next()?, fields.next()?)?,
            index: decimal(fields.next()?.as_bytes())?,
            shared: match fields.next()? {
                NO_SHARED => Shared::Nothing,
                word => match word.strip_prefix(NO_SHARED) {
                    Some(version) => Shared::Moved(Version::parse(version)?),
                    None => Shared::Foreign(Version::parse(word)?),
                },
            },
        };
        fields.next().is_none().then_some(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.claim, self.index)?;
        match self.shared {
            Shared::Nothing => f.write_str(NO_SHARED),
            Shared::Foreign(version) => version.fmt(f),
            Shared::Moved(version) => write!(f, "{NO_SHARED}{version}"),
        }
    }
}

/// The file that records stand in, and the backend that wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// Inode number, and time of birth: a file system gives a number to many files, one after the
    /// other.
    file: Identity,
    host: HostName,
}

impl Origin {
    fn of(file: &Attributes, host: HostName) -> Self {
        let file = Self::file(file);
        Self { file, host }
    }

    fn file(file: &Attributes) -> Identity {
        let (seconds, nanoseconds) = file.born();
        Identity {
            inode: file.inode(),
            seconds,
            nanoseconds,
        }
    }
}

/// The records of a LISTINDEX directory, one for each list index in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    origin: Origin,
    /// By the name of the list index; the last written is the last.
    lines: Vec<(Vec<u8>, Record)>,
}

impl Records {
    /// `2 <length of the whole, 4 digits> <own inode> <born> <host name>`, and for each list index
    /// a line `<claim's inode> <modified> <INDEX's inode> <list index in INDEX, or -> <prefix>`.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let mut fields = lines.next()?.split(' ');
        if fields.next()? != VERSION {
            return None;
        }
        let length = fields.next()?;
        if length.len() != LENGTH_DIGITS || decimal(length.as_bytes()) != Some(text.len()) {
            return None;
        }
        let origin = Origin {
            file: Identity::parse(fields.next()?, fields.next()?)?,
            host: HostName::try_from(fields.next()?.to_owned()).ok()?,
        };
        if fields.next().is_some() {
            return None;
        }
        let mut records = Vec::new();
        for line in lines {
            let (record, prefix) = line.rsplit_once(' ')?;
            records.push((from_plain(prefix)?, Record::parse(record)?));
        }
        Some(Self {
            origin,
            lines: records,
        })
    }

    fn get(&self, prefix: &CStr) -> Option<Record> {
        let mut lines = self.lines.iter().rev();
        let (_, record) = lines.find(|(name, _)| name == prefix.to_bytes())?;
        Some(*record)
    }

    fn without(mut self, prefix: &CStr) -> Self {
        self.lines.retain(|(name, _)| name != prefix.to_bytes());
        self
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { file, host } = &self.origin;
        let mut rest = format!(" {file} {host}\n");
        for (prefix, record) in &self.lines {
            writeln!(rest, "{record} {}", plain(prefix))?;
        }
        let length = VERSION.len() + 1 + LENGTH_DIGITS + rest.len();
        write!(f, "{VERSION} {length:04}{rest}")
    }
}

/// What the lock file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The records of the list indexes here.
    Records(Records),
    /// A claim: the directory is some user's INDEX, not a LISTINDEX.
    Claim,
    /// No record: empty, torn, garbled, or of another version.
    Nothing,
}

impl Content {
    /// What these bytes mean; whatever is not complete means nothing.
    pub fn parse(content: &[u8]) -> Self {
        let Ok(content) = std::str::from_utf8(content) else {
            return Self::Nothing;
        };
        Records::parse(content)
            .map(Content::Records)
            .or_else(|| ClaimText::is(content).then_some(Self::Claim))
            .unwrap_or(Self::Nothing)
    }

    /// What the lock file `file` says. One that cannot be read says nothing.
    pub(crate) fn of(file: &File) -> Self {
        let mut buffer = [0; LONGEST];
        let length = file.read_at(&mut buffer, 0).unwrap_or_default();
        Self::parse(&buffer[..length])
    }

    /// Whether a file called `name` belongs to a list index that is recorded here.
    pub fn lists(&self, name: &CStr) -> bool {
        match self {
            Self::Records(records) => {
                (records.lines.iter()).any(|(prefix, _)| files::belongs(name.to_bytes(), prefix))
            }
            Self::Claim | Self::Nothing => false,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(records) => records.fmt(f),
            Self::Claim | Self::Nothing => f.write_str(NO_RECORD),
        }
    }
}

impl<K: Kind> Lock<'_, K> {
    /// What the lock file says. A file that cannot be read says nothing, nor do records that were not
    /// written into this very file.
    pub fn content(&self) -> Content {
        match Content::of(self.file()) {
            Content::Records(records) if records.origin.file != Origin::file(self.attributes()) => {
                Content::Nothing
            }
            content => content,
        }
    }

    /// The record of the list index called `prefix`, if `host` wrote it into this very file.
    /// Without `host` it may be any backend's.
    pub fn record(&self, prefix: &CStr, host: Option<&HostName>) -> Option<Record> {
        let Content::Records(records) = self.content() else {
            return None;
        };
        let is_theirs = host.is_none_or(|host| *host == records.origin.host);
        records.get(prefix).filter(|_| is_theirs)
    }
}

impl Lock<'_, Exclusive> {
    /// From now on nothing vouches for any list index here.
    ///
    /// The file keeps its length if it can: on a full tmpfs, whoever had a record has room for one.
    pub fn empty_records(&self) -> Result<(), LockError> {
        self.file()
            .write_all_at(NO_RECORD.as_bytes(), 0)
            .or_else(|_| self.file().set_len(0))
            .map_err(|error| self.failed(error))
    }

    /// From now on nothing vouches for the list index called `prefix`; others here are not touched.
    pub fn empty_record(&self, prefix: &CStr) -> Result<(), LockError> {
        let Content::Records(records) = self.content() else {
            return self.empty_records();
        };
        let others = records.clone().without(prefix);
        if others == records {
            return Ok(());
        }
        if others.lines.is_empty() {
            return self.empty_records();
        }
        // Where not even less than before can be written, the others go too.
        self.write(&others.to_string())
            .or_else(|_| self.empty_records())
    }

    /// In place of what is there. Records with anything behind them are none yet.
    fn write(&self, content: &str) -> Result<(), LockError> {
        self.file()
            .write_all_at(content.as_bytes(), 0)
            .and_then(|()| self.file().set_len(content.len() as u64))
            .map_err(|error| self.failed(error))
    }

    /// Records what the list index called `prefix` belongs to, that `host` says so, and that the
    /// user logged in now.
    ///
    /// # Errors
    /// If it cannot be written, or the lock file is not in the directory any more: then whatever
    /// was written is lost, and the directory is somebody else's.
    pub fn write_record(
        &self,
        prefix: &CStr,
        record: Record,
        host: &HostName,
    ) -> Result<(), LockError> {
        let origin = Origin::of(self.attributes(), host.clone());
        let mut records = match self.content() {
            Content::Records(records) if records.origin == origin => records.without(prefix),
            _ => Records {
                origin,
                lines: Vec::new(),
            },
        };
        records.lines.push((prefix.to_bytes().to_vec(), record));
        let mut text = records.to_string();
        while text.len() > LONGEST {
            // The oldest one goes: its list index is built again.
            if records.lines.len() == 1 {
                return Err(self.failed(Errno::ENAMETOOLONG.into()));
            }
            records.lines.remove(0);
            text = records.to_string();
        }
        self.write(&text)?;
        self.mark_used()?;
        self.confirm()
    }
}

#[cfg(test)]
mod tests {
    use super::Content;

    /// A file with these lines, and the length that it says it has.
    fn text(lines: &str) -> String {
        let rest = format!(" 7 1700000000.000000001 a.example.org\n{lines}");
        format!("2 {:04}{rest}", "2 0000".len() + rest.len())
    }

    const LINES: &str = "17 1700000000.000000123 4711 - dovecot.list.index\n\
                         18 1700000000.000000124 4711 19/1700000000.000000125/96 a%20b%25\n";

    #[test]
    fn records_are_written_as_they_were_read() {
        for text in [text(""), text(LINES)] {
            let content = Content::parse(text.as_bytes());
            assert!(matches!(content, Content::Records(_)), "{text}");
            assert_eq!(content.to_string(), text);
        }
    }

    #[test]
    fn whatever_is_not_whole_is_no_record() {
        let whole = text(LINES);
        for length in 0..whole.len() {
            let cut = Content::parse(&whole.as_bytes()[..length]);
            assert_eq!(cut, Content::Nothing, "{length} bytes");
        }
        let of_another_version = whole.replacen('2', "3", 1);
        for text in [of_another_version, format!("{whole}\n"), whole + "x"] {
            assert_eq!(Content::parse(text.as_bytes()), Content::Nothing, "{text}");
        }
        assert_eq!(Content::parse(b"\xff\n"), Content::Nothing);
        assert_eq!(Content::parse(b"a.example.org\n"), Content::Claim);
    }

    #[test]
    fn files_of_recorded_list_indexes_are_known_by_any_name() {
        let content = Content::parse(text(LINES).as_bytes());
        assert!(content.lists(c"dovecot.list.index.log") && content.lists(c"a b%.cache"));
        assert!(!content.lists(c"a%20b%25") && !content.lists(c"dovecot.list.index.old"));
    }
}
