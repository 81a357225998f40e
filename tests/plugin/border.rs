//! The border to C, called as the C side calls it, but without Dovecot.

#![allow(unsafe_code)]

#[path = "../fuzz/border.rs"]
mod border;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use border::{Session, as_mail_user, scratch};
use nfs_hostchange_plugin::border::{Caller, TAKE_OVER, USE, WITHOUT, Where, guarded};
use nfs_hostchange_plugin::border::{nfs_hostchange_list_free, nfs_hostchange_list_new};

/// Xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn whatever_strings_and_calls_come_from_c_nothing_leaves_the_border() {
    as_mail_user(|| {
        let words: [&[u8]; 8] = [
            b"a",
            b"/",
            b"..",
            b".lasthost",
            b"index",
            b"\xff",
            b"%",
            b"\0",
        ];
        let mut random = Random(0x6e66_7368);
        for _ in 0..400 {
            let mut data = Vec::new();
            for _ in 0..random.below(40) {
                match random.below(3) {
                    0 => data.extend_from_slice(words[random.below(8) as usize]),
                    _ => data.push(random.below(256) as u8),
                }
            }
            border::border(&data);
        }
    });
}

#[test]
fn a_list_index_is_taken_over_once_and_then_used() {
    as_mail_user(|| {
        let place = scratch("once");
        let mut first = Session::new(&place, true, true);
        assert_eq!(first.answer, TAKE_OVER);
        first.take_over();
        assert_eq!(first.told.forgotten.get(), 1);
        first.end(false);
        let second = Session::new(&place, true, true);
        assert_eq!(second.answer, USE);
        second.end(false);
        let delivery = Session::new(&place, true, false);
        assert_eq!(delivery.answer, USE);
        delivery.end(false);
    });
}

#[test]
fn a_delivery_claims_before_its_first_change_and_a_reader_never() {
    as_mail_user(|| {
        let place = scratch("delivery");
        let reader = Session::new(&place, true, false);
        assert_eq!(reader.answer, WITHOUT);
        reader.end(false);
        assert!(!place.claim().exists(), "a reader claimed");
        let mut delivery = Session::new(&place, true, false);
        delivery.before_change();
        assert!(place.claim().exists(), "a delivery did not claim");
        delivery.after_change(false);
        delivery.end(false);
    });
}

#[test]
fn deliveries_that_claim_at_the_same_moment_do_not_get_in_each_others_way() {
    as_mail_user(|| {
        let place = scratch("together");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mut delivery = Session::new(&place, true, false);
                        delivery.before_change();
                        delivery.after_change(false);
                        assert!(!delivery.told.has_said("cannot"));
                        delivery.end(false);
                    }
                });
            }
        });
        assert!(place.claim().exists());
        assert_eq!(Session::new(&place, true, true).answer, TAKE_OVER);
    });
}

#[test]
fn a_claim_from_elsewhere_is_answered_when_a_session_with_changes_ends() {
    as_mail_user(|| {
        let place = scratch("answered");
        let begin = || {
            let mut session = Session::new(&place, true, true);
            if session.answer == TAKE_OVER {
                session.take_over();
            }
            session
        };
        let mut changing = begin();
        let reading = begin();
        place.claim_elsewhere();
        let elsewhere = fs::read(place.claim()).unwrap();
        reading.end(false);
        assert_eq!(
            fs::read(place.claim()).unwrap(),
            elsewhere,
            "a reader claimed"
        );
        changing.before_change();
        changing.after_change(false);
        changing.end(false);
        assert_ne!(
            fs::read(place.claim()).unwrap(),
            elsewhere,
            "nobody else learns of it"
        );
        assert_eq!(
            begin().answer,
            TAKE_OVER,
            "the list index does not show what was done elsewhere"
        );
    });
}

#[test]
fn a_list_index_in_memory_is_recorded_no_more() {
    as_mail_user(|| {
        let place = scratch("memory");
        let mut session = Session::new(&place, true, true);
        session.take_over();
        session.before_change();
        session.after_change(true);
        session.end(true);
        assert_eq!(Session::new(&place, true, true).answer, TAKE_OVER);
    });
}

#[test]
fn nobody_is_vouched_for_beside_a_session_that_goes_without_because_of_a_doubt() {
    as_mail_user(|| {
        let place = scratch("doubt");
        let mut before = Session::new(&place, true, true);
        before.take_over();
        before.end(false);
        // INDEX cannot be asked who has the user.
        place.close_index(true);
        let without = Session::new(&place, true, true);
        assert_eq!(without.answer, WITHOUT);
        place.close_index(false);
        let beside = Session::new(&place, true, true);
        assert_eq!(
            beside.answer, WITHOUT,
            "what the first one changes would not be seen"
        );
        without.end(false);
        beside.end(false);
        let later = Session::new(&place, true, true);
        assert_eq!(later.answer, TAKE_OVER, "the record was not void");
    });
}

#[test]
fn what_dovecot_cannot_forget_is_not_recorded() {
    as_mail_user(|| {
        let place = scratch("stubborn");
        let mut session = Session::new(&place, true, true);
        session.told.forgets.set(false);
        session.take_over();
        assert!(session.told.has_said("cannot be written to"));
        session.end(false);
        assert_eq!(Session::new(&place, true, true).answer, TAKE_OVER);
    });
}

#[test]
fn a_panic_becomes_an_error_line() {
    static SAID: Mutex<Vec<(c_int, String)>> = Mutex::new(Vec::new());
    extern "C" fn log(_: *mut c_void, level: c_int, line: *const c_char) {
        // SAFETY: the other side passes a C string.
        let line = unsafe { CStr::from_ptr(line) };
        SAID.lock()
            .unwrap()
            .push((level, line.to_string_lossy().into_owned()));
    }
    extern "C" fn forget(_: *mut c_void) -> c_int {
        1
    }
    let caller = Caller {
        context: null_mut(),
        log,
        forget,
    };
    let result = guarded(caller, 7, |_| panic!("something\nis wrong"));
    assert_eq!(result, 7);
    assert_eq!(guarded(caller, 7, |_| 8), 8);
    let said = SAID.lock().unwrap();
    let [(0, line)] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert!(line.starts_with("internal error: "), "{line}");
    assert!(line.contains("something\\nis wrong"), "{line}");
}

#[test]
fn root_and_missing_strings_are_never_vouched_for() {
    for text in [
        null(),
        c"".as_ptr(),
        c"relative".as_ptr(),
        c"/a/../b".as_ptr(),
    ] {
        let place = Where {
            index_directory: text,
            list_index_directory: text,
            prefix: text,
            migration: null(),
            recheck: null(),
            maildirplusplus: false,
            owns: true,
            serves: true,
            keeps_rights: true,
            must_not_wait: true,
        };
        let told = border::Told::default();
        let mut answer = USE;
        // SAFETY: all of them live as long as the call.
        let list =
            unsafe { nfs_hostchange_list_new(&raw const place, told.caller(), &raw mut answer) };
        assert_eq!((list, answer), (null_mut(), WITHOUT));
        assert!(told.has_said("session without list index"));
    }
    if border::effective_user() == 0 {
        let index = CString::new("/nowhere").unwrap();
        let place = Where {
            index_directory: index.as_ptr(),
            list_index_directory: index.as_ptr(),
            prefix: c"list".as_ptr(),
            migration: null(),
            recheck: null(),
            maildirplusplus: false,
            owns: true,
            serves: true,
            keeps_rights: false,
            must_not_wait: true,
        };
        let told = border::Told::default();
        let mut answer = USE;
        // SAFETY: all of them live as long as the call.
        let list =
            unsafe { nfs_hostchange_list_new(&raw const place, told.caller(), &raw mut answer) };
        assert_eq!(answer, WITHOUT);
        assert!(told.has_said("the user's uid is 0"));
        // SAFETY: it is this one's, and not freed.
        unsafe { nfs_hostchange_list_free(list, false) };
        assert!(!Path::new("/nowhere").exists());
    }
}

#[test]
fn settings_are_written_as_dovecots_own() {
    as_mail_user(|| {
        for (setting, is_migration, is_recheck) in [
            (c"yes", true, false),
            (c"No", true, false),
            (c"perhaps", false, false),
            (c"", false, false),
            (c"0", true, true),
            (c"10", false, true),
            (c"5 secs", false, true),
            (c"1m", false, true),
            (c"-1", false, false),
            (c"1 fortnight", false, false),
            (c"99999999999", false, false),
        ] {
            let place = scratch("setting");
            let session = Session::with_settings(&place, Some(setting));
            for (name, is_right) in [
                ("nfs_hostchange_migration = ", is_migration),
                ("nfs_hostchange_recheck = ", is_recheck),
            ] {
                let is_said = session.told.has_said(name);
                assert_eq!(is_said, !is_right, "{name}{setting:?}");
            }
            assert!(!session.told.has_said("session without"), "{setting:?}");
            session.end(false);
        }
    });
}

/// The default of the setting, and a little.
const RECHECK: Duration = Duration::from_millis(1050);

#[test]
fn an_open_session_looks_again_after_a_second_and_forgets_what_another_backend_changed() {
    as_mail_user(|| {
        let place = scratch("again");
        let mut session = Session::new(&place, true, true);
        session.take_over();
        assert_eq!(session.told.forgotten.get(), 1);
        place.claim_elsewhere();
        let elsewhere = fs::read(place.claim()).unwrap();
        session.before_reading(false);
        assert_eq!(session.told.forgotten.get(), 1, "within a second");
        thread::sleep(RECHECK);
        session.before_reading(false);
        assert_eq!(session.told.forgotten.get(), 2, "after a second");
        assert_ne!(fs::read(place.claim()).unwrap(), elsewhere);
        thread::sleep(RECHECK);
        session.before_reading(false);
        assert_eq!(session.told.forgotten.get(), 2, "nothing new");
        // INDEX cannot be asked, so Dovecot could not read the folders again.
        place.claim_elsewhere();
        place.close_index(true);
        thread::sleep(RECHECK);
        session.before_reading(false);
        assert_eq!(session.told.forgotten.get(), 2, "nobody can tell");
        place.close_index(false);
        thread::sleep(RECHECK);
        session.before_reading(false);
        assert_eq!(session.told.forgotten.get(), 3, "it can be asked again");
        session.end(false);
    });
}

#[test]
fn a_reader_of_a_shared_mailbox_forgets_but_does_not_claim() {
    as_mail_user(|| {
        let place = scratch("guest");
        let mut owner = Session::new(&place, true, true);
        owner.take_over();
        owner.end(false);
        let mut guest = Session::new(&place, false, true);
        assert_eq!(guest.answer, USE);
        place.claim_elsewhere();
        let elsewhere = fs::read(place.claim()).unwrap();
        for forgotten in 1..3 {
            thread::sleep(RECHECK);
            guest.before_reading(false);
            assert_eq!(guest.told.forgotten.get(), forgotten);
            assert_eq!(fs::read(place.claim()).unwrap(), elsewhere, "it claimed");
        }
        guest.end(false);
        assert_eq!(fs::read(place.claim()).unwrap(), elsewhere, "it claimed");
    });
}

#[test]
fn an_open_session_claims_within_a_second_of_its_change() {
    as_mail_user(|| {
        let place = scratch("timer");
        let mut session = Session::new(&place, true, true);
        session.take_over();
        place.claim_elsewhere();
        let elsewhere = fs::read(place.claim()).unwrap();
        session.before_change();
        let wait = session.after_change(false);
        assert!((1..=1001).contains(&wait), "{wait} ms");
        session.look_after_change();
        assert_ne!(fs::read(place.claim()).unwrap(), elsewhere);
        assert_eq!(session.told.forgotten.get(), 2);
        let claimed = fs::metadata(place.claim()).unwrap().ino();
        assert_eq!(Session::new(&place, true, true).answer, USE, "not recorded");
        session.look_after_change();
        session.end(false);
        assert_eq!(fs::metadata(place.claim()).unwrap().ino(), claimed);
        let mut delivery = Session::new(&place, true, false);
        delivery.before_change();
        assert_eq!(
            delivery.after_change(false),
            0,
            "a delivery looks at its end"
        );
    });
}
