//! Sessions on tokio: the connection to a node, and handles to await.

mod app;
mod carrier;
mod driver;
mod handle;
mod link;
mod socket;
mod tls;

pub use app::{App, AppBuilder};
pub use handle::{Publication, SessionHandle};
pub use tls::TlsConfig;

use std::time::Duration;

use crate::error::{IdentityError, NameError, SessionError};
use crate::store::StoreError;

/// Where the node is and how long to try.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// `http://host:port`, `https://host:port`, `ws://host:port/path`, `wss://…`, `host:port`, or `unix:///path`.
    pub endpoint: String,
    /// Whether the node must agree on a MAC key; as strict as nodes are by default.
    pub require_header_mac: bool,
    /// How long each step of connecting may take.
    pub step_timeout: Duration,
    /// Wait before the first reconnect; doubled for each further one.
    pub backoff_min: Duration,
    /// Wait between reconnects at most.
    pub backoff_max: Duration,
    /// For `https://` and `wss://`: whom to trust, who we are.
    pub tls: TlsConfig,
    /// Headers for the node's gate, such as `authorization`.
    pub headers: Vec<(String, String)>,
}

impl ConnectConfig {
    /// The defaults for an endpoint.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            require_header_mac: true,
            step_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
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
}

/// Why there is no connection, or no application on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The endpoint cannot be read.
    #[error("endpoint {0:?}: write http://host:port (or https, ws, wss) or unix:///path")]
    Endpoint(String),
    /// No connection.
    #[error("no connection to {endpoint}: {why}; is the node running there?")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// The system's reason.
        why: String,
    },
    /// TLS cannot be set up, or the node is not who it should be.
    #[error("TLS: {0}")]
    Tls(String),
    /// The node answered the stream with an HTTP error.
    #[error("the node refused the stream with HTTP status {status}{}", if *status == 401 { ": credentials are missing or wrong" } else { "" })]
    Refused {
        /// Its status.
        status: u16,
    },
    /// HTTP/2 failed.
    #[error("HTTP/2: {0}")]
    Http(String),
    /// The link was not agreed on.
    #[error("link negotiation: {0}")]
    Negotiation(String),
    /// A step took too long.
    #[error("{step} took longer than {waited:?}")]
    TimedOut {
        /// Which.
        step: &'static str,
        /// The limit.
        waited: Duration,
    },
    /// The node does not route our name to us.
    #[error("the node refused to subscribe {name}: {why}")]
    NotSubscribed {
        /// The name.
        name: String,
        /// The node's reason.
        why: String,
    },
    /// The application was shut down.
    #[error("the application was shut down")]
    ShutDown,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`IdentityError`].
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// See [`NameError`].
    #[error(transparent)]
    Name(#[from] NameError),
}

/// What awaiting a session can end with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Nothing came in time.
    #[error("receive timeout waiting for message")]
    TimedOut,
    /// These will not come: the sender no longer has them, or does not answer. The stream goes on after them.
    #[error("{count} messages of {source_name} were lost")]
    Lost {
        /// Whose.
        source_name: String,
        /// How many.
        count: u32,
    },
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}
