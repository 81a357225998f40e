//! Connections, known by what no other one has: the kernel's cookie of the socket (socket(7),
//! SO_COOKIE), asked for past /proc by sock_diag(7), which needs no privileges.

use std::fmt;
use std::mem::{size_of, size_of_val};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::str::FromStr;

use libc::c_int;
use nix::errno::Errno;

/// One end of a connection on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The network namespace, by its inode number; 0 where /proc does not say.
    namespace: u64,
    cookie: u64,
    address: Address,
}

/// How the kernel finds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    /// By its inode number.
    Unix(u32),
    /// By both addresses and ports, its own first, as the kernel keeps them.
    Tcp {
        family: u8,
        ports: [u16; 2],
        addresses: [u128; 2],
    },
}

/// What is known about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A process has it.
    Open,
    /// No process has it.
    Gone,
    /// It is one of another network namespace, of which nothing can be said here.
    Elsewhere,
}

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpId {
    ports: [u16; 2],
    addresses: [[u8; 16]; 2],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
struct TcpRequest {
    header: libc::nlmsghdr,
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: TcpId,
}

/// `struct nlmsghdr` and `struct unix_diag_req`.
#[repr(C)]
struct UnixRequest {
    header: libc::nlmsghdr,
    family: u8,
    protocol: u8,
    padding: u16,
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Where the inode number is in `struct inet_diag_msg`, behind the `struct nlmsghdr`.
const TCP_INODE: usize = 16 + 68;

impl Connection {
    /// The client's, descriptor 0; `None` if that is no socket, or one of a kind that sock_diag
    /// cannot be asked for here.
    pub fn of_client() -> Option<Self> {
        let cookie = option::<u64>(0, libc::SO_COOKIE)?;
        let address = match option::<c_int>(0, libc::SO_DOMAIN)? {
            libc::AF_UNIX => {
                let status = nix::sys::stat::fstat(super::descriptors::client()).ok()?;
                Address::Unix(status.st_ino.try_into().ok()?)
            }
            family @ (libc::AF_INET | libc::AF_INET6) => {
                let (own, own_port) = name(libc::getsockname)?;
                let (other, other_port) = name(libc::getpeername)?;
                Address::Tcp {
                    family: family as u8,
                    ports: [own_port, other_port],
                    addresses: [own, other],
                }
            }
            _ => return None,
        };
        let connection = Self {
            namespace: network_namespace(),
            cookie,
            address,
        };
        // A kernel that cannot be asked about it now will not say later when it is gone.
        matches!(connection.state(), Ok(State::Open)).then_some(connection)
    }

    /// Whether any process has it.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn state(&self) -> nix::Result<State> {
        let here = network_namespace();
        if self.namespace != 0 && here != 0 && self.namespace != here {
            return Ok(State::Elsewhere);
        }
        let mut answer = [0; 512];
        let length = match self.address {
            Address::Unix(inode) => ask(&self.unix_request(inode), &mut answer),
            Address::Tcp {
                family,
                ports,
                addresses,
            } => ask(&self.tcp_request(family, ports, addresses), &mut answer),
        };
        let length = match length {
            // ESTALE: there is one, but with another cookie.
            Err(Errno::ENOENT | Errno::ESTALE) => return Ok(State::Gone),
            length => length?,
        };
        // What the kernel finishes by itself belongs to no file any more.
        let orphaned = matches!(self.address, Address::Tcp { .. })
            && (length < TCP_INODE + 4 || answer[TCP_INODE..TCP_INODE + 4] == [0; 4]);
        Ok(if orphaned { State::Gone } else { State::Open })
    }

    fn cookie_halves(&self) -> [u32; 2] {
        [self.cookie as u32, (self.cookie >> 32) as u32]
    }

    fn unix_request(&self, inode: u32) -> UnixRequest {
        UnixRequest {
            header: header(size_of::<UnixRequest>()),
            family: libc::AF_UNIX as u8,
            protocol: 0,
            padding: 0,
            states: u32::MAX,
            inode,
            show: 0,
            cookie: self.cookie_halves(),
        }
    }

    fn tcp_request(&self, family: u8, ports: [u16; 2], addresses: [u128; 2]) -> TcpRequest {
        TcpRequest {
            header: header(size_of::<TcpRequest>()),
            family,
            protocol: libc::IPPROTO_TCP as u8,
            extensions: 0,
            padding: 0,
            states: u32::MAX,
            id: TcpId {
                ports: ports.map(u16::to_be),
                addresses: addresses.map(u128::to_be_bytes),
                interface: 0,
                cookie: self.cookie_halves(),
            },
        }
    }
}

/// `unix:<namespace>:<cookie>:<inode>` or `tcp<family>:<namespace>:<cookie>:<port>:<port>:<address>:<address>`,
/// all but the family in hexadecimal.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, cookie) = (self.namespace, self.cookie);
        match self.address {
            Address::Unix(inode) => write!(f, "unix:{namespace:x}:{cookie:x}:{inode:x}"),
            Address::Tcp {
                family,
                ports: [own_port, other_port],
                addresses: [own, other],
            } => write!(
                f,
                "tcp{family}:{namespace:x}:{cookie:x}:{own_port:x}:{other_port:x}:{own:x}:{other:x}"
            ),
        }
    }
}

impl FromStr for Connection {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        fn number<T: TryFrom<u128>>(text: Option<&str>) -> Result<T, ()> {
            let text = text.ok_or(())?;
            let hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u128::from_str_radix(text, 16).map_err(|_| ())?;
            hexadecimal
                .then(|| number.try_into().ok())
                .flatten()
                .ok_or(())
        }
        let mut fields = text.split(':');
        let kind = fields.next().ok_or(())?;
        let (namespace, cookie) = (number(fields.next())?, number(fields.next())?);
        let address = match kind.strip_prefix("tcp") {
            Some(family) => {
                let ports = [number(fields.next())?, number(fields.next())?];
                let addresses = [number(fields.next())?, number(fields.next())?];
                Address::Tcp {
                    family: family.parse().map_err(|_| ())?,
                    ports,
                    addresses,
                }
            }
            None if kind == "unix" => Address::Unix(number(fields.next())?),
            None => return Err(()),
        };
        match fields.next() {
            None => Ok(Self {
                namespace,
                cookie,
                address,
            }),
            Some(_) => Err(()),
        }
    }
}

fn network_namespace() -> u64 {
    nix::sys::stat::stat("/proc/self/ns/net").map_or(0, |status| status.st_ino)
}

/// A number that the kernel keeps for the socket `descriptor`.
fn option<T: Default>(descriptor: c_int, option: c_int) -> Option<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has room for `length` bytes; a descriptor that is no socket is an error.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of::<T>()).then_some(value)
}

/// getsockname(2) or getpeername(2).
type NameCall = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

/// Address and port of one end of descriptor 0. An IPv4 address is in the first four bytes, as in
/// `struct inet_diag_sockid`.
fn name(call: NameCall) -> Option<(u128, u16)> {
    // SAFETY: zero is a valid sockaddr_storage.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: there is room for `length` bytes.
    if unsafe { call(0, (&raw mut address).cast(), &raw mut length) } != 0 {
        return None;
    }
    match c_int::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: that is what the kernel filled it with; the storage is aligned for all.
            let v4 = unsafe { &*(&raw const address).cast::<libc::sockaddr_in>() };
            let bytes = u32::from_be(v4.sin_addr.s_addr);
            Some((u128::from(bytes) << 96, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const address).cast::<libc::sockaddr_in6>() };
            let bytes = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some((bytes.into(), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

fn header(length: usize) -> libc::nlmsghdr {
    libc::nlmsghdr {
        nlmsg_len: length as u32,
        nlmsg_type: SOCK_DIAG_BY_FAMILY,
        nlmsg_flags: libc::NLM_F_REQUEST as u16,
        nlmsg_seq: 0,
        nlmsg_pid: 0,
    }
}

/// Sends one request and takes its answer: its length.
fn ask<T>(request: &T, answer: &mut [u8; 512]) -> nix::Result<usize> {
    // SAFETY: it takes three numbers.
    let socket = Errno::result(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        )
    })?;
    // SAFETY: it was just made, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `request` is one of the structures above, without padding between their fields.
    Errno::result(unsafe {
        libc::send(
            socket.as_raw_fd(),
            std::ptr::from_ref(request).cast(),
            size_of::<T>(),
            0,
        )
    })?;
    // The kernel has answered before send returns.
    // SAFETY: there is room for as many bytes.
    let length = Errno::result(unsafe {
        libc::recv(
            socket.as_raw_fd(),
            answer.as_mut_ptr().cast(),
            answer.len(),
            libc::MSG_DONTWAIT,
        )
    })? as usize;
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4).filter(|_| at + 4 <= length);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(i32::from_ne_bytes)
    };
    let kind = number(4).ok_or(Errno::EPROTO)? as u16;
    if kind == SOCK_DIAG_BY_FAMILY {
        return Ok(length);
    }
    // NLMSG_ERROR: the negative errno.
    match number(size_of::<libc::nlmsghdr>()) {
        Some(negative) if kind == libc::NLMSG_ERROR as u16 && negative < 0 => {
            Err(Errno::from_raw(-negative))
        }
        _ => Err(Errno::EPROTO),
    }
}
