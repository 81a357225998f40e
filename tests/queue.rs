//! The queue of a sweep's threads, in thousands of orders of their steps that a scheduler chooses.
//! Everything is found once, and every thread ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../src/usercache/queue.rs"]
mod queue;

/// What the queue uses in place of the standard library's.
mod sync {
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

use queue::{MOST_WAITING, Queue};

/// A directory with as many in it as the first number says, each of which has as many as the rest says.
struct Directory {
    left: AtomicUsize,
    below: &'static [usize],
}

impl Directory {
    fn new(sizes: &'static [usize]) -> Arc<Self> {
        let (&size, below) = sizes.split_first().unwrap_or((&0, &[]));
        Arc::new(Self {
            left: AtomicUsize::new(size),
            below,
        })
    }

    /// As the kernel does it: each that reads the open directory gets a part.
    fn next(&self) -> Option<Arc<Self>> {
        shuttle::thread::yield_now();
        let one_less = |left: usize| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        left.ok().map(|_| Self::new(self.below))
    }

    fn read(self: &Arc<Self>, queue: &Queue<Self>, found: &AtomicUsize) {
        while let Some(directory) = self.next() {
            found.fetch_add(1, Ordering::SeqCst);
            if let Some(directory) = queue.offer(directory) {
                directory.read(queue, found);
            }
        }
        queue.is_read(self);
    }
}

fn sweep(threads: usize, sizes: &'static [usize]) {
    let queue = Arc::new(Queue::new(&Directory::new(sizes)));
    let found = Arc::new(AtomicUsize::new(0));
    let work = || {
        let (queue, found) = (Arc::clone(&queue), Arc::clone(&found));
        move || {
            while let Some(held) = queue.take() {
                held.directory.read(&queue, &found);
            }
        }
    };
    let others: Vec<_> = (1..threads)
        .map(|_| shuttle::thread::spawn(work()))
        .collect();
    work()();
    for other in others {
        other.join().expect("no panic");
    }
    let levels = sizes.iter().scan(1, |directories, size| {
        *directories *= size;
        Some(*directories)
    });
    assert_eq!(found.load(Ordering::SeqCst), levels.sum::<usize>());
}

#[test]
fn in_any_order_of_steps_everything_is_found_once_and_every_thread_ends() {
    shuttle::check_random(|| sweep(2, &[1, 1]), 1000);
    shuttle::check_random(|| sweep(3, &[2, 2, 1]), 3000);
    shuttle::check_pct(|| sweep(4, &[3, 2]), 2000, 3);
    shuttle::check_random(|| sweep(3, &[MOST_WAITING + 3, 1]), 100);
}

#[test]
fn what_is_found_is_kept_for_others_up_to_a_limit() {
    let alone = || {
        let root = Directory::new(&[]);
        let queue = Queue::new(&root);
        let reading = queue.take().expect("the root");
        let is_kept = |_| queue.offer(Directory::new(&[])).is_none();
        assert!((0..MOST_WAITING).all(is_kept));
        let beyond = queue
            .offer(Directory::new(&[]))
            .expect("enough are waiting");
        queue.is_read(&beyond);
        queue.is_read(&root);
        drop(reading);
        for _ in 0..MOST_WAITING {
            queue.is_read(&queue.take().expect("it was kept").directory);
        }
        assert!(queue.take().is_none());
    };
    shuttle::check_random(alone, 1);
}

#[test]
fn whoever_has_nothing_to_do_helps_with_what_is_being_read() {
    let together = || {
        let queue = Queue::new(&Directory::new(&[]));
        let reading = queue.take().expect("the root");
        let helping = queue.take().expect("the same");
        assert!(Arc::ptr_eq(&reading.directory, &helping.directory));
    };
    shuttle::check_random(together, 1);
}
