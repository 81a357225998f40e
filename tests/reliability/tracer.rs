//! A program under ptrace(2), one system call after the other.
//!
//! Of a program with threads it is the newest that is followed: the others wait for it.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::Running;
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

/// Where a program stands.
#[derive(Debug)]
pub enum Stop {
    /// Before the system call of this number.
    Before(u64),
    /// After it.
    After,
    /// At the first instruction of the program that it executed.
    Executed,
    /// Nowhere any more.
    Ended(End),
}

/// A program that stands still.
pub struct Process<'a> {
    traced: Traced<'a>,
    thread: Pid,
}

impl<'a> Process<'a> {
    pub fn new(traced: Traced<'a>) -> Process<'a> {
        let thread = traced.pid();
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE;
        ptrace::setoptions(thread, options).expect("it stands still");
        Process { traced, thread }
    }

    /// To the next stop.
    pub fn resume(&mut self) -> Stop {
        let mut signal = None;
        loop {
            ptrace::syscall(self.thread, signal).expect("it stands still");
            signal = None;
            match wait(self.thread) {
                WaitStatus::PtraceSyscall(_) => return self.stop(),
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_CLONE) => self.follow(),
                WaitStatus::PtraceEvent(..) => return Stop::Executed,
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::Exited(thread, _) if thread != self.traced.pid() => {
                    return Stop::Ended(self.end());
                }
                WaitStatus::Exited(_, status) => return Stop::Ended(End::Exited(status)),
                ended => return Stop::Ended(End::Died(format!("{ended:?}"))),
            }
        }
    }

    fn stop(&self) -> Stop {
        let info = ptrace::syscall_info(self.thread).expect("it stands at a system call");
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: op says that this member of the union is the one in use.
            Stop::Before(unsafe { info.u.entry }.nr)
        } else {
            Stop::After
        }
    }

    /// A new thread is there, and the old one goes on by itself, to where it waits. A new process,
    /// which stays behind for a login, goes on by itself instead.
    fn follow(&mut self) {
        let new = ptrace::getevent(self.thread).expect("it stands at its clone");
        let new = Pid::from_raw(i32::try_from(new).expect("a thread's id"));
        assert_eq!(wait(new), WaitStatus::Stopped(new, Signal::SIGSTOP));
        let threads = PathBuf::from(format!("/proc/{}/task", self.traced.pid()));
        if !threads.join(new.to_string()).exists() {
            return ptrace::detach(new, None).expect("it stands still");
        }
        ptrace::cont(self.thread, None).expect("it stands still");
        self.thread = new;
    }

    /// The thread that was followed is gone, and the first one goes on to its end.
    fn end(&mut self) -> End {
        self.thread = self.traced.pid();
        loop {
            match wait(self.traced.pid()) {
                WaitStatus::Exited(_, status) => return End::Exited(status),
                WaitStatus::Stopped(pid, signal) => {
                    ptrace::cont(pid, signal).expect("it stands still");
                }
                ended => return End::Died(format!("{ended:?}")),
            }
        }
    }

    /// The arguments of the call that it stands before.
    pub fn arguments(&self) -> [u64; 3] {
        let registers = self.registers();
        [registers.rdi, registers.rsi, registers.rdx]
    }

    /// The file that it has open as `descriptor`.
    pub fn path_of(&self, descriptor: u64) -> String {
        let link = format!("/proc/{}/fd/{descriptor}", self.thread);
        let path = fs::read_link(link).unwrap_or_default();
        path.to_string_lossy().into_owned()
    }

    /// The call that it stands before does not happen: one of this number is none (ptrace(2)).
    pub fn skip_call(&mut self) {
        let mut registers = self.registers();
        registers.orig_rax = u64::MAX;
        self.set_registers(registers);
    }

    /// The call that it stands after reports this.
    pub fn answer(&mut self, answer: i64) {
        let mut registers = self.registers();
        registers.rax = answer as u64;
        self.set_registers(registers);
    }

    fn registers(&self) -> libc::user_regs_struct {
        ptrace::getregs(self.thread).expect("it stands still")
    }

    fn set_registers(&mut self, registers: libc::user_regs_struct) {
        ptrace::setregs(self.thread, registers).expect("it stands still");
    }

    /// What was executed, where it stands now.
    pub fn executed(&self) -> End {
        let read = |name| fs::read(format!("/proc/{}/{name}", self.thread)).expect("as above");
        let environment = read("environ");
        let without = environment
            .split(|&byte| byte == 0)
            .any(|entry| entry.starts_with(b"MAIL_LOCATION=") && entry.ends_with(b":LISTINDEX="));
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
}

impl Drop for Process<'_> {
    /// The first thread does not end before those that are traced are waited for.
    fn drop(&mut self) {
        if self.thread != self.traced.pid() {
            let _ = kill(self.traced.pid(), Signal::SIGKILL);
            while let Ok(status) = waitpid(self.thread, Some(WaitPidFlag::__WALL)) {
                if matches!(status, WaitStatus::Signaled(..) | WaitStatus::Exited(..)) {
                    break;
                }
            }
        }
    }
}

/// What stays behind for a login. It stands still.
pub struct Behind {
    pid: Pid,
    has_ended: bool,
}

impl Behind {
    /// Lets `login` go on until it has left something behind, and by itself from then on.
    pub fn of(login: Traced<'_>) -> (Running<'_>, Behind) {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACECLONE;
        ptrace::setoptions(login.pid(), options).expect("it stands still");
        let between = next_process_of(login.pid());
        let login = login.release();
        let pid = next_process_of(between);
        ptrace::detach(between, None).expect("it stands still");
        let has_ended = false;
        (login, Behind { pid, has_ended })
    }

    /// The number of its next system call, which has not happened yet; `None` if it ends.
    pub fn next_call(&mut self) -> Option<u64> {
        let mut signal = None;
        loop {
            ptrace::syscall(self.pid, signal).expect("it stands still");
            signal = None;
            match wait(self.pid) {
                WaitStatus::PtraceSyscall(_) => {
                    let info = ptrace::syscall_info(self.pid).expect("it stands at a call");
                    if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                        // SAFETY: op says that this member of the union is the one in use.
                        return Some(unsafe { info.u.entry }.nr);
                    }
                }
                // The thread that waits for a request to end.
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_CLONE) => {
                    let new = ptrace::getevent(self.pid).expect("it stands at its clone");
                    let new = Pid::from_raw(i32::try_from(new).expect("a thread's id"));
                    assert_eq!(wait(new), WaitStatus::Stopped(new, Signal::SIGSTOP));
                    ptrace::detach(new, None).expect("it stands still");
                }
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::Exited(_, 0) => {
                    self.has_ended = true;
                    return None;
                }
                ended => panic!("{ended:?}"),
            }
        }
    }

    /// Kills it before the call that it stands before happens.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        while !self.has_ended {
            let status = waitpid(self.pid, Some(WaitPidFlag::__WALL));
            self.has_ended = !matches!(status, Ok(WaitStatus::PtraceEvent(..)));
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end();
        }
    }
}

/// Lets a process go on until it has made another one, which stands still then, as it does.
fn next_process_of(pid: Pid) -> Pid {
    let mut signal = None;
    loop {
        ptrace::cont(pid, signal).expect("it stands still");
        match wait(pid) {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_CLONE) => break,
            WaitStatus::Stopped(_, other) => signal = Some(other),
            ended => panic!("nothing stays behind: {ended:?}"),
        }
    }
    let new = ptrace::getevent(pid).expect("it stands at its clone");
    let new = Pid::from_raw(i32::try_from(new).expect("a process's id"));
    assert_eq!(wait(new), WaitStatus::Stopped(new, Signal::SIGSTOP));
    new
}

fn wait(thread: Pid) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a child of this test")
}

/// Lets `traced` go on to its end, or to the program that it executes; `decide` is asked about every
/// system call, by its place in order and its number.
pub fn run(traced: Traced<'_>, mut decide: impl FnMut(usize, u64) -> Act) -> End {
    let mut process = Process::new(traced);
    let mut place = 0;
    let mut answer = None;
    loop {
        match process.resume() {
            Stop::Before(number) => {
                let act = decide(place, number);
                place += 1;
                if matches!(act, Act::Kill | Act::Fail(_)) {
                    process.skip_call();
                }
                answer = match act {
                    // Its `traced` kills it when it goes.
                    Act::Kill => return End::Killed,
                    Act::Pass => None,
                    Act::Fail(errno) | Act::LoseAnswer(errno) => Some(-(errno as i64)),
                };
            }
            Stop::After => {
                if let Some(answer) = answer.take() {
                    process.answer(answer);
                }
            }
            Stop::Executed => return process.executed(),
            Stop::Ended(end) => return end,
        }
    }
}
