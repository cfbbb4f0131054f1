//! When each message is due. Open loop: the schedule is fixed before the run and never waits for the node, so a
//! stall of the node delays every message behind it and shows in every one of their latencies.

use crate::random::Random;

/// How the gaps between messages are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Equal gaps.
    Even,
    /// Exponential gaps: independent users.
    Poisson,
}

/// The schedule of one publisher.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    gap_ns: f64,
    /// The first message of even gaps, and how many are taken: products do not drift as sums do.
    start_ns: f64,
    taken: u64,
    next_ns: f64,
    arrivals: Arrivals,
    random: Random,
}

impl Pace {
    /// `rate` messages per second from `start_ns`; `phase` in 0..1 shifts the first one so that many publishers
    /// do not all fire at once.
    pub(crate) fn new(rate: f64, start_ns: u64, phase: f64, arrivals: Arrivals, seed: u64) -> Self {
        assert!(rate > 0.0);
        let gap_ns = 1e9 / rate;
        let start_ns = start_ns as f64 + gap_ns * phase;
        Self { gap_ns, start_ns, taken: 0, next_ns: start_ns, arrivals, random: Random::new(seed) }
    }

    /// When the next message is due.
    pub(crate) fn due_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Takes the next message if it is due at `now_ns`: its intended time.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.due_ns();
        if due > now_ns {
            return None;
        }
        self.taken += 1;
        self.next_ns = match self.arrivals {
            Arrivals::Even => self.start_ns + self.taken as f64 * self.gap_ns,
            // 1 - u is in (0, 1], so the logarithm is finite.
            Arrivals::Poisson => self.next_ns - (1.0 - self.random.unit()).ln() * self.gap_ns,
        };
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_gaps_do_not_drift() {
        let mut pace = Pace::new(3.0, 0, 0.0, Arrivals::Even, 1);
        let times: Vec<u64> = std::iter::from_fn(|| pace.take(u64::MAX)).take(3_000_001).collect();
        assert_eq!(times[3_000_000], 1_000_000_000_000_000);
        assert_eq!(times[1], 333_333_333);
    }

    #[test]
    fn a_late_caller_gets_the_intended_times_not_now() {
        let mut pace = Pace::new(1000.0, 5_000_000, 0.0, Arrivals::Even, 1);
        assert_eq!(pace.take(4_999_999), None);
        let taken: Vec<u64> = std::iter::from_fn(|| pace.take(8_000_000)).collect();
        assert_eq!(taken, [5_000_000, 6_000_000, 7_000_000, 8_000_000]);
        assert_eq!(pace.due_ns(), 9_000_000);
    }

    #[test]
    fn poisson_keeps_the_rate() {
        let mut pace = Pace::new(1000.0, 0, 0.0, Arrivals::Poisson, 9);
        let mut count = 0;
        while pace.take(100_000_000_000).is_some() {
            count += 1;
        }
        assert!((98_000..102_000).contains(&count), "{count} in 100 s at 1000/s");
    }
}
