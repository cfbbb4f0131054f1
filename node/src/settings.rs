//! What shards need of the configuration, ready for use.

use slimline_wire::h2::Limits;
use slimline_wire::message::Bounds;
use std::time::Duration;

/// One node's settings, shared by its shards and never changed while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node_id: String,
    /// Our deployment (`domain_name`); empty when none is configured.
    pub(crate) deployment_name: String,
    pub(crate) listeners: Vec<ListenerSettings>,
    pub(crate) preface_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) negotiation_timeout: Duration,
    pub(crate) message_octets_max: u32,
    /// The parts of one message.
    pub(crate) bounds: Bounds,
    /// Requests of one connection that may wait for their ack; then its stream waits too.
    pub(crate) unacknowledged_max: u32,
    /// Longest time output may wait for more while there is more to read.
    pub(crate) flush: Duration,
    /// How long to look for work before sleeping.
    pub(crate) spin: Duration,
    /// Whether accepted links must use the header MAC (`require_header_mac`).
    pub(crate) require_header_mac: bool,
    /// A node with `peers:` does not pass messages from one peer to another (slim-wire §6.3).
    pub(crate) full_mesh: bool,
}

/// One listener's settings.
#[derive(Clone, Debug)]
pub(crate) struct ListenerSettings {
    pub(crate) h2: Limits,
    pub(crate) health: bool,
    pub(crate) slow_reader: SlowReader,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) connection_age_max: Duration,
}

/// What happens to a connection that does not take what it is sent (architecture §5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowReader {
    pub(crate) high: usize,
    pub(crate) low: usize,
    pub(crate) stall_after: Duration,
    pub(crate) cut_after: Duration,
    pub(crate) hard_cap: usize,
}

impl Settings {
    /// What one service of a checked configuration means for the shards.
    pub(crate) fn of(service: &slimline_config::Service, slimline: &slimline_config::Slimline) -> Self {
        let limits = &slimline.limits;
        let first = service.servers.first();
        Self {
            node_id: service.node_id.clone(),
            deployment_name: service.domain_name.clone().unwrap_or_default(),
            listeners: service.servers.iter().map(|server| ListenerSettings::of(server, limits)).collect(),
            preface_timeout: limits.preface_deadline,
            request_timeout: limits.headers_deadline,
            negotiation_timeout: first.map_or(Duration::from_secs(5), |server| server.negotiation_timeout),
            message_octets_max: limits.message_octets_max,
            bounds: Bounds {
                header_octets_max: limits.slim_header_octets_max as usize,
                identity_octets_max: limits.identity_octets_max as usize,
                name_component_octets_max: limits.name_component_octets_max as usize,
                link_text_octets_max: limits.link_text_octets_max as usize,
            },
            unacknowledged_max: limits.unacknowledged_max,
            flush: Duration::from_micros(slimline.io.flush_us.into()),
            spin: Duration::from_micros(slimline.io.spin_us.into()),
            require_header_mac: first.is_none_or(|server| server.require_header_mac),
            full_mesh: false,
        }
    }
}

impl ListenerSettings {
    fn of(server: &slimline_config::Server, limits: &slimline_config::Limits) -> Self {
        let slow = &server.slimline.slow_reader;
        Self {
            h2: Limits {
                initial_window: limits.stream_window_octets,
                transport_window: limits.transport_window_octets,
                max_frame_size: server.max_frame_size,
                header_list_octets_max: server.max_header_list_size,
                streams_max: server.max_concurrent_streams,
                continuation_frames_max: limits.continuation_frames_max,
                control_frames_per_10s: limits.control_frames_per_10s,
                resets_per_10s: limits.resets_per_10s,
            },
            health: server.slimline.health,
            slow_reader: SlowReader {
                high: slow.high as usize,
                low: slow.low as usize,
                stall_after: slow.stall_after, // the policy is folded into these two
                cut_after: slow.cut_after,
                hard_cap: slow.hard_cap as usize,
            },
            ping_interval: server.keepalive.time,
            ping_timeout: server.keepalive.timeout,
            connection_age_max: server.keepalive.max_connection_age,
        }
    }
}
