//! §6.1 DATA, §6.2 HEADERS, §6.3 PRIORITY, §6.10 CONTINUATION.

use slimline_wire::h2::{Kind, flag};

use crate::{PROTOCOL, SIZE, open};

/// §6.1, §6.2, §6.3, §6.10: these belong to a stream.
#[test]
fn stream_frames_name_a_stream() {
    let cases: [(Kind, &[u8]); 4] = [
        (Kind::DATA, b"x"),
        (Kind::HEADERS, &[0x82]),
        (Kind::PRIORITY, &[0, 0, 0, 1, 16]),
        (Kind::CONTINUATION, &[0x82]),
    ];
    for (kind, payload) in cases {
        let mut dialogue = open();
        dialogue.say(kind, flag::END_HEADERS, 0, payload);
        dialogue.expect_goaway(PROTOCOL);
    }
}

/// §6.1, §6.2: padding as long as the payload or longer MUST be a connection error of type PROTOCOL_ERROR.
#[test]
fn padding_is_shorter_than_its_frame() {
    for padding in [2u8, 3, 255] {
        let mut dialogue = open();
        dialogue.say_request(1, 0, &[]);
        dialogue.say(Kind::DATA, flag::PADDED, 1, &[padding, 0]);
        dialogue.expect_goaway(PROTOCOL);

        let mut dialogue = open();
        dialogue.say(Kind::HEADERS, flag::PADDED | flag::END_HEADERS, 1, &[padding, 0x82]);
        dialogue.expect_goaway(PROTOCOL);
    }
}

/// §4.2: a frame too short for what its flags promise is FRAME_SIZE_ERROR.
#[test]
fn flags_promise_octets() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say(Kind::DATA, flag::PADDED, 1, &[]);
    dialogue.expect_goaway(SIZE);
    for flags in [flag::PADDED, flag::PRIORITY] {
        let mut dialogue = open();
        dialogue.say(Kind::HEADERS, flags | flag::END_HEADERS, 1, &[]);
        dialogue.expect_goaway(SIZE);
    }
}

#[test]
fn padding_and_priority_are_taken_off() {
    let mut dialogue = open();
    let mut block = vec![5, 0x80, 0, 0, 0, 255]; // padding of five; exclusive, stream 0, weight
    block.extend(dialogue.request(&[]));
    block.extend([0; 5]);
    dialogue.say(Kind::HEADERS, flag::PADDED | flag::PRIORITY | flag::END_HEADERS, 1, &block);
    dialogue.say(Kind::DATA, flag::PADDED | flag::END_STREAM, 1, &[3, b'x', 0, 0, 0]);
    dialogue.expect_answer(1);
}

/// §6.1: padding alone, and the whole of it, is a valid frame.
#[test]
fn a_frame_may_be_padding_only() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[("content-length", "0")]);
    dialogue.say(Kind::DATA, flag::PADDED, 1, &[0]);
    dialogue.say(Kind::DATA, flag::PADDED | flag::END_STREAM, 1, &[2, 0, 0]);
    dialogue.expect_answer(1);
}

/// §6.3: PRIORITY of another length than 5 MUST be a stream error of type FRAME_SIZE_ERROR.
#[test]
fn priority_is_five_octets() {
    for length in [0, 4, 6, 100] {
        let mut dialogue = open();
        dialogue.say_request(1, 0, &[]);
        dialogue.say(Kind::PRIORITY, 0, 1, &vec![0; length]);
        dialogue.expect_reset(1, SIZE);
        dialogue.expect_alive();
    }
}

/// §6.10: any number of CONTINUATION frames, empty ones too.
#[test]
fn a_block_may_be_in_pieces() {
    let mut dialogue = open();
    let block = dialogue.request(&[]);
    let (first, rest) = block.split_at(3);
    let (second, third) = rest.split_at(5);
    dialogue.say(Kind::HEADERS, flag::END_STREAM, 1, first);
    dialogue.say(Kind::CONTINUATION, 0, 1, second);
    dialogue.say(Kind::CONTINUATION, 0, 1, &[]);
    dialogue.say(Kind::CONTINUATION, flag::END_HEADERS, 1, third);
    dialogue.expect_answer(1);
}

/// §6.10: CONTINUATION follows HEADERS or CONTINUATION without END_HEADERS, on the same stream.
#[test]
fn continuation_continues_something() {
    let mut dialogue = open();
    dialogue.say_request(1, flag::END_STREAM, &[]);
    dialogue.say(Kind::CONTINUATION, flag::END_HEADERS, 1, &[0x82]);
    dialogue.expect_goaway(PROTOCOL);

    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say(Kind::DATA, 0, 1, b"x");
    dialogue.say(Kind::CONTINUATION, flag::END_HEADERS, 1, &[0x82]);
    dialogue.expect_goaway(PROTOCOL);
}
