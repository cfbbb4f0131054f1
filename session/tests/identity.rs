//! SPIFFE identities from a Workload API that is ours for the test: fetched, renewed, rotated, refused.

#[path = "common/agent.rs"]
mod agent;
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent::{Agent, jwks, mint, now};
use common::{Net, SECRET};
use jsonwebtoken::Algorithm;
use slimline_session::error::{IdentityError, SessionError};
use slimline_session::identity::jwt::{JwtProvider, JwtVerifier};
use slimline_session::identity::{Binding, Provider as _, Spiffe, SpiffeConfig, StaticJwt, Verifier as _};
use slimline_session::{AppEvent, Credentials, Event, Publish, SessionConfig};

const SECOND: Duration = Duration::from_secs(1);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within ten seconds");
}

/// Two workloads in one encrypted session.
#[tokio::test]
async fn a_session_between_spiffe_identities() {
    let (a, b) = (Agent::start("spiffe://example.org/alice"), Agent::start("spiffe://example.org/bob"));
    let (alice, bob) = (Spiffe::connect(a.config()).await.unwrap(), Spiffe::connect(b.config()).await.unwrap());
    assert_eq!(alice.subject(), "spiffe://example.org/alice");
    let claims = bob.verify(&alice.token(now()).unwrap(), now()).unwrap();
    assert_eq!(claims.subject, alice.subject());
    assert_eq!(claims.public_key.as_deref(), alice.signing_key().map(|key| key.public_key()));

    let mut net = Net::new(1);
    let alice = net.app_with("acme/ns/alice", Credentials::new(alice));
    let bob = net.app_with("acme/ns/bob", Credentials::new(bob));
    let at = net.now();
    let config = SessionConfig::point_to_point();
    let id = net.endpoint(alice).create_session(at, config, &"acme/ns/bob".parse().unwrap()).unwrap();
    net.until(SECOND * 10, "established", |net| net.arrived(bob) == Some(id));
    net.with(alice, id, |session, now| session.publish(now, Publish::from(b"hello".to_vec()))).unwrap();
    net.run(SECOND);
    assert_eq!(net.texts(bob, id), ["hello"]);
    assert!(net.with(bob, id, |session, _| session.epoch()).is_some());
}

#[tokio::test]
async fn the_token_is_renewed_before_it_ends() {
    let agent = Agent::start("spiffe://example.org/alice");
    agent.life_s.store(3, Ordering::Relaxed);
    let alice = Spiffe::connect(agent.config()).await.unwrap();
    let first = alice.token(now()).unwrap();
    assert_eq!(agent.issued.load(Ordering::Relaxed), 1);
    until("renewed", || agent.issued.load(Ordering::Relaxed) > 1 && alice.token(now()).is_ok_and(|t| t != first)).await;
    let claims = alice.verify_lapsed(&first).unwrap();
    assert_eq!(alice.verify(&first, claims.expires + 1), Err(IdentityError::Expired { since_s: 1 }), "no leeway");
    assert!(matches!(alice.token(now() + 9999), Err(IdentityError::Expired { .. })), "never one that has ended");
}

#[tokio::test]
async fn new_bundles_count_at_once() {
    let agent = Agent::start("spiffe://example.org/alice");
    let alice = Spiffe::connect(agent.config()).await.unwrap();
    let token = alice.token(now()).unwrap();
    assert!(alice.verify(&token, now()).is_ok());
    agent.bundles.send(BTreeMap::from([("example.org".to_owned(), jwks("k2"))])).unwrap();
    until("forgotten", || alice.verify(&token, now()) == Err(IdentityError::WrongSecret)).await;
    agent.bundles.send(BTreeMap::from([("spiffe://other.org".to_owned(), jwks("k1"))])).unwrap();
    until("foreign", || matches!(alice.verify(&token, now()), Err(IdentityError::Foreign(_)))).await;
    agent.bundles.send(BTreeMap::from([("spiffe://example.org".to_owned(), jwks("k1"))])).unwrap();
    until("back", || alice.verify(&token, now()).is_ok()).await;
}

#[tokio::test]
async fn tokens_that_are_no_svids_of_ours() {
    let agent = Agent::start("spiffe://example.org/alice");
    let alice = Spiffe::connect(agent.config()).await.unwrap();
    let slim = ["slim".to_owned()];
    let verify = |token: &str| alice.verify(token, now());
    let good = verify(&mint("spiffe://example.org/bob", &slim, Some("k1"), 60)).unwrap();
    assert_eq!((good.subject.as_str(), good.public_key), ("spiffe://example.org/bob", None));
    let foreign = mint("spiffe://example.org/bob", &["other".to_owned()], Some("k1"), 60);
    assert_eq!(verify(&foreign), Err(IdentityError::Foreign("another audience")));
    let foreign = mint("spiffe://elsewhere.org/bob", &slim, Some("k1"), 60);
    assert_eq!(verify(&foreign), Err(IdentityError::Foreign("a trust domain we have no bundle of")));
    assert_eq!(verify(&mint("spiffe://example.org/bob", &slim, Some("k9"), 60)), Err(IdentityError::WrongSecret));
    for shapeless in [
        mint("spiffe://example.org/bob", &slim, None, 60),
        mint("bob", &slim, Some("k1"), 60),
        mint("spiffe:///bob", &slim, Some("k1"), 60),
        JwtProvider::new("spiffe://example.org/bob", "i", &["slim"], Algorithm::HS256, SECRET.as_bytes())
            .unwrap()
            .token(now())
            .unwrap(),
        "a.b.c".to_owned(),
        String::new(),
    ] {
        assert!(matches!(verify(&shapeless), Err(IdentityError::Malformed(_))), "{shapeless}");
    }
    let carried = [slim[0].clone(), "slim-claims:no base64!".to_owned()];
    assert!(matches!(
        verify(&mint("spiffe://example.org/bob", &carried, Some("k1"), 60)),
        Err(IdentityError::Malformed(_))
    ));
}

#[tokio::test]
async fn no_identity_is_told() {
    let nobody = Agent::start("");
    let refused = Spiffe::connect(nobody.config()).await.err().unwrap();
    assert!(refused.to_string().contains("is it registered"), "{refused}");
    let gone = SpiffeConfig::new("unix:/nowhere/agent.sock", &["slim"]);
    let refused = Spiffe::connect(gone).await.err().unwrap();
    assert!(matches!(&refused, IdentityError::Unavailable(why) if why.contains("/nowhere/agent.sock")), "{refused}");
}

/// A token whose key is not ours to use signs nothing: said at once, not when nobody answers.
#[test]
fn a_session_needs_a_key() {
    let path = std::env::temp_dir().join(format!("slimline-keyless-{}", std::process::id()));
    let maker = JwtProvider::new("alice", "i", &["slim"], Algorithm::HS256, SECRET.as_bytes()).unwrap();
    std::fs::write(&path, maker.token(1_000_000).unwrap()).unwrap();
    let credentials = Credentials {
        provider: Arc::new(StaticJwt::from_file(&path).unwrap()),
        verifier: Arc::new(JwtVerifier::new(Algorithm::HS256, SECRET.as_bytes()).unwrap()),
        binding: Binding::Enforce,
    };
    let mut net = Net::new(1);
    let alice = net.app_with("acme/ns/alice", credentials);
    let at = net.now();
    for config in [SessionConfig::point_to_point(), SessionConfig::point_to_point().without_mls()] {
        let refused = net.endpoint(alice).create_session(at, config, &"acme/ns/bob".parse().unwrap());
        assert_eq!(refused, Err(SessionError::Identity(IdentityError::NoKey)));
    }
    std::fs::remove_file(&path).unwrap();
}

/// Wrong secret, clocks apart: whoever asks is told that nobody answered, whoever is asked counts why it did not.
#[test]
fn what_is_not_believed_is_counted() {
    use slimline_session::identity::SharedSecret;
    let mut net = Net::new(1);
    let alice = net.app("acme/ns/alice");
    let stranger = SharedSecret::new("acme/ns/bob", "another secret of thirty-two octets").unwrap();
    let bob = net.app_with("acme/ns/bob", Credentials::new(stranger));
    let at = net.now();
    let config = SessionConfig::point_to_point().with_retries(SECOND, 2);
    net.endpoint(alice).create_session(at, config, &"acme/ns/bob".parse().unwrap()).unwrap();
    net.run(SECOND * 5);
    let silent = |event: &Event| matches!(event, Event::Closed(SessionError::NoAnswer { .. }));
    assert!(net.apps[alice].events.iter().any(|event| matches!(event, AppEvent::Session(_, event) if silent(event))));
    assert_eq!(net.endpoint(bob).counters().unverified, 3);
}
