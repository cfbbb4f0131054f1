//! What changed in the RIB, as replicas hear of it.

use crate::ConnId;
use slimline_wire::{ConnType, Name};

/// How many batches of deltas a log has taken; a replica at version `v` has applied the first `v`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

/// One change. Applied in the order the RIB made them, replicas stay equal to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The first subscription of `conn` for `name`.
    Add {
        /// What is subscribed.
        name: Name,
        /// Who gets it from now on.
        conn: ConnId,
        /// What `conn` is to this node.
        kind: ConnType,
    },
    /// The last subscription of `conn` for `name` went.
    Remove {
        /// What was subscribed.
        name: Name,
        /// Who gets it no longer.
        conn: ConnId,
        /// What `conn` is to this node.
        kind: ConnType,
    },
    /// The connection departed: lookups skip it at once. Its names follow as [`Delta::Remove`]s, bit by bit.
    ConnGone {
        /// Who departed.
        conn: ConnId,
    },
    /// `conn` takes whatever has no better match under `aggregate`.
    AddAggregate {
        /// The leading components.
        aggregate: Aggregate,
        /// Who gets it.
        conn: ConnId,
        /// What `conn` is to this node.
        kind: ConnType,
    },
    /// Takes an aggregate back.
    RemoveAggregate {
        /// The leading components.
        aggregate: Aggregate,
        /// Who gets it no longer.
        conn: ConnId,
        /// What `conn` is to this node.
        kind: ConnType,
    },
}

/// A shorter prefix than a name's three components: `organisation/*` or `organisation/namespace/*`.
///
/// It has no form on the wire; configuration installs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aggregate {
    /// `organisation/*`
    Organisation([u64; 1]),
    /// `organisation/namespace/*`
    Namespace([u64; 2]),
}

const _: () = assert!(size_of::<Delta>() <= 80, "a batch of deltas is copied to nobody, but read by every shard");
