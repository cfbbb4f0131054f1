//! Many of something: receivers of one message, requests at one time.

use super::channel::{Channel, Kind, Plan, Target};
use super::history::Summary;
use super::life::{Life, SERVICES};
use super::node::{Actor, Shape};
use crate::io::sim::Faults;
use crate::limits::OUTPUTS_PER_TURN;
use slimline_wire::{NameId, h2::Limits};
use std::time::Duration;

const ALPHA: Target = (SERVICES[0], NameId(1));
const BETA: Target = (SERVICES[1], NameId(1));

/// Links of one client: fewer than a transport may have streams.
const LINKS_EACH: usize = 80;

fn life(seed: u64, shards: usize) -> Life {
    Life::new(seed, &Shape { shards, faults: Faults::HARMLESS, ..Shape::default() })
}

/// More receivers on each shard than get a copy in one turn, and who publishes to them.
fn crowd(seed: u64, shards: usize) -> (Life, usize) {
    let mut life = life(seed, shards);
    let publisher = life.linked();
    let per_shard = OUTPUTS_PER_TURN + LINKS_EACH;
    for _ in 0..(shards * per_shard).div_ceil(LINKS_EACH) {
        let peer =
            life.connect(&Limits { initial_window: 65_535, transport_window: 65_535, ..Limits::default() }, Kind::EDGE);
        for _ in 1..LINKS_EACH {
            life.open_channel(peer, Kind::EDGE);
        }
        life.run_until("the links are up", Duration::from_secs(4), |life| {
            life.peers[peer].channels.iter().all(Channel::is_up)
        });
        for channel in 0..LINKS_EACH {
            life.peers[peer].channels[channel].subscribe(ALPHA, false, &mut life.history);
        }
    }
    life.run_until("the acks", Duration::from_secs(4), |life| {
        life.peers.iter().flat_map(|peer| &peer.channels).all(|channel| life.history.acks_due(channel.conn) == 0)
    });
    (life, publisher)
}

#[test]
fn more_receivers_than_fit_one_turn_get_one_copy_each() {
    for (seed, shards) in [(1, 1), (2, 2)] {
        let (mut life, publisher) = crowd(seed, shards);
        let receivers = life.peers[1..].iter().map(|peer| peer.channels.len()).sum::<usize>();
        assert!(receivers >= shards * (OUTPUTS_PER_TURN + LINKS_EACH));
        // One of them reads nothing for a while; all wait for it, none gets a copy twice.
        life.is_deaf_for(1, Duration::from_secs(1));
        for _ in 0..20 {
            life.publish(publisher, 0, &Plan { fanout: 100, ..Plan::one(ALPHA, 4096) });
        }
        life.settle();
        assert!(life.node.counters().parked_target > 0, "seed {seed}");
        let Summary { copies, missing, .. } = life.finish();
        assert_eq!((copies, missing), (20 * receivers as u64, 0), "seed {seed}, {shards} shards");
    }
}

#[test]
fn receivers_that_come_and_go_within_a_large_fan_out_get_no_copy_twice() {
    for (seed, shards) in [(5, 1), (6, 2)] {
        let (mut life, publisher) = crowd(seed, shards);
        for round in 0..20 {
            life.publish(publisher, 0, &Plan { fanout: 100, ..Plan::one(ALPHA, 1000) });
            let peer = 1 + round % (life.peers.len() - 1);
            let conn = life.peers[peer].channels[round].conn;
            let subscribed = life.history.subscribed_by(conn);
            life.peers[peer].channels[round].unsubscribe(subscribed[0], &mut life.history);
            life.peers[peer].channels[round].subscribe(BETA, false, &mut life.history);
            life.peers[peer].channels[round].subscribe(ALPHA, false, &mut life.history);
            for _ in 0..life.dice.below(60) {
                life.step();
            }
        }
        assert_eq!(life.finish().missing, 0, "seed {seed}, {shards} shards");
    }
}

#[test]
fn more_requests_than_control_takes_at_a_time_wait_and_are_all_answered() {
    for seed in 0..5 {
        let mut life = life(seed, 1);
        let asker = life.linked();
        life.another_link(asker);
        life.sleeps(Actor::Control, Duration::from_millis(500));
        for id in 0..1000 {
            for (channel, service) in SERVICES.iter().enumerate().take(2) {
                let target = (*service, NameId(id));
                life.peers[asker].channels[channel].subscribe(target, false, &mut life.history);
            }
        }
        life.run_until("some wait", Duration::from_millis(400), |life| life.node.counters().parked_control > 0);
        life.settle();
        assert_eq!(life.node.counters().acks_success, 2000, "seed {seed}");
        life.finish();
    }
}

#[test]
fn more_than_the_road_between_two_shards_holds_waits_and_arrives() {
    for seed in 0..5 {
        let mut life = life(seed, 2);
        let (publisher, reader) = (life.linked(), life.linked());
        life.subscribed(reader, 0, ALPHA);
        life.sleeps(Actor::Shard(1), Duration::from_secs(60));
        for octets in [200_000, 100].repeat(10) {
            life.publish(publisher, 0, &Plan::one(ALPHA, octets));
        }
        while life.node.counters().parked_mesh == 0 {
            life.step();
        }
        assert_eq!(life.received(reader, 0), 0, "seed {seed}: nothing has arrived");
        let Summary { copies, missing, .. } = life.finish();
        assert_eq!((copies, missing), (20, 0), "seed {seed}");
    }
}
