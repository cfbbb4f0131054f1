//! The measured span: warm-up, samples, what was used meanwhile, and the drain.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::drive::{Outcome, STALL};
use crate::plan::Plan;
use crate::process::{Reading, Usage};
use crate::progress::Progress;
use crate::record::Recorder;
use crate::scenario::Command;
use crate::shared::{Shared, Stage, WorkerState};

/// How often the run is sampled.
const SAMPLE: Duration = Duration::from_millis(200);
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

/// A moment's counters.
#[derive(Clone)]
struct Mark {
    at: Instant,
    sent: u64,
    delivered: u64,
    delivered_octets: u64,
    node: Option<Reading>,
    generator: Reading,
}

impl Mark {
    fn take(plan: &Plan, shared: &Shared) -> Self {
        Self {
            at: Instant::now(),
            sent: shared.sum(|w| &w.sent),
            delivered: shared.sum(|w| &w.delivered),
            delivered_octets: shared.sum(|w| &w.delivered_octets),
            node: plan.node_pid.and_then(Reading::take),
            generator: Reading::take(std::process::id()).unwrap_or_default(),
        }
    }
}

/// What node and generator have used, added up from look to look.
#[derive(Default)]
struct Used {
    node: Option<Usage>,
    generator: Usage,
}

impl Used {
    /// Adds what was used between two marks; the node's share of it.
    fn add(&mut self, earlier: &Mark, later: &Mark) -> Usage {
        self.generator += later.generator.since(&earlier.generator);
        let Some((after, before)) = later.node.as_ref().zip(earlier.node.as_ref()) else { return Usage::default() };
        let node = after.since(before);
        *self.node.get_or_insert_default() += node;
        node
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

/// Warms up, measures and drains.
pub(crate) fn measure(plan: &Plan, shared: &Shared, progress: &Progress) -> Outcome {
    let from_ns = shared.now_ns() + plan.warmup.as_nanos() as u64;
    let to_ns = if plan.count.is_some() { u64::MAX } else { from_ns + plan.duration.as_nanos() as u64 };
    shared.measure_from_ns.store(from_ns, Ordering::Release);
    shared.measure_to_ns.store(to_ns, Ordering::Release);
    shared.advance(Stage::Warm);
    sleep_until(shared, from_ns);
    let (threads_before, first) = (thread_cpu_ns(shared), Mark::take(plan, shared));
    shared.advance(Stage::Measure);

    let (mut samples, mut latencies) = (Vec::new(), Recorder::default());
    let mut thirds = if plan.command == Command::Soak { vec![Recorder::default(); 3] } else { Vec::new() };
    let (mut last, mut used) = (first.clone(), Used::default());
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
        let node = used.add(&last, &mark);
        let (sample, span) = sample(first.at, &last, &mark, node, shared);
        let share = share_done(plan, &sample, mark.delivered - first.delivered);
        latencies.merge(&span);
        if let Some(third) = thirds.get_mut((share * 3.0).min(2.0) as usize) {
            third.merge(&span);
        }
        progress.sample(&sample, share, plan.node_pid.is_some());
        samples.push(sample);
        last = mark;
    }
    let (after, threads_after) = (Mark::take(plan, shared), thread_cpu_ns(shared));
    if plan.count.is_some() {
        shared.measure_to_ns.store(shared.now_ns(), Ordering::Release);
    }
    shared.advance(Stage::Drain);
    drain(plan, shared);

    used.add(&last, &after);
    let seconds = (after.at - first.at).as_secs_f64();
    let busiest = threads_before
        .iter()
        .zip(&threads_after)
        .map(|(before, after)| after.saturating_sub(*before))
        .max()
        .unwrap_or(0);
    Outcome {
        seconds,
        sent: after.sent - first.sent,
        delivered: after.delivered - first.delivered,
        delivered_octets: after.delivered_octets - first.delivered_octets,
        latencies,
        thirds,
        node: used.node,
        generator: used.generator,
        generator_busy: busiest as f64 / 1e9 / seconds,
        generator_waited: used.generator.waited_ns as f64 / 1e9 / seconds,
        samples,
        ..Outcome::default()
    }
}

/// How much of the measurement is behind us, 0..1.
fn share_done(plan: &Plan, sample: &Sample, delivered: u64) -> f64 {
    let share = match plan.count {
        Some(count) => delivered as f64 / (count as f64 * f64::from(plan.copies())),
        None => sample.seconds / plan.duration.as_secs_f64().max(1e-9),
    };
    share.min(1.0)
}

/// The end of a counted run: everything sent, and delivered or given up.
#[derive(Default)]
struct Counted {
    /// Sent and delivered, and since when.
    stood: Option<((u64, u64), Instant)>,
}

impl Counted {
    fn is_out(&mut self, plan: &Plan, shared: &Shared) -> bool {
        // Whoever waits for what is lost sends no more; a schedule merely has gaps.
        let patience = if shared.all(|w| &w.finished) {
            COUNTED_PATIENCE
        } else if plan.paced() {
            Duration::MAX
        } else {
            STALL
        };
        let (sent, delivered) = (shared.sum(|w| &w.sent), shared.sum(|w| &w.delivered));
        // Those who churn go on until they are stopped.
        let complete = shared.all(|w| &w.finished)
            && (plan.command == Command::Churn || delivered >= sent * u64::from(plan.copies()));
        complete || self.stands((sent, delivered), Instant::now()) > patience
    }

    /// For how long the counters have not moved.
    fn stands(&mut self, counters: (u64, u64), now: Instant) -> Duration {
        match self.stood {
            Some((before, since)) if before == counters => now - since,
            _ => {
                self.stood = Some((counters, now));
                Duration::ZERO
            }
        }
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
    while shared.stage() == Stage::Drain && plan.command != Command::Churn {
        let is_last = shared.all(|w| &w.drained);
        let (sent, delivered) = (shared.sum(|w| &w.sent), shared.sum(|w| &w.delivered));
        let all = is_last && delivered >= sent * copies;
        if all || moved.elapsed() > DRAIN {
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

/// What happened since `last`, and how long it took.
fn sample(start: Instant, last: &Mark, mark: &Mark, node: Usage, shared: &Shared) -> (Sample, Recorder) {
    let mut span = Recorder::default();
    for worker in &shared.workers {
        if let Ok(mut live) = worker.0.latencies.lock() {
            span.merge(&live);
            live.clear();
        }
    }
    let seconds = (mark.at - last.at).as_secs_f64().max(1e-9);
    let figures = span.percentiles();
    let sample = Sample {
        seconds: (mark.at - start).as_secs_f64(),
        sent_per_s: (mark.sent - last.sent) as f64 / seconds,
        delivered_per_s: (mark.delivered - last.delivered) as f64 / seconds,
        p99_us: figures.p99_us,
        p99_9_us: figures.p99_9_us,
        node_cpu: node.cpu_ns as f64 / 1e9 / seconds,
        node_rss_octets: mark.node.as_ref().map_or(0, |reading| reading.rss_octets),
    };
    (sample, span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_run_that_stands_still_is_given_up() {
        let (mut counted, start) = (Counted::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(counted.stands((5, 4), at(0)), Duration::ZERO);
        assert_eq!(counted.stands((5, 4), at(3)), Duration::from_secs(3));
        assert_eq!(counted.stands((5, 5), at(4)), Duration::ZERO);
        assert_eq!(counted.stands((5, 5), at(9)), Duration::from_secs(5));
    }
}
