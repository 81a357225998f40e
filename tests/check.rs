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

use common::scratch::{Run, Scratch, is_root};
use common::{close, copy_program};

const BASE: &str = "/dev/shm/dovecot-listindex";
const LISTINDEX: &str = "LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index";
const AT_BOOT: &str = "/etc/tmpfiles.d/list-indexes.conf";
const OWN: &str = "/etc/dovecot/nfs-hostchange.toml";
const VMAIL: u32 = 5000;

/// What a backend's administrator has written, but for the location nothing that needs a word.
struct Configuration {
    /// mail_location in Dovecot's configuration, where the userdb does not return any.
    location: String,
    /// Dovecot's, after the first lines.
    dovecot: String,
    /// The wrapper's configuration file.
    own: String,
    /// Each mail user has a uid of his own.
    many: bool,
}

const ONE_UID: &str = "
userdb {
  driver = static
  args = uid=vmail gid=vmail home=/srv/mail/%u
  default_fields = mail_location=@LOCATION@
}
service imap {
  executable = imap imap-postlogin
  process_limit = 200
}
service imap-postlogin {
  executable = script-login nfs-hostchange-login
  process_limit = 200
  user = vmail
  unix_listener imap-postlogin {
  }
}
";

impl Configuration {
    /// The userdb returns that location.
    fn at(location: impl AsRef<str>) -> Configuration {
        Configuration {
            location: "mdbox:~/mdbox".to_owned(),
            own: "migration = false\n".to_owned(),
            dovecot: ONE_UID.replace("@LOCATION@", location.as_ref()),
            many: false,
        }
    }

    fn good() -> Configuration {
        Configuration::at(format!("mdbox:~/mdbox:{LISTINDEX}"))
    }

    fn of_many_uids() -> Configuration {
        let mut configuration = Configuration::good();
        configuration.many = true;
        configuration
            .but("driver = static", "driver = passwd")
            .but("args = uid=vmail gid=vmail home=/srv/mail/%u", "")
            .but("user = vmail", "")
    }

    /// With something else in Dovecot's configuration.
    fn but(mut self, from: &str, to: &str) -> Configuration {
        assert!(self.dovecot.contains(from), "{from}");
        self.dovecot = self.dovecot.replace(from, to);
        self
    }
}

/// A host that only the test's own thread sees, with nothing wrong but the configuration.
struct Backend {
    scratch: Scratch,
}

/// What is left to say where Dovecot does not run.
const NOBODY_ASKED: &str = "hint: nobody can be asked where users' list indexes are \
    (Dovecot does not run): run this again when Dovecot runs\n";

/// What is found: id and severity.
type Found<'a> = &'a [(&'a str, &'a str)];

impl Backend {
    fn new(configuration: &Configuration) -> Backend {
        let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
        unshare(flags).expect("root may have namespaces");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect(
            "/ is a mount point; in a chroot that is none, run tests/lib/own-root.sh cargo test",
        );
        mount_tmpfs("/etc", "mode=0755");
        mount_tmpfs("/run", "mode=0755");
        mount_tmpfs("/dev/shm", "size=1g,mode=1777");
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
        let text = format!(
            "protocols = imap\nssl = no\nlibexec_dir = {0}\nmail_plugin_dir = {0}/modules\nmail_location = {1}\n{2}\n",
            backend.path().display(),
            configuration.location,
            configuration
                .dovecot
                .replace("@LOCATION@", &configuration.location)
        );
        backend.write_lines("dovecot.conf", &text);
        // An empty one is not one.
        write(OWN, &format!("{}\n", configuration.own));
        // With the directories of a good location, whatever the case has.
        let good = if configuration.many {
            let text = format!(
                "userdb {{\n driver = passwd\n default_fields = mail_location=mdbox:~/mdbox:{LISTINDEX}\n}}\n"
            );
            backend.write_lines("good.conf", &text);
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
        self.shell("[ ! -e /etc/fstab ] || mount -o remount /dev/shm");
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

fn mount_tmpfs(path: &str, options: &str) {
    let none = MsFlags::empty();
    mount(Some("tmpfs"), path, Some("tmpfs"), none, Some(options)).expect("a tmpfs");
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Runs `test` on a backend, in a thread of its own since it leaves this one's namespaces.
fn on_backend(configuration: Configuration, test: impl FnOnce(&Backend) + Send) {
    if is_root() {
        thread::scope(|scope| {
            scope.spawn(|| test(&Backend::new(&configuration)));
        });
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
    spoil: impl FnOnce(&Backend) + Send,
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
    let mut configuration = Configuration::at(format!("mdbox:~/mdbox:LISTINDEX={BASE}/%u/list"));
    configuration = configuration
        .but("driver = static", "driver = passwd")
        .but("args = uid=vmail gid=vmail home=/srv/mail/%u", "")
        .but("user = vmail", "");
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
    let location = format!("mdbox:~/mdbox:LISTINDEX={}/%u/list", disk.display());
    finds_and_mends(
        Configuration::at(location),
        &[("disk_list_index", "warning")],
    );
    fs::remove_dir(disk).expect("rmdir");
}

#[test]
fn an_index_that_other_backends_may_not_see_is_a_hint() {
    for configuration in [
        Configuration::good().but("/srv/mail/%u", "/usr/share/%u"),
        Configuration::at(format!("mdbox:~/mdbox:INDEX=/usr/share/%u:{LISTINDEX}")),
    ] {
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
    mbox.dovecot = mbox.dovecot.replace("mdbox:~/mdbox", "mbox:~/mail");
    on_backend(mbox, |backend| {
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf --tmpfiles");
        assert_eq!(run.stdout.lines().count(), 257, "{run:?}");
    });
    on_backend(Configuration::at("mdbox:~/mdbox"), |backend| {
        let run = backend.run("nfs-hostchange check --dovecot-config dovecot.conf --tmpfiles");
        assert_eq!((run.status, run.stdout.as_str()), (Some(78), ""));
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    });
}

#[test]
fn a_tmpfs_that_is_too_small_is_found() {
    for options in ["size=64m,mode=1777", "size=1g,nr_inodes=40,mode=1777"] {
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
    on_backend(Configuration::good().but("vmail", "system"), |backend| {
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
    // systemd itself does not run here: what it answers is played.
    on_backend(Configuration::good(), |backend| {
        fs::remove_file("/etc/cron.d/sweep").expect("unlink");
        write("/etc/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
        fs::create_dir_all("/run/systemd/system").expect("mkdir");
        let script = "#!/bin/sh\n[ \"$1\" != enable ] || : >/run/\"$3\"\n[ -e /run/\"$3\" ]\n";
        let systemctl = backend.path().join("systemctl");
        write(&systemctl, script);
        mode(systemctl.to_str().expect("UTF-8"), 0o755);
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
    let configuration =
        Configuration::good().but("executable = imap imap-postlogin", "executable = imap");
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
    let run = scratch.run(["check", "--dovecot-config", file]);
    assert_eq!(run.status, Some(78), "{run:?}");
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
    let plugin = || {
        Configuration::good()
            .but("imap imap-postlogin", "imap")
            .but("userdb {", "mail_plugins = acl nfs_hostchange\nuserdb {")
    };
    const OURS: &str = "lib90_nfs_hostchange_plugin.so";
    on_backend(plugin(), |backend| {
        backend.finds(&[("no_plugin", "critical")]);
        module(backend, "lib01_acl_plugin.so", "2.3.ABIv19(2.3.19.1)");
        module(backend, OURS, "2.3.ABIv18(2.3.18)");
        backend.finds(&[("plugin_abi", "critical")]);
        module(backend, OURS, "2.3.ABIv19(2.3.19.1)");
        // No post-login service is needed, and no field of the userdb.
        backend.finds(&[]);
    });
    let both = plugin().but("executable = imap\n", "executable = imap imap-postlogin\n");
    on_backend(both, |backend| {
        module(backend, OURS, "2.3.ABIv19(2.3.19.1)");
        backend.finds(&[("both_front_ends", "hint")]);
    });
    let not_everywhere = plugin().but(
        "userdb {",
        "protocol lmtp {\n  mail_plugins = sieve\n}\nuserdb {",
    );
    on_backend(not_everywhere, |backend| {
        module(backend, OURS, "2.3.ABIv19(2.3.19.1)");
        let findings = backend.finds(&[("plugin_protocols", "error")]);
        backend.mend(findings);
    });
}
