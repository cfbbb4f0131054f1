//! Sessions on tokio: the connection to a node, and handles to await.

mod app;
mod builder;
mod carrier;
mod config;
mod driver;
mod handle;
mod link;
mod socket;
mod status;
mod stopping;
mod tls;
mod writer;

pub use app::App;
pub use builder::AppBuilder;
pub use config::{ConnectConfig, Keepalive, Reconnect};
pub use handle::{Publication, SessionHandle};
pub use slimline_config::Backoff;
pub use status::GrpcStatus;
pub use tls::{TlsConfig, TlsVersion};

use std::time::Duration;

use crate::error::{IdentityError, NameError, SessionError};
use crate::store::StoreError;

/// Why there is no connection, or no application on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration was refused: where, which key, why.
    #[error("{0}")]
    Config(String),
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
    /// TLS cannot be set up, or the node is not who it should be; the text says what to change.
    #[error("TLS: {0}")]
    Tls(String),
    /// The node answered the stream with an HTTP error.
    #[error("the node refused the stream with HTTP status {status}{}", advice(*status))]
    Refused {
        /// Its status.
        status: u16,
    },
    /// HTTP/2, or the WebSocket, failed.
    #[error("{0}")]
    Http(String),
    /// The node ended the stream with a status of gRPC.
    #[error("the node ended the stream: {0}")]
    Status(GrpcStatus),
    /// The node ended the stream, and gave no reason.
    #[error("the node ended the stream without a reason; is it going down?")]
    Ended,
    /// The link was not agreed on.
    #[error("the link was not agreed on: {0}")]
    Negotiation(String),
    /// A step took too long.
    #[error("{step} took longer than {waited:?}; does a SLIM node run there, and is it not overloaded?")]
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
    /// The application gave up its connection, or its store, for good.
    #[error("the application ended: {why}; make a new one")]
    GivenUp {
        /// What ended it.
        why: String,
    },
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

/// What to do about an HTTP status.
fn advice(status: u16) -> &'static str {
    match status {
        401 => ": credentials are missing or wrong",
        403 => ": our credentials are not allowed here",
        404 | 405 | 415 => ": no SLIM node answers at this address and path",
        429 | 503 => ": the node is overloaded or going, try again later",
        _ => "",
    }
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
