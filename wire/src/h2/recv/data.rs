//! DATA frames: charged to the windows and handed out as they arrive.

use std::time::Instant;

use super::{Event, Recv, Step, take, take_up_to};
use crate::h2::flood::Counted;
use crate::h2::frame::PADDING_TOO_LONG;
use crate::h2::streams::{Ending, Phase};
use crate::h2::{Code, Head, Kind, TransportError, flag};

impl Recv {
    /// The common case, and nothing else: an unpadded DATA frame that is whole and in order.
    #[inline]
    pub(super) fn whole_data<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'static, 'i>> {
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

    /// A DATA frame, its padding length known: charges the windows and decides who gets the octets.
    pub(super) fn data_head(
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
    pub(super) fn data_piece<'i>(&mut self, input: &mut &'i [u8]) -> Option<Event<'static, 'i>> {
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
}
