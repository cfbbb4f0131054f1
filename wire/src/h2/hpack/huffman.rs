//! The fixed Huffman code.
//!
//! The code is canonical: ordered by length and then by symbol, each codeword is its predecessor plus one. So the 257
//! lengths are all there is to write down; the tables are derived from them at compile time. Decoding looks at eight
//! bits at once, which settles every symbol that is common in headers; longer codewords take a walk over the lengths.
//!
//! Source: RFC 7541 §5.2, Appendix B.

use super::HpackError;

/// The symbol that never appears; its leading bits are the padding.
const EOS: usize = 256;

/// Codeword length of each symbol, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const LENGTH_MAX: usize = 30;

/// Bits the fast table looks at.
const FAST_BITS: u32 = 8;

struct Tables {
    /// Codeword of each symbol, right-aligned.
    codes: [u32; 257],
    /// Symbols by codeword.
    symbols: [u16; 257],
    /// Per length: the first codeword past this length's, left-aligned to 32 bits; grows with the length.
    ends: [u64; LENGTH_MAX + 1],
    /// Per length: its first codeword, and where its symbols start in `symbols`.
    firsts: [(u32, u16); LENGTH_MAX + 1],
    /// By the next eight bits: symbol and length, length 0 when the codeword is longer.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static TABLES: Tables = Tables::derive();

#[expect(
    clippy::cast_possible_truncation,
    reason = "symbols are below 257 and lengths below 31; try_from is not const"
)]
impl Tables {
    const fn derive() -> Self {
        let mut tables = Self {
            codes: [0; 257],
            symbols: [0; 257],
            ends: [0; LENGTH_MAX + 1],
            firsts: [(0, 0); LENGTH_MAX + 1],
            fast: [(0, 0); 1 << FAST_BITS],
        };
        let (mut code, mut at, mut length) = (0u32, 0usize, 1usize);
        while length <= LENGTH_MAX {
            tables.firsts[length] = (code, at as u16);
            let mut symbol = 0;
            while symbol <= EOS {
                if LENGTHS[symbol] as usize == length {
                    tables.codes[symbol] = code;
                    tables.symbols[at] = symbol as u16;
                    if length <= FAST_BITS as usize {
                        let shift = FAST_BITS as usize - length;
                        let mut low = 0;
                        while low < 1 << shift {
                            tables.fast[((code as usize) << shift) | low] = (symbol as u8, length as u8);
                            low += 1;
                        }
                    }
                    code += 1;
                    at += 1;
                }
                symbol += 1;
            }
            tables.ends[length] = (code as u64) << (32 - length);
            code <<= 1;
            length += 1;
        }
        assert!(at == 257 && code == 1 << (LENGTH_MAX + 1), "a complete code: no bit pattern is left over");
        tables
    }
}

/// Appends what `input` stands for.
///
/// Errors: a codeword of EOS; padding that is longer than seven bits or not ones.
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.reserve(input.len() * 8 / 5 + 1);
    let mut input = input.iter();
    // The next `held` bits of the stream stand at the top of `bits`; zeros follow.
    let (mut bits, mut held) = (0u64, 0u32);
    loop {
        while held <= 56
            && let Some(&octet) = input.next()
        {
            bits |= u64::from(octet) << (56 - held);
            held += 8;
        }
        let (symbol, length) = TABLES.fast[(bits >> (64 - FAST_BITS)) as usize];
        let length = u32::from(length);
        if length != 0 && length <= held {
            out.push(symbol);
            bits <<= length;
            held -= length;
            continue;
        }
        // Fewer than eight bits, all ones, are the padding; any other rest is a codeword cut short.
        if held < 8 {
            return if bits.leading_ones() >= held { Ok(()) } else { Err(HpackError::Huffman) };
        }
        let top = bits >> 32;
        let Some(length) = (FAST_BITS as usize + 1..=LENGTH_MAX).find(|&length| top < TABLES.ends[length]) else {
            return Err(HpackError::Huffman);
        };
        let (first, at) = TABLES.firsts[length];
        let index = (top as u32 >> (32 - length)) - first;
        let bits_taken = u32::try_from(length).expect("a length is at most 30");
        let symbol = TABLES.symbols[usize::from(at) + index as usize];
        if bits_taken > held {
            return Err(HpackError::Huffman);
        }
        out.push(u8::try_from(symbol).map_err(|_| HpackError::Huffman)?); // EOS is not a symbol of a string
        bits <<= bits_taken;
        held -= bits_taken;
    }
}

/// Appends the code of `input`, padded with ones.
pub fn encode(input: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u64, 0u32);
    for &octet in input {
        let (code, length) = (TABLES.codes[usize::from(octet)], u32::from(LENGTHS[usize::from(octet)]));
        bits = (bits << length) | u64::from(code);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held).to_le_bytes()[0]);
        }
    }
    if held > 0 {
        let padding = 8 - held;
        out.push(((bits << padding) | ((1 << padding) - 1)).to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    /// Source: RFC 7541 §C.4.1, and Appendix B for the ends of the table.
    #[test]
    fn codewords_are_the_rfcs() {
        let wire = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let mut out = Vec::new();
        encode(b"www.example.com", &mut out);
        assert_eq!(out, wire);
        assert_eq!(decoded(&wire).unwrap(), b"www.example.com");
        assert_eq!(TABLES.codes[0], 0x1ff8);
        assert_eq!(TABLES.codes[usize::from(b'a')], 0x3);
        assert_eq!(TABLES.codes[254], 0x7ff_fff0);
        assert_eq!(TABLES.codes[255], 0x3ff_ffee);
        assert_eq!(TABLES.codes[EOS], 0x3fff_ffff);
    }

    #[test]
    fn every_pair_of_octets_comes_back() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let mut out = Vec::new();
                encode(&[first, second], &mut out);
                assert_eq!(decoded(&out).unwrap(), [first, second]);
            }
        }
    }

    /// Source: RFC 7541 §5.2, last paragraph.
    #[test]
    fn padding_is_at_most_seven_ones() {
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&[0b0001_1111]).unwrap(), b"a");
        assert!(decoded(&[0b0001_1110]).is_err(), "padding with a zero");
        assert!(decoded(&[0b0001_1111, 0xff]).is_err(), "eleven bits of padding");
        assert!(decoded(&[0xff]).is_err(), "eight bits of padding");
        assert!(decoded(&[0xff, 0xff, 0xff, 0xff]).is_err(), "EOS");
        assert!(decoded(&[0xff, 0xff, 0xff, 0xfc]).is_err(), "EOS, then padding");
        assert!(decoded(&[0xff, 0xc0]).is_err(), "a codeword cut short");
    }
}
