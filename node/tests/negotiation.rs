//! How a link begins, and every way in which it does not.

mod kit;

use kit::TestNode;
use kit::client::{Client, LINK};
use kit::octets::{self, PUBLISH, bytes};
use slimline_wire::link::Initiator;
use slimline_wire::message::{LinkNegotiation, MessageView, build_ack, build_link, parse};
use slimline_wire::{ConnType, NameId};
use std::time::Duration;

const BOB: [&str; 3] = ["org", "ns", "bob"];

/// A link on a fresh transport works from end to end.
fn works(node: &TestNode) {
    let mut client = Client::connect(node.address);
    let (mut bob, mut alice) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
    assert_eq!(client.subscribe(&mut bob, BOB, NameId(1), 1), "");
    client.publish(&mut alice, BOB, NameId(1), 1, b"hello");
    assert_eq!(client.expect_payload(&mut bob), b"hello");
}

/// Sends a first message; how the stream ends.
fn refused(node: &TestNode, first: &[u8]) -> (u32, String) {
    let mut client = Client::connect(node.address);
    let stream = client.open_channel();
    client.message(stream, first);
    let end = client.expect_end(stream);
    // The transport is good for a link.
    let mut link = client.link(ConnType::Edge);
    assert_eq!(client.subscribe(&mut link, BOB, NameId(9), 1), "");
    end
}

fn built(request: &LinkNegotiation<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    build_link(request, &mut message);
    message
}

#[test]
fn what_an_acceptor_refuses_and_why() {
    let node = TestNode::start(1);
    let initiator = Initiator::new(false).expect("random numbers");
    let good = LinkNegotiation { ecdh_public_key: initiator.public(), ..LINK };
    let (long, bad_kem) = ("x".repeat(257), [0xff; 1184]);
    let mut publish =
        octets::message(PUBLISH, &[bytes(1, &octets::header(BOB, NameId(1))), bytes(2, &octets::session())].concat());
    let mut ack = Vec::new();
    build_ack(1, true, "", &mut ack);
    // What comes first, and a word of the reason.
    let rows: [(&str, Vec<u8>, &str); 17] = [
        ("a publish", std::mem::take(&mut publish), "first message"),
        ("an ack", ack, "first message"),
        ("a link without negotiation", octets::message(octets::LINK, &[]), "without a negotiation"),
        ("nothing", Vec::new(), "no type"),
        ("a reply", built(&LinkNegotiation { is_reply: true, ..good }), "is_reply"),
        ("no version", built(&LinkNegotiation { slim_version: "", ..good }), "version"),
        ("half a version", built(&LinkNegotiation { slim_version: "3.4", ..good }), "version"),
        ("a word for a version", built(&LinkNegotiation { slim_version: "latest", ..good }), "version"),
        ("no key", built(&LinkNegotiation { ecdh_public_key: &[], ..good }), "0 octets, expected 32"),
        ("a short key", built(&LinkNegotiation { ecdh_public_key: &[9; 31], ..good }), "31 octets, expected 32"),
        ("a long key", built(&LinkNegotiation { ecdh_public_key: &[9; 33], ..good }), "33 octets, expected 32"),
        ("a low-order key", built(&LinkNegotiation { ecdh_public_key: &[0; 32], ..good }), "low-order"),
        ("no link id", built(&LinkNegotiation { link_id: "", ..good }), "link id"),
        ("a long link id", built(&LinkNegotiation { link_id: &long, ..good }), "257 octets, limit 256"),
        ("a long node id", built(&LinkNegotiation { node_id: &long, ..good }), "257 octets, limit 256"),
        ("a long deployment name", built(&LinkNegotiation { deployment_name: &long, ..good }), "257 octets, limit 256"),
        (
            "an encapsulation key that is none",
            built(&LinkNegotiation { kem_payload: Some(&bad_kem), ..good }),
            "ML-KEM-768",
        ),
    ];
    let count = rows.len() as u64;
    for (what, first, word) in rows {
        works(&node);
        let (status, text) = refused(&node, &first);
        assert_eq!(status, 3, "{what}: INVALID_ARGUMENT, {text}");
        assert!(text.contains("link") && text.contains(word), "{what}: {text}");
    }
    works(&node);
    assert_eq!(node.counters().links_refused, count);
}

#[test]
fn what_an_acceptor_takes() {
    let node = TestNode::with(1, "", "");
    for version in ["0.1.0", "3.4.6", "99.0.0-rc.1+build"] {
        let initiator = Initiator::new(false).expect("random numbers");
        let request = LinkNegotiation { slim_version: version, ecdh_public_key: initiator.public(), ..LINK };
        let (_, reply) = Client::connect(node.address).ask_for_link(&request);
        let Ok(MessageView::Link(reply)) = parse(&reply) else { panic!("a reply") };
        assert!(reply.is_reply && reply.link_id == "link" && reply.ecdh_public_key.len() == 32);
        assert_eq!(reply.node_id, node.node().node_id());
        assert_eq!(reply.slim_version, env!("CARGO_PKG_VERSION"), "our own version");
        assert_eq!((reply.connection_type, reply.deployment_name), (ConnType::Edge, ""));
    }
    // A kind nobody knows is Remote; a KEM payload of another length is not hybrid.
    let initiator = Initiator::new(false).expect("random numbers");
    let request = [
        bytes(1, b"link"),
        bytes(2, b"3.4.6"),
        bytes(4, initiator.public()),
        octets::number(5, 77),
        bytes(8, &[1; 100]),
    ]
    .concat();
    let mut client = Client::connect(node.address);
    let stream = client.open_channel();
    client.message(stream, &octets::message(octets::LINK, &bytes(1, &request)));
    let reply = client.expect_message(stream);
    let Ok(MessageView::Link(reply)) = parse(&reply) else { panic!("a reply") };
    assert_eq!((reply.connection_type, reply.kem_payload), (ConnType::Remote, None));
}

#[test]
fn a_hybrid_key_is_agreed_where_it_is_offered() {
    for server in ["", "require_header_mac: false"] {
        let node = TestNode::with(2, "", server);
        let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
        let (mut bob_link, mut alice_link) = (bob.link_hybrid("hybrid-link"), alice.link(ConnType::Edge));
        assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "", "signed with the hybrid key");
        alice.publish(&mut alice_link, BOB, NameId(1), 1, b"quantum");
        assert_eq!(bob.expect_payload(&mut bob_link), b"quantum");
        let mut again = bob.link_hybrid("hybrid-link");
        assert_eq!(bob.subscribe(&mut again, BOB, NameId(2), 1), "", "the same link id again, with fresh keys");
    }
}

#[test]
fn a_lax_acceptor_runs_without_a_key_where_none_is_agreed() {
    let node = TestNode::with(1, "", "require_header_mac: false");
    for key in [&[][..], &[9; 31], &[0; 32]] {
        let request = LinkNegotiation { ecdh_public_key: key, ..LINK };
        let (_, reply) = Client::connect(node.address).ask_for_link(&request);
        let Ok(MessageView::Link(reply)) = parse(&reply) else { panic!("a reply") };
        assert!(reply.ecdh_public_key.is_empty(), "no key of ours without a key in common");
    }
    let mut client = Client::connect(node.address);
    let mut link = client.link_keyless(ConnType::Edge);
    assert_eq!(client.subscribe(&mut link, BOB, NameId(2), 1), "");
    works(&node);
}

/// A peer that must not be one is told after a normal reply, and keeps no connection.
#[test]
fn peers_of_our_own_name_or_another_deployment_are_turned_away() {
    let node = TestNode::with_service(1, "", "", "domain_name: ours");
    let me = node.node().node_id().to_owned();
    let mut clients = Vec::new();
    for (node_id, deployment, end) in [
        ("other", "ours", None),
        (me.as_str(), "ours", Some("self-connection rejected: same node_id")),
        ("other", "theirs", Some("deployment_name mismatch")),
        ("other", "", Some("deployment_name mismatch")),
    ] {
        let mut client = Client::connect(node.address);
        let link = client.link_as(ConnType::Peer, "peer-link", node_id, deployment);
        match end {
            Some(text) => assert_eq!(client.expect_end(link.stream), (7, text.to_owned()), "PERMISSION_DENIED"),
            None => client.expect_silence(Duration::from_millis(30)),
        }
        clients.push(client);
    }
    assert_eq!(node.counters().links_refused, 3);
    assert_eq!(node.node().vitals().links, 1, "of {} peers", clients.len());
    // Neither check is for other kinds.
    let mut client = Client::connect(node.address);
    let mut link = client.link_as(ConnType::Edge, "link", &me, "theirs");
    assert_eq!(client.subscribe(&mut link, BOB, NameId(5), 1), "");
    // Without a deployment name of our own there is nothing to compare.
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    client.link_as(ConnType::Peer, "peer-link", "other", "theirs");
    client.expect_silence(Duration::from_millis(30));
}

#[test]
fn connections_that_never_negotiate_leave_nothing_behind() {
    let node = TestNode::start(2);
    for _ in 0..100 {
        let mut client = Client::connect(node.address);
        let first = client.open_channel();
        let second = client.open_channel();
        client.end(first); // half-closed before a word
        assert_eq!(client.expect_end(first).0, 0);
        client.reset(second, slimline_wire::h2::Code::CANCEL);
    }
    node.wait_for("all gone", |counters| counters.connections_ended == 200 && counters.transports_closed == 100);
    works(&node);
    assert!(highest_slot(&node) < 20, "slots are reused");
}

#[test]
fn links_that_come_and_go_reuse_their_slots() {
    let node = TestNode::start(2);
    for round in 0..100 {
        let mut client = Client::connect(node.address);
        let mut link = client.link(ConnType::Edge);
        if round % 2 == 0 {
            assert_eq!(client.subscribe(&mut link, BOB, NameId(round), 1), "");
        }
        match round % 3 {
            0 => drop(client),
            1 => client.reset(link.stream, slimline_wire::h2::Code::CANCEL),
            _ => {
                client.end(link.stream);
                assert_eq!(client.expect_end(link.stream).0, 0);
            }
        }
        node.wait_for("gone", |counters| {
            counters.connections_ended == u64::try_from(round).expect("small") + 1 && node.node().vitals().names == 0
        });
    }
    assert!(highest_slot(&node) < 20, "slots are reused: {}", highest_slot(&node));
    node.wait_for("no links", |_| node.node().vitals().links == 0);
}

/// The highest slot a fresh connection on each shard gets.
fn highest_slot(node: &TestNode) -> u32 {
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(node.address)).collect();
    let _links: Vec<_> = clients.iter_mut().map(|client| client.link(ConnType::Edge)).collect();
    let document = slimline_node::stats::document(node.node());
    let ids = document["connections"].as_array().expect("a list");
    ids.iter()
        .map(|connection| {
            let id = connection["id"].as_str().expect("an id"); // s0.12#3
            let slot = id.split(['.', '#']).nth(1).expect("a slot");
            slot.parse::<u32>().expect("a number")
        })
        .max()
        .expect("some")
}
