//! What these tests share: the program under test, and processes that end with the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
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
}

/// `slimload` with these arguments, words split at spaces.
pub(crate) fn slimload(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slimload"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs a command to its end; panics when it does not end.
pub(crate) fn run(mut command: Command) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let start = Instant::now();
    while child.try_wait().expect("it can be waited for").is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{command:?} still running after {PATIENCE:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it has ended");
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
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
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
