//! Randomness from the operating system, in the shapes this crate needs.

use crate::error::IdentityError;

/// `N` random octets.
pub(crate) fn octets<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|_| IdentityError::Random)?;
    Ok(out)
}

/// A random word.
pub(crate) fn word() -> Result<u64, IdentityError> {
    octets().map(u64::from_ne_bytes)
}

/// `N` characters of `[A-Za-z0-9]`, each as likely as the other.
pub(crate) fn alphanumeric<const N: usize>() -> Result<String, IdentityError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(N);
    while text.len() < N {
        let [octet] = octets()?;
        // 248 = 4 * 62: octets above would favour the first letters.
        if octet < 248 {
            text.push(char::from(ALPHABET[usize::from(octet % 62)]));
        }
    }
    Ok(text)
}

/// A UUID of version 4, as text.
pub(crate) fn uuid() -> Result<String, IdentityError> {
    let mut o: [u8; 16] = octets()?;
    o[6] = o[6] & 0x0f | 0x40;
    o[8] = o[8] & 0x3f | 0x80;
    let hex = |part: &[u8]| part.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    Ok(format!("{}-{}-{}-{}-{}", hex(&o[..4]), hex(&o[4..6]), hex(&o[6..8]), hex(&o[8..10]), hex(&o[10..])))
}

/// A small generator for message ids: unguessability is not asked of them, being different is.
#[derive(Clone, Debug)]
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An id in `from..to`.
    #[allow(clippy::cast_possible_truncation)] // below `to`, which is a u32
    pub(crate) fn within(&mut self, from: u32, to: u32) -> u32 {
        from + (self.next() % u64::from(to - from)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_version_four() {
        let uuid = uuid().unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
    }

    #[test]
    fn ids_stay_inside() {
        let mut ids = Ids::new(1);
        assert!((0..1000).all(|_| (5..9).contains(&ids.within(5, 9))));
    }
}
