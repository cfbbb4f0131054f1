//! The `h2` crate as client: another HTTP/2 implementation, told to use windows and frames in unusual ways.

mod kit;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use kit::client::{LINK, Link, payload_of};
use kit::{PATIENCE, TestNode};
use slimline_wire::NameId;
use slimline_wire::grpc::OPEN_CHANNEL_PATH;
use slimline_wire::h2::StreamId;
use slimline_wire::link::{HeaderMac, Initiator};
use slimline_wire::message::{LinkNegotiation, MessageView, build_link, parse};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

const BOB: [&str; 3] = ["org", "ns", "bob"];

/// One OpenChannel stream over the h2 crate.
struct Channel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    received: BytesMut,
    link: Link,
}

/// An HTTP/2 connection; the client builder says how odd it is.
async fn connect(address: SocketAddr, builder: &Builder) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.expect("the node accepts");
    socket.set_nodelay(true).expect("nodelay");
    let (requests, connection) = builder.handshake(socket).await.expect("a handshake");
    tokio::spawn(connection);
    requests
}

impl Channel {
    /// Opens a stream and negotiates a link.
    async fn open(requests: &SendRequest<Bytes>, link_id: &str) -> Self {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://node{OPEN_CHANNEL_PATH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut requests = requests.clone().ready().await.expect("room for a stream");
        let (response, send) = requests.send_request(request.body(()).expect("a request"), false).expect("a stream");
        let response = response.await.expect("headers before we said anything");
        assert_eq!(response.status(), 200);
        let link = Link { stream: StreamId::new(1), link_id: link_id.to_owned(), mac: None };
        let mut channel = Self { send, recv: response.into_body(), received: BytesMut::new(), link };
        let initiator = Initiator::new(false).expect("random numbers");
        let mut offer = Vec::new();
        build_link(&LinkNegotiation { link_id, ecdh_public_key: initiator.public(), ..LINK }, &mut offer);
        channel.say(&offer).await;
        let reply = channel.hear().await;
        let MessageView::Link(reply) = parse(&reply).expect("a readable reply") else { panic!("not a link reply") };
        channel.link.mac = Some(HeaderMac::new(&initiator.finish(link_id, &reply).expect("a key"), link_id));
        channel
    }

    /// Sends one message, as windows allow.
    async fn say(&mut self, message: &[u8]) {
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.extend_from_slice(&[0]);
        framed.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
        framed.extend_from_slice(message);
        let mut rest = framed.freeze();
        while !rest.is_empty() {
            self.send.reserve_capacity(rest.len());
            let granted = poll_fn(|context| self.send.poll_capacity(context)).await;
            let granted = granted.expect("the stream lives").expect("a window");
            self.send.send_data(rest.split_to(granted.min(rest.len())), false).expect("the stream lives");
        }
    }

    /// The next message, its window given back as it is read.
    async fn hear(&mut self) -> Vec<u8> {
        loop {
            if let Some(message) = self.split() {
                return message;
            }
            let octets = self.recv.data().await.expect("the stream goes on").expect("sound data");
            self.recv.flow_control().release_capacity(octets.len()).expect("what was received");
            self.received.extend_from_slice(&octets);
        }
    }

    fn split(&mut self) -> Option<Vec<u8>> {
        let (&[flag, a, b, c, d], rest) = self.received.split_first_chunk::<5>()?;
        assert_eq!(flag, 0, "nothing is compressed");
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let message = rest.get(..length)?.to_vec();
        self.received.advance(5 + length);
        Some(message)
    }

    async fn subscribe(&mut self, id: NameId) {
        let message = self.link.subscribe_message(BOB, id, 77, true);
        self.say(&message).await;
        let ack = self.hear().await;
        let MessageView::SubscriptionAck(ack) = parse(&ack).expect("a readable ack") else { panic!("not an ack") };
        assert!(ack.success && ack.subscription_id == 77, "{ack:?}");
    }

    async fn publish(&mut self, to: NameId, fanout: u32, payload: &[u8]) {
        let message = self.link.publish_message(BOB, to, fanout, payload);
        self.say(&message).await;
    }

    async fn hear_payload(&mut self) -> Vec<u8> {
        let message = self.hear().await;
        let view = parse(&message).expect("a readable message");
        self.link.check(view.header().expect("a publish"));
        payload_of(&message)
    }

    /// The status the node ends the stream with.
    async fn end(mut self) -> HeaderMap {
        while let Some(octets) = self.recv.data().await {
            let octets = octets.expect("a clean end");
            self.recv.flow_control().release_capacity(octets.len()).expect("what was received");
        }
        self.recv.trailers().await.expect("a clean end").expect("trailers")
    }
}

/// Runs `test` against nodes of one and of three shards, and not for ever.
fn each_shard_count(test: impl AsyncFn(TestNode)) {
    for shards in [1, 3] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            tokio::time::timeout(2 * PATIENCE, test(TestNode::start(shards))).await.expect("no deadlock");
        });
    }
}

/// Recognisable octets: a copy of the wrong part shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect()
}

/// Stream window, frame size and header table a client announces.
#[rustfmt::skip]
const MANNERS: [(u32, u32, u32); 4] = [
    (100, 16_384, 4096),          // a window smaller than any message
    (65_535, 16_384, 0),          // as a client that leaves everything alone, without header table
    (2_000_000, 1_000_000, 4096), // large frames
    (1, 16_777_215, 65_536),      // the least and the most there is
];

#[test]
fn messages_arrive_whole_through_any_window_and_frame_size() {
    each_shard_count(async |node| {
        for (index, (window, frame, table)) in MANNERS.into_iter().enumerate() {
            let mut manner = Builder::new();
            manner.initial_window_size(window).max_frame_size(frame).header_table_size(table);
            let reader = connect(node.address, &manner).await;
            let writer = connect(node.address, &Builder::new()).await;
            let mut bob = Channel::open(&reader, &format!("bob-{index}")).await;
            let mut alice = Channel::open(&writer, &format!("alice-{index}")).await;
            let id = NameId(index as u128);
            bob.subscribe(id).await;
            // A window of one octet costs a round trip each: it is tried on little.
            let longest = if window == 1 { 300 } else { 200_000 };
            for length in [0, 1, 50, 1000, 16_384, 200_000].into_iter().filter(|length| *length <= longest) {
                alice.publish(id, 1, &pattern(length)).await;
                assert_eq!(bob.hear_payload().await, pattern(length), "{length} octets, window {window}");
            }
        }
    });
}

#[test]
fn four_mebioctets_there_and_back() {
    each_shard_count(async |node| {
        let requests = connect(node.address, &Builder::new()).await;
        let (mut alice, mut bob) = (Channel::open(&requests, "alice").await, Channel::open(&requests, "bob").await);
        bob.subscribe(NameId(1)).await;
        alice.subscribe(NameId(2)).await;
        let payload = pattern((4 << 20) - 1000); // with its header just below the limit
        for _ in 0..2 {
            let ((), heard) = tokio::join!(alice.publish(NameId(1), 1, &payload), bob.hear_payload());
            assert_eq!(heard, payload);
            let ((), heard) = tokio::join!(bob.publish(NameId(2), 1, &payload), alice.hear_payload());
            assert_eq!(heard, payload);
        }
    });
}

#[test]
fn fifty_streams_of_one_connection_hear_each_other() {
    each_shard_count(async |node| {
        let requests = connect(node.address, &Builder::new()).await;
        let mut channels = Vec::new();
        for index in 0..50 {
            let mut channel = Channel::open(&requests, &format!("link-{index}")).await;
            channel.subscribe(NameId(5)).await;
            channels.push(channel);
        }
        for speaker in [0, 17, 49] {
            let text = format!("from {speaker}").into_bytes();
            channels[speaker].publish(NameId(5), 2, &text).await;
            for (index, channel) in channels.iter_mut().enumerate() {
                if index != speaker {
                    assert_eq!(channel.hear_payload().await, text);
                }
            }
        }
    });
}

#[test]
fn a_stream_reset_in_the_middle_of_a_message_costs_that_stream() {
    each_shard_count(async |node| {
        let requests = connect(node.address, &Builder::new()).await;
        let mut bob = Channel::open(&requests, "bob").await;
        bob.subscribe(NameId(1)).await;
        for round in 0..120u8 {
            // More often than streams are allowed at a time: each must be given back.
            let mut alice = Channel::open(&requests, &format!("alice-{round}")).await;
            let message = alice.link.publish_message(BOB, NameId(1), 1, &pattern(5000));
            let half = [&[0u8, 0, 0, 0x20, 0][..], &message[..3000]].concat();
            alice.send.send_data(Bytes::from(half), false).expect("the stream lives");
            alice.send.send_reset(Reason::CANCEL);
        }
        let mut alice = Channel::open(&requests, "alice").await;
        alice.publish(NameId(1), 1, b"whole").await;
        assert_eq!(bob.hear_payload().await, b"whole", "no part of a broken message arrives");
    });
}

#[test]
fn a_closed_stream_is_answered_with_status_0() {
    each_shard_count(async |node| {
        let requests = connect(node.address, &Builder::new()).await;
        let mut alice = Channel::open(&requests, "alice").await;
        alice.send.send_data(Bytes::new(), true).expect("the stream lives");
        assert_eq!(alice.end().await["grpc-status"], "0");
    });
}

#[test]
fn a_draining_node_says_goodbye_on_streams_and_connection() {
    each_shard_count(async |node| {
        let requests = connect(node.address, &Builder::new()).await;
        let alice = Channel::open(&requests, "alice").await;
        let stopping = tokio::task::spawn_blocking(move || node.stop(Duration::from_secs(5)));
        assert_eq!(alice.end().await["grpc-status"], "0");
        assert!(stopping.await.expect("no panic"), "drained in time");
        assert!(requests.clone().ready().await.is_err(), "no new streams");
    });
}
