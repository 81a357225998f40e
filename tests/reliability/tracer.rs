//! A program under ptrace(2), one system call after the other.

use std::fs;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::trace::Traced;

/// What is done with a system call that is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It happens.
    Pass,
    /// The process is killed before it happens.
    Kill,
    /// It does not happen, and reports this.
    Fail(Errno),
    /// It happens, but its answer is lost: it reports this.
    LoseAnswer(Errno),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was killed, as it was meant to be.
    Killed,
    /// It executed the next program, which may or may not use its list index, with these ids.
    Executed { uses_list_index: bool, ids: String },
    /// It ended with this exit status.
    Exited(i32),
    /// Something else, which must not be.
    Died(String),
}

/// Lets `traced` go on to its end, or to the program that it executes; `decide` is asked about every
/// system call, by its place in order and its number.
pub fn run(traced: Traced<'_>, mut decide: impl FnMut(usize, u64) -> Act) -> End {
    let pid = traced.pid();
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACEEXEC;
    ptrace::setoptions(pid, options).expect("it stands still");
    let mut place = 0;
    loop {
        match resume(pid) {
            Stop::Call => {}
            Stop::Executed => return executed(pid),
            Stop::Ended(end) => return end,
        }
        let mut registers = ptrace::getregs(pid).expect("it stands still");
        let act = decide(place, registers.orig_rax);
        place += 1;
        // A call with the number -1 is none (ptrace(2)).
        if matches!(act, Act::Kill | Act::Fail(_)) {
            registers.orig_rax = u64::MAX;
            ptrace::setregs(pid, registers).expect("it stands still");
        }
        if act == Act::Kill {
            return End::Killed; // `traced` kills it when it goes.
        }
        match resume(pid) {
            Stop::Call => {}
            Stop::Executed => return executed(pid),
            Stop::Ended(end) => return end,
        }
        if let Act::Fail(errno) | Act::LoseAnswer(errno) = act {
            let mut registers = ptrace::getregs(pid).expect("it stands still");
            registers.rax = -(errno as i64) as u64;
            ptrace::setregs(pid, registers).expect("it stands still");
        }
    }
}

enum Stop {
    Call,
    Executed,
    Ended(End),
}

fn resume(pid: Pid) -> Stop {
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal).expect("it stands still");
        match waitpid(pid, None).expect("a child of this test") {
            WaitStatus::PtraceSyscall(_) => return Stop::Call,
            WaitStatus::PtraceEvent(..) => return Stop::Executed,
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, status) => return Stop::Ended(End::Exited(status)),
            ended => return Stop::Ended(End::Died(format!("{ended:?}"))),
        }
    }
}

fn executed(pid: Pid) -> End {
    let read = |name| fs::read(format!("/proc/{pid}/{name}")).expect("it stands still");
    let environment = read("environ");
    let without = environment
        .split(|&byte| byte == 0)
        .any(|entry| entry == b"MAILBOX_LIST_INDEX=no");
    let status = String::from_utf8_lossy(&read("status")).into_owned();
    let ids = status.lines().filter(|line| {
        ["Uid:", "Gid:", "Groups:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    End::Executed {
        uses_list_index: !without,
        ids: ids.collect::<Vec<_>>().join("; "),
    }
}
