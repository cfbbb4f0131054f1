//! Frames by kind: which may come when, and what the short ones say.

use std::time::Instant;

use super::{Event, Recv, Step, after};
use crate::h2::flood::Counted;
use crate::h2::streams::Ending;
use crate::h2::{Code, FRAME_OCTETS_MIN, Head, Kind, Role, Settings, StreamId, TransportError, flag, frame};

/// Most octets of one SETTINGS frame.
const SETTINGS_OCTETS_MAX: u32 = FRAME_OCTETS_MIN;

impl Recv {
    /// Judges a head and decides what its payload is to us.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        head: Head,
    ) -> Result<Option<Event<'static, 'static>>, TransportError> {
        self.list.release(); // whoever asked for its fields has seen them
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

    /// Reads a control or header frame. `begin` has checked its length and that the stream may have it.
    pub(super) fn frame(
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
}

/// A frame that has one length only.
fn exactly(head: Head, length: u32, reason: &'static str) -> Result<u32, TransportError> {
    if head.length == length { Ok(length) } else { Err(TransportError::frame_size(reason)) }
}
