//! How old the oldest octet of a queue is, in steps, and how many messages wait in it.

use crate::limits::AGE_STEP;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Remembers when positions of a stream of octets were queued, no finer than [`AGE_STEP`].
///
/// Units: octets since the connection began; both counters only grow.
#[derive(Default)]
pub(crate) struct AgeLog {
    queued: u64,
    taken: u64,
    /// Ascending; the front is the oldest step not wholly taken.
    steps: VecDeque<Step>,
}

/// What was queued within one [`AGE_STEP`].
struct Step {
    /// Position of its first octet.
    start: u64,
    began: Instant,
    /// When the next step begins.
    ends: Instant,
    messages: u32,
}

impl AgeLog {
    /// `octets` of so many messages were queued at `now`.
    #[inline]
    pub(crate) fn queue(&mut self, octets: usize, messages: u32, now: Instant) {
        match self.steps.back_mut() {
            Some(step) if now < step.ends => step.messages += messages,
            _ => self.steps.push_back(Step { start: self.queued, began: now, ends: now + AGE_STEP, messages }),
        }
        self.queued += octets as u64;
    }

    /// The first `octets` of what is queued left for good.
    #[inline]
    pub(crate) fn take(&mut self, octets: usize) {
        self.taken += octets as u64;
        debug_assert!(self.taken <= self.queued, "no more leaves than came");
        if self.taken == self.queued {
            self.steps.clear();
            return;
        }
        while self.steps.get(1).is_some_and(|step| step.start <= self.taken) {
            self.steps.pop_front();
        }
    }

    /// Octets queued and not yet taken.
    #[inline]
    pub(crate) const fn waiting(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a queue is shorter than the address space")]
        let waiting = (self.queued - self.taken) as usize;
        waiting
    }

    /// How long the oldest waiting octet has waited; zero when nothing waits.
    pub(crate) fn oldest(&self, now: Instant) -> Duration {
        self.steps.front().map_or(Duration::ZERO, |step| now.saturating_duration_since(step.began))
    }

    /// Messages among the last `octets` queued; within a step they count as if all were of one length.
    pub(crate) fn messages_in_last(&self, octets: usize) -> u64 {
        let from = self.queued.saturating_sub(octets as u64).max(self.taken);
        let mut end = self.queued;
        let mut messages = 0;
        for step in self.steps.iter().rev() {
            if end <= from {
                break;
            }
            let (all, wanted) = (end - step.start, end - step.start.max(from));
            messages += (u64::from(step.messages) * wanted).div_ceil(all.max(1));
            end = step.start;
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_octet_counts_not_the_last_progress() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut log = AgeLog::default();
        log.queue(100, 1, at(0));
        log.queue(100, 1, at(5)); // same step
        log.queue(100, 1, at(500));
        log.take(150);
        assert_eq!(log.oldest(at(1000)), Duration::from_millis(1000), "50 octets of the first step still wait");
        log.take(50);
        assert_eq!(log.oldest(at(1000)), Duration::from_millis(500));
        assert_eq!(log.waiting(), 100);
        log.take(100);
        assert_eq!(log.oldest(at(1000)), Duration::ZERO);
    }

    #[test]
    fn messages_are_counted_from_the_back() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut log = AgeLog::default();
        for ms in [0, 1, 2, 3, 100, 101] {
            log.queue(50, 1, at(ms));
        }
        log.queue(20, 0, at(101)); // one of our own
        assert_eq!(log.messages_in_last(usize::MAX), 6);
        assert_eq!(log.messages_in_last(0), 0);
        log.take(75);
        assert_eq!(log.messages_in_last(usize::MAX), 5, "the second is half taken and still counts");
        assert_eq!(log.messages_in_last(120), 2);
        log.take(300 + 20 - 75);
        assert_eq!(log.messages_in_last(usize::MAX), 0);
    }

    #[test]
    fn steps_are_bounded_by_time_not_by_messages() {
        let start = Instant::now();
        let mut log = AgeLog::default();
        for message in 0..100_000u64 {
            log.queue(1, 1, start + Duration::from_micros(message));
        }
        assert!(log.steps.len() <= 6, "100 ms of traffic make {} steps", log.steps.len());
    }
}
