//! The nine octets every frame starts with.

use core::fmt;

/// Which stream a frame belongs to; 0 is the transport itself.
///
/// Shape: 31 bits; the reserved bit is dropped on the way in. Source: RFC 9113 §4.1, §5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// The transport as a whole.
    pub const TRANSPORT: Self = Self(0);

    /// Stream `number`; the top bit is dropped.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number & 0x7fff_ffff)
    }

    /// Its number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Reads the four octets of a head or payload.
    #[inline]
    #[must_use]
    pub const fn from_wire(octets: [u8; 4]) -> Self {
        Self::new(u32::from_be_bytes(octets))
    }

    /// Whether a client opened it (odd), as opposed to a server (even) or nobody (0).
    #[inline]
    #[must_use]
    pub const fn is_clients(self) -> bool {
        self.0 & 1 == 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a frame is. Source: RFC 9113 §6; numbers nobody assigned are kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

#[expect(missing_docs, reason = "the names are the RFC's own")]
impl Kind {
    pub const DATA: Self = Self(0x0);
    pub const HEADERS: Self = Self(0x1);
    pub const PRIORITY: Self = Self(0x2);
    pub const RST_STREAM: Self = Self(0x3);
    pub const SETTINGS: Self = Self(0x4);
    pub const PUSH_PROMISE: Self = Self(0x5);
    pub const PING: Self = Self(0x6);
    pub const GOAWAY: Self = Self(0x7);
    pub const WINDOW_UPDATE: Self = Self(0x8);
    pub const CONTINUATION: Self = Self(0x9);
}

/// Flag bits; which of them a kind defines is in RFC 9113 §6, the rest are ignored.
#[expect(missing_docs, reason = "the names are the RFC's own")]
pub mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// A frame head, its fields in wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Payload octets that follow; the head's own nine are not counted.
    pub length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// Its flag bits.
    pub flags: u8,
    /// The stream it belongs to.
    pub stream: StreamId,
}

impl Head {
    /// Octets of a head on the wire.
    pub const OCTETS: usize = 9;

    /// Splits a head off the front of `input`; `None` asks for more bytes.
    ///
    /// Shape:  length u24, kind u8, flags u8, reserved bit, stream u31; big-endian.
    /// Units:  octets.
    /// Errors: none here; whether `length` is allowed is the receiver's question.
    /// Source: RFC 9113 §4.1.
    #[inline]
    #[must_use]
    pub fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (&[l0, l1, l2, kind, flags, s0, s1, s2, s3], rest) = input.split_first_chunk()?;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let stream = StreamId::from_wire([s0, s1, s2, s3]); // drops the reserved bit
        Some((Self { length, kind: Kind(kind), flags, stream }, rest))
    }

    /// The nine octets of this head; `length` must be below 2^24.
    #[inline]
    #[must_use]
    pub const fn to_wire(self) -> [u8; Self::OCTETS] {
        debug_assert!(self.length < 1 << 24, "a frame's length has 24 bits");
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.get().to_be_bytes();
        [l0, l1, l2, self.kind.0, self.flags, s0, s1, s2, s3]
    }

    /// Whether a flag bit is set.
    #[inline]
    #[must_use]
    pub const fn has(self, bit: u8) -> bool {
        self.flags & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_wire() {
        let head = Head { length: 0x01_02_03, kind: Kind::PING, flags: 0x5a, stream: StreamId::new(0x0102_0304) };
        let octets = head.to_wire();
        assert_eq!(octets, [1, 2, 3, 6, 0x5a, 1, 2, 3, 4]);
        assert_eq!(Head::split(&octets), Some((head, &[][..])));
    }

    #[test]
    fn the_reserved_bit_is_dropped() {
        let (head, rest) = Head::split(&[0, 0, 8, 6, 0, 0x80, 0, 0, 1, 0xff]).unwrap();
        assert_eq!(head.stream, StreamId::new(1));
        assert_eq!(rest, [0xff]);
    }

    #[test]
    fn eight_octets_are_not_a_head() {
        assert_eq!(Head::split(&[0; 8]), None);
    }
}
