//! What can go wrong, each as one line that says what to do.

use std::io;
use std::path::PathBuf;

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The node cannot be reached.
    #[error("cannot connect to {endpoint}: {error}; is a node listening there? (start one, or pass --node HOST:PORT)")]
    Connect { endpoint: String, error: io::Error },
    /// The peer hung up or answered something that is not this protocol.
    #[error("{endpoint} does not speak the expected protocol ({peer}): {reason}")]
    Protocol { endpoint: String, peer: &'static str, reason: String },
    /// It speaks the protocol and did not let us in, or we did not trust it.
    #[error("{endpoint}: {reason}")]
    Refused { endpoint: String, reason: String },
    /// Negotiation, a subscription or a phase did not finish in time.
    #[error("{what} did not finish within {seconds} s: {done} of {wanted} done{hint}")]
    Deadline { what: &'static str, seconds: u64, done: u64, wanted: u64, hint: &'static str },
    /// A connection ended while it was needed.
    #[error("the node ended connection {connection} during {stage}: {reason}")]
    Ended { connection: u32, stage: &'static str, reason: String },
    /// The plan cannot be run as asked.
    #[error("{0}")]
    Plan(String),
    /// A scenario file that cannot be used.
    #[error("{}: {reason}", path.display())]
    Scenario { path: PathBuf, reason: String },
    /// The kernel refused something.
    #[error("{what}: {error}")]
    System { what: String, error: io::Error },
}

impl BenchError {
    /// An operating system error with what was being done.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::System { what, error }
    }
}

/// What a command hands back.
pub(crate) type Result<T> = std::result::Result<T, BenchError>;
