//! §6.9 WINDOW_UPDATE, §5.2 Flow Control.

use slimline_wire::h2::{Code, Kind, flag};

use crate::{FLOW, PROTOCOL, open, open_with, setting};

/// §6.9: an increment of zero is an error, of the stream or of the transport.
#[test]
fn an_increment_is_not_zero() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say_window_update(1, 0);
    dialogue.expect_reset(1, PROTOCOL);
    dialogue.expect_alive();
    dialogue.say_window_update(0, 0);
    dialogue.expect_goaway(PROTOCOL);
}

/// §6.9.1: a window above 2^31 - 1 is an error, of the stream or of the transport.
#[test]
fn windows_do_not_overflow() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    dialogue.say_window_update(1, (1 << 31) - 1);
    dialogue.expect_reset(1, FLOW);
    dialogue.expect_alive();
    dialogue.say_window_update(0, (1 << 31) - 1);
    dialogue.expect_goaway(FLOW);
}

/// §6.9: the sender keeps to the window, octet by octet.
#[test]
fn data_keeps_to_the_window() {
    let mut dialogue = open_with(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
    dialogue.say_request(1, flag::END_STREAM, &[]);
    let first = dialogue.expect("DATA", |frame| frame.head.kind == Kind::DATA);
    assert_eq!((first.payload.len(), first.head.flags & flag::END_STREAM), (1, 0));
    assert!(dialogue.expect_alive().iter().all(|frame| frame.head.kind != Kind::DATA));
    dialogue.say_window_update(1, 1);
    let second = dialogue.expect("DATA", |frame| frame.head.kind == Kind::DATA);
    assert_eq!(second.payload.len(), 1);
}

/// §6.9.2: a change of the initial window moves the windows of open streams.
#[test]
fn settings_move_open_windows() {
    let mut dialogue = open_with(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    dialogue.say_request(1, flag::END_STREAM, &[]);
    assert!(dialogue.expect_alive().iter().all(|frame| frame.head.kind != Kind::DATA));
    dialogue.say_settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
    let data = dialogue.expect("DATA", |frame| frame.head.kind == Kind::DATA);
    assert_eq!(data.payload.len(), 1);
}

/// §6.9.2: a window may become negative, and what brings it back to zero buys nothing.
#[test]
fn windows_may_be_negative() {
    let mut dialogue = open_with(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
    dialogue.say_request(1, flag::END_STREAM, &[]);
    dialogue.expect("DATA", |frame| frame.head.kind == Kind::DATA);
    dialogue.say_settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]); // now -1
    dialogue.say_window_update(1, 1);
    assert!(dialogue.expect_alive().iter().all(|frame| frame.head.kind != Kind::DATA));
    dialogue.say_window_update(1, 1);
    let data = dialogue.expect("DATA", |frame| frame.head.kind == Kind::DATA);
    assert_eq!(data.payload.len(), 1);
}

/// §6.9.2: SETTINGS that take an open window past its maximum end the transport.
#[test]
fn settings_do_not_overflow_windows() {
    let mut dialogue = open_with(&[(setting::INITIAL_WINDOW_SIZE, 100)]);
    dialogue.say_request(1, 0, &[]);
    dialogue.say_window_update(1, 1);
    dialogue.say_settings(&[(setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1)]);
    dialogue.expect_goaway(FLOW);
}

/// §5.2.1: what is received is given back, on the stream and on the transport, also where padding took it.
#[test]
fn what_is_received_is_given_back() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[]);
    let (mut stream, mut transport) = (0u64, 0u64);
    let frame: Vec<u8> = [&[255u8][..], &[0; 16_383]].concat();
    for _ in 0..200 {
        dialogue.say(Kind::DATA, flag::PADDED, 1, &frame);
        for heard in dialogue.expect_alive() {
            if heard.head.kind == Kind::WINDOW_UPDATE {
                let increment = u64::from(u32::from_be_bytes(heard.payload.try_into().unwrap()));
                *if heard.head.stream.get() == 0 { &mut transport } else { &mut stream } += increment;
            }
        }
    }
    let sent = 200 * 16_384;
    assert!(stream > sent / 2 && stream <= sent, "{stream} of {sent}");
    assert!(transport > sent / 2 && transport <= sent, "{transport} of {sent}");
}

/// §6.9: more than the window allows is FLOW_CONTROL_ERROR.
#[test]
fn the_peer_keeps_to_our_windows() {
    use slimline_wire::h2::Limits;
    use slimline_wire::testing::dialogue::{Dialogue, InMemory};
    // Against our own server only: another one's windows, and when it returns them, are its own affair. An echo whose
    // answer is not let out keeps what it got.
    let stingy = Limits { initial_window: 100_000, transport_window: 200_000, ..Limits::default() };
    let mut dialogue = Dialogue::open_with(InMemory::new(&stingy), "/echo", &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    dialogue.say_request(1, 0, &[]);
    for _ in 0..10 {
        dialogue.say(Kind::DATA, 0, 1, &[0; 10_000]);
    }
    dialogue.expect_alive();
    dialogue.say(Kind::DATA, 0, 1, &[0]);
    dialogue.expect_reset(1, &[Code::FLOW_CONTROL_ERROR]);
    dialogue.expect_alive();
}

/// §6.9.1: DATA for a stream that is gone still counts against the transport's window, and is given back.
#[test]
fn ignored_data_is_given_back() {
    let mut dialogue = open();
    dialogue.say_request(1, 0, &[("Upper", "case")]);
    dialogue.expect_reset(1, PROTOCOL);
    let mut given = 0u64;
    for _ in 0..200 {
        dialogue.say(Kind::DATA, 0, 1, &[0; 16_384]);
        for heard in dialogue.expect_alive() {
            if heard.head.kind == Kind::WINDOW_UPDATE && heard.head.stream.get() == 0 {
                given += u64::from(u32::from_be_bytes(heard.payload.try_into().unwrap()));
            }
        }
    }
    assert!(given > 100 * 16_384, "{given}");
}
