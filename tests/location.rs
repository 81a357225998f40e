//! `nfs-hostchange locate` against where real Dovecot went (`tests/oracle`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use nix::unistd::{User, geteuid};
use serde_json::Value;

/// The ids that the oracle's users had; nobody of that name is needed.
const UID: u32 = 999;
const GID: u32 = 995;

/// The system users whose homes are in the oracle, `None` for one that must not exist.
const HOMES: [(&str, Option<&str>); 5] = [
    ("daemon", Some("/usr/sbin")),
    ("games", Some("/usr/games")),
    ("nobody", Some("/nonexistent")),
    ("nosuchuser-q", None),
    ("vmailx", None),
];

/// A copy of the program that any uid may execute, wherever the build directory is.
struct Program(PathBuf);

impl Program {
    fn new() -> Self {
        let directory = (0..)
            .map(|number| {
                let name = format!("nfs-hostchange-locate.{}.{number}", std::process::id());
                std::env::temp_dir().join(name)
            })
            .find(|directory| std::fs::create_dir(directory).is_ok())
            .expect("a directory for the program");
        let program = Self(directory);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program.0, executable.clone()).expect("chmod");
        std::fs::copy(env!("CARGO_BIN_EXE_nfs-hostchange"), program.path()).expect("copy");
        std::fs::set_permissions(program.path(), executable).expect("chmod");
        program
    }

    fn path(&self) -> PathBuf {
        self.0.join("nfs-hostchange")
    }

    fn locate(&self, arguments: &[(&str, &OsStr)]) -> Output {
        let mut command = Command::new(self.path());
        command.args(["locate", "--json"]);
        for (option, value) in arguments {
            command.arg(option).arg(value);
        }
        if geteuid().is_root() {
            command.uid(UID).gid(GID);
        }
        command
            .env_clear()
            .env("USER", "somebody")
            .env("DOVECOT_HOSTNAME", "mx1.example.org")
            .output()
            .expect("the program runs")
    }

    fn locate_row(&self, row: &Value) -> Output {
        let user = bytes(row, "user").expect("each row has a user");
        let location = bytes(row, "mail_location").expect("each row has a location");
        let home = bytes(row, "home");
        let mut arguments = vec![
            ("--user", user.as_os_str()),
            ("--location", location.as_os_str()),
        ];
        if let Some(home) = &home {
            arguments.push(("--home", home));
        }
        self.locate(&arguments)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A directory left behind in /tmp is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A field's bytes, from its hexadecimal form if there is one.
fn bytes(row: &Value, field: &str) -> Option<OsString> {
    let bytes = match row[format!("{field}_hex")].as_str() {
        Some(hex) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits"))
            .collect(),
        None => row[field].as_str()?.as_bytes().to_vec(),
    };
    Some(OsStr::from_bytes(&bytes).to_owned())
}

fn rows(text: &str) -> impl Iterator<Item = Value> {
    text.lines()
        .map(|row| serde_json::from_str(row).expect("the oracle is JSON"))
}

/// Tells why a row cannot be asked on this machine.
fn depends_on_another_machine(location: &str) -> Option<String> {
    if !geteuid().is_root() {
        let ids = ["%i", "%{uid}", "%{gid}"];
        if let Some(id) = ids.iter().find(|id| location.contains(**id)) {
            return Some(format!("{id} needs a test that runs as root"));
        }
    }
    HOMES.iter().find_map(|(name, home)| {
        let here = User::from_name(name).expect("the user database");
        let here = here.map(|user| user.dir);
        let differs = here.as_deref() != home.map(std::path::Path::new);
        (differs && location.contains(&format!("~{name}")))
            .then(|| format!("~{name} is {here:?} on this machine"))
    })
}

/// Compares one answer with its row, and describes a difference.
fn difference(row: &Value, output: &Output) -> Option<String> {
    let answer: Value = match serde_json::from_slice(&output.stdout) {
        Ok(answer) => answer,
        Err(error) => return Some(format!("no JSON: {error}: {output:?}")),
    };
    let code = output.status.code();
    if row["error"].is_string() {
        let refused = answer["error"].is_string() && code == Some(65);
        return (!refused).then(|| format!("exit {code:?}, {answer}, Dovecot: {}", row["error"]));
    }
    if code != Some(0) {
        return Some(format!("exit {code:?}, {answer}"));
    }
    ["index_dir", "list_index_dir", "list_index_prefix", "layout"]
        .iter()
        .find(|field| bytes(&answer, field) != bytes(row, field))
        .map(|field| format!("{field}: {}, Dovecot: {}", answer[*field], row[*field]))
}

#[test]
fn every_location_of_the_oracle_is_resolved_to_the_byte_or_refused() {
    let program = Program::new();
    let (mut asked, mut skipped, mut wrong) = (0, 0, Vec::new());
    for row in rows(include_str!("oracle/paths-2.3.jsonl")) {
        let location = row["mail_location"].as_str().unwrap_or_default();
        if let Some(reason) = depends_on_another_machine(location) {
            println!("skipped {location}: {reason}");
            skipped += 1;
            continue;
        }
        asked += 1;
        if let Some(difference) = difference(&row, &program.locate_row(&row)) {
            wrong.push(format!("{} {location}: {difference}", row["user"]));
        }
    }
    println!("{asked} rows asked, {skipped} skipped");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(asked >= 690, "only {asked} rows asked");
}

#[test]
fn a_location_that_dovecot_would_guess_from_existing_files_is_refused() {
    let program = Program::new();
    let mut asked = 0;
    for row in rows(include_str!("oracle/autodetect-2.3.jsonl")) {
        let output = program.locate_row(&row);
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.contains("names no driver"), "{row}: {answer}");
        assert_eq!(output.status.code(), Some(65), "{row}");
        asked += 1;
    }
    assert!(asked >= 70, "only {asked} rows asked");
}
