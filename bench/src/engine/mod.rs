//! The generator's door to the kernel, in the shape its one loop needs: wait, be told what arrived, send what waits.

pub(crate) mod choice;
mod epoll;
#[cfg(feature = "glommio")]
pub(crate) mod glommio;
mod outbox;
mod uring;

use std::io;
use std::net::TcpStream;
use std::time::Duration;

pub(crate) use outbox::Outbox;

use crate::error::{BenchError, Result};
use crate::scenario::EngineKind;

/// What the kernel has for a connection.
pub(crate) enum Arrival<'a> {
    /// Octets received.
    Octets(&'a [u8]),
    /// The peer closed, or the socket failed.
    Ended(Option<io::Error>),
    /// What could not be sent before may be tried again, or has been sent.
    Writable,
}

/// Wakes a worker that waits in its door, from any thread.
#[derive(Clone)]
pub(crate) enum Waker {
    /// Through an eventfd.
    Event(std::sync::Arc<std::os::fd::OwnedFd>),
    /// Through the node's kernel door.
    Io(slimline_node::io::Waker),
    /// Through the task that waits.
    #[cfg(feature = "glommio")]
    Bell(std::sync::Arc<glommio::Bell>),
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

impl Waker {
    /// Wakes it; a wake-up that is already pending is enough.
    pub(crate) fn wake(&self) {
        match self {
            Self::Event(event) => {
                let _ = rustix::io::write(event, &1u64.to_ne_bytes());
            }
            Self::Io(waker) => waker.wake(),
            #[cfg(feature = "glommio")]
            Self::Bell(bell) => bell.ring(),
        }
    }
}

/// One worker's sockets.
pub(crate) trait Door {
    /// Takes a connected socket under number `slot`, which nobody has.
    fn adopt(&mut self, slot: u32, socket: TcpStream) -> io::Result<()>;
    /// Closes `slot` once the kernel has taken what `out` holds (epoll: as much as it takes at once). Nothing is told
    /// of it any more, and the number may be used again.
    fn leave(&mut self, slot: u32, out: &mut Outbox);
    /// Hands over what `out` holds, as far as the kernel takes it now.
    fn send(&mut self, slot: u32, out: &mut Outbox) -> io::Result<()>;
    /// Waits at most `wait` and tells what arrived.
    fn wait(&mut self, wait: Duration, tell: &mut dyn FnMut(u32, Arrival<'_>)) -> io::Result<()>;
    /// A handle that ends a wait.
    fn waker(&self) -> Waker;
}

/// Opens a door for the calling thread; without `nodelay` Nagle's algorithm stays on.
pub(crate) fn open(engine: EngineKind, nodelay: bool) -> Result<Box<dyn Door>> {
    let failed = |error: io::Error| BenchError::Plan(choice::refusal(engine, &error.to_string()));
    Ok(match engine {
        EngineKind::IoUring => Box::new(uring::Uring::new(nodelay).map_err(failed)?),
        EngineKind::Epoll => Box::new(epoll::Epoll::new().map_err(failed)?),
        #[cfg(feature = "glommio")]
        EngineKind::Glommio => Box::new(glommio::Glommio::new().map_err(failed)?),
        #[cfg(not(feature = "glommio"))]
        EngineKind::Glommio => return Err(BenchError::Plan("built without glommio".into())), // refused by the plan before
    })
}

#[cfg(test)]
mod tests;
