//! The kernel as a shard sees it: operations go in, completions come out.
//!
//! ```text
//!  shard ── receive · send · close ──▶ Io ──▶ enter ──▶ one visit to the kernel
//!  shard ◀── Received · Sent · Closed ────────┘
//! ```
//!
//! Three engines speak this one shape: [`Uring`] (the product), [`Epoll`] (anywhere io_uring is denied) and [`sim`]
//! (a seeded fake kernel for the simulator). An engine belongs to the thread that made it and never blocks outside
//! [`Io::enter`]. All of the project's unsafe code towards the kernel is in this folder.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

mod block;
mod buf_ring;
mod engine;
mod epoll;
mod memory;
mod options;
mod packer;
mod pool;
pub mod sim;
mod socket;
mod token;
mod uring;

pub use block::{Block, Body, Shared};
pub use engine::Engine;
pub use epoll::Epoll;
pub use options::{Disable, EngineChoice, EngineKind, Features, IoCounters, IoOptions};
pub use pool::Lease;
pub use socket::{Waker, bind};
pub use uring::Uring;

/// What an operation is about: a slot of the owner's table, and which life of that slot.
///
/// Shape:  travels through the kernel as 64 bits: operation u8, generation u24, slot u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Index into the owner's table; engines keep a table of the same length, so slots should be dense.
    pub slot: u32,
    /// The life of the slot, below 2^24; the owner counts it up (wrapping) when it reuses a slot.
    pub generation: u32,
}

impl Key {
    /// Generations count modulo this.
    pub const GENERATIONS: u32 = 1 << 24;
}

/// Why nothing more is received until the owner asks again.
#[derive(Debug)]
pub enum Ended {
    /// The peer finished sending.
    Eof,
    /// Every receive buffer is lent out; put leases back, then call [`Io::receive`] again.
    NoBuffers,
    /// [`Io::pause`] took effect. Whoever called [`Io::receive`] after it, before hearing this, is receiving again: the last
    /// call counts.
    Cancelled,
    /// The socket failed.
    Error(io::Error),
}

/// Something the kernel finished.
#[derive(Debug)]
pub enum Done {
    /// A caller came in; `adopt` it on this or another shard's engine, or drop it.
    Accepted {
        /// As given to [`Io::listen`].
        listener: u32,
        /// Connected, non-blocking, close-on-exec.
        socket: OwnedFd,
    },
    /// Accepting failed (EMFILE, ENFILE, …) and is off until [`Io::accept`].
    AcceptFailed {
        /// As given to [`Io::listen`].
        listener: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// Octets arrived. Several come in a row, in stream order, when they span buffers.
    Received {
        /// Whose.
        key: Key,
        /// Where they lie; goes back by [`Io::put_back`].
        lease: Lease,
    },
    /// Receiving is off; [`Io::receive`] arms it again.
    ReceiveEnded {
        /// Whose.
        key: Key,
        /// And why.
        why: Ended,
    },
    /// A send ended and its block comes back. Short sends happen: the owner sends the rest.
    Sent {
        /// Whose.
        key: Key,
        /// The block given to [`Io::send`].
        block: Block,
        /// Octets the kernel took.
        result: io::Result<usize>,
    },
    /// [`Io::connect`] ended; after an error the slot still wants [`Io::close`].
    Connected {
        /// Whose.
        key: Key,
        /// Connected, or why not.
        result: io::Result<()>,
    },
    /// Nothing of this key is left in the kernel and no further completion names it: the slot may be reused.
    Closed {
        /// Whose.
        key: Key,
    },
    /// Somebody used the [`Waker`]; once per `enter` however often.
    Woken,
}

impl Done {
    /// A block that was not sent comes back.
    fn unsent(key: Key, block: Block) -> Self {
        let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
        Self::Sent { key, block, result }
    }
}

/// A shard's completion-shaped way into the kernel.
///
/// What a peer or the kernel can cause comes out as [`Done`]. A key that is closing or closed may still be named, for
/// the owner may learn of an end late: nothing happens then, and a block comes straight back. Misuse that only our own
/// code can commit (a second send in flight, a slot adopted twice) panics.
pub trait Io {
    /// Takes a listening socket and starts accepting from it. `listener` names it in completions: small and dense.
    fn listen(&mut self, listener: u32, socket: OwnedFd);

    /// Starts accepting again after [`Done::AcceptFailed`].
    fn accept(&mut self, listener: u32);

    /// Stops accepting and closes the listening socket. Callers already accepted may still come out.
    fn unlisten(&mut self, listener: u32);

    /// Takes a connected socket: makes it non-blocking, sets TCP_NODELAY, registers it. Starts nothing.
    ///
    /// Errors: whatever registering said (out of memory, a limit); the socket is closed, the slot stays free.
    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()>;

    /// Opens a TCP socket to `address` under this key; [`Done::Connected`] says how it went. The deadline is the
    /// owner's: `close` cancels.
    ///
    /// Errors: no socket could be made; the slot stays free.
    fn connect(&mut self, key: Key, address: SocketAddr) -> io::Result<()>;

    /// Receives until [`Done::ReceiveEnded`]. Does nothing while receiving is on; takes a `pause` back that has not
    /// taken effect (its `Cancelled` then never comes).
    fn receive(&mut self, key: Key);

    /// Ends receiving: [`Ended::Cancelled`] follows, or another reason that was first. Octets on their way still
    /// come before it. Does nothing while receiving is off.
    fn pause(&mut self, key: Key);

    /// Sends what is behind the first `from` octets of the block, which must not be nothing; bodies are gathered, not
    /// copied. At most one send in flight per key.
    fn send(&mut self, key: Key, block: Block, from: usize);

    /// Tells the peer that nothing more will be sent (FIN after what was sent); receiving goes on.
    ///
    /// A polite end is `finish`, receive until `Eof` or a deadline, `close`: closing with unread octets in the
    /// socket resets the connection and may cost the peer our last words.
    fn finish(&mut self, key: Key);

    /// Acknowledges at once what was received (TCP_QUICKACK, which the kernel forgets again and again).
    fn quick_ack(&mut self, key: Key);

    /// Cancels what is pending and closes. Later `enter`s report at most one `Sent` (the block comes home), then
    /// `Closed`, and nothing else of this key. Leases the owner still holds stay valid until it puts them back.
    fn close(&mut self, key: Key);

    /// [`Io::close`], but the peer sees a reset and unsent octets are thrown away.
    fn reset(&mut self, key: Key);

    /// The octets of a lease.
    fn octets<'a>(&'a self, lease: &'a Lease) -> &'a [u8];

    /// The octets of a lease, to decrypt in place.
    fn octets_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8];

    /// Gives a piece of receive buffer back.
    fn put_back(&mut self, lease: Lease);

    /// Submits what was asked for and takes what is complete, appending to `done` (which should be reused).
    ///
    /// Waits at most `wait` for something to happen; `None` waits for ever, zero only looks. Returns early on a
    /// signal, then possibly with nothing.
    /// Errors: the engine is broken (a bug or a revoked permission); the shard cannot go on.
    fn enter(&mut self, wait: Option<Duration>, done: &mut VecDeque<Done>) -> io::Result<()>;

    /// A handle with which other threads make a waiting `enter` return [`Done::Woken`].
    fn waker(&self) -> Waker;

    /// What is on here; its `Display` is one line.
    fn features(&self) -> Features;

    /// Counts since the start.
    fn counters(&self) -> IoCounters;
}
