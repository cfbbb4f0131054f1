//! The choice of engine a node makes at start.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::options::{EngineChoice, Features, IoCounters, IoOptions};
use super::{Block, Done, Epoll, Io, Key, Lease, Uring, Waker};

/// The engine a shard runs on. A shard is generic over [`Io`]; this is what production puts in.
#[expect(clippy::large_enum_variant, reason = "one per shard, made once")]
pub enum Engine {
    /// io_uring.
    Uring(Uring),
    /// epoll.
    Epoll(Epoll),
}

impl Engine {
    /// Opens the engine asked for, for the calling thread (a ring belongs to the thread that made it).
    ///
    /// Shape:  beside the engine comes the reason why io_uring was not taken though `Auto` would have liked it: the
    ///         caller warns once.
    /// Errors: the engine asked for is not available; the text names what is missing and what to do.
    pub fn open(options: &IoOptions) -> io::Result<(Self, Option<String>)> {
        if options.sqpoll || options.send_zc {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "sqpoll and send_zc are not built yet"));
        }
        let epoll = || Epoll::new(options).map(Self::Epoll);
        match options.engine {
            EngineChoice::Epoll => Ok((epoll()?, None)),
            EngineChoice::Uring => Ok((Self::Uring(Uring::new(options)?), None)),
            EngineChoice::Auto => match Uring::new(options) {
                Ok(engine) => Ok((Self::Uring(engine), None)),
                Err(reason) => Ok((epoll()?, Some(reason.to_string()))),
            },
        }
    }
}

/// Calls the same method on whichever engine it is.
macro_rules! either {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Self::Uring($engine) => $call,
            Self::Epoll($engine) => $call,
        }
    };
}

impl Io for Engine {
    fn listen(&mut self, listener: u32, socket: OwnedFd) {
        either!(self, engine => engine.listen(listener, socket));
    }
    fn accept(&mut self, listener: u32) {
        either!(self, engine => engine.accept(listener));
    }
    fn unlisten(&mut self, listener: u32) {
        either!(self, engine => engine.unlisten(listener));
    }
    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        either!(self, engine => engine.adopt(key, socket))
    }
    fn connect(&mut self, key: Key, address: SocketAddr) -> io::Result<()> {
        either!(self, engine => engine.connect(key, address))
    }
    fn receive(&mut self, key: Key) {
        either!(self, engine => engine.receive(key));
    }
    fn pause(&mut self, key: Key) {
        either!(self, engine => engine.pause(key));
    }
    fn send(&mut self, key: Key, block: Block, from: usize) {
        either!(self, engine => engine.send(key, block, from));
    }
    fn finish(&mut self, key: Key) {
        either!(self, engine => engine.finish(key));
    }
    fn quick_ack(&mut self, key: Key) {
        either!(self, engine => engine.quick_ack(key));
    }
    fn close(&mut self, key: Key) {
        either!(self, engine => engine.close(key));
    }
    fn reset(&mut self, key: Key) {
        either!(self, engine => engine.reset(key));
    }
    fn octets<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        either!(self, engine => engine.octets(lease))
    }
    fn octets_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        either!(self, engine => engine.octets_mut(lease))
    }
    fn put_back(&mut self, lease: Lease) {
        either!(self, engine => engine.put_back(lease));
    }
    fn enter(&mut self, wait: Option<Duration>, done: &mut VecDeque<Done>) -> io::Result<()> {
        either!(self, engine => engine.enter(wait, done))
    }
    fn waker(&self) -> Waker {
        either!(self, engine => engine.waker())
    }
    fn features(&self) -> Features {
        either!(self, engine => engine.features())
    }
    fn counters(&self) -> IoCounters {
        either!(self, engine => engine.counters())
    }
}
