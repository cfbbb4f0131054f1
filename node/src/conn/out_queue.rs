//! Octets of one stream that wait for a window or for room in the transport's block.

/// A byte queue: what is pushed at the back leaves at the front, contiguous.
#[derive(Default)]
pub(crate) struct OutQueue {
    octets: Vec<u8>,
    head: usize,
}

/// An emptied queue gives memory beyond this back.
const KEEP_OCTETS: usize = 4 * 1024;

impl OutQueue {
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == self.octets.len()
    }

    /// What waits, oldest first.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets[self.head..]
    }

    /// Where new octets are appended; what lies before the returned buffer's end must not be touched.
    pub(crate) fn back(&mut self) -> &mut Vec<u8> {
        if self.head > 64 * 1024 && self.head > self.octets.len() / 2 {
            self.octets.drain(..self.head);
            self.head = 0;
        }
        &mut self.octets
    }

    /// Drops the first `octets` octets.
    pub(crate) fn advance(&mut self, octets: usize) {
        self.head += octets;
        debug_assert!(self.head <= self.octets.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.head = 0;
        self.octets.clear();
        if self.octets.capacity() > KEEP_OCTETS {
            self.octets = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_compaction() {
        let mut queue = OutQueue::default();
        let (mut pushed, mut popped) = (0u32, 0u32);
        for round in 0..2000u32 {
            for _ in 0..(round % 97) + 40 {
                queue.back().extend_from_slice(&pushed.to_le_bytes());
                pushed += 1;
            }
            while queue.octets().len() > 100_000 {
                assert_eq!(queue.octets()[..4], popped.to_le_bytes());
                queue.advance(4);
                popped += 1;
            }
        }
        while !queue.is_empty() {
            assert_eq!(queue.octets()[..4], popped.to_le_bytes());
            queue.advance(4);
            popped += 1;
        }
        assert_eq!(pushed, popped);
        assert!(queue.octets.capacity() <= KEEP_OCTETS, "an empty queue holds little");
    }
}
