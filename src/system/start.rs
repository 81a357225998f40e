//! How the wrapper comes to life and how it ends.
//!
//! The wrapper has no Rust `main`: the standard library's start-up would ignore SIGPIPE,
//! open /dev/null on closed descriptors for good and prepare a signal stack, all of which
//! the executed program could see or the login would pay for.

use std::ffi::{CStr, c_char, c_int};

use nix::errno::Errno;

/// The argument and environment vectors exactly as the kernel handed them over.
///
/// They live as long as the process, so the strings are `'static`.
#[derive(Debug)]
pub struct Start {
    arguments: Vec<&'static CStr>,
    environment: Vec<&'static CStr>,
}

impl Start {
    /// Wraps the vectors that the C start-up code passed to `main`.
    ///
    /// # Safety
    /// `argv` and `envp` must be the vectors that `main` was called with, untouched.
    pub unsafe fn from_main(argv: *const *const c_char, envp: *const *const c_char) -> Self {
        // SAFETY: the caller promises NULL-terminated vectors of C strings that are never freed.
        unsafe {
            Self {
                arguments: strings(argv),
                environment: strings(envp),
            }
        }
    }

    /// argv, the program's own name first; empty if the caller passed none.
    pub fn arguments(&self) -> &[&'static CStr] {
        &self.arguments
    }

    /// The environment in its order, with duplicates and with entries that have no `=`.
    pub fn environment(&self) -> &[&'static CStr] {
        &self.environment
    }
}

/// # Safety
/// `vector` is NULL or a NULL-terminated array of C strings that live for ever.
unsafe fn strings(vector: *const *const c_char) -> Vec<&'static CStr> {
    if vector.is_null() {
        return Vec::new();
    }
    let mut length = 0;
    // SAFETY: the array is NULL-terminated, so every index up to that NULL may be read.
    while unsafe { !(*vector.add(length)).is_null() } {
        length += 1;
    }
    (0..length)
        // SAFETY: as above, and every entry before the NULL is a C string.
        .map(|i| unsafe { CStr::from_ptr(*vector.add(i)) })
        .collect()
}

/// Whether the kernel marked this process as set-uid, set-gid or with file capabilities
/// (AT_SECURE, getauxval(3)).
pub fn is_secure_execution() -> bool {
    // SAFETY: getauxval only reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Becomes `program`; returns only if that failed.
pub fn execute(program: &CStr, arguments: &[&CStr], environment: &[impl AsRef<CStr>]) -> Errno {
    let Err(errno) = nix::unistd::execve(program, arguments, environment);
    errno
}

/// Ends the process at once, with a status of sysexits(3).
pub fn exit(status: c_int) -> ! {
    // SAFETY: _exit ends the process; there is nothing to flush.
    unsafe { libc::_exit(status) }
}

/// Defines the C `main` of the wrapper, which calls `$login(Start) -> !`.
#[macro_export]
macro_rules! entry_point {
    ($login:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _argc: ::std::ffi::c_int,
            argv: *const *const ::std::ffi::c_char,
            envp: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: these are main's own vectors.
            $login(unsafe { $crate::system::start::Start::from_main(argv, envp) })
        }
    };
}
