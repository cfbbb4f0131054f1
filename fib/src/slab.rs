//! Numbered places for records, which never move and cost no more than the records themselves.

/// A record that can say "nobody lives here, the next empty place is that one".
pub(crate) trait Record {
    fn vacant(next: u32) -> Self;
    /// The next empty place; `None` if this one is taken.
    fn next_vacant(&self) -> Option<u32>;
}

/// Ends the list of empty places.
const NONE: u32 = u32::MAX;

/// Records by index. Grows by one chunk at a time, so no insertion ever copies the table.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    vacant: u32,
    len: u32,
}

impl<T: Record> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), vacant: NONE, len: 0 }
    }

    pub(crate) fn insert(&mut self, record: T) -> u32 {
        self.len += 1;
        if self.vacant != NONE {
            let index = self.vacant;
            let place = self.get_mut(index);
            self.vacant = place.next_vacant().expect("the list of empty places holds empty places");
            *self.get_mut(index) = record;
            return index;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk_index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[chunk_index];
        chunk.push(record);
        let index = chunk_index * CHUNK + chunk.len() - 1;
        u32::try_from(index).ok().filter(|&index| index < INDEX_MAX).expect("names_max keeps tables below 2³⁰ records")
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        let next = self.vacant;
        let record = std::mem::replace(self.get_mut(index), T::vacant(next));
        debug_assert!(record.next_vacant().is_none(), "removed twice");
        self.vacant = index;
        self.len -= 1;
        record
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The records, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().filter(|record| record.next_vacant().is_none())
    }
}

/// Records per chunk.
const CHUNK: usize = 1024;
/// Indexes stay below this, so that callers may use the two top bits.
const INDEX_MAX: u32 = 1 << 30;
