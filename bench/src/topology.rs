//! Who subscribes to what and who publishes where: pure arithmetic, the same for every peer and engine.

use slimline_wire::name::{Name, NameId, Prefix};

use crate::payload::mix;
use crate::plan::Plan;
use crate::random::{Random, Zipf};
use crate::scenario::{Command, Fanout, Spread};

/// The names of one run. They hold the run's tag, so that runs against one long-lived node never meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) run: u32,
}

impl Names {
    /// The three text components of name `index`.
    pub(crate) fn text(self, index: u32) -> [String; 3] {
        ["bench".into(), format!("run-{:08x}", self.run), format!("sink-{index}")]
    }

    /// The route of name `index`, instance `instance`.
    pub(crate) fn name(self, index: u32, instance: NameId) -> Name {
        let [organisation, namespace, service] = self.text(index);
        Name { prefix: Prefix::of(&organisation, &namespace, &service), id: instance }
    }

    /// The id one subscriber of a name holds; never one of the reserved top values.
    pub(crate) fn instance(self, index: u32, subscriber: u32) -> NameId {
        let low = mix(u64::from(index) << 32 | u64::from(subscriber));
        NameId(u128::from(mix(u64::from(self.run)) >> 1) << 64 | u128::from(low))
    }
}

/// The names of one subscriber: all `k` with `k % modulus == residue`, below `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) modulus: u32,
    pub(crate) residue: u32,
    pub(crate) end: u32,
}

impl Share {
    /// Whether this subscriber asked for `name`.
    pub(crate) fn holds(&self, name: u32) -> bool {
        name < self.end && name % self.modulus == self.residue
    }

    /// Its names in order.
    #[cfg(test)]
    pub(crate) fn iter(self) -> impl Iterator<Item = u32> {
        (self.residue..self.end).step_by(self.modulus as usize)
    }

    /// How many.
    pub(crate) fn len(&self) -> u32 {
        if self.residue >= self.end { 0 } else { (self.end - 1 - self.residue) / self.modulus + 1 }
    }

    /// No name at all.
    pub(crate) const NONE: Self = Self { modulus: 1, residue: 0, end: 0 };
}

/// One connection's part in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The names it subscribes to.
    pub(crate) share: Share,
    /// Which number it has among the subscribers: part of its instance id.
    pub(crate) subscriber: u32,
    /// Its number as a publisher.
    pub(crate) publisher: Option<u32>,
    /// Ping-pong: the publisher number under which it answers.
    pub(crate) responder: Option<u32>,
}

/// Parts of all connections of a plan, subscribers first.
pub(crate) fn parts(plan: &Plan) -> Vec<Part> {
    let quiet = Part { share: Share::NONE, subscriber: 0, publisher: None, responder: None };
    if plan.command == Command::Pingpong {
        // Names 0..P belong to the responders, P..2P to the requesters.
        let own = |index: u32| Share { modulus: 2 * plan.pubs, residue: index, end: 2 * plan.pubs };
        let responders =
            (0..plan.pubs).map(|i| Part { share: own(i), subscriber: i, responder: Some(plan.pubs + i), ..quiet });
        let requesters = (0..plan.pubs).map(|i| Part {
            share: own(plan.pubs + i),
            subscriber: plan.pubs + i,
            publisher: Some(i),
            ..quiet
        });
        return responders.chain(requesters).collect();
    }
    let subscribers = (0..plan.subs).map(|j| {
        let modulus = plan.subs.min(plan.names);
        let share = Share { modulus, residue: j % modulus, end: plan.names };
        // More subscribers than names: each takes one name only, and `names` divides into them by remainder.
        let share = if plan.subs >= plan.names {
            Share { modulus: plan.names, residue: j % plan.names, ..share }
        } else {
            share
        };
        Part { share, subscriber: j, ..quiet }
    });
    let publishers = (0..plan.pubs).map(|i| Part { publisher: Some(i), ..quiet });
    // Idle ones hold one name of their own each, past those anybody addresses.
    let idle = if plan.command == Command::Idle { plan.connections } else { 0 };
    let idlers = (0..idle).map(|k| {
        let index = plan.names + k;
        Part { share: Share { modulus: u32::MAX, residue: index, end: index + 1 }, subscriber: plan.subs + k, ..quiet }
    });
    subscribers.chain(publishers).chain(idlers).collect()
}

/// How a subscription's id is chosen, and what a publish to the same name carries.
///
/// Fanout all: one id, as a group's channel has. Fanout one with several subscribers of a name: each its own id, and
/// the publish asks for any. Else the one subscriber's id, exactly.
pub(crate) fn instance_of(plan: &Plan, names: Names, index: u32, subscriber: u32) -> NameId {
    match plan.fanout {
        Fanout::All => names.instance(index, u32::MAX),
        Fanout::One => names.instance(index, subscriber),
    }
}

/// The id a publish to name `index` carries.
pub(crate) fn address_of(plan: &Plan, names: Names, index: u32) -> NameId {
    match plan.fanout {
        Fanout::All => names.instance(index, u32::MAX),
        Fanout::One if plan.command == Command::Pingpong => names.instance(index, index),
        Fanout::One if plan.subs > plan.names => NameId::ANY,
        Fanout::One => names.instance(index, index % plan.subs),
    }
}

/// The names publisher `publisher` addresses, `count` picks in the order it walks them.
pub(crate) fn destinations(plan: &Plan, publisher: u32, count: u32) -> Vec<u32> {
    let names = plan.names;
    if plan.command == Command::Pingpong {
        return vec![publisher; count as usize];
    }
    let mut random = Random::new(plan.seed ^ mix(u64::from(publisher) + 1));
    match plan.spread {
        Spread::Pair => vec![publisher % names; count as usize],
        Spread::Uniform => (0..count).map(|_| random.below(names)).collect(),
        Spread::Zipf => {
            let zipf = Zipf::new(names);
            (0..count).map(|_| zipf.draw(&mut random)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Options;

    fn plan(edit: impl FnOnce(&mut Options)) -> Plan {
        let mut options = Options::default();
        edit(&mut options);
        Plan::check(Command::Throughput, options).unwrap()
    }

    #[test]
    fn every_name_has_exactly_its_copies_of_subscribers() {
        for (subs, names, fanout, copies) in [
            (1, 1, Fanout::One, 1),
            (8, 1, Fanout::All, 8),
            (8, 4, Fanout::All, 2),
            (2, 7, Fanout::One, 1),
            (64, 64, Fanout::One, 1),
        ] {
            let plan = plan(|o| {
                (o.subs, o.names, o.fanout) = (Some(subs), Some(names), Some(fanout));
                (o.pubs, o.spread) = (Some(names), Some(Spread::Uniform));
            });
            let parts = parts(&plan);
            for name in 0..names {
                let holders = parts.iter().filter(|part| part.share.holds(name)).count();
                assert_eq!(holders, copies, "{subs} subscribers, {names} names, name {name}");
            }
            assert!(parts.iter().all(|part| part.share.iter().count() == part.share.len() as usize));
            assert_eq!(plan.copies() as usize, copies);
        }
    }

    #[test]
    fn a_publish_carries_the_id_its_subscriber_holds() {
        let plan = plan(|o| (o.pubs, o.subs, o.names, o.spread) = (Some(7), Some(2), Some(7), Some(Spread::Uniform)));
        let names = Names { run: 9 };
        for part in parts(&plan) {
            for name in part.share.iter() {
                assert_eq!(instance_of(&plan, names, name, part.subscriber), address_of(&plan, names, name));
            }
        }
    }

    #[test]
    fn ping_pong_pairs_answer_each_other() {
        let plan = Plan::check(Command::Pingpong, Options { pubs: Some(3), ..Options::default() }).unwrap();
        let parts = parts(&plan);
        assert_eq!(parts.len(), 6);
        let names = Names { run: 1 };
        for part in &parts {
            assert_eq!(part.share.len(), 1);
            let own = part.share.iter().next().unwrap();
            assert_eq!(instance_of(&plan, names, own, part.subscriber), address_of(&plan, names, own));
        }
    }

    #[test]
    fn names_of_two_runs_never_meet() {
        let (a, b) = (Names { run: 1 }, Names { run: 2 });
        assert_ne!(a.name(0, NameId::ANY).prefix, b.name(0, NameId::ANY).prefix);
        assert_ne!(a.instance(0, 0), b.instance(0, 0));
    }
}
