//! Message view → name → FIB → out queues: what happens to a publish.

use super::core::Core;
use super::receive::Flow;
use super::subscribe::Sort;
use crate::conn::connection::{Pressure, Wait};
use crate::io::Shared;
use crate::limits::{CHOICES_MAX, GATHER_OCTETS_MIN, OUTPUTS_PER_TURN};
use slimline_fib::{ConnId, FanoutCursor, MatchFilter};
use slimline_wire::message::{Bounds, Header, MessageView, parse_within};
use slimline_wire::{ConnType, Name};
use std::time::Instant;

/// One message on its way out of this node: everything the egress side needs.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// The message as it came.
    pub(crate) message: &'a [u8],
    pub(crate) header: &'a Header<'a>,
    /// The ttl it leaves with.
    pub(crate) ttl: u32,
    /// The message once more, where sends may share it.
    pub(crate) shared: Option<&'a Shared>,
}

impl Outgoing<'_> {
    /// Octets behind the header: the same for every receiver.
    #[inline]
    fn body_octets(&self) -> usize {
        self.message.len() - self.header.end()
    }
}

/// Which shards a fan-out reaches.
#[derive(Default)]
struct ShardSet([u64; 4]);

const _: () = assert!(ConnId::SHARDS_MAX as usize <= 256, "a bit for every shard");

impl ShardSet {
    fn insert(&mut self, shard: u16) {
        self.0[usize::from(shard) / 64] |= 1 << (shard % 64);
    }

    fn remove(&mut self, shard: u16) {
        self.0[usize::from(shard) / 64] &= !(1 << (shard % 64));
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().zip((0u16..).step_by(64)).flat_map(|(&word, base)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                #[expect(clippy::cast_possible_truncation, reason = "below 64")]
                Some(base + bit as u16)
            })
        })
    }
}

impl Core {
    /// Forwards one publish to every next hop that asked for its name.
    ///
    /// Shape:  one message in, any number out; at most [`OUTPUTS_PER_TURN`] in one turn, then a cursor goes on.
    /// Errors: dropped and counted when its MAC, its ttl or its route is missing; nothing goes back (slim-wire §0.9).
    /// Source: slim-wire §6; parking: architecture §5.
    pub(crate) fn publish(
        &mut self,
        slot: u32,
        generation: u32,
        message: &[u8],
        header: &Header<'_>,
        now: Instant,
    ) -> Flow {
        self.counters.publishes += 1;
        if !self.verified(slot, generation, header, Sort::Publish) {
            return Flow::Next;
        }
        if header.ttl <= 1 {
            self.counters.drop_ttl += 1;
            return Flow::Next;
        }
        let Some(connection) = self.connections.get(slot, generation) else { return Flow::Ended };
        if connection.requests > 0 {
            return Flow::Park(Wait::Settle, FanoutCursor::default(), true);
        }
        self.distribute(connection.id, message, header, FanoutCursor::default(), now)
    }

    /// A parked publish tries again; it was verified when it came.
    pub(crate) fn publish_again(
        &mut self,
        slot: u32,
        generation: u32,
        message: &[u8],
        cursor: FanoutCursor,
        now: Instant,
    ) -> Flow {
        let Some(connection) = self.connections.get(slot, generation) else { return Flow::Ended };
        let id = connection.id;
        match parse_within(message, &Bounds::NONE) {
            Ok(MessageView::Publish(publish)) => self.distribute(id, message, &publish.header, cursor, now),
            _ => unreachable!("a parked publish was read before"),
        }
    }

    fn distribute(
        &mut self,
        from: ConnId,
        message: &[u8],
        header: &Header<'_>,
        cursor: FanoutCursor,
        now: Instant,
    ) -> Flow {
        let name = header.destination.name;
        let filter = self.filter(from);
        let shared = self.sharing.take().filter(|shared| shared.as_ptr() == message.as_ptr());
        let outgoing = Outgoing { message, header, ttl: header.ttl - 1, shared: shared.as_ref() };
        if header.fanout == 1 {
            let Some(hop) = self.choose(&name, from, filter) else {
                self.counters.drop_no_route += 1;
                return Flow::Next;
            };
            if let Some(wait) = self.must_wait(hop) {
                return Flow::Park(wait, FanoutCursor::default(), true);
            }
            if hop.shard == self.index {
                self.enqueue(hop.slot, hop.generation, &outgoing, now);
            } else if self.mesh.awaits_news(usize::from(hop.shard))
                || !self.mesh.send_one(from, filter, hop, false, &outgoing)
            {
                return Flow::Park(Wait::Shard(hop.shard), FanoutCursor::default(), true);
            } else {
                self.counters.mesh_out += 1;
            }
            return Flow::Next;
        }
        let mut hops = std::mem::take(&mut self.hops);
        let flow = if cursor == FanoutCursor::default() {
            self.fan_out(from, &outgoing, filter, &mut hops, now)
        } else {
            self.fan_out_here(from, &outgoing, filter, cursor, &mut hops, now)
        };
        hops.clear();
        self.hops = hops;
        flow
    }

    /// The first step of a fan-out: nobody congested, each other shard gets the message once, then our own connections.
    fn fan_out(
        &mut self,
        from: ConnId,
        outgoing: &Outgoing<'_>,
        filter: MatchFilter,
        hops: &mut Vec<ConnId>,
        now: Instant,
    ) -> Flow {
        let name = outgoing.header.destination.name;
        let start = FanoutCursor::default();
        let (mut cursor, mut shards, mut found) = (start, ShardSet::default(), false);
        let single_batch = loop {
            hops.clear();
            let more = self.fib.match_all(&name, from, filter, &mut cursor, hops, OUTPUTS_PER_TURN);
            if let Some(wait) = hops.iter().find_map(|&hop| self.must_wait(hop)) {
                return Flow::Park(wait, start, true);
            }
            hops.iter().for_each(|hop| shards.insert(hop.shard));
            let first = !found;
            found |= !hops.is_empty();
            if !more {
                break first;
            }
        };
        if !found {
            self.counters.drop_no_route += 1;
            return Flow::Next;
        }
        shards.remove(self.index);
        let octets = outgoing.message.len();
        if let Some(shard) = shards.iter().find(|&shard| self.mesh.must_wait(usize::from(shard), octets)) {
            return Flow::Park(Wait::Shard(shard), start, true);
        }
        for shard in shards.iter() {
            let sent = self.mesh.send_all(from, filter, usize::from(shard), outgoing);
            debug_assert!(sent, "one producer: what had room still has");
            self.counters.mesh_out += 1;
        }
        if single_batch {
            hops.retain(|hop| hop.shard == self.index);
            self.enqueue_all(hops, outgoing, now);
            return Flow::Next;
        }
        self.fan_out_here(from, outgoing, filter, FanoutCursor::of_shard(self.index), hops, now)
    }

    /// The next step of a large fan-out, among the connections of this shard.
    fn fan_out_here(
        &mut self,
        from: ConnId,
        outgoing: &Outgoing<'_>,
        filter: MatchFilter,
        before: FanoutCursor,
        hops: &mut Vec<ConnId>,
        now: Instant,
    ) -> Flow {
        let name = outgoing.header.destination.name;
        let mut cursor = before;
        hops.clear();
        let more = self.fib.match_all(&name, from, filter, &mut cursor, hops, OUTPUTS_PER_TURN);
        if let Some(wait) = hops.iter().find_map(|&hop| self.must_wait(hop)) {
            return Flow::Park(wait, before, true);
        }
        self.enqueue_all(hops, outgoing, now);
        if more { Flow::Park(Wait::Turn, cursor, true) } else { Flow::Next }
    }

    /// Queues one message towards several connections of this shard: a long one is copied once, and shared.
    pub(crate) fn enqueue_all(&mut self, hops: &[ConnId], outgoing: &Outgoing<'_>, now: Instant) {
        let copied =
            (outgoing.shared.is_none() && hops.len() > 1 && outgoing.body_octets() >= GATHER_OCTETS_MIN).then(|| {
                self.lease_shared(outgoing.message.len(), |memory| {
                    memory.reserve_exact(outgoing.message.len());
                    memory.extend_from_slice(outgoing.message);
                })
            });
        let outgoing = Outgoing { shared: outgoing.shared.or(copied.as_ref()), ..*outgoing };
        for hop in hops {
            self.enqueue(hop.slot, hop.generation, &outgoing, now);
        }
        if let Some(shared) = copied {
            self.return_shared(shared);
        }
    }

    /// Which kinds a message from this connection does not reach (slim-wire §6.3).
    fn filter(&self, from: ConnId) -> MatchFilter {
        let from_peer = self
            .connections
            .get(from.slot, from.generation)
            .and_then(|connection| connection.link())
            .is_some_and(|link| link.kind == ConnType::Peer);
        MatchFilter { exclude_peers: from_peer && self.settings.full_mesh }
    }

    /// Whose turn it is among those who hold `name`; connections of this shard that are no more, which the replica has not
    /// heard of yet, are passed over.
    #[inline]
    pub(crate) fn choose(&mut self, name: &Name, from: ConnId, filter: MatchFilter) -> Option<ConnId> {
        let hop = self.fib.match_one(name, from, filter)?;
        if self.has_left(hop) { self.choose_another(hop, name, from, filter) } else { Some(hop) }
    }

    /// Goes on from one that has left until somebody is there, or until it is that one's turn again.
    #[cold]
    fn choose_another(&mut self, first: ConnId, name: &Name, from: ConnId, filter: MatchFilter) -> Option<ConnId> {
        for _ in 0..CHOICES_MAX {
            let hop = self.fib.match_one(name, from, filter).filter(|&hop| hop != first)?;
            if !self.has_left(hop) {
                return Some(hop);
            }
        }
        None
    }

    /// Whether `hop` is a connection of this shard that is no more, which the replica has not heard of yet.
    #[inline]
    pub(crate) fn has_left(&self, hop: ConnId) -> bool {
        hop.shard == self.index
            && self.connections.get(hop.slot, hop.generation).is_none_or(|connection| connection.departed)
    }

    /// Whether a publisher that addresses `hop` has to stand still for now.
    #[inline]
    fn must_wait(&self, hop: ConnId) -> Option<Wait> {
        if hop.shard == self.index {
            let congested = self
                .connections
                .get(hop.slot, hop.generation)
                .is_some_and(|connection| connection.pressure == Pressure::Congested);
            congested.then_some(Wait::Target(hop))
        } else if !self.congested_elsewhere.is_empty() && self.congested_elsewhere.contains(&hop) {
            Some(Wait::Target(hop))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::{client_head, connect, core, settings};
    use crate::shard::mesh::mesh;
    use slimline_fib::Delta;
    use slimline_wire::{NameId, Prefix};
    use std::sync::Arc;

    #[test]
    fn however_many_have_left_whoever_is_still_there_is_chosen() {
        let now = Instant::now();
        let mut core = core(0, mesh(1).remove(0), &Arc::new(settings(false)), now);
        let name = Name { prefix: Prefix([1, 2, 3]), id: NameId(4) };
        let (_, from) = connect(&mut core, &client_head(), None, now);
        let instances: Vec<ConnId> = (0..6).map(|_| connect(&mut core, &client_head(), None, now).1).collect();
        for &conn in &instances {
            core.fib.apply(&Delta::Add { name, conn, kind: ConnType::Edge });
        }
        // They leave one after the other, and the replica hears of none.
        for (left, conn) in instances.iter().enumerate() {
            for _ in 0..instances.len() {
                let hop = core.choose(&name, from, MatchFilter::default());
                assert!(hop.is_some_and(|hop| instances[left..].contains(&hop)), "{left} have left: {hop:?}");
            }
            core.forget_connection(conn.slot, conn.generation);
        }
        assert_eq!(core.choose(&name, from, MatchFilter::default()), None);
    }
}
