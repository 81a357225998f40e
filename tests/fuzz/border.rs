//! The plugin's border to C under fuzzed strings and calls, and what its tests share with that.

#![allow(unsafe_code)]
#![allow(dead_code, reason = "each program uses some of it")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use nfs_hostchange::system::credentials::{RootThread, UserId};
use nfs_hostchange_plugin::border::*;

/// Nobody's uid, whose rights the work is done with if this is root.
const MAIL_USER: UserId = UserId(65533);

pub fn effective_user() -> u32 {
    nfs_hostchange::system::credentials::effective_user().0
}

/// Runs `work` as somebody who is not root.
pub fn as_mail_user(work: impl FnOnce()) {
    match RootThread::new() {
        Ok(Some(root)) => root.work_as(MAIL_USER, work).unwrap(),
        _ => work(),
    }
}

/// What the C side is told and asked.
#[derive(Default)]
pub struct Told {
    lines: RefCell<Vec<String>>,
    pub forgotten: Cell<u32>,
    pub forgets: Cell<bool>,
}

extern "C" fn log(context: *mut c_void, level: c_int, line: *const c_char) {
    assert!((0..=2).contains(&level));
    // SAFETY: the context is a Told, and the other side passes a C string.
    let (told, line) = unsafe { (&*context.cast::<Told>(), CStr::from_ptr(line)) };
    let line = line.to_str().expect("a line is UTF-8");
    assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    assert!(!line.contains("internal error"), "{line}");
    told.lines.borrow_mut().push(line.to_owned());
}

extern "C" fn forget(context: *mut c_void) -> c_int {
    // SAFETY: the context is a Told.
    let told = unsafe { &*context.cast::<Told>() };
    told.forgotten.set(told.forgotten.get() + 1);
    told.forgets.get().into()
}

impl Told {
    pub fn caller(&self) -> Caller {
        Caller {
            context: ptr::from_ref(self).cast_mut().cast(),
            log,
            forget,
        }
    }

    pub fn has_said(&self, what: &str) -> bool {
        self.lines.borrow().iter().any(|line| line.contains(what))
    }
}

/// INDEX and LISTINDEX of one user, gone when this is.
pub struct Place {
    directory: PathBuf,
    pub index: CString,
    pub list_index: CString,
    pub prefix: CString,
}

static PLACES: AtomicU32 = AtomicU32::new(0);

/// A new place, whose INDEX is there.
pub fn scratch(name: &str) -> Place {
    Place::new(name, b"index", b"local/user", b"dovecot.list.index")
}

impl Place {
    /// The three are below a new directory. Strings without NUL.
    pub fn new(name: &str, index: &[u8], list_index: &[u8], prefix: &[u8]) -> Place {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!(
            "nfs-hostchange-border.{}.{number}.{name}",
            std::process::id()
        ));
        fs::create_dir(&directory).unwrap();
        let below = |part: &[u8]| {
            let path = [directory.as_os_str().as_bytes(), b"/", part].concat();
            CString::new(path).unwrap()
        };
        let place = Place {
            index: below(index),
            list_index: below(list_index),
            prefix: CString::new(prefix).unwrap(),
            directory,
        };
        // Whatever cannot be made is not there.
        if place.is_below() {
            let _ = fs::create_dir_all(place.index_path());
        }
        place
    }

    /// INDEX does not climb out of the place. The border refuses one that does; nobody here may touch it.
    fn is_below(&self) -> bool {
        let mut parts = self.index_path().components();
        !parts.any(|part| part == Component::ParentDir)
    }

    fn index_path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.index.to_bytes()))
    }

    pub fn claim(&self) -> PathBuf {
        self.index_path().join(".lasthost")
    }

    /// Nobody may look into INDEX, or its owner may again.
    pub fn close_index(&self, closed: bool) {
        let mode = if closed { 0 } else { 0o700 };
        fs::set_permissions(self.index_path(), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Another backend claims the user.
    pub fn claim_elsewhere(&self) {
        let new = self.index_path().join(".new");
        let claimed =
            fs::write(&new, "elsewhere.example.org\n").and_then(|()| fs::rename(new, self.claim()));
        // There may be no INDEX.
        drop(claimed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// One session's list, as the C side holds it.
pub struct Session {
    list: *mut Handle,
    pub answer: c_int,
    pub told: Box<Told>,
}

impl Session {
    pub fn new(place: &Place, owns: bool, serves: bool) -> Session {
        Session::of(place, None, owns, serves, true)
    }

    /// Whose settings are both SETTING.
    pub fn with_settings(place: &Place, setting: Option<&CStr>) -> Session {
        Session::of(place, setting, true, true, true)
    }

    fn of(
        place: &Place,
        setting: Option<&CStr>,
        owns: bool,
        serves: bool,
        keeps_rights: bool,
    ) -> Session {
        let told = Box::new(Told::default());
        told.forgets.set(true);
        let wanted = Where {
            index_directory: place.index.as_ptr(),
            list_index_directory: place.list_index.as_ptr(),
            prefix: place.prefix.as_ptr(),
            migration: setting.map_or(ptr::null(), CStr::as_ptr),
            recheck: setting.map_or(ptr::null(), CStr::as_ptr),
            maildirplusplus: false,
            owns,
            serves,
            keeps_rights,
            must_not_wait: true,
        };
        let mut answer = -1;
        // SAFETY: the strings live as long as the place, and what is told as long as the list.
        let list =
            unsafe { nfs_hostchange_list_new(&raw const wanted, told.caller(), &raw mut answer) };
        assert!([WITHOUT, USE, TAKE_OVER].contains(&answer));
        assert!(!list.is_null() || answer != TAKE_OVER);
        Session { list, answer, told }
    }

    pub fn before_reading(&mut self, in_memory: bool) {
        if !self.list.is_null() {
            // SAFETY: it is ours, and not freed.
            unsafe { nfs_hostchange_list_before_reading(self.list, in_memory) };
        }
    }

    pub fn take_over(&mut self) {
        self.before_reading(false);
    }

    pub fn before_change(&mut self) {
        if !self.list.is_null() {
            // SAFETY: it is ours, and not freed.
            unsafe { nfs_hostchange_list_before_change(self.list) };
        }
    }

    /// After how many milliseconds it wants to look.
    pub fn after_change(&mut self, in_memory: bool) -> c_uint {
        if self.list.is_null() {
            return 0;
        }
        // SAFETY: it is ours, and not freed.
        unsafe { nfs_hostchange_list_after_change(self.list, in_memory) }
    }

    pub fn look_after_change(&mut self) {
        if !self.list.is_null() {
            // SAFETY: it is ours, and not freed.
            unsafe { nfs_hostchange_list_look_after_change(self.list) };
        }
    }

    pub fn end(mut self, in_memory: bool) {
        self.free(in_memory);
    }

    fn free(&mut self, in_memory: bool) {
        let list = std::mem::replace(&mut self.list, ptr::null_mut());
        if !list.is_null() {
            // SAFETY: it is ours, and nobody has it any more.
            unsafe { nfs_hostchange_list_free(list, in_memory) };
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.free(false);
    }
}

/// Three strings and a setting with NUL bytes in between, and then what happens, a byte each. What
/// is recorded at the end was forgotten before.
pub fn border(data: &[u8]) {
    let mut parts = data.splitn(5, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (index, list_index, prefix, setting, calls) = (part(), part(), part(), part(), part());
    // What is too long for a name cannot be made.
    let place = Place::new("fuzz", index, list_index, prefix);
    let setting = (!setting.is_empty()).then(|| CString::new(setting).unwrap());
    let setting = setting.as_deref();
    let mut session = Session::of(&place, setting, true, true, true);
    for &call in calls.iter().take(32) {
        match call % 8 {
            0 => session.before_reading(call & 8 != 0),
            1 => session.before_change(),
            2 => drop(session.after_change(call & 8 != 0)),
            3 => session.look_after_change(),
            4 if place.is_below() => place.claim_elsewhere(),
            5 => session.told.forgets.set(call & 8 != 0),
            6 if place.is_below() => drop(fs::remove_dir_all(place.index_path())),
            4 | 6 => {}
            _ => {
                let flag = |bit: u8| call & bit != 0;
                session.end(flag(64));
                session = Session::of(&place, setting, flag(8), flag(16), flag(32));
            }
        }
    }
}
