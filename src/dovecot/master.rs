//! Dovecot's master process, and what its service may use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the master process is, unless base_dir says otherwise.
pub const BASE_DIR: &str = "/run/dovecot";

/// The control groups of Dovecot's service while it does not run, as /proc/PID/cgroup would give them.
const SERVICE: &str = "0::/system.slice/dovecot.service\n1:memory:/system.slice/dovecot.service";

/// A running master process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Master(u32);

impl Master {
    /// Whoever wrote the process id in base_dir, if that process is still there.
    pub fn find(base_dir: &Path) -> Option<Self> {
        let file = base_dir.join("master.pid");
        let master = Self(fs::read_to_string(file).ok()?.trim().parse().ok()?);
        // A process that has ended has none, even if nobody has waited for it.
        (!master.read("cmdline").is_empty()).then_some(master)
    }

    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default()
    }

    /// A path as Dovecot's processes see it: systemd can show a service other directories than the host has.
    pub fn sees(self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc")
            .join(self.0.to_string())
            .join("root")
            .join(path)
    }
}

/// How much memory systemd, or a container, lets all of Dovecot's processes use. What they write to a tmpfs
/// counts. `None` if there is no limit.
pub fn memory_limit(master: Option<Master>) -> Option<u64> {
    match master {
        Some(master) => limit_of_groups(&master.read("cgroup")),
        // The service's own group is gone when it stops, and those above it are still there.
        None => limit_of_groups(SERVICE)
            .into_iter()
            .chain(limit_of_unit())
            .min(),
    }
}

/// The least limit of these control groups and of all that they are in.
fn limit_of_groups(groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        // Of version 2, or of version 1.
        let (root, group, file) = match line.split_once(":/")? {
            ("", group) => ("/sys/fs/cgroup", group, "memory.max"),
            ("memory", group) => ("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = Path::new(root).join(group);
        let limits = group.ancestors().filter_map(|group| {
            // "max" is no limit.
            let limit = fs::read_to_string(group.join(file)).ok()?;
            limit.trim().parse().ok()
        });
        limits.min()
    });
    limits.min()
}

/// What systemd will let the service use when it starts.
fn limit_of_unit() -> Option<u64> {
    if !is_systemd() {
        return None;
    }
    let output = Command::new("systemctl")
        .args(["show", "--property=MemoryMax", "--value", "dovecot.service"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    // "infinity" is no limit.
    String::from_utf8_lossy(&output.ok()?.stdout)
        .trim()
        .parse()
        .ok()
}

/// Whether systemd runs here (sd_booted(3)).
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
