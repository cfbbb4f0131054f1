//! The ring of receive buffers the kernel picks from, over the shard's [`Pool`].
//!
//! We append free buffers at the tail; the kernel takes them from the head, in ring order. A completion names its
//! first buffer and how many octets came; when it is a bundle they run on through the buffers that lie *next in the
//! ring*, whatever their numbers. With incremental consumption the kernel fills the head buffer piece by piece.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use super::memory::Memory;
use super::pool::{Lease, Pool};

/// Buffers in kernel hands, and what lies where in the ring they share.
#[derive(Debug)]
pub(super) struct BufRing {
    pool: Pool,
    ring: Memory,
    /// Buffers ever appended, counted modulo 2^16; low bits are the ring position of the next one.
    tail: u16,
    mask: u16,
    /// The buffer appended last at each ring position.
    order: Box<[u16]>,
    /// The ring position each buffer was appended at last.
    place: Box<[u16]>,
    incremental: bool,
    /// Incremental: the ring position being filled.
    filling: u16,
}

impl BufRing {
    /// `count` (a power of two, at most 2^15) buffers of `stride` octets, all appended.
    pub(super) fn new(count: u16, stride: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel indexes the ring by mask");
        let mut ring = Self {
            pool: Pool::new(count, stride)?,
            ring: Memory::new(usize::from(count) * Entry::OCTETS)?,
            tail: 0,
            mask: count - 1,
            order: vec![0; usize::from(count)].into_boxed_slice(),
            place: vec![0; usize::from(count)].into_boxed_slice(),
            incremental: false,
            filling: 0,
        };
        for index in 0..count {
            ring.append(index);
        }
        Ok(ring)
    }

    /// The kernel was told to fill buffers piece by piece. Only before the first receive.
    pub(super) fn set_incremental(&mut self) {
        self.incremental = true;
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Where the ring lies, for registering it.
    pub(super) fn address(&self) -> u64 {
        self.ring.at(0).as_ptr().expose_provenance() as u64
    }

    /// Lends what a completion brought: `octets` (not zero) beginning in buffer `first`, in order.
    ///
    /// Shape:  one lease per buffer touched. Completions must be given in the order the kernel posted them.
    /// Errors: `false` = the kernel named more than it was given, which would be its bug or ours; the leases made so
    ///         far hold, the engine stops.
    #[must_use]
    pub(super) fn take(&mut self, first: u16, octets: u32, mut out: impl FnMut(Lease)) -> bool {
        let Some(&start) = self.place.get(usize::from(first)) else { return false };
        if self.incremental && !self.pass_over(start) {
            return false;
        }
        let mut position = start;
        let mut left = octets;
        for _ in 0..=self.mask {
            let index = self.order[usize::from(position)];
            let room = self.room(index, position);
            let length = left.min(room);
            if length == 0 || self.pool.is_retired(index) {
                return false;
            }
            let lease = self.pool.lend(index, length);
            left -= length;
            let full = self.pool.filled(index) == self.pool.stride();
            if !self.incremental || full {
                self.pool.retire(index); // the lease frees it
                self.filling = position.wrapping_add(1) & self.mask;
            }
            out(lease);
            if left == 0 {
                return true;
            }
            position = position.wrapping_add(1) & self.mask;
        }
        false
    }

    /// Incremental: the kernel fills buffers in ring order and leaves one only when it is full, whatever its flags said
    /// in some versions. Should it ever leave one early, that one is given up here rather than waited for.
    /// False = `position` is not in the kernel's hands.
    fn pass_over(&mut self, position: u16) -> bool {
        for _ in 0..=self.mask {
            if self.filling == position {
                return true;
            }
            let passed = self.filling;
            let index = self.order[usize::from(passed)];
            self.filling = passed.wrapping_add(1) & self.mask;
            let is_there = self.place[usize::from(index)] == passed && !self.pool.is_retired(index);
            if is_there && self.pool.retire(index) {
                self.append(index);
            }
        }
        false
    }

    /// A completion used up buffer `index` without an octet in it (an end or error on some kernels).
    pub(super) fn take_empty(&mut self, index: u16, goes_on: bool) {
        if !goes_on && !self.pool.is_retired(index) && self.pool.retire(index) {
            self.append(index);
        }
    }

    /// Takes a lease back; its buffer returns to the kernel when it was the last.
    pub(super) fn put_back(&mut self, lease: Lease) {
        if let Some(index) = self.pool.put_back(lease) {
            self.append(index);
        }
    }

    /// Octets the kernel had at `position`. It may have cut the entry short to what the socket held, and writes that
    /// back into the ring; the entry stays as it is until we append over it.
    fn room(&self, index: u16, position: u16) -> u32 {
        if self.incremental {
            return self.pool.stride() - self.pool.filled(index);
        }
        let at = self.ring.at(usize::from(position) * Entry::OCTETS + Entry::LENGTH_AT);
        // SAFETY: inside the ring (position <= mask), aligned (entries are 16 octets from a page start); volatile
        // because the kernel wrote it last.
        let length = unsafe { at.cast::<u32>().as_ptr().read_volatile() };
        length.min(self.pool.stride())
    }

    /// Appends a free buffer and tells the kernel.
    fn append(&mut self, index: u16) {
        self.pool.hand_out(index);
        let position = self.tail & self.mask;
        let entry = usize::from(position) * Entry::OCTETS;
        let address = self.pool.start(index).expose_provenance() as u64;
        let stride = self.pool.stride();
        let at = self.ring.at(entry + Entry::ADDRESS_AT).cast::<u64>();
        // SAFETY: inside the ring and aligned, as in `room`. The kernel reads entries only below the tail it has seen,
        // and this position is the tail: it is free, since there are exactly as many positions as buffers.
        unsafe { at.as_ptr().write_volatile(address) };
        let at = self.ring.at(entry + Entry::LENGTH_AT).cast::<u32>();
        // SAFETY: as above.
        unsafe { at.as_ptr().write_volatile(stride) };
        let at = self.ring.at(entry + Entry::INDEX_AT).cast::<u16>();
        // SAFETY: as above.
        unsafe { at.as_ptr().write_volatile(index) };
        self.order[usize::from(position)] = index;
        self.place[usize::from(index)] = position;
        self.tail = self.tail.wrapping_add(1);
        self.tail_word().store(self.tail, Ordering::Release); // publishes the entry written above
    }

    /// The ring's tail lives in the spare field of the first entry.
    fn tail_word(&self) -> &AtomicU16 {
        let at = self.ring.at(Entry::TAIL_AT).cast::<u16>();
        // SAFETY: inside the ring, aligned, and from here on only accessed atomically: the kernel by load-acquire, us
        // through this function.
        unsafe { AtomicU16::from_ptr(at.as_ptr()) }
    }
}

/// The kernel's `struct io_uring_buf`: address u64, length u32, buffer id u16, spare u16; native endian.
struct Entry;

impl Entry {
    const OCTETS: usize = 16;
    const ADDRESS_AT: usize = 0;
    const LENGTH_AT: usize = 8;
    const INDEX_AT: usize = 12;
    const TAIL_AT: usize = 14;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's half of the contract, played by hand: picks buffers from the head and writes into them.
    struct Kernel {
        head: u16,
    }

    impl Kernel {
        fn entry(ring: &BufRing, position: u16) -> (*mut u8, *mut u32, u16) {
            let at = |offset: usize| ring.ring.at(usize::from(position) * Entry::OCTETS + offset).as_ptr();
            // SAFETY: positions are masked; fields are aligned and were written by `append`.
            let address = unsafe { at(Entry::ADDRESS_AT).cast::<u64>().read_volatile() };
            // SAFETY: as above.
            let index = unsafe { at(Entry::INDEX_AT).cast::<u16>().read_volatile() };
            let start = ring.pool.start(index);
            assert_eq!(start.addr() as u64, address, "the entry names its buffer");
            (start, at(Entry::LENGTH_AT).cast(), index)
        }

        /// Receives `text` the way a bundle does; `cut` shortens the first entry as kernels do. `None` = ENOBUFS.
        fn receive(&mut self, ring: &BufRing, text: &[u8], cut: Option<u32>) -> Option<(u16, u32)> {
            let mut first = None;
            let mut left = text;
            while !left.is_empty() {
                if self.head == ring.tail_word().load(Ordering::Acquire) {
                    break;
                }
                let (start, length, index) = Self::entry(ring, self.head & ring.mask);
                if let (None, Some(cut)) = (first, cut) {
                    // SAFETY: the kernel may write the entry's length before it consumes it.
                    unsafe { length.write_volatile(cut) };
                }
                // SAFETY: as above.
                let room = unsafe { length.read_volatile() } as usize;
                let count = left.len().min(room);
                for (offset, octet) in left[..count].iter().enumerate() {
                    // SAFETY: inside the buffer the entry names, which is in the kernel's hands.
                    let at = unsafe { start.add(offset) };
                    // SAFETY: as above.
                    unsafe { at.write(*octet) };
                }
                first.get_or_insert(index);
                left = &left[count..];
                self.head = self.head.wrapping_add(1);
            }
            first.map(|first| (first, u32::try_from(text.len() - left.len()).unwrap()))
        }
    }

    fn text(seed: &mut u32, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed.to_be_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn bundles_run_through_the_ring_in_its_order_whatever_is_put_back_when() {
        let mut ring = BufRing::new(4, 8).unwrap();
        let mut kernel = Kernel { head: 0 };
        let mut seed = 1;
        let mut held: Vec<(Lease, Vec<u8>)> = Vec::new();
        for round in 0..if cfg!(miri) { 60 } else { 2000 } {
            let count = 1 + (seed >> 9) as usize % 24;
            let sent = text(&mut seed, count);
            let cut = (round % 5 == 0).then_some(3);
            let Some((first, octets)) = kernel.receive(&ring, &sent, cut) else {
                assert_eq!(held.len(), 4, "out of buffers only when all are lent");
                // Put back in another order than lent.
                while !held.is_empty() {
                    let (lease, expected) = held.swap_remove(seed as usize % held.len());
                    assert_eq!(ring.pool().octets(&lease), expected);
                    ring.put_back(lease);
                    seed = seed.rotate_left(7);
                }
                continue;
            };
            let mut leases = Vec::new();
            assert!(ring.take(first, octets, |lease| leases.push(lease)));
            let mut expected = &sent[..octets as usize];
            for lease in leases {
                let (mine, rest) = expected.split_at(lease.octet_count());
                assert_eq!(ring.pool().octets(&lease), mine);
                expected = rest;
                held.push((lease, mine.to_vec()));
            }
            assert!(expected.is_empty());
            if seed & 0x0300_0000 == 0 && !held.is_empty() {
                let (lease, expected) = held.swap_remove(0);
                assert_eq!(ring.pool().octets(&lease), expected);
                ring.put_back(lease);
            }
        }
    }

    #[test]
    fn incremental_buffers_are_lent_piece_by_piece_and_return_when_full() {
        let mut ring = BufRing::new(2, 10).unwrap();
        ring.set_incremental();
        let start = ring.pool().start(0);
        for (offset, octet) in b"abcdefghij".iter().enumerate() {
            // SAFETY: the test is the kernel: buffer 0 is in its hands, and it writes ahead of what was lent.
            let at = unsafe { start.add(offset) };
            // SAFETY: as above.
            unsafe { at.write(*octet) };
        }
        let mut leases = Vec::new();
        assert!(ring.take(0, 4, |lease| leases.push(lease)));
        assert!(ring.take(0, 3, |lease| leases.push(lease)));
        assert!(ring.take(0, 5, |lease| leases.push(lease)), "runs over into buffer 1");
        let pieces: Vec<_> = leases.iter().map(|lease| ring.pool().octets(lease).to_vec()).collect();
        assert_eq!(pieces[..3], [b"abcd".to_vec(), b"efg".to_vec(), b"hij".to_vec()]);
        assert_eq!(leases[3].octet_count(), 2);
        assert_eq!(ring.tail, 2);
        let last = leases.pop().unwrap();
        for lease in leases {
            ring.put_back(lease);
        }
        assert_eq!(ring.tail, 3, "buffer 0 went back to the kernel once, at the end");
        ring.put_back(last);
        assert_eq!(ring.tail, 3, "buffer 1 is still being filled");
    }

    #[test]
    fn an_incremental_buffer_the_kernel_left_early_is_given_back() {
        let mut ring = BufRing::new(4, 8).unwrap();
        ring.set_incremental();
        let mut leases = Vec::new();
        assert!(ring.take(0, 3, |lease| leases.push(lease)));
        assert!(ring.take(2, 8, |lease| leases.push(lease)), "0 and 1 were passed over");
        assert_eq!(ring.tail, 5, "1 held nothing and went back at once");
        for lease in leases {
            ring.put_back(lease);
        }
        assert_eq!(ring.tail, 7);
        assert!(ring.take(3, 8, |lease| assert_eq!(lease.octet_count(), 8)));
    }

    #[test]
    fn nonsense_from_the_kernel_stops_the_engine_and_nothing_else() {
        let mut ring = BufRing::new(2, 8).unwrap();
        assert!(!ring.take(9, 1, drop), "no such buffer");
        let mut leases = Vec::new();
        assert!(!ring.take(0, 17, |lease| leases.push(lease)), "more than both hold");
        assert!(!ring.take(0, 1, |_| ()), "a buffer that was not given");
        for lease in leases {
            ring.put_back(lease);
        }
        ring.take_empty(1, false);
        assert_eq!(ring.tail, 5);
    }
}
