//! Connections, as next hops point at them.

use slimline_wire::ConnType;
use std::fmt;

/// One connection of this node: the shard that owns it, its slot there, and how often that slot was used before.
///
/// Shape:  a generation is never seen alive twice, so a late message for a departed connection finds nobody.
/// Units:  `shard` < [`ConnId::SHARDS_MAX`], `slot` < [`ConnId::SLOTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Index of the owning shard.
    pub shard: u16,
    /// Index of the connection within its shard; reused.
    pub slot: u32,
    /// Counts the uses of the slot.
    pub generation: u32,
}

impl ConnId {
    /// Shards a node can have.
    pub const SHARDS_MAX: u16 = 1 << Hop::SHARD_BITS;
    /// Connections a shard can have at one time.
    pub const SLOTS_MAX: u32 = 1 << Hop::SLOT_BITS;

    /// Whether `self` used the slot after `earlier` did; generations may wrap around.
    pub(crate) fn is_later_than(self, earlier: u32) -> bool {
        let ahead = self.generation.wrapping_sub(earlier);
        ahead != 0 && ahead < 1 << 31
    }
}

impl fmt::Display for ConnId {
    /// `s0.12#3`: shard, slot, generation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}.{}#{}", self.shard, self.slot, self.generation)
    }
}

/// The four kinds in the order a fanout of 1 tries them.
pub(crate) const KINDS: [ConnType; 4] = [ConnType::Local, ConnType::Remote, ConnType::Peer, ConnType::Edge];

/// A next hop in 31 bits: kind, shard, slot. Ordered by kind first, then as [`ConnId`]s are.
///
/// The generation is kept once per slot, not once per hop: at any time the tables hold hops of one generation only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hop(pub(crate) u32);

impl Hop {
    pub(crate) const SHARD_BITS: u32 = 8;
    pub(crate) const SLOT_BITS: u32 = 21;
    const KIND_SHIFT: u32 = Self::SHARD_BITS + Self::SLOT_BITS;
    /// Above every hop; the bit is free for tables that keep something else in the same word.
    pub(crate) const LIMIT: u32 = 1 << (Self::KIND_SHIFT + 2);

    pub(crate) fn new(conn: ConnId, kind: ConnType) -> Self {
        assert!(conn.shard < ConnId::SHARDS_MAX, "shard {} of at most {}", conn.shard, ConnId::SHARDS_MAX);
        assert!(conn.slot < ConnId::SLOTS_MAX, "slot {} of at most {}", conn.slot, ConnId::SLOTS_MAX);
        Self((kind as u32) << Self::KIND_SHIFT | u32::from(conn.shard) << Self::SLOT_BITS | conn.slot)
    }

    /// The hops of one kind, as a half-open range.
    pub(crate) fn range(kind: ConnType) -> (Self, Self) {
        (Self((kind as u32) << Self::KIND_SHIFT), Self((kind as u32 + 1) << Self::KIND_SHIFT))
    }

    /// Where the connections of `shard` begin, next after this hop, which is another shard's.
    pub(crate) fn first_of_shard_after(self, shard: u16) -> Self {
        let kind = (self.0 >> Self::KIND_SHIFT) + u32::from(self.shard() > shard);
        Self(kind << Self::KIND_SHIFT | u32::from(shard) << Self::SLOT_BITS)
    }

    pub(crate) fn kind(self) -> ConnType {
        KINDS[(self.0 >> Self::KIND_SHIFT & 3) as usize]
    }

    pub(crate) fn shard(self) -> u16 {
        (self.0 >> Self::SLOT_BITS & ((1 << Self::SHARD_BITS) - 1)) as u16
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 & ((1 << Self::SLOT_BITS) - 1)
    }
}

const _: () = assert!(Hop::LIMIT == 1 << 31, "kind, shard and slot leave the top bit free");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_keeps_what_it_was_made_of() {
        for kind in KINDS {
            let conn = ConnId { shard: 255, slot: ConnId::SLOTS_MAX - 1, generation: 9 };
            let hop = Hop::new(conn, kind);
            assert_eq!((hop.kind(), hop.shard(), hop.slot()), (kind, conn.shard, conn.slot));
            let (low, high) = Hop::range(kind);
            assert!(low <= hop && hop < high && high.0 <= Hop::LIMIT);
        }
    }

    #[test]
    fn generations_wrap() {
        let conn = ConnId { shard: 0, slot: 0, generation: 1 };
        assert!(conn.is_later_than(0));
        assert!(conn.is_later_than(u32::MAX));
        assert!(!conn.is_later_than(1));
        assert!(!conn.is_later_than(2));
        assert_eq!(conn.to_string(), "s0.0#1");
    }
}
