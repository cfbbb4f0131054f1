//! What to run: options as written on the command line or in a scenario file, and the checked plan made of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::client::tls::Security;
use crate::error::{BenchError, Result};
use crate::pace::Arrivals;
use crate::payload::Stamp;
use crate::random::Random;

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
    /// epoll, the generator's own.
    Epoll,
    /// io_uring, on the node's own kernel door.
    #[value(alias = "io-uring")]
    #[serde(alias = "io-uring")]
    Uring,
    /// glommio's executor and sockets.
    Glommio,
}

/// Sizes of payloads: `256`, `64-1024` (uniform) or `64:70,1024:25,16384:5` (weighted); with `mls:` before it, what the
/// application says, which travels in an MLS message of a two-party session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Always the same.
    Fixed(u32),
    /// Uniform between two, both included.
    Range(u32, u32),
    /// By weight.
    Mix(Vec<(u32, u32)>),
}

impl Sizes {
    /// The largest that can come.
    pub(crate) fn max(&self) -> u32 {
        match self {
            Self::Fixed(size) | Self::Range(_, size) => *size,
            Self::Mix(mix) => mix.iter().map(|&(size, _)| size).max().unwrap_or(0),
        }
    }

    fn min(&self) -> u32 {
        match self {
            Self::Fixed(size) | Self::Range(size, _) => *size,
            Self::Mix(mix) => mix.iter().map(|&(size, _)| size).min().unwrap_or(0),
        }
    }

    /// The mean.
    pub(crate) fn mean(&self) -> f64 {
        match self {
            Self::Fixed(size) => f64::from(*size),
            Self::Range(low, high) => (f64::from(*low) + f64::from(*high)) / 2.0,
            Self::Mix(mix) => {
                let total: f64 = mix.iter().map(|&(_, weight)| f64::from(weight)).sum();
                mix.iter().map(|&(size, weight)| f64::from(size) * f64::from(weight)).sum::<f64>() / total
            }
        }
    }

    /// Draws one.
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Range(low, high) => low + random.below(high - low + 1),
            Self::Mix(mix) => {
                let mut point = random.below(mix.iter().map(|&(_, weight)| weight).sum());
                for &(size, weight) in mix {
                    if point < weight {
                        return size;
                    }
                    point -= weight;
                }
                self.max()
            }
        }
    }
}

impl Sizes {
    /// Every size `by` octets larger.
    fn grown(self, by: u32) -> Self {
        match self {
            Self::Fixed(size) => Self::Fixed(size.saturating_add(by)),
            Self::Range(low, high) => Self::Range(low.saturating_add(by), high.saturating_add(by)),
            Self::Mix(mix) => {
                Self::Mix(mix.into_iter().map(|(size, weight)| (size.saturating_add(by), weight)).collect())
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (text, more) = match text.strip_prefix("mls:") {
            Some(text) => (text, MLS_OCTETS),
            None => (text, 0),
        };
        let number = |text: &str| text.trim().parse::<u32>().map_err(|e| format!("`{text}` is not a size: {e}"));
        let sizes = if text.contains(':') {
            let mix = text
                .split(',')
                .map(|part| {
                    let (size, weight) = part.split_once(':').ok_or(format!("`{part}` is not SIZE:WEIGHT"))?;
                    Ok((number(size)?, number(weight)?))
                })
                .collect::<std::result::Result<Vec<_>, String>>()?;
            // The sum is drawn from as one number.
            let total: u64 = mix.iter().map(|&(_, weight)| u64::from(weight)).sum();
            if total == 0 || total > u64::from(u32::MAX) {
                return Err(format!("the weights add up to {total}"));
            }
            Self::Mix(mix)
        } else if let Some((low, high)) = text.split_once('-') {
            Self::Range(number(low)?, number(high)?)
        } else {
            Self::Fixed(number(text)?)
        };
        if let Self::Range(low, high) = sizes
            && low > high
        {
            return Err(format!("{low} is more than {high}"));
        }
        let sizes = sizes.grown(more);
        if (sizes.min() as usize) < Stamp::OCTETS {
            return Err(format!("a payload holds at least its {} octet stamp", Stamp::OCTETS));
        }
        Ok(sizes)
    }
}

/// Options as written; what is absent takes the command's default. A scenario file has exactly these keys, with
/// `_` for `-`.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Where the node listens, HOST:PORT (default: 127.0.0.1:46357)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) node: Option<String>,
    /// What listens there (default: slim)
    #[arg(long)]
    pub(crate) peer: Option<Peer>,
    /// Publishing connections (default: 1)
    #[arg(long)]
    pub(crate) pubs: Option<u32>,
    /// Subscribing connections (default: 1)
    #[arg(long)]
    pub(crate) subs: Option<u32>,
    /// Names subscribed to (default: as many as subscribers; 1 with --fanout all)
    #[arg(long)]
    pub(crate) names: Option<u32>,
    /// How many receivers each message asks for (default: one)
    #[arg(long)]
    pub(crate) fanout: Option<Fanout>,
    /// Which name a publisher addresses (default: pair)
    #[arg(long)]
    pub(crate) spread: Option<Spread>,
    /// Payload octets: 256, 64-1024, or 64:70,1024:25,16384:5; mls:256 is as large as 256 octets become under MLS (default: 256)
    #[arg(long)]
    pub(crate) payload: Option<String>,
    /// Octets of the identity token in every header (default: 229)
    #[arg(long)]
    pub(crate) identity: Option<u32>,
    /// Messages a publisher may have under way (default: about 256 KiB of them, 8 to 512)
    #[arg(long)]
    pub(crate) window: Option<u32>,
    /// Messages per second of all publishers together, one or a ladder: 1000,5000,20000
    #[arg(long, value_delimiter = ',')]
    pub(crate) rate: Option<Vec<f64>>,
    /// Latency: shares of the node's own capacity instead of rates, 0.1,0.5; a closed window finds it first
    #[arg(long, value_delimiter = ',', value_name = "SHARES", conflicts_with = "rate")]
    pub(crate) load: Option<Vec<f64>>,
    /// Gaps between messages (default: even)
    #[arg(long)]
    pub(crate) arrivals: Option<Arrivals>,
    /// Seconds measured (each step of a ladder) (default: 5)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<f64>,
    /// Seconds before measuring (default: 1)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) warmup: Option<f64>,
    /// Stop after this many messages instead of a duration (ping-pong: round trips)
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Generator threads: as many as keep each at this many connections or fewer
    #[arg(long, value_name = "COUNT", conflicts_with = "threads")]
    pub(crate) connections_per_thread: Option<u32>,
    /// Generator threads (default: 1 up to 3 CPUs, else half of them)
    #[arg(long)]
    pub(crate) threads: Option<u32>,
    /// CPUs for the generator threads, 1,3 (default: no pinning)
    #[arg(long, value_delimiter = ',')]
    pub(crate) pin: Option<Vec<u32>>,
    /// How the generator drives its sockets (default: epoll)
    #[arg(long)]
    pub(crate) engine: Option<EngineKind>,
    /// Seed of every random choice (default: 1)
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Sign every message anew instead of walking pre-signed headers
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fresh: bool,
    /// Offer no key in the negotiation, so that links run without header MAC; the node must allow it
    /// (require_header_mac: false)
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_mac: bool,
    /// Pre-signed headers per publisher (default: 4096; 65536 over many names)
    #[arg(long)]
    pub(crate) variants: Option<u32>,
    /// Verify the header MAC of one received message in this many (default: 64)
    #[arg(long)]
    pub(crate) verify_one_in: Option<u32>,
    /// Leave Nagle's algorithm on at the client, as the SDKs do
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) nagle: bool,
    /// Never sleep while measuring: what a wake-up of the generator costs is not the node's
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) spin: bool,
    /// Ping-pong: write an acknowledgement before each answer and after each reply, as reliable sessions do
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) acks: bool,
    /// Speak TLS
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tls: bool,
    /// TLS: authorities to trust, a PEM file (default: the system's)
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub(crate) ca_source: Option<PathBuf>,
    /// TLS: take any certificate
    #[arg(long, requires = "tls", conflicts_with = "ca_source")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure_skip_verify: bool,
    /// TLS: the name the node's certificate carries (default: the host of --node)
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub(crate) server_name: Option<String>,
    /// A file with USERNAME:PASSWORD, for a node with `auth: basic`
    #[arg(long, value_name = "FILE")]
    pub(crate) basic_auth: Option<PathBuf>,
    /// The node's stats socket, for what it dropped and why
    #[arg(long, value_name = "SOCKET")]
    pub(crate) node_stats: Option<PathBuf>,
    /// The node's process, for its CPU time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) node_pid: Option<u32>,
    /// Idle: connections to hold (default: 1000)
    #[arg(long)]
    pub(crate) connections: Option<u32>,
    /// Capacity: the p99.9 to hold, in microseconds (default: 10000)
    #[arg(long, value_name = "US")]
    pub(crate) hold_us: Option<u64>,
    /// Repeats of each measurement (default: 1; capacity 3)
    #[arg(long)]
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

/// TLS and the `authorization` header, as the options want them.
fn credentials(options: &Options, endpoint: &str) -> Result<(Option<Security>, Option<String>)> {
    let refuse = |reason: String| BenchError::Plan(reason);
    let slim = options.peer.is_none_or(|peer| peer == Peer::Slim);
    if !slim && (options.tls || options.basic_auth.is_some()) {
        return Err(refuse("--tls and --basic-auth belong to --peer slim".into()));
    }
    if !options.tls && (options.ca_source.is_some() || options.insecure_skip_verify || options.server_name.is_some()) {
        return Err(refuse("ca_source, insecure_skip_verify and server_name belong to tls".into()));
    }
    let tls = if options.tls {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let host = options.server_name.as_deref().unwrap_or(host);
        Some(Security::new(host, options.ca_source.as_deref(), options.insecure_skip_verify).map_err(refuse)?)
    } else {
        None
    };
    let authorization = match &options.basic_auth {
        None => None,
        Some(path) => {
            let wrong = |reason: String| BenchError::Plan(format!("--basic-auth {}: {reason}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            let pair = text.trim_end_matches(['\r', '\n']);
            if !pair.contains(':') {
                return Err(wrong("it does not hold USERNAME:PASSWORD".into()));
            }
            Some(format!("Basic {}", base64(pair.as_bytes())))
        }
    };
    Ok((tls, authorization))
}

/// Base64 with padding (RFC 4648 §4).
fn base64(octets: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &octet| bits << 8 | u32::from(octet)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
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
/// What MLS adds to an application's octets: the ciphertext carries names and identity token once more, as authenticated
/// data, beside group id, signature and tag (a text of 19 octets was seen to travel as 597).
const MLS_OCTETS: u32 = 578;
/// Octets of header and framing around a payload, about: what the default window is reckoned with.
const OVERHEAD_OCTETS: f64 = 480.0;

impl Plan {
    /// Makes the choices and refuses the impossible.
    pub(crate) fn check(command: Command, options: Options) -> Result<Self> {
        let refuse = |reason: String| Err(BenchError::Plan(reason));
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
        let threads = match (o.threads, o.connections_per_thread) {
            (Some(threads), _) => threads,
            (None, Some(0)) => return refuse("--connections-per-thread must be at least 1".into()),
            (None, Some(each)) => {
                (u64::from(pubs) + u64::from(subs) + u64::from(idle)).div_ceil(u64::from(each)) as u32
            }
            (None, None) if cpus < 4 => 1,
            (None, None) => cpus / 2,
        };
        let pin = o.pin.unwrap_or_default();

        if pubs == 0 || subs == 0 || names == 0 || threads == 0 || window == 0 {
            return refuse("publishers, subscribers, names, threads and window must be at least 1".into());
        }
        if threads > THREADS_MAX {
            return refuse(format!("{threads} generator threads: at most {THREADS_MAX}"));
        }
        if sizes.max() as usize > 4 * 1024 * 1024 - 4096 {
            return refuse("--payload: with its header the message would pass SLIM's 4 MiB limit".into());
        }
        if let Some(rate) = rates.iter().find(|rate| !(rate.is_finite() && **rate > 0.0)) {
            return refuse(format!("--rate {rate}: not a rate"));
        }
        if let Some(share) = load.iter().find(|share| !(**share > 0.0 && **share <= 2.0)) {
            return refuse(format!("--load {share}: not a share of the capacity"));
        }
        if !load.is_empty() && command != Command::Latency {
            return refuse("--load belongs to latency".into());
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
        if let Some(cpu) = pin.iter().find(|cpu| !crate::machine::may_use(**cpu)) {
            return refuse(format!("--pin {cpu}: this process may not run on CPU {cpu} (see taskset -p $$)"));
        }
        if let Some(pid) = o.node_pid
            && !Path::new(&format!("/proc/{pid}/stat")).exists()
        {
            return refuse(format!("--node-pid {pid}: no such process"));
        }
        if command != Command::Pingpong && o.acks {
            return refuse("--acks belongs to pingpong".into());
        }
        let endpoint = o.node.unwrap_or_else(|| "127.0.0.1:46357".into());
        let (tls, authorization) = credentials(&options, &endpoint)?;
        if let Some(socket) = &o.node_stats {
            crate::node_stats::NodeStats::read(socket)?;
        }
        let engine = o.engine.unwrap_or(EngineKind::Epoll);
        if engine != EngineKind::Epoll && (o.acks || command == Command::Churn) {
            return refuse(format!(
                "--engine {} gathers what is written while a send is under way: use epoll here",
                format!("{engine:?}").to_lowercase()
            ));
        }
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
            identity: o.identity.unwrap_or(229),
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
            node_pid: o.node_pid,
            connections: o.connections.unwrap_or(IDLE_CONNECTIONS),
            hold: Duration::from_micros(o.hold_us.unwrap_or(10_000)),
            repeats: o.repeats.unwrap_or(if command == Command::Capacity { 3 } else { 1 }).max(1),
            options,
        };
        plan.check_files()?;
        Ok(plan)
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
    fn payload_sizes() {
        assert_eq!("256".parse(), Ok(Sizes::Fixed(256)));
        assert_eq!("64-1024".parse(), Ok(Sizes::Range(64, 1024)));
        assert_eq!("64:70,1024:30".parse(), Ok(Sizes::Mix(vec![(64, 70), (1024, 30)])));
        for bad in ["", "8", "x", "1024-64", "64:0", "64:x", "64-", "mls:", "mls:x", "64:4294967295,65:1"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
        assert_eq!("mls:256".parse(), Ok(Sizes::Fixed(834)));
        assert_eq!("mls:19".parse(), Ok(Sizes::Fixed(597)), "as recorded");
        assert_eq!("mls:16:1,1024:3".parse(), Ok(Sizes::Mix(vec![(594, 1), (1602, 3)])));
        assert_eq!("mls:0-100".parse(), Ok(Sizes::Range(578, 678)));
        let mix: Sizes = "64:1,1024:3".parse().unwrap();
        assert!((mix.mean() - 784.0).abs() < 1e-9);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let text = "title = \"t\"\ncommand = \"throughput\"\n[options]\npubs = 1\nthreds = 2\n";
        let error = toml::from_str::<Scenario>(text).unwrap_err().to_string();
        assert!(error.contains("threds"), "{error}");
        assert!(toml::from_str::<Scenario>("title = \"t\"\ncommand = \"sprint\"\n").is_err());
    }

    #[test]
    fn base64_as_the_rfc_has_it() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

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
