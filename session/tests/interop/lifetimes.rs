//! Sessions that last: longer than a token, longer than our process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use slimline_session::error::IdentityError;
use slimline_session::identity::{Claims, Provider, SharedSecret, SigningKey, Verifier};
use slimline_session::{App, Credentials, SessionConfig, SessionHandle, StoreKey};

use crate::kit::{PATIENCE, Python, SECOND, SECRET, create, name, text};
use crate::nodes::{Node, TempFile};

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
    let config = node.config();
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

/// More than an hour with three Python members, who cannot renew their leaves: our moderator takes each out and invites it anew
/// before its token ends. Each application sees one session end and another begin, and everybody hears everybody all along.
/// To be run as the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON and faketime"]
async fn one_hour_with_many_of_theirs() {
    let begin = std::time::SystemTime::now();
    let at = async |second: u64| {
        while begin.elapsed().unwrap() < SECOND * u32::try_from(second).unwrap() {
            tokio::time::sleep(SECOND * 10).await;
        }
    };
    let node = Node::start();
    let alice = node.app("acme/ns/alice").await;
    let config = SessionConfig::group().with_retries(SECOND * 20, 10);
    let group = alice.create_session(config, &name("acme/ns/chan")).await.unwrap();
    let mut members = Vec::new();
    for service in ["acme/ns/bob", "acme/ns/carol", "acme/ns/dave"] {
        let mut python = Python::join(&node, service);
        let waiting = python.ask(json!({"do": "listen", "timeout": 900}));
        group.invite(&name(service)).await.unwrap();
        let session = python.answer(waiting)["session"].clone();
        members.push((python, session));
    }
    let began = begin.elapsed().unwrap();
    assert!(began < SECOND * 400, "too slow to tell: {began:?} until everybody was there");

    everybody_hears_everybody(&group, &mut members, "at first").await;
    at(2_800).await;
    everybody_hears_everybody(&group, &mut members, "before").await;
    let waiting: Vec<_> =
        members.iter_mut().map(|(python, _)| python.ask(json!({"do": "listen", "timeout": 1500}))).collect();
    for ((python, session), waiting) in members.iter_mut().zip(waiting) {
        let answer = python.answer(waiting);
        assert!(answer["session"].is_number(), "invited anew: {answer}");
        assert_eq!(answer["session"], *session);
        python.sees_the_end(&json!(format!("before {session}")));
    }
    let renewed = begin.elapsed().unwrap();
    assert!(renewed < SECOND * 3_600, "invited anew only after {renewed:?}");
    everybody_hears_everybody(&group, &mut members, "after").await;
    for (second, said) in [(4_100, "beyond the first tokens"), (5_000, "well beyond")] {
        at(second).await;
        everybody_hears_everybody(&group, &mut members, said).await;
    }
    assert_eq!(group.participants().unwrap().len(), 4);
}

/// The moderator speaks, and each member after it.
async fn everybody_hears_everybody(group: &SessionHandle, members: &mut [(Python, serde_json::Value)], said: &str) {
    let hear = |members: &mut [(Python, serde_json::Value)], but: Option<usize>, words: &str| {
        for (_, (python, session)) in members.iter_mut().enumerate().filter(|(n, _)| Some(*n) != but) {
            let heard = python.run(json!({"do": "receive", "session": session, "timeout": 600}));
            assert_eq!(heard["text"], words);
        }
    };
    let publication = group.publish(said.as_bytes().to_vec()).await.unwrap();
    hear(members, None, said);
    assert!(publication.delivered().await.unwrap().is_complete(), "{said}");
    for n in 0..members.len() {
        let words = format!("{said}, {n}");
        let (python, session) = &mut members[n];
        python.run(json!({"do": "publish", "session": session, "text": words}));
        hear(members, Some(n), &words);
        assert_eq!(group.recv_within(SECOND * 600).await.unwrap().payload, words.as_bytes());
    }
}

/// We go and come back out of our store: what the SDK is in with us, as peer, as member and as initiator, goes on at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn we_come_back_from_a_store() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let path = TempFile::named("store");
    let connect = async || {
        let config = node.config();
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
