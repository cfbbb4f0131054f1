//! The figures that summaries and comparisons show.

use super::Sample;

/// A figure worth a column: where it stands in a measurement, its name, its unit, whether more is better.
pub(crate) struct Metric {
    pub(crate) pointer: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    /// Commands it says something about; empty for all.
    commands: &'static [&'static str],
}

impl Metric {
    const fn less(pointer: &'static str, name: &'static str, unit: &'static str) -> Self {
        Self { pointer, name, unit, more_is_better: false, commands: &[] }
    }

    const fn more(pointer: &'static str, name: &'static str, unit: &'static str) -> Self {
        Self { more_is_better: true, ..Self::less(pointer, name, unit) }
    }

    const fn of(self, commands: &'static [&'static str]) -> Self {
        Self { commands, ..self }
    }

    /// Whether it says something about a sample.
    pub(super) fn suits(&self, sample: &Sample) -> bool {
        self.commands.is_empty() || sample.command.is_empty() || self.commands.contains(&sample.command.as_str())
    }
}

/// Commands whose latencies are those of the node: a closed window's say how much was queued.
const UNHURRIED: &[&str] = &["latency", "pingpong", "names", "idle", "churn", "soak", "capacity"];
/// Commands at rates others set: what is delivered then says nothing.
const AT_FULL_SPEED: &[&str] = &["throughput", "fanout", "latency", "pingpong", "names", "churn"];

/// What summaries and comparisons show.
pub(crate) const METRICS: [Metric; 14] = [
    Metric::more("/delivered_per_s", "delivered", "1/s").of(AT_FULL_SPEED),
    Metric::less("/node_cpu_ns_per_message", "node CPU per message", "ns"),
    Metric::less("/latency/p50_us", "p50", "us").of(UNHURRIED),
    Metric::less("/latency/p99_us", "p99", "us").of(UNHURRIED),
    Metric::less("/latency/p99_9_us", "p99.9", "us").of(UNHURRIED),
    Metric::less("/latency/max_us", "max", "us").of(UNHURRIED),
    Metric::more("/subscriptions_per_s", "subscriptions", "1/s").of(&["names"]),
    Metric::less("/extra/octets per name", "memory per name", "octets"),
    Metric::less("/extra/octets per connection", "memory per connection", "octets"),
    Metric::less("/extra/crossed shards, share", "messages that crossed shards", "share"),
    Metric::more("/extra/messages per send", "messages per send", "messages").of(&[
        "throughput",
        "latency",
        "pingpong",
    ]),
    Metric::less("/node_rss_octets", "RSS", "octets"),
    Metric::less("/instructions", "instructions", "per call"),
    Metric::less("/ns_each", "time", "ns"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::sample::tests::sample;

    #[test]
    fn a_closed_window_shows_no_latency() {
        let mut sample = sample("a", 0, 1.0);
        let metric = |name: &str| METRICS.iter().find(|metric| metric.name == name).unwrap();
        sample.command = "throughput".into();
        assert!(!metric("p99").suits(&sample) && metric("delivered").suits(&sample));
        sample.command = "latency".into();
        assert!(metric("p99").suits(&sample));
    }
}
