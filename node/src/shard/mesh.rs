//! A shard's ends of the rings to and from the other shards, and what the records in them mean.
//!
//! A record is a plan of [`PLAN_OCTETS`] octets, then the message as it came. The receiving shard reads the message again
//! from its own replica's point of view, rewrites and signs it for its own links. Large messages travel beside the ring.

use super::core::Core;
use super::forward::Outgoing;
use crate::conn::connection::Wait;
use crate::limits::{MESH_OCTETS_MAX, MESH_PER_TURN, OUTPUTS_PER_TURN};
use crate::mesh::{Class, Consumer, Doorbell, Producer, RingOptions, ring};
use crossbeam::utils::CachePadded;
use slimline_fib::{ConnId, FanoutCursor, MatchFilter};
use slimline_wire::message::{Header, KnownNames, read_header_again};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Octets of a plan.
const PLAN_OCTETS: usize = 24;

/// A message up to this length lies in the ring; a longer one is a body beside it.
const INLINE_OCTETS_MAX: usize = 32 * 1024;

/// How small and how large a ring may be, whatever its share of [`MESH_OCTETS_MAX`].
const RING_OCTETS: std::ops::RangeInclusive<usize> = 128 * 1024..=1024 * 1024;

/// What travels with a record that is too long for the ring: counted in while it is on its way.
struct Body {
    message: Box<[u8]>,
    on_the_way: Arc<AtomicUsize>,
}

impl Body {
    fn new(message: &[u8], on_the_way: &Arc<AtomicUsize>) -> Self {
        on_the_way.fetch_add(message.len(), Ordering::Relaxed);
        Self { message: message.into(), on_the_way: Arc::clone(on_the_way) }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.on_the_way.fetch_sub(self.message.len(), Ordering::Relaxed);
    }
}

/// What a record asks of the receiving shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Deliver to this connection of yours; `again` when it is the second choice already.
    One { hop: ConnId, from: ConnId, filter: MatchFilter, ttl: u32, again: bool },
    /// Deliver to each of your connections that asked for the name, except where `from` says otherwise.
    All { from: ConnId, filter: MatchFilter, ttl: u32 },
    /// This connection of mine is congested, or is no longer.
    Congested { conn: ConnId, congested: bool },
}

impl Plan {
    /// Shape: kind u8, flag u8, shard u16, ttl u32, slot u32, generation u32: of the connection it comes from or is about;
    /// then slot u32, generation u32 of the next hop, whose shard is the reader's. Native endian, it never leaves us.
    fn to_octets(self) -> [u8; PLAN_OCTETS] {
        let (kind, flag, conn, ttl, hop) = match self {
            Self::One { hop, from, filter, ttl, again } => (u8::from(again), filter.exclude_peers, from, ttl, hop),
            Self::All { from, filter, ttl } => (2, filter.exclude_peers, from, ttl, from),
            Self::Congested { conn, congested } => (3, congested, conn, 0, conn),
        };
        let mut octets = [0; PLAN_OCTETS];
        octets[0] = kind;
        octets[1] = u8::from(flag);
        octets[2..4].copy_from_slice(&conn.shard.to_ne_bytes());
        octets[4..8].copy_from_slice(&ttl.to_ne_bytes());
        octets[8..12].copy_from_slice(&conn.slot.to_ne_bytes());
        octets[12..16].copy_from_slice(&conn.generation.to_ne_bytes());
        octets[16..20].copy_from_slice(&hop.slot.to_ne_bytes());
        octets[20..24].copy_from_slice(&hop.generation.to_ne_bytes());
        octets
    }

    /// `shard` is the reader's.
    fn split(record: &[u8], shard: u16) -> (Self, &[u8]) {
        let (plan, message) = record.split_at(PLAN_OCTETS);
        let word = |at: usize| u32::from_ne_bytes([plan[at], plan[at + 1], plan[at + 2], plan[at + 3]]);
        let conn = ConnId { shard: u16::from_ne_bytes([plan[2], plan[3]]), slot: word(8), generation: word(12) };
        let (flag, ttl) = (plan[1] != 0, word(4));
        let filter = MatchFilter { exclude_peers: flag };
        let plan = match plan[0] {
            again @ (0 | 1) => {
                let hop = ConnId { shard, slot: word(16), generation: word(20) };
                Self::One { hop, from: conn, filter, ttl, again: again == 1 }
            }
            2 => Self::All { from: conn, filter, ttl },
            _ => Self::Congested { conn, congested: flag },
        };
        (plan, message)
    }
}

/// The rings of one shard.
pub(crate) struct MeshPort {
    /// Towards shard s; `None` towards ourselves.
    to: Vec<Option<Producer<Body>>>,
    /// Octets of bodies on their way to shard s.
    bodies: Vec<Arc<AtomicUsize>>,
    /// Octets of bodies between two shards at one time; one message may always go.
    body_octets_max: usize,
    /// How often a connection of shard s has become congested.
    congestions: Arc<[CachePadded<AtomicU64>]>,
    /// How many of those we have been told of.
    heard: Vec<u64>,
    /// From each other shard, and the names of what came from there last.
    from: Vec<(Consumer<Body>, KnownNames)>,
    /// Congestion news that found a ring full even in its reserve.
    unsaid: Vec<(usize, Plan)>,
}

/// The rings of a node with so many shards, one port each.
pub(crate) fn mesh(shards: usize) -> Vec<MeshPort> {
    let congestions: Arc<[_]> = (0..shards).map(|_| CachePadded::default()).collect();
    let options = ring_options(shards);
    let mut ports: Vec<MeshPort> = (0..shards).map(|_| MeshPort::new(&congestions, options.octets)).collect();
    for from in 0..shards {
        for to in 0..shards {
            if from == to {
                ports[from].to.push(None);
                continue;
            }
            let (producer, consumer) = ring(options);
            ports[from].to.push(Some(producer));
            ports[to].from.push((consumer, KnownNames::default()));
        }
    }
    ports
}

/// A ring's share of what may be on its way to one shard: half of it in the ring, half beside it.
fn ring_options(shards: usize) -> RingOptions {
    let share = MESH_OCTETS_MAX / 2 / shards.saturating_sub(1).max(1);
    let octets = (1 << share.ilog2()).clamp(*RING_OCTETS.start(), *RING_OCTETS.end());
    RingOptions { octets, record_octets_max: PLAN_OCTETS + INLINE_OCTETS_MAX, ..RingOptions::default() }
}

impl MeshPort {
    fn new(congestions: &Arc<[CachePadded<AtomicU64>]>, body_octets_max: usize) -> Self {
        let shards = congestions.len();
        Self {
            to: Vec::new(),
            bodies: (0..shards).map(|_| Arc::default()).collect(),
            body_octets_max,
            congestions: Arc::clone(congestions),
            heard: vec![0; shards],
            from: Vec::new(),
            unsaid: Vec::new(),
        }
    }

    /// Whether a message of so many octets has to wait before it can go to `shard`: for news, or for room.
    pub(crate) fn must_wait(&mut self, shard: usize, octets: usize) -> bool {
        self.awaits_news(shard) || !self.has_room(shard, octets)
    }

    /// Whether news of a congestion in `shard` are under way. Without a look at this, a shard that reads on while one of its
    /// connections is congested would be sent to until its turn ends and the news leave.
    #[inline]
    pub(crate) fn awaits_news(&self, shard: usize) -> bool {
        self.congestions[shard].load(Ordering::Acquire) != self.heard[shard]
    }

    fn has_room(&mut self, shard: usize, octets: usize) -> bool {
        let Some(producer) = &mut self.to[shard] else { return true };
        if octets <= INLINE_OCTETS_MAX {
            return producer.has_room(Class::Data, PLAN_OCTETS + octets);
        }
        let on_the_way = self.bodies[shard].load(Ordering::Relaxed);
        (on_the_way == 0 || on_the_way + octets <= self.body_octets_max)
            && producer.has_room(Class::Data, PLAN_OCTETS)
            && producer.has_room_for_body()
    }

    /// Sends a message to one connection of another shard, which chooses anew if that one has gone, unless this is such a
    /// choice (`again`); false when there is no room. Whether there
    /// [are news](Self::awaits_news) the caller has asked.
    pub(crate) fn send_one(
        &mut self,
        from: ConnId,
        filter: MatchFilter,
        hop: ConnId,
        again: bool,
        outgoing: &Outgoing<'_>,
    ) -> bool {
        let plan = Plan::One { hop, from, filter, ttl: outgoing.ttl, again };
        self.send(usize::from(hop.shard), plan, outgoing.message)
    }

    /// Sends a message for every connection of `shard` that asked for its name; false when there is no room.
    pub(crate) fn send_all(
        &mut self,
        from: ConnId,
        filter: MatchFilter,
        shard: usize,
        outgoing: &Outgoing<'_>,
    ) -> bool {
        self.send(shard, Plan::All { from, filter, ttl: outgoing.ttl }, outgoing.message)
    }

    fn send(&mut self, shard: usize, plan: Plan, message: &[u8]) -> bool {
        if !self.has_room(shard, message.len()) {
            return false;
        }
        let Some(producer) = &mut self.to[shard] else { return false };
        if message.len() <= INLINE_OCTETS_MAX {
            return producer.push(Class::Data, &[&plan.to_octets(), message]).is_ok();
        }
        match producer.grant_with_body(Class::Data, PLAN_OCTETS, Body::new(message, &self.bodies[shard])) {
            Ok(record) => {
                record.copy_from_slice(&plan.to_octets());
                true
            }
            Err(_) => false,
        }
    }

    /// Tells every other shard whether a connection of ours is congested.
    pub(crate) fn tell_congested(&mut self, conn: ConnId, congested: bool) {
        if congested {
            self.congestions[usize::from(conn.shard)].fetch_add(1, Ordering::Release);
        }
        for shard in 0..self.to.len() {
            self.unsaid.push((shard, Plan::Congested { conn, congested }));
        }
        self.say_unsaid();
    }

    /// News stay in order: behind one that found its ring full, none goes there before the next call, whatever has been
    /// taken out meanwhile. "Congested" after "no longer" would stop publishers for ever.
    fn say_unsaid(&mut self) {
        if self.unsaid.is_empty() {
            return;
        }
        let (to, mut full) = (&mut self.to, Vec::new());
        self.unsaid.retain(|(shard, plan)| {
            let Some(ring) = to[*shard].as_mut() else { return false };
            let stays = full.contains(shard) || ring.push(Class::Control, &[&plan.to_octets()]).is_err();
            if stays && !full.contains(shard) {
                full.push(*shard);
            }
            stays
        });
    }

    /// Whether another shard left something for us.
    pub(crate) fn has_input(&self) -> bool {
        self.from.iter().any(|(ring, _)| ring.has_more())
    }

    /// Whether news wait for room.
    pub(crate) fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// Lets the other shards see what this turn wrote, and wakes those that sleep.
    pub(crate) fn publish(&mut self, bells: &[Doorbell]) {
        self.say_unsaid();
        for (producer, bell) in self.to.iter_mut().zip(bells) {
            if let Some(producer) = producer
                && producer.publish()
            {
                bell.ring();
            }
        }
    }
}

/// Reads the header of a message that the sending shard has read.
#[inline]
fn read_again<'a>(message: &'a [u8], names: &'a mut KnownNames, header: &mut Header<'a>) {
    if read_header_again(message, names, header).is_err() {
        unreachable!("the sending shard read this message")
    }
}

impl Core {
    /// Takes what other shards sent, at most so many in a turn from each.
    pub(crate) fn take_from_mesh(&mut self, now: Instant) {
        if self.mesh.from.is_empty() {
            return;
        }
        let mut rings = std::mem::take(&mut self.mesh.from);
        for (ring, names) in &mut rings {
            for _ in 0..MESH_PER_TURN {
                let Some(record) = ring.next() else { break };
                let (plan, inline) = Plan::split(record.octets, self.index);
                let message = record.body.as_ref().map_or(inline, |body| &body.message);
                match plan {
                    Plan::One { hop, from, filter, ttl, again } => {
                        self.counters.mesh_in += 1;
                        if !self.has_left(hop) {
                            self.deliver(hop, message, names, ttl, now);
                        } else if again {
                            self.counters.drop_no_route += 1;
                        } else {
                            self.deliver_elsewhere(from, filter, message, ttl, now);
                        }
                    }
                    Plan::All { from, filter, ttl } => self.deliver_all(from, filter, message, names, ttl, now),
                    Plan::Congested { conn, congested: true } => {
                        self.mesh.heard[usize::from(conn.shard)] += 1;
                        self.congested_elsewhere.insert(conn);
                    }
                    Plan::Congested { conn, congested: false } => {
                        self.congested_elsewhere.remove(&conn);
                    }
                }
            }
            ring.release();
        }
        self.mesh.from = rings;
    }

    fn deliver(&mut self, hop: ConnId, message: &[u8], names: &mut KnownNames, ttl: u32, now: Instant) {
        let mut header = Header::EMPTY;
        read_again(message, names, &mut header);
        self.enqueue(hop.slot, hop.generation, &Outgoing { message, header: &header, ttl, shared: None }, now);
    }

    /// For one whose next hop left while the message was on its way here: whoever else holds the name, found once.
    #[cold]
    fn deliver_elsewhere(&mut self, from: ConnId, filter: MatchFilter, message: &[u8], ttl: u32, now: Instant) {
        let (mut names, mut header) = (KnownNames::default(), Header::EMPTY);
        read_again(message, &mut names, &mut header);
        let Some(hop) = self.choose(&header.destination.name, from, filter) else {
            self.counters.drop_no_route += 1;
            return;
        };
        let outgoing = Outgoing { message, header: &header, ttl, shared: None };
        if hop.shard == self.index {
            self.counters.rerouted += 1;
            self.enqueue(hop.slot, hop.generation, &outgoing, now);
        } else if self.mesh.send_one(from, filter, hop, true, &outgoing) {
            self.counters.rerouted += 1;
            self.counters.mesh_out += 1;
        } else {
            self.counters.drop_next_hop_gone += 1; // nobody is here to wait for room in the ring
        }
    }

    fn deliver_all(
        &mut self,
        from: ConnId,
        filter: MatchFilter,
        message: &[u8],
        names: &mut KnownNames,
        ttl: u32,
        now: Instant,
    ) {
        self.counters.mesh_in += 1;
        let mut header = Header::EMPTY;
        read_again(message, names, &mut header);
        let name = header.destination.name;
        let outgoing = Outgoing { message, header: &header, ttl, shared: None };
        let (mut cursor, mut hops) = (FanoutCursor::of_shard(self.index), std::mem::take(&mut self.hops));
        loop {
            hops.clear();
            let more = self.fib.match_all(&name, from, filter, &mut cursor, &mut hops, OUTPUTS_PER_TURN);
            self.enqueue_all(&hops, &outgoing, now);
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
            let Some(parked) = &connection.parked else { continue };
            let over = match parked.wait {
                Wait::Target(target) => !self.congested_elsewhere.contains(&target),
                Wait::Shard(shard) => !self.mesh.must_wait(usize::from(shard), parked.message.len()),
                Wait::Control => !self.requests.is_full(),
                Wait::Settle | Wait::Requests | Wait::Turn => true,
            };
            if over {
                self.ready.push(id);
            } else {
                self.parked_elsewhere.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_while_news_of_a_congestion_are_under_way() {
        let mut ports = mesh(2);
        let conn = ConnId { shard: 1, slot: 3, generation: 1 };
        assert!(!ports[0].must_wait(1, 100));
        ports[1].tell_congested(conn, true); // not published yet: the turn goes on
        assert!(ports[0].must_wait(1, 100) && ports[0].has_room(1, 100));
        ports[0].heard[1] += 1; // as `take_from_mesh` does for each
        assert!(!ports[0].must_wait(1, 100));
        ports[1].tell_congested(conn, false);
        assert!(!ports[0].must_wait(1, 100));
    }

    #[test]
    fn what_is_on_its_way_to_one_shard_is_bounded_however_many_send() {
        for shards in 2..=27 {
            let each = 2 * ring_options(shards).octets;
            assert!(each * (shards - 1) <= MESH_OCTETS_MAX, "{shards} shards, {each} octets each");
            let _ = ring::<Body>(ring_options(shards)); // a size that it takes
        }
        assert_eq!(ring_options(256).octets, *RING_OCTETS.start());
    }

    #[test]
    fn a_plan_survives_its_octets() {
        let conn = ConnId { shard: 7, slot: 1_048_575, generation: 0xdead_beef };
        let hop = ConnId { shard: 300, slot: 77, generation: 0xffff_fffe };
        for plan in [
            Plan::One { hop, from: conn, filter: MatchFilter { exclude_peers: true }, ttl: 127, again: false },
            Plan::One { hop, from: conn, filter: MatchFilter { exclude_peers: false }, ttl: 127, again: true },
            Plan::All { from: conn, filter: MatchFilter { exclude_peers: true }, ttl: u32::MAX },
            Plan::Congested { conn, congested: true },
            Plan::Congested { conn, congested: false },
        ] {
            let mut record = plan.to_octets().to_vec();
            record.extend_from_slice(b"message");
            assert_eq!(Plan::split(&record, hop.shard), (plan, &b"message"[..]));
        }
    }
}
