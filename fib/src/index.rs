//! From a hash tag to a record's index: the table under every lookup.

use crate::hash::low_half;

/// An extendible hash table. It stores tags and indexes; the records, and the question whether one is meant, are the caller's.
///
/// Shape:  a directory, indexed by the leading bits of a tag, points at segments of a fixed size. A full segment is split
///         in two; so an insertion moves at most one segment's entries (a few microseconds), however large the table is.
///         Inside a segment entries lie as near as possible to their home, nearest first served (robin hood), and a
///         lookup reads one or two cache lines.
/// Bounds: at most 2³² − 1 entries and a directory of 2²² words.
#[derive(Debug)]
pub(crate) struct Index {
    directory: Vec<u32>,
    depth: u32,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    /// The tag in the high half, the index in the low half, or [`EMPTY`].
    entries: Box<[u64; SLOTS]>,
    len: u32,
    /// How many leading bits all tags in here share.
    depth: u32,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { directory: vec![0], depth: 0, segments: vec![Segment::new(0)] }
    }

    /// The index under `tag` of which `is_it` says yes.
    #[inline]
    pub(crate) fn find(&self, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let segment = &self.segments[self.directory[self.directory_index(tag)] as usize];
        let mut slot = home(tag);
        for distance in 0..SLOTS {
            let entry = segment.entries[slot];
            if entry == EMPTY || distance_of(entry, slot) < distance {
                return None;
            }
            if tag_of(entry) == tag && is_it(index_of(entry)) {
                return Some(index_of(entry));
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    /// Adds an entry. The caller has looked: it is not there yet.
    pub(crate) fn insert(&mut self, tag: u32, index: u32) {
        loop {
            let segment_index = self.directory[self.directory_index(tag)];
            let segment = &mut self.segments[segment_index as usize];
            if segment.len < SEGMENT_LEN_MAX {
                segment.insert(entry(tag, index));
                return;
            }
            self.split(segment_index, tag);
        }
    }

    /// Takes an entry out; whether it was there.
    pub(crate) fn remove(&mut self, tag: u32, index: u32) -> bool {
        let segment_index = self.directory[self.directory_index(tag)];
        self.segments[segment_index as usize].remove(entry(tag, index))
    }

    fn directory_index(&self, tag: u32) -> usize {
        tag.checked_shr(32 - self.depth).unwrap_or(0) as usize
    }

    /// Splits the segment in which `tag` lives by one more bit of the tags.
    fn split(&mut self, segment_index: u32, tag: u32) {
        let shared = self.segments[segment_index as usize].depth;
        if shared == self.depth {
            // Beyond this no key of ours spreads the tags any more; a keyed hash gets here with 10⁹ names, not with malice.
            assert!(self.depth < DEPTH_MAX, "the hash does not spread");
            self.directory = self.directory.iter().flat_map(|&segment| [segment, segment]).collect();
            self.depth += 1;
        }
        let upper_index = u32::try_from(self.segments.len()).expect("fewer segments than directory words");
        let mut lower = Segment::new(shared + 1);
        let mut upper = Segment::new(shared + 1);
        for &entry in self.segments[segment_index as usize].entries.iter().filter(|&&entry| entry != EMPTY) {
            let is_upper = tag_of(entry) >> (31 - shared) & 1 == 1;
            (if is_upper { &mut upper } else { &mut lower }).insert(entry);
        }
        self.segments[segment_index as usize] = lower;
        self.segments.push(upper);
        let span = 1 << (self.depth - shared);
        let first = self.directory_index(tag) & !(span - 1);
        self.directory[first + span / 2..first + span].fill(upper_index);
    }
}

impl Segment {
    fn new(depth: u32) -> Self {
        let entries = vec![EMPTY; SLOTS].into_boxed_slice().try_into().expect("SLOTS entries");
        Self { entries, len: 0, depth }
    }

    fn insert(&mut self, mut entry: u64) {
        self.len += 1;
        let mut slot = home(tag_of(entry));
        let mut distance = 0;
        loop {
            let there = self.entries[slot];
            if there == EMPTY {
                self.entries[slot] = entry;
                return;
            }
            let there_distance = distance_of(there, slot);
            if there_distance < distance {
                self.entries[slot] = entry;
                entry = there;
                distance = there_distance;
            }
            slot = (slot + 1) % SLOTS;
            distance += 1;
        }
    }

    fn remove(&mut self, entry: u64) -> bool {
        let start = home(tag_of(entry));
        let Some(mut slot) = (0..SLOTS)
            .map(|distance| (start + distance) % SLOTS)
            .take_while(|&slot| self.entries[slot] != EMPTY)
            .find(|&slot| self.entries[slot] == entry)
        else {
            return false;
        };
        self.len -= 1;
        // Whoever follows and is not at home moves one nearer.
        loop {
            let next = (slot + 1) % SLOTS;
            let follower = self.entries[next];
            if follower == EMPTY || distance_of(follower, next) == 0 {
                self.entries[slot] = EMPTY;
                return true;
            }
            self.entries[slot] = follower;
            slot = next;
        }
    }
}

fn entry(tag: u32, index: u32) -> u64 {
    debug_assert!(index != u32::MAX, "would look empty");
    u64::from(tag) << 32 | u64::from(index)
}

fn tag_of(entry: u64) -> u32 {
    low_half(entry >> 32)
}

fn index_of(entry: u64) -> u32 {
    low_half(entry)
}

/// Where an entry would lie in an empty segment: the trailing bits, which the directory does not look at.
fn home(tag: u32) -> usize {
    tag as usize % SLOTS
}

fn distance_of(entry: u64, slot: usize) -> usize {
    slot.wrapping_sub(home(tag_of(entry))) % SLOTS
}

/// Entries per segment; 8 KiB, so that splitting one stays in the first-level cache.
const SLOTS: usize = 1024;
/// A segment is split at seven eighths: beyond that, probing gets long.
const SEGMENT_LEN_MAX: u32 = 896;
const EMPTY: u64 = u64::MAX;
const DEPTH_MAX: u32 = 22;
const _: () = assert!(SLOTS.trailing_zeros() + DEPTH_MAX <= 32, "directory and home read different bits of the tag");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Keyed;

    #[test]
    fn keeps_what_it_is_given_across_splits_and_removals() {
        let hash = Keyed::new(3);
        let tag = |n: u32| hash.tag([u64::from(n), 0, 0]);
        let mut index = Index::new();
        for n in 0..50_000 {
            index.insert(tag(n), n);
        }
        assert!(index.segments.len() >= 56, "50 000 entries need at least 56 segments of 896");
        for n in (0..50_000).step_by(3) {
            assert!(index.remove(tag(n), n));
            assert!(!index.remove(tag(n), n), "removed once only");
        }
        for n in 0..50_000 {
            assert_eq!(index.find(tag(n), |found| found == n), (n % 3 != 0).then_some(n));
        }
        assert_eq!(index.find(tag(50_000), |_| false), None);
    }

    #[test]
    fn a_tag_shared_by_many_is_found_by_asking() {
        let mut index = Index::new();
        for n in 0..300 {
            index.insert(0xffff_ffff, n); // wraps around the end of the segment
        }
        assert_eq!(index.find(0xffff_ffff, |found| found == 217), Some(217));
        assert!(index.remove(0xffff_ffff, 0));
        assert_eq!(index.find(0xffff_ffff, |found| found == 299), Some(299));
        assert_eq!(index.find(0xffff_ffff, |found| found == 0), None);
    }
}
