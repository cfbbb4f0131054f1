//! What the end of a connection means: another protocol, a refusal, or a node that has died.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::error::BenchError;
use crate::plan::Plan;

/// An end without a word.
pub(crate) const CLOSED: &str = "closed by the node";
/// How long somebody who may still listen has to answer.
const KNOCK: Duration = Duration::from_secs(1);

/// A connection's end as an error: before it was ready, the peer is likely something else, unless it took `others`.
pub(crate) fn ended(
    plan: &Plan,
    stage: &'static str,
    number: u32,
    ready: bool,
    others: u64,
    reason: String,
) -> BenchError {
    if ready {
        return BenchError::Ended { connection: number, stage, reason };
    }
    if reason.starts_with("TLS") || reason.starts_with("401") {
        return BenchError::Refused { endpoint: plan.endpoint.clone(), reason };
    }
    if others > 0 && (reason == CLOSED || reason.contains("os error")) {
        let limit = "may the node have so many connections? (see its log, its connections_max and its ulimit -n)";
        let reason = format!("{reason}, after {others} others were let in: {limit}");
        return BenchError::Ended { connection: number, stage, reason };
    }
    let hint = if reason == CLOSED && plan.tls.is_none() { " (does it want --tls?)" } else { "" };
    BenchError::Protocol { endpoint: plan.endpoint.clone(), peer: plan.peer.name(), reason: reason + hint }
}

/// An ended connection means something else when the node is gone too.
pub(crate) fn with_fate(error: BenchError, plan: &Plan) -> BenchError {
    let gone = || match plan.node_pid {
        Some(pid) => crate::process::is_gone(pid),
        None => nobody_listens(&plan.endpoint),
    };
    let told = |reason: String| format!("{reason}; the node's process has ended: see its log");
    match error {
        BenchError::Ended { connection, stage, reason } if gone() => {
            BenchError::Ended { connection, stage, reason: told(reason) }
        }
        BenchError::Connect { endpoint, error } if plan.node_pid.is_some_and(crate::process::is_gone) => {
            BenchError::Refused { endpoint, reason: told(error.to_string()) }
        }
        other => other,
    }
}

/// Whether connections to `endpoint` are refused.
fn nobody_listens(endpoint: &str) -> bool {
    let Some(address) = endpoint.to_socket_addrs().ok().and_then(|mut found| found.next()) else { return false };
    TcpStream::connect_timeout(&address, KNOCK)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}
