//! Recorded traffic between released SLIM programs, replayed through both roles of the receiver and the deframer.
//!
//! The recordings are described in `vectors/captures/README.md`; how many frames and messages each holds was counted
//! when it was made, by another decoder.

use std::{fs, path::PathBuf, time::Instant};

use slimline_wire::grpc::{Deframer, Item, OPEN_CHANNEL_PATH};
use slimline_wire::h2::{Event, Limits, Recv, Role, Settings, StreamId};

/// What one direction of a recording came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    path: Option<Vec<u8>>,
    settings: Vec<Settings>,
    messages: Vec<Vec<u8>>,
    resets: u32,
    goaways: u32,
    ended: bool,
}

fn recording(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/captures").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Plays `octets` in pieces of `size` into a receiver of `role`; a client has stream 1 open.
fn play(octets: &[u8], role: Role, size: usize) -> Heard {
    let (limits, now) = (Limits { max_frame_size: 4 << 20, ..Limits::default() }, Instant::now());
    let mut recv = Recv::new(role, &limits);
    if role == Role::Client {
        recv.open(StreamId::new(1));
    }
    let (mut deframer, mut heard) = (Deframer::new(4 << 20), Heard::default());
    for mut piece in octets.chunks(size) {
        while let Some(event) = recv.next(now, &mut piece).expect("released software keeps to the protocol") {
            match event {
                Event::Headers { stream, fields, end_stream } => {
                    assert_eq!((stream.get(), end_stream), (1, false));
                    heard.path = fields.get(":path").or(fields.get(":status")).map(<[u8]>::to_vec);
                    assert_eq!(fields.get("content-type"), Some(&b"application/grpc"[..]));
                }
                Event::Data { stream, octets: mut data, flow_octets, .. } => {
                    assert_eq!(flow_octets as usize, data.len(), "none of them pads");
                    recv.credit_stream(stream, flow_octets);
                    recv.credit_transport(flow_octets);
                    while let Some(item) = deframer.next(&mut data).expect("no compression") {
                        let Item::Message(message) = item else { panic!("no message is that long") };
                        heard.messages.push(message.to_vec());
                    }
                }
                Event::Trailers { fields, .. } => {
                    assert_eq!(fields.get("grpc-status"), Some(&b"0"[..]));
                    heard.ended = true;
                }
                Event::Settings(settings) => heard.settings.push(settings),
                Event::Reset { .. } => heard.resets += 1,
                Event::GoAway { .. } => heard.goaways += 1,
                Event::StreamError { reason, .. } => panic!("{reason}"),
                Event::IgnoredData { .. } => panic!("no stream was closed by us"),
                Event::SettingsAck | Event::Ping(_) | Event::Pong(_) | Event::WindowUpdate { .. } => {}
            }
        }
        assert!(piece.is_empty(), "everything is taken");
    }
    assert!(recv.is_between_frames() && deframer.is_between_messages());
    heard
}

/// Each row: a recording, and the messages it holds from and to the client.
#[test]
fn every_recording_is_understood_however_it_is_cut() {
    for (name, from_client, to_client) in RECORDINGS {
        let sides = [("c2s", Role::Server, from_client), ("s2c", Role::Client, to_client)];
        for (side, role, messages) in sides {
            let octets = recording(&format!("{name}.{side}.bin"));
            let heard = play(&octets, role, octets.len());
            assert_eq!(heard.messages.len(), messages, "{name}.{side}");
            match role {
                Role::Server => assert_eq!(heard.path.as_deref(), Some(OPEN_CHANNEL_PATH.as_bytes())),
                Role::Client => assert_eq!(heard.path.as_deref(), Some(&b"200"[..])),
            }
            assert_eq!(heard.settings.len(), 1);
            for size in [1, 2, 7, 10, 100, 1460] {
                assert_eq!(play(&octets, role, size), heard, "{name}.{side} in pieces of {size}");
            }
        }
    }
}

/// Source: slim-wire §1.1, the table of SETTINGS.
#[test]
fn settings_are_those_of_the_releases() {
    let client = play(&recording("p2p_nomls.0.c2s.bin"), Role::Server, 4096).settings[0];
    assert_eq!((client.enable_push, client.initial_window), (Some(false), Some(2 << 20)));
    assert_eq!((client.max_frame_size, client.header_list_octets_max), (Some(16_384), Some(16_384)));
    let server = play(&recording("p2p_nomls.0.s2c.bin"), Role::Client, 4096).settings[0];
    assert_eq!((server.initial_window, server.max_frame_size), (Some(1 << 20), Some(4 << 20)));
}

/// Recording, messages from the client, messages to it.
const RECORDINGS: [(&str, usize, usize); 10] = [
    ("group_mls.0", 18, 20),
    ("group_mls.1", 17, 19),
    ("group_mls.2", 21, 24),
    ("p2p_mls.0", 13, 13),
    ("p2p_mls.1", 13, 13),
    ("p2p_nomls.0", 13, 13),
    ("p2p_nomls.1", 13, 13),
    ("peer_mesh.0", 13, 13),
    ("reconnect_a.0", 2, 2),
    ("reconnect_b.0", 3, 2),
];
