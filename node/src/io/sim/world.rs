//! What lies outside the shards: sockets as pairs of pipes, peers, the clock.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::options::IoOptions;
use super::{Dice, Faults, Sim};

/// A test's handle on the simulated network; clones are the same network.
#[derive(Clone)]
pub struct SimNet(pub(super) Rc<RefCell<World>>);

/// How many faults of each kind happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the chances in `Faults`")]
pub struct Injected {
    pub short_receive: u64,
    pub short_send: u64,
    pub late: u64,
    pub late_sent: u64,
    pub no_buffers: u64,
    pub cancel_race: u64,
    pub reset: u64,
    pub accept_error: u64,
    pub connect_error: u64,
    pub interrupted: u64,
    pub cq_overflow: u64,
}

impl Injected {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { short_receive, short_send, late, late_sent, no_buffers, .. } = self;
        let Self { cancel_race, reset, accept_error, connect_error, interrupted, cq_overflow, .. } = self;
        short_receive
            + short_send
            + late
            + late_sent
            + no_buffers
            + cancel_race
            + reset
            + accept_error
            + connect_error
            + interrupted
            + cq_overflow
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    pub(super) injected: Injected,
    pub(super) wires: Vec<Wire>,
    /// Stand-in descriptors given to shards and not adopted yet: number → our end and the wire.
    tokens: BTreeMap<RawFd, (UnixStream, Token)>,
    /// Callers waiting per door.
    pub(super) doors: Vec<VecDeque<usize>>,
    /// Wires dialled by shards, not yet fetched by the test.
    dialled: VecDeque<(SocketAddr, usize)>,
    /// When each shard has something late to say.
    pub(super) dues: Vec<Option<Instant>>,
}

#[derive(Clone, Copy)]
pub(super) enum Token {
    Wire(usize),
    Door(usize),
}

/// One connection: two pipes and how each side ended.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) to_shard: VecDeque<u8>,
    pub(super) to_peer: VecDeque<u8>,
    pub(super) peer: Side,
    pub(super) shard: Side,
    /// Nothing passes any more, both sides see an error.
    pub(super) reset: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    #[default]
    Open,
    /// Said FIN, still reads.
    Finished,
    Closed,
}

impl Wire {
    pub(super) fn room_to_peer(&self) -> usize {
        PIPE_OCTETS.saturating_sub(self.to_peer.len())
    }

    /// The shard's socket is gone. Unread octets, or `hard`, make it a reset.
    pub(super) fn close_shard(&mut self, hard: bool) {
        self.shard = Side::Closed;
        if hard || !self.to_shard.is_empty() {
            self.break_off();
        }
    }

    pub(super) fn break_off(&mut self) {
        self.reset = true;
        self.to_peer.clear();
        self.to_shard.clear();
    }
}

/// What a peer finds when it looks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSees {
    /// The connection is open.
    Open,
    /// The shard said FIN, and everything before it was read.
    Eof,
    /// The connection was reset.
    Reset,
}

impl SimNet {
    /// A network without peers, at some moment.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(World {
            now: Instant::now(),
            dice: Dice::new(seed),
            faults,
            injected: Injected::default(),
            wires: Vec::new(),
            tokens: BTreeMap::new(),
            doors: Vec::new(),
            dialled: VecDeque::new(),
            dues: Vec::new(),
        })))
    }

    /// A shard's fake kernel on this network.
    ///
    /// Errors: no memory, or no descriptor for its waker.
    pub fn engine(&self, options: &IoOptions) -> io::Result<Sim> {
        let index = self.world().dues.len();
        self.world().dues.push(None);
        Sim::new(self.clone(), index, options)
    }

    /// The virtual time; give it to shards as `now`.
    pub fn now(&self) -> Instant {
        self.world().now
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.world().now += by;
    }

    /// When the fake kernel has the next late completion, if any is planned.
    pub fn next_due(&self) -> Option<Instant> {
        self.world().dues.iter().flatten().min().copied()
    }

    /// Changes how often faults happen from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Stops every fault from here on, e.g. to let a run come to rest.
    pub fn heal(&self) {
        self.set_faults(Faults::NONE);
    }

    /// What went wrong so far.
    pub fn injected(&self) -> Injected {
        self.world().injected
    }

    /// A listening socket for [`super::super::Io::listen`], and the number to call it by.
    ///
    /// Errors: no descriptor is left for its stand-in.
    pub fn listener(&self) -> io::Result<(OwnedFd, usize)> {
        let mut world = self.world();
        let door = world.doors.len();
        world.doors.push(VecDeque::new());
        Ok((world.token(Token::Door(door))?, door))
    }

    /// A peer connects to a door; it waits there until the shard accepts.
    pub fn call(&self, door: usize) -> Endpoint {
        let mut world = self.world();
        let wire = world.wire();
        world.doors[door].push_back(wire);
        self.endpoint(wire)
    }

    /// A connected socket for [`super::super::Io::adopt`], and its peer.
    ///
    /// Errors: no descriptor is left for its stand-in.
    pub fn pair(&self) -> io::Result<(OwnedFd, Endpoint)> {
        let mut world = self.world();
        let wire = world.wire();
        Ok((world.token(Token::Wire(wire))?, self.endpoint(wire)))
    }

    /// The peer a shard dialled, oldest first.
    pub fn dialled(&self) -> Option<(SocketAddr, Endpoint)> {
        let (address, wire) = self.world().dialled.pop_front()?;
        Some((address, self.endpoint(wire)))
    }

    fn endpoint(&self, wire: usize) -> Endpoint {
        Endpoint { net: self.clone(), wire }
    }

    pub(super) fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }
}

impl World {
    fn wire(&mut self) -> usize {
        self.wires.push(Wire::default());
        self.wires.len() - 1
    }

    /// A descriptor that stands for a simulated socket: owners can hold, pass on and drop it like a real one.
    pub(super) fn token(&mut self, token: Token) -> io::Result<OwnedFd> {
        let (theirs, ours) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        let stale = self.tokens.insert(theirs.as_raw_fd(), (ours, token));
        if let Some((_, token)) = stale {
            self.dropped(token); // its number was free, so its owner had dropped it
        }
        Ok(theirs)
    }

    /// What a stand-in stands for; ends it.
    pub(super) fn redeem(&mut self, fd: &OwnedFd) -> Option<Token> {
        self.tokens.remove(&fd.as_raw_fd()).map(|(_, token)| token)
    }

    /// Sockets a shard dropped instead of adopting are closed.
    fn notice_dropped(&mut self) {
        let gone: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, (ours, _))| rustix::io::read(ours, &mut [0; 1]) == Ok(0))
            .map(|(fd, _)| *fd)
            .collect();
        for fd in gone {
            if let Some((_, token)) = self.tokens.remove(&fd) {
                self.dropped(token);
            }
        }
    }

    /// An `enter` begins; true = it comes back empty-handed.
    pub(super) fn interrupts(&mut self) -> bool {
        self.notice_dropped();
        let interrupts = self.dice.happens(self.faults.interrupted);
        self.injected.interrupted += u64::from(interrupts);
        interrupts
    }

    fn dropped(&mut self, token: Token) {
        match token {
            Token::Wire(wire) => self.wires[wire].close_shard(false),
            Token::Door(door) => self.shut(door),
        }
    }

    /// Nobody accepts here any more: who waits is reset.
    pub(super) fn shut(&mut self, door: usize) {
        for wire in std::mem::take(&mut self.doors[door]) {
            self.wires[wire].close_shard(true);
        }
    }

    /// A shard dials: the test finds the other end in [`SimNet::dialled`].
    pub(super) fn dial(&mut self, address: SocketAddr) -> usize {
        let wire = self.wire();
        self.dialled.push_back((address, wire));
        wire
    }

    /// Rolls for a moment at or after now.
    pub(super) fn moment(&mut self) -> Instant {
        let most = u64::try_from(self.faults.late_max.as_nanos()).unwrap_or(u64::MAX);
        if most > 0 && self.dice.happens(self.faults.late) {
            self.injected.late += 1;
            self.now + Duration::from_nanos(self.dice.roll() % most)
        } else {
            self.now
        }
    }

    /// Rolls for a share of `most`, all of it unless a fault makes it shorter; at least one.
    pub(super) fn share(&mut self, most: usize, chances: u32) -> (usize, bool) {
        if most > 1 && self.dice.happens(chances) { (1 + self.dice.below(most - 1), true) } else { (most, false) }
    }
}

/// A peer: the far end of one connection. Dropping it closes.
pub struct Endpoint {
    net: SimNet,
    wire: usize,
}

impl Endpoint {
    /// Sends as much as the pipe takes; returns how many octets that was.
    pub fn write(&self, octets: &[u8]) -> usize {
        self.with(|wire| {
            if wire.reset || wire.peer != Side::Open {
                return 0;
            }
            if wire.shard == Side::Closed {
                wire.break_off(); // nobody is there to take it
                return 0;
            }
            let count = octets.len().min(PIPE_OCTETS.saturating_sub(wire.to_shard.len()));
            wire.to_shard.extend(&octets[..count]);
            count
        })
    }

    /// Reads up to `most` octets that have arrived, appending to `out`; returns how many.
    pub fn read(&self, most: usize, out: &mut Vec<u8>) -> usize {
        self.with(|wire| {
            let count = most.min(wire.to_peer.len());
            out.extend(wire.to_peer.drain(..count));
            count
        })
    }

    /// Octets waiting to be read.
    pub fn readable(&self) -> usize {
        self.with(|wire| wire.to_peer.len())
    }

    /// Octets written that the shard has not received yet.
    pub fn unreceived(&self) -> usize {
        self.with(|wire| wire.to_shard.len())
    }

    /// Octets the pipe takes now.
    pub fn room(&self) -> usize {
        self.with(|wire| PIPE_OCTETS.saturating_sub(wire.to_shard.len()))
    }

    /// What the shard made of the connection.
    pub fn sees(&self) -> PeerSees {
        self.with(|wire| match wire.shard {
            _ if wire.reset => PeerSees::Reset,
            Side::Finished | Side::Closed if wire.to_peer.is_empty() => PeerSees::Eof,
            _ => PeerSees::Open,
        })
    }

    /// Says FIN, goes on reading.
    pub fn finish(&self) {
        self.with(|wire| wire.peer = wire.peer.max(Side::Finished));
    }

    /// Closes; with octets unread that is a reset.
    pub fn close(self) {}

    /// Resets the connection.
    pub fn reset(self) {
        self.with(Wire::break_off);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Wire) -> T) -> T {
        act(&mut self.net.world().wires[self.wire])
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.with(|wire| {
            wire.peer = Side::Closed;
            if !wire.to_peer.is_empty() {
                wire.break_off();
            }
        });
    }
}

/// Octets a pipe holds each way, like a socket buffer.
const PIPE_OCTETS: usize = 128 * 1024;
