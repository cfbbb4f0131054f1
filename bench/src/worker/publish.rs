//! What a worker sends: by a schedule, within a window, or in answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Link, PATIENCE, Worker};
use crate::error::{BenchError, Result};
use crate::pace::Pace;
use crate::payload::{Kind, mix};
use crate::plan::Plan;
use crate::publisher::Publisher;
use crate::scenario::Command;
use crate::shared::{Shared, Stage};

/// Octets one connection may have waiting before its publisher pauses.
const TURN_OCTETS: usize = 64 * 1024;
/// A wait shorter than this is spent spinning: a sleep would overshoot it.
const SPIN_NS: u64 = 60_000;

impl Worker<'_> {
    /// Publishes what may go; returns how long there is nothing to do.
    pub(super) fn publish(&mut self, stage: Stage) -> Result<Duration> {
        let mut next_ns = u64::MAX;
        let mut more = false;
        let quota = self.plan.count.map(|count| count.div_ceil(u64::from(self.plan.pubs)));
        let now_ns = self.shared.now_ns();
        let paced = self.plan.paced();
        let due_by_ns = if stage == Stage::Drain { now_ns.min(self.tallies.measure_to_ns - 1) } else { now_ns };
        let measured = self.tallies.measure_from_ns..self.tallies.measure_to_ns;
        let mut unfinished = false;
        for link in &mut self.links {
            let Link { client, out, publisher: Some(publisher), dirty, .. } = link else { continue };
            let has_had = |publisher: &mut Publisher| {
                stage == Stage::Measure && quota.is_some_and(|quota| publisher.has_had(quota))
            };
            if has_had(publisher) {
                continue;
            }
            unfinished = true;
            if paced {
                if publisher.pace.is_none() {
                    let rate = self.plan.rates[0] / f64::from(self.plan.pubs);
                    let phase = f64::from(publisher.number) / f64::from(self.plan.pubs);
                    let seed = self.plan.seed ^ mix(u64::from(publisher.number));
                    publisher.pace = Some(Pace::new(rate, now_ns, phase, self.plan.arrivals, seed));
                }
                while out.len() + client.unsealed() < TURN_OCTETS
                    && !has_had(publisher)
                    && let Some(due) = publisher.due(due_by_ns)
                {
                    if !publisher.publish(client, due, Kind::Data, &mut out.octets).map_err(BenchError::Plan)? {
                        publisher.hold(due);
                        break;
                    }
                    if measured.contains(&due) {
                        self.lag.record(now_ns - due);
                    }
                    *dirty = true;
                    self.sent += 1;
                }
                next_ns = next_ns.min(publisher.next_due_ns().unwrap_or(u64::MAX));
                continue;
            }
            while out.len() + client.unsealed() < TURN_OCTETS
                && !has_had(publisher)
                && has_credit(publisher, self.plan, self.shared)
            {
                if !publisher.publish(client, now_ns, Kind::Data, &mut out.octets).map_err(BenchError::Plan)? {
                    break;
                }
                *dirty = true;
                self.sent += 1;
            }
            more |= !out.blocked && out.len() + client.unsealed() >= TURN_OCTETS;
        }
        if quota.is_some() && !unfinished && stage == Stage::Measure {
            self.shared.workers[self.index].0.finished.store(true, Ordering::Release);
        }
        if more {
            return Ok(Duration::ZERO);
        }
        let until = next_ns.saturating_sub(self.shared.now_ns());
        Ok(if until < SPIN_NS { Duration::ZERO } else { Duration::from_nanos(until - SPIN_NS / 2).min(PATIENCE) })
    }

    /// Ping-pong: answers requests, counts replies.
    pub(super) fn act(&mut self) -> Result<()> {
        if !self.tallies.dialogue {
            return Ok(());
        }
        for slot in 0..self.links.len() {
            let link = &mut self.links[slot];
            for stamp in std::mem::take(&mut link.receiver.act) {
                let link = &mut self.links[slot];
                let acks = self.plan.acks;
                let Some(publisher) = link.responder.as_mut().or(link.publisher.as_mut()) else { continue };
                if stamp.kind == Kind::Reply {
                    publisher.answered += 1;
                }
                if acks && stamp.kind != Kind::Ack {
                    // Written on its own, as a session does: what Nagle's algorithm then does is the measurement.
                    publisher
                        .publish(&mut link.client, stamp.intended_ns, Kind::Ack, &mut link.out.octets)
                        .map_err(BenchError::Plan)?;
                    link.client.seal(&mut link.out.octets).map_err(BenchError::Plan)?;
                    link.out.cut();
                    self.door.send(slot as u32, &mut link.out).map_err(BenchError::system("send"))?;
                }
                if stamp.kind == Kind::Data {
                    publisher
                        .publish(&mut link.client, stamp.intended_ns, Kind::Reply, &mut link.out.octets)
                        .map_err(BenchError::Plan)?;
                    link.dirty = true;
                }
            }
        }
        Ok(())
    }
}

/// Whether a publisher of a closed window may send one more.
#[inline]
fn has_credit(publisher: &Publisher, plan: &Plan, shared: &Shared) -> bool {
    if plan.command == Command::Pingpong {
        return publisher.requests == publisher.answered;
    }
    let answered = shared.credits[publisher.number as usize].0.load(Ordering::Acquire);
    let copies = u64::from(plan.copies());
    publisher.sent * copies < answered + u64::from(plan.window) * copies
}

/// Whether a parked worker has something to publish after all.
pub(super) fn may_publish(link: &Link, plan: &Plan, shared: &Shared) -> bool {
    !plan.paced()
        && plan.count.is_none()
        && !link.out.blocked
        && link.publisher.as_ref().is_some_and(|publisher| !publisher.refused && has_credit(publisher, plan, shared))
}
