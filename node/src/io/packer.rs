//! Receive buffers for engines that fill them themselves: pieces are packed one after the other, so that a thousand
//! small receives need few buffers.

use std::io;

use super::pool::{Lease, Pool};

/// A pool, which of its buffers nobody holds, and the one being filled.
#[derive(Debug)]
pub(super) struct Packer {
    pool: Pool,
    /// The last one put back is used first: it is in the cache.
    free: Vec<u16>,
    filling: Option<u16>,
}

impl Packer {
    pub(super) fn new(count: u16, stride: u32) -> io::Result<Self> {
        Ok(Self { pool: Pool::new(count, stride)?, free: (0..count).rev().collect(), filling: None })
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Room to receive into, a quarter of a buffer at least; `None` = all are lent out.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        let index = self.buffer()?;
        Some(self.pool.spare(index))
    }

    /// Lends the first `length` octets of the room, which were written.
    pub(super) fn lend(&mut self, length: usize) -> Lease {
        let (Some(index), Ok(length)) = (self.filling, u32::try_from(length)) else {
            panic!("lending what is not there: {length} octets");
        };
        self.pool.lend(index, length)
    }

    pub(super) fn put_back(&mut self, lease: Lease) {
        self.free.extend(self.pool.put_back(lease));
    }

    fn buffer(&mut self) -> Option<u16> {
        if let Some(index) = self.filling {
            let stride = self.pool.stride();
            if self.pool.rewind(index) || stride - self.pool.filled(index) >= stride / 4 {
                return Some(index);
            }
            self.pool.retire(index); // leases are out (else it was rewound), and the last of them frees it
            self.filling = None;
        }
        let index = self.free.pop()?;
        self.pool.hand_out(index);
        self.filling = Some(index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_share_a_buffer_until_it_is_nearly_full() {
        let mut packer = Packer::new(2, 16).unwrap();
        let lend = |packer: &mut Packer, count: usize| {
            packer.room().map(|room| room[..count].fill(1))?;
            Some(packer.lend(count))
        };
        let first = lend(&mut packer, 5).unwrap();
        let second = lend(&mut packer, 8).unwrap();
        assert_eq!(packer.room().unwrap().len(), 16, "3 octets are no room: the next buffer");
        let third = lend(&mut packer, 16).unwrap();
        assert!(packer.room().is_none(), "both are lent");
        packer.put_back(first);
        assert!(packer.room().is_none(), "the second piece still holds the first buffer");
        packer.put_back(second);
        assert_eq!(packer.room().unwrap().len(), 16);
        packer.put_back(third);
    }

    #[test]
    fn with_everything_back_the_same_octets_are_used_again() {
        let mut packer = Packer::new(4, 16).unwrap();
        for _ in 0..10 {
            packer.room().unwrap()[0] = 9;
            let lease = packer.lend(1);
            assert_eq!(packer.pool().octets(&lease), [9]);
            packer.put_back(lease);
            assert_eq!(packer.free.len(), 3, "the hot buffer is kept");
        }
    }
}
