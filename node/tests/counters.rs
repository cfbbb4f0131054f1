//! Every reason to drop or to park that no other test file meets has its counter, and its way to be reached.

mod kit;

use kit::TestNode;
use kit::client::{Client, Link};
use slimline_wire::{ConnType, NameId};

const BOB: [&str; 3] = ["org", "ns", "bob"];

/// A DATA frame with one gRPC-framed message.
fn data(link: &Link, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    let head = [&(length + 5).to_be_bytes()[1..], &[0, 0], &link.stream.get().to_be_bytes()].concat();
    [&head[..], &[0], &length.to_be_bytes(), message].concat()
}

#[test]
fn a_publish_behind_a_subscribe_waits_until_every_shard_knows() {
    for shards in [1, 2] {
        let node = TestNode::start(shards);
        let mut client = Client::connect(node.address);
        let (mut bob, mut other) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
        for round in 0..50u64 {
            // Ids of zero are not acknowledged, and count all the same.
            let subscribe = bob.subscribe_message(BOB, NameId(round.into()), 0, true);
            let publish = bob.publish_message(BOB, NameId(999), 1, b"nobody");
            client.raw(&[data(&bob, &subscribe), data(&bob, &publish)].concat());
        }
        let counters = node.wait_for("all handled", |counters| counters.drop_no_route == 50);
        assert!(counters.parked_settle > 0);
        client.publish(&mut other, BOB, NameId(7), 1, b"settled");
        assert_eq!(client.expect_payload(&mut bob), b"settled");
    }
}

#[test]
fn the_only_receiver_has_just_left() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let (mut bob, mut alice) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
    assert_eq!(client.subscribe(&mut bob, BOB, NameId(1), 1), "");
    let reset = [&[0, 0, 4, 3, 0][..], &bob.stream.get().to_be_bytes(), &[0, 0, 0, 8]].concat();
    let (one, all) = (1, 100);
    let [one, all] = [one, all].map(|fanout| alice.publish_message(BOB, NameId(1), fanout, b"too late"));
    client.raw(&[reset, data(&alice, &one), data(&alice, &all)].concat());
    // For one it is as if nobody had ever been there; a copy for each that was there is a copy lost.
    node.wait_for("counted", |counters| (counters.drop_no_route, counters.drop_next_hop_gone) == (1, 1));
}

#[test]
fn over_the_memory_budget_queues_end_at_high() {
    let slow = "slimline: {slow_reader: {stall_after: 50s, cut_after: 100s}}";
    let node = TestNode::with(1, "limits: {memory_octets_max: 64 MiB}", slow);
    let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
    let (mut bob_link, mut alice_link) = (bob.link(ConnType::Edge), alice.link(ConnType::Edge));
    assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
    bob.credits_streams = false;
    // Two megabytes fill Bob's window, and nearly one waits.
    for _ in 0..28 {
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &[1; 100_000]);
    }
    node.wait_for("queued", |counters| counters.messages_out == 28);
    bob.pump_for(std::time::Duration::from_millis(200));
    let mut hoarders = Vec::new();
    while node.counters().cut_memory == 0 {
        let mut client = Client::connect(node.address);
        let links: Vec<_> = (0..8).map(|_| client.link(ConnType::Edge)).collect(); // over the budget there would be one
        for link in links {
            client.octets(link.stream, &[&[0, 0, 0x3d, 0x09, 0][..], &vec![7; 3_500_000]].concat());
        }
        hoarders.push(client);
    }
    alice.publish(&mut alice_link, BOB, NameId(1), 1, &[2; 500_000]);
    node.wait_for("dropped", |counters| counters.drop_memory == 1);
    drop(hoarders);
    node.wait_for("there is room again", |counters| counters.listeners_reopened > 0);
    alice.publish(&mut alice_link, BOB, NameId(1), 1, &[3; 500_000]);
    bob.credits_streams = true;
    bob.release(bob_link.stream);
    for _ in 0..28 {
        assert_eq!(bob.expect_payload(&mut bob_link), [1; 100_000]);
    }
    assert_eq!(bob.expect_payload(&mut bob_link), [3; 500_000]);
}
