//! What the end of a connection means: another protocol, a refusal, or a node that has died.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::client::slim::REFUSED;
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
    if reason.starts_with(REFUSED) {
        let hint = if plan.no_mac { "--no-mac needs require_header_mac: false there" } else { "see the node's log" };
        return BenchError::Refused { endpoint: plan.endpoint.clone(), reason: format!("{reason} ({hint})") };
    }
    if others > 0 && (reason == CLOSED || reason.contains("os error")) {
        return BenchError::Ended { connection: number, stage, reason: crowded(&reason, others) };
    }
    let hint = if reason == CLOSED && plan.tls.is_none() { " (does it want --tls?)" } else { "" };
    BenchError::Protocol { endpoint: plan.endpoint.clone(), peer: plan.peer.name(), reason: reason + hint }
}

/// A connection that was not to be had, after `others` were.
pub(crate) fn unreachable(plan: &Plan, others: usize, error: io::Error) -> BenchError {
    let endpoint = plan.endpoint.clone();
    match others {
        0 => BenchError::Connect { endpoint, error },
        _ => BenchError::Refused { endpoint, reason: crowded(&error.to_string(), others as u64) },
    }
}

fn crowded(reason: &str, others: u64) -> String {
    format!(
        "{reason}, after {others} others were let in: may the node have so many connections? (see its log, its \
         connections_max and its ulimit -n)"
    )
}

/// An ended connection means something else when the node is gone too.
pub(crate) fn with_fate(error: BenchError, plan: &Plan) -> BenchError {
    let knows = plan.node_pid.is_some();
    let is_gone = || match plan.node_pid {
        Some(pid) => crate::process::is_gone(pid),
        None => nobody_listens(&plan.endpoint),
    };
    let told = |reason: String| format!("{reason}; the node's process has ended: see its log");
    match error {
        BenchError::Ended { connection, stage, reason } if is_gone() => {
            BenchError::Ended { connection, stage, reason: told(reason) }
        }
        BenchError::Protocol { endpoint, reason, .. } | BenchError::Refused { endpoint, reason }
            if knows && is_gone() =>
        {
            BenchError::Refused { endpoint, reason: told(reason) }
        }
        BenchError::Connect { endpoint, error } if knows && is_gone() => {
            BenchError::Refused { endpoint, reason: told(error.to_string()) }
        }
        other => other,
    }
}

/// Whether connections to `endpoint` are refused.
fn nobody_listens(endpoint: &str) -> bool {
    let Some(address) = endpoint.to_socket_addrs().ok().and_then(|mut found| found.next()) else { return false };
    TcpStream::connect_timeout(&address, KNOCK).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
