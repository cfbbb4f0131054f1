//! Other identities than a shared secret: JWT by every kind of key, JWT that somebody else makes, and SPIFFE.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use slimline_session::error::{IdentityError, SessionError};
use slimline_session::identity::jwt::{Algorithm, JwtProvider, JwtVerifier};
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{Binding, Provider, SigningKey, Spiffe, StaticJwt};
use slimline_session::{App, Credentials, SessionConfig};

use crate::agent::Agent;
use crate::kit::{Python, SECOND, begun, create, name, text};
use crate::nodes::{Node, TempFile};

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
            include_str!("../../src/identity/testdata/rsa.pem"),
            include_str!("../../src/identity/testdata/rsa.pub"),
        ),
        (
            Algorithm::ES256,
            "ES256",
            include_str!("../../src/identity/testdata/p256.pem"),
            include_str!("../../src/identity/testdata/p256.pub"),
        ),
        (
            Algorithm::EdDSA,
            "ED_DSA",
            include_str!("../../src/identity/testdata/ed25519.pem"),
            include_str!("../../src/identity/testdata/ed25519.pub"),
        ),
    ] {
        let bobs = format!("bob-{spelled}");
        let mut bob = Python::start();
        let jwt = json!({"algorithm": spelled, "private": private, "public": public, "subject": bobs});
        bob.connect(&node, &format!("acme/ns/{bobs}"), json!({"jwt": jwt}));
        let subject = format!("alice-{spelled}");
        let provider = JwtProvider::new(&subject, "slimline-tests", &["slim"], algorithm, private.as_bytes()).unwrap();
        let verifier = JwtVerifier::new(algorithm, public.as_bytes()).unwrap();
        let verifier = verifier.with_issuer("slimline-tests").with_audience(&["slim"]);
        let credentials =
            Credentials { provider: Arc::new(provider), verifier: Arc::new(verifier), binding: Binding::Enforce };
        let config = node.config();
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
        let ours = begun(&alice).await;
        bob.run(json!({"do": "publish", "session": theirs, "text": "and back", "wait": true}));
        assert_eq!(text(&ours).await, "and back");
    }
}

/// Keys that all members of these tests trust: tokens of one issuer.
const PRIVATE: &str = include_str!("../../src/identity/testdata/p256.pem");
const PUBLIC: &str = include_str!("../../src/identity/testdata/p256.pub");

fn issuer(subject: &str) -> JwtProvider {
    JwtProvider::new(subject, "slimline-tests", &["slim"], Algorithm::ES256, PRIVATE.as_bytes()).unwrap()
}

/// One of ours on the node, believing that issuer.
async fn believer(node: &Node, service: &str, provider: impl Provider + 'static) -> App {
    let verifier = JwtVerifier::new(Algorithm::ES256, PUBLIC.as_bytes()).unwrap();
    let verifier = Arc::new(verifier.with_issuer("slimline-tests").with_audience(&["slim"]));
    let credentials = Credentials { provider: Arc::new(provider), verifier, binding: Binding::Enforce };
    App::with_credentials(name(service), credentials).connect(node.config()).await.unwrap()
}

/// A Python application that signs its own tokens for that issuer.
fn python_issuer(node: &Node, service: &str, subject: &str) -> Python {
    let mut python = Python::start();
    let jwt = json!({"algorithm": "ES256", "private": PRIVATE, "public": PUBLIC, "subject": subject});
    python.connect(node, service, json!({"jwt": jwt}));
    python
}

/// Two and many, begun by each side, encrypted: everybody hears everybody, and we know by which identity.
async fn each_way(us: &App, service: &str, python: &mut Python, theirs: &str, subject: &str) {
    let mut sessions = Vec::new();
    let waiting = python.listen();
    let ours = us.create_session(SessionConfig::point_to_point(), &name(theirs)).await.unwrap();
    sessions.push((ours, python.answer(waiting)["session"].clone()));
    let id = python.run(create(&SessionConfig::point_to_point(), false, service))["session"].clone();
    sessions.push((begun(us).await, id));
    let waiting = python.listen();
    let ours = us.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
    ours.invite(&name(theirs)).await.unwrap();
    sessions.push((ours, python.answer(waiting)["session"].clone()));
    let id = python.run(create(&SessionConfig::group(), true, "acme/ns/chan2"))["session"].clone();
    python.run(json!({"do": "invite", "session": id, "name": service}));
    sessions.push((begun(us).await, id));
    for (ours, id) in &sessions {
        let publication = ours.publish(b"hello".to_vec()).await.unwrap();
        assert_eq!(python.text(id), "hello");
        assert!(publication.delivered().await.unwrap().is_complete());
        python.say(id, "hello yourself");
        let message = ours.recv_within(SECOND * 20).await.unwrap();
        assert_eq!(message.payload, &b"hello yourself"[..]);
        assert_eq!(message.subject.as_deref(), Some(subject));
    }
    for (ours, _) in &sessions {
        ours.close().await.unwrap();
    }
}

/// A workload of ours and one of theirs, each with an agent of its own and one trust domain.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn spiffe_identities() {
    let node = Node::start();
    let (ours, theirs) = (Agent::start("spiffe://example.org/alice"), Agent::start("spiffe://example.org/bob"));
    let mut bob = Python::start();
    bob.connect(&node, "acme/ns/bob", json!({"spiffe": theirs.path}));
    let credentials = Credentials::new(Spiffe::connect(ours.config()).await.unwrap());
    let builder = App::with_credentials(name("acme/ns/alice"), credentials);
    let alice = builder.connect(node.config()).await.unwrap();
    each_way(&alice, "acme/ns/alice", &mut bob, "acme/ns/bob", "spiffe://example.org/bob").await;
}

/// A token from a file that vouches for a key we hold is as good as one we sign ourselves.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_static_jwt_with_a_key() {
    let node = Node::start();
    let key = SigningKey::generate(KeyKind::P256).unwrap();
    let file = TempFile::named("token");
    let (scalar, public) = (key.private_key().unwrap(), key.public_key().to_vec());
    std::fs::write(&file.0, issuer("alice").with_key(key).token(now()).unwrap()).unwrap();
    let provider = StaticJwt::from_file(&file.0).unwrap();
    let provider = provider.with_key(SigningKey::from_p256(&scalar, &public).unwrap()).unwrap();
    let alice = believer(&node, "acme/ns/alice", provider).await;
    let mut bob = python_issuer(&node, "acme/ns/bob", "bob");
    each_way(&alice, "acme/ns/alice", &mut bob, "acme/ns/bob", "bob").await;
}

/// A token that vouches for no key signs nothing: we say so at once, and theirs stay unsigned, hence unheard by either side.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_static_jwt_without_a_key() {
    let node = Node::start();
    let file = TempFile::named("token");
    std::fs::write(&file.0, issuer("keyless").token(now()).unwrap()).unwrap();
    let brief = |config: SessionConfig| config.with_retries(SECOND, 2);

    // Ours without a key, theirs with one.
    let us = believer(&node, "acme/ns/us", StaticJwt::from_file(&file.0).unwrap()).await;
    let mut bob = python_issuer(&node, "acme/ns/bob", "bob");
    for config in [brief(SessionConfig::point_to_point()), brief(SessionConfig::point_to_point()).without_mls()] {
        let refused = us.create_session(config.clone(), &name("acme/ns/bob")).await.err();
        assert_eq!(refused, Some(SessionError::Identity(IdentityError::NoKey)));
        unheard(&bob.try_do(create(&config, false, "acme/ns/us")));
    }

    // Theirs without a key, ours with one.
    let alice = believer(&node, "acme/ns/alice", issuer("alice")).await;
    let mut keyless = Python::start();
    let jwt = json!({"algorithm": "ES256", "file": file.0, "public": PUBLIC});
    keyless.connect(&node, "acme/ns/keyless", json!({"static_jwt": jwt}));
    for config in [brief(SessionConfig::point_to_point()), brief(SessionConfig::point_to_point()).without_mls()] {
        let refused = alice.create_session(config.clone(), &name("acme/ns/keyless")).await.err();
        assert!(matches!(&refused, Some(SessionError::NoAnswer { .. })), "{refused:?}");
        unheard(&keyless.try_do(create(&config, false, "acme/ns/alice")));
    }
    let began = tokio::time::timeout(SECOND, alice.listen()).await;
    assert!(began.is_err(), "nobody began a session with us");
    // It is the key they miss, and nothing else: bob is heard.
    bob.run(create(&SessionConfig::point_to_point(), false, "acme/ns/alice"));
    begun(&alice).await;
}

/// No session came of it.
#[track_caller]
fn unheard(answer: &Value) {
    assert!(answer["error"].is_string() && answer.get("session").is_none(), "{answer}");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
