//! The control thread: owner of the RIB, the only writer of routes.
//!
//! Shards send [`Request`]s; each pass decides a batch of them, publishes the deltas to every shard's log, and hands the
//! answers back as [`Order`]s once every shard has the deltas (architecture §4, ack truth). [`Control::pass`] is sans-IO:
//! the thread in `control/thread.rs` drives it, and so does the simulator.

pub(crate) mod inventory;
pub mod stats;
pub(crate) mod thread;

use crate::limits::{REQUESTS_PER_PASS, SWEEP_BATCHES_AHEAD, SWEEP_PER_PASS};
use crate::mesh::LogWriter;
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
    /// Accept nothing more and take no more messages; answer when everything taken so far is on its way.
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
    log: LogWriter,
    /// Answers that leave when every shard has the version.
    unsettled: VecDeque<(Version, Vec<Order>)>,
    /// A batch that found a shard too far behind, and the answers that go with it.
    refused: Option<(Arc<[Delta]>, Vec<Order>)>,
    /// Departed connections whose records are gone: their slots are free once the deltas of this pass are published.
    freed: Vec<ConnId>,
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
    /// Nothing to do until somebody rings: a new request, or a shard that applied its log.
    Idle,
}

impl Control {
    pub(crate) fn new(rib: Rib, requests: Vec<Arc<ArrayQueue<Request>>>, orders: Vec<Orders>, log: LogWriter) -> Self {
        let shards = orders.len();
        Self {
            rib,
            requests,
            orders,
            log,
            unsettled: VecDeque::new(),
            refused: None,
            freed: Vec::new(),
            sweeping: false,
            deltas: Vec::new(),
            ring: vec![false; shards],
        }
    }

    /// Decides what waits, publishes it, and hands out what is settled.
    pub(crate) fn pass(&mut self) -> PassOutcome {
        let mut taken = 0;
        // A shard that is far behind stops us from deciding more, until it has caught up.
        if self.publish_refused() {
            let mut answers = Vec::new();
            for shard in 0..self.requests.len() {
                let queue = Arc::clone(&self.requests[shard]);
                for _ in 0..(REQUESTS_PER_PASS / self.requests.len()).max(1) {
                    let Some(request) = queue.pop() else { break };
                    taken += 1;
                    self.decide(request, &mut answers);
                }
            }
            self.sweep();
            self.publish(answers);
        }
        while let Some(&(version, _)) = self.unsettled.front()
            && self.log.have_all(version)
        {
            for answer in self.unsettled.pop_front().map(|(_, answers)| answers).unwrap_or_default() {
                self.send(answer);
            }
        }
        if taken > 0 || self.may_sweep() { PassOutcome::Busy } else { PassOutcome::Idle }
    }

    /// Publishes a batch that found the log full; true when none is left over.
    fn publish_refused(&mut self) -> bool {
        let Some((batch, answers)) = self.refused.take() else { return true };
        match self.log.publish(batch) {
            Ok(version) => {
                self.unsettled.push_back((version, answers));
                true
            }
            Err(batch) => {
                self.refused = Some((batch, answers));
                false
            }
        }
    }

    /// Publishes the deltas of a pass; its answers leave once every shard has them, in the order of the requests.
    fn publish(&mut self, mut answers: Vec<Order>) {
        // Every replica reads the last removal before anything of the slot's next user: the slot is free.
        answers.extend(self.freed.drain(..).map(|conn| Order::Release { conn }));
        if !self.deltas.is_empty() {
            let batch: Arc<[Delta]> = Arc::from(self.deltas.as_slice());
            self.deltas.clear();
            self.refused = Some((batch, answers));
            self.publish_refused();
        } else if !answers.is_empty() {
            // Nothing changed, but answers keep their order behind earlier ones.
            self.unsettled.push_back((self.log.version(), answers));
        }
    }

    /// Whether a sleep should not begin: requests wait, an answer is due, or sweeping can go on.
    pub(crate) fn has_work(&mut self) -> bool {
        self.requests.iter().any(|queue| !queue.is_empty())
            || self.may_sweep()
            || self.unsettled.front().map(|&(version, _)| version).is_some_and(|version| self.log.have_all(version))
    }

    /// Says "about to sleep"; whoever has news rings from now on.
    pub(crate) fn park(&mut self) {
        self.log.park();
    }

    /// Awake again.
    pub(crate) fn unpark(&mut self) {
        self.log.unpark();
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

    /// Whether there is something to sweep, and no replica is far behind with what was swept before: whoever asks for
    /// something meanwhile waits for little of it.
    fn may_sweep(&self) -> bool {
        self.sweeping && self.refused.is_none() && self.log.is_applied_but(SWEEP_BATCHES_AHEAD)
    }

    fn sweep(&mut self) {
        if self.may_sweep() {
            let swept = self.rib.sweep(SWEEP_PER_PASS, &mut self.deltas);
            self.sweeping = !self.rib.is_swept();
            self.freed.extend(swept.done);
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

    /// Whether nothing waits here: no request, no answer, no departure.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.unsettled.is_empty()
            && self.refused.is_none()
            && !self.sweeping
            && self.requests.iter().all(|queue| queue.is_empty())
    }

    /// How many names are subscribed now.
    pub(crate) fn names(&self) -> usize {
        self.rib.names()
    }
}
