//! What is fuzzed, and what must be true whatever the bytes are: no crash, no hang, and what the
//! names of the checks say. Called by the short run (main.rs) and by cargo-fuzz (fuzz_targets).

use std::ffi::{CStr, CString};
use std::path::Path;

use nfs_hostchange::config::{Configuration, ConfigurationError};
use nfs_hostchange::dovecot::age::parse_age;
use nfs_hostchange::dovecot::environment::{Environment, Namespace, of_userdb_fields};
use nfs_hostchange::dovecot::location::{Tracked, Tracking, resolve};
use nfs_hostchange::local::record::Content;
use nfs_hostchange::login::command_line;
use nfs_hostchange::names::DEFAULT_CONFIGURATION;
use nfs_hostchange::nfs::claim::ClaimText;
use nfs_hostchange::nfs::host::HostName;
use nfs_hostchange::nfs::identity::{Identity, Version};

/// A user, a home and an expanded location of Dovecot 2.3, with NUL bytes in between.
pub fn location(data: &[u8]) {
    let mut fields = data.splitn(3, |&byte| byte == 0);
    let mut field = || fields.next().unwrap_or_default().to_vec();
    let user = field();
    let fields = [("home", field()), ("mail_location", field())];
    let fields = fields.map(|(name, value)| (name.into(), value));
    let Ok(entries) = of_userdb_fields(&user, fields) else {
        return;
    };
    check_environment(&entries, &Namespace::default());
}

/// A configuration, and an environment behind the first NUL byte.
pub fn login(data: &[u8]) {
    let mut strings = data.split(|&byte| byte == 0);
    let text = strings.next().unwrap_or_default();
    let configuration = Configuration::parse(Path::new("x"), text).unwrap_or_default();
    let entries: Vec<CString> = strings.map(c_string).collect();
    check_environment(&entries, &configuration.inbox_namespace);
}

fn check_environment(entries: &[CString], inbox: &Namespace) {
    let entries: Vec<&CStr> = entries.iter().map(CString::as_c_str).collect();
    let environment = Environment::new(&entries);
    match resolve(&environment, inbox) {
        Ok(Tracking::Tracked(tracked)) => {
            check_tracked(&tracked, environment.get(b"USER").unwrap_or_default());
        }
        // What it says is for a log line.
        Ok(other) => drop(other.to_string()),
        Err(error) => drop(error.to_string()),
    }
    check_without_list_index(&entries, inbox);
}

/// Wherever a login works, the paths say so themselves: absolute, and nowhere up again.
fn check_tracked(tracked: &Tracked, user: &[u8]) {
    for path in [tracked.index_dir(), tracked.list_index_dir()] {
        let path = path.as_os_str().as_encoded_bytes();
        assert!(path.starts_with(b"/"), "{}", path.escape_ascii());
        let mut names = path.split(|&byte| byte == b'/');
        assert!(names.all(|name| name != b".."), "{}", path.escape_ascii());
    }
    let prefix = tracked.prefix().to_bytes();
    let is_name = !prefix.is_empty() && !prefix.contains(&b'/');
    assert!(is_name && prefix != b"..", "{}", prefix.escape_ascii());
    assert!(!prefix.starts_with(b".lasthost"), "the record's name");
    assert!(
        !matches!(user, b"" | b"." | b"..") && !user.contains(&b'/'),
        "{}",
        user.escape_ascii()
    );
}

/// A login that goes by the fields which are made has no list index, and everything else is as it
/// was, in its order.
fn check_without_list_index(given: &[&CStr], inbox: &Namespace) {
    let made = Environment::new(given).without_list_index(inbox);
    let made: Vec<&CStr> = made.iter().map(CString::as_c_str).collect();
    let tracking = resolve(&Environment::new(&made), inbox);
    assert!(!matches!(tracking, Ok(Tracking::Tracked(_))), "{made:?}");
    let is_other = |entry: &&&CStr| {
        let name = entry.to_bytes().split(|&byte| byte == b'=').next();
        let name = name.unwrap_or_default();
        let name = name.strip_prefix(b"SET/").unwrap_or(name);
        name != b"USERDB_KEYS"
            && name != b"MAIL_LOCATION"
            && name != b"MAIL"
            && name != b"MAILBOX_LIST_INDEX_PREFIX"
            && !name.starts_with(b"NAMESPACE/")
    };
    let kept = made.iter().filter(is_other);
    assert!(kept.eq(given.iter().filter(is_other)));
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
        Content::Records(_) => content.to_string(),
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
    let version = Version {
        identity: Identity {
            inode: 17,
            seconds: 1_700_000_000,
            nanoseconds: 5,
        },
        size: 4711,
    };
    if HostName::try_from(claim.host.clone()).is_ok() {
        for migrating in [None, Some(version)] {
            let host = claim.host.clone();
            let without = claim.without.clone();
            let claim = ClaimText {
                host,
                migrating,
                list_index: claim.list_index.clone(),
                without,
            };
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
