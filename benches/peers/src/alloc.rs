//! Counts the heap allocations of a closure.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    // Const and without a destructor, so reading it never allocates, and the allocator itself may read it.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system allocator. It counts the allocations and reallocations of the calling thread.
pub struct Counting;

// SAFETY: every call is passed to `System` with the caller's arguments, so `System` keeps the contract. The counter
// does not use the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the contract of the caller is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`. `ptr` came from `System`, because this allocator uses nothing else.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn count() {
    CALLS.set(CALLS.get() + 1);
}

/// The allocations and reallocations of one call of `f`.
pub fn calls(f: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}
