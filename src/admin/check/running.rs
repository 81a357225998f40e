//! The Dovecot that runs, if one does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::finding::{Findings, Kind, Remedy};
use crate::dovecot::settings::Settings;

/// The master process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Master(u32);

impl Master {
    /// Whoever wrote the process id in base_dir, if that is still there.
    pub fn find(settings: &Settings) -> Option<Self> {
        let file = Path::new(settings.get("base_dir")).join("master.pid");
        let master = Self(fs::read_to_string(file).ok()?.trim().parse().ok()?);
        // What has ended, and was not waited for, has none.
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

    /// What systemd, or a container, lets Dovecot's processes use together.
    pub fn memory_limit(self) -> Option<u64> {
        let groups = self.read("cgroup");
        // Of version 2, or of version 1.
        let limits = groups.lines().filter_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (root, group, file) = match line.split_once(":/")? {
                ("", group) => ("/sys/fs/cgroup", group, "memory.max"),
                ("memory", group) => ("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"),
                _ => return None,
            };
            let group = Path::new(root).join(group);
            let limits = group.ancestors().filter_map(|group| {
                let limit = fs::read_to_string(group.join(file)).ok()?;
                limit.trim().parse().ok()
            });
            limits.min()
        });
        limits.min()
    }
}

/// Whether systemd runs here (sd_booted(3)).
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// When Dovecot read its configuration: at its start, or at a reload, which makes its sockets anew.
fn time_of_reading(settings: &Settings) -> Option<SystemTime> {
    let socket = Path::new(settings.get("base_dir")).join("config");
    fs::symlink_metadata(socket).ok()?.modified().ok()
}

/// Whether the running Dovecot can be asked, and what keeps it from being.
pub fn check(settings: &Settings, master: Option<Master>, findings: &mut Findings) -> bool {
    if master.is_none() {
        let reason = "Dovecot does not run".to_owned();
        findings.add(Kind::NotRunning { reason }, None);
        return false;
    }
    if let (Some((file, changed)), Some(read)) =
        (settings.files().last_change(), time_of_reading(settings))
    {
        if changed > read {
            let file = file.display().to_string();
            let command = match is_systemd() {
                true => "systemctl restart dovecot",
                false => "doveadm reload",
            };
            findings.add(Kind::NotReloaded { file }, Remedy::Run(command.to_owned()));
            return false;
        }
    }
    true
}
