//! Counters of one shard: plain words on the hot path, published by relaxed stores a few times a second.

use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one shard counted since it started.
        #[derive(Clone, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The published copy of [`Counters`]: one writer, any number of readers.
        #[derive(Debug, Default)]
        pub(crate) struct Published {
            $($name: AtomicU64,)*
        }

        impl Counters {
            /// Every counter with its name, in the order of declaration.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Adds another shard's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl Published {
            pub(crate) fn store(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
            }

            pub(crate) fn load(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// SLIM messages received whole.
    messages_in,
    /// SLIM messages queued towards connections of this shard.
    messages_out,
    /// Of those, messages whose body was gathered from memory several sends share.
    gathered_out,
    /// Times receiving ended for want of buffers and waited for its turn to be armed again.
    starved,
    /// Octets received from sockets.
    octets_in,
    /// Octets handed to sockets.
    octets_out,
    /// Publishes received.
    publishes,
    /// Subscribe requests received.
    subscribes,
    /// Unsubscribe requests received.
    unsubscribes,
    /// Subscription acknowledgements sent with success.
    acks_success,
    /// Subscription acknowledgements sent with an error text.
    acks_failure,
    /// Publishes nobody asked for.
    drop_no_route,
    /// Messages whose ttl ended here.
    drop_ttl,
    /// Messages whose header MAC was wrong or missing.
    drop_mac,
    /// Messages that could not be read, or lack what SLIM asks for.
    drop_malformed,
    /// Messages above `message_octets_max`.
    drop_oversize,
    /// Copies for a stalled connection.
    drop_stalled,
    /// Copies for a connection whose queue stands at its hard cap.
    drop_hard_cap,
    /// Copies for a congested connection while the node is over its memory budget.
    drop_memory,
    /// Copies still queued for a connection when it ended; of those the kernel had in part, at most this many.
    drop_disconnected,
    /// Copies for a next hop that went away before they were queued.
    drop_next_hop_gone,
    /// Messages for one whose next hop went away on the road between two shards, and that went to another who holds the name.
    rerouted,
    /// Links negotiated after the first message, acks nobody waits for, requests of connections that have left: read and
    /// ignored.
    ignored,
    /// Times a publisher's stream was parked behind a congested connection.
    parked_target,
    /// Times a publisher's stream waited for its own subscriptions to settle.
    parked_settle,
    /// Times a stream waited for a full ring between two shards.
    parked_mesh,
    /// Times a stream waited because too many of its requests were unacknowledged.
    parked_requests,
    /// Times a stream waited because the way to control was full.
    parked_control,
    /// Connections that became congested.
    congested,
    /// Connections that stalled.
    stalled,
    /// Connections cut because their oldest octet grew too old.
    cut,
    /// Connections ended for a large incomplete message while the node is over its memory budget.
    cut_memory,
    /// Times the listeners closed because the node was full.
    listeners_closed,
    /// Times they opened again.
    listeners_reopened,
    /// Transports accepted.
    transports_accepted,
    /// Transports that are gone.
    transports_closed,
    /// Transports ended because the peer broke HTTP/2 or a limit.
    transport_errors,
    /// Streams reset or refused for the peer's mistake.
    stream_errors,
    /// Streams refused because the shard has no room for another connection, or the node is over its memory budget.
    streams_refused,
    /// Connections that negotiated a link.
    links_up,
    /// Link negotiations refused.
    links_refused,
    /// Connections that ended.
    connections_ended,
    /// Transports closed because preface, request or negotiation took too long.
    deadlines_missed,
    /// Transports closed because a PING was not answered.
    keepalive_failures,
    /// Messages handed to other shards.
    mesh_out,
    /// Messages taken from other shards.
    mesh_in,
    /// Times TCP_QUICKACK was re-armed.
    quick_acks,
    /// Turns of the loop.
    turns,
    /// Completions taken from the kernel.
    completions,
    /// Sends submitted.
    sends,
    /// Sends the kernel took only in part.
    short_sends,
    /// Deltas applied to the replica.
    deltas,
    /// Transports reset because the peer does not read the answers it causes.
    unread_answers,
    /// Panics caught in one transport's receive step.
    panics,
}

/// Receive-to-send latency of forwarded messages, in nanoseconds; 1 ns … 60 s with two digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("bounds are in order")
}

/// What a shard answers when asked for its state.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which shard.
    pub shard: u16,
    /// Its counters now.
    pub counters: Counters,
    /// Receive-to-send latency, ns.
    pub latency: Histogram<u64>,
    /// Transports and connections it holds.
    pub transports: usize,
    /// Connections with a negotiated link.
    pub connections: usize,
    /// Names in its replica.
    pub names: usize,
    /// What the kernel door offers.
    pub io: String,
}
