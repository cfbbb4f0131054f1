//! What a shard knows of its transports and connections.

pub(crate) mod age;
pub(crate) mod connection;
pub(crate) mod out_queue;
pub(crate) mod table;
pub(crate) mod transport;
