//! The checked plan of a run: every choice made, every impossibility refused.

mod credentials;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::tls::Security;
use crate::error::{BenchError, Result};
use crate::pace::Arrivals;
use crate::scenario::{Command, EngineKind, Fanout, Options, Peer, Spread};
use crate::sizes::Sizes;

/// Refuses options that the command would not look at.
fn refuse_idle_options(command: Command, o: &Options) -> Result<()> {
    use Command::{Capacity, Churn, Idle, Latency, Pingpong, Soak};
    let pairs = matches!(command, Pingpong | Churn);
    let open_loop = o.rate.is_some() || matches!(command, Latency | Idle | Soak | Capacity);
    let ladder = o.rate.as_ref().is_some_and(|rates| rates.len() > 1);
    let idle = [
        (o.load.is_some() && command != Latency, "--load belongs to latency"),
        (o.load.is_some() && o.rate.is_some(), "--load and --rate: one of them"),
        (o.acks && command != Pingpong, "--acks belongs to pingpong"),
        (o.connections.is_some() && command != Idle, "--connections belongs to idle"),
        (o.hold_us.is_some() && command != Capacity, "--hold-us belongs to capacity"),
        (o.subs.is_some() && pairs, "--subs: pingpong and churn have as many subscribers as --pubs"),
        (o.names.is_some() && pairs, "--names: in pingpong and churn everybody has a name of its own"),
        (o.fanout.is_some() && pairs, "--fanout: in pingpong and churn every message is for one"),
        (o.spread.is_some() && pairs, "--spread: in pingpong and churn everybody has one to write to"),
        (o.rate.is_some() && pairs, "--rate: pingpong and churn go on when they are answered"),
        (ladder && command != Latency, "--rate: a ladder of rates belongs to latency"),
        (o.window.is_some() && pairs, "--window: pingpong and churn have one message under way per pair"),
        (o.window.is_some() && open_loop && o.load.is_none(), "--window: an open loop waits for nobody"),
        (o.arrivals.is_some() && !open_loop, "--arrivals belongs to an open loop: give a --rate"),
        (
            o.threads.is_some() && o.connections_per_thread.is_some(),
            "--threads and --connections-per-thread: one of them",
        ),
    ];
    match idle.into_iter().find(|(is_idle, _)| *is_idle) {
        Some((_, reason)) => Err(BenchError::Plan(reason.into())),
        None => Ok(()),
    }
}

/// A checked plan: every choice made, every impossibility refused.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) command: Command,
    pub(crate) endpoint: String,
    pub(crate) peer: Peer,
    pub(crate) pubs: u32,
    pub(crate) subs: u32,
    pub(crate) names: u32,
    pub(crate) fanout: Fanout,
    pub(crate) spread: Spread,
    pub(crate) sizes: Sizes,
    pub(crate) identity: u32,
    pub(crate) window: u32,
    pub(crate) rates: Vec<f64>,
    pub(crate) load: Vec<f64>,
    pub(crate) arrivals: Arrivals,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) count: Option<u64>,
    pub(crate) threads: u32,
    pub(crate) pin: Vec<u32>,
    /// As asked for; [`crate::engine::choice::settle`] has the last word where nobody asked.
    pub(crate) engine: EngineKind,
    pub(crate) seed: u64,
    pub(crate) fresh: bool,
    pub(crate) no_mac: bool,
    pub(crate) variants: u32,
    pub(crate) verify_one_in: u32,
    pub(crate) nagle: bool,
    pub(crate) spin: bool,
    pub(crate) acks: bool,
    pub(crate) tls: Option<Security>,
    /// The `authorization` header's value.
    pub(crate) authorization: Option<String>,
    pub(crate) node_stats: Option<PathBuf>,
    pub(crate) node_pid: Option<u32>,
    pub(crate) connections: u32,
    pub(crate) hold: Duration,
    pub(crate) repeats: u32,
    /// The options that led here, for the record.
    pub(crate) options: Options,
}

/// Connections of `idle` that say nothing.
const IDLE_CONNECTIONS: u32 = 1000;
/// Generator threads there can be: a thread wakes others by a mask of this many.
const THREADS_MAX: u32 = 64;
/// What a SLIM message may have, and what header and framing have of it besides the identity token, at most.
const MESSAGE_OCTETS_MAX: u64 = 4 * 1024 * 1024;
const HEADER_OCTETS: u64 = 4096;
/// Octets of header and framing around a payload, about: what the default window is reckoned with.
const OVERHEAD_OCTETS: f64 = 480.0;

impl Plan {
    /// Makes the choices and refuses the impossible.
    pub(crate) fn check(command: Command, options: Options) -> Result<Self> {
        let refuse = |reason: String| Err(BenchError::Plan(reason));
        refuse_idle_options(command, &options)?;
        let o = options.clone();
        let fanout = o.fanout.unwrap_or(if command == Command::Fanout { Fanout::All } else { Fanout::One });
        let pubs = o.pubs.unwrap_or(if command == Command::Churn { 16 } else { 1 });
        let subs = match command {
            Command::Pingpong | Command::Churn => pubs,
            Command::Fanout => o.subs.unwrap_or(8),
            _ => o.subs.unwrap_or(1),
        };
        let names = o.names.unwrap_or(match (command, fanout) {
            (Command::Names, _) => 10_000,
            (_, Fanout::All) => 1,
            (_, Fanout::One) => subs,
        });
        let sizes: Sizes = match o.payload.as_deref().unwrap_or("256").parse() {
            Ok(sizes) => sizes,
            Err(reason) => return refuse(format!("--payload: {reason}")),
        };
        let spread = o.spread.unwrap_or(if command == Command::Names { Spread::Uniform } else { Spread::Pair });
        let message = sizes.mean() + OVERHEAD_OCTETS;
        let window = o.window.unwrap_or(((256.0 * 1024.0 / message) as u32).clamp(8, 512));
        let seconds = |name: &str, value: f64| {
            if value.is_finite() && (0.0..=1e7).contains(&value) {
                Ok(Duration::from_secs_f64(value))
            } else {
                Err(BenchError::Plan(format!("--{name} {value}: not a number of seconds")))
            }
        };
        let duration = seconds("duration", o.duration.unwrap_or(if command == Command::Soak { 600.0 } else { 5.0 }))?;
        let warmup = seconds("warmup", o.warmup.unwrap_or(1.0))?;
        let open_loop = matches!(command, Command::Latency | Command::Soak);
        let rates = o.rate.unwrap_or(if open_loop || command == Command::Idle { vec![1000.0] } else { vec![] });
        let load = o.load.unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let idle = if command == Command::Idle { o.connections.unwrap_or(IDLE_CONNECTIONS) } else { 0 };
        let connections = match command {
            Command::Churn => u64::from(pubs),
            _ => u64::from(pubs) + u64::from(subs) + u64::from(idle),
        };
        let threads = match (o.threads, o.connections_per_thread) {
            (Some(threads), _) => threads,
            (None, Some(0)) => return refuse("--connections-per-thread must be at least 1".into()),
            (None, Some(each)) => connections.div_ceil(u64::from(each)) as u32,
            (None, None) if cpus < 4 => 1,
            (None, None) => cpus / 2,
        };
        // One who visits at a time at least.
        let threads = if command == Command::Churn { threads.min(pubs) } else { threads };
        let pin = o.pin.unwrap_or_default();

        if pubs == 0 || subs == 0 || names == 0 || threads == 0 || window == 0 {
            return refuse("publishers, subscribers, names, threads and window must be at least 1".into());
        }
        if threads > THREADS_MAX {
            return refuse(format!("{threads} generator threads: at most {THREADS_MAX}"));
        }
        let identity = o.identity.unwrap_or(229);
        if u64::from(sizes.max()) + u64::from(identity) > MESSAGE_OCTETS_MAX - HEADER_OCTETS {
            return refuse("--payload: with its header the message would pass SLIM's 4 MiB limit".into());
        }
        if duration.is_zero() && o.count.is_none() {
            return refuse("--duration 0 measures nothing".into());
        }
        if o.count == Some(0) || o.verify_one_in == Some(0) {
            return refuse("--count and --verify-one-in must be at least 1".into());
        }
        if let Some(rate) = rates.iter().find(|rate| !(rate.is_finite() && **rate > 0.0)) {
            return refuse(format!("--rate {rate}: not a rate"));
        }
        if let Some(share) = load.iter().find(|share| !(**share > 0.0 && **share <= 2.0)) {
            return refuse(format!("--load {share}: not a share of the capacity"));
        }
        if fanout == Fanout::All && subs > names && subs % names != 0 {
            return refuse(format!(
                "--subs {subs} with --names {names}: every name must have as many subscribers, or deliveries \
                 cannot be counted; make --subs a multiple of --names"
            ));
        }
        if spread == Spread::Pair && pubs < names && command != Command::Names && fanout == Fanout::One {
            return refuse(format!(
                "--pubs {pubs} with --names {names} and --spread pair leaves names nobody addresses; \
                 use --spread uniform, or as many publishers as names"
            ));
        }
        if !pin.is_empty() && pin.len() < threads as usize {
            return refuse(format!("--pin names {} CPUs for {threads} threads", pin.len()));
        }
        pin.iter().try_for_each(|&cpu| crate::machine::expect_use("--pin", cpu))?;
        if let Some(pid) = o.node_pid
            && !Path::new(&format!("/proc/{pid}/stat")).exists()
        {
            return refuse(format!("--node-pid {pid}: no such process"));
        }
        let endpoint = o.node.unwrap_or_else(|| "127.0.0.1:46357".into());
        let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return refuse(format!("--node {endpoint}: it is not HOST:PORT"));
        }
        let (tls, authorization) = credentials::read(&options, &endpoint)?;
        let behind_socket = match &o.node_stats {
            Some(socket) => crate::node_stats::NodeStats::read(socket)?.process,
            None => None,
        };
        let engine = o.engine.unwrap_or(EngineKind::IoUring);
        if engine == EngineKind::Glommio && !cfg!(feature = "glommio") {
            return refuse("--engine glommio: this slimload was built without it (cargo's feature `glommio`)".into());
        }
        if o.no_mac && (o.fresh || command == Command::Churn) {
            return refuse("--no-mac: nothing is signed then, so neither --fresh nor churn goes with it".into());
        }
        if command == Command::Churn && o.peer.is_some_and(|peer| peer != Peer::Slim) {
            return refuse("churn speaks to SLIM nodes only".into());
        }
        let variants = o.variants.unwrap_or(if spread == Spread::Pair { 4096 } else { 65_536 });
        if variants == 0 {
            return refuse("--variants must be at least 1".into());
        }
        let plan = Self {
            command,
            endpoint,
            peer: o.peer.unwrap_or(Peer::Slim),
            pubs,
            subs,
            names,
            fanout,
            spread,
            sizes,
            identity,
            window,
            rates,
            load,
            arrivals: o.arrivals.unwrap_or(Arrivals::Even),
            duration,
            warmup,
            count: o.count,
            threads,
            pin,
            engine,
            seed: o.seed.unwrap_or(1),
            fresh: o.fresh,
            no_mac: o.no_mac,
            variants,
            verify_one_in: o.verify_one_in.unwrap_or(64),
            nagle: o.nagle,
            spin: o.spin,
            acks: o.acks,
            tls,
            authorization,
            node_stats: o.node_stats,
            node_pid: o.node_pid.or(behind_socket),
            connections: o.connections.unwrap_or(IDLE_CONNECTIONS),
            hold: Duration::from_micros(o.hold_us.unwrap_or(10_000)),
            repeats: o.repeats.unwrap_or(if command == Command::Capacity { 3 } else { 1 }).max(1),
            options,
        };
        plan.check_peer()?;
        plan.check_files()?;
        Ok(plan)
    }

    /// What has no routes, or no way to pick one of several, can carry some topologies only.
    fn check_peer(&self) -> Result<()> {
        let refuse = |reason: &str| Err(BenchError::Plan(reason.into()));
        if self.command == Command::Pingpong {
            return Ok(());
        }
        if self.peer != Peer::Slim && self.fanout == Fanout::One && self.subs > self.names {
            return refuse("--subs: a relay or NATS server sends to every subscriber of a name: --fanout all");
        }
        if self.peer == Peer::Relay {
            // A publisher is heard by the subscribers of its own number, whatever name it addresses.
            let heard = if self.spread == Spread::Pair {
                self.pubs.min(self.names) <= self.subs
            } else {
                self.names == 1 || (self.pubs, self.subs) == (1, 1)
            };
            if !heard || self.command == Command::Idle {
                return refuse(
                    "a relay knows no names: it carries pairs, or publishers whom all their subscribers hear",
                );
            }
        }
        Ok(())
    }

    /// Every connection is a file: enough of them must be allowed.
    fn check_files(&self) -> Result<()> {
        let idle = if self.command == Command::Idle { self.connections } else { 0 };
        let wanted = u64::from(self.pubs) + u64::from(self.subs) + u64::from(idle) + 64 + 4 * u64::from(self.threads);
        let allowed = crate::machine::files_allowed();
        if wanted > allowed {
            return Err(BenchError::Plan(format!(
                "{wanted} file descriptors needed, {allowed} allowed: raise it (ulimit -n {wanted}) here and for the node"
            )));
        }
        Ok(())
    }

    /// Whether a schedule says when to send, and not what was answered.
    pub(crate) fn paced(&self) -> bool {
        !self.rates.is_empty()
    }

    /// Whether headers are signed before the clock starts.
    pub(crate) fn presigns(&self) -> bool {
        self.peer == Peer::Slim && !self.fresh && !self.no_mac
    }

    /// Receivers each message should reach.
    pub(crate) fn copies(&self) -> u32 {
        match self.fanout {
            Fanout::One => 1,
            Fanout::All => (self.subs / self.names).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_make_threads() {
        let threads = |pubs, subs, each| {
            let mut options = Options { connections_per_thread: Some(each), ..Options::default() };
            (options.pubs, options.subs) = (Some(pubs), Some(subs));
            Plan::check(Command::Throughput, options).map(|plan| plan.threads)
        };
        assert_eq!(threads(8, 8, 4).unwrap(), 4);
        assert_eq!(threads(8, 8, 5).unwrap(), 4);
        assert_eq!(threads(8, 8, 100).unwrap(), 1);
        assert!(threads(8, 8, 0).is_err());
        assert!(threads(64, 64, 1).unwrap_err().to_string().contains("at most 64"));
    }

    #[test]
    fn impossible_plans_are_refused() {
        let plan = |edit: fn(&mut Options)| {
            let mut options = Options::default();
            edit(&mut options);
            Plan::check(Command::Throughput, options)
        };
        assert!(plan(|_| ()).is_ok());
        assert!(plan(|o| o.pubs = Some(0)).is_err());
        assert!(plan(|o| o.rate = Some(vec![-1.0])).is_err());
        assert!(plan(|o| (o.subs, o.names, o.fanout) = (Some(3), Some(2), Some(Fanout::All))).is_err());
        assert!(plan(|o| (o.pubs, o.subs) = (Some(1), Some(8))).is_err());
        assert!(plan(|o| o.pin = Some(vec![4000])).is_err());
        assert!(
            plan(|o| (o.subs, o.fanout) = (Some(100_000_000), Some(Fanout::All)))
                .unwrap_err()
                .to_string()
                .contains("ulimit")
        );
        assert!(plan(|o| o.node_pid = Some(u32::MAX)).is_err());
        assert!(plan(|o| (o.no_mac, o.fresh) = (true, true)).is_err());
    }
}
