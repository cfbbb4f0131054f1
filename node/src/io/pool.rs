//! The receive buffers of one shard, and who holds which piece of them.
//!
//! A *filler* (the kernel, or a receive call) writes a buffer from front to back; each filled piece is lent to the
//! owner as a [`Lease`]. A buffer is free again when the filler is done with it (*retired*) and every lease is back.

use std::io;
use std::slice;

use super::memory::Memory;

/// A filled piece of a receive buffer. Not `Clone`: it is put back exactly once, by [`super::Io::put_back`].
#[must_use = "a lease that is not put back starves receiving"]
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    index: u16,
    offset: u32,
    length: u32,
}

impl Lease {
    /// How many octets it holds; never zero.
    pub fn octet_count(&self) -> usize {
        self.length as usize
    }
}

/// Equal buffers in one piece of memory, and the book of what is lent.
#[derive(Debug)]
pub(super) struct Pool {
    memory: Memory,
    stride: u32,
    books: Box<[Book]>,
    leases_out: u32,
}

#[derive(Clone, Copy, Debug)]
struct Book {
    /// Leases of this buffer that the owner holds.
    lent: u32,
    /// How far the filler got: octets before it belong to leases, octets after it to the filler.
    filled: u32,
    /// The filler will write no more until the buffer has been free.
    retired: bool,
}

impl Pool {
    /// `count` buffers of `stride` octets; all start free (retired and not lent).
    pub(super) fn new(count: u16, stride: u32) -> io::Result<Self> {
        assert!(count > 0 && stride > 0);
        let book = Book { lent: 0, filled: 0, retired: true };
        Ok(Self {
            memory: Memory::new(usize::from(count) * stride as usize)?,
            stride,
            books: vec![book; usize::from(count)].into_boxed_slice(),
            leases_out: 0,
        })
    }

    pub(super) fn count(&self) -> u16 {
        // Made from a u16.
        u16::try_from(self.books.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn stride(&self) -> u32 {
        self.stride
    }

    pub(super) fn leases_out(&self) -> u32 {
        self.leases_out
    }

    /// How far buffer `index` is filled.
    pub(super) fn filled(&self, index: u16) -> u32 {
        self.books[usize::from(index)].filled
    }

    /// Whether the filler is done with buffer `index` (or has not had it yet).
    pub(super) fn is_retired(&self, index: u16) -> bool {
        self.books[usize::from(index)].retired
    }

    /// Where buffer `index` starts.
    pub(super) fn start(&self, index: u16) -> *mut u8 {
        self.memory.at(self.offset(index, 0)).as_ptr()
    }

    /// Hands a free buffer to the filler.
    pub(super) fn hand_out(&mut self, index: u16) {
        let book = &mut self.books[usize::from(index)];
        assert!(book.retired && book.lent == 0, "only a free buffer is filled");
        book.filled = 0;
        book.retired = false;
    }

    /// The filler wrote the next `length` octets of `index`: lends them.
    pub(super) fn lend(&mut self, index: u16, length: u32) -> Lease {
        let book = &mut self.books[usize::from(index)];
        assert!(!book.retired, "a retired buffer is not written");
        assert!(length > 0 && length <= self.stride - book.filled);
        let offset = book.filled;
        book.filled += length;
        book.lent += 1;
        self.leases_out += 1;
        Lease { index, offset, length }
    }

    /// The filler is done with `index`; true = it is free now, else the last lease put back frees it.
    pub(super) fn retire(&mut self, index: u16) -> bool {
        let book = &mut self.books[usize::from(index)];
        assert!(!book.retired);
        book.retired = true;
        book.lent == 0
    }

    /// Starts over at the front of a buffer being filled, if no lease of it is out.
    pub(super) fn rewind(&mut self, index: u16) -> bool {
        let book = &mut self.books[usize::from(index)];
        assert!(!book.retired);
        if book.lent == 0 {
            book.filled = 0;
        }
        book.lent == 0
    }

    /// Takes a lease back; `Some(index)` = that buffer is free now.
    pub(super) fn put_back(&mut self, lease: Lease) -> Option<u16> {
        let Lease { index, .. } = lease;
        let book = &mut self.books[usize::from(index)];
        book.lent = book.lent.checked_sub(1).expect("a lease of this pool, put back once");
        self.leases_out -= 1;
        (book.retired && book.lent == 0).then_some(index)
    }

    /// The octets of a lease.
    pub(super) fn octets<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        let start = self.memory.at(self.checked_start(lease)).as_ptr();
        // SAFETY: 1. in bounds: `checked_start` asserts that offset and length stay inside buffer `index`.
        // 2. initialised: the memory started zeroed.
        // 3. no writer: a lease covers only octets below `filled`, and the filler writes at or above it until the
        //    buffer was free, for which this lease must have been put back (by value, while `'a` borrows it).
        //    `octets_mut` takes the pool by `&mut`. Run under Miri with a simulated kernel (buf_ring tests).
        // WHY UNSAFE: the kernel writes the rest of the same memory meanwhile, so no `Box<[u8]>` can hold it; the
        // alternative is a copy per receive.
        unsafe { slice::from_raw_parts(start, lease.length as usize) }
    }

    /// The octets of a lease, to change them in place.
    pub(super) fn octets_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        let start = self.memory.at(self.checked_start(lease)).as_ptr();
        // SAFETY: as in `octets`; and unique: leases never overlap (`lend` cuts each from what no other covers) and
        // both the pool and the lease are borrowed `&mut` for `'a`.
        unsafe { slice::from_raw_parts_mut(start, lease.length as usize) }
    }

    /// The unfilled rest of buffer `index`, for a filler on this thread.
    pub(super) fn spare(&mut self, index: u16) -> &mut [u8] {
        let book = self.books[usize::from(index)];
        assert!(!book.retired);
        let start = self.memory.at(self.offset(index, book.filled)).as_ptr();
        // SAFETY: inside buffer `index` (`filled <= stride`), zeroed at the start, disjoint from every lease (they lie
        // below `filled`), and nobody else fills: this call serves engines whose kernel writes only during a receive
        // call on this very slice.
        unsafe { slice::from_raw_parts_mut(start, (self.stride - book.filled) as usize) }
    }

    fn checked_start(&self, lease: &Lease) -> usize {
        let end = lease.offset.checked_add(lease.length);
        assert!(end.is_some_and(|end| end <= self.stride), "a lease of another pool");
        self.offset(lease.index, lease.offset)
    }

    fn offset(&self, index: u16, within: u32) -> usize {
        assert!(usize::from(index) < self.books.len() && within <= self.stride);
        usize::from(index) * self.stride as usize + within as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &mut Pool, index: u16, text: &[u8]) -> Lease {
        pool.spare(index)[..text.len()].copy_from_slice(text);
        pool.lend(index, u32::try_from(text.len()).unwrap())
    }

    #[test]
    fn a_buffer_is_free_when_retired_and_all_leases_are_back() {
        let mut pool = Pool::new(2, 16).unwrap();
        pool.hand_out(1);
        let first = filled(&mut pool, 1, b"hello");
        let second = filled(&mut pool, 1, b"world");
        assert_eq!(pool.octets(&first), b"hello");
        assert_eq!(pool.octets(&second), b"world");
        assert_eq!(pool.spare(1).len(), 6);
        assert_eq!(pool.put_back(first), None, "one lease is still out");
        assert!(!pool.retire(1), "the last lease frees it");
        assert_eq!(pool.put_back(second), Some(1));
        assert_eq!(pool.leases_out(), 0);
        pool.hand_out(1); // and it can be used again
        assert_eq!(pool.filled(1), 0);
    }

    #[test]
    fn leases_change_in_place_while_the_filler_writes_behind_them() {
        let mut pool = Pool::new(1, 8).unwrap();
        pool.hand_out(0);
        let mut lease = filled(&mut pool, 0, b"abc");
        pool.octets_mut(&mut lease)[0] = b'X';
        pool.spare(0)[0] = b'!';
        assert_eq!(pool.octets(&lease), b"Xbc");
        assert_eq!(pool.put_back(lease), None, "the filler still has it");
        assert!(pool.retire(0));
    }

    #[test]
    #[should_panic(expected = "lease of another pool")]
    fn a_lease_of_a_larger_pool_is_refused() {
        let mut large = Pool::new(1, 64).unwrap();
        large.hand_out(0);
        let lease = large.lend(0, 64);
        let _ = Pool::new(1, 8).unwrap().octets(&lease);
    }
}
