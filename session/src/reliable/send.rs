//! What was said and is not settled: kept, repeated, given up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::{Delivery, Outcome, PublishId, ReceiveWindow, Retries, SEND_WINDOW, SEND_WINDOW_OCTETS, SEQUENCED};
use crate::message::metadata_octets;
use crate::name::Name;

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
    pub(super) octets: usize,
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
