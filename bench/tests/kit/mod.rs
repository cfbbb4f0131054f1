//! What these tests share: the program under test, and processes that end with the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No command of these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The one measurement of a JSON report on stdout.
    pub(crate) fn measurement(&self) -> serde_json::Value {
        let report: serde_json::Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        report["measurements"][0].clone()
    }

    /// It said one line that holds `complaint`, and nothing else happened.
    pub(crate) fn refused_with(&self, complaint: &str) {
        assert_eq!(self.code, Some(2), "{complaint}: {self:?}");
        // Progress may stand before it, on a machine that takes its time.
        let said = self.stderr.lines().skip_while(|line| !line.starts_with("slimload: "));
        let said: Vec<&str> = said.collect();
        assert!(matches!(said[..], [line] if line.starts_with("slimload: ")), "{complaint}: {self:?}");
        assert!(said[0].contains(complaint), "{complaint}: {self:?}");
        assert!(self.stdout.is_empty(), "{complaint}: {self:?}");
    }
}

/// `slimload` with these arguments, words split at spaces.
pub(crate) fn slimload(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slimload"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs a command to its end; panics when it does not end.
pub(crate) fn run(mut command: Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    finish(child, &command)
}

/// Waits for a child that was started with its outputs piped.
pub(crate) fn finish(mut child: Child, command: &Command) -> Ran {
    // Reports are longer than a pipe is.
    let stdout = child.stdout.take().map(|out| std::thread::spawn(move || std::io::read_to_string(out)));
    let start = Instant::now();
    while child.try_wait().expect("it can be waited for").is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{command:?} still running after {PATIENCE:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stderr, .. } = child.wait_with_output().expect("it has ended");
    let stdout = stdout.map_or_else(String::new, |reader| reader.join().expect("no panic").expect("text"));
    Ran { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Connects `guest` with whoever listens at `target`, until one of them leaves.
pub(crate) fn join(guest: TcpStream, target: SocketAddr) {
    let node = TcpStream::connect(target).expect("somebody listens");
    let (from, to) = (guest.try_clone().expect("a socket"), node.try_clone().expect("a socket"));
    for (mut from, mut to) in [(from, to), (node, guest)] {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to); // whoever leaves may reset
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// A slimline node in this process.
pub(crate) struct Node {
    node: Option<slimline_node::Node>,
    pub(crate) address: SocketAddr,
}

impl Node {
    /// One shard on a free port, everything else small or at its default.
    pub(crate) fn start() -> Self {
        let text = "slimline:\n  shards: 1\n  io:\n    ring_entries: 256\n    recv_buf_count: 16\nservices:\n  slim/0:\n    \
             dataplane:\n      servers:\n        - endpoint: \"127.0.0.1:0\"\n          tls: {insecure: true}\n";
        let config = slimline_config::parse(text, "test", &|_: &str| None).unwrap_or_else(|error| panic!("{error}"));
        let node = slimline_node::Node::start(&config, &config.services[0]).expect("the node starts");
        let address = node.endpoints()[0].parse().expect("an address");
        Self { node: Some(node), address }
    }
}

impl Node {
    /// Answers on a stats socket from now on.
    pub(crate) fn with_stats(self, socket: &std::path::Path) -> StatsNode {
        let listener = slimline_node::stats::StatsSocket::bind(socket).expect("the socket can be bound");
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (self.address, stop.clone());
        let thread = std::thread::spawn(move || {
            let nodes = std::slice::from_ref(self.node.as_ref().expect("taken by drop only"));
            while !stopped.load(Ordering::Relaxed) {
                listener.serve_one(nodes, Duration::from_millis(2));
            }
        });
        StatsNode { address, stop, thread: Some(thread) }
    }
}

/// A node that answers on a stats socket.
pub(crate) struct StatsNode {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for StatsNode {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop(Duration::ZERO);
        }
    }
}

/// A process that ends when this is dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: String,
}

impl Service {
    /// Starts `slimload relay` on a free port and waits until it listens.
    pub(crate) fn relay(engine: &str) -> Self {
        let mut child = slimload(&format!("relay --listen 127.0.0.1:0 --engine {engine}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.split_whitespace().nth(3).unwrap_or_else(|| panic!("{engine}: {line:?}")).to_owned();
        Self { child, address }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in the middle of things.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
