//! The books: what was sent and what came, per (publisher, name), so that no message can be lost, doubled, swapped
//! or sent astray unseen.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::payload::mix;

/// A flow: what one publisher sends to one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) publisher: u32,
    pub(crate) name: u32,
}

/// What one side of a flow adds up to.
///
/// `sum` is the wrapping sum of a mixed sequence number: two sides with the same count but another sum have seen
/// different messages, so a loss cannot hide behind a duplicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Tally {
    /// Books one message.
    pub(crate) fn add(&mut self, sequence: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(mix(sequence ^ 0x6c65_6467_6572));
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// How one receiver has seen one flow: the next sequence it expects and which of the 64 before it came.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    next: u64,
    seen: u64,
    tally: Tally,
}

/// What a sequence number says about its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    Late,
    Twice,
}

impl Track {
    fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            let step = sequence - self.next + 1;
            self.seen = if step < 64 { self.seen << step } else { 0 };
            self.seen |= 1;
            self.next = sequence + 1;
            self.tally.add(sequence);
            return Arrival::InOrder;
        }
        let age = self.next - 1 - sequence;
        if age < 64 && self.seen >> age & 1 == 1 {
            return Arrival::Twice;
        }
        if age < 64 {
            self.seen |= 1 << age;
        }
        self.tally.add(sequence);
        Arrival::Late
    }
}

/// Faults one receiver, or the whole run, has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Faults {
    /// Sent, not received.
    pub(crate) lost: u64,
    /// Received more than once by the same receiver, or by more receivers than addressed.
    pub(crate) duplicated: u64,
    /// Received after a later one of the same flow.
    pub(crate) reordered: u64,
    /// Stamp or filler damaged, header MAC wrong, or a message that does not parse.
    pub(crate) corrupt: u64,
    /// Received by a connection that never asked for that name.
    pub(crate) misrouted: u64,
    /// Well-formed messages of another run.
    pub(crate) foreign: u64,
    /// Counts agree and contents do not: a loss and a duplicate that cancel.
    pub(crate) mismatched: u64,
}

impl Faults {
    /// Whether the run is clean.
    pub(crate) fn none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.misrouted += other.misrouted;
        self.foreign += other.foreign;
        self.mismatched += other.mismatched;
    }
}

/// Multiplies instead of hashing: flows are small dense numbers of our own.
#[derive(Default)]
pub(crate) struct FlowHasher(u64);

impl Hasher for FlowHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.write_u64(u64::from(octet));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0.rotate_left(31) ^ value);
    }
}

type FlowMap<V> = HashMap<Flow, V, BuildHasherDefault<FlowHasher>>;

/// The book of one receiving connection.
#[derive(Debug, Default)]
pub(crate) struct ReceiverBook {
    /// The flow of the previous message: most come in runs.
    last: Option<(Flow, Track)>,
    tracks: FlowMap<Track>,
    pub(crate) faults: Faults,
}

impl ReceiverBook {
    /// Books an arrival; false if this receiver already had it.
    pub(crate) fn arrive(&mut self, flow: Flow, sequence: u64) -> bool {
        let track = match &mut self.last {
            Some((last, track)) if *last == flow => track,
            last => {
                if let Some((old, track)) = last.take() {
                    self.tracks.insert(old, track);
                }
                let track = self.tracks.get(&flow).copied().unwrap_or_default();
                &mut last.insert((flow, track)).1
            }
        };
        match track.arrive(sequence) {
            Arrival::InOrder => true,
            Arrival::Late => {
                self.faults.reordered += 1;
                true
            }
            Arrival::Twice => {
                self.faults.duplicated += 1;
                false
            }
        }
    }
}

/// The book of the whole run, filled when it is over.
#[derive(Debug, Default)]
pub(crate) struct Books {
    sent: FlowMap<Tally>,
    received: FlowMap<Tally>,
    faults: Faults,
}

impl Books {
    /// Books what a publisher has sent on one flow.
    pub(crate) fn sent(&mut self, flow: Flow, tally: Tally) {
        self.sent.entry(flow).or_default().merge(tally);
    }

    /// Books what a receiver has seen.
    pub(crate) fn received(&mut self, mut book: ReceiverBook) {
        if let Some((flow, track)) = book.last.take() {
            book.tracks.insert(flow, track);
        }
        for (flow, track) in book.tracks {
            self.received.entry(flow).or_default().merge(track.tally);
        }
        self.faults.merge(&book.faults);
    }

    /// Balances: every message of a flow should have reached `copies` receivers.
    pub(crate) fn balance(self, copies: u64) -> Faults {
        let mut faults = self.faults;
        for (flow, sent) in &self.sent {
            let received = self.received.get(flow).copied().unwrap_or_default();
            let wanted = sent.count * copies;
            faults.lost += wanted.saturating_sub(received.count);
            faults.duplicated += received.count.saturating_sub(wanted);
            if received.count == wanted && received.sum != sent.sum.wrapping_mul(copies) {
                faults.mismatched += 1;
            }
        }
        // A flow nobody sent cannot pass the stamp's check; if one does, it is a fault of ours and must show.
        faults.misrouted +=
            self.received.iter().filter(|(flow, _)| !self.sent.contains_key(flow)).map(|(_, t)| t.count).sum::<u64>();
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow { publisher: 1, name: 2 };

    fn run(sent: u64, copies: u64, receivers: &[&[u64]]) -> Faults {
        let mut books = Books::default();
        let mut tally = Tally::default();
        (0..sent).for_each(|sequence| tally.add(sequence));
        books.sent(FLOW, tally);
        for sequences in receivers {
            let mut book = ReceiverBook::default();
            for &sequence in *sequences {
                book.arrive(FLOW, sequence);
            }
            books.received(book);
        }
        books.balance(copies)
    }

    /// Each row: how many were sent, to how many receivers each, what every receiver saw, what must be counted.
    #[test]
    #[rustfmt::skip]
    fn faults_are_told_apart() {
        let f = Faults::default();
        assert_eq!(run(4, 1, &[&[0, 1, 2, 3]]), f);
        assert_eq!(run(4, 1, &[&[0, 2], &[1, 3]]), f);                                            // anycast over two receivers
        assert_eq!(run(4, 2, &[&[0, 1, 2, 3], &[0, 1, 2, 3]]), f);                                // fan-out
        assert_eq!(run(4, 1, &[&[0, 1, 3]]), Faults { lost: 1, ..f });
        assert_eq!(run(4, 1, &[&[0, 1, 1, 2, 3]]), Faults { duplicated: 1, ..f });
        assert_eq!(run(4, 1, &[&[0, 2, 1, 3]]), Faults { reordered: 1, ..f });
        assert_eq!(run(4, 1, &[&[0, 1, 2, 3], &[2]]), Faults { duplicated: 1, ..f });             // anycast to one too many
        assert_eq!(run(4, 1, &[&[0, 1, 2], &[2]]), Faults { mismatched: 1, ..f });                // 3 lost, 2 twice: counts agree
        assert_eq!(run(0, 1, &[&[5]]), Faults { duplicated: 1, ..f });                            // nobody sent it
    }

    #[test]
    fn a_very_late_message_is_reordered_and_counted_once() {
        let sequences: Vec<u64> = (1..200).chain([0]).collect();
        assert_eq!(run(200, 1, &[&sequences]), Faults { reordered: 1, ..Faults::default() });
    }

    #[test]
    fn flows_are_kept_apart() {
        let mut book = ReceiverBook::default();
        for sequence in 0..10 {
            for name in 0..5 {
                assert!(book.arrive(Flow { publisher: 0, name }, sequence));
            }
        }
        assert!(!book.arrive(Flow { publisher: 0, name: 3 }, 9));
        assert_eq!(book.faults, Faults { duplicated: 1, ..Faults::default() });
    }
}
