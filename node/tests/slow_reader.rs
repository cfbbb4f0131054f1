//! Readers that do not read: who waits, who loses what, and who does not notice (architecture, "slow readers").

mod kit;

use kit::client::{Client, Link, Manner, Said, payload_of};
use kit::{PATIENCE, TestNode};
use slimline_wire::h2::{Code, Limits};
use slimline_wire::message::{MessageView, parse};
use slimline_wire::{ConnType, NameId};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BOB: [&str; 3] = ["org", "ns", "bob"];
const CAROL: [&str; 3] = ["org", "ns", "carol"];
const ALICE: [&str; 3] = ["org", "ns", "alice"];

/// Nobody is stalled or cut while a test runs.
const PATIENT: &str = "slimline: {slow_reader: {stall_after: 50s, cut_after: 100s}}";
/// Stalled soon, cut never.
const STALLING: &str = "slimline: {slow_reader: {stall_after: 200ms, cut_after: 100s}}";
/// Stalled soon, cut soon after.
const CUTTING: &str = "slimline: {slow_reader: {stall_after: 200ms, cut_after: 600ms}}";

/// How a reader stops reading.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stall {
    /// It reads its socket and gives no window back.
    Stream,
    /// It leaves the octets in its socket; its windows are wide open.
    Socket,
}

fn reader(address: SocketAddr, stall: Stall) -> Client {
    let manner = match stall {
        Stall::Stream => Manner::default(),
        Stall::Socket => Manner {
            limits: Limits { initial_window: 1 << 28, transport_window: 1 << 28, ..Limits::default() },
            receive_octets: Some(64 * 1024),
        },
    };
    let mut client = Client::with(address, &manner);
    client.credits_streams = stall == Stall::Socket;
    client
}

fn subscribed(mut client: Client, name: [&str; 3], id: u128) -> (Client, Link) {
    let mut link = client.link(ConnType::Edge);
    assert_eq!(client.subscribe(&mut link, name, NameId(id), 1), "");
    (client, link)
}

/// A numbered payload.
fn payload(number: u32, octets: usize) -> Vec<u8> {
    let mut payload = vec![0; octets.max(4)];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    payload
}

fn number_of(message: &[u8]) -> u32 {
    u32::from_le_bytes(payload_of(message)[..4].try_into().expect("numbered"))
}

/// Publishes numbered messages to several names in turn, from a thread of its own, until all of them are written.
fn publisher(
    address: SocketAddr,
    to: &'static [([&'static str; 3], u128)],
    fanout: u32,
    count: u32,
    octets: usize,
) -> JoinHandle<(Client, Link)> {
    std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let mut link = client.link(ConnType::Edge);
        for number in 0..count {
            for &(name, id) in to {
                client.publish(&mut link, name, NameId(id), fanout, &payload(number, octets));
            }
        }
        (client, link)
    })
}

fn finish<T>(thread: JoinHandle<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "the publisher stands still");
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.join().expect("published")
}

/// Reads messages `from..to` in order.
fn expect_numbers(client: &mut Client, link: &Link, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(number_of(&client.expect_message(link.stream)), number);
    }
}

/// Reads whatever still comes, until `last` has come: the numbers, which must ascend.
fn read_until(client: &mut Client, link: &Link, last: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = Vec::new();
    while numbers.last() != Some(&last) {
        let number = number_of(&client.expect_message(link.stream));
        assert!(numbers.last().is_none_or(|&before| before < number), "{number} after {numbers:?}");
        numbers.push(number);
    }
    numbers
}

#[test]
fn publishers_wait_for_a_reader_that_pauses_and_nothing_is_lost() {
    for (shards, stall) in [(1, Stall::Stream), (2, Stall::Stream), (1, Stall::Socket), (2, Stall::Socket)] {
        let node = TestNode::with(shards, "", PATIENT);
        let (mut bob, link) = subscribed(reader(node.address, stall), BOB, 1);
        let publisher = publisher(node.address, &[(BOB, 1)], 1, 1000, 30_000);
        node.wait_for("the publisher waits", |counters| counters.parked_target > 0);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!publisher.is_finished(), "30 MB do not fit anywhere");
        bob.credits_streams = true;
        bob.release(link.stream);
        expect_numbers(&mut bob, &link, 0..1000);
        finish(publisher);
        let counters = node.counters();
        let lost = counters.drop_stalled + counters.drop_hard_cap + counters.drop_disconnected + counters.stalled;
        assert_eq!(lost, 0, "{shards} shards, {stall:?}: {:?}", counters.named());
    }
}

#[test]
fn large_messages_from_many_publishers_on_many_shards_are_not_lost_either() {
    for shards in [2, 4] {
        let node = TestNode::with(shards, "", PATIENT);
        let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
        let publishers: Vec<_> = (0..6).map(|_| publisher(node.address, &[(BOB, 1)], 1, 60, 200_000)).collect();
        node.wait_for("they wait", |counters| counters.parked_target >= 6);
        std::thread::sleep(Duration::from_millis(100));
        bob.credits_streams = true;
        bob.release(link.stream);
        let mut count = std::collections::HashMap::new();
        for _ in 0..360 {
            *count.entry(number_of(&bob.expect_message(link.stream))).or_insert(0) += 1;
        }
        assert!(count.len() == 60 && count.values().all(|&count| count == 6), "each number once from each");
        publishers.into_iter().for_each(|publisher| drop(finish(publisher)));
        assert_eq!(node.counters().drop_hard_cap, 0);
    }
}

#[test]
fn many_publishers_wait_and_every_one_of_them_gets_on() {
    let node = TestNode::with(2, "", PATIENT);
    let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    let publishers: Vec<_> = (0..6).map(|_| publisher(node.address, &[(BOB, 1)], 1, 100, 30_000)).collect();
    node.wait_for("they wait", |counters| counters.parked_target >= 4);
    bob.credits_streams = true;
    bob.release(link.stream);
    let mut next = std::collections::HashMap::new();
    for _ in 0..600 {
        *next.entry(number_of(&bob.expect_message(link.stream))).or_insert(0) += 1;
    }
    assert!(next.len() == 100 && next.values().all(|&count| count == 6), "each number once from each");
    publishers.into_iter().for_each(|publisher| drop(finish(publisher)));
}

#[test]
fn a_stalled_reader_loses_its_own_copies_and_nobody_else_any() {
    for (shards, stall) in [(1, Stall::Stream), (2, Stall::Stream), (1, Stall::Socket), (3, Stall::Socket)] {
        let node = TestNode::with(shards, "", STALLING);
        let (mut bob, link) = subscribed(reader(node.address, stall), BOB, 1);
        let (mut carol, carol_link) = subscribed(Client::connect(node.address), CAROL, 1);
        let publisher = publisher(node.address, &[(BOB, 1), (CAROL, 1)], 1, 1000, 20_000);
        expect_numbers(&mut carol, &carol_link, 0..1000);
        let (mut alice, mut alice_link) = finish(publisher);
        let counters = node.counters();
        assert!(counters.stalled >= 1);
        assert!(counters.drop_stalled > 0);
        assert_eq!(counters.cut, 0);

        // What was kept for Bob is bounded, in order, and he is served again once he reads.
        bob.credits_streams = true;
        bob.release(link.stream);
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(5000, 10));
        let numbers = loop {
            // The last may still be dropped while his queue is long: it is sent until one arrives.
            if let Some(numbers) = try_read_until(&mut bob, &link, 5000) {
                break numbers;
            }
            alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(5000, 10));
        };
        let lost = 1000 - (numbers.iter().filter(|&&number| number < 1000).count() as u64);
        let dropped = node.counters().drop_stalled + node.counters().drop_hard_cap;
        assert!(lost > 0 && lost <= dropped, "{lost} lost, {dropped} counted");
        assert_eq!(&numbers[..10], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "the oldest are kept");
    }
}

/// Ascending numbers read so far on this call and earlier ones; `None` if `last` did not come for a while.
fn try_read_until(client: &mut Client, link: &Link, last: u32) -> Option<Vec<u32>> {
    thread_local!(static READ: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) });
    READ.with_borrow_mut(|numbers| {
        while let Some(said) = client.next_within(Duration::from_millis(300)) {
            let Said::Message { stream, octets } = said else { panic!("{said:?}") };
            assert_eq!(stream, link.stream.get());
            let number = number_of(&octets);
            assert!(numbers.last().is_none_or(|&before| before < number), "{number} after {numbers:?}");
            numbers.push(number);
            if number == last {
                return Some(std::mem::take(numbers));
            }
        }
        None
    })
}

#[test]
fn a_reader_that_stalls_its_stream_is_cut_with_a_reason() {
    let node = TestNode::with(2, "", CUTTING);
    let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    let _alice = finish(publisher(node.address, &[(BOB, 1)], 1, 300, 30_000));
    let (status, text) = bob.expect_end(link.stream);
    assert_eq!((status, text.contains("slow reader")), (8, true), "{text}");
    let counters = node.wait_for("cut, all handled", |counters| counters.cut == 1 && counters.publishes == 300);
    let received = bob.received[&link.stream.get()] / 30_000;
    let accounted = counters.drop_stalled
        + counters.drop_disconnected
        + counters.drop_hard_cap
        + counters.drop_no_route
        + counters.drop_next_hop_gone
        + received;
    assert!((300..=310).contains(&accounted), "{accounted} of 300 accounted for: {:?}", counters.named());
    node.wait_for("his name goes", |_| node.node().vitals().names == 0);
    // His transport is good for another link.
    bob.credits_streams = true;
    let mut again = bob.link(ConnType::Edge);
    assert_eq!(bob.subscribe(&mut again, BOB, NameId(1), 1), "");
    let (mut alice, mut alice_link) = finish(publisher(node.address, &[(BOB, 1)], 1, 3, 10));
    expect_numbers(&mut bob, &again, 0..3);
    alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(3, 10));
    expect_numbers(&mut bob, &again, 3..4);
}

#[test]
fn a_reader_that_stalls_its_socket_loses_its_transport() {
    let node = TestNode::with(2, "", CUTTING);
    let (mut bob, _) = subscribed(reader(node.address, Stall::Socket), BOB, 1);
    finish(publisher(node.address, &[(BOB, 1)], 1, 500, 30_000));
    let counters = node.wait_for("cut", |counters| counters.cut == 1 && counters.transports_closed >= 1);
    assert!(counters.drop_stalled + counters.drop_disconnected > 0);
    node.wait_for("his name goes", |_| node.node().vitals().names == 0);
    bob.expect_closed();
}

#[test]
fn policy_drop_parks_nobody_for_long_and_policy_disconnect_ends_the_reader() {
    let node = TestNode::with(2, "", "slimline: {slow_reader: {policy: drop, cut_after: 100s}}");
    let (_bob, _link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    finish(publisher(node.address, &[(BOB, 1)], 1, 300, 30_000));
    let counters = node.counters();
    assert!(counters.drop_stalled > 0 && counters.cut == 0);

    let node = TestNode::with(2, "", "slimline: {slow_reader: {policy: disconnect, stall_after: 200ms}}");
    let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    finish(publisher(node.address, &[(BOB, 1)], 1, 300, 30_000));
    assert_eq!(bob.expect_end(link.stream).0, 8);
    assert_eq!(node.counters().cut, 1);
}

#[test]
fn the_hard_cap_drops_at_once() {
    let slow = "{high: 3500 KiB, low: 1 MiB, hard_cap: 4 MiB, stall_after: 50s, cut_after: 100s}";
    let node = TestNode::with(1, "", &format!("slimline: {{slow_reader: {slow}}}"));
    let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    let (mut alice, mut alice_link) = subscribed(Client::connect(node.address), ALICE, 1);
    // 2 MiB lie in Bob's window, 3 MB wait.
    for number in 0..10 {
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(number, 500_000));
    }
    node.wait_for("queued", |counters| counters.messages_out == 10);
    alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(10, 2_000_000));
    node.wait_for("dropped at once", |counters| counters.drop_hard_cap == 1);
    alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(11, 100));
    bob.credits_streams = true;
    bob.release(link.stream);
    expect_numbers(&mut bob, &link, 0..10);
    expect_numbers(&mut bob, &link, 11..12);
}

#[test]
fn two_that_publish_to_each_other_and_do_not_read_are_freed_by_the_stall() {
    for shards in [1, 2] {
        let node = TestNode::with(shards, "", STALLING);
        let address = node.address;
        let mut pair =
            [subscribed(reader(address, Stall::Stream), ALICE, 1), subscribed(reader(address, Stall::Stream), BOB, 1)];
        let threads: Vec<_> = pair
            .into_iter()
            .zip([BOB, ALICE])
            .map(|((mut client, mut link), to)| {
                std::thread::spawn(move || {
                    for number in 0..300 {
                        client.publish(&mut link, to, NameId(1), 1, &payload(number, 30_000));
                    }
                    (client, link)
                })
            })
            .collect();
        pair = threads.into_iter().map(finish).collect::<Vec<_>>().try_into().ok().expect("two");
        let counters = node.counters();
        assert!(counters.stalled >= 1 && counters.drop_stalled > 0, "{:?}", counters.named());
        for (client, link) in &mut pair {
            client.credits_streams = true;
            client.release(link.stream);
            expect_numbers(client, link, 0..50);
        }
    }
}

#[test]
fn a_withheld_stream_leaves_its_neighbour_on_the_same_transport_alone() {
    let node = TestNode::with(2, "", CUTTING);
    let mut bob = Client::connect(node.address);
    let (mut slow, mut quick) = (bob.link(ConnType::Edge), bob.link(ConnType::Edge));
    assert_eq!(bob.subscribe(&mut slow, BOB, NameId(1), 1), "");
    assert_eq!(bob.subscribe(&mut quick, CAROL, NameId(1), 1), "");
    bob.withheld.insert(slow.stream.get());
    let publisher = publisher(node.address, &[(BOB, 1), (CAROL, 1)], 1, 400, 20_000);
    expect_numbers(&mut bob, &quick, 0..400);
    finish(publisher);
    let (status, text) = bob.expect_end(slow.stream);
    assert_eq!((status, text.contains("slow reader")), (8, true), "{text}");
    let (mut alice, mut alice_link) = subscribed(Client::connect(node.address), ALICE, 1);
    alice.publish(&mut alice_link, CAROL, NameId(1), 1, &payload(400, 10));
    expect_numbers(&mut bob, &quick, 400..401);
}

#[test]
fn a_fan_out_over_three_shards_with_one_slow_member() {
    let node = TestNode::with(3, "", STALLING);
    let mut members: Vec<_> = (0..6).map(|_| subscribed(Client::connect(node.address), BOB, 9)).collect();
    let (mut slow, slow_link) = subscribed(reader(node.address, Stall::Stream), BOB, 9);
    let publisher = publisher(node.address, &[(BOB, 9)], 256, 400, 20_000);
    let readers: Vec<_> = members
        .drain(..)
        .map(|(mut client, link)| {
            std::thread::spawn(move || {
                expect_numbers(&mut client, &link, 0..400);
                (client, link)
            })
        })
        .collect();
    let (mut alice, mut alice_link) = finish(publisher);
    let mut members: Vec<_> = readers.into_iter().map(finish).collect();
    let counters = node.counters();
    assert!(counters.stalled >= 1 && counters.cut == 0);
    assert!(counters.drop_stalled > 0);
    slow.credits_streams = true;
    slow.release(slow_link.stream);
    node.wait_for("recovers", |_| {
        slow.pump(Duration::from_millis(5));
        slow.waiting_on(slow_link.stream) >= 100
    });
    for _ in 0..20 {
        slow.pump(Duration::from_millis(10)); // until his queue is below `low`
    }
    alice.publish(&mut alice_link, BOB, NameId(9), 256, &payload(400, 10));
    for (client, link) in &mut members {
        expect_numbers(client, link, 400..401);
        client.expect_silence(Duration::from_millis(1));
    }
    let numbers = read_until(&mut slow, &slow_link, 400);
    let dropped = node.counters().drop_stalled + node.counters().drop_hard_cap;
    assert_eq!(numbers.len() as u64 + dropped, 401, "every copy is delivered once or counted");
}

#[test]
fn what_is_queued_for_a_slow_reader_is_bounded() {
    let node = TestNode::with(2, "", STALLING);
    let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    let (mut alice, mut alice_link) = finish(publisher(node.address, &[(BOB, 1)], 1, 1500, 40_000));
    let sent = node.counters().messages_out * 40_000;
    assert!(sent <= (8 << 20) + (2 << 20), "his window and the hard cap: {sent} octets");
    bob.credits_streams = true;
    bob.release(link.stream);
    expect_numbers(&mut bob, &link, 0..50);
    alice.publish(&mut alice_link, ALICE, NameId(1), 1, b"nobody");
}

#[test]
fn copies_for_a_reader_that_leaves_are_counted() {
    let node = TestNode::with(1, "", PATIENT);
    let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    let (mut alice, mut alice_link) = subscribed(Client::connect(node.address), ALICE, 1);
    // In two parts, so that the queue is never long enough to park Alice for good: Bob takes no more than his window.
    for number in 0..22 {
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(number, 100_000));
    }
    node.wait_for("the window is used up", |counters| counters.octets_out >= 2 << 20 && counters.messages_out == 22);
    for number in 22..30 {
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(number, 100_000));
    }
    node.wait_for("queued", |counters| counters.messages_out == 30);
    bob.pump(Duration::from_millis(300));
    bob.reset(link.stream, Code::CANCEL);
    let counters = node.wait_for("gone", |counters| counters.connections_ended == 1);
    // 2 MiB went out: twenty whole messages and a part of the next.
    assert!((9..=10).contains(&counters.drop_disconnected), "{} of 10", counters.drop_disconnected);
}

/// How a publisher leaves while its messages are parked.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Reset,
    Close,
    /// As an SDK does: RST_STREAM, then the end of the connection.
    Both,
}

#[test]
fn what_a_publisher_sent_is_delivered_though_it_leaves_while_parked() {
    for (shards, leave) in [(1, Leave::Reset), (1, Leave::Close), (2, Leave::Both)] {
        let node = TestNode::with(shards, "", PATIENT);
        let (mut bob, link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
        let (mut alice, mut alice_link) = subscribed(Client::connect(node.address), ALICE, 1);
        let messages: Vec<_> =
            (0..600u32).map(|number| alice_link.publish_message(BOB, NameId(1), 1, &payload(number, 10_000))).collect();
        let framed: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        // Until nothing more is taken: Alice is parked and her window is used up.
        let written = write_until_stuck(&node, &mut alice, &alice_link, &framed);
        let mut whole = (0, 0);
        while whole.1 + messages[whole.0].len() + 5 <= written {
            whole = (whole.0 + 1, whole.1 + messages[whole.0].len() + 5);
        }
        node.wait_for("all is read", |counters| counters.octets_in >= written as u64);
        if !matches!(leave, Leave::Close) {
            alice.reset(alice_link.stream, Code::CANCEL);
        }
        if !matches!(leave, Leave::Reset) {
            drop(alice);
        }
        node.wait_for("she is gone", |counters| counters.connections_ended == 1 && node.node().vitals().names == 1);
        bob.credits_streams = true;
        bob.release(link.stream);
        expect_numbers(&mut bob, &link, 0..u32::try_from(whole.0).expect("few"));
        bob.expect_silence(Duration::from_millis(20));
        let (mut alice, mut alice_link) = subscribed(Client::connect(node.address), ALICE, 1);
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(9000, 10));
        expect_numbers(&mut bob, &link, 9000..9001);
    }
}

#[test]
fn a_publisher_may_leave_while_it_is_parked_and_its_own_queue_is_on_its_way() {
    let node = TestNode::with(1, "", PATIENT);
    let (mut alice, mut alice_link) = subscribed(reader(node.address, Stall::Socket), ALICE, 1);
    let (mut bob, bob_link) = subscribed(reader(node.address, Stall::Stream), BOB, 1);
    let to_alice = publisher(node.address, &[(ALICE, 1)], 1, 700, 30_000);
    let to_bob = publisher(node.address, &[(BOB, 1)], 1, 200, 30_000);
    node.wait_for("both are congested", |counters| counters.congested >= 2 && counters.parked_target >= 2);
    let before = node.counters().parked_target;
    alice.publish(&mut alice_link, BOB, NameId(1), 1, &payload(9000, 10));
    node.wait_for("Alice is parked", |counters| counters.parked_target > before);
    alice.reset(alice_link.stream, Code::CANCEL);
    node.wait_for("she is gone", |counters| counters.connections_ended == 1);
    for _ in 0..50 {
        alice.pump(Duration::from_millis(2)); // what was on its way to her arrives
    }
    bob.credits_streams = true;
    bob.release(bob_link.stream);
    let mut numbers: Vec<u32> = (0..201).map(|_| number_of(&bob.expect_message(bob_link.stream))).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).chain([9000]).collect::<Vec<_>>());
    finish(to_alice);
    finish(to_bob);
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).expect("short").to_be_bytes(), message].concat()
}

#[test]
fn a_client_that_does_not_read_its_acks_has_its_requests_parked() {
    let slow = "{high: 64 KiB, low: 32 KiB, stall_after: 50s, cut_after: 100s}";
    let node = TestNode::with(2, "", &format!("slimline: {{slow_reader: {slow}}}"));
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    let manner = Manner { limits: Limits { initial_window: 2000, ..Limits::default() }, receive_octets: None };
    let mut mute = Client::with(node.address, &manner);
    let mut mute_link = mute.link(ConnType::Edge);
    mute.credits_streams = false;
    let ids = (0..12_000).map(|number| number | 1 << 62);
    let requests: Vec<u8> =
        ids.clone().flat_map(|id| framed(&mute_link.subscribe_message(BOB, NameId(1), id, true))).collect();
    let mut written = write_until_stuck(&node, &mut mute, &mute_link, &requests);
    assert!(written < requests.len(), "the node takes no more");
    let counters = node.counters();
    assert!(counters.congested >= 1 && counters.parked_target > 0);
    // Everybody else is served meanwhile, and everything goes on once the acks are read.
    assert_eq!(client.subscribe(&mut link, CAROL, NameId(1), 1), "");
    mute.credits_streams = true;
    mute.release(mute_link.stream);
    for id in ids {
        while mute.waiting_on(mute_link.stream) == 0 {
            written += mute.try_octets(mute_link.stream, &requests[written..]);
            mute.pump(Duration::from_millis(5));
        }
        let ack = mute.expect_message(mute_link.stream);
        assert!(
            matches!(parse(&ack), Ok(MessageView::SubscriptionAck(ack)) if ack.success && ack.subscription_id == id)
        );
    }
    assert_eq!(node.counters().acks_success, 12_001);
}

/// Writes until the node has parked somebody and gives no window for a while; how many octets it took.
fn write_until_stuck(node: &TestNode, client: &mut Client, link: &Link, octets: &[u8]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let (mut written, mut idle) = (0, 0);
    while idle < 30 || node.counters().parked_target == 0 {
        assert!(Instant::now() < deadline && written < octets.len(), "never parked: {written} of {}", octets.len());
        let taken = client.try_octets(link.stream, &octets[written..]);
        written += taken;
        idle = if taken == 0 { idle + 1 } else { 0 };
        client.pump(Duration::from_millis(if taken == 0 { 10 } else { 1 }));
    }
    written
}

#[test]
fn a_peer_that_does_not_read_the_answers_it_causes_is_reset() {
    let node = TestNode::with(1, "limits: {control_frames_per_10s: 10000000}", "");
    let manner = Manner { limits: Limits::default(), receive_octets: Some(4096) };
    let mut client = Client::with(node.address, &manner);
    let _link = client.link(ConnType::Edge);
    let pings: Vec<u8> = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(1000);
    let deadline = Instant::now() + PATIENCE;
    while node.node().counters().unread_answers == 0 {
        assert!(Instant::now() < deadline, "never reset");
        let _ = std::io::Write::write_all(&mut client.socket, &pings);
    }
    node.wait_for("closed", |counters| counters.transports_closed == 1 && counters.connections_ended == 1);
}
