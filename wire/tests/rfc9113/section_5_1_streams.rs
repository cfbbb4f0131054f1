//! §5.1 Stream States.

use slimline_wire::h2::{Code, Kind, flag};

use crate::{CLOSED, PROTOCOL, open};

/// Idle: anything but HEADERS and PRIORITY MUST be a connection error of type PROTOCOL_ERROR.
#[test]
fn idle_streams_take_headers_and_priority_only() {
    let cases: [(Kind, &[u8]); 4] = [
        (Kind::DATA, b"x"),
        (Kind::RST_STREAM, &[0; 4]),
        (Kind::WINDOW_UPDATE, &[0, 0, 0, 1]),
        (Kind::CONTINUATION, &[]),
    ];
    for (kind, payload) in cases {
        let mut dialogue = open();
        dialogue.say(kind, 0, 1, payload);
        dialogue.expect_goaway(PROTOCOL);
    }
    let mut dialogue = open();
    dialogue.say(Kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 16]);
    dialogue.expect_alive();
}

/// Half-closed (remote): other than WINDOW_UPDATE, PRIORITY and RST_STREAM, a stream error of type STREAM_CLOSED.
#[test]
fn a_half_closed_stream_takes_no_more_from_its_peer() {
    // A window of zero keeps the answer, and with it the stream, unfinished.
    for kind in [Kind::DATA, Kind::HEADERS] {
        let mut dialogue = crate::open_with(&[(crate::setting::INITIAL_WINDOW_SIZE, 0)]);
        dialogue.say_request(1, flag::END_STREAM, &[]);
        dialogue.expect("response headers", |frame| frame.head.kind == Kind::HEADERS);
        match kind {
            Kind::DATA => dialogue.say(Kind::DATA, flag::END_STREAM, 1, b"x"),
            _ => dialogue.say_request(1, flag::END_STREAM, &[]),
        }
        dialogue.expect_reset(1, CLOSED);
        dialogue.expect_alive();
    }
    let mut dialogue = crate::open_with(&[(crate::setting::INITIAL_WINDOW_SIZE, 0)]);
    dialogue.say_request(1, flag::END_STREAM, &[]);
    dialogue.say(Kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    dialogue.say_window_update(1, 100);
    dialogue.expect_answer(1);
}

/// Closed by RST_STREAM from the peer: DATA and HEADERS are STREAM_CLOSED.
#[test]
fn a_stream_the_peer_reset_stays_closed() {
    for kind in [Kind::DATA, Kind::HEADERS] {
        let mut dialogue = open();
        dialogue.say_request(1, 0, &[]);
        dialogue.expect_alive();
        dialogue.say(Kind::RST_STREAM, 0, 1, &Code::CANCEL.0.to_be_bytes());
        match kind {
            Kind::DATA => dialogue.say(Kind::DATA, 0, 1, b"x"),
            _ => dialogue.say_request(1, flag::END_STREAM, &[]),
        }
        dialogue.expect_reset(1, CLOSED);
        dialogue.expect_alive();
    }
}

/// Closed after END_STREAM both ways: the peer cannot but know, so a connection error.
#[test]
fn an_ended_stream_stays_closed() {
    for kind in [Kind::DATA, Kind::HEADERS] {
        let mut dialogue = open();
        dialogue.say_request(1, flag::END_STREAM, &[]);
        dialogue.expect_answer(1);
        match kind {
            Kind::DATA => dialogue.say(Kind::DATA, 0, 1, b"x"),
            _ => dialogue.say_request(1, flag::END_STREAM, &[]),
        }
        dialogue.expect_goaway(CLOSED);
    }
}

/// Closed: WINDOW_UPDATE, RST_STREAM and PRIORITY may have been under way.
#[test]
fn an_ended_stream_may_be_spoken_of() {
    let mut dialogue = open();
    dialogue.say_request(1, flag::END_STREAM, &[]);
    dialogue.expect_answer(1);
    dialogue.say_window_update(1, 100);
    dialogue.say(Kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    dialogue.say(Kind::RST_STREAM, 0, 1, &[0; 4]);
    dialogue.expect_alive();
}

/// Closed by our own RST_STREAM: what was under way is processed minimally and discarded.
#[test]
fn frames_for_a_stream_we_reset_are_ignored() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[("Upper", "case")]);
    dialogue.expect_reset(1, PROTOCOL);
    dialogue.say(Kind::DATA, 0, 1, b"under way");
    dialogue.say_request(1, flag::END_STREAM, &[]);
    dialogue.say_window_update(1, 5);
    dialogue.say(Kind::RST_STREAM, 0, 1, &[0; 4]);
    dialogue.expect_alive();
    dialogue.say_request(3, flag::END_STREAM, &[]);
    dialogue.expect_answer(3);
}

/// §5.1.1: streams a client opens have odd numbers.
#[test]
fn a_client_opens_odd_streams() {
    let mut dialogue = open();
    dialogue.say_request(2, flag::END_STREAM, &[]);
    dialogue.expect_goaway(PROTOCOL);
}

/// §5.1.1: a new stream's number is above all earlier ones; the first use of one closes the idle ones below it.
#[test]
fn stream_numbers_only_grow() {
    let mut dialogue = open();
    dialogue.say_request(5, flag::END_STREAM, &[]);
    dialogue.expect_answer(5);
    dialogue.say_request(3, flag::END_STREAM, &[]);
    dialogue.expect_goaway(PROTOCOL);
}

/// §5.1.2: above SETTINGS_MAX_CONCURRENT_STREAMS, a stream error of PROTOCOL_ERROR or REFUSED_STREAM.
#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut dialogue = crate::open_with(&[(crate::setting::INITIAL_WINDOW_SIZE, 0)]);
    let limit = std::env::var("RFC9113_STREAMS_MAX").map_or(10, |limit| limit.parse().expect("a number"));
    for index in 0..=limit {
        dialogue.say_request(2 * index + 1, flag::END_STREAM, &[]);
    }
    dialogue.expect_reset(2 * limit + 1, &[Code::REFUSED_STREAM, Code::PROTOCOL_ERROR]);
    // One ends, and there is room for one.
    dialogue.say_window_update(1, 1 << 20);
    dialogue.expect("the end of stream 1", |frame| frame.head.stream.get() == 1 && frame.head.has(flag::END_STREAM));
    dialogue.say_request(2 * limit + 3, flag::END_STREAM, &[]);
    dialogue.expect("response headers", |frame| {
        frame.head.kind == Kind::HEADERS && frame.head.stream.get() == 2 * limit + 3
    });
}
