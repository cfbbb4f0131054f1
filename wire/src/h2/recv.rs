//! The receive half: bytes in, events out.

use std::time::Instant;

use super::flood::{Counted, Flood};
use super::flow::RecvWindow;
use super::frame::{self, PADDING_TOO_LONG};
use super::hpack::{Decoder, HpackError};
use super::streams::{Ending, Phase, Stream, Streams};
use super::{
    Code, FRAME_OCTETS_MIN, FieldList, Fields, HEADER_LIST_TOO_LONG, Head, Kind, Limits, PREFACE, Role, Settings,
    StreamId, TransportError, WINDOW_AT_START, check, flag,
};

/// What the peer's bytes mean.
///
/// Shape: `'r` borrows from the receiver, `'i` from the input. `flow_octets` are what the peer's windows lost: they
/// are to be given back by [`Recv::credit_stream`] and [`Recv::credit_transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'r, 'i> {
    /// The first header section of a message, checked as a request (server) or final response (client).
    Headers {
        /// New to a server; one of its own to a client.
        stream: StreamId,
        /// Pseudo-headers first.
        fields: Fields<'r>,
        /// Whether the message has neither data nor trailers.
        end_stream: bool,
    },
    /// The last header section; always ends the peer's half of the stream.
    Trailers {
        /// The stream that ends.
        stream: StreamId,
        /// No pseudo-headers.
        fields: Fields<'r>,
    },
    /// A piece of a DATA frame, as much of it as had arrived.
    Data {
        /// Whose it is.
        stream: StreamId,
        /// Data alone, without padding; may be empty.
        octets: &'i [u8],
        /// Octets that count against both windows, padding included.
        flow_octets: u32,
        /// Whether the peer's half of the stream ends after these octets.
        end_stream: bool,
    },
    /// The peer gave a stream up; it is gone from this half.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why, as the peer says.
        code: Code,
    },
    /// For [`Send::settings`], which answers it.
    ///
    /// [`Send::settings`]: super::Send::settings
    Settings(Settings),
    /// The peer applied our SETTINGS.
    SettingsAck,
    /// To be answered by [`Send::ping_ack`].
    ///
    /// [`Send::ping_ack`]: super::Send::ping_ack
    Ping([u8; 8]),
    /// The answer to our PING.
    Pong([u8; 8]),
    /// For [`Send::window_update`]; the increment is not zero. The stream may have ended.
    ///
    /// [`Send::window_update`]: super::Send::window_update
    WindowUpdate {
        /// A stream, or the transport.
        stream: StreamId,
        /// Octets more that we may send.
        increment: u32,
    },
    /// The peer will open no more streams, and looked at none of ours above `last`.
    GoAway {
        /// The last of our streams it may have acted on.
        last: StreamId,
        /// Why.
        code: Code,
    },
    /// A mistake of the peer that costs one stream: answer RST_STREAM. It is gone from this half.
    StreamError {
        /// The stream.
        stream: StreamId,
        /// What RST_STREAM says.
        code: Code,
        /// For the log.
        reason: &'static str,
    },
    /// DATA of a stream that has ended: only the transport window wants it back.
    IgnoredData {
        /// Octets for [`Recv::credit_transport`].
        flow_octets: u32,
    },
}

/// Where in the peer's bytes we stand.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// In the client's preface, so many octets matched.
    Preface { matched: usize },
    /// At the first octet of a frame, outside a header block.
    Head,
    /// Inside a head, or inside a header block.
    HeldHead,
    /// Before the padding length of a DATA frame.
    Padding { head: Head },
    /// Inside a DATA frame; `extra` is flow-controlled and not yet reported.
    Data { stream: StreamId, data: u32, padding: u32, extra: u32, is_end: bool },
    /// Inside a DATA frame nobody wants.
    Ignored { left: u32, extra: u32 },
    /// Inside a payload that is wanted whole, or for its first `keep` octets.
    Payload { head: Head, keep: u32 },
    /// Inside a payload that is not wanted.
    Skip { left: u32 },
    /// Nothing more can be understood.
    Dead(TransportError),
}

/// A header block whose END_HEADERS is still to come.
#[derive(Clone, Copy, Debug)]
struct Block {
    stream: StreamId,
    end_stream: bool,
    depends_on_itself: bool,
    continuations: u32,
}

/// Most octets of one SETTINGS frame.
const SETTINGS_OCTETS_MAX: u32 = FRAME_OCTETS_MIN;

/// Padding length, padding, and the priority fields: what a HEADERS frame has beside its fragment.
const HEADERS_EXTRA_OCTETS: u32 = 1 + 255 + 5;

/// Room that is kept between frames; what a larger one took is given back.
const KEPT_OCTETS: usize = 1024;

/// The receive half of a transport.
///
/// It knows frame syntax, HPACK, the states of streams as far as a receiver sees them, receive windows and flood
/// counters. DATA is never stored: its octets leave as they arrive. What is stored, all of it bounded: a partial head,
/// a partial control frame or header block, one decoded header list, 4 KiB of HPACK table.
///
/// Source: RFC 9113 §3.4, §4, §5, §6, §8.
#[derive(Debug)]
pub struct Recv {
    step: Step,
    role: Role,
    limits: Limits,
    streams: Streams,
    window: RecvWindow,
    flood: Flood,
    /// What the peer believes a new stream's window to be; above `limits.initial_window` until it knows better.
    stream_window_open: u32,
    settings_seen: bool,
    accepting: bool,
    block: Option<Block>,
    /// Fragments of `block`.
    fragments: Vec<u8>,
    /// A head or payload whose rest is still to come.
    held: Vec<u8>,
    decoder: Decoder,
    list: FieldList,
}

impl Recv {
    /// A receiver before its first byte; a server expects the client's preface.
    #[must_use]
    pub fn new(role: Role, limits: &Limits) -> Self {
        let limits = limits.in_range();
        Self {
            step: if role == Role::Server { Step::Preface { matched: 0 } } else { Step::Head },
            role,
            streams: Streams::default(),
            window: RecvWindow::new(limits.transport_window, limits.transport_window),
            flood: Flood::new(&limits),
            stream_window_open: limits.initial_window.max(WINDOW_AT_START),
            settings_seen: false,
            accepting: true,
            block: None,
            fragments: Vec::new(),
            held: Vec::new(),
            decoder: Decoder::new(),
            list: FieldList::new(limits.header_list_octets_max),
            limits,
        }
    }

    /// Pulls the next event off the front of `input`; `None` means that all of it was taken and more is needed.
    ///
    /// Errors: the transport has to end; every later call says the same again.
    #[inline]
    pub fn next<'r, 'i>(
        &'r mut self,
        now: Instant,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'r, 'i>>, TransportError> {
        if let Some(event) = self.whole_data(input) {
            return Ok(Some(event));
        }
        match self.advance(now, input) {
            Ok(Some(Event::Headers { stream, end_stream, .. })) => {
                Ok(Some(Event::Headers { stream, fields: self.list.fields(), end_stream }))
            }
            Ok(Some(Event::Trailers { stream, .. })) => {
                Ok(Some(Event::Trailers { stream, fields: self.list.fields() }))
            }
            Err(error) => {
                self.step = Step::Dead(error);
                Err(error)
            }
            other => other,
        }
    }

    /// Takes back `octets` of a stream's DATA; `Some(increment)` when a WINDOW_UPDATE is due.
    #[inline]
    pub fn credit_stream(&mut self, stream: StreamId, octets: u32) -> Option<u32> {
        let stream = self.streams.get(stream)?;
        if stream.phase == Phase::Ended { None } else { stream.window.credit(octets) }
    }

    /// Takes back `octets` of any DATA; `Some(increment)` when a WINDOW_UPDATE for the transport is due.
    #[inline]
    pub fn credit_transport(&mut self, octets: u32) -> Option<u32> {
        self.window.credit(octets)
    }

    /// Tells of DATA frames we sent ([`Send::take_data_sent`]): they entitle the peer to PINGs.
    ///
    /// [`Send::take_data_sent`]: super::Send::take_data_sent
    #[inline]
    pub fn data_sent(&mut self, frames: u32) {
        self.flood.data(frames);
    }

    /// A client opened `stream`; ids are odd and only grow.
    pub fn open(&mut self, stream: StreamId) {
        debug_assert!(self.role == Role::Client, "streams are opened to a server, not by it");
        let window = self.stream_window();
        self.streams.insert(Stream::new(stream, Phase::Waiting, window, None));
    }

    /// We are done with `stream`: reset it, or ended our half. What still arrives for it is ignored where the peer
    /// could not know better, and is an error where it could.
    pub fn close(&mut self, stream: StreamId) {
        if let Some(live) = self.streams.get(stream) {
            let ending = if live.phase == Phase::Ended { Ending::Both } else { Ending::OurReset };
            self.streams.end(stream, ending);
        }
    }

    /// After our GOAWAY: streams the peer opens from now on are refused.
    pub fn stop_accepting(&mut self) {
        self.accepting = false;
    }

    /// Streams that live, in whatever state.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The highest stream id used: what a server's GOAWAY names as last.
    #[must_use]
    pub fn last_stream(&self) -> StreamId {
        self.streams.highest()
    }

    /// Whether the input so far ends with a whole frame: an end of file here cuts nothing off.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.step, Step::Head)
    }

    /// Octets held of frames and header blocks that are not whole.
    #[must_use]
    pub fn held_octets(&self) -> usize {
        self.held.len() + self.fragments.len()
    }

    /// The common case, and nothing else: an unpadded DATA frame that is whole and in order.
    #[inline]
    fn whole_data<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'static, 'i>> {
        let Step::Head = self.step else { return None };
        let (head, rest) = Head::split(input)?;
        if head.kind != Kind::DATA || head.has(flag::PADDED) || head.length == 0 {
            return None;
        }
        let (octets, rest) = rest.split_at_checked(head.length as usize)?;
        if head.length > self.limits.max_frame_size || !self.window.allows(head.length) {
            return None;
        }
        let stream = self.streams.get(head.stream)?;
        if stream.phase != Phase::Open || stream.has_content_length() || !stream.window.debit(head.length) {
            return None;
        }
        self.window.debit(head.length);
        let end_stream = head.has(flag::END_STREAM);
        if end_stream {
            stream.phase = Phase::Ended;
        }
        self.flood.data(1);
        *input = rest;
        Some(Event::Data { stream: head.stream, octets, flow_octets: head.length, end_stream })
    }

    /// Everything else, one step after the other. Header events come without their fields.
    fn advance<'i>(
        &mut self,
        now: Instant,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'static, 'i>>, TransportError> {
        loop {
            let event = match self.step {
                Step::Dead(error) => return Err(error),
                _ if input.is_empty() && !self.step.is_empty_payload() => return Ok(None),
                Step::Preface { matched } => {
                    self.preface(matched, input)?;
                    None
                }
                Step::Head | Step::HeldHead => match self.head(input) {
                    Some(head) => self.begin(now, head)?,
                    None => return Ok(None),
                },
                Step::Padding { head } => {
                    let padding = u32::from(take(input, 1)[0]);
                    self.data_head(now, head, Some(padding))?
                }
                Step::Data { .. } => self.data_piece(input),
                Step::Ignored { left, extra } => {
                    let taken = take_up_to(input, left);
                    self.step = after(left - taken, |left| Step::Ignored { left, extra: 0 });
                    Some(Event::IgnoredData { flow_octets: taken + extra })
                }
                Step::Payload { head, keep } => match self.payload(now, head, keep, input)? {
                    Some(event) => event,
                    None => return Ok(None),
                },
                Step::Skip { left } => {
                    let left = left - take_up_to(input, left);
                    self.step = after(left, |left| Step::Skip { left });
                    None
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn preface(&mut self, matched: usize, input: &mut &[u8]) -> Result<(), TransportError> {
        let wanted = &PREFACE[matched..];
        let got = take(input, wanted.len().min(input.len()));
        if !wanted.starts_with(got) {
            return Err(TransportError::protocol("not the HTTP/2 client preface"));
        }
        let matched = matched + got.len();
        self.step = if matched == PREFACE.len() { Step::Head } else { Step::Preface { matched } };
        Ok(())
    }

    /// The next frame's head, once all of it is there.
    fn head(&mut self, input: &mut &[u8]) -> Option<Head> {
        if self.held.is_empty()
            && let Some((head, rest)) = Head::split(input)
        {
            *input = rest;
            return Some(head);
        }
        let missing = Head::OCTETS - self.held.len();
        self.held.extend_from_slice(take(input, missing.min(input.len())));
        self.step = Step::HeldHead;
        let (head, _) = Head::split(&self.held)?;
        self.held.clear();
        Some(head)
    }

    /// Judges a head and decides what its payload is to us.
    fn begin(&mut self, now: Instant, head: Head) -> Result<Option<Event<'static, 'static>>, TransportError> {
        if head.length > self.limits.max_frame_size {
            return Err(TransportError::frame_size("frame longer than SETTINGS_MAX_FRAME_SIZE"));
        }
        if let Some(block) = self.block
            && (head.kind != Kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(TransportError::protocol("frame inside a header block"));
        }
        if !self.settings_seen && (head.kind != Kind::SETTINGS || head.has(flag::ACK)) {
            return Err(TransportError::protocol("first frame is not SETTINGS"));
        }
        let on_transport = head.stream == StreamId::TRANSPORT;
        let is_idle = !on_transport && self.streams.is_idle(head.stream);
        let keep = match head.kind {
            Kind::DATA => {
                if on_transport || is_idle {
                    return Err(TransportError::protocol("DATA on stream 0 or an idle stream"));
                }
                if head.has(flag::PADDED) {
                    if head.length == 0 {
                        return Err(TransportError::frame_size("PADDED frame without its length"));
                    }
                    self.step = Step::Padding { head };
                    return Ok(None);
                }
                return self.data_head(now, head, None);
            }
            Kind::HEADERS => {
                if on_transport {
                    return Err(TransportError::protocol("HEADERS on stream 0"));
                }
                if is_idle && (self.role == Role::Client || !head.stream.is_clients()) {
                    return Err(TransportError::protocol("HEADERS opens a stream the peer cannot open"));
                }
                self.check_block_octets(head.length)?;
                head.length
            }
            Kind::CONTINUATION => {
                let Some(block) = &mut self.block else {
                    return Err(TransportError::protocol("CONTINUATION without HEADERS"));
                };
                block.continuations += 1;
                if block.continuations > self.limits.continuation_frames_max {
                    return Err(TransportError::calm("continuation_frames_max: too many CONTINUATION"));
                }
                self.check_block_octets(head.length)?;
                head.length
            }
            Kind::PRIORITY => {
                if on_transport {
                    return Err(TransportError::protocol("PRIORITY on stream 0"));
                }
                head.length.min(5)
            }
            Kind::RST_STREAM => {
                if on_transport || is_idle {
                    return Err(TransportError::protocol("RST_STREAM on stream 0 or an idle stream"));
                }
                exactly(head, 4, "RST_STREAM length is not 4")?
            }
            Kind::SETTINGS => {
                if !on_transport {
                    return Err(TransportError::protocol("SETTINGS on a stream"));
                }
                if head.has(flag::ACK) {
                    exactly(head, 0, "acknowledgement of SETTINGS with a payload")?;
                }
                if head.length > SETTINGS_OCTETS_MAX {
                    return Err(TransportError::calm("SETTINGS of more than 16384 octets"));
                }
                head.length
            }
            Kind::PUSH_PROMISE => return Err(TransportError::protocol("PUSH_PROMISE where none is allowed")),
            Kind::PING => {
                if !on_transport {
                    return Err(TransportError::protocol("PING on a stream"));
                }
                exactly(head, 8, "PING length is not 8")?
            }
            Kind::GOAWAY => {
                if !on_transport {
                    return Err(TransportError::protocol("GOAWAY on a stream"));
                }
                if head.length < 8 {
                    return Err(TransportError::frame_size("GOAWAY shorter than 8"));
                }
                8 // the debug text is not kept
            }
            Kind::WINDOW_UPDATE => {
                if is_idle {
                    return Err(TransportError::protocol("WINDOW_UPDATE on an idle stream"));
                }
                exactly(head, 4, "WINDOW_UPDATE length is not 4")?
            }
            _ => {
                self.flood.count(now, Counted::Other)?;
                self.step = after(head.length, |left| Step::Skip { left });
                return Ok(None);
            }
        };
        self.step = Step::Payload { head, keep };
        Ok(None)
    }

    /// Bounds what a header block makes us hold.
    fn check_block_octets(&self, length: u32) -> Result<(), TransportError> {
        let octets = self.fragments.len() + length as usize;
        if octets > (self.limits.header_block_octets_max() + HEADERS_EXTRA_OCTETS) as usize {
            return Err(TransportError::calm("header_list_octets_max: header block too long"));
        }
        Ok(())
    }

    /// Collects the wanted part of a payload and reads it once it is whole. The outer `None`: more bytes are needed.
    fn payload(
        &mut self,
        now: Instant,
        head: Head,
        keep: u32,
        input: &mut &[u8],
    ) -> Result<Option<Option<Event<'static, 'static>>>, TransportError> {
        let wanted = keep as usize;
        self.step = after(head.length - keep, |left| Step::Skip { left });
        if self.held.is_empty()
            && let Some((payload, rest)) = input.split_at_checked(wanted)
        {
            *input = rest;
            return self.frame(now, head, payload).map(Some);
        }
        let missing = wanted - self.held.len();
        self.held.extend_from_slice(take(input, missing.min(input.len())));
        if self.held.len() < wanted {
            self.step = Step::Payload { head, keep };
            return Ok(None);
        }
        let held = std::mem::take(&mut self.held);
        let event = self.frame(now, head, &held);
        self.held = emptied(held);
        event.map(Some)
    }

    /// Reads a control or header frame. `begin` has checked its length and that the stream may have it.
    fn frame(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        let stream = head.stream;
        match head.kind {
            Kind::HEADERS => return self.headers(now, head, payload),
            Kind::CONTINUATION => return self.continuation(now, head, payload),
            Kind::PRIORITY => return self.priority(now, head, payload),
            Kind::RST_STREAM => {
                let code = Code(frame::word(payload).expect("length checked"));
                if self.streams.get(stream).is_some() {
                    self.flood.count(now, Counted::Reset)?;
                    self.streams.end(stream, Ending::PeerReset);
                    return Ok(Some(Event::Reset { stream, code }));
                }
                self.flood.count(now, Counted::Late)?;
            }
            Kind::SETTINGS => {
                self.flood.count(now, Counted::Settings)?;
                if head.has(flag::ACK) {
                    self.settings_applied();
                    return Ok(Some(Event::SettingsAck));
                }
                let settings = Settings::parse(payload, self.role)?;
                self.settings_seen = true;
                return Ok(Some(Event::Settings(settings)));
            }
            Kind::PING => {
                self.flood.count(now, Counted::Ping)?;
                let octets = payload.try_into().expect("length checked");
                return Ok(Some(if head.has(flag::ACK) { Event::Pong(octets) } else { Event::Ping(octets) }));
            }
            Kind::GOAWAY => {
                self.flood.count(now, Counted::Other)?;
                let (last, code) = payload.split_at(4);
                let last = StreamId::new(frame::word(last).expect("length checked"));
                let code = Code(frame::word(code).expect("length checked"));
                return Ok(Some(Event::GoAway { last, code }));
            }
            Kind::WINDOW_UPDATE => {
                let increment = frame::word(payload).expect("length checked") & 0x7fff_ffff;
                if increment != 0 {
                    return Ok(Some(Event::WindowUpdate { stream, increment }));
                }
                if stream == StreamId::TRANSPORT {
                    return Err(TransportError::protocol("WINDOW_UPDATE of zero"));
                }
                if self.streams.get(stream).is_some() {
                    return self.stream_error(now, stream, Code::PROTOCOL_ERROR, "WINDOW_UPDATE of zero").map(Some);
                }
                self.flood.count(now, Counted::Late)?;
            }
            kind => unreachable!("`begin` wants no payload of {kind:?}"),
        }
        Ok(None)
    }

    fn headers(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        let mut fragment = frame::unpad(head, payload)?;
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let (dependency, rest) =
                frame::priority(fragment).ok_or(TransportError::frame_size("HEADERS without its priority fields"))?;
            depends_on_itself = dependency == head.stream;
            fragment = rest;
        }
        let end_stream = head.has(flag::END_STREAM);
        let block = Block { stream: head.stream, end_stream, depends_on_itself, continuations: 0 };
        if head.has(flag::END_HEADERS) {
            return self.finish_block(now, block, fragment);
        }
        self.fragments.extend_from_slice(fragment);
        self.block = Some(block);
        self.step = Step::HeldHead;
        Ok(None)
    }

    fn continuation(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        self.fragments.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            self.step = Step::HeldHead;
            return Ok(None);
        }
        let block = self.block.take().expect("`begin` lets CONTINUATION in only inside a block");
        let fragments = std::mem::take(&mut self.fragments);
        let event = self.finish_block(now, block, &fragments);
        self.fragments = emptied(fragments);
        event
    }

    /// Decodes a whole header block, always, and then asks what it means for its stream.
    fn finish_block(
        &mut self,
        now: Instant,
        block: Block,
        octets: &[u8],
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        self.decoder.decode(octets, &mut self.list).map_err(|error| match error {
            HpackError::Bomb => TransportError::calm(error.reason()),
            _ => TransportError::new(Code::COMPRESSION_ERROR, error.reason()),
        })?;
        let id = block.stream;
        if let Some(stream) = self.streams.get(id) {
            let phase = stream.phase;
            return match phase {
                Phase::Ended => self.stream_error(now, id, Code::STREAM_CLOSED, "HEADERS after END_STREAM"),
                Phase::Open => match self.trailers(block) {
                    Ok(event) => return Ok(Some(event)),
                    Err((code, reason)) => self.stream_error(now, id, code, reason),
                },
                Phase::Waiting => match self.response(block) {
                    Ok(event) => return Ok(event),
                    Err((code, reason)) => self.stream_error(now, id, code, reason),
                },
            }
            .map(Some);
        }
        if self.streams.is_idle(id) {
            self.streams.use_up(id);
            if !self.accepting || self.streams.len() >= self.limits.streams_max as usize {
                self.flood.count(now, Counted::Refused)?;
                self.streams.end(id, Ending::OurReset);
                let reason = if self.accepting { "streams_max: too many streams" } else { "going away" };
                return Ok(Some(Event::StreamError { stream: id, code: Code::REFUSED_STREAM, reason }));
            }
            return match self.request(block) {
                Ok(event) => Ok(Some(event)),
                Err((code, reason)) => self.stream_error(now, id, code, reason).map(Some),
            };
        }
        match self.streams.ending(id) {
            Ending::OurReset => self.flood.count(now, Counted::Late).map(|()| None),
            Ending::PeerReset => self.stream_error(now, id, Code::STREAM_CLOSED, "HEADERS after RST_STREAM").map(Some),
            Ending::Both | Ending::Forgotten => {
                Err(TransportError::new(Code::STREAM_CLOSED, "HEADERS on a closed stream"))
            }
            Ending::Skipped => Err(TransportError::protocol("stream id below an earlier one")),
        }
    }

    /// A new stream of the peer's; its id is used up already.
    fn request(&mut self, block: Block) -> Result<Event<'static, 'static>, (Code, &'static str)> {
        self.check_list(block)?;
        let opening = check::request(&self.list).map_err(|reason| (Code::PROTOCOL_ERROR, reason))?;
        let phase = if block.end_stream { Phase::Ended } else { Phase::Open };
        let mut stream = Stream::new(block.stream, phase, self.stream_window(), opening.content_length);
        if block.end_stream && !stream.content(0, true) {
            return Err((Code::PROTOCOL_ERROR, "content-length without content"));
        }
        self.streams.admit(stream);
        Ok(Event::Headers { stream: block.stream, fields: Fields::default(), end_stream: block.end_stream })
    }

    /// A header section of a response, before any data; interim ones are passed over.
    fn response(&mut self, block: Block) -> Result<Option<Event<'static, 'static>>, (Code, &'static str)> {
        self.check_list(block)?;
        let opening = check::response(&self.list).map_err(|reason| (Code::PROTOCOL_ERROR, reason))?;
        if opening.status < 200 {
            return match block.end_stream {
                true => Err((Code::PROTOCOL_ERROR, "interim response with END_STREAM")),
                false => Ok(None),
            };
        }
        let stream = self.streams.get(block.stream).expect("the caller found it");
        // A response without content may announce the length it would have (to HEAD, or 304).
        stream.set_content_length(opening.content_length.filter(|_| !block.end_stream));
        stream.phase = if block.end_stream { Phase::Ended } else { Phase::Open };
        Ok(Some(Event::Headers { stream: block.stream, fields: Fields::default(), end_stream: block.end_stream }))
    }

    fn trailers(&mut self, block: Block) -> Result<Event<'static, 'static>, (Code, &'static str)> {
        if !block.end_stream {
            return Err((Code::PROTOCOL_ERROR, "second HEADERS without END_STREAM"));
        }
        self.check_list(block)?;
        check::trailers(&self.list).map_err(|reason| (Code::PROTOCOL_ERROR, reason))?;
        let stream = self.streams.get(block.stream).expect("the caller found it");
        if !stream.content(0, true) {
            return Err((Code::PROTOCOL_ERROR, "less DATA than content-length"));
        }
        stream.phase = Phase::Ended;
        Ok(Event::Trailers { stream: block.stream, fields: Fields::default() })
    }

    /// What every header section must be.
    fn check_list(&self, block: Block) -> Result<(), (Code, &'static str)> {
        if block.depends_on_itself {
            return Err((Code::PROTOCOL_ERROR, "stream depends on itself"));
        }
        if self.list.is_too_long() {
            return Err((Code::ENHANCE_YOUR_CALM, HEADER_LIST_TOO_LONG));
        }
        Ok(())
    }

    /// PRIORITY decides nothing here; RFC 9113 §5.3.2 deprecates it, and keeps the rules on its shape (§6.3).
    fn priority(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        self.flood.count(now, Counted::Priority)?;
        let (code, reason) = match frame::priority(payload) {
            Some((dependency, _)) if head.length == 5 => {
                if dependency != head.stream {
                    return Ok(None);
                }
                (Code::PROTOCOL_ERROR, "stream depends on itself")
            }
            _ => (Code::FRAME_SIZE_ERROR, "PRIORITY length is not 5"),
        };
        if self.streams.get(head.stream).is_some() {
            return self.stream_error(now, head.stream, code, reason).map(Some);
        }
        // An idle stream cannot be reset, and an ended one has nothing left to lose.
        Err(TransportError::new(code, reason))
    }

    /// A DATA frame, its padding length known: charges the windows and decides who gets the octets.
    fn data_head(
        &mut self,
        now: Instant,
        head: Head,
        padding: Option<u32>,
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        let extra = u32::from(padding.is_some()); // the padding length itself, already taken
        let padding = padding.unwrap_or(0);
        let data = head.length.checked_sub(extra + padding).ok_or(PADDING_TOO_LONG)?;
        if !self.window.debit(head.length) {
            return Err(TransportError::new(Code::FLOW_CONTROL_ERROR, "DATA beyond the transport's window"));
        }
        let is_end = head.has(flag::END_STREAM);
        self.flood.data(1);
        if data == 0 && !is_end {
            self.flood.count(now, Counted::EmptyData)?;
        }
        let (stream, left) = (head.stream, head.length - extra);
        let refusal = match self.streams.get(stream) {
            Some(live) if live.phase == Phase::Open => {
                if !live.window.debit(head.length) {
                    Some((Code::FLOW_CONTROL_ERROR, "DATA beyond the stream's window"))
                } else if !live.content(data, is_end) {
                    Some((Code::PROTOCOL_ERROR, "DATA does not match content-length"))
                } else {
                    let is_silent = head.length == 0 && !is_end; // nothing to tell
                    self.step =
                        if is_silent { Step::Head } else { Step::Data { stream, data, padding, extra, is_end } };
                    return Ok(None);
                }
            }
            Some(live) if live.phase == Phase::Waiting => Some((Code::PROTOCOL_ERROR, "DATA before HEADERS")),
            Some(_) => Some((Code::STREAM_CLOSED, "DATA after END_STREAM")),
            None => match self.streams.ending(stream) {
                Ending::OurReset | Ending::Forgotten => None,
                Ending::PeerReset => Some((Code::STREAM_CLOSED, "DATA after RST_STREAM")),
                Ending::Both | Ending::Skipped => {
                    return Err(TransportError::new(Code::STREAM_CLOSED, "DATA on a closed stream"));
                }
            },
        };
        self.step = if head.length == 0 { Step::Head } else { Step::Ignored { left, extra } };
        refusal.map(|(code, reason)| self.stream_error(now, stream, code, reason)).transpose()
    }

    /// Hands out what is there of the current DATA frame.
    fn data_piece<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'static, 'i>> {
        let Step::Data { stream, data, padding, extra, is_end } = self.step else {
            unreachable!("called inside a DATA frame")
        };
        let Some(live) = self.streams.get(stream) else {
            self.step = Step::Ignored { left: data + padding, extra }; // closed since the frame began
            return None;
        };
        let octets = take(input, (data as usize).min(input.len()));
        #[expect(clippy::cast_possible_truncation, reason = "at most `data`")]
        let data_taken = octets.len() as u32;
        let padding_taken = take_up_to(input, padding);
        let (data, padding) = (data - data_taken, padding - padding_taken);
        let is_whole = data == 0 && padding == 0;
        self.step = if is_whole { Step::Head } else { Step::Data { stream, data, padding, extra: 0, is_end } };
        let end_stream = is_whole && is_end;
        if end_stream {
            live.phase = Phase::Ended;
        }
        Some(Event::Data { stream, octets, flow_octets: data_taken + padding_taken + extra, end_stream })
    }

    /// The peer's mistake costs a stream: forgets it, and counts (what the peer makes us reset it may not make us
    /// reset without end).
    fn stream_error(
        &mut self,
        now: Instant,
        stream: StreamId,
        code: Code,
        reason: &'static str,
    ) -> Result<Event<'static, 'static>, TransportError> {
        self.flood.count(now, Counted::Reset)?;
        self.streams.end(stream, Ending::OurReset);
        Ok(Event::StreamError { stream, code, reason })
    }

    /// The window of a stream that starts now.
    fn stream_window(&self) -> RecvWindow {
        RecvWindow::new(self.limits.initial_window, self.stream_window_open)
    }

    /// The peer has our SETTINGS: from here on it knows how small a window may start.
    fn settings_applied(&mut self) {
        let shrink = self.stream_window_open - self.limits.initial_window;
        if shrink > 0 {
            self.stream_window_open = self.limits.initial_window;
            self.streams.iter_mut().for_each(|stream| stream.window.shrink(shrink));
        }
    }
}

impl Step {
    /// Whether this step can be taken without another octet.
    fn is_empty_payload(&self) -> bool {
        match *self {
            Self::Data { data, padding, .. } => data == 0 && padding == 0,
            Self::Ignored { left, .. } => left == 0,
            Self::Payload { keep, .. } => keep == 0,
            _ => false,
        }
    }
}

/// The step behind a payload of which `left` octets remain.
fn after(left: u32, inside: impl FnOnce(u32) -> Step) -> Step {
    if left == 0 { Step::Head } else { inside(left) }
}

/// A frame that has one length only.
fn exactly(head: Head, length: u32, reason: &'static str) -> Result<u32, TransportError> {
    if head.length == length { Ok(length) } else { Err(TransportError::frame_size(reason)) }
}

/// Takes `count` octets off the front; the caller knows that they are there.
fn take<'i>(input: &mut &'i [u8], count: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(count);
    *input = rest;
    taken
}

/// Takes at most `count` octets off the front and says how many.
#[expect(clippy::cast_possible_truncation, reason = "the result is at most `count`")]
fn take_up_to(input: &mut &[u8], count: u32) -> u32 {
    let taken = input.len().min(count as usize);
    *input = &input[taken..];
    taken as u32
}

/// The same buffer for the next frame, unless it grew large.
fn emptied(mut octets: Vec<u8>) -> Vec<u8> {
    octets.clear();
    if octets.capacity() > KEPT_OCTETS { Vec::new() } else { octets }
}
