//! `nfs-hostchange locate` against where real Dovecot went (`tests/oracle`).

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use nfs_hostchange::dovecot::environment::{Environment, Namespace, of_userdb_fields};
use nfs_hostchange::dovecot::location::{Tracking, resolve};
use nix::unistd::User;
use serde_json::Value;

/// The system users whose homes are in the oracle, `None` for one that must not exist.
const HOMES: [(&str, Option<&str>); 5] = [
    ("daemon", Some("/usr/sbin")),
    ("games", Some("/usr/games")),
    ("nobody", Some("/nonexistent")),
    ("nosuchuser-q", None),
    ("vmailx", None),
];

/// What `locate` says of a user with these userdb fields.
fn locate<'a>(user: &OsStr, fields: impl IntoIterator<Item = (&'a str, &'a OsStr)>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nfs-hostchange"));
    command.args(["locate", "--json", "--user"]).arg(user);
    command.args(["--config", "/nowhere/nfs-hostchange.toml"]);
    for (name, value) in fields {
        let mut field = OsString::from(name);
        field.push("=");
        field.push(value);
        command.arg("--field").arg(field);
    }
    command.output().expect("the program runs")
}

/// The same where a location of Dovecot 2.3 is all that counts: the exit status and the JSON.
fn ask(user: &str, home: &str, location: &str) -> (Option<i32>, Value) {
    let fields = [("home", home), ("mail_location", location)];
    let output = locate(
        OsStr::new(user),
        fields.map(|(name, value)| (name, OsStr::new(value))),
    );
    let answer = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), answer)
}

/// What a login would do.
fn tracking(user: &str, fields: &[(&str, &str)]) -> Result<Tracking, String> {
    tracking_of(&Namespace::default(), user, fields)
}

fn tracking_of(inbox: &Namespace, user: &str, fields: &[(&str, &str)]) -> Result<Tracking, String> {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let entries = of_userdb_fields(user.as_bytes(), fields).expect("no NUL");
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    resolve(&Environment::new(&entries), inbox).map_err(|error| error.to_string())
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
fn depends_on_another_machine(location: &OsStr) -> Option<String> {
    let location = location.to_string_lossy();
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
fn every_location_of_dovecot_2_3_is_resolved_to_the_byte_or_refused() {
    let (mut asked, mut wrong) = (0, Vec::new());
    for row in rows(include_str!("oracle/paths-2.3.jsonl")) {
        // Dovecot refused the template itself, before there was anything that a login could get.
        let Some(location) = bytes(&row, "expanded") else {
            assert!(row["error"].is_string(), "{row}");
            continue;
        };
        if let Some(reason) = depends_on_another_machine(&location) {
            println!("skipped {location:?}: {reason}");
            continue;
        }
        asked += 1;
        let user = bytes(&row, "user").expect("each row has a user");
        let home = bytes(&row, "home");
        let home = home.as_deref().map(|home| ("home", home));
        let fields = home
            .into_iter()
            .chain([("mail_location", location.as_os_str())]);
        if let Some(difference) = difference(&row, &locate(&user, fields)) {
            wrong.push(format!("{user:?} {location:?}: {difference}"));
        }
    }
    println!("{asked} rows asked");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(asked >= 600, "only {asked} rows asked");
}

#[test]
fn a_location_that_a_real_login_used_leads_to_the_list_index_that_it_made() {
    let mut asked = 0;
    let logins = rows(include_str!("oracle/userdb-2.3.jsonl"))
        .chain(rows(include_str!("oracle/users-2.3.jsonl")));
    for row in logins {
        let Some(location) = row["imap_location"].as_str() else {
            continue;
        };
        let home = row["imap_home"].as_str().unwrap_or_default();
        let made = row["list_index_on_disk"].as_array().expect("a list");
        let (_, answer) = ask("alice", home, location);
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
    const LOCAL: &str = "LISTINDEX=/dev/shm/li/u/dovecot.list.index";
    let of_one_user = [
        ("maildir:~/Maildir:{local}", "is local"),
        ("mbox:~/mail:INDEX=/ix/u:{local}", "is local"),
        ("sdbox:~/mail:INDEX=/ix/a..b/..c:{local}", "is local"),
        ("maildir:~/Maildir", "not set"),
        ("maildir:~/Maildir:INDEX=/ix:LISTINDEX=li/x", "is relative"),
        ("maildir:~/Maildir:INDEX=/ix:LISTINDEX=x", "is relative"),
        (
            "maildir:~/Maildir:INDEX=/ix/u:LISTINDEX=/ix//./u//x",
            "same directory",
        ),
        ("mbox:~/mail:LISTINDEX=/h/mail/x", "same directory"),
        ("maildir:~/Maildir:LISTINDEX=//x", "is local"),
        ("maildir:~/Maildir:LISTINDEX=/x", "is relative"),
        ("maildir:~/Maildir:LISTINDEX=", "off"),
        ("maildir:~/Maildir:INDEX=MEMORY", "in memory"),
        (
            "maildir:~/Maildir:INDEX=MEMORY:{local}",
            "no shared directory",
        ),
        ("mdbox:~/mail:LAYOUT=index:{local}", "only map"),
        ("mdbox:~/mail:LAYOUT=index", "not set"),
        ("maildir:rel:{local}", "INDEX is a relative path"),
        (
            "maildir:~/Maildir:INDEX=../ix:{local}",
            "INDEX is a relative path",
        ),
        (
            "maildir:~/Maildir:INDEX=/ix/../iy:{local}",
            "INDEX contains '..'",
        ),
        (
            "maildir:~/m:LISTINDEX=/dev/shm/li/..",
            "LISTINDEX contains '..'",
        ),
        (
            "maildir:~/m:LISTINDEX=/dev/shm/../x/l",
            "LISTINDEX contains '..'",
        ),
        (
            "maildir:~/m:LISTINDEX=/dev/shm/li/.lasthost",
            "this program's own",
        ),
    ];
    let of_others = [
        ("u@", "/h", "mdbox:~/mail:INDEX=/ix/u:{local}", "is local"),
        ("..", "/h", "mdbox:~/mail:LAYOUT=index:{local}", "only map"),
        ("u", "/jail/./h", "maildir:~/Maildir:{local}", "chrooted"),
        ("..", "/h", "maildir:~/Maildir:{local}", "user name"),
        (".", "/h", "maildir:~/Maildir:{local}", "user name"),
        ("", "/h", "maildir:~/Maildir:{local}", "user name"),
        ("a/b", "/h", "maildir:~/Maildir:{local}", "user name"),
        (
            "..",
            "/h",
            "maildir:~/Maildir:INDEX=/ix:LISTINDEX=l/x",
            "is relative",
        ),
    ];
    let of_one_user = of_one_user.map(|(location, words)| ("u", "/h", location, words));
    for (user, home, location, words) in of_one_user.into_iter().chain(of_others) {
        let location = location.replace("{local}", LOCAL);
        let (code, answer) = ask(user, home, &location);
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
fn user_names_with_a_hyphen_in_front_are_no_options() {
    let (code, answer) = ask("-x", "/h", "maildir:~/m:INDEX=/ix/-x");
    assert_eq!((code, &answer["index_dir"]), (Some(0), &"/ix/-x".into()));
}

#[test]
fn fields_are_bytes() {
    let home = OsStr::from_bytes(b"/h\xff=");
    let location = OsStr::new("mdbox:~/mdbox:LISTINDEX=/l/x");
    let output = locate(
        OsStr::from_bytes(b"u\xfe"),
        [("home", home), ("MAIL", location)],
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["index_dir_hex"], "2f68ff3d2f6d64626f78", "{answer}");
}

#[test]
fn a_location_that_dovecot_would_guess_from_existing_files_is_refused() {
    for location in ["", "~/mail", "mdbox", "/srv/mail/u", "auto:~/mail"] {
        let (code, answer) = ask("u", "/h", location);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains("names no driver"), "{location}: {answer}");
        assert_eq!(code, Some(65), "{location}");
    }
}

#[test]
fn an_empty_home_is_none() {
    let (code, answer) = ask("u", "", "mdbox:~/mdbox:LISTINDEX=/l/x");
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(error.contains("returns no home"), "{answer}");
    assert_eq!(code, Some(65));
}

#[test]
fn only_maildir_plus_plus_keeps_its_claim_under_another_name() {
    for (location, name) in [
        ("maildir:/m:LISTINDEX=/l/x", c"dovecot.lasthost"),
        ("maildir:/m:INDEX=/ix:LISTINDEX=/l/x", c"dovecot.lasthost"),
        (
            "mbox:/m:LAYOUT=Maildir++:LISTINDEX=/l/x",
            c"dovecot.lasthost",
        ),
        ("maildir:/m:LAYOUT=fs:LISTINDEX=/l/x", c".lasthost"),
        ("mdbox:/m:LISTINDEX=/l/x", c".lasthost"),
        ("mbox:/m:LISTINDEX=/l/x", c".lasthost"),
    ] {
        match tracking("u", &[("mail_location", location)]) {
            Ok(Tracking::Tracked(tracked)) => assert_eq!(tracked.claim_name(), name),
            other => panic!("{location}: {other:?}"),
        }
        for (field, value) in [
            ("chroot", "/jail"),
            ("mail_chroot", "/jail"),
            ("home", "/j/./h"),
        ] {
            let chrooted = tracking("u", &[("mail_location", location), (field, value)]);
            assert!(
                matches!(chrooted, Ok(Tracking::Unvouchable(_))),
                "{location}"
            );
        }
    }
}

/// What Dovecot 2.4 needs.
const FIELDS: [(&str, &str); 4] = [
    ("home", "/h"),
    ("mail_driver", "mdbox"),
    ("mail_path", "~/m"),
    ("mailbox_list_index_prefix", "/dev/shm/li/u/l"),
];

#[test]
fn fields_that_only_newer_versions_of_dovecot_2_4_take_are_never_guessed_about() {
    let with = |others: &[(&str, &str)]| tracking("u", &[&FIELDS[..], others].concat());
    let is_in = |answer: Result<Tracking, String>, index: &str| match answer {
        Ok(Tracking::Tracked(tracked)) => tracked.index_dir() == std::path::Path::new(index),
        _ => false,
    };
    // Dovecot 2.4.1 ignores them, and 2.4.5 prefers them.
    for (name, value) in [
        ("set/mail_path", "~/n"),
        ("set/namespace/inbox/mail_index_path", "~/ix"),
        ("set/mailbox_list_index_prefix", "/dev/shm/li/u/other"),
        ("set/mail_home", "/elsewhere"),
        ("set/mail_driver", "mbox"),
    ] {
        let answer = with(&[(name, value)]);
        assert!(
            matches!(&answer, Ok(Tracking::Unvouchable(why)) if why.to_string().contains("different places")),
            "{name}: {answer:?}"
        );
    }
    let layout = with(&[("set/mailbox_list_layout", "index")]);
    assert!(matches!(layout, Ok(Tracking::LayoutIndex)), "{layout:?}");
    let chroot = with(&[("set/mail_chroot", "/jail")]);
    assert!(matches!(chroot, Ok(Tracking::Unvouchable(_))), "{chroot:?}");
    assert!(is_in(with(&[("set/mail_path", "~/m")]), "/h/m"));
    assert!(is_in(with(&[("set/x_unknown", "y")]), "/h/m"));
    // 2.4.1 uses what dovecot.conf says, and 2.4.5 cannot use the other.
    let alone = [FIELDS[0], FIELDS[1], FIELDS[3], ("set/mail_path", "~/n")];
    for answer in [tracking("u", &alone), with(&[("set/mail_path", "")])] {
        assert!(
            matches!(&answer, Ok(Tracking::Unvouchable(_))),
            "{answer:?}"
        );
    }
}

#[test]
fn a_field_that_is_stronger_than_those_that_are_read_is_never_overlooked() {
    let with = |name, value| tracking("u", &[&FIELDS[..], &[(name, value)]].concat());
    for name in [
        "mdbox/mail_path",
        "namespace/inbox/mdbox/mail_path",
        "namespace/inbox/layout_fs/mailbox_list_index_prefix",
        "set/mdbox/mail_index_path",
        "mail_path+",
    ] {
        let answer = with(name, "~/n");
        assert!(
            matches!(&answer, Ok(Tracking::Unvouchable(why)) if why.to_string().contains("mdbox/mail_path")),
            "{name}: {answer:?}"
        );
    }
    for name in ["mdbox/mailbox_list_layout", "mailbox_list_layout+"] {
        let answer = with(name, "Index");
        assert!(matches!(answer, Ok(Tracking::LayoutIndex)), "{answer:?}");
    }
    for name in ["namespace/other/mdbox/mail_path", "x/y", "quota+"] {
        let answer = with(name, "~/n");
        assert!(matches!(answer, Ok(Tracking::Tracked(_))), "{answer:?}");
    }
}

/// What is believed of the fields must be so in every Dovecot that was given them. Fields that lead to
/// several places, or to none that is known, are believed by nobody.
#[test]
fn a_list_index_is_vouched_for_only_where_every_dovecot_has_it() {
    let (mut vouched, mut doubted, mut wrong) = (0, 0, Vec::new());
    for row in rows(include_str!("oracle/fields.jsonl")) {
        let text = |value: &'_ Value| value.as_str().map(str::to_owned);
        let fields: Vec<_> = row["fields"]
            .as_object()
            .expect("an object")
            .iter()
            .collect();
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        let inbox = text(&row["namespace_name"]).unwrap_or_else(|| "inbox".to_owned());
        let inbox = Namespace::try_from(inbox).expect("a name");
        let user = row["user"].as_str().expect("each login has one");
        let dovecots = row["dovecot"].as_object().expect("an object");
        let works = |answer: &&Value| answer["error"].is_null();
        let answers = || dovecots.values().filter(works);
        let answer = tracking_of(&inbox, user, &fields);
        let is_right = match &answer {
            Ok(Tracking::Tracked(tracked)) => answers().all(|real| {
                let path = |path: &std::path::Path| path.to_str().map(str::to_owned);
                path(tracked.index_dir()) == text(&real["index_dir"])
                    && path(tracked.list_index_dir()) == text(&real["list_index_dir"])
                    && tracked.prefix().to_str().ok() == real["list_index_prefix"].as_str()
            }),
            Ok(Tracking::Shared(_)) => answers().all(|real| {
                let is_local = text(&real["list_index_dir"]).is_some_and(|d| d.starts_with("/dev"));
                !is_local || real["list_index_made"] == false
            }),
            Ok(Tracking::LayoutIndex) => answers().any(|real| real["layout"] == "index"),
            Ok(Tracking::Unvouchable(_)) => true,
            Err(error) => answers().count() < dovecots.len() || error.contains("does not return"),
        };
        match answer {
            Ok(Tracking::Tracked(_)) => vouched += 1,
            _ => doubted += 1,
        }
        if !is_right {
            wrong.push(format!("{answer:?}: {row}"));
        }
    }
    println!("{vouched} logins vouched for, {doubted} not");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(vouched >= 100 && doubted >= 100, "{vouched}, {doubted}");
}

/// Logins that went by something no post-login script sees, by their notes: what the program says,
/// and what it does not see.
const UNSEEN: [(&str, &str, &str); 2] = [
    (
        "no home in the userdb, mail_home configured",
        "the userdb returns no home",
        "mail_home of dovecot.conf",
    ),
    (
        "home with /./ and valid_chroot_dirs",
        "the user is chrooted",
        "valid_chroot_dirs of dovecot.conf, without which /./ means nothing",
    ),
];

#[test]
fn every_login_of_dovecot_2_4_is_resolved_to_the_byte_or_refused() {
    const NEEDED: [&str; 3] = ["MAIL_DRIVER", "MAIL_PATH", "MAILBOX_LIST_INDEX_PREFIX"];
    let (mut right, mut refused, mut wrong) = (0, 0, Vec::new());
    for row in rows(include_str!("oracle/env-2.4.jsonl")) {
        let environment = row["env"].as_object().expect("an object");
        let keys = row["userdb_keys"].as_str().unwrap_or_default();
        if keys.is_empty() {
            // The login had failed before there was any post-login script.
            assert!(row["error"].is_string(), "{row}");
            continue;
        }
        let user = row["env"]["USER"].as_str().expect("each login has one");
        let is_named = |name: &&String| keys.split(' ').any(|key| key == *name);
        let names = environment.keys().filter(is_named);
        let fields = names.map(|name| {
            let value = environment[name].as_str().expect("text");
            (name.as_str(), OsStr::new(value))
        });
        let output = locate(OsStr::new(user), fields);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let note = row["note"].as_str().expect("each row has a note");
        let is_there = |name: &&str| {
            let own = format!("NAMESPACE/INBOX/{name}");
            environment.contains_key(*name) || environment.contains_key(&own)
        };
        if !NEEDED.iter().all(is_there) {
            // The rest may be in dovecot.conf, or Dovecot's default: nothing is guessed, and every
            // line to write is named.
            refused += 1;
            for name in NEEDED.iter().filter(|name| !is_there(name)) {
                let name = name.to_ascii_lowercase();
                let line = format!("'{name} = $SET:{name}'");
                if !said.contains(&line) || output.status.code() != Some(65) {
                    wrong.push(format!("{note}: {said}"));
                }
            }
        } else if let Some((_, words, _)) = UNSEEN.iter().find(|(unseen, ..)| *unseen == note) {
            refused += 1;
            if !said.contains(words) {
                wrong.push(format!("{note}: {said}"));
            }
        } else if let Some(difference) = difference(&row, &output) {
            wrong.push(format!("{note}: {difference}, {}", row["env"]));
        } else {
            right += 1;
        }
    }
    println!("{right} logins right, {refused} refused");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(right >= 175, "only {right} logins");
}

#[test]
fn no_bytes_whatever_make_it_panic() {
    let pieces =
        b"% : : = ~ / / .. . u \xff \xc3\xa9 maildir: mbox: mdbox: INDEX= LISTINDEX= LAYOUT= \
        index maildir++ MEMORY ~daemon/ DIRNAME= /home :INDEX=/ix :LISTINDEX=/l/x";
    let pieces: Vec<&[u8]> = pieces.split(|&byte| byte == b' ').collect();
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
            let text = (0..random(most)).map(|_| pieces[random(pieces.len())]);
            text.collect::<Vec<_>>().concat()
        };
        let user = text(6);
        let fields = [
            "home",
            "mail_location",
            "mail_driver",
            "mail_path",
            "mail_index_path",
            "mailbox_list_index_prefix",
            "mailbox_list_layout",
        ]
        .map(|name| (name.into(), text(9)));
        // Those of 2.3 alone, of 2.4 alone, and both.
        for part in [&fields[..2], &fields[2..], &fields[..]] {
            let entries = of_userdb_fields(&user, part.iter().cloned()).expect("no NUL");
            let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
            // An error is as good as an answer here.
            let _ = resolve(&Environment::new(&entries), &Namespace::default());
        }
    }
}
