//! The receiving half of a connection: every message is checked, booked and credited to its publisher.

use crate::client::Happening;
use crate::ledger::{Flow, ReceiverBook};
use crate::payload::{Damage, Kind, Stamp};
use crate::record::Recorder;
use crate::topology::Part;

/// Payloads above this have their filler compared one time in sixteen.
const FILLER_ALWAYS_OCTETS: usize = 1024;

/// The receiving side of a connection.
pub(crate) struct Receiver {
    pub(crate) part: Part,
    pub(crate) book: ReceiverBook,
    pub(crate) subscribed: u64,
    pub(crate) ready: bool,
    pub(crate) received: u64,
    /// Messages a responder or requester has to act on: after the octets are read.
    pub(crate) act: Vec<Stamp>,
}

/// What receivers of one thread add up.
pub(crate) struct Tallies {
    pub(crate) run: u32,
    pub(crate) delivered: u64,
    pub(crate) delivered_octets: u64,
    pub(crate) latencies: Recorder,
    pub(crate) measure_from_ns: u64,
    pub(crate) measure_to_ns: u64,
    /// Deliveries per publisher since the last hand-over.
    pub(crate) credits: Vec<u32>,
    pub(crate) touched: Vec<u32>,
    /// Replies and acknowledgements are acted upon, not credited.
    pub(crate) dialogue: bool,
}

impl Tallies {
    /// Of one run and so many publishers; in a `dialogue` replies are acted upon, not credited.
    pub(crate) fn new(run: u32, publishers: usize, dialogue: bool) -> Self {
        Self {
            run,
            delivered: 0,
            delivered_octets: 0,
            latencies: Recorder::default(),
            measure_from_ns: u64::MAX,
            measure_to_ns: u64::MAX,
            credits: vec![0; publishers],
            touched: Vec::new(),
            dialogue,
        }
    }
}

impl Receiver {
    /// Of a connection that has received nothing.
    pub(crate) fn new(part: Part) -> Self {
        Self { part, book: ReceiverBook::default(), subscribed: 0, ready: false, received: 0, act: Vec::new() }
    }

    /// Books one happening.
    #[inline]
    pub(crate) fn take(&mut self, tallies: &mut Tallies, happening: Happening<'_>, now_ns: u64) {
        let payload = match happening {
            Happening::Delivery { payload } => payload,
            Happening::Ready => return self.ready = true,
            Happening::Subscribed => return self.subscribed += 1,
            Happening::Damaged => return self.book.faults.corrupt += 1,
        };
        self.received += 1;
        let filler = payload.len() <= FILLER_ALWAYS_OCTETS || self.received.is_multiple_of(16);
        let stamp = match Stamp::read(payload, tallies.run, filler) {
            Ok(stamp) => stamp,
            Err(Damage::Corrupt) => return self.book.faults.corrupt += 1,
            Err(Damage::Foreign) => return self.book.faults.foreign += 1,
        };
        if !self.part.share.holds(stamp.name) {
            self.book.faults.misrouted += 1;
            return;
        }
        if !self.book.arrive(Flow { publisher: stamp.publisher, name: stamp.name }, stamp.sequence) {
            return;
        }
        if tallies.dialogue {
            self.act.push(stamp);
            if stamp.kind != Kind::Reply {
                return;
            }
        }
        tallies.delivered += 1;
        tallies.delivered_octets += payload.len() as u64;
        if (tallies.measure_from_ns..tallies.measure_to_ns).contains(&stamp.intended_ns) {
            tallies.latencies.record(now_ns.saturating_sub(stamp.intended_ns));
        }
        if let Some(credit) = tallies.credits.get_mut(stamp.publisher as usize) {
            if *credit == 0 {
                tallies.touched.push(stamp.publisher);
            }
            *credit += 1;
        }
    }
}
