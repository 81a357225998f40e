//! `nfs-hostchange locate` against where real Dovecot went (`tests/oracle`).

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use nfs_hostchange::dovecot::location::{
    self, Lookup, Setting, Tracked, Tracking, UserdbField, Variables,
};
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
            .env("DOVECOT_HOSTNAME", "mx1.example.org");
        loop {
            match command.output() {
                // Another test's child has inherited the descriptor of its own copy, until
                // it executes.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
                output => return output.expect("the program runs"),
            }
        }
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

/// What `locate` says of a user at /home/u: the exit code and the JSON.
fn ask(program: &Program, user: &str, home: &str, location: &str) -> (Option<i32>, Value) {
    let output = program.locate(&[
        ("--user", OsStr::new(user)),
        ("--home", OsStr::new(home)),
        ("--location", OsStr::new(location)),
    ]);
    let answer = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), answer)
}

#[test]
fn a_location_that_a_real_login_used_leads_to_the_list_index_that_it_made() {
    let program = Program::new();
    let mut asked = 0;
    let logins = rows(include_str!("oracle/userdb-2.3.jsonl"))
        .chain(rows(include_str!("oracle/users-2.3.jsonl")));
    for row in logins {
        // It is expanded already, so nothing in it may be expanded once more.
        let Some(location) = row["imap_location"].as_str() else {
            continue;
        };
        let home = row["imap_home"].as_str().unwrap_or_default();
        let made = row["list_index_on_disk"].as_array().expect("a list");
        let (_, answer) = ask(&program, "alice", home, &location.replace('%', "%%"));
        if home.is_empty() && location.contains("~/") {
            assert!(answer["error"].is_string(), "{row}: {answer}");
            continue;
        }
        let field = |name: &str| answer[name].as_str().expect("a path").to_owned();
        let directory = field("list_index_dir").replace("/oracle/../", "/");
        let file = format!("{directory}/{}.log", field("list_index_prefix"));
        assert!(made.iter().any(|made| made == &file), "{row}: {answer}");
        asked += 1;
    }
    assert!(asked >= 28, "only {asked} logins");
}

#[test]
fn a_list_index_is_tracked_only_where_it_is_local_and_can_be_vouched_for() {
    let local = "LISTINDEX=/dev/shm/li/%u/dovecot.list.index";
    let cases = [
        // user, home, location, what is said
        ("u", "/h", format!("maildir:~/Maildir:{local}"), "is local"),
        (
            "u",
            "/h",
            format!("mbox:~/mail:INDEX=/ix/%u:{local}"),
            "is local",
        ),
        (
            "u",
            "/h",
            format!("sdbox:~/mail:INDEX=/ix/a..b/..c:{local}"),
            "is local",
        ),
        (
            "u@",
            "/h",
            format!("mdbox:~/mail:INDEX=/ix/%u:{local}"),
            "is local",
        ),
        ("u", "/h", "maildir:~/Maildir".into(), "not set"),
        (
            "u",
            "/h",
            "maildir:~/Maildir:INDEX=/ix:LISTINDEX=li/x".into(),
            "relative path",
        ),
        (
            "u",
            "/h",
            "maildir:~/Maildir:INDEX=/ix:LISTINDEX=x".into(),
            "relative path",
        ),
        (
            "u",
            "/h",
            "maildir:~/Maildir:INDEX=/ix/u:LISTINDEX=/ix//./u//x".into(),
            "same directory",
        ),
        (
            "u",
            "/h",
            "mbox:~/mail:LISTINDEX=/h/mail/x".into(),
            "same directory",
        ),
        (
            "u",
            "/h",
            "maildir:~/Maildir:LISTINDEX=//x".into(),
            "is local",
        ),
        (
            "u",
            "/h",
            "maildir:~/Maildir:LISTINDEX=/x".into(),
            "relative path",
        ),
        ("u", "/h", "maildir:~/Maildir:LISTINDEX=".into(), "off"),
        (
            "u",
            "/h",
            "maildir:~/Maildir:INDEX=MEMORY".into(),
            "in memory",
        ),
        (
            "u",
            "/h",
            format!("maildir:~/Maildir:INDEX=MEMORY:{local}"),
            "no shared directory",
        ),
        (
            "u",
            "/h",
            format!("mdbox:~/mail:LAYOUT=index:{local}"),
            "only map",
        ),
        (
            "..",
            "/h",
            format!("mdbox:~/mail:LAYOUT=index:{local}"),
            "only map",
        ),
        ("u", "/h", "mdbox:~/mail:LAYOUT=index".into(), "not set"),
        (
            "u",
            "/h",
            format!("maildir:rel:{local}"),
            "INDEX is a relative path",
        ),
        (
            "u",
            "/h",
            format!("maildir:~/Maildir:INDEX=../ix:{local}"),
            "INDEX is a relative path",
        ),
        (
            "u",
            "/h",
            format!("maildir:~/Maildir:INDEX=/ix/../iy:{local}"),
            "INDEX contains '..'",
        ),
        (
            "u",
            "/h",
            "maildir:~/m:LISTINDEX=/dev/shm/li/..".into(),
            "LISTINDEX contains '..'",
        ),
        (
            "u",
            "/h",
            "maildir:~/m:LISTINDEX=/dev/shm/../x/l".into(),
            "LISTINDEX contains '..'",
        ),
        (
            "u",
            "/jail/./h",
            format!("maildir:~/Maildir:{local}"),
            "chrooted",
        ),
        (
            "..",
            "/h",
            format!("maildir:~/Maildir:{local}"),
            "user name",
        ),
        (".", "/h", format!("maildir:~/Maildir:{local}"), "user name"),
        ("", "/h", format!("maildir:~/Maildir:{local}"), "user name"),
        (
            "a/b",
            "/h",
            format!("maildir:~/Maildir:{local}"),
            "user name",
        ),
        (
            "..",
            "/h",
            "maildir:~/Maildir:INDEX=/ix:LISTINDEX=l/x".into(),
            "relative path",
        ),
        (
            ".lasthost",
            "/h",
            "maildir:~/m:LISTINDEX=/dev/shm/li/%u".into(),
            "name of the record",
        ),
    ];
    let program = Program::new();
    for (user, home, location, words) in cases {
        let (code, answer) = ask(&program, user, home, &location);
        let reason = answer["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(words), "{user} {home} {location}: {answer}");
        assert_eq!(
            answer["tracked"],
            words == "is local",
            "{location}: {answer}"
        );
        assert_eq!(code, Some(0), "{location}: {answer}");
    }
}

#[test]
fn what_doveadm_knows_and_others_cannot_is_an_error_and_not_empty() {
    let program = Program::new();
    for variable in [
        "%p",
        "%{pid}",
        "%{session}",
        "%2.256N{session}",
        "%{sha1:pid}",
    ] {
        let (code, answer) = ask(&program, "u", "/h", &format!("maildir:~/m/{variable}"));
        assert_eq!(code, Some(65), "{variable}: {answer}");
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains("is not known here"), "{variable}: {answer}");
    }
}

#[test]
fn templates_that_would_take_gigabytes_or_minutes_are_refused_at_once() {
    let nested = format!("{}%u{}", "%{if;a;eq;a;".repeat(1000), ";b}".repeat(1000));
    let hashes = format!("%{{{}user}}", "sha1:".repeat(10_000));
    let doubled = "%EEEEEEEEEE{userdb:x:\"\"\"\"}".repeat(2000);
    let templates = [
        "%{sha256;rounds=4000000000:user}",
        "%{pkcs5;rounds=4000000000:user}",
        "%02147483647u",
        "%02147483646u%02147483646u",
        "%2147483647.2Hu",
        "%2147483647.2Nu",
        "%{if;aaaa;~;((a{255}){255}){255};b;c}",
        nested.as_str(),
        hashes.as_str(),
        doubled.as_str(),
    ];
    let program = Program::new();
    for template in templates {
        let (code, answer) = ask(&program, "u", "/h", &format!("maildir:~/m/{template}"));
        let start: String = template.chars().take(60).collect();
        assert_eq!(code, Some(65), "{start}: {answer}");
    }
}

#[test]
fn user_names_with_a_hyphen_in_front_are_no_options() {
    let program = Program::new();
    let (code, answer) = ask(&program, "-x", "/h", "maildir:~/m:INDEX=/ix/%u");
    assert_eq!((code, &answer["index_dir"]), (Some(0), &"/ix/-x".into()));
}

#[test]
fn a_wrong_command_line_and_a_missing_location_have_the_exit_codes_of_sysexits() {
    let program = Program::new();
    let output = program.locate(&[("--nonsense", OsStr::new("x"))]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let output = program.locate(&[("--user", OsStr::new("u"))]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(answer["error"].is_string(), "{answer}");
}

#[test]
fn what_is_not_given_comes_from_the_configuration_file() {
    let program = Program::new();
    let file = program.0.join("nfs-hostchange.toml");
    let locate = |text: &str, home: Option<&str>| {
        std::fs::write(&file, text).expect("the configuration");
        let mut arguments = vec![
            ("--config", file.as_os_str()),
            ("--user", OsStr::new("u@d")),
        ];
        if let Some(home) = home {
            arguments.push(("--home", OsStr::new(home)));
        }
        let output = program.locate(&arguments);
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), answer["index_dir"].clone())
    };
    let settings = "mail_location = 'mdbox:~/m:INDEX=%h/%i.%{gid}'\nmail_home = '/srv/%d/%n'\n";
    let ids = format!("{settings}mail_uid = 7\nmail_gid = 'daemon'\n");
    assert_eq!(locate(&ids, None), (Some(0), "/srv/d/u/7.1".into()));
    assert_eq!(locate(&ids, Some("/h")), (Some(0), "/h/7.1".into()));
    let nobody = format!("{settings}mail_uid = 'nosuchuser-q'\n");
    assert_eq!(locate(&nobody, None), (Some(78), Value::Null));
    assert_eq!(locate("mail_location = ", None), (Some(78), Value::Null));
    let bad_home = "mail_location = 'mdbox:~/m'\nmail_home = '/srv/%h'\n";
    assert_eq!(locate(bad_home, None), (Some(65), Value::Null));
}

/// A login process, as far as the variables go.
struct Login;

impl Lookup for Login {
    fn host_domain(&self) -> Option<Vec<u8>> {
        Some(b"mx1.example.org".to_vec())
    }
    fn host_name(&self) -> Option<Vec<u8>> {
        Some(b"mx1".to_vec())
    }
    fn environment(&self, name: &[u8]) -> Option<Vec<u8>> {
        Some(name.to_vec())
    }
    fn userdb(&self, field: &[u8]) -> Option<UserdbField> {
        Some(UserdbField::Value(field.to_vec()))
    }
}

fn variables<'a>(user: &'a [u8], home: Option<&'a [u8]>) -> Variables<'a> {
    Variables {
        user,
        home,
        auth_user: Some(b"master"),
        uid: Some(1),
        gid: Some(2),
        service: Some(b"imap"),
        local_ip: Some(b"::1"),
        remote_ip: Some(b"127.0.0.1"),
        session: None,
        pid: None,
        lookup: &Login,
    }
}

#[test]
fn mail_home_knows_no_home_and_the_short_host_name() {
    let variables = variables(b"u@d", None);
    let expand = |template: &str| {
        location::expand(template.as_bytes(), Setting::MailHome, &variables)
            .map(|home| String::from_utf8(home).expect("UTF-8"))
    };
    assert_eq!(
        expand("/srv/%{hostname}/%n/%i").as_deref(),
        Ok("/srv/mx1/u/1")
    );
    assert_eq!(
        expand("/srv/%{auth_user}/%s").as_deref(),
        Ok("/srv/master/imap")
    );
    for template in ["/srv/%h", "/srv/%{home}"] {
        let error = expand(template).expect_err("Dovecot does not know it either");
        assert!(error.to_string().contains("unknown variable"), "{error}");
    }
}

#[test]
fn only_maildir_plus_plus_keeps_its_claim_under_another_name() {
    for (location, name) in [
        ("maildir:/m:LISTINDEX=/l/x", "dovecot.lasthost"),
        ("maildir:/m:INDEX=/ix:LISTINDEX=/l/x", "dovecot.lasthost"),
        (
            "mbox:/m:LAYOUT=Maildir++:LISTINDEX=/l/x",
            "dovecot.lasthost",
        ),
        ("maildir:/m:LAYOUT=fs:LISTINDEX=/l/x", ".lasthost"),
        ("mdbox:/m:LISTINDEX=/l/x", ".lasthost"),
        ("mbox:/m:LISTINDEX=/l/x", ".lasthost"),
    ] {
        let parsed = location::parse(location.as_bytes(), None, &|_| None).expect(location);
        match location::tracking(&parsed, b"u", None, None) {
            Tracking::Tracked(Tracked { claim_name, .. }) => assert_eq!(claim_name, name),
            other => panic!("{location}: {other:?}"),
        }
        let chrooted = location::tracking(&parsed, b"u", None, Some(b"/jail"));
        assert!(matches!(chrooted, Tracking::Unvouchable(_)), "{location}");
    }
}

#[test]
fn no_bytes_whatever_make_it_panic() {
    const PIECES: [&[u8]; 44] = [
        b"%",
        b"%",
        b"%",
        b"{",
        b"}",
        b";",
        b":",
        b":",
        b",",
        b"=",
        b"~",
        b"/",
        b"\\",
        b"-",
        b"0",
        b".",
        b"9",
        b"99999999999",
        b"2147483648",
        b"u",
        b"n",
        b"h",
        b"N",
        b"H",
        b"E",
        b"X",
        b"D",
        b"{user}",
        b"{if;",
        b"sha1",
        b"pkcs5",
        b"size",
        b"rounds=",
        b"truncate=",
        b"salt=",
        b"format=base64",
        b"maildir:",
        b"mbox:",
        b"INDEX=",
        b"LISTINDEX=",
        b"MEMORY",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
    ];
    // Xorshift with a fixed seed: the same texts each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("small")
    };
    for _ in 0..20_000 {
        let mut text = |most: usize| {
            let pieces = (0..random(most)).map(|_| PIECES[random(PIECES.len())]);
            pieces.collect::<Vec<_>>().concat()
        };
        let (user, home, template) = (text(6), text(4), text(24));
        let variables = variables(&user, Some(&home));
        for setting in [Setting::MailLocation, Setting::MailHome] {
            // An error is as good as an answer here.
            let _ = location::expand(&template, setting, &variables);
        }
        let located = location::parse(&template, Some(b"/home"), &|name| Some(name.to_vec()));
        if let Ok(located) = located {
            let _ = location::tracking(&located, &user, Some(&home), None).to_string();
        }
    }
}
