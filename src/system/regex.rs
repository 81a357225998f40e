//! POSIX extended regular expressions, by the C library.
//!
//! Dovecot gives the pattern of `%{if;text;~;pattern;...}` to regcomp(3), and no
//! crate has its syntax.

use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 1024;
/// Most copies that the intervals of a pattern may make of a part of it. The C
/// library really makes them, and takes gigabytes for `((a{255}){255}){255}`.
const MAX_COPIES: u32 = 1000;

/// Tells whether `pattern` is found anywhere in `text`, in the C locale.
///
/// # Errors
///
/// If the C library refuses the pattern, and if it would cost too much.
pub fn matches(pattern: &[u8], text: &[u8]) -> Result<bool, RegexError> {
    let backslash = pattern.iter().position(|&byte| byte == b'\\');
    if backslash.is_some_and(|at| pattern.get(at + 1).is_some_and(u8::is_ascii_digit)) {
        return Err(RegexError::BackReference);
    }
    if pattern.len() > MAX_PATTERN || copies(pattern).is_none_or(|copies| copies > MAX_COPIES) {
        return Err(RegexError::TooComplex);
    }
    let pattern = CString::new(pattern).map_err(|_| RegexError::Nul)?;
    let text = CString::new(text).map_err(|_| RegexError::Nul)?;
    Regex::compile(&pattern)?.is_found_in(&text)
}

/// The product of the intervals' larger bounds.
fn copies(pattern: &[u8]) -> Option<u32> {
    let mut product = 1_u32;
    for interval in pattern.split(|&byte| byte == b'{').skip(1) {
        let largest = interval
            .split(|byte| !byte.is_ascii_digit())
            .map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .take(2)
            .flatten()
            .max()
            .unwrap_or(1_u32);
        product = product.checked_mul(largest.max(1))?;
    }
    Some(product)
}

struct Regex(libc::regex_t);

impl Regex {
    fn compile(pattern: &CStr) -> Result<Self, RegexError> {
        let mut regex = MaybeUninit::<libc::regex_t>::zeroed();
        // SAFETY: the pattern is NUL-terminated, and regcomp only writes to the regex_t.
        let code =
            unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED) };
        if code == 0 {
            // SAFETY: regcomp returned 0, so it has filled it in.
            return Ok(Self(unsafe { regex.assume_init() }));
        }
        Err(RegexError::Refused(describe(code)))
    }

    fn is_found_in(&self, text: &CStr) -> Result<bool, RegexError> {
        // SAFETY: the regex_t is compiled, the text NUL-terminated; with room for 0
        // matches the pointer to them is not used.
        let code = unsafe { libc::regexec(&self.0, text.as_ptr(), 0, ptr::null_mut(), 0) };
        match code {
            0 => Ok(true),
            libc::REG_NOMATCH => Ok(false),
            _ => Err(RegexError::Refused(describe(code))),
        }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it is compiled, and freed only here.
        unsafe { libc::regfree(&mut self.0) }
    }
}

/// The C library's words for one of its codes.
fn describe(code: libc::c_int) -> String {
    let mut buffer = [0_u8; 128];
    // SAFETY: at most the buffer's length is written, with a NUL at the end; both C
    // libraries of Linux have fixed sentences and do not look at the regex_t.
    unsafe { libc::regerror(code, ptr::null(), buffer.as_mut_ptr().cast(), buffer.len()) };
    CStr::from_bytes_until_nul(&buffer)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Why a pattern was not tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegexError {
    /// The C library's reason
    Refused(String),
    /// `\1` may take exponential time
    BackReference,
    /// Too long, or too many copies by intervals
    TooComplex,
    /// The pattern or the text has a NUL byte
    Nul,
}

impl std::error::Error for RegexError {}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::BackReference => f.write_str("back-references are not supported"),
            Self::TooComplex => f.write_str("the pattern is too long or has too large intervals"),
            Self::Nul => f.write_str("there is a NUL byte"),
        }
    }
}
