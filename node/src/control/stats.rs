//! What a node tells of itself: one JSON document, over a local socket, on a timer, or at the end.

use crate::node::Node;
use crate::shard::stats::{Counters, ShardReport};
use hdrhistogram::Histogram;
use rustix::net::sockopt::socket_peercred;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one reader of the socket may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(1);

/// Percentiles of the latency histogram that are shown.
const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// The state of one node as JSON: vitals, totals, latency, then each shard.
#[must_use]
pub fn document(node: &Node) -> Value {
    let reports = node.report();
    let vitals = node.vitals();
    let mut totals = Counters::default();
    let mut latency: Option<Histogram<u64>> = None;
    for report in &reports {
        totals.add(&report.counters);
        match &mut latency {
            Some(sum) => {
                let _ = sum.add(&report.latency); // same bounds: cannot fail
            }
            None => latency = Some(report.latency.clone()),
        }
    }
    json!({
        "node_id": node.node_id(),
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": node.endpoints(),
        "engine": node.features(),
        "uptime_s": vitals.uptime.as_secs_f64(),
        "names": vitals.names,
        "links": vitals.links,
        "transports": reports.iter().map(|report| report.transports).sum::<usize>(),
        "totals": counters(&totals),
        "latency_us": latency.as_ref().map(percentiles),
        "connections": node.links().into_iter().map(|(id, link)| json!({
            "id": id.to_string(),
            "kind": format!("{:?}", link.kind).to_lowercase(),
            "link_id": link.link_id,
            "slim_version": link.slim_version,
            "node_id": link.node_id,
            "deployment_name": link.deployment_name,
        })).collect::<Vec<_>>(),
        "shards": reports.iter().map(shard).collect::<Vec<_>>(),
    })
}

fn shard(report: &ShardReport) -> Value {
    json!({
        "shard": report.shard,
        "transports": report.transports,
        "connections": report.connections,
        "names": report.names,
        "counters": counters(&report.counters),
        "latency_us": percentiles(&report.latency),
    })
}

fn counters(counters: &Counters) -> Value {
    Value::Object(
        counters.named().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>(),
    )
}

fn percentiles(latency: &Histogram<u64>) -> Value {
    let mut shown = Map::new();
    shown.insert("count".into(), latency.len().into());
    for (name, percentile) in PERCENTILES {
        #[expect(clippy::cast_precision_loss, reason = "microseconds for people")]
        let value = latency.value_at_percentile(percentile) as f64 / 1000.0;
        shown.insert(name.into(), value.into());
    }
    Value::Object(shown)
}

/// The document as people read it: vitals, then every counter that is not zero.
#[must_use]
pub fn text(document: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &Value| {
        let shown = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.push_str(&format!("{name:<24} {shown}\n"));
    };
    for name in ["node_id", "version", "engine", "uptime_s", "names", "links", "transports"] {
        line(name, &document[name]);
    }
    if let Value::Object(totals) = &document["totals"] {
        for (name, value) in totals.iter().filter(|(_, value)| value.as_u64() != Some(0)) {
            line(name, value);
        }
    }
    if let Value::Object(latency) = &document["latency_us"] {
        for (name, value) in latency {
            line(&format!("latency_us {name}"), value);
        }
    }
    out
}

/// One line for a log: the totals that are not zero.
#[must_use]
pub fn summary(node: &Node) -> String {
    let vitals = node.vitals();
    let mut line = format!("links={} names={}", vitals.links, vitals.names);
    for (name, value) in node.counters().named().into_iter().filter(|&(_, value)| value > 0) {
        line.push_str(&format!(" {name}={value}"));
    }
    line
}

/// The local socket that answers every caller with the document and closes.
pub struct StatsSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl StatsSocket {
    /// Binds the socket: its directory 0700 if it has to be made, itself 0600.
    ///
    /// Errors: somebody answers on that path already (it is never taken away), or the system refuses.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on it")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits up to `wait` for a caller and answers it. Callers of another user are turned away.
    pub fn serve_one(&self, nodes: &[Node], wait: Duration) {
        let Ok((mut caller, _)) = self.listener.accept() else {
            std::thread::sleep(wait);
            return;
        };
        let _ = caller.set_nonblocking(false);
        let _ = caller.set_write_timeout(Some(WRITE_DEADLINE));
        let ours = rustix::process::geteuid();
        let allowed = socket_peercred(&caller).is_ok_and(|peer| peer.uid == ours || peer.uid.is_root());
        if !allowed {
            let _ = caller.write_all(b"{\"error\":\"only the node's own user and root may ask\"}\n");
            return;
        }
        let services: Vec<Value> = nodes.iter().map(document).collect();
        let mut text = Value::Array(services).to_string();
        text.push('\n');
        let _ = caller.write_all(text.as_bytes());
    }
}

impl Drop for StatsSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
