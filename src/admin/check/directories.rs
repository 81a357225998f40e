//! The directories above the users' own are there, and nobody can spoil them.
//!
//! A delivery can come before any login, and Dovecot crashes where it cannot make the user's
//! directory. So they are made at boot, by tmpfiles.d(5).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};

use super::finding::{Findings, Kind, Remedy, quoted};
use super::people::{Account, MailUsers, may};
use super::person::Person;
use super::wording::one_each;
use crate::dovecot::files::Place;
use crate::dovecot::master::Master;
use crate::dovecot::settings::Settings;
use crate::local::directory::open_without_links;
use crate::system::file_system::FileSystem;

/// Where lines for directories go.
const TMPFILES: &str = "/etc/tmpfiles.d/nfs-hostchange.conf";

/// Where systemd is told more about Dovecot's service.
const DROP_IN: &str = "/etc/systemd/system/dovecot.service.d/nfs-hostchange.conf";

/// Everybody may pass, nobody may look or write.
const PASSED: u32 = 0o711;
/// Everybody may make his own directory, and nobody can remove another's.
const SHARED: u32 = 0o1733;
/// The one mail user's.
const OWN: u32 = 0o700;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// So many directories of a hash are made, but no more.
const MOST: u32 = 4096;

/// Where all users' list indexes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Above {
    /// The directory that all have in common.
    pub base: PathBuf,
    /// For each level below it, the number of directories of a hash, and the digits of their names.
    hashes: Vec<(u32, usize)>,
}

impl Above {
    /// From the path of the list index as it is configured, with Dovecot's variables; `None` if it is not
    /// absolute, or is the same for everybody.
    pub fn of_template(template: &str) -> Option<Self> {
        let first = template.find('%')?;
        let (constant, _) = template[..first].rsplit_once('/')?;
        if !template.starts_with('/') {
            return None;
        }
        let mut hashes = Vec::new();
        // The last part is the file's name, the one before the user's own directory.
        let mut rest = &template[constant.len() + 1..];
        while let Some((hash, length)) = hash(rest) {
            let Some(after) = rest[length..].strip_prefix('/') else {
                break;
            };
            hashes.push(hash);
            rest = after;
        }
        if !rest.contains('/') {
            // The hash was all that there is: it is the users' own directory.
            hashes.pop();
        }
        let product = hashes
            .iter()
            .try_fold(1_u32, |all, (number, _)| all.checked_mul(*number));
        if product.is_none_or(|product| product > MOST) {
            hashes.clear();
        }
        let base = if constant.is_empty() { "/" } else { constant };
        Some(Self {
            base: PathBuf::from(base),
            hashes,
        })
    }

    /// From users' own directories: what they are in, and above that what looks like a hash.
    pub fn of_directories<'a>(directories: impl Iterator<Item = &'a Path>) -> Option<Self> {
        let parents: BTreeSet<&Path> = directories.filter_map(Path::parent).collect();
        let digits = |parent: &&Path| {
            let name = parent.file_name()?.to_str()?;
            let is_hash = (2..=3).contains(&name.len())
                && name.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            is_hash.then_some(name.len())
        };
        let first = *parents.first()?;
        let length = digits(&first);
        if let Some(length) =
            length.filter(|_| parents.iter().all(|parent| digits(parent) == length))
        {
            let base = first.parent()?;
            if parents.iter().all(|parent| parent.parent() == Some(base)) {
                return Some(Self {
                    base: base.to_owned(),
                    hashes: vec![(1 << (4 * length), length)],
                });
            }
        }
        let base = first
            .ancestors()
            .find(|base| parents.iter().all(|parent| parent.starts_with(base)))?;
        Some(Self {
            base: base.to_owned(),
            hashes: Vec::new(),
        })
    }
}

/// The hash that a path component is: `%2.256Nu`, or `%{user | md5 | substr(0, 8) % 256 | hex(2)}`.
fn hash(template: &str) -> Option<((u32, usize), usize)> {
    let rest = template.strip_prefix('%')?;
    if let Some(inside) = rest.strip_prefix('{') {
        let end = inside.find('}')?;
        let (_, modulus) = inside[..end].rsplit_once('%')?;
        let (number, filter) = modulus.split_once('|')?;
        let digits = filter.trim().strip_prefix("hex(")?.strip_suffix(')')?;
        let hash = (number.trim().parse().ok()?, digits.parse().ok()?);
        return Some((hash, end + 3));
    }
    let end = rest.find(['N', 'H'])?;
    let (digits, number) = rest[..end].split_once('.')?;
    let hash = (number.parse().ok()?, digits.parse().ok()?);
    rest[end + 1..]
        .starts_with(|variable: char| variable.is_ascii_lowercase())
        .then_some((hash, end + 3))
}

/// The directories that are needed, each after those that it is in.
pub struct Plan<'a> {
    /// Whose list indexes these are.
    pub users: MailUsers,
    /// The directory above all others.
    pub base: PathBuf,
    settings: &'a Settings,
    directories: BTreeMap<PathBuf, Planned>,
}

struct Planned {
    mode: u32,
    /// Name and uid.
    owner: Account,
}

impl<'a> Plan<'a> {
    /// What list indexes there need.
    pub fn new(settings: &'a Settings, users: &MailUsers, above: &Above) -> Self {
        let base = above.base.clone();
        let owner = fs::symlink_metadata(&base).map_or(0, |status| status.uid());
        let mut users = users.clone();
        if users == MailUsers::Unknown {
            users = match owner {
                0 => MailUsers::Many(Vec::new()),
                uid => MailUsers::One(Account::of_uid(uid)),
            };
        }
        let of_many = of_many_users(above);
        // One mail user may also use what is made for many.
        let are_there = || owner == 0 && of_many.keys().all(|path| path.is_dir());
        let directories = match &users {
            MailUsers::One(account) if !are_there() => {
                let owner = account.clone();
                BTreeMap::from([(base.clone(), Planned { mode: OWN, owner })])
            }
            _ => of_many,
        };
        Self {
            users,
            base,
            settings,
            directories,
        }
    }

    /// A line of tmpfiles.d(5) for each directory.
    pub fn tmpfiles(&self) -> String {
        let mut lines = String::new();
        for (path, planned) in &self.directories {
            // Writing to a string never fails.
            let _ = writeln!(lines, "{}", planned.line(path));
        }
        lines
    }

    fn make(&self) -> Remedy {
        Remedy::Run(self.command())
    }

    /// How the directories are made now.
    pub fn command(&self) -> String {
        match self.directories.iter().next() {
            Some((path, planned)) if self.directories.len() == 1 => format!(
                "install -d -m {:04o} -o {} {}",
                planned.mode,
                planned.owner.name,
                quoted(&path.to_string_lossy())
            ),
            _ => format!(
                "nfs-hostchange check{} --tmpfiles | systemd-tmpfiles --create -",
                self.option()
            ),
        }
    }

    fn option(&self) -> String {
        self.settings.given_file().map_or_else(String::new, |file| {
            format!(" --dovecot-config {}", quoted(&file.to_string_lossy()))
        })
    }
}

impl Planned {
    /// The line of tmpfiles.d(5) that makes it.
    fn line(&self, path: &Path) -> String {
        let path = path.to_string_lossy();
        let group = if self.owner.uid == 0 { "root" } else { "-" };
        let (mode, owner) = (self.mode, &self.owner.name);
        format!("d {} {mode:04o} {owner} {group} -", quoted(&path))
    }
}

/// The base directory, and below it all directories of a hash: everything that does not depend on who
/// the users are.
fn of_many_users(above: &Above) -> BTreeMap<PathBuf, Planned> {
    let planned = |mode| Planned {
        mode,
        owner: Account::of_uid(0),
    };
    let mut directories = BTreeMap::new();
    let mut level = vec![above.base.clone()];
    for (number, digits) in &above.hashes {
        let below = level.iter().flat_map(|path| {
            (0..*number).map(move |hash| path.join(format!("{hash:0width$x}", width = *digits)))
        });
        let below = below.collect();
        for path in std::mem::replace(&mut level, below) {
            directories.insert(path, planned(PASSED));
        }
    }
    directories.extend(level.into_iter().map(|path| (path, planned(SHARED))));
    directories
}

/// Looks at the directories themselves, and at what makes them at boot.
pub fn check(
    settings: &Settings,
    plan: &Plan<'_>,
    people: &[Person],
    master: Option<Master>,
    findings: &mut Findings,
) {
    let elsewhere = || one_each(settings);
    let base = &plan.base;
    let directory = base.display().to_string();
    if [Path::new("/"), Path::new("/dev/shm")].contains(&base.as_path()) {
        return findings.add(Kind::SharedBase { directory }, elsewhere());
    }
    let fd = match open_without_links(base) {
        Ok(fd) => fd,
        Err(error) => {
            let reason = error.to_string();
            let remedy = match fs::symlink_metadata(base) {
                // A link, or a file.
                Ok(status) if !status.is_dir() => {
                    let base = quoted(&directory);
                    Some(Remedy::Run(format!(
                        "mv {base} {base}.old && {}",
                        plan.command()
                    )))
                }
                // A link above it.
                _ if base.canonicalize().is_ok_and(|real| real != *base) => elsewhere(),
                _ => Some(plan.make()),
            };
            return findings.add(Kind::NoBase { reason }, remedy);
        }
    };
    if let Some(seen) = master.map(|master| master.sees(base)) {
        let identity = |path: &Path| fs::metadata(path).map(|status| (status.dev(), status.ino()));
        let is_another = match (identity(base), identity(&seen)) {
            (Ok(here), Ok(there)) => here != there,
            (Ok(_), Err(error)) => error.kind() == io::ErrorKind::NotFound,
            (Err(_), _) => false,
        };
        if is_another {
            let line = format!("[Service]\nBindPaths={directory}");
            let remedy = Remedy::Append(PathBuf::from(DROP_IN), line);
            return findings.add(Kind::HiddenBase { directory }, remedy);
        }
        if is_read_only(&seen) && !is_read_only(base) {
            let line = format!("[Service]\nReadWritePaths={directory}");
            let remedy = Remedy::Append(PathBuf::from(DROP_IN), line);
            return findings.add(Kind::ReadOnlyForService { directory }, remedy);
        }
    }
    if fstatvfs(&fd).is_ok_and(|status| status.flags().contains(FsFlags::ST_RDONLY)) {
        let mount_point = mount_point(base);
        let command = format!(
            "mount -o remount,rw {}",
            quoted(&mount_point.to_string_lossy())
        );
        return findings.add(Kind::ReadOnly { directory }, Remedy::Run(command));
    }
    match FileSystem::of(fd) {
        Ok(FileSystem::Network) => findings.add(Kind::NetworkListIndex { directory }, elsewhere()),
        Ok(FileSystem::Disk) => findings.add(Kind::DiskListIndex { directory }, elsewhere()),
        // What is on a disk is still there after a boot.
        Ok(FileSystem::Memory) => are_made_at_boot(plan, findings),
        Err(_) => {}
    }
    can_be_reached(plan, people, findings);
    are_safe(plan, findings);
    users_own(plan, people, findings);
}

/// Mail users pass every directory above.
fn can_be_reached(plan: &Plan<'_>, people: &[Person], findings: &mut Findings) {
    let user = match &plan.users {
        MailUsers::One(user) => Some(user),
        _ => None,
    };
    let groups = people
        .iter()
        .flat_map(|person| person.groups(plan.settings));
    let groups: Vec<u32> = groups.collect();
    let is_closed = |directory: &&Path| {
        let status = directory.metadata();
        status.is_ok_and(|status| !may(user, &status, 0o111, &groups))
    };
    if let Some(closed) = plan.base.ancestors().skip(1).find(is_closed) {
        let directory = closed.display().to_string();
        let remedy = Remedy::Run(format!("chmod a+x {}", quoted(&directory)));
        findings.add(Kind::ClosedAbove { directory }, remedy);
    }
}

/// The file system that a directory is on.
pub fn mount_point(path: &Path) -> PathBuf {
    let device = |path: &Path| path.metadata().map(|status| status.dev()).ok();
    path.ancestors()
        .take_while(|ancestor| device(ancestor) == device(path))
        .last()
        .unwrap_or(path)
        .to_owned()
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|status| status.flags().contains(FsFlags::ST_RDONLY))
}

fn are_safe(plan: &Plan<'_>, findings: &mut Findings) {
    let mut missing = Vec::new();
    let mut wrong = BTreeMap::new();
    for (path, planned) in &plan.directories {
        let status = match fs::symlink_metadata(path) {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(path);
                continue;
            }
            Err(_) => continue,
        };
        if let Some(kind) = fault(path, planned, status.mode(), status.uid()) {
            // Of several with the same fault, the first is named.
            wrong.entry(kind.id()).or_insert(kind);
        }
    }
    for kind in wrong.into_values() {
        findings.add(kind, plan.make());
    }
    if let Some(first) = missing.first() {
        let kind = Kind::NoHashDirectories {
            missing: missing.len(),
            all: plan.directories.len(),
            first: first.display().to_string(),
        };
        findings.add(kind, plan.make());
    }
}

/// What is there of a user's own belongs to the user: not to root, as after a doveadm with other settings.
fn users_own(plan: &Plan<'_>, people: &[Person], findings: &mut Findings) {
    let is_of_one = matches!(plan.users, MailUsers::One(_)) && plan.directories.len() == 1;
    for person in people {
        let (Some(tracked), Some(uid)) = (&person.tracked, person.uid()) else {
            continue;
        };
        let own = tracked.list_index_dir();
        let levels = own
            .ancestors()
            .take_while(|path| path.starts_with(&plan.base) && *path != plan.base)
            .take(if is_of_one { usize::MAX } else { 1 });
        let foreign = levels.filter_map(|path| {
            let owner = fs::symlink_metadata(path).ok()?.uid();
            (owner != uid).then_some((path, owner))
        });
        if let Some((path, owner)) = foreign.last() {
            let directory = path.display().to_string();
            let account = Account::of_uid(uid);
            let word = quoted(&directory);
            let remedy = Remedy::Run(match path == own {
                // Nothing in it can be trusted, and the next login makes another one.
                true => format!("rm -r {word}"),
                // It has other users' directories, too.
                false => format!("install -d -m {OWN:04o} -o {} {word}", account.name),
            });
            let kind = Kind::ForeignBase {
                directory,
                owner,
                wanted: account.name,
            };
            findings.add_of_user(kind, None, remedy);
        }
    }
}

fn fault(path: &Path, planned: &Planned, mode: u32, owner: u32) -> Option<Kind> {
    let directory = path.display().to_string();
    let needed = match planned.mode {
        SHARED => 0o003,
        OWN => 0o700,
        _ => 0o001,
    };
    if owner != planned.owner.uid {
        let wanted = planned.owner.name.clone();
        Some(Kind::ForeignBase {
            directory,
            owner,
            wanted,
        })
    } else if mode & WRITABLE_BY_OTHERS & !planned.mode != 0 {
        Some(match mode & STICKY {
            0 => Kind::WritableBase { directory },
            _ => Kind::CrowdedBase { directory },
        })
    } else if mode & needed != needed {
        Some(Kind::ClosedBase { directory })
    } else if planned.mode == SHARED && mode & STICKY == 0 {
        Some(Kind::WritableBase { directory })
    } else {
        None
    }
}

fn are_made_at_boot(plan: &Plan<'_>, findings: &mut Findings) {
    let made = made_at_boot();
    let mut forgotten = Vec::new();
    for (path, planned) in &plan.directories {
        let Some((line, place)) = made.get(path) else {
            forgotten.push(path);
            continue;
        };
        let mut words = line.split_whitespace().skip(2);
        let mode = words
            .next()
            .and_then(|mode| u32::from_str_radix(mode.trim_start_matches(['~', ':']), 8).ok());
        let owner = words
            .next()
            .map_or("root", |owner| if owner == "-" { "root" } else { owner });
        let is_right = mode.unwrap_or(0o755) == planned.mode
            && (owner == planned.owner.name
                || Account::of(owner).is_some_and(|owner| owner.uid == planned.owner.uid));
        let age = words.nth(1).unwrap_or("-");
        if age != "-" {
            let kind = Kind::TmpfilesAge {
                directory: path.display().to_string(),
                line: line.clone(),
            };
            let remedy = Remedy::Replace(place.clone(), planned.line(path));
            findings.add_at(kind, place.clone(), remedy);
            break;
        }
        if !is_right {
            let wanted = planned.line(path);
            let kind = Kind::TmpfilesLine {
                directory: path.display().to_string(),
                line: line.clone(),
                wanted: format!("{:04o} {}", planned.mode, planned.owner.name),
            };
            findings.add_at(kind, place.clone(), Remedy::Replace(place.clone(), wanted));
            break;
        }
    }
    let Some(first) = forgotten.first() else {
        return;
    };
    let remedy = if plan.directories.len() == 1 {
        let lines = plan.tmpfiles().trim_end().to_owned();
        Remedy::Append(PathBuf::from(TMPFILES), lines)
    } else {
        Remedy::Run(format!(
            "nfs-hostchange check{} --tmpfiles >{TMPFILES}",
            plan.option()
        ))
    };
    let kind = Kind::NoTmpfiles {
        first: first.display().to_string(),
        more: forgotten.len() - 1,
    };
    findings.add(kind, remedy);
}

/// The directories that tmpfiles.d(5) makes, each with the line that does it.
fn made_at_boot() -> BTreeMap<PathBuf, (String, Place)> {
    // Of files with the same name, the first counts.
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in ["/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            files.entry(entry.file_name()).or_insert(entry.path());
        }
    }
    let mut made = BTreeMap::new();
    let is_configuration = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    };
    for file in files.values().filter(is_configuration) {
        let text = fs::read_to_string(file).unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(path) = directory_of_line(line) {
                let place = Place {
                    file: file.clone(),
                    line: number,
                };
                made.entry(path).or_insert((line.to_owned(), place));
            }
        }
    }
    made
}

fn directory_of_line(line: &str) -> Option<PathBuf> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    let path = words.next()?.trim_matches(['"', '\'']);
    kind.starts_with(['d', 'D', 'v', 'q', 'Q'])
        .then(|| PathBuf::from(path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::Above;

    #[test]
    fn the_directories_of_a_hash_are_known_from_either_versions_spelling() {
        let expected = Some(Above {
            base: PathBuf::from("/dev/shm/li"),
            hashes: vec![(256, 2)],
        });
        for template in [
            "/dev/shm/li/%2.256Nu/%u/dovecot.list.index",
            "/dev/shm/li/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index",
            "/dev/shm/li/%{user|md5|substr(0,8)%256|hex(2)}/%{user}/dovecot.list.index",
        ] {
            assert_eq!(Above::of_template(template), expected, "{template}");
        }
        let directories = ["/dev/shm/li/f5/alice", "/dev/shm/li/8b/bob"].map(Path::new);
        assert_eq!(Above::of_directories(directories.into_iter()), expected);
    }

    #[test]
    fn users_of_domains_are_in_no_certain_number_of_directories() {
        let above = |template| Above::of_template(template).expect("it is absolute");
        let expected = Above {
            base: PathBuf::from("/x"),
            hashes: Vec::new(),
        };
        assert_eq!(above("/x/%d/%n/list"), expected);
        assert_eq!(above("/x/%u/list"), expected);
        assert_eq!(above("/x/%2.256Nu/list"), expected);
        let directories = ["/x/a.example/alice", "/x/b.example/bob"].map(Path::new);
        assert_eq!(
            Above::of_directories(directories.into_iter()),
            Some(expected)
        );
        assert_eq!(Above::of_template("/x/list"), None);
        assert_eq!(Above::of_template("list-%u"), None);
    }
}
