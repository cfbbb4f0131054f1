//! A shard: one pinned thread, one kernel door, and everything that hangs on them.
//!
//! The turn below is the whole loop. The sans-IO part is [`core::Core`], split by direction: `receive` (bytes in →
//! messages), `forward` (messages → next hops), `transmit` (next hops → bytes out), `mesh` (to and from other shards); beside
//! them `http` (requests and how streams end), `link` (negotiation), `subscribe`, `deadlines`.

pub(crate) mod core;
mod deadlines;
pub(crate) mod drain;
pub(crate) mod forward;
mod http;
pub(crate) mod link;
pub(crate) mod mesh;
pub(crate) mod reach;
mod receive;
pub(crate) mod stats;
mod subscribe;
mod timers;
mod transmit;

use self::core::{Action, Core, Unflushed};
use self::stats::{Published, ShardReport};
use crate::control::{Order, Orders, Request, RequestKind};
use crate::gate::Gate;
use crate::io::{Done, Ended, Io, Key};
use crate::limits::{DELTAS_PER_TURN, GATE_PAUSE, REARMS_PER_TURN, TICK};
use crate::mesh::{Doorbell, LogReader};
use crossbeam::channel::Sender;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What shards know of each other: how busy each is, and how to wake it.
pub(crate) struct Fellows {
    pub(crate) loads: Arc<[AtomicUsize]>,
    pub(crate) orders: Vec<Orders>,
    pub(crate) bells: Vec<Doorbell>,
    /// Control's.
    pub(crate) control: Doorbell,
}

/// One shard with its kernel door.
pub(crate) struct Shard<I: Io> {
    pub(crate) core: Core,
    pub(crate) io: I,
    deltas: LogReader,
    orders: Orders,
    fellows: Arc<Fellows>,
    published: Arc<Published>,
    done: VecDeque<Done>,
    /// Listeners whose accepting failed: they are tried again at the next tick.
    deaf: Vec<u32>,
    /// Transports whose receiving ended for want of buffers: armed again a few at a time, oldest first.
    starved: VecDeque<Key>,
    next_tick: Instant,
    /// Who waits to hear that everything read is on its way.
    quiescing: Option<Sender<()>>,
    stopping: bool,
    /// The listeners, on the shard that accepts.
    gate: Option<Gate>,
    /// While they are closed: when to see again whether there is room.
    next_gate_look: Instant,
    /// Octets held as last told to the others.
    held_noted: usize,
}

/// What a shard is built from, besides its core and kernel door.
pub(crate) struct ShardParts {
    pub(crate) deltas: LogReader,
    pub(crate) orders: Orders,
    pub(crate) fellows: Arc<Fellows>,
    pub(crate) published: Arc<Published>,
    pub(crate) now: Instant,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    On,
    Over,
}

/// How a shard goes to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// As for [`Io::enter`].
    pub(crate) wait: Option<Duration>,
    /// It has said that it sleeps.
    parked: bool,
}

impl<I: Io> Shard<I> {
    pub(crate) fn new(core: Core, io: I, parts: ShardParts) -> Self {
        Self {
            core,
            io,
            deltas: parts.deltas,
            orders: parts.orders,
            fellows: parts.fellows,
            published: parts.published,
            done: VecDeque::new(),
            deaf: Vec::new(),
            starved: VecDeque::new(),
            next_tick: parts.now + TICK,
            quiescing: None,
            stopping: false,
            gate: None,
            next_gate_look: parts.now,
            held_noted: 0,
        }
    }

    /// Lets this shard close and open the listeners.
    pub(crate) fn keep_gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// One turn: take what waits, forward it, submit once.
    pub(crate) fn turn(&mut self, clock: impl Fn() -> Instant) -> io::Result<Turn> {
        if self.work(clock()) == Turn::Over {
            return Ok(Turn::Over);
        }
        if !self.spin(&clock)? {
            let rest = self.lie_down(clock());
            self.sleep(rest)?;
        }
        self.core.arrived = clock();
        Ok(Turn::On)
    }

    /// Looks for work a little longer before a sleep; true if some came.
    fn spin(&mut self, clock: &impl Fn() -> Instant) -> io::Result<bool> {
        let spin = self.core.settings.spin;
        if spin.is_zero() || self.wait(clock()) == Some(Duration::ZERO) {
            return Ok(false);
        }
        let until = clock() + spin;
        while self.done.is_empty() && self.is_idle() {
            if clock() >= until {
                return Ok(false);
            }
            self.io.enter(Some(Duration::ZERO), &mut self.done)?;
        }
        Ok(true)
    }

    /// Whether nobody outside the kernel left anything for us.
    fn is_idle(&self) -> bool {
        self.orders.is_empty() && !self.deltas.has_more() && !self.core.mesh.has_input()
    }

    /// A turn up to the kernel: what waits is handled, what that makes is handed over.
    pub(crate) fn work(&mut self, now: Instant) -> Turn {
        self.core.counters.turns += 1;
        self.apply_deltas(); // between messages: one FIB per lookup
        self.core.take_from_mesh(now);
        self.take_orders(now);
        let more_may_come = !self.done.is_empty();
        while let Some(done) = self.done.pop_front() {
            self.complete(done, now);
        }
        self.feed_starved();
        self.core.retry_elsewhere();
        self.core.resume(now);
        self.core.deadlines(now);
        if now >= self.next_tick {
            self.tick(now);
        }
        if !(more_may_come && self.core.flush_can_wait(now)) {
            self.flush(now);
        }
        self.tell_others();
        self.look_at_gate(now);
        if self.quiescing.is_some() && self.core.has_forwarded_all() {
            self.quiescing.take().map(|waiting| waiting.send(()));
        }
        if self.stopping && self.core.transports.len() == 0 {
            self.published.store(&self.core.counters);
            return Turn::Over;
        }
        Turn::On
    }

    fn apply_deltas(&mut self) {
        let (fib, counters) = (&mut self.core.fib, &mut self.core.counters);
        self.deltas.drain(DELTAS_PER_TURN, |delta| {
            counters.deltas += 1;
            fib.apply(delta);
        });
    }

    fn take_orders(&mut self, now: Instant) {
        while let Some(order) = self.orders.pop() {
            match order {
                Order::Settled { conn, subscription_id, error } => {
                    self.core.settled(conn, subscription_id, error.as_deref(), now);
                }
                Order::Release { conn } => self.core.released(conn),
                Order::Adopt { listener, socket } => self.adopt(listener, socket, now),
                Order::Quiesce(done) => {
                    self.core.quiet = true;
                    self.io_unlisten_all();
                    self.quiescing = Some(done);
                }
                Order::Drain => self.core.drain(now),
                Order::Report(answer) => {
                    let _ = answer.send(self.report());
                }
                Order::Stop { now: at_once } => {
                    self.stopping = true;
                    if at_once {
                        self.core.abandon_all();
                    }
                }
            }
        }
    }

    fn report(&self) -> ShardReport {
        ShardReport {
            shard: self.core.index,
            counters: self.core.counters.clone(),
            latency: self.core.latency.clone(),
            transports: self.core.transports.len(),
            connections: self.core.connections.len(),
            names: self.core.fib.names(),
            io: self.io.features().to_string(),
        }
    }

    /// One completion.
    fn complete(&mut self, done: Done, now: Instant) {
        self.core.counters.completions += 1;
        match done {
            Done::Received { key, lease } => {
                let (core, io) = (&mut self.core, &self.io);
                core.received(key.slot, key.generation, io.octets(&lease), now);
                self.io.put_back(lease);
                self.core.reap_streams();
            }
            Done::Sent { key, block, result } => {
                if let Some((block, from)) = self.core.sent(key.slot, key.generation, block, result) {
                    self.io.send(key, block, from);
                }
            }
            Done::ReceiveEnded { key, why } => self.receive_ended(key, why, now),
            Done::Closed { key } => {
                self.core.transport_closed(key.slot, key.generation);
                self.fellows.loads[usize::from(self.core.index)].fetch_sub(1, Ordering::Relaxed);
            }
            Done::Accepted { listener, socket } => self.place(listener, socket, now),
            Done::AcceptFailed { listener, error } => {
                tracing::warn!(listener, %error, "accept failed: too many open files, or out of memory?");
                // Told late, it may be about a listener that has been closed meanwhile.
                if !self.core.quiet && self.gate.as_ref().is_none_or(Gate::is_open) {
                    self.deaf.push(listener);
                }
            }
            Done::Connected { .. } | Done::Woken => {}
        }
    }

    fn receive_ended(&mut self, key: Key, why: Ended, now: Instant) {
        if self.core.transports.get(key.slot, key.generation).is_none() {
            return;
        }
        match why {
            Ended::NoBuffers => {
                self.core.counters.starved += 1;
                self.starved.push_back(key);
            }
            Ended::Cancelled => {}
            Ended::Eof => self.core.peer_ended(key.slot, key.generation, now),
            Ended::Error(_) => self.core.abandon_transport(key.slot, key.generation),
        }
    }

    /// Arms receiving again where it ended for want of buffers, by the credit of one turn: every buffer is back by now.
    fn feed_starved(&mut self) {
        for _ in 0..REARMS_PER_TURN.min(self.starved.len()) {
            let Some(key) = self.starved.pop_front() else { return };
            self.io.receive(key); // nothing happens if it has closed meanwhile
        }
    }

    /// Gives an accepted socket to the least loaded shard.
    fn place(&mut self, listener: u32, socket: std::os::fd::OwnedFd, now: Instant) {
        let loads = &self.fellows.loads;
        let target = (0..loads.len()).min_by_key(|&shard| loads[shard].load(Ordering::Relaxed)).unwrap_or(0);
        loads[target].fetch_add(1, Ordering::Relaxed);
        let listener = u16::try_from(listener).unwrap_or(0);
        if target == usize::from(self.core.index) {
            self.adopt(listener, socket, now);
        } else {
            self.fellows.orders[target].push(Order::Adopt { listener, socket });
            self.fellows.bells[target].ring();
        }
    }

    fn adopt(&mut self, listener: u16, socket: std::os::fd::OwnedFd, now: Instant) {
        let (slot, generation) = self.core.open_transport(listener, now);
        let key = Key { slot, generation };
        match self.io.adopt(key, socket) {
            Ok(()) => self.io.receive(key),
            Err(error) => {
                tracing::warn!(%error, "accepted socket could not be taken over");
                self.core.transport_closed(slot, generation);
                self.fellows.loads[usize::from(self.core.index)].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Closes the listeners when the node is full, opens them again when there is room.
    fn look_at_gate(&mut self, now: Instant) {
        let Some(gate) = &mut self.gate else { return };
        let over = self.core.memory.is_over();
        let transports: usize = self.fellows.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum();
        if gate.is_full(transports, over) {
            self.core.counters.listeners_closed += 1;
            let (octets, octets_max) = (self.core.memory.octets(), self.core.memory.octets_max());
            tracing::warn!(
                transports,
                connections_max = gate.high(),
                memory_octets = octets,
                memory_octets_max = octets_max,
                "node is full: listeners closed until some leave"
            );
            self.deaf.clear();
            let listeners = self.core.settings.listeners.len();
            (0..listeners).for_each(|listener| self.io.unlisten(u32::try_from(listener).unwrap_or(0)));
            gate.begin_close();
            self.next_gate_look = now + GATE_PAUSE;
        } else if gate.is_closing() && now >= self.next_gate_look {
            for (listener, socket) in gate.close() {
                self.place(listener, socket, now);
            }
        } else if !gate.is_open() && now >= self.next_gate_look {
            self.next_gate_look = now + TICK;
            if !gate.has_room(transports, over) {
                return;
            }
            match gate.open() {
                Ok(sockets) => {
                    self.core.counters.listeners_reopened += 1;
                    tracing::info!(transports, "there is room again: listeners opened");
                    for (listener, socket) in (0u32..).zip(sockets) {
                        self.io.listen(listener, socket);
                    }
                }
                Err(error) if gate.is_first_failure() => {
                    tracing::warn!(%error, "listeners not opened again: tried until it works");
                }
                Err(_) => {}
            }
        }
    }

    fn io_unlisten_all(&mut self) {
        self.deaf.clear();
        let is_open = self.gate.take().is_none_or(|gate| gate.is_open());
        if self.core.index == 0 && is_open {
            for listener in 0..self.core.settings.listeners.len() {
                self.io.unlisten(u32::try_from(listener).unwrap_or(0));
            }
        }
    }

    /// Hands every transport's output to the kernel: one send each.
    fn flush(&mut self, now: Instant) {
        // By index: flushing touches nothing new, and the vectors keep their memory.
        for index in 0..self.core.touched.len() {
            let (slot, generation) = self.core.touched[index];
            if let Some(block) = self.core.take_block(slot, generation, now) {
                self.io.send(Key { slot, generation }, block, 0);
            }
        }
        self.core.touched.clear();
        self.core.unflushed = Unflushed::default();
        self.core.reap_streams();
        for action in self.core.actions.drain(..) {
            match action {
                Action::QuickAck(slot, generation) => {
                    self.core.counters.quick_acks += 1;
                    self.io.quick_ack(Key { slot, generation });
                }
                Action::Finish(slot, generation) => self.io.finish(Key { slot, generation }),
                Action::Close(slot, generation) => self.io.close(Key { slot, generation }),
                Action::Reset(slot, generation) => self.io.reset(Key { slot, generation }),
            }
        }
    }

    /// Publishes to control and to the other shards what this turn left for them.
    fn tell_others(&mut self) {
        let held = self.core.octets_held();
        if held.abs_diff(self.held_noted) >= self.core.memory.step() {
            self.held_noted = held;
            if self.core.memory.note(usize::from(self.core.index), held) {
                self.fellows.bells[0].ring(); // who keeps the listeners
            }
        }
        while let Some(&conn) = self.core.farewells.last() {
            let goodbye = Request { conn, kind: RequestKind::Gone, subscription_id: 0 };
            if self.core.requests.push(goodbye).is_err() {
                break;
            }
            self.core.farewells.pop();
            self.core.control_bell = true;
        }
        if std::mem::take(&mut self.core.control_bell) {
            self.fellows.control.ring();
        }
        self.core.mesh.publish(&self.fellows.bells);
    }

    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        for listener in self.deaf.drain(..) {
            self.io.accept(listener);
        }
        self.core.age_queues(now);
        self.core.drain_progress(now);
        self.published.store(&self.core.counters);
    }

    /// How long the kernel may keep us; zero when there is work left.
    fn wait(&self, now: Instant) -> Option<Duration> {
        if !self.core.ready.is_empty()
            || !self.starved.is_empty()
            || !self.core.farewells.is_empty()
            || !self.core.touched.is_empty()
            || self.deltas.has_more()
            || self.core.mesh.has_input()
        {
            return Some(Duration::ZERO);
        }
        let ticks = !self.core.aging.is_empty() || !self.deaf.is_empty() || self.core.quiet || self.stopping;
        let tick = ticks.then_some(self.next_tick);
        let gate = self.gate.as_ref().is_some_and(|gate| !gate.is_open()).then_some(self.next_gate_look);
        let retry = (!self.core.parked_elsewhere.is_empty() || self.core.mesh.has_unsaid())
            .then_some(now + Duration::from_millis(1));
        let soonest = [self.core.timers.next(), tick, gate, retry].into_iter().flatten().min();
        soonest.map(|at| at.saturating_duration_since(now))
    }

    /// How long the kernel may keep us: announces a sleep to those who may want to end it, then looks once more.
    pub(crate) fn lie_down(&mut self, now: Instant) -> Rest {
        let wait = self.wait(now);
        if wait == Some(Duration::ZERO) {
            return Rest { wait, parked: false };
        }
        self.deltas.park();
        Rest { wait: if self.is_idle() { wait } else { Some(Duration::ZERO) }, parked: true }
    }

    /// The visit to the kernel; after a sleep the replica is as new as those who saw us asleep count on.
    pub(crate) fn sleep(&mut self, rest: Rest) -> io::Result<()> {
        let outcome = self.io.enter(rest.wait, &mut self.done);
        if rest.parked {
            let (fib, counters) = (&mut self.core.fib, &mut self.core.counters);
            self.deltas.resume(|delta| {
                counters.deltas += 1;
                fib.apply(delta);
            });
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::{core, settings};
    use crate::io::IoOptions;
    use crate::io::sim::{Faults, SimNet};
    use crate::listen::listen;
    use crate::mesh::delta_log;
    use slimline_config::Listen;

    #[test]
    fn a_failure_to_accept_that_is_told_after_the_listeners_closed_changes_nothing() {
        let now = Instant::now();
        let net = SimNet::new(1, Faults::NONE);
        let mut io = net.engine(&IoOptions::default()).expect("an engine");
        io.listen(0, net.listener().expect("a stand-in").0);
        let at = Listen::Tcp("127.0.0.1:0".parse().expect("an address"));
        let listener = listen(&at, 16).expect("a free port");
        let full_at_once = Gate::new(&[(at, &listener)], 16, 0).expect("files");
        let (writer, mut readers) = delta_log([|| ()], || (), 4);
        let orders = Orders::default();
        let fellows = Fellows {
            loads: [AtomicUsize::new(0)].into(),
            orders: vec![Arc::clone(&orders)],
            bells: vec![writer.doorbell_of(0)],
            control: writer.doorbell(),
        };
        let (deltas, fellows, published) = (readers.remove(0), Arc::new(fellows), Arc::default());
        let core = core(0, mesh::mesh(1).remove(0), &Arc::new(settings(false)), now);
        let mut shard = Shard::new(core, io, ShardParts { deltas, orders, fellows, published, now });
        shard.keep_gate(full_at_once);
        assert_eq!(shard.work(now), Turn::On);
        assert_eq!(shard.core.counters.listeners_closed, 1);
        let error = io::Error::from_raw_os_error(libc::ENOSPC);
        shard.done.push_back(Done::AcceptFailed { listener: 0, error });
        assert_eq!(shard.work(now), Turn::On);
        assert_eq!(shard.work(now + TICK), Turn::On, "nobody accepts where nobody listens");
    }
}
