//! Relays that parse nothing: what the kernel alone costs, under the same load, over several ways to drive sockets.
//!
//! A client says in its first octets whether it publishes or subscribes and in which group; from then on what a
//! publisher sends goes to every subscriber of its group, and what a subscriber sends to every publisher.

mod epoll;
mod splice;
mod tokio;

use std::net::TcpListener;

use crate::error::{BenchError, Result};

/// How a relay drives its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RelayEngine {
    /// Receive and send over epoll.
    Epoll,
    /// Through a pipe, the octets never in user space; one subscriber per publisher.
    Splice,
    /// tokio, one thread.
    Tokio,
}

/// Options of `slimload relay`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RelayOptions {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:46400", value_name = "HOST:PORT")]
    listen: String,
    /// How to drive the sockets
    #[arg(long = "drive", default_value = "epoll")]
    engine: RelayEngine,
    /// CPU to run on
    #[arg(long)]
    cpu: Option<u32>,
}

/// Octets a relay reads at once.
const READ_OCTETS: usize = 256 * 1024;
/// A receiver with this much waiting stops its senders.
const HELD_OCTETS_MAX: usize = 1024 * 1024;

/// Serves until it is killed.
pub(crate) fn run(options: &RelayOptions) -> Result<()> {
    if let Some(cpu) = options.cpu {
        crate::machine::pin(cpu)?;
    }
    let listener =
        TcpListener::bind(&options.listen).map_err(BenchError::system(format!("listen on {}", options.listen)))?;
    println!("relay listening on {} ({:?})", options.listen, options.engine);
    match options.engine {
        RelayEngine::Epoll => epoll::serve(&listener),
        RelayEngine::Splice => splice::serve(&listener),
        RelayEngine::Tokio => tokio::serve(listener),
    }
    .map_err(BenchError::system("relay"))
}
