//! Limits of one transport: what a hostile peer runs into, and what a busy one does not.

use std::time::{Duration, Instant};

use slimline_wire::h2::{
    Code, Event, HEADER_LIST_TOO_LONG, Head, Kind, Limits, PREFACE, Recv, Role, Send, StreamId, TransportError,
    WindowError, flag,
};
use slimline_wire::testing::dialogue::{Dialogue, InMemory, block};
use slimline_wire::testing::server::Server;

const LIMITS: Limits = Limits {
    initial_window: 1 << 20,
    transport_window: 1 << 20,
    max_frame_size: 16_384,
    header_list_octets_max: 1000,
    streams_max: 10,
    continuation_frames_max: 4,
    control_frames_per_10s: 50,
    resets_per_10s: 20,
};

fn dialogue() -> Dialogue<InMemory> {
    Dialogue::open(InMemory::new(&LIMITS), "/")
}

fn calm(dialogue: &mut Dialogue<InMemory>, reason: &str) {
    let goaway = dialogue.expect("GOAWAY", |frame| frame.head.kind == Kind::GOAWAY);
    assert_eq!(goaway.code(), Some(Code::ENHANCE_YOUR_CALM));
    let error = dialogue.peer.server.ended().unwrap();
    assert!(error.reason.starts_with(reason), "{}", error.reason);
}

/// Each row: a frame that costs more than it brings; fifty are let through, and some more are not.
#[test]
fn each_kind_of_control_frame_is_counted() {
    let cases: [(Kind, u8, u32, &[u8]); 8] = [
        (Kind::SETTINGS, 0, 0, &[]),
        (Kind::SETTINGS, flag::ACK, 0, &[]),
        (Kind::PING, 0, 0, &[0; 8]),
        (Kind::PING, flag::ACK, 0, &[0; 8]),
        (Kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        (Kind::DATA, 0, 1, &[]),
        (Kind::DATA, flag::PADDED, 1, &[2, 0, 0]),
        (Kind(0x55), 0, 0, &[1, 2, 3]),
    ];
    for (kind, flags, stream, payload) in cases {
        let mut dialogue = dialogue();
        dialogue.say_request(1, 0, &[]);
        for _ in 0..45 {
            dialogue.say(kind, flags, stream, payload);
        }
        assert_eq!(dialogue.peer.server.ended(), None, "{kind:?}");
        for _ in 0..60 {
            dialogue.say(kind, flags, stream, payload);
        }
        calm(&mut dialogue, "control_frames_per_10s");
    }
}

/// CVE-2023-44487.
#[test]
fn rapid_reset_is_cut_off() {
    let mut dialogue = dialogue();
    for index in 0..=20 {
        assert_eq!(dialogue.peer.server.ended(), None);
        dialogue.say_request(2 * index + 1, 0, &[]);
        dialogue.say(Kind::RST_STREAM, 0, 2 * index + 1, &[0, 0, 0, 8]);
    }
    calm(&mut dialogue, "resets_per_10s");
}

/// CVE-2025-8671: the peer never resets, and makes us do it.
#[test]
fn made_you_reset_is_cut_off() {
    type Mistake = fn(&mut Dialogue<InMemory>, u32);
    let mistakes: [Mistake; 5] = [
        |dialogue, stream| dialogue.say_window_update(stream, 0),
        |dialogue, stream| dialogue.say(Kind::PRIORITY, 0, stream, &[0; 4]),
        |dialogue, stream| dialogue.say(Kind::PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat()),
        |dialogue, stream| dialogue.say(Kind::HEADERS, flag::END_HEADERS, stream, &block(&[("a", "b")])),
        |dialogue, stream| {
            dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block(&[(":path", "b")]));
        },
    ];
    for mistake in mistakes {
        let mut dialogue = dialogue();
        for index in 0..=20 {
            assert_eq!(dialogue.peer.server.ended(), None);
            dialogue.say_request(2 * index + 1, 0, &[]);
            mistake(&mut dialogue, 2 * index + 1);
        }
        calm(&mut dialogue, "resets_per_10s");
        assert_eq!(dialogue.peer.server.resets.len(), 20);
    }
}

/// The send half counts overflows itself: it alone sees them.
#[test]
fn overflowing_streams_is_cut_off() {
    let mut send = Send::new(Role::Server, &LIMITS);
    for index in 0..=100 {
        let stream = StreamId::new(2 * index + 1);
        send.open(stream);
        let result = send.window_update(stream, (1 << 31) - 1);
        match result {
            Err(WindowError::Stream { code, .. }) if index < 100 => assert_eq!(code, Code::FLOW_CONTROL_ERROR),
            Err(WindowError::Transport(error)) if index == 100 => assert_eq!(error.code, Code::ENHANCE_YOUR_CALM),
            other => panic!("{index}: {other:?}"),
        }
    }
}

#[test]
fn continuation_floods_are_cut_off() {
    let mut dialogue = dialogue();
    let request = dialogue.request(&[]);
    dialogue.say(Kind::HEADERS, 0, 1, &request);
    for _ in 0..5 {
        dialogue.say(Kind::CONTINUATION, 0, 1, &[]);
    }
    calm(&mut dialogue, "continuation_frames_max");
}

#[test]
fn a_long_header_list_costs_its_stream_and_a_huge_one_the_transport() {
    let mut dialogue = dialogue();
    let long = "x".repeat(100);
    let fields: Vec<_> = (0..10).map(|_| ("long", &long[..])).collect();
    dialogue.say_request(1, flag::END_STREAM, &fields);
    dialogue.expect_reset(1, &[Code::ENHANCE_YOUR_CALM]);
    assert_eq!(dialogue.peer.server.resets, [(StreamId::new(1), HEADER_LIST_TOO_LONG)]);
    dialogue.say_request(3, flag::END_STREAM, &[]);
    dialogue.expect_answer(3);
    let fields: Vec<_> = (0..100).map(|_| ("long", &long[..])).collect();
    dialogue.say_request(5, flag::END_STREAM, &fields);
    calm(&mut dialogue, "header_list_octets_max");
}

/// The block is refused by its encoded length before it is all there.
#[test]
fn a_header_block_is_bounded_while_it_arrives() {
    let mut dialogue = dialogue();
    dialogue.say(Kind::HEADERS, 0, 1, &[0; 16_000]);
    dialogue.say_with_length(16_000, Kind::CONTINUATION, 0, 1, &[]);
    calm(&mut dialogue, "header_list_octets_max");
}

#[test]
fn refused_streams_are_counted() {
    let mut dialogue = Dialogue::open_with(InMemory::new(&LIMITS), "/", &[(4, 0)]);
    for index in 0..10 + 51 {
        assert_eq!(dialogue.peer.server.ended(), None);
        dialogue.say_request(2 * index + 1, flag::END_STREAM, &[]);
    }
    calm(&mut dialogue, "control_frames_per_10s");
}

#[test]
fn after_goaway_new_streams_are_refused_and_old_ones_finish() {
    let mut dialogue = dialogue();
    dialogue.say_request(1, 0, &[]);
    dialogue.peer.server.go_away();
    let goaway = dialogue.expect("GOAWAY", |frame| frame.head.kind == Kind::GOAWAY);
    assert_eq!(goaway.payload, [&[0, 0, 0, 1, 0, 0, 0, 0][..], b"draining"].concat());
    dialogue.say_request(3, flag::END_STREAM, &[]);
    dialogue.expect_reset(3, &[Code::REFUSED_STREAM]);
    dialogue.say(Kind::DATA, flag::END_STREAM, 1, b"x");
    dialogue.expect_answer(1);
}

/// The counters start anew after ten seconds, so a peer that pings every second is never cut.
#[test]
fn patience_comes_back() {
    let (mut server, start) = (Server::new(&LIMITS), Instant::now());
    let mut hello = PREFACE.to_vec();
    hello.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    server.receive(start, &hello);
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
    for second in 0..1000 {
        for _ in 0..4 {
            server.receive(start + Duration::from_secs(second), &ping);
        }
    }
    assert_eq!(server.ended(), None);
}

/// A client that estimates bandwidth pings once per DATA frame it hears, and returns windows as often: never cut,
/// while the same frames without data are.
#[test]
fn a_fast_peer_is_not_a_flood() {
    let now = Instant::now();
    let (mut recv, mut send) = (Recv::new(Role::Server, &LIMITS), Send::new(Role::Server, &LIMITS));
    let mut wire = Vec::new();
    let mut client = Send::new(Role::Client, &LIMITS);
    client.start(&mut wire);
    let stream = StreamId::new(1);
    let request: [(&[u8], &[u8]); 3] = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/")];
    client.headers(stream, request, false, &mut wire);
    send.open(stream);
    let hear = |wire: &mut Vec<u8>, recv: &mut Recv, send: &mut Send| -> Result<(), WindowError> {
        let mut input = &wire[..];
        while let Some(event) = recv.next(now, &mut input)? {
            if let Event::WindowUpdate { stream, increment } = event {
                send.window_update(stream, increment)?;
            }
        }
        wire.clear();
        Ok(())
    };
    hear(&mut wire, &mut recv, &mut send).unwrap();
    let mut out = Vec::new();
    for _ in 0..100_000 {
        assert_eq!(send.data(stream, b"message", false, &mut out), 7);
        send.seal();
        recv.data_sent(send.take_data_sent());
        client.write_window_update(stream, 7, &mut wire);
        client.write_window_update(StreamId::TRANSPORT, 7, &mut wire);
        client.ping([0; 8], &mut wire);
        hear(&mut wire, &mut recv, &mut send).unwrap();
    }
    // What was earned is not for ever: a flood of updates is cut in the end.
    let error = loop {
        client.write_window_update(StreamId::TRANSPORT, 1, &mut wire);
        if let Err(error) = hear(&mut wire, &mut recv, &mut send) {
            break error;
        }
    };
    assert!(matches!(error, WindowError::Transport(TransportError { code: Code::ENHANCE_YOUR_CALM, .. })), "{error}");
}

/// What a receiver holds between frames is small, whatever came before.
#[test]
fn an_idle_transport_holds_nothing() {
    let mut recv = Recv::new(Role::Server, &LIMITS);
    let mut octets = PREFACE.to_vec();
    octets.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    octets.extend(Head { length: 6000, kind: Kind::SETTINGS, flags: 0, stream: StreamId::TRANSPORT }.to_wire());
    octets.extend([0xff; 6000]);
    for octet in &octets {
        let mut input = std::slice::from_ref(octet);
        while recv.next(Instant::now(), &mut input).unwrap().is_some() {}
    }
    assert_eq!(recv.held_octets(), 0);
    assert!(recv.is_between_frames());
}
