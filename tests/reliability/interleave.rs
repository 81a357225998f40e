//! Several programs at once, stopped at their system calls and let go on in every order that has
//! few preemptions.
//!
//! A schedule is the list of its preemptions. Without any, a program runs until it ends or waits
//! for a lock. Every schedule is run from the beginning.

use crate::tracer::{End, Process, Stop};

/// At a decision (the first number), another program (the second) goes on.
pub type Preemption = (usize, usize);

/// Who would have gone on at a decision, and who could.
pub struct Decision {
    chosen: usize,
    present: Vec<usize>,
}

/// More decisions than this are an endless wait.
const ENDLESS: usize = 5_000;
/// As are so many pauses in a row.
const PAUSES: usize = 200;

/// A program that takes part.
pub struct Program<'a> {
    process: Process<'a>,
    end: Option<End>,
    /// It pauses until somebody else did something.
    waits: bool,
    /// It has come to the users' files.
    works: bool,
    /// The descriptor of a file on which it has a lease, or tries to get one.
    leased: Option<u64>,
}

/// Calls that others can notice, or that notice others. Before the rest nobody needs to be let in.
fn is_visible(number: u64) -> bool {
    [
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_statx,
        libc::SYS_newfstatat,
        libc::SYS_mkdirat,
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_ftruncate,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_utimensat,
        libc::SYS_flock,
        libc::SYS_getdents64,
        libc::SYS_execve,
    ]
    .contains(&(number as i64))
}

/// Whether a call is the first one of the work on a user: it opens a directory to work in it.
pub fn is_work(process: &Process<'_>, number: u64) -> bool {
    let path_only = libc::O_PATH as u64;
    number == libc::SYS_openat2 as u64
        || number == libc::SYS_openat as u64 && process.arguments()[2] & path_only != 0
}

fn is_pause(number: u64) -> bool {
    [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&(number as i64))
}

impl<'a> Program<'a> {
    pub fn new(process: Process<'a>) -> Program<'a> {
        Program {
            process,
            end: None,
            waits: false,
            works: false,
            leased: None,
        }
    }

    /// Goes on to its next visible call, to a pause, or to its end.
    fn advance(&mut self, what: &str) {
        let mut pauses = std::mem::take(&mut self.waits);
        loop {
            match self.process.resume() {
                Stop::After => {
                    if std::mem::take(&mut pauses) {
                        self.process.answer(0);
                    }
                }
                Stop::Before(number) if is_pause(number) => {
                    // It need not take any time.
                    self.process.skip_call();
                    self.waits = true;
                    return;
                }
                Stop::Before(number) => {
                    self.assert_writes_to_no_lost_record(number, what);
                    self.works = self.works || is_work(&self.process, number);
                    self.note_lease(number);
                    if self.works && is_visible(number) && self.leased.is_none() {
                        return;
                    }
                }
                Stop::Executed => {
                    self.end = Some(self.process.executed());
                    return;
                }
                Stop::Ended(end) => {
                    self.end = Some(end);
                    return;
                }
            }
        }
    }

    /// Whoever is stopped while he has a lease makes others wait who do not wait for him otherwise.
    fn note_lease(&mut self, number: u64) {
        let [descriptor, command, _] = self.process.arguments();
        match number as i64 {
            libc::SYS_fcntl if command == libc::F_SETLEASE as u64 => {
                self.leased = Some(descriptor);
            }
            libc::SYS_close if self.leased == Some(descriptor) => self.leased = None,
            _ => {}
        }
    }

    /// Nobody waits so long here that a lock could be lost, so whoever writes still has it.
    fn assert_writes_to_no_lost_record(&self, number: u64, what: &str) {
        if [libc::SYS_ftruncate, libc::SYS_pwrite64].contains(&(number as i64)) {
            let path = self.process.path_of(self.process.arguments()[0]);
            assert!(
                !path.ends_with(".lasthost (deleted)"),
                "{what}: writes to a record that is not in the directory"
            );
        }
    }
}

/// Runs `programs` by one schedule, the program `first` first. `ended` is told of every program that
/// comes to its end.
pub fn run(
    mut programs: Vec<Program<'_>>,
    first: usize,
    schedule: &[Preemption],
    what: &str,
    mut ended: impl FnMut(usize, &End),
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut current = first;
    let mut preemptions = schedule.iter().copied().peekable();
    let mut pauses = 0;
    loop {
        let present: Vec<usize> = (0..programs.len())
            .filter(|&program| programs[program].end.is_none())
            .collect();
        let Some(&any) = present.first() else {
            return decisions;
        };
        let place = decisions.len();
        assert!(place < ENDLESS, "{what}: waits for ever");
        if let Some((_, program)) = preemptions.next_if(|&(at, _)| at == place) {
            current = program;
        } else if programs[current].end.is_some() || programs[current].waits {
            let after = present.iter().find(|&&program| program > current);
            current = *after.unwrap_or(&any);
        }
        decisions.push(Decision {
            chosen: current,
            present,
        });
        let program = &mut programs[current];
        program.advance(what);
        pauses = if program.waits { pauses + 1 } else { 0 };
        assert!(pauses < PAUSES, "{what}: all wait for each other");
        if let Some(end) = program.end.clone() {
            ended(current, &end);
        }
    }
}

/// Tries all schedules of so many `programs` with at most `preemptions` preemptions; `try_schedule`
/// runs one. Returns how many there were.
pub fn all_schedules(
    programs: usize,
    preemptions: usize,
    mut try_schedule: impl FnMut(usize, &[Preemption]) -> Vec<Decision>,
) -> usize {
    let mut count = 0;
    for first in 0..programs {
        let mut open = vec![Vec::new()];
        while let Some(schedule) = open.pop() {
            let decisions = try_schedule(first, &schedule);
            count += 1;
            if schedule.len() == preemptions {
                continue;
            }
            let last = schedule.last();
            let from = last.map_or(1, |&(place, _): &Preemption| place + 1);
            for (place, decision) in decisions.iter().enumerate().skip(from) {
                let others = decision.present.iter().copied();
                for program in others.filter(|&program| program != decision.chosen) {
                    let mut longer = schedule.clone();
                    longer.push((place, program));
                    open.push(longer);
                }
            }
        }
    }
    count
}
