//! What is wrong in a tree of users' directories. One user can spoil thousands of them, so only a few
//! are named, and they do not decide the exit status.

use crate::usercache::clean::CleanError;

use super::output::{Exit, complain};

/// How many of one kind are named.
const MOST_NAMED: u64 = 20;

/// Of one kind.
#[derive(Debug)]
pub struct Complaints {
    worst: Exit,
    number: u64,
}

impl Complaints {
    /// None yet.
    pub const NONE: Self = Self {
        worst: Exit::Ok,
        number: 0,
    };

    /// Counts one, and returns whether to name it.
    pub fn add(&mut self, exit: Exit) -> bool {
        self.worst = self.worst.max(exit);
        self.number += 1;
        self.number <= MOST_NAMED
    }

    /// Says how many were not named, and returns the greatest exit status.
    pub fn finish(&self, what: &str) -> Exit {
        if self.number > MOST_NAMED {
            complain(format_args!("and {} more {what}", self.number - MOST_NAMED));
        }
        self.worst
    }
}

/// Of both kinds that cleaning and looking know.
#[derive(Debug)]
pub struct OfTree {
    failed: Complaints,
    spoiled: Complaints,
}

impl OfTree {
    /// None yet.
    pub const NONE: Self = Self {
        failed: Complaints::NONE,
        spoiled: Complaints::NONE,
    };

    /// Counts one, and returns whether to name it.
    pub fn add(&mut self, error: &CleanError) -> bool {
        let kind = match error {
            CleanError::Spoiled(_) => &mut self.spoiled,
            _ => &mut self.failed,
        };
        kind.add(Exit::from(error))
    }

    /// Says how many were not named, and returns the exit status. What owners did to their own directories
    /// counts only if there are no others, because then this may be the wrong root.
    pub fn finish(&self, has_others: bool) -> Exit {
        let spoiled = self.spoiled.finish("that their owners have spoiled");
        let failed = self.failed.finish("that failed");
        if has_others {
            failed
        } else {
            failed.max(spoiled)
        }
    }
}
