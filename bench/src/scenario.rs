//! What to run: options as written on the command line or in a scenario file.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};
use crate::pace::Arrivals;

/// The measurements `slimload` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    /// Closed window: as fast as the node takes it.
    Throughput,
    /// Open loop at one rate or a ladder of rates, latency from the intended send time.
    Latency,
    /// One request in flight per pair.
    Pingpong,
    /// One publisher, every subscriber gets each message.
    Fanout,
    /// A subscription storm, then lookups under that table.
    Names,
    /// Idle connections: memory each, and the latency of one canary pair among them.
    Idle,
    /// Connect, negotiate, subscribe, exchange one message, leave; again and again.
    Churn,
    /// A long open-loop run: memory slope and drift of p99.9.
    Soak,
    /// The knee: the highest open-loop rate that holds a given p99.9.
    Capacity,
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// A SLIM node: slimline or any other that speaks the data plane.
    Slim,
    /// `slimload relay`: the same octets, no protocol; the physical limit.
    Relay,
    /// A NATS server: the same payloads as PUB and MSG.
    Nats,
}

impl Peer {
    /// The protocol's name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slim => "SLIM over gRPC",
            Self::Relay => "slimload relay",
            Self::Nats => "NATS",
        }
    }
}

/// How many receivers a publish asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fanout {
    /// One of those that match.
    One,
    /// All that match.
    All,
}

/// Which name a publisher addresses next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spread {
    /// Publisher i always addresses name i modulo names.
    Pair,
    /// Every name as likely.
    Uniform,
    /// Zipf's law, exponent 1.
    Zipf,
}

/// How sockets are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineKind {
    /// io_uring, on the node's own kernel door.
    #[value(alias = "uring")]
    #[serde(rename = "io-uring", alias = "uring")]
    IoUring,
    /// epoll, the generator's own.
    Epoll,
    /// glommio's executor and sockets.
    Glommio,
}

impl EngineKind {
    /// As options and records have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io-uring",
            Self::Epoll => "epoll",
            Self::Glommio => "glommio",
        }
    }
}

/// Headings of the help.
const NODE: &str = "Node";
const LOAD: &str = "Load";
const LENGTH: &str = "Length";
const GENERATOR: &str = "Generator";

/// Options as written; what is absent takes the command's default. A scenario file has exactly these keys, with
/// `_` for `-`.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Where the node listens, HOST:PORT (default: 127.0.0.1:46357)
    #[arg(long, value_name = "HOST:PORT", help_heading = NODE)]
    pub(crate) node: Option<String>,
    /// What listens there (default: slim)
    #[arg(long, help_heading = NODE)]
    pub(crate) peer: Option<Peer>,
    /// Publishing connections; pairs in ping-pong, clients at a time in churn (default: 1; churn 16)
    #[arg(long, help_heading = LOAD)]
    pub(crate) pubs: Option<u32>,
    /// Subscribing connections (default: 1; fanout 8)
    #[arg(long, help_heading = LOAD)]
    pub(crate) subs: Option<u32>,
    /// Names subscribed to (default: as many as subscribers; 1 with --fanout all; names 10000)
    #[arg(long, help_heading = LOAD)]
    pub(crate) names: Option<u32>,
    /// How many receivers each message asks for (default: one)
    #[arg(long, help_heading = LOAD)]
    pub(crate) fanout: Option<Fanout>,
    /// Which name a publisher addresses (default: pair; names uniform)
    #[arg(long, help_heading = LOAD)]
    pub(crate) spread: Option<Spread>,
    /// Payload octets: 256, 64-1024, or 64:70,1024:25,16384:5; mls:256 is as large as 256 octets become under MLS (default: 256)
    #[arg(long, help_heading = LOAD)]
    pub(crate) payload: Option<String>,
    /// Octets of the identity token in every header (default: 229)
    #[arg(long, help_heading = LOAD)]
    pub(crate) identity: Option<u32>,
    /// Messages a publisher may have under way (default: about 256 KiB of them, 8 to 512)
    #[arg(long, help_heading = LOAD)]
    pub(crate) window: Option<u32>,
    /// Messages per second of all publishers together; for latency one or a ladder, 1000,5000,20000 (default: 1000; capacity starts at 10000)
    #[arg(long, value_delimiter = ',', help_heading = LOAD)]
    pub(crate) rate: Option<Vec<f64>>,
    /// Latency: shares of the node's own capacity instead of rates, 0.1,0.5; a closed window finds it first
    #[arg(long, value_delimiter = ',', value_name = "SHARES", conflicts_with = "rate", help_heading = LOAD)]
    pub(crate) load: Option<Vec<f64>>,
    /// Gaps between messages (default: even)
    #[arg(long, help_heading = LOAD)]
    pub(crate) arrivals: Option<Arrivals>,
    /// Seconds measured, each step of a ladder (default: 5; soak 600)
    #[arg(long, value_name = "SECONDS", help_heading = LENGTH)]
    pub(crate) duration: Option<f64>,
    /// Seconds before measuring (default: 1)
    #[arg(long, value_name = "SECONDS", help_heading = LENGTH)]
    pub(crate) warmup: Option<f64>,
    /// Stop after this many messages instead of a duration (ping-pong: round trips; churn: cycles)
    #[arg(long, help_heading = LENGTH)]
    pub(crate) count: Option<u64>,
    /// Generator threads: as many as keep each at this many connections or fewer
    #[arg(long, value_name = "COUNT", conflicts_with = "threads", help_heading = GENERATOR)]
    pub(crate) connections_per_thread: Option<u32>,
    /// Generator threads (default: 1 up to 3 CPUs, else half of them)
    #[arg(long, help_heading = GENERATOR)]
    pub(crate) threads: Option<u32>,
    /// CPUs for the generator threads, 1,3 (default: no pinning)
    #[arg(long, value_delimiter = ',', help_heading = GENERATOR)]
    pub(crate) pin: Option<Vec<u32>>,
    /// How the generator drives its sockets (default: io-uring; epoll, said in a line, where the kernel denies it)
    #[arg(long, help_heading = GENERATOR)]
    pub(crate) engine: Option<EngineKind>,
    /// Seed of every random choice (default: 1)
    #[arg(long, help_heading = LOAD)]
    pub(crate) seed: Option<u64>,
    /// Sign every message anew instead of walking pre-signed headers
    #[arg(long, help_heading = LOAD)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fresh: bool,
    /// Offer no key in the negotiation, so that links run without header MAC; the node must allow it
    /// (require_header_mac: false)
    #[arg(long, help_heading = LOAD)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_mac: bool,
    /// Pre-signed headers per publisher (default: 4096; 65536 over many names)
    #[arg(long, help_heading = LOAD)]
    pub(crate) variants: Option<u32>,
    /// Verify the header MAC of one received message in this many (default: 64)
    #[arg(long, help_heading = GENERATOR)]
    pub(crate) verify_one_in: Option<u32>,
    /// Leave Nagle's algorithm on at the client, as the SDKs do
    #[arg(long, help_heading = LOAD)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) nagle: bool,
    /// Never sleep while measuring: what a wake-up of the generator costs is not the node's
    #[arg(long, help_heading = GENERATOR)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) spin: bool,
    /// Ping-pong: write an acknowledgement before each answer and after each reply, as reliable sessions do
    #[arg(long, help_heading = LOAD)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) acks: bool,
    /// Speak TLS
    #[arg(long, help_heading = NODE)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tls: bool,
    /// TLS: authorities to trust, a PEM file (default: the system's)
    #[arg(long, value_name = "FILE", requires = "tls", help_heading = NODE)]
    pub(crate) ca_source: Option<PathBuf>,
    /// TLS: take any certificate
    #[arg(long, requires = "tls", conflicts_with = "ca_source", help_heading = NODE)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure_skip_verify: bool,
    /// TLS: the name the node's certificate carries (default: the host of --node)
    #[arg(long, value_name = "NAME", requires = "tls", help_heading = NODE)]
    pub(crate) server_name: Option<String>,
    /// A file with USERNAME:PASSWORD, for a node with `auth: basic`
    #[arg(long, value_name = "FILE", help_heading = NODE)]
    pub(crate) basic_auth: Option<PathBuf>,
    /// The node's stats socket, for what it dropped and why, and for its process
    #[arg(long, value_name = "SOCKET", help_heading = NODE)]
    pub(crate) node_stats: Option<PathBuf>,
    /// The node's process, for its CPU time and memory (default: the one behind --node-stats)
    #[arg(long, value_name = "PID", help_heading = NODE)]
    pub(crate) node_pid: Option<u32>,
    /// Idle: connections to hold (default: 1000)
    #[arg(long, help_heading = LOAD)]
    pub(crate) connections: Option<u32>,
    /// Capacity: the p99.9 to hold, in microseconds (default: 10000)
    #[arg(long, value_name = "US", help_heading = LOAD)]
    pub(crate) hold_us: Option<u64>,
    /// Repeats of each measurement (default: 1; capacity 3)
    #[arg(long, help_heading = LENGTH)]
    pub(crate) repeats: Option<u32>,
}

/// A scenario file: which command, a title, and its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What is asked, in a sentence.
    pub(crate) title: String,
    /// The command to run.
    pub(crate) command: Command,
    /// Its options.
    #[serde(default)]
    pub(crate) options: Options,
    /// Measurements that differ in some options; none means one measurement with `options` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cases: Vec<Case>,
}

/// One measurement of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What it is called in the report.
    pub(crate) label: String,
    /// What differs from the scenario's options.
    pub(crate) options: Options,
}

impl Scenario {
    /// Reads a scenario file; unknown keys are refused.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let wrong = |reason: String| BenchError::Scenario { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            // What is known is in the help; a line that lists forty keys hides the one that is wrong.
            let message = error.message().split(", expected").next().unwrap_or_default().replace("field", "key");
            wrong(format!("line {line}: {message} (`slimload run --help` names the keys)"))
        })
    }
}

impl Options {
    /// These options, with those of `below` where these say nothing.
    #[must_use]
    pub(crate) fn over(self, below: Self) -> Self {
        Self {
            node: self.node.or(below.node),
            peer: self.peer.or(below.peer),
            pubs: self.pubs.or(below.pubs),
            subs: self.subs.or(below.subs),
            names: self.names.or(below.names),
            fanout: self.fanout.or(below.fanout),
            spread: self.spread.or(below.spread),
            payload: self.payload.or(below.payload),
            identity: self.identity.or(below.identity),
            window: self.window.or(below.window),
            rate: self.rate.or(below.rate),
            load: self.load.or(below.load),
            arrivals: self.arrivals.or(below.arrivals),
            duration: self.duration.or(below.duration),
            warmup: self.warmup.or(below.warmup),
            count: self.count.or(below.count),
            // Both say how many threads: what is said here takes the place of either.
            connections_per_thread: self.connections_per_thread.or(if self.threads.is_some() {
                None
            } else {
                below.connections_per_thread
            }),
            threads: self.threads.or(if self.connections_per_thread.is_some() { None } else { below.threads }),
            pin: self.pin.or(below.pin),
            engine: self.engine.or(below.engine),
            seed: self.seed.or(below.seed),
            fresh: self.fresh || below.fresh,
            no_mac: self.no_mac || below.no_mac,
            variants: self.variants.or(below.variants),
            verify_one_in: self.verify_one_in.or(below.verify_one_in),
            nagle: self.nagle || below.nagle,
            spin: self.spin || below.spin,
            acks: self.acks || below.acks,
            tls: self.tls || below.tls,
            ca_source: self.ca_source.or(below.ca_source),
            insecure_skip_verify: self.insecure_skip_verify || below.insecure_skip_verify,
            server_name: self.server_name.or(below.server_name),
            basic_auth: self.basic_auth.or(below.basic_auth),
            node_stats: self.node_stats.or(below.node_stats),
            node_pid: self.node_pid.or(below.node_pid),
            connections: self.connections.or(below.connections),
            hold_us: self.hold_us.or(below.hold_us),
            repeats: self.repeats.or(below.repeats),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let text = "title = \"t\"\ncommand = \"throughput\"\n[options]\npubs = 1\nthreds = 2\n";
        let error = toml::from_str::<Scenario>(text).unwrap_err().to_string();
        assert!(error.contains("threds"), "{error}");
        assert!(toml::from_str::<Scenario>("title = \"t\"\ncommand = \"sprint\"\n").is_err());
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = Options { pubs: Some(8), subs: Some(8), ..Options::default() };
        let merged = Options { pubs: Some(2), ..Options::default() }.over(file);
        assert_eq!((merged.pubs, merged.subs), (Some(2), Some(8)));
    }

    /// Every scenario file shipped beside this crate must pass its own checks.
    #[test]
    fn shipped_scenarios_are_plans() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let scenario = Scenario::read(&path).unwrap();
            let cases = scenario.cases.into_iter().map(|case| case.options.over(scenario.options.clone()));
            for options in std::iter::once(scenario.options.clone()).chain(cases) {
                let plan = Plan::check(scenario.command, options);
                plan.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
            count += 1;
        }
        assert!(count > 0);
    }
}
