//! Latencies: HDR histograms from 1 ns to 100 s at three significant digits.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Highest latency told apart; above it the recorder says so.
const HIGHEST_NS: u64 = 100_000_000_000;

/// The latencies of one measurement, in nanoseconds from the intended send time.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    histogram: Histogram<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "constants the library accepts; the unit test builds one")]
        let histogram = Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("1..100 s at 3 digits");
        Self { histogram }
    }
}

/// What a report says of a latency distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) min_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) p99_99_us: f64,
    pub(crate) max_us: f64,
}

impl Recorder {
    /// Books one latency.
    pub(crate) fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    /// Adds another recorder's latencies.
    pub(crate) fn merge(&mut self, other: &Self) {
        #[expect(clippy::expect_used, reason = "both have the same bounds")]
        self.histogram.add(&other.histogram).expect("same bounds");
    }

    /// Forgets everything, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.histogram.reset();
    }

    /// Latencies booked.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency at `quantile` (0..1), in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The figures of a report.
    pub(crate) fn percentiles(&self) -> Percentiles {
        if self.count() == 0 {
            return Percentiles::default();
        }
        Percentiles {
            count: self.count(),
            mean_us: self.histogram.mean() / 1e3,
            min_us: self.histogram.min() as f64 / 1e3,
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            p99_9_us: self.quantile_us(0.999),
            p99_99_us: self.quantile_us(0.9999),
            max_us: self.histogram.max() as f64 / 1e3,
        }
    }

    /// (quantile, microseconds) along the curve, five steps per halving of the distance to 1.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        self.histogram
            .iter_quantiles(5)
            .map(|at| (at.quantile_iterated_to(), at.value_iterated_to() as f64 / 1e3))
            .collect()
    }

    /// The HdrHistogram text form (`.hgrm`), values in microseconds, as its plotters read it.
    pub(crate) fn hgrm(&self) -> String {
        use std::fmt::Write;
        let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        let mut total = 0;
        for at in self.histogram.iter_quantiles(5) {
            total += at.count_since_last_iteration();
            let (us, quantile) = (at.value_iterated_to() as f64 / 1e3, at.quantile_iterated_to());
            let _ = if quantile < 1.0 {
                writeln!(out, "{us:12.3} {quantile:14.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))
            } else {
                writeln!(out, "{us:12.3} {quantile:14.12} {total:10}")
            };
        }
        let h = &self.histogram;
        let (mean, dev, max) = (h.mean() / 1e3, h.stdev() / 1e3, h.max() as f64 / 1e3);
        let _ = writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {dev:12.3}]");
        let _ = writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", h.len());
        let _ = writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", h.buckets(), 2048);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_set() {
        let mut recorder = Recorder::default();
        (1..=10_000u64).for_each(|us| recorder.record(us * 1000));
        let p = recorder.percentiles();
        for (value, wanted) in [(p.p50_us, 5000.0), (p.p99_us, 9900.0), (p.p99_9_us, 9990.0), (p.max_us, 10_000.0)] {
            assert!((value / wanted - 1.0).abs() < 0.002, "{value} for {wanted}");
        }
        assert_eq!(p.count, 10_000);
    }

    #[test]
    fn a_latency_beyond_the_range_is_kept_as_the_highest() {
        let mut recorder = Recorder::default();
        recorder.record(u64::MAX);
        recorder.record(0);
        assert_eq!(recorder.count(), 2);
        assert!(recorder.percentiles().max_us >= HIGHEST_NS as f64 / 1e3);
    }

    #[test]
    fn hgrm_ends_with_every_sample_counted() {
        let mut recorder = Recorder::default();
        (0..1000).for_each(|_| recorder.record(5_000));
        let text = recorder.hgrm();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        assert_eq!(last.split_whitespace().nth(2), Some("1000"), "{text}");
    }
}
