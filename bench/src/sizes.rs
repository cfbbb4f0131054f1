//! How large payloads are: one size, a span, weights; plain or as MLS makes them.

use std::str::FromStr;

use crate::payload::Stamp;
use crate::random::Random;

/// What MLS adds to an application's octets: the ciphertext carries names and identity token once more, as authenticated
/// data, beside group id, signature and tag (a text of 19 octets was seen to travel as 597).
const MLS_OCTETS: u32 = 578;

/// Sizes of payloads: `256`, `64-1024` (uniform) or `64:70,1024:25,16384:5` (weighted); with `mls:` before it, what the
/// application says, which travels in an MLS message of a two-party session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Always the same.
    Fixed(u32),
    /// Uniform between two, both included.
    Range(u32, u32),
    /// By weight.
    Mix(Vec<(u32, u32)>),
}

impl Sizes {
    /// The largest that can come.
    pub(crate) fn max(&self) -> u32 {
        match self {
            Self::Fixed(size) | Self::Range(_, size) => *size,
            Self::Mix(mix) => mix.iter().map(|&(size, _)| size).max().unwrap_or(0),
        }
    }

    fn min(&self) -> u32 {
        match self {
            Self::Fixed(size) | Self::Range(size, _) => *size,
            Self::Mix(mix) => mix.iter().map(|&(size, _)| size).min().unwrap_or(0),
        }
    }

    /// The mean.
    pub(crate) fn mean(&self) -> f64 {
        match self {
            Self::Fixed(size) => f64::from(*size),
            Self::Range(low, high) => (f64::from(*low) + f64::from(*high)) / 2.0,
            Self::Mix(mix) => {
                let total: f64 = mix.iter().map(|&(_, weight)| f64::from(weight)).sum();
                mix.iter().map(|&(size, weight)| f64::from(size) * f64::from(weight)).sum::<f64>() / total
            }
        }
    }

    /// Draws one.
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Range(low, high) => low + random.below(high - low + 1),
            Self::Mix(mix) => {
                let mut point = random.below(mix.iter().map(|&(_, weight)| weight).sum());
                for &(size, weight) in mix {
                    if point < weight {
                        return size;
                    }
                    point -= weight;
                }
                self.max()
            }
        }
    }
}

impl Sizes {
    /// Every size `by` octets larger.
    fn grown(self, by: u32) -> Self {
        match self {
            Self::Fixed(size) => Self::Fixed(size.saturating_add(by)),
            Self::Range(low, high) => Self::Range(low.saturating_add(by), high.saturating_add(by)),
            Self::Mix(mix) => {
                Self::Mix(mix.into_iter().map(|(size, weight)| (size.saturating_add(by), weight)).collect())
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (text, more) = match text.strip_prefix("mls:") {
            Some(text) => (text, MLS_OCTETS),
            None => (text, 0),
        };
        let number = |text: &str| text.trim().parse::<u32>().map_err(|e| format!("`{text}` is not a size: {e}"));
        let sizes = if text.contains(':') {
            let mix = text
                .split(',')
                .map(|part| {
                    let (size, weight) = part.split_once(':').ok_or(format!("`{part}` is not SIZE:WEIGHT"))?;
                    Ok((number(size)?, number(weight)?))
                })
                .collect::<std::result::Result<Vec<_>, String>>()?;
            // The sum is drawn from as one number.
            let total: u64 = mix.iter().map(|&(_, weight)| u64::from(weight)).sum();
            if total == 0 || total > u64::from(u32::MAX) {
                return Err(format!("the weights add up to {total}"));
            }
            Self::Mix(mix)
        } else if let Some((low, high)) = text.split_once('-') {
            Self::Range(number(low)?, number(high)?)
        } else {
            Self::Fixed(number(text)?)
        };
        if let Self::Range(low, high) = sizes
            && low > high
        {
            return Err(format!("{low} is more than {high}"));
        }
        let sizes = sizes.grown(more);
        if (sizes.min() as usize) < Stamp::OCTETS {
            return Err(format!("a payload holds at least its {} octet stamp", Stamp::OCTETS));
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_sizes() {
        assert_eq!("256".parse(), Ok(Sizes::Fixed(256)));
        assert_eq!("64-1024".parse(), Ok(Sizes::Range(64, 1024)));
        assert_eq!("64:70,1024:30".parse(), Ok(Sizes::Mix(vec![(64, 70), (1024, 30)])));
        for bad in ["", "8", "x", "1024-64", "64:0", "64:x", "64-", "mls:", "mls:x", "64:4294967295,65:1"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
        assert_eq!("mls:256".parse(), Ok(Sizes::Fixed(834)));
        assert_eq!("mls:19".parse(), Ok(Sizes::Fixed(597)), "as recorded");
        assert_eq!("mls:16:1,1024:3".parse(), Ok(Sizes::Mix(vec![(594, 1), (1602, 3)])));
        assert_eq!("mls:0-100".parse(), Ok(Sizes::Range(578, 678)));
        let mix: Sizes = "64:1,1024:3".parse().unwrap();
        assert!((mix.mean() - 784.0).abs() < 1e-9);
    }
}
