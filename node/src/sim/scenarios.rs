//! Named situations: the cases of ARCHITECTURE.md that chance would meet too seldom, each under many seeds.

use super::channel::{Kind, Plan, Target};
use super::history::Summary;
use super::life::{Life, SERVICES};
use super::node::{PATIENT, STRICT, Shape};
use crate::io::sim::Faults;
use crate::limits::REARMS_PER_TURN;
use crate::settings::SlowReader;
use slimline_wire::NameId;
use slimline_wire::h2::Limits;
use std::time::Duration;

const ALPHA: Target = (SERVICES[0], NameId(1));
const BETA: Target = (SERVICES[1], NameId(1));

/// Seeds of each scenario.
const SEEDS: u64 = 20;

/// More than `high`, two pipes and a window hold together.
const FLOOD: usize = 150;
const FLOOD_OCTETS: usize = 4096;

fn life(seed: u64, shards: usize, slow_reader: SlowReader) -> Life {
    Life::new(seed, &Shape { shards, slow_reader, faults: Faults::HARMLESS, ..Shape::default() })
}

/// A publish of [`FLOOD_OCTETS`].
fn plan(to: Target, fanout: u32) -> Plan {
    Plan { fanout, ..Plan::one(to, FLOOD_OCTETS) }
}

/// Windows as small as clients have them by default.
fn limits() -> Limits {
    Limits { initial_window: 65_535, transport_window: 65_535, ..Limits::default() }
}

impl Life {
    /// A client with one link that is up.
    pub(super) fn linked(&mut self) -> usize {
        let peer = self.connect(&limits(), Kind::EDGE);
        self.run_until("the link is up", Duration::from_secs(1), |life| life.peers[peer].channels[0].is_up());
        peer
    }

    pub(super) fn another_link(&mut self, peer: usize) {
        self.open_channel(peer, Kind::EDGE);
        let channel = self.peers[peer].channels.len() - 1;
        self.run_until("the link is up", Duration::from_secs(1), |life| life.peers[peer].channels[channel].is_up());
    }

    pub(super) fn subscribed(&mut self, peer: usize, channel: usize, target: Target) {
        self.peers[peer].channels[channel].subscribe(target, false, &mut self.history);
        let conn = self.peers[peer].channels[channel].conn;
        self.run_until("the ack", Duration::from_secs(1), |life| life.history.acks_due(conn) == 0);
    }

    pub(super) fn publish(&mut self, peer: usize, channel: usize, plan: &Plan) {
        self.peers[peer].channels[channel].publish(plan, &mut self.history);
    }

    pub(super) fn is_deaf_for(&mut self, peer: usize, length: Duration) {
        self.peers[peer].deaf_until = Some(self.node.net.now() + length);
    }

    pub(super) fn received(&self, peer: usize, channel: usize) -> u64 {
        self.peers[peer].channels[channel].received
    }

    pub(super) fn finish(mut self) -> Summary {
        self.settle();
        let summary = self.check();
        self.leave_all();
        self.node.assert_empty();
        summary
    }
}

/// Two clients flood each other and read nothing meanwhile.
fn facing_each_other(seed: u64, shards: usize, slow_reader: SlowReader) -> Life {
    let mut life = life(seed, shards, slow_reader);
    let (a, b) = (life.linked(), life.linked());
    life.subscribed(a, 0, ALPHA);
    life.subscribed(b, 0, BETA);
    for peer in [a, b] {
        life.is_deaf_for(peer, Duration::from_secs(3));
    }
    for _ in 0..FLOOD {
        life.publish(a, 0, &plan(BETA, 1));
        life.publish(b, 0, &plan(ALPHA, 100));
    }
    life
}

#[test]
fn two_full_connections_facing_each_other_come_free_when_they_stall() {
    for seed in 0..SEEDS {
        for shards in [1, 2] {
            let mut life = facing_each_other(seed, shards, STRICT);
            life.settle();
            let counters = life.node.counters();
            assert_eq!((counters.stalled, counters.cut), (2, 0), "seed {seed}, {shards} shards");
            assert!(counters.parked_target >= 1, "seed {seed}: a publisher waited");
            let summary = life.finish();
            assert_eq!(summary.missing, counters.drop_stalled + counters.drop_hard_cap, "seed {seed}");
        }
    }
}

#[test]
fn two_full_connections_facing_each_other_lose_nothing_when_waited_for() {
    for seed in 0..SEEDS {
        for shards in [1, 2] {
            let summary = facing_each_other(seed, shards, PATIENT).finish();
            assert_eq!((summary.copies, summary.missing), (2 * FLOOD as u64, 0), "seed {seed}, {shards} shards");
        }
    }
}

#[test]
fn a_stream_reset_while_it_is_parked_leaves_nothing_behind() {
    for seed in 0..SEEDS {
        for shards in [1, 2] {
            let mut life = facing_each_other(seed, shards, PATIENT);
            life.run_until("one is parked", Duration::from_secs(2), |life| life.node.counters().parked_target >= 1);
            life.peers[0].reset(0, &mut life.history); // with octets for it on their way
            life.finish();
        }
    }
}

#[test]
fn a_stream_that_stands_still_does_not_hold_up_its_neighbour() {
    for seed in 0..SEEDS {
        let mut life = life(seed, 1, PATIENT);
        let (publisher, reader) = (life.linked(), life.linked());
        life.another_link(publisher);
        life.another_link(reader);
        life.subscribed(reader, 0, ALPHA);
        life.subscribed(reader, 1, BETA);
        let until = life.node.net.now() + Duration::from_secs(600);
        life.peers[reader].channels[0].withholds_until = Some(until);
        for _ in 0..FLOOD {
            life.publish(publisher, 0, &plan(ALPHA, 1));
            life.publish(publisher, 1, &plan(BETA, 1));
        }
        life.run_until("the neighbour has everything", Duration::from_secs(60), |life| {
            life.received(reader, 1) == FLOOD as u64
        });
        assert!(life.node.counters().parked_target > 0, "seed {seed}: the first publisher waits");
        let now = life.node.net.now();
        life.peers[reader].channels[0].withholds_until = Some(now);
        assert_eq!(life.finish().missing, 0, "seed {seed}");
    }
}

#[test]
fn nobody_waits_for_a_reader_that_has_said_goodbye() {
    for seed in 0..SEEDS {
        for shards in [1, 2] {
            let mut life = life(seed, shards, PATIENT);
            let (publisher, reader, other) = (life.linked(), life.linked(), life.linked());
            life.subscribed(reader, 0, ALPHA);
            life.subscribed(other, 0, BETA);
            let until = life.node.net.now() + Duration::from_secs(600);
            life.peers[reader].channels[0].withholds_until = Some(until);
            for _ in 0..FLOOD {
                life.publish(publisher, 0, &plan(ALPHA, 1));
            }
            life.run_until("it is slow", Duration::from_secs(2), |life| life.node.counters().congested >= 1);
            life.publish(publisher, 0, &plan(ALPHA, 1));
            life.publish(publisher, 0, &plan(BETA, 1));
            life.run_until("it waits", Duration::from_secs(2), |life| life.node.counters().parked_target >= 1);
            life.peers[reader].finish(0, &mut life.history); // still entitled to what is queued for it, and no more
            life.run_until("the publisher goes on", Duration::from_secs(60), |life| life.received(other, 0) == 1);
            let now = life.node.net.now();
            life.peers[reader].channels[0].withholds_until = Some(now);
            life.finish();
        }
    }
}

/// A group over three shards, one member of which does not read for three seconds.
fn group(seed: u64, slow_reader: SlowReader) -> (Life, Vec<usize>) {
    let mut life = life(seed, 3, slow_reader);
    let members: Vec<usize> = (0..7).map(|_| life.linked()).collect();
    for &member in &members {
        life.subscribed(member, 0, ALPHA);
    }
    life.is_deaf_for(members[6], Duration::from_secs(3));
    for _ in 0..FLOOD {
        life.publish(members[0], 0, &plan(ALPHA, 100));
    }
    (life, members)
}

#[test]
fn a_slow_member_holds_up_its_group_until_it_stalls() {
    for seed in 0..SEEDS {
        let (mut life, members) = group(seed, STRICT);
        life.run_until("the others have everything", Duration::from_millis(2500), |life| {
            members[1..6].iter().all(|&member| life.received(member, 0) == FLOOD as u64)
        });
        let counters = life.node.counters();
        assert!(counters.mesh_in > 0, "seed {seed}: more than one shard");
        assert_eq!(counters.stalled, 1, "seed {seed}");
        let summary = life.finish();
        assert!(summary.missing > 0 && summary.missing < FLOOD as u64, "seed {seed}: {summary:?}");
    }
}

#[test]
fn a_slow_member_is_waited_for_where_nobody_stalls() {
    for seed in 0..SEEDS {
        let (life, members) = group(seed, PATIENT);
        let summary = life.finish();
        assert_eq!((summary.copies, summary.missing), ((members.len() - 1) as u64 * FLOOD as u64, 0), "seed {seed}");
    }
}

#[test]
fn an_answer_finds_who_replayed_its_name_quietly() {
    for seed in 0..SEEDS {
        let mut life = life(seed, 3, PATIENT);
        let (asker, replier) = (life.linked(), life.linked());
        life.subscribed(replier, 0, BETA);
        for round in 0..5u64 {
            let own = (SERVICES[2], NameId(10 + u128::from(round)));
            life.peers[asker].channels[0].subscribe(own, true, &mut life.history);
            life.publish(asker, 0, &plan(BETA, 1));
            while life.received(replier, 0) == round {
                life.step();
            }
            life.publish(replier, 0, &plan(own, 1));
        }
        let summary = life.finish();
        assert_eq!((summary.copies, summary.missing), (10, 0), "seed {seed}");
    }
}

#[test]
fn what_was_read_before_a_drain_is_delivered() {
    for seed in 0..2 * SEEDS {
        let mut life = life(seed, 1 + (seed % 3) as usize, PATIENT);
        let peers: Vec<usize> = (0..4).map(|_| life.linked()).collect();
        for (&peer, target) in peers.iter().zip([ALPHA, BETA].iter().cycle()) {
            life.subscribed(peer, 0, *target);
        }
        life.is_deaf_for(peers[3], Duration::from_millis(200));
        for _ in 0..FLOOD / 3 {
            for &peer in &peers {
                let to = if life.dice.happens(500) { ALPHA } else { BETA };
                life.publish(peer, 0, &plan(to, 1));
            }
        }
        for _ in 0..life.dice.below(3000) {
            life.step();
        }
        life.peers.iter_mut().for_each(|peer| peer.is_excused = true);
        let quiet = life.node.quiesce();
        let mut answers = 0;
        while answers < life.node.shards.len() {
            life.step();
            answers += quiet.try_iter().count();
        }
        life.node.drain();
        while !life.node.is_over() {
            life.step();
        }
        let counters = life.node.counters();
        assert!(life.peers.iter().all(|peer| !peer.is_open()), "seed {seed}: everybody was told goodbye");
        assert_eq!(
            counters.publishes,
            counters.messages_out + counters.drop_no_route,
            "seed {seed}: {:?}",
            counters.named()
        );
        assert_eq!(life.history.copies(), counters.messages_out, "seed {seed}: {:?}", counters.named());
    }
}

#[test]
fn receives_that_starve_are_armed_again_a_few_at_a_time_and_none_is_forgotten() {
    for seed in 0..SEEDS {
        let mut life =
            Life::new(seed, &Shape { shards: 1, slow_reader: PATIENT, faults: Faults::NONE, ..Shape::default() });
        let reader = life.linked();
        life.subscribed(reader, 0, ALPHA);
        let publishers: Vec<usize> = (0..3 * REARMS_PER_TURN).map(|_| life.linked()).collect();
        life.node.net.set_faults(Faults { no_buffers: 1000, ..Faults::HARMLESS });
        for &publisher in &publishers {
            (0..3).for_each(|_| life.publish(publisher, 0, &plan(ALPHA, 1)));
        }
        for shard in &mut life.node.shards {
            shard.shard.io.take_armed_most();
        }
        while life.node.counters().starved < 10 * publishers.len() as u64 {
            life.step();
        }
        assert_eq!(life.received(reader, 0), 0, "seed {seed}: nobody is heard");
        life.node.net.heal();
        life.run_until("everybody is heard", Duration::from_secs(10), |life| {
            life.received(reader, 0) == 3 * publishers.len() as u64
        });
        for shard in &mut life.node.shards {
            assert_eq!(shard.shard.io.take_armed_most(), REARMS_PER_TURN, "seed {seed}: one turn's credit");
        }
        assert_eq!(life.finish().missing, 0, "seed {seed}");
    }
}

/// The checker is told of a subscription that was never sent.
#[test]
#[should_panic(expected = "never came to connection")]
fn a_missing_copy_is_noticed() {
    let mut life = life(1, 1, PATIENT);
    let (a, b) = (life.linked(), life.linked());
    let conn = life.peers[b].channels[0].conn;
    life.history.subscribe(conn, ALPHA, 77);
    life.history.acked(conn, 77, true, "");
    life.history.now += 1;
    life.publish(a, 0, &plan(ALPHA, 100));
    life.finish();
}

/// The checker is told that a subscription was taken back.
#[test]
#[should_panic(expected = "which it had not asked for")]
fn a_copy_nobody_asked_for_is_noticed() {
    let mut life = life(1, 1, PATIENT);
    let (a, b) = (life.linked(), life.linked());
    life.subscribed(b, 0, ALPHA);
    let conn = life.peers[b].channels[0].conn;
    let (_, id) = life.history.unsubscribe(conn, 0);
    life.history.acked(conn, id, true, "");
    life.history.now += 1;
    life.publish(a, 0, &plan(ALPHA, 1));
    life.finish();
}

/// The checker is told of other octets than were sent.
#[test]
#[should_panic(expected = "octets arrived other than they should")]
fn a_changed_octet_is_noticed() {
    let mut life = life(1, 2, PATIENT);
    let (a, b) = (life.linked(), life.linked());
    life.subscribed(b, 0, ALPHA);
    life.publish(a, 0, &plan(ALPHA, 1));
    life.history.falsify_last();
    life.finish();
}

/// The checker is told that a copy had come already.
#[test]
#[should_panic(expected = "publish 0 of 0 after Some(0)")]
fn a_second_copy_is_noticed() {
    let mut life = life(1, 1, PATIENT);
    let (a, b) = (life.linked(), life.linked());
    life.subscribed(b, 0, ALPHA);
    let conn = life.peers[b].channels[0].conn;
    life.history.pretend_delivered(conn, life.peers[a].channels[0].conn, 0);
    life.publish(a, 0, &plan(ALPHA, 100));
    life.finish();
}
