//! The send half: what we may send, and how it is framed.

use super::frame;
use super::hpack::Encoder;
use super::{
    Code, FRAME_OCTETS_MIN, Head, Kind, Limits, PREFACE, Role, Settings, StreamId, TransportError, WINDOW_AT_START,
    WINDOW_MAX, flag,
};

/// What a WINDOW_UPDATE broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The transport has to end.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// One stream has to: answer RST_STREAM. It is gone from this half; `Recv::close` is the caller's.
    #[error("stream {stream}: {code}: {reason}")]
    Stream {
        /// The stream.
        stream: StreamId,
        /// What RST_STREAM says.
        code: Code,
        /// For the log.
        reason: &'static str,
    },
}

/// WINDOW_UPDATEs a peer may send before it got any data.
const UPDATES_AT_START: u32 = 1000;

/// WINDOW_UPDATEs that each stream entitles to: peers enlarge a stream's window when they open it.
const UPDATES_PER_STREAM: u32 = 16;

/// WINDOW_UPDATEs that each [`Send::begin_data`] entitles to: one for the stream, one for the transport, and as many
/// again for peers that are generous with them.
const UPDATES_PER_DATA: u32 = 4;

/// Octets of data that entitle to one more, for peers that read in small pieces.
const OCTETS_PER_UPDATE: u32 = 1024;

/// Most WINDOW_UPDATEs a peer may save up.
const UPDATES_MAX: u32 = 1 << 18;

/// Streams a peer may lose to overflowing their windows before it loses the transport.
const OVERFLOWS_MAX: u32 = 100;

/// Stands for "no frame to extend".
const SEALED: usize = usize::MAX;

#[derive(Clone, Copy, Debug)]
struct Stream {
    id: StreamId,
    /// Below zero when the peer's SETTINGS took back more than was left. Source: RFC 9113 §6.9.2.
    window: i64,
}

/// The last DATA frame in the caller's buffer.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// Where its head starts.
    at: usize,
    /// Where its payload ends once the caller has appended it; [`SEALED`] when it can no longer grow.
    end: usize,
    stream: StreamId,
    length: u32,
}

/// The send half of a transport. All writers append to `out`.
///
/// Small messages to one stream share a DATA frame as long as nothing else comes between them and the buffer has not
/// been handed on ([`Send::seal`]); nine octets and the peer's work are per frame, not per message.
///
/// A peer's WINDOW_UPDATEs are paid for: each stream we open and each piece of data we send allows a few, up to a
/// maximum; a peer that sends more than that has no honest reason to.
///
/// Source: RFC 9113 §4.1, §5.2, §6.
#[derive(Debug)]
pub struct Send {
    role: Role,
    limits: Limits,
    /// The transport's window; it can not fall below zero, but shares its type with the streams'.
    window: i64,
    streams: Vec<Stream>,
    hint: usize,
    tail: Tail,
    /// Largest frame payload the peer accepts.
    max_frame_size: u32,
    /// Where the peer wants a new stream's window to start.
    initial_window: u32,
    peer_streams_max: u32,
    updates_left: u32,
    overflows: u32,
    data_sent: u32,
    encoder: Encoder,
}

impl Send {
    /// A sender that has said nothing yet.
    #[must_use]
    pub fn new(role: Role, limits: &Limits) -> Self {
        Self {
            role,
            limits: limits.in_range(),
            window: i64::from(WINDOW_AT_START),
            streams: Vec::new(),
            hint: 0,
            tail: Tail { at: 0, end: SEALED, stream: StreamId::TRANSPORT, length: 0 },
            max_frame_size: FRAME_OCTETS_MIN,
            initial_window: WINDOW_AT_START,
            peer_streams_max: u32::MAX,
            updates_left: UPDATES_AT_START,
            overflows: 0,
            data_sent: 0,
            encoder: Encoder::new(),
        }
    }

    /// Says hello: the client's preface, our SETTINGS, and the transport window where it is larger than at the start.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if self.role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        Settings::announcing(&self.limits, self.role).write(out);
        let increment = self.limits.transport_window - WINDOW_AT_START;
        if increment > 0 {
            self.write_window_update(StreamId::TRANSPORT, increment, out);
        }
    }

    /// Applies the peer's SETTINGS and acknowledges them.
    ///
    /// Errors: FLOW_CONTROL_ERROR when a stream's window passes its maximum. Source: RFC 9113 §6.5.3, §6.9.2.
    pub fn settings(&mut self, settings: &Settings, out: &mut Vec<u8>) -> Result<(), TransportError> {
        if let Some(initial) = settings.initial_window {
            let delta = i64::from(initial) - i64::from(self.initial_window);
            self.initial_window = initial;
            for stream in &mut self.streams {
                stream.window += delta;
                if stream.window > i64::from(WINDOW_MAX) {
                    return Err(TransportError::new(Code::FLOW_CONTROL_ERROR, "SETTINGS overflow a stream's window"));
                }
            }
        }
        if let Some(octets) = settings.max_frame_size {
            self.max_frame_size = octets;
        }
        if let Some(octets) = settings.header_table_size {
            self.encoder.table_size(octets);
        }
        if let Some(streams) = settings.streams_max {
            self.peer_streams_max = streams;
        }
        frame::write(Kind::SETTINGS, flag::ACK, StreamId::TRANSPORT, &[], out);
        Ok(())
    }

    /// Answers a PING.
    pub fn ping_ack(&mut self, octets: [u8; 8], out: &mut Vec<u8>) {
        frame::write(Kind::PING, flag::ACK, StreamId::TRANSPORT, &octets, out);
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self, octets: [u8; 8], out: &mut Vec<u8>) {
        frame::write(Kind::PING, 0, StreamId::TRANSPORT, &octets, out);
    }

    /// Says that no stream of the peer's above `last` was or will be looked at.
    pub fn goaway(&mut self, last: StreamId, code: Code, debug: &[u8], out: &mut Vec<u8>) {
        frame::write_goaway(last, code, debug, out);
    }

    /// Gives a stream up.
    pub fn reset(&mut self, stream: StreamId, code: Code, out: &mut Vec<u8>) {
        frame::write(Kind::RST_STREAM, 0, stream, &code.0.to_be_bytes(), out);
    }

    /// Lets the peer send `increment` octets more: what `Recv::credit_stream` or `credit_transport` asked for.
    #[inline]
    pub fn write_window_update(&mut self, stream: StreamId, increment: u32, out: &mut Vec<u8>) {
        debug_assert!((1..=WINDOW_MAX).contains(&increment), "an increment has 31 bits and is not zero");
        frame::write(Kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes(), out);
    }

    /// Registers a stream's send window.
    pub fn open(&mut self, stream: StreamId) {
        self.updates_left = (self.updates_left + UPDATES_PER_STREAM).min(UPDATES_MAX);
        let window = i64::from(self.initial_window);
        match self.streams.binary_search_by_key(&stream, |known| known.id) {
            Ok(_) => debug_assert!(false, "stream {stream} opened twice"),
            Err(place) => self.streams.insert(place, Stream { id: stream, window }),
        }
    }

    /// Forgets a stream; nothing more can be sent on it.
    pub fn close(&mut self, stream: StreamId) {
        if let Ok(place) = self.streams.binary_search_by_key(&stream, |known| known.id) {
            self.streams.remove(place);
        }
        if self.tail.stream == stream {
            self.seal();
        }
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams the peer lets us have open at once.
    #[must_use]
    pub fn peer_streams_max(&self) -> u32 {
        self.peer_streams_max
    }

    /// Largest frame payload the peer accepts.
    #[inline]
    #[must_use]
    pub fn max_frame_size(&self) -> u32 {
        self.max_frame_size
    }

    /// The peer lets us send more. Frames for streams that are not open are fine (RFC 9113 §5.1).
    ///
    /// Errors: a window past its maximum; more frames than what we sent can explain.
    pub fn window_update(&mut self, stream: StreamId, increment: u32) -> Result<(), WindowError> {
        self.updates_left = self
            .updates_left
            .checked_sub(1)
            .ok_or(TransportError::calm("WINDOW_UPDATE: more than the DATA sent can explain"))?;
        if stream == StreamId::TRANSPORT {
            self.window += i64::from(increment);
            if self.window > i64::from(WINDOW_MAX) {
                let reason = "WINDOW_UPDATE overflows the transport's window";
                return Err(TransportError::new(Code::FLOW_CONTROL_ERROR, reason).into());
            }
            return Ok(());
        }
        let Some(place) = self.find(stream) else { return Ok(()) };
        let window = &mut self.streams[place].window;
        *window += i64::from(increment);
        if *window <= i64::from(WINDOW_MAX) {
            return Ok(());
        }
        self.close(stream);
        self.overflows += 1;
        if self.overflows > OVERFLOWS_MAX {
            return Err(TransportError::calm("WINDOW_UPDATE: too many streams overflowed").into());
        }
        let (code, reason) = (Code::FLOW_CONTROL_ERROR, "WINDOW_UPDATE overflows the stream's window");
        Err(WindowError::Stream { stream, code, reason })
    }

    /// Writes a header section, in as many frames as the peer's frame size asks for.
    ///
    /// Names are lower-case and pseudo-headers come first.
    pub fn headers<'a>(
        &mut self,
        stream: StreamId,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        let at = out.len();
        out.extend_from_slice(&[0; Head::OCTETS]);
        self.encoder.encode(fields, out);
        let length = out.len() - at - Head::OCTETS;
        let max = self.max_frame_size as usize;
        let rest = if length > max { out.split_off(at + Head::OCTETS + max) } else { Vec::new() };
        let end_headers = |is_last: bool| if is_last { flag::END_HEADERS } else { 0 };
        let flags = end_headers(rest.is_empty()) | if end_stream { flag::END_STREAM } else { 0 };
        let length = u32::try_from(length.min(max)).expect("within a frame");
        out[at..at + Head::OCTETS].copy_from_slice(&Head { length, kind: Kind::HEADERS, flags, stream }.to_wire());
        let mut fragments = rest.chunks(max).peekable();
        while let Some(fragment) = fragments.next() {
            frame::write(Kind::CONTINUATION, end_headers(fragments.peek().is_none()), stream, fragment, out);
        }
    }

    /// Octets of DATA that `stream` may carry now: the smaller of its window and the transport's.
    #[inline]
    #[must_use]
    pub fn window(&self, stream: StreamId) -> u32 {
        let window = match self.streams.get(self.hint) {
            Some(known) if known.id == stream => known.window,
            _ => match self.streams.binary_search_by_key(&stream, |known| known.id) {
                Ok(place) => self.streams[place].window,
                Err(_) => return 0,
            },
        };
        u32::try_from(window.min(self.window).max(0)).unwrap_or(WINDOW_MAX)
    }

    /// Octets of DATA the transport's window allows, whatever the streams' do; never below zero.
    #[must_use]
    pub const fn transport_window(&self) -> i64 {
        self.window
    }

    /// Makes room for exactly `octets` of `stream`'s data in one frame at the end of `out`: extends the DATA frame
    /// that ends there if it is this stream's and stays within the peer's frame size, else writes a new head. Takes
    /// the octets from both windows. On true, the caller appends exactly `octets` octets before anything else.
    ///
    /// False, and nothing written, when a window or the frame size does not allow it.
    #[inline]
    #[must_use]
    pub fn begin_data(&mut self, stream: StreamId, octets: u32, out: &mut Vec<u8>) -> bool {
        let wanted = i64::from(octets);
        let Some(place) = self.find(stream) else { return false };
        let window = &mut self.streams[place].window;
        if wanted > *window || wanted > self.window || octets > self.max_frame_size {
            return false;
        }
        *window -= wanted;
        self.window -= wanted;
        let earned = UPDATES_PER_DATA + octets / OCTETS_PER_UPDATE;
        self.updates_left = (self.updates_left + earned).min(UPDATES_MAX);
        self.data_sent = self.data_sent.saturating_add(1);
        let start = out.len();
        if self.tail.end == start
            && self.tail.stream == stream
            && octets <= self.max_frame_size.saturating_sub(self.tail.length)
            && let Some(length) = out.get_mut(self.tail.at..self.tail.at + 3)
        {
            self.tail.length += octets;
            self.tail.end = start + octets as usize;
            length.copy_from_slice(&self.tail.length.to_be_bytes()[1..]);
        } else {
            let head = Head { length: octets, kind: Kind::DATA, flags: 0, stream };
            out.extend_from_slice(&head.to_wire());
            self.tail = Tail { at: start, end: start + Head::OCTETS + octets as usize, stream, length: octets };
        }
        true
    }

    /// Writes as much of `octets` as the windows allow, in as many frames as it takes; returns how many were taken.
    ///
    /// `is_end` ends our half of the stream if everything was taken; the END_STREAM of an empty frame needs no window.
    pub fn data(&mut self, stream: StreamId, octets: &[u8], is_end: bool, out: &mut Vec<u8>) -> usize {
        let mut left = octets;
        while !left.is_empty() {
            let room = match self.max_frame_size.saturating_sub(self.tail.length) {
                1.. if self.is_tail(stream, out) => self.max_frame_size - self.tail.length,
                _ => self.max_frame_size,
            };
            let count = left.len().min(room.min(self.window(stream)) as usize);
            let count_wire = u32::try_from(count).expect("within a window");
            if count == 0 || !self.begin_data(stream, count_wire, out) {
                return octets.len() - left.len();
            }
            let (piece, rest) = left.split_at(count);
            out.extend_from_slice(piece);
            left = rest;
        }
        if is_end {
            self.end(stream, out);
        }
        octets.len()
    }

    /// `out` was handed on: the frame at its end can no longer be extended.
    #[inline]
    pub fn seal(&mut self) {
        self.tail.end = SEALED;
    }

    /// DATA frames and pieces written since the last call; for [`Recv::data_sent`], once per flush or so.
    ///
    /// [`Recv::data_sent`]: super::Recv::data_sent
    #[inline]
    #[must_use]
    pub fn take_data_sent(&mut self) -> u32 {
        std::mem::take(&mut self.data_sent)
    }

    /// Sets END_STREAM on the frame at the end, or writes an empty one that has it.
    fn end(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        if self.is_tail(stream, out) {
            out[self.tail.at + 4] |= flag::END_STREAM;
        } else {
            frame::write(Kind::DATA, flag::END_STREAM, stream, &[], out);
        }
        self.seal();
    }

    /// Whether `out` ends with a DATA frame of `stream` that may still change.
    fn is_tail(&self, stream: StreamId, out: &[u8]) -> bool {
        self.tail.end == out.len() && self.tail.stream == stream
    }

    #[inline]
    fn find(&mut self, stream: StreamId) -> Option<usize> {
        match self.streams.get(self.hint) {
            Some(known) if known.id == stream => {}
            _ => self.hint = self.streams.binary_search_by_key(&stream, |known| known.id).ok()?,
        }
        Some(self.hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: StreamId = StreamId::new(1);
    const THREE: StreamId = StreamId::new(3);

    fn sender() -> (Send, Vec<u8>) {
        let mut send = Send::new(Role::Server, &Limits::default());
        send.open(ONE);
        send.open(THREE);
        (send, Vec::new())
    }

    /// Length, flags and stream of each frame.
    fn frames(mut octets: &[u8]) -> Vec<(u32, u8, u32)> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = Head::split(octets) {
            frames.push((head.length, head.flags, head.stream.get()));
            octets = &rest[head.length as usize..];
        }
        assert!(octets.is_empty(), "frames are whole");
        frames
    }

    fn append(send: &mut Send, stream: StreamId, octets: u32, out: &mut Vec<u8>) -> bool {
        let has_room = send.begin_data(stream, octets, out);
        if has_room {
            out.extend(std::iter::repeat_n(7, octets as usize));
        }
        has_room
    }

    #[test]
    fn messages_share_a_frame_until_something_is_between_them() {
        let (mut send, mut out) = sender();
        assert!(append(&mut send, ONE, 10, &mut out) && append(&mut send, ONE, 20, &mut out));
        assert!(append(&mut send, THREE, 5, &mut out) && append(&mut send, ONE, 1, &mut out));
        send.ping([0; 8], &mut out);
        assert!(append(&mut send, ONE, 2, &mut out));
        send.seal();
        assert!(append(&mut send, ONE, 3, &mut out));
        assert_eq!(send.data(ONE, &[0; 4], true, &mut out), 4);
        assert_eq!(frames(&out), [(30, 0, 1), (5, 0, 3), (1, 0, 1), (8, 0, 0), (2, 0, 1), (7, flag::END_STREAM, 1)]);
        assert_eq!(send.take_data_sent(), 7);
    }

    #[test]
    fn a_frame_grows_to_the_peers_limit() {
        let (mut send, mut out) = sender();
        assert!(append(&mut send, ONE, 16_000, &mut out) && append(&mut send, ONE, 384, &mut out));
        assert!(append(&mut send, ONE, 1, &mut out));
        assert!(!append(&mut send, ONE, 16_385, &mut out), "no single frame holds that");
        assert_eq!(send.data(ONE, &[0; 20_000], false, &mut out), 20_000);
        assert_eq!(frames(&out), [(16_384, 0, 1), (16_384, 0, 1), (3617, 0, 1)]);
    }

    #[test]
    fn both_windows_are_kept() {
        let (mut send, mut out) = sender();
        assert_eq!(send.data(ONE, &[0; 60_000], false, &mut out), 60_000);
        assert_eq!((send.window(ONE), send.window(THREE)), (5535, 5535));
        assert!(!append(&mut send, THREE, 5536, &mut out), "the transport's window");
        send.window_update(StreamId::TRANSPORT, 100_000).unwrap();
        assert!(!append(&mut send, ONE, 5536, &mut out), "the stream's window");
        assert!(append(&mut send, THREE, 5536, &mut out));
        assert_eq!(send.data(ONE, &[0; 6000], true, &mut out), 5535, "what fits, and no END_STREAM");
        assert!(frames(&out).iter().all(|(_, flags, _)| *flags == 0));
        assert!(!append(&mut send, StreamId::new(5), 0, &mut out), "nobody opened it");
    }

    #[test]
    fn an_end_needs_no_window() {
        let (mut send, mut out) = sender();
        send.settings(&Settings { initial_window: Some(0), ..Settings::default() }, &mut out).unwrap();
        out.clear();
        assert_eq!(send.data(ONE, &[], true, &mut out), 0);
        assert_eq!(frames(&out), [(0, flag::END_STREAM, 1)]);
    }
}
