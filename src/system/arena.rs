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
    pub const fn new() -> Arena {
        Arena {
            used: AtomicUsize::new(0),
            block: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    fn owns(&self, pointer: *mut u8) -> bool {
        pointer.addr().wrapping_sub(self.block.get().addr()) < SIZE
    }
}

// SAFETY: what is given out lies within the block, is aligned as asked, and is never given out
// again; everything else is the system's allocator.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.block.get().cast::<u8>();
        // Every part is taken with room for the alignment.
        let taken = layout.size() + layout.align() - 1;
        let from = self.used.fetch_add(taken, Ordering::Relaxed);
        if from > SIZE || taken > SIZE - from {
            // SAFETY: the caller's promises are those that the system's allocator asks for.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: `from + taken` is within the block, and aligning skips less than the alignment.
        unsafe {
            let free = block.add(from);
            free.add(free.align_offset(layout.align()))
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !self.owns(pointer) {
            // SAFETY: it is not the block's, so the system's allocator gave it out.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}
