//! Every bound a peer can run into, what it is told there, and that others do not notice.

mod kit;

use kit::client::{Client, LINK, Link, Said};
use kit::{PATIENCE, TestNode};
use slimline_wire::h2::Code;
use slimline_wire::message::{LinkNegotiation, MessageView, build_link, parse};
use slimline_wire::{ConnType, NameId};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const BOB: [&str; 3] = ["org", "ns", "bob"];
const CHANNEL: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

/// A canary: two links that must work whatever others do.
struct Canary {
    client: Client,
    bob: Link,
    alice: Link,
    count: u32,
}

impl Canary {
    fn new(node: &TestNode) -> Self {
        let mut client = Client::connect(node.address);
        let (mut bob, alice) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
        assert_eq!(client.subscribe(&mut bob, ["the", "canary", "bird"], NameId(1), 1), "");
        Self { client, bob, alice, count: 0 }
    }

    fn sings(&mut self) {
        self.count += 1;
        let song = self.count.to_le_bytes();
        self.client.publish(&mut self.alice, ["the", "canary", "bird"], NameId(1), 1, &song);
        assert_eq!(self.client.expect_payload(&mut self.bob), song);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn repeat(frame: &[u8], count: usize) -> Vec<u8> {
    frame.repeat(count)
}

/// A header block of a call, without compression.
fn call_block() -> Vec<u8> {
    let field = |name: &str, value: &str| {
        [
            &[0x10, u8::try_from(name.len()).expect("short")][..],
            name.as_bytes(),
            &[u8::try_from(value.len()).expect("short")],
            value.as_bytes(),
        ]
        .concat()
    };
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":authority", "node"),
        field(":path", CHANNEL),
        field("te", "trailers"),
        field("content-type", "application/grpc"),
    ]
    .concat()
}

/// What a flood consists of, and a word of the GOAWAY it ends in.
#[test]
fn floods_end_the_transport_that_makes_them() {
    let node = TestNode::start(2);
    let mut canary = Canary::new(&node);
    let call = call_block();
    let rapid_reset: Vec<u8> = (0..500u32)
        .flat_map(|index| {
            let stream = 2 * index + 3;
            [frame(1, 4, stream, &call), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    // The node is made to reset: a WINDOW_UPDATE of zero on each stream.
    let made_you_reset: Vec<u8> = (0..500u32)
        .flat_map(|index| {
            let stream = 2 * index + 3;
            [frame(1, 4, stream, &call), frame(8, 0, stream, &[0; 4])].concat()
        })
        .collect();
    // One header of 4000 octets goes into the table, then each octet stands for it.
    let mut bomb = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 8000]);
    let continuations = [frame(1, 0, 3, &call), repeat(&frame(9, 0, 3, b""), 20)].concat();
    let too_many_streams: Vec<u8> = (0..1500u32).flat_map(|index| frame(1, 4, 2 * index + 3, &call)).collect();
    let rows: [(&str, Vec<u8>, &str); 11] = [
        ("PING", repeat(&frame(6, 0, 0, b"12345678"), 3000), "PING"),
        ("PING acknowledgements", repeat(&frame(6, 1, 0, b"12345678"), 3000), "PING"),
        ("SETTINGS", repeat(&frame(4, 0, 0, b""), 2000), "SETTINGS"),
        ("SETTINGS acknowledgements", repeat(&frame(4, 1, 0, b""), 2000), "SETTINGS"),
        ("PRIORITY", repeat(&frame(2, 0, 1, &[0, 0, 0, 0, 5]), 2000), "PRIORITY"),
        ("empty DATA", repeat(&frame(0, 0, 1, b""), 2000), "empty DATA"),
        ("WINDOW_UPDATE", repeat(&frame(8, 0, 0, &[0, 0, 0, 1]), 20_000), "WINDOW_UPDATE"),
        ("frames of no known kind", repeat(&frame(0xee, 0, 0, b""), 2000), "frames without use"),
        ("CONTINUATION", continuations, "CONTINUATION"),
        ("rapid reset", rapid_reset, "streams reset"),
        ("made you reset", made_you_reset, "streams reset"),
    ];
    for (what, flood, word) in rows {
        canary.sings();
        let errors = node.counters().transport_errors;
        let mut client = Client::connect(node.address);
        let _link = client.link(ConnType::Edge); // stream 1
        client.raw(&flood);
        let (code, text) = client.read_goaway();
        assert!(code == Code::ENHANCE_YOUR_CALM && text.contains(word), "{what}: {code} {text}");
        assert_eq!(node.counters().transport_errors, errors + 1, "{what}");
        canary.sings();
    }
    for (what, flood) in [("HPACK bomb", frame(1, 4, 3, &bomb)), ("streams", too_many_streams)] {
        let mut client = Client::connect(node.address);
        let _link = client.link(ConnType::Edge);
        client.raw(&flood);
        let (code, text) = client.read_goaway();
        assert_eq!(code, Code::ENHANCE_YOUR_CALM, "{what}: {text}");
        canary.sings();
    }
    node.wait_for("all gone", |counters| counters.transports_closed == counters.transports_accepted - 1);
    assert_eq!(node.node().vitals().links, 2, "the canary's own");
}

#[test]
fn configured_floods_are_tighter_or_looser() {
    let tight =
        TestNode::with(1, "limits: {control_frames_per_10s: 10, resets_per_10s: 2, continuation_frames_max: 1}", "");
    for flood in [
        repeat(&frame(6, 0, 0, b"12345678"), 60), // the first few are earned by DATA
        (0..4u32)
            .flat_map(|index| [frame(1, 4, 2 * index + 3, &call_block()), frame(3, 0, 2 * index + 3, &[0; 4])].concat())
            .collect(),
        [frame(1, 0, 3, &call_block()), repeat(&frame(9, 0, 3, b""), 2)].concat(),
    ] {
        let mut client = Client::connect(tight.address);
        let _link = client.link(ConnType::Edge);
        client.raw(&flood);
        assert_eq!(client.read_goaway().0, Code::ENHANCE_YOUR_CALM);
    }
    let loose = TestNode::with(1, "limits: {control_frames_per_10s: 100000}", "");
    let mut client = Client::connect(loose.address);
    let mut link = client.link(ConnType::Edge);
    client.raw(&repeat(&frame(6, 0, 0, b"12345678"), 3000));
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "");
}

#[test]
fn streams_beyond_the_advertised_number_are_refused_one_by_one() {
    let node = TestNode::with(1, "limits: {streams_max: 4}", "");
    let mut client = Client::connect(node.address);
    let mut links: Vec<_> = (0..4).map(|_| client.link(ConnType::Edge)).collect();
    assert_eq!(client.send.peer_streams_max(), 4, "advertised");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "node"),
        (":path", CHANNEL),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    for _ in 0..3 {
        let fifth = client.request(&fields, false);
        assert_eq!(client.next_on(fifth), Said::Reset { stream: fifth.get(), code: Code::REFUSED_STREAM });
    }
    assert_eq!(client.subscribe(&mut links[3], BOB, NameId(1), 1), "");
    client.end(links[0].stream);
    assert_eq!(client.expect_end(links[0].stream).0, 0);
    client.link(ConnType::Edge); // there is room again
    assert_eq!(node.counters().stream_errors, 3);
}

#[test]
fn a_message_is_as_long_as_configured() {
    let node = TestNode::with(1, "limits: {message_octets_max: 16 KiB}", "");
    let mut client = Client::connect(node.address);
    let (mut bob, mut alice) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
    assert_eq!(client.subscribe(&mut bob, BOB, NameId(1), 1), "");
    for (octets, passes) in [(16_000, true), (16_384, false), (100_000, false), (100, true)] {
        client.publish(&mut alice, BOB, NameId(1), 1, &vec![7; octets]);
        if passes {
            assert_eq!(client.expect_payload(&mut bob).len(), octets);
        }
    }
    assert_eq!(node.counters().drop_oversize, 2);
}

#[test]
fn parts_of_a_message_have_bounds_that_are_the_operators() {
    let wide = "limits: {slim_header_octets_max: 64 KiB, name_component_octets_max: 8 KiB, link_text_octets_max: 600}";
    let narrow = "limits: {slim_header_octets_max: 1 KiB, name_component_octets_max: 200}";
    let (long, longer) = ("n".repeat(250), "n".repeat(5000));
    let link_id = "l".repeat(600);

    let node = TestNode::with(2, wide, "");
    let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
    let mut bob_link = bob.link_as(ConnType::Edge, &link_id, "test-node", "");
    let mut alice_link = alice.link(ConnType::Edge);
    let name = ["org", "ns", &longer];
    assert_eq!(bob.subscribe(&mut bob_link, name, NameId(1), 1), "");
    for fanout in [1, 100] {
        alice.publish(&mut alice_link, name, NameId(1), fanout, b"from shard to shard");
        assert_eq!(bob.expect_payload(&mut bob_link), b"from shard to shard");
    }
    assert_eq!(node.counters().drop_malformed, 0);

    for (limits, text) in [(narrow, &long), ("", &longer)] {
        let node = TestNode::with(1, limits, "");
        let mut client = Client::connect(node.address);
        let mut link = client.link(ConnType::Edge);
        let message = link.subscribe_message(["org", "ns", text], NameId(1), 1, true);
        client.message(link.stream, &message);
        node.wait_for("skipped", |counters| counters.drop_malformed == 1);
        assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 2), "", "and nothing but skipped");
        let stream = client.open_channel();
        let mut request = Vec::new();
        build_link(&LinkNegotiation { link_id: &link_id, ..LINK }, &mut request);
        client.message(stream, &request);
        let (status, text) = client.expect_end(stream);
        assert_eq!((status, text.contains("600 octets, limit 256")), (3, true), "{text}");
    }
}

#[test]
fn a_header_list_too_long_costs_its_stream() {
    let node = TestNode::with(1, "limits: {header_list_octets_max: 2 KiB}", "");
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    let long = "v".repeat(1500);
    let stream = client.request(
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "node"),
            (":path", CHANNEL),
            ("x-a", &long),
            ("x-b", &long),
        ],
        false,
    );
    match client.next_on(stream) {
        Said::Reset { .. } => {}
        Said::Headers { fields, .. } => assert_eq!(fields[0].1, "431"),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "");
    // A block so long that nobody would decode it ends the transport.
    let mut client = Client::connect(node.address);
    let _link = client.link(ConnType::Edge);
    client.raw(&[frame(1, 0, 3, &[0; 9000]), frame(9, 0, 3, &[0; 9000])].concat());
    assert!([Code::ENHANCE_YOUR_CALM, Code::COMPRESSION_ERROR].contains(&client.read_goaway().0));
}

#[test]
fn names_are_bounded_per_connection_and_per_node() {
    let node = TestNode::with(2, "limits: {names_max: 25, names_per_connection_max: 10}", "");
    let mut clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(node.address);
            let link = client.link(ConnType::Edge);
            (client, link)
        })
        .collect();
    for (number, (client, link)) in clients.iter_mut().enumerate() {
        let base = 100 * number as u128;
        let room = if number == 2 { 5 } else { 10 };
        for id in 0..room {
            assert_eq!(client.subscribe(link, BOB, NameId(base + id), 1), "");
        }
        let limit = if number == 2 { 25 } else { 10 };
        assert_eq!(client.subscribe(link, BOB, NameId(base + 50), 1), format!("too many names: limit {limit}"));
    }
    let (client, link) = &mut clients[0];
    assert_eq!(client.unsubscribe(link, BOB, NameId(3), 1), "");
    assert_eq!(client.subscribe(link, BOB, NameId(60), 1), "", "room for one");
    assert_eq!(node.counters().acks_failure, 3);
    clients.truncate(2);
    node.wait_for("the third's names go", |_| node.node().vitals().names == 20);
}

#[test]
fn unacknowledged_requests_park_the_stream_and_nobody_else() {
    let node = TestNode::with(2, "limits: {unacknowledged_max: 3}", "");
    let mut canary = Canary::new(&node);
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    let all: Vec<u8> = (0..2000u64)
        .flat_map(|id| {
            let message = link.subscribe_message(BOB, NameId(u128::from(id % 7)), id + 1, true);
            [&[0][..], &u32::try_from(message.len()).expect("short").to_be_bytes(), &message].concat()
        })
        .collect();
    client.octets(link.stream, &all);
    canary.sings();
    for id in 1..=2000u64 {
        let ack = client.expect_message(link.stream);
        assert!(
            matches!(parse(&ack), Ok(MessageView::SubscriptionAck(ack)) if ack.success && ack.subscription_id == id)
        );
    }
    assert!(node.counters().parked_requests > 0);
}

#[test]
fn a_first_message_is_short() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let stream = client.open_channel();
    client.octets(stream, &[0, 0, 2, 0, 0, 1, 2, 3]); // 128 KiB announced
    let (status, text) = client.expect_end(stream);
    assert_eq!((status, text.contains("link negotiation")), (8, true), "{text}");
}

fn is_refused(node: &TestNode) -> bool {
    TcpStream::connect(node.address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_node_refuses_callers_until_some_leave() {
    for shards in [1, 2] {
        let node = TestNode::with(shards, "limits: {connections_max: 20}", "");
        for round in 1..=2 {
            let (mut clients, mut turned_away) = (Vec::new(), 0);
            // Whoever gets through is served, even those who came a little late.
            while let Some(mut client) = Client::try_connect(node.address) {
                if !client.is_greeted() {
                    // Only who comes in the microseconds between the last accept and the close.
                    turned_away += 1;
                    continue;
                }
                clients.push(client);
                assert!(clients.len() < 100, "never full: {:?}", node.counters().named());
            }
            node.wait_for("closed", |counters| counters.listeners_closed == round);
            assert!(turned_away <= 1);
            assert!((20..40).contains(&clients.len()), "{} of about 20", clients.len());
            let mut links: Vec<_> = clients.iter_mut().map(|client| client.link(ConnType::Edge)).collect();
            assert_eq!(clients[0].subscribe(&mut links[0], BOB, NameId(1), 1), "");
            let (last, last_link) = (clients.len() - 1, links.len() - 1);
            clients[last].publish(&mut links[last_link], BOB, NameId(1), 1, b"still here");
            assert_eq!(clients[0].expect_payload(&mut links[0]), b"still here");
            assert!(is_refused(&node), "ECONNREFUSED, which an SDK retries");
            drop(clients);
            node.wait_for("open again", |counters| counters.listeners_reopened == round);
            wait_until("callers get through", || !is_refused(&node));
        }
        // A node that is closed still stops.
        let clients: Vec<_> = (0..20).map_while(|_| Client::try_connect(node.address)).collect();
        assert!(node.stop(Duration::from_secs(10)) || !clients.is_empty());
    }
}

#[test]
fn a_node_over_its_memory_budget_takes_nobody_new_and_sheds_what_is_large() {
    let slow = "slimline: {slow_reader: {high: 2 MiB, low: 1 MiB, stall_after: 50s, cut_after: 100s}}";
    let node = TestNode::with(2, "limits: {memory_octets_max: 64 MiB}", slow);
    let mut canary = Canary::new(&node);
    // Incomplete messages of 4 MB each, on many streams.
    let mut hoarders = Vec::new();
    let mut ended = 0;
    while ended == 0 {
        let Some(mut client) = Client::try_connect(node.address) else { break };
        let links: Vec<_> = (0..8).map(|_| client.link(ConnType::Edge)).collect(); // over the budget there would be one
        for link in links {
            client.octets(link.stream, &[&[0, 0, 0x3d, 0x09, 0][..], &vec![7; 3_500_000]].concat());
        }
        hoarders.push(client);
        ended = node.counters().cut_memory;
        assert!(hoarders.len() < 20, "560 MB are more than the budget");
    }
    let counters = node.wait_for("listeners close", |counters| counters.listeners_closed > 0);
    assert!(counters.panics == 0 && counters.cut_memory + counters.listeners_closed > 0);
    canary.sings();
    drop(hoarders);
    node.wait_for("there is room again", |counters| counters.listeners_reopened > 0);
    wait_until("callers get through", || !is_refused(&node));
    canary.sings();
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "");
}

#[test]
fn windows_are_what_was_configured() {
    let node = TestNode::with(1, "limits: {stream_window_octets: 128 KiB, transport_window_octets: 256 KiB}", "");
    let mut client = Client::connect(node.address);
    let stream = client.open_channel();
    assert_eq!(client.send.window(stream), 128 << 10);
    assert_eq!(client.send.transport_window(), 256 << 10);
}
