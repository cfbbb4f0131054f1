//! The door over epoll: level-triggered, one large receive per ready socket and turn.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::{Arrival, Door, Outbox, Waker};

/// Octets taken from one socket at once.
const RECEIVE_OCTETS: usize = 256 * 1024;
/// Readiness reports taken per wait.
const EVENTS: usize = 512;
/// The waker's token; slots are smaller.
const WAKER: u64 = u64::MAX;

/// See the module.
pub(crate) struct Epoll {
    epoll: std::os::fd::OwnedFd,
    event: Arc<std::os::fd::OwnedFd>,
    sockets: Vec<Option<TcpStream>>,
    buffer: Box<[u8]>,
    events: Vec<epoll::Event>,
}

impl Epoll {
    /// An empty door.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &event, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self {
            epoll,
            event,
            sockets: Vec::new(),
            buffer: vec![0; RECEIVE_OCTETS].into_boxed_slice(),
            events: Vec::with_capacity(EVENTS),
        })
    }

    fn close(&mut self, slot: u32) {
        if let Some(place) = self.sockets.get_mut(slot as usize) {
            *place = None; // closing takes it off the epoll set
        }
    }

    fn watch(&self, slot: u32, flags: EventFlags) -> io::Result<()> {
        let Some(socket) = self.sockets.get(slot as usize).and_then(Option::as_ref) else { return Ok(()) };
        Ok(epoll::modify(&self.epoll, socket.as_fd(), EventData::new_u64(u64::from(slot)), flags)?)
    }
}

impl Door for Epoll {
    fn adopt(&mut self, slot: u32, socket: TcpStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(u64::from(slot)), EventFlags::IN)?;
        let slot = slot as usize;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        self.sockets[slot] = Some(socket);
        Ok(())
    }

    fn leave(&mut self, slot: u32, out: &mut Outbox) {
        let _ = self.send(slot, out); // it may be gone already
        self.close(slot);
    }

    fn send(&mut self, slot: u32, out: &mut Outbox) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) else { return Ok(()) };
        while !out.blocked && !out.is_empty() {
            match socket.write(out.next()) {
                Ok(sent) => out.sent(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    out.blocked = true;
                    self.watch(slot, EventFlags::IN | EventFlags::OUT)?;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&mut self, wait: Duration, tell: &mut dyn FnMut(u32, Arrival<'_>)) -> io::Result<()> {
        let timeout = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let (token, flags) = (event.data.u64(), event.flags);
            let Ok(slot) = u32::try_from(token) else {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.event, &mut count);
                continue;
            };
            if flags.contains(EventFlags::OUT) {
                self.watch(slot, EventFlags::IN)?;
                tell(slot, Arrival::Writable);
            }
            if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                continue;
            }
            // `tell` may have removed it.
            let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            match socket.read(&mut self.buffer) {
                Ok(0) => {
                    self.close(slot);
                    tell(slot, Arrival::Ended(None));
                }
                Ok(received) => tell(slot, Arrival::Octets(&self.buffer[..received])),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.close(slot);
                    tell(slot, Arrival::Ended(Some(error)));
                }
            }
        }
        self.events = events;
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::Event(self.event.clone())
    }
}
