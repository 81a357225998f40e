//! Memory for a process that lives for a fraction of a millisecond.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a login takes, with room to spare: a migration reads three directories, each with a
/// buffer of [`Entries`](super::entries::Entries). Memory that is not used costs nothing: the
/// kernel gives it page by page.
const SIZE: usize = 256 * 1024;

/// An allocator that hands out one block from its beginning to its end and takes nothing back;
/// when it is used up, the system's allocator goes on.
///
/// musl's asks the kernel eight times and touches four pages before a login has what it needs,
/// and keeps books that pay only where memory is reused.
#[derive(Debug)]
#[repr(C)] // what counts is beside what is used first: one page fewer
pub struct Arena {
    used: AtomicUsize,
    block: UnsafeCell<MaybeUninit<[u8; SIZE]>>,
}

// SAFETY: each part of the block is given out once, which `used` counts atomically.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena that is not used yet.
    #[expect(
        clippy::new_without_default,
        reason = "it belongs in a static, and Default is not const"
    )]
    pub const fn new() -> Self {
        Self {
            used: AtomicUsize::new(0),
            block: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Takes a part of the block, and says where it begins; a size that does not fit takes nothing.
    fn take(&self, layout: Layout) -> Option<usize> {
        let block = self.block.get().addr();
        let place = |used: usize| (block + used).next_multiple_of(layout.align()) - block;
        let end = |used| {
            place(used)
                .checked_add(layout.size())
                .filter(|&end| end <= SIZE)
        };
        let before = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, end);
        before.ok().map(place)
    }

    fn owns(&self, pointer: *mut u8) -> bool {
        pointer.addr().wrapping_sub(self.block.get().addr()) < SIZE
    }
}

// SAFETY: what is given out lies within the block, is aligned as asked, and is never given out
// again; everything else is the system's allocator.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            // SAFETY: `take` only gives out places within the block.
            Some(place) => unsafe { self.block.get().cast::<u8>().add(place) },
            // SAFETY: the caller's promises are those that the system's allocator asks for.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !self.owns(pointer) {
            // SAFETY: it is not the block's, so the system's allocator gave it out.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_do_not_overlap() {
        let arena = Arena::new();
        let mut end = 0;
        for (size, align) in [(1, 1), (8, 8), (3, 1), (64, 64), (5, 4), (SIZE / 2, 16)] {
            let layout = Layout::from_size_align(size, align).expect("it is a layout");
            let place = arena.take(layout).expect("there is room");
            assert!(place >= end);
            assert_eq!((arena.block.get().addr() + place) % align, 0);
            end = place + size;
        }
    }

    #[test]
    fn a_size_that_does_not_fit_takes_nothing() {
        let arena = Arena::new();
        let layout = |size| Layout::from_size_align(size, 1).expect("it is a layout");
        for _ in 0..10 {
            assert_eq!(arena.take(layout(SIZE + 1)), None);
            assert_eq!(arena.take(layout(isize::MAX as usize)), None);
        }
        assert_eq!(arena.take(layout(SIZE)), Some(0));
        assert_eq!(arena.take(layout(1)), None);
    }
}
