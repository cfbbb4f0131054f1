//! Header blocks: collected, decoded, and asked what they mean for their stream.

use std::time::Instant;

use super::{Block, Event, Recv, Step, emptied};
use crate::h2::flood::Counted;
use crate::h2::hpack::HpackError;
use crate::h2::streams::{Ending, Phase, Stream};
use crate::h2::{Code, Fields, HEADER_LIST_TOO_LONG, Head, TransportError, check, flag, frame};

/// Padding length, padding, and the priority fields: what a HEADERS frame has beside its fragment.
const HEADERS_EXTRA_OCTETS: u32 = 1 + 255 + 5;

impl Recv {
    /// Bounds what a header block makes us hold.
    pub(super) fn check_block_octets(&self, length: u32) -> Result<(), TransportError> {
        let octets = self.fragments.len() + length as usize;
        if octets > self.limits.header_block_octets_max().saturating_add(HEADERS_EXTRA_OCTETS) as usize {
            return Err(TransportError::calm("header_list_octets_max: header block too long"));
        }
        Ok(())
    }

    pub(super) fn headers(
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

    pub(super) fn continuation(
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
    pub(super) fn finish_block(
        &mut self,
        now: Instant,
        block: Block,
        octets: &[u8],
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        self.decoder.decode(octets, &mut self.list).map_err(|error| match error {
            HpackError::Bomb => TransportError::calm(error.reason()),
            _ => TransportError::new(Code::COMPRESSION_ERROR, error.reason()),
        })?;
        if self.list.is_too_long() {
            self.list.release(); // nobody will look at it
        }
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
    pub(super) fn request(&mut self, block: Block) -> Result<Event<'static, 'static>, (Code, &'static str)> {
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
    pub(super) fn response(&mut self, block: Block) -> Result<Option<Event<'static, 'static>>, (Code, &'static str)> {
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

    pub(super) fn trailers(&mut self, block: Block) -> Result<Event<'static, 'static>, (Code, &'static str)> {
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
    pub(super) fn check_list(&self, block: Block) -> Result<(), (Code, &'static str)> {
        if block.depends_on_itself {
            return Err((Code::PROTOCOL_ERROR, "stream depends on itself"));
        }
        if self.list.is_too_long() {
            return Err((Code::ENHANCE_YOUR_CALM, HEADER_LIST_TOO_LONG));
        }
        Ok(())
    }

    /// PRIORITY decides nothing here; RFC 9113 §5.3.2 deprecates it, and keeps the rules on its shape (§6.3).
    pub(super) fn priority(
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
}
