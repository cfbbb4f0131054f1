//! Running a node until a signal ends it.

use crate::cli;
use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::signal_name;
use slimline_config::Config;
use slimline_node::stats::{self, StatsSocket};
use slimline_node::{Node, logging};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often the main thread looks for a signal, a caller of the stats socket, or a due report.
const LOOK: Duration = Duration::from_millis(20);

/// Starts every service of the configuration, waits for SIGINT or SIGTERM, drains.
///
/// Errors: what kept it from starting, or a drain that took longer than `runtime.drain_timeout`.
pub(crate) fn run(
    file: Option<&Path>,
    stats_interval: Option<Duration>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<(), Failure> {
    // Handlers first: a signal that comes while we start is not lost (slim-config §1).
    let signal = Arc::new(AtomicUsize::new(0));
    for (number, noted) in [(SIGINT, 2), (SIGTERM, 15)] {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), noted)
            .map_err(|error| Failure::because("failed to install signal handlers", &error))?;
    }
    let config = load(file, env)?;
    logging::install(&config.tracing, env);
    tracing::info!("slimline {}", cli::version().trim_end().replace('\n', ", ").replace('\t', " "));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();

    let nodes = start(&config)?;
    let interval = stats_interval.or(config.slimline.stats.interval);
    let socket = stats_socket(&config, file.is_none(), env)?;
    wait(&nodes, socket.as_ref(), interval, &signal);
    let name = signal_name(i32::try_from(signal.load(Ordering::Acquire)).unwrap_or(0)).unwrap_or("signal");
    tracing::info!(signal = name, "received signal, starting shutdown");
    drop(socket);
    stop(&config, nodes)
}

/// Checks a configuration and says so.
pub(crate) fn check(file: Option<&Path>, env: &impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let config = load(file, env)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    println!("configuration is valid");
    Ok(())
}

fn load(file: Option<&Path>, env: &impl Fn(&str) -> Option<String>) -> Result<Config, Failure> {
    match file {
        Some(path) => slimline_config::load(path, env),
        None => Ok(slimline_config::embedded_default()),
    }
    .map_err(|error| Failure::report(error.report().to_string()))
}

fn start(config: &Config) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    for service in &config.services {
        let node = match Node::start(config, service) {
            Ok(node) => node,
            Err(error) => {
                for node in nodes {
                    Node::stop(node, Duration::ZERO);
                }
                return Err(Failure::because(format!("failed to start service {}", service.name), &error));
            }
        };
        for endpoint in node.endpoints() {
            tracing::info!(endpoint, "dataplane server started");
        }
        if let Some(reason) = node.fallback() {
            tracing::warn!(reason, "io_uring is not available: running on epoll, which costs 5 to 25 % more CPU");
        }
        tracing::info!(
            shards = node.shard_count(),
            engine = node.features(),
            node_id = node.node_id(),
            "kernel features"
        );
        tracing::info!(service = service.name, "service started");
        nodes.push(node);
    }
    Ok(nodes)
}

fn wait(nodes: &[Node], socket: Option<&StatsSocket>, interval: Option<Duration>, signal: &AtomicUsize) {
    let mut due = interval.map(|interval| Instant::now() + interval);
    while signal.load(Ordering::Acquire) == 0 {
        match socket {
            Some(socket) => socket.serve_one(nodes, LOOK),
            None => std::thread::sleep(LOOK),
        }
        if let (Some(at), Some(interval)) = (due, interval)
            && Instant::now() >= at
        {
            due = Some(at + interval);
            nodes.iter().for_each(|node| tracing::info!("{}", stats::summary(node)));
        }
    }
}

fn stop(config: &Config, nodes: Vec<Node>) -> Result<(), Failure> {
    let timeout = config.runtime.drain_timeout;
    let deadline = Instant::now() + timeout;
    let mut in_time = true;
    for (node, service) in nodes.into_iter().zip(&config.services) {
        tracing::info!(service = service.name, "stopping service");
        for endpoint in node.endpoints() {
            tracing::info!(endpoint, "stopping server");
        }
        tracing::info!("{}", stats::summary(&node));
        in_time &= node.stop(deadline.saturating_duration_since(Instant::now()));
    }
    if in_time {
        return Ok(());
    }
    tracing::warn!("Service shutdown timed out");
    Err(Failure::new(format!("Service shutdown timed out after {}", slimline_config::format_duration(timeout))))
}

/// Opens the stats socket: the configured one, or with the embedded default the one under `XDG_RUNTIME_DIR`.
fn stats_socket(
    config: &Config,
    embedded: bool,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Option<StatsSocket>, Failure> {
    let configured: Option<PathBuf> = config.slimline.stats.socket.clone();
    if let Some(path) = configured {
        let socket = StatsSocket::bind(&path)
            .map_err(|error| Failure::because(format!("stats socket {}", path.display()), &error))?;
        return Ok(Some(socket));
    }
    let Some(path) = embedded.then(|| slimline_config::default_stats_socket(46357, env)).flatten() else {
        return Ok(None);
    };
    match StatsSocket::bind(&path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no stats socket");
            Ok(None)
        }
    }
}

/// One connection is one file: takes what the hard limit allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, ?maximum, "open-file limit not raised");
    }
}
