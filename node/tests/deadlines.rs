//! Callers who take their time: how long each step may take, and what happens then.
//!
//! Times only make things happen sooner here than in production; no test fails for being slow.

mod kit;

use kit::client::{Client, Link, Said};
use kit::{PATIENCE, TestNode};
use slimline_wire::h2::Code;
use slimline_wire::{ConnType, NameId};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const BOB: [&str; 3] = ["org", "ns", "bob"];
const SOON: &str = "limits: {preface_deadline: 150ms, headers_deadline: 150ms}";

fn node() -> TestNode {
    TestNode::with(2, SOON, "negotiation_timeout_secs: 1")
}

/// A link on which messages still come back after everything else happened.
struct Canary {
    client: Client,
    bob: Link,
    alice: Link,
}

impl Canary {
    fn new(node: &TestNode) -> Self {
        let mut client = Client::connect(node.address);
        let (mut bob, alice) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
        assert_eq!(client.subscribe(&mut bob, BOB, NameId(1), 1), "");
        Self { client, bob, alice }
    }

    fn sings(&mut self) {
        self.client.publish(&mut self.alice, BOB, NameId(1), 1, b"song");
        assert_eq!(self.client.expect_payload(&mut self.bob), b"song");
    }
}

/// What the node says to these octets and silence, until it closes.
fn last_words(node: &TestNode, octets: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(node.address).expect("accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.write_all(octets).expect("written");
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Ok(_) => said,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => said,
        Err(error) => panic!("not closed: {error}"),
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[test]
fn callers_without_a_preface_are_closed() {
    let node = node();
    let mut canary = Canary::new(&node);
    for (count, octets) in (1u64..).zip([&b""[..], &PREFACE[..10], PREFACE, &[PREFACE, &SETTINGS[..5]].concat()]) {
        last_words(&node, octets);
        assert_eq!(node.counters().deadlines_missed, count, "{octets:?}");
        canary.sings();
    }
    // Octet by octet is no way around it.
    let mut slow = TcpStream::connect(node.address).expect("accepts");
    slow.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let deadline = Instant::now() + PATIENCE;
    let mut octets = PREFACE.iter().cycle();
    let mut last = 0;
    while node.counters().deadlines_missed == 4 {
        assert!(Instant::now() < deadline, "never closed");
        if last < PREFACE.len() - 1 {
            let _ = slow.write_all(&[*octets.next().expect("endless")]);
            last += 1;
        }
        let _ = slow.read(&mut [0; 64]);
    }
    canary.sings();
}

#[test]
fn callers_without_a_request_are_told_to_go() {
    let node = node();
    let mut canary = Canary::new(&node);
    let said = last_words(&node, &[PREFACE, SETTINGS].concat());
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("no request within the deadline"), "{text}");
    assert_eq!(node.counters().deadlines_missed, 1);
    canary.sings();
}

#[test]
fn a_header_block_has_to_end() {
    let node = node();
    let mut canary = Canary::new(&node);
    // An unfinished HEADERS frame, and a finished one that promises a CONTINUATION; both after a good request.
    for unfinished in [&[0, 0, 50, 1, 4, 0, 0, 0, 3, 0x83][..], &[0, 0, 1, 1, 0, 0, 0, 0, 3, 0x83]] {
        let mut client = Client::connect(node.address);
        let mut link = client.link(ConnType::Edge);
        assert_eq!(client.subscribe(&mut link, BOB, NameId(2), 1), "");
        client.raw(unfinished);
        let (code, text) = client.read_goaway();
        assert_eq!(code, Code::ENHANCE_YOUR_CALM);
        assert!(text.contains("headers_deadline"), "{text}");
        canary.sings();
    }
    node.wait_for("their names go", |_| node.node().vitals().names == 1);
}

#[test]
fn streams_without_a_first_message_end_and_their_transport_does_not() {
    let node = node();
    let mut canary = Canary::new(&node);
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    let silent = client.open_channel();
    let cut_short = client.open_channel();
    client.octets(cut_short, &[0, 0, 0, 0, 50, 0x2a, 48]);
    for stream in [silent, cut_short] {
        let (status, text) = client.expect_end(stream);
        assert_eq!((status, text.contains("timed out")), (4, true), "DEADLINE_EXCEEDED: {text}");
    }
    assert_eq!(client.subscribe(&mut link, BOB, NameId(2), 1), "");
    assert_eq!(node.counters().deadlines_missed, 2);
    canary.sings();
}

#[test]
fn a_link_that_is_up_has_no_deadline() {
    let node = node();
    let mut canary = Canary::new(&node);
    canary.client.expect_silence(Duration::from_millis(1500)); // longer than every deadline together
    canary.sings();
    assert_eq!(node.counters().deadlines_missed, 0);
}

#[test]
fn a_silent_peer_is_pinged_and_then_closed() {
    let node = TestNode::with(2, "", "keepalive: {time: 200ms, timeout: 200ms}");
    let mut silent = Client::connect(node.address);
    let mut link = silent.link(ConnType::Edge);
    assert_eq!(silent.subscribe(&mut link, BOB, NameId(1), 1), "");
    node.wait_for("closed, and its route gone", |counters| {
        counters.keepalive_failures == 1 && counters.transports_closed == 1 && node.node().vitals().names == 0
    });
}

#[test]
fn a_peer_that_answers_pings_stays() {
    let node = TestNode::with(2, "", "keepalive: {time: 100ms, timeout: 10s}");
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    client.expect_silence(Duration::from_millis(1000)); // answers as it listens
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "");
    assert_eq!(node.counters().keepalive_failures, 0);
}

#[test]
fn an_old_transport_is_asked_to_go_and_its_streams_carry_on() {
    let node = TestNode::with(1, "", "keepalive: {max_connection_age: 200ms}");
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);
    assert_eq!(client.next(), Said::GoAway { code: Code::NO_ERROR });
    assert!(client.last_words().contains("max_connection_age"));
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "", "the link goes on");
    client.expect_silence(Duration::from_millis(500)); // said once
    assert_eq!(client.unsubscribe(&mut link, BOB, NameId(1), 1), "");
}
