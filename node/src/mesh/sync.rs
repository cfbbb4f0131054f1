//! Atomics and cells, the standard library's or loom's: everything in `mesh` that two threads touch comes through here.

#[cfg(loom)]
pub(super) use loom::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(not(loom))]
pub(super) use crossbeam::queue::ArrayQueue;

use std::cell::UnsafeCell;

/// Zeroed memory of which one thread may write a part while another reads a different part.
///
/// Invariants: its users agree, by other means, who may touch which range; every octet is initialised from the start.
pub(super) struct Octets {
    /// Words, so that ranges which start at a multiple of eight are aligned for a `u64`.
    words: Box<[UnsafeCell<u64>]>,
    /// Under loom each word has a cell whose accesses loom checks against each other.
    #[cfg(loom)]
    checked: Box<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: every access goes through `slice` and `slice_mut`, whose callers promise that no two threads touch one octet at the
// same time unless both read it; plain integers may then be used from any thread.
unsafe impl Sync for Octets {}

impl Octets {
    /// `octets` zeroed octets, rounded down to words.
    pub(super) fn new(octets: usize) -> Self {
        let words = octets / WORD;
        Self {
            words: (0..words).map(|_| UnsafeCell::new(0)).collect(),
            #[cfg(loom)]
            checked: (0..words).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.words.len() * WORD
    }

    /// `length` octets from `at` on.
    ///
    /// # Safety
    /// Until the slice is dropped, nobody writes to this range.
    pub(super) unsafe fn slice(&self, at: usize, length: usize) -> &[u8] {
        let start = self.start_of(at, length);
        #[cfg(loom)]
        self.check(at, length, |cell| cell.with(|_| ()));
        // SAFETY: 1. in bounds: `start_of` asserts that the range lies in `words`.
        // 2. initialised: `new` zeroes all words, and nothing takes a value out.
        // 3. no writer: the caller's promise. The memory is in `UnsafeCell`s, so writes elsewhere in it are no conflict.
        // WHY UNSAFE: records are read where the other thread wrote them; safe code would copy each once more.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// `length` octets from `at` on, to be written.
    ///
    /// # Safety
    /// Until the slice is dropped, nobody else reads or writes this range.
    #[expect(clippy::mut_from_ref, reason = "the memory is in cells; the caller promises the range is its own")]
    pub(super) unsafe fn slice_mut(&self, at: usize, length: usize) -> &mut [u8] {
        let start = self.start_of(at, length);
        #[cfg(loom)]
        self.check(at, length, |cell| cell.with_mut(|_| ()));
        // SAFETY: in bounds and initialised as in `slice`; not aliased by the caller's promise, and the pointer comes out of
        // `UnsafeCell`s, which allow writing through a shared reference.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    fn start_of(&self, at: usize, length: usize) -> *mut u8 {
        assert!(at <= self.len() && length <= self.len() - at, "{length} octets at {at} of {}", self.len());
        // `wrapping_add` only computes; the assertion above keeps the result inside the allocation or at its end.
        UnsafeCell::raw_get(self.words.as_ptr()).cast::<u8>().wrapping_add(at)
    }

    #[cfg(loom)]
    fn check(&self, at: usize, length: usize, touch: impl Fn(&loom::cell::UnsafeCell<()>)) {
        self.checked[at / WORD..(at + length).div_ceil(WORD)].iter().for_each(touch);
    }
}

/// Octets per word.
pub(super) const WORD: usize = size_of::<u64>();

/// Stands in for crossbeam's queue under loom, which cannot look inside that one.
#[cfg(loom)]
pub(super) struct ArrayQueue<T> {
    items: loom::sync::Mutex<std::collections::VecDeque<T>>,
    capacity: usize,
}

#[cfg(loom)]
impl<T> ArrayQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { items: loom::sync::Mutex::new(std::collections::VecDeque::new()), capacity }
    }

    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().expect("no panic while locked");
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.items.lock().expect("no panic while locked").pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.items.lock().expect("no panic while locked").len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == self.capacity
    }
}
