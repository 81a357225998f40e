//! What stands in `LISTINDEX/.lasthost`, as an outsider can tell it: which file it is, which
//! backend's, and what each list index in it belongs to.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The line of one list index: the claim's inode number and time, INDEX's inode number, no list
/// index in INDEX, the name.
pub fn line((inode, seconds, nanoseconds): (u64, i64, i64), index: u64, prefix: &str) -> String {
    format!("{inode} {seconds}.{nanoseconds:09} {index} - {prefix}\n")
}

/// The line of the list index `prefix` that belongs to the claim and the INDEX that are there now,
/// and to the list index that is in INDEX, if `log` is its `.log`.
pub fn line_beside(log: &Path, claim: &Path, prefix: &str) -> String {
    let status = fs::metadata(log).expect("it is there");
    let (inode, seconds, nanoseconds) = (status.ino(), status.mtime(), status.mtime_nsec());
    let version = format!(" {inode}/{seconds}.{nanoseconds:09}/{} ", status.len());
    line_of(claim, prefix).replacen(" - ", &version, 1)
}

/// The line of the list index `prefix` that belongs to the claim and the INDEX that are there now.
pub fn line_of(claim: &Path, prefix: &str) -> String {
    let index = fs::metadata(claim.parent().expect("INDEX")).expect("it is there");
    let claim = fs::metadata(claim).expect("the user is claimed");
    let identity = (claim.ino(), claim.mtime(), claim.mtime_nsec());
    line(identity, index.ino(), prefix)
}

/// The same lines without what they say of originals that were moved from INDEX.
pub fn without_moved(lines: &str) -> String {
    let plain = |word: &str| match word.strip_prefix('-') {
        Some(version) if version.contains('/') => "-".to_owned(),
        _ => word.to_owned(),
    };
    let of_line = |line: &str| line.split(' ').map(plain).collect::<Vec<_>>().join(" ");
    lines
        .split('\n')
        .map(of_line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What `host` writes into `file`, which must be there: a first line, and `lines`.
pub fn text(file: &Path, host: &str, lines: &str) -> String {
    let status = fs::metadata(file).expect("the lock file is there");
    let (seconds, nanoseconds) = born(&status);
    let rest = format!(
        " {} {seconds}.{nanoseconds:09} {host}\n{lines}",
        status.ino()
    );
    format!("2 {:04}{rest}", "2 0000".len() + rest.len())
}

/// No copy has it.
fn born(status: &Metadata) -> (u64, u32) {
    let born = status.created().unwrap_or(UNIX_EPOCH);
    let born = born.duration_since(UNIX_EPOCH).expect("after 1970");
    (born.as_secs(), born.subsec_nanos())
}

/// Whether `content` is a record, of whatever.
pub fn is_one(content: &str) -> bool {
    content.starts_with("2 ")
}
