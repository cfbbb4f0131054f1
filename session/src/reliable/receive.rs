//! What was heard, put in order; what is missing is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::{AHEAD, RECEIVE_WINDOW, RECEIVE_WINDOW_OCTETS, REQUESTS_AT_ONCE, Retries, SEQUENCED};
use crate::message::Received;

/// What a receive window releases, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    Message(Received),
    /// These ids (first and last) will not come any more.
    Lost(u32, u32),
}

/// What happened to a message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// New, and ours now: acknowledge.
    Taken,
    /// Had it: acknowledge again.
    Duplicate,
    /// Too far ahead to be held: do not acknowledge, it will come again.
    TooFar,
    /// Too much is held already: do not acknowledge, it will come again.
    NoRoom,
}

/// One source's stream as we receive it: in order, each message once, or reported as lost.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    retries: Retries,
    /// The id that comes next; `None` until the first message where we came in mid-stream.
    pub(crate) next: Option<u32>,
    held: BTreeMap<u32, Option<Received>>,
    held_octets: usize,
    pub(crate) missing: BTreeMap<u32, (Instant, u32)>,
    /// No missing message is asked for again before that.
    quiet_until: Option<Instant>,
    released: VecDeque<Released>,
    requests: VecDeque<u32>,
    /// The nearest message that was too far ahead.
    pub(crate) far: Option<u32>,
    /// Ids before the first one seen that came late: a stream may begin out of order.
    pub(crate) before: BTreeSet<u32>,
    pub(crate) first: Option<u32>,
}

impl ReceiveWindow {
    /// `start` is 1 where the stream is received from its beginning.
    pub(crate) fn new(retries: Retries, start: Option<u32>) -> Self {
        Self {
            retries,
            next: start,
            held: BTreeMap::new(),
            held_octets: 0,
            missing: BTreeMap::new(),
            quiet_until: None,
            released: VecDeque::new(),
            requests: VecDeque::new(),
            far: None,
            before: BTreeSet::new(),
            first: None,
        }
    }

    /// Distance ahead of `next`; `None` lies behind.
    pub(crate) fn ahead(next: u32, id: u32) -> Option<u32> {
        let distance = id.wrapping_sub(next) % SEQUENCED;
        (distance < AHEAD).then_some(distance)
    }

    /// What is held ahead of a gap, or known to be lost.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u32, Option<&Received>)> {
        self.held.iter().map(|(id, message)| (*id, message.as_ref()))
    }

    pub(crate) fn held_octets(&self) -> usize {
        self.held_octets
    }

    /// Notes what stands in a place ahead.
    pub(crate) fn hold(&mut self, id: u32, message: Option<Received>) {
        self.held_octets += message.as_ref().map_or(0, Received::octets);
        self.held.insert(id, message);
    }

    /// Takes a message in; `room` octets may be held for order in all streams.
    pub(crate) fn receive(&mut self, now: Instant, id: u32, message: Received, room: usize) -> Arrival {
        let next = match self.next {
            Some(next) => next,
            None => {
                self.first = Some(id);
                *self.next.insert(id)
            }
        };
        let Some(distance) = Self::ahead(next, id) else { return self.behind(id, message) };
        if self.held.contains_key(&id) {
            return Arrival::Duplicate;
        }
        if distance >= RECEIVE_WINDOW {
            let nearer = |far: u32| Self::ahead(next, far).is_some_and(|known| known <= distance);
            self.far = Some(self.far.filter(|far| nearer(*far)).unwrap_or(id));
            self.miss(now, next);
            return Arrival::TooFar;
        }
        let room = room.min(RECEIVE_WINDOW_OCTETS.saturating_sub(self.held_octets));
        if distance > 0 && message.octets() > room {
            self.miss(now, next);
            return Arrival::NoRoom;
        }
        self.missing.remove(&id);
        self.hold(id, Some(message));
        for gap in 0..distance {
            let missing = (next + gap) % SEQUENCED;
            if !self.held.contains_key(&missing) {
                self.miss(now, missing);
            }
        }
        self.release();
        Arrival::Taken
    }

    /// Whether an id lies before the first one heard of a stream that we entered in the middle, and did not come yet.
    pub(crate) fn is_before(&self, id: u32) -> bool {
        let back = self.first.map_or(0, |first| first.wrapping_sub(id) % SEQUENCED);
        (1..=RECEIVE_WINDOW).contains(&back) && !self.before.contains(&id)
    }

    /// A stream we entered in the middle may have begun out of order: what came late is given late, once.
    fn behind(&mut self, id: u32, message: Received) -> Arrival {
        if !self.is_before(id) {
            return Arrival::Duplicate;
        }
        self.before.insert(id);
        self.released.push_back(Released::Message(message));
        Arrival::Taken
    }

    fn miss(&mut self, now: Instant, id: u32) {
        if self.missing.contains_key(&id) || self.held.contains_key(&id) {
            return;
        }
        if self.missing.len() < REQUESTS_AT_ONCE {
            self.requests.push_back(id);
        }
        let due = now + self.retries.interval;
        self.missing.insert(id, (due, self.retries.max));
        self.quiet_until = Some(self.quiet_until.map_or(due, |known| known.min(due)));
    }

    /// One that was missing when this was put into a store: it is asked for at once, and at least once.
    pub(crate) fn restore_missing(&mut self, now: Instant, id: u32, left: u32) {
        self.missing.insert(id, (now, left.max(1)));
        self.quiet_until = Some(now);
    }

    /// The sender has it no more.
    pub(crate) fn lost(&mut self, id: u32) {
        if self.missing.remove(&id).is_some() {
            self.hold(id, None);
            self.release();
        }
    }

    /// Nothing more will come: what is missing is lost, what is held is released.
    pub(crate) fn finish(&mut self) {
        for id in std::mem::take(&mut self.missing).into_keys() {
            self.hold(id, None);
        }
        self.requests.clear();
        self.release();
    }

    fn release(&mut self) {
        let Some(mut next) = self.next else { return };
        while let Some(slot) = self.held.remove(&next) {
            self.held_octets -= slot.as_ref().map_or(0, Received::octets);
            match (slot, self.released.back_mut()) {
                (Some(message), _) => self.released.push_back(Released::Message(message)),
                (None, Some(Released::Lost(_, last))) if (*last + 1) % SEQUENCED == next => *last = next,
                (None, _) => self.released.push_back(Released::Lost(next, next)),
            }
            next = (next + 1) % SEQUENCED;
        }
        // All that could be waited for is settled, and the stream goes on further ahead than we hold.
        if let Some(far) = self.far
            && self.missing.is_empty()
            && self.held.is_empty()
        {
            if Self::ahead(next, far).is_some_and(|distance| distance > 0) {
                self.released.push_back(Released::Lost(next, far.wrapping_sub(1) % SEQUENCED));
                next = far;
            }
            self.far = None;
        }
        self.next = Some(next);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| !self.missing.is_empty())
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<u32> = self.missing.iter().filter(|(_, (due, _))| *due <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some((due, left)) = self.missing.get_mut(&id) else { continue };
            if *left == 0 {
                self.lost(id);
            } else {
                *left -= 1;
                *due = now + self.retries.interval;
                self.requests.push_back(id);
            }
        }
        self.quiet_until = self.missing.values().map(|(due, _)| *due).min();
    }

    pub(crate) fn poll_request(&mut self) -> Option<u32> {
        self.requests.pop_front()
    }

    pub(crate) fn poll_released(&mut self) -> Option<Released> {
        self.released.pop_front()
    }
}
