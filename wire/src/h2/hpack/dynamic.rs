//! The decoder's dynamic table.

use std::collections::VecDeque;

use super::{FIELD_OVERHEAD, TABLE_OCTETS};

/// One field: where it starts in `octets`, and how its octets divide.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name: u32,
    value: u32,
}

impl Entry {
    fn cost(self) -> u32 {
        self.name + self.value + FIELD_OVERHEAD
    }
}

/// The last fields the peer asked to be remembered, newest first, within a number of octets.
///
/// Fields lie one after the other in one buffer; the room of evicted ones is reclaimed when it is as large as the
/// table itself. Nothing is allocated before the first insertion. Source: RFC 7541 §2.3.2, §4.
#[derive(Debug)]
pub(super) struct Dynamic {
    octets: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Sum of the entries' costs.
    size: u32,
    size_max: u32,
}

impl Dynamic {
    pub(super) fn new() -> Self {
        Self { octets: Vec::new(), entries: VecDeque::new(), size: 0, size_max: TABLE_OCTETS }
    }

    /// Name and value of the entry `index` places behind the newest.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(self.entries.len().checked_sub(index + 1)?)?;
        let field = &self.octets[entry.at as usize..][..(entry.name + entry.value) as usize];
        Some(field.split_at(entry.name as usize))
    }

    /// Sets the most the table may hold; the caller has checked it against [`TABLE_OCTETS`].
    pub(super) fn resize(&mut self, size_max: u32) {
        debug_assert!(size_max <= TABLE_OCTETS, "the peer may only use what it was given");
        self.size_max = size_max;
        self.evict(size_max);
        if size_max == 0 {
            self.octets = Vec::new();
            self.entries = VecDeque::new();
        }
    }

    /// Remembers a field; one that is larger than the table empties it, which is no error.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + FIELD_OVERHEAD as usize;
        let Some(room) = u32::try_from(cost).ok().and_then(|cost| self.size_max.checked_sub(cost)) else {
            self.evict(0);
            return;
        };
        self.evict(room);
        let at = narrow(self.octets.len());
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(value);
        let entry = Entry { at, name: narrow(name.len()), value: narrow(value.len()) };
        self.size += entry.cost();
        self.entries.push_back(entry);
    }

    /// Forgets the oldest entries until the rest costs at most `size`.
    fn evict(&mut self, size: u32) {
        while self.size > size {
            let entry = self.entries.pop_front().expect("entries remain while their cost does");
            self.size -= entry.cost();
        }
        // An entry may be of no octets at all and lie at the very end: what is there is told by the entries alone.
        match self.entries.front().map(|entry| entry.at) {
            None => self.octets.clear(),
            Some(start) if start >= TABLE_OCTETS => {
                self.octets.drain(..start as usize);
                self.entries.iter_mut().for_each(|entry| entry.at -= start);
            }
            Some(_) => {}
        }
    }
}

/// Lengths inside the table: below twice its size.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("the table holds a few thousand octets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_the_oldest_goes() {
        let mut table = Dynamic::new();
        table.resize(2 * (32 + 2));
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert_eq!(table.get(0), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.get(1), Some((&b"a"[..], &b"1"[..])));
        table.insert(b"c", b"3");
        assert_eq!(table.get(1), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.get(2), None);
        table.insert(&[b'x'; 100], b"");
        assert_eq!(table.get(0), None, "an entry too large empties the table");
    }

    #[test]
    fn an_entry_of_no_octets_outlives_those_before_it() {
        let mut table = Dynamic::new();
        table.resize(2 * 32 + 10);
        table.insert(b"name", b"value");
        table.insert(b"", b"");
        table.insert(b"", b"next");
        assert_eq!(table.get(1), Some((&b""[..], &b""[..])));
        assert_eq!(table.get(0), Some((&b""[..], &b"next"[..])));
        assert_eq!(table.get(2), None);
    }

    #[test]
    fn memory_stays_within_twice_the_table() {
        let mut table = Dynamic::new();
        for round in 0..10_000u32 {
            table.insert(&round.to_be_bytes(), &vec![b'v'; (round % 500) as usize]);
            let (name, value) = table.get(0).unwrap();
            assert_eq!((name, value.len()), (&round.to_be_bytes()[..], (round % 500) as usize));
            assert!(table.octets.len() <= 2 * TABLE_OCTETS as usize + 600);
            assert!(table.size <= TABLE_OCTETS);
        }
    }
}
