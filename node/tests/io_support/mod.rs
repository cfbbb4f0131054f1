//! What the engine tests share: every rung of the ladder, and an owner small enough to read at a glance.
#![allow(dead_code, unreachable_pub, missing_docs)] // shared by several test binaries, each using a part

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use slimline_node::io::{Block, Disable, Done, Ended, Engine, EngineChoice, Io, IoOptions, Key};

/// Every way an engine can be put together, with small rings: (name, options).
pub fn rungs() -> Vec<(&'static str, IoOptions)> {
    let epoll = IoOptions { engine: EngineChoice::Epoll, ..IoOptions::small() };
    vec![
        ("epoll", epoll),
        ("best", disabled(|_| ())),
        ("no incremental buffers", disabled(|off| off.incremental = true)),
        ("no bundles", disabled(|off| (off.bundles, off.incremental) = (true, true))),
        ("no bundles, incremental", disabled(|off| off.bundles = true)),
        ("single shot", disabled(|off| (off.multishot, off.incremental) = (true, true))),
        ("single shot, incremental", disabled(|off| off.multishot = true)),
        ("no defer_taskrun", disabled(|off| off.defer_taskrun = true)),
        ("no registered files", disabled(|off| off.registered_files = true)),
    ]
}

/// Runs `check` on a fresh engine of every rung, saying which one it is at.
pub fn on_every_rung(check: impl Fn(Engine)) {
    on_every_rung_with(|options| options, check);
}

/// The same, with options changed by `adjust`.
pub fn on_every_rung_with(adjust: impl Fn(IoOptions) -> IoOptions, check: impl Fn(Engine)) {
    for (name, options) in rungs() {
        let (engine, _) = Engine::open(&adjust(options)).unwrap_or_else(|error| panic!("{name}: {error}"));
        eprintln!("-- {name}: {}", engine.features());
        check(engine);
    }
}

pub const fn key(slot: u32, generation: u32) -> Key {
    Key { slot, generation }
}

/// Enters until `until` is content with what came, or panics after ten seconds.
pub fn enter_until<I: Io>(io: &mut I, done: &mut VecDeque<Done>, mut until: impl FnMut(&VecDeque<Done>) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !until(done) {
        assert!(Instant::now() < deadline, "nothing more after ten seconds; so far {done:?}");
        io.enter(Some(Duration::from_millis(100)), done).unwrap();
    }
}

/// Enters until a completion fits `pick`; takes it out. Others stay in `done`.
pub fn wait_for<I: Io, T>(
    io: &mut I,
    done: &mut VecDeque<Done>,
    pick: impl Fn(&Done) -> bool,
    take: impl Fn(Done) -> T,
) -> T {
    enter_until(io, done, |done| done.iter().any(&pick));
    let index = done.iter().position(&pick).unwrap();
    take(done.remove(index).unwrap())
}

/// Enters until `count` octets came for `key`, putting the leases back.
pub fn read_exactly<I: Io>(io: &mut I, done: &mut VecDeque<Done>, from: Key, count: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    while octets.len() < count {
        wait_for(
            io,
            done,
            |d| matches!(d, Done::Received { key, .. } if *key == from),
            |d| {
                let Done::Received { lease, .. } = d else { unreachable!() };
                lease
            },
        )
        .with(|lease| {
            octets.extend_from_slice(io.octets(&lease));
            io.put_back(lease);
        });
    }
    octets
}

/// Calls a closure with self.
pub trait With: Sized {
    fn with<T>(self, call: impl FnOnce(Self) -> T) -> T {
        call(self)
    }
}
impl<T> With for T {}

/// Waits until `key` is closed, putting back what still comes; returns how the send in flight ended, if there was one.
pub fn close_and_wait<I: Io>(io: &mut I, done: &mut VecDeque<Done>, closing: Key) -> Option<std::io::Result<usize>> {
    io.close(closing);
    wait_closed(io, done, closing)
}

pub fn wait_closed<I: Io>(io: &mut I, done: &mut VecDeque<Done>, closing: Key) -> Option<std::io::Result<usize>> {
    wait_for(io, done, |d| matches!(d, Done::Closed { key } if *key == closing), drop);
    let mut sent = None;
    let mut rest = VecDeque::new();
    for d in done.drain(..) {
        match d {
            Done::Received { key, lease } if key == closing => io.put_back(lease),
            Done::ReceiveEnded { key, .. } if key == closing => {}
            Done::Sent { key, result, .. } if key == closing => sent = Some(result),
            other => rest.push_back(other),
        }
    }
    *done = rest;
    sent
}

/// Checks that an engine came to rest: nothing lent, nothing stale.
pub fn assert_quiet<I: Io>(io: &I) {
    let counters = io.counters();
    assert_eq!(counters.recv_bufs_lent, 0, "every lease was put back");
    assert_eq!(counters.stale, 0, "no completion came for an earlier life of a slot");
}

/// A connected pair: the node's end and the peer's.
pub fn tcp_pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (ours.into(), peer)
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A repeatable source of chunk sizes and octets (xorshift).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[3]).collect()
    }
}

/// An owner that sends back whatever comes, one send in flight per key, pausing a peer that does not read.
pub struct Echo<I: Io> {
    pub io: I,
    pub done: VecDeque<Done>,
    pub peers: BTreeMap<u32, Peer>,
    /// Keys whose receive ran out of buffers.
    starved: VecDeque<Key>,
    next_slot: u32,
    pub ended: usize,
    pub held_octets_max: usize,
}

#[derive(Debug, Default)]
pub struct Peer {
    pub waiting: Vec<u8>,
    pub sending: Option<usize>,
    pub paused: bool,
    pub eof: bool,
    pub closing: bool,
    generation: u32,
}

impl<I: Io> Echo<I> {
    pub const WAITING_MAX: usize = 64 * 1024;

    pub fn new(io: I) -> Self {
        Self {
            io,
            done: VecDeque::new(),
            peers: BTreeMap::new(),
            starved: VecDeque::new(),
            next_slot: 0,
            ended: 0,
            held_octets_max: 0,
        }
    }

    pub fn adopt(&mut self, socket: OwnedFd) -> Key {
        let slot = self.next_slot;
        self.next_slot += 1;
        let key = key(slot, slot % 5);
        self.io.adopt(key, socket).unwrap();
        self.io.receive(key);
        let generation = key.generation;
        self.peers.insert(slot, Peer { generation, ..Peer::default() });
        key
    }

    pub fn turn(&mut self, wait: Duration) {
        self.io.enter(Some(wait), &mut self.done).unwrap();
        while let Some(done) = self.done.pop_front() {
            self.take(done);
        }
        // One re-arm per turn is credit enough for a test.
        if let Some(key) = self.starved.pop_front()
            && self.peers.get(&key.slot).is_some_and(|peer| !peer.closing && !peer.paused)
        {
            self.io.receive(key);
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Accepted { socket, .. } => {
                self.adopt(socket);
            }
            Done::Received { key, lease } => {
                let peer = self.peers.get_mut(&key.slot).expect("a living peer");
                assert_eq!(peer.generation, key.generation);
                peer.waiting.extend_from_slice(self.io.octets(&lease));
                self.io.put_back(lease);
                self.held_octets_max = self.held_octets_max.max(peer.waiting.len());
                if peer.waiting.len() > Self::WAITING_MAX && !peer.paused {
                    peer.paused = true;
                    self.io.pause(key);
                }
                self.send(key);
            }
            Done::ReceiveEnded { key, why } => {
                let peer = self.peers.get_mut(&key.slot).expect("a living peer");
                match why {
                    Ended::NoBuffers => self.starved.push_back(key),
                    Ended::Cancelled => {} // a send that completed just before may have resumed it: the last call counts
                    Ended::Eof | Ended::Error(_) => peer.eof = true,
                }
                self.maybe_resume(key);
                self.maybe_close(key);
            }
            Done::Sent { key, block, result } => {
                let peer = self.peers.get_mut(&key.slot).expect("a living peer");
                let from = peer.sending.take().expect("a send in flight");
                match result {
                    Ok(octets) if from + octets < block.len() => {
                        peer.sending = Some(from + octets);
                        self.io.send(key, block, from + octets);
                    }
                    Ok(_) => {
                        self.send(key);
                        self.maybe_resume(key);
                        self.maybe_close(key);
                    }
                    Err(_) => {
                        peer.waiting.clear();
                        if !std::mem::replace(&mut peer.closing, true) {
                            self.io.close(key);
                        }
                    }
                }
            }
            Done::Closed { key } => {
                let peer = self.peers.remove(&key.slot).expect("closed once");
                assert!(peer.sending.is_none(), "the block came back before Closed");
                self.ended += 1;
            }
            Done::Woken => {}
            Done::AcceptFailed { listener, .. } => self.io.accept(listener),
            Done::Connected { .. } => panic!("unexpected {done:?}"),
        }
    }

    fn send(&mut self, key: Key) {
        let peer = self.peers.get_mut(&key.slot).expect("a living peer");
        if peer.sending.is_none() && !peer.waiting.is_empty() && !peer.closing {
            peer.sending = Some(0);
            let block = Block::from(std::mem::take(&mut peer.waiting));
            self.io.send(key, block, 0);
        }
    }

    fn maybe_resume(&mut self, key: Key) {
        let peer = self.peers.get_mut(&key.slot).expect("a living peer");
        if peer.paused && peer.waiting.len() < Self::WAITING_MAX / 2 && !peer.closing && !peer.eof {
            peer.paused = false;
            self.io.receive(key);
        }
    }

    fn maybe_close(&mut self, key: Key) {
        let peer = self.peers.get_mut(&key.slot).expect("a living peer");
        if peer.eof && peer.sending.is_none() && peer.waiting.is_empty() && !peer.closing {
            peer.closing = true;
            self.io.close(key);
        }
    }
}

pub fn disabled(adjust: impl Fn(&mut Disable)) -> IoOptions {
    let mut options = IoOptions { engine: EngineChoice::Uring, ..IoOptions::small() };
    adjust(&mut options.disable);
    options
}
