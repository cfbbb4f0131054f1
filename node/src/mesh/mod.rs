//! Between threads: shard to shard (`ring`), control to shards (`log`), and when anybody sleeps (`wake`).
//!
//! The second and last room for unsafe code: `sync.rs` hands out two kinds of slice of shared memory, `ring.rs` argues who
//! may hold which. Atomics come through `sync.rs`, so that loom can try every order of events:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --profile fast -p slimline-node --lib mesh::models
//! cargo +nightly miri test -p slimline-node --lib mesh::
//! ```

mod log;
#[cfg(all(test, loom))]
mod models;
mod ring;
mod sync;
mod wake;

pub use log::{LOG_BATCHES_MAX, LogReader, LogWriter, delta_log};
pub use ring::{Class, Consumer, Full, Producer, RECORD_HEAD_OCTETS, Record, RingOptions, ring};
pub use wake::Doorbell;
