//! How old the oldest octet of a queue is, in steps.

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
    /// (first position of the step, when it began), ascending; front is the oldest step not wholly taken.
    steps: VecDeque<(u64, Instant)>,
}

impl AgeLog {
    /// `octets` were queued at `now`.
    #[inline]
    pub(crate) fn queue(&mut self, octets: usize, now: Instant) {
        match self.steps.back() {
            Some(&(_, began)) if now.saturating_duration_since(began) < AGE_STEP => {}
            _ => self.steps.push_back((self.queued, now)),
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
        while self.steps.get(1).is_some_and(|&(start, _)| start <= self.taken) {
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
        self.steps.front().map_or(Duration::ZERO, |&(_, since)| now.saturating_duration_since(since))
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
        log.queue(100, at(0));
        log.queue(100, at(5)); // same step
        log.queue(100, at(500));
        log.take(150);
        assert_eq!(log.oldest(at(1000)), Duration::from_millis(1000), "50 octets of the first step still wait");
        log.take(50);
        assert_eq!(log.oldest(at(1000)), Duration::from_millis(500));
        assert_eq!(log.waiting(), 100);
        log.take(100);
        assert_eq!(log.oldest(at(1000)), Duration::ZERO);
    }

    #[test]
    fn steps_are_bounded_by_time_not_by_messages() {
        let start = Instant::now();
        let mut log = AgeLog::default();
        for message in 0..100_000u64 {
            log.queue(1, start + Duration::from_micros(message));
        }
        assert!(log.steps.len() <= 6, "100 ms of traffic make {} steps", log.steps.len());
    }
}
