//! One OpenChannel stream: what a next hop points at.

use super::age::AgeLog;
use super::out_queue::OutQueue;
use slimline_fib::{ConnId, FanoutCursor};
use slimline_wire::ConnType;
use slimline_wire::grpc::Status;
use slimline_wire::h2::StreamId;
use slimline_wire::link::HeaderMac;
use std::time::Instant;

/// What two ends agreed on in link negotiation (slim-wire §4.2).
pub(crate) struct Link {
    pub(crate) kind: ConnType,
    /// Present once a key was agreed; Peers carry none on messages.
    pub(crate) mac: Option<Box<HeaderMac>>,
}

/// The part of a link people ask about.
#[derive(Debug)]
pub(crate) struct LinkFacts {
    pub(crate) link_id: String,
    pub(crate) slim_version: String,
    pub(crate) node_id: String,
    pub(crate) deployment_name: String,
    pub(crate) kind: ConnType,
}

/// Where a connection stands.
pub(crate) enum Phase {
    /// Waiting for the link negotiation message.
    Negotiating,
    /// Negotiated: messages flow.
    Up(Box<Link>),
}

/// Why a connection's stream stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A publish waits until every shard knows this connection's last subscriptions (architecture §4, ack truth).
    Settle,
    /// A publish addresses this congested connection.
    Target(ConnId),
    /// A publish addresses a shard whose ring is full.
    Shard(u16),
    /// A fan-out goes on in the next turn.
    Turn,
    /// Too many unacknowledged requests.
    Requests,
    /// The way to control is full.
    Control,
}

/// A message that could not be finished, and what came behind it on the same stream.
pub(crate) struct Parked {
    pub(crate) wait: Wait,
    /// The whole message; empty when only the octets behind it wait (`Wait::Requests`).
    pub(crate) message: Vec<u8>,
    pub(crate) cursor: FanoutCursor,
    /// Whether the header MAC was verified and counted already.
    pub(crate) resumed: bool,
}

/// How a receiving connection keeps up (architecture §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Takes what it is sent.
    Open,
    /// Queue above `high` and not yet below `low`: publishers that address it are parked.
    Congested,
    /// Congested for longer than `stall_after`: its copies are dropped.
    Stalled,
}

/// The last words to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) status: Status,
    pub(crate) text: &'static str,
}

/// One OpenChannel stream on a transport of this shard.
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// Slot and generation of the transport that carries it.
    pub(crate) transport: (u32, u32),
    pub(crate) stream: StreamId,
    pub(crate) phase: Phase,
    /// gRPC-framed messages that wait for a window or for room in the block.
    pub(crate) out: OutQueue,
    /// Octets queued here, in the block and in the kernel's hands, with their age.
    pub(crate) age: AgeLog,
    pub(crate) pressure: Pressure,
    /// In the shard's list of connections whose age is looked at.
    pub(crate) aging: bool,
    pub(crate) stall_logged: bool,
    pub(crate) mac_failure_logged: bool,
    pub(crate) oversize_logged: bool,
    pub(crate) malformed_logged: bool,
    /// Connections of this shard that are parked because of this one.
    pub(crate) waiters: Vec<ConnId>,
    /// Requests handed to control and not settled yet.
    pub(crate) requests: u32,
    pub(crate) parked: Option<Box<Parked>>,
    /// Octets of the stream that arrived while parked: at most the stream window.
    pub(crate) backlog: Vec<u8>,
    /// The peer ended its half while octets were still in the backlog.
    pub(crate) ended_by_peer: bool,
    /// How its stream ends once its queue is empty; its routes are gone already.
    pub(crate) ending: Option<Ending>,
    /// Its stream is gone: nothing can be sent to it, and it stays only until what it had parked is delivered.
    pub(crate) is_over: bool,
    /// Control was told that it left.
    pub(crate) departed: bool,
    /// Nothing names it any more: its slot is free as soon as it is gone itself.
    pub(crate) released: bool,
    pub(crate) since: Instant,
    pub(crate) dropped: u64,
}

impl Connection {
    pub(crate) fn new(id: ConnId, transport: (u32, u32), stream: StreamId, now: Instant) -> Self {
        Self {
            id,
            transport,
            stream,
            phase: Phase::Negotiating,
            out: OutQueue::default(),
            age: AgeLog::default(),
            pressure: Pressure::Open,
            aging: false,
            stall_logged: false,
            mac_failure_logged: false,
            oversize_logged: false,
            malformed_logged: false,
            waiters: Vec::new(),
            requests: 0,
            parked: None,
            backlog: Vec::new(),
            ended_by_peer: false,
            ending: None,
            is_over: false,
            departed: false,
            released: false,
            since: now,
            dropped: 0,
        }
    }

    /// Whether nothing it sent or is to be sent waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.out.is_empty() && self.parked.is_none() && self.requests == 0
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        match &self.phase {
            Phase::Up(link) => Some(link),
            Phase::Negotiating => None,
        }
    }
}
