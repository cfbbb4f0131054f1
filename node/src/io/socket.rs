//! Socket settings every engine makes alike, and the waker.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// Opens a listening TCP socket.
///
/// Shape:  SO_REUSEADDR, close-on-exec; `[::]` takes IPv4 callers too, as the system is set up to.
/// Units:  `backlog` in callers waiting to be accepted; the kernel cuts it to net.core.somaxconn.
/// Errors: the kernel's: address in use, no permission, …
pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let socket = open(address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, backlog)?;
    Ok(socket)
}

/// A fresh non-blocking TCP socket of the address's family.
pub(super) fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Makes a connected socket ours: non-blocking, and TCP_NODELAY where there is TCP.
pub(super) fn prepare(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    // Unix sockets know no TCP options; nothing is lost.
    let _ = sockopt::set_tcp_nodelay(socket, true);
    Ok(())
}

/// Acknowledge now and for a while; the kernel falls back to delaying by itself.
pub(super) fn quick_ack(socket: BorrowedFd<'_>) {
    let _ = sockopt::set_tcp_quickack(socket, true);
}

/// Closing will reset the connection.
pub(super) fn reset_on_close(socket: BorrowedFd<'_>) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Says FIN; a socket that is already gone needs none.
pub(super) fn finish(socket: BorrowedFd<'_>) {
    let _ = net::shutdown(socket, net::Shutdown::Write);
}

/// An error of one caller who gave up while waiting, or of the network: accept the next one.
///
/// Source: accept(2), "Error handling".
pub(super) fn is_callers(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}

/// Makes a waiting [`super::Io::enter`] return; cheap to clone, usable from any thread.
///
/// A kernel call each time: the caller decides whether the shard sleeps at all.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Wakes the engine's thread, or lets its next `enter` return at once.
    pub fn wake(&self) {
        // Fails only when 2^64 - 2 wakes are unread, and then the engine is awake anyhow.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Forgets wakes so far; true = there were some.
    pub(super) fn clear(&self) -> bool {
        rustix::io::read(&self.event, &mut [0_u8; 8]).is_ok()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
