//! The receive half: bytes in, events out.

use std::time::Instant;

mod data;
mod event;
mod frames;
mod headers;

pub use event::Event;

use super::flood::{Counted, Flood};
use super::flow::RecvWindow;
use super::hpack::Decoder;
use super::streams::{Ending, Phase, Stream, Streams};
use super::{Code, FieldList, Head, Kind, Limits, PREFACE, Role, StreamId, TransportError, WINDOW_AT_START};

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

    /// Whether a header block, or its first frame, has begun and not ended.
    #[must_use]
    pub fn is_in_header_block(&self) -> bool {
        self.block.is_some() || matches!(self.step, Step::Payload { head, .. } if head.kind == Kind::HEADERS)
    }

    /// Octets held of frames and header blocks that are not whole.
    #[must_use]
    pub fn held_octets(&self) -> usize {
        self.held.len() + self.fragments.len()
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
