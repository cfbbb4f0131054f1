//! The list of pieces a gathered send names.

use std::mem::MaybeUninit;

use super::super::block::Pieces;

/// A message header and its vectors, on the heap, so that moving the row that keeps them does not move them.
pub(super) struct Gather {
    /// One. Not a box: a box that moves takes back what was given out into it, and the kernel has a pointer.
    header: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
}

impl Gather {
    pub(super) fn new() -> Self {
        // SAFETY: a message header of zeroes is a valid value: null pointers and zero counts, "no name, no control, no
        // vectors".
        let header = unsafe { MaybeUninit::zeroed().assume_init() };
        Self { header: vec![header], vectors: Vec::with_capacity(PIECES_MAX) }
    }

    /// Names the first [`PIECES_MAX`] pieces; what the kernel is to be given, and how many octets that is.
    pub(super) fn name(&mut self, pieces: Pieces<'_>) -> (*const libc::msghdr, usize) {
        self.vectors.clear();
        let mut octets = 0;
        for piece in pieces.take(PIECES_MAX) {
            octets += piece.len();
            self.vectors.push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        }
        for header in &mut self.header {
            header.msg_iov = self.vectors.as_mut_ptr();
            header.msg_iovlen = self.vectors.len();
        }
        (self.header.as_ptr(), octets)
    }
}

/// Pieces of one send; a block of more leaves in several. The kernel takes 1024 at most.
const PIECES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::super::block::{Block, Body};
    use super::*;

    /// What the kernel would send.
    fn sent(header: *const libc::msghdr) -> Vec<u8> {
        // SAFETY: the caller has just been given it by `Gather::name`, and neither gather nor block was touched since.
        let header = unsafe { &*header };
        assert!(header.msg_name.is_null() && header.msg_control.is_null());
        // SAFETY: so many vectors lie there.
        let vectors = unsafe { std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen) };
        let mut octets = Vec::new();
        for vector in vectors {
            // SAFETY: a vector names octets of the block, which is alive.
            octets.extend_from_slice(unsafe { std::slice::from_raw_parts(vector.iov_base.cast(), vector.iov_len) });
        }
        octets
    }

    #[test]
    fn names_what_the_block_holds_however_often() {
        let memory = Rc::new((0..=9).collect::<Vec<u8>>());
        let bodies = vec![Body::new(1, memory.clone(), 2, 3), Body::new(2, memory, 7, 1)];
        let block = Block::gathered(vec![100, 101, 102], bodies);
        let mut gather = Gather::new();
        for (from, expected) in [(0, &[100, 2, 3, 4, 101, 7, 102][..]), (2, &[3, 4, 101, 7, 102]), (6, &[102])] {
            let (header, octets) = gather.name(block.pieces(from));
            assert_eq!((sent(header).as_slice(), octets), (expected, expected.len()));
            let moved = gather; // as the row that keeps it moves
            assert_eq!(sent(header), expected);
            gather = moved;
        }
    }

    #[test]
    fn names_no_more_pieces_than_one_send_takes() {
        let memory = Rc::new(vec![7; 2 * PIECES_MAX]);
        let bodies = (0..PIECES_MAX + 3).map(|from| Body::new(0, memory.clone(), from, 1)).collect();
        let block = Block::gathered(Vec::new(), bodies);
        let mut gather = Gather::new();
        let (header, octets) = gather.name(block.pieces(0));
        assert_eq!((sent(header).len(), octets), (PIECES_MAX, PIECES_MAX));
        assert_eq!(gather.name(block.pieces(octets)).1, 3);
    }
}
