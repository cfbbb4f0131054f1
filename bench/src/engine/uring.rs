//! The door over io_uring, through the node's own: the same kernel interface on both sides, to compare engines with.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use slimline_node::io::{Block, Done, Ended, Engine, EngineChoice, Io, IoOptions, Key};

use super::{Arrival, Door, Outbox, Waker};

/// See the module.
pub(crate) struct Uring {
    io: Engine,
    done: VecDeque<Done>,
    /// Blocks that came back, for the next outbox.
    spare: Vec<Vec<u8>>,
    nodelay: bool,
    /// Sockets the ring still holds.
    open: u32,
}

/// How long the kernel may take to close what is left at the end.
const LEAVE: Duration = Duration::from_secs(1);

fn key(slot: u32) -> Key {
    Key { slot, generation: 0 } // a slot is used once in a run
}

impl Uring {
    /// Opens a ring; without `nodelay` Nagle's algorithm stays on.
    pub(crate) fn new(nodelay: bool) -> io::Result<Self> {
        let options = IoOptions { engine: EngineChoice::Uring, ..IoOptions::default() };
        let (io, _) = Engine::open(&options)?;
        Ok(Self { io, done: VecDeque::new(), spare: Vec::new(), nodelay, open: 0 })
    }

    fn complete(&mut self, done: Done, tell: &mut dyn FnMut(u32, Arrival<'_>)) {
        match done {
            Done::Received { key, lease } => {
                tell(key.slot, Arrival::Octets(self.io.octets(&lease)));
                self.io.put_back(lease);
            }
            Done::ReceiveEnded { key, why: Ended::NoBuffers } => self.io.receive(key),
            Done::ReceiveEnded { key, why: Ended::Eof } => tell(key.slot, Arrival::Ended(None)),
            Done::ReceiveEnded { key, why: Ended::Error(error) } => tell(key.slot, Arrival::Ended(Some(error))),
            Done::Sent { key, block, result: Ok(sent) } if sent < block.len() => {
                let (mut rest, _) = block.into_parts();
                rest.drain(..sent);
                self.io.send(key, Block::from(rest), 0);
            }
            Done::Sent { key, block, result } => {
                let (mut octets, _) = block.into_parts();
                octets.clear();
                self.spare.push(octets);
                match result {
                    Ok(_) => tell(key.slot, Arrival::Writable),
                    Err(error) => tell(key.slot, Arrival::Ended(Some(error))),
                }
            }
            Done::Closed { .. } => self.open -= 1,
            Done::ReceiveEnded { why: Ended::Cancelled, .. }
            | Done::Woken
            | Done::Connected { .. }
            | Done::Accepted { .. }
            | Done::AcceptFailed { .. } => {}
        }
    }
}

impl Door for Uring {
    fn adopt(&mut self, slot: u32, socket: TcpStream) -> io::Result<()> {
        let same = socket.try_clone()?;
        self.io.adopt(key(slot), OwnedFd::from(socket))?;
        self.open += 1;
        same.set_nodelay(self.nodelay)?; // taking it over switched Nagle's algorithm off
        self.io.receive(key(slot));
        Ok(())
    }

    fn remove(&mut self, slot: u32) {
        let _ = self.io.enter(Some(Duration::ZERO), &mut self.done); // last words are on their way before the close
        self.io.close(key(slot));
    }

    fn send(&mut self, slot: u32, out: &mut Outbox) -> io::Result<()> {
        if out.blocked || out.is_empty() {
            return Ok(());
        }
        let octets = std::mem::replace(&mut out.octets, self.spare.pop().unwrap_or_default());
        self.io.send(key(slot), Block::from(octets), std::mem::take(&mut out.from));
        out.blocked = true; // one send at a time; more may gather meanwhile
        Ok(())
    }

    fn wait(&mut self, wait: Duration, tell: &mut dyn FnMut(u32, Arrival<'_>)) -> io::Result<()> {
        let mut done = std::mem::take(&mut self.done);
        self.io.enter(Some(wait), &mut done)?;
        for one in done.drain(..) {
            self.complete(one, tell);
        }
        self.done = done;
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::Io(self.io.waker())
    }
}

impl Drop for Uring {
    /// A ring that is merely dropped leaves its sockets open for as long as the kernel takes to notice.
    fn drop(&mut self) {
        let start = Instant::now();
        let mut done = std::mem::take(&mut self.done);
        while self.open > 0 && start.elapsed() < LEAVE && self.io.enter(Some(LEAVE / 100), &mut done).is_ok() {
            done.drain(..).for_each(|one| self.complete(one, &mut |_, _| ()));
        }
    }
}
