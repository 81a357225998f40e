//! What the C side calls. Nothing that goes wrong here may leave: not a panic, not an exit.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nfs_hostchange::config::{Configuration, migration_of_dovecot, recheck_of_dovecot};
use nfs_hostchange::dovecot::location::{Layout, Tracked};
use nfs_hostchange::event::{Events, Level};
use nfs_hostchange::log::one_line;
use nfs_hostchange::names::DEFAULT_CONFIGURATION;
use nfs_hostchange::nfs::directory::Migration;

use crate::list::{List, Place, Role, Use};

/// What the C side offers, and hands back to itself.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Its own.
    pub context: *mut c_void,
    /// Writes a line of importance 0 (error), 1 (warning) or 2 (info) to Dovecot's log.
    pub log: extern "C" fn(*mut c_void, c_int, *const c_char),
    /// Has Dovecot forget what is in the open list index; 0 if that is in memory, not in its file.
    pub forget: extern "C" fn(*mut c_void) -> c_int,
}

/// Where a list index is, and who has it. The strings need to live for the call only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Where {
    /// INDEX.
    pub index_directory: *const c_char,
    /// The directory part of LISTINDEX.
    pub list_index_directory: *const c_char,
    /// The file part.
    pub prefix: *const c_char,
    /// The setting `nfs_hostchange_migration`, NULL if the configuration file decides.
    pub migration: *const c_char,
    /// The same of `nfs_hostchange_recheck`.
    pub recheck: *const c_char,
    /// The layout is Maildir++.
    pub maildirplusplus: bool,
    /// The session is the owner's.
    pub owns: bool,
    /// It is an IMAP session.
    pub serves: bool,
    /// It has the user's rights at its end, too.
    pub keeps_rights: bool,
    /// Other clients wait while this one does.
    pub must_not_wait: bool,
}

/// The C side's answer to [`nfs_hostchange_list_new`].
pub const WITHOUT: c_int = 0;
/// The list index is to be used as it is.
pub const USE: c_int = 1;
/// It is to be used, but has to be taken over first.
pub const TAKE_OVER: c_int = 2;

/// A list, as the C side holds it.
#[derive(Debug)]
pub struct Handle {
    list: RefCell<List>,
    caller: Caller,
}

/// Dovecot's log.
#[derive(Debug)]
pub struct Log(Caller);

impl Log {
    fn forget(&self) -> bool {
        (self.0.forget)(self.0.context) != 0
    }
}

impl Events for Log {
    fn event(&self, level: Level, message: &dyn Display) {
        let number = match level {
            Level::Error => 0,
            Level::Warning => 1,
            Level::Info => 2,
        };
        let line = one_line(message.to_string().as_bytes());
        // Control characters, NUL among them, are escapes now.
        let line = CString::new(line).unwrap_or_default();
        (self.0.log)(self.0.context, number, line.as_ptr());
    }
}

/// Runs `work`; a panic becomes an error line and `otherwise`. Where it was, std tells on standard error,
/// which Dovecot logs too.
pub fn guarded<T>(caller: Caller, otherwise: T, work: impl FnOnce(&Log) -> T) -> T {
    let log = Log(caller);
    catch_unwind(AssertUnwindSafe(|| work(&log))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let message = format!("internal error: {}", said.unwrap_or_default());
        let told = catch_unwind(AssertUnwindSafe(|| log.event(Level::Error, &message)));
        drop(told);
        otherwise
    })
}

/// The configuration file, read once per process. What is wrong with it is said each time.
fn configuration(events: &dyn Events) -> &'static Configuration {
    static CONFIGURATION: OnceLock<(Configuration, Option<String>)> = OnceLock::new();
    let (configuration, mistake) =
        CONFIGURATION.get_or_init(
            || match Configuration::read(Path::new(DEFAULT_CONFIGURATION)) {
                Ok(configuration) => (configuration.unwrap_or_default(), None),
                Err(error) => (
                    Configuration::of_unusable_file(),
                    Some(format!("using the built-in defaults: {error}")),
                ),
            },
        );
    if let Some(mistake) = mistake {
        events.event(Level::Error, mistake);
    }
    configuration
}

fn migration(setting: Option<&CStr>, configured: Migration, events: &dyn Events) -> Migration {
    let Some(setting) = setting else {
        return configured;
    };
    migration_of_dovecot(setting.to_bytes()).unwrap_or_else(|| {
        let value = setting.to_string_lossy();
        events.event(
            Level::Error,
            &format_args!("nfs_hostchange_migration = {value}: write yes or no"),
        );
        Migration::Unknown
    })
}

fn recheck(setting: Option<&CStr>, configured: Duration, events: &dyn Events) -> Duration {
    let Some(setting) = setting else {
        return configured;
    };
    let text = setting.to_string_lossy();
    recheck_of_dovecot(&text).unwrap_or_else(|| {
        events.event(
            Level::Error,
            &format_args!(
                "nfs_hostchange_recheck = {text}: write a number of seconds, or 0 for never"
            ),
        );
        configured
    })
}

/// # Safety
/// `text` is NULL or a C string that lives as long as is made of the result.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

fn place(where_: &Where, events: &dyn Events) -> Option<Place> {
    // SAFETY: the C side's strings live until the call ends; everything is copied.
    let [index, list_index, prefix, setting, every] = unsafe {
        [
            text(where_.index_directory),
            text(where_.list_index_directory),
            text(where_.prefix),
            text(where_.migration),
            text(where_.recheck),
        ]
    };
    let layout = match where_.maildirplusplus {
        true => Layout::MaildirPlusPlus,
        false => Layout::Fs,
    };
    let bytes = |text: Option<&CStr>| text.map_or(Vec::new(), |text| text.to_bytes().to_vec());
    let tracked = Tracked::new(
        &bytes(index),
        &bytes(list_index),
        &bytes(prefix),
        layout.claim_name(),
    );
    let tracked = match tracked {
        Ok(tracked) => tracked,
        Err(reason) => {
            let reason = format!("session without list index: {reason}");
            events.event(Level::Error, &reason);
            return None;
        }
    };
    let configuration = configuration(events);
    Some(Place {
        tracked,
        migration: migration(setting, configuration.migration, events),
        host: configuration.hostname.clone(),
        lock_timeout: match where_.must_not_wait {
            true => Duration::ZERO,
            false => configuration.lock_timeout,
        },
        role: match (where_.owns, where_.serves) {
            (true, true) => Role::Serves,
            (true, false) => Role::Visits,
            (false, _) => Role::Guest,
        },
        keeps_rights: where_.keeps_rights,
        looks_every: match where_.serves {
            true => recheck(every, configuration.recheck, events),
            false => Duration::ZERO,
        },
    })
}

/// Looks at both sides of a list index that Dovecot has not opened yet. `use_` becomes one of
/// [`WITHOUT`], [`USE`] and [`TAKE_OVER`]; NULL, with [`WITHOUT`] or [`USE`], if there is nothing
/// more to do.
///
/// # Safety
/// `where_` and `use_` point to one each; the strings in `where_` are NULL or C strings; `caller` works
/// until the list is [freed](nfs_hostchange_list_free).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nfs_hostchange_list_new(
    where_: *const Where,
    caller: Caller,
    use_: *mut c_int,
) -> *mut Handle {
    let list = guarded(caller, None, |log| {
        // SAFETY: the caller promises one.
        place(unsafe { &*where_ }, log).map(List::new)
    });
    let (handle, answer) = match list {
        None => (std::ptr::null_mut(), WITHOUT),
        Some(mut list) => {
            // Should it break off here, the session goes without, and its changes are claimed.
            guarded(caller, (), |log| list.begin(log));
            let answer = match list.using() {
                Use::NothingLocal | Use::Used | Use::Unrecorded => USE,
                Use::ToTakeOver => TAKE_OVER,
                Use::Without => WITHOUT,
            };
            let is_local = list.using() != Use::NothingLocal;
            let list = RefCell::new(list);
            let handle = is_local.then(|| Box::into_raw(Box::new(Handle { list, caller })));
            (handle.unwrap_or(std::ptr::null_mut()), answer)
        }
    };
    // SAFETY: the caller promises one.
    unsafe { *use_ = answer };
    handle
}

/// # Safety
/// `handle` is from [`nfs_hostchange_list_new`], not NULL and not freed.
unsafe fn with(handle: *const Handle, work: impl FnOnce(&mut List, &Log)) {
    // SAFETY: the caller's promise.
    let handle = unsafe { &*handle };
    guarded(handle.caller, (), |log| {
        // Dovecot may come back here while it forgets what is in a list index; that is none of its
        // changes.
        if let Ok(mut list) = handle.list.try_borrow_mut() {
            work(&mut list, log);
        }
    });
}

/// The list index, which Dovecot can open now, is about to be used. `in_memory`: it is not in a file
/// any more.
///
/// # Safety
/// `handle` is from [`nfs_hostchange_list_new`], not NULL and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nfs_hostchange_list_before_reading(
    handle: *const Handle,
    in_memory: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        with(handle, |list, log| {
            list.before_reading(log, in_memory, || log.forget());
        });
    }
}

/// Something that a list index shows is about to be changed.
///
/// # Safety
/// `handle` is from [`nfs_hostchange_list_new`], not NULL and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nfs_hostchange_list_before_change(handle: *const Handle) {
    // SAFETY: the caller's promise.
    unsafe { with(handle, |list, log| list.before_change(log)) }
}

/// It was changed, or that failed half-way. `in_memory`: the list index is not in a file any more.
/// If the answer is not 0, [`nfs_hostchange_list_look_after_change`] is to be called after so many
/// milliseconds.
///
/// # Safety
/// `handle` is from [`nfs_hostchange_list_new`], not NULL and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nfs_hostchange_list_after_change(
    handle: *const Handle,
    in_memory: bool,
) -> c_uint {
    let mut milliseconds = 0;
    // SAFETY: the caller's promise.
    unsafe {
        with(handle, |list, log| {
            let left = list.after_change(log, in_memory, || log.forget());
            milliseconds = left.map_or(0, |left| left.as_millis() as c_uint + 1);
        });
    }
    milliseconds
}

/// Some time has passed since something was changed.
///
/// # Safety
/// `handle` is from [`nfs_hostchange_list_new`], not NULL and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nfs_hostchange_list_look_after_change(handle: *const Handle) {
    // SAFETY: the caller's promise.
    unsafe {
        with(handle, |list, log| {
            list.look_after_change(log, || log.forget())
        })
    }
}

/// The session ends. `handle` is gone afterwards.
///
/// # Safety
/// `handle` is from [`nfs_hostchange_list_new`], not NULL and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nfs_hostchange_list_free(handle: *mut Handle, in_memory: bool) {
    // SAFETY: the caller's promise; nobody has it afterwards.
    unsafe {
        with(handle, |list, log| list.end(log, in_memory));
        drop(Box::from_raw(handle));
    }
}
