//! `nfs-hostchange check` against configurations that the real doveconf reads, on a host of the
//! test's own where Dovecot does not run: what has to do with the host. What has to do with logins is
//! in check.sh, with real ones.
//!
//! Whatever is found is mended as the finding itself says, until nothing is found any more.

mod common;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{mkdtemp, sethostname};
use serde_json::Value;

use common::dovecot::{Dovecot, Location, Version};
use common::scratch::{Run, Scratch, is_root};
use common::{close, copy_program, mount_tmpfs};

const BASE: &str = "/dev/shm/dovecot-listindex";
const LIST_INDEX: &str = "/dev/shm/dovecot-listindex/@HASH@/@USER@/dovecot.list.index";
const AT_BOOT: &str = "/etc/tmpfiles.d/list-indexes.conf";
const OWN: &str = "/etc/dovecot/nfs-hostchange.toml";
const VMAIL: u32 = 5000;

/// What a backend's administrator has written, but for the location nothing that needs a word.
#[derive(Clone)]
struct Configuration {
    /// What the userdb returns.
    location: Location,
    /// Where the users' home directories are.
    homes: &'static str,
    /// Whose all mail is, if not each user's own.
    owner: Option<&'static str>,
    /// The directories of list indexes are made for users with uids of their own.
    many: bool,
    wrapper: bool,
    plugin: bool,
    /// Lines of Dovecot's that the two versions write differently.
    more: fn(Version) -> &'static str,
    /// The wrapper's configuration file.
    own: String,
}

impl Configuration {
    /// The userdb returns that location.
    fn at(location: Location) -> Configuration {
        Configuration {
            location,
            homes: "/srv/mail",
            owner: Some("vmail"),
            many: false,
            wrapper: true,
            plugin: false,
            more: |_| "",
            own: "migration = false\n".to_owned(),
        }
    }

    fn good() -> Configuration {
        Configuration::at(Location::new(LIST_INDEX))
    }

    fn of_many_uids() -> Configuration {
        Configuration {
            owner: None,
            many: true,
            ..Configuration::good()
        }
    }

    /// Dovecot's.
    fn lines(&self, version: Version) -> String {
        let mut lines = match version {
            Version::V2_3 => self.lines_of_2_3(),
            Version::V2_4 => self.lines_of_2_4(),
        };
        lines += (self.more)(version);
        let executable = if self.wrapper {
            "imap imap-postlogin"
        } else {
            "imap"
        };
        let user = self
            .owner
            .map_or_else(String::new, |owner| format!("\n  user = {owner}"));
        lines += &format!(
            "service imap {{
  executable = {executable}
  process_limit = 200
}}
service imap-postlogin {{
  executable = script-login nfs-hostchange-login
  process_limit = 200{user}
  unix_listener imap-postlogin {{
  }}
}}
"
        );
        lines
    }

    fn lines_of_2_3(&self) -> String {
        let users = match self.owner {
            Some(owner) => format!(
                "driver = static\n  args = uid={owner} gid={owner} home={}/%u",
                self.homes
            ),
            None => "driver = passwd".to_owned(),
        };
        let plugins = if self.plugin {
            "mail_plugins = acl nfs_hostchange\n"
        } else {
            ""
        };
        let location = self.location.lines(Version::V2_3);
        format!(
            "mail_location = mdbox:~/mdbox
{plugins}userdb {{
  {users}
  default_fields = {}}}
",
            location.replacen(" = ", "=", 1)
        )
    }

    fn lines_of_2_4(&self) -> String {
        let users = match self.owner {
            Some(owner) => format!(
                "static {{\n  fields {{\n    uid = {owner}\n    gid = {owner}\n    home = {}/%{{user}}\n  }}\n}}",
                self.homes
            ),
            None => "passwd {\n}".to_owned(),
        };
        let plugins = if self.plugin {
            "mail_plugins {\n  acl = yes\n  nfs_hostchange = yes\n}\n"
        } else {
            ""
        };
        let location = self.location.lines(Version::V2_4);
        let fields = self.location.fields(Version::V2_4).into_iter();
        let fields: String = fields
            .map(|(name, _)| format!("  {name} = $SET:{name}\n"))
            .collect();
        format!(
            "{location}{plugins}userdb {users}\nuserdb_fields {{\n{fields}}}\nnamespace inbox {{\n  inbox = yes\n}}\n"
        )
    }
}

/// A host that only the test's own thread sees, with nothing wrong but the configuration.
struct Backend {
    scratch: Scratch,
}

/// What is left to say where Dovecot does not run.
const NOBODY_ASKED: &str = "hint: users cannot be looked up (Dovecot does not run): \
    run this again while Dovecot runs\n";

/// What is found: id and severity.
type Found<'a> = &'a [(&'a str, &'a str)];

impl Backend {
    fn new(configuration: &Configuration, dovecot: Dovecot) -> Backend {
        let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
        unshare(flags).expect("root may have namespaces");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect(
            "/ is a mount point; in a chroot that is none, run tests/lib/own-root.sh cargo test",
        );
        mount_tmpfs(Path::new("/etc"), "mode=0755");
        mount_tmpfs(Path::new("/run"), "mode=0755");
        mount_tmpfs(Path::new("/dev/shm"), "size=1g,mode=0755");
        sethostname("a.example.org").expect("the host name is this test's");
        write(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nvmail:x:5000:5000::/:/bin/false\n\
             system:x:600:600::/:/bin/false\n\
             dovecot:x:990:990::/:/bin/false\ndovenull:x:991:991::/:/bin/false\n",
        );
        write(
            "/etc/group",
            "root:x:0:\nvmail:x:5000:\ndovecot:x:990:\ndovenull:x:991:\n",
        );
        write(
            "/etc/cron.d/sweep",
            "0 3 * * * root nfs-hostchange usercache sweep 7days /x\n",
        );
        let backend = Backend {
            scratch: Scratch::new(),
        };
        fs::create_dir(backend.path().join("modules")).expect("mkdir");
        copy_program(
            Path::new("/bin/true"),
            &backend.path().join("nfs-hostchange-login"),
        );
        dovecot.put_into(&backend.scratch);
        let text = format!(
            "{0}protocols = imap\nssl = no\nlibexec_dir = {1}\nmail_plugin_dir = {1}/modules\n{2}",
            dovecot.version.first_lines(),
            backend.path().display(),
            configuration.lines(dovecot.version)
        );
        backend.write_lines("dovecot.conf", &text);
        // An empty one is not one.
        write(OWN, &format!("{}\n", configuration.own));
        // With the directories of a good location, whatever the case has.
        let good = if configuration.many {
            let text = Configuration::of_many_uids().lines(dovecot.version);
            let first_lines = dovecot.version.first_lines();
            backend.write_lines("good.conf", &format!("{first_lines}{text}"));
            backend
                .run("nfs-hostchange check --dovecot-config good.conf --tmpfiles")
                .stdout
        } else {
            format!("d {BASE} 0700 vmail vmail -\n")
        };
        write(AT_BOOT, &good);
        backend.boot();
        backend
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn check(&self) -> (Run, Vec<Value>) {
        let run = self.run("nfs-hostchange check --json --dovecot-config dovecot.conf");
        let answer: Value =
            serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        let mut findings = answer["findings"].as_array().expect("a list").clone();
        // Nobody has started it.
        findings.retain(|finding| finding["id"] != "not_running");
        let is_wrong = |finding: &Value| finding["severity"] != "hint";
        let expected = i32::from(findings.iter().any(is_wrong));
        assert_eq!((run.status, run.stderr.as_str()), (Some(expected), ""));
        (run, findings)
    }

    fn finds(&self, expected: Found) -> Vec<Value> {
        let (run, findings) = self.check();
        let text = |finding: &Value, field: &str| finding[field].as_str().expect("text").to_owned();
        let mut found: Vec<_> = findings
            .iter()
            .map(|finding| (text(finding, "id"), text(finding, "severity")))
            .collect();
        found.sort();
        let mut expected: Vec<_> = expected
            .iter()
            .map(|&(id, severity)| (id.to_owned(), severity.to_owned()))
            .collect();
        expected.sort();
        assert_eq!(found, expected, "{run:?}");
        findings
    }

    /// Does what findings say, and what a boot would do then, until there are none.
    fn mend(&self, mut findings: Vec<Value>) {
        // What is mended may let the next thing be seen.
        for _ in 0..4 {
            for finding in &findings {
                match (finding["command"].as_str(), finding["file"].as_str()) {
                    (Some(command), _) => self.shell(command),
                    (None, Some(file)) => self.edit(file, finding),
                    (None, None) => panic!("no remedy: {finding}"),
                }
            }
            self.boot();
            findings = self.check().1;
            if findings.is_empty() {
                return;
            }
        }
        panic!("not mended: {findings:?}");
    }

    fn boot(&self) {
        self.shell("systemd-tmpfiles --create /etc/tmpfiles.d/*.conf");
    }

    fn write_lines(&self, file: &str, lines: &str) {
        let file = self.path().join(file);
        let text = fs::read_to_string(&file).unwrap_or_default();
        write(&file, &format!("{text}{lines}\n"));
    }

    /// Writes lines where a finding wants them.
    fn edit(&self, file: &str, finding: &Value) {
        let file = self.path().join(file);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().collect();
        let new: Vec<&str> = finding["lines"].as_str().expect("lines").lines().collect();
        let line = finding["line"].as_u64().map(|line| line as usize);
        match (line, finding["replaces"] == true) {
            (None, _) => lines.extend(new),
            (Some(line), true) => drop(lines.splice(line - 1..line, new)),
            (Some(line), false) => drop(lines.splice(line..line, new)),
        }
        write(&file, &format!("{}\n", lines.join("\n")));
    }

    /// In the directory with the wrapper and the command, which Dovecot's libexec directory is here.
    fn run(&self, line: &str) -> Run {
        let path = std::env::var("PATH").expect("PATH");
        Run::of(
            Command::new("sh")
                .args(["-c", line])
                .current_dir(self.path())
                .env("PATH", format!("{}:{path}", self.path().display())),
        )
    }

    fn shell(&self, line: &str) {
        let run = self.run(line);
        assert_eq!(run.status, Some(0), "{line}: {run:?}");
    }
}

fn write(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
    let mut file = File::create(path).expect("create");
    file.write_all(text.as_bytes()).expect("write");
    close(file);
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Runs `test` on a backend with a Dovecot of each version, in a thread of its own since it leaves
/// this one's namespaces.
fn on_backend(configuration: Configuration, test: impl Fn(&Backend) + Sync) {
    if is_root() {
        for dovecot in Dovecot::both() {
            thread::scope(|scope| {
                scope.spawn(|| test(&Backend::new(&configuration, dovecot)));
            });
        }
    }
}

/// What is done to a backend, what is found then, and how bad it is.
type Case<'a> = (fn(&Backend), &'a str, &'a str);

/// With that configuration, that is found, and nothing any more when it is mended.
fn finds_and_mends(configuration: Configuration, expected: Found) {
    on_backend(configuration, |backend| {
        let findings = backend.finds(expected);
        backend.mend(findings);
    });
}

/// On a good backend to which that was done, one thing is found, and nothing when it is mended.
fn finds_after(
    configuration: Configuration,
    spoil: impl Fn(&Backend) + Sync,
    id: &str,
    severity: &str,
) {
    on_backend(configuration, |backend| {
        backend.finds(&[]);
        spoil(backend);
        let findings = backend.finds(&[(id, severity)]);
        backend.mend(findings);
    });
}

#[test]
fn a_backend_that_is_as_it_should_be_has_no_findings() {
    on_backend(Configuration::good(), |backend| {
        backend.finds(&[]);
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf");
        assert_eq!((run.status, run.stdout.as_str()), (Some(0), NOBODY_ASKED));
    });
    on_backend(Configuration::of_many_uids(), |backend| {
        backend.finds(&[]);
    });
    // One uid, but the directories are made for many.
    let mut configuration = Configuration::good();
    configuration.many = true;
    on_backend(configuration, |backend| {
        backend.finds(&[]);
    });
    // Nothing to hash.
    let mut configuration = Configuration::at(Location::new(&format!("{BASE}/@USER@/list")));
    configuration.owner = None;
    on_backend(configuration, |backend| {
        mode(BASE, 0o1733);
        chown(BASE, Some(0), Some(0)).expect("chown");
        write(AT_BOOT, &format!("d {BASE} 1733 root root -\n"));
        backend.finds(&[]);
    });
}

#[test]
fn a_configuration_file_that_is_not_used_is_found() {
    let spoils: [fn(&Backend); 3] = [
        |_| chown(OWN, Some(VMAIL), None).expect("chown"),
        |_| mode(OWN, 0o664),
        // The service's user cannot read it.
        |_| mode(OWN, 0o600),
    ];
    for spoil in spoils {
        finds_after(Configuration::good(), spoil, "configuration", "error");
    }
    let mut configuration = Configuration::good();
    configuration.own += "migraton = true\n";
    on_backend(configuration, |backend| {
        let findings = backend.finds(&[("configuration", "error")]);
        let reason = findings[0]["reason"].as_str().expect("text");
        assert!(reason.contains("nfs-hostchange.toml:2:1:"), "{reason}");
    });
}

#[test]
fn list_indexes_on_a_disk_are_found() {
    let disk = mkdtemp("/var/tmp/nfs-hostchange-check.XXXXXX").expect("mkdtemp");
    chown(&disk, Some(VMAIL), None).unwrap_or(());
    let location = Location::new(&format!("{}/@USER@/list", disk.display()));
    finds_and_mends(
        Configuration::at(location),
        &[("disk_list_index", "warning")],
    );
    fs::remove_dir(disk).expect("rmdir");
}

#[test]
fn an_index_that_other_backends_may_not_see_is_a_hint() {
    let mut homes = Configuration::good();
    homes.homes = "/usr/share";
    let mut index = Configuration::good();
    index.location.index = Some("/usr/share/@USER@".to_owned());
    for configuration in [homes, index] {
        on_backend(configuration, |backend| {
            backend.finds(&[("index_not_shared", "hint")]);
        });
    }
}

#[test]
fn base_directories_that_are_missing_or_not_safe_are_found() {
    let cases: [Case; 5] = [
        (|_| fs::remove_dir(BASE).expect("rmdir"), "no_base", "error"),
        (|_| mode(BASE, 0o770), "writable_base", "error"),
        (|_| mode(BASE, 0o1777), "writable_base", "warning"),
        (
            |_| chown(BASE, Some(1), None).expect("chown"),
            "foreign_base",
            "error",
        ),
        (
            |_| chown(BASE, Some(0), None).expect("chown"),
            "foreign_base",
            "error",
        ),
    ];
    for (spoil, id, severity) in cases {
        finds_after(Configuration::good(), spoil, id, severity);
    }
}

#[test]
fn hash_directories_that_are_missing_or_not_safe_are_found() {
    const HASH: &str = "/dev/shm/dovecot-listindex/a7";
    let cases: [Case; 6] = [
        (
            |_| fs::remove_dir(HASH).expect("rmdir"),
            "no_hash_directories",
            "error",
        ),
        (|_| mode(HASH, 0o733), "writable_base", "error"),
        (|_| mode(HASH, 0o711), "closed_base", "error"),
        (
            |_| chown(HASH, Some(VMAIL), None).expect("chown"),
            "foreign_base",
            "error",
        ),
        (|_| mode(BASE, 0o733), "writable_base", "error"),
        (
            |_| chown(BASE, Some(VMAIL), None).expect("chown"),
            "foreign_base",
            "error",
        ),
    ];
    for (spoil, id, severity) in cases {
        finds_after(Configuration::of_many_uids(), spoil, id, severity);
    }
    on_backend(Configuration::of_many_uids(), |backend| {
        backend.shell(&format!("rmdir {BASE}/*"));
        let findings = backend.finds(&[("no_hash_directories", "error")]);
        let reason = findings[0]["reason"].as_str().expect("text");
        assert!(reason.starts_with("256 of 257 directories"), "{reason}");
        backend.mend(findings);
    });
}

#[test]
fn directories_that_nothing_makes_at_boot_are_found() {
    let cases: [fn(&Backend); 3] = [
        |_| fs::remove_file(AT_BOOT).expect("unlink"),
        |_| write(AT_BOOT, ""),
        // A line that only corrects what is there.
        |_| write(AT_BOOT, &format!("z {BASE} 0700 vmail vmail -\n")),
    ];
    for spoil in cases {
        finds_after(Configuration::good(), spoil, "no_tmpfiles", "warning");
    }
    finds_after(
        Configuration::of_many_uids(),
        |backend| backend.shell("sed -i /a7/d /etc/tmpfiles.d/list-indexes.conf"),
        "no_tmpfiles",
        "warning",
    );
}

#[test]
fn the_lines_for_tmpfiles_are_those_that_dovecots_hash_needs() {
    on_backend(Configuration::of_many_uids(), |backend| {
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf --tmpfiles");
        let expected: Vec<_> = (0..256)
            .map(|hash| format!("d {BASE}/{hash:02x} 1733 root root -"))
            .collect();
        let lines: Vec<_> = run.stdout.lines().collect();
        assert_eq!(lines[0], format!("d {BASE} 0711 root root -"));
        assert_eq!(lines[1..], expected);
    });
    // mbox has a directory of its own in the user's.
    let mut mbox = Configuration::of_many_uids();
    mbox.location.driver = "mbox";
    mbox.location.path = "~/mail";
    on_backend(mbox, |backend| {
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf --tmpfiles");
        assert_eq!(run.stdout.lines().count(), 257, "{run:?}");
    });
    let mut none = Configuration::good();
    none.location.list_index = None;
    on_backend(none, |backend| {
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf --tmpfiles");
        assert_eq!((run.status, run.stdout.as_str()), (Some(78), ""));
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    });
}

#[test]
fn a_tmpfs_that_is_too_small_is_found() {
    for options in ["size=64m", "size=1g,nr_inodes=40"] {
        on_backend(Configuration::good(), |backend| {
            let line = format!("mount -o remount,{options} /dev/shm");
            backend.shell(&line);
            if options.contains("nr_inodes") {
                backend.shell(
                    "i=0; while touch /dev/shm/$i; do i=$((i+1)); done 2>/dev/null; [ $i -gt 9 ]",
                );
            }
            let findings = backend.finds(&[("space", "warning")]);
            backend.mend(findings);
        });
    }
    finds_after(
        Configuration::good(),
        |backend| backend.shell("head -c 950M /dev/zero >/dev/shm/full"),
        "space",
        "warning",
    );
}

#[test]
fn a_tmpfs_larger_than_a_stopped_service_may_use_is_found() {
    finds_after(
        Configuration::good(),
        |backend| {
            fs::create_dir_all("/run/systemd/system").expect("mkdir");
            write("/etc/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
            play_systemctl(
                backend,
                "[ \"$*\" != 'show --property=MemoryMax --value dovecot.service' ] || echo 500000000",
            );
        },
        "memory_limit",
        "warning",
    );
}

#[test]
fn a_file_system_that_everybody_can_fill_is_a_hint() {
    finds_after(
        Configuration::good(),
        |backend| backend.shell("chmod 1777 /dev/shm"),
        "common_file_system",
        "hint",
    );
    const UNITS: &str = "/etc/systemd/system";
    const UNIT: &str = r"dev-shm-dovecot\x2dlistindex.mount";
    for is_enabled in [false, true] {
        on_backend(Configuration::good(), |backend| {
            write("/etc/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
            fs::create_dir_all("/run/systemd/system").expect("mkdir");
            write(format!("{UNITS}/{UNIT}"), "[Mount]\n");
            play_systemctl(
                backend,
                &format!(
                    "[ \"$*\" != 'enable --now {UNIT}' ] || mount -t tmpfs -o mode=0711,size=500m tmpfs {BASE}"
                ),
            );
            backend.shell("chmod 1777 /dev/shm");
            let findings = if is_enabled {
                write(format!("{UNITS}/local-fs.target.wants/{UNIT}"), "");
                backend.finds(&[("not_mounted", "warning")])
            } else {
                backend.finds(&[("common_file_system", "hint")])
            };
            backend.mend(findings);
            // Another size is the unit's affair.
            backend.shell(&format!("mount -o remount,size=50m {BASE}"));
            let findings = backend.finds(&[("space", "warning")]);
            backend.mend(findings);
            let options = fs::read_to_string(format!("{UNITS}/{UNIT}.d/nfs-hostchange.conf"));
            assert_eq!(
                options.expect("a drop-in"),
                "[Mount]\nOptions=size=1024m,nr_inodes=1024k,mode=0700,noexec,nodev,nosuid\n"
            );
        });
    }
}

/// systemd itself does not run here: what it answers is played by a line of shell.
fn play_systemctl(backend: &Backend, line: &str) {
    let systemctl = backend.path().join("systemctl");
    write(&systemctl, &format!("#!/bin/sh\n{line}\n"));
    mode(systemctl.to_str().expect("UTF-8"), 0o755);
}

#[test]
fn a_logind_that_wipes_the_mail_users_files_is_found() {
    let systemd = || fs::create_dir_all("/run/systemd/system").expect("mkdir");
    finds_after(
        Configuration::good(),
        |_| systemd(),
        "remove_ipc",
        "warning",
    );
    finds_after(
        Configuration::of_many_uids(),
        |_| systemd(),
        "remove_ipc",
        "error",
    );
    let logind = "/etc/systemd/logind.conf";
    finds_after(
        Configuration::good(),
        |_| {
            write(logind, "[Login]\n#RemoveIPC=no\nRemoveIPC = yes\n");
            systemd();
        },
        "remove_ipc",
        "warning",
    );
    on_backend(Configuration::good(), |backend| {
        write(logind, "[Login]\nRemoveIPC=no\n");
        systemd();
        backend.finds(&[]);
    });
    // A system user's files are left alone.
    let mut system_user = Configuration::good();
    system_user.owner = Some("system");
    on_backend(system_user, |backend| {
        chown(BASE, Some(600), Some(600)).expect("chown");
        write(AT_BOOT, &format!("d {BASE} 0700 system - -\n"));
        systemd();
        backend.finds(&[]);
    });
}

#[test]
fn a_host_that_others_may_be_called_like_is_found() {
    finds_after(
        Configuration::good(),
        |_| sethostname("localhost").expect("sethostname"),
        "host_name",
        "warning",
    );
    let mut configuration = Configuration::good();
    configuration.own += "hostname = \"localhost.localdomain\"\n";
    finds_and_mends(configuration, &[("host_name", "warning")]);
}

#[test]
fn a_host_that_nothing_sweeps_is_a_hint() {
    finds_after(
        Configuration::good(),
        |_| {
            write(
                "/etc/cron.d/sweep",
                "# 0 3 * * * root nfs-hostchange usercache sweep 7days /x\n",
            )
        },
        "no_sweep",
        "hint",
    );
    const SWEEP_SETTINGS: &str = "/etc/default/nfs-hostchange";
    on_backend(Configuration::good(), |backend| {
        fs::remove_file("/etc/cron.d/sweep").expect("unlink");
        write("/etc/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
        fs::create_dir_all("/run/systemd/system").expect("mkdir");
        play_systemctl(
            backend,
            "[ \"$1\" != enable ] || : >/run/\"$3\"\n[ -e /run/\"$3\" ]",
        );
        write(SWEEP_SETTINGS, "#SWEEP_AGE=\n#SWEEP_ROOT=\n");
        let findings = backend.finds(&[("no_sweep", "hint")]);
        backend.mend(findings);
        let settings = fs::read_to_string(SWEEP_SETTINGS).expect("read");
        let written = format!("\nSWEEP_AGE=\"14 days\"\nSWEEP_ROOT={BASE}\n");
        assert!(settings.ends_with(&written), "{settings}");
    });
}

#[test]
fn people_read_what_to_write_and_what_to_run() {
    let mut configuration = Configuration::good();
    configuration.wrapper = false;
    on_backend(configuration, |backend| {
        mode(BASE, 0o770);
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf");
        assert_eq!((run.status, run.stderr.as_str()), (Some(1), ""));
        let expected = [
            "error: imap logins do not pass nfs-hostchange-login: users see old folders",
            "  write to the end of dovecot.conf:",
            "    service imap {",
            "      executable = imap imap-postlogin",
            "    }",
        ];
        let lines: Vec<_> = run.stdout.lines().collect();
        assert_eq!(lines[..5], expected, "{run:?}");
        let expected = ["  run:", &format!("    install -d -m 0700 -o vmail {BASE}")];
        assert!(lines.windows(2).any(|pair| pair == expected), "{run:?}");
    });
}

#[test]
fn a_configuration_that_dovecot_refuses_is_a_configuration_error() {
    let scratch = Scratch::new();
    let file = scratch.path().join("broken.conf");
    write(&file, "no such thing\n");
    let file = file.to_str().expect("UTF-8");
    let run = scratch.exits(78, ["check", "--dovecot-config", file]);
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let mut command = scratch.command(["check"]);
    let run = Run::of(command.env("PATH", "/nowhere"));
    assert_eq!(run.status, Some(69), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

/// A file that says, as a module does, for which Dovecot it was built.
fn module(backend: &Backend, name: &str, abi: &str) {
    let path = backend.path().join("modules").join(name);
    write(path, &format!("\0x\0{abi}\0"));
}

#[test]
fn a_plugin_that_is_missing_or_for_another_dovecot_or_not_for_all_is_found() {
    let mut plugin = Configuration::good();
    plugin.plugin = true;
    let both = plugin.clone();
    plugin.wrapper = false;
    let mut not_everywhere = plugin.clone();
    not_everywhere.more = |version| match version {
        Version::V2_3 => "protocol lda {\n  mail_plugins = sieve\n}\n",
        Version::V2_4 => "protocol lda {\n  mail_plugins {\n    nfs_hostchange = no\n  }\n}\n",
    };
    const OURS: &str = "lib90_nfs_hostchange_plugin.so";
    on_backend(plugin, |backend| {
        backend.finds(&[("no_plugin", "critical")]);
        module(backend, "lib01_acl_plugin.so", "2.3.ABIv19(2.3.19.1)");
        module(backend, OURS, "2.3.ABIv18(2.3.18)");
        backend.finds(&[("plugin_abi", "critical")]);
        module(backend, OURS, "2.3.ABIv19(2.3.19.1)");
        // No post-login service is needed, and no field of the userdb.
        backend.finds(&[]);
    });
    on_backend(both, |backend| {
        module(backend, OURS, "2.3.ABIv19(2.3.19.1)");
        let findings = backend.finds(&[("both_front_ends", "hint")]);
        backend.mend(findings);
    });
    on_backend(not_everywhere, |backend| {
        module(backend, OURS, "2.3.ABIv19(2.3.19.1)");
        let findings = backend.finds(&[("plugin_protocols", "error")]);
        backend.mend(findings);
    });
}
