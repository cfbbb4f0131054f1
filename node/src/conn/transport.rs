//! One accepted or dialled socket: its HTTP/2 state, and the one send in flight.

use crate::io::Body as SharedBody;
use slimline_wire::grpc::Deframer;
use slimline_wire::h2::{Limits, Recv, Role, Send, StreamId};
use slimline_wire::message::KnownNames;
use std::time::Instant;

/// What a request stream turned out to be.
pub(crate) enum StreamRole {
    /// An OpenChannel stream: the connection's slot and generation, and how its octets are read.
    Channel { slot: u32, generation: u32, deframer: Deframer, names: KnownNames },
    /// `GET` or `HEAD` on `/healthz`, answered when the request has ended.
    Health { head: bool },
    /// `grpc.health.v1.Health/Check`, answered when the request has ended.
    HealthCheck,
    /// Another answer that is due when the request has ended.
    Refused { status: u16, grpc_status: Option<u32>, reason: &'static str },
    /// Already answered; what still comes is discarded.
    Answered,
}

/// A stream the peer opened and has not finished.
pub(crate) struct RxStream {
    pub(crate) id: StreamId,
    pub(crate) role: StreamRole,
}

/// The receive half: moved out of the transport while its bytes are handled, so that everything else stays reachable.
pub(crate) struct Rx {
    pub(crate) h2: Recv,
    pub(crate) streams: Vec<RxStream>,
    /// Whether the peer completed its preface with SETTINGS.
    pub(crate) settled: bool,
    /// Whether a request was ever seen.
    pub(crate) requested: bool,
}

impl Rx {
    pub(crate) fn stream(&mut self, id: StreamId) -> Option<&mut RxStream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// Takes a stream out; how many octets of an incomplete message it held.
    pub(crate) fn forget(&mut self, id: StreamId) -> usize {
        let before = self.held_octets();
        self.streams.retain(|stream| stream.id != id);
        before - self.held_octets()
    }

    /// Octets of incomplete messages.
    pub(crate) fn held_octets(&self) -> usize {
        self.streams
            .iter()
            .map(|stream| match &stream.role {
                StreamRole::Channel { deframer, .. } => deframer.held_octets(),
                _ => 0,
            })
            .sum()
    }
}

/// A plain answer on its way: flow-controlled like any other data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) stream: StreamId,
    /// What is still to be sent.
    pub(crate) octets: &'static [u8],
    /// Whether gRPC trailers end the stream, rather than the last octet.
    pub(crate) has_trailers: bool,
}

/// Whose octets lie in a block, for the age of each connection's queue.
pub(crate) type Shares = Vec<(u32, u32, usize)>;

/// The send half: what waits to be sent and what the kernel holds.
pub(crate) struct Tx {
    pub(crate) h2: Send,
    /// Frames that leave with the next send.
    pub(crate) fill: Vec<u8>,
    /// Bodies that leave between octets of `fill`, and their octets.
    pub(crate) fill_bodies: Vec<SharedBody>,
    pub(crate) fill_body_octets: usize,
    /// Octets of `fill` that are not messages: answers, acknowledgements, windows.
    pub(crate) control_octets: usize,
    /// Messages in `fill`, and when the first of them arrived; for the latency histogram.
    pub(crate) fill_messages: u32,
    pub(crate) fill_since: Option<Instant>,
    pub(crate) fill_shares: Shares,
    pub(crate) flight_shares: Shares,
    /// Octets of the block in the kernel's hands; 0 when none is.
    pub(crate) flight_octets: usize,
    /// Octets of that block already sent.
    pub(crate) flight_sent: usize,
    pub(crate) flight_since: Instant,
    /// Connections with octets in their own queue, in round-robin order: (slot, generation).
    pub(crate) backlogged: Vec<(u32, u32)>,
    /// Answers that wait for a window; as many as the peer may have streams.
    pub(crate) bodies: Vec<Body>,
}

impl Tx {
    /// Octets that leave with the next send.
    #[inline]
    pub(crate) fn fill_octets(&self) -> usize {
        self.fill.len() + self.fill_body_octets
    }
}

/// How far a transport is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// In service.
    No,
    /// Sends what it holds, then says that nothing more will come; what is read is thrown away.
    AfterSend,
    /// Everything is sent and our half is closed: waits for the peer's end, so that a reset cannot cost it our last words.
    Finishing,
    /// The socket is being closed; nothing is sent any more.
    Closed,
}

/// A transport on this shard.
pub(crate) struct Transport {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    /// Index of the listener that accepted it.
    pub(crate) listener: u16,
    /// `None` only while its bytes are being handled.
    pub(crate) rx: Option<Box<Rx>>,
    pub(crate) tx: Tx,
    /// Connections it carries: (slot, generation).
    pub(crate) connections: Vec<(u32, u32)>,
    pub(crate) closing: Closing,
    pub(crate) closing_since: Option<Instant>,
    /// The peer closed its half of the socket.
    pub(crate) peer_ended: bool,
    /// When the timer will look at it; earlier entries of the heap that say otherwise are stale.
    pub(crate) look_at: Option<Instant>,
    /// In the shard's list of transports to flush at the end of the turn.
    pub(crate) touched: bool,
    /// Octets received since the last send: decides about quick acknowledgement.
    pub(crate) unanswered: usize,
    pub(crate) since: Instant,
    /// The last moment the peer was heard of, and whether a PING of ours is unanswered.
    pub(crate) heard: Instant,
    pub(crate) ping_sent: Option<Instant>,
    pub(crate) goaway_sent: bool,
    /// Since when a header block is open, and the stream before it.
    pub(crate) headers_since: Option<(Instant, StreamId)>,
}

impl Transport {
    pub(crate) fn new(slot: u32, generation: u32, listener: u16, limits: &Limits, now: Instant) -> Self {
        Self {
            slot,
            generation,
            listener,
            rx: Some(Box::new(Rx {
                h2: Recv::new(Role::Server, limits),
                streams: Vec::new(),
                settled: false,
                requested: false,
            })),
            tx: Tx {
                h2: Send::new(Role::Server, limits),
                fill: Vec::new(),
                fill_bodies: Vec::new(),
                fill_body_octets: 0,
                control_octets: 0,
                fill_messages: 0,
                fill_since: None,
                fill_shares: Vec::new(),
                flight_shares: Vec::new(),
                flight_octets: 0,
                flight_sent: 0,
                flight_since: now,
                backlogged: Vec::new(),
                bodies: Vec::new(),
            },
            connections: Vec::new(),
            closing: Closing::No,
            closing_since: None,
            peer_ended: false,
            look_at: None,
            touched: false,
            unanswered: 0,
            since: now,
            heard: now,
            ping_sent: None,
            goaway_sent: false,
            headers_since: None,
        }
    }
}
