//! Whatever fails, the login goes on: the program is executed, the session does not use a list
//! index that nobody vouches for, and the administrator reads what is wrong and where.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::trace::{Call, Traced};
use common::{
    GID, HERE, Lab, Login, OTHER_UID, PREFIX, STARTS, Session, THERE, UID, UNFINISHED_CLAIM, fill,
    list_index_names, mount_tmpfs, names_in, remount, set_owner_and_mode, wait_until,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// A login by root, and one by the mail user.
fn both(lab: &Lab) -> [Login<'_>; 2] {
    STARTS.map(|started| started(lab))
}

/// A user with a list index here who has been on another backend since: a claim must be made.
fn moved_user() -> Lab {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    lab
}

/// What is wrong was mended.
#[track_caller]
fn assert_right_again(lab: &Lab) {
    // What stays behind for a session without list index voids what is recorded meanwhile.
    let began = Instant::now();
    while !lab.helpers().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "it stays behind");
        std::thread::sleep(Duration::from_millis(5));
    }
    lab.login().run().assert_vouched();
    assert!(lab.is_recorded(HERE));
    assert_eq!(lab.planted(HERE), [""; 0]);
}

// INDEX

#[test]
fn a_missing_index_is_not_made_and_nothing_local_is_trusted_after_it() {
    let lab = Lab::new();
    let (index, elsewhere) = (lab.index(), lab.path("elsewhere"));
    for started in STARTS {
        lab.login().run().assert_vouched();
        lab.plant_list_index(HERE);
        // NFS is not mounted.
        fs::rename(&index, &elsewhere).expect("it is there");
        let session = started(&lab).run();
        let path = index.display().to_string();
        session.assert_forgotten(&[&path, "does not exist"]);
        assert!(!index.exists());
        fs::rename(&elsewhere, &index).expect("it is there");
        assert_right_again(&lab);
    }
}

#[test]
fn an_empty_mount_point_is_not_the_user_s_index() {
    // The parents of INDEX are missing as well.
    let lab = Lab::with_settled_user();
    fs::rename(lab.home(), lab.path("elsewhere")).expect("it is there");
    lab.login().run().assert_forgotten(&["does not exist"]);
    assert!(!lab.home().exists());
}

#[test]
fn an_index_that_the_user_may_not_look_at_is_refused_to_root_as_well() {
    for started in STARTS {
        let lab = Lab::with_settled_user();
        // As root would be by root_squash, were it not the user who looks.
        set_owner_and_mode(&lab.home(), 0, 0o700);
        let session = started(&lab).run();
        let index = lab.index().display().to_string();
        session.assert_forgotten(&[&index, "Permission denied"]);
        set_owner_and_mode(&lab.home(), UID, 0o700);
        assert_right_again(&lab);
    }
}

#[test]
fn a_claim_that_the_user_may_not_look_at_is_an_error() {
    let lab = Lab::with_settled_user();
    set_owner_and_mode(&lab.index(), UID, 0o600);
    let session = lab.login().run();
    let claim = lab.claim_file().display().to_string();
    session.assert_forgotten(&[&claim]);
}

#[test]
fn an_index_that_is_a_file_is_an_error() {
    let lab = Lab::with_settled_user();
    fs::rename(lab.index(), lab.path("elsewhere")).expect("it is there");
    lab.write(&lab.index(), "a file");
    let session = lab.login().run();
    let index = lab.index().display().to_string();
    session.assert_forgotten(&[&index, "Not a directory"]);
}

#[test]
fn an_index_behind_a_symbolic_link_is_followed() {
    let lab = Lab::new();
    fs::rename(lab.index(), lab.home().join("real")).expect("it is there");
    symlink("real", lab.index()).expect("a link can be made");
    lab.login().run().assert_vouched();
    assert_eq!(names_in(&lab.home().join("real")), [".lasthost"]);
    lab.login().run().assert_vouched().assert_silent();
}

/// The forced look at INDEX.
fn is_forced_look(_: &Traced<'_>, call: &Call) -> bool {
    let flags = (libc::AT_STATX_FORCE_SYNC | libc::AT_EMPTY_PATH) as u64;
    call.number == libc::SYS_statx && call.arguments[2] & flags == flags
}

/// The look at the claim in it.
fn is_look_at_claim(login: &Traced<'_>, call: &Call) -> bool {
    call.number == libc::SYS_newfstatat && login.string(call.arguments[1]) == ".lasthost"
}

#[test]
fn an_input_output_error_of_the_look_is_an_error() {
    for look in [is_forced_look, is_look_at_claim] {
        let lab = Lab::with_settled_user();
        let mut login = lab.login().trace();
        login.run_to(look).expect("it looks");
        login.fail_call(Errno::EIO);
        let index = lab.index().display().to_string();
        login
            .finish()
            .assert_forgotten(&[&index, Errno::EIO.desc()]);
        assert_right_again(&lab);
    }
}

#[test]
fn a_stale_file_handle_is_tried_again_once() {
    for look in [is_forced_look, is_look_at_claim] {
        let lab = Lab::with_settled_user();
        let mut login = lab.login().trace();
        login.run_to(look).expect("it looks");
        login.fail_call(Errno::ESTALE);
        login.finish().assert_vouched().assert_silent();
        assert_eq!(lab.planted(HERE), list_index_names());

        let mut login = lab.login().trace();
        login.run_to(look).expect("it looks");
        login.fail_call(Errno::ESTALE);
        login.run_to(look).expect("it looks again");
        login.fail_call(Errno::ESTALE);
        login.finish().assert_forgotten(&[Errno::ESTALE.desc()]);
    }
}

// The claim

#[test]
fn a_read_only_index_matters_only_when_there_is_something_to_claim() {
    for started in STARTS {
        let lab = moved_user();
        remount(&lab.index(), MsFlags::MS_RDONLY);
        let claim = lab.claim();
        let session = started(&lab).run();
        let path = lab.claim_file().display().to_string();
        session.assert_forgotten(&["cannot write", &path, "Read-only file system"]);
        assert_eq!(lab.claim(), claim);
        // The other backend has nothing to claim.
        lab.login_at(THERE).run().assert_vouched().assert_silent();
        remount(&lab.index(), MsFlags::empty());
        assert_right_again(&lab);
    }
}

#[test]
fn a_full_file_server_is_an_error() {
    let lab = Lab::with_settled_user();
    mount_tmpfs(
        &lab.index(),
        &format!("size=64k,mode=0700,uid={UID},gid={GID}"),
    );
    let filler = lab.index().join("mail");
    fill(&filler);
    let session = lab.login().run();
    let path = lab.claim_file().display().to_string();
    session.assert_forgotten(&["cannot write", &path, "No space left on device"]);
    // No litter, only what says that somebody wanted to claim.
    assert_eq!(names_in(&lab.index()), [".lasthost-void", "mail"]);
    fs::remove_file(filler).expect("it is there");
    assert_right_again(&lab);
}

#[test]
fn an_index_in_which_the_user_may_not_write_is_an_error() {
    let lab = moved_user();
    set_owner_and_mode(&lab.index(), UID, 0o500);
    lab.login()
        .run()
        .assert_forgotten(&["cannot write", "Permission denied"]);
    set_owner_and_mode(&lab.index(), UID, 0o700);
    assert_right_again(&lab);
}

#[test]
fn a_claim_that_fails_at_any_step_is_no_claim_and_leaves_no_litter() {
    for (number, errno) in [
        (libc::SYS_fsync, Errno::EDQUOT),
        (libc::SYS_utimensat, Errno::EPERM),
        (libc::SYS_renameat, Errno::EIO),
    ] {
        let lab = moved_user();
        let mut login = lab.login().trace();
        login.run_to_call(libc::SYS_fsync);
        if number != libc::SYS_fsync {
            login.run_to_call(number);
        }
        login.fail_call(errno);
        login
            .finish()
            .assert_forgotten(&["cannot write", errno.desc()]);
        assert_eq!(names_in(&lab.index()), [".lasthost"]);
        assert_right_again(&lab);
    }
}

/// Puts something at `path` that is not a regular file.
type Put = fn(&Lab, &Path);

/// Things that are not regular files, and how they are made.
const OBSTACLES: [(&str, Put); 5] = [
    ("directory", |_, path| {
        fs::create_dir(path).expect("it can be made");
        set_owner_and_mode(path, UID, 0o700);
    }),
    ("symbolic link", |lab, path| {
        let target = lab.path("target");
        fs::write(&target, "precious").expect("the lab's own");
        set_owner_and_mode(&target, UID, 0o600);
        symlink(target, path).expect("it can be made");
    }),
    ("dangling link", |lab, path| {
        symlink(lab.path("nowhere"), path).expect("it can be made");
    }),
    ("FIFO", |_, path| {
        mkfifo(path, Mode::S_IRWXU).expect("it can be made");
        set_owner_and_mode(path, UID, 0o600);
    }),
    ("socket", |_, path| {
        // A path of a socket is short, and this one may be long.
        let directory = File::open(path.parent().expect("it has one")).expect("it is there");
        let name = path.file_name().expect("it has one");
        let short = PathBuf::from(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&directory)
        ));
        UnixListener::bind(short.join(name)).expect("it can be made");
        set_owner_and_mode(path, UID, 0o600);
    }),
];

#[track_caller]
fn assert_targets_untouched(lab: &Lab) {
    if let Ok(content) = fs::read_to_string(lab.path("target")) {
        assert_eq!(content, "precious");
    }
    assert!(!lab.path("nowhere").exists());
}

#[test]
fn a_claim_s_name_that_is_taken_by_something_else_is_an_error() {
    for (what, put) in OBSTACLES {
        println!("{what}");
        let lab = Lab::with_settled_user();
        fs::remove_file(lab.claim_file()).expect("it is there");
        put(&lab, &lab.claim_file());
        let session = lab.login().run();
        let path = lab.claim_file().display().to_string();
        session.assert_forgotten(&[&path, "not a regular file"]);
        assert_targets_untouched(&lab);
    }
}

#[test]
fn what_a_crash_left_at_the_temporary_name_is_cleared_away() {
    for (what, put) in OBSTACLES {
        println!("{what}");
        let lab = moved_user();
        let temporary = lab.index().join(UNFINISHED_CLAIM);
        put(&lab, &temporary);
        let session = lab.login().run();
        if what == "directory" {
            let path = lab.claim_file().display().to_string();
            session.assert_forgotten(&["cannot write", &path]);
        } else {
            session.assert_vouched();
            assert_eq!(names_in(&lab.index()), [".lasthost"]);
        }
        assert_targets_untouched(&lab);
    }
    let lab = moved_user();
    lab.write(&lab.index().join(UNFINISHED_CLAIM), "half a cl");
    lab.login().run().assert_vouched();
    assert_eq!(names_in(&lab.index()), [".lasthost"]);
}

#[test]
fn what_crashes_leave_under_names_that_change_is_limited() {
    let lab = moved_user();
    for number in 0..300 {
        lab.configure(&format!("hostname = \"container-{number}\"\n"));
        let mut login = lab.login().trace();
        login.run_to_call(libc::SYS_renameat);
        // Killed, and never called so again.
        drop(login);
    }
    let left = names_in(&lab.index()).len();
    assert!(left <= 1 + 256, "{left} files");
    lab.configure("# Nothing.\n");
    lab.login().run().assert_vouched();
}

// The record

#[test]
fn a_record_that_is_not_one_counts_as_none() {
    let lab = Lab::with_settled_user();
    let record = lab.record(HERE).expect("there is one");
    let fields: Vec<_> = record.split([' ', '\n']).collect();
    let [
        _,
        length,
        own,
        born,
        host,
        claim,
        time,
        index,
        "-",
        name,
        "",
    ] = fields[..]
    else {
        panic!("{record}")
    };
    let head = format!("2 {length} {own} {born} {host}");
    // With the right length, so that nothing is wrong but what is meant to be.
    let of = |first: &str, line: &str| {
        let rest = &first["2 0000".len()..];
        let length = "2 0000".len() + rest.len() + 1 + line.len() + 1;
        format!("2 {length:04}{rest}\n{line}\n").into_bytes()
    };
    let right = format!("{claim} {time} {index} - {name}");
    let head_is = |first: &str| of(first, &right);
    let line = |line: &str| of(&head, line);
    assert_eq!(line(&right), record.as_bytes());
    let garbled: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\n".to_vec(),
        b"\0".repeat(100),
        b"\xff\xfe garbage".to_vec(),
        // Torn.
        record.trim_end().into(),
        record.as_bytes()[..record.len() / 2].to_vec(),
        // Of another version, or with something added.
        format!("1 {claim} {time} {host}\n").into(),
        record.replacen('2', "02", 1).into(),
        record.replacen('2', "3", 1).into(),
        format!("{record}{record}").into(),
        format!(" {record}").into(),
        record.replacen(length, "9999", 1).into(),
        // Another file, another backend, another INDEX, another list index.
        head_is(&format!("2 {length} {own}0 {born} {host}")),
        head_is(&format!("2 {length} {own} 1{born} {host}")),
        head_is(&format!("2 {length} {own} {born} {THERE}")),
        line(&format!("{claim} {time} {index}0 - {name}")),
        line(&format!("{claim} {time} {index} - {name}2")),
        // No records.
        head_is(&format!("{head} more")),
        line(&format!("{claim} {time} {index} -")),
        line(&format!("{claim} {time} {index} - ")),
        line(&format!("+{claim} {time} {index} - {name}")),
        line(&format!("{claim} {time} +{index} - {name}")),
        line(&format!("0x{claim} {time} {index} - {name}")),
        line(&right.replace(time, &time.replace('.', ","))),
        line(&format!("{claim} {time}0 {index} - {name}")),
        line(&right.replace(time, &time[..time.len() - 1])),
        line(&format!("99999999999999999999999 {time} {index} - {name}")),
        line(&format!("{claim}  {time} {index} - {name}")),
        line(&format!("{claim} {time} {index} - {name}\r")),
        line(&format!("{claim} {time} {index} - {}", "x".repeat(5000))),
    ];
    for content in garbled {
        let what = content.escape_ascii().to_string();
        fs::write(lab.record_file(HERE), &content).expect("it is there");
        lab.plant_list_index(HERE);
        let claim = lab.claim();
        lab.login().run().assert_vouched();
        assert_ne!(lab.claim(), claim, "{what:?} was believed");
        assert!(lab.is_recorded(HERE), "{what:?}");
        assert_eq!(lab.planted(HERE), [""; 0], "{what:?}");
        // Restores the record that all of these are made from.
        fs::rename(lab.claim_file(), lab.path("claim")).expect("it is there");
        fs::rename(lab.path("claim"), lab.claim_file()).expect("it is there");
    }
}

#[test]
fn a_full_tmpfs_is_an_error() {
    for started in STARTS {
        let lab = Lab::with_settled_user();
        // With nothing to delete there is no room for the record.
        fs::write(lab.record_file(HERE), "").expect("it is there");
        for name in list_index_names() {
            fs::remove_file(lab.list_index(HERE).join(name)).expect("it is there");
        }
        let filler = fill_tmpfs();
        let session = started(&lab).run();
        session.assert_not_vouched();
        let path = lab.list_index(HERE).display().to_string();
        let refused = "session without list index: no new list index is started in ";
        session.assert_logged(&[refused, &path, "only 0 of"]);
        assert_eq!(lab.record(HERE), None);
        fs::remove_file(filler).expect("it is there");
        assert_right_again(&lab);
    }
}

#[test]
fn with_little_room_no_list_index_is_begun_and_those_that_are_in_step_stay() {
    let lab = Lab::with_settled_user();
    // A tenth of everything is kept back: less than that is free now.
    let filler = fill_tmpfs();
    let file = File::options().write(true).open(&filler);
    let file = file.expect("it is there");
    let length = file.metadata().expect("a file").len();
    file.set_len(length - 64 * 1024).expect("it is longer");
    drop(file);
    lab.login().run().assert_vouched().assert_silent();
    assert_eq!(lab.planted(HERE), list_index_names());
    // The user was elsewhere: what is here is worth nothing, and makes room.
    lab.login_at(THERE).run();
    let session = lab.login().run();
    session.assert_refused(&["no new list index is started in ", "KiB"]);
    assert!(session.log[0].is_error());
    assert_eq!(lab.planted(HERE), [""; 0]);
    assert_eq!(lab.record(HERE), None);
    fs::remove_file(filler).expect("it is there");
    assert_right_again(&lab);
}

#[test]
fn a_tmpfs_without_room_for_the_directory_is_an_error() {
    for started in STARTS {
        let lab = Lab::new();
        remount_shm("nr_inodes=2");
        fs::write("/dev/shm/last", "").expect("the last one");
        let session = started(&lab).run();
        let path = lab.list_index(HERE).display().to_string();
        session.assert_refused(&["cannot make directory", &path, "No space left on device"]);
        remount_shm("nr_inodes=100");
        assert_right_again(&lab);
    }
}

fn remount_shm(options: &str) {
    let flags = MsFlags::MS_REMOUNT;
    let none = None::<&str>;
    mount(none, "/dev/shm", none, flags, Some(options)).expect("a tmpfs");
}

fn fill_tmpfs() -> PathBuf {
    remount_shm("size=1m");
    let path = PathBuf::from("/dev/shm/filler");
    fill(&path);
    path
}

// The lock

/// Somebody who never lets go.
fn hold_lock(lab: &Lab) -> Flock<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(lab.record_file(HERE));
    let file = file.expect("it is there");
    Flock::lock(file, FlockArg::LockExclusive).expect("nobody has it")
}

#[test]
fn a_lock_that_is_not_had_in_time_is_taken_out_of_the_way() {
    for started in STARTS {
        let lab = Lab::with_settled_user();
        lab.configure("lock_timeout = '1 s'\n");
        let held = hold_lock(&lab);
        let record = lab.record(HERE).expect("there is one");
        let began = Instant::now();
        let session = started(&lab).run();
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(700), "{waited:?}");
        let path = lab.record_file(HERE).display().to_string();
        session.assert_refused(&["timed out", &path]);
        // Whatever the holder records is lost.
        assert_eq!(lab.record(HERE), None);
        (&*held).write_all(record.as_bytes()).expect("it is open");
        assert_eq!(lab.record(HERE), None);
        assert_right_again(&lab);
    }
}

#[test]
fn the_lock_is_waited_for_for_five_seconds_unless_configured() {
    let lab = Lab::with_settled_user();
    let _held = hold_lock(&lab);
    let began = Instant::now();
    lab.login().run().assert_not_vouched();
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(4) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
}

#[test]
fn a_lock_that_is_given_back_in_time_is_waited_for() {
    let lab = Lab::with_settled_user();
    let held = hold_lock(&lab);
    let mut login = lab.login().trace();
    login.run_to_call(libc::SYS_clock_nanosleep);
    common::close(held);
    login.finish().assert_vouched().assert_silent();
}

#[test]
fn logins_that_give_up_on_the_lock_together_all_leave_the_sign_of_their_sessions() {
    for _ in 0..3 {
        let lab = Lab::with_settled_user();
        lab.configure("lock_timeout = '1 s'\n");
        let held = hold_lock(&lab);
        let running: Vec<_> = (0..25)
            .map(|_| lab.login().staying_open().start())
            .collect();
        let sessions: Vec<_> = running.into_iter().map(|login| login.wait()).collect();
        common::close(held);
        let sign = lab.list_index(HERE).join(".lasthost.without");
        // Whoever had no time for its note leaves it to what stays behind.
        wait_until("each session has its note", || {
            let notes = fs::read_to_string(&sign).expect("they made it");
            notes.lines().count() == sessions.len()
        });
        for session in &sessions {
            session.assert_not_vouched();
        }
        let beside = lab.login().run();
        beside.assert_refused(&["still open"]);
        sessions.into_iter().for_each(common::close);
        assert_right_again(&lab);
    }
}

/// Takes a lock on one byte of the sign's file, until that is closed.
fn hold_byte(sign: &File, kind: i32, place: u64) {
    // SAFETY: zero is a valid struct flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_start = place as i64;
    lock.l_len = 1;
    fcntl(sign, FcntlArg::F_OFD_SETLK(&lock)).expect("nobody else has it");
}

/// The sign's file at [`HERE`], and the byte of the list index in it.
fn sign_file(lab: &Lab) -> (File, u64) {
    let path = lab.list_index(HERE).join(".lasthost.without");
    let file = File::options().read(true).write(true).open(path);
    let hash = PREFIX
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    (file.expect("a login made it"), 4 + (hash >> 2))
}

#[test]
fn all_waits_of_a_login_together_are_bounded() {
    let lab = Lab::with_settled_user();
    lab.login().run().assert_vouched();
    lab.login_at(THERE).run().assert_vouched();
    lab.configure("lock_timeout = '2 s'\n");
    // Somebody has the lock, and somebody else the sign, without a note.
    let (sign, place) = sign_file(&lab);
    hold_byte(&sign, libc::F_RDLCK, place);
    let held = hold_lock(&lab);
    let login = lab.login().start();
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(1400));
    common::close(held);
    login.wait().assert_not_vouched();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2100), "{took:?}");
}

#[test]
fn whatever_a_user_writes_into_the_sign_holds_up_nobody() {
    let lab = Lab::with_settled_user();
    lab.login_at(THERE).run().assert_vouched();
    let held = hold_lock(&lab);
    lab.configure("lock_timeout = '1 s'\n");
    let open = lab.login().staying_open().run();
    open.assert_not_vouched();
    common::close(held);
    lab.configure("# Nothing.\n");
    // A session whose connection is gone and whose process, the first one, is not; again and again.
    let (sign, _) = sign_file(&lab);
    let path = lab.list_index(HERE).join(".lasthost.without");
    let note = fs::read_to_string(&path).expect("the login left it");
    common::close(open);
    while !lab.helpers().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut fields: Vec<&str> = note.split_whitespace().take(7).collect();
    fields[5] = "1.0";
    let note = format!("{:255}\n", fields.join(" "));
    fs::write(&path, note.repeat(100)).expect("it is there");
    hold_byte(&sign, libc::F_WRLCK, 0);
    let began = Instant::now();
    lab.login().run().assert_refused(&["still open"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn whoever_had_a_record_has_room_for_one_on_a_full_tmpfs() {
    let lab = moved_user();
    mount_tmpfs(Path::new("/dev/shm"), "size=64k,mode=1777");
    let lab_directory = lab.list_index(HERE);
    fs::create_dir_all(&lab_directory).expect("it is empty");
    set_owner_and_mode(&lab_directory, UID, 0o700);
    lab.login().run().assert_vouched();
    lab.login_at(THERE).run().assert_vouched();
    let mut login = lab.login().trace();
    login.run_to_call(libc::SYS_renameat);
    common::fill(Path::new("/dev/shm/full"));
    login.finish().assert_vouched();
    assert!(lab.is_recorded(HERE));
}

#[test]
fn a_login_that_was_given_up_on_leaves_the_sign_of_its_session_too() {
    let lab = moved_user();
    lab.configure("lock_timeout = '1 s'\n");
    let mut slow = lab.login().staying_open().trace();
    slow.run_to_call(libc::SYS_renameat);
    lab.login().run().assert_not_vouched();
    let slow = slow.finish();
    slow.assert_not_vouched();
    let beside = lab.login().run();
    beside.assert_refused(&["still open"]);
    common::close(slow);
    assert_right_again(&lab);
}

#[test]
fn a_login_that_was_given_up_on_while_it_held_the_lock_records_and_deletes_nothing() {
    // While it claims, and when it has claimed.
    for call in [libc::SYS_renameat, libc::SYS_pwrite64] {
        let lab = moved_user();
        lab.configure("lock_timeout = '1 s'\n");
        let mut slow = lab.login().trace();
        slow.run_to_call(libc::SYS_fsync);
        slow.run_to_call(call);
        // It hangs on NFS; the next login does not wait for ever.
        lab.login().run().assert_not_vouched();
        // And the one after that begins anew.
        lab.login().run().assert_vouched();
        lab.plant_list_index(HERE);
        slow.finish().assert_not_vouched();
        assert_eq!(lab.planted(HERE), list_index_names());
        // It changes folders beside the list index, so that must not be trusted any more.
        assert!(!lab.is_recorded(HERE));
        assert_right_again(&lab);
    }
}

// LISTINDEX

/// A location with LISTINDEX in `directory`.
fn list_index_in(lab: &Lab, directory: &Path) -> String {
    format!(
        "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
        lab.index().display(),
        directory.display()
    )
}

/// Puts something at a path.
type Make = fn(&Path);

#[test]
fn a_list_index_directory_that_cannot_be_used_is_refused() {
    let cases: [(&str, Make); 8] = [
        ("Not a directory", |path| {
            fs::write(path, "a file").expect("it can be made")
        }),
        ("symbolic link", |path| {
            let real = path.with_file_name("real");
            fs::create_dir(&real).expect("it can be made");
            set_owner_and_mode(&real, UID, 0o700);
            symlink(real, path).expect("it can be made");
        }),
        ("symbolic link", |path| {
            symlink("nowhere", path).expect("it can be made")
        }),
        ("Not a directory", |path| {
            mkfifo(path, Mode::S_IRWXU).expect("it can be made");
        }),
        ("belongs to uid 1900000003", |path| {
            fs::create_dir(path).expect("it can be made");
            set_owner_and_mode(path, OTHER_UID, 0o777);
        }),
        ("belongs to uid 0", |path| {
            fs::create_dir(path).expect("it can be made");
            set_owner_and_mode(path, 0, 0o777);
        }),
        ("Permission denied", |path| {
            fs::create_dir(path).expect("it can be made");
            set_owner_and_mode(path, UID, 0o500);
        }),
        ("Permission denied", |path| {
            fs::create_dir(path).expect("it can be made");
            set_owner_and_mode(path, UID, 0o000);
        }),
    ];
    for (reason, make) in cases {
        for started in STARTS {
            let lab = Lab::new();
            let parent = lab
                .list_index(HERE)
                .parent()
                .expect("it has one")
                .to_owned();
            fs::create_dir_all(&parent).expect("it can be made");
            let directory = lab.list_index(HERE);
            make(&directory);
            let before = everything_in(&parent);
            started(&lab)
                .run()
                .assert_refused(&[reason, &directory.display().to_string()]);
            assert_eq!(everything_in(&parent), before);
        }
    }
}

/// Names below `directory`, links not followed.
fn everything_in(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(directory) {
        let path = directory.join(name);
        if fs::symlink_metadata(&path).expect("it is there").is_dir() {
            found.extend(everything_in(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn a_parent_of_it_that_cannot_be_passed_is_refused() {
    let lab = Lab::new();
    let parent = Path::new("/dev/shm/parent");
    let directory = parent.join("alice");
    let refused = |reason: &str| {
        for login in both(&lab) {
            login
                .location(list_index_in(&lab, &directory))
                .run()
                .assert_refused(&[reason, &directory.display().to_string()]);
        }
    };
    // A hook that made it under script-login's umask.
    fs::create_dir(parent).expect("it can be made");
    set_owner_and_mode(parent, 0, 0o700);
    refused("Permission denied");
    fs::remove_dir(parent).expect("it is empty");
    fs::write(parent, "a file").expect("it can be made");
    refused("Not a directory");
}

#[test]
fn a_path_that_no_file_system_takes_is_refused() {
    let lab = Lab::new();
    let directory = Path::new("/dev/shm").join("x".repeat(300)).join("alice");
    lab.login()
        .location(list_index_in(&lab, &directory))
        .run()
        .assert_refused(&["File name too long"]);
    // Too long for a log line as well.
    let directory = Path::new("/dev/shm").join("x/".repeat(3000));
    lab.login()
        .location(list_index_in(&lab, &directory))
        .run()
        .assert_refused(&["cannot open directory /dev/shm/x/x/"]);
}

#[test]
fn a_lock_file_that_is_not_one_is_refused_and_not_followed() {
    for (what, put) in OBSTACLES {
        println!("{what}");
        let lab = moved_user();
        let path = lab.record_file(HERE);
        fs::remove_file(&path).expect("it is there");
        put(&lab, &path);
        for login in both(&lab) {
            login
                .run()
                .assert_refused(&[&path.display().to_string(), "not a regular file"]);
        }
        assert_targets_untouched(&lab);
    }
}

#[test]
fn a_valid_record_behind_a_link_is_not_believed() {
    // A second name, behind which somebody else could change it.
    let lab = Lab::with_settled_user();
    let path = lab.record_file(HERE);
    let other = path.with_file_name("other");
    fs::hard_link(&path, &other).expect("it can be made");
    let session = lab.login().run();
    session.assert_refused(&[&path.display().to_string()]);
    // Nothing may vouch for the list index once the second name is gone: in the meantime a
    // session has run without it.
    fs::remove_file(&other).expect("it is there");
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);

    let lab = Lab::with_settled_user();
    let path = lab.record_file(HERE);
    fs::rename(&path, path.with_file_name("other")).expect("it is there");
    symlink("other", &path).expect("it can be made");
    lab.login().run().assert_not_vouched();
    fs::remove_file(&path).expect("it is there");
    fs::rename(path.with_file_name("other"), &path).expect("it is there");
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn a_lock_file_of_somebody_else_is_refused() {
    let lab = Lab::with_settled_user();
    let path = lab.record_file(HERE);
    set_owner_and_mode(&path, OTHER_UID, 0o600);
    for login in both(&lab) {
        login
            .run()
            .assert_refused(&[&path.display().to_string(), "Permission denied"]);
    }
    set_owner_and_mode(&path, UID, 0o600);
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn a_list_index_name_behind_which_anything_may_be_is_refused() {
    for name in [PREFIX.to_owned(), format!("{PREFIX}.log")] {
        for (what, put) in OBSTACLES {
            println!("{what} {name}");
            let lab = moved_user();
            let path = lab.list_index(HERE).join(&name);
            fs::remove_file(&path).expect("it is there");
            put(&lab, &path);
            let session = lab.login().run();
            if what == "directory" {
                // IMAP cannot read a list index from one.
                session.assert_vouched();
                assert!(path.is_dir());
            } else {
                session.assert_forgotten(&[&path.display().to_string(), "not a regular file"]);
            }
            assert_targets_untouched(&lab);
        }
    }
}

#[test]
fn files_of_somebody_else_in_the_user_s_directory_are_deleted_like_his_own() {
    let lab = moved_user();
    for name in list_index_names() {
        set_owner_and_mode(&lab.list_index(HERE).join(name), OTHER_UID, 0o400);
    }
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), [""; 0]);
}

#[test]
fn a_list_index_that_cannot_be_deleted_is_refused() {
    let lab = moved_user();
    let mut login = lab.login().trace();
    let is_deleted = |login: &Traced<'_>, call: &Call| {
        call.number == libc::SYS_unlinkat && login.string(call.arguments[1]).starts_with(PREFIX)
    };
    login.run_to(is_deleted).expect("it deletes");
    login.fail_call(Errno::EIO);
    login
        .finish()
        .assert_forgotten(&["cannot delete", PREFIX, Errno::EIO.desc()]);
    assert_right_again(&lab);
}

// The user

#[test]
fn as_root_without_knowing_the_user_nothing_is_touched() {
    let lab = moved_user();
    let claim = lab.claim();
    let unset = [("returns no uid", "UID"), ("user = vmail", "GID")];
    let unset = unset.map(|(reason, field)| (reason.to_owned(), lab.login().without_field(field)));
    let root = [
        ("uid is 0", "UID", "0"),
        // Which comes before the other.
        ("uid is 0", "MAIL_UID", "0"),
        (
            "set/mail_gid, which counts only since Dovecot 2.4.2",
            "SET/MAIL_GID",
            "5",
        ),
    ];
    let root =
        root.map(|(reason, field, value)| (reason.to_owned(), lab.login().set_field(field, value)));
    let numbers = [
        "vmail",
        "",
        "-1",
        "+5",
        "0x10",
        " 1",
        "4294967295",
        "4294967296",
    ];
    let numbers = numbers.map(|uid| ("UID", uid)).into_iter();
    let numbers = numbers.chain([("GID", "4294967295"), ("GID", "users")]);
    let numbers = numbers.map(|(field, value)| {
        let reason = format!("{}='{value}' is not a number", field.to_lowercase());
        (reason, lab.login().set_field(field, value))
    });
    for (reason, login) in unset.into_iter().chain(root).chain(numbers) {
        login.run().assert_refused(&[&reason]);
        assert_eq!(lab.claim(), claim, "{reason}");
        assert_eq!(lab.planted(HERE), list_index_names(), "{reason}");
    }
}

// The configuration file

const CONFIGURATION: &str = "/etc/dovecot/nfs-hostchange.toml";

/// The login is right, with the built-in defaults, and one error names all of `parts`.
#[track_caller]
fn assert_defaults_used(session: &Session<'_>, parts: &[&str]) {
    session.assert_vouched();
    session.assert_logged(&[&["user=alice: ", "built-in defaults"], parts].concat());
    assert!(session.log[0].is_error());
}

#[test]
fn a_missing_configuration_file_is_none() {
    let lab = Lab::with_settled_user();
    lab.login().run().assert_vouched().assert_silent();
    fs::remove_dir("/etc/dovecot").expect("it is empty");
    lab.login().run().assert_vouched().assert_silent();
    let login = lab.login().option("--config=/nowhere/x.toml");
    login.run().assert_vouched().assert_silent();
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_line_and_column() {
    let lab = Lab::with_settled_user();
    for (text, place, parts) in [
        ("migration = maybe\n", "1:13", &[][..]),
        ("migration = 1\n", "1:13", &["boolean"]),
        ("# comment\n\n  migratoin = true\n", "3:3", &["migratoin"]),
        ("lock_timeout = 5\n", "1:16", &["string"]),
        ("lock_timeout = '5'\n", "1:16", &["5"]),
        ("lock_timeout = '1 fortnight'\n", "1:16", &["fortnight"]),
        ("hostname = 'a b'\n", "1:12", &["host name"]),
        ("hostname = ''\n", "1:12", &["host name"]),
        ("hostname = '../x'\n", "1:12", &["host name"]),
        ("inbox_namespace = 'a b'\n", "1:19", &["namespace"]),
        // What earlier versions had, and what to write instead.
        (
            "\nmail_location = 'mdbox:~/mdbox'\n",
            "2:1",
            &[
                "dovecot.conf",
                "default_fields = mail_location=",
                "$SET:mail_path",
            ],
        ),
        ("mail_home = 1\n", "1:1", &["default_fields = home="]),
        ("mail_uid = 'vmail'\n", "1:1", &["user = vmail"]),
        (" mail_gid = 'vmail'\n", "1:2", &["user = vmail"]),
        ("mail_access_groups = []\n", "1:1", &["extra_groups = "]),
        ("[log]\nfacility = 'news'\n", "2:12", &["news"]),
        ("[log]\nlevel = 'debug'\n", "2:9", &["debug"]),
        ("[log]\ntarget = 'file'\n", "2:10", &["file"]),
        ("[log]\nfoo = 1\n", "2:1", &["foo"]),
        ("[logs]\n", "1:2", &["logs"]),
        (
            "migration = true\nmigration = true\n",
            "2:1",
            &["duplicate"],
        ),
        ("migration = true\n\u{e4}\u{f6} = 1\n", "2:1", &[]),
        ("a = 'unclosed\n", "1:14", &[]),
    ] {
        lab.configure(text);
        let session = lab.login().run();
        let place = format!("{CONFIGURATION}:{place}: ");
        assert_defaults_used(&session, &[&[place.as_str()], parts].concat());
    }
    fs::write(CONFIGURATION, b"# \xc3\xa4\nmigration = '\xff'\n").expect("/etc is private");
    let session = lab.login().run();
    assert_defaults_used(&session, &[&format!("{CONFIGURATION}:2:14: "), "UTF-8"]);
}

#[test]
fn a_broken_configuration_is_not_half_used() {
    let lab = Lab::new();
    lab.configure("hostname = 'elsewhere'\nmigration = maybe\n");
    lab.login()
        .run()
        .assert_refused(&["the configuration cannot be used"]);
    assert_eq!(lab.claim().text, "backend-a\n");
}

#[test]
fn a_configuration_that_others_may_write_is_not_believed() {
    let lab = Lab::with_settled_user();
    lab.configure(&format!("hostname = '{HERE}'\n"));
    let path = Path::new(CONFIGURATION);
    for (owner, mode) in [
        (OTHER_UID, 0o644),
        (0, 0o664),
        (0, 0o646),
        (0, 0o666),
        (UID, 0o644),
    ] {
        set_owner_and_mode(path, owner, mode);
        let session = lab.login().run();
        assert_defaults_used(&session, &[CONFIGURATION, "must belong to root"]);
    }
    set_owner_and_mode(path, 0, 0o644);
    lab.login().run().assert_vouched().assert_silent();
    // Without privileges the caller's own file harms nobody else.
    set_owner_and_mode(path, UID, 0o600);
    lab.login().by_user().run().assert_vouched().assert_silent();
    set_owner_and_mode(path, OTHER_UID, 0o644);
    assert_defaults_used(&lab.login().by_user().run(), &["must belong to root"]);
}

#[test]
fn a_configuration_that_is_no_readable_file_is_told_and_holds_up_nobody() {
    for (what, put) in OBSTACLES {
        println!("{what}");
        let lab = Lab::with_settled_user();
        put(&lab, Path::new(CONFIGURATION));
        let session = lab.login().run();
        match what {
            // An administrator's link is followed; this one leads nowhere.
            "dangling link" => {
                session.assert_vouched().assert_silent();
            }
            _ => assert_defaults_used(&session, &[CONFIGURATION]),
        }
    }
    let lab = Lab::with_settled_user();
    // A moment of a file that is being rewritten.
    lab.configure("");
    assert_defaults_used(&lab.login().run(), &[CONFIGURATION, "is empty"]);
    lab.configure(&"# much too long\n".repeat(10_000));
    assert_defaults_used(&lab.login().run(), &[CONFIGURATION, "65536 bytes"]);
    lab.configure(&format!("hostname = '{HERE}'\n"));
    set_owner_and_mode(Path::new(CONFIGURATION), 0, 0o600);
    let session = lab.login().by_user().run();
    assert_defaults_used(&session, &[CONFIGURATION, "Permission denied"]);
    lab.login().run().assert_vouched().assert_silent();
}

#[test]
fn without_a_configuration_that_can_be_used_only_what_is_in_step_is_vouched_for() {
    let lab = Lab::new();
    lab.configure("hostname = 'imap7'\n");
    lab.login().run().assert_vouched();
    lab.plant_list_index(HERE);
    // Whatever this backend is called, its record says what the claim says.
    lab.configure("");
    lab.login().run().assert_vouched();
    assert_eq!(lab.planted(HERE), list_index_names());
    lab.login_at(THERE).run().assert_not_vouched();
    lab.login().run().assert_forgotten(&["cannot be used"]);
    lab.configure("hostname = 'imap7'\n");
    lab.login().run().assert_vouched();
    assert_eq!(lab.claim().text, "imap7\n");
}

#[test]
fn a_configuration_behind_a_link_and_at_another_place_is_read() {
    let lab = Lab::new();
    let real = lab.path("real.toml");
    fs::write(&real, "hostname = 'named'\n").expect("the lab's own");
    symlink(&real, CONFIGURATION).expect("/etc is private");
    lab.login().run().assert_vouched();
    assert_eq!(lab.claim().text, "named\n");
    let other = lab.path("other.toml");
    fs::write(&other, "hostname = 'other'\n").expect("the lab's own");
    fs::remove_file(lab.claim_file()).expect("it is there");
    lab.login()
        .option(format!("--config={}", other.display()))
        .run()
        .assert_vouched();
    assert_eq!(lab.claim().text, "other\n");
    fs::remove_file(lab.claim_file()).expect("it is there");
    let login = lab
        .login()
        .option(format!("--config={}", other.display()))
        .option("--");
    login.run().assert_vouched();
    assert_eq!(lab.claim().text, "other\n");
}

// The log

/// What script-login's log got instead of syslog.
#[track_caller]
fn assert_told_on_stderr(session: &Session<'_>, lab: &Lab) {
    session.assert_not_vouched();
    assert_eq!(session.log, []);
    let index = lab.index().display().to_string();
    let line = session.stderr.strip_suffix('\n').expect("it ends its line");
    assert!(
        line.starts_with("nfs-hostchange: user=alice: session without list index: "),
        "{line}"
    );
    assert!(line.contains(&index) && !line.contains('\n'), "{line}");
}

#[test]
fn without_syslog_dovecot_s_log_is_told() {
    let broken: [fn(&Lab); 3] = [
        |lab| lab.stop_syslog(false),
        |lab| lab.stop_syslog(true),
        |lab| {
            lab.stop_syslog(false);
            // Of the wrong kind.
            let listener = UnixListener::bind("/dev/log").expect("/dev is private");
            set_owner_and_mode(Path::new("/dev/log"), 0, 0o666);
            drop(listener);
        },
    ];
    for break_it in broken {
        for started in STARTS {
            let lab = Lab::new();
            fs::remove_dir(lab.index()).expect("it is empty");
            break_it(&lab);
            let session = started(&lab).run();
            assert_told_on_stderr(&session, &lab);
        }
    }
}

#[test]
fn a_syslog_that_takes_nothing_more_holds_up_nobody() {
    let lab = Lab::new();
    fs::remove_dir(lab.index()).expect("it is empty");
    lab.fill_syslog();
    let began = Instant::now();
    let session = lab.login().run();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_told_on_stderr(&session, &lab);
}

#[test]
fn a_syslog_that_the_user_may_not_reach_is_replaced_by_standard_error() {
    let lab = Lab::new();
    fs::remove_dir(lab.index()).expect("it is empty");
    set_owner_and_mode(Path::new("/dev/log"), 0, 0o600);
    assert_told_on_stderr(&lab.login().by_user().run(), &lab);
}

/// With neither syslog nor a usable standard error the login goes on in silence.
#[track_caller]
fn assert_goes_on_without_any_log(standard_error: fn()) {
    for started in STARTS {
        let lab = Lab::new();
        fs::remove_dir(lab.index()).expect("it is empty");
        lab.stop_syslog(false);
        let login = started(&lab);
        let session = login.at_last(standard_error).run();
        let environment = session.report().all("environment");
        assert!(common::is_switched_off(&environment), "{environment:?}");
    }
}

#[test]
fn a_full_standard_error_holds_up_nobody() {
    assert_goes_on_without_any_log(|| {
        let mut pipe = [0; 2];
        // SAFETY: numbers and arrays that live long enough; the process is about to execute
        // another program, which has both ends of the pipe.
        unsafe {
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK), 0);
            while libc::write(pipe[1], [0u8; 512].as_ptr().cast(), 512) > 0 {}
            assert_eq!(libc::fcntl(pipe[1], libc::F_SETFL, 0), 0);
            assert_eq!(libc::dup2(pipe[1], 2), 2);
        }
    });
}

#[test]
fn a_standard_error_that_nobody_reads_ends_nothing() {
    assert_goes_on_without_any_log(|| {
        let mut pipe = [0; 2];
        // SAFETY: as above. SIGPIPE has its default: to kill.
        unsafe {
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
            assert_eq!(libc::dup2(pipe[1], 2), 2);
            libc::close(pipe[0]);
            libc::close(pipe[1]);
        }
    });
    assert_goes_on_without_any_log(|| {
        // SAFETY: as above.
        unsafe {
            let full = libc::open(c"/dev/full".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            assert_eq!(libc::dup2(full, 2), 2);
        }
    });
}

#[test]
fn a_broken_configuration_s_error_and_the_rest_are_each_one_line_on_stderr() {
    let lab = Lab::new();
    fs::remove_dir(lab.index()).expect("it is empty");
    lab.configure("migration = maybe\n");
    lab.stop_syslog(false);
    let session = lab.login().run();
    session.assert_not_vouched();
    assert_eq!(session.stderr.lines().count(), 2, "{}", session.stderr);
}

// PROGRAM

#[test]
fn a_program_that_is_not_there_or_not_executable_is_told_on_stderr_and_in_syslog() {
    let lab = Lab::new();
    let text = lab.path("text");
    fs::write(&text, "no program").expect("the lab's own");
    let garbage = lab.path("garbage");
    fs::write(&garbage, "no program").expect("the lab's own");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755)).expect("root may");
    let orphan = lab.path("orphan");
    fs::write(&orphan, "#!/nowhere/sh\n").expect("the lab's own");
    fs::set_permissions(&orphan, fs::Permissions::from_mode(0o755)).expect("root may");
    let path = |path: PathBuf| path.to_str().expect("ASCII").to_owned();
    let [probe, text, garbage, orphan] = [lab.probe(), text, garbage, orphan].map(path);
    let directory = path(lab.path("nfs"));
    let none = "no program to execute";
    let usage = "usage: ";
    let relative = "absolute path";
    let denied = "Permission denied";
    let cannot = "cannot execute";
    for (command, code, parts) in [
        (&[][..], 64, [none, usage]),
        (&["imap"], 64, ["'imap'", relative]),
        (&["./imap", "x"], 64, ["'./imap'", relative]),
        (&[""], 64, ["''", relative]),
        (&["--"], 64, [none, usage]),
        (&["--", "-x"], 64, ["'-x'", relative]),
        (&["-x", &probe], 64, ["unknown option '-x'", usage]),
        (&["--help"], 64, ["unknown option '--help'", usage]),
        (&["--config=", &probe], 64, ["--config=FILE", usage]),
        (&["--config", "x"], 64, ["unknown option", usage]),
        (
            &["/nowhere/imap"],
            72,
            ["cannot execute /nowhere/imap", "No such file"],
        ),
        (&[&text], 72, [cannot, denied]),
        (&[&directory], 72, [cannot, denied]),
        (&[&garbage], 71, [cannot, "Exec format error"]),
        (&[&orphan], 72, [cannot, "No such file"]),
    ] {
        for login in both(&lab) {
            let session = login.executing(command).run();
            let told = session.told();
            assert_eq!(session.code(), Some(code), "{command:?} {told}");
            let line = session.stderr.strip_suffix('\n').expect("it ends its line");
            assert!(line.starts_with("nfs-hostchange: fatal: "), "{told}");
            assert!(!line.contains('\n'), "{told}");
            let fatal: Vec<_> = session
                .log
                .iter()
                .filter(|line| line.text.starts_with("fatal: "))
                .collect();
            assert_eq!(fatal.len(), 1, "{told}");
            assert!(fatal[0].is_error(), "{told}");
            for part in parts {
                assert!(line.contains(part), "{part} {told}");
                assert!(fatal[0].text.contains(part), "{part} {told}");
            }
        }
    }
}

// Limits

#[test]
fn a_file_size_limit_ends_no_login() {
    for started in STARTS {
        let lab = moved_user();
        let login = started(&lab);
        // SIGXFSZ has its default: to kill.
        login
            .at_last(|| limit(libc::RLIMIT_FSIZE, 0))
            .run()
            .assert_forgotten(&["File too large"]);
        assert_right_again(&lab);
    }
}

#[test]
fn a_file_size_limit_does_not_end_a_login_that_gives_up_on_the_lock() {
    let lab = Lab::with_settled_user();
    lab.configure("lock_timeout = '1 s'\n");
    let _held = hold_lock(&lab);
    // SIGXFSZ has its default: to kill.
    let login = lab.login().at_last(|| limit(libc::RLIMIT_FSIZE, 0));
    login.run().assert_forgotten(&["timed out"]);
}

#[test]
fn a_limit_of_open_files_ends_no_login() {
    let lab = Lab::with_settled_user();
    // With fewer than four a dynamically linked build of the wrapper does not even start.
    for files in 4..12 {
        for login in both(&lab) {
            let session = login
                .at_last(move || limit(libc::RLIMIT_NOFILE, files))
                .run();
            if common::is_switched_off(&session.report().all("environment")) {
                lab.login().run().assert_vouched();
                assert_eq!(lab.planted(HERE), [""; 0], "{files}: {}", session.told());
                lab.plant_list_index(HERE);
            } else {
                session.assert_vouched();
            }
        }
    }
}

/// Lowers what the process asks for, not what it might ask for.
fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    // SAFETY: both calls read or write one structure.
    unsafe {
        let mut limit = std::mem::MaybeUninit::<libc::rlimit>::zeroed().assume_init();
        assert_eq!(libc::getrlimit(resource, &mut limit), 0);
        limit.rlim_cur = value;
        assert_eq!(libc::setrlimit(resource, &limit), 0);
    }
}

#[test]
fn names_of_any_length_and_content_end_no_login() {
    let lab = Lab::new();
    for user in [
        vec![b'x'; 100_000],
        vec![0xff; 5000],
        "\u{1f4a9}".repeat(3000).into_bytes(),
    ] {
        lab.login()
            .set("USER", &user)
            .without_field("MAIL_LOCATION")
            .run()
            .assert_vouched();
        lab.login()
            .set("USER", &user)
            .set_field("CHROOT", "/x")
            .run()
            .report();
    }
    let long = [
        b"mdbox:~/".to_vec(),
        vec![b'y'; 100_000],
        b":LISTINDEX=/dev/shm/a/b".to_vec(),
    ]
    .concat();
    lab.login().location(long).run().assert_not_vouched();
}

#[test]
fn a_signal_that_interrupts_the_wait_for_the_lock_does_no_harm() {
    let lab = Lab::with_settled_user();
    let held = hold_lock(&lab);
    let mut login = lab.login().trace();
    login.run_to_call(libc::SYS_clock_nanosleep);
    login.fail_call(Errno::EINTR);
    login.run_to_call(libc::SYS_flock);
    login.fail_call(Errno::EINTR);
    common::close(held);
    login.finish().assert_vouched().assert_silent();
}

/// How many of `number` logins that begin together were vouched for.
fn vouched_of(lab: &Lab, number: usize) -> usize {
    let running: Vec<_> = (0..number)
        .map(|_| lab.login().staying_open().start())
        .collect();
    let sessions: Vec<_> = running.into_iter().map(|login| login.wait()).collect();
    let vouched = sessions.iter().filter(|session| session.is_vouched());
    vouched.count()
}

#[test]
fn of_ten_logins_together_after_a_move_all_are_vouched_for() {
    for _ in 0..5 {
        let lab = moved_user();
        assert_eq!(vouched_of(&lab, 10), 10);
    }
}

/// How long each of eight logins takes that begin together, in order.
fn durations_of_logins(lab: &Lab) -> Vec<Duration> {
    let began = Instant::now();
    let running: Vec<_> = (0..8)
        .map(|_| lab.login().executing(&["/bin/true"]).start())
        .collect();
    let mut took: Vec<_> = std::thread::scope(|scope| {
        let waits: Vec<_> = running
            .iter()
            .map(|login| login.pid())
            .map(|pid| {
                scope.spawn(move || {
                    let status = format!("/proc/{pid}/stat");
                    // A zombie until the test waits for it.
                    while fs::read_to_string(&status).is_ok_and(|text| !text.contains(") Z ")) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    began.elapsed()
                })
            })
            .collect();
        waits
            .into_iter()
            .map(|wait| wait.join().expect("it waits"))
            .collect()
    });
    took.sort_unstable();
    for login in running {
        login.wait();
    }
    took
}

#[test]
fn a_lock_that_somebody_keeps_is_waited_for_by_three_and_the_others_go_on() {
    let lab = Lab::with_settled_user();
    let _held = hold_lock(&lab);
    let took = durations_of_logins(&lab);
    let long = took.iter().filter(|&&took| took > Duration::from_secs(4));
    assert_eq!(long.count(), 3, "{took:?}");
    assert!(took[0] >= Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_lock_that_somebody_keeps_is_waited_for_by_nobody_where_the_sign_cannot_be_used() {
    let lab = Lab::with_settled_user();
    let sign = lab.list_index(HERE).join(".lasthost.without");
    fs::remove_file(&sign).expect("it was made with the record");
    fs::create_dir(&sign).expect("its user may do so");
    set_owner_and_mode(&sign, UID, 0o700);
    let _held = hold_lock(&lab);
    let took = durations_of_logins(&lab);
    let long = took.iter().filter(|&&took| took > Duration::from_secs(4));
    assert_eq!(long.count(), 0, "{took:?}");
}

#[test]
fn a_lock_that_somebody_keeps_is_waited_for_by_nobody_whose_sign_is_removed_again_and_again() {
    let lab = Lab::with_settled_user();
    let sign = lab.list_index(HERE).join(".lasthost.without");
    let _held = hold_lock(&lab);
    let is_over = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = fs::remove_file(&sign);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let took = durations_of_logins(&lab);
        is_over.store(true, Ordering::Relaxed);
        took
    });
    let long = took.iter().filter(|&&took| took > Duration::from_secs(4));
    assert_eq!(long.count(), 0, "{took:?}");
}
