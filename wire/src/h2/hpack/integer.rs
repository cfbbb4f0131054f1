//! Integers with a prefix. Source: RFC 7541 §5.1.

use super::HpackError;

/// Most octets that may follow the prefix: 5 × 7 bits hold every u32.
const CONTINUATION_OCTETS_MAX: u32 = 5;

/// Reads an integer whose first octet has `prefix` value bits off the front of `input`.
///
/// Errors: truncated input; a value that needs more than 32 bits.
#[inline]
pub(super) fn decode(input: &mut &[u8], prefix: u32) -> Result<u32, HpackError> {
    let (&first, rest) = input.split_first().ok_or(HpackError::Truncated)?;
    *input = rest;
    let mask = (1u32 << prefix) - 1;
    let value = u32::from(first) & mask;
    if value < mask { Ok(value) } else { decode_rest(input, mask) }
}

fn decode_rest(input: &mut &[u8], prefix: u32) -> Result<u32, HpackError> {
    let mut value = u64::from(prefix);
    for at in 0..CONTINUATION_OCTETS_MAX {
        let (&octet, rest) = input.split_first().ok_or(HpackError::Truncated)?;
        *input = rest;
        value += u64::from(octet & 0x7f) << (7 * at);
        if octet & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| HpackError::IntegerTooLarge);
        }
    }
    Err(HpackError::IntegerTooLarge)
}

/// Appends `value` with a `prefix`-bit prefix; `pattern` fills the bits above it.
pub(super) fn encode(value: u32, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let mask = (1u32 << prefix) - 1;
    if value < mask {
        out.push(pattern | low_octet(value));
        return;
    }
    out.push(pattern | low_octet(mask));
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(low_octet(left) | 0x80);
        left >>= 7;
    }
    out.push(low_octet(left));
}

fn low_octet(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: RFC 7541 §C.1.
    #[test]
    fn the_examples_of_the_rfc() {
        for (value, prefix, wire) in [(10, 5, &[0b01010][..]), (1337, 5, &[0b11111, 0x9a, 0x0a]), (42, 8, &[42])] {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            assert_eq!(out, wire);
            assert_eq!(decode(&mut &out[..], prefix), Ok(value));
        }
    }

    #[test]
    fn every_size_comes_back() {
        for prefix in 4..=8 {
            for value in (0..32).map(|bit| 1u32 << bit).flat_map(|v| [v - 1, v, v + 1]).chain([u32::MAX]) {
                let mut out = Vec::new();
                encode(value, prefix, 0, &mut out);
                assert_eq!(decode(&mut &out[..], prefix), Ok(value));
                assert_eq!(decode(&mut &out[..out.len() - 1], prefix), Err(HpackError::Truncated));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(decode(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 8), Err(HpackError::IntegerTooLarge));
        assert_eq!(decode(&mut &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00][..], 8), Err(HpackError::IntegerTooLarge));
    }
}
