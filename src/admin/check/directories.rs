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

use super::dovecot::{MailUsers, Settings};
use super::location::ListIndexes;
use super::services::PostLogin;
use super::{Findings, Remedy, Severity, quoted};
use crate::local::directory::open_without_links;
use crate::system::file_system::FileSystem;

/// Where lines for directories go.
const TMPFILES: &str = "/etc/tmpfiles.d/nfs-hostchange.conf";

/// Everybody may pass, nobody may look or write.
const PASSED: u32 = 0o711;
/// Everybody may make his own directory, and nobody can remove another's.
const SHARED: u32 = 0o1733;
/// The one mail user's.
const OWN: u32 = 0o700;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The directories that are needed, each after those that it is in.
pub struct Plan {
    /// Whose list indexes these are.
    pub users: MailUsers,
    /// The directory above all others.
    pub base: PathBuf,
    directories: BTreeMap<PathBuf, Planned>,
}

struct Planned {
    mode: u32,
    /// Name and uid.
    owner: (String, u32),
}

impl Plan {
    /// What list indexes at that place need.
    pub fn new(
        settings: &Settings,
        post_logins: &[PostLogin<'_>],
        list_indexes: &ListIndexes,
    ) -> Plan {
        let base = list_indexes.base.clone();
        let mut users = settings.mail_users(post_logins.iter().map(|service| service.user));
        let owner = fs::symlink_metadata(&base).map_or(0, |status| status.uid());
        if users == MailUsers::Unknown {
            users = match owner {
                0 => MailUsers::Many,
                uid => MailUsers::One(uid.to_string(), uid),
            };
        }
        let of_many = of_many_users(list_indexes);
        // One mail user may also use what is made for many.
        let are_there = || owner == 0 && of_many.keys().all(|path| path.is_dir());
        let directories = match &users {
            MailUsers::One(name, uid) if !are_there() => {
                let owner = (name.clone(), *uid);
                BTreeMap::from([(base.clone(), Planned { mode: OWN, owner })])
            }
            _ => of_many,
        };
        Plan {
            users,
            base,
            directories,
        }
    }

    /// A line of tmpfiles.d(5) for each directory.
    pub fn tmpfiles(&self) -> String {
        let mut lines = String::new();
        for (path, planned) in &self.directories {
            let path = path.to_string_lossy();
            let group = if planned.owner.1 == 0 { "root" } else { "-" };
            let (mode, owner) = (planned.mode, &planned.owner.0);
            // Writing to a string never fails.
            let _ = writeln!(lines, "d {} {mode:04o} {owner} {group} -", quoted(&path));
        }
        lines
    }

    /// How the directories are made now.
    fn make(&self, settings: &Settings) -> Remedy {
        Remedy::Run(match self.directories.iter().next() {
            Some((path, planned)) if self.directories.len() == 1 => format!(
                "install -d -m {:04o} -o {} {}",
                planned.mode,
                planned.owner.0,
                quoted(&path.to_string_lossy())
            ),
            _ => format!(
                "nfs-hostchange check{} --tmpfiles | systemd-tmpfiles --create -",
                settings.option()
            ),
        })
    }
}

/// The base directory, and hash directories as `%2.256Nu` makes them: everything that does not depend
/// on who the users are.
fn of_many_users(list_indexes: &ListIndexes) -> BTreeMap<PathBuf, Planned> {
    let planned = |mode| Planned {
        mode,
        owner: ("root".to_owned(), 0),
    };
    let mut directories = BTreeMap::from([(list_indexes.base.clone(), planned(SHARED))]);
    for parent in hash_directories(list_indexes) {
        for above in parent.ancestors().skip(1) {
            if above.starts_with(&list_indexes.base) {
                directories.insert(above.to_owned(), planned(PASSED));
            }
        }
        directories.insert(parent, planned(SHARED));
    }
    directories
}

/// The directories that users' own are in, if they are a certain number and not one.
fn hash_directories(list_indexes: &ListIndexes) -> BTreeSet<PathBuf> {
    const MOST: usize = 4096;
    let mut found = BTreeSet::from([list_indexes.base.clone()]);
    let below = list_indexes.directory.strip_prefix(&list_indexes.base);
    let mut names: Vec<_> = below.into_iter().flat_map(Path::iter).collect();
    // The last one is the user's own.
    names.pop();
    for name in names {
        let Some(names) = names_of(&name.to_string_lossy()) else {
            return BTreeSet::new();
        };
        if names.len() * found.len() > MOST {
            return BTreeSet::new();
        }
        found = found
            .iter()
            .flat_map(|directory| names.iter().map(|name| directory.join(name)))
            .collect();
    }
    found.remove(&list_indexes.base);
    found
}

/// Every name that a part of a path stands for, if that does not depend on who the users are: the
/// part itself without %variables, or all digits of a hash (`%2.256Nu`).
fn names_of(part: &str) -> Option<Vec<String>> {
    let Some(variable) = part.strip_prefix('%') else {
        return (!part.contains('%')).then(|| vec![part.to_owned()]);
    };
    let (width, rest) = variable.split_once('.')?;
    let (modulus, variable) = rest.split_once(['N', 'H'])?;
    let (width, modulus): (usize, u32) = (width.parse().ok()?, modulus.parse().ok()?);
    (variable.len() == 1 && modulus <= 4096).then(|| {
        (0..modulus)
            .map(|number| format!("{number:0width$x}"))
            .collect()
    })
}

/// Looks at the directories themselves, and at what makes them at boot.
pub fn check(
    settings: &Settings,
    list_indexes: &ListIndexes,
    plan: &Plan,
    findings: &mut Findings,
) {
    let elsewhere = || list_indexes.remedy.clone();
    let base = &plan.base;
    if [Path::new("/"), Path::new("/dev/shm")].contains(&base.as_path()) {
        return findings.add(
            Severity::Warning,
            "shared_base",
            format_args!("list indexes are in {} itself, where others have files too: usercache sweep refuses it", base.display()),
            elsewhere(),
        );
    }
    let file_system = match open_without_links(base) {
        Ok(fd) => FileSystem::of(fd),
        Err(error) => {
            let reason = format!("{error}: no list index can be made there");
            return findings.add(Severity::Error, "no_base", reason, plan.make(settings));
        }
    };
    match file_system {
        Ok(FileSystem::Network) => findings.add(
            Severity::Error,
            "network_list_index",
            format_args!(
                "{} is on a network file system: list indexes there are shared, not local",
                base.display()
            ),
            elsewhere(),
        ),
        Ok(FileSystem::Disk) => findings.add(
            Severity::Warning,
            "disk_list_index",
            format_args!("{} is on a disk, not in memory", base.display()),
            elsewhere(),
        ),
        // What is on a disk is still there after a boot.
        Ok(FileSystem::Memory) => are_made_at_boot(settings, plan, findings),
        Err(_) => {}
    }
    are_safe(settings, plan, findings);
}

fn are_safe(settings: &Settings, plan: &Plan, findings: &mut Findings) {
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
        let (mode, owner) = (status.mode(), status.uid());
        let finding = if owner != planned.owner.1 {
            let reason = format!(
                "belongs to uid {owner}, not to {}: he decides who may have a list index",
                planned.owner.0
            );
            (Severity::Error, "foreign_base", reason)
        } else if mode & WRITABLE_BY_OTHERS & !planned.mode != 0 {
            let severity = if mode & STICKY == 0 {
                Severity::Error
            } else {
                Severity::Warning
            };
            let reason =
                "can be written to by others, who may hold the place of a user's directory"
                    .to_owned();
            (severity, "writable_base", reason)
        } else if planned.mode == SHARED && mode & 0o003 != 0o003 {
            let reason =
                "cannot be written to by all users, each of whom makes his own directory there"
                    .to_owned();
            (Severity::Error, "closed_base", reason)
        } else if planned.mode == SHARED && mode & STICKY == 0 {
            let reason =
                "has no sticky bit: everybody may remove another user's directory".to_owned();
            (Severity::Error, "writable_base", reason)
        } else {
            continue;
        };
        let (severity, id, reason) = finding;
        // Of several with the same fault, the first is named.
        wrong.entry((id, reason)).or_insert((severity, path));
    }
    for ((id, reason), (severity, path)) in wrong {
        let reason = format!("{} {reason}", path.display());
        findings.add(severity, id, reason, plan.make(settings));
    }
    if let Some(first) = missing.first() {
        findings.add(
            Severity::Error,
            "no_hash_directories",
            format_args!(
                "{} of {} directories are missing, {} for one: a delivery before its first login fails",
                missing.len(),
                plan.directories.len(),
                first.display()
            ),
            plan.make(settings),
        );
    }
}

fn are_made_at_boot(settings: &Settings, plan: &Plan, findings: &mut Findings) {
    let made = made_at_boot();
    let forgotten: Vec<_> = plan
        .directories
        .keys()
        .filter(|path| !made.contains(path.as_os_str().to_string_lossy().as_ref()))
        .collect();
    let Some(first) = forgotten.first() else {
        return;
    };
    let remedy = if plan.directories.len() == 1 {
        Remedy::Write(
            PathBuf::from(TMPFILES),
            plan.tmpfiles().trim_end().to_owned(),
        )
    } else {
        Remedy::Run(format!(
            "nfs-hostchange check{} --tmpfiles >{TMPFILES}",
            settings.option()
        ))
    };
    findings.add(
        Severity::Warning,
        "no_tmpfiles",
        format_args!(
            "nothing makes {} at boot{}: deliveries before the first login fail",
            first.display(),
            match forgotten.len() {
                1 => String::new(),
                number => format!(" (and {} more)", number - 1),
            }
        ),
        remedy,
    );
}

/// The directories that tmpfiles.d(5) makes.
fn made_at_boot() -> BTreeSet<String> {
    // Of files with the same name, the first counts.
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in ["/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            files.entry(entry.file_name()).or_insert(entry.path());
        }
    }
    files
        .values()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(directory_of_line)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn directory_of_line(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    let path = words.next()?.trim_matches(['"', '\'']);
    kind.starts_with(['d', 'D', 'v', 'q', 'Q'])
        .then(|| path.trim_end_matches('/').to_owned())
}
