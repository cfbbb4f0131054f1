//! Protocol buffers, as much as a forwarder needs: varints, keys, a walker over fields, and their writers.
//!
//! The walker accepts exactly what prost accepts, so that nothing passes here that the next hop refuses, or reads
//! otherwise.

use crate::error::WireError;

/// How deep messages and groups may nest; the same bound as prost's.
pub const DEPTH_MAX: u32 = 100;

/// The longest varint.
pub const VARINT_OCTETS_MAX: usize = 10;

/// How a field's value is laid out (the three low bits of its key).
pub mod wire_type {
    /// One varint.
    pub const VARINT: u32 = 0;
    /// Eight octets.
    pub const FIXED64: u32 = 1;
    /// A varint length, then that many octets.
    pub const LENGTH: u32 = 2;
    /// Fields up to the matching end.
    pub const GROUP: u32 = 3;
    /// Ends a group.
    pub const GROUP_END: u32 = 4;
    /// Four octets.
    pub const FIXED32: u32 = 5;
}

/// The key of a field: its number and its wire type.
#[must_use]
pub const fn key(number: u32, wire_type: u32) -> u32 {
    (number << 3) | wire_type
}

/// What is left of one protobuf message; taken apart from the front.
///
/// `Copy`, so that a fork can look ahead, and so that roads seldom taken get a copy: a walk nobody holds by reference
/// stays in registers. `within` is only for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    within: &'static str,
}

impl<'a> Walk<'a> {
    #[inline(always)]
    pub(crate) fn new(message: &'a [u8], within: &'static str) -> Self {
        Self { rest: message, within }
    }

    /// Octets not yet taken: with the end of the message known, where the walk stands.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a key; number and wire type are in range, the latter never 6 or 7.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Result<u32, WireError> {
        let key = self.varint()?;
        match u32::try_from(key) {
            Ok(key) if key >= KEY_MIN && key & 7 <= wire_type::FIXED32 => Ok(key),
            _ => Err(WireError::BadKey { within: self.within, key }),
        }
    }

    /// Takes a varint.
    ///
    /// Shape:  seven bits an octet, low ones first, the top bit says that more follow; any padding is accepted.
    /// Errors: truncated; more than ten octets; more than 64 bits.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let (value, octets) = varint_of(self.rest);
        match self.rest.get(octets..) {
            Some(rest) if octets > 0 => {
                self.rest = rest;
                Ok(value)
            }
            _ => Err(bad_varint(self.rest.len(), self.within)),
        }
    }

    /// Takes a varint of a 32-bit field: the low 32 bits count, as every protobuf decoder has it.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "as above")]
    pub(crate) fn varint_u32(&mut self) -> Result<u32, WireError> {
        self.varint().map(|value| value as u32)
    }

    /// Takes a length and the octets it announces.
    #[inline(always)]
    pub(crate) fn octets(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX); // longer than any slice
        let Some((octets, rest)) = self.rest.split_at_checked(length) else { return Err(truncated(self.within)) };
        self.rest = rest;
        Ok(octets)
    }

    /// Takes a string.
    #[inline(always)]
    pub(crate) fn string(&mut self, field: u32) -> Result<&'a str, WireError> {
        let octets = self.octets()?;
        match std::str::from_utf8(octets) {
            Ok(string) => Ok(string),
            Err(_) => Err(WireError::NotUtf8 { within: self.within, field }),
        }
    }

    /// Steps over the value of a field nobody here knows.
    ///
    /// `depth` counts the messages around this field; groups add to it.
    pub(crate) fn skip(&mut self, key: u32, depth: u32) -> Result<(), WireError> {
        if depth >= DEPTH_MAX {
            return Err(WireError::TooDeep { within: self.within, limit: DEPTH_MAX });
        }
        match key & 7 {
            wire_type::VARINT => self.varint().map(drop),
            wire_type::FIXED64 => self.advance(8),
            wire_type::LENGTH => self.octets().map(drop),
            wire_type::GROUP => self.skip_group(key >> 3, depth),
            wire_type::FIXED32 => self.advance(4),
            _ => Err(WireError::StrayGroupEnd { within: self.within }),
        }
    }

    #[cold]
    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), WireError> {
        loop {
            let inner = self.key()?;
            if inner == key(number, wire_type::GROUP_END) {
                return Ok(());
            }
            self.skip(inner, depth + 1)?;
        }
    }

    #[inline(always)]
    fn advance(&mut self, octets: usize) -> Result<(), WireError> {
        let Some(rest) = self.rest.get(octets..) else { return Err(truncated(self.within)) };
        self.rest = rest;
        Ok(())
    }
}

#[cold]
fn truncated(within: &'static str) -> WireError {
    WireError::Truncated { within }
}

/// What is wrong with the varint in front of so many octets.
#[cold]
fn bad_varint(left: usize, within: &'static str) -> WireError {
    if left >= VARINT_OCTETS_MAX { WireError::VarintTooLong { within } } else { truncated(within) }
}

/// The value of the varint in front, and its octets: none when it is truncated, too long, or above 64 bits.
///
/// A pair in registers, not a `Result` in memory: there are some fifty varints in a message.
#[inline(always)]
pub(crate) fn varint_of(input: &[u8]) -> (u64, usize) {
    match *input {
        [first, ..] if first < 0x80 => (u64::from(first), 1),
        [first, second, ..] if second < 0x80 => (u64::from(first & 0x7f) | u64::from(second) << 7, 2),
        _ => long_varint(input),
    }
}

/// Name hashes are nine or ten octets long, so those come first: eight octets in one load.
#[inline]
fn long_varint(input: &[u8]) -> (u64, usize) {
    let Some((chunk, rest)) = input.split_first_chunk::<8>() else { return varint_by_octet(input) };
    let word = u64::from_le_bytes(*chunk);
    let stops = !word & 0x8080_8080_8080_8080;
    if stops == 0 {
        let low = squeeze(word);
        return match *rest {
            [ninth, ..] if ninth < 0x80 => (low | u64::from(ninth) << 56, 9),
            [ninth, tenth, ..] if tenth < 2 => (low | u64::from(ninth & 0x7f) << 56 | u64::from(tenth) << 63, 10),
            _ => (0, 0),
        };
    }
    let kept = stops ^ (stops - 1); // every bit up to the first stop
    (squeeze(word & kept), stops.trailing_zeros() as usize / 8 + 1)
}

/// Fewer than eight octets are left: shorter than any varint that could overflow.
fn varint_by_octet(input: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (index, octet) in input.iter().enumerate() {
        value |= u64::from(octet & 0x7f) << (7 * index);
        if *octet < 0x80 {
            return (value, index + 1);
        }
    }
    (0, 0)
}

/// The lowest key of field 1: anything below has number 0.
const KEY_MIN: u32 = key(1, wire_type::VARINT);

/// Closes the gaps of the eighth bits: eight octets of seven bits become 56 bits.
#[inline(always)]
const fn squeeze(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
    (word & 0x0000_0000_0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// Octets of `value` as a varint.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

/// Appends a varint.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time are meant")]
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field, unless it is zero: proto3 leaves the default out.
pub(crate) fn put_u64(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_u64_always(number, value, out);
    }
}

/// Appends a varint field even if it is zero (fields with explicit presence).
pub(crate) fn put_u64_always(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(key(number, wire_type::VARINT)), out);
    put_varint(value, out);
}

/// Appends a string or bytes field, unless it is empty.
pub(crate) fn put_octets(number: u32, octets: &[u8], out: &mut Vec<u8>) {
    if !octets.is_empty() {
        put_octets_always(number, octets, out);
    }
}

/// Appends a string or bytes field even if it is empty.
pub(crate) fn put_octets_always(number: u32, octets: &[u8], out: &mut Vec<u8>) {
    put_head(number, octets.len(), out);
    out.extend_from_slice(octets);
}

/// Appends the key and length in front of `length` octets.
pub(crate) fn put_head(number: u32, length: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(key(number, wire_type::LENGTH)), out);
    put_varint(length as u64, out);
}

/// Octets [`put_u64`] writes.
pub(crate) const fn u64_len(number: u32, value: u64) -> usize {
    if value == 0 { 0 } else { u64_always_len(number, value) }
}

/// Octets [`put_u64_always`] writes.
pub(crate) const fn u64_always_len(number: u32, value: u64) -> usize {
    varint_len(key(number, 0) as u64) + varint_len(value)
}

/// Octets [`put_octets`] writes for `length` octets.
pub(crate) const fn octets_len(number: u32, length: usize) -> usize {
    if length == 0 { 0 } else { octets_always_len(number, length) }
}

/// Octets [`put_octets_always`] writes for `length` octets.
pub(crate) const fn octets_always_len(number: u32, length: usize) -> usize {
    varint_len(key(number, 0) as u64) + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(octets: &[u8]) -> Result<(u64, usize), WireError> {
        let mut walk = Walk::new(octets, "test");
        walk.varint().map(|value| (value, octets.len() - walk.left()))
    }

    #[test]
    fn varints_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut octets = Vec::new();
                put_varint(value, &mut octets);
                assert_eq!(octets.len(), varint_len(value), "{value:#x}");
                assert_eq!(varint(&octets), Ok((value, octets.len())), "{value:#x} at the end");
                let length = octets.len();
                octets.extend([0xff; 12]);
                assert_eq!(varint(&octets), Ok((value, length)), "{value:#x} with more behind");
                for short in 0..length {
                    assert_eq!(varint(&octets[..short]), Err(WireError::Truncated { within: "test" }));
                }
            }
        }
    }

    #[test]
    fn padding_is_accepted_up_to_ten_octets() {
        assert_eq!(varint(&[0x87, 0x00]), Ok((7, 2)));
        assert_eq!(varint(&[0x87, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Ok((7, 10)));
        let eleven = [0x87, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(varint(&eleven), Err(WireError::VarintTooLong { within: "test" }));
        let sixty_five_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(varint(&sixty_five_bits), Err(WireError::VarintTooLong { within: "test" }));
    }

    #[test]
    fn keys_without_a_number_or_a_wire_type_are_refused() {
        for bad in [&[0x00][..], &[0x07], &[0x0e], &[0x0f], &[0xff, 0xff, 0xff, 0xff, 0x1f]] {
            assert!(matches!(Walk::new(bad, "test").key(), Err(WireError::BadKey { .. })), "{bad:02x?}");
        }
        assert_eq!(Walk::new(&[0xf8, 0xff, 0xff, 0xff, 0x0f], "test").key(), Ok(0xffff_fff8));
    }

    #[test]
    fn groups_nest_to_a_bound() {
        let nested = |depth: usize| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        let skip = |octets: &[u8], depth| {
            let mut walk = Walk::new(octets, "test");
            let key = walk.key()?;
            walk.skip(key, depth)?;
            Ok(walk.left())
        };
        assert_eq!(skip(&nested(1), 0), Ok(0));
        assert_eq!(skip(&nested(100), 0), Ok(0));
        assert_eq!(skip(&nested(101), 0), Err(WireError::TooDeep { within: "test", limit: 100 }));
        assert_eq!(skip(&nested(99), 2), Err(WireError::TooDeep { within: "test", limit: 100 }));
        assert_eq!(skip(&[0x0b, 0x14], 0), Err(WireError::StrayGroupEnd { within: "test" }));
        assert_eq!(skip(&[0x0c], 0), Err(WireError::StrayGroupEnd { within: "test" }));
        assert_eq!(skip(&[0x0b, 0x08], 0), Err(WireError::Truncated { within: "test" }));
    }
}
