//! Reliability: what was sent and who has it; what arrived and what is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::message::{Received, metadata_octets};
use crate::name::Name;

/// Messages kept for retransmission, as the reference keeps.
pub const SEND_WINDOW: usize = 512;
/// Octets of them, metadata included. Those that are settled are forgotten before a publisher has to wait.
pub const SEND_WINDOW_OCTETS: usize = 16 << 20;
/// How far ahead of a gap messages are held: the sender keeps no more.
pub const RECEIVE_WINDOW: u32 = 512;
/// Octets held ahead of gaps in one stream: a sender like us keeps no more.
pub const RECEIVE_WINDOW_OCTETS: usize = SEND_WINDOW_OCTETS;
/// Octets held ahead of gaps in all streams of a session. Beyond either bound only what comes next in its stream is taken;
/// everything else is not acknowledged, and comes again.
pub const HELD_OCTETS_MAX: usize = 64 << 20;
/// Missing messages asked for at once; the others wait an interval.
const REQUESTS_AT_ONCE: usize = 64;
/// Sequenced ids lie below; ids of `publish_to` above.
pub(crate) const SEQUENCED: u32 = 1 << 31;
/// Up to this distance an id lies ahead, further it lies behind.
const AHEAD: u32 = 1 << 30;

/// How often, and how many times, something is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Time between two sends.
    pub interval: Duration,
    /// Sends after the first.
    pub max: u32,
}

impl Retries {
    /// How long until it is given up.
    #[must_use]
    pub fn give_up_after(self) -> Duration {
        self.interval * (self.max + 1)
    }
}

/// Names one publish; its outcome comes as an event with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishId(pub u64);

/// What became of a publish at one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It acknowledged.
    Delivered,
    /// It did not, after all retries.
    TimedOut,
    /// It went offline or left meanwhile.
    Gone,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// One line per recipient; empty in sessions that are not reliable.
    pub recipients: Vec<(Name, Outcome)>,
}

impl Delivery {
    /// Whether every recipient acknowledged (also true when no acknowledgement was asked for).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.recipients.iter().all(|(_, outcome)| *outcome == Outcome::Delivered)
    }
}

/// A published message, in plain text: each send encrypts it anew.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: u32,
    pub(crate) payload_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// For one member alone.
    pub(crate) to: Option<Name>,
    pub(crate) publish: PublishId,
    pub(crate) waiting: BTreeSet<Name>,
    pub(crate) outcomes: Vec<(Name, Outcome)>,
    pub(crate) due: Option<Instant>,
    pub(crate) left: u32,
}

impl Stored {
    fn octets(&self) -> usize {
        self.payload.len() + metadata_octets(&self.metadata)
    }
}

/// What the window wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Send it again to these.
    Resend(u32, Vec<Name>),
    /// These never acknowledged.
    GaveUp(Vec<Name>),
}

/// The last messages sent, and who has yet to acknowledge them.
#[derive(Debug)]
pub(crate) struct SendWindow {
    retries: Option<Retries>,
    stored: VecDeque<Stored>,
    octets: usize,
    next: u32,
    done: VecDeque<(PublishId, Delivery)>,
    timers: BTreeSet<(Instant, u32)>,
    /// How far each member came with its acknowledgements, and when the latest arrived.
    heard: BTreeMap<Name, (u32, Instant)>,
}

impl SendWindow {
    pub(crate) fn new(retries: Option<Retries>) -> Self {
        Self::restored(retries, VecDeque::new(), 1)
    }

    /// A window as it was, from a store.
    pub(crate) fn restored(retries: Option<Retries>, stored: VecDeque<Stored>, next: u32) -> Self {
        let timers = stored.iter().filter_map(|stored| Some((stored.due?, stored.id))).collect();
        let octets = stored.iter().map(Stored::octets).sum();
        Self { retries, stored, octets, next, done: VecDeque::new(), timers, heard: BTreeMap::new() }
    }

    pub(crate) fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.stored.iter()
    }

    /// The id that [`SendWindow::take_id`] gives next.
    pub(crate) fn next_id(&self) -> u32 {
        self.next
    }

    /// Messages that await an acknowledgement.
    pub(crate) fn in_flight(&self) -> usize {
        self.timers.len()
    }

    /// Whether one more of that size fits: the oldest messages must be done before they are forgotten for it.
    pub(crate) fn has_room(&self, octets: usize) -> bool {
        let mut kept = (self.stored.len(), self.octets);
        let mut done = self.stored.iter().take_while(|stored| stored.due.is_none());
        while !Self::fits(kept, octets) {
            let Some(oldest) = done.next() else { return false };
            kept = (kept.0 - 1, kept.1 - oldest.octets());
        }
        true
    }

    fn fits((messages, octets): (usize, usize), more: usize) -> bool {
        messages < SEND_WINDOW && (octets + more <= SEND_WINDOW_OCTETS || messages == 0)
    }

    /// The stream begins with that id.
    pub(crate) fn begin(&mut self, first: u32) {
        self.next = first % SEQUENCED;
    }

    /// The id the next sequenced message will have.
    pub(crate) fn upcoming(&self) -> u32 {
        self.next
    }

    /// The id of the next sequenced message.
    pub(crate) fn take_id(&mut self) -> u32 {
        let id = self.next;
        self.next = (self.next + 1) % SEQUENCED;
        id
    }

    /// The id that was taken last was not used: the next message has it, so that nobody waits for one that never was.
    pub(crate) fn give_back(&mut self, id: u32) {
        self.next = id;
    }

    #[allow(clippy::too_many_arguments)] // one message, field by field
    pub(crate) fn store(
        &mut self,
        now: Instant,
        publish: PublishId,
        id: u32,
        payload_type: String,
        payload: Vec<u8>,
        metadata: BTreeMap<String, String>,
        to: Option<Name>,
        recipients: BTreeSet<Name>,
    ) {
        let Some(retries) = self.retries else {
            self.done.push_back((publish, Delivery { recipients: Vec::new() }));
            return;
        };
        let octets = payload.len() + metadata_octets(&metadata);
        while !Self::fits((self.stored.len(), self.octets), octets)
            && let Some(oldest) = self.stored.pop_front()
        {
            self.octets -= oldest.octets();
        }
        self.octets += octets;
        let due = now + retries.interval;
        self.timers.insert((due, id));
        self.stored.push_back(Stored {
            id,
            payload_type,
            payload,
            metadata,
            to,
            publish,
            waiting: recipients,
            outcomes: Vec::new(),
            due: Some(due),
            left: retries.max,
        });
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Stored> {
        self.stored.iter().rev().find(|stored| stored.id == id)
    }

    /// Whether it was waited for.
    fn settle(&mut self, id: u32, who: &Name, outcome: Outcome) -> bool {
        let Some(stored) = self.stored.iter_mut().find(|stored| stored.id == id) else { return false };
        let waited = stored.waiting.remove(who);
        if waited {
            stored.outcomes.push((who.clone(), outcome));
            if stored.waiting.is_empty()
                && let Some(due) = stored.due.take()
            {
                self.timers.remove(&(due, id));
                self.done.push_back((stored.publish, Delivery { recipients: std::mem::take(&mut stored.outcomes) }));
            }
        }
        waited
    }

    pub(crate) fn acknowledged(&mut self, now: Instant, id: u32, by: &Name) {
        if self.settle(id, by, Outcome::Delivered) && id < SEQUENCED {
            let (furthest, at) = self.heard.entry(by.clone()).or_insert((id, now));
            *at = now;
            if ReceiveWindow::ahead(*furthest, id).is_some() {
                *furthest = id;
            }
        }
    }

    /// Whether that member is on its way to that message: it acknowledged others lately, and none sent after it. What comes
    /// again meanwhile makes it slower still; and if the message was lost, one sent after it tells.
    fn is_coming(&self, now: Instant, id: u32, who: &Name, interval: Duration) -> bool {
        let heard = self.heard.get(who).filter(|(_, at)| id < SEQUENCED && now.duration_since(*at) < interval);
        heard.is_some_and(|(furthest, _)| ReceiveWindow::ahead(*furthest, id).is_some_and(|distance| distance > 0))
    }

    /// Nothing more is expected of that member.
    pub(crate) fn gone(&mut self, who: &Name) {
        let ids: Vec<u32> = self.stored.iter().filter(|stored| stored.due.is_some()).map(|stored| stored.id).collect();
        for id in ids {
            self.settle(id, who, Outcome::Gone);
        }
        self.heard.remove(who);
    }

    /// What was said before that id counts for nobody any more.
    pub(crate) fn gone_before(&mut self, first: u32) {
        let waiting = self.stored.iter().filter(|stored| stored.due.is_some() && stored.id < SEQUENCED);
        let before = waiting.filter(|stored| ReceiveWindow::ahead(first, stored.id).is_none());
        let before: Vec<(u32, Vec<Name>)> =
            before.map(|stored| (stored.id, stored.waiting.iter().cloned().collect())).collect();
        for (id, waiting) in before {
            for who in waiting {
                self.settle(id, &who, Outcome::Gone);
            }
        }
    }

    /// The session ended: whoever did not acknowledge will not.
    pub(crate) fn end(&mut self) {
        let waiting: BTreeSet<Name> = self.stored.iter().flat_map(|stored| stored.waiting.iter().cloned()).collect();
        for who in waiting {
            self.gone(&who);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes one timer that ran out.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Expired> {
        let &(due, id) = self.timers.first().filter(|(due, _)| *due <= now)?;
        let retries = self.retries?;
        self.timers.pop_first();
        let stored = self.stored.iter_mut().find(|stored| stored.id == id)?;
        let waiting: Vec<Name> = stored.waiting.iter().cloned().collect();
        if stored.left > 0 {
            stored.left -= 1;
            let again = (due + retries.interval).max(now);
            stored.due = Some(again);
            self.timers.insert((again, id));
            let silent = waiting.into_iter().filter(|who| !self.is_coming(now, id, who, retries.interval));
            return Some(Expired::Resend(id, silent.collect()));
        }
        for who in &waiting {
            self.settle(id, who, Outcome::TimedOut);
        }
        Some(Expired::GaveUp(waiting))
    }

    pub(crate) fn poll_done(&mut self) -> Option<(PublishId, Delivery)> {
        self.done.pop_front()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: Retries = Retries { interval: Duration::from_secs(1), max: 2 };

    fn name(text: &str) -> Name {
        format!("a/b/{text}").parse().unwrap()
    }

    fn message(n: u32) -> Received {
        Received {
            source: name("s"),
            destination: name("d"),
            subject: None,
            payload_type: "msg".into(),
            payload: n.to_string().into(),
            metadata: BTreeMap::new(),
            to_us_alone: false,
        }
    }

    /// Feeds ids and shows what comes out: `3` a message, `!4-6` a loss, `?2` a request.
    fn feed(window: &mut ReceiveWindow, now: Instant, ids: &[u32]) -> String {
        for id in ids {
            window.receive(now, *id, message(*id), usize::MAX);
        }
        drain(window)
    }

    fn drain(window: &mut ReceiveWindow) -> String {
        let mut out = Vec::new();
        while let Some(id) = window.poll_request() {
            out.push(format!("?{id}"));
        }
        while let Some(released) = window.poll_released() {
            out.push(match released {
                Released::Message(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
                Released::Lost(first, last) => format!("!{first}-{last}"),
            });
        }
        out.join(" ")
    }

    #[test]
    fn order_is_restored() {
        let now = Instant::now();
        let window = || ReceiveWindow::new(RETRIES, Some(1));
        assert_eq!(feed(&mut window(), now, &[1, 2, 3]), "1 2 3");
        assert_eq!(feed(&mut window(), now, &[3, 1, 2]), "?1 ?2 1 2 3");
        assert_eq!(feed(&mut window(), now, &[1, 1, 2, 2, 1]), "1 2");
        assert_eq!(feed(&mut window(), now, &[2, 2]), "?1");
        let mut joined_late = ReceiveWindow::new(RETRIES, None);
        assert_eq!(feed(&mut joined_late, now, &[7, 9, 6, 6, 8]), "?8 7 6 8 9");
        let mut wrapping = ReceiveWindow::new(RETRIES, Some(SEQUENCED - 1));
        assert_eq!(feed(&mut wrapping, now, &[SEQUENCED - 1, 0, 1]), "2147483647 0 1");
    }

    #[test]
    fn what_does_not_come_is_reported() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(RETRIES, Some(1));
        assert_eq!(feed(&mut window, start, &[4]), "?1 ?2 ?3");
        for second in 1..=2 {
            assert_eq!(window.next_timeout(), Some(start + Duration::from_secs(second)));
            window.handle_timeout(start + Duration::from_secs(second));
            assert_eq!(drain(&mut window), "?1 ?2 ?3");
        }
        window.lost(2); // the sender said so
        assert_eq!(drain(&mut window), "");
        window.handle_timeout(start + Duration::from_secs(3));
        assert_eq!(drain(&mut window), "!1-3 4");
        assert_eq!(window.next_timeout(), None);
    }

    #[test]
    fn a_message_far_ahead_costs_little() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(RETRIES, Some(1));
        assert_eq!(window.receive(start, 20_000, message(20_000), usize::MAX), Arrival::TooFar);
        assert_eq!(drain(&mut window), "?1");
        assert_eq!(window.receive(start, 512, message(512), usize::MAX), Arrival::Taken);
        assert!(drain(&mut window).split(' ').count() < REQUESTS_AT_ONCE);
        for second in 1..=3 {
            window.handle_timeout(start + Duration::from_secs(second));
        }
        let out = drain(&mut window);
        assert!(out.ends_with("!1-511 512 !513-19999"), "{out}");
        assert_eq!(feed(&mut window, start, &[20_000]), "20000");
    }

    /// The nearest is the nearest over the end of the numbers too: what lies between is not lost.
    #[test]
    fn far_ahead_where_ids_wrap() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(RETRIES, Some(SEQUENCED - 1000));
        for far in [5, SEQUENCED - 100, 7] {
            assert_eq!(window.receive(start, far, message(far), usize::MAX), Arrival::TooFar);
        }
        for second in 1..=3 {
            window.handle_timeout(start + Duration::from_secs(second));
        }
        let out = drain(&mut window);
        assert!(out.ends_with(&format!("-{}", SEQUENCED - 101)), "{out}");
        assert_eq!(window.next, Some(SEQUENCED - 100));
    }

    #[test]
    fn acknowledged_or_not() {
        let start = Instant::now();
        let (x, y) = (name("x"), name("y"));
        let mut window = SendWindow::new(Some(RETRIES));
        let id = window.take_id();
        let both = BTreeSet::from([x.clone(), y.clone()]);
        window.store(start, PublishId(9), id, "msg".into(), vec![1], BTreeMap::new(), None, both);
        window.acknowledged(start, id, &x);
        assert_eq!(window.poll_done(), None);
        for second in 1..=2 {
            let again = window.expire(start + Duration::from_secs(second));
            assert_eq!(again, Some(Expired::Resend(id, vec![y.clone()])));
            assert_eq!(window.expire(start + Duration::from_secs(second)), None);
        }
        assert_eq!(window.expire(start + Duration::from_secs(3)), Some(Expired::GaveUp(vec![y.clone()])));
        let delivery = window.poll_done().unwrap().1;
        assert_eq!(delivery.recipients, [(x, Outcome::Delivered), (y, Outcome::TimedOut)]);
        assert!(!delivery.is_complete());
        assert!(window.get(id).is_some(), "kept for whoever asks");
        assert_eq!(window.next_timeout(), None);
    }

    /// Whoever is on its way to a message gets it again only when it stops, or has acknowledged one that came after it.
    #[test]
    fn nobody_is_hurried() {
        let (start, x, y) = (Instant::now(), name("x"), name("y"));
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let mut window = SendWindow::new(Some(RETRIES));
        for n in 1..=4 {
            let both = BTreeSet::from([x.clone(), y.clone()]);
            let (id, to) = (window.take_id(), None);
            window.store(start, PublishId(n), id, "msg".into(), vec![1], BTreeMap::new(), to, both);
        }
        let alone = BTreeSet::from([x.clone()]);
        let to = Some(x.clone());
        window.store(start, PublishId(5), SEQUENCED + 7, "msg".into(), vec![1], BTreeMap::new(), to, alone);
        window.acknowledged(at(5), 1, &x);
        window.acknowledged(at(6), 3, &x);
        let expire = |window: &mut SendWindow, tenths| {
            let again = std::iter::from_fn(|| window.expire(at(tenths)));
            again
                .map(|again| if let Expired::Resend(id, who) = again { (id, who) } else { panic!("{again:?}") })
                .collect()
        };
        let both = vec![x.clone(), y.clone()];
        let expected = [
            (1, vec![y.clone()]),
            (2, both.clone()),
            (3, vec![y.clone()]),
            (4, vec![y.clone()]),
            (SEQUENCED + 7, vec![x.clone()]),
        ];
        let again: Vec<(u32, Vec<Name>)> = expire(&mut window, 10);
        assert_eq!(again, expected, "4 is on its way to x; one to x alone has no order");
        window.acknowledged(at(11), 1, &x); // again: it says nothing new
        let again: Vec<(u32, Vec<Name>)> = expire(&mut window, 20);
        assert_eq!(again.iter().find(|(id, _)| *id == 4), Some(&(4, both)), "x stopped");
    }

    #[test]
    fn a_full_window_says_so() {
        let now = Instant::now();
        let x = name("x");
        let mut window = SendWindow::new(Some(RETRIES));
        for n in 0..512 {
            assert!(window.has_room(0));
            let id = window.take_id();
            window.store(
                now,
                PublishId(n),
                id,
                String::new(),
                vec![],
                BTreeMap::new(),
                None,
                BTreeSet::from([x.clone()]),
            );
        }
        assert!(!window.has_room(0));
        window.acknowledged(now, 2, &x);
        assert!(!window.has_room(0), "the oldest still waits");
        window.acknowledged(now, 1, &x);
        assert!(window.has_room(0));
    }
    #[test]
    fn a_window_full_of_octets_says_so() {
        let now = Instant::now();
        let x = name("x");
        let mut window = SendWindow::new(Some(RETRIES));
        let store = |window: &mut SendWindow, octets: usize| {
            let (id, to) = (window.take_id(), BTreeSet::from([x.clone()]));
            window.store(now, PublishId(u64::from(id)), id, "msg".into(), vec![0; octets], BTreeMap::new(), None, to);
        };
        for _ in 0..15 {
            assert!(window.has_room(1 << 20));
            store(&mut window, 1 << 20);
        }
        assert!(window.has_room(1 << 20) && !window.has_room((1 << 20) + 1));
        window.acknowledged(now, 1, &name("x"));
        window.acknowledged(now, 2, &name("x"));
        assert!(window.has_room(3 << 20) && !window.has_room((3 << 20) + 1), "settled ones make room, in order");
        assert!(window.get(1).is_some(), "and are kept until it is needed");
        store(&mut window, 3 << 20);
        assert_eq!((window.get(1).is_some(), window.get(2).is_some(), window.get(3).is_some()), (false, false, true));
        assert_eq!(window.octets, SEND_WINDOW_OCTETS);
        assert!(!window.has_room(1));
    }

    #[test]
    fn what_is_held_has_a_bound_in_octets() {
        let now = Instant::now();
        let large = |n: u32| Received { payload: vec![0; 5 << 20].into(), ..message(n) };
        let mut window = ReceiveWindow::new(RETRIES, Some(1));
        for id in 2..=4 {
            assert_eq!(window.receive(now, id, large(id), usize::MAX), Arrival::Taken);
        }
        assert_eq!(window.receive(now, 5, large(5), usize::MAX), Arrival::NoRoom);
        assert_eq!(window.receive(now, 6, message(6), 0), Arrival::NoRoom, "other streams hold too much");
        assert_eq!(window.receive(now, 4, large(4), 0), Arrival::Duplicate);
        assert!(window.held_octets() <= RECEIVE_WINDOW_OCTETS);
        assert_eq!(window.receive(now, 1, large(1), 0), Arrival::Taken, "what comes next needs no room");
        assert_eq!(window.held_octets(), 0);
        let released = std::iter::from_fn(|| window.poll_released()).count();
        assert_eq!(released, 4);
        assert_eq!(window.receive(now, 5, large(5), 0), Arrival::Taken);
    }
}
