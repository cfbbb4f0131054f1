//! Our own blocks as written: top-level `slimline` and `servers[].slimline`. Both are strict.

use std::time::Duration;

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};

/// Which kernel interface moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// io_uring where the kernel allows it, else epoll with a warning.
    #[default]
    Auto,
    /// io_uring, or the node refuses to start.
    IoUring,
    /// epoll, always.
    Epoll,
}

/// A step of the io_uring ladder that can be switched off, so that each rung can be tested on one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoFeature {
    /// One receive completion that spans several buffers.
    Bundles,
    /// One submission, many completions.
    Multishot,
    /// Completions only when the shard asks for them.
    DeferTaskrun,
    /// Rings that wake one another.
    MsgRing,
}

/// What happens to a connection that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowReaderPolicy {
    /// Publishers wait for it, until it counts as stalled.
    #[default]
    Block,
    /// What does not fit is dropped for it at once.
    Drop,
    /// It is ended as soon as it counts as stalled.
    Disconnect,
}

pub(crate) struct Slimline {
    pub(crate) shards: Option<At<u16>>,
    pub(crate) engine: Option<At<Engine>>,
    pub(crate) io: Io,
    pub(crate) limits: Limits,
    pub(crate) stats: Stats,
}

pub(crate) struct Io {
    pub(crate) disable: Vec<IoFeature>,
    pub(crate) ring_entries: Option<At<u32>>,
    pub(crate) recv_buf_count: Option<At<u16>>,
    pub(crate) recv_buf_octets: Option<At<u64>>,
    pub(crate) spin_us: Option<At<u32>>,
    pub(crate) flush_us: Option<At<u32>>,
    pub(crate) sqpoll: Option<At<bool>>,
    pub(crate) send_zc: Option<At<bool>>,
}

pub(crate) struct Limits {
    pub(crate) streams_max: Option<At<u32>>,
    pub(crate) stream_window_octets: Option<At<u64>>,
    pub(crate) transport_window_octets: Option<At<u64>>,
    pub(crate) preface_deadline: Option<At<Duration>>,
    pub(crate) headers_deadline: Option<At<Duration>>,
    pub(crate) header_list_octets_max: Option<At<u64>>,
    pub(crate) continuation_frames_max: Option<At<u32>>,
    pub(crate) control_frames_per_10s: Option<At<u32>>,
    pub(crate) resets_per_10s: Option<At<u32>>,
    pub(crate) message_octets_max: Option<At<u64>>,
    pub(crate) slim_header_octets_max: Option<At<u64>>,
    pub(crate) identity_octets_max: Option<At<u64>>,
    pub(crate) name_component_octets_max: Option<At<u64>>,
    pub(crate) link_text_octets_max: Option<At<u64>>,
    pub(crate) names_max: Option<At<u32>>,
    pub(crate) names_per_connection_max: Option<At<u32>>,
    pub(crate) unacknowledged_max: Option<At<u32>>,
    pub(crate) connections_max: Option<At<u32>>,
    pub(crate) accept_backlog: Option<At<u32>>,
    pub(crate) memory_octets_max: Option<At<u64>>,
}

pub(crate) struct Stats {
    pub(crate) socket: Option<At<String>>,
    pub(crate) interval: Option<At<Duration>>,
}

pub(crate) struct ServerExt {
    pub(crate) slow_reader: SlowReader,
    pub(crate) health: Option<At<bool>>,
    pub(crate) health_open: Option<At<bool>>,
}

pub(crate) struct SlowReader {
    pub(crate) at: At<()>,
    pub(crate) policy: Option<At<SlowReaderPolicy>>,
    pub(crate) high: Option<At<u64>>,
    pub(crate) low: Option<At<u64>>,
    pub(crate) stall_after: Option<At<Duration>>,
    pub(crate) cut_after: Option<At<Duration>>,
    pub(crate) hard_cap: Option<At<u64>>,
}

pub(crate) const SLIMLINE_KEYS: [&str; 5] = ["shards", "engine", "io", "limits", "stats"];
pub(crate) const IO_KEYS: [&str; 8] =
    ["disable", "ring_entries", "recv_buf_count", "recv_buf_octets", "spin_us", "flush_us", "sqpoll", "send_zc"];
pub(crate) const LIMITS_KEYS: [&str; 20] = [
    "streams_max",
    "stream_window_octets",
    "transport_window_octets",
    "preface_deadline",
    "headers_deadline",
    "header_list_octets_max",
    "continuation_frames_max",
    "control_frames_per_10s",
    "resets_per_10s",
    "message_octets_max",
    "slim_header_octets_max",
    "identity_octets_max",
    "name_component_octets_max",
    "link_text_octets_max",
    "names_max",
    "names_per_connection_max",
    "unacknowledged_max",
    "connections_max",
    "accept_backlog",
    "memory_octets_max",
];
pub(crate) const STATS_KEYS: [&str; 2] = ["socket", "interval"];
pub(crate) const SERVER_EXT_KEYS: [&str; 3] = ["slow_reader", "health", "health_open"];
pub(crate) const SLOW_READER_KEYS: [&str; 6] = ["policy", "high", "low", "stall_after", "cut_after", "hard_cap"];

impl Slimline {
    pub(crate) fn read(document: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = document.block("slimline", Unknown::Refused, &SLIMLINE_KEYS, warnings)?;
        let engines = [("auto", Engine::Auto), ("io_uring", Engine::IoUring), ("epoll", Engine::Epoll)];
        Ok(Self {
            shards: block.unsigned("shards")?,
            engine: block.word("engine", &engines)?,
            io: Io::read(&block.block("io", Unknown::Refused, &IO_KEYS, warnings)?)?,
            limits: Limits::read(&block.block("limits", Unknown::Refused, &LIMITS_KEYS, warnings)?)?,
            stats: Stats::read(&block.block("stats", Unknown::Refused, &STATS_KEYS, warnings)?)?,
        })
    }
}

impl Io {
    fn read(block: &Block<'_>) -> Result<Self, ConfigError> {
        let features = [
            ("bundles", IoFeature::Bundles),
            ("multishot", IoFeature::Multishot),
            ("defer_taskrun", IoFeature::DeferTaskrun),
            ("msg_ring", IoFeature::MsgRing),
        ];
        Ok(Self {
            disable: block.words("disable", &features)?,
            ring_entries: block.unsigned("ring_entries")?,
            recv_buf_count: block.unsigned("recv_buf_count")?,
            recv_buf_octets: block.octets("recv_buf_octets")?,
            spin_us: block.unsigned("spin_us")?,
            flush_us: block.unsigned("flush_us")?,
            sqpoll: block.boolean("sqpoll")?,
            send_zc: block.boolean("send_zc")?,
        })
    }
}

impl Limits {
    fn read(block: &Block<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            streams_max: block.unsigned("streams_max")?,
            stream_window_octets: block.octets("stream_window_octets")?,
            transport_window_octets: block.octets("transport_window_octets")?,
            preface_deadline: block.duration("preface_deadline")?,
            headers_deadline: block.duration("headers_deadline")?,
            header_list_octets_max: block.octets("header_list_octets_max")?,
            continuation_frames_max: block.unsigned("continuation_frames_max")?,
            control_frames_per_10s: block.unsigned("control_frames_per_10s")?,
            resets_per_10s: block.unsigned("resets_per_10s")?,
            message_octets_max: block.octets("message_octets_max")?,
            slim_header_octets_max: block.octets("slim_header_octets_max")?,
            identity_octets_max: block.octets("identity_octets_max")?,
            name_component_octets_max: block.octets("name_component_octets_max")?,
            link_text_octets_max: block.octets("link_text_octets_max")?,
            names_max: block.unsigned("names_max")?,
            names_per_connection_max: block.unsigned("names_per_connection_max")?,
            unacknowledged_max: block.unsigned("unacknowledged_max")?,
            connections_max: block.unsigned("connections_max")?,
            accept_backlog: block.unsigned("accept_backlog")?,
            memory_octets_max: block.octets("memory_octets_max")?,
        })
    }
}

impl Stats {
    fn read(block: &Block<'_>) -> Result<Self, ConfigError> {
        Ok(Self { socket: block.text("socket")?, interval: block.duration("interval")? })
    }
}

impl ServerExt {
    pub(crate) fn read(server: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = server.block("slimline", Unknown::Refused, &SERVER_EXT_KEYS, warnings)?;
        let slow_reader = block.block("slow_reader", Unknown::Refused, &SLOW_READER_KEYS, warnings)?;
        let policies = [
            ("block", SlowReaderPolicy::Block),
            ("drop", SlowReaderPolicy::Drop),
            ("disconnect", SlowReaderPolicy::Disconnect),
        ];
        Ok(Self {
            health: block.boolean("health")?,
            health_open: block.boolean("health_open")?,
            slow_reader: SlowReader {
                at: slow_reader.at(()),
                policy: slow_reader.word("policy", &policies)?,
                high: slow_reader.octets("high")?,
                low: slow_reader.octets("low")?,
                stall_after: slow_reader.duration("stall_after")?,
                cut_after: slow_reader.duration("cut_after")?,
                hard_cap: slow_reader.octets("hard_cap")?,
            },
        })
    }
}
