//! What the administrator's command says to whoever types something wrong, and asks for help.

mod common;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use common::dovecot::{Dovecot, Location};
use common::scratch::{ALICE, DAY, Run, Scratch, user_directory};

fn run(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"));
    Run::of(command.args(arguments).current_dir("/"))
}

/// Exit status, what is typed, and what is said.
const MISTAKES: &str = "\
64 | usercache clean | <MIN_AGE> <PATH>...
64 | usercache clean 7days | <PATH>...
64 | usercache clean 7 /x/y | '7' is not a time: the unit is missing (7days
64 | usercache clean 1 week /x/y | '1' is not a time: the unit is missing
64 | usercache clean 7dais /x/y | '7dais' is not a time: the unit must be
64 | usercache clean -7days /x/y | '-7'
64 | usercache clean 7days x/y | 'x/y' for '<PATH>...': the path must be absolute
64 | usercache clean 7days /x/../y | must not contain '..'
64 | usercache clean 7days / | this is the root of the file system
66 | usercache clean 7days /nowhere/user | /nowhere does not exist
65 | usercache clean 7days /etc/passwd | /etc/passwd: Not a directory
64 | usercache clear 7days /x/y | 'clear'; a similar subcommand exists: 'clean'
64 | usercache sweep 7days | <ROOT>
64 | usercache sweep 7days / | '/' for '<ROOT>'
64 | usercache sweep 7days /dev/shm | /dev/shm belongs to other programs too: name the directory in it
66 | usercache sweep 7days /nowhere | /nowhere does not exist
64 | usercache sweep 7days /x /y | unexpected argument '/y'
64 | sweep 7days /x | unrecognized subcommand 'sweep'
64 | status | <--user <USER>|--below <ROOT>|PATH>
64 | status alice | 'alice' for '[PATH]': the path must be absolute
64 | status -u alice /x/y | cannot be used with
64 | status -u a* | one user's name, not a pattern
64 | status --prometheus /x/y | cannot be used with '[PATH]'
64 | status --below /dev/shm | /dev/shm belongs to other programs too
78 | check --dovecot-config /nowhere | open(/nowhere) failed: No such file or directory
64 | locate | --user <USER>
65 | locate --user x --field home=/x | the userdb does not return the location of the mail
64 | locate --user x --field home | NAME=VALUE
78 | locate --user x --config /etc | /etc: must be a regular file";

#[test]
fn whoever_types_something_wrong_is_told_in_one_line() {
    for mistake in MISTAKES.lines() {
        let row: Vec<_> = mistake.split(" | ").collect();
        let [status, line, reason] = row[..] else {
            panic!("{mistake}")
        };
        let arguments: Vec<_> = line.split(' ').collect();
        let run = run(&arguments);
        let (stdout, stderr) = (run.stdout, run.stderr);
        assert_eq!(
            (run.status, stdout.as_str()),
            (status.parse().ok(), ""),
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
            let run = run(&arguments);
            let (stdout, stderr) = (run.stdout, run.stderr);
            assert_eq!((run.status, stderr.as_str()), (Some(0), ""));
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
