//! slimline: a SLIM messaging node. A forwarder of opaque ciphertext by name; it never reads a payload.
//!
//! ```text
//!  kernel ── io ─▶ conn::transport ─▶ wire::h2 events ─▶ wire::grpc messages ─▶ wire::message view (borrowed)
//!                                                                                     │ shard::receive
//!                                                          verify MAC · ttl-1 · name  │ shard::forward
//!                                                                                     ▼
//!  kernel ◀─ io ◀─ one send per transport per turn ◀─ shard::transmit ◀── fib: match_one / match_all (own replica)
//!                                                          ▲
//!                                              mesh: messages other shards matched to our connections
//! ```
//!
//! One shard is one thread with its own kernel door, connections, FIB replica and counters; `control` owns the RIB.
//! See ARCHITECTURE.md for the invariants.

mod conn;
mod control;
mod gate;
#[doc(hidden)]
pub mod hot;
pub mod io;
mod limits;
mod listen;
pub mod logging;
mod memory;
pub mod mesh;
mod node;
mod settings;
mod shard;
#[cfg(all(test, not(loom)))]
mod sim;

pub use control::stats;
pub use node::{Node, StartError, Vitals};
pub use shard::stats::{Counters, ShardReport};
