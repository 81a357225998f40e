//! `nfs-hostchange status`.

use std::ffi::{CString, OsStr};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::HumanBytes;
use serde_json::{Map, Value, json};

use crate::admin::command_line::Status;
use crate::admin::complaints::OfTree;
use crate::admin::output::{
    Exit, Span, and_of_these, cannot_drop_groups, complain, counted, failed, insert_path,
    printable, say, say_as_it_is, say_json,
};
use crate::admin::room::alarms;
use crate::admin::status::{self, AGES, Local, Looker, StatusError, TreeStatus, UserStatus};
use crate::config::Configuration;
use crate::dovecot::doveadm::{self, Namespace};
use crate::dovecot::environment::Environment;
use crate::local::room::Room;
use crate::usercache::clean::{self, CleanError};
use crate::usercache::tree::{Tree, guard};

/// Prints the state of what the options name.
pub fn run(options: &Status) -> Exit {
    if let Some(root) = &options.below {
        tree(options, root)
    } else if let Some(user) = &options.user {
        one_user(options, user)
    } else if let Some(path) = &options.directory {
        directory(options, path)
    } else {
        // One of them is required.
        Exit::Usage
    }
}

fn one_user(options: &Status, name: &OsStr) -> Exit {
    let configuration = match Configuration::read(&options.configuration.path) {
        Ok(configuration) => configuration.unwrap_or_default(),
        Err(error) => {
            complain(error);
            return Exit::Configuration;
        }
    };
    let file = options.dovecot_config.as_deref();
    let of_module = match doveadm::namespaces_of(name, file) {
        Ok(Some(namespaces)) => return namespaces_of(options, name, &namespaces, &configuration),
        Ok(None) => None,
        Err(error) => Some(error),
    };
    // Where the module is not installed: the userdb knows the namespace of the inbox.
    let entries = match doveadm::environment_of(name, file) {
        Ok(entries) => entries,
        Err(error) => {
            unknown(options, name, &error);
            complain(format_args!("{}: {error}", Path::new(name).display()));
            return Exit::from(&error);
        }
    };
    if let Some(error) = of_module {
        complain(format_args!("{}: {error}", Path::new(name).display()));
    }
    let entries: Vec<_> = entries.iter().map(CString::as_c_str).collect();
    let status = status::of_user(&Environment::new(&entries), &configuration);
    print_user(options, name, false, &[(None, status)])
}

type State<'a> = (Option<&'a Namespace>, Result<UserStatus, StatusError>);

/// All that Dovecot knows of, that of the inbox first.
fn namespaces_of(
    options: &Status,
    name: &OsStr,
    namespaces: &[Namespace],
    configuration: &Configuration,
) -> Exit {
    let state = |namespace| {
        let status = status::of_namespace(namespace, configuration);
        (Some(namespace), status)
    };
    let (inbox, others): (Vec<_>, Vec<_>) =
        namespaces.iter().partition(|namespace| namespace.has_inbox);
    let mut states: Vec<State<'_>> = inbox.into_iter().chain(others).map(state).collect();
    if !namespaces.iter().any(|namespace| namespace.has_inbox) {
        let reason = "the list index of the inbox's namespace is not local".to_owned();
        states.insert(0, (None, Err(StatusError::NotKept(reason))));
    }
    print_user(options, name, true, &states)
}

/// For programs, that it is not known whether the user is in step.
fn unknown(options: &Status, name: &OsStr, reason: &dyn std::fmt::Display) {
    if options.json {
        let mut object = Map::new();
        insert_path(&mut object, "user", Some(name.as_bytes()));
        insert_unknown(&mut object, reason);
        object.insert("namespaces".to_owned(), Value::Null);
        say_json(&Value::Object(object));
    }
}

fn insert_unknown(object: &mut Map<String, Value>, reason: &dyn std::fmt::Display) {
    object.insert("in_step".to_owned(), Value::Null);
    object.insert("reason".to_owned(), reason.to_string().into());
}

fn exit_of(error: &StatusError) -> Exit {
    match error {
        // Nothing is wrong with such a user.
        StatusError::NotTracked(_) | StatusError::NotKept(_) => Exit::Ok,
        StatusError::Location(_) | StatusError::User(_) => Exit::Configuration,
        StatusError::Index(_) => Exit::NoInput,
        StatusError::Local(error) => error.into(),
    }
}

fn print_user(options: &Status, name: &OsStr, has_module: bool, states: &[State<'_>]) -> Exit {
    if options.json {
        let mut object = Map::new();
        insert_path(&mut object, "user", Some(name.as_bytes()));
        if let Some((_, status)) = states.first() {
            insert_status(&mut object, status);
        }
        let namespaces = states.iter().filter_map(|(namespace, status)| {
            let mut object = Map::new();
            insert_namespace(&mut object, (*namespace)?);
            insert_status(&mut object, status);
            Some(Value::Object(object))
        });
        let namespaces: Vec<_> = namespaces.collect();
        object.insert(
            "namespaces".to_owned(),
            has_module.then_some(namespaces).into(),
        );
        say_json(&Value::Object(object));
    } else {
        say(format_args!("user        {}", Path::new(name).display()));
    }
    let mut exit = Exit::Ok;
    for (namespace, status) in states {
        if !options.json {
            print_status(*namespace, status);
        }
        if let Err(error) = status {
            let of_error = exit_of(error);
            if of_error != Exit::Ok {
                complain(error);
            }
            exit = exit.max(of_error);
        }
    }
    exit
}

fn insert_namespace(object: &mut Map<String, Value>, namespace: &Namespace) {
    insert_path(object, "prefix", Some(&namespace.prefix));
    object.insert("inbox".to_owned(), namespace.has_inbox.into());
    object.insert("type".to_owned(), namespace.kind.as_str().into());
    let owner = Some(namespace.owner.as_slice()).filter(|owner| !owner.is_empty());
    insert_path(object, "owner", owner);
}

fn insert_status(object: &mut Map<String, Value>, status: &Result<UserStatus, StatusError>) {
    let status = match status {
        Ok(status) => status,
        Err(error) => return insert_unknown(object, error),
    };
    for (field, path) in [
        ("list_index_dir", status.tracked.list_index_dir()),
        ("index_dir", status.tracked.index_dir()),
    ] {
        insert_path(object, field, Some(path.as_os_str().as_bytes()));
    }
    let claim = status.claim.as_ref();
    object.insert(
        "claimed_by".to_owned(),
        claim.map(|(host, _)| host.as_str()).into(),
    );
    object.insert(
        "claim_age_seconds".to_owned(),
        claim.map(|(_, age)| *age).into(),
    );
    object.insert("in_step".to_owned(), status.is_in_step().into());
    object.insert("reason".to_owned(), status.reason().into());
    insert_local(object, status.local.as_ref());
}

fn print_status(namespace: Option<&Namespace>, status: &Result<UserStatus, StatusError>) {
    if let Some(namespace) = namespace {
        say(format_args!(
            "namespace   '{}', {}",
            printable(&namespace.prefix),
            namespace.kind
        ));
    }
    let status = match status {
        Ok(status) => status,
        Err(error) if exit_of(error) == Exit::Ok => {
            return say(format_args!("nothing to keep in step: {error}"));
        }
        // Which is complained of.
        Err(_) => return,
    };
    let claim = match &status.claim {
        Some((host, age)) => {
            // The server's clock may be ahead.
            let age = Duration::from_secs(u64::try_from(*age).unwrap_or_default());
            format!("{}, {} ago", printable(host.as_bytes()), Span(age))
        }
        None => "nobody".to_owned(),
    };
    say(format_args!(
        "INDEX       {}",
        printable(status.tracked.index_dir().as_os_str().as_bytes())
    ));
    say(format_args!("claimed by  {claim}"));
    say(format_args!(
        "LISTINDEX   {}",
        printable(status.tracked.list_index_dir().as_os_str().as_bytes())
    ));
    print_local(status.local.as_ref());
    let answer = if status.is_in_step() { "yes" } else { "no" };
    say(format_args!("in step     {answer}: {}", status.reason()));
}

fn print_local(local: Option<&Local>) {
    let Some(local) = local else {
        return say("list index  none");
    };
    say(format_args!("list index  {}", local.size));
    say(format_args!("last used   {} ago", Span(local.age)));
    let session = match (local.without_for(), local.session_open) {
        (Some(time), _) => format!("open, without list index for {}", Span(time)),
        (None, true) => "open".to_owned(),
        (None, false) => "none".to_owned(),
    };
    say(format_args!("session     {session}"));
}

fn insert_local(object: &mut Map<String, Value>, local: Option<&Local>) {
    let fields = [
        ("record", local.map(|local| local.record.is_some()).into()),
        ("files", local.map(|local| local.size.files).into()),
        ("bytes", local.map(|local| local.size.bytes).into()),
        (
            "last_used_seconds",
            local.map(|local| local.age.as_secs()).into(),
        ),
        ("session_open", local.map(|local| local.session_open).into()),
        (
            "without_list_index_seconds",
            local
                .and_then(Local::without_for)
                .map(|time| time.as_secs())
                .into(),
        ),
    ];
    object.extend(fields.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
}

fn directory(options: &Status, path: &Path) -> Exit {
    match local(options, path) {
        Ok(Some(local)) => {
            if options.json {
                let mut object = Map::new();
                insert_path(
                    &mut object,
                    "list_index_dir",
                    Some(path.as_os_str().as_bytes()),
                );
                insert_local(&mut object, Some(&local));
                say_json(&Value::Object(object));
            } else {
                say(format_args!("LISTINDEX   {}", path.display()));
                print_local(Some(&local));
                say(format_args!(
                    "record      {}",
                    if local.record.is_some() {
                        "yes (whether it equals the claim: ask with --user)"
                    } else {
                        "none: the next login starts a new list index"
                    }
                ));
            }
            Exit::Ok
        }
        Ok(None) => {
            complain(format_args!(
                "{}: there is no list index here",
                path.display()
            ));
            Exit::NoInput
        }
        Err(error) => failed(&error),
    }
}

fn local(options: &Status, path: &Path) -> Result<Option<Local>, CleanError> {
    let (_, _, directory) = clean::open(path)?;
    Looker::new()
        .map_err(|errno| CleanError::Refused(path.to_owned(), errno))?
        .look_at(&directory, &options.prefix)
}

fn tree(options: &Status, root: &Path) -> Exit {
    let tree = match Tree::new(root, &options.prefix) {
        Ok(tree) => tree,
        Err(error) => return failed(&error),
    };
    let complaints = Mutex::new(OfTree::NONE);
    let report = |error: &CleanError| {
        if guard(&complaints).add(error) {
            complain(error);
        }
    };
    let status = match status::of_tree(&tree, &options.prefix, &report) {
        Ok(status) => status,
        Err(errno) => return cannot_drop_groups(errno),
    };
    let alarms = alarms(root, &tree);
    let room = tree.room().ok().map(|(_, room)| room);
    if options.json {
        say_json(&tree_json(root, &status, room, alarms));
    } else if options.prometheus {
        say_as_it_is(&prometheus(root, &status, room));
    } else {
        print_tree(root, &status);
        if let Some(room) = room {
            say(format_args!("room: {room}"));
        }
        alarms.iter().for_each(complain);
    }
    guard(&complaints).finish(status.users > 0)
}

fn print_tree(root: &Path, status: &TreeStatus) {
    say(format_args!(
        "{}: {}, {} in {}{}",
        root.display(),
        counted(status.users, "user"),
        HumanBytes(status.size.bytes),
        counted(status.size.files, "file"),
        and_of_these(&[
            (status.in_use, "with a session"),
            (status.recorded, "with a record"),
            (status.logging_in, "logging in"),
            (status.spoiled, "spoiled by their owners"),
            (status.failed, "failed"),
        ])
    ));
    say("last used");
    for (class, (users, bytes)) in status.ages.iter().enumerate() {
        let class = match (AGES.get(class), AGES.last()) {
            (Some(&bound), _) => format!("less than {} ago", Span(Duration::from_secs(bound))),
            (None, Some(&bound)) => format!("{} ago or more", Span(Duration::from_secs(bound))),
            (None, None) => String::new(),
        };
        say(format_args!(
            "  {class:24} {users:>10} users {:>12}",
            HumanBytes(*bytes).to_string()
        ));
    }
    say("biggest");
    for (bytes, path) in status.biggest.iter().rev() {
        say(format_args!(
            "  {:>12} {}",
            HumanBytes(*bytes).to_string(),
            path.display()
        ));
    }
}

fn tree_json(root: &Path, status: &TreeStatus, room: Option<Room>, alarms: Vec<String>) -> Value {
    let mut object = Map::new();
    insert_path(&mut object, "root", Some(root.as_os_str().as_bytes()));
    let ages: Vec<_> = status
        .ages
        .iter()
        .enumerate()
        .map(|(class, (users, bytes))| {
            json!({ "below_seconds": AGES.get(class), "users": users, "bytes": bytes })
        })
        .collect();
    let biggest = status.biggest.iter().rev().map(|(bytes, path)| {
        let mut user = Map::new();
        insert_path(
            &mut user,
            "list_index_dir",
            Some(path.as_os_str().as_bytes()),
        );
        user.insert("bytes".to_owned(), (*bytes).into());
        Value::Object(user)
    });
    let fields = [
        ("users", Value::from(status.users)),
        ("files", status.size.files.into()),
        ("bytes", status.size.bytes.into()),
        ("in_use", status.in_use.into()),
        ("recorded", status.recorded.into()),
        ("logging_in", status.logging_in.into()),
        ("spoiled", status.spoiled.into()),
        ("failed", status.failed.into()),
        ("ages", ages.into()),
        ("biggest", biggest.collect::<Vec<_>>().into()),
        ("bytes_total", room.map(|room| room.bytes.total).into()),
        ("bytes_free", room.map(|room| room.bytes.free).into()),
        ("files_total", room.map(|room| room.files.total).into()),
        ("files_free", room.map(|room| room.files.free).into()),
        ("alarms", alarms.into()),
    ];
    object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

/// The text format of Prometheus. Labels escape backslash, quote and newline.
fn prometheus(root: &Path, status: &TreeStatus, room: Option<Room>) -> String {
    let root = root.to_string_lossy();
    let root = root
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let mut text = String::new();
    let mut gauges = vec![
        (
            "users",
            "Users with a local list index directory",
            status.users,
        ),
        ("files", "Files of local list indexes", status.size.files),
        ("bytes", "Bytes of local list indexes", status.size.bytes),
        (
            "users_in_use",
            "Users whose list index a session has open",
            status.in_use,
        ),
        (
            "users_recorded",
            "Users whose list index has a record",
            status.recorded,
        ),
        (
            "spoiled",
            "Directories that their owners keep from being looked at",
            status.spoiled,
        ),
        (
            "failures",
            "Directories that could not be looked at",
            status.failed,
        ),
    ];
    if let Some(Room { bytes, files }) = room {
        gauges.extend([
            (
                "room_bytes",
                "Size of the file system that list indexes are on",
                bytes.total,
            ),
            ("room_bytes_free", "Free bytes there", bytes.free),
            (
                "room_files",
                "Files that the file system may hold",
                files.total,
            ),
            (
                "room_files_free",
                "Files that may be made there",
                files.free,
            ),
        ]);
    }
    for (name, help, value) in gauges {
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "# HELP nfs_hostchange_{name} {help}.\n# TYPE nfs_hostchange_{name} gauge\nnfs_hostchange_{name}{{root=\"{root}\"}} {value}"
        );
    }
    text
}
