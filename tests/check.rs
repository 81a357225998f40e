//! `nfs-hostchange check` against configurations that the real doveconf reads.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::{Run, Scratch};

/// A backend whose only faults are the machine's: no tmpfiles.d entry for a test's directory.
struct Backend {
    scratch: Scratch,
}

const SERVICES: &str = "
service imap {
  executable = imap imap-postlogin
  process_limit = 200
}
service imap-postlogin {
  executable = script-login @DIR@/nfs-hostchange-login --config=@DIR@/nfs-hostchange.toml
  process_limit = 200
  unix_listener imap-postlogin {
  }
}
";

impl Backend {
    fn new() -> Backend {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("list-indexes")).expect("mkdir");
        fs::copy("/bin/true", scratch.path().join("nfs-hostchange-login")).expect("copy");
        Backend { scratch }
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn location(&self) -> String {
        format!(
            "mdbox:~/mdbox:LISTINDEX={}/list-indexes/%2.256Nu/%u/dovecot.list.index",
            self.path().display()
        )
    }

    fn check(
        &self,
        location: &str,
        services: &str,
        settings: &str,
    ) -> (Run, Vec<(String, String)>) {
        let directory = self.path().display().to_string();
        let configuration = format!(
            "protocols = imap\nssl = no\nmail_location = {location}\n\
             userdb {{\n  driver = static\n  args = uid=5000 gid=5000 home=/srv/mail/%u\n}}\n{}",
            services.replace("@DIR@", &directory)
        );
        fs::write(self.path().join("dovecot.conf"), configuration).expect("write");
        fs::write(self.path().join("nfs-hostchange.toml"), settings).expect("write");
        let run = Run::of(
            Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"))
                .args(["check", "--json", "-c"])
                .arg(self.path().join("dovecot.conf")),
        );
        let answer: Value =
            serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        let text =
            |finding: &Value, field: &str| finding[field].as_str().expect("a text").to_owned();
        let findings = answer["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|finding| (text(finding, "id"), text(finding, "severity")))
            // These depend on the machine.
            .filter(|(id, _)| {
                !matches!(
                    id.as_str(),
                    "no_tmpfiles"
                        | "no_sweep"
                        | "space"
                        | "host_name"
                        | "index_not_shared"
                        | "remove_ipc"
                )
            })
            .collect();
        (run, findings)
    }

    fn finds(&self, location: &str, services: &str, settings: &str, expected: &[(&str, &str)]) {
        let (run, findings) = self.check(location, services, settings);
        let found: Vec<_> = findings
            .iter()
            .map(|(id, severity)| (id.as_str(), severity.as_str()))
            .collect();
        assert_eq!(found, expected, "{run:?}");
        let wrong = expected.iter().any(|(_, severity)| *severity != "hint");
        assert!(!wrong || run.status == Some(1), "{run:?}");
    }
}

fn setting(location: &str) -> String {
    format!("mail_location = \"{location}\"\n")
}

#[test]
fn a_backend_that_is_as_it_should_be_has_no_findings() {
    let backend = Backend::new();
    let location = backend.location();
    backend.finds(&location, SERVICES, &setting(&location), &[]);
}

#[test]
fn services_that_do_not_pass_the_wrapper_are_found() {
    let backend = Backend::new();
    let location = backend.location();
    let settings = setting(&location);
    let cases = [
        (
            "executable = imap imap-postlogin",
            "executable = imap",
            "no_post_login",
            "error",
        ),
        (
            "script-login @DIR@/nfs-hostchange-login",
            "script-login /bin/other",
            "no_wrapper",
            "error",
        ),
        (
            "@DIR@/nfs-hostchange-login",
            "@DIR@/missing/nfs-hostchange-login",
            "not_executable",
            "error",
        ),
        (
            "nfs-hostchange.toml",
            "nfs-hostchange.toml /bin/other.sh",
            "not_last",
            "warning",
        ),
        (
            "process_limit = 200\n  unix",
            "process_limit = 100\n  unix",
            "process_limit",
            "warning",
        ),
    ];
    for (from, to, id, severity) in cases {
        assert!(SERVICES.contains(from), "{from}");
        let services = SERVICES.replace(from, to);
        let (run, findings) = backend.check(&location, &services, &settings);
        assert_eq!(run.status, Some(1), "{run:?}");
        let finding = (id.to_owned(), severity.to_owned());
        assert!(findings.contains(&finding), "{to}: {run:?}");
    }
}

#[test]
fn locations_that_are_not_local_or_not_safe_are_found() {
    let backend = Backend::new();
    let local = backend.location();
    let cases = [
        ("mdbox:~/mdbox".to_owned(), "no_list_index", "warning"),
        (
            "mdbox:~/mdbox:LISTINDEX=list.index".to_owned(),
            "shared_list_index",
            "warning",
        ),
        (format!("{local}:LAYOUT=index"), "layout_index", "error"),
        (local.replace("list-indexes", "missing"), "no_base", "error"),
        (
            "mdbox:~/mdbox:LISTINDEX=/usr/share/%u/dovecot.list.index".to_owned(),
            "disk_list_index",
            "warning",
        ),
        (
            "maildir:~/m:INDEX=MEMORY:LISTINDEX=/dev/shm/%u/dovecot.list.index".to_owned(),
            "index_in_memory",
            "error",
        ),
    ];
    for (location, id, severity) in cases {
        let (run, findings) = backend.check(&location, SERVICES, &setting(&location));
        let finding = (id.to_owned(), severity.to_owned());
        assert!(findings.contains(&finding), "{location}: {run:?}");
    }
}

#[test]
fn a_location_that_the_wrapper_does_not_know_or_knows_wrongly_is_found() {
    let backend = Backend::new();
    let location = backend.location();
    backend.finds(&location, SERVICES, "", &[("no_location", "error")]);
    let other = setting(&location.replace("%u/", "%n/"));
    backend.finds(&location, SERVICES, &other, &[("other_location", "error")]);
    backend.finds(
        &location,
        SERVICES,
        "migraton = true\n",
        &[("configuration", "error")],
    );
    let migrating = setting(&location) + "migration = true\n";
    backend.finds(&location, SERVICES, &migrating, &[("migration", "hint")]);
}

#[test]
fn a_configuration_that_dovecot_refuses_is_a_configuration_error() {
    let backend = Backend::new();
    let file = backend.path().join("broken.conf");
    fs::write(&file, "no such thing\n").expect("write");
    let run = Run::of(
        Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"))
            .args(["check", "-c"])
            .arg(&file),
    );
    assert_eq!(run.status, Some(78), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}
