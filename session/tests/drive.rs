//! Applications on real sockets: connected, cut off, connected again, refused.

#[path = "common/node.rs"]
mod node;

use std::time::{Duration, Instant};

use node::TestNode;
use slimline_session::error::SessionError;
use slimline_session::{App, ConnectConfig, ConnectError, ReceiveError, SessionConfig, SessionHandle};
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

/// TLS and mutual TLS under a private authority; whoever is not what it should be is refused.
#[tokio::test]
async fn secured() {
    use std::sync::Arc;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig};

    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, &authority_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate, key)
    };
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let (certificate, key) = issue("localhost");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let node = TestNode::start_with("127.0.0.1:0", Some(TlsAcceptor::from(Arc::new(config)))).await;

    let (ours, our_key) = issue("alice");
    let mut config = ConnectConfig::new(&format!("https://localhost:{}", node.address.port()));
    config.tls.authorities_pem = Some(authority.pem().into_bytes());
    config.tls.client_pem = Some((ours.pem().into_bytes(), our_key.serialize_pem().into_bytes()));
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
    wrong.tls.authorities_pem = Some(issue("another").0.pem().into_bytes());
    assert!(matches!(connect(wrong).await.err().unwrap(), ConnectError::Tls(_)));
    let mut wrong = config;
    wrong.tls.authorities_pem = Some(b"nonsense".to_vec());
    assert!(matches!(connect(wrong).await.err().unwrap(), ConnectError::Tls(_)));
}
