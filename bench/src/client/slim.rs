//! A SLIM client: HTTP/2, one OpenChannel stream, link negotiation, signed headers.
//!
//! It keeps to what an SDK sends (slim-wire §1.1, §4.2): the same settings and windows, the first message only after
//! the response headers.

use std::time::Instant;

use slimline_wire::grpc::{Deframer, Item, OPEN_CHANNEL_PATH, PREFIX_OCTETS};
use slimline_wire::h2::{Code, Event, Limits, Recv, Role, Send, StreamId};
use slimline_wire::link::{HeaderMac, HopFields, Initiator};
use slimline_wire::message::{LinkNegotiation, MessageView, build_link, parse};
use slimline_wire::name::ConnType;

use super::compose::{self, Envelope, HeaderParts, Incoming, Lengths};
use super::{Happening, Publish, Wanted};
use crate::payload::Stamp;

/// What all connections of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) authority: String,
    pub(crate) run: u32,
    /// Number of this connection: its link id is made of it.
    pub(crate) connection: u32,
    pub(crate) verify_one_in: u32,
    /// Offer no key: the link then runs without MAC.
    pub(crate) no_mac: bool,
    pub(crate) tls: Option<super::tls::Security>,
    /// The `authorization` header, where the node wants one.
    pub(crate) authorization: Option<String>,
}

/// Windows an SDK gives (slim-wire §1.1).
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const TRANSPORT_WINDOW: u32 = 5 * 1024 * 1024;
/// Largest message a node may send us.
const MESSAGE_OCTETS_MAX: u32 = 4 * 1024 * 1024;

/// How the end of a link begins that was not to be had.
pub(crate) const REFUSED: &str = "negotiation refused: ";

/// Streams a client opens are odd.
const FIRST_STREAM: StreamId = StreamId::new(1);

enum Stage {
    /// Waiting for response headers.
    Opening,
    /// Our negotiation is out.
    Negotiating,
    /// Messages flow.
    Ready,
}

/// See the module.
pub(crate) struct Slim {
    recv: Recv,
    send: Send,
    stream: StreamId,
    deframer: Deframer,
    stage: Stage,
    initiator: Initiator,
    no_mac: bool,
    shows_credentials: bool,
    link_id: String,
    mac: Option<HeaderMac>,
    verify_one_in: u32,
    until_verify: u32,
    next_subscription: u64,
    /// A message larger than a frame that flow control has cut.
    backlog: Vec<u8>,
    backlog_from: usize,
    /// A message under construction, where it does not fit one frame.
    scratch: Vec<u8>,
}

impl Slim {
    /// Preface, settings, and the request.
    pub(crate) fn start(settings: &Settings, out: &mut Vec<u8>) -> Result<Self, String> {
        let limits = Limits { initial_window: STREAM_WINDOW, transport_window: TRANSPORT_WINDOW, ..Limits::default() };
        let (mut recv, mut send) = (Recv::new(Role::Client, &limits), Send::new(Role::Client, &limits));
        let stream = FIRST_STREAM;
        send.start(out);
        recv.open(stream);
        send.open(stream);
        let scheme: &[u8] = if settings.tls.is_some() { b"https" } else { b"http" };
        let fields: [(&[u8], &[u8]); 7] = [
            (b":method", b"POST"),
            (b":scheme", scheme),
            (b":path", OPEN_CHANNEL_PATH.as_bytes()),
            (b":authority", settings.authority.as_bytes()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"slimload"),
        ];
        let authorization = settings.authorization.iter().map(|value| (&b"authorization"[..], value.as_bytes()));
        send.headers(stream, fields.into_iter().chain(authorization), false, out);
        send.seal();
        Ok(Self {
            recv,
            send,
            stream,
            deframer: Deframer::new(MESSAGE_OCTETS_MAX),
            stage: Stage::Opening,
            initiator: Initiator::new(false).map_err(|error| format!("no key pair: {error}"))?,
            no_mac: settings.no_mac,
            shows_credentials: settings.authorization.is_some(),
            link_id: format!(
                "51135112-{:04x}-4{:03x}-8000-{:012x}",
                settings.run >> 16,
                settings.run & 0xfff,
                settings.connection
            ),
            mac: None,
            verify_one_in: settings.verify_one_in,
            until_verify: 1,
            next_subscription: 1,
            backlog: Vec::new(),
            backlog_from: 0,
            scratch: Vec::new(),
        })
    }

    /// Takes what arrived.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        mut input: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), String> {
        if matches!(self.stage, Stage::Opening) && input.starts_with(b"HTTP/1") {
            return Err("it answers in HTTP/1: another service, or not the data plane's port".into());
        }
        let (mut stream_octets, mut transport_octets) = (0, 0);
        while let Some(event) =
            self.recv.next(now, &mut input).map_err(|e| format!("HTTP/2: {} ({})", e.reason, e.code))?
        {
            match event {
                Event::Data { octets, flow_octets, end_stream, .. } => {
                    stream_octets += flow_octets;
                    transport_octets += flow_octets;
                    let mut rest = octets;
                    while let Some(item) = self.deframer.next(&mut rest).map_err(|e| format!("gRPC framing: {e:?}"))? {
                        let Item::Message(message) = item else { return Err("a message above 4 MiB".into()) };
                        let mut link = Link {
                            stage: &mut self.stage,
                            mac: &mut self.mac,
                            initiator: &self.initiator,
                            link_id: &self.link_id,
                            until_verify: &mut self.until_verify,
                            verify_one_in: self.verify_one_in,
                            no_mac: self.no_mac,
                        };
                        link.message(message, tell)?;
                    }
                    if end_stream {
                        return Err("the node ended the stream without a status".into());
                    }
                }
                Event::Headers { fields, end_stream, .. } => {
                    let text = |name: &[u8]| fields.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
                    let status = text(b":status").unwrap_or_default();
                    if status != "200" || end_stream || fields.get(b"grpc-status").is_some() {
                        let detail = text(b"grpc-message").unwrap_or_default();
                        if status == "401" {
                            return Err(if self.shows_credentials {
                                "401: the node did not accept our credentials: check the secret in --basic-auth".into()
                            } else {
                                "401: the node wants to know who we are: pass --basic-auth FILE".into()
                            });
                        }
                        let grpc = text(b"grpc-status").unwrap_or_else(|| "none".into());
                        return Err(format!("stream refused: HTTP status {status}, grpc-status {grpc} {detail}"));
                    }
                    self.negotiate(out)?;
                }
                Event::Trailers { fields, .. } => {
                    let text = |name: &[u8]| {
                        fields.get(name).map_or_else(String::new, |value| String::from_utf8_lossy(value).into_owned())
                    };
                    let refused = if matches!(self.stage, Stage::Negotiating) { REFUSED } else { "" };
                    return Err(format!("{refused}grpc-status {} {}", text(b"grpc-status"), text(b"grpc-message")));
                }
                Event::Settings(settings) => {
                    self.send.settings(&settings, out).map_err(|e| format!("HTTP/2: {} ({})", e.reason, e.code))?;
                }
                Event::Ping(octets) => self.send.ping_ack(octets, out),
                Event::WindowUpdate { stream, increment } => {
                    self.send.window_update(stream, increment).map_err(|e| format!("HTTP/2 window: {e:?}"))?;
                }
                Event::IgnoredData { flow_octets } => transport_octets += flow_octets,
                Event::Reset { code, .. } => return Err(format!("stream reset: {code}")),
                Event::GoAway { code, .. } => return Err(format!("GOAWAY: {code}")),
                Event::StreamError { reason, .. } => return Err(format!("HTTP/2 stream: {reason}")),
                Event::SettingsAck | Event::Pong(_) => {}
            }
        }
        if let Some(increment) = self.recv.credit_stream(self.stream, stream_octets) {
            self.send.write_window_update(self.stream, increment, out);
        }
        if let Some(increment) = self.recv.credit_transport(transport_octets) {
            self.send.write_window_update(StreamId::TRANSPORT, increment, out);
        }
        self.flush_backlog(out);
        Ok(())
    }

    fn negotiate(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let public = *self.initiator.public();
        let ask = LinkNegotiation {
            link_id: &self.link_id,
            slim_version: "0.1.0",
            is_reply: false,
            ecdh_public_key: if self.no_mac { &[] } else { &public },
            connection_type: ConnType::Edge,
            node_id: &self.link_id,
            deployment_name: "",
            kem_payload: None,
        };
        let mut message = Vec::new();
        build_link(&ask, &mut message);
        self.stage = Stage::Negotiating;
        self.message(&message, out)
    }

    /// Sends a small message; those before the run always find a window.
    fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.scratch.clear();
        self.scratch.push(0);
        self.scratch.extend_from_slice(&(message.len() as u32).to_be_bytes());
        self.scratch.extend_from_slice(message);
        self.frame_scratch(out);
        Ok(())
    }

    /// Hands `scratch` to the stream; what flow control refuses becomes backlog.
    fn frame_scratch(&mut self, out: &mut Vec<u8>) {
        let taken = if self.backlog.is_empty() { self.send.data(self.stream, &self.scratch, false, out) } else { 0 };
        self.backlog.extend_from_slice(&self.scratch[taken..]);
    }

    fn flush_backlog(&mut self, out: &mut Vec<u8>) {
        if self.backlog.is_empty() {
            return;
        }
        self.backlog_from += self.send.data(self.stream, &self.backlog[self.backlog_from..], false, out);
        if self.backlog_from == self.backlog.len() {
            self.backlog.clear();
            self.backlog_from = 0;
        }
    }

    /// Asks for a name.
    pub(crate) fn subscribe(&mut self, wanted: &Wanted<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let mut header = Vec::new();
        let name = (&wanted.name, wanted.text);
        let parts = HeaderParts { source: name, destination: name, identity: wanted.identity, fanout: 1 };
        let mac_at = compose::header(&parts, &mut header);
        if self.no_mac {
            header.truncate(mac_at - compose::MAC_HEAD_OCTETS);
        } else {
            self.sign(&mut header, mac_at)?;
        }
        let mut message = Vec::new();
        compose::subscribe(&header, self.next_subscription, &mut message);
        self.next_subscription += 1;
        self.message(&message, out)
    }

    /// Publishes; see [`super::Client::publish`].
    #[inline]
    pub(crate) fn publish(
        &mut self,
        header: &[u8],
        envelope: Envelope,
        octets: u32,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) -> Publish {
        if !self.backlog.is_empty() {
            self.flush_backlog(out);
            if !self.backlog.is_empty() {
                return Publish::Blocked;
            }
        }
        let lengths = Lengths::of(header.len(), envelope, octets as usize);
        let whole = (PREFIX_OCTETS + lengths.message) as u32;
        let before = out.len();
        if self.send.begin_data(self.stream, whole, out) {
            out.push(0);
            out.extend_from_slice(&(lengths.message as u32).to_be_bytes());
            compose::publish_head(header, envelope, octets as usize, &lengths, out);
            stamp.write(octets as usize, out);
        } else {
            // Either no window at all, or more than one frame: then what the window refuses waits in the backlog.
            if self.send.window(self.stream) < whole.min(FRAME_OCTETS_MAX) {
                return Publish::Blocked;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.clear();
            scratch.push(0);
            scratch.extend_from_slice(&(lengths.message as u32).to_be_bytes());
            compose::publish_head(header, envelope, octets as usize, &lengths, &mut scratch);
            stamp.write(octets as usize, &mut scratch);
            self.scratch = scratch;
            self.frame_scratch(out);
        }
        Publish::Written(out.len() - before)
    }

    /// Fills the MAC of a composed header.
    pub(crate) fn sign(&mut self, header: &mut [u8], mac_at: usize) -> Result<(), String> {
        let Some(mac) = &mut self.mac else { return Ok(()) };
        let mut message = Vec::with_capacity(header.len() + 16);
        compose::subscribe(header, 1, &mut message);
        let MessageView::Subscribe(view) =
            parse(&message).map_err(|e| format!("our own header does not parse: {e}"))?
        else {
            return Err("our own subscribe reads as something else".into());
        };
        let tag = mac.tag(&view.header, view.header.ttl, HopFields::AsReceived);
        header[mac_at..mac_at + 32].copy_from_slice(&tag);
        Ok(())
    }

    /// See [`super::Client::seal`].
    pub(crate) fn seal(&mut self) {
        self.send.seal();
        let sent = self.send.take_data_sent();
        self.recv.data_sent(sent);
    }

    /// RST_STREAM(CANCEL) and GOAWAY, as SDKs leave (slim-wire §1.1).
    pub(crate) fn leave(&mut self, out: &mut Vec<u8>) {
        self.send.reset(self.stream, Code::CANCEL, out);
        self.send.goaway(StreamId::TRANSPORT, Code::NO_ERROR, b"", out);
    }
}

/// Payload octets of a DATA frame by default; every node takes these.
const FRAME_OCTETS_MAX: u32 = 16_384;

/// The parts of a connection one message touches.
struct Link<'a> {
    stage: &'a mut Stage,
    mac: &'a mut Option<HeaderMac>,
    initiator: &'a Initiator,
    link_id: &'a str,
    until_verify: &'a mut u32,
    verify_one_in: u32,
    no_mac: bool,
}

impl Link<'_> {
    fn message(&mut self, message: &[u8], tell: &mut dyn FnMut(Happening<'_>)) -> Result<(), String> {
        match self.stage {
            Stage::Opening => Err("a message before the response headers".into()),
            Stage::Negotiating => {
                let view = parse(message).map_err(|e| format!("negotiation reply: {e}"))?;
                let MessageView::Link(reply) = view else { return Err("the first message is no negotiation".into()) };
                if !reply.is_reply || reply.link_id != self.link_id {
                    return Err("the negotiation reply is not for us".into());
                }
                if reply.ecdh_public_key.is_empty() && !self.no_mac {
                    return Err(
                        "the node offers no key, so nothing could be verified (measure that with --no-mac)".into()
                    );
                }
                if !reply.ecdh_public_key.is_empty() {
                    let key = self.initiator.finish(self.link_id, &reply).map_err(|e| format!("link key: {e}"))?;
                    *self.mac = Some(HeaderMac::new(&key, self.link_id));
                }
                *self.stage = Stage::Ready;
                tell(Happening::Ready);
                Ok(())
            }
            Stage::Ready => {
                match compose::read(message) {
                    Some(Incoming::Publish { payload }) => {
                        *self.until_verify -= 1;
                        if *self.until_verify == 0 {
                            *self.until_verify = self.verify_one_in;
                            if !self.verify(message) {
                                tell(Happening::Damaged);
                                return Ok(());
                            }
                        }
                        tell(Happening::Delivery { payload });
                    }
                    Some(Incoming::Ack { success: true, .. }) => tell(Happening::Subscribed),
                    Some(Incoming::Ack { error, .. }) => {
                        return Err(format!("subscription refused: {}", String::from_utf8_lossy(error)));
                    }
                    Some(Incoming::Link | Incoming::Other) => {}
                    None => tell(Happening::Damaged),
                }
                Ok(())
            }
        }
    }

    /// Parses the whole message and checks its header MAC.
    fn verify(&mut self, message: &[u8]) -> bool {
        let Ok(MessageView::Publish(publish)) = parse(message) else { return false };
        match self.mac {
            Some(mac) => mac.verify(&publish.header),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
