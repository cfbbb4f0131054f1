//! §6.4 RST_STREAM, §6.5 SETTINGS, §6.6 PUSH_PROMISE, §6.7 PING, §6.8 GOAWAY.

use slimline_wire::h2::{Kind, flag};

use crate::{FLOW, PROTOCOL, SIZE, open, setting};

/// Each row: a frame on a transport where stream 1 is open, and what it costs.
#[test]
fn control_frames_have_their_stream_and_length() {
    let size = |kind, flags, stream, length: usize| (kind, flags, stream, vec![0; length], SIZE);
    let stream = |kind, flags, stream, length: usize| (kind, flags, stream, vec![0; length], PROTOCOL);
    for (kind, flags, number, payload, codes) in [
        size(Kind::RST_STREAM, 0, 1, 3),
        size(Kind::RST_STREAM, 0, 1, 5),
        stream(Kind::RST_STREAM, 0, 0, 4),
        stream(Kind::RST_STREAM, 0, 9, 4),
        size(Kind::SETTINGS, 0, 0, 3),
        size(Kind::SETTINGS, 0, 0, 7),
        size(Kind::SETTINGS, flag::ACK, 0, 6),
        stream(Kind::SETTINGS, 0, 1, 0),
        size(Kind::PING, 0, 0, 7),
        size(Kind::PING, flag::ACK, 0, 9),
        stream(Kind::PING, 0, 1, 8),
        size(Kind::GOAWAY, 0, 0, 7),
        stream(Kind::GOAWAY, 0, 1, 8),
        size(Kind::WINDOW_UPDATE, 0, 0, 3),
        size(Kind::WINDOW_UPDATE, 0, 1, 5),
    ] {
        let mut dialogue = open();
        dialogue.say_request(1, 0, &[]);
        dialogue.say(kind, flags, number, &payload);
        dialogue.expect_goaway(codes);
    }
}

/// §6.5.2: values out of range.
#[test]
fn settings_have_ranges() {
    for (id, value, codes) in [
        (setting::ENABLE_PUSH, 2, PROTOCOL),
        (setting::INITIAL_WINDOW_SIZE, 1 << 31, FLOW),
        (setting::MAX_FRAME_SIZE, 16_383, PROTOCOL),
        (setting::MAX_FRAME_SIZE, 1 << 24, PROTOCOL),
    ] {
        let mut dialogue = open();
        dialogue.say_settings(&[(id, value)]);
        dialogue.expect_goaway(codes);
    }
}

/// §6.5.2, §6.5.3: the ends of the ranges are inside, the last of two values stands, and each frame is acknowledged.
#[test]
fn settings_are_applied_and_acknowledged() {
    let mut dialogue = open();
    dialogue.say_settings(&[
        (setting::ENABLE_PUSH, 1),
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1),
        (setting::MAX_FRAME_SIZE, (1 << 24) - 1),
        (setting::HEADER_TABLE_SIZE, 0),
    ]);
    dialogue.say_settings(&[(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)]);
    for _ in 0..2 {
        dialogue.expect("acknowledgement", |frame| frame.head.kind == Kind::SETTINGS && frame.head.has(flag::ACK));
    }
    dialogue.say_request(1, flag::END_STREAM, &[]);
    let data = dialogue.expect("DATA", |frame| frame.head.kind == Kind::DATA);
    assert_eq!(data.payload.len(), 1, "the last value stands");
}

/// §6.6, §8.4: a client cannot push.
#[test]
fn a_client_cannot_push() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    let mut promise = vec![0, 0, 0, 2];
    promise.extend(dialogue.request(&[]));
    dialogue.say(Kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise);
    dialogue.expect_goaway(PROTOCOL);
}

/// §6.7: the answer carries the same octets and the ACK flag; an answer is not answered.
#[test]
fn pings_are_answered_once() {
    let mut dialogue = open();
    dialogue.say(Kind::PING, flag::ACK, 0, b"an echo?");
    dialogue.say(Kind::PING, 0, 0, b"who's it");
    let heard = dialogue.expect("an answer", |frame| frame.head.kind == Kind::PING);
    assert!(heard.head.has(flag::ACK));
    assert_eq!(heard.payload, b"who's it");
}

/// §6.8: after the peer's GOAWAY its open streams go on.
#[test]
fn a_goaway_lets_streams_finish() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say(Kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0, b'b', b'y', b'e']);
    dialogue.say(Kind::DATA, flag::END_STREAM, 1, b"x");
    dialogue.expect_answer(1);
}
