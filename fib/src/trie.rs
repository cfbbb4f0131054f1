//! A shard's replica: which connections a name leads to.
//!
//! Logically a trie organisation → namespace → service → id, with its levels pressed into hash tables: one for prefixes, one
//! for the ids of those prefixes that have more than one, one for aggregates. A prefix with one id and one hop, the
//! commonest by far in a large network, is one record and one probe.

use crate::conn::Hop;
use crate::hash::{Keyed, halves, low_half};
use crate::hops::{HopSet, MatchFilter};
use crate::index::Index;
use crate::slab::{Record, Slab};
use crate::{Aggregate, ConnId, Delta};
use slimline_wire::{Name, NameId, Prefix};

/// Names → next hops, as one shard sees them: no lock, no text, no allocation on lookup.
#[derive(Debug)]
pub struct Fib {
    hash: Keyed,
    prefix_index: Index,
    prefixes: Slab<PrefixRecord>,
    name_index: Index,
    names: Slab<NameRecord>,
    /// Names with several hops.
    sets: Slab<HopSet>,
    /// Prefixes with several ids or hops.
    groups: Slab<Group>,
    aggregates: Vec<(Aggregate, HopSet)>,
    conns: Conns,
    /// Where round robin begins: the shard's own index.
    first_turn: usize,
    names_count: usize,
}

impl Fib {
    /// An empty replica.
    ///
    /// `shard_index` says where its round robin begins, so that the shards' replicas do not all choose the same instance
    /// first. `seed` keys the hash; strangers must not know it.
    #[must_use]
    pub fn new(shard_index: u16, seed: u64) -> Self {
        Self {
            hash: Keyed::new(seed),
            prefix_index: Index::new(),
            prefixes: Slab::new(),
            name_index: Index::new(),
            names: Slab::new(),
            sets: Slab::new(),
            groups: Slab::new(),
            aggregates: Vec::new(),
            conns: Conns { shards: Vec::new() },
            first_turn: usize::from(shard_index),
            names_count: 0,
        }
    }

    /// Distinct names with at least one hop, departed ones included until their records are gone.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names_count
    }

    /// Chooses the one connection a publish with fanout 1 goes to.
    ///
    /// Shape:  an id matches subscriptions of exactly that id; [`NameId::ANY`] matches every id of the prefix, one turn per
    ///         connection however many ids it holds. The first kind in the order of `ConnType` with an eligible
    ///         connection answers, in turn. Where nobody under the exact prefix is eligible, the longest aggregate is asked.
    /// Errors: `None`: nobody asked for it, or only `from` did.
    /// Source: slim-wire §6.2, §6.3; aggregates are slimline's own.
    #[inline]
    pub fn match_one(&mut self, name: &Name, from: ConnId, filter: MatchFilter) -> Option<ConnId> {
        let prefix = self.find_prefix(&name.prefix);
        if let Some(prefix) = prefix
            && let Some(hop) = self.match_one_exact(prefix, name.id, from, filter)
        {
            return Some(self.conns.id(hop));
        }
        if self.aggregates.is_empty() || prefix.is_some_and(|prefix| self.is_prefix_open(prefix, from, filter)) {
            return None;
        }
        let is_eligible = |hop| self.conns.is_eligible(hop, from);
        aggregates_of(&name.prefix).into_iter().find_map(|aggregate| {
            let at = self.aggregates.binary_search_by_key(&aggregate, |&(there, _)| there).ok()?;
            let hop = self.aggregates[at].1.take_turn(self.first_turn, filter, is_eligible)?;
            Some(self.conns.id(hop))
        })
    }

    #[inline]
    fn match_one_exact(&mut self, prefix: u32, id: NameId, from: ConnId, filter: MatchFilter) -> Option<Hop> {
        let sole = match self.prefixes.get(prefix).hops() {
            PrefixHops::Sole { id: there, hop } => (id.is_any() || id == there).then_some(hop)?,
            PrefixHops::Group(group) if id.is_any() => {
                let is_eligible = |hop| self.conns.is_eligible(hop, from);
                return self.groups.get_mut(group).set.take_turn(self.first_turn, filter, is_eligible);
            }
            PrefixHops::Group(_) => {
                let index = self.find_name(prefix, id)?;
                match self.names.get(index).hops() {
                    NameHops::Sole(hop) => hop,
                    NameHops::Set(set) => {
                        let is_eligible = |hop| self.conns.is_eligible(hop, from);
                        return self.sets.get_mut(set).take_turn(self.first_turn, filter, is_eligible);
                    }
                }
            }
        };
        (filter.admits(sole.kind()) && self.conns.is_eligible(sole, from)).then_some(sole)
    }

    /// Collects every connection a publish with another fanout than 1 goes to, at most `outputs_max` per call.
    ///
    /// Shape:  appends to `out`; true: call again with the same cursor, there may be more. Ordered by kind, then by
    ///         [`ConnId`], and the cursor remembers the last one: whatever changes between two calls, nobody appears
    ///         twice, and a level once answered from (exact, aggregate) is stayed with.
    ///         A call looks at no more than `outputs_max` + 1024 hops, so it may find nothing and still say true.
    /// Source: slim-wire §6.2, §6.3.
    pub fn match_all(
        &self,
        name: &Name,
        from: ConnId,
        filter: MatchFilter,
        cursor: &mut FanoutCursor,
        out: &mut Vec<ConnId>,
        outputs_max: usize,
    ) -> bool {
        let mut budget = Budget { outputs: outputs_max, looks: outputs_max.saturating_add(LOOKS_MAX) };
        loop {
            let has_more = match cursor.level {
                Level::Exact => self.match_exact(name, from, filter, cursor, out, &mut budget),
                Level::Aggregate(index) => {
                    let aggregate = aggregates_of(&name.prefix)[usize::from(index)];
                    match self.aggregates.binary_search_by_key(&aggregate, |&(there, _)| there) {
                        Ok(at) => self.collect(&self.aggregates[at].1, from, filter, cursor, out, &mut budget),
                        Err(_) => false,
                    }
                }
                Level::Done => false,
            };
            if has_more {
                return true;
            }
            cursor.next = 0;
            cursor.level = match cursor.level {
                _ if cursor.has_found || self.aggregates.is_empty() => Level::Done,
                _ if self.is_level_open(name, cursor.level, from, filter) => Level::Done, // on other shards
                Level::Exact => Level::Aggregate(0),
                Level::Aggregate(0) => Level::Aggregate(1),
                _ => Level::Done,
            };
            if cursor.level == Level::Done {
                return false;
            }
        }
    }

    /// Whether a level answers, so that the next one is not asked.
    fn is_level_open(&self, name: &Name, level: Level, from: ConnId, filter: MatchFilter) -> bool {
        match level {
            Level::Exact => {
                self.find_prefix(&name.prefix).is_some_and(|prefix| self.is_prefix_open(prefix, from, filter))
            }
            Level::Aggregate(index) => {
                let aggregate = aggregates_of(&name.prefix)[usize::from(index)];
                let found = self.aggregates.binary_search_by_key(&aggregate, |&(there, _)| there);
                found.is_ok_and(|at| self.is_set_open(&self.aggregates[at].1, from, filter))
            }
            Level::Done => true,
        }
    }

    fn match_exact(
        &self,
        name: &Name,
        from: ConnId,
        filter: MatchFilter,
        cursor: &mut FanoutCursor,
        out: &mut Vec<ConnId>,
        budget: &mut Budget,
    ) -> bool {
        let Some(prefix) = self.find_prefix(&name.prefix) else { return false };
        let sole = match self.prefixes.get(prefix).hops() {
            PrefixHops::Sole { id, hop } if name.id.is_any() || name.id == id => hop,
            PrefixHops::Sole { .. } => return false,
            PrefixHops::Group(group) if name.id.is_any() => {
                return self.collect(&self.groups.get(group).set, from, filter, cursor, out, budget);
            }
            PrefixHops::Group(_) => match self.find_name(prefix, name.id).map(|index| self.names.get(index).hops()) {
                None => return false,
                Some(NameHops::Sole(hop)) => hop,
                Some(NameHops::Set(set)) => {
                    return self.collect(self.sets.get(set), from, filter, cursor, out, budget);
                }
            },
        };
        if sole.0 < cursor.next
            || cursor.shard.is_some_and(|shard| shard != sole.shard())
            || !filter.admits(sole.kind())
            || !self.conns.is_eligible(sole, from)
        {
            return false;
        }
        if budget.outputs == 0 {
            return true;
        }
        budget.outputs -= 1;
        cursor.next = sole.0 + 1;
        cursor.has_found = true;
        out.push(self.conns.id(sole));
        false
    }

    fn collect(
        &self,
        set: &HopSet,
        from: ConnId,
        filter: MatchFilter,
        cursor: &mut FanoutCursor,
        out: &mut Vec<ConnId>,
        budget: &mut Budget,
    ) -> bool {
        loop {
            let run = set.run_at(Hop(cursor.next));
            if run.is_empty() {
                return false;
            }
            for there in run {
                if let Some(shard) = cursor.shard
                    && shard != there.hop.shard()
                {
                    cursor.next = there.hop.first_of_shard_after(shard).0;
                    break;
                }
                let is_open = filter.admits(there.hop.kind()) && self.conns.is_eligible(there.hop, from);
                if budget.looks == 0 || (is_open && budget.outputs == 0) {
                    return true;
                }
                budget.looks -= 1;
                cursor.next = there.hop.0 + 1;
                if is_open {
                    budget.outputs -= 1;
                    cursor.has_found = true;
                    out.push(self.conns.id(there.hop));
                }
            }
        }
    }

    fn is_prefix_open(&self, prefix: u32, from: ConnId, filter: MatchFilter) -> bool {
        match self.prefixes.get(prefix).hops() {
            PrefixHops::Sole { hop, .. } => filter.admits(hop.kind()) && self.conns.is_eligible(hop, from),
            PrefixHops::Group(group) => self.is_set_open(&self.groups.get(group).set, from, filter),
        }
    }

    fn is_set_open(&self, set: &HopSet, from: ConnId, filter: MatchFilter) -> bool {
        let mut is_open = |hop: Hop| filter.admits(hop.kind()) && self.conns.is_eligible(hop, from);
        set.find(Hop(0), Hop(Hop::LIMIT), &mut is_open).is_some()
    }

    #[inline]
    fn find_prefix(&self, prefix: &Prefix) -> Option<u32> {
        self.prefix_index.find(self.hash.tag(prefix.0), |index| self.prefixes.get(index).is(prefix))
    }

    #[inline]
    fn find_name(&self, prefix: u32, id: NameId) -> Option<u32> {
        self.name_index.find(self.name_tag(prefix, id), |index| self.names.get(index).is(prefix, id))
    }

    fn name_tag(&self, prefix: u32, id: NameId) -> u32 {
        let [high, low] = halves(id.0);
        self.hash.tag([u64::from(prefix), high, low])
    }
}

/// Applying deltas.
impl Fib {
    /// Applies one change.
    ///
    /// Shape:  a replica that has applied the same deltas in the same order as another is equal to it.
    /// Panics: when a slot is used again before the RIB has swept its last user; the RIB refuses that.
    pub fn apply(&mut self, delta: &Delta) {
        match *delta {
            Delta::Add { ref name, conn, kind } => {
                let seat = self.conns.sit(conn);
                if self.add(name, Hop::new(conn, kind)) {
                    self.conns.count(seat, 1);
                }
            }
            Delta::Remove { ref name, conn, kind } => {
                if self.conns.knows(conn) && self.remove(name, Hop::new(conn, kind)) {
                    self.conns.count((conn.shard, conn.slot), -1);
                }
            }
            Delta::ConnGone { conn } => self.conns.leave(conn),
            Delta::AddAggregate { aggregate, conn, kind } => {
                let seat = self.conns.sit(conn);
                let at = match self.aggregates.binary_search_by_key(&aggregate, |&(there, _)| there) {
                    Ok(at) => at,
                    Err(at) => {
                        self.aggregates.insert(at, (aggregate, HopSet::new()));
                        at
                    }
                };
                let hop = Hop::new(conn, kind);
                if !self.aggregates[at].1.contains(hop) {
                    self.aggregates[at].1.add(hop);
                    self.conns.count(seat, 1);
                }
            }
            Delta::RemoveAggregate { aggregate, conn, kind } => {
                let Ok(at) = self.aggregates.binary_search_by_key(&aggregate, |&(there, _)| there) else { return };
                if self.conns.knows(conn) && self.aggregates[at].1.remove(Hop::new(conn, kind)) {
                    self.conns.count((conn.shard, conn.slot), -1);
                    if self.aggregates[at].1.is_empty() {
                        self.aggregates.remove(at);
                    }
                }
            }
        }
    }

    /// Whether no record of `conn` is left here.
    #[must_use]
    pub fn swept(&self, conn: ConnId) -> bool {
        self.conns.seat(conn).is_none_or(|seat| seat.generation != conn.generation || seat.hops == 0)
    }

    /// Adds `hop` to `name`; false if it was there.
    fn add(&mut self, name: &Name, hop: Hop) -> bool {
        let Some(prefix) = self.find_prefix(&name.prefix) else {
            let prefix = self.prefixes.insert(PrefixRecord::sole(name, hop));
            self.prefix_index.insert(self.hash.tag(name.prefix.0), prefix);
            self.names_count += 1;
            return true;
        };
        let group = match self.prefixes.get(prefix).hops() {
            PrefixHops::Group(group) => group,
            PrefixHops::Sole { id, hop: there } if id == name.id && there == hop => return false,
            PrefixHops::Sole { id, hop: there } => self.grow(prefix, id, there),
        };
        match self.find_name(prefix, name.id) {
            None => {
                self.insert_name(prefix, name.id, hop);
                self.groups.get_mut(group).names += 1;
                self.names_count += 1;
            }
            Some(index) => match self.names.get(index).hops() {
                NameHops::Sole(there) if there == hop => return false,
                NameHops::Sole(there) => {
                    let mut set = HopSet::new();
                    set.add(there);
                    set.add(hop);
                    let set = self.sets.insert(set);
                    self.names.get_mut(index).set_hops(NameHops::Set(set));
                }
                NameHops::Set(set) => {
                    let set = self.sets.get_mut(set);
                    if set.contains(hop) {
                        return false;
                    }
                    set.add(hop);
                }
            },
        }
        self.groups.get_mut(group).set.add(hop);
        true
    }

    /// Gives a prefix of one name and one hop a group, in which there can be more.
    fn grow(&mut self, prefix: u32, id: NameId, hop: Hop) -> u32 {
        self.insert_name(prefix, id, hop);
        let mut set = HopSet::new();
        set.add(hop);
        let group = self.groups.insert(Group { names: 1, set });
        self.prefixes.get_mut(prefix).set_group(group);
        group
    }

    fn insert_name(&mut self, prefix: u32, id: NameId, hop: Hop) {
        let index = self.names.insert(NameRecord { id: halves(id.0), prefix, hops: hop.0 });
        self.name_index.insert(self.name_tag(prefix, id), index);
    }

    /// Takes `hop` from `name`; false if it was not there.
    fn remove(&mut self, name: &Name, hop: Hop) -> bool {
        let Some(prefix) = self.find_prefix(&name.prefix) else { return false };
        let group = match self.prefixes.get(prefix).hops() {
            PrefixHops::Group(group) => group,
            PrefixHops::Sole { id, hop: there } if id == name.id && there == hop => {
                self.remove_prefix(prefix, name);
                self.names_count -= 1;
                return true;
            }
            PrefixHops::Sole { .. } => return false,
        };
        let Some(index) = self.find_name(prefix, name.id) else { return false };
        match self.names.get(index).hops() {
            NameHops::Sole(there) if there == hop => {
                let removed = self.name_index.remove(self.name_tag(prefix, name.id), index);
                debug_assert!(removed);
                self.names.remove(index);
                self.names_count -= 1;
                self.groups.get_mut(group).names -= 1;
            }
            NameHops::Sole(_) => return false,
            NameHops::Set(set_index) => {
                let set = self.sets.get_mut(set_index);
                if !set.remove(hop) {
                    return false;
                }
                // A set keeps its cursors as long as it has anybody; one hop left needs no turns.
                if let Some(left) = set.sole() {
                    self.sets.remove(set_index);
                    self.names.get_mut(index).set_hops(NameHops::Sole(left));
                }
            }
        }
        let group_record = self.groups.get_mut(group);
        let was_there = group_record.set.remove(hop);
        debug_assert!(was_there, "a name's hop is its prefix's hop");
        if group_record.names == 0 {
            self.groups.remove(group);
            self.remove_prefix(prefix, name);
        }
        true
    }

    fn remove_prefix(&mut self, prefix: u32, name: &Name) {
        let removed = self.prefix_index.remove(self.hash.tag(name.prefix.0), prefix);
        debug_assert!(removed);
        self.prefixes.remove(prefix);
    }
}

/// Where a fan-out has got to. Kept beside a message that waits for its next turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FanoutCursor {
    level: Level,
    next: u32,
    has_found: bool,
    /// Whose connections alone are wanted.
    shard: Option<u16>,
}

impl FanoutCursor {
    /// The beginning of a fan-out to the connections of one shard: what that shard does with a message that another one
    /// sent it once for all of them. Others' connections are jumped over, however many there are.
    ///
    /// The cursors of all shards together find exactly what the default cursor finds.
    #[must_use]
    pub fn of_shard(shard: u16) -> Self {
        Self { shard: Some(shard), ..Self::default() }
    }
}

/// Which table answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Exact,
    /// Index into [`aggregates_of`].
    Aggregate(u8),
    Done,
}

struct Budget {
    outputs: usize,
    looks: usize,
}

/// Hops a fan-out may look at in vain per call: those of departed connections, Peers left out.
const LOOKS_MAX: usize = 1024;

/// The aggregates above a prefix, longest first.
fn aggregates_of(prefix: &Prefix) -> [Aggregate; 2] {
    let Prefix([organisation, namespace, _]) = *prefix;
    [Aggregate::Namespace([organisation, namespace]), Aggregate::Organisation([organisation])]
}

/// The connections hops point at, by shard and slot.
#[derive(Debug)]
struct Conns {
    shards: Vec<Vec<Seat>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    generation: u32,
    /// Records that point here.
    hops: u32,
    state: SeatState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SeatState {
    #[default]
    Free,
    Live,
    Gone,
}

impl Conns {
    /// Whether a publish from `from` may go to `hop`: it is alive, and not where the publish came from.
    #[inline]
    fn is_eligible(&self, hop: Hop, from: ConnId) -> bool {
        let seat = &self.shards[usize::from(hop.shard())][hop.slot() as usize];
        let is_from = hop.slot() == from.slot && hop.shard() == from.shard && seat.generation == from.generation;
        seat.state == SeatState::Live && !is_from
    }

    #[inline]
    fn id(&self, hop: Hop) -> ConnId {
        let (shard, slot) = (hop.shard(), hop.slot());
        ConnId { shard, slot, generation: self.shards[usize::from(shard)][slot as usize].generation }
    }

    fn seat(&self, conn: ConnId) -> Option<&Seat> {
        self.shards.get(usize::from(conn.shard))?.get(conn.slot as usize)
    }

    fn knows(&self, conn: ConnId) -> bool {
        self.seat(conn).is_some_and(|seat| seat.state != SeatState::Free && seat.generation == conn.generation)
    }

    /// Gives `conn` its seat, if it has none yet.
    fn sit(&mut self, conn: ConnId) -> (u16, u32) {
        let shard = usize::from(conn.shard);
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, Vec::new);
        }
        let seats = &mut self.shards[shard];
        let slot = conn.slot as usize;
        if seats.len() <= slot {
            seats.resize(slot + 1, Seat::default());
        }
        let seat = &mut seats[slot];
        if seat.state == SeatState::Free || seat.generation != conn.generation {
            assert!(seat.hops == 0, "{conn} sits down where {} names of generation {} lie", seat.hops, seat.generation);
            *seat = Seat { generation: conn.generation, hops: 0, state: SeatState::Live };
        }
        (conn.shard, conn.slot)
    }

    fn leave(&mut self, conn: ConnId) {
        if self.knows(conn) {
            self.shards[usize::from(conn.shard)][conn.slot as usize].state = SeatState::Gone;
        }
    }

    fn count(&mut self, (shard, slot): (u16, u32), change: i32) {
        let seat = &mut self.shards[usize::from(shard)][slot as usize];
        seat.hops = seat.hops.checked_add_signed(change).expect("as many removals as additions");
    }
}

/// A prefix: either with one id and one hop, or with a group. 44 octets, the largest share of a replica's memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct PrefixRecord {
    prefix: [u64; 3],
    /// The only id; in a group unused.
    id: [u64; 2],
    /// A hop; or, top bit set, the index of a group; or [`VACANT`].
    hops: u32,
}

enum PrefixHops {
    Sole { id: NameId, hop: Hop },
    Group(u32),
}

impl PrefixRecord {
    fn sole(name: &Name, hop: Hop) -> Self {
        Self { prefix: name.prefix.0, id: halves(name.id.0), hops: hop.0 }
    }

    #[inline]
    fn is(&self, prefix: &Prefix) -> bool {
        let Self { prefix: there, .. } = *self;
        there == prefix.0
    }

    #[inline]
    fn hops(&self) -> PrefixHops {
        let Self { id: [high, low], hops, .. } = *self;
        if hops & INDIRECT == 0 {
            PrefixHops::Sole { id: NameId(u128::from(high) << 64 | u128::from(low)), hop: Hop(hops) }
        } else {
            PrefixHops::Group(hops & !INDIRECT)
        }
    }

    fn set_group(&mut self, group: u32) {
        self.hops = group | INDIRECT;
    }
}

impl Record for PrefixRecord {
    fn vacant(next: u32) -> Self {
        Self { prefix: [u64::from(next), 0, 0], id: [0; 2], hops: VACANT }
    }

    fn next_vacant(&self) -> Option<u32> {
        let Self { prefix: [next, ..], hops, .. } = *self;
        (hops == VACANT).then_some(low_half(next))
    }
}

/// An id under a prefix that has a group.
#[derive(Clone, Copy, Debug)]
struct NameRecord {
    id: [u64; 2],
    prefix: u32,
    /// A hop; or, top bit set, the index of a set; or [`VACANT`].
    hops: u32,
}

#[derive(Clone, Copy)]
enum NameHops {
    Sole(Hop),
    Set(u32),
}

impl NameRecord {
    #[inline]
    fn is(&self, prefix: u32, id: NameId) -> bool {
        self.prefix == prefix && self.id == halves(id.0)
    }

    #[inline]
    fn hops(&self) -> NameHops {
        if self.hops & INDIRECT == 0 { NameHops::Sole(Hop(self.hops)) } else { NameHops::Set(self.hops & !INDIRECT) }
    }

    fn set_hops(&mut self, hops: NameHops) {
        self.hops = match hops {
            NameHops::Sole(hop) => hop.0,
            NameHops::Set(set) => set | INDIRECT,
        };
    }
}

impl Record for NameRecord {
    fn vacant(next: u32) -> Self {
        Self { id: [0; 2], prefix: next, hops: VACANT }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.hops == VACANT).then_some(self.prefix)
    }
}

/// The ids of a prefix together: what [`NameId::ANY`] reaches.
#[derive(Debug)]
struct Group {
    names: u32,
    set: HopSet,
}

impl Record for Group {
    fn vacant(next: u32) -> Self {
        Self { names: 0, set: HopSet::vacant(next) }
    }

    fn next_vacant(&self) -> Option<u32> {
        self.set.next_vacant()
    }
}

/// Set in a hop word that is an index instead.
const INDIRECT: u32 = Hop::LIMIT;
/// The hop word of an empty place; indexes stay below 2³⁰.
const VACANT: u32 = u32::MAX;
const _: () = assert!(size_of::<PrefixRecord>() == 44 && size_of::<NameRecord>() == 24);
