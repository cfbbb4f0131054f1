//! The node's memory budget: what every shard holds for its peers, added up now and then.
//!
//! Over the budget nobody new is let in (see `gate`), queues end at `high`, and large incomplete messages end their stream.

use crate::limits::MEMORY_STEP_OCTETS;
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the shards of a node hold, and how much they may.
#[derive(Debug)]
pub(crate) struct Memory {
    octets_max: usize,
    step: usize,
    held: Box<[CachePadded<AtomicUsize>]>,
    is_over: AtomicBool,
}

impl Memory {
    pub(crate) fn new(octets_max: usize, shards: usize) -> Self {
        Self {
            octets_max,
            step: (octets_max / 8 / shards).clamp(1, MEMORY_STEP_OCTETS),
            held: (0..shards).map(|_| CachePadded::default()).collect(),
            is_over: AtomicBool::new(false),
        }
    }

    /// No budget at all.
    pub(crate) fn unlimited() -> Self {
        Self::new(usize::MAX, 1)
    }

    /// By how much a shard's holdings change before it says so: what all of them together have not said is no more than an
    /// eighth of the budget, or a node that holds nothing any more could stay over it for ever.
    #[inline]
    pub(crate) const fn step(&self) -> usize {
        self.step
    }

    /// A shard now holds so many octets; true if the node is over its budget since this call.
    ///
    /// What is over is under again at seven eighths of the budget.
    pub(crate) fn note(&self, shard: usize, octets: usize) -> bool {
        if let Some(held) = self.held.get(shard) {
            held.store(octets, Ordering::Relaxed);
        }
        let was = self.is_over();
        let mark = if was { self.octets_max / 8 * 7 } else { self.octets_max };
        let is = self.octets() > mark;
        if is != was {
            self.is_over.store(is, Ordering::Relaxed);
        }
        is && !was
    }

    /// Whether the node holds more than it may.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// What the shards hold, as they last said.
    pub(crate) fn octets(&self) -> usize {
        self.held.iter().map(|held| held.load(Ordering::Relaxed)).sum()
    }

    pub(crate) const fn octets_max(&self) -> usize {
        self.octets_max
    }
}

/// Half of what the machine, or the cgroup this process is in, has.
pub(crate) fn default_budget() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| meminfo_total(&text));
    let own = read("/proc/self/cgroup")
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)))
        .and_then(|path| read(&format!("/sys/fs/cgroup{}/memory.max", path.trim_end_matches('/'))));
    let root = read("/sys/fs/cgroup/memory.max");
    let cgroups = [own, root].into_iter().flatten().filter_map(|text| text.trim().parse().ok());
    cgroups.chain(machine).min().map_or(usize::MAX, |octets: usize| octets / 2)
}

/// `MemTotal` in octets.
fn meminfo_total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_at_the_budget_and_under_again_below_it() {
        let memory = Memory::new(800, 2);
        assert!(!memory.note(0, 500));
        assert!(!memory.note(1, 300), "the budget itself is not over it");
        assert!(memory.note(1, 301), "said once, by whoever crosses the line");
        assert!(!memory.note(0, 510));
        assert!(memory.is_over());
        memory.note(0, 400);
        assert!(memory.is_over(), "701 of 800 is not yet seven eighths");
        memory.note(0, 399);
        assert!(!memory.is_over());
    }

    #[test]
    fn many_shards_that_hold_nothing_any_more_are_under_a_small_budget() {
        for (budget, shards) in [(16 << 20, 256), (16 << 20, 64), (64 << 20, 8), (1 << 30, 256)] {
            let memory = Memory::new(budget, shards);
            let mut said = vec![0; shards];
            let mut hold = |shard: usize, octets: usize| {
                if octets.abs_diff(said[shard]) >= memory.step() {
                    said[shard] = octets;
                    memory.note(shard, octets);
                }
            };
            (0..shards).for_each(|shard| hold(shard, budget)); // too much, and then just so much that it is not worth a word
            (0..shards).for_each(|shard| hold(shard, memory.step() - 1));
            (0..shards).for_each(|shard| hold(shard, 0));
            assert!(!memory.is_over(), "{budget} octets, {shards} shards: {} said", memory.octets());
        }
    }

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(meminfo_total("MemTotal:       24684908 kB\nMemFree: 1 kB\n"), Some(24_684_908 * 1024));
        assert!(default_budget() > 1 << 20);
    }
}
