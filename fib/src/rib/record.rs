//! The RIB's records, packed: a node may hold millions of each.

use crate::ConnId;
use crate::hash::{halves, low_half};
use crate::slab;
use slimline_wire::{ConnType, NameId};

/// Three components that some name begins with.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(super) struct PrefixRecord {
    pub(super) components: [u64; 3],
    /// Names under it; zero only in an empty place. The three top bits say which components' texts are kept.
    names_and_texts: u32,
}

impl PrefixRecord {
    pub(super) fn new(components: [u64; 3]) -> Self {
        Self { components, names_and_texts: 0 }
    }

    pub(super) fn names(&self) -> u32 {
        let Self { names_and_texts, .. } = *self;
        names_and_texts & (TEXT_BIT - 1)
    }

    pub(super) fn add_name(&mut self) {
        self.names_and_texts += 1;
    }

    pub(super) fn remove_name(&mut self) {
        self.names_and_texts -= 1;
    }

    pub(super) fn has_text(&self, component: usize) -> bool {
        self.names_and_texts & TEXT_BIT << component != 0
    }

    pub(super) fn has_all_texts(&self) -> bool {
        (0..3).all(|component| self.has_text(component))
    }

    pub(super) fn set_text(&mut self, component: usize) {
        self.names_and_texts |= TEXT_BIT << component;
    }
}

const TEXT_BIT: u32 = 1 << 29;

impl slab::Record for PrefixRecord {
    fn vacant(next: u32) -> Self {
        Self { components: [u64::from(next), 0, 0], names_and_texts: 0 }
    }

    fn next_vacant(&self) -> Option<u32> {
        let Self { components: [next, ..], names_and_texts } = *self;
        (names_and_texts == 0).then_some(low_half(next))
    }
}

/// An id under a prefix, with at least one route.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameRecord {
    id: [u64; 2],
    pub(super) prefix: u32,
    routes: u32,
}

/// Where a name's routes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Routes {
    /// The only one there is.
    Sole(u32),
    /// In the index of routes; this is where they are counted.
    Shared(u32),
}

impl NameRecord {
    pub(super) fn new(prefix: u32, id: NameId, route: u32) -> Self {
        Self { id: halves(id.0), prefix, routes: route }
    }

    pub(super) fn id(&self) -> NameId {
        NameId(u128::from(self.id[0]) << 64 | u128::from(self.id[1]))
    }

    pub(super) fn routes(&self) -> Routes {
        if self.routes & SHARED == 0 { Routes::Sole(self.routes) } else { Routes::Shared(self.routes & !SHARED) }
    }

    pub(super) fn share(&mut self, shared: u32) {
        self.routes = shared | SHARED;
    }
}

/// Set in the word that holds a name's routes if there may be several; indexes stay below.
const SHARED: u32 = 1 << 31;

impl slab::Record for NameRecord {
    fn vacant(next: u32) -> Self {
        Self { id: [0; 2], prefix: next, routes: u32::MAX }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.routes == u32::MAX).then_some(self.prefix)
    }
}

/// Routes of a name with several, by kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    pub(super) counts: [u32; 4],
}

impl slab::Record for Shared {
    fn vacant(next: u32) -> Self {
        Self { counts: [NONE, 0, 0, next] }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.counts[0] == NONE).then_some(self.counts[3])
    }
}

/// One name on one connection: at least one subscription.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(super) struct Route {
    /// The id of the first subscription; the others are [`Extra`]s.
    pub(super) subscription_id: u64,
    pub(super) name: u32,
    pub(super) conn: u32,
    /// Neighbours in the connection's list.
    pub(super) next: u32,
    pub(super) previous: u32,
    /// The first of the extras.
    pub(super) extra: u32,
}

impl slab::Record for Route {
    fn vacant(next: u32) -> Self {
        Self { subscription_id: 0, name: NONE, conn: next, next: NONE, previous: NONE, extra: NONE }
    }

    fn next_vacant(&self) -> Option<u32> {
        let Self { name, conn, .. } = *self;
        (name == NONE).then_some(conn)
    }
}

/// One more subscription of the same name on the same connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extra {
    pub(super) subscription_id: u64,
    pub(super) route: u32,
    /// Neighbours in the route's list.
    pub(super) next: u32,
    pub(super) previous: u32,
}

impl slab::Record for Extra {
    fn vacant(next: u32) -> Self {
        Self { subscription_id: 0, route: NONE, next, previous: NONE }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.route == NONE).then_some(self.next)
    }
}

/// A connection that has, or had, names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    /// `None` only in an empty place.
    pub(super) kind: Option<ConnType>,
    pub(super) is_gone: bool,
    /// The first of its routes.
    pub(super) route: u32,
    /// Its subscriptions.
    pub(super) records: u32,
    pub(super) names: u32,
    pub(super) aggregates: u32,
}

impl slab::Record for Conn {
    fn vacant(next: u32) -> Self {
        let id = ConnId { shard: 0, slot: 0, generation: 0 };
        Self { id, kind: None, is_gone: true, route: next, records: 0, names: 0, aggregates: 0 }
    }

    fn next_vacant(&self) -> Option<u32> {
        self.kind.is_none().then_some(self.route)
    }
}

/// No record.
pub(super) const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<PrefixRecord>() == 28 && size_of::<NameRecord>() == 24 && size_of::<Route>() == 28);
