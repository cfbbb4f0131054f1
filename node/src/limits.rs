//! Every bound of the node that is not the operator's to set, and the arithmetic between bounds.
//!
//! What an operator may want to change lives in `slimline_config` (`slimline.limits`, `servers[].slimline`).

use std::time::Duration;

/// Deltas a shard applies at the start of one turn.
pub(crate) const DELTAS_PER_TURN: usize = 2048;

/// Messages a shard takes from the other shards in one turn.
pub(crate) const MESH_PER_TURN: usize = 256;

/// Octets on their way to one shard from all the others, about: by so much a reader's queue may still grow after it has become
/// congested. No more than the default hard cap leaves above `high`; a single message larger than its pair's share passes.
pub(crate) const MESH_OCTETS_MAX: usize = 7 * 1024 * 1024;

/// Outputs one publish makes in one turn; a larger fan-out goes on in the next.
pub(crate) const OUTPUTS_PER_TURN: usize = 256;

/// Next hops that have just left, and are passed over in search of one that has not.
pub(crate) const CHOICES_MAX: usize = 1024;

/// Output of a shard that is worth a visit to the kernel even while there is more to read.
pub(crate) const FLUSH_OCTETS: usize = 64 * 1024;

/// The longest first message of a stream: a link negotiation with every text at its bound is far shorter.
pub(crate) const NEGOTIATION_OCTETS_MAX: u32 = 64 * 1024;

/// The longest message whose octets are waited for although it will be discarded; a longer announcement ends the stream,
/// because a link that has to be silent for gigabytes is as good as mute.
pub(crate) const DISCARDED_OCTETS_MAX: u32 = 64 * 1024 * 1024;

/// An incomplete message up to this length is waited for even when the node is over its memory budget.
pub(crate) const REASSEMBLY_SPARED_OCTETS: usize = 1024 * 1024;

/// What a transport, a connection and a name count for in the memory budget, besides what is queued; rounded up.
pub(crate) const TRANSPORT_OCTETS: usize = 8 * 1024;
pub(crate) const CONNECTION_OCTETS: usize = 4 * 1024;
pub(crate) const NAME_OCTETS: usize = 64;

/// A shard whose holdings changed by this much, or by less where the budget is small, tells the others.
pub(crate) const MEMORY_STEP_OCTETS: usize = 256 * 1024;

/// Octets of output a transport collects while a send is in flight; beyond it frames wait in their stream's own queue.
pub(crate) const FILL_OCTETS_MAX: usize = 256 * 1024;

/// A body from here on is gathered from memory that its sends share; a shorter one is copied into each block, because a
/// piece more costs the kernel as much as copying some KiB costs us: at 4 KiB gathering was 0.97 to 1.14 times the copy.
pub(crate) const GATHER_OCTETS_MIN: usize = 12 * 1024;

/// Shared memory a shard keeps for reuse: so many pieces, none with room for more than this.
pub(crate) const SPARE_SHARED_MAX: usize = 64;
pub(crate) const SPARE_SHARED_OCTETS_MAX: usize = 64 * 1024;

/// Pieces looked at, the last ones first, for one that fits a message.
pub(crate) const SPARE_SHARED_LOOKS: usize = 4;

/// Starved receives that are armed again in one turn. Armed all at once, a thousand would find the few buffers there are
/// gone and starve again, each at the cost of a completion.
pub(crate) const REARMS_PER_TURN: usize = 16;

/// Octets of answers, acknowledgements and windows that wait for one transport whose peer does not read; then it is reset.
pub(crate) const CONTROL_OCTETS_MAX: usize = 256 * 1024;

/// What a stream may add to a transport's output before the next stream has its go (deficit round robin).
pub(crate) const ROUND_OCTETS: usize = 16 * 1024;

/// Send blocks a shard keeps for reuse; more than this many idle ones go back to the allocator.
pub(crate) const SPARE_BLOCKS_MAX: usize = 64;

/// A send block that grew beyond this is not kept.
pub(crate) const SPARE_BLOCK_OCTETS_MAX: usize = 2 * FILL_OCTETS_MAX;

/// A transport that received less than this in a turn, and was sent nothing, is acknowledged at once (TCP_QUICKACK).
///
/// A sender with Nagle's algorithm holds the rest of a large message back until its last full frame is acknowledged, and the
/// kernel acknowledges by itself only after two segments, which on loopback are 128 KiB.
pub(crate) const QUICK_ACK_BELOW_OCTETS: usize = 128 * 1024;

/// How often queue ages and counters are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Finest step in which the age of queued octets is known.
pub(crate) const AGE_STEP: Duration = Duration::from_millis(20);

/// How long a transport that is being closed may take to send what it still holds.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// How long an engine gets to let go of a listener before its accept queue is emptied for the last time.
pub(crate) const GATE_PAUSE: Duration = Duration::from_millis(5);

/// Entries the RIB or a replica sweeps in one pass after a connection went.
pub(crate) const SWEEP_PER_PASS: usize = 512;

/// Batches of the delta log replicas may be behind while sweeping goes on.
pub(crate) const SWEEP_BATCHES_AHEAD: u64 = 2;

/// Requests the control thread handles before it publishes their deltas.
pub(crate) const REQUESTS_PER_PASS: usize = 4096;

const _: () = assert!(ROUND_OCTETS <= FILL_OCTETS_MAX, "one round must fit into a block");
