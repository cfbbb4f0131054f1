//! Our examples as a newcomer runs them: processes on a node, with each other and with Python applications.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;

use serde_json::json;
use slimline_session::SessionConfig;

use crate::kit::{PATIENCE, Process, Python, SECRET, create};
use crate::nodes::{Node, TempFile};

/// An example that runs.
struct Program {
    process: Process,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    heard: Vec<String>,
}

impl Program {
    /// Builds what is not built; the examples are those of this checkout.
    fn start(node: &Node, example: &str, arguments: &[&str]) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--examples",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ]);
        assert!(cargo.arg("--target-dir").arg(target).status().unwrap().success(), "the examples do not build");
        let mut command = Command::new(target.join("debug/examples").join(example));
        command.args(arguments).args(["--node", &node.url]).env("SLIM_SHARED_SECRET", SECRET);
        if !node.config().require_header_mac {
            command.env("SLIM_LAX", "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the example starts");
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { input: child.stdin.take(), process: Process(child), lines, heard: Vec::new() }
    }

    /// Waits for a line with these words.
    #[track_caller]
    fn says(&mut self, words: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => self.heard.push(line),
                Err(error) => panic!("no {words:?}: {error}; heard {:?}", self.heard),
            }
        }
    }

    fn type_in(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// As Ctrl-C does.
    fn interrupt(&self) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Ends its input and waits until it has ended well.
    #[track_caller]
    fn ends(mut self) {
        self.input = None;
        self.ends_by_itself();
    }

    /// Has ended well, though more might be typed.
    #[track_caller]
    fn ends_by_itself(mut self) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.heard.push(line);
        }
        let status = self.process.0.wait().unwrap();
        assert!(status.success(), "{status}: {:?}", self.heard);
    }
}

#[test]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
fn echo() {
    let node = Node::start();
    let mut server = Program::start(&node, "echo", &["serve"]);
    server.says("answer whoever calls");
    let mut caller = Program::start(&node, "echo", &["say", "hello", "there"]);
    caller.says("says \"hello there\"");
    caller.says("Delivered");
    caller.ends();
    server.says("answered 1 messages");

    let mut python = Python::join(&node, "acme/ns/alice");
    for config in [SessionConfig::point_to_point(), SessionConfig::point_to_point().without_mls()] {
        let session = python.run(create(&config, false, "slimline/demo/echo"))["session"].clone();
        python.say(&session, "from Python");
        assert_eq!(python.text(&session), "from Python");
        python.run(json!({"do": "close", "session": session}));
        server.says("answered 1 messages");
    }

    // Whoever is in a conversation hears at once that the server was stopped.
    let session = python.run(create(&SessionConfig::point_to_point(), false, "slimline/demo/echo"))["session"].clone();
    python.say(&session, "before");
    assert_eq!(python.text(&session), "before");
    server.interrupt();
    let told = python.try_do(json!({"do": "receive", "session": session, "timeout": 20}));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("participant disconnected")), "{told}");
    server.ends_by_itself();
}

#[test]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
fn request_reply() {
    let node = Node::start();
    let mut server = Program::start(&node, "request_reply", &["serve"]);
    server.says("square numbers");
    let mut asker = Program::start(&node, "request_reply", &["ask", "6", "7", "eight"]);
    asker.says("6 squared is 36");
    asker.says("7 squared is 49");
    asker.says("eight squared is not a number");
    asker.ends();
    let nobody = Node::start();
    let mut asker = Program::start(&nobody, "request_reply", &["ask", "6"]);
    assert!(!asker.process.0.wait().unwrap().success(), "nobody to ask");
}

#[test]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
fn group_chat() {
    let node = Node::start();
    let mut anna = Program::start(&node, "group_chat", &["join", "anna"]);
    let mut bert = Program::start(&node, "group_chat", &["join", "bert"]);
    let mut carl = Python::join(&node, "slimline/demo/carl");
    let waiting = carl.listen();
    anna.says("wait to be invited");
    bert.says("wait to be invited");
    let mut host = Program::start(&node, "group_chat", &["host", "anna", "bert"]);
    host.says("bert is here");
    host.type_in("/invite carl");
    host.says("carl is here");
    let theirs = carl.answer(waiting)["session"].clone();
    anna.says("Hello group!");
    bert.says("Hello group!");
    anna.type_in("hello everybody");
    host.says("hello everybody");
    bert.says("hello everybody");
    assert_eq!(carl.text(&theirs), "hello everybody");
    carl.say(&theirs, "and from Python");
    for program in [&mut host, &mut anna, &mut bert] {
        program.says("and from Python");
    }
    anna.ends();
    bert.says("(anna left)");
    host.says("(anna left)");
    host.interrupt();
    host.ends_by_itself();
    bert.ends_by_itself();
    carl.sees_the_end(&theirs);
}

#[test]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
fn file_drop() {
    let node = Node::start();
    let (inbox, outbox) = (TempFile::named("inbox"), TempFile::named("outbox"));
    fs::create_dir(&outbox.0).unwrap();
    let mut state = 1_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(3_000_001)
    .collect();
    let file = outbox.0.join("large.bin");
    fs::write(&file, &content).unwrap();
    let mut receiver = Program::start(&node, "file_drop", &["receive", inbox.0.to_str().unwrap()]);
    receiver.says("put what I get into");
    let mut sender = Program::start(&node, "file_drop", &["send", file.to_str().unwrap()]);
    sender.says("3000001 octets arrived whole");
    sender.ends();
    receiver.says("arrived whole");
    assert!(fs::read(inbox.0.join("large.bin")).unwrap() == content, "what was sent");
}

/// A moderator creates a channel, invites `participant1`, publishes "Hello group!", receives its answer, and both leave.
#[test]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
fn hello_group() {
    let node = Node::start();
    // Both are ours.
    let mut participant = Program::start(&node, "hello_group", &["join", "participant1"]);
    participant.says("wait to be invited");
    let mut moderator = Program::start(&node, "hello_group", &["moderate", "participant1"]);
    moderator.says("in the channel: moderator, participant1");
    participant.says("moderator: Hello group!");
    moderator.says("participant1: Hello, this is participant1!");
    participant.says("session closed");
    moderator.ends();
    participant.ends();

    // A Python participant.
    let mut python = Python::join(&node, "slimline/demo/participant2");
    let waiting = python.listen();
    let mut moderator = Program::start(&node, "hello_group", &["moderate", "participant2"]);
    let theirs = python.answer(waiting)["session"].clone();
    assert_eq!(python.text(&theirs), "Hello group!");
    python.say(&theirs, "Hello from Python!");
    moderator.says("participant2: Hello from Python!");
    moderator.ends();
    python.sees_the_end(&theirs);

    // A Python moderator.
    let mut participant = Program::start(&node, "hello_group", &["join", "participant3"]);
    participant.says("wait to be invited");
    let theirs = python.run(create(&SessionConfig::group(), true, "slimline/demo/channel"))["session"].clone();
    python.run(json!({"do": "invite", "session": theirs, "name": "slimline/demo/participant3"}));
    python.say(&theirs, "Hello group!");
    participant.says("participant2: Hello group!");
    assert_eq!(python.text(&theirs), "Hello, this is participant3!");
    participant.says("delivered: true");
    python.run(json!({"do": "close", "session": theirs}));
    participant.says("session closed");
    participant.ends();
}

/// A chat that nobody hears goes on.
#[test]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
fn group_chat_alone() {
    let node = Node::start();
    let mut host = Program::start(&node, "group_chat", &["host", "nobody"]);
    host.says("slimline/demo/nobody did not answer");
    host.says("nobody is here to read that");
    let mut anna = Program::start(&node, "group_chat", &["join", "anna"]);
    anna.says("wait to be invited");
    host.type_in("/invite anna");
    host.says("anna is here");
    host.type_in("now somebody is");
    anna.says("now somebody is");
    host.ends();
    anna.ends_by_itself();
}
