//! What the administrator's command says to whoever types something wrong, and asks for help.

mod common;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use common::dovecot::{Dovecot, Location};
use common::scratch::{ALICE, DAY, Run, Scratch, user_directory};

/// Exit status, standard output and standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"))
        .args(arguments)
        .current_dir("/")
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn whoever_types_something_wrong_is_told_in_one_line() {
    const USAGE: i32 = 64;
    let mistakes: &[(&str, i32, &str)] = &[
        ("usercache clean", USAGE, "<MIN_AGE> <PATH>..."),
        ("usercache clean 7days", USAGE, "<PATH>..."),
        (
            "usercache clean 7 /x/y",
            USAGE,
            "'7' is not a time: the unit is missing (7days",
        ),
        (
            "usercache clean 1 week /x/y",
            USAGE,
            "'1' is not a time: the unit is missing",
        ),
        (
            "usercache clean 7dais /x/y",
            USAGE,
            "'7dais' is not a time: the unit must be",
        ),
        ("usercache clean -7days /x/y", USAGE, "'-7'"),
        (
            "usercache clean 7days x/y",
            USAGE,
            "'x/y' for '<PATH>...': the path must be absolute",
        ),
        (
            "usercache clean 7days /x/../y",
            USAGE,
            "must not contain '..'",
        ),
        (
            "usercache clean 7days /",
            USAGE,
            "this is the root of the file system",
        ),
        (
            "usercache clean 7days /nowhere/user",
            66,
            "/nowhere does not exist",
        ),
        (
            "usercache clean 7days /etc/passwd",
            65,
            "/etc/passwd: Not a directory",
        ),
        (
            "usercache clear 7days /x/y",
            USAGE,
            "'clear'; a similar subcommand exists: 'clean'",
        ),
        ("usercache sweep 7days", USAGE, "<ROOT>"),
        ("usercache sweep 7days /", USAGE, "'/' for '<ROOT>'"),
        (
            "usercache sweep 7days /dev/shm",
            USAGE,
            "/dev/shm belongs to other programs too: name the directory in it",
        ),
        (
            "usercache sweep 7days /nowhere",
            66,
            "/nowhere does not exist",
        ),
        (
            "usercache sweep 7days /x /y",
            USAGE,
            "unexpected argument '/y'",
        ),
        ("sweep 7days /x", USAGE, "unrecognized subcommand 'sweep'"),
        ("status", USAGE, "<--user <USER>|--below <ROOT>|PATH>"),
        (
            "status alice",
            USAGE,
            "'alice' for '[PATH]': the path must be absolute",
        ),
        ("status -u alice /x/y", USAGE, "cannot be used with"),
        ("status -u a*", USAGE, "one user's name, not a pattern"),
        (
            "status --prometheus /x/y",
            USAGE,
            "cannot be used with '[PATH]'",
        ),
        (
            "status --below /dev/shm",
            USAGE,
            "/dev/shm belongs to other programs too",
        ),
        (
            "check --dovecot-config /nowhere",
            78,
            "open(/nowhere) failed: No such file or directory",
        ),
        ("locate", USAGE, "--user <USER>"),
        (
            "locate --user x --field home=/x",
            65,
            "the userdb does not return the location of the mail",
        ),
        ("locate --user x --field home", USAGE, "NAME=VALUE"),
        (
            "locate --user x --config /etc",
            78,
            "/etc: must be a regular file",
        ),
    ];
    for (line, status, reason) in mistakes {
        let arguments: Vec<_> = line.split(' ').collect();
        let (code, stdout, stderr) = run(&arguments);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(*status), ""),
            "{line}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
        assert!(stderr.starts_with("nfs-hostchange: "), "{line}: {stderr}");
        assert!(stderr.contains(reason), "{line}: {stderr}");
    }
}

#[test]
fn help_fits_on_a_terminal_of_80_columns() {
    for command in [
        "",
        "usercache",
        "usercache clean",
        "usercache sweep",
        "status",
        "check",
        "locate",
    ] {
        for help in ["--help", "-h"] {
            let arguments: Vec<_> = command
                .split(' ')
                .filter(|word| !word.is_empty())
                .chain([help])
                .collect();
            let (code, stdout, stderr) = run(&arguments);
            assert_eq!((code, stderr.as_str()), (Some(0), ""));
            for line in stdout.lines() {
                assert!(line.chars().count() <= 80, "{command}: {line}");
            }
        }
    }
}

/// Every way in which the command prints something on standard output.
fn printing(scratch: &Scratch) -> Vec<Vec<String>> {
    let base = scratch.hash_directory("list-indexes");
    let user = user_directory(&base.join("alice"), ALICE, 8 * DAY);
    let configuration = scratch.path().join("dovecot.conf");
    let list_index = format!("{}/@USER@/dovecot.list.index", base.display());
    let version = Dovecot::machine().version;
    let lines = version.first_lines().to_owned() + &Location::new(&list_index).lines(version);
    fs::write(&configuration, lines).expect("write");
    [
        "--help",
        "--version",
        "help",
        "locate --help",
        "usercache sweep --help",
        "locate --json --user alice",
        "status --json --user alice",
        "status USER",
        "status --json USER",
        "status --below BASE",
        "status --json --below BASE",
        "status --prometheus --below BASE",
        "check --dovecot-config DOVECOT",
        "check --json --dovecot-config DOVECOT",
        "check --tmpfiles --dovecot-config DOVECOT",
        "usercache sweep --dry-run 7days BASE",
        "usercache sweep --json --dry-run 7days BASE",
        "usercache clean --dry-run 7days USER",
    ]
    .map(|line| {
        let word = |word: &str| match word {
            "USER" => user.display().to_string(),
            "BASE" => base.display().to_string(),
            "DOVECOT" => configuration.display().to_string(),
            word => word.to_owned(),
        };
        line.split(' ').map(word).collect()
    })
    .into()
}

#[test]
fn output_that_is_lost_is_an_error() {
    let scratch = Scratch::new();
    for arguments in printing(&scratch) {
        let full = File::options().write(true).open("/dev/full");
        let to_full = Command::new(scratch.program())
            .args(&arguments)
            .stdout(full.expect("there is one"))
            .output()
            .expect("the program starts");
        let to_nothing = Command::new("sh")
            .args(["-c", "exec \"$@\" >&-", "sh"])
            .arg(scratch.program())
            .args(&arguments)
            .output()
            .expect("the program starts");
        for (output, reason) in [(to_full, "No space left"), (to_nothing, "Bad file")] {
            let run = Run::from(output);
            assert_eq!(run.status, Some(74), "{arguments:?}: {run:?}");
            let line = format!("nfs-hostchange: cannot write to standard output: {reason}");
            assert!(run.stderr.contains(&line), "{arguments:?}: {run:?}");
        }
    }
}

#[test]
fn a_reader_that_wants_no_more_loses_nothing() {
    let scratch = Scratch::new();
    for arguments in printing(&scratch) {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        common::close(reader);
        let output = Command::new(scratch.program())
            .args(&arguments)
            .stdout(Stdio::from(writer))
            .output()
            .expect("the program starts");
        let run = Run::from(output);
        let heard = scratch.run(&arguments);
        assert_eq!(run.status, heard.status, "{arguments:?}: {run:?}");
        assert!(!run.stderr.contains("standard output"), "{run:?}");
    }
}
