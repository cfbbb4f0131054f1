//! The generator's door to the kernel, in the shape its one loop needs: wait, be told what arrived, send what waits.

pub(crate) mod epoll;
#[cfg(feature = "glommio")]
pub(crate) mod glommio;
pub(crate) mod uring;

use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// What the kernel has for a connection.
pub(crate) enum Arrival<'a> {
    /// Octets received.
    Octets(&'a [u8]),
    /// The peer closed, or the socket failed.
    Ended(Option<io::Error>),
    /// What could not be sent before may be tried again, or has been sent.
    Writable,
}

/// Octets that wait to be sent on one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Everything written and not yet handed over starts at `from`.
    pub(crate) octets: Vec<u8>,
    pub(crate) from: usize,
    /// The kernel has its fill: wait for [`Arrival::Writable`].
    pub(crate) blocked: bool,
}

impl Outbox {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.from == self.octets.len()
    }

    /// Octets that wait.
    pub(crate) fn len(&self) -> usize {
        self.octets.len() - self.from
    }

    /// Notes `sent` octets as handed over.
    pub(crate) fn sent(&mut self, sent: usize) {
        self.from += sent;
        if self.from == self.octets.len() {
            self.octets.clear();
            self.from = 0;
        }
    }
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
    /// Takes a connected socket under number `slot`.
    fn adopt(&mut self, slot: u32, socket: TcpStream) -> io::Result<()>;
    /// Closes and forgets `slot`.
    fn remove(&mut self, slot: u32);
    /// Hands over what `out` holds, as far as the kernel takes it now.
    fn send(&mut self, slot: u32, out: &mut Outbox) -> io::Result<()>;
    /// Waits at most `wait` and tells what arrived.
    fn wait(&mut self, wait: Duration, tell: &mut dyn FnMut(u32, Arrival<'_>)) -> io::Result<()>;
    /// A handle that ends a wait.
    fn waker(&self) -> Waker;
}
