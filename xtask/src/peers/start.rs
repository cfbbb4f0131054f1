//! Starting a target, on a free port and perhaps a CPU of its own; asking it what it counted; ending it.

use super::nodelay::Nodelay;
use super::{Kind, Target};
use crate::run::{self, Ended};
use crate::tools;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a node may take until it listens.
const START: Duration = Duration::from_secs(15);
/// How long it may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A started target; it ends when this is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) endpoint: String,
    /// What it logged.
    pub(crate) log: PathBuf,
    /// Where it tells its counters; ours do.
    stats: Option<PathBuf>,
    /// Ours drain on SIGTERM; others may take long to, and are killed.
    gently: bool,
    nodelay: Option<Nodelay>,
}

impl Target {
    /// Starts it on a free port of loopback, on CPU `cpu` if given, and waits until it listens.
    ///
    /// Errors: it does not start; its log is shown.
    pub(crate) fn start(&self, workspace: &Workspace, cpu: Option<u32>) -> Result<Running> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let folder = workspace.target.join("bench");
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{}-{port}.log", self.slug()));
        let mut command = match cpu {
            Some(cpu) if tools::succeeds(Command::new("taskset").arg("--version")) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &cpu.to_string()]).arg(&self.program);
                command
            }
            _ => Command::new(&self.program),
        };
        let mut stats = None;
        match &self.kind {
            Kind::Slim { own } => {
                if !own.is_empty() {
                    // Not below target: a socket's path holds 107 octets.
                    stats = Some(std::env::temp_dir().join(format!("slimline-bench-{port}.sock")));
                }
                let config = folder.join(format!("{}-{port}.yaml", self.slug()));
                fs::write(&config, configuration(port, self.lax, own, stats.as_deref()))?;
                command.arg("--config").arg(config);
            }
            Kind::Nats => {
                command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
            }
            Kind::Relay { drive } => {
                command.args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--engine", drive]);
            }
        }
        let file = fs::File::create(&log)?;
        command.env_remove("CONFIG").stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let (gently, endpoint) = (stats.is_some(), format!("127.0.0.1:{port}"));
        let mut running = Running { child, endpoint, log, stats, gently, nodelay: None };
        running.wait_until_it_listens(&self.name)?;
        if self.nodelay {
            running.nodelay = Some(Nodelay::watch(running.pid())?);
        }
        Ok(running)
    }
}

/// A node's configuration: one listener without TLS.
fn configuration(port: u16, lax: bool, own: &str, stats: Option<&Path>) -> String {
    let lax = if lax { "          require_header_mac: false\n" } else { "" };
    let stats = stats.map_or_else(String::new, |path| format!(", stats: {{socket: \"{}\"}}", path.display()));
    let own = if own.is_empty() { String::new() } else { format!("slimline: {{{own}{stats}}}\n") };
    format!(
        "tracing: {{log_level: info}}\nservices:\n  slim/0:\n    dataplane:\n      servers:\n        \
         - endpoint: \"127.0.0.1:{port}\"\n          tls: {{insecure: true}}\n{lax}{own}"
    )
}

impl Running {
    /// Its process, for CPU time and memory.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_listens(&mut self, name: &str) -> Result<()> {
        let address: SocketAddr = self.endpoint.parse()?;
        let started = Instant::now();
        loop {
            // With many shards the stats socket comes a moment after the listeners.
            let answers = self.stats.as_ref().is_none_or(|path| path.exists());
            if answers && TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended at once ({status}):\n{}", log());
            }
            ensure!(started.elapsed() < START, "{name} does not listen on {address} after {START:?}:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it is still there; a node that died during a measurement is a finding.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!(
                    "the node died ({status}); its last lines:\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                )
            }
        }
    }

    /// The socket at which it tells its counters.
    pub(crate) fn stats(&self) -> Option<&Path> {
        self.stats.as_deref()
    }

    /// Counters of all its shards together, of a node that has them.
    pub(crate) fn counters(&self) -> Option<Counters> {
        let mut socket = UnixStream::connect(self.stats.as_ref()?).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(Counters(serde_json::from_str(&answer).ok()?))
    }

    /// Sockets that were given TCP_NODELAY from outside.
    pub(crate) fn nodelay_sockets(&self) -> Option<usize> {
        self.nodelay.as_ref().map(Nodelay::sockets)
    }
}

/// What a node's stats socket answered.
pub(crate) struct Counters(Value);

impl Counters {
    /// The sum of one counter over services and shards.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.each().filter_map(|shard| shard["counters"][name].as_u64()).sum()
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.each().count()
    }

    fn each(&self) -> impl Iterator<Item = &Value> {
        let services = self.0.as_array().into_iter().flatten();
        services.flat_map(|service| service["shards"].as_array().into_iter().flatten())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.nodelay = None;
        if self.gently {
            let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
            if let Ok(Ended::Exit(_)) = run::wait(&mut self.child, PATIENCE) {
                return;
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_node_gets_no_block_it_does_not_know() {
        assert!(!configuration(1, false, "", None).contains("slimline"));
        let ours = configuration(1, true, "shards: 1", Some(Path::new("/run/s")));
        assert!(ours.contains("slimline: {shards: 1, stats: {socket: \"/run/s\"}}"), "{ours}");
        assert!(ours.contains("\n          require_header_mac: false\n"), "{ours}");
    }

    #[test]
    fn counters_are_summed_over_shards() {
        let answer = serde_json::json!([{"shards": [{"counters": {"mesh_in": 2}}, {"counters": {"mesh_in": 3}}]}]);
        let counters = Counters(answer);
        assert_eq!((counters.sum("mesh_in"), counters.shards()), (5, 2));
    }
}
