//! The file system of list indexes: there is room, for them alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::directories::{Plan, mount_point};
use super::finding::{Findings, Kind, Remedy, quoted};
use crate::dovecot::master::{Master, is_systemd, memory_limit};
use crate::local::directory::open_without_links;
use crate::local::room::Room;
use crate::system::file_system::FileSystem;

const UNITS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const FSTAB: &str = "/etc/fstab";
/// Of a file system that has nothing but list indexes.
const OWN_OPTIONS: &str = "size=25%,nr_inodes=1m,mode=0711,noexec,nodev,nosuid";

/// Looks at the file system that the base directory is on.
///
/// `users` is how many Dovecot knows, or 0.
pub fn check(plan: &Plan<'_>, users: usize, master: Option<Master>, findings: &mut Findings) {
    let Ok(directory) = open_without_links(&plan.base) else {
        return;
    };
    let (Ok(FileSystem::Memory), Ok(room)) = (FileSystem::of(&directory), Room::of(&directory))
    else {
        return;
    };
    let mounted = Mounted::with(&plan.base);
    is_for_all(plan, &mounted, findings);
    /// What container engines give /dev/shm unless told otherwise.
    const CONTAINER: u64 = 64 << 20;
    /// Where there are more, it shows soon enough if they run out.
    const FEW_FILES: u64 = 64 << 10;
    /// A directory, the record, the list index and its log.
    const FILES_OF_USER: u64 = 4;
    /// As docs/sizing.md calculates.
    const BYTES_OF_USER: u64 = 64 << 10;
    /// So many of whom nobody knows.
    const SOME: u64 = 4096;
    let size = room.bytes.total;
    let mount_point = mounted.mount_point.display().to_string();
    if size == 0 {
        // A limit can be changed at any time, but only be set when it is mounted.
        let line = mounted.line_of_fstab(1024);
        let kind = Kind::Unlimited { mount_point };
        return findings.add(kind, Remedy::Append(PathBuf::from(FSTAB), line));
    }
    let (bytes, files) = room.without_reserve();
    let by_files = files / FILES_OF_USER;
    let has_few_files = (1..=FEW_FILES).contains(&room.files.total)
        && by_files < if users == 0 { SOME } else { users as u64 };
    let is_small = size <= CONTAINER || room.is_getting_short();
    if is_small || has_few_files {
        let by_bytes = bytes / BYTES_OF_USER;
        let kind = Kind::Space {
            mount_point: mount_point.clone(),
            size: size >> 20,
            files: room.files.total,
            free: room.bytes.free >> 20,
            free_files: room.files.free,
            users: match room.files.total {
                0 => by_bytes,
                _ => by_bytes.min(by_files),
            },
        };
        let size = if is_small { 2 * size } else { size };
        findings.add(kind, mounted.resized((size >> 20).max(1024)));
    }
    if let Some(limit) = memory_limit(master).filter(|limit| *limit < size) {
        let kind = Kind::MemoryLimit {
            mount_point,
            size: size >> 20,
            limit: limit >> 20,
        };
        findings.add(kind, mounted.resized((limit / 2) >> 20));
    }
}

/// Whoever may write to the file system may fill it.
fn is_for_all(plan: &Plan<'_>, mounted: &Mounted, findings: &mut Findings) {
    const WRITABLE_BY_ALL: u32 = 0o002;
    if mounted.mount_point == plan.base || mounted.mode & WRITABLE_BY_ALL == 0 {
        return;
    }
    let own = Mounted {
        mount_point: plan.base.clone(),
        mode: 0o711,
    };
    let base = quoted(&plan.base.to_string_lossy());
    let make = plan.command();
    let is_in_fstab = own.is_in_fstab();
    let command = match own.unit() {
        Some(unit) => format!(
            "systemctl enable --now {} && {make} && systemctl restart dovecot",
            quoted(&unit)
        ),
        None if is_in_fstab => format!("mount {base} && {make}"),
        None => format!(
            "echo {} >>{FSTAB} && mount {base} && {make}",
            quoted(&format!(
                "tmpfs {} tmpfs {OWN_OPTIONS} 0 0",
                plan.base.display()
            ))
        ),
    };
    let directory = plan.base.display().to_string();
    let kind = match is_in_fstab || own.is_enabled() {
        true => Kind::NotMounted { directory },
        false => Kind::CommonFileSystem {
            directory,
            mount_point: mounted.mount_point.display().to_string(),
        },
    };
    findings.add(kind, Remedy::Run(command));
}

/// Where a file system is mounted, and who may write there.
struct Mounted {
    mount_point: PathBuf,
    mode: u32,
}

impl Mounted {
    fn with(path: &Path) -> Self {
        let mount_point = mount_point(path);
        let mode = mount_point
            .metadata()
            .map_or(0o755, |status| status.mode() & 0o7777);
        Self { mount_point, mode }
    }

    fn options(&self, megabytes: u64) -> String {
        let mode = self.mode;
        format!("size={megabytes}m,nr_inodes={megabytes}k,mode={mode:04o}")
    }

    fn line_of_fstab(&self, megabytes: u64) -> String {
        let mount_point = self.mount_point.display();
        format!("tmpfs {mount_point} tmpfs {} 0 0", self.options(megabytes))
    }

    /// Another size, now and after a boot.
    fn resized(&self, megabytes: u64) -> Remedy {
        let options = self.options(megabytes);
        let mount_point = quoted(&self.mount_point.to_string_lossy());
        let write = match self.unit() {
            Some(unit) => {
                let directory = quoted(&format!("{}/{unit}.d", UNITS[0]));
                format!(
                    "mkdir -p {directory} && printf '[Mount]\\nOptions={options},noexec,nodev,nosuid\\n' \
                     >{directory}/nfs-hostchange.conf && systemctl daemon-reload"
                )
            }
            None => format!("echo '{}' >>{FSTAB}", self.line_of_fstab(megabytes)),
        };
        Remedy::Run(format!(
            "{write} && mount -o remount,{options} {mount_point}"
        ))
    }

    /// systemd's unit that mounts it, if there is one.
    fn unit(&self) -> Option<String> {
        let name = unit_name(&self.mount_point);
        let is_there = UNITS
            .iter()
            .any(|units| Path::new(units).join(&name).exists());
        (is_systemd() && is_there).then_some(name)
    }

    fn is_enabled(&self) -> bool {
        let name = unit_name(&self.mount_point);
        let wanted = Path::new(UNITS[0]).join("local-fs.target.wants").join(name);
        is_systemd() && wanted.symlink_metadata().is_ok()
    }

    fn is_in_fstab(&self) -> bool {
        let text = fs::read_to_string(FSTAB).unwrap_or_default();
        let mut mount_points = text.lines().filter(|line| !line.starts_with('#'));
        mount_points
            .any(|line| line.split_whitespace().nth(1).map(Path::new) == Some(&self.mount_point))
    }
}

/// What systemd-escape(1) makes of a path.
fn unit_name(mount_point: &Path) -> String {
    let path = mount_point.to_string_lossy();
    let mut name = String::new();
    for (number, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if number == 0 => name += r"\x2e",
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(byte.into()),
            _ => name += &format!(r"\x{byte:02x}"),
        }
    }
    name + ".mount"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::unit_name;

    #[test]
    fn a_unit_is_called_as_systemd_escape_says() {
        let unit = unit_name(Path::new("/dev/shm/dovecot-listindex"));
        assert_eq!(unit, r"dev-shm-dovecot\x2dlistindex.mount");
        assert_eq!(
            unit_name(Path::new("/.a/b.c/ä")),
            r"\x2ea-b.c-\xc3\xa4.mount"
        );
    }
}
