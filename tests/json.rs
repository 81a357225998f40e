//! What the command prints for programs: every field of its JSON is documented, and every
//! documented field is there; and Prometheus's format is as Prometheus wants it.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use common::dovecot::Dovecot;
use common::scratch::{ALICE, DAY, Run, Scratch, is_root, user_directory};

/// The fields that docs/json.md names under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let document = include_str!("../docs/json.md");
    let (_, section) = document
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("{heading} is documented"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let names = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"))
        .flat_map(|(names, _)| names.split(", "))
        .map(|name| name.trim_matches('`').to_owned());
    names.collect()
}

/// All fields of `value`, those of objects in lists with the list's name before them.
fn fields(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, value) in value.as_object().expect("an object") {
        found.insert(name.clone());
        for element in value.as_array().into_iter().flatten() {
            found.extend(
                fields(element)
                    .into_iter()
                    .map(|field| format!("{name}.{field}")),
            );
        }
    }
    found
}

fn json(run: &Run) -> Value {
    assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn every_field_is_documented_and_every_documented_field_is_there() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let user = user_directory(&root.join("user"), ALICE, DAY);
    let index = scratch.path().join("index");
    fs::create_dir(&index).expect("mkdir");
    common::scratch::give(&index, ALICE);
    let own = scratch.path().join("nfs-hostchange.toml");
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/list",
        index.display(),
        user.display()
    );
    fs::write(&own, "# defaults\n").expect("write");
    let tell = |location: &str| {
        scratch.doveadm(&format!(
            "userdb: x\n  uid       : {ALICE}\n  gid       : {ALICE}\n  home      : /nowhere\n  mail_location: {location}\n"
        ));
    };
    tell(&location);
    let dovecots = scratch.path().join("dovecot.conf");
    let first_lines = Dovecot::machine().version.first_lines();
    let lines = format!("{first_lines}protocols = imap\nssl = no\n");
    fs::write(&dovecots, lines).expect("write");
    let [root, user, own, dovecots] =
        [root, user, own, dovecots].map(|path| path.to_str().expect("UTF-8").to_owned());

    let asked: &[(&str, &[&str])] = &[
        ("usercache sweep", &["usercache", "sweep", "7d", &root]),
        ("usercache forget", &["usercache", "forget", &root]),
        ("status PATH", &["status", &user]),
        ("status --below", &["status", "--below", &root]),
        ("check", &["check", "--dovecot-config", &dovecots]),
        ("locate", &["locate", "--config", &own, "--user", "x"]),
    ];
    for (heading, arguments) in asked {
        let run = scratch.run([*arguments, &["--json"]].concat());
        let mut expected = documented(heading);
        expected.remove("error");
        assert_eq!(fields(&json(&run)), expected, "{heading}");
    }
    let run = scratch.run([
        "locate", "--config", &own, "--user", "x", "--field", "mail=%", "--json",
    ]);
    assert_eq!(fields(&json(&run)), BTreeSet::from(["error".to_owned()]));
    if is_root() {
        let status = ["status", "--json", "--config", &own, "-u"];
        let of_x = || scratch.run([&status[..], &["x"]].concat());
        let mut expected = documented("status --user");
        let mut in_list = expected.clone();
        in_list.retain(|field| field.starts_with("namespaces."));
        expected.retain(|field| !in_list.contains(field));
        let run = of_x();
        assert_eq!(fields(&json(&run)), expected, "{run:?}");
        tell("mdbox:~/mdbox");
        let run = of_x();
        let expected = ["user", "in_step", "reason", "namespaces"].map(str::to_owned);
        assert_eq!(fields(&json(&run)), BTreeSet::from(expected), "{run:?}");
        scratch.namespaces(&format!(
            "\tyes\tprivate\tx\t{}\t{user}\tlist\tfs\t\t{ALICE} {ALICE}\n",
            index.display()
        ));
        let run = of_x();
        assert_eq!(fields(&json(&run)), documented("status --user"), "{run:?}");
        scratch.namespaces("of another version\n");
        let run = of_x();
        assert_eq!(json(&run)["namespaces"], Value::Null, "{run:?}");
        assert!(run.stderr.contains("of another version"), "{run:?}");
    }
}

#[test]
fn a_path_that_is_not_utf8_comes_in_hexadecimal_digits_too() {
    let scratch = Scratch::new();
    let user = scratch
        .hash_directory("00")
        .join(std::ffi::OsStr::from_bytes(b"a\xff"));
    user_directory(&user, ALICE, DAY);
    let status = json(&scratch.run(["status".as_ref(), "--json".as_ref(), user.as_os_str()]));
    let hex = status["list_index_dir_hex"].as_str().expect("digits");
    assert!(hex.ends_with("2f61ff"), "{status}");
    let text = status["list_index_dir"].as_str().expect("text");
    assert!(text.ends_with("/a\u{fffd}"), "{status}");
}

#[test]
fn names_that_mislead_on_a_terminal_are_escaped_as_json_does_it() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("root");
    let name = "evil\u{202e}moc\u{7f}\u{9b}\u{feff}";
    user_directory(&root.join(name), ALICE, DAY);
    let path = root.to_str().expect("UTF-8");
    let run = scratch.run(["status", "--json", "--below", path]);
    assert!(run.stdout.is_ascii(), "{run:?}");
    let biggest = &json(&run)["biggest"][0]["list_index_dir"];
    assert!(biggest.as_str().expect("text").ends_with(name));
    let field = format!("mail=mdbox:/x/{name}:LISTINDEX=/y/{name}/d");
    let run = scratch.run(["locate", "--json", "--user", "x", "--field", &field]);
    assert!(run.stdout.is_ascii(), "{run:?}");
    let directory = &json(&run)["list_index_dir"];
    assert_eq!(directory.as_str(), Some(&*format!("/y/{name}")), "{run:?}");
}

#[test]
fn prometheus_reads_the_totals() {
    let scratch = Scratch::new();
    let root = scratch.hash_directory("back\\slash \"quote\"\nline");
    user_directory(&root.join("user"), ALICE, DAY);
    let root = root.to_str().expect("UTF-8");
    let run = scratch.run(["status", "--below", root, "--prometheus"]);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.ends_with('\n'));
    let label = root
        .replace('\\', r"\\")
        .replace('"', r#"\""#)
        .replace('\n', r"\n");
    let lines: Vec<_> = run.stdout.lines().collect();
    let mut names = BTreeSet::new();
    // For each metric its help, its type and one sample, in this order.
    for metric in lines.chunks(3) {
        let [help, kind, sample] = metric else {
            panic!("{metric:?}");
        };
        let (name, text) = help
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .expect("help");
        assert!(name.starts_with("nfs_hostchange_"), "{name}");
        assert!(
            name.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase()),
            "{name}"
        );
        // Endings that mean something else than a gauge.
        for ending in ["_total", "_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(ending), "{name}");
        }
        assert!(text.len() > 10 && !text.contains('\\'), "{text}");
        assert_eq!(*kind, format!("# TYPE {name} gauge"));
        let value = sample
            .strip_prefix(&format!("{name}{{root=\"{label}\"}} "))
            .unwrap_or_else(|| panic!("{sample}"));
        let value: u64 = value.parse().expect("a number");
        let expected = match name {
            "nfs_hostchange_users" | "nfs_hostchange_users_recorded" => 1,
            "nfs_hostchange_files" => 2,
            "nfs_hostchange_bytes" => 17,
            // Of this machine.
            _ if name.starts_with("nfs_hostchange_room_") => value,
            _ => 0,
        };
        assert_eq!(value, expected, "{name}");
        assert!(names.insert(name), "{name} comes twice");
    }
    assert_eq!(names.len(), 11, "{names:?}");
}
