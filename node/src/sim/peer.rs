//! A scripted client: one transport, its streams, and the manners of its reader. It writes and reads a pipe.

use super::history::{Conn, History};
use crate::io::sim::{Dice, Endpoint, PeerSees};
use slimline_wire::grpc::{Deframer, Item, OPEN_CHANNEL_PATH, prefix};
use slimline_wire::h2::{Code, Event, Limits, Recv, Role, Send, StreamId};
use slimline_wire::link::{HeaderMac, HopFields, Initiator};
use slimline_wire::message::{
    Content, HeaderParts, LinkNegotiation, MessageView, NameParts, PublishParts, Session, build_link, build_publish,
    build_subscribe, build_unsubscribe, parse,
};
use slimline_wire::{ConnType, NameId};
use std::time::Instant;

pub(super) struct Peer {
    end: Option<Endpoint>,
    send: Send,
    recv: Recv,
    /// Octets for the pipe.
    out: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
    pub(super) channels: Vec<Channel>,
    next_stream: u32,
    /// It reads nothing until then.
    pub(super) deaf_until: Option<Instant>,
    /// It did something for which a node may end it.
    pub(super) is_excused: bool,
    /// It has finished, or broken off talking HTTP/2: nothing more is to be asked of it.
    pub(super) is_leaving: bool,
}

/// One stream.
pub(super) struct Channel {
    pub(super) conn: Conn,
    stream: StreamId,
    deframer: Deframer,
    initiator: Initiator,
    mac: Option<HeaderMac>,
    pub(super) stage: Stage,
    /// gRPC-framed octets that wait for a window.
    queue: Vec<u8>,
    queued_from: usize,
    /// Its window is not given back until then; what is owed to the node.
    pub(super) withholds_until: Option<Instant>,
    owed: u32,
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

impl Peer {
    pub(super) fn new(end: Endpoint, limits: &Limits) -> Self {
        let mut peer = Self {
            end: Some(end),
            send: Send::new(Role::Client, limits),
            recv: Recv::new(Role::Client, limits),
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
            channels: Vec::new(),
            next_stream: 1,
            deaf_until: None,
            is_excused: false,
            is_leaving: false,
        };
        peer.send.start(&mut peer.out);
        peer
    }

    /// Opens a stream and asks for a link at once, without waiting for anything.
    pub(super) fn open_channel(&mut self, conn: Conn, kind: ConnType, dice: &mut Dice) {
        let stream = StreamId::new(self.next_stream);
        self.next_stream += 2;
        self.send.open(stream);
        self.recv.open(stream);
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "node"),
            (":path", OPEN_CHANNEL_PATH),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ];
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.send.headers(stream, fields, false, &mut self.out);
        let mut secret = [0; 32];
        secret.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&dice.roll().to_be_bytes()));
        let initiator = Initiator::from_secrets(secret, None);
        let mut request = Vec::new();
        let link = LinkNegotiation {
            link_id: &link_id(conn),
            slim_version: "3.4.6",
            is_reply: false,
            ecdh_public_key: initiator.public(),
            connection_type: kind,
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
        self.channels.push(channel);
    }

    /// Whether the transport is still there.
    pub(super) fn is_open(&self) -> bool {
        self.end.is_some()
    }

    /// Whether something moves at the next [`Peer::pump`].
    pub(super) fn has_work(&self, now: Instant) -> bool {
        let Some(end) = &self.end else { return false };
        (self.written < self.out.len() && end.room() > 0)
            || (self.listens(now) && end.readable() > 0)
            || (self.out.len() < OUT_OCTETS_MAX
                && self.channels.iter().any(|channel| channel.can_move(&self.send, now)))
            || match end.sees() {
                PeerSees::Open => false,
                PeerSees::Eof => self.listens(now),
                PeerSees::Reset => true,
            }
    }

    fn listens(&self, now: Instant) -> bool {
        self.deaf_until.is_none_or(|until| until <= now)
    }

    /// Whether all it has to say is said, and all that came is read.
    pub(super) fn is_done(&self) -> bool {
        let Some(end) = &self.end else { return true };
        let is_quiet = end.readable() == 0 && end.unreceived() == 0;
        self.out.is_empty() && is_quiet && self.channels.iter().all(Channel::is_done)
    }

    /// Moves octets both ways: some, not all.
    pub(super) fn pump(&mut self, now: Instant, history: &mut History, dice: &mut Dice) {
        let is_reset = self.end.as_ref().is_some_and(|end| end.sees() == PeerSees::Reset);
        if self.listens(now) || is_reset {
            self.read(now, history, dice);
        }
        for channel in &mut self.channels {
            if channel.withholds_until.is_some_and(|until| until <= now) {
                channel.withholds_until = None;
                let owed = std::mem::take(&mut channel.owed);
                if let Some(increment) = self.recv.credit_stream(channel.stream, owed) {
                    self.send.write_window_update(channel.stream, increment, &mut self.out);
                }
            }
            if self.out.len() < OUT_OCTETS_MAX {
                channel.move_queue(&mut self.send, &mut self.out);
            }
        }
        self.send.seal();
        let Some(end) = &self.end else { return };
        let waiting = &self.out[self.written..];
        let most = if dice.happens(300) { 1 + dice.below(waiting.len().max(1)) } else { waiting.len() };
        self.written += end.write(&waiting[..most.min(waiting.len())]);
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    fn read(&mut self, now: Instant, history: &mut History, dice: &mut Dice) {
        let Some(end) = &self.end else { return };
        let mut inbox = std::mem::take(&mut self.inbox);
        let most = if dice.happens(300) { 1 + dice.below(20_000) } else { 64 * 1024 };
        end.read(most, &mut inbox);
        let sees = end.sees();
        self.take(&inbox, now, history);
        inbox.clear();
        self.inbox = inbox;
        match sees {
            PeerSees::Open => {}
            PeerSees::Eof | PeerSees::Reset => self.gone(history),
        }
    }

    fn take(&mut self, mut input: &[u8], now: Instant, history: &mut History) {
        loop {
            let event = match self.recv.next(now, &mut input) {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => panic!("the node broke HTTP/2: {error:?}"),
            };
            match event {
                Event::Data { stream, octets, flow_octets, .. } => {
                    self.credit_transport(flow_octets);
                    let Some(channel) = self.channels.iter_mut().find(|channel| channel.stream == stream) else {
                        panic!("data on stream {stream:?}, which was never opened")
                    };
                    if channel.withholds_until.is_some() {
                        channel.owed += flow_octets;
                    } else if let Some(increment) = self.recv.credit_stream(stream, flow_octets) {
                        self.send.write_window_update(stream, increment, &mut self.out);
                    }
                    channel.octets(octets, history);
                }
                Event::Headers { stream, fields, end_stream } => {
                    assert_eq!(fields.get(b":status"), Some(&b"200"[..]), "response on {stream:?}");
                    if end_stream {
                        let status = status_of(fields.get(b"grpc-status"));
                        self.ended(stream, status, history);
                    }
                }
                Event::Trailers { stream, fields } => {
                    let status = status_of(fields.get(b"grpc-status"));
                    let text = fields.get(b"grpc-message").map(String::from_utf8_lossy);
                    let text = text.unwrap_or_default().into_owned();
                    assert!(status == 0 || self.is_excused, "a stream in good order was ended: {status} {text}");
                    self.ended(stream, status, history);
                }
                Event::Reset { stream, code } => {
                    let channel = self.channels.iter().find(|channel| channel.stream == stream).expect("one of ours");
                    let is_over = matches!(channel.stage, Stage::Ended(_));
                    assert!(self.is_excused || is_over && code == Code::NO_ERROR, "{stream:?} was reset: {code}");
                    if !is_over {
                        self.ended(stream, u32::MAX, history);
                    }
                }
                Event::Settings(settings) => self.send.settings(&settings, &mut self.out).expect("the node's SETTINGS"),
                Event::Ping(octets) => self.send.ping_ack(octets, &mut self.out),
                Event::WindowUpdate { stream, increment } => {
                    assert!(self.send.window_update(stream, increment).is_ok(), "the node's WINDOW_UPDATE");
                }
                Event::GoAway { code, .. } => {
                    assert!(self.is_excused || code == Code::NO_ERROR, "a transport in good order was ended: {code}");
                }
                Event::StreamError { stream, code, reason } => panic!("the node broke {stream:?}: {code} {reason}"),
                Event::IgnoredData { flow_octets } => self.credit_transport(flow_octets),
                Event::SettingsAck | Event::Pong(_) => {}
            }
        }
    }

    fn credit_transport(&mut self, octets: u32) {
        if let Some(increment) = self.recv.credit_transport(octets) {
            self.send.write_window_update(StreamId::TRANSPORT, increment, &mut self.out);
        }
    }

    /// The node ended a stream.
    fn ended(&mut self, stream: StreamId, status: u32, history: &mut History) {
        self.send.close(stream);
        let channel = self.channels.iter_mut().find(|channel| channel.stream == stream).expect("one of ours");
        let in_order = channel.stage == Stage::Finishing { said: true } && status == 0;
        let is_ours_to_end = self.is_excused || matches!(channel.stage, Stage::Finishing { .. } | Stage::Ended(_));
        channel.stage = Stage::Ended(Some(status));
        channel.queue.clear();
        channel.queued_from = 0;
        if in_order {
            history.ended(channel.conn);
            assert!(channel.deframer.is_between_messages(), "connection {} ended within a message", channel.conn);
        } else {
            history.cut_off(channel.conn);
            assert!(is_ours_to_end, "connection {} was ended by the node with status {status}", channel.conn);
        }
    }

    /// The transport is over.
    fn gone(&mut self, history: &mut History) {
        let end = self.end.take();
        let how = end.as_ref().map(Endpoint::sees);
        for channel in &mut self.channels {
            if !matches!(channel.stage, Stage::Ended(_)) {
                history.cut_off(channel.conn);
                channel.stage = Stage::Ended(None);
            }
        }
        assert!(self.is_excused, "a transport in good order was ended: {how:?}");
        self.out.clear();
        self.written = 0;
    }

    /// Leaves in one of the ways there are.
    pub(super) fn leave(&mut self, how: Leave, history: &mut History) {
        self.is_excused = true;
        self.is_leaving = true;
        for channel in self.channels.iter().filter(|channel| !matches!(channel.stage, Stage::Ended(_))) {
            history.cut_off(channel.conn);
        }
        match how {
            Leave::Finish => {
                if let Some(end) = &self.end {
                    end.finish();
                }
                // Octets that wait can no longer be written.
                self.out.clear();
                self.written = 0;
                for channel in &mut self.channels {
                    channel.queue.clear();
                    channel.queued_from = 0;
                }
                return;
            }
            Leave::Close => self.end = None,
            Leave::Reset => {
                if let Some(end) = self.end.take() {
                    end.reset();
                }
            }
        }
        for channel in &mut self.channels {
            channel.stage = Stage::Ended(None);
        }
    }

    /// Sends octets that are no HTTP/2.
    pub(super) fn garbage(&mut self, history: &mut History, dice: &mut Dice) {
        self.is_excused = true;
        self.is_leaving = true;
        for channel in &self.channels {
            history.cut_off(channel.conn);
        }
        let length = 1 + dice.below(200);
        self.out.extend((0..length).map(|_| dice.roll().to_be_bytes()[0]));
    }

    /// Ends our half of a stream once everything queued is sent.
    pub(super) fn finish(&mut self, channel: usize, history: &mut History) {
        let channel = &mut self.channels[channel];
        history.ended(channel.conn);
        channel.stage = Stage::Finishing { said: false };
    }

    /// Resets a stream.
    pub(super) fn reset(&mut self, channel: usize, history: &mut History) {
        let channel = &mut self.channels[channel];
        history.cut_off(channel.conn);
        channel.stage = Stage::Ended(None);
        self.send.reset(channel.stream, Code::CANCEL, &mut self.out);
        self.send.close(channel.stream);
        self.recv.close(channel.stream);
    }
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// FIN, and goes on reading.
    Finish,
    /// Closes, whatever is unread.
    Close,
    Reset,
}

impl Channel {
    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Octets that wait for a window.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() - self.queued_from
    }

    fn is_done(&self) -> bool {
        match self.stage {
            Stage::Ended(_) => true,
            Stage::Finishing { .. } | Stage::Linking => false,
            Stage::Up => self.queued() == 0 && self.withholds_until.is_none(),
        }
    }

    fn can_move(&self, send: &Send, now: Instant) -> bool {
        (self.queued() > 0 && send.window(self.stream) > 0)
            || (self.queued() == 0 && self.stage == Stage::Finishing { said: false })
            || self.withholds_until.is_some_and(|until| until <= now)
    }

    fn move_queue(&mut self, send: &mut Send, out: &mut Vec<u8>) {
        if matches!(self.stage, Stage::Ended(_)) {
            return;
        }
        let taken = send.data(self.stream, &self.queue[self.queued_from..], false, out);
        self.queued_from += taken;
        if self.queued() == 0 {
            self.queue.clear();
            self.queued_from = 0;
            if self.stage == (Stage::Finishing { said: false }) {
                self.stage = Stage::Finishing { said: true };
                send.data(self.stream, &[], true, out);
            }
        }
    }

    /// Queues one gRPC-framed message.
    fn say(&mut self, message: &[u8]) {
        self.queue.extend_from_slice(&prefix(u32::try_from(message.len()).expect("short")));
        self.queue.extend_from_slice(message);
    }

    fn octets(&mut self, mut octets: &[u8], history: &mut History) {
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
                let key = self.initiator.finish(&link_id(self.conn), &reply).expect("a key");
                self.mac = Some(HeaderMac::new(&key, &link_id(self.conn)));
                if self.stage == Stage::Linking {
                    self.stage = Stage::Up;
                }
            }
            MessageView::SubscriptionAck(ack) => {
                history.acked(self.conn, ack.subscription_id, ack.success, ack.error);
            }
            MessageView::Publish(_) => {
                let mac = self.mac.as_mut().expect("nothing is forwarded before the link is up");
                history.delivered(self.conn, message, mac);
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
        let index = u32::try_from(history.next_publish()).expect("fewer than 2^32");
        let [.., low] = index.to_be_bytes();
        let mut payload: Vec<u8> =
            std::iter::successors(Some(low), |octet| Some(octet.wrapping_add(7))).take(plan.payload_octets).collect();
        payload.extend_from_slice(&index.to_be_bytes());
        let header = HeaderParts {
            fanout: plan.fanout,
            ttl: plan.ttl,
            incoming_conn: plan.has_incoming_conn.then_some(3),
            ..self.header(NameParts::of(plan.to.0, plan.to.1))
        };
        let session = Session { session_type: 1, session_message_type: 1, session_id: 9, message_id: index };
        let content = Content::App { payload_type: "msg", blob: &payload };
        let mut message = Vec::new();
        build_publish(&PublishParts { header, session, content, metadata: &[] }, &mut message);
        let message = self.signed(message, plan.is_spoiled);
        self.say(&message);
        history.publish(self.conn, message, plan.is_spoiled);
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
            header_mac: Some([0; 32]),
            e2e_header_sig: None,
        }
    }

    fn sign_and_say(&mut self, message: Vec<u8>) {
        let message = self.signed(message, false);
        self.say(&message);
    }

    fn signed(&mut self, mut message: Vec<u8>, is_spoiled: bool) -> Vec<u8> {
        let mac = self.mac.as_mut().expect("the link is up");
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

fn status_of(field: Option<&[u8]>) -> u32 {
    let text = field.map(String::from_utf8_lossy).unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("a stream ended without a grpc-status: {text:?}"))
}

/// Octets a client writes ahead of its pipe.
const OUT_OCTETS_MAX: usize = 64 * 1024;
