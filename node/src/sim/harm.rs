//! Harm done to one transport, or in the middle of a message's way: what may follow from it, and what may not.

use super::channel::{Plan, Target};
use super::life::{Life, SERVICES};
use super::node::{Actor, Shape};
use super::peer::Leave;
use crate::io::sim::Faults;
use crate::shard::reach::trap;
use slimline_wire::NameId;
use std::time::Duration;

const ALPHA: Target = (SERVICES[0], NameId(1));
const BETA: Target = (SERVICES[1], NameId(1));

/// Seeds of each scenario.
const SEEDS: u64 = 20;

/// More than `high`, two pipes and a window hold together.
const FLOOD: usize = 150;

fn life(seed: u64, shards: usize) -> Life {
    Life::new(seed, &Shape { shards, faults: Faults::HARMLESS, ..Shape::default() })
}

/// Where a trap lies for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trap {
    /// In HTTP/2 frames.
    Frames,
    /// In a SLIM message.
    Message,
    /// In a message that came while the stream was parked.
    Backlog,
    /// The same, of a client that has left meanwhile.
    LastOctets,
}

#[test]
fn a_panic_while_one_transports_octets_are_read_closes_that_transport_alone() {
    for trap in [Trap::Frames, Trap::Message, Trap::Backlog, Trap::LastOctets] {
        for (seed, shards) in (0..SEEDS).flat_map(|seed| [(seed, 1), (seed, 2)]) {
            one_panic(trap, seed, shards);
        }
    }
}

fn one_panic(trap: Trap, seed: u64, shards: usize) {
    println!("{trap:?}, seed {seed}, {shards} shards"); // shown when it fails
    let mut life = life(seed, shards);
    let (victim, reader, other) = (life.linked(), life.linked(), life.linked());
    life.another_link(victim);
    life.subscribed(victim, 0, ALPHA);
    life.subscribed(reader, 0, BETA);
    life.peers[victim].channels[1].begin_message(); // which holds memory that has to be given up
    life.publish(other, 0, &Plan::one(ALPHA, 100));
    life.run_until("the victim is served", Duration::from_secs(1), |life| life.received(victim, 0) == 1);

    let is_parked = matches!(trap, Trap::Backlog | Trap::LastOctets);
    if is_parked {
        life.is_deaf_for(reader, Duration::from_secs(3));
        for _ in 0..FLOOD {
            life.publish(victim, 0, &Plan::one(BETA, 4096));
        }
        life.run_until("it waits", Duration::from_secs(2), |life| life.node.counters().parked_target > 0);
    }
    life.peers[victim].excuse(&mut life.history);
    match trap {
        Trap::Frames => life.peers[victim].ping(trap::IN_FRAMES),
        Trap::Message | Trap::Backlog | Trap::LastOctets => life.peers[victim].channels[0].say(trap::IN_MESSAGES),
    }
    if trap == Trap::LastOctets {
        life.run_until("the node has the trap", Duration::from_secs(2), |life| life.peers[victim].has_said_all());
        life.peers[victim].leave(Leave::Close, &mut life.history);
    }
    life.run_until("closed", Duration::from_secs(60), |life| {
        let counters = life.node.counters();
        counters.panics == 1 && counters.transports_closed == 1 && counters.connections_ended == 2
    });
    assert!(!life.peers[victim].is_open(), "{trap:?}, seed {seed}");

    // Its route has gone, and everybody else is served.
    let unheard = life.node.counters().drop_no_route;
    life.publish(other, 0, &Plan::one(ALPHA, 100));
    let before = if is_parked { FLOOD as u64 } else { 0 }; // what was read before the trap is delivered
    life.publish(other, 0, &Plan::one(BETA, 100));
    life.run_until("the others run on", Duration::from_secs(60), |life| {
        life.received(reader, 0) == before + 1 && life.node.counters().drop_no_route == unheard + 1
    });
    life.settle();
    life.check_after_panics(1);
    life.leave_all();
    life.node.assert_empty();
}

/// Forwarding changes what others rely on: a panic there is nothing one transport could answer for. What ends a thread
/// ends the process (`shard::reach::or_abort`).
#[test]
#[should_panic(expected = "a trap was sprung")]
fn a_panic_while_forwarding_is_not_contained() {
    let mut life = life(1, 1);
    let (a, b) = (life.linked(), life.linked());
    let target = (["org", "ns", trap::IN_FORWARDING], NameId(1));
    life.subscribed(b, 0, target);
    life.publish(a, 0, &Plan::one(target, 100));
    life.finish();
}

/// Ten messages for one of two receivers, of which one has left its shard while control has not told anybody yet.
fn half_gone(seed: u64, shards: usize, is_alone: bool) -> Life {
    let mut life = life(seed, shards);
    let publisher = life.linked();
    // The shard with the fewest transports takes the next one: the order decides who is where.
    let (gone, stays) = if seed.is_multiple_of(2) {
        let gone = life.linked();
        (gone, life.linked())
    } else {
        let stays = life.linked();
        (life.linked(), stays)
    };
    life.subscribed(gone, 0, ALPHA);
    if !is_alone {
        life.subscribed(stays, 0, ALPHA);
    }
    life.sleeps(Actor::Control, Duration::from_secs(1));
    life.peers[gone].leave(Leave::Reset, &mut life.history);
    let ended = |life: &Life| life.node.counters().connections_ended == 1;
    while !ended(&life) {
        life.step();
    }
    for _ in 0..10 {
        life.publish(publisher, 0, &Plan::one(ALPHA, 100));
    }
    while life.node.counters().publishes < 10 {
        life.step();
    }
    let until = life.node.net.now() + Duration::from_millis(900);
    while life.node.net.now() < until && life.received(stays, 0) + life.node.counters().drop_no_route < 10 {
        life.step();
    }
    life
}

#[test]
fn one_that_left_while_a_message_was_on_its_way_is_passed_over() {
    let mut rerouted = 0;
    for (seed, shards) in (0..SEEDS).flat_map(|seed| [(seed, 1), (seed, 2), (seed, 3)]) {
        let life = half_gone(seed, shards, false);
        let counters = life.node.counters();
        let lost = (counters.drop_no_route, counters.drop_next_hop_gone);
        assert_eq!((counters.messages_out, lost), (10, (0, 0)), "seed {seed}, {shards} shards");
        rerouted += counters.rerouted;
        let summary = life.finish();
        assert_eq!((summary.copies, summary.missing), (10, 0), "seed {seed}, {shards} shards");
    }
    assert!(rerouted > 0, "some were on their way to another shard");
}

#[test]
fn where_nobody_else_holds_the_name_there_is_no_route() {
    for (seed, shards) in (0..SEEDS).flat_map(|seed| [(seed, 1), (seed, 2), (seed, 3)]) {
        let life = half_gone(seed, shards, true);
        let counters = life.node.counters();
        assert_eq!((counters.drop_no_route, counters.drop_next_hop_gone), (10, 0), "seed {seed}, {shards} shards");
        assert_eq!(life.finish().copies, 0, "seed {seed}, {shards} shards");
    }
}
