//! The listeners of a node, and how they close when it is full.
//!
//! A caller that is refused by its kernel tries again; one that gets through and is then turned away gives up for good
//! (slim-wire §4.5). So those who wait in the accept queue are served, and then there is no listening socket.

use crate::listen::{ListenError, Listener, listen};
use slimline_config::Listen;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// One listener: where to open it again, and a second hold on it while it is open.
#[derive(Debug)]
struct Door {
    at: Listen,
    socket: Option<OwnedFd>,
}

/// When listeners are open.
#[derive(Debug)]
pub(crate) struct Gate {
    doors: Vec<Door>,
    backlog: u32,
    /// Transports at which the listeners close, and below which they open again.
    high: usize,
    low: usize,
    is_open: bool,
    failure_logged: bool,
}

impl Gate {
    /// Errors: a listening socket that cannot be held twice (out of files).
    pub(crate) fn new(listeners: &[(Listen, &Listener)], backlog: u32, high: usize) -> io::Result<Self> {
        let mut doors = Vec::new();
        for (at, listener) in listeners {
            // A port the kernel chose is the port to come back to.
            let at = match at {
                Listen::Tcp(_) => listener.endpoint.parse().map_or_else(|_| at.clone(), Listen::Tcp),
                Listen::Unix(_) => at.clone(),
            };
            doors.push(Door { at, socket: Some(listener.socket.try_clone()?) });
        }
        Ok(Self { doors, backlog, high, low: high - high.div_ceil(16), is_open: true, failure_logged: false })
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the listeners should close.
    pub(crate) const fn is_full(&self, transports: usize, memory_over: bool) -> bool {
        self.is_open && (transports >= self.high || memory_over)
    }

    /// Whether there is room again.
    pub(crate) const fn has_room(&self, transports: usize, memory_over: bool) -> bool {
        !self.is_open && transports <= self.low && !memory_over
    }

    pub(crate) const fn high(&self) -> usize {
        self.high
    }

    /// The engine was told to let go of the listeners. A moment later, when it has, comes [`Gate::close`].
    pub(crate) fn begin_close(&mut self) {
        self.is_open = false;
    }

    /// Whether listeners are held that should close.
    pub(crate) fn is_closing(&self) -> bool {
        !self.is_open && self.doors.iter().any(|door| door.socket.is_some())
    }

    /// Closes every listener; those who had come already are handed out, with the listener they came to.
    pub(crate) fn close(&mut self) -> Vec<(u32, OwnedFd)> {
        let mut callers = Vec::new();
        for (index, door) in (0u32..).zip(&mut self.doors) {
            let Some(socket) = door.socket.take() else { continue };
            let _ = rustix::net::listen(&socket, 0); // the queue takes nobody more while it is emptied
            if rustix::io::ioctl_fionbio(&socket, true).is_err() {
                continue; // an engine may have made it blocking, and this thread must not wait
            }
            let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
            while let Ok(caller) = rustix::net::accept_with(socket.as_fd(), flags) {
                callers.push((index, caller));
            }
        }
        callers
    }

    /// Opens every listener again where it was; nothing stays open if one of them fails.
    pub(crate) fn open(&mut self) -> Result<Vec<OwnedFd>, ListenError> {
        let mut opened = Vec::new();
        for door in &self.doors {
            opened.push(listen(&door.at, self.backlog)?.socket);
        }
        for (door, socket) in self.doors.iter_mut().zip(&opened) {
            door.socket = socket.try_clone().ok();
        }
        self.is_open = true;
        self.failure_logged = false;
        Ok(opened)
    }

    /// True the first time since it was last open.
    pub(crate) fn is_first_failure(&mut self) -> bool {
        !std::mem::replace(&mut self.failure_logged, true)
    }
}

/// Transports a node can hold: what it is configured for, or what open files allow if that is less.
///
/// Units: `files` is the soft limit; the reserve is for listeners, rings, logs, and a full accept queue.
pub(crate) fn transports_max(configured: usize, files: usize, backlog: usize, shards: usize) -> usize {
    let reserve = 64 + 16 * shards + backlog.min(files / 8);
    configured.min(files.saturating_sub(reserve)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_limit_transports() {
        assert_eq!(transports_max(100_000, 1 << 20, 4096, 8), 100_000);
        assert_eq!(transports_max(100_000, 20_000, 4096, 2), 20_000 - 64 - 32 - 2500);
        assert_eq!(transports_max(100_000, 10, 4096, 2), 1);
    }

    #[test]
    fn it_closes_and_comes_back_to_the_same_port() {
        let at = Listen::Tcp("127.0.0.1:0".parse().expect("an address"));
        let listener = listen(&at, 16).expect("a free port");
        let address: std::net::SocketAddr = listener.endpoint.parse().expect("an address");
        let mut gate = Gate::new(&[(at, &listener)], 16, 100).expect("files");
        drop(listener); // the engine's hold
        let early = std::net::TcpStream::connect(address).expect("accepted by the kernel");
        assert!(gate.is_full(100, false) && gate.is_full(0, true) && !gate.is_full(99, false));
        gate.begin_close();
        assert!(gate.is_closing() && !gate.is_open());
        let callers = gate.close();
        assert!(!gate.is_closing());
        assert_eq!(callers.len(), 1, "who came before is served");
        let refused = std::net::TcpStream::connect(address).expect_err("closed");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!gate.has_room(94, false) && gate.has_room(93, false) && !gate.has_room(0, true));
        let sockets = gate.open().expect("the port is ours");
        std::net::TcpStream::connect(address).expect("open again");
        drop((sockets, early));
    }
}
