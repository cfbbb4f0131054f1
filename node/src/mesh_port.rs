//! A shard's ends of the queues to and from the other shards.

use crate::conn::connection::Wait;
use crate::limits::{MESH_PER_TURN, OUTPUTS_PER_TURN};
use crate::shard::core::Core;
use crate::shard::forward::Outgoing;
use crate::wake::Bell;
use crossbeam::queue::ArrayQueue;
use slimline_fib::{ConnId, FanoutCursor, MatchFilter};
use slimline_wire::message::{MessageView, parse};
use std::sync::Arc;
use std::time::Instant;

/// Messages one shard may have on the way to another.
const QUEUE_MESSAGES: usize = 1024;
/// Of those, places kept for control: messages stop earlier.
const CONTROL_RESERVE: usize = 64;

/// What travels between shards.
enum Envelope {
    /// A message for one connection.
    One { hop: ConnId, message: Vec<u8>, ttl: u32 },
    /// A message for every connection of the receiving shard that asked for its name.
    All { from: ConnId, filter: MatchFilter, message: Vec<u8>, ttl: u32 },
    /// A connection became congested, or is no longer.
    Congested { conn: ConnId, congested: bool },
}

type Lane = Arc<ArrayQueue<Envelope>>;

/// The queues of one shard: `to[s]` towards shard s, `from[s]` from it; its own are unused.
pub(crate) struct MeshPort {
    index: usize,
    to: Vec<Lane>,
    from: Vec<Lane>,
    /// Shards that were sent something in this turn.
    sent: Vec<bool>,
}

/// The queues of a node with so many shards, one port each.
pub(crate) fn mesh(shards: usize) -> Vec<MeshPort> {
    let lanes: Vec<Vec<Lane>> = (0..shards)
        .map(|from| {
            let length = |to: usize| if from == to { 1 } else { QUEUE_MESSAGES };
            (0..shards).map(|to| Arc::new(ArrayQueue::new(length(to)))).collect()
        })
        .collect();
    (0..shards)
        .map(|index| MeshPort {
            index,
            to: lanes[index].iter().map(Arc::clone).collect(),
            from: lanes.iter().map(|row| Arc::clone(&row[index])).collect(),
            sent: vec![false; shards],
        })
        .collect()
}

impl MeshPort {
    /// Whether messages to `shard` have to wait.
    pub(crate) fn is_full(&self, shard: usize) -> bool {
        self.to[shard].len() + CONTROL_RESERVE >= QUEUE_MESSAGES
    }

    /// Sends a message to one connection of another shard; false when the way there is full.
    pub(crate) fn send_one(&mut self, hop: ConnId, outgoing: &Outgoing<'_>) -> bool {
        let shard = usize::from(hop.shard);
        if self.is_full(shard) {
            return false;
        }
        let envelope = Envelope::One { hop, message: outgoing.message.to_vec(), ttl: outgoing.ttl };
        self.sent[shard] = true;
        self.to[shard].push(envelope).is_ok()
    }

    /// Sends a message for every connection of `shard` that asked for its name; the caller saw that the way is not full.
    pub(crate) fn send_all(&mut self, from: ConnId, filter: MatchFilter, shard: usize, outgoing: &Outgoing<'_>) {
        let envelope = Envelope::All { from, filter, message: outgoing.message.to_vec(), ttl: outgoing.ttl };
        let pushed = self.to[shard].push(envelope).is_ok();
        debug_assert!(pushed, "one producer: what was not full stays so");
        self.sent[shard] = true;
    }

    /// Tells every other shard whether a connection of ours is congested.
    pub(crate) fn tell_congested(&mut self, conn: ConnId, congested: bool) {
        for shard in (0..self.to.len()).filter(|&shard| shard != self.index) {
            let _ = self.to[shard].push(Envelope::Congested { conn, congested });
            self.sent[shard] = true;
        }
    }

    /// Whether another shard left something for us.
    pub(crate) fn has_input(&self) -> bool {
        self.from.iter().any(|lane| !lane.is_empty())
    }

    /// Wakes the shards that were sent something.
    pub(crate) fn ring(&mut self, bells: &[Bell]) {
        for (shard, sent) in self.sent.iter_mut().enumerate() {
            if std::mem::take(sent) {
                bells[shard].ring();
            }
        }
    }
}

impl Core {
    /// Takes what other shards sent, at most so many in a turn from each.
    pub(crate) fn take_from_mesh(&mut self, now: Instant) {
        for lane in 0..self.mesh.from.len() {
            let queue = Arc::clone(&self.mesh.from[lane]);
            for _ in 0..MESH_PER_TURN {
                let Some(envelope) = queue.pop() else { break };
                match envelope {
                    Envelope::One { hop, message, ttl } => {
                        self.counters.mesh_in += 1;
                        self.deliver(&message, ttl, &[hop], now);
                    }
                    Envelope::All { from, filter, message, ttl } => {
                        self.counters.mesh_in += 1;
                        self.deliver_all(from, filter, &message, ttl, now);
                    }
                    Envelope::Congested { conn, congested: true } => {
                        self.congested_elsewhere.insert(conn);
                    }
                    Envelope::Congested { conn, congested: false } => {
                        self.congested_elsewhere.remove(&conn);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, message: &[u8], ttl: u32, hops: &[ConnId], now: Instant) {
        let Ok(MessageView::Publish(publish)) = parse(message) else {
            unreachable!("the sending shard read this message")
        };
        let outgoing = Outgoing { message, header: &publish.header, ttl };
        for hop in hops {
            self.enqueue(hop.slot, hop.generation, &outgoing, now);
        }
    }

    fn deliver_all(&mut self, from: ConnId, filter: MatchFilter, message: &[u8], ttl: u32, now: Instant) {
        let Ok(MessageView::Publish(publish)) = parse(message) else {
            unreachable!("the sending shard read this message")
        };
        let name = publish.header.destination.name;
        let outgoing = Outgoing { message, header: &publish.header, ttl };
        let (mut cursor, mut hops) = (FanoutCursor::default(), std::mem::take(&mut self.hops));
        loop {
            hops.clear();
            let more = self.fib.match_all(&name, from, filter, &mut cursor, &mut hops, OUTPUTS_PER_TURN);
            let own = self.index;
            for hop in hops.iter().filter(|hop| hop.shard == own) {
                self.enqueue(hop.slot, hop.generation, &outgoing, now);
            }
            if !more {
                break;
            }
        }
        hops.clear();
        self.hops = hops;
    }

    /// Lets connections go on that waited for another shard, where the reason is gone.
    pub(crate) fn retry_elsewhere(&mut self) {
        if self.parked_elsewhere.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.parked_elsewhere) {
            let Some(connection) = self.connections.get(id.slot, id.generation) else { continue };
            let wait = connection.parked.as_ref().map(|parked| parked.wait);
            let over = match wait {
                Some(Wait::Target(target)) => !self.congested_elsewhere.contains(&target),
                Some(Wait::Shard(shard)) => !self.mesh.is_full(usize::from(shard)),
                _ => true,
            };
            if over {
                self.ready.push(id);
            } else {
                self.parked_elsewhere.push(id);
            }
        }
    }
}
