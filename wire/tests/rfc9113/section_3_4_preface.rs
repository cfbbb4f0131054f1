//! §3.4 HTTP/2 Connection Preface.

use slimline_wire::h2::{Kind, PREFACE, flag};
use slimline_wire::testing::dialogue::Dialogue;

use crate::{PROTOCOL, open, path, peer};

#[test]
fn the_server_says_settings_first() {
    let mut dialogue = Dialogue::new(peer(), &path());
    dialogue.say_octets(PREFACE);
    dialogue.say_settings(&[]);
    let first = dialogue.hear().expect("a server preface");
    assert_eq!((first.head.kind, first.head.flags & flag::ACK, first.head.stream.get()), (Kind::SETTINGS, 0, 0));
}

#[test]
fn requests_may_follow_the_preface_at_once() {
    let mut dialogue = Dialogue::new(peer(), &path());
    dialogue.say_octets(PREFACE);
    dialogue.say_settings(&[]);
    dialogue.say_request(1, flag::END_STREAM, &[]);
    assert!(!dialogue.expect_answer(1).is_empty());
}

#[test]
fn an_invalid_preface_ends_the_transport() {
    for wrong in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRJ"] {
        let mut dialogue = Dialogue::new(peer(), &path());
        dialogue.say_octets(wrong);
        dialogue.expect_goaway(PROTOCOL);
    }
}

#[test]
fn the_first_frame_is_settings() {
    for (kind, flags, payload) in [(Kind::PING, 0, &[0; 8][..]), (Kind::SETTINGS, flag::ACK, &[])] {
        let mut dialogue = Dialogue::new(peer(), &path());
        dialogue.say_octets(PREFACE);
        dialogue.say(kind, flags, 0, payload);
        dialogue.expect_goaway(PROTOCOL);
    }
}

#[test]
fn a_preface_may_come_in_pieces() {
    let mut dialogue = Dialogue::new(peer(), &path());
    for octet in PREFACE {
        dialogue.say_octets(&[*octet]);
    }
    dialogue.say_settings(&[]);
    dialogue.expect_alive();
    drop(open());
}
