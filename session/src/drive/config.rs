//! Where the node is and how to reach it: in code, or from a client entry as SLIM configurations have it.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slimline_config::{Backoff, Client, ConfigError, Pem};

use super::{ConnectError, TlsConfig};

/// Where the node is and how long to try.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// `http://host:port`, `https://host:port`, `ws://host:port/path`, `wss://…`, `host:port`, or `unix:///path`.
    pub endpoint: String,
    /// What requests say instead of the endpoint's host (HTTP/2), or the `Origin` header (WebSocket).
    pub origin: Option<String>,
    /// What the link is called in its negotiation; random without it.
    pub link_id: Option<String>,
    /// Whether the node must agree on a MAC key; as strict as nodes are by default.
    pub require_header_mac: bool,
    /// How long each step of connecting may take.
    pub step_timeout: Duration,
    /// How a lost connection is opened again.
    pub reconnect: Reconnect,
    /// Probes of the connection, so that a node or path that fell silent is noticed: by default every 20 s, with 10 s for the
    /// answer. A client entry without `keepalive` has none.
    pub keepalive: Option<Keepalive>,
    /// For `https://` and `wss://`: whom to trust, who we are.
    pub tls: TlsConfig,
    /// Headers for the node's gate, such as `authorization`.
    pub headers: Vec<(String, String)>,
}

/// How long to wait before each attempt to connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Twice as long each time, without end; between half of it and all, so that not everybody comes back at once.
    Doubling {
        /// Before the first.
        min: Duration,
        /// At most.
        max: Duration,
    },
    /// As a client entry says it.
    Configured(Backoff),
}

/// When an idle connection is probed, so that a node that vanished is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time until the kernel probes the peer (TCP).
    pub tcp: Duration,
    /// Time between pings (HTTP/2, and WebSocket); none where it is zero.
    pub http2: Duration,
    /// How long a ping's answer may take; then the connection is given up.
    pub timeout: Duration,
}

impl Keepalive {
    /// Time between pings, if there are any.
    pub(super) fn ping_every(self) -> Option<Duration> {
        Some(self.http2).filter(|every| !every.is_zero())
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { tcp: Duration::from_secs(60), http2: Duration::from_secs(20), timeout: Duration::from_secs(10) }
    }
}

impl Reconnect {
    /// The wait before attempt `n` (counted from 1); `None` when no more is to be made. `jitter` is in `0..1`.
    pub(super) fn delay(&self, n: u32, jitter: f64) -> Option<Duration> {
        match self {
            Self::Doubling { min, max } => {
                let whole = min.saturating_mul(1 << (n - 1).min(20)).min(*max);
                Some(whole.mul_f64(0.5 + jitter / 2.0))
            }
            Self::Configured(backoff) => backoff.delay(n, jitter),
        }
    }
}

/// Headers that belong to the WebSocket handshake itself.
const RESERVED: [&str; 7] = [
    "host",
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
];

impl ConnectConfig {
    /// The defaults for an endpoint.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            origin: None,
            link_id: None,
            require_header_mac: true,
            step_timeout: Duration::from_secs(5),
            reconnect: Reconnect::Doubling { min: Duration::from_millis(100), max: Duration::from_secs(5) },
            keepalive: Some(Keepalive::default()),
            tls: TlsConfig::default(),
            headers: Vec::new(),
        }
    }

    /// Also talk to nodes that run without header MAC.
    #[must_use]
    pub fn lax(mut self) -> Self {
        self.require_header_mac = false;
        self
    }

    /// Reads a client entry from a file, YAML or JSON.
    ///
    /// Errors: as [`ConnectConfig::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConnectError::Config(format!("{}: {error}", path.display())))?;
        Self::parse(&text, &path.display().to_string(), |name| std::env::var(name).ok())
    }

    /// Reads a client entry; `source_name` is what messages call it, `env` answers for `${env:…}`.
    ///
    /// Certificates in files are read here. What has no effect is told as a warning (tracing).
    ///
    /// Errors: [`ConnectError::Config`] with place and key; a key that is right but not supported is refused by its name.
    pub fn parse(text: &str, source_name: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConnectError> {
        let refused = |error: ConfigError| ConnectError::Config(error.to_string());
        let entry = slimline_config::client(text, source_name, &env).map_err(refused)?;
        for warning in &entry.warnings {
            tracing::warn!(%warning, "configuration");
        }
        Self::from_entry(entry, source_name)
    }

    fn from_entry(entry: Client, source_name: &str) -> Result<Self, ConnectError> {
        let pem = |key: &str, pem: &Pem| {
            pem.read().map_err(|error| ConnectError::Config(format!("{source_name}: tls.{key}: {error}")))
        };
        let web = entry.endpoint.starts_with("ws");
        let mut config = Self::new(&entry.endpoint);
        for (name, value) in entry.headers {
            let (known, valid) = (http::HeaderName::try_from(&name), http::HeaderValue::try_from(&value));
            if known.is_err() || valid.is_err() {
                let what = if known.is_err() { "name" } else { "value" };
                return Err(ConnectError::Config(format!("{source_name}: headers.{name}: header {what} parse error")));
            }
            if web && RESERVED.contains(&&*name.to_ascii_lowercase()) {
                tracing::warn!(name, "this header belongs to the handshake and is left out");
                continue;
            }
            config.headers.push((name, value));
        }
        if let Some((user, password)) = entry.basic {
            let credentials = STANDARD.encode(format!("{user}:{password}"));
            config.headers.push(("authorization".to_owned(), format!("Basic {credentials}")));
        }
        let secured = ["https", "wss"].iter().any(|scheme| entry.endpoint.starts_with(scheme));
        if !secured && entry.tls.certificate.is_some() {
            tracing::warn!("`tls.source` is not used: `tls` is insecure");
        }
        config.tls = TlsConfig {
            authorities_pem: entry.tls.authorities.as_ref().map(|ca| pem("ca_source", ca)).transpose()?,
            system_authorities: entry.tls.system_authorities,
            client_pem: match entry.tls.certificate.as_ref().filter(|_| secured) {
                Some((chain, key)) => Some((pem("source", chain)?, pem("source", key)?)),
                None => None,
            },
            server_name: entry.server_name,
            version: Some(if entry.tls.only_tls12 { super::TlsVersion::Tls12 } else { super::TlsVersion::Tls13 }),
        };
        if web && config.tls.server_name.is_none() {
            config.tls.server_name = entry.origin.as_deref().map(|origin| host_of(origin).to_owned());
        }
        config.origin = entry.origin;
        config.link_id = entry.link_id;
        config.require_header_mac = entry.require_header_mac;
        config.step_timeout = entry.connect_timeout.unwrap_or(config.step_timeout);
        config.reconnect = Reconnect::Configured(entry.backoff);
        config.keepalive = entry.keepalive.map(|keepalive| Keepalive {
            tcp: keepalive.tcp,
            http2: keepalive.http2,
            timeout: keepalive.timeout,
        });
        Ok(config)
    }
}

/// `host:port` of `scheme://host:port/path`.
pub(super) fn authority_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn host_of(uri: &str) -> &str {
    let authority = authority_of(uri);
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConnectConfig, ConnectError> {
        ConnectConfig::parse(text, "client.yaml", |name| (name == "TOKEN").then(|| "t0k3n".to_owned()))
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn an_entry_in_full() {
        let config = parse(
            r#"
endpoint: "http://node:46357"
origin: "http://front:80"
tls: { insecure: true }
keepalive: { http2_keepalive: 20s }
connect_timeout: 3s
headers: { x-token: "${env:TOKEN}", x-more: "1" }
auth: { type: basic, username: u, password: p }
backoff: { type: exponential, base: 200, max_delay: 10s, max_attempts: 4 }
link_id: our-link
require_header_mac: false
connection_type: edge
compression: Gzip
metadata: { anything: [1, 2] }
"#,
        )
        .unwrap();
        assert_eq!(config.endpoint, "http://node:46357");
        assert_eq!(config.origin.as_deref(), Some("http://front:80"));
        assert_eq!(config.link_id.as_deref(), Some("our-link"));
        assert!(!config.require_header_mac);
        assert_eq!(config.step_timeout, Duration::from_secs(3));
        let keepalive = config.keepalive.unwrap();
        let seconds = [keepalive.tcp, keepalive.http2, keepalive.timeout].map(|time| time.as_secs());
        assert_eq!(seconds, [60, 20, 10]);
        let headers = [("x-token", "t0k3n"), ("x-more", "1"), ("authorization", "Basic dTpw")];
        assert_eq!(config.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let waits = [1, 2, 4, 5].map(|n| config.reconnect.delay(n, 0.0).map(|wait| wait.as_millis()));
        assert_eq!(waits, [Some(200), Some(10_000), Some(10_000), None]);
    }

    #[test]
    fn defaults_are_those_of_the_format() {
        // JSON is YAML.
        let config = parse(r#"{"endpoint": "https://node:443"}"#).unwrap();
        assert!(config.require_header_mac && config.keepalive.is_none() && config.tls.system_authorities);
        assert_eq!(config.tls.version, Some(super::super::TlsVersion::Tls13));
        let waits = [1, 1000].map(|n| config.reconnect.delay(n, 0.0));
        assert_eq!(waits, [Some(Duration::from_secs(2)); 2]);
        let ours = ConnectConfig::new("http://node:1");
        assert!(ours.keepalive.is_some(), "in code a silent node is noticed");
        let waits =
            [(1, 0.0), (1, 1.0), (3, 0.5), (50, 1.0)].map(|(n, jitter)| ours.reconnect.delay(n, jitter).unwrap());
        assert_eq!(waits.map(|wait| wait.as_millis()), [50, 100, 300, 5000]);
        let web =
            parse("{endpoint: 'wss://node:443', origin: 'https://front:8443/x', headers: {Host: a, b: c}}").unwrap();
        assert_eq!(web.tls.server_name.as_deref(), Some("front"));
        assert_eq!(web.headers, [("b".to_owned(), "c".to_owned())]);
        // A certificate is for TLS; without it the file is not even read.
        let source = "{type: file, cert: /nonexistent.pem, key: /nonexistent.key}";
        let plain =
            parse(&format!("{{endpoint: 'http://node:1', tls: {{insecure: true, source: {source}}}}}")).unwrap();
        assert!(plain.tls.client_pem.is_none());
        // Unknown keys are let be, as everywhere in client entries.
        parse("{endpoint: 'https://node:443', max_recv_msg_size: 4}").unwrap();
    }

    #[test]
    fn refusals_say_key_and_reason() {
        refused("{}", "missing field `endpoint`");
        refused("{endpoint: ''}", "missing grpc endpoint");
        refused("{endpoint: 'node:1'}", "invalid endpoint scheme");
        refused("{endpoint: 'https://node:1', tls: {insecure: true}}", "the endpoint asks for TLS");
        refused("{endpoint: 'http://node:1'}", "TLS is required, but the endpoint is plain text");
        refused("{endpoint: 'https://node:1', link_id: ''}", "link_id must not be empty");
        refused("{endpoint: 'https://node:1', backoff: {interval: 1s}}", "missing field `type`");
        refused("{endpoint: 'https://node:1', headers: {'a b': c}}", "headers.a b: header name parse error");
        refused("{endpoint: 'https://node:1', tls: {tls_version: tls1.1}}", "invalid tls version: tls1.1");
        let ca = "tls: {ca_source: {type: file, path: /nonexistent/ca.pem}}";
        refused(&format!("{{endpoint: 'https://node:1', {ca}}}"), "tls.ca_source: No such file");
        for (key, value) in [
            ("proxy", "{url: 'http://proxy:1'}"),
            ("request_timeout", "5s"),
            ("connection_type", "peer"),
            ("auth", "{type: static_jwt, file: /token}"),
        ] {
            refused(&format!("{{endpoint: 'https://node:1', {key}: {value}}}"), &format!("{key}: not supported yet"));
        }
        for tls in ["insecure_skip_verify: true", "source: {type: spire}", "ca_source: {type: spire}"] {
            let key = tls.split(':').next().unwrap();
            refused(
                &format!("{{endpoint: 'https://node:1', tls: {{{tls}}}}}"),
                &format!("tls.{key}: not supported yet"),
            );
        }
        let secret = parse("{endpoint: 'https://node:1', auth: {type: basic, username: u, password: ''}}").unwrap_err();
        assert!(secret.to_string().contains("password cannot be empty"), "{secret}");
    }
}
