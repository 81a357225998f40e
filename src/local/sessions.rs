//! Sessions without a list index that are still open.
//!
//! Such a session does not see what is in the list index, but it does not write to it either:
//! a folder that it creates would be missing in a list index that another session of the same
//! user builds beside it, and stay missing. So a login leaves a note of such a session in the
//! lock file, and nobody is vouched for while it is open. A new user's first session is one: it
//! begins before there is an INDEX, and creates the first folders.
//!
//! The session is known by its connection, which outlives the wrapper and the whole post-login
//! chain: the inode number of the socket that is descriptor 0.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Where the kernel lists the sockets of this network namespace (proc_net(5)), and in which
/// column their inode numbers are. A connection with TLS reaches the mail process through a
/// UNIX socket of the login process.
const SOCKET_TABLES: [(&str, usize); 3] = [
    ("/proc/net/unix", 6),
    ("/proc/net/tcp", 9),
    ("/proc/net/tcp6", 9),
];

/// How many sessions are remembered, the newest; Dovecot's mail_max_userip_connections is 10.
pub const MOST: usize = 64;

/// The connection of this login, if it has one.
pub fn own() -> Option<u64> {
    crate::system::descriptors::socket_of_client()
}

/// Those of `sessions` that are still open, in their order.
///
/// # Errors
/// If the kernel's tables cannot be read; nobody knows then.
pub fn still_open(sessions: &[u64]) -> io::Result<Vec<u64>> {
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    let mut listed = listed_of(sessions)?;
    if !sessions.iter().all(|session| listed.contains(session)) {
        // The kernel's list changes while it is read, so that one look may miss a socket.
        listed.extend(listed_of(sessions)?);
    }
    let open = sessions.iter().filter(|session| listed.contains(session));
    Ok(open.copied().collect())
}

/// Those of `sessions` that the kernel lists.
fn listed_of(sessions: &[u64]) -> io::Result<Vec<u64>> {
    let mut open = Vec::new();
    for (table, column) in SOCKET_TABLES {
        let file = match File::open(table) {
            // A kernel without IPv6 has no table for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {
                continue;
            }
            file => file?,
        };
        for line in BufReader::new(file).split(b'\n') {
            let inode = inode_in(&line?, column);
            open.extend(inode.filter(|inode| sessions.contains(inode)));
        }
    }
    Ok(open)
}

fn inode_in(line: &[u8], column: usize) -> Option<u64> {
    let field = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|field| !field.is_empty())
        .nth(column)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}
