//! The next hops of one name, or of all names under a prefix, and whose turn it is.

use crate::conn::{Hop, KINDS};
use crate::slab::Record;
use slimline_wire::ConnType;

/// Which connections a publish may not reach, besides the one it came from.
///
/// Source: slim-wire §6.3: in a full mesh a publish from a Peer is not sent on to Peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchFilter {
    /// Leave Peers out.
    pub exclude_peers: bool,
}

impl MatchFilter {
    pub(crate) fn admits(self, kind: ConnType) -> bool {
        !(self.exclude_peers && kind == ConnType::Peer)
    }
}

/// Hops in order (kind, then connection), each with how many names it holds there, and one cursor per kind.
#[derive(Debug)]
pub(crate) struct HopSet {
    hops: Hops,
    /// The hop each kind's last turn went to.
    cursors: [u32; 4],
}

/// A hop and a count: in the set of a name always 1, in the set of a prefix the names of that hop under it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) hop: Hop,
    pub(crate) names: u32,
}

#[derive(Debug)]
enum Hops {
    /// In place: most names have one or a few instances.
    Few(u8, [Counted; FEW]),
    /// Sorted runs, none empty, which are split when full: inserting moves one run at most.
    Many(Vec<Vec<Counted>>),
    /// An empty place in a slab.
    Vacant(u32),
}

impl HopSet {
    pub(crate) fn new() -> Self {
        Self { hops: Hops::Few(0, [NOBODY; FEW]), cursors: [FRESH; 4] }
    }

    /// Counts one more name for `hop`.
    pub(crate) fn add(&mut self, hop: Hop) {
        match &mut self.hops {
            Hops::Few(len, hops) => {
                let count = usize::from(*len);
                let at = hops[..count].partition_point(|there| there.hop < hop);
                if at < count && hops[at].hop == hop {
                    hops[at].names += 1;
                } else if count < FEW {
                    hops.copy_within(at..count, at + 1);
                    hops[at] = Counted { hop, names: 1 };
                    *len += 1;
                } else {
                    let mut run = Vec::with_capacity(2 * FEW);
                    run.extend_from_slice(hops);
                    run.insert(at, Counted { hop, names: 1 });
                    self.hops = Hops::Many(vec![run]);
                }
            }
            Hops::Many(runs) => {
                let run_index = runs.partition_point(|run| run[0].hop <= hop).saturating_sub(1);
                let run = &mut runs[run_index];
                let at = run.partition_point(|there| there.hop < hop);
                if run.get(at).is_some_and(|there| there.hop == hop) {
                    run[at].names += 1;
                    return;
                }
                run.insert(at, Counted { hop, names: 1 });
                if run.len() > RUN_LEN_MAX {
                    // Connections are numbered upwards, so most runs grow at their end: leave the lower half fuller.
                    let upper = run.split_off(if at + 1 == run.len() { RUN_LEN_MAX } else { RUN_LEN_MAX / 2 });
                    runs.insert(run_index + 1, upper);
                }
            }
            Hops::Vacant(_) => unreachable!("an empty place is never used as a set"),
        }
    }

    /// Counts one name less for `hop`, and drops it at none; whether it was there.
    pub(crate) fn remove(&mut self, hop: Hop) -> bool {
        match &mut self.hops {
            Hops::Few(len, hops) => {
                let count = usize::from(*len);
                let Some(at) = hops[..count].iter().position(|there| there.hop == hop) else { return false };
                hops[at].names -= 1;
                if hops[at].names == 0 {
                    hops.copy_within(at + 1..count, at);
                    *len -= 1;
                }
            }
            Hops::Many(runs) => {
                let run_index = runs.partition_point(|run| run[0].hop <= hop).saturating_sub(1);
                let run = &mut runs[run_index];
                let Ok(at) = run.binary_search_by_key(&hop, |there| there.hop) else { return false };
                run[at].names -= 1;
                if run[at].names == 0 {
                    run.remove(at);
                    if run.is_empty() {
                        runs.remove(run_index);
                    }
                    // Back in place at half of FEW, not at FEW: a set that hovers there does not move to and fro.
                    let len = runs.iter().take(2).map(Vec::len).sum::<usize>();
                    if len <= FEW / 2 {
                        let mut few = [NOBODY; FEW];
                        let mut few_len = 0;
                        for (place, &there) in few.iter_mut().zip(runs.iter().flatten()) {
                            *place = there;
                            few_len += 1;
                        }
                        self.hops = Hops::Few(few_len, few);
                    }
                }
            }
            Hops::Vacant(_) => unreachable!("an empty place is never used as a set"),
        }
        true
    }

    /// Whether `hop` is in the set.
    pub(crate) fn contains(&self, hop: Hop) -> bool {
        self.run_at(hop).first().is_some_and(|there| there.hop == hop)
    }

    /// The only hop, if there is exactly one.
    pub(crate) fn sole(&self) -> Option<Hop> {
        match &self.hops {
            Hops::Few(1, hops) => Some(hops[0].hop),
            _ => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.run_at(Hop(0)).is_empty()
    }

    /// Some hops from `start` on, in order and without a gap; empty only if none is left.
    #[inline]
    pub(crate) fn run_at(&self, start: Hop) -> &[Counted] {
        match &self.hops {
            Hops::Few(len, hops) => {
                let hops = &hops[..usize::from(*len)];
                &hops[hops.iter().take_while(|there| there.hop < start).count()..]
            }
            Hops::Many(runs) => {
                let run_index = runs.partition_point(|run| run[0].hop <= start).saturating_sub(1);
                let run = &runs[run_index];
                let rest = &run[run.partition_point(|there| there.hop < start)..];
                if rest.is_empty() { runs.get(run_index + 1).map_or(rest, Vec::as_slice) } else { rest }
            }
            Hops::Vacant(_) => &[],
        }
    }

    /// Whose turn it is: the next eligible hop of the first kind that has one.
    ///
    /// Shape:  within a kind strictly in turn. The first turn of all goes to the hop number `first`, so that several
    ///         replicas do not begin with the same.
    /// Source: slim-wire §6.2, fanout 1.
    pub(crate) fn take_turn(
        &mut self,
        first: usize,
        filter: MatchFilter,
        mut is_eligible: impl FnMut(Hop) -> bool,
    ) -> Option<Hop> {
        for kind in KINDS.into_iter().filter(|&kind| filter.admits(kind)) {
            let (low, high) = Hop::range(kind);
            let start = match self.cursors[kind as usize] {
                FRESH => self.nth(low, high, first),
                last => Hop(last + 1),
            };
            let turn = self.find(start, high, &mut is_eligible).or_else(|| self.find(low, start, &mut is_eligible));
            if let Some(hop) = turn {
                self.cursors[kind as usize] = hop.0;
                return Some(hop);
            }
        }
        None
    }

    /// The first hop in `low..high` that is eligible.
    #[inline]
    pub(crate) fn find(&self, low: Hop, high: Hop, is_eligible: &mut impl FnMut(Hop) -> bool) -> Option<Hop> {
        let mut start = low;
        loop {
            let run = self.run_at(start);
            for there in run {
                if there.hop >= high {
                    return None;
                }
                if is_eligible(there.hop) {
                    return Some(there.hop);
                }
            }
            start = Hop(run.last()?.hop.0 + 1);
        }
    }

    /// Hop number `n` in `low..high`, counted round and round; `low` if there is none.
    fn nth(&self, low: Hop, high: Hop, n: usize) -> Hop {
        let mut count = 0usize;
        let mut skip = usize::MAX;
        loop {
            let mut at = None;
            let none = self.find(low, high, &mut |hop| {
                if count == skip {
                    at = Some(hop);
                    return true;
                }
                count += 1;
                false
            });
            match (none, at) {
                (Some(_), Some(hop)) => return hop,
                _ if count == 0 => return low,
                _ => (skip, count) = (n % count, 0),
            }
        }
    }
}

impl Record for HopSet {
    fn vacant(next: u32) -> Self {
        Self { hops: Hops::Vacant(next), cursors: [FRESH; 4] }
    }

    fn next_vacant(&self) -> Option<u32> {
        match self.hops {
            Hops::Vacant(next) => Some(next),
            _ => None,
        }
    }
}

/// Hops kept in place; four instances of a service are common, and the set then fills one cache line.
const FEW: usize = 4;
/// Hops per run: 4 KiB to move at most.
const RUN_LEN_MAX: usize = 512;
/// A cursor that has not been used; no hop has this value.
const FRESH: u32 = u32::MAX;
const NOBODY: Counted = Counted { hop: Hop(Hop::LIMIT), names: 0 };
const _: () = assert!(size_of::<HopSet>() <= 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnId;
    use std::collections::BTreeMap;

    fn edge(slot: u32) -> Hop {
        Hop::new(ConnId { shard: 0, slot, generation: 0 }, ConnType::Edge)
    }

    #[test]
    fn stays_sorted_and_counted_while_it_grows_and_shrinks() {
        let mut set = HopSet::new();
        let mut model = BTreeMap::new();
        let mut slot = 1u32;
        for step in 0..40_000u32 {
            slot = slot.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hop = edge((slot >> 8) % 3_000);
            let grows = step < 15_000;
            if (slot >> 28 < 12) == grows {
                set.add(hop);
                *model.entry(hop).or_insert(0u32) += 1;
            } else {
                assert_eq!(set.remove(hop), model.contains_key(&hop));
                if let Some(count) = model.get_mut(&hop) {
                    *count -= 1;
                    if *count == 0 {
                        model.remove(&hop);
                    }
                }
            }
            if step % 1_000 == 0 {
                assert_eq!(listed(&set), model.iter().map(|(&hop, &names)| (hop, names)).collect::<Vec<_>>());
            }
        }
        for (hop, names) in model {
            assert!(set.contains(hop));
            (0..names).for_each(|_| assert!(set.remove(hop)));
        }
        assert!(set.is_empty());
        assert!(matches!(set.hops, Hops::Few(0, _)));
    }

    fn listed(set: &HopSet) -> Vec<(Hop, u32)> {
        let mut all = Vec::new();
        while let run @ [.., last] = set.run_at(all.last().map_or(Hop(0), |&(hop, _): &(Hop, u32)| Hop(hop.0 + 1))) {
            let _ = last;
            all.extend(run.iter().map(|there| (there.hop, there.names)));
        }
        all
    }

    #[test]
    fn turns_go_round_from_the_first_one_given() {
        for count in [3u32, 7] {
            let mut set = HopSet::new();
            (0..count).for_each(|slot| set.add(edge(slot)));
            let turns: Vec<u32> = (0..2 * count)
                .map(|_| set.take_turn(4, MatchFilter::default(), |_| true).expect("there are hops").slot())
                .collect();
            let expected: Vec<u32> = (0..2 * count).map(|turn| (4 + turn) % count).collect();
            assert_eq!(turns, expected);
        }
    }
}
