//! What a run tells: one structure, shown as a table, JSON, CSV, HdrHistogram text and plots.

mod pixels;
pub(crate) mod plot;
pub(crate) mod table;
pub(crate) mod write;

use serde::Serialize;

use crate::drive::Outcome;
use crate::ledger::Faults;
use crate::machine::{Load, Machine};
use crate::measure::Sample;
use crate::plan::Plan;
use crate::record::{Percentiles, Recorder};
use crate::scenario::{Command, EngineKind, Options};

/// A generator thread this busy may be what limits the rate.
const GENERATOR_BUSY: f64 = 0.95;
/// A generator later than this, and by this share of what was measured, has measured itself.
const LATE_US: f64 = 100.0;
const LATE_SHARE: f64 = 0.3;
/// A node using this share of one CPU or more is likely the limit itself.
const NODE_BUSY: f64 = 0.90;
/// Waiting for a CPU longer than this makes rates and latencies those of the machine's load.
const WAITED_CPUS: f64 = 0.05;
/// What "holding a rate" allows to be missing: of the messages due in the span in the end, ...
const HELD_SHARE: f64 = 0.99;
/// ... and of deliveries inside the span, where those under way at its end are still out.
const HELD_IN_TIME_SHARE: f64 = 0.95;

/// Messages that may fall out at the edges of the span.
const EDGES: f64 = 2.0;
/// Of fewer messages p99.9 is the slowest one.
const ENOUGH_FOR_P99_9: u64 = 1000;

/// One measurement's figures.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) label: String,
    /// What drove the generator's sockets.
    pub(crate) engine: &'static str,
    pub(crate) seconds: f64,
    /// Messages per second asked for; none in a closed window.
    pub(crate) offered_per_s: Option<f64>,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_per_s: f64,
    pub(crate) payload_mib_per_s: f64,
    pub(crate) unsent: u64,
    /// The offered rate arrived.
    pub(crate) held: Option<bool>,
    /// From the intended send time in an open loop, from the actual one in a closed window, round trips in ping-pong.
    pub(crate) latency: Percentiles,
    /// How late the generator itself was.
    pub(crate) generator_lag: Percentiles,
    pub(crate) node_cpu_ns_per_message: Option<f64>,
    pub(crate) node_cpus: Option<f64>,
    /// CPUs' worth of time its threads stood ready and waited: the machine was shared with others.
    pub(crate) node_waited_cpus: Option<f64>,
    pub(crate) node_system_share: Option<f64>,
    pub(crate) node_rss_octets: Option<u64>,
    pub(crate) node_rss_growth_octets: Option<i64>,
    pub(crate) generator_cpu_ns_per_message: f64,
    pub(crate) generator_busy: f64,
    pub(crate) connections: u64,
    pub(crate) connects_per_s: f64,
    pub(crate) subscriptions: u64,
    pub(crate) subscriptions_per_s: f64,
    pub(crate) signed_variants_per_publisher: u32,
    pub(crate) faults: Faults,
    /// Messages the node says it dropped during the run, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_drops: Option<std::collections::BTreeMap<String, u64>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    /// Further figures of one command: octets per connection, names, slopes.
    pub(crate) extra: std::collections::BTreeMap<String, f64>,
    #[serde(skip)]
    pub(crate) latencies: Recorder,
}

/// A whole command's report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) tool: String,
    pub(crate) command: Command,
    pub(crate) title: String,
    pub(crate) command_line: String,
    pub(crate) options: Options,
    pub(crate) threads: u32,
    /// What drove the generator's sockets; several where cases of a scenario differ in it.
    pub(crate) engine: String,
    /// Why it is not io_uring, though nobody asked for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) engine_substituted: Option<String>,
    pub(crate) peer: String,
    pub(crate) node: String,
    pub(crate) machine: Machine,
    pub(crate) load_before: Load,
    pub(crate) unix_time: u64,
    /// What `capacity` found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) knees: Vec<Knee>,
    pub(crate) measurements: Vec<Measurement>,
}

/// The highest rates that held a p99.9, one of each repeat; 0 where none did.
#[derive(Debug, Serialize)]
pub(crate) struct Knee {
    pub(crate) hold_us: u64,
    pub(crate) rates_per_s: Vec<f64>,
    pub(crate) median_per_s: f64,
}

impl Knee {
    /// Of the repeats' rates.
    pub(crate) fn of(hold: std::time::Duration, rates_per_s: Vec<f64>) -> Self {
        let mut sorted = rates_per_s.clone();
        sorted.sort_by(f64::total_cmp);
        let median = |at: usize| sorted.get(at).copied().unwrap_or(0.0);
        let median_per_s = f64::midpoint(median(sorted.len().saturating_sub(1) / 2), median(sorted.len() / 2));
        Self { hold_us: hold.as_micros() as u64, rates_per_s, median_per_s }
    }
}

impl Measurement {
    /// Makes the figures of an outcome.
    pub(crate) fn of(plan: &Plan, label: String, outcome: Outcome) -> Self {
        let offered = match (plan.command, plan.rates.first()) {
            (Command::Pingpong, _) | (_, None) => None,
            (_, Some(rate)) => Some(*rate),
        };
        // What nobody received cost nothing per message.
        let each = |cpu_ns: u64| if outcome.delivered == 0 { 0.0 } else { cpu_ns as f64 / outcome.delivered as f64 };
        let wanted = offered.map(|rate| rate * outcome.seconds * f64::from(plan.copies()));
        // What the schedule had in the span, which by independent gaps is not what the rate says.
        let due = (outcome.lag.count() + outcome.unsent) as f64;
        let held = offered.map(|_| outcome.unsent == 0 && holds(due, &outcome, f64::from(plan.copies())));
        let node_cpus = outcome.node.map(|usage| usage.cpu_ns as f64 / 1e9 / outcome.seconds);
        let waited_cpus = outcome.node.map(|usage| usage.waited_ns as f64 / 1e9 / outcome.seconds);
        let mut warnings = Vec::new();
        if let Some(waited) = waited_cpus.filter(|waited| *waited > WAITED_CPUS) {
            let percent = waited * 100.0;
            warnings.push(format!(
                "the node waited {percent:.0} % of the time for a CPU that others or the generator used: trust CPU per message, not rates"
            ));
        }
        let spins = offered.is_some() || plan.spin;
        let kept_busy = outcome.generator_busy + outcome.generator_waited / f64::from(plan.threads);
        if !spins && kept_busy >= GENERATOR_BUSY && node_cpus.is_none_or(|cpus| cpus < NODE_BUSY) {
            warnings.push(match node_cpus {
                Some(cpus) => format!(
                    "the generator was the bottleneck: its busiest thread {:.0} % on a CPU, {:.0} % waiting for one, the \
                     node {:.0} %; give it --threads or a CPU of its own",
                    outcome.generator_busy * 100.0,
                    outcome.generator_waited * 100.0,
                    cpus * 100.0
                ),
                None => "the generator was busy throughout and may have been the bottleneck; pass --node-pid to know".into(),
            });
        }
        let lag = outcome.lag.percentiles();
        if offered.is_some() && lag.p99_us > LATE_US && lag.p99_us > outcome.latencies.percentiles().p99_us * LATE_SHARE
        {
            warnings.push(format!(
                "the generator itself was late, p99 {:.0} us: that much of the latency is not the node's; --pin it, or give it --threads",
                lag.p99_us
            ));
        }
        if held == Some(false) {
            warnings.push(format!(
                "the rate did not hold: {:.0} deliveries/s in the span, {:.0} offered; {} messages due in it were never sent",
                outcome.delivered as f64 / outcome.seconds,
                wanted.unwrap_or(0.0) / outcome.seconds,
                outcome.unsent
            ));
        }
        if plan.command == Command::Capacity && outcome.latencies.count() < ENOUGH_FOR_P99_9 {
            let count = outcome.latencies.count();
            warnings.push(format!("p99.9 of {count} messages is their slowest: a longer --duration makes it one"));
        }
        if let Some(count) = plan.count.filter(|count| outcome.sent < *count) {
            let sent = outcome.sent;
            warnings
                .push(format!("it stood still after {sent} of {count} messages: those that are lost fill the window"));
        }
        if !outcome.faults.none() {
            warnings.push("messages were lost, doubled, reordered or damaged: see the faults".into());
        }
        if outcome.faults.lost > 0
            && let Some(drops) = &outcome.node_drops
        {
            warnings.push(explain(outcome.faults.lost, drops));
        }
        Self {
            label,
            engine: plan.engine.name(),
            seconds: outcome.seconds,
            offered_per_s: offered,
            sent: outcome.sent,
            delivered: outcome.delivered,
            delivered_per_s: outcome.delivered as f64 / outcome.seconds,
            payload_mib_per_s: outcome.delivered_octets as f64 / outcome.seconds / f64::from(1 << 20),
            unsent: outcome.unsent,
            held,
            latency: outcome.latencies.percentiles(),
            generator_lag: lag,
            node_cpu_ns_per_message: outcome.node.filter(|_| outcome.delivered > 0).map(|usage| each(usage.cpu_ns)),
            node_cpus,
            node_waited_cpus: waited_cpus,
            node_system_share: outcome.node.map(|usage| usage.system_share()),
            node_rss_octets: outcome.node.map(|usage| usage.rss_octets),
            node_rss_growth_octets: outcome
                .node
                .map(|usage| usage.rss_octets.cast_signed() - outcome.node_rss_before_octets.cast_signed()),
            generator_cpu_ns_per_message: each(outcome.generator.cpu_ns),
            generator_busy: outcome.generator_busy,
            connections: outcome.connections,
            connects_per_s: outcome.connections as f64 / outcome.connect_seconds.max(1e-9),
            subscriptions: outcome.subscriptions,
            subscriptions_per_s: outcome.subscriptions as f64 / outcome.subscribe_seconds.max(1e-9),
            signed_variants_per_publisher: outcome.variants,
            faults: outcome.faults,
            node_drops: outcome.node_drops,
            warnings,
            samples: outcome.samples,
            extra: std::collections::BTreeMap::new(),
            latencies: outcome.latencies,
        }
    }
}

/// Whether deliveries of as good as all `due` messages came, and nearly all in time.
fn holds(due: f64, outcome: &Outcome, copies: f64) -> bool {
    // One that falls on either edge of the span is nobody's fault.
    let wanted = (due - EDGES).max(0.0) * copies;
    let (all, in_time) = (outcome.latencies.count() as f64, outcome.delivered as f64);
    all >= wanted * HELD_SHARE && in_time >= wanted * HELD_IN_TIME_SHARE
}

/// A loss beside what the node counted.
fn explain(lost: u64, drops: &std::collections::BTreeMap<String, u64>) -> String {
    let dropped: u64 = drops.values().sum();
    let reasons: Vec<String> = drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    match dropped {
        0 => format!("{lost} lost, and the node counts no drop: it should have delivered them"),
        _ if dropped >= lost => format!("{lost} lost; the node dropped {dropped}: {}", reasons.join(", ")),
        _ => format!(
            "{lost} lost, of which the node dropped {dropped} ({}); it should have delivered the others",
            reasons.join(", ")
        ),
    }
}

impl Report {
    /// An empty report of a plan.
    pub(crate) fn new(
        plan: &Plan,
        title: &str,
        engines: impl Iterator<Item = EngineKind>,
        engine_substituted: Option<String>,
    ) -> Self {
        let mut engines: Vec<&str> = engines.map(EngineKind::name).collect();
        engines.dedup();
        let unix_time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self {
            tool: format!("slimload {}", env!("CARGO_PKG_VERSION")),
            command: plan.command,
            title: title.to_owned(),
            command_line: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            options: plan.options.clone(),
            threads: plan.threads,
            engine: engines.join(", "),
            engine_substituted,
            peer: plan.peer.name().into(),
            node: plan.node_pid.map(crate::process::describe).unwrap_or_default(),
            machine: Machine::read(),
            load_before: Load::read(),
            unix_time,
            knees: Vec::new(),
            measurements: Vec::new(),
        }
    }

    /// Faults of all measurements.
    pub(crate) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        self.measurements.iter().for_each(|m| faults.merge(&m.faults));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_when_as_good_as_all_came_and_nearly_all_in_time() {
        let outcome = |latencies: u64, delivered| {
            let mut outcome = Outcome { delivered, ..Outcome::default() };
            (0..latencies).for_each(|_| outcome.latencies.record(1000));
            outcome
        };
        assert!(holds(1000.0, &outcome(1000, 1000), 1.0));
        assert!(holds(100.0, &outcome(98, 97), 1.0), "edges");
        assert!(!holds(1000.0, &outcome(950, 950), 1.0), "five in a hundred are missing");
        assert!(!holds(1000.0, &outcome(1000, 900), 1.0), "a tenth came too late");
        assert!(!holds(1000.0, &outcome(1000, 1000), 2.0), "one copy of two");
    }

    #[test]
    fn a_schedule_with_fewer_messages_than_its_rate_holds_all_the_same() {
        let options = Options { rate: Some(vec![1000.0]), duration: Some(0.3), ..Options::default() };
        let plan = Plan::check(Command::Latency, options).unwrap();
        let held = |due: u64, unsent| {
            let mut outcome = Outcome { seconds: 0.3, delivered: 280, unsent, ..Outcome::default() };
            (0..280).for_each(|_| outcome.latencies.record(1000));
            (0..due).for_each(|_| outcome.lag.record(1000));
            Measurement::of(&plan, String::new(), outcome).held
        };
        assert_eq!((held(280, 0), held(300, 0), held(280, 1)), (Some(true), Some(false), Some(false)));
    }

    #[test]
    fn a_knee_is_the_median_of_its_repeats() {
        let knee = |rates: &[f64]| Knee::of(std::time::Duration::from_millis(5), rates.to_vec()).median_per_s;
        assert_eq!((knee(&[3.0, 1.0, 2.0]), knee(&[1.0, 3.0]), knee(&[7.0]), knee(&[])), (2.0, 2.0, 7.0, 0.0));
    }

    #[test]
    fn a_loss_is_explained_by_what_the_node_dropped() {
        let drops = |pairs: &[(&str, u64)]| pairs.iter().map(|&(reason, count)| (reason.to_owned(), count)).collect();
        assert!(explain(5, &drops(&[])).contains("counts no drop"));
        assert_eq!(explain(5, &drops(&[("stalled", 3), ("ttl", 2)])), "5 lost; the node dropped 5: stalled 3, ttl 2");
        assert!(explain(9, &drops(&[("stalled", 3)])).contains("dropped 3 (stalled 3)"));
    }
}
