//! A blocking SLIM client on a plain socket, built on the same sans-IO parts as everything else, that can also send
//! whatever octets a test wants.

use super::PATIENCE;
use slimline_wire::grpc::{Deframer, Item, OPEN_CHANNEL_PATH};
use slimline_wire::h2::{Code, Event, Limits, Recv, Role, Send, StreamId};
use slimline_wire::link::{HeaderMac, HopFields, Initiator};
use slimline_wire::message::{
    Ack, Content, Header, HeaderParts, LinkNegotiation, MacOut, MessageView, NameParts, PublishParts, Session,
    build_link, build_publish, build_subscribe, build_unsubscribe, parse, rewrite,
};
use slimline_wire::{ConnType, NameId};
use socket2::{Domain, Socket, Type};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Something the node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Headers {
        stream: u32,
        fields: Vec<(String, String)>,
        end: bool,
    },
    Trailers {
        stream: u32,
        fields: Vec<(String, String)>,
    },
    Message {
        stream: u32,
        octets: Vec<u8>,
    },
    Data {
        stream: u32,
        octets: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: Code,
    },
    GoAway {
        code: Code,
    },
    /// The socket ended.
    Closed,
}

impl Said {
    /// The stream it is about; `None` for the whole transport.
    pub fn stream(&self) -> Option<u32> {
        match *self {
            Self::Headers { stream, .. }
            | Self::Trailers { stream, .. }
            | Self::Message { stream, .. }
            | Self::Data { stream, .. }
            | Self::Reset { stream, .. } => Some(stream),
            Self::GoAway { .. } | Self::Closed => None,
        }
    }

    /// A field of headers or trailers.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (Self::Headers { fields, .. } | Self::Trailers { fields, .. }) = self else { return None };
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// One HTTP/2 connection to a node.
pub struct Client {
    pub socket: TcpStream,
    pub send: Send,
    recv: Recv,
    deframers: HashMap<u32, Deframer>,
    said: VecDeque<Said>,
    out: Vec<u8>,
    next_stream: u32,
    /// While false, the transport's window is not given back.
    pub credits_transport: bool,
    /// While false, streams' windows are not given back: a reader that reads no more of any stream.
    pub credits_streams: bool,
    /// Streams whose window is not given back.
    pub withheld: HashSet<u32>,
    /// Octets of each stream's window that are withheld.
    owed: HashMap<u32, u32>,
    /// DATA octets each stream was sent.
    pub received: HashMap<u32, u64>,
    /// The last octets the node sent: where a test looks for texts that events leave out.
    pub tail: Vec<u8>,
    closed: bool,
}

/// How a client differs from an SDK.
#[derive(Clone)]
pub struct Manner {
    pub limits: Limits,
    /// SO_RCVBUF, where it should be small.
    pub receive_octets: Option<usize>,
}

impl Default for Manner {
    fn default() -> Self {
        let limits = Limits {
            initial_window: 2_097_152,
            transport_window: 5_242_880,
            control_frames_per_10s: u32::MAX,
            ..Limits::default()
        };
        Self { limits, receive_octets: None }
    }
}

/// How much of what the node said last is kept.
const TAIL_OCTETS: usize = 1024;

/// A negotiated link on one stream.
pub struct Link {
    pub stream: StreamId,
    pub link_id: String,
    pub mac: Option<HeaderMac>,
}

impl Client {
    /// Connects and exchanges prefaces.
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, &Manner::default())
    }

    /// As [`Client::connect`]; `None` if the connection is refused.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        Self::try_with(address, &Manner::default())
    }

    /// As [`Client::connect`], in another manner.
    pub fn with(address: SocketAddr, manner: &Manner) -> Self {
        Self::try_with(address, manner).expect("the node accepts")
    }

    fn try_with(address: SocketAddr, manner: &Manner) -> Option<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        if let Some(octets) = manner.receive_octets {
            socket.set_recv_buffer_size(octets).expect("SO_RCVBUF");
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            Err(error) => panic!("{error}"),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true).expect("nodelay");
        let limits = &manner.limits;
        let mut client = Self {
            socket,
            send: Send::new(Role::Client, limits),
            recv: Recv::new(Role::Client, limits),
            deframers: HashMap::new(),
            said: VecDeque::new(),
            out: Vec::new(),
            next_stream: 1,
            credits_transport: true,
            credits_streams: true,
            withheld: HashSet::new(),
            owed: HashMap::new(),
            received: HashMap::new(),
            tail: Vec::new(),
            closed: false,
        };
        client.send.start(&mut client.out);
        client.flush();
        Some(client)
    }

    /// Waits for the node's first octets; false if it closes instead.
    pub fn is_greeted(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.tail.is_empty() && !self.closed {
            assert!(Instant::now() < deadline, "no word from the node");
            self.pump(Duration::from_millis(100));
        }
        !self.closed
    }

    /// Sends what was written so far.
    pub fn flush(&mut self) {
        let out = std::mem::take(&mut self.out);
        self.send.seal();
        if self.socket.write_all(&out).is_err() {
            self.closed = true;
        }
    }

    /// Sends octets as they are.
    pub fn raw(&mut self, octets: &[u8]) {
        self.flush();
        if self.socket.write_all(octets).is_err() {
            self.closed = true;
        }
    }

    /// Opens a stream with these request headers.
    pub fn request(&mut self, fields: &[(&str, &str)], end: bool) -> StreamId {
        let stream = StreamId::new(self.next_stream);
        self.next_stream += 2;
        self.send.open(stream);
        self.recv.open(stream);
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.send.headers(stream, fields, end, &mut self.out);
        self.flush();
        stream
    }

    /// Opens an OpenChannel stream and waits for its response headers.
    pub fn open_channel(&mut self) -> StreamId {
        let stream = self.request(
            &[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "node"),
                (":path", OPEN_CHANNEL_PATH),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
            false,
        );
        self.deframers.insert(stream.get(), Deframer::new(64 << 20));
        match self.next_on(stream) {
            Said::Headers { fields, end: false, .. } => {
                assert!(fields.contains(&(":status".into(), "200".into())), "{fields:?}");
            }
            other => panic!("expected response headers at once, got {other:?}"),
        }
        stream
    }

    /// Opens a channel and negotiates a link on it.
    pub fn link(&mut self, kind: ConnType) -> Link {
        self.link_as(kind, &format!("link-{}-{:?}", self.next_stream, self.socket.local_addr().ok()), "test-node", "")
    }

    /// As [`Client::link`], saying who we are.
    pub fn link_as(&mut self, kind: ConnType, link_id: &str, node_id: &str, deployment: &str) -> Link {
        let initiator = Initiator::new(false).expect("random numbers");
        let request = LinkNegotiation {
            link_id,
            node_id,
            deployment_name: deployment,
            connection_type: kind,
            ecdh_public_key: initiator.public(),
            ..LINK
        };
        self.negotiate(&request, Some(&initiator))
    }

    /// A link with a post-quantum key.
    pub fn link_hybrid(&mut self, link_id: &str) -> Link {
        let initiator = Initiator::new(true).expect("random numbers");
        let request = LinkNegotiation {
            link_id,
            ecdh_public_key: initiator.public(),
            kem_payload: initiator.kem_public().map(|public| &public[..]),
            ..LINK
        };
        self.negotiate(&request, Some(&initiator))
    }

    /// A link without a key, which only a lax node takes.
    pub fn link_keyless(&mut self, kind: ConnType) -> Link {
        self.negotiate(&LinkNegotiation { link_id: "keyless", connection_type: kind, ..LINK }, None)
    }

    fn negotiate(&mut self, request: &LinkNegotiation<'_>, initiator: Option<&Initiator>) -> Link {
        let (stream, reply) = self.ask_for_link(request);
        let MessageView::Link(reply) = parse(&reply).expect("a readable reply") else { panic!("not a link reply") };
        assert!(reply.is_reply);
        assert_eq!(reply.link_id, request.link_id);
        assert_eq!(reply.connection_type, request.connection_type, "the kind is echoed");
        assert_eq!(reply.kem_payload.is_some(), request.kem_payload.is_some(), "hybrid if and only if asked for");
        assert_eq!(reply.ecdh_public_key.len(), if initiator.is_some() { 32 } else { 0 });
        let mac = initiator.map(|initiator| {
            let key = initiator.finish(request.link_id, &reply).expect("a key");
            HeaderMac::new(&key, request.link_id)
        });
        Link { stream, link_id: request.link_id.to_owned(), mac }
    }

    /// Opens a channel, asks for a link and gives the reply.
    pub fn ask_for_link(&mut self, request: &LinkNegotiation<'_>) -> (StreamId, Vec<u8>) {
        let stream = self.open_channel();
        let mut message = Vec::new();
        build_link(request, &mut message);
        self.message(stream, &message);
        (stream, self.expect_message(stream))
    }

    /// Sends one gRPC-framed message, in as many pieces as windows ask for.
    pub fn message(&mut self, stream: StreamId, message: &[u8]) {
        let mut framed = Vec::with_capacity(message.len() + 5);
        framed.push(0);
        framed.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
        framed.extend_from_slice(message);
        self.octets(stream, &framed);
    }

    /// Sends DATA octets as they are, waiting for windows.
    pub fn octets(&mut self, stream: StreamId, octets: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        let mut left = octets;
        while !left.is_empty() {
            let taken = self.send.data(stream, left, false, &mut self.out);
            left = &left[taken..];
            self.flush();
            if !left.is_empty() {
                assert!(Instant::now() < deadline, "no window within {PATIENCE:?}");
                self.pump(Duration::from_millis(10));
                let over = |said: &Said| matches!(said, Said::Reset { stream: on, .. } | Said::Trailers { stream: on, .. } if *on == stream.get());
                if self.closed || self.said.iter().any(over) {
                    return;
                }
            }
        }
    }

    /// Sends as many octets as windows allow now; returns how many.
    pub fn try_octets(&mut self, stream: StreamId, octets: &[u8]) -> usize {
        let taken = self.send.data(stream, octets, false, &mut self.out);
        self.flush();
        taken
    }

    /// Ends our half of a stream.
    pub fn end(&mut self, stream: StreamId) {
        self.send.data(stream, &[], true, &mut self.out);
        self.flush();
    }

    /// Ends our half of a stream with trailers.
    pub fn end_with_trailers(&mut self, stream: StreamId, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.send.headers(stream, fields, true, &mut self.out);
        self.flush();
    }

    /// Gives back what was withheld of a stream's window, and withholds no more of it.
    pub fn release(&mut self, stream: StreamId) {
        self.withheld.remove(&stream.get());
        if let Some(owed) = self.owed.remove(&stream.get())
            && let Some(increment) = self.recv.credit_stream(stream, owed)
        {
            self.send.write_window_update(stream, increment, &mut self.out);
        }
        self.flush();
    }

    /// Resets a stream.
    pub fn reset(&mut self, stream: StreamId, code: Code) {
        self.send.reset(stream, code, &mut self.out);
        self.recv.close(stream);
        self.flush();
    }

    /// Subscribes and waits for the ack; the error text is empty on success.
    pub fn subscribe(&mut self, link: &mut Link, name: [&str; 3], id: NameId, subscription_id: u64) -> String {
        let message = link.subscribe_message(name, id, subscription_id, true);
        self.message(link.stream, &message);
        self.expect_ack(link.stream, subscription_id)
    }

    /// Unsubscribes and waits for the ack.
    pub fn unsubscribe(&mut self, link: &mut Link, name: [&str; 3], id: NameId, subscription_id: u64) -> String {
        let message = link.subscribe_message(name, id, subscription_id, false);
        self.message(link.stream, &message);
        self.expect_ack(link.stream, subscription_id)
    }

    fn expect_ack(&mut self, stream: StreamId, subscription_id: u64) -> String {
        let octets = self.expect_message(stream);
        let MessageView::SubscriptionAck(Ack { subscription_id: acked, success, error }) =
            parse(&octets).expect("a readable ack")
        else {
            panic!("not an ack: {octets:02x?}")
        };
        assert_eq!(acked, subscription_id);
        assert_eq!(success, error.is_empty());
        error.to_owned()
    }

    /// Publishes `payload`.
    pub fn publish(&mut self, link: &mut Link, to: [&str; 3], id: NameId, fanout: u32, payload: &[u8]) {
        let message = link.publish_message(to, id, fanout, payload);
        self.message(link.stream, &message);
    }

    /// The next thing the node says on any stream.
    pub fn next(&mut self) -> Said {
        self.next_within(PATIENCE).unwrap_or_else(|| panic!("the node said nothing for {PATIENCE:?}"))
    }

    /// As [`Client::next`], `None` after `patience`.
    pub fn next_within(&mut self, patience: Duration) -> Option<Said> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            if self.closed {
                return Some(Said::Closed);
            }
            let now = Instant::now();
            if now >= deadline {
                return None;
            }
            self.pump((deadline - now).min(Duration::from_millis(50)));
        }
    }

    /// The next thing the node says on `stream` or about the whole transport; what it says on others is kept.
    pub fn next_on(&mut self, stream: StreamId) -> Said {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let concerns = |said: &Said| said.stream().is_none_or(|on| on == stream.get());
            if let Some(at) = self.said.iter().position(concerns) {
                return self.said.remove(at).expect("just found");
            }
            if self.closed {
                return Said::Closed;
            }
            assert!(Instant::now() < deadline, "the node said nothing on {stream:?} for {PATIENCE:?}");
            self.pump(Duration::from_millis(50));
        }
    }

    /// The next message on `stream`; anything else on it fails the test.
    pub fn expect_message(&mut self, stream: StreamId) -> Vec<u8> {
        match self.next_on(stream) {
            Said::Message { octets, .. } => octets,
            other => panic!("expected a message on {stream:?}, got {other:?}"),
        }
    }

    /// Messages that have arrived on `stream` and were not asked for yet.
    pub fn waiting_on(&self, stream: StreamId) -> usize {
        self.said.iter().filter(|said| matches!(said, Said::Message { stream: on, .. } if *on == stream.get())).count()
    }

    /// The text of the last GOAWAY, or whatever else the node said last.
    pub fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }

    /// The payload of the next publish on `link`, its header MAC checked.
    pub fn expect_payload(&mut self, link: &mut Link) -> Vec<u8> {
        let octets = self.expect_message(link.stream);
        let MessageView::Publish(publish) = parse(&octets).expect("a readable publish") else {
            panic!("not a publish")
        };
        link.check(&publish.header);
        payload_of(&octets)
    }

    /// Nothing arrives for a while.
    pub fn expect_silence(&mut self, length: Duration) {
        if let Some(said) = self.next_within(length) {
            panic!("expected silence, got {said:?}");
        }
    }

    /// The trailers that end `stream`: (grpc-status, grpc-message). Messages before them are skipped.
    pub fn expect_end(&mut self, stream: StreamId) -> (u32, String) {
        loop {
            match self.next_on(stream) {
                said @ (Said::Trailers { .. } | Said::Headers { end: true, .. }) => {
                    let status = said.field("grpc-status").expect("a status").parse().expect("a number");
                    return (status, percent_decode(said.field("grpc-message").unwrap_or_default()));
                }
                Said::Message { .. } | Said::Data { .. } | Said::GoAway { code: Code::NO_ERROR } => {}
                other => panic!("expected the end of {stream:?}, got {other:?}"),
            }
        }
    }

    /// Reads frames without understanding them until a GOAWAY: its code and text. Then the node closes.
    pub fn read_goaway(&mut self) -> (Code, String) {
        self.flush();
        let mut octets = Vec::new();
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = self.socket.read_to_end(&mut octets);
        self.closed = true;
        let mut rest = &octets[..];
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            if head[3] == 7 {
                let code = u32::from_be_bytes(payload[4..8].try_into().expect("a code"));
                return (Code(code), String::from_utf8_lossy(&payload[8..]).into_owned());
            }
            rest = behind;
        }
        panic!("closed without GOAWAY after {} octets", octets.len());
    }

    /// The GOAWAY that ends the connection, then its end.
    pub fn expect_goaway(&mut self) -> Code {
        loop {
            match self.next() {
                Said::GoAway { code } => return code,
                Said::Closed => panic!("closed without GOAWAY"),
                _ => {}
            }
        }
    }

    /// Waits until the node has closed the socket.
    pub fn expect_closed(&mut self) {
        loop {
            if self.next() == Said::Closed {
                return;
            }
        }
    }

    /// Reads for `length`.
    pub fn pump_for(&mut self, length: Duration) {
        let deadline = Instant::now() + length;
        while Instant::now() < deadline {
            self.pump(Duration::from_millis(5));
        }
    }

    /// Reads once, for at most `wait`.
    pub fn pump(&mut self, wait: Duration) {
        let mut buffer = vec![0; 256 * 1024];
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).expect("a timeout");
        match self.socket.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(octets) => self.take(&buffer[..octets]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
    }

    fn take(&mut self, mut input: &[u8]) {
        let now = Instant::now();
        self.tail.extend_from_slice(&input[input.len().saturating_sub(TAIL_OCTETS)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_OCTETS));
        loop {
            let event = match self.recv.next(now, &mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => panic!("the node broke HTTP/2: {error:?}"),
            };
            match event {
                Event::Headers { stream, fields, end_stream } => {
                    let fields = owned(fields.iter());
                    self.said.push_back(Said::Headers { stream: stream.get(), fields, end: end_stream });
                }
                Event::Trailers { stream, fields } => {
                    let fields = owned(fields.iter());
                    self.said.push_back(Said::Trailers { stream: stream.get(), fields });
                }
                Event::Data { stream, octets, flow_octets, end_stream } => {
                    *self.received.entry(stream.get()).or_default() += octets.len() as u64;
                    if !self.credits_streams || self.withheld.contains(&stream.get()) {
                        *self.owed.entry(stream.get()).or_default() += flow_octets;
                    } else if let Some(increment) = self.recv.credit_stream(stream, flow_octets) {
                        self.send.write_window_update(stream, increment, &mut self.out);
                    }
                    if self.credits_transport
                        && let Some(increment) = self.recv.credit_transport(flow_octets)
                    {
                        self.send.write_window_update(StreamId::TRANSPORT, increment, &mut self.out);
                    }
                    match self.deframers.get_mut(&stream.get()) {
                        None => {
                            let octets = octets.to_vec();
                            self.said.push_back(Said::Data { stream: stream.get(), octets, end: end_stream });
                        }
                        Some(deframer) => {
                            let mut octets = octets;
                            while let Some(item) = deframer.next(&mut octets).expect("gRPC framing") {
                                let Item::Message(message) = item else { panic!("oversize from the node") };
                                self.said.push_back(Said::Message { stream: stream.get(), octets: message.to_vec() });
                            }
                        }
                    }
                }
                Event::Reset { stream, code } if code != Code::NO_ERROR => {
                    self.said.push_back(Said::Reset { stream: stream.get(), code });
                }
                Event::Settings(settings) => {
                    self.send.settings(&settings, &mut self.out).expect("the node's SETTINGS");
                }
                Event::Ping(payload) => self.send.ping_ack(payload, &mut self.out),
                Event::WindowUpdate { stream, increment } => {
                    assert!(self.send.window_update(stream, increment).is_ok(), "the node's WINDOW_UPDATE");
                }
                Event::GoAway { code, .. } => self.said.push_back(Said::GoAway { code }),
                Event::StreamError { stream, code, reason } => panic!("the node broke {stream:?}: {code} {reason}"),
                Event::Reset { .. } | Event::SettingsAck | Event::Pong(_) | Event::IgnoredData { .. } => {}
            }
        }
        if !self.out.is_empty() {
            self.flush();
        }
    }
}

/// A request for a link with everything left open.
pub const LINK: LinkNegotiation<'static> = LinkNegotiation {
    link_id: "link",
    slim_version: "3.4.6",
    is_reply: false,
    ecdh_public_key: &[],
    connection_type: ConnType::Edge,
    node_id: "test-node",
    deployment_name: "",
    kem_payload: None,
};

impl Link {
    /// A signed Subscribe or Unsubscribe of `name` for ourselves.
    pub fn subscribe_message(&mut self, name: [&str; 3], id: NameId, subscription_id: u64, subscribe: bool) -> Vec<u8> {
        let parts = header(name, id, name, id, 1);
        let mut message = Vec::new();
        if subscribe {
            build_subscribe(&parts, subscription_id, &mut message);
        } else {
            build_unsubscribe(&parts, subscription_id, &mut message);
        }
        self.sign(message)
    }

    /// A signed Publish.
    pub fn publish_message(&mut self, to: [&str; 3], id: NameId, fanout: u32, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        build_publish(
            &PublishParts {
                header: header(["org", "ns", "sender"], NameId(7), to, id, fanout),
                session: Session { session_type: 1, session_message_type: 1, session_id: 9, message_id: 1 },
                content: Content::App { payload_type: "msg", blob: payload },
                metadata: &[("key", "value")],
            },
            &mut message,
        );
        self.sign(message)
    }

    /// Puts this link's header MAC into a message, where it has a key.
    pub fn sign(&mut self, message: Vec<u8>) -> Vec<u8> {
        let Some(mac) = &mut self.mac else { return message };
        let view = parse(&message).expect("our own message");
        let header = view.header().expect("a message with a header");
        let tag = mac.tag(header, header.ttl, HopFields::AsReceived);
        let mut signed = Vec::new();
        rewrite(&message, header, header.ttl, MacOut::Set(tag), &mut signed);
        signed
    }

    /// Writes this link's tag over the placeholder in a message's header; every other octet stays as it is, hop fields
    /// and unusual encodings included.
    pub fn sign_in_place(&mut self, message: &mut [u8]) {
        let mac = self.mac.as_mut().expect("a key");
        let view = parse(message).expect("our own message");
        let header = view.header().expect("a message with a header");
        let place = header.header_mac.expect("a placeholder").as_ptr() as usize - message.as_ptr() as usize;
        let tag = mac.tag(header, header.ttl, HopFields::AsReceived);
        message[place..place + tag.len()].copy_from_slice(&tag);
    }

    pub fn check(&mut self, header: &Header<'_>) {
        if let Some(mac) = &mut self.mac {
            assert!(mac.verify(header), "the node signs what it forwards");
        }
    }
}

pub fn header<'a>(
    from: [&'a str; 3],
    from_id: NameId,
    to: [&'a str; 3],
    to_id: NameId,
    fanout: u32,
) -> HeaderParts<'a> {
    HeaderParts {
        source: NameParts::of(from, from_id),
        destination: NameParts::of(to, to_id),
        identity: "identity-token",
        fanout,
        version: "3.4.6",
        ttl: 8,
        incoming_conn: Some(1),
        error: None,
        header_mac: Some([0; 32]),
        e2e_header_sig: None,
    }
}

fn owned<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, String)> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    fields.map(|(name, value)| (text(name), text(value))).collect()
}

fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).expect("two hex digits"));
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).expect("UTF-8")
}

/// The application payload of a publish, found without our own parser.
pub fn payload_of(message: &[u8]) -> Vec<u8> {
    use prost::Message as _;
    let decoded = slimline_wire::pb::Message::decode(message).expect("prost reads it");
    let Some(slimline_wire::pb::message::MessageType::Publish(publish)) = decoded.message_type else {
        panic!("not a publish")
    };
    match publish.msg.and_then(|content| content.content_type) {
        Some(slimline_wire::pb::content::ContentType::AppPayload(payload)) => payload.blob,
        other => panic!("no application payload: {other:?}"),
    }
}
