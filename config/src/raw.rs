//! A configuration as written: every key SLIM knows, typed and located, nothing judged yet.
//!
//! Reading enforces which keys a block may have and what type each value is; ranges, combinations and what this release
//! supports are `checked`'s questions. Every value is optional here, so "not written" stays visible.

pub(crate) mod auth;
pub(crate) mod client;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod slimline;
pub(crate) mod tls;

use std::time::Duration;

use crate::block::{At, Block, Unknown};
use crate::error::{ConfigError, Warning, step};
use crate::yaml::{Node, Value};

pub(crate) struct Document {
    pub(crate) tracing: Tracing,
    pub(crate) runtime: Runtime,
    pub(crate) services: Vec<service::Service>,
    pub(crate) slimline: slimline::Slimline,
}

pub(crate) struct Tracing {
    pub(crate) log_level: Option<At<String>>,
    pub(crate) display_thread_names: Option<At<bool>>,
    pub(crate) display_thread_ids: Option<At<bool>>,
    /// Empty and absent are different: a list that is written replaces the default one.
    pub(crate) filters: Option<Vec<At<String>>>,
    /// `opentelemetry.enabled`.
    pub(crate) opentelemetry: Option<At<bool>>,
}

pub(crate) struct Runtime {
    pub(crate) n_cores: Option<At<usize>>,
    pub(crate) thread_name: Option<At<String>>,
    pub(crate) drain_timeout: Option<At<Duration>>,
}

pub(crate) const DOCUMENT_KEYS: [&str; 4] = ["tracing", "runtime", "services", "slimline"];
pub(crate) const TRACING_KEYS: [&str; 5] =
    ["log_level", "display_thread_names", "display_thread_ids", "filters", "opentelemetry"];
pub(crate) const OPENTELEMETRY_KEYS: [&str; 6] =
    ["enabled", "grpc", "service_name", "service_version", "environment", "metrics_interval_secs"];
pub(crate) const RUNTIME_KEYS: [&str; 3] = ["n_cores", "thread_name", "drain_timeout"];

impl Document {
    pub(crate) fn read(root: &Node, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let root = At { value: root, place: root.place, path: String::new() };
        let Value::Map(_) = root.value.value else {
            return Err(root
                .refuse("invalid configuration - impossible to parse yaml")
                .help("the file has to be one mapping with the keys runtime, tracing, services and slimline"));
        };
        let document = Block::open(root, Unknown::Ignored, &[], &mut Vec::new())?;
        for (key, _) in document.entries() {
            if !DOCUMENT_KEYS.contains(&key.value) {
                return Err(key
                    .refuse(format!("invalid configuration - key {} not valid", key.value))
                    .help("the top-level keys are tracing, runtime, services and slimline"));
            }
        }
        let services_missing = || {
            ConfigError::new(Some(document.place), "services", "invalid configuration - missing services")
                .help("add a service such as `slim/0`, with a server, below `services:`")
        };
        let services = document.node("services").ok_or_else(services_missing)?;
        if services.value.value == Value::Map(Vec::new()) {
            return Err(services_missing());
        }
        Ok(Self {
            runtime: Runtime::read(&document, warnings).map_err(|error| error.step(step::RUNTIME))?,
            tracing: Tracing::read(&document, warnings).map_err(|error| error.step(step::TRACING))?,
            services: service::read_all(services, warnings).map_err(|error| error.step(step::SERVICES))?,
            slimline: slimline::Slimline::read(&document, warnings).map_err(|error| error.step(step::SLIMLINE))?,
        })
    }
}

impl Tracing {
    fn read(document: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = document.block("tracing", Unknown::Refused, &TRACING_KEYS, warnings)?;
        let telemetry = block.block("opentelemetry", Unknown::Refused, &OPENTELEMETRY_KEYS, warnings)?;
        if let Some(grpc) = telemetry.node("grpc") {
            client::Client::read(grpc, &[], Unknown::Ignored, warnings)?;
        }
        telemetry.text("service_name")?;
        telemetry.text("service_version")?;
        telemetry.text("environment")?;
        telemetry.unsigned::<u64>("metrics_interval_secs")?;
        Ok(Self {
            log_level: block.text("log_level")?,
            display_thread_names: block.boolean("display_thread_names")?,
            display_thread_ids: block.boolean("display_thread_ids")?,
            filters: block.node("filters").map(|_| block.texts("filters")).transpose()?,
            opentelemetry: telemetry.boolean("enabled")?,
        })
    }
}

impl Runtime {
    fn read(document: &Block<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let block = document.block("runtime", Unknown::Refused, &RUNTIME_KEYS, warnings)?;
        Ok(Self {
            n_cores: block.unsigned("n_cores")?,
            thread_name: block.text("thread_name")?,
            drain_timeout: block.duration("drain_timeout")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key that is read is explained in the reference.
    #[test]
    fn reference_has_every_key() {
        let reference = include_str!("../reference.yaml");
        let groups: [&[&str]; 20] = [
            &DOCUMENT_KEYS,
            &TRACING_KEYS,
            &OPENTELEMETRY_KEYS,
            &RUNTIME_KEYS,
            &service::SERVICE_KEYS,
            &service::PLANE_KEYS,
            &service::PEERS_KEYS,
            &service::STATIC_KEYS,
            &service::KUBERNETES_KEYS,
            &server::SERVER_KEYS,
            &server::KEEPALIVE_KEYS,
            &client::CLIENT_KEYS,
            &client::CLIENT_KEEPALIVE_KEYS,
            &client::PROXY_KEYS,
            &client::BACKOFF_KEYS,
            &tls::TLS_KEYS,
            &slimline::SLIMLINE_KEYS,
            &slimline::IO_KEYS,
            &slimline::LIMITS_KEYS,
            &slimline::STATS_KEYS,
        ];
        let ours: [&[&str]; 2] = [&slimline::SERVER_EXT_KEYS, &slimline::SLOW_READER_KEYS];
        for key in groups.into_iter().chain(ours).flatten() {
            let found = reference.match_indices(&format!("{key}:")).any(|(start, _)| {
                let before = reference[..start].chars().next_back();
                before.is_none_or(|before| before.is_whitespace() || before == '{')
            });
            assert!(found, "`{key}` is not in reference.yaml");
        }
    }
}
