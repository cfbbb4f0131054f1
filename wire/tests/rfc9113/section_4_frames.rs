//! §4 HTTP Frames: format, size, field sections.

use slimline_wire::h2::{Kind, flag};

use crate::{COMPRESSION, PROTOCOL, SIZE, open};

/// §4.1: implementations MUST ignore and discard frames of unknown types.
#[test]
fn unknown_kinds_are_ignored() {
    let mut dialogue = open();
    dialogue.say(Kind(0x16), 0xff, 0, b"whatever");
    dialogue.say(Kind(0xff), 0, 77, &[]);
    dialogue.expect_alive();
}

/// §4.1: flags without a meaning MUST be ignored.
#[test]
fn undefined_flags_are_ignored() {
    let mut dialogue = open();
    dialogue.say(Kind::PING, 0x16, 0, &[7; 8]);
    dialogue.expect("the answer", |frame| frame.head.kind == Kind::PING && frame.payload == [7; 8]);
    dialogue.say_request(1, flag::END_STREAM | 0x50, &[]);
    dialogue.expect_answer(1);
}

/// §4.1: the reserved bit MUST be ignored when receiving.
#[test]
fn the_reserved_bit_is_ignored() {
    let mut dialogue = open();
    dialogue.say_octets(&[0, 0, 8, 6, 0, 0x80, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    dialogue.expect("the answer", |frame| frame.head.kind == Kind::PING && frame.payload == [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// §4.2: all implementations MUST be capable of frames of 2^14 octets.
#[test]
fn frames_of_16384_octets_are_taken() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say(Kind::DATA, flag::END_STREAM, 1, &[0; 16_384]);
    dialogue.expect_answer(1);
}

/// §4.2: FRAME_SIZE_ERROR for a frame above SETTINGS_MAX_FRAME_SIZE.
#[test]
fn longer_frames_are_refused() {
    for kind in [Kind::DATA, Kind::HEADERS, Kind(0x77), Kind::SETTINGS] {
        let mut dialogue = open();
        dialogue.say_request(1, 0, &[]);
        dialogue.say(kind, flag::END_HEADERS, u32::from(kind != Kind::SETTINGS), &[0; 16_385]);
        dialogue.expect_goaway(SIZE);
    }
}

/// §4.3: a decoding error MUST be a connection error of type COMPRESSION_ERROR.
#[test]
fn invalid_field_blocks_end_the_transport() {
    for block in [&[0x00][..], &[0xff, 0xff], &[0xbf], &[0x80], &[0x00, 0x81, 0xff, 0x01, b'a']] {
        let mut dialogue = open();
        dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, block);
        dialogue.expect_goaway(COMPRESSION);
    }
}

/// §4.3.1, RFC 7541 §4.2: a size update stands at the beginning of a block, and is within the setting.
#[test]
fn size_updates_stand_at_the_beginning() {
    let mut dialogue = open();
    let mut block = vec![0x20, 0x3f, 0xe1, 0x1f]; // 0, then 4096
    block.extend(dialogue.request(&[]));
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block);
    dialogue.expect_answer(1);

    let mut late = dialogue.request(&[]);
    late.push(0x20);
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 3, &late);
    dialogue.expect_goaway(COMPRESSION);

    let mut dialogue = open();
    let mut large = vec![0x3f, 0xe2, 0x1f]; // 4097
    large.extend(dialogue.request(&[]));
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &large);
    dialogue.expect_goaway(COMPRESSION);
}

/// §4.3: a field block is contiguous; no other frame, of any kind or stream, comes in between.
#[test]
fn nothing_comes_between_the_frames_of_a_block() {
    let cases: [(Kind, u32, &[u8]); 6] = [
        (Kind::PRIORITY, 1, &[0, 0, 0, 0, 1]),
        (Kind::DATA, 1, &[]),
        (Kind::HEADERS, 3, &[0x82]),
        (Kind::PING, 0, &[0; 8]),
        (Kind(0x16), 0, &[]),
        (Kind::CONTINUATION, 3, &[]),
    ];
    for (kind, stream, payload) in cases {
        let mut dialogue = open();
        let block = dialogue.request(&[]);
        dialogue.say(Kind::HEADERS, 0, 1, &block);
        dialogue.say(kind, 0, stream, payload);
        dialogue.expect_goaway(PROTOCOL);
    }
}

/// §4.3: the state of decompression goes on with blocks that are refused.
#[test]
fn refused_blocks_are_decoded_all_the_same() {
    let mut dialogue = open();
    let mut block = dialogue.request(&[]);
    block.extend([0x40, 1, b'X', 1, b'y']); // remembered, and malformed
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block);
    dialogue.expect_reset(1, PROTOCOL);
    let mut block = dialogue.request(&[]);
    block.extend([0x40, 1, b'a', 1, b'y']);
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 3, &block);
    dialogue.expect_answer(3);
    let mut block = dialogue.request(&[]);
    block.push(0xbe); // a: y
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 5, &block);
    dialogue.expect_answer(5);
    let mut block = dialogue.request(&[]);
    block.push(0xbf); // X: y, malformed but known
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 7, &block);
    dialogue.expect_reset(7, PROTOCOL);
}
