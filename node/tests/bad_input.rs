//! What a peer may say wrongly, and that it costs the wrong message, or its stream with a reason, and nobody anything else.
//!
//! Every case first sees a publish arrive on healthy links, then sends what is bad, then sees the next publish arrive.

mod kit;

use kit::TestNode;
use kit::client::{Client, Link, payload_of};
use kit::octets::{self, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, bytes, number, varint, wide_bytes, wide_number};
use slimline_wire::h2::StreamId;
use slimline_wire::link::HopFields;
use slimline_wire::message::{MacOut, MessageView, parse, rewrite};
use slimline_wire::{ConnType, NameId};
use std::time::Duration;

const BOB: [&str; 3] = ["org", "ns", "bob"];
const NOBODY: [&str; 3] = ["org", "ns", "nobody"];
/// Room for a tag at the end of a header.
const UNSIGNED: [u8; 34] = {
    let mut field = [0; 34];
    (field[0], field[1]) = (11 << 3 | 2, 32);
    field
};
const BRIEFLY: Duration = Duration::from_millis(30);

/// A node and two clients with a link each; Bob has subscribed to his name.
struct Pair {
    node: TestNode,
    bob: Client,
    bob_link: Link,
    alice: Client,
    alice_link: Link,
    count: u32,
}

impl Pair {
    fn new(server: &str) -> Self {
        let node = TestNode::with(2, "", server);
        let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
        let (mut bob_link, alice_link) = (bob.link(ConnType::Edge), alice.link(ConnType::Edge));
        assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
        Self { node, bob, bob_link, alice, alice_link, count: 0 }
    }

    /// What Alice publishes reaches Bob, and nothing else does before it.
    fn works(&mut self) {
        self.count += 1;
        let payload = self.count.to_le_bytes();
        self.alice.publish(&mut self.alice_link, BOB, NameId(1), 1, &payload);
        assert_eq!(self.bob.expect_payload(&mut self.bob_link), payload);
    }

    /// Sends one message on Alice's link, as it is.
    fn send(&mut self, message: &[u8]) {
        self.alice.message(self.alice_link.stream, message);
    }

    /// Signs a message that has [`UNSIGNED`] in its header and sends it; no other octet of it changes.
    fn send_signed_in_place(&mut self, message: &[u8]) {
        let mut signed = message.to_vec();
        self.alice_link.sign_in_place(&mut signed);
        self.send(&signed);
    }

    /// Signs a message for Alice's link and sends it.
    fn send_signed(&mut self, message: &[u8]) {
        let signed = self.alice_link.sign(message.to_vec());
        self.send(&signed);
    }
}

/// Each row: what is wrong, and the whole message.
#[rustfmt::skip]
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let publish = |body: Vec<u8>| octets::message(PUBLISH, &body);
    let header = || octets::header(BOB, NameId(1));
    let whole = || [bytes(1, &header()), bytes(2, &octets::session()), bytes(3, &octets::content(b"x"))].concat();
    let with_header = |header: Vec<u8>| publish([bytes(1, &header), bytes(2, &octets::session())].concat());
    let source = || bytes(1, &octets::name(BOB, NameId(1)));
    let destination = || bytes(2, &octets::name(BOB, NameId(1)));
    let groups = |depth: usize| [vec![0x7b; depth], vec![0x7c; depth]].concat(); // field 15, group begin and end
    let long = |octets: usize| vec![b'x'; octets];
    vec![
        ("empty frame", vec![]),
        ("no type, only metadata", bytes(4, &[bytes(1, b"k"), bytes(2, b"v")].concat())),
        ("no type, only an unknown field", number(99, 1)),
        ("publish without header", publish([bytes(2, &octets::session()), bytes(3, &octets::content(b"x"))].concat())),
        ("publish that is empty", publish(vec![])),
        ("publish without session", publish([bytes(1, &header()), bytes(3, &octets::content(b"x"))].concat())),
        ("publish with an empty header", with_header(vec![])),
        ("header without source", with_header(destination())),
        ("header without destination", with_header(source())),
        ("source without hashes", with_header([bytes(1, &bytes(2, &octets::string_name(BOB))), destination()].concat())),
        ("destination without hashes", with_header([source(), bytes(2, &bytes(2, &octets::string_name(BOB)))].concat())),
        ("subscribe without header", octets::message(SUBSCRIBE, &number(2, 5))),
        ("subscribe without names", octets::message(SUBSCRIBE, &[bytes(1, &number(6, 8)), number(2, 5)].concat())),
        ("unsubscribe without header", octets::message(UNSUBSCRIBE, &number(2, 5))),
        ("varint of eleven octets", with_header([header(), vec![0x30], vec![0xff; 10], vec![1]].concat())),
        ("varint above 64 bits", with_header([source(), destination(), vec![0x30], vec![0xff; 9], vec![0x7f]].concat())),
        ("varint cut off", with_header([header(), vec![0x30, 0x80]].concat())),
        ("message cut off", publish(whole())[..40].to_vec()),
        ("length past the end", [varint(PUBLISH << 3 | 2), varint(1 << 20), whole()].concat()),
        ("inner length past the end", publish([varint(1 << 3 | 2), varint(1 << 40), header()].concat())),
        ("length of 2^64 - 1", [varint(PUBLISH << 3 | 2), varint(u64::MAX), whole()].concat()),
        ("field number zero", [publish(whole()), vec![0x00, 0x01]].concat()),
        ("wire type seven", [publish(whole()), vec![0x7f, 0x01]].concat()),
        ("wrong wire type for ttl", with_header([source(), destination(), bytes(6, b"8")].concat())),
        ("wrong wire type for publish", number(PUBLISH, 7)),
        ("two oneof members", [publish(whole()), octets::message(SUBSCRIBE, &bytes(1, &header()))].concat()),
        ("one oneof member twice", [publish(whole()), publish(whole())].concat()),
        ("header twice", publish([bytes(1, &header()), whole()].concat())),
        ("session twice", publish([whole(), bytes(2, &octets::session())].concat())),
        ("content twice", publish([whole(), bytes(3, &octets::content(b"y"))].concat())),
        ("ttl twice", with_header([header(), number(6, 9)].concat())),
        ("destination twice", with_header([header(), destination()].concat())),
        ("mac twice", with_header([header(), bytes(11, &[1; 32]), bytes(11, &[2; 32])].concat())),
        ("identity that is no text", with_header([source(), destination(), bytes(3, &[0xff, 0xfe])].concat())),
        ("identity too long", with_header([source(), destination(), bytes(3, &long(8193))].concat())),
        ("header too long", with_header([header(), bytes(12, &long(16_384))].concat())),
        ("name component too long", with_header([source(), bytes(2, &[
            bytes(1, &octets::encoded_name(BOB, NameId(1))), bytes(2, &bytes(1, &long(1025)))].concat())].concat())),
        ("group ends that never began", [publish(whole()), vec![0x7c]].concat()),
        ("group that never ends", [publish(whole()), vec![0x7b]].concat()),
        ("groups nested too deep", [publish(whole()), groups(1000)].concat()),
        ("content that is not one", publish([bytes(1, &header()), bytes(2, &octets::session()), bytes(3, &[0x0a, 0x05, 1])].concat())),
        ("metadata that is no map entry", [publish(whole()), bytes(4, &[0xff])].concat()),
        ("octets of no meaning", (0..=255).collect()),
        ("a text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

#[test]
fn a_malformed_message_costs_itself_only() {
    let mut pair = Pair::new("");
    for (number, (what, message)) in malformed().into_iter().enumerate() {
        pair.works();
        pair.send(&message);
        pair.works();
        let malformed = pair.node.counters().drop_malformed;
        assert_eq!(malformed, number as u64 + 1, "{what}: counted as malformed, and nothing else");
    }
    assert_eq!(pair.bob.subscribe(&mut pair.bob_link, NOBODY, NameId(2), 9), "", "requests work as before");
    assert_eq!(pair.node.counters().panics, 0);
}

#[test]
fn every_malformed_message_is_refused_as_a_first_message_with_a_reason() {
    let mut pair = Pair::new("");
    for (what, message) in malformed() {
        let mut client = Client::connect(pair.node.address);
        let stream = client.open_channel();
        client.message(stream, &message);
        let (status, text) = client.expect_end(stream);
        assert_eq!(status, 3, "{what}: INVALID_ARGUMENT");
        assert!(text.starts_with("link negotiation: "), "{what}: {text}");
        pair.works();
    }
    let counters = pair.node.counters();
    assert_eq!(counters.links_refused, malformed().len() as u64);
}

#[test]
fn every_cut_of_a_good_message_is_skipped() {
    let mut pair = Pair::new("");
    let good = pair.alice_link.publish_message(BOB, NameId(1), 1, b"whole");
    let cuts = (0..good.len()).filter(|&length| parse(&good[..length]).is_err());
    let mut count = 0;
    for length in cuts {
        pair.send(&good[..length]);
        count += 1;
    }
    assert_eq!(count, good.len() - 1, "the one cut that leaves a message is before the metadata");
    pair.works();
    assert_eq!(pair.node.counters().drop_malformed, count as u64);
}

/// Each row: what comes instead of a gRPC message, the status and a word of its text.
#[test]
fn broken_grpc_framing_ends_the_stream_with_a_reason() {
    let rows: [(&str, Vec<u8>, u32, &str); 5] = [
        ("compressed", vec![1, 0, 0, 0, 2, 8, 1], 12, "compressed"),
        ("compressed and empty", vec![1, 0, 0, 0, 0], 12, "compressed"),
        ("flag 2", vec![2, 0, 0, 0, 0], 3, "flag"),
        ("flag 255", vec![255; 5], 3, "flag"),
        ("4 GiB announced", [&[0, 255, 255, 255, 255][..], &[7; 100]].concat(), 8, "4294967295"),
    ];
    let mut pair = Pair::new("");
    for (what, broken, expected, word) in rows {
        let mut carol = Client::connect(pair.node.address);
        let mut link = carol.link(ConnType::Edge);
        assert_eq!(carol.subscribe(&mut link, BOB, NameId(3), 1), "");
        pair.alice.publish(&mut pair.alice_link, BOB, NameId(3), 1, b"before");
        assert_eq!(carol.expect_payload(&mut link), b"before");
        let ended = pair.node.counters().connections_ended;

        carol.octets(link.stream, &broken);
        let (status, text) = carol.expect_end(link.stream);
        assert_eq!(status, expected, "{what}: {text}");
        assert!(text.contains(word), "{what}: {text}");

        // Its route goes with it, the transport stays good for another link.
        pair.node.wait_for("the connection goes", |counters| counters.connections_ended == ended + 1);
        let before = pair.node.counters();
        pair.alice.publish(&mut pair.alice_link, BOB, NameId(3), 1, b"anybody?");
        pair.node.wait_for("no route", |now| {
            now.drop_no_route + now.drop_next_hop_gone == before.drop_no_route + before.drop_next_hop_gone + 1
        });
        let mut again = carol.link(ConnType::Edge);
        assert_eq!(carol.subscribe(&mut again, BOB, NameId(3), 1), "");
        pair.alice.publish(&mut pair.alice_link, BOB, NameId(3), 1, b"after");
        assert_eq!(carol.expect_payload(&mut again), b"after");
        pair.works();
    }
}

#[test]
fn oversize_messages_are_discarded_one_by_one() {
    let mut pair = Pair::new("");
    pair.works();
    for (round, octets) in [4 << 20, (4 << 20) + 1, 5 << 20, 9 << 20].into_iter().enumerate() {
        let empty = pair.alice_link.publish_message(BOB, NameId(1), 1, &vec![1; octets]).len() - octets;
        let oversize = vec![1; octets + 1 - empty.min(octets)];
        let message = pair.alice_link.publish_message(BOB, NameId(1), 1, &oversize);
        let before = pair.node.counters().drop_oversize;
        pair.send(&message);
        if message.len() <= 4 << 20 {
            assert_eq!(pair.bob.expect_payload(&mut pair.bob_link), oversize, "round {round}: within the limit");
        } else {
            pair.works();
            assert_eq!(pair.node.counters().drop_oversize, before + 1, "round {round}");
        }
    }
    // Exactly the limit passes, one octet more does not.
    let limit = 4 << 20;
    let mut payload = vec![7; limit - 1000];
    loop {
        let length = pair.alice_link.publish_message(BOB, NameId(1), 1, &payload).len();
        if length == limit {
            break;
        }
        payload.resize(payload.len() + limit - length, 7);
    }
    pair.alice.publish(&mut pair.alice_link, BOB, NameId(1), 1, &payload);
    assert_eq!(pair.bob.expect_payload(&mut pair.bob_link), payload);
    payload.push(7);
    let before = pair.node.counters().drop_oversize;
    pair.alice.publish(&mut pair.alice_link, BOB, NameId(1), 1, &payload);
    pair.works();
    assert_eq!(pair.node.counters().drop_oversize, before + 1);
}

#[test]
fn a_second_negotiation_and_acks_from_outside_are_ignored() {
    let mut pair = Pair::new("");
    pair.works();
    let negotiation = [bytes(1, b"another-link"), bytes(2, b"3.4.6"), bytes(4, &[9; 32]), number(5, 1)].concat();
    pair.send(&octets::message(octets::LINK, &bytes(1, &negotiation)));
    pair.works();
    pair.send(&octets::message(octets::ACK, &[number(1, 1), number(2, 1)].concat()));
    pair.works();
    assert_eq!(pair.node.counters().ignored, 2);
}

#[test]
fn a_name_without_text_subscribes_and_is_published_to() {
    let mut pair = Pair::new("");
    let name = |id| bytes(1, &octets::encoded_name(NOBODY, NameId(id)));
    let header = [bytes(1, &name(4)), bytes(2, &name(4)), number(4, 1), number(6, 8)].concat();
    let subscribe = octets::message(SUBSCRIBE, &[bytes(1, &header), number(2, 55)].concat());
    let signed = pair.bob_link.sign(subscribe);
    pair.bob.message(pair.bob_link.stream, &signed);
    assert!(matches!(
        parse(&pair.bob.expect_message(pair.bob_link.stream)),
        Ok(MessageView::SubscriptionAck(ack)) if ack.subscription_id == 55 && ack.success
    ));
    let publish = octets::message(PUBLISH, &[bytes(1, &header), bytes(2, &octets::session())].concat());
    pair.send_signed(&publish);
    let received = pair.bob.expect_message(pair.bob_link.stream);
    let Ok(MessageView::Publish(received)) = parse(&received) else { panic!("a publish") };
    assert_eq!(received.header.destination.text, None);
    assert!(received.content.is_none(), "a publish without content is one");
    pair.works();
}

#[test]
fn recv_from_and_forward_to_do_nothing_but_feed_the_mac() {
    let mut pair = Pair::new("");
    // Carol's connection number is guessed by trying many, as a stranger would.
    let mut carol = Client::connect(pair.node.address);
    let mut carol_link = carol.link(ConnType::Edge);
    for number in 0..16 {
        let orders = [octets::number(7, number), octets::number(8, number), UNSIGNED.to_vec()].concat();
        let header = [octets::header(BOB, NameId(1)), orders].concat();
        let body = [bytes(1, &header), bytes(2, &octets::session()), bytes(3, &octets::content(b"routed"))].concat();
        pair.send_signed_in_place(&octets::message(PUBLISH, &body));
        let received = pair.bob.expect_message(pair.bob_link.stream);
        let Ok(MessageView::Publish(publish)) = parse(&received) else { panic!("a publish") };
        assert_eq!((publish.header.recv_from, publish.header.forward_to), (None, None));
        pair.bob_link.check(&publish.header);
        assert_eq!(payload_of(&received), b"routed", "its name decides, not its number");

        // A tag that leaves the two fields out does not verify.
        let message = octets::message(PUBLISH, &body);
        let view = parse(&message).expect("our own");
        let header = view.header().expect("with a header");
        let tag = pair.alice_link.mac.as_mut().expect("a key").tag(header, header.ttl, HopFields::Cleared);
        let before = pair.node.counters().drop_mac;
        pair.send(&with_mac(&message, &tag));
        pair.works();
        assert_eq!(pair.node.counters().drop_mac, before + 1);

        // A route for somebody else: it becomes the sender's own.
        let header = [octets::header(NOBODY, NameId(number.into())), octets::number(7, number), UNSIGNED.to_vec()];
        let body = [bytes(1, &header.concat()), octets::number(2, 100 + number)].concat();
        pair.send_signed_in_place(&octets::message(SUBSCRIBE, &body));
        let ack = pair.alice.expect_message(pair.alice_link.stream);
        assert!(matches!(parse(&ack), Ok(MessageView::SubscriptionAck(ack)) if ack.success));
        pair.bob.publish(&mut pair.bob_link, NOBODY, NameId(number.into()), 1, b"to whom?");
        assert_eq!(pair.alice.expect_payload(&mut pair.alice_link), b"to whom?");
    }
    carol.expect_silence(BRIEFLY);
    assert_eq!(carol.subscribe(&mut carol_link, BOB, NameId(9), 1), "");
}

#[test]
fn our_connection_numbers_never_leave() {
    let mut pair = Pair::new("");
    for sent in [Some(123_456_789), None] {
        let incoming = sent.map(|number| octets::number(9, number)).unwrap_or_default();
        let header = [octets::header(BOB, NameId(1)), incoming].concat();
        let body = [bytes(1, &header), bytes(2, &octets::session()), bytes(3, &octets::content(b"x"))].concat();
        pair.send_signed(&octets::message(PUBLISH, &body));
        let received = pair.bob.expect_message(pair.bob_link.stream);
        let Ok(MessageView::Publish(publish)) = parse(&received) else { panic!("a publish") };
        let number = publish.header.incoming_conn;
        assert!(number.is_none() || number == sent, "left as it came or dropped, never ours: {number:?}");
    }
    pair.works();
}

#[test]
fn ttl_counts_down_and_ends() {
    let mut pair = Pair::new("");
    for (ttl, arrives) in [(0, false), (1, false), (2, true), (8, true), (127, true), (128, true), (u32::MAX, true)] {
        let header = [
            bytes(1, &octets::name(NOBODY, NameId(7))),
            bytes(2, &octets::name(BOB, NameId(1))),
            number(4, 1),
            number(6, ttl.into()),
        ]
        .concat();
        let before = pair.node.counters().drop_ttl;
        pair.send_signed(&octets::message(PUBLISH, &[bytes(1, &header), bytes(2, &octets::session())].concat()));
        if arrives {
            let received = pair.bob.expect_message(pair.bob_link.stream);
            let Ok(MessageView::Publish(publish)) = parse(&received) else { panic!("a publish") };
            assert_eq!(publish.header.ttl, ttl - 1);
            pair.bob_link.check(&publish.header);
        }
        pair.works();
        assert_eq!(pair.node.counters().drop_ttl - before, u64::from(!arrives), "ttl {ttl}");
    }
    // A request whose ttl ends is not acted upon either, and not acknowledged.
    let header =
        [bytes(1, &octets::name(NOBODY, NameId(7))), bytes(2, &octets::name(NOBODY, NameId(7))), number(6, 1)].concat();
    pair.send_signed(&octets::message(SUBSCRIBE, &[bytes(1, &header), number(2, 5)].concat()));
    pair.alice.expect_silence(BRIEFLY);
    pair.works();
}

/// The message as it was before this hop: its ttl and tag put back.
fn as_sent(received: &[u8], ttl: u32, mac: MacOut) -> Vec<u8> {
    let view = parse(received).expect("readable");
    let mut out = Vec::new();
    rewrite(received, view.header().expect("with a header"), ttl, mac, &mut out);
    out
}

#[test]
fn unknown_fields_metadata_order_and_payload_survive_untouched() {
    let mut pair = Pair::new("");
    let blob: Vec<u8> = (0..=255).collect();
    let metadata = |key: &str, value: &str| bytes(4, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat());
    for incoming in [number(9, 1), Vec::new()] {
        let header = [
            octets::header(BOB, NameId(1)),
            incoming.clone(),
            number(10, 1),
            bytes(11, &[0; 32]),
            bytes(12, b"signature"),
            bytes(77, b"unknown header field"),
        ]
        .concat();
        let body = [
            bytes(1, &header),
            bytes(55, b"unknown body field"),
            bytes(2, &[octets::session(), number(44, 3)].concat()),
            bytes(3, &octets::content(&blob)),
        ]
        .concat();
        let message = [
            metadata("z", "1"),
            metadata("a", "2"),
            octets::message(PUBLISH, &body),
            metadata("a", "3"),
            number(33, 5),
            metadata("", ""),
        ]
        .concat();
        let sent = pair.alice_link.sign(message);
        pair.send(&sent);
        let received = pair.bob.expect_message(pair.bob_link.stream);
        let view = parse(&received).expect("readable");
        pair.bob_link.check(view.header().expect("with a header"));
        let tag = parse(&sent).expect("our own").header().and_then(|header| header.header_mac).expect("signed");
        let tag: [u8; 32] = tag.try_into().expect("32 octets");
        let restored = as_sent(&received, 8, MacOut::Set(tag));
        // Where incoming_conn was, restoring drops it: compare without it on both sides.
        assert_eq!(restored, as_sent(&sent, 8, MacOut::Set(tag)), "only ttl and tag differ");
        if !incoming.is_empty() {
            assert_eq!(received.len(), sent.len(), "patched in place");
        }
    }
    pair.works();
}

/// What is unusual, and the message with a given field for a tag in its header.
type Unusual<'a> = (&'a str, &'a dyn Fn(&[u8]) -> Vec<u8>);

#[test]
fn unusual_encodings_are_forwarded_by_meaning() {
    use prost::Message as _;
    let mut pair = Pair::new("\nrequire_header_mac: false");
    let mut lax = Client::connect(pair.node.address);
    let mut lax_link = lax.link_keyless(ConnType::Edge);
    let (from, to) = (octets::name(NOBODY, NameId(7)), octets::name(BOB, NameId(1)));
    let tail = [bytes(2, &octets::session()), bytes(3, &octets::content(b"meaning"))].concat();
    let with_header = |header: &[&[u8]]| octets::message(PUBLISH, &[bytes(1, &header.concat()), tail.clone()].concat());
    let start = octets::header(BOB, NameId(1));
    let rows: [Unusual<'_>; 6] = [
        ("ttl in ten octets", &|tag| with_header(&[&bytes(1, &from), &bytes(2, &to), &wide_number(6, 8), tag])),
        ("every length too wide", &|tag| {
            let inside = [wide_bytes(1, &from), wide_bytes(2, &to), wide_number(6, 8), wide_number(9, 3), tag.to_vec()];
            wide_bytes(PUBLISH, &[wide_bytes(1, &inside.concat()), tail.clone()].concat())
        }),
        ("fields backwards", &|tag| {
            let inside = [tag, &number(9, 3), &number(6, 8), &bytes(3, b"token"), &bytes(2, &to), &bytes(1, &from)];
            let (content, session) = (octets::content(b"meaning"), octets::session());
            octets::message(PUBLISH, &[bytes(3, &content), bytes(2, &session), bytes(1, &inside.concat())].concat())
        }),
        ("no incoming_conn", &|tag| with_header(&[&start, tag])),
        ("recv_from and forward_to", &|tag| with_header(&[&start, &number(7, 3), &number(8, u64::MAX), tag])),
        ("unknown fields of every wire type", &|tag| {
            let fixed_64 = [0xa9, 6, 1, 2, 3, 4, 5, 6, 7, 8]; // field 101
            let fixed_32 = [0xb5, 6, 1, 2, 3, 4]; // field 102
            let group = [0xbb, 6, 8, 1, 0xbc, 6]; // field 103
            with_header(&[&start, &number(100, 1), &fixed_64, tag, &fixed_32, &group])
        }),
    ];
    for (what, message) in rows {
        for signed in [true, false] {
            let message = message(if signed { &UNSIGNED } else { &[] });
            if signed {
                pair.send_signed_in_place(&message);
            } else {
                lax.message(lax_link.stream, &message);
            }
            let received = pair.bob.expect_message(pair.bob_link.stream);
            let view = parse(&received).expect("readable");
            pair.bob_link.check(view.header().expect("with a header"));
            let meaning = |octets: &[u8]| {
                let mut message = slimline_wire::pb::Message::decode(octets).expect("prost reads it");
                let Some(slimline_wire::pb::message::MessageType::Publish(publish)) = &mut message.message_type else {
                    panic!("a publish")
                };
                let header = publish.header.as_mut().expect("a header");
                (header.header_mac, header.incoming_conn, header.recv_from, header.forward_to) =
                    (None, None, None, None);
                header.ttl = 0;
                message
            };
            assert_eq!(meaning(&received), meaning(&message), "{what}, signed: {signed}");
            assert_eq!(view.header().expect("a header").ttl, 7, "{what}");
        }
        pair.works();
    }
    assert_eq!(lax.subscribe(&mut lax_link, NOBODY, NameId(1), 4), "");
}

/// Which message a row of the MAC table sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tag {
    Absent,
    Wrong,
    Short,
    Right,
}

#[test]
#[rustfmt::skip]
fn the_mac_table() {
    // strict, key | publish taken | subscribe taken
    let rows = [
        (true,  true,  Tag::Absent, false, false),
        (true,  true,  Tag::Wrong,  false, false),
        (true,  true,  Tag::Short,  false, false),
        (true,  true,  Tag::Right,  true,  true),
        (false, true,  Tag::Absent, false, true),
        (false, true,  Tag::Wrong,  false, false),
        (false, true,  Tag::Short,  false, false),
        (false, true,  Tag::Right,  true,  true),
        (false, false, Tag::Absent, true,  true),
        (false, false, Tag::Wrong,  false, true),
    ];
    for strict in [true, false] {
        let mut pair = Pair::new(if strict { "" } else { "require_header_mac: false" });
        for &(_, key, tag, publish, subscribe) in rows.iter().filter(|row| row.0 == strict) {
            let what = format!("strict: {strict}, key: {key}, tag: {tag:?}");
            let mut carol = Client::connect(pair.node.address);
            let mut link = if key { carol.link(ConnType::Edge) } else { carol.link_keyless(ConnType::Edge) };
            let mut tagged = |message: Vec<u8>| match tag {
                Tag::Right => link.sign(message),
                Tag::Absent => as_sent(&message, 8, MacOut::Remove),
                Tag::Wrong => as_sent(&message, 8, MacOut::Set([7; 32])),
                Tag::Short => { // half of the right tag
                    let signed = link.sign(message);
                    let view = parse(&signed).expect("our own");
                    let tag = view.header().and_then(|header| header.header_mac).expect("signed").to_vec();
                    with_mac(&signed, &tag[..16])
                }
            };
            let keyless = |build: &dyn Fn(&mut Link) -> Vec<u8>| {
                build(&mut Link { stream: StreamId::new(1), link_id: String::new(), mac: None })
            };
            let request = tagged(keyless(&|link| link.subscribe_message(NOBODY, NameId(6), 66, true)));
            let message = tagged(keyless(&|link| link.publish_message(BOB, NameId(1), 1, b"from carol")));
            let before = pair.node.counters().drop_mac;

            carol.message(link.stream, &request);
            if subscribe {
                let ack = carol.expect_message(link.stream);
                assert!(matches!(parse(&ack), Ok(MessageView::SubscriptionAck(ack)) if ack.success), "{what}");
            }
            carol.message(link.stream, &message);
            if publish {
                assert_eq!(pair.bob.expect_payload(&mut pair.bob_link), b"from carol", "{what}");
            }
            let refused = u64::from(!publish) + u64::from(!subscribe);
            pair.node.wait_for(&what, |now| now.drop_mac == before + refused);
            pair.works();
            carol.expect_silence(BRIEFLY);
        }
    }
}

/// A message with other octets for a tag.
fn with_mac(message: &[u8], mac: &[u8]) -> Vec<u8> {
    use prost::Message as _;
    use slimline_wire::pb::message::MessageType;
    let mut decoded = slimline_wire::pb::Message::decode(message).expect("our own");
    let header = match &mut decoded.message_type {
        Some(MessageType::Publish(publish)) => &mut publish.header,
        Some(MessageType::Subscribe(subscribe)) => &mut subscribe.header,
        other => panic!("no header in {other:?}"),
    };
    header.as_mut().expect("a header").header_mac = Some(mac.to_vec());
    decoded.encode_to_vec()
}

#[test]
fn links_without_a_key_and_peers_get_no_tag() {
    let mut pair = Pair::new("require_header_mac: false");
    for kind in [ConnType::Edge, ConnType::Remote, ConnType::Peer] {
        for keyless in [false, true] {
            let mut carol = Client::connect(pair.node.address);
            let mut link = if keyless { carol.link_keyless(kind) } else { carol.link(kind) };
            assert_eq!(carol.subscribe(&mut link, BOB, NameId(8), 1), "");
            pair.alice.publish(&mut pair.alice_link, BOB, NameId(8), 1, b"hello");
            let received = carol.expect_message(link.stream);
            let view = parse(&received).expect("readable");
            let header = view.header().expect("with a header");
            if keyless || kind == ConnType::Peer {
                assert_eq!(header.header_mac, None, "{kind:?}, keyless: {keyless}");
            } else {
                link.check(header);
            }
            assert_eq!(header.ttl, 7);
            drop(carol);
            pair.node.wait_for("its name goes", |_| pair.node.node().vitals().names == 1);
            pair.works();
        }
    }
}

#[test]
fn a_peers_messages_are_not_verified_and_go_out_signed() {
    let mut pair = Pair::new("");
    let mut peer = Client::connect(pair.node.address);
    let mut link = peer.link(ConnType::Peer);
    link.mac = None;
    for stale in [MacOut::Remove, MacOut::Set([3; 32])] {
        let message = as_sent(&link.publish_message(BOB, NameId(1), 1, b"from a peer"), 8, stale);
        peer.message(link.stream, &message);
        assert_eq!(pair.bob.expect_payload(&mut pair.bob_link), b"from a peer");
    }
    pair.works();
    assert_eq!(pair.node.counters().drop_mac, 0);
}
