//! What the administrator's command says to whoever types something wrong, and asks for help.

use std::process::Command;

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
            "locate --user x --config /nowhere",
            78,
            "give --location, or set it in the configuration file",
        ),
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
