//! One measurement from start to end: workers are started, led through their stages, and their books balanced.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::churn;
use crate::error::{BenchError, Result};
use crate::fate::with_fate;
use crate::ledger::Faults;
use crate::measure::{Sample, measure};
use crate::node_stats::NodeStats;
use crate::payload::mix;
use crate::plan::Plan;
use crate::process::{Reading, Usage};
use crate::progress::Progress;
use crate::record::Recorder;
use crate::scenario::Command;
use crate::shared::{Shared, Stage};
use crate::topology::{self, Names};
use crate::worker::{self, Leavings, Worker};

/// A stage that makes no progress for this long has failed.
pub(crate) const STALL: Duration = Duration::from_secs(15);

/// What a measurement found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_octets: u64,
    /// Messages due in the measured span that could not be sent.
    pub(crate) unsent: u64,
    pub(crate) latencies: Recorder,
    /// Soak: of its three thirds, in order.
    pub(crate) thirds: Vec<Recorder>,
    /// Churn: from connect to the acknowledged subscription.
    pub(crate) subscribed_latencies: Recorder,
    pub(crate) lag: Recorder,
    pub(crate) node: Option<Usage>,
    pub(crate) node_rss_before_octets: u64,
    pub(crate) node_rss_connected_octets: u64,
    pub(crate) node_rss_subscribed_octets: u64,
    pub(crate) generator: Usage,
    /// Share of the measured time the busiest generator thread was on a CPU.
    pub(crate) generator_busy: f64,
    /// CPUs' worth of time its threads stood ready and waited for one.
    pub(crate) generator_waited: f64,
    pub(crate) faults: Faults,
    /// What the node says it dropped, by reason; `None` without its stats socket.
    pub(crate) node_drops: Option<BTreeMap<String, u64>>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) connections: u64,
    pub(crate) connect_seconds: f64,
    pub(crate) subscriptions: u64,
    pub(crate) subscribe_seconds: f64,
    pub(crate) variants: u32,
}

/// Names no other run has.
fn fresh_names(plan: &Plan) -> Names {
    let pid = u64::from(std::process::id());
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let run = mix(plan.seed ^ pid << 32 ^ since_boot.tv_nsec.cast_unsigned() ^ since_boot.tv_sec.cast_unsigned() << 20);
    Names { run: (run >> 32) as u32 }
}

/// Runs one measurement.
pub(crate) fn drive(plan: &Plan, label: &str) -> Result<Outcome> {
    let names = fresh_names(plan);
    let shared = Shared::new(plan.threads, plan.pubs);
    let progress = Progress::new(label);
    let node_rss = || plan.node_pid.and_then(Reading::take).map_or(0, |reading| reading.rss_octets);
    let node_rss_before_octets = node_rss();
    let stats_before = plan.node_stats.as_deref().map(NodeStats::read).transpose()?;

    let (outcome, mut leavings) = thread::scope(|scope| -> Result<_> {
        let workers: Vec<_> = (0..plan.threads as usize)
            .map(|index| {
                let shared = &shared;
                thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn_scoped(scope, move || {
                        let left = match plan.command {
                            Command::Churn => churn::run(plan, shared, index, names),
                            _ => Worker::run(plan, shared, index, names),
                        };
                        left.unwrap_or_else(|error| {
                            shared.fail(error);
                            Leavings::default()
                        })
                    })
                    .map_err(BenchError::system("start a thread"))
            })
            .collect::<Result<_>>()?;
        let outcome = lead(plan, &shared, &progress, node_rss);
        shared.advance(Stage::Stop);
        let mut leavings = Vec::new();
        for worker in workers {
            leavings
                .push(worker.join().map_err(|_| BenchError::Plan("a generator thread panicked (see above)".into()))?);
        }
        Ok((outcome, leavings))
    })?;
    progress.finish();
    if let Some(failure) = shared.take_failure() {
        return Err(with_fate(failure, plan));
    }
    let mut outcome = outcome?;
    outcome.node_rss_before_octets = node_rss_before_octets;
    // What was handed over after the last sample: the late ones, of all.
    for worker in &shared.workers {
        if let Ok(live) = worker.0.latencies.lock() {
            outcome.latencies.merge(&live);
        }
    }
    for worker in &leavings {
        outcome.latencies.merge(&worker.latencies);
        outcome.lag.merge(&worker.lag);
        outcome.subscribed_latencies.merge(&worker.subscribed);
        outcome.unsent += worker.unsent;
    }
    outcome.faults = worker::balance(&mut leavings, plan.copies());
    if let (Some(socket), Some(before)) = (&plan.node_stats, stats_before) {
        outcome.node_drops = Some(NodeStats::read(socket)?.since(&before));
    }
    Ok(outcome)
}

/// Waits until `done` says so; fails when it stands still.
fn until(
    shared: &Shared,
    progress: &Progress,
    what: &'static str,
    hint: &'static str,
    wanted: u64,
    done: impl Fn() -> u64,
) -> Result<Duration> {
    let start = Instant::now();
    let (mut last, mut moved) = (0, start);
    loop {
        let now = done();
        if now >= wanted {
            return Ok(start.elapsed());
        }
        if shared.stage() == Stage::Stop {
            return Err(BenchError::Plan("stopped".into())); // the worker's own error stands before this one
        }
        if now > last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STALL {
            return Err(BenchError::Deadline { what, seconds: STALL.as_secs(), done: now, wanted, hint });
        }
        progress.stage(what, now, wanted);
        thread::sleep(Duration::from_millis(2));
    }
}

/// Leads the workers through the stages.
fn lead(plan: &Plan, shared: &Shared, progress: &Progress, node_rss: impl Fn() -> u64) -> Result<Outcome> {
    if plan.command == Command::Churn {
        // Whoever connects is part of what is measured.
        return Ok(Outcome { connections: plan.pubs.into(), ..measure(plan, shared, progress) });
    }
    let parts = topology::parts(plan);
    let connections = parts.len() as u64;
    let subscriptions: u64 = parts.iter().map(|part| u64::from(part.share.len())).sum();
    let connected = until(
        shared,
        progress,
        "connect and negotiation",
        "; does the node require TLS or authentication?",
        connections,
        || shared.sum(|w| &w.ready),
    )?;
    let node_rss_connected_octets = node_rss();
    shared.advance(Stage::Subscribe);
    let subscribed = until(shared, progress, "subscription", "; the node did not acknowledge", subscriptions, || {
        shared.sum(|w| &w.subscribed)
    })?;
    worker::settle(plan.peer);
    let node_rss_subscribed_octets = node_rss();
    shared.advance(Stage::Prepare);
    until(shared, progress, "signing headers", "", 1, || u64::from(shared.all(|w| &w.prepared)))?;
    Ok(Outcome {
        node_rss_connected_octets,
        node_rss_subscribed_octets,
        connections,
        connect_seconds: connected.as_secs_f64(),
        subscriptions,
        subscribe_seconds: subscribed.as_secs_f64(),
        variants: if plan.presigns() { crate::publisher::variants(plan) } else { 0 },
        ..measure(plan, shared, progress)
    })
}
