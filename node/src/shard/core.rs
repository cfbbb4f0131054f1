//! The sans-IO part of a shard: everything between bytes in and bytes out.
//!
//! [`Core`] owns the transports, connections, the FIB replica and the counters. It is handed octets and time and leaves
//! behind what the kernel should do: [`Action`]s, and transports whose output waits ([`Core::touched`]).

use super::mesh::MeshPort;
use super::reach::Reading;
use super::stats::{Counters, latency_histogram};
use super::timers::Timers;
use crate::conn::connection::{Connection, Wait};
use crate::conn::table::{KEY_GENERATION_MASK, Table};
use crate::conn::transport::{Closing, Transport};
use crate::control::Request;
use crate::control::inventory::Inventory;
use crate::io::{Block, Body, Shared};
use crate::limits::{SPARE_SHARED_LOOKS, SPARE_SHARED_MAX, SPARE_SHARED_OCTETS_MAX};
use crate::memory::Memory;
use crate::settings::Settings;
use crossbeam::queue::ArrayQueue;
use hdrhistogram::Histogram;
use slimline_fib::{ConnId, Fib};
use slimline_wire::h2::{Code, StreamId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// What the shard should ask of the kernel for one transport (slot, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Acknowledge at once what was received.
    QuickAck(u32, u32),
    /// Tell the peer that nothing more will be sent.
    Finish(u32, u32),
    /// Close the socket; nothing is in flight.
    Close(u32, u32),
    /// Close the socket at once, whatever is in flight.
    Reset(u32, u32),
}

/// The state of one shard.
pub(crate) struct Core {
    pub(crate) index: u16,
    pub(crate) settings: Arc<Settings>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) fib: Fib,
    pub(crate) transports: Table<Transport>,
    pub(crate) connections: Table<Connection>,
    pub(crate) requests: Arc<ArrayQueue<Request>>,
    /// Set when control has something new to read; the shard rings its bell once per turn.
    pub(crate) control_bell: bool,
    pub(crate) mesh: MeshPort,
    /// Connections of other shards that are congested now.
    pub(crate) congested_elsewhere: HashSet<ConnId>,
    /// Connections of this shard parked because of one of those, or of a full ring.
    pub(crate) parked_elsewhere: Vec<ConnId>,
    /// Connections whose wait may be over.
    pub(crate) ready: Vec<ConnId>,
    /// Set while those go on; what parks again meanwhile is registered afterwards.
    pub(crate) resuming: bool,
    pub(crate) parked_again: Vec<(ConnId, Wait)>,
    /// Connections with something queued: looked at each tick for age.
    pub(crate) aging: Vec<(u32, u32)>,
    /// Departures control has not been told of yet because its queue was full.
    pub(crate) farewells: Vec<ConnId>,
    pub(crate) actions: Vec<Action>,
    /// Streams whose connection we ended: their receive state is taken down when the turn ends.
    pub(crate) ended_streams: Vec<(u32, u32, StreamId)>,
    /// Transports with output to send at the end of the turn.
    pub(crate) touched: Vec<(u32, u32)>,
    /// How much output waits for the flush.
    pub(crate) unflushed: Unflushed,
    pub(crate) timers: Timers,
    /// Nothing more is read: the node is about to drain.
    pub(crate) quiet: bool,
    pub(crate) draining: bool,
    pub(crate) counters: Counters,
    pub(crate) latency: Histogram<u64>,
    /// When the octets being handled arrived: the last return from the kernel.
    pub(crate) arrived: Instant,
    /// Octets held for peers: queues, parked streams, incomplete messages.
    pub(crate) held: Held,
    /// Whether a peer's octets are being read: how far a panic reaches.
    pub(crate) reading: Reading,
    pub(crate) memory: Arc<Memory>,
    /// Reused by every publish: the matched next hops.
    pub(crate) hops: Vec<ConnId>,
    /// Reused by every general re-encode.
    pub(crate) scratch: Vec<u8>,
    pub(crate) spare_blocks: Vec<Vec<u8>>,
    /// Memory for the list of a block's bodies.
    pub(crate) spare_bodies: Vec<Vec<Body>>,
    /// Memory for the next message that several sends share; nobody else holds it.
    pub(crate) spare_shared: Vec<Shared>,
    /// The message being handled, if it lies in memory that sends may share.
    pub(crate) sharing: Option<Shared>,
    pub(crate) date: Date,
}

/// What a core is built from.
pub(crate) struct CoreParts {
    pub(crate) index: u16,
    pub(crate) settings: Arc<Settings>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) requests: Arc<ArrayQueue<Request>>,
    pub(crate) mesh: MeshPort,
    pub(crate) fib_seed: u64,
    pub(crate) now: Instant,
}

/// A count of octets that are held and given up again.
#[derive(Debug, Default)]
pub(crate) struct Held(usize);

impl Held {
    #[inline]
    pub(crate) fn take(&mut self, octets: usize) {
        self.0 += octets;
    }

    #[inline]
    pub(crate) fn give(&mut self, octets: usize) {
        debug_assert!(octets <= self.0, "{octets} of {}", self.0);
        self.0 = self.0.saturating_sub(octets);
    }
}

impl Core {
    /// Octets this shard holds for its peers, tables included.
    pub(crate) fn octets_held(&self) -> usize {
        use crate::limits::{CONNECTION_OCTETS, NAME_OCTETS, TRANSPORT_OCTETS};
        self.held.0
            + self.transports.len() * TRANSPORT_OCTETS
            + self.connections.len() * CONNECTION_OCTETS
            + self.fib.names() * NAME_OCTETS
    }

    pub(crate) fn new(parts: CoreParts) -> Self {
        Self {
            index: parts.index,
            settings: parts.settings,
            inventory: parts.inventory,
            fib: Fib::new(parts.index, parts.fib_seed),
            transports: Table::new(KEY_GENERATION_MASK, u32::MAX),
            connections: Table::new(u32::MAX, ConnId::SLOTS_MAX),
            requests: parts.requests,
            control_bell: false,
            mesh: parts.mesh,
            congested_elsewhere: HashSet::new(),
            parked_elsewhere: Vec::new(),
            ready: Vec::new(),
            resuming: false,
            parked_again: Vec::new(),
            aging: Vec::new(),
            farewells: Vec::new(),
            actions: Vec::new(),
            ended_streams: Vec::new(),
            touched: Vec::new(),
            unflushed: Unflushed::default(),
            timers: Timers::new(),
            quiet: false,
            draining: false,
            counters: Counters::default(),
            latency: latency_histogram(),
            arrived: parts.now,
            held: Held::default(),
            reading: Reading::default(),
            memory: Arc::new(Memory::unlimited()),
            hops: Vec::new(),
            scratch: Vec::new(),
            spare_blocks: Vec::new(),
            spare_bodies: Vec::new(),
            spare_shared: Vec::new(),
            sharing: None,
            date: Date::default(),
        }
    }

    /// Takes an accepted socket into the tables and greets its peer; the caller gives the socket itself to the kernel door.
    pub(crate) fn open_transport(&mut self, listener: u16, now: Instant) -> (u32, u32) {
        let limits = &self.settings.listeners[usize::from(listener)].h2;
        let (slot, generation) =
            self.transports.insert(|slot, generation| Transport::new(slot, generation, listener, limits, now));
        self.counters.transports_accepted += 1;
        self.look_at(slot, generation, now + self.settings.preface_timeout);
        if let Some(transport) = self.transports.get_mut(slot, generation) {
            let tx = &mut transport.tx;
            Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
            tx.h2.start(&mut tx.fill);
        }
        self.touch(slot, generation);
        (slot, generation)
    }

    /// Notes that a transport has output; it is flushed at the end of the turn.
    #[inline]
    pub(crate) fn touch(&mut self, slot: u32, generation: u32) {
        if let Some(transport) = self.transports.get_mut(slot, generation)
            && !transport.touched
        {
            transport.touched = true;
            self.touched.push((slot, generation));
        }
    }

    /// Ends a transport with GOAWAY: what was queued for it is dropped and counted, its connections go.
    pub(crate) fn fail_transport(&mut self, slot: u32, generation: u32, code: Code, reason: &str, now: Instant) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        if transport.closing != Closing::No {
            return;
        }
        transport.closing = Closing::AfterSend;
        let last = transport.rx.as_ref().map_or(StreamId::TRANSPORT, |rx| rx.h2.last_stream());
        let tx = &mut transport.tx;
        Self::lease_block(&mut self.spare_blocks, &mut tx.fill);
        tx.h2.goaway(last, code, reason.as_bytes(), &mut tx.fill);
        transport.goaway_sent = true;
        transport.closing_since = Some(now);
        self.drop_connections(slot, generation);
        self.look_at(slot, generation, now + crate::limits::LINGER);
        self.touch(slot, generation);
    }

    /// Ends a transport without a word: the peer is gone or does not read.
    pub(crate) fn abandon_transport(&mut self, slot: u32, generation: u32) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        if transport.closing == Closing::Closed {
            return;
        }
        transport.closing = Closing::Closed;
        self.drop_connections(slot, generation);
        self.actions.push(Action::Reset(slot, generation));
    }

    pub(crate) fn drop_connections(&mut self, slot: u32, generation: u32) {
        let Some(transport) = self.transports.get_mut(slot, generation) else { return };
        for (slot, generation) in std::mem::take(&mut transport.connections) {
            self.forget_connection(slot, generation);
        }
    }

    /// The kernel has nothing more about this transport: its slot may be used again.
    pub(crate) fn transport_closed(&mut self, slot: u32, generation: u32) {
        self.drop_connections(slot, generation);
        if let Some(mut transport) = self.transports.remove(slot, generation) {
            self.held.give(transport.rx.as_ref().map_or(0, |rx| rx.held_octets()));
            self.counters.transports_closed += 1;
            Self::return_block(&mut self.spare_blocks, std::mem::take(&mut transport.tx.fill));
            self.transports.release(slot, generation);
        }
    }

    /// A block to write into: a spare one if `fill` has no memory yet.
    #[inline]
    pub(crate) fn lease_block(spare: &mut Vec<Vec<u8>>, fill: &mut Vec<u8>) {
        if fill.capacity() == 0
            && let Some(block) = spare.pop()
        {
            *fill = block;
        }
    }

    /// Memory that nobody else holds, for a message of so many octets that sends may share.
    pub(crate) fn lease_shared(&mut self, octets: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Shared {
        // A little short is good enough: lengths differ by an octet or two, and it grows once to the longest.
        let fits = |spare: &Shared| (octets / 2..=shared_room_max(octets)).contains(&spare.capacity());
        let back = self.spare_shared.iter().rev().take(SPARE_SHARED_LOOKS).position(fits);
        let place = back.map(|back| self.spare_shared.len() - 1 - back);
        let mut shared = place.map(|place| self.spare_shared.swap_remove(place)).unwrap_or_default();
        fill(Shared::get_mut(&mut shared).expect("spare memory is held once"));
        shared
    }

    /// Keeps shared memory for the next message once the last send that took from it is over; the longest kept goes.
    pub(crate) fn return_shared(&mut self, mut shared: Shared) {
        let Some(octets) = Shared::get_mut(&mut shared) else { return };
        if (1..=SPARE_SHARED_OCTETS_MAX).contains(&octets.capacity()) {
            octets.clear();
            if self.spare_shared.len() == SPARE_SHARED_MAX {
                self.spare_shared.swap_remove(0);
            }
            self.spare_shared.push(shared);
        }
    }

    /// Takes a sent block apart for reuse.
    ///
    /// Everything goes to the shard's pools, not to the transport: a gathered message may come while the last one is still
    /// in the kernel's hands, and finds memory there once as many lists were made as were ever in use together.
    pub(crate) fn recycle(&mut self, block: Block) {
        let (octets, mut bodies) = block.into_parts();
        Self::return_block(&mut self.spare_blocks, octets);
        if bodies.capacity() == 0 {
            return;
        }
        for body in bodies.drain(..) {
            self.return_shared(body.into_memory());
        }
        if self.spare_bodies.len() < crate::limits::SPARE_BLOCKS_MAX {
            self.spare_bodies.push(bodies);
        }
    }

    /// Keeps an idle block for the next transport that has something to say.
    pub(crate) fn return_block(spare: &mut Vec<Vec<u8>>, mut block: Vec<u8>) {
        if block.capacity() > 0
            && block.capacity() <= crate::limits::SPARE_BLOCK_OCTETS_MAX
            && spare.len() < crate::limits::SPARE_BLOCKS_MAX
        {
            block.clear();
            spare.push(block);
        }
    }
}

/// Room that memory may have while sends share a message of so many octets: a reader that takes none of them must not
/// hold much more than what is queued for it.
pub(crate) const fn shared_room_max(octets: usize) -> usize {
    2 * octets
}

/// How much output waits for the flush, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unflushed {
    octets: usize,
    since: Option<Instant>,
}

impl Unflushed {
    /// Octets were added to a block.
    #[inline]
    pub(crate) fn add(&mut self, octets: usize, now: Instant) {
        self.octets += octets;
        self.since.get_or_insert(now);
    }
}

impl Core {
    /// Whether output may wait for more while there is more to read: not much of it, and not old.
    pub(crate) fn flush_can_wait(&self, now: Instant) -> bool {
        let Unflushed { octets, since } = self.unflushed;
        octets < crate::limits::FLUSH_OCTETS
            && since.is_some_and(|since| now.saturating_duration_since(since) < self.settings.flush)
    }
}

/// The text of the `date` header, made once per second.
#[derive(Default)]
pub(crate) struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// The current time as HTTP writes it (RFC 9110 §5.6.7).
    pub(crate) fn text(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        &self.text
    }
}
