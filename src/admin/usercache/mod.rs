//! `nfs-hostchange usercache`.

mod print;

use std::cell::Cell;
use std::sync::Mutex;
use std::time::Instant;

use crate::admin::command_line::{Clean, Forget, Sweep, Unused};
use crate::admin::output::{Exit, cannot_drop_groups, complain, failed, say};
use crate::admin::room::alarms;
use crate::usercache::clean::{Cleaner, Directory, Outcome, Rules};
use crate::usercache::forget;
use crate::usercache::sweep;
use crate::usercache::tree::{Tree, guard};

use print::{Line, forgotten, forgotten_json, swept, swept_json, with_progress};

/// Cleans the directories given.
pub fn clean(options: &Clean) -> Exit {
    let rules = Rules::from(&options.unused);
    let mut cleaner = match Cleaner::new(&rules) {
        Ok(cleaner) => cleaner,
        Err(errno) => return cannot_drop_groups(errno),
    };
    let mut exit = Exit::Ok;
    for path in &options.paths {
        let outcome = cleaner.clean(path);
        let line = Line::of(path, &outcome);
        match &outcome {
            Ok(Outcome::WouldClean(_)) => say(line),
            Ok(Outcome::Cleaned(..)) if options.unused.verbose => say(line),
            Ok(Outcome::Cleaned(_, Directory::Removed)) => {}
            _ => complain(line),
        }
        exit = exit.max(Exit::from(&outcome));
    }
    exit
}

/// Cleans everything below a root.
pub fn sweep(options: &Sweep) -> Exit {
    let rules = Rules::from(&options.unused);
    let tree = match Tree::new(&options.root, &rules.prefix) {
        Ok(tree) => tree,
        Err(error) => return failed(&error),
    };
    let start = Instant::now();
    let totals = Mutex::default();
    let exit = Mutex::new(Exit::Ok);
    let done = with_progress(&totals, |bar| {
        sweep::sweep(&tree, &rules, &totals, &|path, outcome| {
            // Users who are here are nothing that a sweep has to report as a failure.
            if outcome.is_err() {
                let mut exit = guard(&exit);
                *exit = (*exit).max(Exit::from(outcome));
            }
            if outcome.is_err() || options.unused.verbose {
                bar.suspend(|| complain(Line::of(path, outcome)));
            }
        })
    });
    if let Err(errno) = done {
        return cannot_drop_groups(errno);
    }
    let (totals, exit) = (*guard(&totals), *guard(&exit));
    let alarms = alarms(&options.root, &tree);
    if options.json {
        say(swept_json(options, &totals, start.elapsed(), alarms));
    } else {
        say(swept(options, &totals, start.elapsed()));
        alarms.iter().for_each(complain);
    }
    exit
}

/// Empties all records below a root.
pub fn forget(options: &Forget) -> Exit {
    // Nothing is looked for by a list index's name.
    let tree = match Tree::new(&options.root, c"") {
        Ok(tree) => tree,
        Err(error) => return failed(&error),
    };
    let start = Instant::now();
    let exit = Cell::new(Exit::Ok);
    let done = forget::forget(&tree, &|error| exit.set(exit.get().max(failed(error))));
    let totals = match done {
        Ok(totals) => totals,
        Err(errno) => return cannot_drop_groups(errno),
    };
    if totals == forget::Totals::default() {
        complain(format_args!(
            "{}: no login was ever recorded in it: is it the directory of list indexes?",
            options.root.display()
        ));
        exit.set(Exit::NoInput);
    }
    if options.json {
        say(forgotten_json(options, &totals, start.elapsed()));
    } else {
        say(forgotten(options, &totals, start.elapsed()));
    }
    exit.get()
}

impl From<&Unused> for Rules {
    fn from(unused: &Unused) -> Self {
        Self {
            min_age: unused.min_age,
            prefix: unused.prefix.clone(),
            dry_run: unused.dry_run,
        }
    }
}
