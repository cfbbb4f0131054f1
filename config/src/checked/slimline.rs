//! Our own settings as used: shards and engine, rings and buffers, every limit, stats.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::or;
use super::server::positive;
use crate::block::At;
use crate::error::ConfigError;
use crate::raw::slimline as raw;
pub use crate::raw::slimline::{Engine, IoFeature, SlowReaderPolicy};

/// The top-level `slimline` block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slimline {
    /// Shards to run, whatever the number of cores; `None` follows `runtime.n_cores`.
    pub shards: Option<u16>,
    /// Which kernel interface moves the bytes.
    pub engine: Engine,
    /// Rings and buffers of a shard.
    pub io: Io,
    /// Every bound.
    pub limits: Limits,
    /// Where counters can be read.
    pub stats: Stats,
}

/// `slimline.io`, per shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Io {
    /// Steps of the io_uring ladder not to use, even where the kernel has them.
    pub disable: Vec<IoFeature>,
    /// Submission queue entries, a power of two.
    pub ring_entries: u32,
    /// Receive buffers, a power of two.
    pub recv_buf_count: u16,
    /// Octets of one receive buffer.
    pub recv_buf_octets: u32,
    /// How long a shard looks for work before it sleeps.
    pub spin_us: u32,
    /// Age of the oldest unsent octet at which a send is made, however busy the shard; zero sends at the end of every turn.
    pub flush_us: u32,
    /// A kernel thread that polls the submission queue.
    pub sqpoll: bool,
    /// Sends without a copy into the kernel.
    pub send_zc: bool,
}

impl Default for Io {
    fn default() -> Self {
        Self {
            disable: Vec::new(),
            ring_entries: 4096,
            recv_buf_count: 64,
            recv_buf_octets: 64 << 10,
            spin_us: 0,
            flush_us: 0,
            sqpoll: false,
            send_zc: false,
        }
    }
}

/// `slimline.limits`: what one peer, and all of them together, can make the node hold or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams per transport, advertised.
    pub streams_max: u32,
    /// Receive window of a stream.
    pub stream_window_octets: u32,
    /// Receive window of a transport.
    pub transport_window_octets: u32,
    /// From accept to the end of the HTTP/2 preface.
    pub preface_deadline: Duration,
    /// From a header block's start to its end.
    pub headers_deadline: Duration,
    /// Decoded header list.
    pub header_list_octets_max: u32,
    /// CONTINUATION frames per header block.
    pub continuation_frames_max: u32,
    /// Control frames of each kind per transport and ten seconds.
    pub control_frames_per_10s: u32,
    /// Streams reset per transport and ten seconds.
    pub resets_per_10s: u32,
    /// One SLIM message.
    pub message_octets_max: u32,
    /// The SLIM header inside a message.
    pub slim_header_octets_max: u32,
    /// The identity inside a SLIM header.
    pub identity_octets_max: u32,
    /// One component of a name, as text.
    pub name_component_octets_max: u32,
    /// Each string of a link negotiation, and our own `node_id` and `domain_name`.
    pub link_text_octets_max: u32,
    /// Subscribed names in the node.
    pub names_max: u32,
    /// Subscribed names of one connection.
    pub names_per_connection_max: u32,
    /// Subscriptions of one connection that wait for their ack.
    pub unacknowledged_max: u32,
    /// Connections in the node; at this mark the listeners close until some leave.
    pub connections_max: u32,
    /// Callers the kernel keeps waiting on a listener.
    pub accept_backlog: u32,
    /// Memory budget of the node; `None` means half of what the machine or the cgroup has.
    pub memory_octets_max: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window_octets: MIB,
            transport_window_octets: MIB,
            preface_deadline: Duration::from_secs(5),
            headers_deadline: Duration::from_secs(5),
            header_list_octets_max: 16 * KIB,
            continuation_frames_max: 8,
            control_frames_per_10s: 1000,
            resets_per_10s: 200,
            message_octets_max: 4 * MIB,
            slim_header_octets_max: 16 * KIB,
            identity_octets_max: 8 * KIB,
            name_component_octets_max: KIB,
            link_text_octets_max: 256,
            names_max: 2_000_000,
            names_per_connection_max: 1_100_000,
            unacknowledged_max: 1024,
            connections_max: 100_000,
            accept_backlog: 4096,
            memory_octets_max: None,
        }
    }
}

/// `slimline.stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// A socket that answers with counters; `None` is off.
    pub socket: Option<PathBuf>,
    /// How often a line of counters is logged; `None` is never.
    pub interval: Option<Duration>,
}

/// `servers[].slimline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerExt {
    /// What happens to connections that read too slowly.
    pub slow_reader: SlowReader,
    /// Whether `/healthz` and `grpc.health.v1.Health` answer here.
    pub health: bool,
    /// Whether they answer before authentication.
    pub health_open: bool,
}

impl Default for ServerExt {
    fn default() -> Self {
        Self { slow_reader: SlowReader::default(), health: true, health_open: false }
    }
}

/// `servers[].slimline.slow_reader`. Queues are counted in octets.
///
/// The policy is already in the times: `drop` has `stall_after` zero, `disconnect` has `cut_after == stall_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowReader {
    /// What the operator asked for.
    pub policy: SlowReaderPolicy,
    /// A longer queue makes a connection congested.
    pub high: u32,
    /// A queue below this makes it flow again.
    pub low: u32,
    /// A congested connection whose oldest octet is older is stalled: its copies are dropped.
    pub stall_after: Duration,
    /// A connection whose oldest octet is older is ended.
    pub cut_after: Duration,
    /// A queue never grows beyond this: drop at once.
    pub hard_cap: u32,
}

impl Default for SlowReader {
    fn default() -> Self {
        Self {
            policy: SlowReaderPolicy::Block,
            high: MIB,
            low: 512 * KIB,
            stall_after: Duration::from_secs(1),
            cut_after: Duration::from_secs(10),
            hard_cap: 8 * MIB,
        }
    }
}

/// Shards at most: the mesh has a ring for every ordered pair of them.
pub const SHARDS_MAX: u16 = 256;
/// HTTP/2's largest window (RFC 9113 §6.9.1).
const WINDOW_OCTETS_MAX: u32 = (1 << 31) - 1;
/// HTTP/2's window before anything is said; ours never starts below it.
const WINDOW_OCTETS_MIN: u32 = 65_535;
const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

impl Slimline {
    pub(crate) fn check(raw: raw::Slimline) -> Result<Self, ConfigError> {
        Ok(Self {
            shards: raw.shards.map(|shards| in_range(shards, 1..=SHARDS_MAX)).transpose()?,
            engine: or(raw.engine, Engine::default()),
            io: Io::check(raw.io)?,
            limits: Limits::check(raw.limits)?,
            stats: Stats::check(raw.stats)?,
        })
    }
}

impl Io {
    fn check(raw: raw::Io) -> Result<Self, ConfigError> {
        let default = Self::default();
        Ok(Self {
            disable: raw.disable,
            ring_entries: power_of_two(raw.ring_entries, default.ring_entries, 8..=32_768, |entries| {
                entries.is_power_of_two()
            })?,
            recv_buf_count: power_of_two(raw.recv_buf_count, default.recv_buf_count, 2..=32_768, |count| {
                count.is_power_of_two()
            })?,
            recv_buf_octets: octets(raw.recv_buf_octets, default.recv_buf_octets, 4 * KIB..=4 * MIB)?,
            spin_us: number(raw.spin_us, default.spin_us, 0..=10_000)?,
            flush_us: number(raw.flush_us, default.flush_us, 0..=1_000_000)?,
            sqpoll: only(raw.sqpoll, default.sqpoll)?,
            send_zc: only(raw.send_zc, default.send_zc)?,
        })
    }
}

impl Limits {
    fn check(raw: raw::Limits) -> Result<Self, ConfigError> {
        let default = Self::default();
        let names_max = number(raw.names_max, default.names_max, 1..=100_000_000)?;
        let per_connection = default.names_per_connection_max.min(names_max);
        let message_octets_max = octets(raw.message_octets_max, default.message_octets_max, KIB..=1024 * MIB)?;
        let window = WINDOW_OCTETS_MIN..=WINDOW_OCTETS_MAX;
        let slim_header_octets_max = octets(raw.slim_header_octets_max, default.slim_header_octets_max, KIB..=MIB)?;
        let identity = default.identity_octets_max.min(slim_header_octets_max);
        let component = default.name_component_octets_max.min(slim_header_octets_max);
        Ok(Self {
            streams_max: number(raw.streams_max, default.streams_max, 1..=WINDOW_OCTETS_MAX)?,
            stream_window_octets: octets(raw.stream_window_octets, default.stream_window_octets, window.clone())?,
            transport_window_octets: octets(raw.transport_window_octets, default.transport_window_octets, window)?,
            preface_deadline: positive(raw.preface_deadline.as_ref(), default.preface_deadline)?,
            headers_deadline: positive(raw.headers_deadline.as_ref(), default.headers_deadline)?,
            header_list_octets_max: octets(raw.header_list_octets_max, default.header_list_octets_max, KIB..=MIB)?,
            continuation_frames_max: number(raw.continuation_frames_max, default.continuation_frames_max, 0..=1_000)?,
            control_frames_per_10s: number(raw.control_frames_per_10s, default.control_frames_per_10s, 10..=u32::MAX)?,
            resets_per_10s: number(raw.resets_per_10s, default.resets_per_10s, 1..=u32::MAX)?,
            message_octets_max,
            slim_header_octets_max,
            identity_octets_max: octets(raw.identity_octets_max, identity, 64..=slim_header_octets_max)?,
            name_component_octets_max: octets(raw.name_component_octets_max, component, 128..=slim_header_octets_max)?,
            link_text_octets_max: octets(raw.link_text_octets_max, default.link_text_octets_max, 64..=8 * KIB)?,
            names_max,
            names_per_connection_max: number(raw.names_per_connection_max, per_connection, 1..=names_max)?,
            unacknowledged_max: number(raw.unacknowledged_max, default.unacknowledged_max, 1..=1_000_000)?,
            connections_max: number(raw.connections_max, default.connections_max, 1..=10_000_000)?,
            accept_backlog: number(raw.accept_backlog, default.accept_backlog, 1..=65_535)?,
            memory_octets_max: raw.memory_octets_max.map(|octets| in_range(octets, MEMORY_OCTETS)).transpose()?,
        })
    }
}

/// Less memory than this holds no shard's buffers; more than this no machine has.
const MEMORY_OCTETS: RangeInclusive<u64> = 16 << 20..=1 << 50;

/// A bound this release has, and cannot change yet: writing its default is fine.
fn only<T: PartialEq, D: Copy + Into<T>>(written: Option<At<T>>, default: D) -> Result<D, ConfigError> {
    match written {
        Some(other) if other.value != default.into() => Err(other.not_supported()),
        _ => Ok(default),
    }
}

impl Stats {
    fn check(raw: raw::Stats) -> Result<Self, ConfigError> {
        if let Some(relative) = raw.socket.as_ref().filter(|socket| !socket.value.starts_with('/')) {
            return Err(relative.refuse("a socket file needs an absolute path"));
        }
        let interval = raw.interval.as_ref().map(|interval| positive(Some(interval), interval.value)).transpose()?;
        Ok(Self { socket: raw.socket.map(|socket| PathBuf::from(socket.value)), interval })
    }
}

impl ServerExt {
    pub(crate) fn check(raw: &raw::ServerExt, limits: &Limits) -> Result<Self, ConfigError> {
        let default = Self::default();
        Ok(Self {
            slow_reader: SlowReader::check(&raw.slow_reader, limits)?,
            health: or(raw.health.clone(), default.health),
            health_open: or(raw.health_open.clone(), default.health_open),
        })
    }
}

impl SlowReader {
    fn check(raw: &raw::SlowReader, limits: &Limits) -> Result<Self, ConfigError> {
        let default = Self::default();
        let hard_cap_default = default.hard_cap.max(limits.message_octets_max);
        let hard_cap = octets(raw.hard_cap.clone(), hard_cap_default, 64 * KIB..=u32::MAX)?;
        if hard_cap < limits.message_octets_max {
            let written = raw.at.refuse("hard_cap is smaller than slimline.limits.message_octets_max");
            return Err(written.help("a message of the largest size allowed has to fit into an empty queue"));
        }
        let high = octets(raw.high.clone(), default.high.min(hard_cap), KIB..=hard_cap)?;
        let low = octets(raw.low.clone(), default.low.min(high / 2), 1..=high - 1)?; // no queue is below 0
        let policy = or(raw.policy.clone(), default.policy);
        let stall_after = match (policy, &raw.stall_after) {
            (SlowReaderPolicy::Drop, Some(written)) if !written.value.is_zero() => {
                return Err(written.refuse("policy drop means stall_after 0s").help("remove one of the two keys"));
            }
            (SlowReaderPolicy::Drop, _) => Duration::ZERO,
            (_, written) => written.as_ref().map_or(default.stall_after, |written| written.value),
        };
        let cut_after = match (policy, &raw.cut_after) {
            (SlowReaderPolicy::Disconnect, Some(written)) if written.value != stall_after => {
                return Err(written
                    .refuse("policy disconnect cuts a connection when it stalls")
                    .help("remove cut_after, and set stall_after to when it should happen"));
            }
            (SlowReaderPolicy::Disconnect, _) => stall_after,
            (_, Some(written)) if written.value < stall_after => {
                return Err(written.refuse("cut_after is shorter than stall_after"));
            }
            (_, written) => written.as_ref().map_or(default.cut_after.max(stall_after), |written| written.value),
        };
        Ok(Self { policy, high, low, stall_after, cut_after, hard_cap })
    }
}

fn in_range<T: PartialOrd + Display>(written: At<T>, range: RangeInclusive<T>) -> Result<T, ConfigError> {
    if range.contains(&written.value) {
        return Ok(written.value);
    }
    let (start, end) = range.into_inner();
    Err(written.refuse(format!("invalid value: integer `{}`, expected {start} to {end}", written.value)))
}

fn number<T: PartialOrd + Display>(
    written: Option<At<T>>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    written.map_or(Ok(default), |written| in_range(written, range))
}

/// Sizes are written with 64 bits and used with 32.
fn octets(written: Option<At<u64>>, default: u32, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
    let Some(written) = written else { return Ok(default) };
    let range = u64::from(*range.start())..=u64::from(*range.end());
    let value = in_range(written, range)?;
    Ok(u32::try_from(value).expect("inside a range of 32-bit values"))
}

fn power_of_two<T: PartialOrd + Display + Copy>(
    written: Option<At<T>>,
    default: T,
    range: RangeInclusive<T>,
    is_power: impl Fn(T) -> bool,
) -> Result<T, ConfigError> {
    let Some(written) = written else { return Ok(default) };
    let at = written.clone().map(|_| ());
    let value = in_range(written, range)?;
    if is_power(value) { Ok(value) } else { Err(at.refuse(format!("{value} is not a power of two"))) }
}
