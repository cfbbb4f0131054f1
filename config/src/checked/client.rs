//! A client entry as an application uses it (slim-config §6): where to connect, how it is secured, how to come back.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::or;
use super::server::{check_client_endpoint, check_tls_version};
use crate::block::At;
use crate::error::{ConfigError, Warning};
use crate::raw;
use crate::raw::auth::Auth;
use crate::raw::client::ConnectionType;
use crate::raw::tls::Source;

/// How an application connects to its node.
pub struct Client {
    /// `http://…`, `https://…`, `ws://…`, `wss://…` or `unix:…`.
    pub endpoint: String,
    /// The authority of requests, or the origin of a WebSocket.
    pub origin: Option<String>,
    /// The name the node's certificate has to carry, if not the endpoint's host.
    pub server_name: Option<String>,
    /// How the connection is secured, where the endpoint says that it is.
    pub tls: ClientTls,
    /// Probes of an idle connection; none unless written.
    pub keepalive: Option<ClientKeepalive>,
    /// How long connecting may take; `None` for the application's own limits.
    pub connect_timeout: Option<Duration>,
    /// Added to the request that opens the stream. May hold secrets.
    pub headers: Vec<(String, String)>,
    /// User name and password for `authorization: Basic`.
    pub basic: Option<(String, String)>,
    /// How a lost connection is opened again.
    pub backoff: Backoff,
    /// What the link is called in its negotiation; a random one without it.
    pub link_id: Option<String>,
    /// Whether the node must agree on a MAC key.
    pub require_header_mac: bool,
    /// What is accepted but has no effect.
    pub warnings: Vec<Warning>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers, passwords and keys are nobody's business.
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// How a client secures its connection.
pub struct ClientTls {
    /// Authorities to trust.
    pub authorities: Option<Pem>,
    /// Trust the system's authorities (beside those above).
    pub system_authorities: bool,
    /// Our certificate chain and its key.
    pub certificate: Option<(Pem, Pem)>,
    /// TLS 1.2 and nothing else; 1.3 and nothing else without it.
    pub only_tls12: bool,
}

/// A PEM text, or the file it is in. It may be a private key: it is not shown.
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// In the configuration itself.
    Text(String),
}

impl Pem {
    /// The text.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => std::fs::read(path),
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// When an idle connection is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKeepalive {
    /// Idle time until the kernel probes the peer.
    pub tcp: Duration,
    /// Time between HTTP/2 pings.
    pub http2: Duration,
    /// How long a ping's answer may take.
    pub timeout: Duration,
}

/// How long to wait before each attempt to connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// The same time before each.
    Fixed {
        /// That time.
        interval: Duration,
        /// Attempts at most; `None` for no limit.
        attempts_max: Option<u32>,
    },
    /// `factor * base ^ n` milliseconds before the n-th.
    Exponential {
        /// What is raised to the power.
        base_ms: u64,
        /// What that is multiplied with.
        factor: u64,
        /// The longest wait.
        delay_max: Duration,
        /// Attempts at most; `None` for no limit.
        attempts_max: Option<u32>,
        /// Whether each wait is multiplied with a random number below 1.
        jitter: bool,
    },
}

const BACKOFF_DEFAULT: Backoff = Backoff::Fixed { interval: Duration::from_secs(2), attempts_max: None };
const KEEPALIVE_TCP: Duration = Duration::from_secs(60);
const KEEPALIVE_HTTP2: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    /// Judges an entry: values first, then what is right but not built.
    pub(crate) fn check(raw: raw::client::Client, mut warnings: Vec<Warning>) -> Result<Self, ConfigError> {
        check_client_endpoint(&raw.endpoint)?;
        check_tls_version(&raw.tls)?;
        check_security(&raw)?;
        if let Some(refused) = not_supported(&raw).next() {
            return Err(refused.not_supported());
        }
        let while_idle = raw.keepalive.as_ref().and_then(|keepalive| keepalive.keep_alive_while_idle.as_ref());
        let no_effect = [
            raw.compression.clone(),
            raw.rate_limit.as_ref().map(place_of),
            raw.buffer_size.as_ref().map(place_of),
            while_idle.map(place_of), // our one stream is always open
        ];
        for at in no_effect.into_iter().flatten() {
            at.warn("has no effect", &mut warnings);
        }

        let mut certificate = pems(raw.tls.source).into_iter();
        Ok(Self {
            endpoint: raw.endpoint.value,
            origin: raw.origin.map(|origin| origin.value),
            server_name: raw.server_name.map(|name| name.value),
            tls: ClientTls {
                authorities: pems(raw.tls.ca_source).into_iter().next(),
                system_authorities: or(raw.tls.include_system_ca_certs_pool, true),
                certificate: certificate.next().zip(certificate.next()),
                only_tls12: raw.tls.tls_version.is_some_and(|version| version.value == "tls1.2"),
            },
            keepalive: raw.keepalive.map(|keepalive| ClientKeepalive {
                tcp: or(keepalive.tcp_keepalive, KEEPALIVE_TCP),
                http2: or(keepalive.http2_keepalive, KEEPALIVE_HTTP2),
                timeout: or(keepalive.timeout, KEEPALIVE_TIMEOUT),
            }),
            connect_timeout: raw.connect_timeout.map(|limit| limit.value).filter(|limit| !limit.is_zero()),
            headers: raw.headers,
            basic: raw.basic,
            backoff: raw.backoff.map_or(BACKOFF_DEFAULT, backoff),
            link_id: raw.link_id.map(|link_id| link_id.value),
            require_header_mac: or(raw.require_header_mac, true),
            warnings,
        })
    }
}

fn place_of<T>(at: &At<T>) -> At<()> {
    At { value: (), place: at.place, path: at.path.clone() }
}

fn pems(source: Option<At<Source>>) -> Vec<Pem> {
    match source.map(|source| source.value) {
        Some(Source::File(paths)) => paths.into_iter().map(|path| Pem::File(path.into())).collect(),
        Some(Source::Pem(texts)) => texts.into_iter().map(Pem::Text).collect(),
        Some(Source::Spire) | None => Vec::new(),
    }
}

/// Endpoint and `tls` have to agree: nobody should send in clear what was meant to be secured, or the other way round.
fn check_security(raw: &raw::client::Client) -> Result<(), ConfigError> {
    let insecure = raw.tls.insecure.as_ref().is_some_and(|insecure| insecure.value) && raw.tls.ca_source.is_none();
    let text = &raw.endpoint.value;
    let is_secure = text.starts_with("https://") || text.starts_with("wss://");
    if is_secure && insecure {
        return Err(raw
            .endpoint
            .refuse("tls.insecure is true, but the endpoint asks for TLS")
            .help("write http:// or ws://, or remove tls.insecure"));
    }
    if !is_secure && !insecure {
        return Err(raw
            .endpoint
            .refuse("TLS is required, but the endpoint is plain text")
            .help("write https:// or wss://, or add `tls: {insecure: true}` for plain text"));
    }
    Ok(())
}

/// What this release does not do for a client.
fn not_supported(raw: &raw::client::Client) -> impl Iterator<Item = At<()>> {
    let spire = |source: &Option<At<Source>>| {
        source.as_ref().filter(|source| matches!(source.value, Source::Spire)).map(place_of)
    };
    let auth = raw.auth.as_ref().filter(|auth| !matches!(auth.value, Auth::None | Auth::Basic));
    let timeout = raw.request_timeout.as_ref().filter(|timeout| !timeout.value.is_zero());
    let kind = raw.connection_type.as_ref().filter(|kind| kind.value != ConnectionType::Edge);
    [
        raw.proxy.clone(),
        raw.tls.insecure_skip_verify.as_ref().filter(|skip| skip.value).map(place_of),
        spire(&raw.tls.source),
        spire(&raw.tls.ca_source),
        auth.map(place_of),
        timeout.map(place_of),
        kind.map(place_of),
    ]
    .into_iter()
    .flatten()
}

fn backoff(raw: raw::client::Backoff) -> Backoff {
    let attempts_max = raw.max_attempts.map(|attempts| u32::try_from(attempts.value).unwrap_or(u32::MAX));
    if raw.is_exponential {
        Backoff::Exponential {
            base_ms: or(raw.base, 100),
            factor: or(raw.factor, 1),
            delay_max: or(raw.max_delay, Duration::from_secs(1)),
            attempts_max,
            jitter: or(raw.jitter, false),
        }
    } else {
        Backoff::Fixed { interval: or(raw.interval, Duration::from_secs(1)), attempts_max }
    }
}

impl Backoff {
    /// How long to wait before attempt `n` (counted from 1); `None` when it is given up. `jitter` is in `0..1`.
    #[must_use]
    pub fn delay(&self, n: u32, jitter: f64) -> Option<Duration> {
        let (Self::Fixed { attempts_max, .. } | Self::Exponential { attempts_max, .. }) = self;
        if attempts_max.is_some_and(|max| n > max) {
            return None;
        }
        Some(match self {
            Self::Fixed { interval, .. } => *interval,
            Self::Exponential { base_ms, factor, delay_max, jitter: with_jitter, .. } => {
                let delay = Duration::from_millis(base_ms.saturating_pow(n).saturating_mul(*factor)).min(*delay_max);
                if *with_jitter { delay.mul_f64(jitter.clamp(0.0, 1.0)) } else { delay }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        let fixed = Backoff::Fixed { interval: Duration::from_secs(2), attempts_max: Some(2) };
        assert_eq!(
            [1, 2, 3].map(|n| fixed.delay(n, 0.0)),
            [Some(Duration::from_secs(2)); 2].into_iter().chain([None]).collect::<Vec<_>>()[..]
        );
        // As seen on the reference: base 3, factor 100.
        let delay_max = Duration::from_secs(5);
        let powers = |jitter| Backoff::Exponential { base_ms: 3, factor: 100, delay_max, attempts_max: None, jitter };
        let millis = [1, 2, 3, 4, 1000].map(|n| powers(false).delay(n, 0.5).unwrap_or_default().as_millis());
        assert_eq!(millis, [300, 900, 2700, 5000, 5000]);
        assert_eq!(powers(true).delay(2, 0.5), Some(Duration::from_millis(450)));
    }
}
