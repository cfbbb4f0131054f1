//! Many negotiated connections that say nothing: what each costs the node, and that a newcomer is served as ever.
//!
//! The node is the real program in a process of its own, so its memory can be told from ours. As many connections as open
//! files allow, 10,000 in an optimised build; times are printed and decide nothing.

mod kit;

use kit::PATIENCE;
use kit::client::Client;
use slimline_wire::{ConnType, NameId};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BOB: [&str; 3] = ["org", "ns", "bob"];

/// What one idle negotiated connection may cost.
const OCTETS_EACH_MAX: usize = 16 * 1024;

/// A node as a program, ended with the test.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start() -> Self {
        let address = free_address();
        let path = std::env::temp_dir().join(format!("slimline-idle-{}.yaml", address.port()));
        let config = format!(
            "tracing: {{log_level: info}}\nservices:\n  slim/0:\n    dataplane:\n      servers:\n        - endpoint: \"{address}\"\n          tls: {{insecure: true}}\nslimline: {{shards: 2}}\n"
        );
        std::fs::write(&path, config).expect("a file for the configuration");
        let mut child = Command::new(env!("CARGO_BIN_EXE_slimline"))
            .arg("--config")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        std::thread::spawn(move || lines.for_each(drop)); // so that it never waits for us to read its log
        let deadline = Instant::now() + PATIENCE;
        while Client::try_connect(address).is_none() {
            assert!(Instant::now() < deadline, "never listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_file(path);
        Self { child, address }
    }

    /// Resident memory, in octets.
    fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address nobody listens on at the moment.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// How many connections: what the build is quick enough for, and open files allow.
fn count() -> usize {
    let wanted = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let possible = files.current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let count = wanted.min(possible.saturating_sub(200) * 3 / 4);
    if count < 10_000 {
        println!(
            "{count} connections instead of 10,000: {possible} open files, debug build: {}",
            cfg!(debug_assertions)
        );
    }
    count
}

#[test]
fn idle_connections_cost_little_and_a_newcomer_does_not_notice_them() {
    let node = Program::start();
    // Warm up what is allocated once.
    for _ in 0..20 {
        let mut client = Client::connect(node.address);
        client.link(ConnType::Edge);
    }
    let count = count();
    let before = node.resident();
    let began = Instant::now();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, share) = (node.address, count / 4);
            std::thread::spawn(move || {
                let mut clients: Vec<_> = (0..share).map(|_| Client::connect(address)).collect();
                let connected = Instant::now();
                let links: Vec<_> = clients.iter_mut().map(|client| client.link(ConnType::Edge)).collect();
                (clients, links, connected)
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|thread| thread.join().expect("connected"))
        .collect();
    let negotiated = began.elapsed();
    let connected = clients.iter().map(|(_, _, at)| at.duration_since(began)).max().expect("some");
    let each = node.resident().saturating_sub(before) / count;
    println!(
        "{count} connections: all connected after {connected:?}, all negotiated after {negotiated:?}, {each} octets each"
    );
    assert!(each <= OCTETS_EACH_MAX, "{each} octets each");

    let began = Instant::now();
    let mut newcomer = Client::connect(node.address);
    let (mut bob, mut alice) = (newcomer.link(ConnType::Edge), newcomer.link(ConnType::Edge));
    assert_eq!(newcomer.subscribe(&mut bob, BOB, NameId(1), 1), "");
    newcomer.publish(&mut alice, BOB, NameId(1), 1, b"hello");
    assert_eq!(newcomer.expect_payload(&mut bob), b"hello");
    println!("a newcomer: connected, subscribed and published to in {:?}", began.elapsed());
    // Each of the idle ones still works.
    for (mut clients, mut links, _) in clients {
        for (client, link) in clients.iter_mut().zip(&mut links).step_by(97) {
            newcomer.publish(&mut alice, BOB, NameId(1), 1, b"again");
            assert_eq!(newcomer.expect_payload(&mut bob), b"again");
            assert_eq!(client.subscribe(link, BOB, NameId(2), 1), "");
        }
    }
}

#[test]
fn connections_that_leave_give_their_memory_to_the_next() {
    let node = Program::start();
    let round = || {
        let mut clients: Vec<_> = (0..200).map(|_| Client::connect(node.address)).collect();
        for client in &mut clients {
            let mut link = client.link(ConnType::Edge);
            assert_eq!(client.subscribe(&mut link, BOB, NameId(1), 1), "");
        }
    };
    let rounds = if cfg!(debug_assertions) { 5 } else { 50 };
    (0..rounds).for_each(|_| round()); // tables and queues reach the size that so much coming and going asks for
    let before = node.resident();
    (0..rounds).for_each(|_| round());
    let grown = node.resident().saturating_sub(before);
    println!("{grown} octets more after {} connections", rounds * 200);
    assert!(grown < 2 << 20, "{grown} octets more");
}
