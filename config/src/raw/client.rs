//! A client entry as written: `dataplane.clients[]`, `outbound_clients[]`, a static peer, `opentelemetry.grpc`.
//!
//! No client is dialled by this release; the entry is read in full all the same, so that a file's mistakes show before
//! "not supported yet".

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning};
use crate::raw::auth;
use crate::raw::tls::Tls;
use crate::yaml::Node;

pub(crate) struct Client {
    pub(crate) at: At<()>,
    pub(crate) endpoint: At<String>,
    pub(crate) tls: Tls,
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
        block.text("origin")?;
        block.text("server_name")?;
        let compressions = ["Gzip", "Zlib", "Deflate", "Snappy", "Zstd", "Lz4", "None", "Empty"];
        block.word("compression", &compressions.map(|name| (name, ())))?;
        if let Some(limit) = block.text("rate_limit")? {
            check_rate_limit(&limit)?;
        }
        block.duration("connect_timeout")?;
        block.duration("request_timeout")?;
        block.unsigned::<usize>("buffer_size")?;
        block.text_map("headers")?;
        block.free_map("metadata")?;
        if let Some(link_id) = block.text("link_id")?.filter(|link_id| link_id.value.is_empty()) {
            return Err(link_id.refuse("link_id must not be empty"));
        }
        block.boolean("require_header_mac")?;
        block.word("connection_type", &["edge", "peer", "remote"].map(|name| (name, ())))?;
        if let Some(node) = block.node("auth") {
            auth::read_client(node, warnings)?;
        }
        read_keepalive(&block, warnings)?;
        read_proxy(&block, warnings)?;
        read_backoff(&block, warnings)?;
        Ok(Self { at: block.at(()), endpoint: block.required("endpoint")?, tls: Tls::read(&block, warnings)? })
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

fn read_keepalive(client: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let block = client.block("keepalive", Unknown::Ignored, &CLIENT_KEEPALIVE_KEYS, warnings)?;
    block.duration("tcp_keepalive")?;
    block.duration("http2_keepalive")?;
    block.duration("timeout")?;
    block.boolean("keep_alive_while_idle")?;
    Ok(())
}

fn read_proxy(client: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let block = client.block("proxy", Unknown::Ignored, &PROXY_KEYS, warnings)?;
    block.secret("url")?; // it may carry user information
    block.text("username")?;
    block.secret("password")?;
    block.text_map("headers")?;
    Tls::read(&block, warnings)?;
    Ok(())
}

fn read_backoff(client: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let block = client.block("backoff", Unknown::Ignored, &BACKOFF_KEYS, warnings)?;
    if block.is_empty() {
        return Ok(());
    }
    block
        .word("type", &["exponential", "fixed_interval"].map(|name| (name, ())))?
        .ok_or_else(|| block.missing("type"))?;
    block.duration("interval")?;
    block.unsigned::<usize>("max_attempts")?;
    block.unsigned::<u64>("base")?;
    block.unsigned::<u64>("factor")?;
    block.duration("max_delay")?;
    block.boolean("jitter")?;
    Ok(())
}
