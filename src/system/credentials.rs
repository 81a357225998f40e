//! User and group ids: taking a user's for a while, and dropping a set-uid caller's for good.
//!
//! The raw system calls are used, not the C library's functions: those change every thread of
//! the process by signals and cost several calls more (nptl(7)), while these change the calling
//! thread alone, which is what both the single-threaded wrapper and the parallel sweep want.

use libc::c_int;
use std::marker::PhantomData;

use nix::errno::Errno;

/// A user id, so that a group id cannot be passed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserId(pub u32);

/// A group id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupId(pub u32);

/// Leaves the id as it is (setresuid(2): -1).
const UNCHANGED: u32 = u32::MAX;

/// The effective user id of this thread.
pub fn effective_user() -> UserId {
    UserId(nix::unistd::geteuid().as_raw())
}

/// The ids that file access is checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Effective user id.
    pub user: UserId,
    /// Effective group id.
    pub group: GroupId,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Identity {
    /// The effective ids that this thread has now.
    pub fn current() -> nix::Result<Self> {
        // SAFETY: with a size of 0 getgroups writes nothing and returns the number of groups.
        let count = Errno::result(unsafe { libc::getgroups(0, std::ptr::null_mut()) })?;
        let mut groups = vec![0; count as usize];
        if count > 0 {
            // SAFETY: the buffer has room for `count` ids.
            let got = Errno::result(unsafe { libc::getgroups(count, groups.as_mut_ptr()) })?;
            groups.truncate(got as usize);
        }
        Ok(Self {
            user: effective_user(),
            group: GroupId(nix::unistd::getegid().as_raw()),
            groups,
        })
    }

    /// Groups first, then the group, then the user: the order that needs the most privilege
    /// first (setgroups needs CAP_SETGID, which leaves with user id 0).
    fn assume(&self) -> nix::Result<()> {
        set_groups(&self.groups)?;
        set_effective(libc::SYS_setresgid, self.group.0)?;
        set_effective(libc::SYS_setresuid, self.user.0)
    }

    /// The same in reverse: user id 0 first, it allows the rest.
    fn resume(&self) -> nix::Result<()> {
        set_effective(libc::SYS_setresuid, self.user.0)?;
        set_effective(libc::SYS_setresgid, self.group.0)?;
        set_groups(&self.groups)
    }
}

/// While this lives, the thread has the user's ids; dropping it brings the first ids back.
#[derive(Debug)]
pub struct Assumed {
    original: Identity,
    user: Identity,
    /// Every change of ids clears it (prctl(2)); the executed program must find it as it was.
    parent_death_signal: c_int,
}

impl Assumed {
    /// Takes on the ids of `user`. Needs root.
    pub fn new(user: Identity) -> nix::Result<Self> {
        // Made before the first change: a change that fails half-way is undone by Drop.
        let assumed = Self {
            original: Identity::current()?,
            user,
            parent_death_signal: parent_death_signal()?,
        };
        assumed.user.assume()?;
        Ok(assumed)
    }

    /// Runs `work` with the first ids, then takes on the user's again. Ends the process if that
    /// is refused: going on as root is worse than a login that fails.
    pub fn suspended<T>(&self, work: impl FnOnce() -> T) -> T {
        self.restore();
        struct Again<'a>(&'a Identity);
        impl Drop for Again<'_> {
            fn drop(&mut self) {
                if let Err(errno) = self.0.assume() {
                    die("cannot take on the user's ids again", errno);
                }
            }
        }
        let _again = Again(&self.user);
        work()
    }

    fn restore(&self) {
        if let Err(errno) = self.original.resume() {
            die("cannot restore the first ids", errno);
        }
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        self.restore();
        if self.parent_death_signal != 0 {
            set_parent_death_signal(self.parent_death_signal);
        }
    }
}

/// A thread of root's that works with the rights of one user after the other, and with no group's.
///
/// A user's own files need no group, and two changes of ids for each user are cheap.
#[derive(Debug)]
pub struct RootThread {
    /// Another thread would still have root's groups.
    _not_send: PhantomData<*const ()>,
}

impl RootThread {
    /// Gives up the groups of this thread, for good; `None` if it is not root's.
    pub fn new() -> nix::Result<Option<Self>> {
        /// Debian's `nogroup`, to which nothing belongs.
        const NO_GROUP: u32 = 65534;
        if effective_user().0 != 0 {
            return Ok(None);
        }
        set_groups(&[])?;
        set_effective(libc::SYS_setresgid, NO_GROUP)?;
        Ok(Some(Self {
            _not_send: PhantomData,
        }))
    }

    /// Runs `work` with the rights of `user`.
    pub fn work_as<T>(&self, user: UserId, work: impl FnOnce() -> T) -> nix::Result<T> {
        struct Root;
        impl Drop for Root {
            fn drop(&mut self) {
                if let Err(errno) = set_effective(libc::SYS_setresuid, 0) {
                    die("cannot become root again", errno);
                }
            }
        }
        set_effective(libc::SYS_setresuid, user.0)?;
        let _again = Root;
        Ok(work())
    }
}

/// The one place where a login may end: a process with the wrong ids must do nothing more.
fn die(what: &str, errno: Errno) -> ! {
    let line = format!("nfs-hostchange: fatal: {what}: {}", errno.desc());
    super::descriptors::write_line_to_standard_error(line.as_bytes());
    super::start::exit(71) // EX_OSERR
}

/// Gives up what a set-uid, set-gid or file-capability installation of this program lent to its
/// caller, for good: the real ids become the effective and the saved ones.
///
/// # Errors
/// If the ids could not be changed, or if the change could be undone; then nothing the caller
/// passed may be believed.
pub fn drop_for_good() -> nix::Result<()> {
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    keep_only(user.as_raw(), group.as_raw())
}

/// Makes the effective ids the only ones, for good.
///
/// # Errors
/// If that is refused, or it can be undone: then nothing must be done any more.
pub fn keep_effective_for_good() -> nix::Result<()> {
    let (user, group) = (effective_user(), nix::unistd::getegid());
    keep_only(user.0, group.as_raw())
}

fn keep_only(user: u32, group: u32) -> nix::Result<()> {
    set_all(libc::SYS_setresgid, group)?;
    set_all(libc::SYS_setresuid, user)?;
    if user == 0 {
        return Ok(());
    }
    drop_capabilities()?;
    match set_effective(libc::SYS_setresuid, 0) {
        Err(_) => Ok(()),
        Ok(()) => Err(Errno::EPERM),
    }
}

fn drop_capabilities() -> nix::Result<()> {
    // struct __user_cap_header_struct and two __user_cap_data_struct (capget(2)).
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: both arrays have the layout and the size that version 3 asks for.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    Errno::result(result).map(drop)
}

/// The signal that this process gets when its parent ends, 0 for none.
fn parent_death_signal() -> nix::Result<c_int> {
    let mut signal: c_int = 0;
    // SAFETY: this operation stores one int.
    let result = unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    Errno::result(result).map(|_| signal)
}

fn set_parent_death_signal(signal: c_int) {
    // SAFETY: this operation takes a number. It fails only for one that is no signal.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

fn set_groups(groups: &[u32]) -> nix::Result<()> {
    // SAFETY: the pointer and the length describe one slice of 32-bit ids.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(result).map(drop)
}

fn set_effective(call: libc::c_long, id: u32) -> nix::Result<()> {
    // SAFETY: setresuid and setresgid take three ids and touch no memory.
    let result = unsafe { libc::syscall(call, UNCHANGED, id, UNCHANGED) };
    Errno::result(result).map(drop)
}

fn set_all(call: libc::c_long, id: u32) -> nix::Result<()> {
    // SAFETY: setresuid and setresgid take three ids and touch no memory.
    let result = unsafe { libc::syscall(call, id, id, id) };
    Errno::result(result).map(drop)
}
