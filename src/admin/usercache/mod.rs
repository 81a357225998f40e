//! `nfs-hostchange usercache`.

mod print;

use std::sync::Mutex;
use std::time::Instant;

use crate::admin::command_line::{Clean, Forget, Sweep, Unused};
use crate::admin::complaints::{Complaints, OfTree};
use crate::admin::output::{Exit, cannot_drop_groups, complain, failed, say, say_json};
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
            Ok(Outcome::Cleaned(_, Directory::Removed | Directory::Stays)) => {}
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
    let complaints = Mutex::new(OfTree::NONE);
    let done = with_progress(&totals, |bar| {
        sweep::sweep(&tree, &rules, &totals, &|path, outcome| {
            // Users who are here are nothing that a sweep has to report as a failure.
            let is_named = (outcome.as_ref()).is_err_and(|error| guard(&complaints).add(error));
            if is_named || options.unused.verbose {
                bar.suspend(|| complain(Line::of(path, outcome)));
            }
        })
    });
    if let Err(errno) = done {
        return cannot_drop_groups(errno);
    }
    let totals = *guard(&totals);
    let exit = guard(&complaints).finish(totals.users > totals.spoiled);
    let alarms = alarms(&options.root, &tree);
    if options.json {
        say_json(&swept_json(options, &totals, start.elapsed(), alarms));
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
    let mut complaints = Complaints::NONE;
    let done = forget::forget(&tree, &mut |error| {
        if complaints.add(Exit::from(error)) {
            complain(error);
        }
    });
    let totals = match done {
        Ok(totals) => totals,
        Err(errno) => return cannot_drop_groups(errno),
    };
    let mut exit = complaints.finish("places where a record may be left");
    if totals == forget::Totals::default() {
        complain(format_args!(
            "{}: no login was ever recorded in it: is it the directory of list indexes?",
            options.root.display()
        ));
        exit = Exit::NoInput;
    }
    if options.json {
        say_json(&forgotten_json(options, &totals, start.elapsed()));
    } else {
        say(forgotten(options, &totals, start.elapsed()));
    }
    exit
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
