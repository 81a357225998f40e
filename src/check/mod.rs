//! `nfs-hostchange check`: what is wrong with this backend.

pub mod dovecot;

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statvfs::fstatvfs;

use crate::command_line::DEFAULT_CONFIGURATION;
use crate::config::{Configuration, HostName};
use crate::file_system::FileSystem;
use crate::index_directory::Migration;
use crate::list_index_directory::open_without_links;
use crate::locate::{LocateRequest, locate};
use crate::location::{Shared, Tracking, Unvouchable};
use dovecot::Settings;

/// The wrapper's name in Dovecot's libexec directory.
const WRAPPER: &str = "nfs-hostchange-login";

/// Protocols with the services that serve a login.
const SERVICES: [(&str, &str); 4] = [
    ("imap", "imap"),
    ("pop3", "pop3"),
    ("submission", "submission"),
    ("sieve", "managesieve"),
];

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; may well be meant so.
    Hint,
    /// Something will go wrong, sooner or later.
    Warning,
    /// Users see old folders, lose logins, or somebody gets in.
    Error,
}

impl Severity {
    /// In lower case, as it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// A name that stays the same.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and why that matters.
    pub reason: String,
    /// What to write, and where.
    pub line: Option<String>,
}

/// Everything that is found, the worst first.
#[must_use]
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut check = Check {
        settings,
        findings: Vec::new(),
    };
    check.host_name();
    let configurations = check.services();
    for path in &configurations {
        check.configuration(path);
    }
    check.location();
    check.sweep();
    check
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    check.findings
}

struct Check<'a> {
    settings: &'a Settings,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn find(
        &mut self,
        severity: Severity,
        id: &'static str,
        reason: impl fmt::Display,
        line: Option<String>,
    ) {
        self.findings.push(Finding {
            id,
            severity,
            reason: reason.to_string(),
            line,
        });
    }

    fn host_name(&mut self) {
        let host = HostName::of_system();
        if host.as_str() == "localhost" || host.as_str().starts_with("localhost.") {
            self.find(
                Severity::Warning,
                "host_name",
                "this host is called localhost, and so may others be: the log cannot tell where a user came from",
                Some(format!("{DEFAULT_CONFIGURATION}: hostname = \"...\"")),
            );
        }
    }

    /// Whether every login passes the wrapper; returns the configuration files that it is given.
    fn services(&mut self) -> Vec<PathBuf> {
        let protocols = self.settings.get("protocols").to_owned();
        let mut configurations = Vec::new();
        for (protocol, service) in SERVICES {
            if protocols.split_whitespace().any(|word| word == protocol) {
                configurations.extend(self.service(service));
            }
        }
        configurations.sort();
        configurations.dedup();
        if configurations.is_empty() {
            configurations.push(PathBuf::from(DEFAULT_CONFIGURATION));
        }
        configurations
    }

    fn service(&mut self, service: &str) -> Option<PathBuf> {
        let executable = self.settings.get(&format!("service/{service}/executable"));
        let socket = executable.split_whitespace().nth(1);
        let post_login = socket.and_then(|socket| self.settings.service_of_socket(socket));
        let Some(post_login) = post_login else {
            self.find(
                Severity::Error,
                "no_post_login",
                format_args!("{service} logins do not pass {WRAPPER}: users see old folders"),
                Some(format!(
                    "service {service} {{ executable = {service} {service}-postlogin }} and a service {service}-postlogin {{ executable = script-login {WRAPPER} ... }}"
                )),
            );
            return None;
        };
        let post_login = post_login.to_owned();
        self.chain(service, &post_login)
    }

    fn chain(&mut self, service: &str, post_login: &str) -> Option<PathBuf> {
        let command = self
            .settings
            .get(&format!("service/{post_login}/executable"));
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let position = words.iter().position(|word| {
            Path::new(word)
                .file_name()
                .is_some_and(|name| name == WRAPPER)
        });
        let Some(position) = position else {
            self.find(
                Severity::Error,
                "no_wrapper",
                format_args!(
                    "service {post_login} does not execute {WRAPPER}: users see old folders"
                ),
                Some(format!(
                    "service {post_login} {{ executable = {command} {WRAPPER} }}"
                )),
            );
            return None;
        };
        let program = self.settings.program(&words[position]);
        let executable = fs::metadata(&program)
            .is_ok_and(|status| status.is_file() && status.mode() & 0o111 != 0);
        if !executable {
            self.find(
                Severity::Error,
                "not_executable",
                format_args!(
                    "{} cannot be executed: every {service} login fails",
                    program.display()
                ),
                Some(format!("install -m 0755 {WRAPPER} {}", program.display())),
            );
        }
        let mut configuration = None;
        let mut rest = words[position + 1..].iter();
        let next = rest.find(|word| match word.strip_prefix("--config=") {
            Some(path) => {
                configuration = Some(PathBuf::from(path));
                false
            }
            None => *word != "--",
        });
        if let Some(next) = next {
            self.find(
                Severity::Warning,
                "not_last",
                format_args!(
                    "service {post_login} executes {next} after {WRAPPER}: should it change MAIL_LOCATION or HOME, the wrong list index was looked at"
                ),
                Some(format!(
                    "service {post_login} {{ executable = script-login {next} {WRAPPER} }}"
                )),
            );
        }
        let (own, needed) = (
            self.settings.process_limit(post_login),
            self.settings.process_limit(service),
        );
        if own < needed {
            self.find(
                Severity::Warning,
                "process_limit",
                format_args!(
                    "process_limit of {post_login} is {own}, that of {service} {needed}: logins beyond it wait and are dropped"
                ),
                Some(format!("service {post_login} {{ process_limit = {needed} }}")),
            );
        }
        Some(configuration.unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIGURATION)))
    }

    /// The wrapper's own configuration.
    fn configuration(&mut self, path: &Path) {
        let configuration = match Configuration::read(path) {
            Ok(configuration) => configuration.unwrap_or_default(),
            Err(error) => {
                self.find(
                    Severity::Error,
                    "configuration",
                    format_args!("the built-in defaults are used: {error}"),
                    None,
                );
                return;
            }
        };
        let line = |setting: &str, value: &str| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            Some(format!("{}: {setting} = \"{value}\"", path.display()))
        };
        let dovecots = self.settings.mail_location().to_owned();
        match &configuration.mail_location {
            Some(own) if *own != dovecots => self.find(
                Severity::Error,
                "other_location",
                format_args!(
                    "mail_location in {} is '{own}', Dovecot's is '{dovecots}'",
                    path.display()
                ),
                line("mail_location", &dovecots),
            ),
            Some(_) => {}
            None => match self.settings.userdb_has_location() {
                Some(true) => {}
                Some(false) => self.find(
                    Severity::Error,
                    "no_location",
                    format_args!(
                        "the wrapper does not know where list indexes are: mail_location is neither in the userdb's answer nor in {}",
                        path.display()
                    ),
                    line("mail_location", &dovecots),
                ),
                None => self.find(
                    Severity::Hint,
                    "unknown_location",
                    "unless the userdb returns mail_location for every user, the configuration file needs it",
                    line("mail_location", &dovecots),
                ),
            },
        }
        if configuration.migration == Migration::On {
            self.find(
                Severity::Hint,
                "migration",
                "migration is on: switch it off once the log shows no list index taken over any more",
                Some(format!("{}: migration = false", path.display())),
            );
        }
        if configuration
            .hostname
            .is_some_and(|host| host.as_str() == "localhost")
        {
            self.find(
                Severity::Warning,
                "host_name",
                "hostname is localhost: the log cannot tell where a user came from",
                None,
            );
        }
    }

    /// Where list indexes are, for a user of no special name.
    fn location(&mut self) {
        let template = self.settings.mail_location().to_owned();
        let answer = locate(&LocateRequest {
            user: b"user".to_vec(),
            home: Some(b"/home/user".to_vec()),
            mail_home: None,
            mail_location: template.clone().into_bytes(),
            uid: 1000,
            gid: 1000,
        });
        let tracking = match answer {
            Ok(answer) => answer.tracking().clone(),
            Err(error) => {
                return self.find(Severity::Error, "location", error, None);
            }
        };
        let local = format!(
            "mail_location = {template}:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index"
        );
        let (severity, id) = match &tracking {
            Tracking::Tracked(tracked) => {
                self.index(&template);
                return self.base(&template, &tracked.list_index_dir);
            }
            Tracking::LayoutIndex => (Severity::Error, "layout_index"),
            Tracking::Shared(Shared::NotSet) => (Severity::Warning, "no_list_index"),
            Tracking::Shared(Shared::Relative | Shared::SameDirectory) => {
                (Severity::Warning, "shared_list_index")
            }
            Tracking::Shared(Shared::Memory | Shared::Disabled) => {
                (Severity::Warning, "list_index_off")
            }
            Tracking::Unvouchable(Unvouchable::IndexInMemory) => {
                (Severity::Error, "index_in_memory")
            }
            Tracking::Unvouchable(_) => (Severity::Error, "location"),
        };
        let line = (id == "no_list_index").then_some(local);
        self.find(severity, id, tracking, line);
    }

    fn index(&mut self, template: &str) {
        let index = value_of(template, "INDEX=").unwrap_or_default();
        let base = constant_part(index);
        let Some(base) = base.filter(|base| base.as_os_str().len() > 1) else {
            return;
        };
        let kind = open_without_links(&base)
            .ok()
            .and_then(|fd| FileSystem::of(fd).ok());
        if kind.is_some_and(|kind| kind != FileSystem::Network) {
            self.find(
                Severity::Hint,
                "index_not_shared",
                format_args!(
                    "INDEX below {} is not on a network file system: do all backends share it?",
                    base.display()
                ),
                None,
            );
        }
    }

    /// The directory in which list indexes of all users are.
    fn base(&mut self, template: &str, example: &[u8]) {
        let list_index = value_of(template, "LISTINDEX=").unwrap_or_default();
        let Some(base) = constant_part(list_index) else {
            return;
        };
        let example = String::from_utf8_lossy(example).into_owned();
        let tmpfiles = format!(
            "/etc/tmpfiles.d/nfs-hostchange.conf: d {} 0700 vmail vmail -",
            base.display()
        );
        let fd = match open_without_links(&base) {
            Ok(fd) => fd,
            Err(error) => {
                return self.find(
                    Severity::Error,
                    "no_base",
                    format_args!("{error}: no list index can be made (as {example})"),
                    Some(tmpfiles),
                );
            }
        };
        match FileSystem::of(&fd) {
            Ok(FileSystem::Network) => self.find(
                Severity::Error,
                "network_list_index",
                format_args!(
                    "{} is on a network file system: list indexes there are shared, not local",
                    base.display()
                ),
                None,
            ),
            Ok(FileSystem::Disk) => self.find(
                Severity::Warning,
                "disk_list_index",
                format_args!("{} is on a disk, not in memory", base.display()),
                None,
            ),
            Ok(FileSystem::Memory) => self.space(&base, &fd),
            Err(_) => {}
        }
        if let Ok(status) = fs::symlink_metadata(&base) {
            if status.mode() & 0o002 != 0 {
                let severity = if status.mode() & 0o1000 == 0 {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                self.find(
                    severity,
                    "writable_base",
                    format_args!(
                        "everybody may write to {}, and hold the place of another user's directory",
                        base.display()
                    ),
                    Some(format!("chmod 0711 {}", base.display())),
                );
            }
            let owner = self.mail_user();
            if status.uid() != 0 && owner.is_some_and(|owner| owner != status.uid()) {
                self.find(
                    Severity::Error,
                    "foreign_base",
                    format_args!(
                        "{} belongs to uid {}, neither root nor the mail user",
                        base.display(),
                        status.uid()
                    ),
                    Some(format!("chown root:root {}", base.display())),
                );
            }
            self.remove_ipc(&base, status.uid());
        }
        self.tmpfiles(&base, tmpfiles);
    }

    /// The one mail user, if all share one.
    fn mail_user(&self) -> Option<u32> {
        let name = self.settings.get("mail_uid");
        name.parse().ok().or_else(|| crate::accounts::user_id(name))
    }

    fn space(&mut self, base: &Path, fd: &std::os::fd::OwnedFd) {
        // What container engines give /dev/shm unless told otherwise.
        const CONTAINER: u64 = 64 * 1024 * 1024;
        let Ok(file_system) = fstatvfs(fd) else {
            return;
        };
        let bytes = |blocks: u64| blocks * file_system.fragment_size();
        let (size, free) = (
            bytes(file_system.blocks()),
            bytes(file_system.blocks_available()),
        );
        if size > 0 && (size <= CONTAINER || free < size / 10) {
            self.find(
                Severity::Warning,
                "space",
                format_args!(
                    "{} has {} MiB, {} MiB of them free: users beyond that have no list index",
                    base.display(),
                    size >> 20,
                    free >> 20
                ),
                Some("/etc/fstab: tmpfs /dev/shm tmpfs size=4g,mode=1777 0 0 (docker run --shm-size=4g)".to_owned()),
            );
        }
    }

    /// systemd-logind wipes what ordinary users have in /dev/shm when they log out.
    fn remove_ipc(&mut self, base: &Path, owner: u32) {
        const FIRST_ORDINARY: u32 = 1000;
        let mail_user = self.mail_user().unwrap_or(owner);
        let affected = base.starts_with("/dev/shm")
            && mail_user >= FIRST_ORDINARY
            && Path::new("/run/systemd/system").exists();
        let settings = ["/etc/systemd/logind.conf"]
            .into_iter()
            .map(PathBuf::from)
            .chain(files_in("/etc/systemd/logind.conf.d"));
        let switched_off = settings
            .filter_map(|path| fs::read_to_string(path).ok())
            .any(|text| text.lines().any(|line| line.trim() == "RemoveIPC=no"));
        if affected && !switched_off {
            self.find(
                Severity::Error,
                "remove_ipc",
                format_args!("mail uid {mail_user} is no system user: systemd-logind deletes its files in /dev/shm at the end of a session of that user"),
                Some("/etc/systemd/logind.conf: RemoveIPC=no".to_owned()),
            );
        }
    }

    fn tmpfiles(&mut self, base: &Path, line: String) {
        let mut entries = ["/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d"]
            .into_iter()
            .flat_map(files_in)
            .filter_map(|path| fs::read_to_string(path).ok());
        let named = base.to_string_lossy();
        let is_made = entries.any(|text| {
            text.lines()
                .any(|line| line.split_whitespace().nth(1) == Some(&*named))
        });
        if !is_made {
            self.find(
                Severity::Warning,
                "no_tmpfiles",
                format_args!(
                    "nothing makes {} at boot: deliveries before the first login fail",
                    base.display()
                ),
                Some(line),
            );
        }
    }

    fn sweep(&mut self) {
        let active = Command::new("systemctl")
            .args(["--quiet", "is-active", "nfs-hostchange-sweep.timer"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // Without systemd a cron job may do it.
        if active.is_ok_and(|status| !status.success()) {
            self.find(
                Severity::Hint,
                "no_sweep",
                "the sweep timer is not active: list indexes of users who left stay in memory",
                Some("systemctl enable --now nfs-hostchange-sweep.timer".to_owned()),
            );
        }
    }
}

/// The value of a key in a mail_location template; a doubled colon does not end it.
fn value_of<'a>(template: &'a str, key: &str) -> Option<&'a str> {
    let parts = template.split(':');
    parts.filter_map(|part| part.strip_prefix(key)).next_back()
}

/// The directory part of a template before its first variable, if it is absolute.
fn constant_part(template: &str) -> Option<PathBuf> {
    if !template.starts_with('/') {
        return None;
    }
    let constant = template.split('%').next().unwrap_or_default();
    let end = constant.rfind('/')?;
    Some(PathBuf::from(if end == 0 { "/" } else { &constant[..end] }))
}

fn files_in(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.as_os_str().as_bytes().ends_with(b".conf"))
        .collect()
}
