//! Relays that parse nothing: what the kernel alone costs, under the same load, over several ways to drive sockets.
//!
//! A client says in its first octets whether it publishes or subscribes and in which group; from then on what a
//! publisher sends goes to every subscriber of its group, and what a subscriber sends to every publisher.

mod epoll;
#[cfg(feature = "glommio")]
mod glommio;
mod groups;
mod poll;
mod splice;
mod tokio;
mod uring;

use std::net::{SocketAddr, TcpListener};

use crate::error::{BenchError, Result};

/// How a relay drives its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RelayEngine {
    /// Receive and send over epoll.
    #[value(alias = "raw")]
    Epoll,
    /// Over io_uring, through the node's own kernel door; octets are copied once, from receive to send memory.
    #[value(alias = "io-uring")]
    Uring,
    /// glommio, one executor.
    Glommio,
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
    #[arg(long, alias = "drive", default_value = "epoll")]
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
        crate::machine::expect_use("--cpu", cpu)?;
        crate::machine::pin(cpu)?;
    }
    let what = || format!("relay on {}", options.listen);
    if options.engine == RelayEngine::Glommio {
        #[cfg(feature = "glommio")]
        return glommio::serve(&options.listen).map_err(BenchError::system(what()));
        #[cfg(not(feature = "glommio"))]
        return Err(BenchError::Plan("this slimload was built without glommio (cargo's feature `glommio`)".into()));
    }
    let listener = TcpListener::bind(&options.listen).map_err(BenchError::system(what()))?;
    announce(listener.local_addr().map_err(BenchError::system(what()))?, options.engine);
    match options.engine {
        RelayEngine::Splice => splice::serve(&listener),
        RelayEngine::Tokio => tokio::serve(listener),
        RelayEngine::Uring => uring::serve(listener),
        RelayEngine::Epoll | RelayEngine::Glommio => epoll::serve(&listener),
    }
    .map_err(BenchError::system("relay"))
}

/// Says where a relay listens: with port 0 the only way to know.
fn announce(address: SocketAddr, engine: RelayEngine) {
    println!("relay listening on {address} ({engine:?})");
}
