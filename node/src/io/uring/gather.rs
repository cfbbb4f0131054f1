//! The list of pieces a gathered send names.

use std::mem::MaybeUninit;

use super::super::block::Pieces;

/// A message header and its vectors; boxed, so that moving the row that keeps it does not move them.
pub(super) struct Gather {
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
}

impl Gather {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: a message header of zeroes is a valid value: null pointers and zero counts, "no name, no control, no
        // vectors".
        let header = unsafe { MaybeUninit::zeroed().assume_init() };
        Box::new(Self { header, vectors: Vec::with_capacity(PIECES_MAX) })
    }

    /// Names the first [`PIECES_MAX`] pieces; what the kernel is to be given, and how many octets that is.
    pub(super) fn name(&mut self, pieces: Pieces<'_>) -> (*const libc::msghdr, usize) {
        self.vectors.clear();
        let mut octets = 0;
        for piece in pieces.take(PIECES_MAX) {
            octets += piece.len();
            self.vectors.push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        (&raw const self.header, octets)
    }
}

/// Pieces of one send; a block of more leaves in several. The kernel takes 1024 at most.
const PIECES_MAX: usize = 256;
