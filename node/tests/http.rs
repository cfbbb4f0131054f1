//! Requests that are not messages: health, refusals, and how streams begin and end.

mod kit;

use kit::TestNode;
use kit::client::{Client, Manner, Said};
use slimline_wire::h2::{Code, Limits, StreamId};
use slimline_wire::{ConnType, NameId};
use std::time::Duration;

const BOB: [&str; 3] = ["org", "ns", "bob"];
/// Nobody is congested by what a test queues, or stalled while it runs.
const PATIENT: &str = "slimline: {slow_reader: {high: 7 MiB, low: 1 MiB, stall_after: 50s, cut_after: 100s}}";
const CHANNEL: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

/// An answer: status, fields, body, trailers.
#[derive(Debug, Default)]
struct Answer {
    head: Option<Said>,
    body: Vec<u8>,
    trailers: Option<Said>,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.as_ref().and_then(|head| head.field(":status")).expect("a status")
    }

    /// grpc-status, from trailers or from a head that is all there is.
    fn grpc(&self) -> Option<&str> {
        self.trailers.as_ref().or(self.head.as_ref()).and_then(|said| said.field("grpc-status"))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.as_ref().and_then(|head| head.field(name))
    }
}

fn answer(client: &mut Client, stream: StreamId) -> Answer {
    let mut answer = Answer::default();
    loop {
        match client.next_on(stream) {
            said @ Said::Headers { end, .. } => {
                answer.head = Some(said);
                if end {
                    return answer;
                }
            }
            Said::Data { octets, end, .. } => {
                answer.body.extend_from_slice(&octets);
                if end {
                    return answer;
                }
            }
            said @ Said::Trailers { .. } => {
                answer.trailers = Some(said);
                return answer;
            }
            Said::GoAway { code: Code::NO_ERROR } => {}
            other => panic!("no part of an answer: {other:?}"),
        }
    }
}

fn ask(client: &mut Client, method: &str, path: &str, content_type: &str) -> Answer {
    let stream = request(client, method, path, content_type, true);
    answer(client, stream)
}

fn request(client: &mut Client, method: &str, path: &str, content_type: &str, end: bool) -> StreamId {
    let mut fields = vec![(":method", method), (":scheme", "http"), (":authority", "node"), (":path", path)];
    if !content_type.is_empty() {
        fields.push(("content-type", content_type));
    }
    client.request(&fields, end)
}

/// Method, path, content-type; :status, grpc-status, body.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, Option<&'a str>, &'a [u8]);

#[test]
fn plain_requests_get_plain_answers() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    #[rustfmt::skip]
    let rows: [Row<'_>; 14] = [
        ("GET",    "/healthz",       "",                       "200", None,       b"ok\n"),
        ("GET",    "/healthz?a=b",   "",                       "200", None,       b"ok\n"),
        ("HEAD",   "/healthz",       "",                       "200", None,       b""),
        ("POST",   "/healthz",       "",                       "405", None,       b"use GET or HEAD"),
        ("DELETE", "/healthz",       "application/grpc",       "405", None,       b"use GET or HEAD"),
        ("GET",    "/",              "",                       "404", None,       b"not found: try /healthz, or gRPC\n"),
        ("POST",   "/no.Such/Method","application/grpc",       "200", Some("12"), b""),
        ("POST",   "/dataplane.proto.v1.DataPlaneService/Other", "application/grpc", "200", Some("12"), b""),
        ("GET",    CHANNEL,          "application/grpc",       "405", Some("2"),  b""),
        ("PUT",    CHANNEL,          "application/grpc",       "405", Some("2"),  b""),
        ("POST",   CHANNEL,          "application/json",       "415", Some("2"),  b""),
        ("POST",   CHANNEL,          "",                       "415", Some("2"),  b""),
        ("POST",   CHANNEL,          "application/grpc-web",   "415", Some("2"),  b""),
        ("POST",   "/grpc.health.v1.Health/Check", "application/grpc", "200", Some("0"), &[0, 0, 0, 0, 2, 8, 1]),
    ];
    for (method, path, content_type, status, grpc, body) in rows {
        let answer = ask(&mut client, method, path, content_type);
        assert_eq!((answer.status(), answer.grpc(), &answer.body[..]), (status, grpc, body), "{method} {path}");
    }
    // The same transport still carries links.
    let mut link = client.link(ConnType::Edge);
    assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "");
}

#[test]
fn health_can_be_switched_off() {
    let node = TestNode::with(1, "", "slimline: {health: false}");
    let mut client = Client::connect(node.address);
    assert_eq!(ask(&mut client, "GET", "/healthz", "").status(), "404");
    assert_eq!(ask(&mut client, "POST", "/grpc.health.v1.Health/Check", "application/grpc").grpc(), Some("12"));
}

#[test]
fn a_call_that_streams_is_refused_before_it_ends() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    for (path, content_type, grpc) in [("/no.Such/Method", "application/grpc", "12"), (CHANNEL, "text/plain", "2")] {
        let stream = request(&mut client, "POST", path, content_type, false);
        assert_eq!(answer(&mut client, stream).grpc(), Some(grpc), "{path}");
        client.octets(stream, b"still talking"); // ignored, and no reason to end anything
    }
    assert_eq!(ask(&mut client, "GET", "/healthz", "").status(), "200");
}

#[test]
fn answered_streams_make_room_for_others() {
    let node = TestNode::with(1, "limits: {streams_max: 5}", "");
    let mut client = Client::connect(node.address);
    for _ in 0..300 {
        assert_eq!(ask(&mut client, "GET", "/healthz", "").body, b"ok\n");
        assert_eq!(ask(&mut client, "HEAD", "/healthz", "").status(), "200");
        assert_eq!(ask(&mut client, "POST", "/grpc.health.v1.Health/Check", "application/grpc").grpc(), Some("0"));
        assert_eq!(ask(&mut client, "GET", "/nowhere", "").status(), "404");
        assert_eq!(ask(&mut client, "POST", "/no.Such/Method", "application/grpc").grpc(), Some("12"));
    }
    assert_eq!(node.counters().stream_errors, 0);
}

#[test]
fn answers_wait_for_windows() {
    let node = TestNode::with(1, "limits: {streams_max: 3}", "");
    let manner = Manner { limits: Limits { initial_window: 1, ..Limits::default() }, receive_octets: None };
    let mut client = Client::with(node.address, &manner);
    client.credits_streams = false;
    let health = request(&mut client, "GET", "/healthz", "", true);
    let check = request(&mut client, "POST", "/grpc.health.v1.Health/Check", "application/grpc", true);
    for stream in [health, check] {
        assert!(matches!(client.next_on(stream), Said::Headers { end: false, .. }));
        assert!(matches!(client.next_on(stream), Said::Data { octets, end: false, .. } if octets.len() == 1));
    }
    client.expect_silence(Duration::from_millis(50));
    // An answer that waits occupies its stream.
    let third = request(&mut client, "GET", "/healthz", "", true);
    assert!(matches!(client.next_on(third), Said::Headers { .. }));
    assert!(matches!(client.next_on(third), Said::Data { .. }));
    let fourth = request(&mut client, "GET", "/healthz", "", true);
    assert_eq!(client.next_on(fourth), Said::Reset { stream: fourth.get(), code: Code::REFUSED_STREAM });

    client.credits_streams = true;
    client.release(health);
    let rest = answer(&mut client, health);
    assert_eq!((rest.body.as_slice(), rest.trailers.is_none()), (&b"k\n"[..], true));
    client.release(check);
    let rest = answer(&mut client, check);
    assert_eq!((rest.body.len(), rest.grpc()), (6, Some("0")));
    client.reset(third, Code::CANCEL);
    let fifth = request(&mut client, "HEAD", "/healthz", "", true);
    assert_eq!(answer(&mut client, fifth).status(), "200");
}

#[test]
fn response_headers_come_at_once() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let stream = request(&mut client, "POST", CHANNEL, "application/grpc+proto", false);
    let Said::Headers { fields, end: false, .. } = client.next_on(stream) else { panic!("headers") };
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [":status", "content-type", "date"]);
    assert_eq!(fields[1].1, "application/grpc");
}

/// Each way a client can finish its half, and what it gets: everything queued, then status 0.
#[test]
fn half_closed_clients_get_what_is_queued_then_status_0() {
    let node = TestNode::with(2, "", PATIENT);
    let mut alice = Client::connect(node.address);
    let mut alice_link = alice.link(ConnType::Edge);
    for with_trailers in [false, true] {
        let mut bob = Client::connect(node.address);
        let mut link = bob.link(ConnType::Edge);
        assert_eq!(bob.subscribe(&mut link, BOB, NameId(1), 1), "");
        // Far more than Bob's window, below what would make Alice wait.
        bob.credits_streams = false;
        let before = node.counters().messages_out;
        for number in 0..30u8 {
            alice.publish(&mut alice_link, BOB, NameId(1), 1, &vec![number; 100_000]);
        }
        node.wait_for("all queued", |counters| counters.messages_out == before + 30);
        if with_trailers {
            bob.end_with_trailers(link.stream, &[("x-last", "word")]);
        } else {
            bob.end(link.stream);
        }
        // His routes go at once, although he is still being served.
        node.wait_for("his name goes", |_| node.node().vitals().names == 0);
        bob.credits_streams = true;
        bob.release(link.stream);
        for number in 0..30u8 {
            assert_eq!(bob.expect_payload(&mut link), vec![number; 100_000]);
        }
        assert_eq!(bob.expect_end(link.stream), (0, String::new()));
        // The transport goes on.
        let mut again = bob.link(ConnType::Edge);
        assert_eq!(bob.subscribe(&mut again, BOB, NameId(2), 1), "");
        drop(bob);
        node.wait_for("gone", |_| node.node().vitals().names == 0);
    }
    let counters = node.counters();
    assert_eq!(counters.drop_disconnected, 0);
    // Slots come back: two streams of Bob's and one of Alice's at a time never need more than a few.
    for _ in 0..50 {
        let mut client = Client::connect(node.address);
        let link = client.link(ConnType::Edge);
        client.end(link.stream);
        assert_eq!(client.expect_end(link.stream).0, 0);
    }
    alice.expect_silence(Duration::from_millis(10));
}

#[test]
fn a_publisher_that_half_closes_has_everything_delivered() {
    let node = TestNode::with(1, "", "slimline: {slow_reader: {stall_after: 50s, cut_after: 100s}}"); // across shards the news that Bob is congested may come after the last message
    let mut bob = Client::connect(node.address);
    let mut bob_link = bob.link(ConnType::Edge);
    assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
    bob.credits_streams = false;
    let mut alice = Client::connect(node.address);
    let mut alice_link = alice.link(ConnType::Edge);
    let payloads: Vec<Vec<u8>> = (0..60u8).map(|number| vec![number; 100_000]).collect();
    let messages: Vec<_> =
        payloads.iter().map(|payload| alice_link.publish_message(BOB, NameId(1), 1, payload)).collect();
    // 6 MB: 2 MiB of window, 1 MiB until Bob is congested, 1 MiB between shards, the rest waits in Alice's backlog.
    let alice = std::thread::spawn(move || {
        messages.iter().for_each(|message| alice.message(alice_link.stream, message));
        alice.end(alice_link.stream);
        alice.expect_end(alice_link.stream)
    });
    node.wait_for("Alice waits", |counters| counters.parked_target > 0);
    bob.credits_streams = true;
    for (number, payload) in payloads.iter().enumerate() {
        assert_eq!(&bob.expect_payload(&mut bob_link), payload, "payload {number}");
    }
    assert_eq!(alice.join().expect("all sent"), (0, String::new()));
}

#[test]
fn while_draining_health_says_so_and_readers_are_still_served() {
    let node = TestNode::with(2, "", PATIENT);
    let address = node.address;
    let (mut bob, mut alice) = (Client::connect(address), Client::connect(address));
    let (mut bob_link, mut alice_link) = (bob.link(ConnType::Edge), alice.link(ConnType::Edge));
    assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
    bob.credits_streams = false;
    for number in 0..30u8 {
        alice.publish(&mut alice_link, BOB, NameId(1), 1, &vec![number; 100_000]);
    }
    node.wait_for("all queued", |counters| counters.messages_out == 30);
    let stopping = std::thread::spawn(move || node.stop(Duration::from_secs(20)));
    // The listener is closed before anything else: a caller is told so by its kernel.
    let deadline = std::time::Instant::now() + kit::PATIENCE;
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(std::time::Instant::now() < deadline, "the listener closes");
    }
    assert_eq!(alice.expect_end(alice_link.stream).0, 0);
    assert_eq!(ask(&mut bob, "GET", "/healthz", "").body, b"draining\n");
    assert_eq!(ask(&mut bob, "GET", "/healthz", "").status(), "503");
    let check = ask(&mut bob, "POST", "/grpc.health.v1.Health/Check", "application/grpc");
    assert_eq!((check.body.last(), check.grpc()), (Some(&2), Some("0")));
    let stream = request(&mut bob, "POST", CHANNEL, "application/grpc", false);
    let refused = answer(&mut bob, stream);
    assert_eq!((refused.status(), refused.grpc()), ("200", Some("14")), "UNAVAILABLE");
    assert!(refused.field("grpc-message").is_some_and(|text| text.contains("draining")));
    bob.credits_streams = true;
    bob.release(bob_link.stream);
    for number in 0..30u8 {
        assert_eq!(bob.expect_payload(&mut bob_link), vec![number; 100_000]);
    }
    assert_eq!(bob.expect_end(bob_link.stream).0, 0);
    drop((alice, bob));
    assert!(stopping.join().expect("stops"), "drained in time");
}
