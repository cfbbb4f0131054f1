//! The road end to end over real sockets: negotiate, subscribe, publish, receive.

mod kit;

use kit::TestNode;
use kit::client::{Client, Manner};
use slimline_wire::h2::Limits;
use slimline_wire::{ConnType, NameId};
use std::time::Duration;

const BOB: [&str; 3] = ["org", "ns", "bob"];

fn each_shard_count(test: impl Fn(&TestNode)) {
    for shards in [1, 2, 8] {
        test(&TestNode::start(shards));
    }
}

#[test]
fn a_publish_reaches_its_subscriber() {
    each_shard_count(|node| {
        let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
        let (mut bob_link, mut alice_link) = (bob.link(ConnType::Edge), alice.link(ConnType::Edge));
        assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 77), "");
        for (number, size) in [0usize, 1, 200, 5000, 16_384, 20_000, 100_000, 3_000_000].into_iter().enumerate() {
            let payload = vec![u8::try_from(number).expect("few"); size];
            alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload);
            assert!(bob.expect_payload(&mut bob_link) == payload, "payload of {size} octets");
        }
    });
}

#[test]
fn an_ack_means_that_every_shard_knows() {
    each_shard_count(|node| {
        let mut publisher = Client::connect(node.address);
        let mut publisher_link = publisher.link(ConnType::Edge);
        for round in 0..200u128 {
            let mut subscriber = Client::connect(node.address);
            let mut link = subscriber.link(ConnType::Edge);
            assert_eq!(subscriber.subscribe(&mut link, BOB, NameId(round), 1), "");
            publisher.publish(&mut publisher_link, BOB, NameId(round), 1, &round.to_le_bytes());
            assert_eq!(subscriber.expect_payload(&mut link), round.to_le_bytes());
        }
    });
}

#[test]
fn any_fanout_but_one_reaches_everybody_else() {
    each_shard_count(|node| {
        let mut members: Vec<_> = (0..5)
            .map(|_| {
                let mut client = Client::connect(node.address);
                let mut link = client.link(ConnType::Edge);
                assert_eq!(client.subscribe(&mut link, BOB, NameId(5), 1), "");
                (client, link)
            })
            .collect();
        for fanout in [0, 2, 256] {
            let (client, link) = &mut members[0];
            client.publish(link, BOB, NameId(5), fanout, &fanout.to_le_bytes());
            for (client, link) in &mut members[1..] {
                assert_eq!(client.expect_payload(link), fanout.to_le_bytes());
            }
        }
        let (client, _) = &mut members[0];
        client.expect_silence(Duration::from_millis(50));
    });
}

#[test]
fn bodies_of_every_length_arrive_octet_for_octet() {
    each_shard_count(|node| {
        // Wide windows and small socket buffers: the kernel takes large messages in many short sends.
        let manner = Manner {
            limits: Limits { initial_window: 1 << 24, transport_window: 1 << 24, ..Limits::default() },
            receive_octets: Some(16 * 1024),
        };
        let (mut alice, mut bob) = (Client::connect(node.address), Client::with(node.address, &manner));
        let mut carol = Client::with(node.address, &manner);
        let mut alice_link = alice.link(ConnType::Edge);
        let (mut bob_link, mut carol_link) = (bob.link(ConnType::Edge), carol.link(ConnType::Edge));
        assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
        assert_eq!(carol.subscribe(&mut carol_link, BOB, NameId(2), 1), "");
        for octets in [1 << 10, 4095, 4096, 6000, 16_000, 16_384, 20_000, 1 << 16, 200_000, 1 << 20] {
            let payload =
                |round: usize| -> Vec<u8> { (0..octets).map(|at| (at * 31 / 7 + round).to_le_bytes()[0]).collect() };
            for round in 0..3 {
                // Small ones several at a time; what is long enough to congest a reader, one by one.
                let copies = if octets < 1 << 17 { 5 } else { 1 };
                for copy in 0..copies {
                    alice.publish(&mut alice_link, BOB, NameId::ANY, 100, &payload(round + copy));
                }
                for copy in 0..copies {
                    let expected = payload(round + copy);
                    assert!(bob.expect_payload(&mut bob_link) == expected, "{octets} octets, round {round}");
                    assert!(carol.expect_payload(&mut carol_link) == expected, "{octets} octets, round {round}");
                }
                alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(round));
                assert!(bob.expect_payload(&mut bob_link) == payload(round), "{octets} octets, round {round}");
            }
        }
        if node.node().report().len() == 1 {
            assert!(node.counters().gathered_out > 0, "those that were put together, and those with two readers here");
        }
    });
}

#[test]
fn fanout_one_goes_round() {
    let node = TestNode::start(2);
    let mut members: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(node.address);
            let mut link = client.link(ConnType::Edge);
            assert_eq!(client.subscribe(&mut link, BOB, NameId(5), 1), "");
            (client, link)
        })
        .collect();
    let mut publisher = Client::connect(node.address);
    let mut publisher_link = publisher.link(ConnType::Edge);
    for number in 0..9u8 {
        publisher.publish(&mut publisher_link, BOB, NameId::ANY, 1, &[number]);
    }
    let mut all = Vec::new();
    for (client, link) in &mut members {
        for _ in 0..3 {
            all.extend(client.expect_payload(link));
        }
    }
    all.sort_unstable();
    assert_eq!(all, (0..9).collect::<Vec<u8>>(), "each of three members got three of nine");
}

#[test]
fn two_streams_on_one_transport_are_two_connections() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let mut first = client.link(ConnType::Edge);
    let mut second = client.link(ConnType::Edge);
    assert_eq!(client.subscribe(&mut second, BOB, NameId(1), 3), "");
    client.publish(&mut first, BOB, NameId(1), 1, b"to my neighbour");
    assert_eq!(client.expect_payload(&mut second), b"to my neighbour");
}

#[test]
fn upstreams_failure_texts() {
    let node = TestNode::start(2);
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    assert_eq!(client.unsubscribe(&mut link, BOB, NameId(1), 9), "subscription not found");
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 9), "");
    let id = "id not found: 00000000-0000-0000-0000-000000000002";
    assert_eq!(client.unsubscribe(&mut link, BOB, NameId(2), 9), id);
    assert_eq!(client.unsubscribe(&mut link, BOB, NameId::ANY, 9), "id not found: NULL_COMPONENT");
    assert_eq!(client.unsubscribe(&mut link, BOB, NameId(1), 10), "subscription id not found: 10");
    assert_eq!(client.unsubscribe(&mut link, BOB, NameId(1), 9), "");
}

#[test]
fn a_departed_connection_takes_its_routes_along() {
    each_shard_count(|node| {
        let mut publisher = Client::connect(node.address);
        let mut publisher_link = publisher.link(ConnType::Edge);
        let mut gone = Client::connect(node.address);
        let mut gone_link = gone.link(ConnType::Edge);
        assert_eq!(gone.subscribe(&mut gone_link, BOB, NameId(1), 1), "");
        drop(gone);
        node.wait_for("the connection ends", |counters| counters.connections_ended == 1);
        let before = node.counters().drop_no_route;
        publisher.publish(&mut publisher_link, BOB, NameId(1), 1, b"anybody?");
        node.wait_for("no route", |counters| counters.drop_no_route + counters.drop_next_hop_gone == before + 1);
    });
}

#[test]
fn whoever_leaves_takes_no_message_meant_for_all_of_a_name() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let (mut leaving, mut staying, mut alice) =
        (client.link(ConnType::Edge), client.link(ConnType::Edge), client.link(ConnType::Edge));
    for link in [&mut leaving, &mut staying] {
        assert_eq!(client.subscribe(link, BOB, NameId(1), 1), "");
    }
    // In one write, so that no route can have changed between the reset and the publishes.
    let mut octets = vec![0, 0, 4, 3, 0];
    octets.extend(leaving.stream.get().to_be_bytes());
    octets.extend([0, 0, 0, 8]);
    for number in 0..4u8 {
        let message = alice.publish_message(BOB, NameId(1), 1, &[number]);
        let length = u32::try_from(message.len()).expect("short");
        octets.extend(&(length + 5).to_be_bytes()[1..]);
        octets.extend([0, 0]);
        octets.extend(alice.stream.get().to_be_bytes());
        octets.push(0);
        octets.extend(length.to_be_bytes());
        octets.extend(message);
    }
    client.raw(&octets);
    for number in 0..4u8 {
        assert_eq!(client.expect_payload(&mut staying), [number]);
    }
}

#[test]
fn draining_delivers_what_was_accepted_and_ends_streams_well() {
    let node = TestNode::start(2);
    let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
    let (mut bob_link, mut alice_link) = (bob.link(ConnType::Edge), alice.link(ConnType::Edge));
    assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
    for number in 0..100u8 {
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &[number]);
    }
    node.wait_for("all accepted", |counters| counters.publishes == 100);
    let stopping = std::thread::spawn(move || node.stop(Duration::from_secs(10)));
    for number in 0..100u8 {
        assert_eq!(bob.expect_payload(&mut bob_link), [number]);
    }
    assert_eq!(bob.expect_goaway(), slimline_wire::h2::Code::NO_ERROR);
    let (status, _) = bob.expect_end(bob_link.stream);
    assert_eq!(status, 0);
    drop((bob, alice));
    assert!(stopping.join().expect("stops"), "drained in time");
}
