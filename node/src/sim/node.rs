//! A node without threads: its shards and control, stepped one at a time by the simulation.
//!
//! A shard's turn is taken apart where others may come in between: its work up to the announced sleep, and the visit to
//! the kernel. Between the two it is parked, as a real one would be, and goes on only when the kernel has something, its
//! time is up, or somebody rang; so a wake-up that is lost is a run that stands still.

use super::quiet;
use crate::control::inventory::Inventory;
use crate::control::thread::round;
use crate::control::{Control, Order, Orders, Request};
use crate::io::sim::{Dice, Faults, Sim, SimNet};
use crate::io::{Io, IoOptions};
use crate::mesh::{LOG_BATCHES_MAX, delta_log};
use crate::settings::{Settings, SlowReader};
use crate::shard::core::{Core, CoreParts};
use crate::shard::mesh::mesh;
use crate::shard::stats::{Counters, Published};
use crate::shard::{Fellows, Rest, Shard, ShardParts, Turn};
use crossbeam::channel::{Receiver, bounded};
use crossbeam::queue::ArrayQueue;
use slimline_fib::{Rib, RibLimits};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How a node is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) shards: usize,
    pub(super) slow_reader: SlowReader,
    pub(super) faults: Faults,
    /// Takes links without a key.
    pub(super) is_lax: bool,
    /// Passes nothing from Peer to Peer.
    pub(super) is_full_mesh: bool,
}

impl Default for Shape {
    /// One shard, nobody is hurried, nothing goes wrong.
    fn default() -> Self {
        Self { shards: 1, slow_reader: PATIENT, faults: Faults::NONE, is_lax: false, is_full_mesh: false }
    }
}

/// One that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    Shard(usize),
    Control,
}

pub(super) struct SimNode {
    pub(super) net: SimNet,
    /// Where clients call.
    pub(super) door: usize,
    pub(super) shards: Vec<SimShard>,
    control: Control,
    control_sleeps: bool,
    control_rung: Arc<AtomicBool>,
    fellows: Arc<Fellows>,
    inventory: Arc<Inventory>,
}

pub(super) struct SimShard {
    pub(super) shard: Shard<Sim>,
    /// How it lies before the kernel, and since when; `None` while it has work to do.
    rest: Option<(Rest, Instant)>,
    rung: Arc<AtomicBool>,
    over: bool,
}

impl SimNode {
    pub(super) fn start(seed: u64, shape: &Shape) -> Self {
        let net = SimNet::new(seed, shape.faults);
        let count = shape.shards;
        let mut dice = Dice::new(seed ^ 0x0010_5e7f);
        let mut engines: Vec<Sim> =
            (0..count).map(|_| net.engine(&io_options(&mut dice)).expect("an engine")).collect();
        let flag = Arc::<AtomicBool>::default;
        let rung: Vec<Arc<AtomicBool>> = (0..count).map(|_| flag()).collect();
        let control_rung = flag();
        let wakes = engines.iter().zip(&rung).map(|(io, rung)| {
            let (waker, rung) = (io.waker(), Arc::clone(rung));
            move || {
                rung.store(true, Ordering::Relaxed);
                waker.wake();
            }
        });
        let ring_control = Arc::clone(&control_rung);
        let wake_control = move || ring_control.store(true, Ordering::Relaxed);
        let batches_max = if dice.happens(300) { 2 } else { LOG_BATCHES_MAX };
        let (writer, readers) = delta_log(wakes.collect::<Vec<_>>(), wake_control, batches_max);
        let orders: Vec<Orders> = (0..count).map(|_| Orders::default()).collect();
        let queue_max = if dice.happens(300) { 2 } else { 1024 };
        let settings = settings(shape, if dice.happens(500) { FLUSH_LATER } else { Duration::ZERO });
        let requests: Vec<Arc<ArrayQueue<Request>>> =
            (0..count).map(|_| Arc::new(ArrayQueue::new(queue_max))).collect();
        let inventory = Arc::<Inventory>::default();
        let fellows = Arc::new(Fellows {
            loads: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            orders: orders.clone(),
            bells: (0..count).map(|shard| writer.doorbell_of(shard)).collect(),
            control: writer.doorbell(),
        });
        let (listener, door) = net.listener().expect("a stand-in");
        engines[0].listen(0, listener);
        let parts = engines.into_iter().zip(readers).zip(mesh(count)).zip(rung).enumerate();
        let shards = parts.map(|(index, (((io, deltas), mesh), rung))| {
            let core = Core::new(CoreParts {
                index: u16::try_from(index).expect("few shards"),
                settings: Arc::clone(&settings),
                inventory: Arc::clone(&inventory),
                requests: Arc::clone(&requests[index]),
                mesh,
                fib_seed: seed,
                now: net.now(),
            });
            let (orders, fellows) = (Arc::clone(&orders[index]), Arc::clone(&fellows));
            let parts = ShardParts { deltas, orders, fellows, published: Arc::<Published>::default(), now: net.now() };
            SimShard { shard: Shard::new(core, io, parts), rest: None, rung, over: false }
        });
        let shards = shards.collect();
        let rib = Rib::with_seed(RibLimits { names_max: 10_000, names_per_connection_max: 10_000 }, seed);
        let control = Control::new(rib, requests, orders, writer);
        Self { net, door, shards, control, control_sleeps: false, control_rung, fellows, inventory }
    }

    /// Adds everyone who may go on now.
    pub(super) fn runnable(&self, out: &mut Vec<Actor>) {
        let now = self.net.now();
        for (index, shard) in self.shards.iter().enumerate() {
            if !shard.over && shard.next(now).is_some_and(|at| at <= now) {
                out.push(Actor::Shard(index));
            }
        }
        if !self.control_sleeps || self.control_rung.load(Ordering::Relaxed) {
            out.push(Actor::Control);
        }
    }

    /// When somebody but `asleep` may go on, if nothing new comes from outside.
    pub(super) fn next_moment(&self, asleep: Option<Actor>) -> Option<Instant> {
        let now = self.net.now();
        let shards = self.shards.iter().enumerate().filter(|(index, _)| asleep != Some(Actor::Shard(*index)));
        shards.filter(|(_, shard)| !shard.over).filter_map(|(_, shard)| shard.next(now)).min()
    }

    pub(super) fn step(&mut self, actor: Actor) {
        match actor {
            Actor::Shard(index) => self.shards[index].step(self.net.now()),
            Actor::Control => {
                self.control_rung.store(false, Ordering::Relaxed);
                if std::mem::take(&mut self.control_sleeps) {
                    self.control.unpark();
                }
                self.control_sleeps = round(&mut self.control, &self.fellows.bells);
            }
        }
    }

    /// Counters of all shards.
    pub(super) fn counters(&self) -> Counters {
        let mut total = Counters::default();
        for shard in &self.shards {
            total.add(&shard.shard.core.counters);
        }
        total
    }

    /// Copies each link lost by the slow reader's table, by link id.
    pub(super) fn dropped(&self) -> BTreeMap<String, u64> {
        let links = self.inventory.snapshot().into_iter().map(|(id, facts)| {
            let core = &self.shards[usize::from(id.shard)].shard.core;
            let connection = core.connections.get(id.slot, id.generation).expect("in the inventory while it lives");
            (facts.link_id.clone(), connection.dropped)
        });
        links.collect()
    }

    /// What still waits somewhere; `None` when nothing does.
    pub(super) fn unfinished(&self) -> Option<String> {
        if !self.control.is_idle() {
            return Some("control has something to do".into());
        }
        self.shards.iter().filter(|shard| !shard.over).find_map(|shard| quiet::unfinished(&shard.shard.core))
    }

    /// Panics unless the node is as it was before the first client came.
    pub(super) fn assert_empty(&self) {
        assert_eq!(self.control.names(), 0, "names in the RIB");
        assert_eq!(self.inventory.len(), 0, "links in the inventory");
        for (index, shard) in self.shards.iter().enumerate() {
            quiet::assert_empty(&shard.shard.core);
            shard.shard.io.assert_quiet();
            let load = self.fellows.loads[index].load(Ordering::Relaxed);
            assert_eq!(load, 0, "load of shard {index}");
        }
    }

    /// Rings every shard: one that sleeps has not read yet what it will read on waking.
    pub(super) fn wake_all(&self) {
        for bell in &self.fellows.bells {
            bell.ring();
        }
    }

    /// Names in all replicas.
    pub(super) fn replicated_names(&self) -> usize {
        self.shards.iter().map(|shard| shard.shard.core.fib.names()).sum()
    }

    /// Begins to stop, as the node does: nothing more is read; an answer of each shard follows when all was forwarded.
    pub(super) fn quiesce(&mut self) -> Receiver<()> {
        let (tx, rx) = bounded(self.shards.len());
        self.order_all(|| Order::Quiesce(tx.clone()));
        rx
    }

    /// Says goodbye to every client.
    pub(super) fn drain(&mut self) {
        self.order_all(|| Order::Drain);
        self.order_all(|| Order::Stop { now: false });
    }

    fn order_all(&mut self, mut order: impl FnMut() -> Order) {
        for (orders, bell) in self.fellows.orders.iter().zip(&self.fellows.bells) {
            orders.push(order());
            bell.ring();
        }
    }

    /// Whether every shard has ended.
    pub(super) fn is_over(&self) -> bool {
        self.shards.iter().all(|shard| shard.over)
    }
}

impl SimShard {
    /// When it may go on; by now means at once.
    fn next(&self, now: Instant) -> Option<Instant> {
        let Some((rest, since)) = self.rest else { return Some(now) };
        if self.rung.load(Ordering::Relaxed) {
            return Some(now);
        }
        let timeout = rest.wait.map(|wait| since + wait);
        timeout.into_iter().chain(self.shard.io.next_event()).min()
    }

    fn step(&mut self, now: Instant) {
        match self.rest.take() {
            None => match self.shard.work(now) {
                Turn::On => self.rest = Some((self.shard.lie_down(now), now)),
                Turn::Over => self.over = true,
            },
            Some((rest, _)) => {
                self.rung.store(false, Ordering::Relaxed);
                self.shard.sleep(rest).expect("the fake kernel does not break");
                self.shard.core.arrived = now;
            }
        }
    }
}

fn io_options(dice: &mut Dice) -> IoOptions {
    let recv_buf_octets = [512, 4096, 65_536][dice.below(3)];
    IoOptions { recv_buf_octets, recv_buf_count: 8, ..IoOptions::small() }
}

fn settings(shape: &Shape, flush: Duration) -> Arc<Settings> {
    const CONFIG: &str = "services:\n  slim/0:\n    dataplane:\n      servers:\n        - endpoint: \"127.0.0.1:0\"\n          tls: {insecure: true}\n";
    let config = slimline_config::parse(CONFIG, "simulation", &|_: &str| None).expect("a configuration");
    let mut settings = Settings::of(&config.services[0], &config.slimline);
    settings.listeners[0].slow_reader = shape.slow_reader;
    settings.require_header_mac = !shape.is_lax;
    settings.full_mesh = shape.is_full_mesh;
    settings.flush = flush;
    Arc::new(settings)
}

/// How long output may wait for company, where it may.
const FLUSH_LATER: Duration = Duration::from_micros(50);

/// Nobody stalls, nobody is cut: whoever waits is waited for, and nothing may be lost.
pub(super) const PATIENT: SlowReader = SlowReader {
    high: 64 * 1024,
    low: 32 * 1024,
    stall_after: Duration::from_secs(3600),
    cut_after: Duration::from_secs(7200),
    hard_cap: 64 * 1024 * 1024,
};

/// The table of architecture's defaults with less memory: slow readers lose copies, and in the end their connection.
pub(super) const STRICT: SlowReader = SlowReader {
    high: 64 * 1024,
    low: 32 * 1024,
    stall_after: Duration::from_secs(1),
    cut_after: Duration::from_secs(10),
    hard_cap: 512 * 1024,
};
