//! Taking over a list index that a Dovecot without LISTINDEX left in INDEX.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::trace::Call;
use common::{
    GID, HERE, Lab, OTHER_UID, PREFIX, STARTS, Session, THERE, UID, fill, list_index_names,
    mount_tmpfs, names_in, remount, set_owner_and_mode,
};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// The files of a list index by name, with their contents.
type ListIndex = BTreeMap<String, Vec<u8>>;

/// What Dovecot has written without LISTINDEX. One file is longer than any buffer.
fn original() -> ListIndex {
    list_index_names()
        .into_iter()
        .map(|name| {
            let times = if name.ends_with(".log") { 14_000 } else { 2 };
            (name.to_owned(), name.as_bytes().repeat(times))
        })
        .collect()
}

/// The files in `directory` that belong to the list index called `prefix`.
fn list_index_in(directory: &Path, prefix: &str) -> ListIndex {
    names_in(directory)
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .map(|name| {
            let content = fs::read(directory.join(&name)).expect("it is a file");
            (name, content)
        })
        .collect()
}

fn in_index(lab: &Lab) -> ListIndex {
    list_index_in(&lab.index(), PREFIX)
}

fn here(lab: &Lab) -> ListIndex {
    list_index_in(&lab.list_index(HERE), PREFIX)
}

/// A backend without this program serves the user now.
fn put_original(lab: &Lab) {
    for (name, content) in original() {
        lab.write(&lab.index().join(name), content);
    }
}

/// A user whose list index is in INDEX, and who has never been served otherwise.
fn unmigrated_user() -> Lab {
    let lab = Lab::new();
    lab.configure("migration = true\n");
    put_original(&lab);
    lab
}

#[track_caller]
fn assert_migrated(lab: &Lab, session: &Session<'_>) {
    session.assert_vouched();
    assert_eq!(in_index(lab), ListIndex::new(), "{}", session.told());
    assert_eq!(names_in(&lab.index()), [".lasthost"], "{}", session.told());
    assert_eq!(here(lab), original(), "{}", session.told());
    assert!(lab.is_recorded(HERE), "{}", session.told());
}

/// Nobody vouches, and there is no copy.
#[track_caller]
fn assert_not_migrated(lab: &Lab, session: &Session<'_>, parts: &[&str]) {
    session.assert_refused(&[&["session without list index: "], parts].concat());
    assert_eq!(here(lab), ListIndex::new(), "{}", session.told());
    assert_eq!(lab.record(HERE), None, "{}", session.told());
}

#[test]
fn a_list_index_in_index_is_moved_here_as_it_is() {
    for started in STARTS {
        let lab = unmigrated_user();
        let session = started(&lab).run();
        assert_migrated(&lab, &session);
        let bytes: usize = original().values().map(Vec::len).sum();
        let size = format!("4 files ({bytes} bytes)");
        session.assert_logged(&["user=alice: ", "migrated", &size]);
        for name in list_index_names() {
            let status = fs::metadata(lab.list_index(HERE).join(name)).expect("it is there");
            assert_eq!((status.uid(), status.gid()), (UID, GID));
            assert_eq!(status.mode() & 0o7777, 0o600);
        }
        // Dovecot uses it from now on.
        let session = lab.login().run();
        assert_migrated(&lab, session.assert_silent());
    }
}

#[test]
fn locks_that_a_crash_left_are_not_moved_along() {
    let lab = unmigrated_user();
    for suffix in [".lock", ".log.lock", ".log.newlock", ".tmp"] {
        lab.write(&lab.index().join(format!("{PREFIX}{suffix}")), "host:1");
    }
    lab.login().run().assert_vouched();
    assert_eq!(list_index_in(&lab.list_index(HERE), PREFIX), original());
    assert_eq!(names_in(&lab.index()), [".lasthost"]);
}

#[test]
fn it_gets_the_local_prefix() {
    let lab = unmigrated_user();
    let directory = lab.list_index(HERE);
    let location = format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/li",
        lab.index().display(),
        directory.display()
    );
    lab.login().location(location).run().assert_vouched();
    assert_eq!(
        names_in(&directory),
        [
            ".lasthost",
            ".lasthost.without",
            "li",
            "li.cache",
            "li.log",
            "li.log.2"
        ]
    );
    let expected = original().into_values().collect::<Vec<_>>();
    let copied = list_index_in(&directory, "li")
        .into_values()
        .collect::<Vec<_>>();
    assert_eq!(copied, expected);
    assert_eq!(in_index(&lab), ListIndex::new());
}

#[test]
fn without_the_setting_nothing_is_taken_over_or_deleted() {
    let lab = Lab::new();
    put_original(&lab);
    lab.login().run().assert_vouched();
    lab.login().run().assert_vouched();
    assert_eq!(in_index(&lab), original());
    assert_eq!(here(&lab), ListIndex::new());
}

#[test]
fn with_a_configuration_that_cannot_be_used_nothing_is_trusted_beside_a_list_index_in_index() {
    let lab = unmigrated_user();
    lab.login().run().assert_vouched();
    lab.configure("migration = maybe\n");
    // Where there is none, and nothing else to be done, there is nothing to be unsure of.
    lab.login().run().assert_vouched();
    put_original(&lab);
    lab.login()
        .run()
        .assert_forgotten(&["the configuration cannot be used"]);
    assert_eq!(in_index(&lab), original());
}

#[test]
fn a_migration_needs_no_memory_but_what_it_begins_with() {
    let lab = unmigrated_user();
    let mut login = lab.login().trace();
    let began = login.run_to(|login, call| {
        call.number == libc::SYS_openat && login.string(call.arguments[1]).ends_with(".toml")
    });
    began.expect("it reads its configuration");
    // Memory that the kernel refuses would end the login.
    let calls = [libc::SYS_mmap, libc::SYS_brk];
    assert_eq!(login.run_to(|_, call| calls.contains(&call.number)), None);
    assert_migrated(&lab, &login.finish());
}

#[test]
fn what_is_local_is_begun_anew_when_somebody_else_wrote_to_a_list_index_in_index() {
    let lab = Lab::with_settled_user();
    lab.configure("migration = true\n");
    put_original(&lab);
    let log = lab.index().join(format!("{PREFIX}.log"));
    for _ in 0..2 {
        lab.plant_list_index(HERE);
        let session = lab.login().run();
        session.assert_vouched();
        session.assert_logged(&["is left alone", &log.display().to_string()]);
        assert_eq!(here(&lab), ListIndex::new());
        assert!(lab.is_recorded_beside_another(HERE));
        // It is not ours, and nothing is done twice.
        lab.plant_list_index(HERE);
        lab.login().run().assert_vouched().assert_silent();
        assert_eq!(lab.planted(HERE), list_index_names());
        let mut other = File::options().append(true).open(&log).expect("it stays");
        other.write_all(b"changed").expect("root may");
    }
    for (name, content) in original() {
        assert!(in_index(&lab)[&name].starts_with(&content), "{name}");
    }
}

#[test]
fn a_list_index_of_which_a_file_is_somebody_else_s_is_left_alone() {
    for name in list_index_names() {
        let lab = unmigrated_user();
        set_owner_and_mode(&lab.index().join(name), OTHER_UID, 0o644);
        assert_left_alone(&lab);
        let lab = unmigrated_user();
        fs::hard_link(lab.index().join(name), lab.path("second name")).expect("root may");
        assert_left_alone(&lab);
    }
}

#[test]
fn the_map_of_a_namespace_with_layout_index_is_never_moved_or_deleted() {
    let guid = "1aba0411ad95086b9a41000083ecc375";
    let below = |directory: &str| format!("{directory}/{guid}");
    // MAILBOXDIR may be called anything.
    let directories = ["mailboxes", "boxes", "a/b/c", ".imap"].map(below);
    for place in [guid.to_owned()].into_iter().chain(directories) {
        assert_no_map_is_touched(guid, |index| {
            fs::create_dir_all(index.join(&place)).expect("root may");
        });
    }
    // Nobody knows what is there.
    assert_no_map_is_touched("closed", |index| {
        fs::create_dir(index.join("closed")).expect("root may");
        set_owner_and_mode(&index.join("closed"), OTHER_UID, 0o700);
    });
    assert_no_map_is_touched("link", |index| {
        symlink("../elsewhere", index.join("link")).expect("root may");
    });
}

/// `sign` is what the administrator is told of.
fn assert_no_map_is_touched(sign: &str, make: impl Fn(&Path)) {
    let lab = unmigrated_user();
    make(&lab.index());
    let session = lab.login().run();
    session.assert_vouched();
    session.assert_logged(&["is left alone", sign, "LAYOUT=index"]);
    assert_eq!(in_index(&lab), original(), "{}", session.told());
    assert_eq!(here(&lab), ListIndex::new(), "{}", session.told());
    lab.login().run().assert_vouched().assert_silent();
    let lab = unmigrated_user();
    make(&lab.index());
    // Not even if the session goes without a list index.
    fs::create_dir_all(lab.list_index(HERE)).expect("root may");
    lab.login().run().assert_not_vouched();
    assert_eq!(in_index(&lab), original());
}

#[test]
fn a_copy_of_the_store_does_not_make_an_old_list_index_a_new_one() {
    let lab = unmigrated_user();
    lab.configure("migration = false\n");
    lab.login().run().assert_vouched();
    // Every file is new to the file server, in the order of an rsync.
    for name in names_in(&lab.index()) {
        let copy = lab.path("copy");
        let path = lab.index().join(name);
        let copied = Command::new("cp").arg("-a").args([&path, &copy]).status();
        assert!(copied.expect("cp runs").success());
        fs::rename(copy, path).expect("it is the lab's own");
    }
    lab.configure("migration = true\n");
    assert_left_alone(&lab);
}

#[test]
fn a_claim_that_had_to_go_was_one_all_the_same() {
    let lab = Lab::new();
    mount_tmpfs(
        &lab.index(),
        &format!("size=1m,mode=0700,uid={UID},gid={GID}"),
    );
    lab.login().run().assert_vouched();
    lab.configure("migration = true\n");
    put_original(&lab);
    let filler = lab.index().join("mail");
    fill(&filler);
    for _ in 0..2 {
        let session = lab.login().run();
        assert_not_migrated(&lab, &session, &["cannot write"]);
        assert!(!lab.claim_file().exists());
        assert_eq!(in_index(&lab), original());
    }
    fs::remove_file(filler).expect("it is there");
    assert_left_alone(&lab);
}

/// A login is vouched for without the list index in INDEX, which stays as it is.
#[track_caller]
fn assert_left_alone(lab: &Lab) {
    let session = lab.login().run();
    session.assert_vouched();
    session.assert_logged(&["is left alone"]);
    assert_eq!(in_index(lab), original(), "{}", session.told());
    assert_eq!(here(lab), ListIndex::new(), "{}", session.told());
    assert!(lab.is_recorded_beside_another(HERE), "{}", session.told());
    lab.login().run().assert_vouched().assert_silent();
}

#[test]
fn a_list_index_that_later_sessions_did_not_write_to_is_not_taken_over() {
    let lab = unmigrated_user();
    // A login here while migration was off yet.
    lab.configure("migration = false\n");
    lab.login().run().assert_vouched();
    lab.configure("migration = true\n");
    lab.login_at(THERE).run().assert_vouched();
    assert_eq!(in_index(&lab), original());
    assert_eq!(
        list_index_in(&lab.list_index(THERE), PREFIX),
        ListIndex::new()
    );
    assert!(lab.is_recorded_beside_another(THERE));
}

#[test]
fn a_claim_that_cannot_be_read_is_one_all_the_same() {
    let lab = unmigrated_user();
    lab.configure("migration = false\n");
    lab.login().run().assert_vouched();
    lab.configure("migration = true\n");
    set_owner_and_mode(&lab.index().join(".lasthost"), UID, 0o000);
    let session = lab.login_at(THERE).run();
    session.assert_refused(&["cannot read"]);
    // That session has claimed.
    lab.login_at(THERE).run().assert_vouched();
    assert_eq!(in_index(&lab), original());
    assert_eq!(
        list_index_in(&lab.list_index(THERE), PREFIX),
        ListIndex::new()
    );
}

#[test]
fn a_user_who_makes_files_or_lets_them_grow_fills_nobody_s_memory() {
    let lab = unmigrated_user();
    for part in ["", ".log", ".log.2", ".cache", ".backup", ".tmp", ".lock"] {
        for name in [
            format!("{PREFIX}.migrating{part}"),
            format!("{PREFIX}{part}"),
        ] {
            let file = File::options()
                .create(true)
                .append(true)
                .open(lab.index().join(&name));
            file.expect("it can be made");
            set_owner_and_mode(&lab.index().join(name), UID, 0o600);
        }
    }
    for part in [".log.lock", ".cache.lock", ".cache.tmp"] {
        lab.write(&lab.index().join(format!("{PREFIX}{part}")), "");
    }
    let parts = ["17 files in", &lab.index().display().to_string()];
    assert_not_migrated(&lab, &lab.login().run(), &parts);

    let lab = unmigrated_user();
    let mut login = lab.login().trace();
    let copies = login.run_to(|login, call| {
        call.number == libc::SYS_openat && login.string(call.arguments[1]).contains("migrating")
    });
    copies.expect("it copies");
    for name in original().into_keys() {
        let file = File::options().write(true).open(lab.index().join(name));
        file.and_then(|file| file.set_len(1 << 40))
            .expect("it is the lab's own");
    }
    assert_not_migrated(&lab, &login.finish(), &["it grew meanwhile"]);
}

#[test]
fn what_an_interrupted_migration_left_is_deleted_and_nothing_else_follows_from_it() {
    for started in STARTS {
        let lab = Lab::with_settled_user();
        say_migrating(&lab);
        let claim = lab.claim();
        let litter = lab.index().join(PREFIX);
        lab.write(&litter, "without its log");
        let login = || started(&lab);
        login().run().assert_vouched().assert_silent();
        assert!(litter.exists(), "migration is off");
        lab.configure("migration = true\n");
        let session = login().run();
        session.assert_vouched();
        session.assert_logged(&["deleted", &litter.display().to_string()]);
        assert_eq!(names_in(&lab.index()), [".lasthost"]);
        assert_eq!(lab.claim(), claim);
        assert!(lab.is_recorded(HERE));
        assert_eq!(lab.planted(HERE), list_index_names());
        login().run().assert_vouched().assert_silent();
    }
}

#[test]
fn nobody_is_vouched_for_while_originals_that_were_moved_are_still_there() {
    let interrupted = || {
        let lab = unmigrated_user();
        let mut login = lab.login().trace();
        let log = format!("{PREFIX}.log");
        let deletes = login.run_to(|login, call| {
            call.number == libc::SYS_unlinkat && login.string(call.arguments[1]) == log
        });
        deletes.expect("the originals go last");
        drop(login);
        assert_eq!((in_index(&lab), here(&lab)), (original(), original()));
        lab
    };
    // Whatever the configuration says by then: another backend would take over what is there as well.
    for configuration in ["migration = true\n", "migration = false\n"] {
        let lab = interrupted();
        let claim = lab.claim();
        lab.configure(configuration);
        let session = lab.login().run();
        assert_migrated(&lab, &session);
        assert_eq!(lab.claim(), claim);
        // The session changes folders.
        lab.plant_list_index(HERE);
        assert_migrated_nothing(&lab);
    }
    // Nobody knows what is wanted.
    let lab = interrupted();
    lab.configure("migration = maybe\n");
    lab.login().run().assert_not_vouched();
    assert_eq!(in_index(&lab), original());
    lab.configure("migration = true\n");
    assert_migrated_nothing(&lab);
    // Another Dovecot has written to them meanwhile.
    for configuration in ["migration = true\n", "migration = false\n"] {
        let lab = interrupted();
        lab.configure(configuration);
        let log = lab.index().join(format!("{PREFIX}.log"));
        let mut log = File::options().append(true).open(log).expect("it is there");
        log.write_all(b"one more record").expect("root may");
        lab.login().run().assert_vouched();
        assert_eq!(here(&lab), ListIndex::new());
        assert_eq!(in_index(&lab).len(), original().len());
    }
}

/// A login elsewhere finds nothing to take over.
#[track_caller]
fn assert_migrated_nothing(lab: &Lab) {
    lab.configure("migration = true\n");
    lab.login_at(THERE).run().assert_vouched();
    let there = list_index_in(&lab.list_index(THERE), PREFIX);
    assert_eq!(there, ListIndex::new());
}

/// The standing claim says that it was made for a migration.
fn say_migrating(lab: &Lab) {
    let claim = lab.claim_file();
    let made = fs::metadata(&claim).and_then(|status| status.modified());
    let text = format!("{HERE}\nmigrating 1/1.000000001/1\n");
    let file = File::options().write(true).truncate(true).open(&claim);
    let mut file = file.expect("the user is claimed");
    file.write_all(text.as_bytes()).expect("root may");
    file.set_modified(made.expect("it has a time"))
        .expect("root may");
}

#[test]
fn what_looks_like_litter_under_another_claim_is_left_alone() {
    // Another Dovecot moves its log away, and makes a new one at once.
    let lab = Lab::with_settled_user();
    lab.configure("migration = true\n");
    let index = lab.index().join(PREFIX);
    lab.write(&index, "without its log");
    lab.login().run().assert_vouched().assert_silent();
    assert!(index.exists());
    assert_eq!(lab.planted(HERE), list_index_names());
}

#[test]
fn litter_that_cannot_be_deleted_is_a_warning() {
    let lab = Lab::with_settled_user();
    say_migrating(&lab);
    lab.configure("migration = true\n");
    let litter = lab.index().join(PREFIX);
    fs::write(&litter, "without its log").expect("root may");
    set_owner_and_mode(&litter, OTHER_UID, 0o644);
    make_undeletable(&lab);
    let session = lab.login().run();
    session.assert_vouched();
    session.assert_logged(&["cannot delete", &litter.display().to_string()]);
    assert!(session.log[0].is_warning());
    assert_eq!(lab.planted(HERE), list_index_names());
}

/// In INDEX nobody may delete a file of somebody else.
fn make_undeletable(lab: &Lab) {
    set_owner_and_mode(&lab.index(), 0, 0o1777);
}

/// The login's deletion of the original `name` fails.
fn with_undeletable<'a>(lab: &'a Lab, name: &str) -> Session<'a> {
    let mut login = lab.login().trace();
    let claims = login.run_to(|login, call| {
        call.number == libc::SYS_renameat && login.string(call.arguments[3]) == ".lasthost"
    });
    claims.expect("it claims");
    let deletes = login.run_to(|login, call| {
        call.number == libc::SYS_unlinkat && login.string(call.arguments[1]) == name
    });
    deletes.expect("it deletes the originals");
    login.fail_call(Errno::EACCES);
    login.finish()
}

#[test]
fn originals_that_cannot_be_deleted_are_not_copied_over_newer_ones_again_and_again() {
    let lab = unmigrated_user();
    let name = format!("{PREFIX}.log");
    let log = lab.index().join(&name).display().to_string();
    let session = with_undeletable(&lab, &name);
    assert_not_migrated(&lab, &session, &["cannot delete", &log]);
    assert_eq!(in_index(&lab), original());
    // What has happened since is not in there.
    assert_left_alone(&lab);
}

#[test]
fn an_original_beside_the_log_that_cannot_be_deleted_is_litter() {
    let lab = unmigrated_user();
    let stuck = lab.index().join(PREFIX);
    let session = with_undeletable(&lab, PREFIX);
    session.assert_vouched();
    session.assert_logged(&["cannot delete", &stuck.display().to_string()]);
    assert_eq!(here(&lab), original());
    assert!(lab.is_recorded(HERE));
    // It is not taken for a list index.
    lab.login().run().assert_vouched();
    assert_eq!(here(&lab), original());
    assert!(!stuck.exists());
}

#[test]
fn of_originals_that_cannot_be_read_nothing_is_copied() {
    for name in list_index_names() {
        let lab = unmigrated_user();
        let unreadable = lab.index().join(name);
        set_owner_and_mode(&unreadable, UID, 0o000);
        let session = lab.login().run();
        assert_not_migrated(
            &lab,
            &session,
            &[
                "cannot copy",
                &unreadable.display().to_string(),
                Errno::EACCES.desc(),
            ],
        );
        // The session does not write to them, so they are out of date.
        assert_eq!(in_index(&lab), ListIndex::new());
    }
}

#[test]
fn a_full_tmpfs_leaves_no_partial_copy() {
    // No room for the data, and none for one more file.
    for options in ["size=256k", "nr_inodes=8"] {
        let lab = unmigrated_user();
        let flags = MsFlags::MS_REMOUNT;
        mount(None::<&str>, "/dev/shm", None::<&str>, flags, Some(options)).expect("a tmpfs");
        let session = lab.login().run();
        session.assert_not_vouched();
        assert_eq!(in_index(&lab), ListIndex::new(), "{}", session.told());
        assert_eq!(here(&lab), ListIndex::new(), "{}", session.told());
        assert_eq!(
            names_in(&lab.list_index(HERE)),
            [".lasthost", ".lasthost.without"]
        );
        assert_eq!(lab.record(HERE), None);
        session.assert_logged(&[
            "session without list index: ",
            &lab.list_index(HERE).display().to_string(),
        ]);
    }
}

#[test]
fn a_copy_that_fails_half_way_leaves_no_part_of_it() {
    let lab = unmigrated_user();
    let mut login = lab.login().trace();
    let copies = [
        libc::SYS_copy_file_range,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_write,
    ];
    let mut made = 0;
    login.run_to(|login, call| {
        if call.number == libc::SYS_openat && login.string(call.arguments[1]).contains(".migrating")
        {
            return true;
        }
        false
    });
    // Every way in which data may be copied.
    while let Some(call) = login.run_to(|_, call| {
        copies.contains(&call.number) && call.arguments[0] > 2 || call.number == libc::SYS_socket
    }) {
        if call.number == libc::SYS_socket {
            break;
        }
        login.fail_call(Errno::ENOSPC);
        made += 1;
    }
    assert!(made > 0);
    let session = login.finish();
    assert_not_migrated(&lab, &session, &["cannot copy"]);
    assert_eq!(in_index(&lab), ListIndex::new());
}

#[test]
fn a_file_server_that_takes_no_claim_keeps_its_list_index() {
    let lab = unmigrated_user();
    remount(&lab.index(), MsFlags::MS_RDONLY);
    let session = lab.login().run();
    assert_not_migrated(
        &lab,
        &session,
        &["cannot write", &lab.claim_file().display().to_string()],
    );
    assert_eq!(in_index(&lab), original());
}

#[test]
fn a_list_index_that_a_session_without_a_claim_did_not_write_to_is_not_taken_over() {
    let lab = Lab::new();
    lab.configure("migration = true\n");
    mount_tmpfs(
        &lab.index(),
        &format!("size=1m,mode=0700,uid={UID},gid={GID}"),
    );
    put_original(&lab);
    let filler = lab.index().join("mail");
    fill(&filler);
    let session = lab.login().run();
    assert_not_migrated(&lab, &session, &["cannot write"]);
    // The session deletes mails and folders, which makes room, and no list index is told.
    fs::remove_file(filler).expect("it is there");
    lab.login().run().assert_vouched();
    assert_eq!(here(&lab), ListIndex::new());
    assert_eq!(in_index(&lab), ListIndex::new());
}

/// A list index in INDEX, migration off, and so little room that the session here cannot claim.
fn session_beside_originals(inodes: u32) -> (Lab, PathBuf) {
    let lab = Lab::new();
    mount_tmpfs(
        &lab.index(),
        &format!("size=1m,nr_inodes={inodes},mode=0700,uid={UID},gid={GID}"),
    );
    put_original(&lab);
    let filler = lab.index().join("mail");
    fs::create_dir(&filler).expect("there is room for it");
    fs::write(filler.join("1"), "").expect("there is room for it");
    fill(&filler.join("2"));
    lab.login().run().assert_refused(&["cannot write"]);
    (lab, filler)
}

#[test]
fn what_a_session_without_a_claim_changed_is_not_missing_when_migration_is_switched_on() {
    let (lab, filler) = session_beside_originals(0);
    assert_eq!(in_index(&lab), original(), "migration is off");
    // The session deletes mails and folders, which makes room, and no list index is told.
    fs::remove_dir_all(filler).expect("it is there");
    lab.configure("migration = true\n");
    assert_left_alone(&lab);
}

#[test]
fn where_not_even_an_empty_file_can_be_made_the_session_is_claimed_for_later() {
    // The directory, the list index, and what fills the rest.
    let inodes = original().len() as u32 + 4;
    let (lab, filler) = session_beside_originals(inodes);
    assert_eq!(lab.helpers().len(), 1, "it tries again");
    fs::remove_dir_all(filler).expect("it is there");
    let began = Instant::now();
    while !lab.helpers().is_empty() {
        assert!(began.elapsed().as_secs() < 30, "nobody claimed");
        std::thread::sleep(Duration::from_millis(5));
    }
    lab.configure("migration = true\n");
    assert_left_alone(&lab);
}

#[test]
fn names_that_are_not_regular_files_are_neither_followed_nor_deleted() {
    let lab = unmigrated_user();
    let secret = lab.path("secret");
    fs::write(&secret, "precious").expect("the lab's own");
    let pipe = lab.index().join(format!("{PREFIX}.pipe"));
    mkfifo(&pipe, Mode::S_IRUSR).expect("it can be made");
    let directory = lab.index().join(format!("{PREFIX}.d"));
    fs::create_dir(&directory).expect("it can be made");
    lab.login().run().assert_vouched();
    assert_eq!(here(&lab), original());
    assert_eq!(
        names_in(&lab.index()),
        [
            ".lasthost",
            "dovecot.list.index.d",
            "dovecot.list.index.pipe"
        ]
    );
    // A log that is not a file is no list index.
    let lab = Lab::with_settled_user();
    lab.configure("migration = true\n");
    symlink(&secret, lab.index().join(format!("{PREFIX}.log"))).expect("it can be made");
    lab.login().run().assert_vouched().assert_silent();
    assert_eq!(lab.planted(HERE), list_index_names());
}

/// What another backend may do to the `.log` that has just been copied.
type Change = fn(&Path);

#[test]
fn a_log_that_changes_while_it_is_copied_is_somebody_s_who_uses_it() {
    let changes: [Change; 4] = [
        |log| {
            let mut log = File::options().append(true).open(log).expect("it is there");
            log.write_all(b"one more record").expect("root may");
        },
        |log| {
            let content = fs::read(log).expect("it is there");
            fs::rename(log, log.with_extension("log.old")).expect("root may");
            fs::write(log, content).expect("root may");
            set_owner_and_mode(log, UID, 0o600);
        },
        |log| {
            // The same size and inode.
            let mut log = File::options().write(true).open(log).expect("it is there");
            log.write_all(b"changed").expect("root may");
        },
        |log| fs::remove_file(log).expect("it is there"),
    ];
    for (number, change) in changes.iter().enumerate() {
        let lab = unmigrated_user();
        let log = lab.index().join(format!("{PREFIX}.log"));
        let mut login = lab.login().trace();
        // Copied, not claimed yet.
        login.run_to_call(libc::SYS_fsync);
        change(&log);
        let after = in_index(&lab);
        let session = login.finish();
        assert_not_migrated(&lab, &session, &["another backend"]);
        assert_eq!(in_index(&lab), after, "change {number}");
        lab.login().run().assert_vouched();
        assert_eq!(in_index(&lab), after, "change {number}");
        assert_eq!(here(&lab), ListIndex::new());
    }
}

#[test]
fn a_backend_that_claims_while_the_list_index_is_copied_is_faster() {
    let lab = unmigrated_user();
    let mut login = lab.login().staying_open().trace();
    login.run_to_call(libc::SYS_renameat);
    let copied = login.run_to(|login, call| {
        call.number == libc::SYS_renameat && login.string(call.arguments[3]) == ".lasthost"
    });
    copied.expect("it claims");
    login.complete_call();
    // It takes over what is there.
    lab.login_at(THERE).run().assert_vouched();
    assert_eq!(list_index_in(&lab.list_index(THERE), PREFIX), original());
    let claim = lab.claim();
    let session = login.finish();
    assert_not_migrated(&lab, &session, &["another backend"]);
    assert_eq!(lab.claim(), claim, "the other backend's record stays good");
    assert!(lab.is_recorded(THERE));
    assert_eq!(list_index_in(&lab.list_index(THERE), PREFIX), original());
    // Until this session, which may change something beside it, is over.
    common::close(session);
    while lab.is_recorded(THERE) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn of_many_logins_at_once_one_migrates() {
    let lab = unmigrated_user();
    let running: Vec<_> = (0..10).map(|_| lab.login().start()).collect();
    let sessions: Vec<_> = running.into_iter().map(|login| login.wait()).collect();
    let migrated = |session: &&Session<'_>| {
        session
            .log
            .iter()
            .any(|line| line.text.contains("migrated"))
    };
    assert_eq!(sessions.iter().filter(migrated).count(), 1);
    for session in &sessions {
        assert_migrated(&lab, session);
    }
}

#[test]
fn killed_at_any_system_call_there_are_all_originals_or_a_complete_copy_with_a_record() {
    let mut calls = 0;
    let lab = unmigrated_user();
    loop {
        let mut login = lab.login().trace();
        login.run_to_call(libc::SYS_flock);
        let mut ended = false;
        for _ in 0..=calls {
            ended = login.next_call().number == libc::SYS_execve;
        }
        let copy = here(&lab);
        for (name, content) in &copy {
            let is_final = !name.contains(".migrating");
            assert!(
                !is_final || original()[name] == *content,
                "{name}, call {calls}"
            );
        }
        if ended {
            let session = login.finish();
            assert_migrated(&lab, &session);
            break;
        }
        drop(login);
        let log = in_index(&lab).contains_key(&format!("{PREFIX}.log"));
        if log {
            assert_eq!(in_index(&lab), original(), "call {calls}");
        } else {
            assert_eq!(here(&lab), original(), "call {calls}");
            assert!(lab.is_recorded(HERE), "call {calls}");
        }
        lab.login().run().assert_vouched();
        assert_eq!(here(&lab), original(), "call {calls}");
        assert!(lab.is_recorded(HERE), "call {calls}");
        let left: Vec<PathBuf> = in_index(&lab).into_keys().map(PathBuf::from).collect();
        assert!(!left.contains(&PathBuf::from(PREFIX)), "call {calls}");
        calls += 1;
        // Back to the beginning.
        fs::remove_dir_all(lab.list_index(HERE)).expect("it is there");
        fs::remove_dir_all(lab.index()).expect("it is there");
        fs::create_dir(lab.index()).expect("it can be made");
        set_owner_and_mode(&lab.index(), UID, 0o700);
        put_original(&lab);
    }
    assert!(calls > 40, "only {calls} calls");
}

#[test]
fn with_nothing_to_migrate_a_login_costs_no_further_look() {
    let lab = Lab::with_settled_user();
    let looks = |lab: &Lab| {
        let mut login = lab.login().trace();
        let mut looks = 0;
        let is_forced = |call: &Call| {
            call.number == libc::SYS_statx
                && call.arguments[2] & libc::AT_STATX_FORCE_SYNC as u64 != 0
        };
        while login.run_to(|_, call| is_forced(call)).is_some() {
            looks += 1;
        }
        login.finish().assert_vouched().assert_silent();
        looks
    };
    assert_eq!(looks(&lab), 1);
    lab.configure("migration = true\n");
    assert_eq!(looks(&lab), 1);
}
