//! One measurement from start to end: workers are started, led through their stages, sampled, and their books balanced.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{BenchError, Result};
use crate::ledger::Faults;
use crate::node_stats::NodeStats;
use crate::payload::mix;
use crate::plan::Plan;
use crate::process::Usage;
use crate::progress::Progress;
use crate::record::Recorder;
use crate::shared::{Shared, Stage, WorkerState};
use crate::topology::{self, Names};
use crate::worker::{self, Leavings, Worker};

/// How often the run is sampled.
const SAMPLE: Duration = Duration::from_millis(200);
/// A stage that makes no progress for this long has failed.
const STALL: Duration = Duration::from_secs(15);
/// How long a drain without arrivals is waited for: what has not come by then is lost. Long, because on a busy machine
/// a node that merely waits for a CPU must not be blamed.
const DRAIN: Duration = Duration::from_secs(10);

/// How often a counted run is looked at, and how long its last deliveries may stand still before it ends without them.
const COUNTED_LOOK_NS: u64 = 1_000_000;
const COUNTED_PATIENCE: Duration = Duration::from_secs(1);

/// The run at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) sent_per_s: f64,
    pub(crate) delivered_per_s: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) node_cpu: f64,
    pub(crate) node_rss_octets: u64,
}

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

/// A moment's counters.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    sent: u64,
    delivered: u64,
    delivered_octets: u64,
    node: Option<Usage>,
    generator: Usage,
}

impl Mark {
    fn take(plan: &Plan, shared: &Shared) -> Self {
        Self {
            at: Instant::now(),
            sent: shared.sum(|w| &w.sent),
            delivered: shared.sum(|w| &w.delivered),
            delivered_octets: shared.sum(|w| &w.delivered_octets),
            node: plan.node_pid.and_then(Usage::read),
            generator: Usage::read(std::process::id()).unwrap_or_default(),
        }
    }
}

/// CPU nanoseconds of each generator thread.
fn thread_cpu_ns(shared: &Shared) -> Vec<u64> {
    let of = |worker: &WorkerState| {
        let id = worker.thread_id.load(Ordering::Acquire);
        let text = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    shared.workers.iter().map(|worker| of(&worker.0)).collect()
}

/// Names no other run has.
pub(crate) fn fresh_names(plan: &Plan) -> Names {
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
    let node_rss = || plan.node_pid.and_then(Usage::read).map_or(0, |usage| usage.rss_octets);
    let node_rss_before_octets = node_rss();
    let stats_before = plan.node_stats.as_deref().map(NodeStats::read).transpose()?;

    let (outcome, mut leavings) = thread::scope(|scope| -> Result<_> {
        let workers: Vec<_> = (0..plan.threads as usize)
            .map(|index| {
                let shared = &shared;
                thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn_scoped(scope, move || match Worker::run(plan, shared, index, names) {
                        Ok(leavings) => leavings,
                        Err(error) => {
                            shared.fail(error);
                            Leavings::default()
                        }
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
        outcome.unsent += worker.unsent;
    }
    outcome.faults = worker::balance(&mut leavings, plan.copies());
    if let (Some(socket), Some(before)) = (&plan.node_stats, stats_before) {
        outcome.node_drops = Some(NodeStats::read(socket)?.since(&before));
    }
    Ok(outcome)
}

/// An ended connection means something else when the node's process is gone too.
fn with_fate(error: BenchError, plan: &Plan) -> BenchError {
    match error {
        BenchError::Ended { connection, stage, reason } if plan.node_pid.is_some_and(crate::process::is_gone) => {
            BenchError::Ended {
                connection,
                stage,
                reason: format!("{reason}; the node's process has ended: see its log"),
            }
        }
        other => other,
    }
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

    let from_ns = shared.now_ns() + plan.warmup.as_nanos() as u64;
    let to_ns = if plan.count.is_some() { u64::MAX } else { from_ns + plan.duration.as_nanos() as u64 };
    shared.measure_from_ns.store(from_ns, Ordering::Release);
    shared.measure_to_ns.store(to_ns, Ordering::Release);
    shared.advance(Stage::Warm);
    sleep_until(shared, from_ns);
    let (threads_before, before) = (thread_cpu_ns(shared), Mark::take(plan, shared));
    shared.advance(Stage::Measure);

    let (mut samples, mut latencies) = (Vec::new(), Recorder::default());
    let mut last = before;
    let mut counted = Counted::default();
    loop {
        let next = shared.now_ns() + SAMPLE.as_nanos() as u64;
        let counted_out = plan.count.is_some() && counted.is_out(plan, shared);
        if shared.now_ns() >= to_ns || shared.stage() != Stage::Measure || counted_out {
            break;
        }
        sleep_until(
            shared,
            if plan.count.is_some() { next.min(shared.now_ns() + COUNTED_LOOK_NS) } else { next.min(to_ns) },
        );
        if plan.count.is_some() && last.at.elapsed() < SAMPLE && !counted.is_out(plan, shared) {
            continue;
        }
        let mark = Mark::take(plan, shared);
        samples.push(sample(&before, &last, &mark, shared, &mut latencies));
        last = mark;
        if let Some(sample) = samples.last() {
            progress.sample(sample, plan);
        }
    }
    let (after, threads_after) = (Mark::take(plan, shared), thread_cpu_ns(shared));
    if plan.count.is_some() {
        shared.measure_to_ns.store(shared.now_ns(), Ordering::Release);
    }
    shared.advance(Stage::Drain);
    drain(plan, shared);

    let seconds = (after.at - before.at).as_secs_f64();
    let busiest = threads_before
        .iter()
        .zip(&threads_after)
        .map(|(before, after)| after.saturating_sub(*before))
        .max()
        .unwrap_or(0);
    Ok(Outcome {
        seconds,
        sent: after.sent - before.sent,
        delivered: after.delivered - before.delivered,
        delivered_octets: after.delivered_octets - before.delivered_octets,
        unsent: 0,
        latencies,
        lag: Recorder::default(),
        node: after.node.zip(before.node).map(|(after, before)| after - before),
        node_rss_before_octets: 0,
        node_rss_connected_octets,
        node_rss_subscribed_octets,
        generator: after.generator - before.generator,
        generator_busy: busiest as f64 / 1e9 / seconds,
        generator_waited: (after.generator - before.generator).waited_ns as f64 / 1e9 / seconds,
        faults: Faults::default(),
        node_drops: None,
        samples,
        connections,
        connect_seconds: connected.as_secs_f64(),
        subscriptions,
        subscribe_seconds: subscribed.as_secs_f64(),
        variants: crate::publisher::variants(plan),
    })
}

/// The end of a counted run: everything sent, and delivered or given up.
#[derive(Default)]
struct Counted {
    delivered: u64,
    moved: Option<Instant>,
}

impl Counted {
    fn is_out(&mut self, plan: &Plan, shared: &Shared) -> bool {
        if !shared.all(|w| &w.finished) {
            return false;
        }
        let delivered = shared.sum(|w| &w.delivered);
        let moved = *self.moved.get_or_insert_with(Instant::now);
        if delivered > self.delivered {
            (self.delivered, self.moved) = (delivered, Some(Instant::now()));
        } else if moved.elapsed() > COUNTED_PATIENCE {
            return true; // the drain waits for the rest
        }
        delivered >= shared.sum(|w| &w.sent) * u64::from(plan.copies())
    }
}

/// Sleeps to a moment of the run, in steps, so that a failure ends it.
fn sleep_until(shared: &Shared, at_ns: u64) {
    while let now_ns = shared.now_ns()
        && now_ns < at_ns
        && shared.stage() != Stage::Stop
    {
        thread::sleep(Duration::from_nanos((at_ns - now_ns).min(50_000_000)));
    }
}

/// Waits for what is under way, until all has come or nothing comes any more.
fn drain(plan: &Plan, shared: &Shared) {
    let copies = u64::from(plan.copies());
    let (mut last, mut moved) = (0, Instant::now());
    while shared.stage() == Stage::Drain {
        let (sent, delivered) = (shared.sum(|w| &w.sent), shared.sum(|w| &w.delivered));
        if delivered >= sent * copies || moved.elapsed() > DRAIN {
            // One breath more: surplus copies should get the chance to show.
            thread::sleep(Duration::from_millis(20));
            return;
        }
        if delivered > last {
            (last, moved) = (delivered, Instant::now());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn sample(first: &Mark, last: &Mark, mark: &Mark, shared: &Shared, latencies: &mut Recorder) -> Sample {
    let mut span = Recorder::default();
    for worker in &shared.workers {
        if let Ok(mut live) = worker.0.latencies.lock() {
            span.merge(&live);
            live.clear();
        }
    }
    latencies.merge(&span);
    let seconds = (mark.at - last.at).as_secs_f64().max(1e-9);
    let figures = span.percentiles();
    let node_cpu_ns = mark.node.zip(last.node).map_or(0, |(now, before)| (now - before).cpu_ns);
    Sample {
        seconds: (mark.at - first.at).as_secs_f64(),
        sent_per_s: (mark.sent - last.sent) as f64 / seconds,
        delivered_per_s: (mark.delivered - last.delivered) as f64 / seconds,
        p99_us: figures.p99_us,
        p99_9_us: figures.p99_9_us,
        node_cpu: node_cpu_ns as f64 / 1e9 / seconds,
        node_rss_octets: mark.node.map_or(0, |usage| usage.rss_octets),
    }
}
