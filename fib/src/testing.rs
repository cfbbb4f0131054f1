//! Random histories, and what must hold for each of them. Tests and fuzz targets call [`check_history`].

use crate::{Aggregate, Change, ConnId, Delta, FanoutCursor, Fib, MatchFilter, Record, Rib, RibError, RibLimits};
use slimline_wire::{ConnType, Name, NameId, Prefix};
use std::collections::{BTreeMap, BTreeSet};

/// Reads a history of subscriptions, departures, sweeps and publishes from `bytes`, lives it on a [`Rib`] and two
/// replicas that lag behind it at their own pace, and compares all three with plain maps after every step.
///
/// Shape:  four octets a step; every input is a history. The network is small (two shards of three slots, 36 names), so
///         that names are shared, slots are used again and limits are met.
/// Panics: on the first disagreement.
pub fn check_history(bytes: &[u8]) {
    let mut history = History::new();
    for step in bytes.chunks_exact(4) {
        history.step([step[0], step[1], step[2], step[3]]);
    }
    history.settle();
}

struct History {
    rib: Rib,
    /// What the RIB should hold.
    truth: Truth,
    log: Vec<Delta>,
    replicas: [Replica; 2],
    /// The latest user of each slot.
    generations: BTreeMap<(u16, u32), u32>,
    /// Departed and not yet reported as swept.
    unswept: BTreeSet<ConnId>,
}

#[derive(Default)]
struct Truth {
    records: BTreeSet<Record>,
    aggregates: BTreeSet<(Aggregate, ConnId)>,
}

struct Replica {
    fib: Fib,
    model: Model,
    applied: usize,
}

/// The deltas, folded in the plainest way.
#[derive(Clone, Default)]
struct Model {
    names: BTreeMap<Name, BTreeSet<(ConnType, ConnId)>>,
    aggregates: BTreeMap<Aggregate, BTreeSet<(ConnType, ConnId)>>,
    gone: BTreeSet<ConnId>,
}

const LIMITS: RibLimits = RibLimits { names_max: 40, names_per_connection_max: 16 };

impl History {
    fn new() -> Self {
        let replica =
            |shard| Replica { fib: Fib::new(shard, 40 + u64::from(shard)), model: Model::default(), applied: 0 };
        Self {
            rib: Rib::with_seed(LIMITS, 7),
            truth: Truth::default(),
            log: Vec::new(),
            replicas: [replica(0), replica(1)],
            generations: BTreeMap::new(),
            unswept: BTreeSet::new(),
        }
    }

    fn step(&mut self, [what, who, which, how]: [u8; 4]) {
        let conn = self.conn(who);
        let name = name(which);
        match what % 16 {
            0..=3 => self.subscribe(conn, name, u64::from(how % 4)),
            4..=6 => self.unsubscribe(conn, name, u64::from(how % 4)),
            7 => self.disconnect(conn),
            8 => self.reuse_slot(conn),
            9 => self.sweep(usize::from(how % 8)),
            10 | 11 => {
                let deltas_max = usize::from(which % 8);
                self.replicas[usize::from(how % 2)].catch_up(&self.log, deltas_max);
            }
            12 => self.change_aggregate(conn, which, how),
            13 => self.replicas[usize::from(how % 2)].check_turns(&name, conn, filter(how)),
            14 => self.replicas[usize::from(how % 2)].check_fanout(&name, conn, filter(how)),
            _ => self.replicas[usize::from(how % 2)].check_interrupted_fanout(
                &name,
                conn,
                filter(how),
                &self.log,
                1 + usize::from(how >> 4),
            ),
        }
        self.check_rib();
    }

    /// The present user of a slot, sometimes the one before.
    fn conn(&self, who: u8) -> ConnId {
        let (shard, slot) = (u16::from(who % 2), u32::from(who / 2 % 3));
        let generation = match self.generations.get(&(shard, slot)) {
            None => FIRST_GENERATION,
            Some(&latest) if who > 240 && latest != FIRST_GENERATION => latest.wrapping_sub(1),
            Some(&latest) => latest,
        };
        ConnId { shard, slot, generation }
    }

    fn subscribe(&mut self, conn: ConnId, name: Name, subscription_id: u64) {
        let kind = kind_of(conn);
        let start = self.log.len();
        let result = self.rib.subscribe(conn, kind, name, None, subscription_id, &mut self.log);
        let record = Record { name, conn, kind, subscription_id };
        let is_held = self.truth.records.contains(&record);
        let of_conn = self.truth.records.iter().filter(|record| record.conn == conn).count();
        if self.is_past(conn) {
            assert_eq!(result, Err(RibError::ConnGone { conn }));
        } else if let Some(limit) = (!is_held && of_conn >= LIMITS.names_per_connection_max)
            .then_some(LIMITS.names_per_connection_max)
            .or((!is_held && self.rib_count_before(&result) >= LIMITS.names_max).then_some(LIMITS.names_max))
        {
            assert_eq!(result, Err(RibError::TooManyNames { limit }));
        } else {
            let is_first = !self.routes(name).any(|(there_kind, _)| there_kind == kind);
            let is_new = !self.routes(name).any(|(_, there)| there == conn);
            self.check_transition(result, is_first, name);
            let deltas = &self.log[start..];
            assert_eq!(deltas, if is_new { vec![Delta::Add { name, conn, kind }] } else { vec![] });
            self.truth.records.insert(record);
        }
    }

    /// What the limit was compared with: records of departed connections count until they are swept.
    fn rib_count_before(&self, result: &Result<Change, RibError>) -> usize {
        self.rib.records_count() - usize::from(result.is_ok())
    }

    fn unsubscribe(&mut self, conn: ConnId, name: Name, subscription_id: u64) {
        let kind = kind_of(conn);
        let start = self.log.len();
        let result = self.rib.unsubscribe(conn, kind, name, subscription_id, &mut self.log);
        let held: Vec<Record> =
            self.truth.records.iter().filter(|record| (record.conn, record.name) == (conn, name)).copied().collect();
        let with_id = |id: u64| held.iter().filter(move |record| record.subscription_id == id).copied();
        let mut leaving: Vec<Record> = with_id(subscription_id).collect();
        if leaving.is_empty() {
            leaving = with_id(0).collect();
        }
        if leaving.is_empty() && kind == ConnType::Peer {
            leaving.clone_from(&held);
        }
        if leaving.is_empty() {
            let refusal = result.expect_err("nothing to unsubscribe");
            let names: BTreeSet<Name> = self.truth.records.iter().map(|record| record.name).collect();
            let expected = if !names.iter().any(|there| there.prefix == name.prefix) {
                RibError::PrefixUnknown
            } else if !names.contains(&name) {
                RibError::IdUnknown { id: name.id }
            } else if self.is_past(conn) {
                RibError::ConnGone { conn }
            } else {
                RibError::SubscriptionUnknown { subscription_id }
            };
            // A name that only a departed connection holds may still be known.
            assert!(refusal == expected || !self.unswept.is_empty(), "{refusal:?} instead of {expected:?}");
            assert_eq!(self.log.len(), start);
            return;
        }
        let is_last = leaving.len() == held.len();
        leaving.iter().for_each(|record| assert!(self.truth.records.remove(record)));
        let is_last_of_kind = is_last && !self.routes(name).any(|(there_kind, _)| there_kind == kind);
        self.check_transition(result, is_last_of_kind, name);
        assert_eq!(&self.log[start..], if is_last { vec![Delta::Remove { name, conn, kind }] } else { vec![] });
    }

    /// Departed connections' records count until they are swept, so a transition may still be to come.
    fn check_transition(&self, result: Result<Change, RibError>, expected: bool, name: Name) {
        let transition = result.expect("there is no reason to refuse").transition;
        assert!(transition == expected || (expected && !self.unswept.is_empty()), "{name:?}: {transition}");
    }

    fn disconnect(&mut self, conn: ConnId) {
        let start = self.log.len();
        let is_past = self.is_past(conn);
        self.rib.disconnect(conn, &mut self.log);
        if is_past {
            assert_eq!(self.log.len(), start, "departed already");
            return;
        }
        assert_eq!(self.log[start..], [Delta::ConnGone { conn }]);
        self.truth.records.retain(|record| record.conn != conn);
        self.truth.aggregates.retain(|&(_, owner)| owner != conn);
        self.unswept.insert(conn);
        self.generations.insert((conn.shard, conn.slot), conn.generation);
    }

    fn reuse_slot(&mut self, conn: ConnId) {
        let next = ConnId { generation: conn.generation.wrapping_add(1), ..conn };
        if self.unswept.contains(&conn) {
            let refusal = self.rib.subscribe(next, ConnType::Edge, name(0), None, 1, &mut self.log);
            assert_eq!(refusal, Err(RibError::SlotNotSwept { conn: next }));
        } else if self.is_past(conn) && self.generations.get(&(conn.shard, conn.slot)) == Some(&conn.generation) {
            self.generations.insert((conn.shard, conn.slot), next.generation);
        }
    }

    /// Whether this generation of the slot is over.
    fn is_past(&self, conn: ConnId) -> bool {
        let latest = self.generations.get(&(conn.shard, conn.slot)).copied();
        let is_known_gone = self.log.contains(&Delta::ConnGone { conn });
        is_known_gone
            || latest.is_some_and(|latest| latest != conn.generation && conn.generation.wrapping_add(1) == latest)
    }

    fn sweep(&mut self, entries_max: usize) {
        let count = self.rib.records_count();
        let swept = self.rib.sweep(entries_max, &mut self.log);
        assert!(swept.records <= entries_max);
        assert_eq!(count - self.rib.records_count(), swept.records);
        for conn in &swept.done {
            assert!(self.unswept.remove(conn), "{conn} done, but not departed");
            assert_eq!(self.rib.names_count_of(*conn), 0);
        }
        for name in swept.withdrawn {
            assert_eq!(self.routes(name).count(), 0, "withdrawn though somebody holds it");
        }
        assert_eq!(self.rib.is_swept(), self.unswept.is_empty());
    }

    fn change_aggregate(&mut self, conn: ConnId, which: u8, how: u8) {
        let Name { prefix: Prefix([organisation, namespace, _]), .. } = name(which);
        let aggregate = match how & 2 {
            0 => Aggregate::Organisation([organisation]),
            _ => Aggregate::Namespace([organisation, namespace]),
        };
        if how & 4 == 0 {
            let result = self.rib.add_aggregate(conn, kind_of(conn), aggregate, &mut self.log);
            assert_eq!(result.is_err(), self.is_past(conn));
            if result.is_ok() {
                self.truth.aggregates.insert((aggregate, conn));
            }
        } else {
            let was_there = self.rib.remove_aggregate(conn, aggregate, &mut self.log);
            assert_eq!(was_there, self.truth.aggregates.remove(&(aggregate, conn)));
        }
    }

    fn routes(&self, name: Name) -> impl Iterator<Item = (ConnType, ConnId)> + '_ {
        let its = self.truth.records.iter().filter(move |record| record.name == name);
        its.map(|record| (record.kind, record.conn))
    }

    /// The RIB holds the truth, and besides it only what is to be swept.
    fn check_rib(&self) {
        let (gone, live): (BTreeSet<Record>, BTreeSet<Record>) =
            self.rib.records().partition(|record| self.unswept.contains(&record.conn));
        assert_eq!(live, self.truth.records);
        assert_eq!(self.rib.records_count(), live.len() + gone.len());
        let names: BTreeSet<Name> = live.iter().chain(&gone).map(|record| record.name).collect();
        assert_eq!(self.rib.names(), names.len());
        for record in live.iter().chain(&gone) {
            assert!(self.rib.names_of(record.conn).any(|name| name == record.name));
        }
    }

    /// At the end everything is swept and applied, and replicas are equal to the truth.
    fn settle(&mut self) {
        while !self.rib.is_swept() {
            self.sweep(3);
        }
        self.check_rib();
        for replica in &mut self.replicas {
            replica.catch_up(&self.log, usize::MAX);
            let mut expected = BTreeMap::<Name, BTreeSet<_>>::new();
            for record in &self.truth.records {
                expected.entry(record.name).or_default().insert((record.kind, record.conn));
            }
            assert_eq!(replica.model.names, expected);
            assert_eq!(replica.fib.names(), expected.len());
            for &conn in &replica.model.gone {
                assert!(replica.fib.swept(conn));
            }
            let nobody = ConnId { shard: 9, slot: 9, generation: 9 };
            for which in 0..=u8::MAX {
                for exclude_peers in [false, true] {
                    replica.check_fanout(&name(which), nobody, MatchFilter { exclude_peers });
                    replica.check_turns(&name(which), nobody, MatchFilter { exclude_peers });
                }
            }
        }
    }
}

impl Replica {
    fn catch_up(&mut self, log: &[Delta], deltas_max: usize) {
        let waiting = &log[self.applied..];
        for delta in &waiting[..waiting.len().min(deltas_max)] {
            self.fib.apply(delta);
            self.model.apply(delta);
            self.applied += 1;
        }
    }

    /// Fanout 1: as many publishes as there are candidates reach each of them once.
    fn check_turns(&mut self, name: &Name, from: ConnId, filter: MatchFilter) {
        let open = self.model.open(name, from, filter);
        let first_kind = open.first().map(|&(kind, _)| kind);
        let expected: BTreeSet<ConnId> =
            open.iter().filter(|&&(kind, _)| Some(kind) == first_kind).map(|&(_, conn)| conn).collect();
        let turns: Vec<_> = (0..expected.len().max(1)).map(|_| self.fib.match_one(name, from, filter)).collect();
        assert_eq!(turns.iter().flatten().copied().collect::<BTreeSet<_>>(), expected, "{name:?} from {from}");
    }

    /// Any other fanout: everybody once, in order.
    fn check_fanout(&self, name: &Name, from: ConnId, filter: MatchFilter) {
        let mut cursor = FanoutCursor::default();
        let mut out = Vec::new();
        while self.fib.match_all(name, from, filter, &mut cursor, &mut out, 2) {}
        let expected: Vec<ConnId> = self.model.open(name, from, filter).into_iter().map(|(_, conn)| conn).collect();
        assert_eq!(out, expected, "{name:?} from {from}");
        for shard in 0..2 {
            let mut cursor = FanoutCursor::of_shard(shard);
            let mut out = Vec::new();
            while self.fib.match_all(name, from, filter, &mut cursor, &mut out, 1) {}
            let expected: Vec<ConnId> = expected.iter().filter(|conn| conn.shard == shard).copied().collect();
            assert_eq!(out, expected, "{name:?} from {from}, shard {shard}");
        }
    }

    /// A fan-out with changes in between: nobody twice, nobody who never was open, everybody who was all the time. What
    /// counts is the level that answered first (exact, aggregate): it is stayed with.
    fn check_interrupted_fanout(
        &mut self,
        name: &Name,
        from: ConnId,
        filter: MatchFilter,
        log: &[Delta],
        deltas_max: usize,
    ) {
        let mut cursor = FanoutCursor::default();
        let mut out = Vec::new();
        let level = self.model.level(name, from, filter);
        let mut always = self.model.open_at(level, name, from, filter);
        let mut ever = always.clone();
        while self.fib.match_all(name, from, filter, &mut cursor, &mut out, 1) {
            self.catch_up(log, deltas_max);
            let open = self.model.open_at(level, name, from, filter);
            always = &always & &open;
            ever.extend(open);
        }
        let reached: BTreeSet<ConnId> = out.iter().copied().collect();
        assert_eq!(reached.len(), out.len(), "somebody twice: {out:?}");
        assert!(reached.iter().all(|conn| ever.iter().any(|(_, open)| open == conn)), "{out:?} of {ever:?}");
        assert!(always.iter().all(|(_, conn)| reached.contains(conn)), "{out:?} lacks one of {always:?}");
    }
}

impl Model {
    fn apply(&mut self, delta: &Delta) {
        match *delta {
            Delta::Add { name, conn, kind } => {
                assert!(self.names.entry(name).or_default().insert((kind, conn)), "added twice");
            }
            Delta::Remove { name, conn, kind } => {
                let hops = self.names.get_mut(&name).expect("a name that is removed was added");
                assert!(hops.remove(&(kind, conn)), "removed twice");
                if hops.is_empty() {
                    self.names.remove(&name);
                }
            }
            Delta::ConnGone { conn } => assert!(self.gone.insert(conn)),
            Delta::AddAggregate { aggregate, conn, kind } => {
                assert!(self.aggregates.entry(aggregate).or_default().insert((kind, conn)), "added twice");
            }
            Delta::RemoveAggregate { aggregate, conn, kind } => {
                let hops = self.aggregates.get_mut(&aggregate).expect("an aggregate that is removed was added");
                assert!(hops.remove(&(kind, conn)), "removed twice");
            }
        }
    }

    /// Who may get a publish, by the rules as the specification has them.
    fn open(&self, name: &Name, from: ConnId, filter: MatchFilter) -> BTreeSet<(ConnType, ConnId)> {
        self.open_at(self.level(name, from, filter), name, from, filter)
    }

    /// Who answers: the exact prefix (0) if anybody under it may, else the first aggregate of which somebody may.
    fn level(&self, name: &Name, from: ConnId, filter: MatchFilter) -> usize {
        let any_id = Name { id: NameId::ANY, ..*name };
        (0..3).find(|&level| !self.open_at(level, &any_id, from, filter).is_empty()).unwrap_or(0)
    }

    fn open_at(&self, level: usize, name: &Name, from: ConnId, filter: MatchFilter) -> BTreeSet<(ConnType, ConnId)> {
        let is_open = |&(kind, conn): &(ConnType, ConnId)| {
            conn != from && !self.gone.contains(&conn) && !(filter.exclude_peers && kind == ConnType::Peer)
        };
        let Prefix([organisation, namespace, _]) = name.prefix;
        let aggregate = match level {
            0 => {
                let matches = |there: &Name| there.prefix == name.prefix && (name.id.is_any() || there.id == name.id);
                let matching = self.names.iter().filter(|(there, _)| matches(there));
                return matching.flat_map(|(_, hops)| hops).copied().filter(is_open).collect();
            }
            1 => Aggregate::Namespace([organisation, namespace]),
            _ => Aggregate::Organisation([organisation]),
        };
        self.aggregates.get(&aggregate).into_iter().flatten().copied().filter(is_open).collect()
    }
}

/// 36 names: two organisations, two namespaces, three services in unequal shares, ids 0, 1 and any.
fn name(which: u8) -> Name {
    let which = u64::from(which);
    let prefix = Prefix([which & 1, which >> 1 & 1, (which >> 2 & 3).min(2)]);
    let id = match which >> 4 & 3 {
        3 => NameId::ANY,
        id => NameId(u128::from(id % 2)),
    };
    Name { prefix, id }
}

fn kind_of(conn: ConnId) -> ConnType {
    let kinds = [ConnType::Edge, ConnType::Peer, ConnType::Edge, ConnType::Remote, ConnType::Local];
    kinds[(conn.generation.wrapping_add(conn.slot) as usize + usize::from(conn.shard)) % kinds.len()]
}

fn filter(how: u8) -> MatchFilter {
    MatchFilter { exclude_peers: how & 8 != 0 }
}

/// The slots' counters wrap around early in each history.
const FIRST_GENERATION: u32 = u32::MAX - 1;
