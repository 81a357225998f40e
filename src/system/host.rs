//! The resolver.

use std::ffi::{CStr, CString};
use std::ptr;

/// The name with its domain, as gethostbyname(3) would give it: from /etc/hosts, or
/// the name server, which may take seconds to answer.
pub fn canonical_name(host_name: &[u8]) -> Option<Vec<u8>> {
    let host_name = CString::new(host_name).ok()?;
    let hints = libc::addrinfo {
        ai_flags: libc::AI_CANONNAME,
        ai_family: libc::AF_INET,
        ai_socktype: libc::SOCK_STREAM,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    let mut found = ptr::null_mut();
    // SAFETY: the name is NUL-terminated, the hints are complete, and `found` is only
    // looked at if the call succeeds.
    let code = unsafe { libc::getaddrinfo(host_name.as_ptr(), ptr::null(), &hints, &mut found) };
    if code != 0 {
        return None;
    }
    // SAFETY: on success the list has at least one entry; its first one has the name,
    // NUL-terminated, or a null pointer. The list is freed after the name is copied.
    unsafe {
        let name = (*found).ai_canonname;
        let copy = (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes().to_vec());
        libc::freeaddrinfo(found);
        copy
    }
}
