//! §5.3 Prioritization, §5.4 Error Handling, §5.5 Extending HTTP/2.

use slimline_wire::h2::{Kind, flag};

use crate::{PROTOCOL, open, open_with};

/// RFC 7540 §5.3.1, kept for peers that test it: a stream cannot depend on itself.
#[test]
fn a_stream_cannot_depend_on_itself() {
    let mut dialogue = open();
    let mut block = vec![0, 0, 0, 1, 16];
    block.extend(dialogue.request(&[]));
    dialogue.say(Kind::HEADERS, flag::END_HEADERS | flag::END_STREAM | flag::PRIORITY, 1, &block);
    dialogue.expect_reset(1, PROTOCOL);
    dialogue.say_request(3, 0, &[]);
    dialogue.say(Kind::PRIORITY, 0, 3, &[0x80, 0, 0, 3, 16]);
    dialogue.expect_reset(3, PROTOCOL);
    dialogue.expect_alive();
}

/// §5.4.1: GOAWAY before the end, naming the last stream that was looked at.
#[test]
fn the_last_word_is_goaway() {
    let mut dialogue = open();
    dialogue.say_request(3, flag::END_STREAM, &[]);
    dialogue.expect_answer(3);
    dialogue.say(Kind::PING, 0, 1, &[0; 8]);
    let goaway = dialogue.expect("GOAWAY", |frame| frame.head.kind == Kind::GOAWAY);
    assert_eq!(goaway.payload[..4], [0, 0, 0, 3]);
}

/// §5.4.2: RST_STREAM is not answered with RST_STREAM.
#[test]
fn a_reset_is_not_answered() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say(Kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    dialogue.expect_alive();
}

/// §5.5: unknown settings and frames are ignored, but a frame inside a field block is an error whatever it is.
#[test]
fn extensions_are_ignored() {
    let mut dialogue = open_with(&[(0xff, 1), (0x0a0a, u32::MAX)]);
    dialogue.say(Kind(0x42), 1, 1, &[0; 1000]);
    dialogue.expect_alive();
}
