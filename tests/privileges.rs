//! With whose rights the work is done, in each way of starting the wrapper, and what is made for
//! the user where.

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use common::trace::{Call, Traced};
use common::{
    GID, HERE, Lab, Login, OTHER_GID, OTHER_UID, PREFIX, STARTS, UID, mount_tmpfs, names_in,
    set_owner_and_mode,
};
use nix::sys::stat::{Mode, umask};

/// Owner, group and mode of `path` itself.
fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let status =
        fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (status.uid(), status.gid(), status.mode() & 0o7777)
}

/// The directories of LISTINDEX, from the first below /dev/shm to the user's own.
fn directories(lab: &Lab) -> [PathBuf; 3] {
    let own = lab.list_index(HERE);
    let hash = own.parent().expect("it has one").to_owned();
    let base = hash.parent().expect("it has one").to_owned();
    [base, hash, own]
}

fn make_directory(path: &Path, owner: u32, mode: u32) {
    fs::create_dir(path).expect("it can be made");
    set_owner_and_mode(path, owner, mode);
}

#[test]
fn started_as_root_the_parents_are_made_so_that_every_user_can_pass_whatever_the_umask() {
    for mask in [0o077, 0o777, 0o022, 0] {
        let lab = Lab::new();
        let set_umask = move || {
            umask(Mode::from_bits_truncate(mask));
        };
        lab.login().at_last(set_umask).run().assert_vouched();
        let [base, hash, own] = directories(&lab);
        assert_eq!(owner_and_mode(&base), (0, 0, 0o711));
        assert_eq!(owner_and_mode(&hash), (0, 0, 0o1733));
        assert_eq!(owner_and_mode(&own), (UID, GID, 0o700));
        // IMAP, LMTP and LDA of another user with the same hash can make theirs.
        let theirs = hash.join("other");
        let location = format!(
            "mdbox:~/mdbox:INDEX={}:LISTINDEX={}/{PREFIX}",
            lab.path("other").display(),
            theirs.display()
        );
        make_directory(&lab.path("other"), OTHER_UID, 0o700);
        let login = lab.login().by(OTHER_UID, OTHER_GID).location(location);
        login.run().assert_vouched();
        assert_eq!(owner_and_mode(&theirs), (OTHER_UID, OTHER_GID, 0o700));
    }
}

#[test]
fn started_as_root_with_parents_that_are_there_only_the_user_s_directory_is_made() {
    // Made at boot, by tmpfiles.d: closed to users, or open to them.
    for mode in [0o711, 0o1733, 0o1777] {
        let lab = Lab::new();
        let [base, hash, own] = directories(&lab);
        make_directory(&base, 0, 0o711);
        make_directory(&hash, 0, mode);
        lab.login().run().assert_vouched();
        assert_eq!(owner_and_mode(&hash), (0, 0, mode));
        assert_eq!(owner_and_mode(&own), (UID, GID, 0o700));
        assert_eq!(names_in(&hash), ["alice"]);
    }
}

#[test]
fn where_all_users_share_one_uid_everything_below_its_directory_is_its_own() {
    for started in STARTS {
        let lab = Lab::new();
        let [base, hash, own] = directories(&lab);
        make_directory(&base, UID, 0o700);
        started(&lab).run().assert_vouched();
        assert_eq!(owner_and_mode(&hash), (UID, GID, 0o700));
        assert_eq!(owner_and_mode(&own), (UID, GID, 0o700));
    }
}

#[test]
fn started_as_the_user_everything_is_made_as_imap_itself_would() {
    let lab = Lab::new();
    // script-login -d: nothing about ids is needed.
    lab.login()
        .by_user()
        .without_field("UID")
        .without_field("GID")
        .run()
        .assert_vouched();
    for directory in directories(&lab) {
        assert_eq!(owner_and_mode(&directory), (UID, GID, 0o700));
    }
}

#[test]
fn started_as_the_user_other_ids_in_the_environment_do_not_matter() {
    let lab = Lab::new();
    let login = lab
        .login()
        .by_user()
        .set_field("UID", "0")
        .set_field("GID", "0");
    login.run().assert_vouched();
    assert_eq!(owner_and_mode(&lab.claim_file()), (UID, GID, 0o644));
}

#[test]
fn root_makes_nothing_in_a_directory_that_others_control() {
    for (owner, mode) in [
        (OTHER_UID, 0o755),
        (OTHER_UID, 0o711),
        (0, 0o775),
        (UID, 0o500),
    ] {
        let lab = Lab::new();
        let [base, _, own] = directories(&lab);
        make_directory(&base, owner, mode);
        lab.login().run().assert_refused(&[
            "cannot make directory",
            &own.display().to_string(),
            "Permission denied",
        ]);
        assert_eq!(names_in(&base), [""; 0], "{owner} {mode:o}");
    }
    // Where the user may make something, he makes it, and it is his.
    for (owner, mode) in [(OTHER_UID, 0o777), (0, 0o777)] {
        let lab = Lab::new();
        let [base, hash, own] = directories(&lab);
        make_directory(&base, owner, mode);
        lab.login().run().assert_vouched();
        assert_eq!(owner_and_mode(&hash), (UID, GID, 0o700));
        assert_eq!(owner_and_mode(&own), (UID, GID, 0o700));
    }
}

#[test]
fn links_on_the_way_are_followed_only_if_root_made_them() {
    for (owner, followed) in [(0, true), (OTHER_UID, false), (UID, false)] {
        for started in STARTS {
            let lab = Lab::new();
            let [base, ..] = directories(&lab);
            let real = Path::new("/dev/shm/real");
            make_directory(real, 0, 0o1777);
            symlink(real, &base).expect("it can be made");
            lchown(&base, Some(owner), Some(owner)).expect("root may");
            let session = started(&lab).run();
            if followed {
                session.assert_vouched();
                assert_eq!(names_in(real), ["f5"]);
            } else {
                session.assert_not_vouched();
                session
                    .assert_logged(&["symbolic link", &lab.list_index(HERE).display().to_string()]);
                assert_eq!(names_in(real), [""; 0]);
            }
        }
    }
}

#[test]
fn a_link_of_root_s_in_somebody_else_s_directory_is_not_followed() {
    // Whose directory it is can move or link any link of root's there.
    let lab = Lab::new();
    let [base, hash, _] = directories(&lab);
    let real = Path::new("/dev/shm/real");
    make_directory(real, 0, 0o1777);
    for (owner, mode) in [(UID, 0o711), (OTHER_UID, 0o711), (0, 0o777)] {
        make_directory(&base, owner, mode);
        symlink(real, &hash).expect("it can be made");
        lab.login()
            .run()
            .assert_refused(&["symbolic link", &lab.list_index(HERE).display().to_string()]);
        assert_eq!(names_in(real), [""; 0]);
        fs::remove_dir_all(&base).expect("root may");
    }
}

#[test]
fn a_parent_that_is_swapped_for_a_link_while_root_makes_directories_leads_nowhere() {
    let lab = Lab::new();
    let [base, hash, own] = directories(&lab);
    make_directory(&base, 0, 0o711);
    make_directory(&hash, 0, 0o711);
    let victim = Path::new("/dev/shm/victim");
    make_directory(victim, 0, 0o711);
    let mut login = lab.login().trace();
    let makes = |login: &Traced<'_>, call: &Call| {
        call.number == libc::SYS_mkdirat && login.string(call.arguments[1]) == "alice"
    };
    login.run_to(makes).expect("the user tries");
    login.complete_call();
    login.run_to(makes).expect("the user may not, but root may");
    fs::rename(&hash, base.join("moved")).expect("root may");
    symlink(victim, &hash).expect("root may");
    lchown(&hash, Some(OTHER_UID), Some(OTHER_GID)).expect("root may");
    login.finish();
    assert_eq!(names_in(victim), [""; 0]);
    assert!(!own.exists());
}

#[test]
fn somebody_else_s_directory_at_the_user_s_name_is_refused() {
    let lab = Lab::new();
    let [base, hash, own] = directories(&lab);
    make_directory(&base, 0, 0o711);
    make_directory(&hash, 0, 0o1733);
    make_directory(&own, OTHER_UID, 0o777);
    lab.login()
        .run()
        .assert_refused(&["belongs to uid 1900000003"]);
    assert_eq!(names_in(&own), [""; 0]);
}

#[test]
fn many_first_logins_at_once_make_one_directory_and_one_claim() {
    for mode in [0o711, 0o1733] {
        let lab = Lab::new();
        let [base, hash, own] = directories(&lab);
        if mode == 0o711 {
            // The user himself may not make it.
            make_directory(&base, 0, 0o711);
            make_directory(&hash, 0, mode);
        }
        let running: Vec<_> = (0..20).map(|_| lab.login().start()).collect();
        let sessions: Vec<_> = running.into_iter().map(|login| login.wait()).collect();
        for session in &sessions {
            session.assert_vouched();
        }
        let talkative = sessions.iter().filter(|session| !session.log.is_empty());
        assert_eq!(talkative.count(), 1);
        assert!(lab.is_recorded(HERE));
        assert_eq!(owner_and_mode(&own), (UID, GID, 0o700));
        assert_eq!(names_in(&hash), ["alice"]);
    }
}

#[test]
fn no_name_that_another_user_may_have_is_used_on_the_way() {
    let lab = Lab::new();
    let [base, hash, own] = directories(&lab);
    make_directory(&base, 0, 0o711);
    make_directory(&hash, 0, 0o711);
    let other = hash.join(".nfs-hostchange.alice");
    make_directory(&other, OTHER_UID, 0o700);
    let before = fs::metadata(&other).expect("it is there").ino();
    lab.login().run().assert_vouched();
    assert_eq!(owner_and_mode(&own), (UID, GID, 0o700));
    assert_eq!(fs::metadata(&other).expect("it is there").ino(), before);
    assert_eq!(names_in(&hash), [".nfs-hostchange.alice", "alice"]);
}

#[test]
fn what_a_crash_left_while_root_made_the_directory_is_no_obstacle() {
    let lab = Lab::new();
    let [base, hash, own] = directories(&lab);
    make_directory(&base, 0, 0o711);
    make_directory(&hash, 0, 0o711);
    let mut calls = 0;
    loop {
        let mut login = lab.login().trace();
        login.run_to_call(libc::SYS_mkdirat);
        if (0..calls).any(|_| login.next_call().number == libc::SYS_pwrite64) {
            break;
        }
        drop(login);
        lab.login().run().assert_vouched();
        assert_eq!(owner_and_mode(&own), (UID, GID, 0o700), "call {calls}");
        assert_eq!(names_in(&hash), ["alice"], "call {calls}");
        fs::remove_dir_all(&own).expect("it is there");
        calls += 1;
    }
    assert!(calls > 5, "only {calls} calls");
}

/// INDEX is reached through a directory that is open to one more group.
fn lab_with_group() -> Lab {
    let lab = Lab::new();
    chown(lab.home(), Some(OTHER_UID), Some(OTHER_GID)).expect("root may");
    fs::set_permissions(lab.home(), fs::Permissions::from_mode(0o750)).expect("root may");
    lab
}

#[test]
fn the_user_s_supplementary_groups_count() {
    let lab = lab_with_group();
    let refused = |login: Login<'_>| {
        login.run().assert_refused(&["Permission denied"]);
    };
    refused(lab.login());
    // Those that root happens to have are not the user's.
    refused(lab.login().with_groups(&[OTHER_GID, 0]));
    refused(lab.login().set_field("SYSTEM_GROUPS_USER", "mallory"));
    // The fixture's /etc/group has alice in a group of this id.
    lab.login()
        .set_field("SYSTEM_GROUPS_USER", "alice")
        .run()
        .assert_vouched();
    lab.login()
        .set_field("GID", OTHER_GID.to_string())
        .run()
        .assert_vouched();
}

#[test]
fn the_groups_of_a_login_that_is_the_user_s_already_are_left_as_they_are() {
    let lab = lab_with_group();
    lab.login().by_user().run().assert_not_vouched();
    let login = lab.login().by_user().with_groups(&[OTHER_GID]);
    login.run().assert_vouched();
}

#[test]
fn as_root_every_file_is_touched_with_the_user_s_rights() {
    let lab = Lab::with_settled_user();
    let mut login = lab.login().trace();
    let ids = |login: &common::trace::Traced<'_>| {
        let status = fs::read_to_string(format!("/proc/{}/status", login.pid())).expect("it lives");
        let effective = |key: &str| -> u32 {
            let line = status
                .lines()
                .find(|line| line.starts_with(key))
                .expect("proc(5)");
            line.split_whitespace()
                .nth(2)
                .and_then(|id| id.parse().ok())
                .expect("proc(5)")
        };
        (effective("Uid:"), effective("Gid:"))
    };
    let mut touched = 0;
    loop {
        let call = login.next_call();
        if call.number == libc::SYS_execve {
            break;
        }
        let name = match call.number {
            libc::SYS_openat | libc::SYS_openat2 | libc::SYS_statx => {
                login.string(call.arguments[1])
            }
            libc::SYS_flock | libc::SYS_utimensat => ".lasthost".to_owned(),
            _ => continue,
        };
        if name.contains("alice") || name == ".lasthost" {
            assert_eq!(ids(&login), (UID, GID), "{name}");
            touched += 1;
        }
    }
    assert_eq!(ids(&login), (0, 0));
    login.finish().assert_vouched().assert_silent();
    assert!(touched >= 5, "only {touched}");
}

// Installed set-uid or set-gid by mistake

/// A copy of the wrapper on a file system that honours set-uid bits.
fn privileged_copy(lab: &Lab, owner: u32, group: u32, mode: u32) -> PathBuf {
    let directory = lab.path("privileged");
    fs::create_dir(&directory).expect("it can be made");
    mount_tmpfs(&directory, "mode=0755");
    let copy = directory.join("nfs-hostchange-login");
    lab.copy_wrapper(&copy);
    chown(&copy, Some(owner), Some(group)).expect("root may");
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("root may");
    copy
}

/// The executed program has the caller's ids and nothing else.
#[track_caller]
fn assert_ids(session: &common::Session<'_>, uid: u32, gid: u32) {
    let status = session.report().all("status");
    assert!(
        status.contains(&format!("Uid:\\t{uid}\\t{uid}\\t{uid}\\t{uid}")),
        "{status:#?}"
    );
    assert!(
        status.contains(&format!("Gid:\\t{gid}\\t{gid}\\t{gid}\\t{gid}")),
        "{status:#?}"
    );
    assert!(
        status.contains(&"CapPrm:\\t0000000000000000".to_owned()),
        "{status:#?}"
    );
}

#[test]
fn a_set_uid_copy_does_nothing_that_its_caller_could_not_do() {
    // Of root, of the user whose files they are, and of the user's group.
    for (owner, group, mode) in [
        (0, 0, 0o4755),
        (UID, GID, 0o4755),
        (0, GID, 0o2755),
        (0, 0, 0o2755),
        (UID, GID, 0o6755),
    ] {
        let lab = Lab::with_settled_user();
        set_owner_and_mode(&lab.index(), UID, 0o770);
        set_owner_and_mode(&lab.home(), UID, 0o770);
        let claim = lab.claim();
        let copy = privileged_copy(&lab, owner, group, mode);
        let secret = lab.path("secret.toml");
        fs::write(&secret, "opensesame").expect("the lab's own");
        set_owner_and_mode(&secret, owner, 0o600);
        let session = lab
            .login()
            .by(OTHER_UID, OTHER_GID)
            .with_program(copy)
            .option(format!("--config={}", secret.display()))
            .run();
        session.assert_not_vouched();
        assert_ids(&session, OTHER_UID, OTHER_GID);
        session.assert_logged(&["secret.toml", "Permission denied"]);
        session.assert_logged(&["session without list index: ", "Permission denied"]);
        assert!(!session.told().contains("opensesame"));
        assert_eq!(lab.claim(), claim);
        assert!(lab.is_recorded(HERE));
        assert_eq!(lab.planted(HERE), common::list_index_names());
    }
}

#[test]
fn a_set_uid_copy_works_for_its_caller_s_own_mail() {
    let lab = Lab::new();
    let copy = privileged_copy(&lab, 0, 0, 0o6755);
    // UID and GID are for a wrapper that Dovecot started as root, and this one is not.
    let login = lab
        .login()
        .by_user()
        .with_program(copy)
        .set_field("UID", "0");
    let session = login.run();
    session.assert_vouched();
    assert_ids(&session, UID, GID);
    assert_eq!(owner_and_mode(&lab.claim_file()), (UID, GID, 0o644));
}

#[test]
fn a_copy_with_file_capabilities_does_nothing_that_its_caller_could_not_do() {
    let lab = Lab::with_settled_user();
    let claim = lab.claim();
    let copy = privileged_copy(&lab, 0, 0, 0o755);
    give_capabilities(&copy);
    let session = lab
        .login()
        .by(OTHER_UID, OTHER_GID)
        .with_program(copy)
        .run();
    session.assert_refused(&["Permission denied"]);
    assert_ids(&session, OTHER_UID, OTHER_GID);
    assert_eq!(lab.claim(), claim);
}

/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID and CAP_SETUID, permitted and effective.
fn give_capabilities(path: &Path) {
    // struct vfs_cap_data of linux/capability.h, version 2.
    let mut value = 0x0200_0001u32.to_le_bytes().to_vec();
    for set in [0xc3u32, 0, 0, 0] {
        value.extend_from_slice(&set.to_le_bytes());
    }
    let path = CString::new(path.as_os_str().as_bytes()).expect("it has no NUL");
    // SAFETY: both strings are NUL-terminated, and the value is as long as said.
    let result = unsafe {
        let name = c"security.capability".as_ptr();
        libc::setxattr(path.as_ptr(), name, value.as_ptr().cast(), value.len(), 0)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_set_uid_copy_drops_its_privileges_before_it_opens_anything() {
    let lab = Lab::with_settled_user();
    let copy = privileged_copy(&lab, 0, 0, 0o6755);
    let login = lab.login().by(OTHER_UID, OTHER_GID).with_program(copy);
    let mut login = login.trace();
    let mut dropped = Vec::new();
    loop {
        let call = login.next_call();
        match call.number {
            libc::SYS_setresuid | libc::SYS_setresgid => dropped.push(call.arguments[..3].to_vec()),
            libc::SYS_capset => dropped.push(vec![]),
            libc::SYS_execve => break,
            libc::SYS_openat => {
                let name = login.string(call.arguments[1]);
                if name.contains(".so") || name.starts_with("/proc/") {
                    // The dynamic loader, before the program begins.
                    continue;
                }
                let (uid, gid) = (u64::from(OTHER_UID), u64::from(OTHER_GID));
                assert_eq!(dropped[..3], [vec![gid; 3], vec![uid; 3], vec![]], "{name}");
                // And it was made sure that there is no way back.
                assert_eq!(dropped[3][1], 0);
                break;
            }
            _ => {}
        }
    }
    assert!(dropped.len() >= 4, "{dropped:?}");
    login.finish().assert_not_vouched();
}
