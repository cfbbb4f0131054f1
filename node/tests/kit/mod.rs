//! What tests over real sockets share: a node in this process, and a client that can also misbehave.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::cast_possible_truncation, reason = "numbers written out octet by octet")]

pub mod client;
pub mod octets;

use slimline_node::{Counters, Node};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long anything that should happen may take before a test fails; generous, the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A node in this process, stopped when the test ends.
pub struct TestNode {
    node: Option<Node>,
    pub address: SocketAddr,
}

impl TestNode {
    /// A node with so many shards and everything else at its default.
    pub fn start(shards: u16) -> Self {
        Self::with(shards, "", "")
    }

    /// As [`TestNode::start`], with YAML added to the `slimline` block and to the server entry (both indented by us).
    pub fn with(shards: u16, slimline: &str, server: &str) -> Self {
        Self::with_service(shards, slimline, server, "")
    }

    /// As [`TestNode::with`], with YAML added to the service entry too.
    pub fn with_service(shards: u16, slimline: &str, server: &str, service: &str) -> Self {
        let indent = |text: &str, by: usize| -> String {
            text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
        };
        let text = format!(
            "slimline:\n  shards: {shards}\n  io:\n    ring_entries: 256\n    recv_buf_count: 16\n{}services:\n  slim/0:\n{}    dataplane:\n      servers:\n        - endpoint: \"127.0.0.1:0\"\n          tls: {{insecure: true}}\n{}",
            indent(slimline, 2),
            indent(service, 4),
            indent(server, 10)
        );
        let config =
            slimline_config::parse(&text, "test", &|_: &str| None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let node = Node::start(&config, &config.services[0]).expect("the node starts");
        let address = node.endpoints()[0].parse().expect("an address");
        Self { node: Some(node), address }
    }

    /// The counters of all shards now.
    pub fn counters(&self) -> Counters {
        let mut total = Counters::default();
        for report in self.node().report() {
            total.add(&report.counters);
        }
        total
    }

    /// Waits until the counters satisfy `reached`.
    pub fn wait_for(&self, what: &str, mut reached: impl FnMut(&Counters) -> bool) -> Counters {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.counters();
            if reached(&counters) {
                return counters;
            }
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}; counters {:?}", counters.named());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("running")
    }

    /// Stops the node; whether it drained in time.
    pub fn stop(mut self, timeout: Duration) -> bool {
        self.node.take().expect("running").stop(timeout)
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop(Duration::from_millis(200));
        }
    }
}
