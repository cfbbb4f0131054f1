//! Octets that wait to be sent on one connection, and where one write has to end and the next to begin.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Everything written and not yet handed over starts at `from`.
    pub(crate) octets: Vec<u8>,
    from: usize,
    /// Where writes end before the last one does, ascending.
    cuts: VecDeque<usize>,
    /// The kernel has its fill: wait for [`super::Arrival::Writable`].
    pub(crate) blocked: bool,
}

impl Outbox {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.from == self.octets.len()
    }

    /// Octets that wait.
    pub(crate) fn len(&self) -> usize {
        self.octets.len() - self.from
    }

    /// Ends the current write: what is written from now on goes to the kernel by another call.
    pub(crate) fn cut(&mut self) {
        let end = self.octets.len();
        if !self.is_empty() && self.cuts.back() != Some(&end) {
            self.cuts.push_back(end);
        }
    }

    /// What the next write holds.
    pub(super) fn next(&self) -> &[u8] {
        &self.octets[self.from..self.cuts.front().copied().unwrap_or(self.octets.len())]
    }

    /// Notes `sent` octets of [`Outbox::next`] as handed over.
    pub(super) fn sent(&mut self, sent: usize) {
        self.from += sent;
        if self.cuts.front() == Some(&self.from) {
            self.cuts.pop_front();
        }
        if self.is_empty() {
            self.octets.clear();
            self.from = 0;
        }
    }

    /// Takes the next write out whole; `spare`, an empty block, holds the others then.
    ///
    /// Writes are either taken or sent in parts, by one engine: never both.
    pub(super) fn take(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        debug_assert_eq!(self.from, 0, "a part of it is gone");
        if let Some(cut) = self.cuts.pop_front() {
            spare.extend_from_slice(&self.octets[cut..]);
            self.octets.truncate(cut);
            self.cuts.iter_mut().for_each(|later| *later -= cut);
        }
        std::mem::replace(&mut self.octets, spare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three writes: `ab`, `c`, `de`.
    fn three() -> Outbox {
        let mut out = Outbox::default();
        out.cut(); // nothing to end
        out.octets.extend_from_slice(b"ab");
        out.cut();
        out.cut();
        out.octets.push(b'c');
        out.cut();
        out.octets.extend_from_slice(b"de");
        out
    }

    #[test]
    fn writes_sent_in_parts_end_where_they_were_cut() {
        let mut out = three();
        let mut writes = Vec::new();
        while !out.is_empty() {
            writes.push(out.next().to_vec());
            out.sent(1);
        }
        assert_eq!(writes, [&b"ab"[..], b"b", b"c", b"de", b"e"]);
        assert_eq!((out.len(), out.octets.len(), out.cuts.len()), (0, 0, 0));
    }

    #[test]
    fn writes_are_taken_one_by_one() {
        let mut out = three();
        assert_eq!(out.take(Vec::new()), b"ab");
        assert_eq!(out.len(), 3);
        assert_eq!(out.take(Vec::new()), b"c");
        assert_eq!(out.take(Vec::new()), b"de");
        assert!(out.is_empty() && out.take(Vec::new()).is_empty());
    }
}
