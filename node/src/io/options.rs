//! What an engine may use, what it found, and what it counted.

use std::fmt;

/// Which engine to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or an error that says what is missing.
    Uring,
    /// epoll.
    Epoll,
}

/// Kernel features not to use even where they exist: every rung of the ladder can be run on one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disable {
    /// One receive completion spans several buffers.
    pub bundles: bool,
    /// One armed receive or accept yields many completions.
    pub multishot: bool,
    /// Completion work runs only inside `enter`.
    pub defer_taskrun: bool,
    /// Rings message each other (no engine uses it yet).
    pub msg_ring: bool,
    /// Sockets are registered with the ring.
    pub registered_files: bool,
    /// A receive buffer is filled by several receives, one after the other.
    pub incremental: bool,
}

/// How an engine is made.
#[derive(Clone, Copy, Debug)]
pub struct IoOptions {
    /// Which engine.
    pub engine: EngineChoice,
    /// Submission queue, in entries; a power of two.
    pub ring_entries: u32,
    /// Completion queue, in entries; a power of two.
    pub cq_entries: u32,
    /// Receive buffers of this shard; a power of two, at most 32768.
    pub recv_buf_count: u16,
    /// Octets of one receive buffer.
    pub recv_buf_octets: u32,
    /// Sockets that can be registered; later ones work unregistered. Bounded by RLIMIT_NOFILE too.
    pub registered_files: u32,
    /// What to leave off.
    pub disable: Disable,
    /// A kernel thread takes submissions (not built yet: costs 1.2–2.7 times the CPU where cores are shared).
    pub sqpoll: bool,
    /// Sends without copying (not built yet: slower on loopback).
    pub send_zc: bool,
}

impl Default for IoOptions {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            ring_entries: 4096,
            cq_entries: 16384,
            recv_buf_count: 64,
            recv_buf_octets: 65536,
            registered_files: 16384,
            disable: Disable::default(),
            sqpoll: false,
            send_zc: false,
        }
    }
}

impl IoOptions {
    /// Small rings and buffers, for tests: fits many engines under a locked-memory limit of 8 MiB.
    pub fn small() -> Self {
        Self {
            ring_entries: 64,
            cq_entries: 256,
            recv_buf_count: 8,
            recv_buf_octets: 4096,
            registered_files: 64,
            ..Self::default()
        }
    }
}

/// Which engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// io_uring.
    Uring,
    /// epoll and plain calls.
    Epoll,
    /// The simulator's fake kernel.
    Sim,
}

/// What an engine uses here. `Display` is the line printed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Which engine.
    pub engine: EngineKind,
    /// One receive completion spans several buffers.
    pub bundles: bool,
    /// One armed receive yields many completions.
    pub multishot: bool,
    /// A receive buffer is filled by several receives.
    pub incremental: bool,
    /// Completion work runs only inside `enter`.
    pub defer_taskrun: bool,
    /// Else: completion work runs at the next kernel entry, without interrupting.
    pub coop_taskrun: bool,
    /// The ring's own descriptor is registered.
    pub registered_ring: bool,
    /// Sockets that can be registered; 0 = off.
    pub registered_files: u32,
    /// Submission queue, in entries, as granted.
    pub ring_entries: u32,
    /// Completion queue, in entries, as granted.
    pub cq_entries: u32,
    /// Receive buffers.
    pub recv_buf_count: u16,
    /// Octets of one receive buffer.
    pub recv_buf_octets: u32,
}

impl Features {
    /// Everything off: what engines start from.
    pub(super) fn none(engine: EngineKind, recv_buf_count: u16, recv_buf_octets: u32) -> Self {
        Self {
            engine,
            bundles: false,
            multishot: false,
            incremental: false,
            defer_taskrun: false,
            coop_taskrun: false,
            registered_ring: false,
            registered_files: 0,
            ring_entries: 0,
            cq_entries: 0,
            recv_buf_count,
            recv_buf_octets,
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match self.engine {
            EngineKind::Uring => "io_uring",
            EngineKind::Epoll => "epoll",
            EngineKind::Sim => "sim",
        };
        f.write_str(engine)?;
        f.write_str(" (")?;
        let on = [
            (self.bundles, "bundles"),
            (self.multishot, "multishot"),
            (self.incremental, "incremental buffers"),
            (self.defer_taskrun, "defer_taskrun"),
            (self.coop_taskrun, "coop_taskrun"),
            (self.registered_ring, "registered ring"),
            (self.registered_files > 0, "registered files"),
        ];
        for (_, name) in on.into_iter().filter(|(on, _)| *on) {
            write!(f, "{name}, ")?;
        }
        if self.ring_entries > 0 {
            write!(f, "sq {}, cq {}, ", self.ring_entries, self.cq_entries)?;
        }
        write!(f, "{} x {} KiB receive)", self.recv_buf_count, self.recv_buf_octets / 1024)
    }
}

/// Counts since the engine was made; `recv_bufs_lent` is a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Calls of `enter`.
    pub enters: u64,
    /// Kernel calls made for them, and for registering and socket options.
    pub kernel_calls: u64,
    /// Completions taken from the kernel.
    pub completions: u64,
    /// Octets received.
    pub octets_received: u64,
    /// Octets the kernel took from us.
    pub octets_sent: u64,
    /// Receives that found every buffer lent out.
    pub enobufs: u64,
    /// Times the completion queue was found overflown.
    pub cq_overflow: u64,
    /// Times the submission queue was full and had to be submitted early.
    pub sq_full: u64,
    /// Sends that took less than they were given.
    pub short_sends: u64,
    /// Completions for a slot's earlier life: filtered out, and never expected.
    pub stale: u64,
    /// Leases lent out right now.
    pub recv_bufs_lent: u64,
}
