//! The hot functions of the road, each as a closure to be called again and again: timed by criterion, counted by icount.
//!
//! Inputs repeat what travels: publishes of 256 octets with an SDK's header, every one with another identity token.
#![allow(clippy::unwrap_used, reason = "inputs are made here; one that does not parse must stop the suite")]

use std::hint::black_box;
use std::time::Instant;

use slimline_fib::{ConnId, Delta, FanoutCursor, Fib, MatchFilter};
use slimline_node::hot::ForwardInput;
use slimline_node::mesh::{Class, RingOptions, ring};
use slimline_wire::grpc::{self, Deframer};
use slimline_wire::h2::{Event, Limits, Recv, Role, Send, StreamId};
use slimline_wire::link::{HeaderMac, HopFields, LinkKey, sign};
use slimline_wire::message::{
    Content, HeaderParts, MacOut, MessageView, NameParts, PublishParts, Session, build_publish, parse, rewrite,
};
use slimline_wire::name::{ConnType, Name, NameId, Prefix};

/// One hot function.
pub(crate) struct Hot {
    pub(crate) name: &'static str,
    /// How many messages (lookups, deltas) one call handles.
    pub(crate) elements: u64,
    pub(crate) call: Box<dyn FnMut()>,
}

/// A name, and what makes its closure.
type Maker = (&'static str, fn() -> Hot);

/// Messages an input cycles through: enough that no branch predictor learns them by heart.
const MESSAGES: usize = 256;
const LINK: &str = "51135112-0000-4000-8000-000000000000";
const FROM: ConnId = ConnId { shard: 0, slot: 0, generation: 0 };

fn name(index: u32) -> Name {
    let service = format!("sink-{index}");
    Name { prefix: Prefix::of("bench", "hot", &service), id: NameId(u128::from(index) << 64 | 7) }
}

fn mac() -> HeaderMac {
    HeaderMac::new(&LinkKey::from_octets([7; 32]), LINK)
}

/// Signed publishes with `payload` octets.
fn messages(payload: usize) -> Vec<Vec<u8>> {
    let mut signer = mac();
    let blob = vec![0x5a; payload];
    (0..MESSAGES)
        .map(|index| {
            let identity: String =
                (0..229u32).map(|i| char::from(b'a' + ((i * 7 + index as u32 * 13) % 26) as u8)).collect();
            let parts = PublishParts {
                header: HeaderParts {
                    source: NameParts::of(["bench", "hot", "source"], NameId(5)),
                    destination: NameParts { name: name(1), text: Some(["bench", "hot", "sink-1"]) },
                    identity: &identity,
                    fanout: 1,
                    version: "0.1.0",
                    ttl: 8,
                    incoming_conn: Some(1),
                    error: None,
                    header_mac: Some([0; 32]),
                    e2e_header_sig: None,
                },
                session: Session { session_type: 1, session_message_type: 1, session_id: 77, message_id: index as u32 },
                content: Content::App { payload_type: "msg", blob: &blob },
                metadata: &[],
            };
            let mut out = Vec::new();
            build_publish(&parts, &mut out);
            sign(&mut out, &mut signer).unwrap();
            out
        })
        .collect()
}

/// The messages as DATA frames of stream 1, as many to a frame as fit, and the head of a transport before them.
fn frames(messages: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let limits = Limits { initial_window: 1 << 30, transport_window: 1 << 30, ..Limits::default() };
    let mut client = Send::new(Role::Client, &limits);
    let stream = StreamId::new(1);
    let (mut head, mut out) = (Vec::new(), Vec::new());
    client.start(&mut head);
    client.open(stream);
    let fields: [(&[u8], &[u8]); 7] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", grpc::OPEN_CHANNEL_PATH.as_bytes()),
        (b":authority", b"bench"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"bench"),
    ];
    client.headers(stream, fields, false, &mut head);
    client.seal();
    let mut server = Vec::new();
    Send::new(Role::Server, &limits).start(&mut server);
    let mut recv = Recv::new(Role::Client, &limits);
    recv.open(stream);
    let mut input = server.as_slice();
    while let Some(event) = recv.next(Instant::now(), &mut input).unwrap() {
        if let Event::Settings(settings) = event {
            client.settings(&settings, &mut head).unwrap();
        }
    }
    client.window_update(StreamId::TRANSPORT, 1 << 29).unwrap();
    for message in messages.iter().take(64) {
        let octets = (grpc::PREFIX_OCTETS + message.len()) as u32;
        assert!(client.begin_data(stream, octets, &mut out), "the window is wide open");
        out.extend_from_slice(&grpc::prefix(message.len() as u32));
        out.extend_from_slice(message);
    }
    (head, out)
}

/// A replica with `names` names over 64 connections.
fn fib(names: u32) -> Fib {
    let mut fib = Fib::new(0, 42);
    for index in 0..names {
        let conn = ConnId { shard: 0, slot: 1 + index % 64, generation: 0 };
        fib.apply(&Delta::Add { name: name(index), conn, kind: ConnType::Edge });
    }
    fib
}

/// Names in an order nothing can foresee; few enough of them, and they stay in cache.
fn queries(names: u32, count: u32) -> Vec<Name> {
    (0..count).map(|i| name(i.wrapping_mul(2_654_435_761) % names)).collect()
}

/// The suite by prefix; each closure is made only when its name is wanted, since some hold a million names.
pub(crate) fn suite(wanted: &dyn Fn(&str) -> bool) -> Vec<Hot> {
    let makers: [Maker; 22] = [
        ("wire/parse", wire_parse),
        ("wire/patch", wire_patch),
        ("wire/rewrite", wire_rewrite),
        ("wire/h2-receive", wire_receive),
        ("wire/h2-send", wire_send),
        ("wire/mac-verify", mac_verify),
        ("wire/mac-verify-sign", mac_verify_sign),
        ("fib/match-one-10k", || match_one("fib/match-one-10k", 10_000, 4096)),
        ("fib/match-one-1M", || match_one("fib/match-one-1M", 1_000_000, 4096)),
        ("fib/match-one-1M-cold", || match_one("fib/match-one-1M-cold", 1_000_000, 1 << 20)),
        ("fib/match-one-10M-cold", || match_one("fib/match-one-10M-cold", 10_000_000, 1 << 20)),
        ("fib/match-all-8", match_all),
        ("fib/apply", fib_apply),
        ("node/mesh-turn-of-64", || mesh("node/mesh-turn-of-64", 64)),
        ("node/mesh-turn-of-1", || mesh("node/mesh-turn-of-1", 1)),
        ("node/out-queue-256", || out_queue("node/out-queue-256", 256)),
        ("node/out-queue-16384", || out_queue("node/out-queue-16384", 16_384)),
        ("node/forward-256", || node_forward("node/forward-256", 256, true, false)),
        ("node/forward-256-no-mac", || node_forward("node/forward-256-no-mac", 256, false, false)),
        ("node/forward-256-across", || node_forward("node/forward-256-across", 256, false, true)),
        ("forward/road-256", || road("forward/road-256", 256)),
        ("forward/road-1024", || road("forward/road-1024", 1024)),
    ];
    makers.into_iter().filter(|(name, _)| wanted(name)).map(|(_, make)| make()).collect()
}

fn hot(name: &'static str, elements: u64, call: impl FnMut() + 'static) -> Hot {
    Hot { name, elements, call: Box::new(call) }
}

fn wire_parse() -> Hot {
    let messages = messages(256);
    let mut next = (0..messages.len()).cycle();
    hot("wire/parse", 1, move || {
        let message = &messages[next.next().unwrap()];
        black_box(parse(black_box(message)).unwrap());
    })
}

fn wire_patch() -> Hot {
    let message = messages(256).remove(0);
    let MessageView::Publish(publish) = parse(&message).unwrap() else { unreachable!("built as a publish") };
    let patch = publish.header.patch().unwrap();
    let mut copy = message.clone();
    hot("wire/patch", 1, move || patch.apply(black_box(&mut copy), 7, &[1; 32]))
}

fn wire_rewrite() -> Hot {
    let messages = messages(256);
    let mut next = (0..messages.len()).cycle();
    let mut out = Vec::new();
    hot("wire/rewrite", 1, move || {
        let message = &messages[next.next().unwrap()];
        let view = parse(message).unwrap();
        out.clear();
        rewrite(message, view.header().unwrap(), 7, MacOut::Set([1; 32]), &mut out);
        black_box(&out);
    })
}

fn wire_receive() -> Hot {
    let (head, data) = frames(&messages(256));
    let limits = Limits { initial_window: 1 << 30, transport_window: 1 << 30, ..Limits::default() };
    let mut recv = Recv::new(Role::Server, &limits);
    let now = Instant::now();
    let mut input = head.as_slice();
    while recv.next(now, &mut input).unwrap().is_some() {}
    let (stream, mut deframer) = (StreamId::new(1), Deframer::new(4 << 20));
    hot("wire/h2-receive", 64, move || {
        let mut input = black_box(data.as_slice());
        let mut count = 0;
        while let Some(event) = recv.next(now, &mut input).unwrap() {
            let Event::Data { mut octets, flow_octets, .. } = event else { continue };
            while deframer.next(&mut octets).unwrap().is_some() {
                count += 1;
            }
            black_box(recv.credit_stream(stream, flow_octets));
            black_box(recv.credit_transport(flow_octets));
        }
        assert_eq!(count, 64);
    })
}

fn wire_send() -> Hot {
    let messages = messages(256);
    let limits = Limits::default();
    let mut send = Send::new(Role::Server, &limits);
    let stream = StreamId::new(1);
    send.open(stream);
    let mut out = Vec::with_capacity(1 << 16);
    hot("wire/h2-send", 64, move || {
        out.clear();
        send.seal();
        for message in &messages[..64] {
            let octets = (grpc::PREFIX_OCTETS + message.len()) as u32;
            if !send.begin_data(stream, octets, &mut out) {
                send.window_update(stream, 1 << 20).unwrap();
                send.window_update(StreamId::TRANSPORT, 1 << 20).unwrap();
                assert!(send.begin_data(stream, octets, &mut out), "the window was opened");
            }
            out.extend_from_slice(&grpc::prefix(message.len() as u32));
            out.extend_from_slice(message);
        }
        black_box(&out);
    })
}

fn mac_verify() -> Hot {
    let messages = messages(256);
    let mut mac = mac();
    let mut next = (0..messages.len()).cycle();
    hot("wire/mac-verify", 1, move || {
        let view = parse(&messages[next.next().unwrap()]).unwrap();
        assert!(mac.verify(view.header().unwrap()));
    })
}

fn mac_verify_sign() -> Hot {
    let messages = messages(256);
    let (mut from, mut to) = (mac(), HeaderMac::new(&LinkKey::from_octets([9; 32]), LINK));
    let mut next = (0..messages.len()).cycle();
    hot("wire/mac-verify-sign", 1, move || {
        let view = parse(&messages[next.next().unwrap()]).unwrap();
        let header = view.header().unwrap();
        assert!(from.verify(header));
        black_box(to.tag(header, 7, HopFields::Cleared));
    })
}

fn match_one(bench: &'static str, names: u32, asked: u32) -> Hot {
    let (mut fib, queries) = (fib(names), queries(names, asked));
    let mut next = (0..queries.len()).cycle();
    hot(bench, 1, move || {
        let name = &queries[next.next().unwrap()];
        assert!(fib.match_one(black_box(name), FROM, MatchFilter::default()).is_some());
    })
}

fn match_all() -> Hot {
    let mut fib = fib(1_000);
    for slot in 100..108 {
        let conn = ConnId { shard: 0, slot, generation: 0 };
        fib.apply(&Delta::Add { name: name(5_000), conn, kind: ConnType::Edge });
    }
    let (name, mut out) = (name(5_000), Vec::with_capacity(8));
    hot("fib/match-all-8", 8, move || {
        out.clear();
        let more =
            fib.match_all(black_box(&name), FROM, MatchFilter::default(), &mut FanoutCursor::default(), &mut out, 256);
        assert!(!more && out.len() == 8);
    })
}

fn fib_apply() -> Hot {
    let mut fib = fib(100_000);
    let conn = ConnId { shard: 0, slot: 3, generation: 0 };
    let mut index = 0u32;
    let names: Vec<Name> = (200_000..204_096).map(name).collect();
    hot("fib/apply", 2, move || {
        let name = names[index as usize % names.len()];
        index = index.wrapping_add(1);
        fib.apply(&Delta::Add { name, conn, kind: ConnType::Edge });
        fib.apply(&Delta::Remove { name, conn, kind: ConnType::Edge });
    })
}

/// Everything a message passes but the kernel: parse, verify, look up, copy into the frame, patch, sign.
fn road(bench: &'static str, payload: usize) -> Hot {
    let messages = messages(payload);
    let (mut from, mut to) = (mac(), HeaderMac::new(&LinkKey::from_octets([9; 32]), LINK));
    let mut fib = fib(1_000);
    let limits = Limits::default();
    let mut send = Send::new(Role::Server, &limits);
    let stream = StreamId::new(1);
    send.open(stream);
    let mut out: Vec<u8> = Vec::with_capacity(1 << 18);
    let mut next = (0..messages.len()).cycle();
    hot(bench, 1, move || {
        let message = &messages[next.next().unwrap()];
        let MessageView::Publish(publish) = parse(message).unwrap() else { unreachable!("built as a publish") };
        let header = &publish.header;
        assert!(from.verify(header));
        let hop = fib.match_one(&header.destination.name, FROM, MatchFilter::default());
        assert!(hop.is_some());
        let tag = to.tag(header, header.ttl - 1, HopFields::Cleared);
        if out.len() > 64 * 1024 {
            out.clear();
            send.seal();
        }
        let octets = (grpc::PREFIX_OCTETS + message.len()) as u32;
        if !send.begin_data(stream, octets, &mut out) {
            send.window_update(stream, 1 << 20).unwrap();
            send.window_update(StreamId::TRANSPORT, 1 << 20).unwrap();
            assert!(send.begin_data(stream, octets, &mut out), "the window was opened");
        }
        out.extend_from_slice(&grpc::prefix(message.len() as u32));
        let at = out.len();
        out.extend_from_slice(message);
        header.patch().unwrap().apply(&mut out[at..], header.ttl - 1, &tag);
    })
}

/// From one shard to another and back out of the ring: 64 messages, published after each `turn` of them.
fn mesh(bench: &'static str, turn: usize) -> Hot {
    let messages = messages(256);
    let (mut producer, mut consumer) = ring::<()>(RingOptions::default());
    let plan = [7u8; 24];
    hot(bench, 64, move || {
        for some in messages[..64].chunks(turn) {
            for message in some {
                producer.push(Class::Data, &[&plan, message]).unwrap();
            }
            assert!(producer.publish());
        }
        let mut count = 0;
        while let Some(record) = consumer.next() {
            black_box(record.octets);
            count += 1;
        }
        consumer.release();
        assert_eq!(count, 64);
    })
}

/// A message that finds others waiting: behind them, and out again once they have left.
fn out_queue(bench: &'static str, payload: usize) -> Hot {
    let message = messages(payload).remove(0);
    hot(bench, 1, slimline_node::hot::out_queue(message))
}

/// The road through a shard: frames of 64 messages in, one block out, and the receiver's windows opened again.
fn node_forward(bench: &'static str, payload: usize, is_signed: bool, across: bool) -> Hot {
    let mut messages = messages(payload);
    if !is_signed {
        messages.iter_mut().for_each(strip_mac);
    }
    let (head, data) = frames(&messages);
    let mut receipt = Vec::new();
    let mut client = Send::new(Role::Client, &Limits::default());
    for stream in [StreamId::TRANSPORT, StreamId::new(1)] {
        client.write_window_update(stream, data.len() as u32, &mut receipt);
    }
    let keys = is_signed.then(|| [LinkKey::from_octets([7; 32]), LinkKey::from_octets([9; 32])]);
    let input = ForwardInput { head, data, messages: 64, receipt, name: name(1), keys, link_id: LINK, across };
    hot(bench, 64, slimline_node::hot::forward(input))
}

/// As a client without a key sends it.
fn strip_mac(message: &mut Vec<u8>) {
    let view = parse(message).unwrap();
    let header = view.header().unwrap();
    let mut out = Vec::new();
    rewrite(message, header, header.ttl, MacOut::Remove, &mut out);
    *message = out;
}
