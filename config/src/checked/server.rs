//! Listeners as used.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::or;
use super::slimline::{ServerExt, Slimline};
use crate::block::At;
use crate::error::{ConfigError, Warning};
use crate::raw;
use crate::raw::auth::Auth;

/// One entry of `dataplane.servers`: plain HTTP/2, nobody asked who they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where it listens.
    pub listen: Listen,
    /// SETTINGS_MAX_FRAME_SIZE in octets, 16384 unless written.
    pub max_frame_size: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS, `slimline.limits.streams_max` unless written.
    pub max_concurrent_streams: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE in octets, `slimline.limits.header_list_octets_max` unless written.
    pub max_header_list_size: u32,
    /// When an idle or old transport is asked or told something.
    pub keepalive: Keepalive,
    /// Whether a link without the negotiated header MAC is refused. The first listener's value, on every listener.
    pub require_header_mac: bool,
    /// How long a connection's first message may take. The first listener's value, on every listener.
    pub negotiation_timeout: Duration,
    /// Our own settings for this listener.
    pub slimline: ServerExt,
}

/// Where a listener listens. `Display` gives the endpoint as files spell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A socket file; a stale one is removed at start.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `servers[].keepalive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Between HTTP/2 PINGs.
    pub time: Duration,
    /// For a PING's ack, after which the transport is closed.
    pub timeout: Duration,
    /// After this a transport gets GOAWAY; its running streams continue.
    pub max_connection_age: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(120),
            timeout: Duration::from_secs(20),
            max_connection_age: Duration::from_secs(7200),
        }
    }
}

/// SETTINGS_MAX_FRAME_SIZE of RFC 9113 §6.5.2 when nothing is said, in octets.
const MAX_FRAME_SIZE_DEFAULT: u32 = 16_384;
/// The key counts MiB; 16 MiB is one octet more than a frame's length field can say (RFC 9113 §4.2).
const MAX_FRAME_SIZE_MIB_MAX: u32 = 15;
const MIB: u32 = 1 << 20;
const NEGOTIATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
pub(crate) const TLS_VERSION_DEFAULT: &str = "tls1.3";
const TLS_VERSIONS: [&str; 2] = ["tls1.2", TLS_VERSION_DEFAULT];

/// Checks the listeners of one plane. What is valid but not built goes to `unsupported`, and is left out of the answer.
pub(crate) fn check_all<'r>(
    raw: impl Iterator<Item = &'r raw::server::Server>,
    slimline: &Slimline,
    warnings: &mut Vec<Warning>,
    unsupported: &mut impl FnMut(ConfigError),
) -> Result<Vec<Server>, ConfigError> {
    let mut servers: Vec<Server> = Vec::new();
    for entry in raw {
        let Some(mut server) = check(entry, slimline, warnings, unsupported)? else { continue };
        if let Some(first) = servers.first() {
            follow_first(&mut server, first, entry, warnings);
        }
        servers.push(server);
    }
    Ok(servers)
}

/// The first listener decides about negotiation for all of them.
fn follow_first(server: &mut Server, first: &Server, entry: &raw::server::Server, warnings: &mut Vec<Warning>) {
    let text = "differs from the first server's, which counts for every connection";
    if let Some(written) =
        entry.require_header_mac.as_ref().filter(|_| server.require_header_mac != first.require_header_mac)
    {
        written.warn(text, warnings);
    }
    let timeout = entry.negotiation_timeout_secs.as_ref();
    if let Some(written) = timeout.filter(|_| server.negotiation_timeout != first.negotiation_timeout) {
        written.warn(text, warnings);
    }
    server.require_header_mac = first.require_header_mac;
    server.negotiation_timeout = first.negotiation_timeout;
}

fn check(
    raw: &raw::server::Server,
    slimline: &Slimline,
    warnings: &mut Vec<Warning>,
    unsupported: &mut impl FnMut(ConfigError),
) -> Result<Option<Server>, ConfigError> {
    let insecure = check_tls(raw, warnings)?;
    let listen = parse_endpoint(&raw.endpoint, insecure)?;
    let max_frame_size = match &raw.max_frame_size {
        None => MAX_FRAME_SIZE_DEFAULT,
        Some(mib) if (1..=MAX_FRAME_SIZE_MIB_MAX).contains(&mib.value) => mib.value * MIB,
        Some(mib) => {
            let cause = format!("invalid value: integer `{}`, expected 1 to {MAX_FRAME_SIZE_MIB_MAX}", mib.value);
            return Err(mib.refuse(cause).help("the unit is MiB; an HTTP/2 frame ends one octet below 16 MiB"));
        }
    };
    let max_concurrent_streams = match &raw.max_concurrent_streams {
        None => slimline.limits.streams_max,
        Some(zero) if zero.value == 0 => {
            return Err(zero
                .refuse("invalid value: integer `0`, expected at least 1")
                .help("no client could open a stream"));
        }
        Some(streams) => streams.value,
    };
    let keepalive = Keepalive {
        time: positive(raw.keepalive.time.as_ref(), Keepalive::default().time)?,
        timeout: positive(raw.keepalive.timeout.as_ref(), Keepalive::default().timeout)?,
        max_connection_age: positive(
            raw.keepalive.max_connection_age.as_ref(),
            Keepalive::default().max_connection_age,
        )?,
    };
    let negotiation = raw.negotiation_timeout_secs.clone().map(|secs| secs.map(Duration::from_secs));
    let negotiation_timeout = positive(negotiation.as_ref(), NEGOTIATION_TIMEOUT_DEFAULT)?;
    let ext = ServerExt::check(&raw.slimline, &slimline.limits)?;

    if let Some(auth) = raw.auth.as_ref().filter(|auth| auth.value != Auth::None) {
        unsupported(auth.not_supported());
    }
    if !insecure {
        unsupported(raw.tls.at.not_supported());
    }
    let listen = match listen {
        Endpoint::Grpc(listen) => listen,
        Endpoint::WebSocket => {
            unsupported(raw.endpoint.not_supported());
            return Ok(None);
        }
    };
    Ok(Some(Server {
        listen,
        max_frame_size,
        max_concurrent_streams,
        max_header_list_size: or(raw.max_header_list_size.clone(), slimline.limits.header_list_octets_max),
        keepalive,
        require_header_mac: or(raw.require_header_mac.clone(), true),
        negotiation_timeout,
        slimline: ext,
    }))
}

pub(crate) fn positive(written: Option<&At<Duration>>, default: Duration) -> Result<Duration, ConfigError> {
    match written {
        None => Ok(default),
        Some(zero) if zero.value.is_zero() => Err(zero.refuse("must be longer than zero")),
        Some(written) => Ok(written.value.min(DURATION_MAX)),
    }
}

/// A hundred years: for ever, and yet it can be added to any moment.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

enum Endpoint {
    Grpc(Listen),
    WebSocket,
}

/// Shape:  `ip:port`, `unix:///path`, `ws://host[:port][/path]` or `wss://…`.
/// Errors: `missing grpc endpoint`, `endpoint parse error`, and the rules that bind a scheme to `tls.insecure`.
fn parse_endpoint(endpoint: &At<String>, insecure: bool) -> Result<Endpoint, ConfigError> {
    let text = &*endpoint.value;
    let parse_error = |cause: &str| endpoint.refuse("endpoint parse error").because(cause);
    if text.is_empty() {
        return Err(endpoint
            .refuse("missing grpc endpoint")
            .help("write an IP address and a port, such as 0.0.0.0:46357"));
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(
                parse_error("a socket file needs an absolute path").help("write unix:///path, with three slashes")
            );
        }
        if !insecure {
            return Err(endpoint
                .refuse("unix domain sockets require tls.insecure=true")
                .help("add `tls: {insecure: true}`"));
        }
        return Ok(Endpoint::Grpc(Listen::Unix(PathBuf::from(path))));
    }
    for (scheme, is_secure) in [("ws://", false), ("wss://", true)] {
        let Some(rest) = text.strip_prefix(scheme) else { continue };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.starts_with(':') {
            return Err(parse_error("a host is missing"));
        }
        if is_secure && insecure {
            return Err(endpoint.refuse("TLS is required but no TLS configuration was provided"));
        }
        if !is_secure && !insecure {
            return Err(endpoint
                .refuse("websocket server TLS configuration is set but endpoint scheme is not wss://")
                .help("write wss://, or add `tls: {insecure: true}`"));
        }
        return Ok(Endpoint::WebSocket);
    }
    match text.parse() {
        Ok(address) => Ok(Endpoint::Grpc(Listen::Tcp(address))),
        Err(_) => Err(parse_error("invalid socket address syntax")
            .help("write an IP address and a port, without a scheme or a name: 127.0.0.1:46357 or [::]:46357")),
    }
}

/// A gRPC client needs a scheme to know how to connect.
pub(crate) fn check_client_endpoint(endpoint: &At<String>) -> Result<(), ConfigError> {
    let help = "write a scheme, such as http://host:46357; known are http, https, unix, ws, wss";
    if endpoint.value.is_empty() {
        return Err(endpoint.refuse("missing grpc endpoint").help(help));
    }
    let known = ["http://", "https://", "unix:", "ws://", "wss://"];
    if known.iter().any(|scheme| endpoint.value.starts_with(scheme)) {
        return Ok(());
    }
    Err(endpoint.refuse("invalid endpoint scheme").help(help))
}

pub(crate) fn check_tls_version(tls: &raw::tls::Tls) -> Result<(), ConfigError> {
    match &tls.tls_version {
        Some(version) if !TLS_VERSIONS.contains(&&*version.value) => {
            let cause = format!("invalid tls version: {}", version.value);
            Err(version.refuse(cause).help("tls1.2 and tls1.3 are known"))
        }
        _ => Ok(()),
    }
}

/// Whether the listener is plain text.
fn check_tls(raw: &raw::server::Server, warnings: &mut Vec<Warning>) -> Result<bool, ConfigError> {
    check_tls_version(&raw.tls)?;
    let insecure = raw.tls.insecure.as_ref().is_some_and(|insecure| insecure.value);
    if insecure {
        for unused in [&raw.tls.source, &raw.tls.client_ca].into_iter().flatten() {
            unused.warn("has no effect while tls.insecure is true: this listener is plain text", warnings);
        }
    } else if raw.tls.source.is_none() {
        return Err(raw
            .tls
            .at
            .refuse("missing server cert or key")
            .help("a listener is TLS unless told otherwise: add `tls: {insecure: true}` for plain text"));
    }
    Ok(insecure)
}
