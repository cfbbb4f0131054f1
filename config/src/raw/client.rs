//! A client entry as written: `dataplane.clients[]`, `outbound_clients[]`, a static peer, `opentelemetry.grpc`, and the file an
//! application connects with.
//!
//! The node of this release dials no client; the entry is read in full all the same, so that a file's mistakes show before
//! "not supported yet".

use std::time::Duration;

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};
use crate::raw::auth::{self, Auth};
use crate::raw::tls::Tls;
use crate::yaml::Node;

pub(crate) struct Client {
    pub(crate) at: At<()>,
    pub(crate) endpoint: At<String>,
    pub(crate) origin: Option<At<String>>,
    pub(crate) server_name: Option<At<String>>,
    pub(crate) compression: Option<At<()>>,
    pub(crate) rate_limit: Option<At<String>>,
    pub(crate) tls: Tls,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) proxy: Option<At<()>>,
    pub(crate) connect_timeout: Option<At<Duration>>,
    pub(crate) request_timeout: Option<At<Duration>>,
    pub(crate) buffer_size: Option<At<usize>>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) auth: Option<At<Auth>>,
    /// User name and password of `auth: {type: basic}`.
    pub(crate) basic: Option<(String, String)>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) link_id: Option<At<String>>,
    pub(crate) require_header_mac: Option<At<bool>>,
    pub(crate) connection_type: Option<At<ConnectionType>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionType {
    Edge,
    Peer,
    Remote,
}

pub(crate) struct Keepalive {
    pub(crate) tcp_keepalive: Option<At<Duration>>,
    pub(crate) http2_keepalive: Option<At<Duration>>,
    pub(crate) timeout: Option<At<Duration>>,
    pub(crate) keep_alive_while_idle: Option<At<bool>>,
}

pub(crate) struct Backoff {
    /// `exponential`, else `fixed_interval`.
    pub(crate) is_exponential: bool,
    pub(crate) interval: Option<At<Duration>>,
    pub(crate) max_attempts: Option<At<usize>>,
    pub(crate) base: Option<At<u64>>,
    pub(crate) factor: Option<At<u64>>,
    pub(crate) max_delay: Option<At<Duration>>,
    pub(crate) jitter: Option<At<bool>>,
}

pub(crate) const CLIENT_KEYS: [&str; 18] = [
    "endpoint",
    "origin",
    "server_name",
    "compression",
    "rate_limit",
    "tls",
    "keepalive",
    "proxy",
    "connect_timeout",
    "request_timeout",
    "buffer_size",
    "headers",
    "auth",
    "backoff",
    "metadata",
    "link_id",
    "require_header_mac",
    "connection_type",
];
pub(crate) const CLIENT_KEEPALIVE_KEYS: [&str; 4] =
    ["tcp_keepalive", "http2_keepalive", "timeout", "keep_alive_while_idle"];
pub(crate) const PROXY_KEYS: [&str; 5] = ["url", "username", "password", "headers", "tls"];
pub(crate) const BACKOFF_KEYS: [&str; 7] =
    ["type", "interval", "max_attempts", "base", "factor", "max_delay", "jitter"];

impl Client {
    /// Reads an entry that may carry `more_keys` beside its own.
    pub(crate) fn read(
        node: At<&Node>,
        more_keys: &[&str],
        unknown: Unknown,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let keys: Vec<&str> = more_keys.iter().copied().chain(CLIENT_KEYS).collect();
        let block = Block::open(node, unknown, &keys, warnings)?;
        for key in more_keys {
            block.required(key)?;
        }
        let compressions = ["Gzip", "Zlib", "Deflate", "Snappy", "Zstd", "Lz4", "None", "Empty"];
        let rate_limit = block.text("rate_limit")?;
        if let Some(limit) = &rate_limit {
            check_rate_limit(limit)?;
        }
        let headers = block.text_map("headers")?.into_iter().zip(block.keys("headers"));
        block.free_map("metadata")?;
        let link_id = block.text("link_id")?;
        if let Some(link_id) = link_id.as_ref().filter(|link_id| link_id.value.is_empty()) {
            return Err(link_id.refuse("link_id must not be empty"));
        }
        let types =
            [("edge", ConnectionType::Edge), ("peer", ConnectionType::Peer), ("remote", ConnectionType::Remote)];
        let auth = block.node("auth").map(|node| auth::read_client(node, warnings)).transpose()?;
        let basic = match auth.as_ref().map(|auth| auth.value) {
            Some(Auth::Basic) => {
                let basic = block.block("auth", Unknown::Ignored, &[], &mut Vec::new())?;
                basic.secret("username")?.zip(basic.secret("password")?)
            }
            _ => None,
        };
        Ok(Self {
            at: block.at(()),
            endpoint: block.required("endpoint")?,
            origin: block.text("origin")?,
            server_name: block.text("server_name")?,
            compression: block.word("compression", &compressions.map(|name| (name, ())))?,
            rate_limit,
            keepalive: read_keepalive(&block, warnings)?,
            proxy: read_proxy(&block, warnings)?,
            connect_timeout: block.duration("connect_timeout")?,
            request_timeout: block.duration("request_timeout")?,
            buffer_size: block.unsigned("buffer_size")?,
            headers: headers.map(|(value, key)| (key, value.value)).collect(),
            auth,
            basic: basic.map(|(user, password)| (user.value, password.value)),
            backoff: read_backoff(&block, warnings)?,
            link_id,
            require_header_mac: block.boolean("require_header_mac")?,
            connection_type: block.word("connection_type", &types)?,
            tls: Tls::read(&block, warnings)?,
        })
    }
}

/// Shape: `<requests>/<seconds>`.
fn check_rate_limit(limit: &At<String>) -> Result<(), ConfigError> {
    let whole = |text: &str| text.parse::<u64>().is_ok();
    match limit.value.split_once('/') {
        Some((requests, seconds)) if whole(requests) && whole(seconds) => Ok(()),
        _ => Err(limit.refuse("rate limit parse error").help("write <requests>/<seconds>, such as \"100/1\"")),
    }
}

fn read_keepalive(client: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Option<Keepalive>, ConfigError> {
    let Some(node) = client.node("keepalive") else { return Ok(None) };
    let block = Block::open(node, Unknown::Ignored, &CLIENT_KEEPALIVE_KEYS, warnings)?;
    Ok(Some(Keepalive {
        tcp_keepalive: block.duration("tcp_keepalive")?,
        http2_keepalive: block.duration("http2_keepalive")?,
        timeout: block.duration("timeout")?,
        keep_alive_while_idle: block.boolean("keep_alive_while_idle")?,
    }))
}

fn read_proxy(client: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Option<At<()>>, ConfigError> {
    let block = client.block("proxy", Unknown::Ignored, &PROXY_KEYS, warnings)?;
    let url = block.secret("url")?; // it may carry user information
    block.text("username")?;
    block.secret("password")?;
    block.text_map("headers")?;
    Tls::read(&block, warnings)?;
    Ok(url.map(|_| block.at(())))
}

fn read_backoff(client: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Option<Backoff>, ConfigError> {
    let block = client.block("backoff", Unknown::Ignored, &BACKOFF_KEYS, warnings)?;
    if block.is_empty() {
        return Ok(None);
    }
    let kind = block.word("type", &[("exponential", true), ("fixed_interval", false)])?;
    Ok(Some(Backoff {
        is_exponential: kind.ok_or_else(|| block.missing("type"))?.value,
        interval: block.duration("interval")?,
        max_attempts: block.unsigned("max_attempts")?,
        base: block.unsigned("base")?,
        factor: block.unsigned("factor")?,
        max_delay: block.duration("max_delay")?,
        jitter: block.boolean("jitter")?,
    }))
}
