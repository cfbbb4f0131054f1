//! Names → next hops. [`Rib`] is the truth, owned by the control thread; every change to it is a [`Delta`];
//! each shard applies the deltas to its own [`Fib`] and looks names up there, without lock or allocation.
//!
//! Start reading at `trie.rs` (what a lookup does), then `rib.rs` (what a subscription does). See README.md.
#![forbid(unsafe_code)]

mod conn;
mod delta;
pub mod dump;
mod hash;
mod hops;
mod index;
mod rib;
mod slab;
mod text;
mod trie;

#[cfg(feature = "testing")]
pub mod testing;

pub use conn::ConnId;
pub use delta::{Aggregate, Delta, Version};
pub use hops::MatchFilter;
pub use rib::{AGGREGATES_MAX, Change, Record, Rib, RibError, RibLimits, Swept};
pub use trie::{FanoutCursor, Fib};
