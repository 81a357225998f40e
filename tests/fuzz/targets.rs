//! What is fuzzed, and what must be true whatever the bytes are: no crash, no hang, and what the
//! names of the checks say. Called by the short run (main.rs) and by cargo-fuzz (fuzz_targets).

use std::ffi::{CStr, CString};
use std::path::Path;

use nfs_hostchange::config::{Configuration, ConfigurationError};
use nfs_hostchange::dovecot::age::parse_age;
use nfs_hostchange::dovecot::environment::Environment;
use nfs_hostchange::dovecot::location::{
    self, Lookup, Setting, Tracked, Tracking, UserdbField, Variables, source,
};
use nfs_hostchange::local::record::Content;
use nfs_hostchange::login::command_line;
use nfs_hostchange::names::DEFAULT_CONFIGURATION;
use nfs_hostchange::nfs::claim::ClaimText;
use nfs_hostchange::nfs::host::HostName;

/// A user, a home and a template, with NUL bytes in between.
pub fn location(data: &[u8]) {
    let mut fields = data.splitn(3, |&byte| byte == 0);
    let mut field = || fields.next().unwrap_or_default();
    let (user, home, template) = (field(), field(), field());
    let home = (!home.is_empty()).then_some(home);
    let variables = Variables {
        user,
        home,
        auth_user: None,
        uid: Some(999),
        gid: Some(995),
        service: Some(b"imap"),
        local_ip: Some(b"192.0.2.1"),
        remote_ip: Some(b"2001:db8::1"),
        session: None,
        pid: None,
        lookup: &Nobody,
    };
    let _ = location::expand(template, Setting::MailHome, &variables);
    if let Ok(expanded) = location::expand(template, Setting::MailLocation, &variables) {
        assert!(!expanded.contains(&0), "a path cannot hold NUL");
        check_location(&expanded, user, home);
    }
    // As the userdb hands it over, it is not expanded again.
    check_location(template, user, home);
    check_user(user, &variables);
}

fn check_location(text: &[u8], user: &[u8], home: Option<&[u8]>) {
    let Ok(parsed) = location::parse(text, home, &|name| Some([b"/home/", name].concat())) else {
        return;
    };
    let tracking = location::tracking(&parsed, user, home, None);
    // What it says is for a log line.
    let _ = tracking.to_string();
    if let Tracking::Tracked(tracked) = tracking {
        check_tracked(&tracked, user);
    }
}

/// Wherever a login works, the paths say so themselves: absolute, and nowhere up again.
fn check_tracked(tracked: &Tracked, user: &[u8]) {
    for path in [&tracked.index_dir, &tracked.list_index_dir] {
        assert!(path.starts_with(b"/"), "{}", path.escape_ascii());
        let mut names = path.split(|&byte| byte == b'/');
        assert!(names.all(|name| name != b".."), "{}", path.escape_ascii());
    }
    let prefix = &tracked.prefix;
    let is_name = !prefix.is_empty() && !prefix.contains(&b'/');
    assert!(is_name && prefix != b"..", "{}", prefix.escape_ascii());
    assert!(prefix != b".lasthost", "the record's name");
    assert!(
        !matches!(user, b"" | b"." | b"..") && !user.contains(&b'/'),
        "{}",
        user.escape_ascii()
    );
}

/// With the documented template a user gets to the directory of that name, or nowhere at all.
fn check_user(user: &[u8], variables: &Variables) {
    if user.contains(&b':') {
        // That begins the next key, for Dovecot too; its auth_username_chars forbids it.
        return;
    }
    let template = b"mdbox:/nfs/%u:LISTINDEX=/dev/shm/li/%2.256Nu/%u/dovecot.list.index";
    let expanded = location::expand(template, Setting::MailLocation, variables);
    let Ok(parsed) = location::parse(&expanded.unwrap_or_default(), None, &|_| None) else {
        return;
    };
    if let Tracking::Tracked(tracked) = location::tracking(&parsed, user, None, None) {
        let directory = tracked.list_index_dir.strip_prefix(b"/dev/shm/li/");
        let directory = directory.expect("the template says so");
        assert_eq!(&directory[2..3], b"/", "two digits are the hash");
        assert_eq!(&directory[3..], user, "another user's directory");
        assert_eq!(tracked.index_dir, [b"/nfs/", user].concat());
        assert_eq!(tracked.prefix, b"dovecot.list.index");
    }
}

struct Nobody;

impl Lookup for Nobody {
    fn host_domain(&self) -> Option<Vec<u8>> {
        Some(b"mx1.example.org".to_vec())
    }
    fn host_name(&self) -> Option<Vec<u8>> {
        Some(b"mx1".to_vec())
    }
    fn environment(&self, name: &[u8]) -> Option<Vec<u8>> {
        Some(name.to_vec())
    }
    fn userdb(&self, _field: &[u8]) -> Option<UserdbField> {
        Some(UserdbField::Absent)
    }
}

/// A configuration, and an environment behind the first NUL byte.
pub fn login(data: &[u8]) {
    let mut strings = data.split(|&byte| byte == 0);
    let text = strings.next().unwrap_or_default();
    let configuration = Configuration::parse(Path::new("x"), text).unwrap_or_default();
    let entries: Vec<CString> = strings.map(c_string).collect();
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    let environment = Environment::new(&entries);
    match source::of_login(&environment, &configuration) {
        Ok(Tracking::Tracked(tracked)) => {
            check_tracked(&tracked, environment.get(b"USER").unwrap_or_default());
        }
        Ok(other) => drop(other.to_string()),
        Err(error) => drop(error.to_string()),
    }
    check_without_list_index(&entries, &environment.without_list_index());
}

/// Nothing is lost or added but the one field and its name.
fn check_without_list_index(given: &[&CStr], made: &[CString]) {
    let is_field = |entry: &CStr| entry.to_bytes().starts_with(b"MAILBOX_LIST_INDEX=");
    let kept = given.iter().filter(|entry| !is_field(entry));
    let (field, rest) = made.split_last().expect("the field is in it");
    assert_eq!(field.as_c_str(), c"MAILBOX_LIST_INDEX=no");
    assert_eq!(kept.clone().count(), rest.len());
    let mut changed = kept
        .zip(rest)
        .filter(|(given, made)| **given != made.as_c_str());
    if let Some((given, made)) = changed.next() {
        assert!(given.to_bytes().starts_with(b"USERDB_KEYS="));
        let added = made.to_bytes().strip_prefix(given.to_bytes());
        let added = added.expect("the keys stay as they are");
        assert_eq!(added.trim_ascii(), b"MAILBOX_LIST_INDEX");
    }
    assert_eq!(changed.next(), None);
}

/// A record is whole, or none.
pub fn record(data: &[u8]) {
    let content = Content::parse(data);
    let text = match &content {
        Content::Nothing => return,
        // The directory is INDEX then.
        Content::Claim => {
            assert_eq!(ClaimText::parse(data).to_string().as_bytes(), data);
            return;
        }
        Content::Records(_) | Content::Sessions(_) => content.to_string(),
    };
    assert_eq!(Content::parse(text.as_bytes()), content);
    for torn in 0..text.len() {
        let torn = &text.as_bytes()[..torn];
        assert_eq!(Content::parse(torn), Content::Nothing);
    }
}

/// Every claim of this program's is understood as it was meant.
pub fn claim(data: &[u8]) {
    let claim = ClaimText::parse(data);
    assert!(!claim.host.contains('\n'));
    if HostName::try_from(claim.host.clone()).is_ok() {
        for migrating in [false, true] {
            let host = claim.host.clone();
            let claim = ClaimText { host, migrating };
            assert_eq!(ClaimText::parse(claim.to_string().as_bytes()), claim);
        }
    }
}

pub fn configuration(data: &[u8]) {
    match Configuration::parse(Path::new("/x"), data) {
        Ok(configuration) => {
            let host = configuration
                .hostname
                .as_ref()
                .map_or("a", HostName::as_str);
            assert!(
                host.bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'/')
            );
            assert!((1..=64).contains(&host.len()));
            assert!(configuration.lock_timeout.as_secs() <= u64::from(u32::MAX));
        }
        Err(error) => {
            let said = error.to_string();
            let ConfigurationError::Syntax { line, column, .. } = error else {
                panic!("{said}");
            };
            assert!(!said.contains('\n'), "{said}");
            let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
            let length = lines[line - 1].len();
            assert!((1..=length + 1).contains(&column), "{said}: {length}");
        }
    }
}

pub fn age(data: &[u8]) {
    match parse_age(data) {
        Ok(age) => {
            assert_eq!(age.subsec_nanos(), 0);
            assert!(age.as_secs() <= u64::from(u32::MAX));
            assert!(data[0].is_ascii_digit());
            assert_eq!(parse_age(&data.to_ascii_uppercase()), Ok(age));
            let seconds = format!("{}secs", age.as_secs());
            assert_eq!(parse_age(seconds.as_bytes()), Ok(age));
        }
        Err(error) => assert!(error.to_string().is_ascii()),
    }
}

/// Arguments with NUL bytes in between.
pub fn command_line(data: &[u8]) {
    let arguments: Vec<CString> = data.split(|&byte| byte == 0).map(c_string).collect();
    let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
    match command_line::parse(&arguments) {
        Ok(command) => {
            // Not one argument of the program's is changed.
            assert!(arguments[1..].ends_with(command.program));
            assert!(command.program[0].to_bytes().starts_with(b"/"));
            let options = &arguments[1..arguments.len() - command.program.len()];
            let configuration = options
                .iter()
                .rev()
                .find_map(|option| option.to_bytes().strip_prefix(b"--config="))
                .unwrap_or(DEFAULT_CONFIGURATION.as_bytes());
            let taken = command.configuration.as_os_str().as_encoded_bytes();
            assert_eq!(taken, configuration);
            let more = [&arguments[..1], &[c"--config=/x"], &arguments[1..]].concat();
            let same = command_line::parse(&more).map(|command| command.program.len());
            assert_eq!(same, Ok(command.program.len()));
        }
        Err(error) => assert!(error.to_string().contains("usage: ")),
    }
}

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("it was split at NUL")
}
