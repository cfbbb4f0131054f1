//! A server entry as written: `dataplane.servers[]`, `controller.servers[]`.

use std::time::Duration;

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};
use crate::raw::auth::{self, Auth};
use crate::raw::slimline::ServerExt;
use crate::raw::tls::Tls;
use crate::yaml::Node;

pub(crate) struct Server {
    pub(crate) endpoint: At<String>,
    pub(crate) tls: Tls,
    pub(crate) max_frame_size: Option<At<u32>>,
    pub(crate) max_concurrent_streams: Option<At<u32>>,
    pub(crate) max_header_list_size: Option<At<u32>>,
    pub(crate) keepalive: Keepalive,
    pub(crate) auth: Option<At<Auth>>,
    pub(crate) require_header_mac: Option<At<bool>>,
    pub(crate) negotiation_timeout_secs: Option<At<u64>>,
    pub(crate) slimline: ServerExt,
}

pub(crate) struct Keepalive {
    pub(crate) time: Option<At<Duration>>,
    pub(crate) timeout: Option<At<Duration>>,
    pub(crate) max_connection_age: Option<At<Duration>>,
}

pub(crate) const SERVER_KEYS: [&str; 15] = [
    "endpoint",
    "tls",
    "http2_only",
    "max_frame_size",
    "max_concurrent_streams",
    "max_header_list_size",
    "read_buffer_size",
    "write_buffer_size",
    "keepalive",
    "auth",
    "metadata",
    "require_header_mac",
    "negotiation_timeout_secs",
    "link_hmac_poll_interval_ms",
    "slimline",
];
/// Another spelling of `negotiation_timeout_secs`.
const TIMEOUT_ALIAS: &str = "link_hmac_timeout_secs";
pub(crate) const KEEPALIVE_KEYS: [&str; 5] =
    ["time", "timeout", "max_connection_age", "max_connection_idle", "max_connection_age_grace"];

impl Server {
    pub(crate) fn read(node: At<&Node>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let keys: Vec<&str> = SERVER_KEYS.into_iter().chain([TIMEOUT_ALIAS]).collect();
        let block = Block::open(node, Unknown::Ignored, &keys, warnings)?;
        if let Some(http2_only) = block.boolean("http2_only")?.filter(|http2_only| !http2_only.value) {
            http2_only.warn("has no effect: a gRPC listener never accepts HTTP/1", warnings);
        }
        for key in ["read_buffer_size", "write_buffer_size", "link_hmac_poll_interval_ms"] {
            if let Some(unused) = block.unsigned::<u64>(key)? {
                unused.warn("has no effect", warnings);
            }
        }
        block.free_map("metadata")?;
        let named = block.unsigned("negotiation_timeout_secs")?;
        let alias = block.unsigned(TIMEOUT_ALIAS)?;
        if let (Some(_), Some(alias)) = (&named, &alias) {
            return Err(alias
                .refuse("duplicate field `negotiation_timeout_secs`")
                .help("write only one of the two spellings"));
        }
        let auth = match block.node("auth") {
            Some(node) => Some(auth::read_server(node, warnings)?),
            None => None,
        };
        Ok(Self {
            endpoint: block.required("endpoint")?,
            tls: Tls::read(&block, warnings)?,
            max_frame_size: block.unsigned("max_frame_size")?,
            max_concurrent_streams: block.unsigned("max_concurrent_streams")?,
            max_header_list_size: block.unsigned("max_header_list_size")?,
            keepalive: Keepalive::read(&block, warnings)?,
            auth,
            require_header_mac: block.boolean("require_header_mac")?,
            negotiation_timeout_secs: named.or(alias),
            slimline: ServerExt::read(&block, warnings)?,
        })
    }
}

impl Keepalive {
    fn read(server: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = server.block("keepalive", Unknown::Ignored, &KEEPALIVE_KEYS, warnings)?;
        for key in ["max_connection_idle", "max_connection_age_grace"] {
            if let Some(unused) = block.duration(key)? {
                unused.warn("has no effect", warnings);
            }
        }
        Ok(Self {
            time: block.duration("time")?,
            timeout: block.duration("timeout")?,
            max_connection_age: block.duration("max_connection_age")?,
        })
    }
}
