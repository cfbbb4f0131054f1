//! When to look at a transport again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines of transports, soonest first. An entry that no longer matters is found out when it comes up.
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Timers {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Asks for a look at (slot, generation) at `at`.
    pub(crate) fn arm(&mut self, at: Instant, slot: u32, generation: u32) {
        self.heap.push(Reverse((at, slot, generation)));
    }

    /// When the next look is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next transport whose look is due at `now`.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(u32, u32, Instant)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, slot, generation))| (slot, generation, at))
    }
}
