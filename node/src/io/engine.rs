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

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes this thread's io_uring_setup fail with EPERM, as the seccomp profiles of containers do.
    fn deny_io_uring() {
        let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
        let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
        let step = |code: u32, jump_true, jump_false, k| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt: jump_true,
            jf: jump_false,
            k,
        };
        let mut filter = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the call's number
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: plain numbers; needed before an unprivileged thread may filter itself.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(result, 0);
        // SAFETY: the kernel copies the four steps `program` points to, which live across the call. Only this thread
        // is filtered, and it ends with the test.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        assert_eq!(result, 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn where_io_uring_is_denied_auto_takes_epoll_and_says_why() {
        std::thread::spawn(|| {
            deny_io_uring();
            let (engine, reason) = Engine::open(&IoOptions::small()).unwrap();
            assert!(matches!(engine, Engine::Epoll(_)));
            assert!(reason.unwrap().contains("seccomp"));
            let demanded = IoOptions { engine: EngineChoice::Uring, ..IoOptions::small() };
            let error = Engine::open(&demanded).err().expect("demanded and denied");
            assert!(error.to_string().contains("io_uring is denied"), "{error}");
        })
        .join()
        .unwrap();
    }
}
