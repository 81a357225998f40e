//! The directories that are to be read, for several threads: a thread that finds some while it reads one
//! leaves them to others, and who has nothing to do helps with one that is being read.

use std::sync::{Arc, PoisonError};

// Not of std itself: tests/queue.rs has others, which try out every order of threads.
use super::sync::{Condvar, Mutex, MutexGuard};

/// So many are kept for threads that have nothing to do.
pub const MOST_WAITING: usize = 32;

/// The directories that are to be read.
#[derive(Debug)]
pub struct Queue<T> {
    open: Mutex<Open<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Open<T> {
    /// Nobody has begun with these.
    untouched: Vec<Arc<T>>,
    /// Somebody reads these, and others may help.
    being_read: Vec<Arc<T>>,
    /// Threads that have a directory, and may find more.
    working: usize,
}

impl<T> Queue<T> {
    /// With one to begin with.
    pub fn new(first: &Arc<T>) -> Self {
        Self {
            open: Mutex::new(Open {
                untouched: vec![Arc::clone(first)],
                being_read: Vec::new(),
                working: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Waits for a directory to read; `None` when there is none and nobody works, so that none will
    /// come.
    pub fn take(&self) -> Option<Held<'_, T>> {
        let mut open = self.open();
        loop {
            let untouched = open.untouched.pop();
            if let Some(directory) = &untouched {
                open.being_read.push(Arc::clone(directory));
                self.changed.notify_one();
            }
            if let Some(directory) = untouched.or_else(|| open.being_read.last().cloned()) {
                open.working += 1;
                return Some(Held {
                    queue: self,
                    directory,
                });
            }
            if open.working == 0 {
                return None;
            }
            let changed = self.changed.wait(open);
            open = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps the directory for later; gives it back if enough are waiting, to be read at once.
    pub fn offer(&self, directory: Arc<T>) -> Option<Arc<T>> {
        let mut open = self.open();
        self.changed.notify_one();
        if open.untouched.len() < MOST_WAITING {
            open.untouched.push(directory);
            None
        } else {
            open.being_read.push(Arc::clone(&directory));
            Some(directory)
        }
    }

    /// There is nothing left in it to help with.
    pub fn is_read(&self, directory: &Arc<T>) {
        let is_other = |other: &Arc<T>| !Arc::ptr_eq(other, directory);
        self.open().being_read.retain(is_other);
    }

    /// What a panic in another thread left is counters and directories, and right as it is.
    fn open(&self) -> MutexGuard<'_, Open<T>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that a thread works on.
#[derive(Debug)]
pub struct Held<'a, T> {
    queue: &'a Queue<T>,
    pub directory: Arc<T>,
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let mut open = self.queue.open();
        open.working -= 1;
        if open.working == 0 {
            self.queue.changed.notify_all();
        }
    }
}
