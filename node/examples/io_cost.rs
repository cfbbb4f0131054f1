//! What one message costs a relay on each engine and rung, and where the rungs differ.
//!
//! Run:  cargo run --profile fast --example io_cost -- [rounds]
//! One thread plays everybody in rounds: peers write a batch over loopback TCP, the relay moves it to one reader (CPU
//! time counted), the reader empties its socket. Every engine sees the same batches, so scheduling does not blur the
//! comparison. Nothing is parsed. The median over the rounds is told.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use slimline_node::io::{Block, Disable, Done, Ended, Engine, EngineChoice, Io, IoOptions, Key};

/// Octets of a message.
const MESSAGE: usize = 256;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(400);
    let uring = |change: fn(&mut Disable)| {
        let mut options = IoOptions { engine: EngineChoice::Uring, ..IoOptions::default() };
        change(&mut options.disable);
        options
    };
    let pieces = |options| IoOptions { recv_buf_count: 1024, recv_buf_octets: 4096, ..options };
    let epoll = IoOptions { engine: EngineChoice::Epoll, ..IoOptions::default() };
    let rows = [
        ("io_uring, everything on", uring(|_| ())),
        ("no incremental", uring(|off| off.incremental = true)),
        ("no incremental, 1024 x 4 KiB", pieces(uring(|off| off.incremental = true))),
        ("no bundles", uring(|off| off.bundles = true)),
        ("single shot", uring(|off| off.multishot = true)),
        ("no defer_taskrun", uring(|off| off.defer_taskrun = true)),
        ("no registered files", uring(|off| off.registered_files = true)),
        ("epoll", epoll),
    ];
    for (connections, each) in [(1, 1), (1, 8), (1, 256), (16, 16), (64, 1), (1000, 1), (500, 2)] {
        println!("{connections} connections x {each} messages of {MESSAGE} octets a round");
        for (name, options) in &rows {
            let (engine, _) = Engine::open(options).expect("an engine");
            let mut relay = Relay::new(engine, connections);
            let mut costs: Vec<f64> = (0..rounds).map(|_| relay.round(each)).collect();
            costs.sort_by(f64::total_cmp);
            let counters = relay.io.counters();
            let messages = (rounds * each * connections as usize) as f64;
            println!(
                "  {name:30} {:7.0} ns (quartiles {:.0}, {:.0})  {:.3} calls, {:.3} completions, {:.3} enobufs each",
                costs[rounds / 2],
                costs[rounds / 4],
                costs[rounds * 3 / 4],
                counters.kernel_calls as f64 / messages,
                counters.completions as f64 / messages,
                counters.enobufs as f64 / messages,
            );
        }
    }
}

struct Relay {
    io: Engine,
    peers: Vec<TcpStream>,
    sink: TcpStream,
    out: Key,
    done: VecDeque<Done>,
    starved: VecDeque<Key>,
    waiting: Vec<u8>,
    spare: Option<Vec<u8>>,
}

impl Relay {
    fn new(mut io: Engine, connections: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let pair = || -> (OwnedFd, TcpStream) {
            let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
            peer.set_nodelay(true).expect("tcp");
            (listener.accept().expect("loopback").0.into(), peer)
        };
        let out = Key { slot: connections, generation: 0 };
        let (ours, sink) = pair();
        sink.set_nonblocking(true).expect("tcp");
        io.adopt(out, ours).expect("room");
        let peers = (0..connections)
            .map(|slot| {
                let (ours, peer) = pair();
                let key = Key { slot, generation: 0 };
                io.adopt(key, ours).expect("room");
                io.receive(key);
                peer
            })
            .collect();
        Self {
            io,
            peers,
            sink,
            out,
            done: VecDeque::new(),
            starved: VecDeque::new(),
            waiting: Vec::new(),
            spare: Some(Vec::new()),
        }
    }

    /// CPU time of the relay per message, in ns.
    fn round(&mut self, each: usize) -> f64 {
        let text = vec![7; each * MESSAGE];
        for peer in &mut self.peers {
            peer.write_all(&text).expect("a living relay");
        }
        let octets = text.len() * self.peers.len();
        let mut left = octets;
        let mut spent = Duration::ZERO;
        while left > 0 {
            let start = cpu();
            left -= self.turn();
            spent += cpu().saturating_sub(start);
        }
        let mut room = vec![0; 1 << 20];
        let mut back = 0;
        while back < octets {
            match self.sink.read(&mut room) {
                Ok(count) => back += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        spent.as_nanos() as f64 * MESSAGE as f64 / octets as f64
    }

    /// One turn as a shard takes it; returns octets sent.
    fn turn(&mut self) -> usize {
        self.io.enter(Some(Duration::ZERO), &mut self.done).expect("an engine");
        let (mut sent, mut credit) = (0, 0);
        while let Some(one) = self.done.pop_front() {
            match one {
                Done::Received { lease, .. } => {
                    self.waiting.extend_from_slice(self.io.octets(&lease));
                    self.io.put_back(lease);
                    credit += 1;
                }
                Done::ReceiveEnded { key, why: Ended::NoBuffers } => self.starved.push_back(key),
                Done::Sent { block, result, .. } => {
                    let count = result.expect("a living reader");
                    sent += count;
                    let (mut octets, _) = block.into_parts();
                    octets.drain(..count);
                    if octets.is_empty() {
                        self.spare = Some(octets);
                    } else {
                        self.io.send(self.out, Block::from(octets), 0);
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        if !self.waiting.is_empty()
            && let Some(mut octets) = self.spare.take()
        {
            std::mem::swap(&mut octets, &mut self.waiting);
            self.io.send(self.out, Block::from(octets), 0);
        }
        for _ in 0..credit.max(1) {
            let Some(key) = self.starved.pop_front() else { break };
            self.io.receive(key);
        }
        sent
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
