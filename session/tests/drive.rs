//! Applications on real sockets: connected, cut off, connected again, refused.

#[path = "common/authority.rs"]
mod authority;
#[path = "common/node.rs"]
mod node;

use std::time::{Duration, Instant};

use std::sync::Arc;

use authority::Authority;
use node::TestNode;
use slimline_session::error::SessionError;
use slimline_session::{
    App, ConnectConfig, ConnectError, Keepalive, Outcome, ReceiveError, SessionConfig, SessionHandle, StoreError,
    StoreKey,
};
use tokio::net::TcpListener;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

async fn app(node: &TestNode, name: &str) -> App {
    App::with_secret(name, SECRET).unwrap().connect(ConnectConfig::new(&node.url())).await.unwrap()
}

async fn pair(node: &TestNode) -> (App, App, SessionHandle, SessionHandle) {
    let (alice, bob) = (app(node, "acme/ns/alice").await, app(node, "acme/ns/bob").await);
    let ours = alice.create_session(SessionConfig::point_to_point(), &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let theirs = tokio::time::timeout(PATIENCE, bob.listen()).await.unwrap().unwrap();
    (alice, bob, ours, theirs)
}

async fn text(session: &SessionHandle) -> String {
    let message = session.recv_within(PATIENCE).await.unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn question_and_answer() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob, ours, theirs) = pair(&node).await;
    assert_eq!((ours.is_initiator(), theirs.is_initiator()), (true, false));
    for n in 0..50 {
        let publication = ours.publish(format!("question {n}").into_bytes()).await.unwrap();
        assert_eq!(text(&theirs).await, format!("question {n}"));
        theirs.publish(format!("answer {n}").into_bytes()).await.unwrap();
        assert_eq!(text(&ours).await, format!("answer {n}"));
        assert!(publication.delivered().await.unwrap().is_complete());
    }
    assert_eq!(ours.recv_within(Duration::from_millis(50)).await, Err(ReceiveError::TimedOut));
    assert_eq!(node.bad_macs(), 0);
    assert!(!node.published().iter().any(|octets| octets.windows(8).any(|window| window == b"question")));
    ours.close().await.unwrap();
    assert_eq!(theirs.closed().await, SessionError::Closed);
    assert_eq!(theirs.recv().await, Err(ReceiveError::Session(SessionError::Closed)));
    assert_eq!(ours.publish(vec![1]).await.err(), Some(SessionError::Closed));
    alice.shut_down().await;
    bob.shut_down().await;
}

/// More than the windows hold, to a reader that starts late: the writer waits, nothing is lost or out of order.
#[tokio::test(flavor = "multi_thread")]
async fn pressure_comes_back_to_the_publisher() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await);
    // Whoever does not read for longer than the retries last counts as gone: here it may take a minute.
    let config = SessionConfig::point_to_point().with_retries(Duration::from_secs(1), 60);
    let ours = alice.create_session(config, &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let theirs = bob.listen().await.unwrap();
    let writer = tokio::spawn(async move {
        for n in 0..3000_u32 {
            ours.publish(n.to_be_bytes().to_vec()).await.unwrap();
        }
        ours
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!writer.is_finished(), "no window holds three thousand messages");
    for n in 0..3000_u32 {
        let message = theirs.recv_within(PATIENCE).await.unwrap();
        assert_eq!(message.payload[..], n.to_be_bytes());
    }
    drop(writer.await.unwrap());
}

/// The node goes and comes back in mid-session: names are subscribed again under their ids, the session goes on.
#[tokio::test]
async fn the_node_restarts() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob, ours, theirs) = pair(&node).await;
    ours.publish(b"before".to_vec()).await.unwrap();
    assert_eq!(text(&theirs).await, "before");
    let mut subscribed = node.subscribes();
    let address = node.stop().await.to_string();
    let lost = async {
        while alice.is_connected() || bob.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.expect("the loss is seen");
    let publication = ours.publish(b"meanwhile".to_vec()).await.unwrap();
    let node = TestNode::start(&address).await;
    assert_eq!(text(&theirs).await, "meanwhile");
    assert!(publication.delivered().await.unwrap().is_complete());
    theirs.publish(b"after".to_vec()).await.unwrap();
    assert_eq!(text(&ours).await, "after");
    let mut again = node.subscribes();
    subscribed.sort_unstable();
    again.sort_unstable();
    again.dedup();
    assert_eq!(subscribed, again, "the same ids as before");
}

#[tokio::test]
async fn several_sessions_over_one_connection() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await);
    let mut pairs = Vec::new();
    for n in 0..5 {
        let config = SessionConfig::point_to_point().with_metadata("number", &n.to_string());
        let ours = alice.create_session(config, &"acme/ns/bob".parse().unwrap()).await.unwrap();
        let theirs = bob.listen().await.unwrap();
        assert_eq!(theirs.metadata()["number"], n.to_string());
        pairs.push((ours, theirs));
    }
    for (n, (ours, _)) in pairs.iter().enumerate() {
        ours.publish(n.to_string().into_bytes()).await.unwrap();
    }
    for (n, (_, theirs)) in pairs.iter().enumerate() {
        assert_eq!(text(theirs).await, n.to_string());
    }
    // A handle that is dropped closes its session, and no other.
    let (first, theirs) = pairs.remove(0);
    drop(first);
    assert_eq!(tokio::time::timeout(PATIENCE, theirs.closed()).await.unwrap(), SessionError::Closed);
    pairs[0].0.publish(b"others live".to_vec()).await.unwrap();
    assert_eq!(text(&pairs[0].1).await, "others live");
}

/// Two groups with the same members, and one of them alone in a third: each hears its own.
#[tokio::test]
async fn several_groups_over_one_connection() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await);
    let mut groups = Vec::new();
    for channel in ["acme/ns/one", "acme/ns/two"] {
        let ours = alice.create_session(SessionConfig::group(), &channel.parse().unwrap()).await.unwrap();
        ours.invite(&"acme/ns/bob".parse().unwrap()).await.unwrap();
        let theirs = bob.listen().await.unwrap();
        assert_eq!(theirs.destination().unwrap().to_string(), channel);
        groups.push((ours, theirs));
    }
    // The same channel name under another moderator is another channel.
    let theirs = bob.create_session(SessionConfig::group(), &"acme/ns/one".parse().unwrap()).await.unwrap();
    theirs.invite(&"acme/ns/alice".parse().unwrap()).await.unwrap();
    groups.push((theirs, alice.listen().await.unwrap()));
    assert_ne!(groups[0].0.destination(), groups[2].0.destination());
    for (n, (ours, theirs)) in groups.iter().enumerate() {
        for (from, said) in [(ours, format!("{n} ours")), (theirs, format!("{n} theirs"))] {
            assert!(from.publish(said.into_bytes()).await.unwrap().delivered().await.unwrap().is_complete());
        }
    }
    for (n, (ours, theirs)) in groups.iter().enumerate() {
        assert_eq!((text(ours).await, text(theirs).await), (format!("{n} theirs"), format!("{n} ours")));
    }
    groups[0].0.close().await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, groups[0].1.closed()).await.unwrap(), SessionError::Closed);
    for (ours, theirs) in &groups[1..] {
        ours.publish(b"others live".to_vec()).await.unwrap();
        assert_eq!(text(theirs).await, "others live");
        assert_eq!(theirs.recv_within(Duration::from_millis(20)).await, Err(ReceiveError::TimedOut), "nothing more");
    }
}

/// The same over a Unix socket, which hands on to the node.
#[tokio::test]
async fn over_a_unix_socket() {
    let node = TestNode::start("127.0.0.1:0").await;
    let path = std::env::temp_dir().join(format!("slimline-drive-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let (listener, address) = (tokio::net::UnixListener::bind(&path).unwrap(), node.address);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(address).await.unwrap();
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    let alice = App::with_secret("acme/ns/alice", SECRET).unwrap();
    let alice = alice.connect(ConnectConfig::new(&format!("unix://{}", path.display()))).await.unwrap();
    let bob = app(&node, "acme/ns/bob").await;
    let ours = alice.create_session(SessionConfig::point_to_point(), &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let theirs = bob.listen().await.unwrap();
    assert!(ours.publish(b"hello".to_vec()).await.unwrap().delivered().await.unwrap().is_complete());
    assert_eq!(text(&theirs).await, "hello");
    ours.close().await.unwrap();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let connect = |endpoint: String| async move {
        App::with_secret("a/b/c", SECRET).unwrap().connect(ConnectConfig::new(&endpoint)).await.err().unwrap()
    };
    assert_eq!(connect("ftp://x:1".into()).await, ConnectError::Endpoint("ftp://x:1".into()));
    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(connect(format!("http://{free}")).await, ConnectError::Unreachable { .. }));
    // Somebody listens who does not speak.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", mute.local_addr().unwrap());
    let mut config = ConnectConfig::new(&endpoint);
    config.step_timeout = Duration::from_millis(200);
    let started = Instant::now();
    let error = App::with_secret("a/b/c", SECRET).unwrap().connect(config).await.err().unwrap();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(matches!(App::with_secret("a/b", SECRET).err().unwrap(), ConnectError::Name(_)));
    assert!(App::with_secret("a/b/c", "short").err().unwrap().to_string().contains("at least 32"));

    let node = TestNode::start("127.0.0.1:0").await;
    let alice = app(&node, "acme/ns/alice").await;
    let config = SessionConfig::point_to_point().with_retries(Duration::from_millis(50), 1);
    let refused = alice.create_session(config, &"acme/ns/nobody".parse().unwrap()).await.err().unwrap();
    assert!(refused.to_string().contains("failed to add participant to session"), "{refused}");
    // Another secret: the invited one does not even answer.
    let bob = App::with_secret("acme/ns/bob", "another secret of at least 32 octets").unwrap();
    let _bob = bob.connect(ConnectConfig::new(&node.url())).await.unwrap();
    let config = SessionConfig::point_to_point().with_retries(Duration::from_millis(50), 1);
    assert!(alice.create_session(config, &"acme/ns/bob".parse().unwrap()).await.is_err());
}

/// How somebody of that authority connects.
fn client(authority: &Authority, endpoint: &str, name: &str) -> ConnectConfig {
    let (ours, key) = authority.issue(name, None);
    let mut config = ConnectConfig::new(endpoint);
    config.tls.authorities_pem = Some(authority.pem.clone().into_bytes());
    config.tls.client_pem = Some((ours.pem().into_bytes(), key.serialize_pem().into_bytes()));
    config
}

/// TLS and mutual TLS under a private authority; whoever is not what it should be is refused.
#[tokio::test]
async fn secured() {
    let authority = Authority::new();
    let node = TestNode::start_with("127.0.0.1:0", Some(authority.for_members())).await;
    let config = client(&authority, &format!("https://localhost:{}", node.address.port()), "alice");
    let connect =
        |config: ConnectConfig| async move { App::with_secret("acme/ns/alice", SECRET).unwrap().connect(config).await };
    let alice = connect(config.clone()).await.unwrap();
    assert!(alice.is_connected());

    let mut wrong = config.clone();
    wrong.tls.server_name = Some("elsewhere".into());
    assert!(matches!(connect(wrong).await.err().unwrap(), ConnectError::Tls(_)));
    let mut wrong = config.clone();
    wrong.tls.client_pem = None;
    assert!(connect(wrong).await.is_err(), "the node asks for a certificate");
    let mut wrong = config.clone();
    wrong.tls.authorities_pem = Some(Authority::new().pem.into_bytes());
    assert!(matches!(connect(wrong).await.err().unwrap(), ConnectError::Tls(_)));
    let mut wrong = config;
    wrong.tls.authorities_pem = Some(b"nonsense".to_vec());
    assert!(matches!(connect(wrong).await.err().unwrap(), ConnectError::Tls(_)));
}

/// A WebSocket over mutual TLS: both ways, and refused as over HTTP/2.
#[tokio::test]
async fn secured_websocket() {
    let authority = Authority::new();
    let node = TestNode::start_web("127.0.0.1:0", Some(authority.for_members())).await;
    let endpoint = format!("wss://localhost:{}", node.address.port());
    let connect = |name: &'static str, config: ConnectConfig| async move {
        App::with_secret(name, SECRET).unwrap().connect(config).await
    };
    let alice = connect("acme/ns/alice", client(&authority, &endpoint, "alice")).await.unwrap();
    let bob = connect("acme/ns/bob", client(&authority, &endpoint, "bob")).await.unwrap();
    let ours = alice.create_session(SessionConfig::point_to_point(), &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let theirs = tokio::time::timeout(PATIENCE, bob.listen()).await.unwrap().unwrap();
    let large = "x".repeat(300_000);
    for said in ["hello", large.as_str()] {
        assert!(ours.publish(said.as_bytes().to_vec()).await.unwrap().delivered().await.unwrap().is_complete());
        assert_eq!(text(&theirs).await, said);
        theirs.publish(said.as_bytes().to_vec()).await.unwrap();
        assert_eq!(text(&ours).await, said);
    }
    assert_eq!(node.bad_macs(), 0);
    ours.close().await.unwrap();

    let mut wrong = client(&authority, &endpoint, "alice");
    wrong.tls.authorities_pem = Some(Authority::new().pem.into_bytes());
    assert!(matches!(connect("acme/ns/carol", wrong).await.err().unwrap(), ConnectError::Tls(_)));
    let mut wrong = client(&authority, &endpoint, "alice");
    wrong.tls.client_pem = None;
    assert!(connect("acme/ns/carol", wrong).await.is_err(), "the node asks for a certificate");
    let plain = ConnectConfig::new(&endpoint.replace("wss", "ws"));
    assert!(connect("acme/ns/carol", plain).await.is_err(), "the node speaks TLS only");
}

/// An application goes and comes back out of its store: both its sessions, moderated and joined, go on with the same peers.
#[tokio::test]
async fn back_from_a_store() {
    let node = TestNode::start("127.0.0.1:0").await;
    let path = std::env::temp_dir().join(format!("slimline-drive-store-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let kept = || App::with_secret("acme/ns/alice", SECRET).unwrap().store(&path, StoreKey::new([3; 32]));
    let alice = kept().unwrap().connect(ConnectConfig::new(&node.url())).await.unwrap();
    let bob = app(&node, "acme/ns/bob").await;
    let retries = |config: SessionConfig| config.with_retries(Duration::from_millis(200), 50);
    let bobs_name = "acme/ns/bob".parse().unwrap();
    let moderated =
        alice.create_session(retries(SessionConfig::group()), &"acme/ns/chan".parse().unwrap()).await.unwrap();
    moderated.invite(&bobs_name).await.unwrap();
    let bobs_group = bob.listen().await.unwrap();
    let alices_name = "acme/ns/alice".parse().unwrap();
    let bobs_pair = bob.create_session(retries(SessionConfig::point_to_point()), &alices_name).await.unwrap();
    let joined = alice.listen().await.unwrap();
    for (from, to) in
        [(&moderated, &bobs_group), (&bobs_group, &moderated), (&joined, &bobs_pair), (&bobs_pair, &joined)]
    {
        from.publish(b"before".to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(text(to).await, "before");
    }
    bobs_pair.publish(b"acknowledged, not read".to_vec()).await.unwrap().delivered().await.unwrap();
    let full_name = alice.name();
    let in_use = kept().err().unwrap();
    assert!(matches!(in_use, ConnectError::Store(StoreError::InUse { .. })), "{in_use}");
    alice.shut_down().await;
    assert_eq!(joined.publish(vec![1]).await.err(), Some(SessionError::Closed));
    drop((moderated, joined));
    let waiting = bobs_pair.publish(b"meanwhile".to_vec()).await.unwrap();

    let alice = kept().unwrap().connect(ConnectConfig::new(&node.url())).await.unwrap();
    assert_eq!(alice.name(), full_name, "the same instance");
    let resumed = alice.resumed();
    assert_eq!(resumed.len(), 2);
    assert!(alice.resumed().is_empty(), "given once");
    let (moderated, joined): (Vec<_>, Vec<_>) = resumed.into_iter().partition(|session| session.is_initiator());
    let (moderated, joined) = (&moderated[0], &joined[0]);
    assert_eq!(text(joined).await, "acknowledged, not read");
    assert_eq!(text(joined).await, "meanwhile");
    assert!(waiting.delivered().await.unwrap().is_complete());
    for (from, to) in [(moderated, &bobs_group), (&bobs_group, moderated), (joined, &bobs_pair), (&bobs_pair, joined)] {
        assert!(from.publish(b"after".to_vec()).await.unwrap().delivered().await.unwrap().is_complete());
        assert_eq!(text(to).await, "after");
    }
    // Still a moderator: it brings somebody in.
    let carol = app(&node, "acme/ns/carol").await;
    moderated.invite(&"acme/ns/carol".parse().unwrap()).await.unwrap();
    let carols = carol.listen().await.unwrap();
    moderated.publish(b"all".to_vec()).await.unwrap();
    assert_eq!((text(&carols).await, text(&bobs_group).await), ("all".to_owned(), "all".to_owned()));
    alice.shut_down().await;

    let wrong = App::with_secret("acme/ns/alice", SECRET).unwrap().store(&path, StoreKey::new([4; 32])).err().unwrap();
    assert!(matches!(wrong, ConnectError::Store(StoreError::WrongKey { .. })), "{wrong}");
    let wrong = App::with_secret("acme/ns/eve", SECRET).unwrap().store(&path, StoreKey::new([3; 32])).err().unwrap();
    assert!(matches!(wrong, ConnectError::Store(StoreError::OtherIdentity { .. })), "{wrong}");
    std::fs::remove_file(path).unwrap();
}

/// What a path does with octets.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    Open,
    /// Swallows everything.
    Silent,
    /// Takes nothing from the application.
    Deaf,
}

/// A path to the node.
async fn path_to(node: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::sync::watch::Sender<Path>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (path, seen) = tokio::sync::watch::channel(Path::Open);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = tokio::net::TcpStream::connect(node).await else { continue };
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
            let (mut there, back) = (seen.clone(), seen.clone());
            tokio::spawn(async move {
                let mut octets = [0; 4096];
                loop {
                    let _ = there.wait_for(|path| *path != Path::Deaf).await;
                    let Ok(n @ 1..) = near_in.read(&mut octets).await else { return };
                    if *there.borrow() != Path::Silent && far_out.write_all(&octets[..n]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                let mut octets = [0; 4096];
                while let Ok(n @ 1..) = far_in.read(&mut octets).await {
                    if *back.borrow() != Path::Silent && near_out.write_all(&octets[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, path)
}

async fn connected(app: &App, wanted: bool) -> bool {
    let changed = async {
        while app.is_connected() != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), changed).await.is_ok()
}

/// A path that swallows everything is noticed by a ping without answer, and left for a new connection.
#[tokio::test]
async fn a_silent_path_is_noticed() {
    noticed("http", TestNode::start("127.0.0.1:0").await).await;
}

/// Likewise over a WebSocket.
#[tokio::test]
async fn a_silent_websocket_is_noticed() {
    noticed("ws", TestNode::start_web("127.0.0.1:0", None).await).await;
}

/// A WebSocket that takes no more octets, with more to be written than it holds: the ping is stuck behind them.
#[tokio::test]
async fn a_stuck_websocket_is_noticed() {
    let node = TestNode::start_web("127.0.0.1:0", None).await;
    let (path, deaf) = path_to(node.address).await;
    let mut config = ConnectConfig::new(&format!("ws://{path}"));
    let (http2, timeout) = (Duration::from_millis(300), Duration::from_millis(300));
    config.keepalive = Some(Keepalive { http2, timeout, ..Keepalive::default() });
    let alice = App::with_secret("acme/ns/alice", SECRET).unwrap().connect(config).await.unwrap();
    let patient = ConnectConfig::new(&format!("ws://{}", node.address));
    let bob = App::with_secret("acme/ns/bob", SECRET).unwrap().connect(patient).await.unwrap();
    let unreliable = SessionConfig::point_to_point().unreliable();
    let ours = alice.create_session(unreliable, &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let _theirs = bob.listen().await.unwrap();
    deaf.send(Path::Deaf).unwrap();
    for _ in 0..16 {
        ours.publish(vec![7; 1 << 20]).await.unwrap();
    }
    assert!(connected(&alice, false).await);
    deaf.send(Path::Open).unwrap();
    assert!(connected(&alice, true).await);
}

async fn noticed(scheme: &str, node: TestNode) {
    let (path, stuck) = path_to(node.address).await;
    let entry = format!(
        "{{endpoint: '{scheme}://{path}', tls: {{insecure: true}}, keepalive: {{http2_keepalive: 100ms, timeout: 200ms}}, \
         connect_timeout: 200ms, backoff: {{type: fixed_interval, interval: 100ms}}}}"
    );
    let config = ConnectConfig::parse(&entry, "entry", |_| None).unwrap();
    let mut patient = config.clone();
    patient.keepalive = Some(Keepalive { http2: Duration::ZERO, ..Keepalive::default() });
    let connect = |name: &'static str, config| async move {
        App::with_secret(name, SECRET).unwrap().connect(config).await.unwrap()
    };
    let (alice, bob) = (connect("acme/ns/alice", config).await, connect("acme/ns/bob", patient).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(alice.is_connected(), "answered pings change nothing");
    stuck.send(Path::Silent).unwrap();
    assert!(connected(&alice, false).await);
    assert!(bob.is_connected(), "without a time between pings nobody asks");
    stuck.send(Path::Open).unwrap();
    assert!(connected(&alice, true).await);
}

/// The attempts that a configuration allows are made, and no more: sessions end with the reason.
#[tokio::test]
async fn given_up_after_the_attempts_allowed() {
    let node = TestNode::start("127.0.0.1:0").await;
    let entry = format!(
        "{{endpoint: '{}', tls: {{insecure: true}}, \
         backoff: {{type: fixed_interval, interval: 50ms, max_attempts: 2}}}}",
        node.url()
    );
    let config = ConnectConfig::parse(&entry, "entry", |_| None).unwrap();
    let alice = App::with_secret("acme/ns/alice", SECRET).unwrap().connect(config).await.unwrap();
    let group = alice.create_session(SessionConfig::group(), &"acme/ns/chan".parse().unwrap()).await.unwrap();
    let endpoint = node.url();
    node.stop().await;
    let why = tokio::time::timeout(PATIENCE, group.closed()).await.unwrap();
    let SessionError::NodeGone { endpoint: told, attempts: 2, why } = why else { panic!("{why}") };
    assert!(told == endpoint && why.contains("is the node running there?"), "{told}: {why}");
    // Whoever wants something new is told as well, and does not wait for what cannot come.
    assert!(matches!(alice.listen().await, Err(ConnectError::GivenUp { .. })));
    assert!(matches!(alice.subscribe(&"acme/ns/more".parse().unwrap()).await, Err(ConnectError::GivenUp { .. })));
    let bob = "acme/ns/bob".parse().unwrap();
    let late = alice.create_session(SessionConfig::point_to_point(), &bob);
    let late = tokio::time::timeout(PATIENCE, late).await.expect("no hang");
    assert!(matches!(late, Err(SessionError::NodeGone { .. })));
}

/// A runtime that is dropped in the middle of publishing, again and again: the peer hears everything that was confirmed, in
/// order and once, and the session never ends.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_publishing() {
    let node = TestNode::start("127.0.0.1:0").await;
    let path = std::env::temp_dir().join(format!("slimline-drive-killed-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let bob = app(&node, "acme/ns/bob").await;
    let (url, confirmed) = (node.url(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let life = move |round: u32, path: std::path::PathBuf, confirmed: Arc<std::sync::Mutex<Vec<u32>>>| {
        let url = url.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let begin = async {
                let builder = App::with_secret("acme/ns/alice", SECRET).unwrap();
                let builder = builder.store(&path, StoreKey::new([5; 32])).unwrap();
                let alice = builder.connect(ConnectConfig::new(&url)).await.unwrap();
                match alice.resumed().pop() {
                    Some(session) => session,
                    None => {
                        assert_eq!(round, 0, "the session is there again");
                        let config = SessionConfig::point_to_point().with_retries(Duration::from_millis(200), 100);
                        alice.create_session(config, &"acme/ns/bob".parse().unwrap()).await.unwrap()
                    }
                }
            };
            let publish = |session: SessionHandle| async move {
                for n in round * 100_000.. {
                    let publication = session.publish(n.to_be_bytes().to_vec()).await.unwrap();
                    if n % 3 == 0 && publication.delivered().await.unwrap().is_complete() {
                        confirmed.lock().unwrap().push(n);
                    }
                }
            };
            // Every fourth life may end before its session is back; the others publish for a while, however busy the machine is.
            let limit = Duration::from_millis(60 + u64::from(round * 37 % 100));
            runtime.block_on(async {
                let early = if round % 4 == 3 { limit } else { PATIENCE };
                if let Ok(session) = tokio::time::timeout(early, begin).await {
                    let _ = tokio::time::timeout(limit, publish(session)).await;
                }
            });
        })
    };
    let reader = tokio::spawn(async move {
        let theirs = bob.listen().await.unwrap();
        let mut heard = Vec::new();
        while let Ok(message) = theirs.recv_within(Duration::from_secs(3)).await {
            heard.push(u32::from_be_bytes(message.payload[..].try_into().unwrap()));
        }
        assert!(theirs.publish(b"still open".to_vec()).await.is_ok());
        heard
    });
    for round in 0..12 {
        let (life, path, confirmed) = (life(round, path.clone(), confirmed.clone()), path.clone(), confirmed.clone());
        tokio::task::spawn_blocking(move || life.join().unwrap()).await.unwrap();
        drop((path, confirmed));
    }
    let heard = reader.await.unwrap();
    assert!(heard.is_sorted_by(|a, b| a < b), "in order, and once");
    let confirmed = confirmed.lock().unwrap();
    let rounds: std::collections::BTreeSet<u32> = confirmed.iter().map(|n| n / 100_000).collect();
    assert!(rounds.len() > 6, "confirmed in rounds {rounds:?}");
    for n in confirmed.iter() {
        assert!(heard.binary_search(n).is_ok(), "{n} was confirmed");
    }
    std::fs::remove_file(path).unwrap();
}

/// An application that is shut down while messages are on their way: what it published is delivered and confirmed, peers hear
/// at once that it went.
#[tokio::test]
async fn a_shut_down_says_goodbye() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob, ours, theirs) = pair(&node).await;
    let group = alice.create_session(SessionConfig::group(), &"acme/ns/chan".parse().unwrap()).await.unwrap();
    group.invite(&"acme/ns/bob".parse().unwrap()).await.unwrap();
    let member = bob.listen().await.unwrap();
    let mut publications = Vec::new();
    for n in 0..200_u32 {
        publications.push(ours.publish(n.to_be_bytes().to_vec()).await.unwrap());
    }
    let started = Instant::now();
    alice.shut_down().await;
    for publication in publications {
        assert!(publication.delivered().await.unwrap().is_complete());
    }
    for session in [&theirs, &member] {
        assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Closed);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "sooner than heartbeats tell: {:?}", started.elapsed());
    for n in 0..200_u32 {
        assert_eq!(theirs.recv().await.unwrap().payload[..], n.to_be_bytes());
    }
    assert_eq!(ours.publish(vec![1]).await.err(), Some(SessionError::Closed));

    // One that does not answer keeps nobody for long: its path swallows everything.
    let (path, silent) = path_to(node.address).await;
    let carol = App::with_secret("acme/ns/carol", SECRET).unwrap();
    let carol = carol.connect(ConnectConfig::new(&format!("http://{path}"))).await.unwrap();
    let called = bob.create_session(SessionConfig::point_to_point(), &"acme/ns/carol".parse().unwrap()).await.unwrap();
    silent.send(Path::Silent).unwrap();
    let started = Instant::now();
    bob.shut_down().await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(8), "{waited:?}");
    drop((carol, called));
}

/// Whoever was offline catches up with what it missed, in order, though the group changed meanwhile; its publishers knew that it
/// was away.
#[tokio::test]
async fn who_was_offline_catches_up() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob, carol) =
        (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await, app(&node, "acme/ns/carol").await);
    let group = alice.create_session(SessionConfig::group(), &"acme/ns/chan".parse().unwrap()).await.unwrap();
    group.invite(&"acme/ns/bob".parse().unwrap()).await.unwrap();
    let member = bob.listen().await.unwrap();
    group.publish(b"before".to_vec()).await.unwrap().delivered().await.unwrap();
    member.go_offline().await.unwrap();
    assert_eq!(group.publish(b"nobody".to_vec()).await.err(), Some(SessionError::NobodyOnline));
    group.invite(&"acme/ns/carol".parse().unwrap()).await.unwrap();
    let other = carol.listen().await.unwrap();
    for said in ["one", "two"] {
        let delivery = group.publish(said.as_bytes().to_vec()).await.unwrap().delivered().await.unwrap();
        assert_eq!(delivery.recipients, [(carol.name(), Outcome::Delivered)]);
        assert_eq!(text(&other).await, said);
    }
    member.rejoin().await.unwrap();
    let delivery = group.publish(b"after".to_vec()).await.unwrap().delivered().await.unwrap();
    assert!(delivery.is_complete() && delivery.recipients.len() == 2, "{delivery:?}");
    for said in ["before", "one", "two", "after"] {
        assert_eq!(text(&member).await, said);
    }
}

/// A runtime that is dropped takes its application along: whoever holds it from elsewhere is told, and does not wait.
#[test]
fn a_runtime_that_is_gone() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (nodes, first, second) = (runtime(), runtime(), runtime());
    let node = nodes.block_on(TestNode::start("127.0.0.1:0"));
    let (alice, bob, ours, theirs) = first.block_on(pair(&node));
    let publication = first.block_on(ours.publish(b"last".to_vec())).unwrap();
    let waiting = second.spawn({
        let ours = ours.clone();
        async move { ours.recv().await }
    });
    drop(first);
    second.block_on(async {
        let gone = SessionError::RuntimeGone;
        let in_time = tokio::time::timeout(PATIENCE, async {
            assert_eq!(waiting.await.unwrap(), Err(ReceiveError::Session(gone.clone())));
            assert!(matches!(publication.delivered().await, Ok(_) | Err(SessionError::RuntimeGone)));
            assert_eq!(ours.publish(vec![1]).await.err(), Some(gone.clone()));
            assert_eq!(theirs.close().await, Err(gone.clone()));
            assert_eq!(alice.create_session(SessionConfig::group(), &bob.name()).await.err(), Some(gone.clone()));
            let ended = alice.listen().await.err().unwrap();
            assert!(ended.to_string().contains("connect on one that lives as long"), "{ended}");
            assert!(!alice.is_connected());
            alice.shut_down().await;
        });
        in_time.await.expect("nobody waits");
    });
}

/// That a message was read is in the store a moment later, though nothing else happens.
#[tokio::test]
async fn what_was_read_stays_read() {
    let node = TestNode::start("127.0.0.1:0").await;
    let path = std::env::temp_dir().join(format!("slimline-drive-read-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let kept =
        |path: &std::path::Path| App::with_secret("acme/ns/alice", SECRET).unwrap().store(path, StoreKey::new([3; 32]));
    let bob = app(&node, "acme/ns/bob").await;
    let config = ConnectConfig::new(&node.url());
    // A life that ends without a last word.
    let life = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let alice = life.spawn(kept(&path).unwrap().connect(config.clone())).await.unwrap().unwrap();
    let theirs = bob.create_session(SessionConfig::point_to_point(), &"acme/ns/alice".parse().unwrap()).await.unwrap();
    let ours = alice.listen().await.unwrap();
    for said in ["one", "two"] {
        assert!(theirs.publish(said.as_bytes().to_vec()).await.unwrap().delivered().await.unwrap().is_complete());
    }
    assert_eq!(text(&ours).await, "one");
    tokio::time::sleep(Duration::from_secs(1)).await;
    life.shutdown_background();
    assert_eq!(ours.closed().await, SessionError::RuntimeGone);
    drop((ours, alice));

    let alice = kept(&path).unwrap().connect(config).await.unwrap();
    let ours = alice.resumed().pop().unwrap();
    assert_eq!(text(&ours).await, "two");
    alice.shut_down().await;
    std::fs::remove_file(path).unwrap();
}

/// A node that takes no more octets: publishes wait at the queue's bound, then say so; nothing that was refused is sent later.
#[tokio::test]
async fn a_stuck_node_pushes_back() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (path, stuck) = path_to(node.address).await;
    let mut patient = ConnectConfig::new(&format!("http://{path}"));
    patient.keepalive = None;
    let alice = App::with_secret("acme/ns/alice", SECRET).unwrap().connect(patient).await.unwrap();
    let bob = app(&node, "acme/ns/bob").await;
    let unreliable = SessionConfig::point_to_point().unreliable();
    let ours = alice.create_session(unreliable, &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let theirs = bob.listen().await.unwrap();
    stuck.send(Path::Silent).unwrap();
    let (mut published, mut slowest) = (0, Duration::ZERO);
    let why = loop {
        let started = Instant::now();
        let result = ours.publish(vec![7; 60_000]).await;
        slowest = slowest.max(started.elapsed());
        match result {
            Ok(_) => published += 1,
            Err(why) => break why,
        }
        assert!(published < 1000, "some bound holds");
    };
    assert_eq!(why, SessionError::NotTaken { waited: Duration::from_secs(10), connected: true });
    assert!(why.to_string().contains("the connection is full"), "{why}");
    assert!(slowest >= Duration::from_secs(10) && slowest < PATIENCE, "{slowest:?}");
    assert!(published > 200, "sixteen mebioctets wait, and what the connection holds: {published}");
    assert!(theirs.recv_within(Duration::from_millis(100)).await.is_err());
}
