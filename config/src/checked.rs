//! A configuration as used: every value present, in range and supported. What the node reads, and all it reads.

pub(crate) mod client;
pub(crate) mod server;
pub(crate) mod slimline;

use std::time::Duration;

use crate::block::At;
use crate::error::{ConfigError, Warning, step};
use crate::raw;
pub use crate::raw::service::DefaultGateway;
use server::Server;
use slimline::Slimline;

/// Everything a node is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is logged, and how lines look.
    pub tracing: Tracing,
    /// Threads, and how long a stop may take.
    pub runtime: Runtime,
    /// At least one, in the order of the file.
    pub services: Vec<Service>,
    /// Our own settings: shards, engine, limits, stats.
    pub slimline: Slimline,
    /// What the author of the file should know; to be logged once logging runs.
    pub warnings: Vec<Warning>,
}

/// The `tracing` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Whether lines show the thread's name.
    pub display_thread_names: bool,
    /// Whether lines show `ThreadId(NN)`.
    pub display_thread_ids: bool,
    /// Filter directives as written; `None` when absent or equal to SLIM's default list, which means "all at `log_level`".
    /// An entry with `=` is complete, any other is a module that gets `log_level`.
    pub filters: Option<Vec<String>>,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// Changes of state.
    #[default]
    Info,
    /// Something an operator should look at.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// Lower case, as in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The `runtime` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Cores to use; 0 means all the process may use. Not clamped here: the machine is not known to a file.
    pub n_cores: usize,
    /// Name, or start of the names, of the worker threads.
    pub thread_name: String,
    /// Limit on an orderly stop.
    pub drain_timeout: Duration,
}

/// One entry of `services`: a routing instance of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The key, such as `slim/0`. Used in logs.
    pub name: String,
    /// What the node calls itself in link negotiation; `node-<uuid v4>`, new at each start, unless written.
    pub node_id: String,
    /// The domain, sent in link negotiation as deployment name.
    pub domain_name: Option<String>,
    /// Where a message goes that matches no name.
    pub default_gateway: DefaultGateway,
    /// Data-plane listeners, at least one.
    pub servers: Vec<Server>,
}

/// SLIM's default of `tracing.filters`.
const FILTERS_DEFAULT: [&str; 16] = [
    "slim_datapath",
    "slim_service",
    "slim_controller",
    "slim_auth",
    "slim_config",
    "slim_mls",
    "slim_session",
    "slim_signal",
    "slim_tracing",
    "_slim_bindings",
    "slim_testing",
    "slim",
    "slim_examples",
    "sdk_mock",
    "client",
    "channel",
];
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// SLIM's default of `runtime.thread_name`.
const THREAD_NAME_DEFAULT: &str = "slim";

impl Config {
    /// Judges a document: first whether its values are right, then whether this release can do them.
    pub(crate) fn check(document: raw::Document, mut warnings: Vec<Warning>) -> Result<Self, ConfigError> {
        let mut unsupported = Vec::new();
        let runtime = Runtime::check(document.runtime);
        let tracing = Tracing::check(document.tracing, &mut warnings, &mut unsupported);
        let slimline = Slimline::check(document.slimline).map_err(|error| error.step(step::SLIMLINE))?;
        let services = document
            .services
            .into_iter()
            .map(|service| Service::check(service, &slimline, &mut warnings, &mut unsupported))
            .collect::<Result<_, _>>()
            .map_err(|error| error.step(step::SERVICES))?;
        match unsupported.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(Self { tracing, runtime, services, slimline, warnings }),
        }
    }
}

impl Runtime {
    fn check(raw: raw::Runtime) -> Self {
        Self {
            n_cores: or(raw.n_cores, 0),
            thread_name: or(raw.thread_name, THREAD_NAME_DEFAULT.to_owned()),
            drain_timeout: or(raw.drain_timeout, DRAIN_TIMEOUT_DEFAULT).min(server::DURATION_MAX),
        }
    }
}

impl Tracing {
    fn check(raw: raw::Tracing, warnings: &mut Vec<Warning>, unsupported: &mut Vec<ConfigError>) -> Self {
        if let Some(enabled) = raw.opentelemetry.filter(|enabled| enabled.value) {
            unsupported.push(enabled.not_supported().step(step::TRACING));
        }
        let log_level = raw.log_level.map_or(LogLevel::default(), |written| {
            let word = written.value.to_ascii_lowercase();
            let levels = [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
            levels.into_iter().find(|level| level.as_str() == word).unwrap_or_else(|| {
                written.warn("not one of trace, debug, info, warn, error: info is used", warnings);
                LogLevel::default()
            })
        });
        let filters = raw.filters.map(|filters| filters.into_iter().map(|filter| filter.value).collect::<Vec<_>>());
        Self {
            log_level,
            display_thread_names: or(raw.display_thread_names, true),
            display_thread_ids: or(raw.display_thread_ids, false),
            filters: filters.filter(|filters| *filters != FILTERS_DEFAULT),
        }
    }
}

impl Service {
    fn check(
        raw: raw::service::Service,
        slimline: &Slimline,
        warnings: &mut Vec<Warning>,
        unsupported: &mut Vec<ConfigError>,
    ) -> Result<Self, ConfigError> {
        if let (Some(auth), None) = (&raw.auth, &raw.domain_name) {
            return Err(auth.refuse("domain_name must be set when auth is configured"));
        }
        let text_octets_max = slimline.limits.link_text_octets_max;
        for text in [&raw.node_id, &raw.domain_name].into_iter().flatten() {
            if text.value.len() > text_octets_max as usize {
                return Err(text.refuse(format!("{} octets, limit {text_octets_max}", text.value.len())));
            }
        }
        let servers = server::check_all(raw.dataplane.servers.iter(), slimline, warnings, &mut |error| {
            unsupported.push(error.step(step::SERVICES));
        })?;
        let controller_servers = server::check_all(raw.controller.servers.iter(), slimline, warnings, &mut |_| {})?;
        for plane in [&raw.dataplane, &raw.controller] {
            check_plane(plane)?;
        }
        if raw.dataplane.servers.is_empty() && raw.dataplane.clients.is_empty() {
            return Err(raw.dataplane.at.refuse("no server or client configured").help(
                "add a listener: dataplane: {servers: [{endpoint: \"127.0.0.1:46357\", tls: {insecure: true}}]}",
            ));
        }
        if let Some(first) = raw.dataplane.outbound_clients.first() {
            first.at.warn("has no effect here", warnings);
        }

        let mut refuse = |error: ConfigError| unsupported.push(error.step(step::SERVICES));
        if let Some(auth) = raw.auth {
            refuse(auth.not_supported());
        }
        if let Some(client) = raw.dataplane.clients.first() {
            refuse(client.at.not_supported());
        }
        if let Some(pqc) = raw.dataplane.enforce_pqc.filter(|pqc| pqc.value) {
            refuse(pqc.not_supported());
        }
        let controller = &raw.controller;
        let controller_is_used = !controller_servers.is_empty()
            || !controller.servers.is_empty()
            || !controller.clients.is_empty()
            || !controller.outbound_clients.is_empty()
            || controller.enforce_pqc.as_ref().is_some_and(|pqc| pqc.value);
        if controller_is_used {
            refuse(controller.at.not_supported());
        }
        if let Some(peers) = raw.peers {
            refuse(peers.not_supported());
        }
        Ok(Self {
            name: raw.key.value,
            node_id: or(raw.node_id, format!("node-{}", uuid::Uuid::new_v4())),
            domain_name: raw.domain_name.map(|domain_name| domain_name.value),
            default_gateway: or(raw.default_gateway, DefaultGateway::default()),
            servers,
        })
    }
}

/// What `dataplane` and `controller` ask of their entries as a group.
fn check_plane(plane: &raw::service::Plane) -> Result<(), ConfigError> {
    for client in plane.clients.iter().chain(&plane.outbound_clients) {
        server::check_client_endpoint(&client.endpoint)?;
        server::check_tls_version(&client.tls)?;
    }
    let Some(pqc) = plane.enforce_pqc.as_ref().filter(|pqc| pqc.value) else { return Ok(()) };
    let server_tls = plane.servers.iter().map(|server| &server.tls);
    let client_tls = plane.clients.iter().chain(&plane.outbound_clients).map(|client| &client.tls);
    for version in server_tls.chain(client_tls).filter_map(|tls| tls.tls_version.as_ref()) {
        if version.value != server::TLS_VERSION_DEFAULT {
            let cause = "invalid tls version: enforce_pqc requires tls_version \"tls1.3\"";
            return Err(version.refuse(cause).help(format!("{} is true", pqc.path)));
        }
    }
    Ok(())
}

/// The value written, or its default.
fn or<T>(written: Option<At<T>>, default: T) -> T {
    written.map_or(default, |written| written.value)
}
