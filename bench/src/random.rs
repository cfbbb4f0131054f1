//! Repeatable randomness: the same seed gives the same run.

use crate::payload::mix;

/// A counter behind a mixer (the splitmix64 construction).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x7261_6e64))
    }

    /// 64 fresh bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in 0..1, without 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in 0..`end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u32
    }
}

/// Zipf's law over 0..count with exponent 1: item k is asked for in proportion to 1/(k+1).
#[derive(Debug)]
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Tables the distribution.
    pub(crate) fn new(count: u32) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=count)
            .map(|k| {
                sum += 1.0 / f64::from(k);
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// Draws one item.
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let point = random.unit() * total;
        let at = self.cumulative.partition_point(|&sum| sum <= point);
        at.min(self.cumulative.len().saturating_sub(1)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_prefers_the_first_by_its_law() {
        let (zipf, mut random) = (Zipf::new(1000), Random::new(3));
        let mut hits = vec![0u32; 1000];
        for _ in 0..1_000_000 {
            hits[zipf.draw(&mut random) as usize] += 1;
        }
        let harmonic: f64 = (1..=1000).map(|k| 1.0 / f64::from(k)).sum();
        for k in [0usize, 1, 9, 99] {
            let wanted = 1e6 / (k + 1) as f64 / harmonic;
            assert!((f64::from(hits[k]) / wanted - 1.0).abs() < 0.1, "item {k}: {} for {wanted}", hits[k]);
        }
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut random = Random::new(1);
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[random.below(7) as usize] = true);
        assert_eq!(seen, [true; 7]);
    }
}
