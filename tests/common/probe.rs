//! The program that the wrapper's tests let it execute, as script-login is in real life.
//!
//! `probe REPORT [ARG...]` writes down, a line each, everything that it can learn about the
//! process it finds itself in. Nearly all of it is the kernel's own account in /proc. It has no
//! Rust start-up: that changes SIGPIPE and fills closed descriptors.

#![no_main]

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write as _;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Lines of /proc/self/status about this very process and its memory, not about what it was given.
const OWN_STATUS: [&str; 18] = [
    "Name",
    "State",
    "Tgid",
    "Ngid",
    "Pid",
    "PPid",
    "TracerPid",
    "FDSize",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "Kthread",
    "SigQ",
    "x86_Thread_features",
    "CoreDumping",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// What lines about its memory begin with.
const MEMORY: [&[u8]; 3] = [b"Vm", b"Rss", b"Huge"];

/// Files of /proc/self that are about the process as a whole.
const FILES: [&str; 9] = [
    "limits",
    "oom_score_adj",
    "coredump_filter",
    "personality",
    "timerslack_ns",
    "cgroup",
    "loginuid",
    "sessionid",
    "autogroup",
];

const NAMESPACES: [&str; 8] = ["mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"];

const TIMERS: [(&str, c_int); 3] = [
    ("real", libc::ITIMER_REAL as c_int),
    ("virtual", libc::ITIMER_VIRTUAL as c_int),
    ("profiling", libc::ITIMER_PROF as c_int),
];

/// prctl(2) operations that only ask, by returning the answer.
const ASKED: [(&str, c_int); 6] = [
    ("dumpable", libc::PR_GET_DUMPABLE),
    ("keepcaps", libc::PR_GET_KEEPCAPS),
    ("securebits", libc::PR_GET_SECUREBITS),
    ("no_new_privs", libc::PR_GET_NO_NEW_PRIVS),
    ("timerslack", libc::PR_GET_TIMERSLACK),
    ("thp_disable", libc::PR_GET_THP_DISABLE),
];

/// prctl(2) operations that store their answer.
const STORED: [(&str, c_int); 2] = [
    ("pdeathsig", libc::PR_GET_PDEATHSIG),
    ("child_subreaper", libc::PR_GET_CHILD_SUBREAPER),
];

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc < 2 {
        return 64;
    }
    // SAFETY: argv has argc C strings.
    let path = unsafe { CStr::from_ptr(*argv.add(1)) };
    let report = report();
    lift_limits();
    match fs::write(
        Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())),
        report,
    ) {
        Ok(()) => 0,
        Err(_) => 73,
    }
}

/// What the process was given must not keep the probe from writing its report.
fn lift_limits() {
    for resource in [libc::RLIMIT_FSIZE, libc::RLIMIT_NOFILE] {
        let mut limit = MaybeUninit::<libc::rlimit>::uninit();
        // SAFETY: getrlimit fills in the structure, and only then it is used.
        unsafe {
            if libc::getrlimit(resource, limit.as_mut_ptr()) == 0 {
                let mut limit = limit.assume_init();
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(resource, &limit);
            }
        }
    }
}

fn report() -> String {
    // Before anything here opens a file: which descriptors there are, and what they are.
    let descriptors = descriptors();
    let mut report = String::new();
    for (what, file) in [("argument", "cmdline"), ("environment", "environ")] {
        for string in strings(&read(file)) {
            line(&mut report, what, &string);
        }
    }
    line(&mut report, "cwd", &link("cwd"));
    line(&mut report, "root", &link("root"));
    line(&mut report, "exe", &link("exe"));
    for entry in read("status").split(|&byte| byte == b'\n') {
        let key = entry.split(|&byte| byte == b':').next().unwrap_or_default();
        let is_own = OWN_STATUS.iter().any(|own| own.as_bytes() == key);
        if !is_own && !MEMORY.iter().any(|start| key.starts_with(start)) {
            line(&mut report, "status", entry);
        }
    }
    for file in FILES {
        for entry in read(file).split(|&byte| byte == b'\n') {
            line(&mut report, file, entry);
        }
    }
    for namespace in NAMESPACES {
        line(&mut report, "namespace", &link(&format!("ns/{namespace}")));
    }
    line(&mut report, "stat", scheduling().as_bytes());
    for (name, option) in ASKED {
        // SAFETY: these operations take no pointer.
        let answer = unsafe { libc::prctl(option, 0, 0, 0, 0) };
        line(&mut report, "prctl", format!("{name} {answer}").as_bytes());
    }
    for (name, option) in STORED {
        let mut answer: c_int = -1;
        // SAFETY: these operations store one int.
        unsafe { libc::prctl(option, &raw mut answer, 0, 0, 0) };
        line(&mut report, "prctl", format!("{name} {answer}").as_bytes());
    }
    // SAFETY: ioprio_get and keyctl(KEYCTL_GET_KEYRING_ID) take numbers only.
    let (priority, keyring) = unsafe {
        (
            libc::syscall(libc::SYS_ioprio_get, 1, 0),
            libc::syscall(libc::SYS_keyctl, 0, -3, 0),
        )
    };
    line(&mut report, "io", format!("priority {priority}").as_bytes());
    line(
        &mut report,
        "keyring",
        format!("session {keyring}").as_bytes(),
    );
    for (name, which) in TIMERS {
        line(&mut report, "timer", timer(name, which).as_bytes());
    }
    for signal in pending_signals() {
        line(&mut report, "pending", signal.as_bytes());
    }
    report.push_str(&descriptors);
    report
}

fn line(report: &mut String, what: &str, value: &[u8]) {
    // Writing to a String cannot fail.
    let _ = writeln!(report, "{what} {}", value.escape_ascii());
}

fn read(file: &str) -> Vec<u8> {
    fs::read(format!("/proc/self/{file}")).unwrap_or_else(|error| error.to_string().into_bytes())
}

fn link(file: &str) -> Vec<u8> {
    match fs::read_link(format!("/proc/self/{file}")) {
        Ok(target) => target.as_os_str().as_bytes().to_vec(),
        Err(error) => error.to_string().into_bytes(),
    }
}

/// NUL-terminated strings, empty ones too.
fn strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut strings: Vec<_> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    strings.pop();
    strings
}

/// Process group, session, terminal, nice value, real-time priority, scheduling policy.
fn scheduling() -> String {
    let stat = String::from_utf8_lossy(&read("stat")).into_owned();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // proc_pid_stat(5) counts from 1, and the field after the parenthesis is the third.
    [5, 6, 7, 8, 19, 40, 41]
        .map(|number| fields.get(number - 3).copied().unwrap_or("?"))
        .join(" ")
}

/// The time left rounded up to minutes, so that two runs in a row say the same.
fn timer(name: &str, which: c_int) -> String {
    let mut value = MaybeUninit::<libc::itimerval>::zeroed();
    // SAFETY: getitimer fills in the structure; zero is a valid one if it does not.
    let value = unsafe {
        libc::getitimer(which as _, value.as_mut_ptr());
        value.assume_init()
    };
    let left = value.it_value.tv_sec + i64::from(value.it_value.tv_usec > 0);
    format!(
        "{name} {} minutes, then every {}.{:06} s",
        (left + 59) / 60,
        value.it_interval.tv_sec,
        value.it_interval.tv_usec
    )
}

/// Takes every pending signal from the queue.
fn pending_signals() -> Vec<String> {
    let mut signals = Vec::new();
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both structures are valid when zeroed and are filled in by these calls; the value
    // of the union is only read as the integer that it holds for a queued signal.
    unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        libc::sigfillset(&mut all);
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed().assume_init();
        while libc::sigtimedwait(&all, &mut info, &now) > 0 {
            let value = if info.si_code == libc::SI_QUEUE {
                info.si_value().sival_ptr as usize
            } else {
                0
            };
            signals.push(format!(
                "signal {} code {} value {value}",
                info.si_signo, info.si_code
            ));
        }
    }
    signals
}

/// Number, kind, identity, offset and flags of each descriptor.
fn descriptors() -> String {
    let mut numbers: Vec<c_int> = match fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect(),
        Err(error) => return format!("descriptors {error}\n"),
    };
    // The one that the list itself was read from is closed again.
    // SAFETY: F_GETFD takes no pointer, and any number may be asked about.
    numbers.retain(|&number| unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0);
    numbers.sort_unstable();
    let mut pipes_and_sockets = Vec::new();
    let mut report = String::new();
    for number in numbers {
        let mut target = link(&format!("fd/{number}"));
        if [&b"pipe:["[..], b"socket:["]
            .iter()
            .any(|kind| target.starts_with(kind))
        {
            // Their numbers differ from run to run; which of them are the same does not.
            let seen = pipes_and_sockets.iter().position(|seen| *seen == target);
            let position = seen.unwrap_or_else(|| {
                pipes_and_sockets.push(target.clone());
                pipes_and_sockets.len() - 1
            });
            let kind = target
                .split(|&byte| byte == b':')
                .next()
                .unwrap_or_default();
            target = [kind, b" number ", position.to_string().as_bytes()].concat();
        }
        line(&mut report, &format!("descriptor {number}"), &target);
        for entry in read(&format!("fdinfo/{number}")).split(|&byte| byte == b'\n') {
            // Flags include close-on-exec.
            if [&b"pos:"[..], b"flags:", b"mnt_id:"]
                .iter()
                .any(|key| entry.starts_with(key))
            {
                line(&mut report, &format!("descriptor {number}"), entry);
            }
        }
    }
    report
}
