//! The door over io_uring, through the node's own: the same kernel interface on both sides.
//!
//! A slot of ours is a seat of the engine's until the kernel has let go of the socket: whoever takes the slot next sits
//! elsewhere, and what still comes for the one who left reaches nobody.

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
    seats: Vec<Seat>,
    /// Seats nobody has.
    free: Vec<u32>,
    /// Where each slot sits.
    keys: Vec<Option<Key>>,
}

/// A socket the engine has, or had.
struct Seat {
    slot: u32,
    generation: u32,
    is_open: bool,
    /// What one who leaves has yet to say.
    last_words: Option<Outbox>,
}

/// How long the kernel may take to close what is left at the end.
const LEAVE: Duration = Duration::from_secs(1);

impl Uring {
    /// Opens a ring; without `nodelay` Nagle's algorithm stays on.
    pub(crate) fn new(nodelay: bool) -> io::Result<Self> {
        let options = IoOptions { engine: EngineChoice::Uring, ..IoOptions::default() };
        let (io, _) = Engine::open(&options)?;
        let (seats, free, keys) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { io, done: VecDeque::new(), spare: Vec::new(), nodelay, seats, free, keys })
    }

    /// A free seat's key for `slot`.
    fn sit(&mut self, slot: u32) -> Key {
        let seat = self.free.pop().unwrap_or_else(|| {
            self.seats.push(Seat { slot, generation: 0, is_open: false, last_words: None });
            self.seats.len() as u32 - 1
        });
        let row = &mut self.seats[seat as usize];
        row.slot = slot;
        Key { slot: seat, generation: row.generation }
    }

    /// The slot that sits there, if it has not left.
    fn slot(&self, key: Key) -> Option<u32> {
        let slot = self.seats[key.slot as usize].slot;
        (self.keys.get(slot as usize) == Some(&Some(key))).then_some(slot)
    }

    fn send_next(&mut self, key: Key, out: &mut Outbox) {
        let octets = out.take(self.spare.pop().unwrap_or_default());
        self.io.send(key, Block::from(octets), 0);
        out.blocked = true; // one send at a time; more may gather meanwhile
    }

    /// Sends the next of what one who leaves has to say; closes after the last.
    fn go_on_leaving(&mut self, key: Key) {
        let Some(mut out) = self.seats[key.slot as usize].last_words.take() else { return };
        if out.is_empty() && !out.blocked {
            return self.io.close(key);
        }
        if !out.blocked {
            self.send_next(key, &mut out);
        }
        self.seats[key.slot as usize].last_words = Some(out);
    }

    fn complete(&mut self, done: Done, tell: &mut dyn FnMut(u32, Arrival<'_>)) {
        match done {
            Done::Received { key, lease } => {
                if let Some(slot) = self.slot(key) {
                    tell(slot, Arrival::Octets(self.io.octets(&lease)));
                }
                self.io.put_back(lease);
            }
            Done::ReceiveEnded { key, why: Ended::NoBuffers } => self.io.receive(key),
            Done::ReceiveEnded { why: Ended::Cancelled, .. } => {}
            Done::ReceiveEnded { key, why } => {
                let error = if let Ended::Error(error) = why { Some(error) } else { None };
                if let Some(slot) = self.slot(key) {
                    tell(slot, Arrival::Ended(error));
                }
            }
            Done::Sent { key, block, result: Ok(sent) } if sent < block.len() => {
                let (mut rest, _) = block.into_parts();
                rest.drain(..sent);
                self.io.send(key, Block::from(rest), 0);
            }
            Done::Sent { key, block, result } => {
                let (mut octets, _) = block.into_parts();
                octets.clear();
                self.spare.push(octets);
                if let Some(slot) = self.slot(key) {
                    tell(slot, result.map_or_else(|error| Arrival::Ended(Some(error)), |_| Arrival::Writable));
                } else if let Some(out) = &mut self.seats[key.slot as usize].last_words {
                    match result {
                        Ok(_) => out.blocked = false,
                        Err(_) => *out = Outbox::default(),
                    }
                    self.go_on_leaving(key);
                }
            }
            Done::Closed { key } => {
                let seat = &mut self.seats[key.slot as usize];
                seat.is_open = false;
                seat.last_words = None;
                seat.generation = (seat.generation + 1) % Key::GENERATIONS;
                self.free.push(key.slot);
            }
            Done::Woken | Done::Connected { .. } | Done::Accepted { .. } | Done::AcceptFailed { .. } => {}
        }
    }
}

impl Door for Uring {
    fn adopt(&mut self, slot: u32, socket: TcpStream) -> io::Result<()> {
        // Taking it over switches Nagle's algorithm off.
        let same = if self.nodelay { None } else { Some(socket.try_clone()?) };
        let key = self.sit(slot);
        if let Err(error) = self.io.adopt(key, OwnedFd::from(socket)) {
            self.free.push(key.slot);
            return Err(error);
        }
        self.seats[key.slot as usize].is_open = true;
        if let Some(same) = same {
            same.set_nodelay(false)?;
        }
        if self.keys.len() <= slot as usize {
            self.keys.resize(slot as usize + 1, None);
        }
        self.keys[slot as usize] = Some(key);
        self.io.receive(key);
        Ok(())
    }

    fn leave(&mut self, slot: u32, out: &mut Outbox) {
        let Some(key) = self.keys.get_mut(slot as usize).and_then(Option::take) else { return };
        self.seats[key.slot as usize].last_words = Some(std::mem::take(out));
        self.go_on_leaving(key);
    }

    fn send(&mut self, slot: u32, out: &mut Outbox) -> io::Result<()> {
        if let Some(&Some(key)) = self.keys.get(slot as usize)
            && !out.blocked
            && !out.is_empty()
        {
            self.send_next(key, out);
        }
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
        for key in std::mem::take(&mut self.keys).into_iter().flatten() {
            self.io.close(key);
        }
        let start = Instant::now();
        let is_open = |seats: &[Seat]| seats.iter().any(|seat| seat.is_open);
        while is_open(&self.seats) && start.elapsed() < LEAVE {
            if self.wait(LEAVE / 100, &mut |_, _| ()).is_err() {
                return;
            }
        }
    }
}
