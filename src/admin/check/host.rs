//! The host keeps list indexes, and throws away those that nobody uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::directories::Plan;
use super::finding::{Findings, Kind, Remedy, quoted};
use super::people::MailUsers;
use crate::dovecot::master::is_systemd;

/// Looks at everything around the directories.
pub fn check(plan: &Plan<'_>, findings: &mut Findings) {
    remove_ipc(plan, findings);
    sweep(plan, findings);
}

/// systemd-logind deletes what an ordinary user has in /dev/shm when his last session ends.
fn remove_ipc(plan: &Plan<'_>, findings: &mut Findings) {
    const FIRST_ORDINARY: u32 = 1000;
    let kind = match &plan.users {
        MailUsers::One(account) if account.uid < FIRST_ORDINARY => return,
        // Nobody should have a session as the one mail user.
        MailUsers::One(account) => Kind::RemoveIpcOfOne {
            user: account.name.clone(),
        },
        MailUsers::Many(_) | MailUsers::Unknown => Kind::RemoveIpcOfMany,
    };
    if is_systemd() && plan.base.starts_with("/dev/shm") && logind_removes_ipc() {
        let file = PathBuf::from("/etc/systemd/logind.conf.d/nfs-hostchange.conf");
        findings.add(
            kind,
            Remedy::Append(file, "[Login]\nRemoveIPC=no".to_owned()),
        );
    }
}

/// logind.conf(5): on unless switched off; of several settings the last counts, of files with the
/// same name the first.
fn logind_removes_ipc() -> bool {
    let mut files = BTreeMap::new();
    for directory in ["/etc", "/run", "/usr/local/lib", "/usr/lib"] {
        let directory = Path::new(directory).join("systemd/logind.conf.d");
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            files.entry(entry.file_name()).or_insert(entry.path());
        }
    }
    let main = PathBuf::from("/etc/systemd/logind.conf");
    let texts = [main].into_iter().chain(files.into_values());
    let setting = texts
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(value_of_remove_ipc)
                .collect::<Vec<_>>()
        })
        .last();
    setting.is_none_or(|value| !matches!(value.as_str(), "0" | "no" | "n" | "false" | "f" | "off"))
}

fn value_of_remove_ipc(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    (key.trim() == "RemoveIPC").then(|| value.trim().to_ascii_lowercase())
}

fn sweep(plan: &Plan<'_>, findings: &mut Findings) {
    const TIMER: &str = "nfs-hostchange-sweep.timer";
    let is_active = || {
        Command::new("systemctl")
            .args(["--quiet", "is-active", TIMER])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let systemd = is_systemd();
    if cron_sweeps() || (systemd && is_active()) {
        return;
    }
    let base = quoted(&plan.base.to_string_lossy());
    let remedy = if systemd {
        let settings = sweep_settings(&base);
        Remedy::Run(format!("{settings}systemctl enable --now {TIMER}"))
    } else {
        Remedy::Append(
            PathBuf::from("/etc/cron.d/nfs-hostchange"),
            format!(
                "17 3 * * * root nfs-hostchange usercache sweep '14 days' {}",
                base.replace('%', r"\%")
            ),
        )
    };
    findings.add(Kind::NoSweep, remedy);
}

/// The command that tells the timer's service what to sweep, unless that is told already.
fn sweep_settings(base: &str) -> String {
    // As packages for Debian and for RPM systems have it.
    const FILES: [&str; 2] = [
        "/etc/default/nfs-hostchange",
        "/etc/sysconfig/nfs-hostchange",
    ];
    let there = FILES.into_iter().find(|file| Path::new(file).exists());
    let file = there.unwrap_or(FILES[0]);
    let settings = fs::read_to_string(file).unwrap_or_default();
    if settings.lines().any(|line| line.starts_with("SWEEP_ROOT=")) {
        String::new()
    } else {
        format!("printf '%s\\n' 'SWEEP_AGE=\"14 days\"' SWEEP_ROOT={base} >>{file} && ")
    }
}

fn cron_sweeps() -> bool {
    let directories = ["/etc/cron.d", "/etc/cron.daily", "/etc/cron.weekly"];
    let entries = directories.into_iter().flat_map(fs::read_dir);
    entries
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .chain([PathBuf::from("/etc/crontab")])
        .filter_map(|path| fs::read_to_string(path).ok())
        .any(|text| {
            let mut lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.any(|line| line.contains("usercache sweep"))
        })
}
