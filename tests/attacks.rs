//! What a hostile user, or whoever starts the wrapper, may try. docs/security.md names these tests.

mod common;

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfs_hostchange::system::credentials::{Assumed, GroupId, Identity, UserId};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{execve, mkfifo};

use common::{
    GID, HERE, Lab, OTHER_UID, PREFIX, UID, UNFINISHED_CLAIM, names_in, release_wrapper,
    set_owner_and_mode,
};

/// Logins while somebody swaps files.
fn rounds() -> usize {
    let long = std::env::var_os("NFS_HOSTCHANGE_TESTS").is_some_and(|value| value == "long");
    if long { 10_000 } else { 300 }
}

/// Somebody else's files, and root's: a LISTINDEX, an INDEX, and one that only root may read.
fn victims(lab: &Lab) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in [
        lab.list_index(HERE).with_file_name("victim"),
        lab.path("nfs/victim"),
    ] {
        fs::create_dir(&directory).expect("the lab's own");
        set_owner_and_mode(&directory, OTHER_UID, 0o755);
        for name in [".lasthost", PREFIX, "dovecot.list.index.log"] {
            let file = directory.join(name);
            fs::write(&file, "victim's").expect("the lab's own");
            // So that opening it would succeed.
            set_owner_and_mode(&file, OTHER_UID, 0o644);
            files.push(file);
        }
    }
    let secret = lab.path("secret");
    fs::write(&secret, "root's").expect("the lab's own");
    set_owner_and_mode(&secret, 0, 0o600);
    files.push(secret);
    files
}

/// Everything about the files but when they were read.
fn state(files: &[PathBuf]) -> Vec<String> {
    let state = |file: &PathBuf| {
        let status = fs::symlink_metadata(file).expect("it is still there");
        let content = fs::read_to_string(file).expect("root may read it");
        let (owner, links) = (status.uid(), status.nlink());
        let changed = (status.mode(), status.mtime(), status.mtime_nsec());
        format!("{}: {content} {owner} {links} {changed:?}", file.display())
    };
    files.iter().map(state).collect()
}

/// Puts something else under the name `path`, and sometimes nothing.
fn swap(path: &Path, victims: &[PathBuf], round: usize) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    let victim = &victims[round % victims.len()];
    // Much of this fails, depending on what a login does at this moment.
    let _ = match round / 3 % 16 {
        0 => symlink(victim, path),
        1 => symlink(victim.parent().expect("it has one"), path),
        2 => fs::hard_link(victim, path),
        3 => mkfifo(path, Mode::S_IRWXU).map_err(Into::into),
        4 => fs::create_dir(path),
        5 => UnixListener::bind(path).map(drop),
        6 => File::create_new(path).and_then(|file| file.set_len(1 << 40)),
        _ => Ok(()),
    };
}

/// The user's own directory, for another's: it is his, so the sticky bit lets him.
fn swap_directory(own: &Path, victims: &[PathBuf]) {
    let aside = own.with_file_name("aside");
    if fs::rename(own, &aside).is_ok() {
        let _ = symlink(victims[0].parent().expect("it has one"), own);
        let _ = fs::remove_file(own);
        let _ = fs::rename(&aside, own);
        let _ = fs::remove_dir_all(&aside);
    }
}

#[test]
fn whatever_a_user_swaps_under_his_logins_of_root_s_harms_nobody_else() {
    let lab = Lab::with_settled_user();
    // The user may do what he likes up to here; what is above is root's.
    let (own, index) = (lab.list_index(HERE), lab.index());
    let victims = victims(&lab);
    let before = state(&victims);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _as_the_user = Assumed::new(Identity {
                user: UserId(UID),
                group: GroupId(GID),
                groups: Vec::new(),
            })
            .expect("root may do that");
            let names = [
                own.join(".lasthost"),
                own.join(PREFIX),
                own.join("dovecot.list.index.log"),
                index.join(".lasthost"),
                index.join(UNFINISHED_CLAIM),
            ];
            let mut round = 0;
            while !over.load(Ordering::Relaxed) {
                swap(&names[round % names.len()], &victims, round);
                if round % 11 == 0 {
                    swap_directory(&own, &victims);
                }
                round += 1;
            }
        });
        let mut without = 0;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..rounds() {
                let session = lab.login().run();
                let environment = session.report().all("environment");
                without += usize::from(common::is_switched_off(&environment));
            }
        }));
        over.store(true, Ordering::Relaxed);
        println!("{without} of {} logins went without list index", rounds());
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        assert!(without > 0, "the attacker was never in the way");
    });
    assert_eq!(state(&victims), before);
    let victim = lab.list_index(HERE).with_file_name("victim");
    assert_eq!(names_in(&victim).len(), 3);
    assert_eq!(names_in(&lab.path("nfs/victim")).len(), 3);
}

#[test]
fn a_device_under_any_name_is_not_used() {
    let lab = Lab::with_settled_user();
    for path in [
        lab.record_file(HERE),
        lab.list_index(HERE).join(PREFIX),
        lab.claim_file(),
    ] {
        lab.login().run();
        lab.login().run().assert_vouched();
        let _ = fs::remove_file(&path);
        // Like /dev/zero.
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).expect("root may");
        set_owner_and_mode(&path, UID, 0o600);
        if path == lab.list_index(HERE).join(PREFIX) {
            // Only who has to delete it minds.
            fs::remove_file(lab.claim_file()).expect("it is there");
        }
        lab.login().run().assert_not_vouched();
        fs::remove_file(&path).expect("it is still there");
    }
}

#[test]
fn a_sparse_file_of_a_terabyte_holds_up_nobody() {
    let lab = Lab::with_settled_user();
    for path in [
        lab.record_file(HERE),
        lab.list_index(HERE).join(PREFIX),
        lab.claim_file(),
        lab.index().join(UNFINISHED_CLAIM),
    ] {
        let file = File::options().create(true).append(true).open(&path);
        let file = file.expect("the lab's own");
        file.set_len(1 << 40).expect("both file systems take it");
        set_owner_and_mode(&path, UID, 0o600);
        let began = Instant::now();
        lab.login().run().assert_vouched();
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_environment_of_a_megabyte_with_every_key_twice_arrives_as_it_was() {
    let lab = Lab::with_settled_user();
    let mut login = lab.login();
    for number in 0..2_000 {
        login = login.entry(format!("KEY{}={}", number % 1_000, "x".repeat(500)));
    }
    // getenv(3) finds the first one, and so does Dovecot.
    login = login.entry("MAIL_LOCATION=mdbox:/nowhere:LISTINDEX=/dev/shm/nowhere/x");
    login = login
        .entry("USER=victim")
        .entry("UID=0")
        .entry("HOME=/nowhere");
    login.run().assert_vouched().assert_silent();
    assert!(lab.is_recorded(HERE));
    assert!(!Path::new("/dev/shm/nowhere").exists());
}

#[test]
fn the_loader_s_variables_do_not_reach_the_wrapper() {
    let shipped = release_wrapper();
    let lab = Lab::with_settled_user();
    let shipped = lab.install(shipped, "shipped");
    let mut login = lab
        .login()
        .with_program(shipped)
        .entry("LD_PRELOAD=/dev/shm/evil.so")
        .entry("LD_LIBRARY_PATH=/dev/shm")
        .entry("LD_AUDIT=/dev/shm/evil.so")
        .entry("GCONV_PATH=/dev/shm")
        .trace();
    let evil = |login: &common::trace::Traced<'_>, call: &common::trace::Call| {
        let opens = [libc::SYS_open, libc::SYS_openat].contains(&call.number);
        let argument = usize::from(call.number == libc::SYS_openat);
        opens
            && login
                .string(call.arguments[argument])
                .starts_with("/dev/shm/evil")
    };
    assert_eq!(login.run_to(evil), None);
}

#[test]
fn without_any_argument_not_even_its_own_name_it_says_how_it_is_used() {
    let lab = Lab::new();
    let wrapper = lab.wrapper();
    let path = CString::new(wrapper.as_os_str().as_bytes()).expect("no NUL in it");
    let nothing: [CString; 0] = [];
    let session = lab
        .login()
        .executing(&[])
        .at_last(move || {
            let _ = execve(&path, &nothing, &nothing);
        })
        .run();
    assert_eq!(session.code(), Some(64), "{}", session.told());
    assert!(session.stderr.contains("no program to execute"));
}

#[test]
fn a_limit_of_memory_ends_no_login() {
    let shipped = release_wrapper();
    let lab = Lab::new();
    let shipped = lab.install(shipped, "shipped");
    // Without the megabytes that a program needs the kernel does not even execute it.
    for megabytes in [3, 4, 6, 8, 16] {
        for path in [lab.record_file(HERE), lab.claim_file()] {
            let _ = fs::remove_file(path);
        }
        let mut login = lab
            .login()
            .with_program(shipped.clone())
            .at_last(move || limit_memory(megabytes << 20))
            .trace();
        login.run_to_call(libc::SYS_execve);
        drop(login);
        assert!(lab.is_recorded(HERE), "{megabytes}");
    }
}

fn limit_memory(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: it reads one structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}
