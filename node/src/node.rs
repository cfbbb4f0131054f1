//! Starting and stopping a node: listeners, shards, control; and the questions one may ask while it runs.

use crate::conn::connection::LinkFacts;
use crate::control::inventory::Inventory;
use crate::control::thread::ControlWaker;
use crate::control::{Control, Order, Orders, Request};
use crate::gate::{Gate, transports_max};
use crate::io::{Disable, Engine, EngineChoice, Io, IoOptions, Waker};
use crate::listen::{ListenError, Listener, listen};
use crate::memory::{Memory, default_budget};
use crate::mesh::{Doorbell, LOG_BATCHES_MAX, delta_log};
use crate::settings::Settings;
use crate::shard::core::{Core, CoreParts};
use crate::shard::mesh::mesh;
use crate::shard::reach::or_abort;
use crate::shard::stats::{Published, ShardReport};
use crate::shard::{Fellows, Shard, ShardParts, Turn};
use crossbeam::channel::bounded;
use crossbeam::queue::ArrayQueue;
use slimline_config::{Config, IoFeature, Service};
use slimline_fib::{ConnId, Rib, RibLimits};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests one shard may have waiting at control.
const REQUESTS_WAITING_MAX: usize = 16 * 1024;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error("failed to start service")]
    Listen(#[from] ListenError),
    /// The kernel door could not be opened.
    #[error("failed to start shard {shard}: {source}")]
    Io {
        /// Which shard.
        shard: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("failed to start thread {name}: {source}")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A running node (one service of the configuration).
pub struct Node {
    settings: Arc<Settings>,
    orders: Vec<Orders>,
    bells: Vec<Doorbell>,
    published: Vec<Arc<Published>>,
    inventory: Arc<Inventory>,
    names: Arc<AtomicUsize>,
    shards: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    control_stop: Arc<AtomicBool>,
    control_bell: Doorbell,
    endpoints: Vec<String>,
    features: String,
    fallback: Option<String>,
    started: Instant,
}

impl Node {
    /// Opens the listeners, then starts control and one thread per shard.
    ///
    /// Errors: a listener that cannot be opened, an engine the kernel refuses; nothing keeps running then.
    pub fn start(config: &Config, service: &Service) -> Result<Self, StartError> {
        let count = shard_count(config);
        let mut settings = Settings::of(service, &config.slimline);
        if !settings.spin.is_zero() && count + 1 > available_cpus() {
            tracing::warn!(shards = count, "slimline.io.spin_us is off: no CPU would be left for anything else");
            settings.spin = Duration::ZERO;
        }
        let settings = Arc::new(settings);
        let mut sockets = Vec::new();
        for server in &service.servers {
            sockets.push(listen(&server.listen, config.slimline.limits.accept_backlog)?);
        }
        let endpoints = sockets.iter().map(|listener| listener.endpoint.clone()).collect();
        let gate = gate(config, service, &sockets, count).map_err(|source| StartError::Io { shard: 0, source })?;
        let budget = config.slimline.limits.memory_octets_max;
        let budget = budget.map_or_else(default_budget, |octets| usize::try_from(octets).unwrap_or(usize::MAX));
        let memory = Arc::new(Memory::new(budget, count));

        // A ring belongs to the thread that makes it, so wakers exist only once the shards run.
        let wakers: Vec<Arc<OnceLock<Waker>>> = (0..count).map(|_| Arc::default()).collect();
        let wakes = wakers.iter().map(|waker| {
            let waker = Arc::clone(waker);
            move || {
                if let Some(waker) = waker.get() {
                    waker.wake();
                }
            }
        });
        let control_waker = Arc::<ControlWaker>::default();
        let wake_control = Arc::clone(&control_waker);
        let (writer, readers) = delta_log(wakes, move || wake_control.wake(), LOG_BATCHES_MAX);
        let bells: Vec<Doorbell> = (0..count).map(|shard| writer.doorbell_of(shard)).collect();
        let control_bell = writer.doorbell();
        let orders: Vec<Orders> = (0..count).map(|_| Orders::default()).collect();
        let requests: Vec<Arc<ArrayQueue<Request>>> =
            (0..count).map(|_| Arc::new(ArrayQueue::new(REQUESTS_WAITING_MAX))).collect();
        let published: Vec<Arc<Published>> = (0..count).map(|_| Arc::default()).collect();
        let inventory = Arc::<Inventory>::default();
        let loads: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let fib_seed = rand_seed();

        // Shards make their kernel door on their own thread (a ring belongs to one), then report its waker.
        let (ready_tx, ready_rx) = bounded(count);
        let mut starters = Vec::new();
        let mut handles = Vec::new();
        let ports = mesh(count);
        let cores = core_affinity_list();
        let (mut sockets, mut gate) = (Some(sockets), Some(gate));
        for (index, (deltas, port)) in readers.into_iter().zip(ports).enumerate() {
            let (go_tx, go_rx) = bounded::<Arc<Fellows>>(1);
            starters.push(go_tx);
            let own_sockets = if index == 0 { sockets.take().unwrap_or_default() } else { Vec::new() };
            let (gate, memory) = (if index == 0 { gate.take() } else { None }, Arc::clone(&memory));
            let core = CoreParts {
                index: u16::try_from(index).unwrap_or(u16::MAX),
                settings: Arc::clone(&settings),
                inventory: Arc::clone(&inventory),
                requests: Arc::clone(&requests[index]),
                mesh: port,
                fib_seed,
                now: Instant::now(),
            };
            let (orders, published) = (Arc::clone(&orders[index]), Arc::clone(&published[index]));
            let waker = Arc::clone(&wakers[index]);
            let options = io_options(&config.slimline);
            let ready = ready_tx.clone();
            let pin = (cores.len() >= count).then(|| cores[index]);
            let name = thread_name(&config.runtime.thread_name, index);
            let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
                if let Some(core) = pin {
                    pin_to(core);
                }
                let (mut io, fallback) = match Engine::open(&options) {
                    Ok(opened) => opened,
                    Err(error) => {
                        let _ = ready.send((index, Err(error)));
                        return;
                    }
                };
                let _ = waker.set(io.waker());
                let _ = ready.send((index, Ok((io.features(), fallback))));
                let Ok(fellows) = go_rx.recv() else { return };
                for (listener, socket) in own_sockets.into_iter().enumerate() {
                    io.listen(u32::try_from(listener).unwrap_or(0), socket.socket);
                }
                let parts = ShardParts { deltas, orders, fellows, published, now: Instant::now() };
                let mut core = Core::new(core);
                core.memory = memory;
                let mut shard = Shard::new(core, io, parts);
                if let Some(gate) = gate {
                    shard.keep_gate(gate);
                }
                run_shard(shard);
            });
            handles.push(thread.map_err(|source| StartError::Thread { name, source })?);
        }
        let (mut features, mut fallback) = (String::new(), None);
        for _ in 0..count {
            let (shard, outcome) = ready_rx.recv().map_err(|_| StartError::Io {
                shard: 0,
                source: io::Error::other("a shard thread ended while starting"),
            })?;
            let (own, reason) = outcome.map_err(|source| StartError::Io { shard, source })?;
            features = own.to_string();
            fallback = fallback.or(reason);
        }
        let fellows =
            Arc::new(Fellows { loads, orders: orders.clone(), bells: bells.clone(), control: control_bell.clone() });
        for starter in starters {
            let _ = starter.send(Arc::clone(&fellows));
        }

        let rib = Rib::new(RibLimits {
            names_max: config.slimline.limits.names_max as usize,
            names_per_connection_max: config.slimline.limits.names_per_connection_max as usize,
        });
        let names = Arc::new(AtomicUsize::new(0));
        let control_stop = Arc::new(AtomicBool::new(false));
        let mut control = Control::new(rib, requests, orders.clone(), writer);
        let (stop, shown, shard_bells) = (Arc::clone(&control_stop), Arc::clone(&names), bells.clone());
        let control = std::thread::Builder::new()
            .name("slim-control".into())
            .spawn(move || {
                or_abort("control", || {
                    crate::control::thread::run(&mut control, &control_waker, &shard_bells, &stop, |names| {
                        shown.store(names, Ordering::Relaxed);
                    });
                });
            })
            .map_err(|source| StartError::Thread { name: "slim-control".into(), source })?;
        Ok(Self {
            settings,
            orders,
            bells,
            published,
            inventory,
            names,
            shards: handles,
            control: Some(control),
            control_stop,
            control_bell,
            endpoints,
            features,
            fallback,
            started: Instant::now(),
        })
    }

    /// Where it listens, as an address a client can use (a port 0 of the configuration is resolved).
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// What the kernel door of each shard uses.
    #[must_use]
    pub fn features(&self) -> &str {
        &self.features
    }

    /// Why io_uring was not taken though it was wanted; `None` when it was, or epoll was asked for.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// How many shards run.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Its node id.
    #[must_use]
    pub fn node_id(&self) -> &str {
        &self.settings.node_id
    }

    /// Asks every shard for its state; shards that do not answer within a second are left out.
    #[must_use]
    pub fn report(&self) -> Vec<ShardReport> {
        let (tx, rx) = bounded(self.orders.len());
        for (orders, bell) in self.orders.iter().zip(&self.bells) {
            orders.push(Order::Report(tx.clone()));
            bell.ring();
        }
        drop(tx);
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut reports: Vec<ShardReport> = Vec::new();
        while let Ok(report) = rx.recv_deadline(deadline) {
            reports.push(report);
        }
        reports.sort_by_key(|report| report.shard);
        reports
    }

    /// Counters as last published, without asking the shards.
    #[must_use]
    pub fn counters(&self) -> crate::Counters {
        let mut total = crate::Counters::default();
        for published in &self.published {
            total.add(&published.load());
        }
        total
    }

    /// Names subscribed, connections with a link, and time since the start.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        Vitals {
            names: self.names.load(Ordering::Relaxed),
            links: self.inventory.len(),
            uptime: self.started.elapsed(),
        }
    }

    /// Every connection with a link, as (id, link).
    pub(crate) fn links(&self) -> Vec<(ConnId, Arc<LinkFacts>)> {
        self.inventory.snapshot()
    }

    /// Drains and stops: listeners close, what was accepted is delivered, streams end with status 0.
    ///
    /// Returns false when `drain_timeout` passed first and the rest was cut off.
    pub fn stop(mut self, drain_timeout: Duration) -> bool {
        let deadline = Instant::now() + drain_timeout;
        let (tx, rx) = bounded(self.orders.len());
        self.order_all(|| Order::Quiesce(tx.clone()));
        drop(tx);
        // Publishes parked behind a slow reader may take a while; the rest of the time is for saying goodbye.
        while rx.recv_deadline(deadline - drain_timeout / 2).is_ok() {}
        self.order_all(|| Order::Drain);
        self.order_all(|| Order::Stop { now: false });
        let mut in_time = true;
        for shard in &self.shards {
            while !shard.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            in_time &= shard.is_finished();
        }
        if !in_time {
            self.order_all(|| Order::Stop { now: true });
            let grace = Instant::now() + Duration::from_secs(1);
            while self.shards.iter().any(|shard| !shard.is_finished()) && Instant::now() < grace {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        for shard in self.shards.drain(..) {
            if shard.is_finished() {
                let _ = shard.join();
            }
        }
        self.control_stop.store(true, Ordering::Release);
        self.control_bell.ring();
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        in_time
    }

    fn order_all(&self, mut order: impl FnMut() -> Order) {
        for (orders, bell) in self.orders.iter().zip(&self.bells) {
            orders.push(order());
            bell.ring();
        }
    }
}

/// The few figures everybody asks for first.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// Names subscribed now.
    pub names: usize,
    /// Connections with a negotiated link.
    pub links: usize,
    /// Since the node started.
    pub uptime: Duration,
}

fn run_shard(mut shard: Shard<Engine>) {
    let index = shard.core.index;
    or_abort(&format!("shard {index}"), || {
        loop {
            match shard.turn(Instant::now) {
                Ok(Turn::On) => {}
                Ok(Turn::Over) => return,
                Err(error) => {
                    tracing::error!(shard = index, %error, "the kernel door of a shard failed: the process ends");
                    std::process::abort();
                }
            }
        }
    });
}

fn io_options(slimline: &slimline_config::Slimline) -> IoOptions {
    let io = &slimline.io;
    let off = |feature| io.disable.contains(&feature);
    IoOptions {
        engine: match slimline.engine {
            slimline_config::Engine::Auto => EngineChoice::Auto,
            slimline_config::Engine::IoUring => EngineChoice::Uring,
            slimline_config::Engine::Epoll => EngineChoice::Epoll,
        },
        ring_entries: io.ring_entries,
        cq_entries: io.ring_entries.saturating_mul(4),
        recv_buf_count: io.recv_buf_count,
        recv_buf_octets: io.recv_buf_octets,
        disable: Disable {
            bundles: off(IoFeature::Bundles),
            multishot: off(IoFeature::Multishot),
            defer_taskrun: off(IoFeature::DeferTaskrun),
            msg_ring: off(IoFeature::MsgRing),
            ..Disable::default()
        },
        sqpoll: io.sqpoll,
        send_zc: io.send_zc,
        ..IoOptions::default()
    }
}

/// How many shards a configuration asks for on this machine.
fn shard_count(config: &Config) -> usize {
    if let Some(shards) = config.slimline.shards {
        return usize::from(shards);
    }
    let allowed = available_cpus();
    match config.runtime.n_cores {
        0 => allowed,
        wanted => wanted.min(allowed),
    }
    .min(usize::from(slimline_config::SHARDS_MAX))
}

fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The listeners as the accepting shard keeps them.
fn gate(config: &Config, service: &Service, sockets: &[Listener], shards: usize) -> io::Result<Gate> {
    let limits = &config.slimline.limits;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let configured = limits.connections_max as usize;
    let high = transports_max(configured, files, limits.accept_backlog as usize, shards);
    if high < configured {
        tracing::info!(files, connections_max = configured, high, "open files allow fewer connections than configured");
    }
    let listeners: Vec<_> = service.servers.iter().map(|server| server.listen.clone()).zip(sockets).collect();
    Gate::new(&listeners, limits.accept_backlog, high)
}

fn thread_name(base: &str, index: usize) -> String {
    // The kernel keeps 15 octets of a thread's name.
    let suffix = format!("-{index}");
    let mut keep = 15usize.saturating_sub(suffix.len()).min(base.len());
    while !base.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}{suffix}", &base[..keep])
}

/// CPUs this process may use.
fn core_affinity_list() -> Vec<usize> {
    rustix::thread::sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
    )
}

fn pin_to(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::debug!(cpu, %error, "shard not pinned");
    }
}

/// A seed strangers cannot know: component hashes come from them.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
