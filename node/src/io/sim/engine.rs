//! The shard's side of the fake kernel: [`Io`] over pipes, with faults.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::super::options::{EngineKind, Features, IoCounters, IoOptions};
use super::super::packer::Packer;
use super::super::pool::Lease;
use super::super::socket::Waker;
use super::super::token::Table;
use super::super::{Block, Done, Io, Key};
use super::SimNet;
use super::steps::{Sending, Socket, next_of, step_connect, step_receive, step_send};
use super::world::{Side, Token};

/// A shard's engine in the simulator.
pub struct Sim {
    net: SimNet,
    index: usize,
    buffers: Packer,
    sockets: Table<Socket>,
    /// Keys in `sockets`.
    keys: Vec<Key>,
    listeners: Vec<Option<Listener>>,
    /// Completions that need no chance.
    ready: VecDeque<Done>,
    /// Completions that found the queue full.
    overflown: VecDeque<Done>,
    waker: Waker,
    counters: IoCounters,
    /// Blocks that have not come home.
    blocks_out: usize,
    last_wait: Option<Duration>,
    /// Receives armed since the last `enter`, and the most there ever were between two.
    armed: usize,
    armed_most: usize,
}

struct Listener {
    door: usize,
    accepting: bool,
    due: Option<Instant>,
}

impl Sim {
    pub(super) fn new(net: SimNet, index: usize, options: &IoOptions) -> io::Result<Self> {
        Ok(Self {
            net,
            index,
            buffers: Packer::new(options.recv_buf_count, options.recv_buf_octets)?,
            sockets: Table::new(),
            keys: Vec::new(),
            listeners: Vec::new(),
            ready: VecDeque::new(),
            overflown: VecDeque::new(),
            waker: Waker::new()?,
            counters: IoCounters::default(),
            blocks_out: 0,
            last_wait: Some(Duration::ZERO),
            armed: 0,
            armed_most: 0,
        })
    }

    /// How long the shard wanted to wait in its last `enter`; `None` = until something happens.
    pub fn last_wait(&self) -> Option<Duration> {
        self.last_wait
    }

    /// The most receives the shard armed between two `enter`s; forgets them.
    pub fn take_armed_most(&mut self) -> usize {
        std::mem::take(&mut self.armed_most)
    }

    /// Sockets the shard has open.
    pub fn open_sockets(&self) -> usize {
        self.keys.len()
    }

    /// Panics unless the shard gave back and got back everything: no lease, no block, no socket is out.
    pub fn assert_quiet(&self) {
        assert_eq!(self.buffers.pool().leases_out(), 0, "leases not put back");
        assert_eq!(self.blocks_out, 0, "blocks still in the kernel");
        assert!(self.overflown.is_empty(), "completions still in the kernel");
        assert!(self.keys.is_empty(), "sockets still open: {:?}", self.keys);
    }

    fn insert(&mut self, key: Key, wire: usize, connecting: Option<Instant>) {
        let socket = Socket {
            wire,
            connecting,
            receiving: false,
            pausing: false,
            receive_due: None,
            sending: None,
            closing: None,
        };
        self.sockets.insert(key, socket);
        self.keys.push(key);
    }

    /// The socket of a key that is neither closing nor gone.
    fn open(&mut self, key: Key) -> Option<&mut Socket> {
        self.sockets.find(key).filter(|socket| socket.closing.is_none())
    }

    fn start_closing(&mut self, key: Key, hard: bool) {
        let due = self.net.world().moment();
        if let Some(socket) = self.open(key) {
            socket.closing = Some((due, hard));
        }
    }

    fn accept_some(&mut self, done: &mut VecDeque<Done>) {
        let mut world = self.net.world();
        let world = &mut *world;
        for (listener, row) in (0..).zip(&mut self.listeners) {
            let Some(row) = row.as_mut().filter(|row| row.accepting) else { continue };
            while !world.doors[row.door].is_empty() {
                let due = *row.due.get_or_insert_with(|| world.moment());
                if due > world.now {
                    break;
                }
                row.due = None;
                if world.dice.happens(world.faults.accept_error) {
                    world.injected.accept_error += 1;
                    row.accepting = false;
                    let error = io::Error::from_raw_os_error(libc::EMFILE);
                    done.push_back(Done::AcceptFailed { listener, error });
                    break;
                }
                let Some(wire) = world.doors[row.door].pop_front() else { break };
                let accepted = match world.token(Token::Wire(wire)) {
                    Ok(socket) => Done::Accepted { listener, socket },
                    Err(error) => Done::AcceptFailed { listener, error },
                };
                self.counters.completions += 1;
                done.push_back(accepted);
            }
        }
    }

    fn reset_some(&mut self) {
        let mut world = self.net.world();
        let world = &mut *world;
        for key in &self.keys {
            if world.dice.happens(world.faults.reset)
                && let Some(socket) = self.sockets.find(*key)
            {
                world.injected.reset += 1;
                world.wires[socket.wire].break_off();
            }
        }
    }

    /// Lets one thing happen on a socket, if one is due; true = something did.
    fn step(&mut self, key: Key, done: &mut VecDeque<Done>) -> bool {
        let Some(socket) = self.sockets.find(key) else { return false };
        let mut world = self.net.world();
        let world = &mut *world;
        let first_send = world.dice.happens(500);
        let happened = (first_send && step_send(key, socket, world, &mut self.counters, done))
            || step_connect(key, socket, world, done)
            || step_receive(key, socket, world, &mut self.buffers, &mut self.counters, done)
            || (!first_send && step_send(key, socket, world, &mut self.counters, done));
        if happened {
            self.blocks_out -= usize::from(matches!(done.back(), Some(Done::Sent { .. })));
            self.counters.completions += 1;
            return true;
        }
        if let Some((due, hard)) = socket.closing
            && due <= world.now
            && socket.sending.is_none()
        {
            world.wires[socket.wire].close_shard(hard);
            self.sockets.remove(key);
            self.keys.retain(|other| *other != key);
            done.push_back(Done::Closed { key });
            return true;
        }
        false
    }

    /// Keeps back some of what came now, by chance.
    fn overflow(&mut self, before: usize, done: &mut VecDeque<Done>) {
        let came = done.len() - before;
        let mut world = self.net.world();
        let chance = world.faults.cq_overflow;
        if came > 1 && world.dice.happens(chance) {
            world.injected.cq_overflow += 1;
            self.counters.cq_overflow += 1;
            let fit = 1 + world.dice.below(came - 1);
            self.overflown = done.split_off(before + fit);
        }
    }

    fn note_due(&mut self) {
        let (now, due) = (self.net.now(), self.next_event());
        // What is due by now waits for the next `enter`.
        self.net.world().dues[self.index] = due.filter(|due| *due > now);
    }

    /// When the next `enter` has something to find, as far as is decided: by now means at once, `None` means not before
    /// a peer or the shard does something.
    pub fn next_event(&self) -> Option<Instant> {
        let world = self.net.world();
        if !self.overflown.is_empty() {
            return Some(world.now);
        }
        let listeners = self
            .listeners
            .iter()
            .flatten()
            .filter(|row| row.accepting && !world.doors[row.door].is_empty())
            .map(|row| row.due.unwrap_or(world.now));
        let sockets = self.keys.iter().filter_map(|key| next_of(self.sockets.get(*key)?, &world));
        listeners.chain(sockets).min()
    }
}

impl Io for Sim {
    fn listen(&mut self, listener: u32, socket: OwnedFd) {
        let Some(Token::Door(door)) = self.net.world().redeem(&socket) else {
            panic!("not a listening socket of the simulation");
        };
        let index = listener as usize;
        if index >= self.listeners.len() {
            self.listeners.resize_with(index + 1, || None);
        }
        assert!(self.listeners[index].is_none(), "listener {listener} is in use");
        self.listeners[index] = Some(Listener { door, accepting: true, due: None });
    }

    fn accept(&mut self, listener: u32) {
        let row = self.listeners.get_mut(listener as usize).and_then(Option::as_mut);
        let Some(row) = row else { panic!("listener {listener} is not open here") };
        row.accepting = true;
    }

    fn unlisten(&mut self, listener: u32) {
        let row = self.listeners.get_mut(listener as usize).and_then(Option::take);
        let Some(row) = row else { panic!("listener {listener} is not open here") };
        self.net.world().shut(row.door);
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        let Some(Token::Wire(wire)) = self.net.world().redeem(&socket) else {
            panic!("not a connected socket of the simulation");
        };
        self.insert(key, wire, None);
        Ok(())
    }

    fn connect(&mut self, key: Key, address: SocketAddr) -> io::Result<()> {
        let mut world = self.net.world();
        let wire = world.dial(address);
        let due = world.moment();
        drop(world);
        self.insert(key, wire, Some(due));
        Ok(())
    }

    fn receive(&mut self, key: Key) {
        let Some(socket) = self.open(key) else { return };
        let is_new = !std::mem::replace(&mut socket.receiving, true);
        socket.pausing = false;
        self.armed += usize::from(is_new);
        self.armed_most = self.armed_most.max(self.armed);
    }

    fn pause(&mut self, key: Key) {
        if let Some(socket) = self.open(key) {
            socket.pausing |= std::mem::take(&mut socket.receiving);
        }
    }

    fn send(&mut self, key: Key, block: Block, from: usize) {
        assert!(from < block.len(), "nothing to send");
        let due = self.net.world().moment();
        let Some(socket) = self.open(key) else {
            return self.ready.push_back(Done::unsent(key, block));
        };
        assert!(socket.sending.is_none(), "{key:?} has a send in flight");
        let taken = None;
        socket.sending = Some(Sending { block, from, due, taken });
        self.blocks_out += 1;
    }

    fn finish(&mut self, key: Key) {
        if let Some(wire) = self.open(key).map(|socket| socket.wire) {
            let side = &mut self.net.world().wires[wire].shard;
            *side = (*side).max(Side::Finished);
        }
    }

    fn quick_ack(&mut self, _key: Key) {}

    fn close(&mut self, key: Key) {
        self.start_closing(key, false);
    }

    fn reset(&mut self, key: Key) {
        self.start_closing(key, true);
    }

    fn octets<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        self.buffers.pool().octets(lease)
    }

    fn octets_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        self.buffers.pool_mut().octets_mut(lease)
    }

    fn put_back(&mut self, lease: Lease) {
        self.buffers.put_back(lease);
    }

    fn enter(&mut self, wait: Option<Duration>, done: &mut VecDeque<Done>) -> io::Result<()> {
        self.counters.enters += 1;
        self.armed = 0;
        self.last_wait = wait;
        if self.net.world().interrupts() {
            return Ok(());
        }
        let before = done.len();
        done.append(&mut self.overflown);
        if self.waker.clear() {
            done.push_back(Done::Woken);
        }
        done.append(&mut self.ready);
        self.accept_some(done);
        self.reset_some();
        for _ in 0..STEPS_PER_ENTER {
            let mut keys = self.keys.clone();
            self.net.world().dice.shuffle(&mut keys);
            let mut happened = false;
            for key in keys {
                happened |= self.step(key, done);
            }
            if !happened {
                break;
            }
        }
        self.overflow(before, done);
        self.note_due();
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn features(&self) -> Features {
        let pool = self.buffers.pool();
        Features::none(EngineKind::Sim, pool.count(), pool.stride())
    }

    fn counters(&self) -> IoCounters {
        IoCounters { recv_bufs_lent: u64::from(self.buffers.pool().leases_out()), ..self.counters }
    }
}

/// Events of one socket in one `enter` at most.
const STEPS_PER_ENTER: usize = 8;
