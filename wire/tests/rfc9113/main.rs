//! RFC 9113, requirement by requirement: a file is a section, a function is a requirement, written as a dialogue.
//!
//! The peer is our two halves in memory; with `RFC9113_TARGET=host:port` (and `RFC9113_PATH`, else `/`) it is whatever
//! listens there. Where the RFC leaves a choice (a stream error may be made a transport error, a bad preface needs no
//! GOAWAY) these tests pin ours, so another server may differ and be right. Limits of our own choosing (floods, list sizes) are tested in `h2_limits.rs`.

mod section_3_4_preface;
mod section_4_frames;
mod section_5_1_streams;
mod section_5_3_to_5_5;
mod section_6_control;
mod section_6_data_and_headers;
mod section_6_windows;
mod section_8_messages;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use slimline_wire::h2::{Code, Limits};
use slimline_wire::testing::dialogue::{Dialogue, InMemory, Peer};

/// The peer of every test here.
enum Anyone {
    InMemory(Box<InMemory>),
    Live { socket: TcpStream, is_gone: bool },
}

/// How long a live peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10); // generous: the machine may be busy; nothing here waits for silence

fn peer() -> Anyone {
    let Ok(target) = std::env::var("RFC9113_TARGET") else {
        let limits = Limits { streams_max: 10, ..Limits::default() };
        return Anyone::InMemory(Box::new(InMemory::new(&limits)));
    };
    let socket = TcpStream::connect(&target).unwrap_or_else(|error| panic!("{target}: {error}"));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    Anyone::Live { socket, is_gone: false }
}

impl Peer for Anyone {
    fn tell(&mut self, octets: &[u8]) {
        match self {
            Self::InMemory(peer) => peer.tell(octets),
            Self::Live { socket, .. } => {
                let _ = socket.write_all(octets); // a peer that hung up is found out when it is asked
            }
        }
    }

    fn ask(&mut self) -> Vec<u8> {
        match self {
            Self::InMemory(peer) => peer.ask(),
            Self::Live { socket, is_gone } => {
                let mut octets = vec![0; 1 << 16];
                match socket.read(&mut octets) {
                    Ok(0) => *is_gone = true,
                    Ok(count) => return octets[..count].to_vec(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => *is_gone = true,
                }
                Vec::new()
            }
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::InMemory(peer) => peer.is_gone(),
            Self::Live { is_gone, .. } => *is_gone,
        }
    }
}

fn path() -> String {
    std::env::var("RFC9113_PATH").unwrap_or_else(|_| "/".into())
}

/// A dialogue behind the hellos.
fn open() -> Dialogue<Anyone> {
    Dialogue::open(peer(), &path())
}

/// The same with settings of ours.
fn open_with(settings: &[(u16, u32)]) -> Dialogue<Anyone> {
    Dialogue::open_with(peer(), &path(), settings)
}

const PROTOCOL: &[Code] = &[Code::PROTOCOL_ERROR];
const SIZE: &[Code] = &[Code::FRAME_SIZE_ERROR];
const CLOSED: &[Code] = &[Code::STREAM_CLOSED];
const FLOW: &[Code] = &[Code::FLOW_CONTROL_ERROR];
const COMPRESSION: &[Code] = &[Code::COMPRESSION_ERROR];

/// Settings, by identifier.
mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
}
