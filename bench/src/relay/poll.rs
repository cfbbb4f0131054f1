//! What the relays on epoll share: a poll set with the listener in it, and the wait.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Readiness reports taken per wait.
const EVENTS: usize = 512;
/// The listener's token; slots of connections are smaller.
pub(super) const LISTENER: u64 = u64::MAX;

/// See the module.
pub(super) struct Poll {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    /// A set that watches `listener`.
    pub(super) fn new(listener: &TcpListener) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&set, listener.as_fd(), EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { set, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches the socket of `slot`.
    pub(super) fn add(&self, slot: usize, socket: impl AsFd, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.set, socket, EventData::new_u64(slot as u64), flags)?)
    }

    /// Watches it for something else.
    pub(super) fn modify(&self, slot: usize, socket: impl AsFd, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.set, socket, EventData::new_u64(slot as u64), flags)?)
    }

    /// Waits until something is ready: tokens and flags.
    pub(super) fn wait(&mut self, ready: &mut Vec<(u64, EventFlags)>) -> io::Result<()> {
        self.events.clear();
        match epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut self.events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.iter().map(|event| (event.data.u64(), event.flags)));
        Ok(())
    }
}
