//! A login under ptrace(2): its system calls are seen, counted, made to fail, or its last.

use std::ffi::c_long;
use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Running, Session};

/// A system call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub number: c_long,
    pub arguments: [u64; 6],
}

/// A login that stands still.
pub struct Traced<'a> {
    pid: Pid,
    running: Option<Running<'a>>,
}

impl<'a> Traced<'a> {
    /// `running` must have asked for it; it stands still after its execve.
    pub(super) fn new(running: Running<'a>) -> Traced<'a> {
        let traced = Traced {
            pid: running.pid(),
            running: Some(running),
        };
        let stopped = WaitStatus::Stopped(traced.pid, Signal::SIGTRAP);
        assert_eq!(waitpid(traced.pid, None), Ok(stopped));
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(traced.pid, options).expect("it is traced");
        traced
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it go on to its next system call, which has not happened yet.
    ///
    /// # Panics
    /// If it ends. A login never does: it executes another program.
    pub fn next_call(&mut self) -> Call {
        loop {
            if let Some(call) = self.resume() {
                return call;
            }
        }
    }

    /// Lets it go on to a call that is `wanted`; `None` if it comes to executing the other program
    /// instead.
    pub fn run_to(&mut self, wanted: impl Fn(&Self, &Call) -> bool) -> Option<Call> {
        loop {
            let call = self.next_call();
            if wanted(self, &call) {
                return Some(call);
            }
            if call.number == libc::SYS_execve {
                return None;
            }
        }
    }

    /// Lets it go on to the first call with this number.
    #[track_caller]
    pub fn run_to_call(&mut self, number: c_long) -> Call {
        self.run_to(|_, call| call.number == number)
            .expect("the login makes this system call")
    }

    /// Lets the call that it is in happen.
    pub fn complete_call(&mut self) {
        assert_eq!(self.resume(), None, "a call follows a call");
    }

    /// Lets the call that it is in not happen, and report `errno`.
    pub fn fail_call(&mut self, errno: Errno) {
        // Minus one is no descriptor and no address, so that nothing is done.
        let mut registers = ptrace::getregs(self.pid).expect("it stands still");
        for argument in arguments(&mut registers) {
            *argument = u64::MAX;
        }
        ptrace::setregs(self.pid, registers).expect("it stands still");
        self.complete_call();
        let mut registers = ptrace::getregs(self.pid).expect("it stands still");
        *result(&mut registers) = -(errno as i64) as u64;
        ptrace::setregs(self.pid, registers).expect("it stands still");
    }

    /// To the next stop: `Some` before a call, `None` after one.
    fn resume(&mut self) -> Option<Call> {
        let mut signal = None;
        loop {
            ptrace::syscall(self.pid, signal).expect("it stands still");
            match waitpid(self.pid, None).expect("a child of this test") {
                WaitStatus::PtraceSyscall(_) => break,
                WaitStatus::Stopped(_, other) => signal = Some(other),
                ended => panic!("the login ended: {ended:?}"),
            }
        }
        let info = ptrace::syscall_info(self.pid).expect("it stands at a system call");
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // SAFETY: op says that this member of the union is the one in use.
        let entry = unsafe { info.u.entry };
        Some(Call {
            number: entry.nr as c_long,
            arguments: entry.args,
        })
    }

    /// The name and the flags of a call that opens a file.
    pub fn opened(&self, call: &Call) -> Option<(String, u64)> {
        let [_, name, flags, ..] = call.arguments;
        let flags = match call.number {
            libc::SYS_openat => flags,
            libc::SYS_openat2 => {
                // They are the first member of struct open_how.
                let mut how = [0; 8];
                let read = self.memory().read_exact_at(&mut how, flags);
                read.expect("it is in its memory");
                u64::from_ne_bytes(how)
            }
            _ => return None,
        };
        Some((self.string(name), flags))
    }

    /// The string at an address that a call was given.
    pub fn string(&self, address: u64) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            let at = address + bytes.len() as u64;
            match self.memory().read_at(&mut byte, at) {
                Ok(1) if byte != [0] => bytes.push(byte[0]),
                _ => return String::from_utf8_lossy(&bytes).into_owned(),
            }
        }
    }

    /// Its memory, by address.
    pub fn memory(&self) -> File {
        let path = format!("/proc/{}/mem", self.pid);
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .open(path)
            .expect("it is traced")
    }

    /// Lets it go on by itself, to its end.
    pub fn finish(mut self) -> Session<'a> {
        ptrace::detach(self.pid, None).expect("it stands still");
        let running = self.running.take().expect("taken only here");
        running.wait()
    }

    /// Lets it go on by itself.
    pub fn release(mut self) -> Running<'a> {
        ptrace::detach(self.pid, None).expect("it stands still");
        self.running.take().expect("taken only here")
    }
}

impl Drop for Traced<'_> {
    /// A crash, right where it stands.
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
            while let Ok(status) = waitpid(self.pid, None) {
                if matches!(status, WaitStatus::Signaled(..) | WaitStatus::Exited(..)) {
                    break;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn arguments(registers: &mut libc::user_regs_struct) -> [&mut u64; 2] {
    [&mut registers.rdi, &mut registers.rsi]
}

#[cfg(target_arch = "x86_64")]
fn result(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.rax
}

#[cfg(target_arch = "aarch64")]
fn arguments(registers: &mut libc::user_regs_struct) -> [&mut u64; 2] {
    let [first, second, ..] = &mut registers.regs;
    [first, second]
}

#[cfg(target_arch = "aarch64")]
fn result(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.regs[0]
}
