//! The engine for kernels and containers without io_uring: readiness and plain calls in the shape of completions.
//!
//! Sockets are watched edge-triggered once for their whole life; the engine remembers what is readable and writable
//! and tries only that.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, sockopt};

use super::options::{EngineKind, Features, IoCounters, IoOptions};
use super::packer::Packer;
use super::pool::Lease;
use super::socket::{self, Waker};
use super::token::{Op, Table, pack, unpack};
use super::{Block, Done, Ended, Io, Key};

/// The portable engine.
pub struct Epoll {
    poll: OwnedFd,
    waker: Waker,
    buffers: Packer,
    sockets: Table<Socket>,
    listeners: Vec<Option<OwnedFd>>,
    /// Sockets with something to try.
    work: VecDeque<Key>,
    /// Completions that needed no kernel.
    ready: VecDeque<Done>,
    events: Vec<epoll::Event>,
    counters: IoCounters,
}

struct Socket {
    fd: OwnedFd,
    readable: bool,
    writable: bool,
    /// The peer finished or failed: a short receive is not the last one.
    hung: bool,
    receiving: bool,
    /// `Cancelled` is still to be said.
    pausing: bool,
    sending: Option<(Block, usize)>,
    connecting: bool,
    queued: bool,
}

impl Epoll {
    /// Opens the engine for the calling thread.
    pub fn new(options: &IoOptions) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        let data = epoll::EventData::new_u64(pack(Op::Wake, Key { slot: 0, generation: 0 }));
        epoll::add(&poll, waker.fd(), data, epoll::EventFlags::IN)?;
        Ok(Self {
            poll,
            waker,
            buffers: Packer::new(options.recv_buf_count, options.recv_buf_octets)?,
            sockets: Table::new(),
            listeners: Vec::new(),
            work: VecDeque::new(),
            ready: VecDeque::new(),
            events: Vec::with_capacity(EVENTS_PER_ENTER),
            counters: IoCounters::default(),
        })
    }

    fn insert(&mut self, key: Key, fd: OwnedFd, connecting: bool) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(pack(Op::Socket, key));
        epoll::add(&self.poll, &fd, data, flags)?;
        self.counters.kernel_calls += 1;
        let socket = Socket {
            fd,
            // Edges from before the watch are lost: the first try finds out.
            readable: !connecting,
            writable: !connecting,
            hung: false,
            receiving: false,
            pausing: false,
            sending: None,
            connecting,
            queued: false,
        };
        self.sockets.insert(key, socket);
        Ok(())
    }

    fn queue(&mut self, key: Key) {
        let socket = self.sockets.live(key);
        if !socket.queued {
            socket.queued = true;
            self.work.push_back(key);
        }
    }

    /// Tries everything that is queued, once.
    fn work(&mut self, done: &mut VecDeque<Done>) {
        for _ in 0..self.work.len() {
            let Some(key) = self.work.pop_front() else { return };
            let Some(socket) = self.sockets.find(key) else { continue };
            socket.queued = false;
            if std::mem::take(&mut socket.pausing) {
                let why = Ended::Cancelled;
                done.push_back(Done::ReceiveEnded { key, why });
            }
            if socket.connecting && socket.writable {
                self.finish_connect(key, done);
            }
            self.try_send(key, done);
            if self.try_receive(key, done) {
                self.queue(key); // more is there: others first
            }
        }
    }

    fn finish_connect(&mut self, key: Key, done: &mut VecDeque<Done>) {
        let socket = self.sockets.live(key);
        socket.connecting = false;
        socket.readable = true;
        self.counters.kernel_calls += 1;
        let result = match sockopt::socket_error(&socket.fd) {
            Ok(result) => result,
            Err(error) => Err(error),
        };
        let result = result.map_err(io::Error::from);
        done.push_back(Done::Connected { key, result });
    }

    fn try_send(&mut self, key: Key, done: &mut VecDeque<Done>) {
        let socket = self.sockets.live(key);
        if !socket.writable || socket.connecting {
            return;
        }
        let Some((block, from)) = socket.sending.take() else { return };
        self.counters.kernel_calls += 1;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let (result, asked) = send_some(&socket.fd, &block, from, flags);
        let result = match result {
            Ok(octets) => {
                self.counters.octets_sent += octets as u64;
                self.counters.short_sends += u64::from(octets < asked);
                Ok(octets)
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                socket.writable = false;
                socket.sending = Some((block, from));
                return;
            }
            Err(error) => Err(error.into()),
        };
        self.counters.completions += 1;
        done.push_back(Done::Sent { key, block, result });
    }

    /// Receives what is there, up to a share; true = stopped at the share.
    fn try_receive(&mut self, key: Key, done: &mut VecDeque<Done>) -> bool {
        for _ in 0..RECEIVES_PER_VISIT {
            let socket = self.sockets.live(key);
            if !socket.receiving || !socket.readable || socket.connecting {
                return false;
            }
            let Some(spare) = self.buffers.room() else {
                socket.receiving = false;
                self.counters.enobufs += 1;
                let why = Ended::NoBuffers;
                done.push_back(Done::ReceiveEnded { key, why });
                return false;
            };
            let room = spare.len();
            self.counters.kernel_calls += 1;
            let why = match net::recv(&socket.fd, spare, RecvFlags::DONTWAIT) {
                Ok((0, _)) => Ended::Eof,
                Ok((octets, _)) => {
                    socket.readable = octets == room || socket.hung;
                    self.counters.completions += 1;
                    self.counters.octets_received += octets as u64;
                    let lease = self.buffers.lend(octets);
                    done.push_back(Done::Received { key, lease });
                    continue;
                }
                Err(Errno::AGAIN) => {
                    socket.readable = false;
                    return false;
                }
                Err(Errno::INTR) => continue,
                Err(error) => Ended::Error(error.into()),
            };
            socket.receiving = false;
            done.push_back(Done::ReceiveEnded { key, why });
            return false;
        }
        true
    }

    fn accept_some(&mut self, listener: u32, done: &mut VecDeque<Done>) {
        let Some(Some(fd)) = self.listeners.get(listener as usize) else { return };
        for _ in 0..ACCEPTS_PER_ENTER {
            self.counters.kernel_calls += 1;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match net::accept_with(fd, flags) {
                Ok(socket) => {
                    self.counters.completions += 1;
                    done.push_back(Done::Accepted { listener, socket });
                }
                Err(Errno::AGAIN) => return,
                Err(error) if socket::is_callers(error) => {}
                Err(error) => {
                    // Watched by level, it would wake us for ever: off until the owner asks again.
                    let _ = epoll::delete(&self.poll, fd);
                    let error = error.into();
                    done.push_back(Done::AcceptFailed { listener, error });
                    return;
                }
            }
        }
    }

    fn remove(&mut self, key: Key, reset: bool) {
        let Some(socket) = self.sockets.remove(key) else { return };
        if let Some((block, _)) = socket.sending {
            self.ready.push_back(Done::unsent(key, block));
        }
        if reset {
            socket::reset_on_close(socket.fd.as_fd());
        }
        self.counters.kernel_calls += 2;
        let _ = epoll::delete(&self.poll, &socket.fd);
        drop(socket.fd);
        self.ready.push_back(Done::Closed { key });
    }

    fn wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let timeout = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        self.events.clear();
        self.counters.kernel_calls += 1;
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.poll, events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, event: epoll::Event, done: &mut VecDeque<Done>) {
        let (flags, data) = (event.flags, event.data);
        match unpack(data.u64()) {
            Some((Op::Wake, _)) => {
                self.waker.clear();
                done.push_back(Done::Woken);
            }
            Some((Op::Accept, Key { slot, .. })) => self.accept_some(slot, done),
            Some((_, key)) => {
                // A socket closed a moment ago may still have an event in this very batch.
                let Some(socket) = self.sockets.find(key) else { return };
                let failed = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                let hung = failed || flags.contains(epoll::EventFlags::RDHUP);
                socket.hung |= hung;
                socket.readable |= hung || flags.contains(epoll::EventFlags::IN);
                socket.writable |= failed || flags.contains(epoll::EventFlags::OUT);
                self.queue(key);
            }
            None => {}
        }
    }
}

impl Io for Epoll {
    fn listen(&mut self, listener: u32, socket: OwnedFd) {
        let index = listener as usize;
        if index >= self.listeners.len() {
            self.listeners.resize_with(index + 1, || None);
        }
        assert!(self.listeners[index].is_none(), "listener {listener} is in use");
        self.listeners[index] = Some(socket);
        self.accept(listener);
    }

    fn accept(&mut self, listener: u32) {
        let Some(Some(fd)) = self.listeners.get(listener as usize) else {
            panic!("listener {listener} is not open here");
        };
        let key = Key { slot: listener, generation: 0 };
        let data = epoll::EventData::new_u64(pack(Op::Accept, key));
        self.counters.kernel_calls += 2;
        let armed =
            rustix::io::ioctl_fionbio(fd, true).and_then(|()| epoll::add(&self.poll, fd, data, epoll::EventFlags::IN));
        match armed {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                let error = error.into();
                self.ready.push_back(Done::AcceptFailed { listener, error });
            }
        }
    }

    fn unlisten(&mut self, listener: u32) {
        // Closing the only descriptor ends the watch as well.
        let fd = self.listeners.get_mut(listener as usize).and_then(Option::take);
        assert!(fd.is_some(), "listener {listener} is not open here");
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        socket::prepare(socket.as_fd())?;
        self.insert(key, socket, false)
    }

    fn connect(&mut self, key: Key, address: SocketAddr) -> io::Result<()> {
        let fd = socket::open(address)?;
        socket::prepare(fd.as_fd())?;
        let outcome = net::connect(&fd, &address);
        self.insert(key, fd, true)?;
        match outcome {
            // Done, or failed, at once: the watch sees it as writable and the socket knows which.
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => {
                self.sockets.live(key).connecting = false;
                let result = Err(error.into());
                self.ready.push_back(Done::Connected { key, result });
            }
        }
        Ok(())
    }

    fn receive(&mut self, key: Key) {
        let Some(socket) = self.sockets.find(key) else { return };
        socket.receiving = true;
        socket.pausing = false;
        if socket.readable {
            self.queue(key);
        }
    }

    fn pause(&mut self, key: Key) {
        let Some(socket) = self.sockets.find(key) else { return };
        if std::mem::take(&mut socket.receiving) {
            socket.pausing = true;
            self.queue(key);
        }
    }

    fn send(&mut self, key: Key, block: Block, from: usize) {
        assert!(from < block.len(), "nothing to send");
        let Some(socket) = self.sockets.find(key) else {
            return self.ready.push_back(Done::unsent(key, block));
        };
        assert!(socket.sending.is_none(), "{key:?} has a send in flight");
        socket.sending = Some((block, from));
        if socket.writable {
            self.queue(key);
        }
    }

    fn finish(&mut self, key: Key) {
        if let Some(socket) = self.sockets.find(key) {
            self.counters.kernel_calls += 1;
            socket::finish(socket.fd.as_fd());
        }
    }

    fn quick_ack(&mut self, key: Key) {
        if let Some(socket) = self.sockets.find(key) {
            self.counters.kernel_calls += 1;
            socket::quick_ack(socket.fd.as_fd());
        }
    }

    fn close(&mut self, key: Key) {
        self.remove(key, false);
    }

    fn reset(&mut self, key: Key) {
        self.remove(key, true);
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
        let before = done.len();
        self.work(done);
        done.append(&mut self.ready);
        let idle = done.len() == before && self.work.is_empty();
        self.wait(if idle { wait } else { Some(Duration::ZERO) })?;
        for index in 0..self.events.len() {
            self.note(self.events[index], done);
        }
        self.work(done);
        done.append(&mut self.ready);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn features(&self) -> Features {
        let pool = self.buffers.pool();
        let incremental = true; // receives pack buffers
        Features { incremental, ..Features::none(EngineKind::Epoll, pool.count(), pool.stride()) }
    }

    fn counters(&self) -> IoCounters {
        IoCounters { recv_bufs_lent: u64::from(self.buffers.pool().leases_out()), ..self.counters }
    }
}

/// One call's worth of a block; how much was taken of how much.
fn send_some(fd: &OwnedFd, block: &Block, from: usize, flags: SendFlags) -> (Result<usize, Errno>, usize) {
    if let Some(rest) = block.in_one_piece(from) {
        return (net::send(fd, rest, flags), rest.len());
    }
    let (mut slices, mut count, mut asked) = ([io::IoSlice::new(&[]); PIECES_MAX], 0, 0);
    for (slice, piece) in slices.iter_mut().zip(block.pieces(from)) {
        *slice = io::IoSlice::new(piece);
        count += 1;
        asked += piece.len();
    }
    (net::sendmsg(fd, &slices[..count], &mut net::SendAncillaryBuffer::default(), flags), asked)
}

/// Pieces of one gathered send; a block of more leaves in several.
const PIECES_MAX: usize = 64;
/// Events taken per `enter`; what does not fit comes with the next one.
const EVENTS_PER_ENTER: usize = 1024;
/// Receives from one socket before others have their turn.
const RECEIVES_PER_VISIT: usize = 8;
/// Callers accepted per listener and `enter`.
const ACCEPTS_PER_ENTER: usize = 64;
