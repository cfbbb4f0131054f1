//! Unmodified SLIM applications (Python, slim-bindings 3.3.8, identity binding enforced) and ours, in every role.
//!
//! Each test starts its own node. `SLIMLINE_TEST_PYTHON` is a Python with slim-bindings; `SLIMLINE_TEST_NODE` is the node:
//! `embedded` (the one in the wheel, default) or the path of a node binary that takes `--config FILE`.
//! Run: `SLIMLINE_TEST_PYTHON=venv/bin/python cargo test -p slimline-session --test interop -- --ignored`

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slimline_session::error::{IdentityError, SessionError};
use slimline_session::identity::jwt::{Algorithm, JwtProvider, JwtVerifier};
use slimline_session::identity::{Binding, Claims, Provider, SharedSecret, SigningKey, Verifier};
use slimline_session::{
    App, ConnectConfig, ConnectError, Credentials, Event, Name, Outcome, ReceiveError, SessionConfig, SessionHandle,
    StoreKey,
};

const SECRET: &str = "my_shared_secret_for_testing_purposes_only";
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Python {
    process: Process,
    stdin: ChildStdin,
    answers: mpsc::Receiver<Value>,
    n: u64,
}

impl Python {
    fn start() -> Self {
        Self::spawn(|_| {})
    }

    fn spawn(prepare: impl FnOnce(&mut Command)) -> Self {
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

    fn ask(&mut self, mut command: Value) -> u64 {
        self.n += 1;
        command["n"] = json!(self.n);
        if std::env::var_os("SHOW").is_some() {
            eprintln!("> {command}");
        }
        writeln!(self.stdin, "{command}").expect("python lives");
        self.n
    }

    /// The answer, an error included.
    #[track_caller]
    fn answer(&mut self, n: u64) -> Value {
        let answer = self
            .answers
            .recv_timeout(Duration::from_secs(60))
            .unwrap_or_else(|error| panic!("python answers: {error}"));
        assert_eq!(answer["of"], n);
        answer
    }

    #[track_caller]
    fn try_do(&mut self, command: Value) -> Value {
        let n = self.ask(command);
        self.answer(n)
    }

    #[track_caller]
    fn run(&mut self, command: Value) -> Value {
        let answer = self.try_do(command.clone());
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    #[track_caller]
    fn text(&mut self, session: &Value) -> String {
        self.run(json!({"do": "receive", "session": session}))["text"].as_str().unwrap().to_owned()
    }

    fn join(node: &Node, name: &str) -> Self {
        let mut python = Self::start();
        python.run(json!({"do": "connect", "node": node.url, "name": name, "secret": SECRET}));
        python
    }
}

struct Node {
    url: String,
    lax: bool,
    process: Option<Process>,
    _python: Option<Python>,
    /// Read by the process at its leisure, so it stays as long as the process does.
    _config: Option<ConfigFile>,
}

/// A file that goes with its owner.
struct ConfigFile(PathBuf);

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

static CONFIGS: AtomicU32 = AtomicU32::new(0);

impl Node {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(&format!("127.0.0.1:{port}"))
    }

    /// The process goes, another takes its place at the same address.
    fn restart(self) -> Self {
        let address = self.url.trim_start_matches("http://").to_owned();
        drop(self);
        Self::start_at(&address)
    }

    fn start_at(address: &str) -> Self {
        let url = format!("http://{address}");
        let binary = std::env::var("SLIMLINE_TEST_NODE").unwrap_or_else(|_| "embedded".into());
        if binary == "embedded" {
            let mut python = Python::start();
            python.run(json!({"do": "serve", "address": address}));
            let mut node = Self { url, lax: true, process: None, _python: Some(python), _config: None };
            node.wait(address);
            return node;
        }
        let number = CONFIGS.fetch_add(1, Ordering::Relaxed);
        let config = std::env::temp_dir().join(format!("slimline-interop-{}-{number}.yaml", std::process::id()));
        let text = format!(
            "tracing:\n  log_level: warn\nruntime:\n  n_cores: 1\nservices:\n  slim/0:\n    dataplane:\n      servers:\n        - endpoint: \"{address}\"\n          tls:\n            insecure: true\n"
        );
        std::fs::write(&config, text).unwrap();
        let show = std::env::var_os("SHOW").is_some();
        let child = Command::new(binary)
            .env_remove("LD_PRELOAD")
            .arg("--config")
            .arg(&config)
            .stdout(if show { Stdio::inherit() } else { Stdio::null() })
            .stderr(if show { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .expect("the node starts");
        let (process, config) = (Some(Process(child)), Some(ConfigFile(config)));
        let mut node = Self { url, lax: false, process, _python: None, _config: config };
        node.wait(address);
        node
    }

    /// Returns when somebody listens there. After a restart that may for a moment be the node before: the kernel takes its
    /// listener down later than its process.
    fn wait(&mut self, address: &str) {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "no node at {}", self.url);
            self.lives();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn lives(&mut self) {
        if let Some(process) = &mut self.process {
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "the node ended: {ended:?}");
        }
    }

    async fn app(&self, name: &str) -> App {
        let config = ConnectConfig::new(&self.url);
        let config = if self.lax { config.lax() } else { config };
        self.app_at(name, config).await
    }

    async fn app_at(&self, name: &str, config: ConnectConfig) -> App {
        App::with_secret(name, SECRET).unwrap().connect(config).await.unwrap()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn kinds(config: fn() -> SessionConfig) -> Vec<SessionConfig> {
    vec![config(), config().without_mls(), config().unreliable(), config().unreliable().without_mls()]
}

fn create(config: &SessionConfig, group: bool, to: &str) -> Value {
    json!({
        "do": "create", "group": group, "to": to, "mls": config.mls,
        "retries": config.reliable.map(|retries| retries.max),
        "interval": config.reliable.map(|retries| retries.interval.as_secs()),
        "metadata": {"k1": "v1"},
    })
}

async fn text(session: &SessionHandle) -> String {
    let message = session.recv_within(SECOND * 10).await.unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn one_to_one_we_initiate() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    for config in kinds(SessionConfig::point_to_point) {
        let waiting = bob.ask(json!({"do": "listen"}));
        let config = config.with_metadata("k1", "v1");
        let session = alice.create_session(config.clone(), &name("acme/ns/bob")).await.unwrap();
        let theirs = bob.answer(waiting);
        assert_eq!(theirs["metadata"]["k1"], "v1", "{theirs}");
        let theirs = theirs["session"].clone();
        for n in 0..20 {
            let publication = session.publish(format!("hello {n}").into_bytes()).await.unwrap();
            assert_eq!(bob.text(&theirs), format!("hello {n}"));
            if config.reliable.is_some() {
                let delivery = publication.delivered().await.unwrap();
                assert_eq!(delivery.recipients.len(), 1);
                assert_eq!(delivery.recipients[0].1, Outcome::Delivered);
            }
            bob.run(json!({"do": "publish", "session": theirs, "text": format!("answer {n}"), "wait": true}));
            assert_eq!(text(&session).await, format!("answer {n}"));
        }
        bob.run(json!({"do": "publish", "session": theirs, "text": "{}", "type": "application/json", "metadata": {"a": "b"}}));
        let message = session.recv_within(SECOND * 5).await.unwrap();
        assert_eq!(message.payload_type, "application/json");
        assert_eq!(message.metadata.get("a").map(String::as_str), Some("b"));
        assert_eq!(message.metadata.len(), 1, "{:?}", message.metadata);
        assert_eq!(message.subject.is_some(), config.mls);
        session.close().await.unwrap();
        let after = bob.try_do(json!({"do": "receive", "session": theirs, "timeout": 5}));
        assert!(after["error"].as_str().unwrap().contains("closed"), "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn one_to_one_they_initiate() {
    let node = Node::start();
    let mut alice = Python::join(&node, "acme/ns/alice");
    let bob = node.app("acme/ns/bob").await;
    for (round, config) in kinds(SessionConfig::point_to_point).into_iter().enumerate() {
        let theirs = alice.run(create(&config, false, "acme/ns/bob"))["session"].clone();
        let session = tokio::time::timeout(PATIENCE, bob.listen()).await.unwrap().unwrap();
        assert_eq!(session.metadata().clone().into_iter().collect::<Vec<_>>(), [("k1".to_owned(), "v1".to_owned())]);
        for n in 0..20 {
            alice.run(json!({"do": "publish", "session": theirs, "text": format!("hello {n}"), "wait": true}));
            assert_eq!(text(&session).await, format!("hello {n}"));
            session.publish(format!("answer {n}").into_bytes()).await.unwrap().delivered().await.unwrap();
            assert_eq!(alice.text(&theirs), format!("answer {n}"));
        }
        if round % 2 == 0 {
            alice.run(json!({"do": "close", "session": theirs}));
            assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Closed);
        } else {
            session.close().await.unwrap();
            let after = alice.try_do(json!({"do": "receive", "session": theirs, "timeout": 10}));
            assert!(after["error"].is_string(), "{after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn group_we_moderate() {
    let node = Node::start();
    for config in kinds(SessionConfig::group) {
        let mut one = Python::join(&node, "acme/ns/one");
        let mut two = Python::join(&node, "acme/ns/two");
        let moderator = node.app("acme/ns/mod").await;
        let session = moderator.create_session(config.clone(), &name("acme/ns/chan")).await.unwrap();
        let mut theirs = Vec::new();
        for (python, service) in [(&mut one, "acme/ns/one"), (&mut two, "acme/ns/two")] {
            let waiting = python.ask(json!({"do": "listen"}));
            session.invite(&name(service)).await.unwrap();
            theirs.push(python.answer(waiting)["session"].clone());
        }
        session.publish(b"Hello group!".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(one.text(&theirs[0]), "Hello group!");
        assert_eq!(two.text(&theirs[1]), "Hello group!");
        one.run(json!({"do": "publish", "session": theirs[0], "text": "from one", "wait": true}));
        assert_eq!(text(&session).await, "from one");
        assert_eq!(two.text(&theirs[1]), "from one");
        // To one alone, both ways.
        two.run(json!({"do": "answer", "session": theirs[1], "text": "for one alone"}));
        assert_eq!(one.text(&theirs[0]), "for one alone");
        one.run(json!({"do": "publish", "session": theirs[0], "text": "again"}));
        let message = session.recv_within(SECOND * 5).await.unwrap();
        two.text(&theirs[1]);
        let alone = session.publish_to(&message.source, b"for you alone".to_vec()).await.unwrap();
        assert_eq!(one.text(&theirs[0]), "for you alone");
        assert!(alone.delivered().await.unwrap().is_complete());
        let listed = one.run(json!({"do": "participants", "session": theirs[0]}));
        assert_eq!(listed["names"].as_array().unwrap().len(), 3, "{listed}");

        session.remove(&name("acme/ns/one")).await.unwrap();
        let after = one.try_do(json!({"do": "receive", "session": theirs[0], "timeout": 5}));
        assert!(after["error"].is_string(), "{after}");
        session.publish(b"without one".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(two.text(&theirs[1]), "without one");
        session.close().await.unwrap();
        let after = two.try_do(json!({"do": "receive", "session": theirs[1], "timeout": 5}));
        assert!(after["error"].as_str().unwrap().contains("closed"), "{after}");
        moderator.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn group_we_participate() {
    let node = Node::start();
    for config in kinds(SessionConfig::group) {
        let mut moderator = Python::join(&node, "acme/ns/mod");
        let mut other = Python::join(&node, "acme/ns/other");
        let us = node.app("acme/ns/us").await;
        let theirs = moderator.run(create(&config, true, "acme/ns/chan"))["session"].clone();
        moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/us"}));
        let session = tokio::time::timeout(PATIENCE, us.listen()).await.unwrap().unwrap();
        let waiting = other.ask(json!({"do": "listen"}));
        moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/other"}));
        let others = other.answer(waiting)["session"].clone();
        moderator.run(json!({"do": "publish", "session": theirs, "text": "Hello group!", "wait": true}));
        assert_eq!(text(&session).await, "Hello group!");
        assert_eq!(other.text(&others), "Hello group!");
        let delivery = session.publish(b"from us".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(delivery.recipients.len(), if config.reliable.is_some() { 2 } else { 0 });
        assert!(delivery.is_complete());
        assert_eq!(moderator.text(&theirs), "from us");
        assert_eq!(other.text(&others), "from us");
        other.run(json!({"do": "publish", "session": others, "text": "from the other", "wait": true}));
        assert_eq!(text(&session).await, "from the other");
        assert_eq!(moderator.text(&theirs), "from the other");
        assert_eq!(session.participants().unwrap().len(), 3);

        if config.mls {
            // Away while nothing changes, and away while somebody comes: back either way.
            session.go_offline().await.unwrap();
            session.rejoin().await.unwrap();
            session.publish(b"back".to_vec()).await.unwrap().delivered().await.unwrap();
            assert_eq!(moderator.text(&theirs), "back");
            session.go_offline().await.unwrap();
            let mut late = Python::join(&node, "acme/ns/late");
            let waiting = late.ask(json!({"do": "listen"}));
            moderator.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/late"}));
            let lates = late.answer(waiting)["session"].clone();
            session.rejoin().await.unwrap();
            let joined = async {
                while session.participants().unwrap().len() < 4 {
                    tokio::time::sleep(SECOND / 10).await;
                }
            };
            tokio::time::timeout(PATIENCE, joined).await.expect("the roster grows to four");
            session.publish(b"back again".to_vec()).await.unwrap().delivered().await.unwrap();
            assert_eq!(late.text(&lates), "back again");
            assert_eq!(moderator.text(&theirs), "back again");
        }
        if config.mls {
            // After a rejoin the Python moderator finishes no further task: its replay check drops the acknowledgement of
            // its own rejoin reply, which has to carry the id of the request. So here we leave, and are not removed.
            session.close().await.unwrap();
            us.shut_down().await;
            continue;
        }
        moderator.run(json!({"do": "remove", "session": theirs, "name": "acme/ns/us"}));
        assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Removed);
        assert_eq!(session.recv().await, Err(ReceiveError::Session(SessionError::Removed)));
        us.shut_down().await;
    }
}

/// A Python member goes away, misses somebody's coming, and is readmitted by our moderator.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_python_member_rejoins_our_group() {
    let node = Node::start();
    let mut one = Python::join(&node, "acme/ns/one");
    let moderator = node.app("acme/ns/mod").await;
    let session = moderator.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
    let waiting = one.ask(json!({"do": "listen"}));
    session.invite(&name("acme/ns/one")).await.unwrap();
    let theirs = one.answer(waiting)["session"].clone();
    let two = node.app("acme/ns/two").await;
    session.invite(&name("acme/ns/two")).await.unwrap();
    let second = two.listen().await.unwrap();
    one.run(json!({"do": "away", "session": theirs}));
    let offline = async { while !matches!(session.event().await, Ok(Event::Offline(_))) {} };
    tokio::time::timeout(PATIENCE, offline).await.expect("seen to go");
    let three = node.app("acme/ns/three").await;
    session.invite(&name("acme/ns/three")).await.unwrap();
    let third = three.listen().await.unwrap();
    one.run(json!({"do": "rejoin", "session": theirs}));
    tokio::time::sleep(SECOND * 2).await;
    session.publish(b"welcome back".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(one.text(&theirs), "welcome back");
    one.run(json!({"do": "publish", "session": theirs, "text": "thank you", "wait": true}));
    for session in [&second, &third] {
        assert_eq!(text(session).await, "welcome back");
        assert_eq!(text(session).await, "thank you");
    }
    assert_eq!(text(&session).await, "thank you");
}

/// A Python peer that is killed is reported: the publish tells who did not get it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_killed_peer_is_reported() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    let waiting = bob.ask(json!({"do": "listen"}));
    let config = SessionConfig::point_to_point().with_retries(SECOND / 2, 2);
    let session = alice.create_session(config, &name("acme/ns/bob")).await.unwrap();
    bob.answer(waiting);
    bob.process.0.kill().unwrap();
    let delivery = session.publish(b"anybody?".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(delivery.recipients[0].1, Outcome::TimedOut);
    assert_eq!(session.publish(b"hello?".to_vec()).await.err(), Some(SessionError::NobodyOnline));
}

/// Our identity, with tokens that look as old as a test wants: leaves end within seconds instead of an hour.
struct Aged {
    inner: SharedSecret,
    age_s: Arc<AtomicU64>,
}

impl Provider for Aged {
    fn subject(&self) -> &str {
        self.inner.subject()
    }
    fn token(&self, now: u64) -> Result<String, IdentityError> {
        self.inner.token(now - self.age_s.load(Ordering::Relaxed))
    }
    fn signing_key(&self) -> Option<&SigningKey> {
        self.inner.signing_key()
    }
}

impl Verifier for Aged {
    fn verify(&self, token: &str, now: u64) -> Result<Claims, IdentityError> {
        self.inner.verify(token, now)
    }
    fn verify_lapsed(&self, token: &str) -> Result<Claims, IdentityError> {
        self.inner.verify_lapsed(token)
    }
}

/// An application whose leaf, in sessions that begin before the age is set to zero, ends in 18 seconds.
async fn aged_app(node: &Node, service: &str) -> (App, Arc<AtomicU64>) {
    let age_s = Arc::new(AtomicU64::new(3582));
    let inner = SharedSecret::new(service, SECRET).unwrap();
    let credentials = Credentials::new(Aged { inner, age_s: age_s.clone() });
    let config = ConnectConfig::new(&node.url);
    let config = if node.lax { config.lax() } else { config };
    (App::with_credentials(name(service), credentials).connect(config).await.unwrap(), age_s)
}

/// The Python side drops everything from a member whose leaf's token has ended. Ours is renewed before, in every role.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn sessions_outlive_the_token() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let (alice, age) = aged_app(&node, "acme/ns/alice").await;

    let waiting = bob.ask(json!({"do": "listen"}));
    let initiated = alice.create_session(SessionConfig::point_to_point(), &name("acme/ns/bob")).await.unwrap();
    let bobs_first = bob.answer(waiting)["session"].clone();

    let bobs_second = bob.run(create(&SessionConfig::point_to_point(), false, "acme/ns/alice"))["session"].clone();
    let responded = tokio::time::timeout(PATIENCE, alice.listen()).await.unwrap().unwrap();

    let moderated = alice.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
    let waiting = bob.ask(json!({"do": "listen"}));
    moderated.invite(&name("acme/ns/bob")).await.unwrap();
    let bobs_third = bob.answer(waiting)["session"].clone();

    let bobs_fourth = bob.run(create(&SessionConfig::group(), true, "acme/ns/chan2"))["session"].clone();
    bob.run(json!({"do": "invite", "session": bobs_fourth, "name": "acme/ns/alice"}));
    let participated = tokio::time::timeout(PATIENCE, alice.listen()).await.unwrap().unwrap();

    age.store(0, Ordering::Relaxed);
    tokio::time::sleep(SECOND * 25).await; // the first leaves have ended by now
    for (ours, theirs) in [
        (&initiated, &bobs_first),
        (&responded, &bobs_second),
        (&moderated, &bobs_third),
        (&participated, &bobs_fourth),
    ] {
        let publication = ours.publish(b"still valid".to_vec()).await.unwrap();
        assert_eq!(bob.text(theirs), "still valid");
        assert!(publication.delivered().await.unwrap().is_complete());
        bob.run(json!({"do": "publish", "session": theirs, "text": "so are you", "wait": true}));
        assert_eq!(text(ours).await, "so are you");
    }
}

/// More than an hour with tokens as they are, for one peer and for a group with one Python member: our leaf is renewed in time,
/// and whoever came first still hears everybody. Both sides have to live faster than the clock on the wall:
/// `faketime -f '+0 x12' TEST_BINARY --ignored one_hour` takes six minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON and faketime"]
async fn one_hour() {
    let begin = std::time::SystemTime::now();
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let mut carol = Python::join(&node, "acme/ns/carol");
    let mut dave = Python::join(&node, "acme/ns/dave");
    let alice = node.app("acme/ns/alice").await;
    let retries = |config: SessionConfig| config.with_retries(SECOND * 20, 5);

    // One to one, begun by us and begun by them.
    let waiting = bob.ask(json!({"do": "listen", "timeout": 600}));
    let config = retries(SessionConfig::point_to_point());
    let to_bob = alice.create_session(config.clone(), &name("acme/ns/bob")).await.unwrap();
    let bobs = bob.answer(waiting)["session"].clone();
    let carols = carol.run(create(&config, false, "acme/ns/alice"))["session"].clone();
    let from_carol = alice.listen().await.unwrap();
    // A group of ours with one Python member, and one member of ours.
    let erin = node.app("acme/ns/erin").await;
    let group = alice.create_session(retries(SessionConfig::group()), &name("acme/ns/chan")).await.unwrap();
    let waiting = dave.ask(json!({"do": "listen", "timeout": 600}));
    group.invite(&name("acme/ns/dave")).await.unwrap();
    let daves = dave.answer(waiting)["session"].clone();
    group.invite(&name("acme/ns/erin")).await.unwrap();
    let erins = erin.listen().await.unwrap();

    let patient = SECOND * 600;
    for round in 0..7 {
        for (session, python, theirs) in
            [(&to_bob, &mut bob, &bobs), (&from_carol, &mut carol, &carols), (&group, &mut dave, &daves)]
        {
            let said = format!("round {round}");
            session.publish(said.clone().into_bytes()).await.unwrap();
            let heard = python.run(json!({"do": "receive", "session": theirs, "timeout": 600}));
            assert_eq!(heard["text"], said.as_str());
            python.run(json!({"do": "publish", "session": theirs, "text": said}));
            let answer = session.recv_within(patient).await.unwrap();
            assert_eq!(answer.payload, said.as_bytes());
        }
        for _ in 0..2 {
            let heard = erins.recv_within(patient).await.unwrap();
            assert_eq!(heard.payload, format!("round {round}").as_bytes());
        }
        tokio::time::sleep(SECOND * 615).await;
    }
    let lived = begin.elapsed().unwrap();
    assert!(lived > SECOND * 4200, "{lived:?} by this clock");
    assert_eq!(group.participants().unwrap().len(), 3);
}

/// Passes everything on, and keeps a copy: what a node, or a wire, gets to see.
struct Tap {
    address: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = node.url.trim_start_matches("http://").to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let onward = TcpStream::connect(&node).unwrap();
                for (mut from, mut to) in [
                    (caller.try_clone().unwrap(), onward.try_clone().unwrap()),
                    (onward.try_clone().unwrap(), caller.try_clone().unwrap()),
                ] {
                    let kept = kept.clone();
                    std::thread::spawn(move || {
                        let mut buffer = vec![0; 65_536];
                        while let Ok(octets @ 1..) = from.read(&mut buffer) {
                            kept.lock().unwrap().extend_from_slice(&buffer[..octets]);
                            if to.write_all(&buffer[..octets]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        Self { address, seen }
    }

    fn saw(&self, text: &str) -> bool {
        self.seen.lock().unwrap().windows(text.len()).any(|octets| octets == text.as_bytes())
    }
}

/// With encryption no word of an application is to be read on the way; without it every one is, which shows that the tap works.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn nothing_readable_at_the_node() {
    let node = Node::start();
    for mls in [true, false] {
        let tap = Tap::before(&node);
        let url = format!("http://{}", tap.address);
        let tapped = Node { url, lax: node.lax, process: None, _python: None, _config: None };
        let mut bob = Python::join(&tapped, "acme/ns/bob");
        let alice = tapped.app("acme/ns/alice").await;
        let config = SessionConfig::group();
        let config = if mls { config } else { config.without_mls() };
        let session = alice.create_session(config, &name("acme/ns/chan")).await.unwrap();
        let waiting = bob.ask(json!({"do": "listen"}));
        session.invite(&name("acme/ns/bob")).await.unwrap();
        let theirs = bob.answer(waiting)["session"].clone();
        let (ours, answer) = ("words that nobody else may read", "an answer as private as that");
        session.publish(ours.as_bytes().to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(bob.text(&theirs), ours);
        bob.run(json!({"do": "publish", "session": theirs, "text": answer, "wait": true}));
        assert_eq!(text(&session).await, answer);
        assert_eq!((tap.saw(ours), tap.saw(answer)), (!mls, !mls));
        assert!(tap.saw("chan"), "names are for nodes to read");
        session.close().await.unwrap();
        alice.shut_down().await;
    }
}

/// Whoever reads late reads everything, in order: they, and we.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn slow_peers() {
    const MESSAGES: usize = 300;
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    let waiting = bob.ask(json!({"do": "listen"}));
    let config = SessionConfig::point_to_point().with_retries(SECOND, 20);
    let session = alice.create_session(config, &name("acme/ns/bob")).await.unwrap();
    let theirs = bob.answer(waiting)["session"].clone();
    for n in 0..MESSAGES {
        session.publish(format!("hello {n}").into_bytes()).await.unwrap();
        bob.run(json!({"do": "publish", "session": theirs, "text": format!("answer {n}")}));
    }
    tokio::time::sleep(SECOND * 5).await;
    for n in 0..MESSAGES {
        assert_eq!(bob.text(&theirs), format!("hello {n}"));
        assert_eq!(text(&session).await, format!("answer {n}"));
    }
    session.close().await.unwrap();
}

/// JWT identities of every kind of key, each side as initiator.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn jwt_identities() {
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef";
    let node = Node::start();
    for (algorithm, spelled, private, public) in [
        (Algorithm::HS256, "HS256", secret, secret),
        (
            Algorithm::RS256,
            "RS256",
            include_str!("../src/identity/testdata/rsa.pem"),
            include_str!("../src/identity/testdata/rsa.pub"),
        ),
        (
            Algorithm::ES256,
            "ES256",
            include_str!("../src/identity/testdata/p256.pem"),
            include_str!("../src/identity/testdata/p256.pub"),
        ),
        (
            Algorithm::EdDSA,
            "ED_DSA",
            include_str!("../src/identity/testdata/ed25519.pem"),
            include_str!("../src/identity/testdata/ed25519.pub"),
        ),
    ] {
        let bobs = format!("bob-{spelled}");
        let mut bob = Python::start();
        bob.run(json!({
            "do": "connect", "node": node.url, "name": format!("acme/ns/{bobs}"),
            "jwt": {"algorithm": spelled, "private": private, "public": public, "subject": bobs},
        }));
        let subject = format!("alice-{spelled}");
        let provider = JwtProvider::new(&subject, "slimline-tests", &["slim"], algorithm, private.as_bytes()).unwrap();
        let verifier = JwtVerifier::new(algorithm, public.as_bytes()).unwrap();
        let verifier = verifier.with_issuer("slimline-tests").with_audience(&["slim"]);
        let credentials =
            Credentials { provider: Arc::new(provider), verifier: Arc::new(verifier), binding: Binding::Enforce };
        let config = ConnectConfig::new(&node.url);
        let config = if node.lax { config.lax() } else { config };
        let service = format!("acme/ns/{subject}");
        let alice = App::with_credentials(name(&service), credentials).connect(config).await.unwrap();

        let waiting = bob.ask(json!({"do": "listen"}));
        let to = name(&format!("acme/ns/{bobs}"));
        let ours = alice.create_session(SessionConfig::point_to_point(), &to).await.unwrap();
        let theirs = bob.answer(waiting)["session"].clone();
        ours.publish(b"hello".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(bob.text(&theirs), "hello", "{spelled}");
        bob.run(json!({"do": "publish", "session": theirs, "text": "hello yourself", "wait": true}));
        let message = ours.recv_within(SECOND * 5).await.unwrap();
        assert_eq!(message.subject.as_deref(), Some(bobs.as_str()));

        let theirs = bob.run(create(&SessionConfig::point_to_point(), false, &service))["session"].clone();
        let ours = tokio::time::timeout(PATIENCE, alice.listen()).await.unwrap().unwrap();
        bob.run(json!({"do": "publish", "session": theirs, "text": "and back", "wait": true}));
        assert_eq!(text(&ours).await, "and back");
    }
}

/// The node goes and comes back in mid-session: both sides find each other again, nothing accepted is lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn the_node_restarts() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    let waiting = bob.ask(json!({"do": "listen"}));
    let config = SessionConfig::point_to_point().with_retries(SECOND, 30);
    let ours = alice.create_session(config, &name("acme/ns/bob")).await.unwrap();
    let theirs = bob.answer(waiting)["session"].clone();
    ours.publish(b"before".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(bob.text(&theirs), "before");
    let mut node = node.restart();
    for n in 0..3 {
        let publication = ours.publish(format!("after {n}").into_bytes()).await.unwrap();
        let delivery = publication.delivered().await.unwrap();
        node.lives();
        if n == 0 && !delivery.is_complete() {
            // The SDK never dials again when the node takes its connection but not its stream, which a restart may do to it.
            // We have come back, and a new application finds us.
            assert!(alice.is_connected());
            let mut carol = Python::join(&node, "acme/ns/carol");
            carol.run(create(&SessionConfig::point_to_point(), false, "acme/ns/alice"));
            tokio::time::timeout(PATIENCE, alice.listen()).await.expect("carol reaches us").unwrap();
            return;
        }
        assert!(delivery.is_complete(), "{delivery:?}");
        assert_eq!(bob.text(&theirs), format!("after {n}"));
        bob.run(json!({"do": "publish", "session": theirs, "text": format!("answer {n}"), "wait": true}));
        assert_eq!(text(&ours).await, format!("answer {n}"));
    }
}

/// Eight members, half of them Python: everybody hears everybody, under each kind of moderator.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_mixed_group_of_eight() {
    let node = Node::start();
    let moderator = node.app("acme/ns/mod").await;
    let config = SessionConfig::group().with_retries(SECOND * 2, 10);
    let session = moderator.create_session(config, &name("acme/ns/chan")).await.unwrap();
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for n in 0..4 {
        let service = format!("acme/ns/py{n}");
        let mut python = Python::join(&node, &service);
        let waiting = python.ask(json!({"do": "listen"}));
        session.invite(&name(&service)).await.unwrap();
        let id = python.answer(waiting)["session"].clone();
        theirs.push((python, id));
        if n < 3 {
            let service = format!("acme/ns/rs{n}");
            let app = node.app(&service).await;
            session.invite(&name(&service)).await.unwrap();
            let session = app.listen().await.unwrap();
            ours.push((app, session));
        }
    }
    assert_eq!(session.participants().unwrap().len(), 8);
    let delivery = session.publish(b"Hello group!".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(delivery.recipients.len(), 7);
    assert!(delivery.is_complete(), "{delivery:?}");
    for (python, id) in &mut theirs {
        assert_eq!(python.text(id), "Hello group!");
    }
    for (_, session) in &ours {
        assert_eq!(text(session).await, "Hello group!");
    }
    let (python, id) = &mut theirs[2];
    python.run(json!({"do": "publish", "session": id, "text": "from Python", "wait": true}));
    ours[1].1.publish(b"from Rust".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(text(&session).await, "from Python");
    assert_eq!(text(&session).await, "from Rust");
    assert_eq!(text(&ours[0].1).await, "from Python");
    let (python, id) = &mut theirs[0];
    assert_eq!(python.text(id), "from Python");
    assert_eq!(python.text(id), "from Rust");
    session.close().await.unwrap();
    for (_, session) in &ours {
        assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Closed);
    }
}

/// Over WebSocket, on the node in the wheel: both sides, both ways.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn over_websocket() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}/");
    let mut python = Python::start();
    python.run(json!({"do": "serve", "address": url}));
    let mut node = Node { url: url.clone(), lax: true, process: None, _python: Some(python), _config: None };
    node.wait(&format!("127.0.0.1:{port}"));
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    let waiting = bob.ask(json!({"do": "listen"}));
    let session = alice.create_session(SessionConfig::point_to_point(), &name("acme/ns/bob")).await.unwrap();
    let theirs = bob.answer(waiting)["session"].clone();
    let large = "x".repeat(300_000);
    for said in ["hello", large.as_str()] {
        session.publish(said.as_bytes().to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(bob.text(&theirs), said);
        bob.run(json!({"do": "publish", "session": theirs, "text": said, "wait": true}));
        assert_eq!(text(&session).await, said);
    }
    session.close().await.unwrap();
    let wrong = ConnectConfig::new(&format!("ws://127.0.0.1:{port}/elsewhere")).lax();
    let error = App::with_secret("acme/ns/carol", SECRET).unwrap().connect(wrong).await.err().unwrap();
    assert_eq!(error, ConnectError::Refused { status: 404 });
}

/// We go and come back out of our store: what the SDK is in with us, as peer, as member and as initiator, goes on at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn we_come_back_from_a_store() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let path = std::env::temp_dir().join(format!("slimline-interop-store-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let path = ConfigFile(path);
    let connect = async || {
        let config = ConnectConfig::new(&node.url);
        let config = if node.lax { config.lax() } else { config };
        let builder =
            App::with_secret("acme/ns/alice", SECRET).unwrap().store(&path.0, StoreKey::new([1; 32])).unwrap();
        builder.connect(config).await.unwrap()
    };
    let mut alice = connect().await;
    let config = SessionConfig::point_to_point().with_retries(SECOND, 10);
    let waiting = bob.ask(json!({"do": "listen"}));
    let ours = alice.create_session(config.clone(), &name("acme/ns/bob")).await.unwrap();
    let mut theirs = vec![bob.answer(waiting)["session"].clone()];
    let waiting = bob.ask(json!({"do": "listen"}));
    let group = SessionConfig::group().with_retries(SECOND, 10);
    let group = alice.create_session(group, &name("acme/ns/chan")).await.unwrap();
    group.invite(&name("acme/ns/bob")).await.unwrap();
    theirs.push(bob.answer(waiting)["session"].clone());
    theirs.push(bob.run(create(&config, false, "acme/ns/alice"))["session"].clone());
    let joined = tokio::time::timeout(PATIENCE, alice.listen()).await.unwrap().unwrap();
    let mut sessions = vec![ours, group, joined];
    for round in 0..3 {
        let ids: Vec<_> = sessions.iter().map(SessionHandle::id).collect();
        for (ours, theirs) in sessions.iter().zip(&theirs) {
            let publication = ours.publish(format!("hello {round}").into_bytes()).await.unwrap();
            assert_eq!(bob.text(theirs), format!("hello {round}"));
            assert!(publication.delivered().await.unwrap().is_complete());
            let said = format!("hello yourself {round}");
            bob.run(json!({"do": "publish", "session": theirs, "text": said, "wait": true}));
            assert_eq!(text(ours).await, said);
        }
        if round == 2 {
            break;
        }
        alice.shut_down().await;
        drop(sessions);
        alice = connect().await;
        sessions = alice.resumed();
        assert_eq!(sessions.len(), 3);
        sessions.sort_by_key(|session| ids.iter().position(|id| *id == session.id()));
    }
    sessions[1].close().await.unwrap();
    let after = bob.try_do(json!({"do": "receive", "session": theirs[1], "timeout": 5}));
    assert!(after["error"].as_str().unwrap().contains("closed"), "{after}");
}
