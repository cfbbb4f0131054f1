//! One stream of a scripted client: its link, what it says on it, and what it makes of what comes.

use super::history::{Conn, History};
use crate::io::sim::Dice;
use slimline_wire::grpc::{Deframer, Item, prefix};
use slimline_wire::h2::{Send, StreamId};
use slimline_wire::link::{HeaderMac, HopFields, Initiator};
use slimline_wire::message::{
    Content, HeaderParts, LinkNegotiation, MessageView, NameParts, PublishParts, Session, build_link, build_publish,
    build_subscribe, build_unsubscribe, parse,
};
use slimline_wire::{ConnType, NameId};
use std::time::Instant;

/// One stream.
pub(super) struct Channel {
    pub(super) conn: Conn,
    pub(super) stream: StreamId,
    deframer: Deframer,
    initiator: Initiator,
    kind: Kind,
    /// Where messages are signed.
    mac: Option<HeaderMac>,
    pub(super) stage: Stage,
    /// gRPC-framed octets that wait for a window.
    queue: Vec<u8>,
    queued_from: usize,
    /// Its window is not given back until then; what is owed to the node.
    pub(super) withholds_until: Option<Instant>,
    pub(super) owed: u32,
    next_subscription_id: u64,
    /// Publishes.
    pub(super) received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Asked for a stream, then for a link.
    Linking,
    Up,
    /// It will say, or has said, that it sends nothing more.
    Finishing {
        said: bool,
    },
    /// The node ended it with this status, or the transport is gone.
    Ended(Option<u32>),
}

/// What link a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) conn_type: ConnType,
    /// Only a lax node takes links without one.
    pub(super) has_key: bool,
}

impl Kind {
    /// As an application asks for it.
    pub(super) const EDGE: Self = Self { conn_type: ConnType::Edge, has_key: true };

    /// Whether messages carry a header MAC on such a link.
    pub(super) fn is_signed(self) -> bool {
        self.has_key && self.conn_type != ConnType::Peer
    }
}

/// A name with its text.
pub(super) type Target = ([&'static str; 3], NameId);

/// A publish, for [`Channel::publish`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) to: Target,
    pub(super) fanout: u32,
    pub(super) payload_octets: usize,
    /// Above 127 a hop cannot change it in place.
    pub(super) ttl: u32,
    pub(super) has_incoming_conn: bool,
    pub(super) is_spoiled: bool,
}

impl Plan {
    /// An ordinary message for one.
    pub(super) fn one(to: Target, payload_octets: usize) -> Self {
        Self { to, fanout: 1, payload_octets, ttl: 8, has_incoming_conn: true, is_spoiled: false }
    }
}

impl Channel {
    /// A stream just opened, with the request for a link on its way.
    pub(super) fn new(conn: Conn, stream: StreamId, kind: Kind, dice: &mut Dice) -> Self {
        let mut secret = [0; 32];
        secret.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&dice.roll().to_be_bytes()));
        let initiator = Initiator::from_secrets(secret, None);
        let mut request = Vec::new();
        let link = LinkNegotiation {
            link_id: &link_id(conn),
            slim_version: "3.4.6",
            is_reply: false,
            ecdh_public_key: if kind.has_key { initiator.public() } else { &[] },
            connection_type: kind.conn_type,
            node_id: "client",
            deployment_name: "",
            kem_payload: None,
        };
        build_link(&link, &mut request);
        let mut channel = Channel {
            conn,
            stream,
            deframer: Deframer::new(64 << 20),
            initiator,
            kind,
            mac: None,
            stage: Stage::Linking,
            queue: Vec::new(),
            queued_from: 0,
            withholds_until: None,
            owed: 0,
            next_subscription_id: 1,
            received: 0,
        };
        channel.say(&request);
        channel
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Octets that wait for a window.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() - self.queued_from
    }

    pub(super) fn is_done(&self) -> bool {
        match self.stage {
            Stage::Ended(_) => true,
            Stage::Finishing { .. } | Stage::Linking => false,
            Stage::Up => self.queued() == 0 && self.withholds_until.is_none(),
        }
    }

    pub(super) fn can_move(&self, send: &Send, now: Instant) -> bool {
        (self.queued() > 0 && send.window(self.stream) > 0)
            || (self.queued() == 0 && self.stage == Stage::Finishing { said: false })
            || self.withholds_until.is_some_and(|until| until <= now)
    }

    pub(super) fn move_queue(&mut self, send: &mut Send, out: &mut Vec<u8>) {
        if matches!(self.stage, Stage::Ended(_)) {
            return;
        }
        let taken = send.data(self.stream, &self.queue[self.queued_from..], false, out);
        self.queued_from += taken;
        if self.queued() == 0 {
            self.forget_queue();
            if self.stage == (Stage::Finishing { said: false }) {
                self.stage = Stage::Finishing { said: true };
                send.data(self.stream, &[], true, out);
            }
        }
    }

    /// What still waits will never be said.
    pub(super) fn forget_queue(&mut self) {
        self.queue.clear();
        self.queued_from = 0;
    }

    /// Whether no message was broken off.
    pub(super) fn is_between_messages(&self) -> bool {
        self.deframer.is_between_messages()
    }

    /// Queues the beginning of a message.
    pub(super) fn begin_message(&mut self) {
        self.queue.extend_from_slice(&[0, 0, 0, 0, 100, 1, 2, 3]);
    }

    /// Queues one gRPC-framed message.
    pub(super) fn say(&mut self, message: &[u8]) {
        self.queue.extend_from_slice(&prefix(u32::try_from(message.len()).expect("short")));
        self.queue.extend_from_slice(message);
    }

    pub(super) fn octets(&mut self, mut octets: &[u8], history: &mut History) {
        let mut deframer = std::mem::replace(&mut self.deframer, Deframer::new(0));
        while let Some(item) = deframer.next(&mut octets).expect("gRPC framing") {
            let Item::Message(message) = item else { panic!("the node sent an oversize message") };
            self.message(message, history);
        }
        self.deframer = deframer;
    }

    fn message(&mut self, message: &[u8], history: &mut History) {
        match parse(message).expect("the node's message") {
            MessageView::Link(reply) => {
                assert!(reply.is_reply && reply.link_id == link_id(self.conn) && self.mac.is_none());
                if self.kind.has_key {
                    let key = self.initiator.finish(&link_id(self.conn), &reply).expect("a key");
                    self.mac = self.kind.is_signed().then(|| HeaderMac::new(&key, &link_id(self.conn)));
                } else {
                    assert!(reply.ecdh_public_key.is_empty(), "no key was asked for");
                }
                if self.stage == Stage::Linking {
                    self.stage = Stage::Up;
                }
            }
            MessageView::SubscriptionAck(ack) => {
                history.acked(self.conn, ack.subscription_id, ack.success, ack.error);
            }
            MessageView::Publish(_) => {
                assert!(self.stage != Stage::Linking, "nothing is forwarded before the link is up");
                history.delivered(self.conn, message, self.mac.as_mut());
                self.received += 1;
            }
            other => panic!("the node sent {other:?}"),
        }
    }

    /// Asks for a name; `quietly` with id 0, which gets no ack.
    pub(super) fn subscribe(&mut self, (text, id): Target, quietly: bool, history: &mut History) {
        let subscription_id = if quietly { 0 } else { self.next_id() };
        let parts = self.header(NameParts::of(text, id));
        history.subscribe(self.conn, (text, id), subscription_id);
        let mut message = Vec::new();
        build_subscribe(&parts, subscription_id, &mut message);
        self.sign_and_say(message);
    }

    /// Takes back a subscription of the history.
    pub(super) fn unsubscribe(&mut self, index: usize, history: &mut History) {
        let ((text, instance), id) = history.unsubscribe(self.conn, index);
        let mut message = Vec::new();
        build_unsubscribe(&self.header(NameParts::of(text, instance)), id, &mut message);
        self.sign_and_say(message);
    }

    /// Takes back what it never asked for.
    pub(super) fn unsubscribe_nonsense(&mut self, history: &mut History) {
        let id = self.next_id();
        history.unsubscribe_nonsense(self.conn, id);
        let mut message = Vec::new();
        build_unsubscribe(&self.header(NameParts::of(["org", "ns", "nobody"], NameId(1))), id, &mut message);
        self.sign_and_say(message);
    }

    pub(super) fn publish(&mut self, plan: &Plan, history: &mut History) {
        let is_spoiled = plan.is_spoiled && self.kind.conn_type != ConnType::Peer; // nobody looks at a Peer's
        let index = u32::try_from(history.next_publish()).expect("fewer than 2^32");
        let [.., low] = index.to_be_bytes();
        let mut payload: Vec<u8> =
            std::iter::successors(Some(low), |octet| Some(octet.wrapping_add(7))).take(plan.payload_octets).collect();
        payload.extend_from_slice(&index.to_be_bytes());
        let header = HeaderParts {
            fanout: plan.fanout,
            ttl: plan.ttl,
            incoming_conn: plan.has_incoming_conn.then_some(3),
            header_mac: (self.kind.has_key || is_spoiled).then_some([0; 32]),
            ..self.header(NameParts::of(plan.to.0, plan.to.1))
        };
        let session = Session { session_type: 1, session_message_type: 1, session_id: 9, message_id: index };
        let content = Content::App { payload_type: "msg", blob: &payload };
        let mut message = Vec::new();
        build_publish(&PublishParts { header, session, content, metadata: &[] }, &mut message);
        let message = self.signed(message, is_spoiled);
        self.say(&message);
        history.publish(self.conn, message, is_spoiled);
    }

    /// One whole gRPC message that is no SLIM message.
    pub(super) fn nonsense(&mut self, dice: &mut Dice) {
        let length = dice.below(100);
        let octets: Vec<u8> = (0..length).map(|_| 0xf8 | dice.roll().to_be_bytes()[0]).collect();
        self.say(&octets);
    }

    /// A gRPC prefix that is not allowed: the node ends the stream.
    pub(super) fn break_framing(&mut self) {
        self.queue.extend_from_slice(&[9, 0, 0, 0, 1, 0]);
    }

    fn next_id(&mut self) -> u64 {
        self.next_subscription_id += 1;
        self.next_subscription_id
    }

    fn header<'a>(&self, destination: NameParts<'a>) -> HeaderParts<'a> {
        HeaderParts {
            source: NameParts::of(["org", "ns", "client"], NameId(self.conn as u128)),
            destination,
            identity: "identity-token",
            fanout: 1,
            version: "3.4.6",
            ttl: 8,
            incoming_conn: Some(3),
            error: None,
            header_mac: self.kind.has_key.then_some([0; 32]), // a Peer's stays like that: stale
            e2e_header_sig: None,
        }
    }

    fn sign_and_say(&mut self, message: Vec<u8>) {
        let message = self.signed(message, false);
        self.say(&message);
    }

    fn signed(&mut self, mut message: Vec<u8>, is_spoiled: bool) -> Vec<u8> {
        assert!(self.stage != Stage::Linking, "the link is up");
        let Some(mac) = &mut self.mac else { return message };
        let view = parse(&message).expect("our own message");
        let header = view.header().expect("it has one");
        let at = header.header_mac.expect("a placeholder").as_ptr() as usize - message.as_ptr() as usize;
        let tag = mac.tag(header, header.ttl, HopFields::AsReceived);
        message[at..at + tag.len()].copy_from_slice(&tag);
        message[at] ^= u8::from(is_spoiled);
        message
    }
}

/// The link id of a connection: how the node's tables can be asked about it.
pub(super) fn link_id(conn: Conn) -> String {
    format!("link-{conn}")
}
