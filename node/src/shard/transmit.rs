//! Out queue → frames → bytes out: how messages leave, and what happens to a reader that does not keep up.

use super::core::{Action, Core};
use super::forward::Outgoing;
use crate::conn::connection::{Connection, Ending, Phase, Pressure};
use crate::conn::transport::{Closing, Tx};
use crate::io::{Block, Body, Shared};
use crate::limits::{FILL_OCTETS_MAX, GATHER_OCTETS_MIN, LINGER, ROUND_OCTETS};
use slimline_wire::ConnType;
use slimline_wire::grpc::{PREFIX_OCTETS, Status, prefix};
use slimline_wire::h2::StreamId;
use slimline_wire::link::HopFields;
use slimline_wire::message::{MAC_OCTETS, MacOut, rewrite};
use std::time::Instant;

impl Core {
    /// Queues one message towards a connection of this shard, its per-hop header rewritten for that link.
    ///
    /// Shape:  straight into the transport's block while windows and block have room, else into the stream's own queue.
    /// Errors: none; a stalled or full connection loses the copy, counted.
    /// Source: slim-wire §6.5, §8.3; architecture §5.
    pub(crate) fn enqueue(&mut self, slot: u32, generation: u32, outgoing: &Outgoing<'_>, now: Instant) {
        let Some(connection) = self.connections.get_mut(slot, generation) else {
            self.counters.drop_next_hop_gone += 1;
            return;
        };
        let Some(transport) = self.transports.get_mut(connection.transport.0, connection.transport.1) else {
            self.counters.drop_next_hop_gone += 1;
            return;
        };
        let policy = &self.settings.listeners[usize::from(transport.listener)].slow_reader;
        if connection.pressure == Pressure::Stalled {
            self.counters.drop_stalled += 1;
            connection.dropped += 1;
            return;
        }
        let queue = connection.age.waiting() + outgoing.message.len();
        if queue > policy.high && (queue > policy.hard_cap || self.memory.is_over()) {
            if queue > policy.hard_cap {
                self.counters.drop_hard_cap += 1;
            } else {
                self.counters.drop_memory += 1;
            }
            connection.dropped += 1;
            return;
        }
        let (Phase::Up(link), None, false) = (&mut connection.phase, connection.ending, connection.is_over) else {
            self.counters.drop_next_hop_gone += 1;
            return;
        };
        // How the header leaves on this link. Peers and links without a key get no tag, never a stale one.
        let sign = !matches!(link.kind, ConnType::Peer | ConnType::Local);
        let mac = match (&mut link.mac, outgoing.header.header_mac) {
            (Some(mac), _) if sign => MacOut::Set(mac.tag(outgoing.header, outgoing.ttl, HopFields::Cleared)),
            (_, Some(_)) => MacOut::Remove,
            (_, None) => MacOut::Keep,
        };
        // Most copies differ from what came in 1 + 32 octets, or in one: those are changed in place, behind the copy.
        let in_place = match &mac {
            MacOut::Set(tag) => outgoing.header.patch().map(|patch| (patch.ttl_at, Some((patch.mac_at, tag)))),
            MacOut::Keep => outgoing.header.ttl_at().map(|ttl_at| (ttl_at, None)),
            MacOut::Remove => None,
        };
        let message: &[u8] = if in_place.is_some() {
            outgoing.message
        } else {
            self.scratch.clear();
            rewrite(outgoing.message, outgoing.header, outgoing.ttl, mac, &mut self.scratch);
            &self.scratch
        };
        let tx = &mut transport.tx;
        let octets = message.len() + PREFIX_OCTETS;
        Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
        #[expect(clippy::cast_possible_truncation, reason = "a message is at most message_octets_max, a u32")]
        let (length, framed) = (message.len() as u32, octets as u32);
        #[expect(clippy::cast_possible_truncation, reason = "patchable means the ttl is below 128")]
        let ttl = outgoing.ttl as u8;
        let direct = connection.out.is_empty() && tx.fill_octets() + octets <= FILL_OCTETS_MAX;
        let head = outgoing.header.end();
        let gathered = outgoing.shared.filter(|_| {
            direct
                && in_place.is_some()
                && message.len() - head >= GATHER_OCTETS_MIN
                && head + PREFIX_OCTETS <= tx.h2.max_frame_size() as usize
                && tx.h2.window(connection.stream) >= framed
        });
        if let Some(shared) = gathered {
            let in_place = in_place.map(|(ttl_at, tag)| (ttl_at, ttl, tag));
            if tx.fill_bodies.capacity() == 0 {
                tx.fill_bodies = self.spare_bodies.pop().unwrap_or_default();
            }
            gather(tx, connection.stream, shared, head, in_place);
            self.counters.gathered_out += 1;
        } else if direct && octets > tx.h2.max_frame_size() as usize && tx.h2.window(connection.stream) >= framed {
            write_large(tx, connection.stream, message, in_place.map(|(ttl_at, tag)| (ttl_at, ttl, tag)));
        } else {
            let target = if direct && tx.h2.begin_data(connection.stream, framed, &mut tx.fill) {
                &mut tx.fill
            } else {
                if connection.out.is_empty() {
                    tx.backlogged.push((slot, generation));
                }
                connection.out.back()
            };
            let start = target.len() + PREFIX_OCTETS;
            target.extend(prefix(length)); // five octets: no call to copy them
            target.extend_from_slice(message);
            if let Some((ttl_at, tag)) = in_place {
                target[start + ttl_at as usize] = ttl;
                if let Some((mac_at, tag)) = tag {
                    let mac_at = start + mac_at as usize;
                    target[mac_at..mac_at + MAC_OCTETS].copy_from_slice(tag);
                }
            }
        }
        if connection.out.is_empty() {
            share(tx, slot, generation, octets);
        }
        tx.fill_messages += 1;
        if tx.fill_since.is_none() {
            tx.fill_since = Some(self.arrived);
        }
        self.counters.messages_out += 1;
        self.unflushed.add(octets, now);
        if !transport.touched {
            transport.touched = true;
            self.touched.push(connection.transport);
        }
        connection.age.queue(octets, 1, now);
        self.held.take(octets);
        if grown(connection, policy.high, &mut self.aging) {
            self.counters.congested += 1;
            self.mesh.tell_congested(connection.id, true);
        }
    }

    /// Queues a message the node itself makes: an ack, a negotiation reply. Never dropped, and bounded because a
    /// connection whose queue is long has its requests parked.
    pub(crate) fn send_own(&mut self, slot: u32, generation: u32, message: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(slot, generation).filter(|connection| !connection.is_over)
        else {
            return;
        };
        let Some(transport) = self.transports.get_mut(connection.transport.0, connection.transport.1) else { return };
        let tx = &mut transport.tx;
        Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
        let octets = message.len() + PREFIX_OCTETS;
        let (length, framed) = (u32::try_from(message.len()).unwrap_or(0), u32::try_from(octets).unwrap_or(0));
        let direct = connection.out.is_empty() && tx.h2.begin_data(connection.stream, framed, &mut tx.fill);
        let target = if direct {
            share(tx, slot, generation, octets);
            &mut tx.fill
        } else {
            if connection.out.is_empty() {
                tx.backlogged.push((slot, generation));
            }
            connection.out.back()
        };
        target.extend_from_slice(&prefix(length));
        target.extend_from_slice(message);
        connection.age.queue(octets, 0, now);
        self.held.take(octets);
        let high = self.settings.listeners[usize::from(transport.listener)].slow_reader.high;
        if grown(connection, high, &mut self.aging) {
            self.counters.congested += 1;
            self.mesh.tell_congested(connection.id, true);
        }
        let (transport, life) = connection.transport;
        self.touch(transport, life);
    }

    /// Moves what windows and block allow from a transport's streams into its block, fairly.
    pub(crate) fn refill(&mut self, slot: u32, generation: u32) {
        self.send_bodies(slot, generation);
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        let tx = &mut transport.tx;
        let (mut idle_rounds, mut emptied) = (0, Vec::new());
        while tx.fill_octets() < FILL_OCTETS_MAX && idle_rounds < tx.backlogged.len() {
            let pair = tx.backlogged.remove(0);
            let Some(connection) = self.connections.get_mut(pair.0, pair.1) else { continue };
            Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
            let round = if tx.backlogged.is_empty() { FILL_OCTETS_MAX } else { ROUND_OCTETS };
            let waiting = connection.out.octets();
            let offered = &waiting[..waiting.len().min(round)];
            let taken = tx.h2.data(connection.stream, offered, false, &mut tx.fill);
            connection.out.advance(taken);
            if taken > 0 {
                share(tx, pair.0, pair.1, taken);
                idle_rounds = 0;
            } else {
                idle_rounds += 1;
            }
            if !connection.out.is_empty() {
                tx.backlogged.push(pair);
            } else if let Some(ending) = connection.ending {
                emptied.push((pair, ending));
            }
        }
        for ((slot, generation), Ending { status, text }) in emptied {
            self.end_connection(slot, generation, status, text);
        }
    }

    /// Before a connection ends from our side: what windows still allow goes into the block.
    pub(crate) fn drain_queue(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        let Some(transport) = self.transports.get_mut(connection.transport.0, connection.transport.1) else { return };
        if connection.out.is_empty() {
            return;
        }
        let tx = &mut transport.tx;
        Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
        let taken = tx.h2.data(connection.stream, connection.out.octets(), false, &mut tx.fill);
        connection.out.advance(taken);
    }

    /// Hands a transport's block over for sending; `None` while one is in flight or nothing waits.
    pub(crate) fn take_block(&mut self, slot: u32, generation: u32, now: Instant) -> Option<Block> {
        self.refill(slot, generation);
        let transport = self.transports.get_mut(slot, generation)?;
        transport.touched = false;
        let tx = &mut transport.tx;
        if tx.flight_octets > 0 || transport.closing == Closing::Closed {
            // What is in flight left before this arrived, so it acknowledges nothing.
            if transport.unanswered > 0 && transport.unanswered < crate::limits::QUICK_ACK_BELOW_OCTETS {
                self.actions.push(Action::QuickAck(slot, generation));
                transport.unanswered = 0;
            }
            return None;
        }
        if tx.fill.is_empty() {
            if transport.closing == Closing::AfterSend && tx.backlogged.is_empty() {
                if transport.peer_ended {
                    transport.closing = Closing::Closed;
                    self.actions.push(Action::Close(slot, generation));
                } else {
                    transport.closing = Closing::Finishing;
                    transport.closing_since = Some(now);
                    self.actions.push(Action::Finish(slot, generation));
                    self.look_at(slot, generation, now + LINGER);
                    return None;
                }
            } else if transport.unanswered > 0 && transport.unanswered < crate::limits::QUICK_ACK_BELOW_OCTETS {
                self.actions.push(Action::QuickAck(slot, generation));
            }
            transport.unanswered = 0;
            return None;
        }
        transport.unanswered = 0;
        tx.h2.seal();
        let block = Block::gathered(std::mem::take(&mut tx.fill), std::mem::take(&mut tx.fill_bodies));
        tx.fill_body_octets = 0;
        tx.flight_octets = block.len();
        tx.control_octets = 0;
        tx.flight_sent = 0;
        tx.flight_since = now;
        std::mem::swap(&mut tx.fill_shares, &mut tx.flight_shares);
        if let Some(since) = tx.fill_since.take()
            && tx.fill_messages > 0
        {
            let waited = u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX);
            self.latency.saturating_record_n(waited.max(1), u64::from(tx.fill_messages));
        }
        tx.fill_messages = 0;
        self.counters.sends += 1;
        Some(block)
    }

    /// A send came back. Gives the block again, with the offset to go on from, if the kernel took only a part.
    pub(crate) fn sent(
        &mut self,
        slot: u32,
        generation: u32,
        block: Block,
        result: std::io::Result<usize>,
    ) -> Option<(Block, usize)> {
        let Some(transport) = self.transports.get_mut(slot, generation) else {
            self.recycle(block);
            return None;
        };
        let tx = &mut transport.tx;
        match result {
            Ok(octets) => {
                self.counters.octets_out += octets as u64;
                tx.flight_sent += octets;
                if tx.flight_sent < tx.flight_octets && octets > 0 {
                    self.counters.short_sends += 1;
                    return Some((block, tx.flight_sent));
                }
                tx.flight_octets = 0;
                let mut shares = std::mem::take(&mut tx.flight_shares);
                for (conn, life, octets) in shares.drain(..) {
                    self.taken(conn, life, octets);
                }
                if let Some(transport) = self.transports.get_mut(slot, generation) {
                    transport.tx.flight_shares = shares;
                }
                self.recycle(block);
                self.touch(slot, generation);
            }
            Err(error) => {
                tracing::debug!(transport = slot, %error, "send failed");
                tx.flight_octets = 0;
                tx.flight_shares.clear();
                self.recycle(block);
                self.abandon_transport(slot, generation);
            }
        }
        None
    }

    /// The kernel took octets of a connection: its queue is shorter, whoever waited for that goes on.
    fn taken(&mut self, slot: u32, generation: u32, octets: usize) {
        let connection = self.connections.get_mut(slot, generation).filter(|connection| !connection.is_over);
        let Some(connection) = connection else { return };
        connection.age.take(octets);
        self.held.give(octets);
        if connection.pressure != Pressure::Open {
            let Some(transport) = self.transports.get(connection.transport.0, connection.transport.1) else { return };
            let low = self.settings.listeners[usize::from(transport.listener)].slow_reader.low;
            if connection.age.waiting() < low {
                if connection.pressure == Pressure::Stalled {
                    tracing::info!(connection = %connection.id, dropped = connection.dropped, "reader recovered");
                }
                connection.pressure = Pressure::Open;
                connection.stall_logged = false;
                let id = connection.id;
                self.ready.append(&mut connection.waiters);
                self.mesh.tell_congested(id, false);
            }
        }
    }

    /// Looks at the age of every queue: congested ones stall, old ones are cut.
    pub(crate) fn age_queues(&mut self, now: Instant) {
        let mut aging = std::mem::take(&mut self.aging);
        aging.retain(|&(slot, generation)| self.age_one(slot, generation, now));
        aging.append(&mut self.aging);
        self.aging = aging;
    }

    fn age_one(&mut self, slot: u32, generation: u32, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(slot, generation) else { return false };
        if connection.age.waiting() == 0 {
            connection.aging = false;
            return false;
        }
        let Some(transport) = self.transports.get(connection.transport.0, connection.transport.1) else { return false };
        let policy = self.settings.listeners[usize::from(transport.listener)].slow_reader;
        let oldest = connection.age.oldest(now);
        if connection.pressure == Pressure::Congested && oldest >= policy.stall_after {
            connection.pressure = Pressure::Stalled;
            self.counters.stalled += 1;
            tracing::warn!(connection = %connection.id, queued = connection.age.waiting(), oldest_ms = oldest.as_millis(),
                "slow reader stalled: its copies are dropped until it catches up");
            let id = connection.id;
            self.ready.append(&mut connection.waiters);
            self.mesh.tell_congested(id, false);
        }
        if oldest >= policy.cut_after {
            self.cut(slot, generation, now);
            return false;
        }
        true
    }

    /// Ends a connection that did not read for too long; the transport too when the socket itself stands still.
    fn cut(&mut self, slot: u32, generation: u32, now: Instant) {
        let Some(Connection { id, transport, age, dropped, .. }) = self.connections.get(slot, generation) else {
            return;
        };
        self.counters.cut += 1;
        tracing::warn!(connection = %id, queued = age.waiting(), dropped, "slow reader cut");
        let (transport, life) = *transport;
        let stuck = self.transports.get(transport, life).is_some_and(|entry| {
            let window = entry.tx.h2.transport_window();
            (entry.tx.flight_octets > 0 || window <= 0)
                && now.saturating_duration_since(entry.tx.flight_since) >= crate::limits::TICK
        });
        if stuck {
            self.abandon_transport(transport, life);
        } else {
            self.end_connection(slot, generation, Status::RESOURCE_EXHAUSTED, "slow reader: queued octets too old");
        }
    }
}

/// What changes in a copy, and where: the ttl's one octet, and the MAC where the link has a key.
type InPlace<'a> = (u32, u8, Option<(u32, &'a [u8; MAC_OCTETS])>);

/// Writes a message that does not fit one frame; the windows are known to allow all of it.
fn write_large(tx: &mut Tx, stream: StreamId, message: &[u8], in_place: Option<InPlace<'_>>) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut taken = tx.h2.data(stream, &prefix(length), false, &mut tx.fill);
    let mut written = 0;
    let mut put_until = |end: usize, then: &[u8]| {
        taken += tx.h2.data(stream, &message[written..end], false, &mut tx.fill);
        taken += tx.h2.data(stream, then, false, &mut tx.fill);
        written = end + then.len();
    };
    match in_place {
        None => {}
        Some((ttl_at, ttl, None)) => put_until(ttl_at as usize, &[ttl]),
        Some((ttl_at, ttl, Some((mac_at, tag)))) if ttl_at < mac_at => {
            put_until(ttl_at as usize, &[ttl]);
            put_until(mac_at as usize, tag);
        }
        Some((ttl_at, ttl, Some((mac_at, tag)))) => {
            put_until(mac_at as usize, tag);
            put_until(ttl_at as usize, &[ttl]);
        }
    }
    put_until(message.len(), &[]);
    debug_assert_eq!(taken, message.len() + PREFIX_OCTETS, "the windows allowed it");
}

/// Writes a message whose octets from `head` on leave from where they lie; the windows are known to allow all of it,
/// and `head` fits one frame.
fn gather(tx: &mut Tx, stream: StreamId, message: &Shared, head: usize, in_place: Option<InPlace<'_>>) {
    let frame_octets_max = tx.h2.max_frame_size() as usize;
    let begin = |tx: &mut Tx, octets: usize| {
        let begun = u32::try_from(octets).is_ok_and(|octets| tx.h2.begin_data(stream, octets, &mut tx.fill));
        debug_assert!(begun, "the windows allowed it");
    };
    let octets = message.len() + PREFIX_OCTETS;
    begin(tx, octets.min(frame_octets_max));
    let start = tx.fill.len() + PREFIX_OCTETS;
    tx.fill.extend_from_slice(&prefix(u32::try_from(message.len()).unwrap_or(u32::MAX)));
    tx.fill.extend_from_slice(&message[..head]);
    if let Some((ttl_at, ttl, tag)) = in_place {
        tx.fill[start + ttl_at as usize] = ttl;
        if let Some((mac_at, tag)) = tag {
            let mac_at = start + mac_at as usize;
            tx.fill[mac_at..mac_at + MAC_OCTETS].copy_from_slice(tag);
        }
    }
    let (mut from, mut part) = (head, octets.min(frame_octets_max) - PREFIX_OCTETS - head);
    loop {
        if part > 0 {
            tx.fill_bodies.push(Body::new(tx.fill.len(), Shared::clone(message), from, part));
            tx.fill_body_octets += part;
        }
        tx.h2.seal(); // the frame goes on outside of `fill`
        from += part;
        if from == message.len() {
            return;
        }
        part = (message.len() - from).min(frame_octets_max);
        begin(tx, part);
    }
}

/// A connection's queue grew: its age is looked at from now on. True if it became congested by that; one that has left does
/// not, because nobody is to wait for it.
#[inline]
fn grown(connection: &mut Connection, high: usize, aging: &mut Vec<(u32, u32)>) -> bool {
    if !connection.aging {
        connection.aging = true;
        aging.push((connection.id.slot, connection.id.generation));
    }
    let is_congested =
        connection.pressure == Pressure::Open && connection.age.waiting() > high && connection.ending.is_none();
    if is_congested {
        connection.pressure = Pressure::Congested;
    }
    is_congested
}

/// Notes whose octets were added to the block.
#[inline]
fn share(tx: &mut Tx, slot: u32, generation: u32, octets: usize) {
    match tx.fill_shares.last_mut() {
        Some((last, life, total)) if *last == slot && *life == generation => *total += octets,
        _ => tx.fill_shares.push((slot, generation, octets)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::{client_head, connect, core, settings};
    use crate::shard::mesh::mesh;
    use slimline_fib::ConnId;
    use slimline_wire::message::{
        Content, Header, HeaderParts, KnownNames, NameParts, PublishParts, Session, build_publish, read_header_again,
    };
    use slimline_wire::{Name, NameId, Prefix};
    use std::sync::Arc;

    fn long_publish() -> Vec<u8> {
        let name = NameParts { name: Name { prefix: Prefix([1, 2, 3]), id: NameId(1) }, text: None };
        let header = HeaderParts {
            source: name,
            destination: name,
            identity: "",
            fanout: 2,
            version: "",
            ttl: 8,
            incoming_conn: None,
            error: None,
            header_mac: None,
            e2e_header_sig: None,
        };
        let session = Session { session_type: 1, session_message_type: 1, session_id: 1, message_id: 1 };
        let content = Content::App { payload_type: "", blob: &[7; 16_000] };
        let mut out = Vec::new();
        build_publish(&PublishParts { header, session, content, metadata: &[] }, &mut out);
        out
    }

    #[test]
    fn gathered_messages_find_memory_while_others_are_in_the_kernels_hands() {
        let now = Instant::now();
        let mut core = core(0, mesh(1).remove(0), &Arc::new(settings(false)), now);
        let readers: [((u32, u32), ConnId); 2] = std::array::from_fn(|_| connect(&mut core, &client_head(), None, now));
        let hops = readers.map(|(_, conn)| conn);
        let message = long_publish();
        let (mut names, mut header) = (KnownNames::default(), Header::EMPTY);
        read_header_again(&message, &mut names, &mut header).expect("a publish");
        let outgoing = Outgoing { message: &message, header: &header, ttl: 7, shared: None };
        let mut made = Vec::new();
        for _ in 0..20 {
            // Each message comes while the one before is in flight, and is on its way before that is over.
            core.enqueue_all(&hops, &outgoing, now);
            let blocks = readers.map(|((slot, generation), _)| core.take_block(slot, generation, now));
            core.enqueue_all(&hops, &outgoing, now);
            for (((slot, generation), _), block) in readers.iter().zip(blocks) {
                let block = block.expect("a message waits");
                let octets = block.len();
                assert!(core.sent(*slot, *generation, block, Ok(octets)).is_none());
                let block = core.take_block(*slot, *generation, now).expect("the second message");
                let octets = block.len();
                assert!(core.sent(*slot, *generation, block, Ok(octets)).is_none());
            }
            made.push((core.spare_bodies.len(), core.spare_shared.len(), core.spare_blocks.len()));
        }
        assert!(core.counters.gathered_out == 80, "{}", core.counters.gathered_out);
        assert_eq!(made[0], made[19], "nothing is made after the first round, and nothing is thrown away: {made:?}");
        assert_eq!(made[0].0, 4, "two lists for each of two readers");
    }
}
