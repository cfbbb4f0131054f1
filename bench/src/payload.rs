//! The stamp at the front of every payload, and the filler behind it: what makes each run a correctness run.

use std::sync::LazyLock;

/// What a message is to the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// A measured message.
    Data = 0,
    /// The answer of a ping-pong responder.
    Reply = 1,
    /// A session-like acknowledgement; sent, never measured.
    Ack = 2,
}

/// Who sent which message when.
///
/// Shape:  run u32, publisher u32, name u32, kind u32, sequence u64, intended u64, check u64; little-endian.
/// Units:  `intended_ns` counts from the run's start; `sequence` counts per (publisher, name) from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u32,
    pub(crate) publisher: u32,
    pub(crate) name: u32,
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) intended_ns: u64,
}

/// Why a payload is not one of ours as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Shorter than a stamp, a stamp whose check fails, or filler that differs.
    Corrupt,
    /// A good stamp of another run.
    Foreign,
}

/// The filler: pseudo-random, so that a shifted or stale copy shows.
const FILLER_OCTETS: usize = 64 * 1024;
static FILLER: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut state = 0x5_1135_1135u64;
    let once: Vec<u8> = (0..FILLER_OCTETS / 8)
        .flat_map(|_| {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            state.to_le_bytes()
        })
        .collect();
    [once.as_slice(), once.as_slice()].concat().into_boxed_slice()
});

/// A finalizer with good avalanche: every input bit reaches every output bit.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Stamp {
    /// Octets of a stamp, hence the smallest payload.
    pub(crate) const OCTETS: usize = 40;

    fn words(&self) -> [u64; 4] {
        [
            u64::from(self.run) | u64::from(self.publisher) << 32,
            u64::from(self.name) | (self.kind as u64) << 32,
            self.sequence,
            self.intended_ns,
        ]
    }

    fn check(words: &[u64; 4], octets: usize) -> u64 {
        words.iter().fold(mix(octets as u64 ^ 0x736c_696d), |sum, word| mix(sum.rotate_left(23) ^ word))
    }

    /// Appends a payload of `octets` octets: this stamp, then filler.
    pub(crate) fn write(&self, octets: usize, out: &mut Vec<u8>) {
        debug_assert!(octets >= Self::OCTETS);
        let words = self.words();
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&Self::check(&words, octets).to_le_bytes());
        let mut at = filler_start(self.sequence);
        let mut rest = octets - Self::OCTETS;
        while rest > 0 {
            let piece = rest.min(FILLER_OCTETS);
            out.extend_from_slice(&FILLER[at..at + piece]);
            rest -= piece;
            at = filler_start(self.sequence);
        }
    }

    /// Reads and checks a payload of run `run`; `filler` also compares what stands behind the stamp.
    pub(crate) fn read(payload: &[u8], run: u32, filler: bool) -> Result<Self, Damage> {
        let (head, mut rest) = payload.split_at_checked(Self::OCTETS).ok_or(Damage::Corrupt)?;
        let mut words = [0u64; 5];
        for (word, octets) in words.iter_mut().zip(head.chunks_exact(8)) {
            *word = u64::from_le_bytes(octets.try_into().map_err(|_| Damage::Corrupt)?);
        }
        let [a, b, sequence, intended_ns, check] = words;
        if Self::check(&[a, b, sequence, intended_ns], payload.len()) != check {
            return Err(Damage::Corrupt);
        }
        let (low, high) = (|x: u64| (x & 0xffff_ffff) as u32, |x: u64| (x >> 32) as u32);
        if low(a) != run {
            return Err(Damage::Foreign);
        }
        let kind = match high(b) {
            0 => Kind::Data,
            1 => Kind::Reply,
            2 => Kind::Ack,
            _ => return Err(Damage::Corrupt),
        };
        if filler {
            let at = filler_start(sequence);
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(rest.len().min(FILLER_OCTETS));
                if piece != &FILLER[at..at + piece.len()] {
                    return Err(Damage::Corrupt);
                }
                rest = tail;
            }
        }
        Ok(Self { run: low(a), publisher: high(a), name: low(b), kind, sequence, intended_ns })
    }
}

/// Where the filler of a message starts: it moves with the sequence, so that yesterday's buffer is not today's payload.
fn filler_start(sequence: u64) -> usize {
    (sequence as usize).wrapping_mul(64) % FILLER_OCTETS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { run: 7, publisher: 3, name: 11, kind: Kind::Data, sequence: 1_000_001, intended_ns: 42 }
    }

    #[test]
    fn a_payload_reads_back_at_every_size() {
        for octets in [Stamp::OCTETS, 41, 64, 1024, 16384, FILLER_OCTETS + 1, 3 * FILLER_OCTETS + 77] {
            let mut out = Vec::new();
            stamp().write(octets, &mut out);
            assert_eq!(out.len(), octets);
            assert_eq!(Stamp::read(&out, 7, true), Ok(stamp()));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_shows() {
        let mut out = Vec::new();
        stamp().write(100, &mut out);
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&bad, 7, true), Err(Damage::Corrupt), "bit {bit}");
        }
        for length in 0..out.len() {
            assert_eq!(Stamp::read(&out[..length], 7, true), Err(Damage::Corrupt), "length {length}");
        }
        assert_eq!(Stamp::read(&out, 8, true), Err(Damage::Foreign));
    }
}
