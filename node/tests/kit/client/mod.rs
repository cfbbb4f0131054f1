//! A blocking SLIM client on a plain socket, built on the same sans-IO parts as everything else, that can also send
//! whatever octets a test wants.
//!
//! Here are its socket and its HTTP/2 state. `ask` says things, `hear` waits for what the node says, `link` speaks SLIM.

mod ask;
mod hear;
mod link;

pub use hear::Said;
pub use link::{LINK, Link, payload_of};

use super::PATIENCE;
use slimline_wire::grpc::{Deframer, Item};
use slimline_wire::h2::{Code, Event, Limits, Recv, Role, Send, StreamId};
use socket2::{Domain, Socket, Type};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One HTTP/2 connection to a node.
pub struct Client {
    pub socket: TcpStream,
    pub send: Send,
    recv: Recv,
    deframers: HashMap<u32, Deframer>,
    said: VecDeque<Said>,
    out: Vec<u8>,
    next_stream: u32,
    /// While false, the transport's window is not given back.
    pub credits_transport: bool,
    /// While false, streams' windows are not given back: a reader that reads no more of any stream.
    pub credits_streams: bool,
    /// Streams whose window is not given back.
    pub withheld: HashSet<u32>,
    /// Octets of each stream's window that are withheld.
    owed: HashMap<u32, u32>,
    /// DATA octets each stream was sent.
    pub received: HashMap<u32, u64>,
    /// The last octets the node sent: where a test looks for texts that events leave out.
    pub tail: Vec<u8>,
    closed: bool,
}

/// How a client differs from an SDK.
#[derive(Clone)]
pub struct Manner {
    pub limits: Limits,
    /// SO_RCVBUF, where it should be small.
    pub receive_octets: Option<usize>,
}

impl Default for Manner {
    fn default() -> Self {
        let limits = Limits {
            initial_window: 2_097_152,
            transport_window: 5_242_880,
            control_frames_per_10s: u32::MAX,
            ..Limits::default()
        };
        Self { limits, receive_octets: None }
    }
}

/// How much of what the node said last is kept.
const TAIL_OCTETS: usize = 1024;

impl Client {
    /// Connects and exchanges prefaces.
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, &Manner::default())
    }

    /// As [`Client::connect`]; `None` if the connection is refused.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        Self::try_with(address, &Manner::default())
    }

    /// As [`Client::connect`], in another manner.
    pub fn with(address: SocketAddr, manner: &Manner) -> Self {
        Self::try_with(address, manner).expect("the node accepts")
    }

    fn try_with(address: SocketAddr, manner: &Manner) -> Option<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        if let Some(octets) = manner.receive_octets {
            socket.set_recv_buffer_size(octets).expect("SO_RCVBUF");
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            Err(error) => panic!("{error}"),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true).expect("nodelay");
        let limits = &manner.limits;
        let mut client = Self {
            socket,
            send: Send::new(Role::Client, limits),
            recv: Recv::new(Role::Client, limits),
            deframers: HashMap::new(),
            said: VecDeque::new(),
            out: Vec::new(),
            next_stream: 1,
            credits_transport: true,
            credits_streams: true,
            withheld: HashSet::new(),
            owed: HashMap::new(),
            received: HashMap::new(),
            tail: Vec::new(),
            closed: false,
        };
        client.send.start(&mut client.out);
        client.flush();
        Some(client)
    }

    /// Waits for the node's first octets; false if it closes instead.
    pub fn is_greeted(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.tail.is_empty() && !self.closed {
            assert!(Instant::now() < deadline, "no word from the node");
            self.pump(Duration::from_millis(100));
        }
        !self.closed
    }

    /// Sends what was written so far.
    pub fn flush(&mut self) {
        let out = std::mem::take(&mut self.out);
        self.send.seal();
        if self.socket.write_all(&out).is_err() {
            self.closed = true;
        }
    }

    /// Sends octets as they are.
    pub fn raw(&mut self, octets: &[u8]) {
        self.flush();
        if self.socket.write_all(octets).is_err() {
            self.closed = true;
        }
    }

    /// Reads for `length`.
    pub fn pump_for(&mut self, length: Duration) {
        let deadline = Instant::now() + length;
        while Instant::now() < deadline {
            self.pump(Duration::from_millis(5));
        }
    }

    /// Reads once, for at most `wait`.
    pub fn pump(&mut self, wait: Duration) {
        let mut buffer = vec![0; 256 * 1024];
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).expect("a timeout");
        match self.socket.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(octets) => self.take(&buffer[..octets]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
    }

    fn take(&mut self, mut input: &[u8]) {
        let now = Instant::now();
        self.tail.extend_from_slice(&input[input.len().saturating_sub(TAIL_OCTETS)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_OCTETS));
        loop {
            let event = match self.recv.next(now, &mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => panic!("the node broke HTTP/2: {error:?}"),
            };
            match event {
                Event::Headers { stream, fields, end_stream } => {
                    let fields = owned(fields.iter());
                    self.said.push_back(Said::Headers { stream: stream.get(), fields, end: end_stream });
                }
                Event::Trailers { stream, fields } => {
                    let fields = owned(fields.iter());
                    self.said.push_back(Said::Trailers { stream: stream.get(), fields });
                }
                Event::Data { stream, octets, flow_octets, end_stream } => {
                    *self.received.entry(stream.get()).or_default() += octets.len() as u64;
                    if !self.credits_streams || self.withheld.contains(&stream.get()) {
                        *self.owed.entry(stream.get()).or_default() += flow_octets;
                    } else if let Some(increment) = self.recv.credit_stream(stream, flow_octets) {
                        self.send.write_window_update(stream, increment, &mut self.out);
                    }
                    if self.credits_transport
                        && let Some(increment) = self.recv.credit_transport(flow_octets)
                    {
                        self.send.write_window_update(StreamId::TRANSPORT, increment, &mut self.out);
                    }
                    match self.deframers.get_mut(&stream.get()) {
                        None => {
                            let octets = octets.to_vec();
                            self.said.push_back(Said::Data { stream: stream.get(), octets, end: end_stream });
                        }
                        Some(deframer) => {
                            let mut octets = octets;
                            while let Some(item) = deframer.next(&mut octets).expect("gRPC framing") {
                                let Item::Message(message) = item else { panic!("oversize from the node") };
                                self.said.push_back(Said::Message { stream: stream.get(), octets: message.to_vec() });
                            }
                        }
                    }
                }
                Event::Reset { stream, code } if code != Code::NO_ERROR => {
                    self.said.push_back(Said::Reset { stream: stream.get(), code });
                }
                Event::Settings(settings) => {
                    self.send.settings(&settings, &mut self.out).expect("the node's SETTINGS");
                }
                Event::Ping(payload) => self.send.ping_ack(payload, &mut self.out),
                Event::WindowUpdate { stream, increment } => {
                    assert!(self.send.window_update(stream, increment).is_ok(), "the node's WINDOW_UPDATE");
                }
                Event::GoAway { code, .. } => self.said.push_back(Said::GoAway { code }),
                Event::StreamError { stream, code, reason } => panic!("the node broke {stream:?}: {code} {reason}"),
                Event::Reset { .. } | Event::SettingsAck | Event::Pong(_) | Event::IgnoredData { .. } => {}
            }
        }
        if !self.out.is_empty() {
            self.flush();
        }
    }
}

fn owned<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, String)> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    fields.map(|(name, value)| (text(name), text(value))).collect()
}
