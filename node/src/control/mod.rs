//! The control thread: owner of the RIB, the only writer of routes.
//!
//! Shards send [`Request`]s; each pass decides a batch of them, publishes the deltas to every shard's log, and hands the
//! answers back as [`Order`]s once every shard has the deltas (architecture §4, ack truth). [`Control::pass`] is sans-IO:
//! the thread in `control/thread.rs` drives it, and so does the simulator.

pub(crate) mod inventory;
pub mod stats;
pub(crate) mod thread;

use crate::delta_log::DeltaWriter;
use crate::limits::{REQUESTS_PER_PASS, SWEEP_PER_PASS};
use crate::shard::stats::ShardReport;
use crossbeam::channel::Sender;
use crossbeam::queue::{ArrayQueue, SegQueue};
use slimline_fib::{ConnId, Delta, Rib, Version};
use slimline_wire::{ConnType, Name};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a connection asks of the RIB.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) conn: ConnId,
    pub(crate) kind: RequestKind,
    pub(crate) subscription_id: u64,
}

/// The sorts of request.
#[derive(Debug)]
pub(crate) enum RequestKind {
    Subscribe {
        conn_type: ConnType,
        name: Name,
        text: Option<[Box<str>; 3]>,
    },
    Unsubscribe {
        conn_type: ConnType,
        name: Name,
    },
    /// The connection has ended.
    Gone,
}

/// What a shard is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// A request is decided and every shard knows; the text is the failure.
    Settled { conn: ConnId, subscription_id: u64, error: Option<Box<str>> },
    /// Nothing names this departed connection any more: its slot may be used again.
    Release { conn: ConnId },
    /// Take over an accepted socket.
    Adopt { listener: u16, socket: OwnedFd },
    /// Accept and read nothing more; answer when everything read so far is on its way.
    Quiesce(Sender<()>),
    /// Say goodbye: no new streams, end the present ones.
    Drain,
    /// Answer with the state of this shard.
    Report(Sender<ShardReport>),
    /// End the thread once everything is closed; at once if `now`.
    Stop { now: bool },
}

/// The road from control (and the accepting shard) to one shard.
pub(crate) type Orders = Arc<SegQueue<Order>>;

/// The RIB and everything that waits for the shards to know of its changes.
pub(crate) struct Control {
    rib: Rib,
    requests: Vec<Arc<ArrayQueue<Request>>>,
    orders: Vec<Orders>,
    log: DeltaWriter,
    /// Answers that leave when every shard has the version.
    unsettled: VecDeque<(Version, Vec<Order>)>,
    /// Departed connections have records left in the RIB.
    sweeping: bool,
    deltas: Vec<Delta>,
    /// Shards whose orders grew in this pass: they are rung at its end.
    pub(crate) ring: Vec<bool>,
}

/// Where a pass left things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassOutcome {
    /// There is more to do at once.
    Busy,
    /// Answers wait for shards to apply their logs.
    Waiting,
    /// Nothing to do until the next request.
    Idle,
}

impl Control {
    pub(crate) fn new(
        rib: Rib,
        requests: Vec<Arc<ArrayQueue<Request>>>,
        orders: Vec<Orders>,
        log: DeltaWriter,
    ) -> Self {
        let shards = orders.len();
        Self {
            rib,
            requests,
            orders,
            log,
            unsettled: VecDeque::new(),
            sweeping: false,
            deltas: Vec::new(),
            ring: vec![false; shards],
        }
    }

    /// Decides what waits, publishes it, and hands out what is settled.
    pub(crate) fn pass(&mut self) -> PassOutcome {
        let mut answers = Vec::new();
        let mut taken = 0;
        for shard in 0..self.requests.len() {
            let queue = Arc::clone(&self.requests[shard]);
            for _ in 0..REQUESTS_PER_PASS / self.requests.len() {
                let Some(request) = queue.pop() else { break };
                taken += 1;
                self.decide(request, &mut answers);
            }
        }
        if !self.deltas.is_empty() {
            let version = self.log.publish(Arc::from(std::mem::take(&mut self.deltas)));
            self.unsettled.push_back((version, answers));
        } else if !answers.is_empty() {
            // Nothing changed, but answers keep their order behind earlier ones.
            self.unsettled.push_back((self.log.version(), answers));
        }
        while self.unsettled.front().is_some_and(|(version, _)| self.log.have_all(*version)) {
            let Some((_, answers)) = self.unsettled.pop_front() else { break };
            for answer in answers {
                self.send(answer);
            }
        }
        self.sweep();
        if taken > 0 || self.sweeping {
            PassOutcome::Busy
        } else if self.unsettled.is_empty() {
            PassOutcome::Idle
        } else {
            PassOutcome::Waiting
        }
    }

    fn decide(&mut self, request: Request, answers: &mut Vec<Order>) {
        let Request { conn, kind, subscription_id } = request;
        let outcome = match kind {
            RequestKind::Subscribe { conn_type, name, text } => {
                let text = text.as_ref().map(|text| [&*text[0], &*text[1], &*text[2]]);
                self.rib.subscribe(conn, conn_type, name, text, subscription_id, &mut self.deltas)
            }
            RequestKind::Unsubscribe { conn_type, name } => {
                self.rib.unsubscribe(conn, conn_type, name, subscription_id, &mut self.deltas)
            }
            RequestKind::Gone => {
                self.rib.disconnect(conn, &mut self.deltas);
                self.sweeping = true;
                return;
            }
        };
        let error = outcome.err().map(|error| error.to_string().into_boxed_str());
        answers.push(Order::Settled { conn, subscription_id, error });
    }

    fn sweep(&mut self) {
        if self.sweeping {
            let swept = self.rib.sweep(SWEEP_PER_PASS, &mut self.deltas);
            self.sweeping = !self.rib.is_swept();
            if !self.deltas.is_empty() {
                self.log.publish(Arc::from(std::mem::take(&mut self.deltas)));
            }
            // Every replica reads the last removal before anything of the slot's next user: the slot is free.
            for conn in swept.done {
                self.send(Order::Release { conn });
            }
        }
    }

    fn send(&mut self, order: Order) {
        let shard = match &order {
            Order::Settled { conn, .. } | Order::Release { conn } => usize::from(conn.shard),
            _ => return,
        };
        self.orders[shard].push(order);
        self.ring[shard] = true;
    }

    /// Parked shards whose log grew long.
    pub(crate) fn behind(&self) -> Vec<usize> {
        self.log.behind().collect()
    }

    /// How many names are subscribed now.
    pub(crate) fn names(&self) -> usize {
        self.rib.names()
    }
}
