//! A scripted peer: say these frames, expect that answer. In memory, or against any server that can be reached.

use std::collections::VecDeque;
use std::time::Instant;

use super::server::Server;
use crate::h2::hpack::{Decoder, Encoder};
use crate::h2::{Code, FieldList, Head, Kind, Limits, PREFACE, StreamId, flag};

/// The other end of a dialogue.
pub trait Peer {
    /// Tells it something; what it answers is asked for separately. A peer that has hung up hears nothing.
    fn tell(&mut self, octets: &[u8]);
    /// What it says next; empty when it says nothing (within a patience of the peer's choosing) or has hung up.
    fn ask(&mut self) -> Vec<u8>;
    /// Whether it has hung up, after all it said.
    fn is_gone(&self) -> bool;
}

/// Our own two halves as the peer.
#[derive(Debug)]
pub struct InMemory {
    /// The server that answers.
    pub server: Server,
    now: Instant,
}

impl InMemory {
    /// A server with these limits, which lives at one instant.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { server: Server::new(limits), now: Instant::now() }
    }
}

impl Peer for InMemory {
    fn tell(&mut self, octets: &[u8]) {
        self.server.receive(self.now, octets);
    }

    fn ask(&mut self) -> Vec<u8> {
        self.server.take_output()
    }

    fn is_gone(&self) -> bool {
        self.server.ended().is_some()
    }
}

/// A frame that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its head.
    pub head: Head,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        let at = match self.head.kind {
            Kind::RST_STREAM => 0,
            Kind::GOAWAY => 4,
            _ => return None,
        };
        self.payload.get(at..at + 4).map(|code| Code(u32::from_be_bytes(code.try_into().expect("four octets"))))
    }
}

/// Name and value of a header field.
pub type Field<'a> = (&'a str, &'a str);

/// One transport, spoken by hand.
///
/// `say…` sends and judges nothing: what is sent may be as wrong as the test wants it. `expect…` panics with what was
/// heard instead.
#[derive(Debug)]
pub struct Dialogue<P> {
    /// Whom we talk to.
    pub peer: P,
    octets: Vec<u8>,
    frames: VecDeque<Frame>,
    decoder: Decoder,
    list: FieldList,
    pings: u64,
    path: String,
}

impl<P: Peer> Dialogue<P> {
    /// A dialogue in which nothing has been said. Requests ask for `path`.
    pub fn new(peer: P, path: &str) -> Self {
        Self {
            peer,
            octets: Vec::new(),
            frames: VecDeque::new(),
            decoder: Decoder::new(),
            list: FieldList::new(1 << 20),
            pings: 0,
            path: path.to_owned(),
        }
    }

    /// A dialogue behind preface and SETTINGS in both directions.
    pub fn open(peer: P, path: &str) -> Self {
        Self::open_with(peer, path, &[])
    }

    /// The same, with settings of our own: identifier and value.
    pub fn open_with(peer: P, path: &str, settings: &[(u16, u32)]) -> Self {
        let mut dialogue = Self::new(peer, path);
        dialogue.say_octets(PREFACE);
        dialogue.say_settings(settings);
        let theirs = dialogue.expect("SETTINGS", |frame| frame.head.kind == Kind::SETTINGS);
        assert!(!theirs.head.has(flag::ACK), "the first frame is SETTINGS itself");
        dialogue.say(Kind::SETTINGS, flag::ACK, 0, &[]);
        dialogue.expect("acknowledgement", |frame| frame.head.kind == Kind::SETTINGS && frame.head.has(flag::ACK));
        dialogue
    }

    /// Says anything.
    pub fn say_octets(&mut self, octets: &[u8]) {
        self.peer.tell(octets);
    }

    /// Says a frame.
    pub fn say(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame");
        self.say_with_length(length, kind, flags, stream, payload);
    }

    /// Says a frame whose head lies about its length.
    pub fn say_with_length(&mut self, length: u32, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut octets = Head { length, kind, flags, stream: StreamId::new(stream) }.to_wire().to_vec();
        octets.extend_from_slice(payload);
        self.say_octets(&octets);
    }

    /// Says SETTINGS.
    pub fn say_settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
        self.say(Kind::SETTINGS, 0, 0, &payload);
    }

    /// Says WINDOW_UPDATE.
    pub fn say_window_update(&mut self, stream: u32, increment: u32) {
        self.say(Kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    }

    /// Says a HEADERS frame with a good GET and these fields behind it.
    pub fn say_request(&mut self, stream: u32, flags: u8, more: &[Field<'_>]) {
        let block = self.request(more);
        self.say(Kind::HEADERS, flags | flag::END_HEADERS, stream, &block);
    }

    /// The header block of a good GET, with fields behind it.
    #[must_use]
    pub fn request(&self, more: &[Field<'_>]) -> Vec<u8> {
        let path = self.path.clone();
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", &path), (":authority", "localhost")];
        fields.extend_from_slice(more);
        block(&fields)
    }

    /// The next frame; `None` when the peer has nothing more to say.
    pub fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            while let Some((head, rest)) = Head::split(&self.octets)
                && let Some((payload, rest)) = rest.split_at_checked(head.length as usize)
            {
                let frame = Frame { head, payload: payload.to_vec() };
                self.octets = rest.to_vec();
                self.frames.push_back(frame);
            }
            if self.frames.is_empty() {
                let more = self.peer.ask();
                if more.is_empty() {
                    return None;
                }
                self.octets.extend(more);
            }
        }
    }

    /// Hears frames until one is the wanted one.
    pub fn expect(&mut self, what: &str, mut is_wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let mut heard = Vec::new();
        while let Some(frame) = self.hear() {
            if is_wanted(&frame) {
                return frame;
            }
            heard.push(frame);
        }
        panic!("expected {what}, heard {heard:?}, peer is {}", if self.peer.is_gone() { "gone" } else { "there" });
    }

    /// Expects RST_STREAM with one of these codes.
    pub fn expect_reset(&mut self, stream: u32, codes: &[Code]) {
        let frame = self.expect("RST_STREAM", |frame| frame.code().is_some());
        assert_eq!((frame.head.kind, frame.head.stream.get()), (Kind::RST_STREAM, stream), "{frame:?}");
        assert!(codes.contains(&frame.code().expect("just matched")), "{frame:?}, expected {codes:?}");
    }

    /// Expects GOAWAY with one of these codes, and the end of the transport.
    pub fn expect_goaway(&mut self, codes: &[Code]) {
        let frame = self.expect("GOAWAY", |frame| frame.code().is_some());
        assert_eq!(frame.head.kind, Kind::GOAWAY, "{frame:?}");
        let code = frame.code().expect("just matched");
        assert!(codes.contains(&code), "{code}, expected {codes:?}; {}", frame.payload.escape_ascii());
        while self.hear().is_some() {}
        assert!(self.peer.is_gone(), "a transport error ends the transport");
    }

    /// Expects that the peer is there and has, until now, made no complaint; returns what else it said.
    pub fn expect_alive(&mut self) -> Vec<Frame> {
        self.pings += 1;
        let octets = self.pings.to_be_bytes();
        self.say(Kind::PING, 0, 0, &octets);
        let mut heard = Vec::new();
        self.expect("the answer to PING", |frame| {
            assert!(frame.code().is_none(), "a complaint: {frame:?}");
            heard.push(frame.clone());
            frame.head.kind == Kind::PING && frame.head.has(flag::ACK) && frame.payload == octets
        });
        heard.pop();
        heard
    }

    /// Expects a whole answer on a stream: status 200 and END_STREAM. Returns its data.
    pub fn expect_answer(&mut self, stream: u32) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let frame = self.expect("an answer", |frame| frame.head.stream.get() == stream || frame.code().is_some());
            match frame.head.kind {
                Kind::HEADERS if frame.head.has(flag::END_HEADERS) => {
                    self.decoder.decode(&frame.payload, &mut self.list).expect("a header block");
                    if let Some(status) = self.list.fields().get(":status") {
                        assert_eq!(status, b"200");
                    }
                }
                Kind::DATA => data.extend(&frame.payload),
                Kind::WINDOW_UPDATE => continue,
                _ => panic!("not an answer: {frame:?}"),
            }
            if frame.head.has(flag::END_STREAM) {
                return data;
            }
        }
    }
}

/// A header block of these fields, as they are.
#[must_use]
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        // As literals, one by one: the encoder would insist on lower-case names.
        let mut literal = Vec::new();
        if name.bytes().any(|c| c.is_ascii_uppercase()) || name.is_empty() {
            literal.push(0);
            for text in [name, value] {
                literal.push(u8::try_from(text.len()).expect("short").min(126));
                literal.extend_from_slice(text.as_bytes());
            }
        } else {
            Encoder::new().encode([(name.as_bytes(), value.as_bytes())], &mut literal);
        }
        out.extend(literal);
    }
    out
}
