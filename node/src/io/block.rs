//! What one send takes: octets of its own, and bodies that several sends share.

use std::rc::Rc;

/// A message several sends take octets from. Counted by its owner's thread alone; nobody writes it while it is shared.
pub type Shared = Rc<Vec<u8>>;

/// Octets of a [`Shared`] that leave in the middle of a block.
#[derive(Clone, Debug)]
pub struct Body {
    /// Octets of the block's own that leave before it.
    at: usize,
    memory: Shared,
    from: usize,
    length: usize,
}

impl Body {
    /// `memory[from..from + length]`, to leave after the first `at` octets of the block's own.
    ///
    /// # Panics
    /// If that is empty or not inside `memory`.
    #[must_use]
    pub fn new(at: usize, memory: Shared, from: usize, length: usize) -> Self {
        assert!(length > 0 && from + length <= memory.len());
        Self { at, memory, from, length }
    }

    /// The memory it lies in.
    #[must_use]
    pub fn into_memory(self) -> Shared {
        self.memory
    }
}

/// Send memory: owned, or shared with other sends; it is in the engine's hands from [`super::Io::send`] until
/// [`super::Done::Sent`]. No octet of it lies in a receive buffer.
#[derive(Debug, Default)]
pub struct Block {
    octets: Vec<u8>,
    /// In the order in which they leave.
    bodies: Vec<Body>,
    body_octets: usize,
}

impl From<Vec<u8>> for Block {
    fn from(octets: Vec<u8>) -> Self {
        Self { octets, bodies: Vec::new(), body_octets: 0 }
    }
}

impl Block {
    /// `octets`, and each body at its place among them; places only grow.
    #[must_use]
    pub fn gathered(octets: Vec<u8>, bodies: Vec<Body>) -> Self {
        debug_assert!(bodies.is_sorted_by_key(|body| body.at));
        debug_assert!(bodies.last().is_none_or(|body| body.at <= octets.len()));
        let body_octets = bodies.iter().map(|body| body.length).sum();
        Self { octets, bodies, body_octets }
    }

    /// All that leaves.
    #[must_use]
    pub fn len(&self) -> usize {
        self.octets.len() + self.body_octets
    }

    /// Whether nothing leaves.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it was made of; both keep their memory.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<Body>) {
        (self.octets, self.bodies)
    }

    /// The octets behind the first `from`, if they lie in one piece.
    pub(super) fn in_one_piece(&self, from: usize) -> Option<&[u8]> {
        self.bodies.is_empty().then(|| &self.octets[from..])
    }

    /// The octets behind the first `from`, in order; no piece is empty.
    pub(super) fn pieces(&self, from: usize) -> Pieces<'_> {
        Pieces { block: self, at: 0, next: 0, skip: from }
    }
}

/// Goes through a block piece by piece.
pub(super) struct Pieces<'a> {
    block: &'a Block,
    /// Octets of the block's own gone through.
    at: usize,
    /// The next body.
    next: usize,
    /// Octets still to be left out.
    skip: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let Block { octets, bodies, .. } = self.block;
            let piece = match bodies.get(self.next) {
                Some(body) if body.at == self.at => {
                    self.next += 1;
                    &body.memory[body.from..body.from + body.length]
                }
                body => {
                    let end = body.map_or(octets.len(), |body| body.at);
                    let own = &octets[self.at..end];
                    if own.is_empty() {
                        return None;
                    }
                    self.at = end;
                    own
                }
            };
            match piece.get(self.skip..) {
                Some(rest) if !rest.is_empty() => {
                    self.skip = 0;
                    return Some(rest);
                }
                _ => self.skip -= piece.len(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_any_octet_on_the_pieces_are_what_was_gathered() {
        let shared: Shared = Rc::new((100..110).collect());
        let body = |at, from, length| Body::new(at, Rc::clone(&shared), from, length);
        let bodies = vec![body(0, 9, 1), body(3, 0, 4), body(3, 6, 2), body(5, 0, 10), body(6, 1, 1)];
        let block = Block::gathered((0..6).collect(), bodies);
        let whole = [
            &[109][..],
            &[0, 1, 2],
            &[100, 101, 102, 103],
            &[106, 107],
            &[3, 4],
            &[100, 101, 102, 103, 104, 105, 106, 107, 108, 109],
            &[5],
            &[101],
        ];
        assert_eq!(block.pieces(0).collect::<Vec<_>>(), whole);
        let flat = whole.concat();
        assert_eq!(block.len(), flat.len());
        for from in 0..=flat.len() {
            assert!(block.pieces(from).all(|piece| !piece.is_empty()));
            assert_eq!(block.pieces(from).collect::<Vec<_>>().concat(), flat[from..]);
        }
        assert_eq!(Block::from(vec![1, 2, 3]).in_one_piece(1), Some(&[2, 3][..]));
        assert_eq!(block.in_one_piece(0), None);
    }
}
