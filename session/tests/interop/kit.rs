//! What every test needs: a Python application on strings, and a few words.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slimline_session::{App, Name, SessionConfig, SessionHandle};

use crate::nodes::Node;

pub(crate) const SECRET: &str = "my_shared_secret_for_testing_purposes_only";
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Python {
    pub(crate) process: Process,
    pub(crate) stdin: ChildStdin,
    pub(crate) answers: mpsc::Receiver<Value>,
    pub(crate) n: u64,
}

impl Python {
    pub(crate) fn start() -> Self {
        Self::spawn(|_| {})
    }

    pub(crate) fn spawn(prepare: impl FnOnce(&mut Command)) -> Self {
        let python = std::env::var("SLIMLINE_TEST_PYTHON").expect("SLIMLINE_TEST_PYTHON: a Python with slim-bindings");
        let mut command = Command::new(python);
        prepare(&mut command);
        let mut child = command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/peer.py"))
            .env("SLIM_IDENTITY_BINDING", "enforce")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("SHOW").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .expect("python starts");
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str::<Value>(&line) {
                    let _ = sender.send(value);
                } else if std::env::var_os("SHOW").is_some() {
                    eprintln!("{line}");
                }
            }
        });
        let python = Self { process: Process(child), stdin, answers, n: 0 };
        let ready = python.answers.recv_timeout(PATIENCE).expect("python is ready");
        assert_eq!(ready["ready"], "3.4.6", "the release these tests are about");
        python
    }

    pub(crate) fn ask(&mut self, mut command: Value) -> u64 {
        self.n += 1;
        command["n"] = json!(self.n);
        if std::env::var_os("SHOW").is_some() {
            eprintln!("> {command}");
        }
        writeln!(self.stdin, "{command}").expect("python lives");
        self.n
    }

    /// Under faketime a wait for a moment of the clock is as long as that clock is ahead: so it is asked now and then instead.
    #[track_caller]
    fn next_answer(&mut self) -> Value {
        let hurried = std::env::var("LD_PRELOAD").is_ok_and(|libraries| libraries.contains("faketime"));
        if !hurried {
            let answer = self.answers.recv_timeout(Duration::from_secs(180));
            return answer.unwrap_or_else(|error| panic!("python answers: {error}"));
        }
        let end = Instant::now() + Duration::from_secs(2_400);
        loop {
            match self.answers.try_recv() {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < end, "python answers: {error}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The answer, an error included.
    #[track_caller]
    pub(crate) fn answer(&mut self, n: u64) -> Value {
        let answer = self.next_answer();
        assert_eq!(answer["of"], n);
        answer
    }

    #[track_caller]
    pub(crate) fn try_do(&mut self, command: Value) -> Value {
        let n = self.ask(command);
        self.answer(n)
    }

    #[track_caller]
    pub(crate) fn run(&mut self, command: Value) -> Value {
        let answer = self.try_do(command.clone());
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    #[track_caller]
    pub(crate) fn text(&mut self, session: &Value) -> String {
        self.run(json!({"do": "receive", "session": session}))["text"].as_str().unwrap().to_owned()
    }

    pub(crate) fn join(node: &Node, name: &str) -> Self {
        let mut python = Self::start();
        python.connect(node, name, json!({"secret": SECRET}));
        python
    }

    /// With any identity.
    pub(crate) fn connect(&mut self, node: &Node, name: &str, identity: Value) {
        let mut command = json!({"do": "connect", "node": node.url, "tls": node.tls_files(), "name": name});
        command.as_object_mut().unwrap().extend(identity.as_object().unwrap().clone());
        self.run(command);
    }

    /// Waits in the background for a session; [`Python::answer`] tells which.
    pub(crate) fn listen(&mut self) -> u64 {
        self.ask(json!({"do": "listen", "timeout": 60}))
    }

    /// Publishes and waits until it is acknowledged.
    #[track_caller]
    pub(crate) fn say(&mut self, session: &Value, text: &str) {
        self.run(json!({"do": "publish", "session": session, "text": text, "wait": true}));
    }

    /// The session is over for this side, and it says so.
    #[track_caller]
    pub(crate) fn sees_the_end(&mut self, session: &Value) {
        let after = self.try_do(json!({"do": "receive", "session": session, "timeout": 20}));
        assert!(after["error"].as_str().is_some_and(|error| error.contains("closed")), "{after}");
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn kinds(config: fn() -> SessionConfig) -> Vec<SessionConfig> {
    vec![config(), config().without_mls(), config().unreliable(), config().unreliable().without_mls()]
}

pub(crate) fn create(config: &SessionConfig, group: bool, to: &str) -> Value {
    json!({
        "do": "create", "group": group, "to": to, "mls": config.mls,
        "retries": config.reliable.map(|retries| retries.max),
        "interval": config.reliable.map(|retries| retries.interval.as_secs()),
        "metadata": {"k1": "v1"},
    })
}

pub(crate) async fn text(session: &SessionHandle) -> String {
    let message = session.recv_within(SECOND * 10).await.unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// The session that somebody else began with us.
pub(crate) async fn begun(app: &App) -> SessionHandle {
    tokio::time::timeout(PATIENCE, app.listen()).await.expect("a session in time").unwrap()
}
