//! What a node says of itself over its stats socket: here only what it dropped and why, so that a loss is explained; and
//! which process it is.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{BenchError, Result};

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Counters that name a reason for a message not forwarded.
const REASON: &str = "drop_";

/// Drops by reason since the node's start, all its services together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeStats {
    drops: BTreeMap<String, u64>,
    /// The process that listens on the socket, as the kernel knows it.
    pub(crate) process: Option<u32>,
}

impl NodeStats {
    /// Asks the node behind `socket`.
    ///
    /// Errors: nobody answers there, or not as slimline does.
    pub(crate) fn read(socket: &Path) -> Result<Self> {
        let asking =
            || format!("--node-stats {}: is slimline.stats.socket set in the node's configuration?", socket.display());
        let mut stream = UnixStream::connect(socket).map_err(BenchError::system(asking()))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(BenchError::system(asking()))?;
        let process = rustix::net::sockopt::socket_peercred(&stream).ok();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(BenchError::system(asking()))?;
        let stats = Self::parse(&answer).ok_or_else(|| {
            BenchError::Plan(format!("--node-stats {}: it does not answer as slimline does", socket.display()))
        })?;
        Ok(Self { process: process.map(|peer| peer.pid.as_raw_pid().cast_unsigned()), ..stats })
    }

    fn parse(answer: &str) -> Option<Self> {
        let document: serde_json::Value = serde_json::from_str(answer).ok()?;
        let mut stats = Self::default();
        for service in document.as_array()? {
            for (name, count) in service["totals"].as_object()? {
                if let Some(reason) = name.strip_prefix(REASON) {
                    *stats.drops.entry(reason.to_owned()).or_default() += count.as_u64()?;
                }
            }
        }
        Some(stats)
    }

    /// What was dropped since `before`, without reasons that did not occur.
    pub(crate) fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let grown = |(reason, count): (&String, &u64)| {
            let more = count.saturating_sub(before.drops.get(reason).copied().unwrap_or(0));
            (more > 0).then(|| (reason.clone(), more))
        };
        self.drops.iter().filter_map(grown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_services_add_up_and_grow() {
        let service = |ttl, stalled| {
            format!("{{\"totals\":{{\"publishes_in\":9,\"drop_ttl\":{ttl},\"drop_stalled\":{stalled}}}}}")
        };
        let read = |a, b| NodeStats::parse(&format!("[{},{}]", service(a, 0), service(b, 7))).unwrap();
        let (before, after) = (read(1, 2), read(3, 5));
        assert_eq!(after.since(&before), BTreeMap::from([("ttl".to_owned(), 5)]));
        assert!(before.since(&before).is_empty());
        for bad in ["", "{}", "{\"error\":\"no\"}", "[{}]", "[{\"totals\":{\"drop_ttl\":\"x\"}}]"] {
            assert_eq!(NodeStats::parse(bad), None, "{bad}");
        }
    }
}
