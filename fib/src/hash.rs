//! The keyed hash of names.

/// A universal hash over a few 64-bit words, keyed per process.
///
/// The components of a name are called hashes, but they come from strangers, who may choose them to collide. So they are
/// hashed again, with a key nobody outside knows: pairs of words plus key words are multiplied and summed up (the NH
/// family, whose collision probability for any two inputs is at most 2⁻⁶⁴), then folded to 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    key: [u64; 6],
    fold: [u64; 2],
}

impl Keyed {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            // SplitMix64: spreads the seed over the key words.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        };
        Self { key: std::array::from_fn(|_| next()), fold: [next() | 1, next() | 1] }
    }

    /// The tag of `words`; at most six, and always the same number in one table.
    #[inline]
    pub(crate) fn tag<const N: usize>(&self, words: [u64; N]) -> u32 {
        const { assert!(N <= 6) };
        let mut sum = 0u128;
        for pair in 0..N.div_ceil(2) {
            let left = words[2 * pair].wrapping_add(self.key[2 * pair]);
            let right = words.get(2 * pair + 1).copied().unwrap_or(0).wrapping_add(self.key[2 * pair + 1]);
            sum = sum.wrapping_add(u128::from(left) * u128::from(right));
        }
        let [high, low] = halves(sum);
        let folded = u128::from(low) * u128::from(self.fold[0]);
        let other = u128::from(high) * u128::from(self.fold[1]);
        let [high, low] = halves(folded.wrapping_add(other.rotate_left(64)));
        let [high, low] = halves(u128::from(low ^ high) * u128::from(self.fold[0]));
        low_half(high ^ low >> 32)
    }
}

/// The high and the low half.
#[expect(clippy::cast_possible_truncation, reason = "cutting in half is what it is for")]
pub(crate) const fn halves(word: u128) -> [u64; 2] {
    [(word >> 64) as u64, word as u64]
}

/// The low half.
#[expect(clippy::cast_possible_truncation, reason = "cutting in half is what it is for")]
pub(crate) const fn low_half(word: u64) -> u32 {
    word as u32
}

/// A seed nobody can guess, from the standard library's own source of them.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_every_word_counts() {
        let hash = Keyed::new(7);
        let words = [1u64, 2, 3, 4, 5];
        let tag = hash.tag(words);
        for word in 0..5 {
            for bit in 0..64 {
                let mut other = words;
                other[word] ^= 1 << bit;
                assert_ne!(hash.tag(other), tag, "word {word} bit {bit}");
            }
        }
        assert_ne!(Keyed::new(8).tag(words), tag);
    }

    #[test]
    fn counters_spread_over_both_ends_of_the_tag() {
        let hash = Keyed::new(1);
        let mut low = [0u32; 256];
        let mut high = [0u32; 256];
        for n in 0..65_536u64 {
            let tag = hash.tag([n, 0, 0]);
            low[(tag & 255) as usize] += 1;
            high[(tag >> 24) as usize] += 1;
        }
        // 256 expected in each; six standard deviations are 96.
        assert!(low.iter().chain(&high).all(|&count| (160..=352).contains(&count)), "{low:?} {high:?}");
    }
}
