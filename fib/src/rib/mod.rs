//! The truth: who subscribed what, as which subscription, in which words.

mod error;
mod record;

pub(crate) use error::IdText;
pub use error::RibError;

use crate::hash::{Keyed, halves, random_seed};
use crate::index::Index;
use crate::slab::Slab;
use crate::text::Texts;
use crate::{Aggregate, ConnId, Delta};
use record::{Conn, Extra, NONE, NameRecord, PrefixRecord, Route, Routes, Shared};
use slimline_wire::{ConnType, Name, NameId, Prefix};
use std::collections::{BTreeMap, VecDeque};

/// How much a RIB may hold. A name counts once for each subscription of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RibLimits {
    /// In the whole node.
    pub names_max: usize,
    /// On one connection.
    pub names_per_connection_max: usize,
}

impl Default for RibLimits {
    fn default() -> Self {
        Self { names_max: 2_000_000, names_per_connection_max: 1_100_000 }
    }
}

/// What a request changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name got its first route of this kind, or lost its last one: peers want to know.
    ///
    /// Source: slim-wire §5.3.
    pub transition: bool,
}

/// What one pass of [`Rib::sweep`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Subscriptions taken away.
    pub records: usize,
    /// Connections of which nothing is left: their slots may be used again.
    pub done: Vec<ConnId>,
    /// Names that lost their last route of any kind: peers want to know.
    pub withdrawn: Vec<Name>,
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// What is subscribed.
    pub name: Name,
    /// By whom.
    pub conn: ConnId,
    /// What that is to this node.
    pub kind: ConnType,
    /// The number the subscriber gave it.
    pub subscription_id: u64,
}

/// Every subscription of the node. One owner, the control thread; what it changes goes out as [`Delta`]s.
#[derive(Debug)]
pub struct Rib {
    limits: RibLimits,
    hash: Keyed,
    prefix_index: Index,
    prefixes: Slab<PrefixRecord>,
    name_index: Index,
    names: Slab<NameRecord>,
    /// Routes by name and connection, of names that have several.
    route_index: Index,
    routes: Slab<Route>,
    shared: Slab<Shared>,
    extra_index: Index,
    extras: Slab<Extra>,
    texts: Texts,
    conns: Slab<Conn>,
    seats: Vec<Vec<Seat>>,
    /// Departed connections whose records are still to be swept.
    gone: VecDeque<u32>,
    aggregates: BTreeMap<(Aggregate, ConnId), ConnType>,
}

/// The last user of a slot.
#[derive(Clone, Copy, Debug)]
struct Seat {
    /// `None`: never used.
    generation: Option<u32>,
    /// Its record, until it is swept.
    conn: u32,
}

impl Rib {
    /// An empty RIB.
    #[must_use]
    pub fn new(limits: RibLimits) -> Self {
        Self::with_seed(limits, random_seed())
    }

    /// An empty RIB whose hash key is known: for tests that must repeat.
    #[must_use]
    pub fn with_seed(limits: RibLimits, seed: u64) -> Self {
        Self {
            limits,
            hash: Keyed::new(seed),
            prefix_index: Index::new(),
            prefixes: Slab::new(),
            name_index: Index::new(),
            names: Slab::new(),
            route_index: Index::new(),
            routes: Slab::new(),
            shared: Slab::new(),
            extra_index: Index::new(),
            extras: Slab::new(),
            texts: Texts::new(seed),
            conns: Slab::new(),
            seats: Vec::new(),
            gone: VecDeque::new(),
            aggregates: BTreeMap::new(),
        }
    }

    /// Records one subscription. The same again changes nothing and succeeds.
    ///
    /// `text` is kept as far as it is the text of the name's components, else they are shown as hex.
    ///
    /// Errors: [`RibError::TooManyNames`]; [`RibError::ConnGone`] for a connection that has departed.
    /// Source: slim-wire §5.3.
    pub fn subscribe(
        &mut self,
        conn: ConnId,
        kind: ConnType,
        name: Name,
        text: Option<[&str; 3]>,
        subscription_id: u64,
        out: &mut Vec<Delta>,
    ) -> Result<Change, RibError> {
        let known_conn = self.find_conn(conn)?;
        let prefix = self.find_prefix(&name.prefix);
        let found = prefix.and_then(|prefix| self.find_name(prefix, name.id));
        let route = known_conn.zip(found).and_then(|(conn, name)| self.find_route(name, conn));
        if let Some(route) = route
            && self.has_record(route, subscription_id)
        {
            return Ok(Change { transition: false });
        }
        self.check_limits(known_conn)?;

        let conn_index = known_conn.unwrap_or_else(|| self.sit(conn, kind));
        let kind = self.kind_of_record(conn_index);
        self.conns.get_mut(conn_index).records += 1;
        if let Some(route) = route {
            self.add_extra(route, subscription_id);
            return Ok(Change { transition: false });
        }
        let prefix = prefix.unwrap_or_else(|| self.add_prefix(&name.prefix));
        self.keep_texts(prefix, text);
        let route = self.add_route(conn_index, subscription_id);
        let transition = match found {
            None => {
                let name_index = self.names.insert(NameRecord::new(prefix, name.id, route));
                self.name_index.insert(self.name_tag(prefix, name.id), name_index);
                self.prefixes.get_mut(prefix).add_name();
                self.routes.get_mut(route).name = name_index;
                true
            }
            Some(name_index) => self.share_name(name_index, route, kind),
        };
        out.push(Delta::Add { name, conn, kind });
        Ok(Change { transition })
    }

    /// Takes one subscription back.
    ///
    /// Shape:  lenient where SDKs and peers are known to ask with the wrong number: a subscription replayed with id 0 goes
    ///         when its name is unsubscribed with any id, and a Peer's unknown id takes all it has of that name.
    /// Errors: the three of slim-wire §5.5, checked in its order.
    /// Source: slim-wire §5.3, §5.5 (id 0), §7 (a).
    pub fn unsubscribe(
        &mut self,
        conn: ConnId,
        kind: ConnType,
        name: Name,
        subscription_id: u64,
        out: &mut Vec<Delta>,
    ) -> Result<Change, RibError> {
        let prefix = self.find_prefix(&name.prefix).ok_or(RibError::PrefixUnknown)?;
        let name_index = self.find_name(prefix, name.id).ok_or(RibError::IdUnknown { id: name.id })?;
        let unknown = RibError::SubscriptionUnknown { subscription_id };
        let conn_index = self.find_conn(conn)?.ok_or(unknown)?;
        let route = self.find_route(name_index, conn_index).ok_or(unknown)?;
        let subscription_id = [subscription_id, 0].into_iter().find(|&id| self.has_record(route, id));
        let is_left = match subscription_id {
            Some(id) => self.remove_record(route, id),
            None if kind == ConnType::Peer => {
                while self.remove_any_record(route) {}
                false
            }
            None => return Err(unknown),
        };
        let transition = !is_left && self.remove_route(route, out).transition;
        Ok(Change { transition })
    }

    /// The connection departed. One delta, whatever it held; [`Rib::sweep`] takes its names away afterwards.
    pub fn disconnect(&mut self, conn: ConnId, out: &mut Vec<Delta>) {
        let index = match self.find_conn(conn) {
            Ok(Some(index)) => index,
            Ok(None) => self.sit(conn, ConnType::Edge), // it held nothing; the slot must know its generation is over
            Err(_) => return,
        };
        self.conns.get_mut(index).is_gone = true;
        self.gone.push_back(index);
        out.push(Delta::ConnGone { conn });
    }

    /// Takes away up to `entries_max` subscriptions of departed connections, and tells replicas to do the same.
    ///
    /// Shape:  a departed connection with few names does not wait for one with a million: they take turns.
    ///         After a connection shows up in [`Swept::done`] its slot may be used again; every replica hears of the last
    ///         removal before it can hear of the slot's next user.
    pub fn sweep(&mut self, entries_max: usize, out: &mut Vec<Delta>) -> Swept {
        let mut swept = Swept::default();
        let mut budget = entries_max;
        while budget > 0
            && let Some(index) = self.gone.pop_front()
        {
            let before = swept.records;
            let is_done = self.sweep_conn(index, budget.min(SWEEP_SHARE), &mut swept, out);
            budget -= (swept.records - before).max(1); // one that held nothing costs a step too
            if is_done {
                swept.done.push(self.leave(index, out));
            } else {
                self.gone.push_back(index);
            }
        }
        swept
    }

    /// Whether departed connections still have records.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        self.gone.is_empty()
    }

    /// Directs whatever has no better match under `aggregate` to `conn`; for configuration, not for the wire.
    ///
    /// Errors: as [`Rib::subscribe`], and at most [`AGGREGATES_MAX`] of them.
    pub fn add_aggregate(
        &mut self,
        conn: ConnId,
        kind: ConnType,
        aggregate: Aggregate,
        out: &mut Vec<Delta>,
    ) -> Result<(), RibError> {
        let known_conn = self.find_conn(conn)?;
        if self.aggregates.contains_key(&(aggregate, conn)) {
            return Ok(());
        }
        if self.aggregates.len() >= AGGREGATES_MAX {
            return Err(RibError::TooManyNames { limit: AGGREGATES_MAX });
        }
        let index = known_conn.unwrap_or_else(|| self.sit(conn, kind));
        self.conns.get_mut(index).aggregates += 1;
        let kind = self.kind_of_record(index);
        self.aggregates.insert((aggregate, conn), kind);
        out.push(Delta::AddAggregate { aggregate, conn, kind });
        Ok(())
    }

    /// Takes an aggregate back; whether it was there.
    pub fn remove_aggregate(&mut self, conn: ConnId, aggregate: Aggregate, out: &mut Vec<Delta>) -> bool {
        let Ok(Some(index)) = self.find_conn(conn) else { return false };
        let Some(kind) = self.aggregates.remove(&(aggregate, conn)) else { return false };
        self.conns.get_mut(index).aggregates -= 1;
        out.push(Delta::RemoveAggregate { aggregate, conn, kind });
        true
    }
}

/// Looking at it.
impl Rib {
    /// Distinct names.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// Subscriptions, which is what the limits count.
    #[must_use]
    pub fn records_count(&self) -> usize {
        self.routes.len() + self.extras.len()
    }

    /// Names `conn` holds.
    #[must_use]
    pub fn names_count_of(&self, conn: ConnId) -> usize {
        self.conn_record(conn).map_or(0, |conn| conn.names as usize)
    }

    /// The names `conn` holds, the newest first.
    pub fn names_of(&self, conn: ConnId) -> impl Iterator<Item = Name> + '_ {
        let mut next = self.conn_record(conn).map_or(NONE, |conn| conn.route);
        std::iter::from_fn(move || {
            let route = (next != NONE).then(|| self.routes.get(next))?;
            next = route.next;
            Some(self.name_at(route.name))
        })
    }

    /// Every subscription, in no particular order; departed connections' included until they are swept.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let of_route = |route: &Route, subscription_id| {
            let conn = self.conns.get(route.conn);
            let kind = conn.kind.expect("routes belong to connections");
            Record { name: self.name_at(route.name), conn: conn.id, kind, subscription_id }
        };
        let firsts = self.routes.iter().map(move |route| of_route(route, route.subscription_id));
        let others = self.extras.iter();
        firsts.chain(others.map(move |extra| of_route(self.routes.get(extra.route), extra.subscription_id)))
    }

    /// What people call these components, as far as anybody told.
    #[must_use]
    pub fn text_of(&self, prefix: &Prefix) -> [Option<&str>; 3] {
        prefix.0.map(|component| self.texts.get(component))
    }

    /// Texts kept, each once.
    #[must_use]
    pub fn texts_count(&self) -> usize {
        self.texts.len()
    }

    fn name_at(&self, index: u32) -> Name {
        let name = self.names.get(index);
        Name { prefix: Prefix(self.prefixes.get(name.prefix).components), id: name.id() }
    }

    fn conn_record(&self, conn: ConnId) -> Option<&Conn> {
        let seat = self.seats.get(usize::from(conn.shard))?.get(conn.slot as usize)?;
        (seat.conn != NONE).then(|| self.conns.get(seat.conn)).filter(|record| record.id == conn)
    }
}

/// Connections.
impl Rib {
    /// The record of `conn`; `None` if it has none yet.
    fn find_conn(&self, conn: ConnId) -> Result<Option<u32>, RibError> {
        let Some(seat) = self.seats.get(usize::from(conn.shard)).and_then(|seats| seats.get(conn.slot as usize)) else {
            return Ok(None);
        };
        match seat.generation {
            None => Ok(None),
            Some(generation) if generation == conn.generation => {
                let is_gone = seat.conn == NONE || self.conns.get(seat.conn).is_gone;
                if is_gone { Err(RibError::ConnGone { conn }) } else { Ok(Some(seat.conn)) }
            }
            Some(generation) if !conn.is_later_than(generation) => Err(RibError::ConnGone { conn }),
            Some(_) if seat.conn != NONE => Err(RibError::SlotNotSwept { conn }),
            Some(_) => Ok(None),
        }
    }

    /// Gives `conn` a record; [`Rib::find_conn`] said that it may have one.
    fn sit(&mut self, conn: ConnId, kind: ConnType) -> u32 {
        assert!(conn.shard < ConnId::SHARDS_MAX && conn.slot < ConnId::SLOTS_MAX, "{conn} is out of bounds");
        let kind = Some(kind);
        let index = self.conns.insert(Conn {
            id: conn,
            kind,
            is_gone: false,
            route: NONE,
            records: 0,
            names: 0,
            aggregates: 0,
        });
        let (shard, slot) = (usize::from(conn.shard), conn.slot as usize);
        if self.seats.len() <= shard {
            self.seats.resize_with(shard + 1, Vec::new);
        }
        let seats = &mut self.seats[shard];
        if seats.len() <= slot {
            seats.resize(slot + 1, Seat { generation: None, conn: NONE });
        }
        seats[slot] = Seat { generation: Some(conn.generation), conn: index };
        index
    }

    /// Forgets a departed connection; its generation is remembered.
    fn leave(&mut self, index: u32, out: &mut Vec<Delta>) -> ConnId {
        let record = self.conns.remove(index);
        let conn = record.id;
        if record.aggregates > 0 {
            self.aggregates.retain(|&(aggregate, owner), &mut kind| {
                let is_its = owner == conn;
                if is_its {
                    out.push(Delta::RemoveAggregate { aggregate, conn, kind });
                }
                !is_its
            });
        }
        self.seats[usize::from(conn.shard)][conn.slot as usize].conn = NONE;
        conn
    }

    fn kind_of_record(&self, conn: u32) -> ConnType {
        self.conns.get(conn).kind.expect("a record in use")
    }

    fn check_limits(&self, conn: Option<u32>) -> Result<(), RibError> {
        let limit = self.limits.names_per_connection_max;
        if conn.map_or(0, |conn| self.conns.get(conn).records as usize) >= limit {
            return Err(RibError::TooManyNames { limit });
        }
        let limit = self.limits.names_max;
        if self.records_count() >= limit {
            return Err(RibError::TooManyNames { limit });
        }
        Ok(())
    }

    /// Takes up to `records_max` subscriptions from a departed connection; true if none is left.
    fn sweep_conn(&mut self, index: u32, records_max: usize, swept: &mut Swept, out: &mut Vec<Delta>) -> bool {
        for _ in 0..records_max {
            let route = self.conns.get(index).route;
            if route == NONE {
                return true;
            }
            swept.records += 1;
            if !self.remove_any_record(route) {
                let removed = self.remove_route(route, out);
                swept.withdrawn.extend(removed.withdrawn);
            }
        }
        self.conns.get(index).route == NONE
    }
}

/// What taking a route away meant for its name.
struct Removed {
    transition: bool,
    withdrawn: Option<Name>,
}

/// Prefixes, names and routes.
impl Rib {
    fn find_prefix(&self, prefix: &Prefix) -> Option<u32> {
        self.prefix_index.find(self.hash.tag(prefix.0), |index| {
            let PrefixRecord { components, .. } = *self.prefixes.get(index);
            components == prefix.0
        })
    }

    fn find_name(&self, prefix: u32, id: NameId) -> Option<u32> {
        self.name_index.find(self.name_tag(prefix, id), |index| {
            let name = self.names.get(index);
            name.prefix == prefix && name.id() == id
        })
    }

    fn find_route(&self, name: u32, conn: u32) -> Option<u32> {
        let is_it = |route: u32| {
            let Route { name: its_name, conn: its_conn, .. } = *self.routes.get(route);
            its_name == name && its_conn == conn
        };
        match self.names.get(name).routes() {
            Routes::Sole(route) => is_it(route).then_some(route),
            Routes::Shared(_) => self.route_index.find(self.route_tag(name, conn), is_it),
        }
    }

    fn name_tag(&self, prefix: u32, id: NameId) -> u32 {
        let [high, low] = halves(id.0);
        self.hash.tag([u64::from(prefix), high, low])
    }

    fn route_tag(&self, name: u32, conn: u32) -> u32 {
        self.hash.tag([u64::from(name), u64::from(conn)])
    }

    fn add_prefix(&mut self, prefix: &Prefix) -> u32 {
        let index = self.prefixes.insert(PrefixRecord::new(prefix.0));
        self.prefix_index.insert(self.hash.tag(prefix.0), index);
        index
    }

    fn keep_texts(&mut self, prefix: u32, text: Option<[&str; 3]>) {
        let Some(text) = text else { return };
        let record = self.prefixes.get_mut(prefix);
        if record.has_all_texts() {
            return;
        }
        let components = record.components;
        for (at, (component, text)) in components.into_iter().zip(text).enumerate() {
            if !record.has_text(at) && self.texts.keep(component, text) {
                record.set_text(at);
            }
        }
    }

    /// Puts a new route at the head of its connection's list; its name is still to be set.
    fn add_route(&mut self, conn: u32, subscription_id: u64) -> u32 {
        let next = self.conns.get(conn).route;
        let route =
            self.routes.insert(Route { subscription_id, name: NAME_TO_COME, conn, next, previous: NONE, extra: NONE });
        if next != NONE {
            self.routes.get_mut(next).previous = route;
        }
        let record = self.conns.get_mut(conn);
        record.route = route;
        record.names += 1;
        route
    }

    /// Adds a route to a name that has one already; true if it is its first of this kind.
    fn share_name(&mut self, name: u32, route: u32, kind: ConnType) -> bool {
        let shared = match self.names.get(name).routes() {
            Routes::Shared(shared) => shared,
            Routes::Sole(there) => {
                let there_conn = self.routes.get(there).conn;
                let mut counts = [0; 4];
                counts[self.kind_of_record(there_conn) as usize] = 1;
                let shared = self.shared.insert(Shared { counts });
                self.names.get_mut(name).share(shared);
                self.route_index.insert(self.route_tag(name, there_conn), there);
                shared
            }
        };
        let conn = self.routes.get(route).conn;
        self.routes.get_mut(route).name = name;
        self.route_index.insert(self.route_tag(name, conn), route);
        let count = &mut self.shared.get_mut(shared).counts[kind as usize];
        *count += 1;
        *count == 1
    }

    /// Takes a route away whose last record is gone.
    fn remove_route(&mut self, index: u32, out: &mut Vec<Delta>) -> Removed {
        let route = self.routes.remove(index);
        let conn = *self.conns.get(route.conn);
        let kind = self.kind_of_record(route.conn);
        if route.next != NONE {
            self.routes.get_mut(route.next).previous = route.previous;
        }
        match route.previous {
            NONE => self.conns.get_mut(route.conn).route = route.next,
            previous => self.routes.get_mut(previous).next = route.next,
        }
        self.conns.get_mut(route.conn).names -= 1;

        let name = self.name_at(route.name);
        out.push(Delta::Remove { name, conn: conn.id, kind });
        let transition = match self.names.get(route.name).routes() {
            Routes::Sole(_) => true,
            Routes::Shared(shared) => {
                let removed = self.route_index.remove(self.route_tag(route.name, route.conn), index);
                debug_assert!(removed, "the routes of a shared name are indexed");
                let counts = &mut self.shared.get_mut(shared).counts;
                counts[kind as usize] -= 1;
                let (is_last_of_kind, is_last) = (counts[kind as usize] == 0, *counts == [0; 4]);
                if !is_last {
                    return Removed { transition: is_last_of_kind, withdrawn: None };
                }
                self.shared.remove(shared);
                true
            }
        };
        self.remove_name(route.name);
        Removed { transition, withdrawn: Some(name) }
    }

    fn remove_name(&mut self, index: u32) {
        let name = self.names.remove(index);
        let removed = self.name_index.remove(self.name_tag(name.prefix, name.id()), index);
        debug_assert!(removed, "every name is indexed");
        // The place of a prefix without names is empty, so its components and texts are read before the last one goes.
        let prefix = *self.prefixes.get(name.prefix);
        if prefix.names() > 1 {
            self.prefixes.get_mut(name.prefix).remove_name();
            return;
        }
        self.prefixes.remove(name.prefix);
        let removed = self.prefix_index.remove(self.hash.tag(prefix.components), name.prefix);
        debug_assert!(removed, "every prefix is indexed");
        for (at, component) in { prefix.components }.into_iter().enumerate() {
            if prefix.has_text(at) {
                self.texts.release(component);
            }
        }
    }
}

/// The subscriptions of one route: the first in place, the others in a list and an index.
impl Rib {
    fn has_record(&self, route: u32, subscription_id: u64) -> bool {
        self.routes.get(route).subscription_id == subscription_id || self.find_extra(route, subscription_id).is_some()
    }

    fn find_extra(&self, route: u32, subscription_id: u64) -> Option<u32> {
        if self.routes.get(route).extra == NONE {
            return None;
        }
        self.extra_index.find(self.extra_tag(route, subscription_id), |index| {
            let extra = self.extras.get(index);
            extra.route == route && extra.subscription_id == subscription_id
        })
    }

    fn extra_tag(&self, route: u32, subscription_id: u64) -> u32 {
        self.hash.tag([u64::from(route), subscription_id])
    }

    fn add_extra(&mut self, route: u32, subscription_id: u64) {
        let next = self.routes.get(route).extra;
        let index = self.extras.insert(Extra { subscription_id, route, next, previous: NONE });
        if next != NONE {
            self.extras.get_mut(next).previous = index;
        }
        self.routes.get_mut(route).extra = index;
        self.extra_index.insert(self.extra_tag(route, subscription_id), index);
    }

    fn remove_extra(&mut self, index: u32) -> Extra {
        let extra = self.extras.remove(index);
        let removed = self.extra_index.remove(self.extra_tag(extra.route, extra.subscription_id), index);
        debug_assert!(removed, "every extra is indexed");
        if extra.next != NONE {
            self.extras.get_mut(extra.next).previous = extra.previous;
        }
        match extra.previous {
            NONE => self.routes.get_mut(extra.route).extra = extra.next,
            previous => self.extras.get_mut(previous).next = extra.next,
        }
        extra
    }

    /// Takes one record from a route; false if that was the last, and the route has to go.
    fn remove_record(&mut self, route: u32, subscription_id: u64) -> bool {
        if let Some(extra) = self.find_extra(route, subscription_id) {
            let conn = self.routes.get(route).conn;
            self.conns.get_mut(conn).records -= 1;
            self.remove_extra(extra);
            return true;
        }
        debug_assert_eq!({ self.routes.get(route).subscription_id }, subscription_id);
        self.remove_any_record(route)
    }

    /// Takes the record that lies in place, and moves another there; false if there is none.
    fn remove_any_record(&mut self, route: u32) -> bool {
        let Route { conn, extra, .. } = *self.routes.get(route);
        self.conns.get_mut(conn).records -= 1;
        if extra == NONE {
            return false;
        }
        let extra = self.remove_extra(extra);
        self.routes.get_mut(route).subscription_id = extra.subscription_id;
        true
    }
}

/// Aggregates of a node: they are configured, and looked through when their connection departs.
pub const AGGREGATES_MAX: usize = 4096;
/// Records a departed connection is relieved of before the next one has its turn.
const SWEEP_SHARE: usize = 256;
/// A route between being made and being named; not the mark of an empty place.
const NAME_TO_COME: u32 = NONE - 1;
