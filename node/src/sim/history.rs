//! What clients did and saw, in the order it happened, and what must hold for every such history.
//!
//! Time here is the count of the simulation's steps. A subscription *must* count for a publish begun after its ack, and
//! *may* count from when it was sent until its unsubscribe is acknowledged; the same the other way round. So:
//!
//! - every copy a client gets was published, by somebody else, to a name it may have been subscribed to;
//! - it comes once, in the order of its publisher (unless it was for one, who left while it was on its way), and with every
//!   octet right, the header's MAC for this link among them;
//! - whoever must get a copy has it when everything has come to rest, unless the node counted a copy it dropped for that
//!   client, or one of the two had left.

use super::channel::{Kind, Target};
use slimline_wire::link::{HeaderMac, HopFields};
use slimline_wire::message::{MacOut, MessageView, NameParts, parse, rewrite};
use slimline_wire::{ConnType, Name, NameId};
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// A client's connection, numbered in the order they were opened.
pub(super) type Conn = usize;

/// A count of steps.
pub(super) type Tick = u64;

#[derive(Default)]
pub(super) struct History {
    pub(super) now: Tick,
    is_full_mesh: bool,
    conns: Vec<ConnFacts>,
    subscriptions: Vec<Subscription>,
    publishes: Vec<Publish>,
    /// Requests to subscribe, and to take that back.
    pub(super) subscribes: u64,
    pub(super) unsubscribes: u64,
}

#[derive(Default)]
struct ConnFacts {
    is_peer: bool,
    /// It left, or said that it will: nothing is owed to it.
    ended: Option<Tick>,
    /// It left without waiting for what it had sent to be read: nothing is owed to those it published for.
    is_cut_off: bool,
    /// The last publish that came, of each publisher.
    last: BTreeMap<Conn, usize>,
    acks_due: VecDeque<AckDue>,
    /// Its subscriptions.
    subscriptions: Vec<usize>,
}

struct AckDue {
    subscription_id: u64,
    what: Asked,
}

enum Asked {
    Subscribe(usize),
    Unsubscribe(usize),
    /// To unsubscribe from what it never subscribed to.
    Nonsense,
}

struct Subscription {
    target: Target,
    name: Name,
    id: u64,
    sent: Tick,
    /// Known to hold everywhere since.
    known: Option<Tick>,
    unsubscribe_sent: Option<Tick>,
    unsubscribe_known: Option<Tick>,
}

struct Publish {
    by: Conn,
    name: Name,
    fanout: u32,
    begun: Tick,
    message: Vec<u8>,
    /// Sent with a MAC that is wrong: nobody may get it.
    is_spoiled: bool,
    /// Who got it.
    copies: Vec<Conn>,
}

/// What a whole history amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) publishes: u64,
    pub(super) copies: u64,
    pub(super) acks: u64,
    /// Copies the node counted as dropped.
    pub(super) missing: u64,
}

impl Summary {
    pub(super) fn add(&mut self, other: Self) {
        self.publishes += other.publishes;
        self.copies += other.copies;
        self.acks += other.acks;
        self.missing += other.missing;
    }
}

impl History {
    /// Of a node that passes nothing from Peer to Peer, if `is_full_mesh`.
    pub(super) fn new(is_full_mesh: bool) -> Self {
        Self { is_full_mesh, ..Self::default() }
    }

    /// A new connection.
    pub(super) fn opened(&mut self, kind: Kind) -> Conn {
        self.conns.push(ConnFacts { is_peer: kind.conn_type == ConnType::Peer, ..ConnFacts::default() });
        self.conns.len() - 1
    }

    /// A connection is about to end in good order: what it published is still owed to others.
    pub(super) fn ended(&mut self, conn: Conn) {
        tracing::debug!(tick = self.now, conn, "ended");
        self.conns[conn].ended.get_or_insert(self.now);
    }

    /// A connection ended, and nobody can say what of its publishes was read.
    pub(super) fn cut_off(&mut self, conn: Conn) {
        tracing::debug!(tick = self.now, conn, "cut off");
        self.ended(conn);
        self.conns[conn].is_cut_off = true;
    }

    /// `conn` asks for a name. Id 0 asks for no ack.
    pub(super) fn subscribe(&mut self, conn: Conn, target: Target, id: u64) {
        tracing::debug!(tick = self.now, conn, ?target, id, "subscribe");
        let name = NameParts::of(target.0, target.1).name;
        let index = self.subscriptions.len();
        let (sent, known, unsubscribe_sent, unsubscribe_known) = (self.now, None, None, None);
        self.subscriptions.push(Subscription { target, name, id, sent, known, unsubscribe_sent, unsubscribe_known });
        self.conns[conn].subscriptions.push(index);
        self.ack_due(conn, id, Asked::Subscribe(index));
    }

    /// `conn` takes back one of [`History::subscribed_by`].
    pub(super) fn unsubscribe(&mut self, conn: Conn, index: usize) -> (Target, u64) {
        tracing::debug!(tick = self.now, conn, index, "unsubscribe");
        self.subscriptions[index].unsubscribe_sent = Some(self.now);
        let Subscription { target, id, .. } = self.subscriptions[index];
        self.ack_due(conn, id, Asked::Unsubscribe(index));
        (target, id)
    }

    /// `conn` takes back what it never asked for.
    pub(super) fn unsubscribe_nonsense(&mut self, conn: Conn, id: u64) {
        self.ack_due(conn, id, Asked::Nonsense);
    }

    fn ack_due(&mut self, conn: Conn, subscription_id: u64, what: Asked) {
        match what {
            Asked::Subscribe(_) => self.subscribes += 1,
            Asked::Unsubscribe(_) | Asked::Nonsense => self.unsubscribes += 1,
        }
        if subscription_id != 0 {
            self.conns[conn].acks_due.push_back(AckDue { subscription_id, what });
        }
    }

    /// Whether `conn` asked for `target` with id 0.
    pub(super) fn is_quiet_about(&self, conn: Conn, target: Target) -> bool {
        let own = self.conns[conn].subscriptions.iter().map(|&index| &self.subscriptions[index]);
        own.clone().any(|subscription| subscription.target == target && subscription.id == 0)
    }

    /// Subscriptions with an id that `conn` has not taken back.
    pub(super) fn subscribed_by(&self, conn: Conn) -> Vec<usize> {
        let own = self.conns[conn].subscriptions.iter().copied();
        own.filter(|&index| {
            let subscription = &self.subscriptions[index];
            subscription.unsubscribe_sent.is_none() && subscription.id != 0
        })
        .collect()
    }

    /// An ack came.
    pub(super) fn acked(&mut self, conn: Conn, subscription_id: u64, success: bool, error: &str) {
        tracing::debug!(tick = self.now, conn, subscription_id, success, "acked");
        let due = self.conns[conn].acks_due.pop_front();
        let Some(AckDue { subscription_id: expected, what }) = due else {
            panic!("an ack for {subscription_id} that connection {conn} is not waiting for")
        };
        assert_eq!(subscription_id, expected, "acks come in the order of the requests (connection {conn})");
        let should_succeed = !matches!(what, Asked::Nonsense);
        assert_eq!(success, should_succeed, "ack of connection {conn} for {subscription_id}: {error:?}");
        match what {
            Asked::Subscribe(index) => self.subscriptions[index].known.get_or_insert(self.now),
            Asked::Unsubscribe(index) => self.subscriptions[index].unsubscribe_known.get_or_insert(self.now),
            Asked::Nonsense => return,
        };
    }

    /// The index the next publish will have; it is the last thing in the payload.
    pub(super) fn next_publish(&self) -> usize {
        self.publishes.len()
    }

    /// `by` begins to send `message`, as it will be on the wire.
    pub(super) fn publish(&mut self, by: Conn, message: Vec<u8>, is_spoiled: bool) {
        let Ok(MessageView::Publish(view)) = parse(&message) else { panic!("not a publish") };
        let (name, fanout) = (view.header.destination.name, view.header.fanout);
        let index = self.publishes.len();
        tracing::debug!(tick = self.now, by, index, ?name, fanout, octets = message.len(), "publish");
        self.publishes.push(Publish { by, name, fanout, begun: self.now, message, is_spoiled, copies: Vec::new() });
    }

    /// `to` got a message that is a publish.
    pub(super) fn delivered(&mut self, to: Conn, message: &[u8], mac: Option<&mut HeaderMac>) {
        tracing::debug!(tick = self.now, to, octets = message.len(), "delivered");
        let tail: [u8; 4] = message[message.len() - 4..].try_into().expect("four octets");
        let index = u32::from_be_bytes(tail) as usize;
        assert!(index < self.publishes.len(), "connection {to} got something nobody published");
        let publish = &self.publishes[index];
        let (by, name) = (publish.by, publish.name);
        assert_ne!(by, to, "publish {index} came back to its publisher");
        assert!(!publish.is_spoiled, "publish {index} with a wrong MAC was forwarded");
        assert!(
            self.may_get(to, publish),
            "connection {to} got publish {index} to {name:?}, which it had not asked for"
        );
        let last = self.conns[to].last.get(&by).copied();
        let is_in_order = last.is_none_or(|last| last < index);
        assert!(
            is_in_order || self.is_second_choice(publish),
            "connection {to} got publish {index} of {by} after {last:?}"
        );
        if publish.fanout == 1 {
            assert!(publish.copies.is_empty(), "publish {index} for one went to {:?} and {to}", publish.copies);
        }
        check_octets(index, &publish.message, message, mac);
        if is_in_order {
            self.conns[to].last.insert(by, index);
        }
        self.publishes[index].copies.push(to);
        self.settles(by, self.publishes[index].begun);
    }

    /// Whether a publish for one may have gone to somebody who then left, and from there to another, later than what came
    /// behind it.
    fn is_second_choice(&self, publish: &Publish) -> bool {
        let has_left = |conn: Conn| self.conns[conn].ended.is_some();
        publish.fanout == 1
            && publish.copies.is_empty()
            && (0..self.conns.len()).any(|conn| has_left(conn) && self.may_get(conn, publish))
    }

    /// Something `by` published at `begun` was forwarded: what it asked for before that holds everywhere by now.
    fn settles(&mut self, by: Conn, begun: Tick) {
        for &index in &self.conns[by].subscriptions {
            let subscription = &mut self.subscriptions[index];
            if subscription.sent < begun {
                subscription.known.get_or_insert(self.now);
            }
            if subscription.unsubscribe_sent.is_some_and(|sent| sent < begun) {
                subscription.unsubscribe_known.get_or_insert(self.now);
            }
        }
    }

    /// Whether the kinds of the two keep a message from passing (slim-wire §6.3).
    fn is_apart(&self, by: Conn, to: Conn) -> bool {
        self.is_full_mesh && self.conns[by].is_peer && self.conns[to].is_peer
    }

    fn may_get(&self, conn: Conn, publish: &Publish) -> bool {
        !self.is_apart(publish.by, conn)
            && self.conns[conn].subscriptions.iter().map(|&index| &self.subscriptions[index]).any(|subscription| {
                asks_for(subscription.name, publish.name)
                    && subscription.unsubscribe_known.is_none_or(|known| known > publish.begun)
            })
    }

    /// Whether nothing excuses that `conn` has no copy, a counted drop aside.
    fn must_get(&self, conn: Conn, publish: &Publish) -> bool {
        conn != publish.by
            && !self.is_apart(publish.by, conn)
            && self.conns[conn].ended.is_none()
            && self.conns[conn].subscriptions.iter().map(|&index| &self.subscriptions[index]).any(|subscription| {
                asks_for(subscription.name, publish.name)
                    && subscription.known.is_some_and(|known| known < publish.begun)
                    && subscription.unsubscribe_sent.is_none()
            })
    }

    /// Acks `conn` waits for.
    pub(super) fn acks_due(&self, conn: Conn) -> usize {
        self.conns[conn].acks_due.len()
    }

    /// Whether nothing was published for more than one.
    pub(super) fn is_all_for_one(&self) -> bool {
        self.publishes.iter().all(|publish| publish.fanout == 1)
    }

    /// Copies that came, of all publishes.
    pub(super) fn copies(&self) -> u64 {
        self.publishes.iter().map(|publish| publish.copies.len() as u64).sum()
    }

    /// Remembers the last publish other than it was: to see the check fail.
    pub(super) fn falsify_last(&mut self) {
        let publish = self.publishes.last_mut().expect("a publish");
        let at = publish.message.len() - 10;
        publish.message[at] ^= 1;
    }

    /// Remembers a copy that never came: to see the check fail.
    pub(super) fn pretend_delivered(&mut self, to: Conn, by: Conn, index: usize) {
        self.conns[to].last.insert(by, index);
    }

    /// Everything has come to rest: whoever must have a copy has it, or `dropped` says for how many copies of a
    /// connection the node says otherwise. Acks are all there.
    pub(super) fn check_complete(&self, dropped: impl Fn(Conn) -> u64) -> Summary {
        let mut spare: Vec<u64> = (0..self.conns.len()).map(&dropped).collect();
        let mut summary = Summary::default();
        for (index, publish) in self.publishes.iter().enumerate() {
            summary.publishes += 1;
            summary.copies += publish.copies.len() as u64;
            if self.conns[publish.by].is_cut_off || publish.is_spoiled || publish.fanout == 1 {
                continue;
            }
            for conn in (0..self.conns.len()).filter(|&conn| self.must_get(conn, publish)) {
                if !publish.copies.contains(&conn) {
                    summary.missing += 1;
                    assert!(spare[conn] > 0, "publish {index} of {} never came to connection {conn}", publish.by);
                    spare[conn] -= 1;
                }
            }
        }
        let mut spare: u64 = spare.iter().sum();
        for (index, publish) in self.publishes.iter().enumerate().filter(|(_, publish)| publish.fanout == 1) {
            let is_owed = !self.conns[publish.by].is_cut_off && !publish.is_spoiled;
            if !is_owed || !publish.copies.is_empty() {
                continue;
            }
            let is_missed = (0..self.conns.len()).any(|conn| self.must_get(conn, publish));
            // The one it was given to may have left, or left the name, with it.
            let has_left = |conn: Conn| self.conns[conn].ended.is_some();
            let is_excused = (0..self.conns.len()).any(|conn| has_left(conn) && self.may_get(conn, publish));
            if is_missed && !is_excused {
                summary.missing += 1;
                assert!(spare > 0, "publish {index} of {} for one came to nobody", publish.by);
                spare -= 1;
            }
        }
        for (conn, facts) in self.conns.iter().enumerate().filter(|(_, facts)| facts.ended.is_none()) {
            let due: Vec<u64> = facts.acks_due.iter().map(|due| due.subscription_id).collect();
            assert!(due.is_empty(), "acks {due:?} never came to connection {conn}");
        }
        summary.acks = self.subscriptions.iter().filter(|subscription| subscription.known.is_some()).count() as u64;
        summary
    }
}

/// Whether a subscription to `wanted` is reached by a publish to `to` (slim-wire §6.2).
fn asks_for(wanted: Name, to: Name) -> bool {
    wanted.prefix == to.prefix && (to.id == NameId::ANY || wanted.id == to.id)
}

/// The octets a hop must make of a message, and that it did; `mac` where the link it leaves by is signed.
fn check_octets(index: usize, sent: &[u8], got: &[u8], mac: Option<&mut HeaderMac>) {
    let Ok(MessageView::Publish(publish)) = parse(sent) else { panic!("not a publish") };
    let header = &publish.header;
    let ttl = header.ttl - 1;
    let tag = mac.map(|mac| mac.tag(header, ttl, HopFields::Cleared));
    let mut expected = Vec::new();
    match (tag, header.patch(), header.ttl_at()) {
        (Some(tag), Some(patch), _) => {
            expected.extend_from_slice(sent);
            patch.apply(&mut expected, ttl, &tag);
        }
        (Some(tag), None, _) => rewrite(sent, header, ttl, MacOut::Set(tag), &mut expected),
        (None, ..) if header.header_mac.is_some() => rewrite(sent, header, ttl, MacOut::Remove, &mut expected),
        (None, _, Some(at)) => {
            expected.extend_from_slice(sent);
            expected[at as usize] = u8::try_from(ttl).expect("one octet");
        }
        (None, _, None) => rewrite(sent, header, ttl, MacOut::Keep, &mut expected),
    }
    assert!(
        got == expected,
        "publish {index}: {} octets arrived other than they should, of {}",
        got.len(),
        expected.len()
    );
}
