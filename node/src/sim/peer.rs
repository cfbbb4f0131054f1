//! A scripted client: one transport and the manners of its reader. It writes and reads a pipe.

use super::channel::{Channel, Kind, Stage};
use super::history::{Conn, History};
use crate::io::sim::{Dice, Endpoint, PeerSees};
use slimline_wire::grpc::OPEN_CHANNEL_PATH;
use slimline_wire::h2::{Code, Event, Limits, Recv, Role, Send, StreamId};
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
    /// Octets it wrote and read so far.
    pub(super) wrote: u64,
    pub(super) read: u64,
    /// It did something for which a node may end it.
    pub(super) is_excused: bool,
    /// It has finished, or broken off talking HTTP/2: nothing more is to be asked of it.
    pub(super) is_leaving: bool,
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
            wrote: 0,
            read: 0,
            is_excused: false,
            is_leaving: false,
        };
        peer.send.start(&mut peer.out);
        peer
    }

    /// Opens a stream and asks for a link at once, without waiting for anything.
    pub(super) fn open_channel(&mut self, conn: Conn, kind: Kind, dice: &mut Dice) {
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
        let channel = Channel::new(conn, stream, kind, dice);
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

    /// Whether all it has to say has arrived.
    pub(super) fn has_said_all(&self) -> bool {
        let queued: usize = self.channels.iter().map(Channel::queued).sum();
        self.out.is_empty() && queued == 0 && self.end.as_ref().is_none_or(|end| end.unreceived() == 0)
    }

    /// From here on the node may end it; what it has published may be lost.
    pub(super) fn excuse(&mut self, history: &mut History) {
        self.is_excused = true;
        self.is_leaving = true;
        for channel in &self.channels {
            history.cut_off(channel.conn);
        }
    }

    pub(super) fn ping(&mut self, payload: [u8; 8]) {
        self.send.ping(payload, &mut self.out);
    }

    /// Moves octets both ways: some, not all.
    pub(super) fn pump(&mut self, now: Instant, history: &mut History, dice: &mut Dice) {
        let is_reset = self.end.as_ref().is_some_and(|end| end.sees() == PeerSees::Reset);
        if self.listens(now) || is_reset {
            self.listen(now, history, dice);
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
        let count = end.write(&waiting[..most.min(waiting.len())]);
        self.written += count;
        self.wrote += count as u64;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    fn listen(&mut self, now: Instant, history: &mut History, dice: &mut Dice) {
        let Some(end) = &self.end else { return };
        let mut inbox = std::mem::take(&mut self.inbox);
        let most = if dice.happens(300) { 1 + dice.below(20_000) } else { 64 * 1024 };
        self.read += end.read(most, &mut inbox) as u64;
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
        channel.forget_queue();
        if in_order {
            history.ended(channel.conn);
            assert!(channel.is_between_messages(), "connection {} ended within a message", channel.conn);
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
                self.channels.iter_mut().for_each(Channel::forget_queue);
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
        self.excuse(history);
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

fn status_of(field: Option<&[u8]>) -> u32 {
    let text = field.map(String::from_utf8_lossy).unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("a stream ended without a grpc-status: {text:?}"))
}

/// Octets a client writes ahead of its pipe.
const OUT_OCTETS_MAX: usize = 64 * 1024;
