//! A seeded fake kernel: whole shards run on it, in virtual time, against peers that a test writes and reads.
//!
//! ```text
//!  test ── Endpoint::write ──▶ World (pipes, clock, dice) ──▶ Sim: Io ──▶ shard
//!  test ◀── Endpoint::read ───┘            ▲                         │
//!                                           └──── send · close ◀─────┘
//! ```
//!
//! One seed is one run. What a real kernel may do it does more often: short sends and receives, completions that come
//! late and in another order between sockets, no buffers, cancels that lose the race, resets at any moment, accept
//! errors, a completion queue that overflows. `enter` never blocks: when every shard has nothing to do, the test moves the clock to the earliest of
//! [`SimNet::next_due`], the shards' timers and its own plans.

mod dice;
mod engine;
mod steps;
mod world;

pub use dice::Dice;
pub use engine::Sim;
pub use world::{Endpoint, Injected, PeerSees, SimNet};

use std::time::Duration;

/// How often each fault happens, in chances of a thousand per occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A receive brings less than is there.
    pub short_receive: u32,
    /// A send takes less than there is room for.
    pub short_send: u32,
    /// A completion comes later than it could.
    pub late: u32,
    /// How much later at most.
    pub late_max: Duration,
    /// A send's octets travel at once, but its completion comes late.
    pub late_sent: u32,
    /// Receiving ends for want of buffers although there are some.
    pub no_buffers: u32,
    /// What a cancel was for happens first.
    pub cancel_race: u32,
    /// The network resets the connection; rolled once per socket and `enter`.
    pub reset: u32,
    /// Accepting fails with EMFILE.
    pub accept_error: u32,
    /// A dialled peer refuses.
    pub connect_error: u32,
    /// `enter` comes back with nothing although there is something, as after a signal.
    pub interrupted: u32,
    /// The completion queue overflows: what does not fit stays with the kernel until the next `enter`.
    pub cq_overflow: u32,
}

impl Faults {
    /// A perfect kernel.
    pub const NONE: Self = Self {
        short_receive: 0,
        short_send: 0,
        late: 0,
        late_max: Duration::ZERO,
        late_sent: 0,
        no_buffers: 0,
        cancel_race: 0,
        reset: 0,
        accept_error: 0,
        connect_error: 0,
        interrupted: 0,
        cq_overflow: 0,
    };

    /// Everything that loses nothing: whoever stays connected gets every octet.
    pub const HARMLESS: Self = Self {
        short_receive: 300,
        short_send: 300,
        late: 300,
        late_max: Duration::from_millis(5),
        late_sent: 300,
        no_buffers: 50,
        cancel_race: 500,
        reset: 0,
        accept_error: 50,
        connect_error: 0,
        interrupted: 50,
        cq_overflow: 100,
    };

    /// Everything.
    pub const ALL: Self = Self { reset: 2, connect_error: 200, ..Self::HARMLESS };
}
