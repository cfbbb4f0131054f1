//! Calls that are dropped while they wait: nothing is lost, nothing is done twice, nothing is left behind.

#[path = "common/node.rs"]
mod node;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use node::TestNode;
use slimline_session::error::SessionError;
use slimline_session::{App, ConnectConfig, Event, Name, SessionConfig, SessionHandle};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

async fn app(node: &TestNode, name: &str) -> App {
    App::with_secret(name, SECRET).unwrap().connect(ConnectConfig::new(&node.url())).await.unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Polls the future so many times, letting others run in between, and drops it; its result if it was ready before.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(result) = polled {
            return Some(result);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn pair(node: &TestNode) -> (App, App, SessionHandle, SessionHandle) {
    let (alice, bob) = (app(node, "acme/ns/alice").await, app(node, "acme/ns/bob").await);
    let ours = alice.create_session(SessionConfig::point_to_point(), &name("acme/ns/bob")).await.unwrap();
    let theirs = tokio::time::timeout(PATIENCE, bob.listen()).await.unwrap().unwrap();
    (alice, bob, ours, theirs)
}

/// Reads that are dropped at every point: each message is read once, in order.
#[tokio::test]
async fn reading() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (_alice, _bob, ours, theirs) = pair(&node).await;
    let writer = tokio::spawn(async move {
        for n in 0..300_u32 {
            ours.publish(n.to_be_bytes().to_vec()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ours
    });
    let (mut next, mut dropped) = (0_u32, 0);
    while next < 300 {
        match dropped_after(1 + dropped % 4, theirs.recv()).await {
            Some(message) => {
                assert_eq!(message.unwrap().payload[..], next.to_be_bytes());
                next += 1;
            }
            None => dropped += 1,
        }
    }
    assert!(dropped > 10, "{dropped}");
    drop(writer.await.unwrap());
}

/// A publish that is dropped published nothing; one that returned is delivered. The peer reads exactly what returned.
#[tokio::test]
async fn publishing() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await);
    let config = SessionConfig::point_to_point().with_retries(Duration::from_secs(1), 60);
    let ours = alice.create_session(config, &name("acme/ns/bob")).await.unwrap();
    let theirs = bob.listen().await.unwrap();
    let writer = tokio::spawn(async move {
        let (mut published, mut dropped) = (BTreeSet::new(), 0);
        for n in 0..2500_u32 {
            // The window fills, as nobody reads at first: some wait, and are dropped while they do.
            match dropped_after(2, ours.publish(n.to_be_bytes().to_vec())).await {
                Some(publication) => drop((publication.unwrap(), published.insert(n))),
                None => dropped += 1,
            }
        }
        ours.publish(u32::MAX.to_be_bytes().to_vec()).await.unwrap().delivered().await.unwrap();
        (published, dropped, ours)
    });
    let mut read = BTreeSet::new();
    loop {
        let message = theirs.recv_within(PATIENCE).await.unwrap();
        match u32::from_be_bytes(message.payload[..].try_into().unwrap()) {
            u32::MAX => break,
            n => assert!(read.insert(n), "{n} was read twice"),
        }
    }
    let (published, dropped, _ours) = writer.await.unwrap();
    assert!(dropped > 0 && published.len() > 100, "{dropped} dropped, {} published", published.len());
    assert_eq!(read, published);
}

/// Listening that is dropped over and over loses no session; calling that is dropped leaves none behind.
#[tokio::test]
async fn listening_and_calling() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await);
    let callers = tokio::spawn(async move {
        let mut sessions = Vec::new();
        for n in 0..10 {
            let config = SessionConfig::point_to_point().with_metadata("number", &n.to_string());
            sessions.push(alice.create_session(config, &name("acme/ns/bob")).await.unwrap());
        }
        (alice, sessions)
    });
    let (mut arrived, mut dropped) = (Vec::new(), 0);
    while arrived.len() < 10 {
        match dropped_after(2, bob.listen()).await {
            Some(session) => arrived.push(session.unwrap()),
            None => dropped += 1,
        }
    }
    let numbers: Vec<_> = arrived.iter().map(|session| session.metadata()["number"].clone()).collect();
    assert_eq!(numbers, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(dropped > 0);
    let (alice, sessions) = callers.await.unwrap();

    // Dropped at various points: whatever the other side heard of ends there as well.
    for polls in [1, 2, 5, 20, 100] {
        let bobs = name("acme/ns/bob");
        let call = alice.create_session(SessionConfig::point_to_point(), &bobs);
        drop(dropped_after(polls, call).await);
    }
    while let Ok(session) = tokio::time::timeout(Duration::from_millis(500), bob.listen()).await {
        let why = tokio::time::timeout(PATIENCE, session.unwrap().closed()).await.expect("it ends");
        assert!(matches!(why, SessionError::Closed | SessionError::Removed), "{why}");
    }
    drop(sessions);
}

/// Commands that are dropped go on: the invited one is in, the removed one is out, the closed session ends.
#[tokio::test]
async fn commands() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (alice, bob) = (app(&node, "acme/ns/alice").await, app(&node, "acme/ns/bob").await);
    let (bobs, chan) = (name("acme/ns/bob"), name("acme/ns/chan"));
    let group = alice.create_session(SessionConfig::group(), &chan).await.unwrap();
    assert!(dropped_after(1, group.invite(&bobs)).await.is_none());
    let joined = tokio::time::timeout(PATIENCE, bob.listen()).await.unwrap().unwrap();
    // Its welcome is acknowledged a moment later: from then on it is there for us.
    while !matches!(tokio::time::timeout(PATIENCE, group.event()).await.unwrap().unwrap(), Event::Joined(_)) {}
    group.publish(b"welcome".to_vec()).await.unwrap().delivered().await.unwrap();
    assert_eq!(joined.recv_within(PATIENCE).await.unwrap().payload[..], *b"welcome");

    // The same again is refused, because it was done.
    assert!(matches!(group.invite(&bobs).await, Err(SessionError::AlreadyMember(_))));
    assert!(dropped_after(1, joined.go_offline()).await.is_none());
    joined
        .rejoin()
        .await
        .or_else(|error| (error == SessionError::StatusChangeInProgress).then_some(()).ok_or(error))
        .unwrap();
    assert!(dropped_after(1, group.remove(&bobs)).await.is_none());
    assert_eq!(tokio::time::timeout(PATIENCE, joined.closed()).await.unwrap(), SessionError::Removed);
    assert!(dropped_after(1, group.close()).await.is_none());
    assert_eq!(tokio::time::timeout(PATIENCE, group.closed()).await.unwrap(), SessionError::Closed);

    // A dropped subscription is there all the same, a dropped shut-down ends.
    let more = name("acme/ns/more");
    assert!(dropped_after(1, bob.subscribe(&more)).await.is_none());
    let called = alice.create_session(SessionConfig::point_to_point(), &more).await.unwrap();
    let watcher = bob.clone();
    assert!(dropped_after(1, bob.shut_down()).await.is_none());
    assert!(tokio::time::timeout(PATIENCE, async { while watcher.listen().await.is_ok() {} }).await.is_ok());
    drop(called);
}

/// Waiting for an outcome with a limit, and again.
#[tokio::test]
async fn outcomes() {
    let node = TestNode::start("127.0.0.1:0").await;
    let (_alice, bob, ours, theirs) = pair(&node).await;
    let mut told = ours.publish(b"one".to_vec()).await.unwrap();
    assert!(dropped_after(1, told.delivered_within(PATIENCE)).await.is_none());
    assert!(told.delivered_within(PATIENCE).await.unwrap().unwrap().is_complete());
    assert_eq!(told.delivered_within(PATIENCE).await, Some(Err(SessionError::Closed)));
    // A clone keeps the session open; the last handle closes it.
    let other = ours.clone();
    drop(ours);
    other.publish(b"two".to_vec()).await.unwrap().delivered().await.unwrap();
    drop(other);
    assert_eq!(tokio::time::timeout(PATIENCE, theirs.closed()).await.unwrap(), SessionError::Closed);
    assert_eq!(theirs.recv().await.unwrap().payload[..], *b"one");
    assert_eq!(theirs.recv().await.unwrap().payload[..], *b"two");
    assert!(theirs.recv().await.is_err());
    drop(bob);
}

/// The last words of an application that goes at once reach the node.
#[test]
fn last_words() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (node, bob) = runtime.block_on(async {
        let node = TestNode::start("127.0.0.1:0").await;
        let bob = app(&node, "acme/ns/bob").await;
        (node, bob)
    });
    let url = node.url();
    // A program of its own: its runtime is gone right after.
    let program = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let alice = App::with_secret("acme/ns/alice", SECRET).unwrap();
            let alice = alice.connect(ConnectConfig::new(&url)).await.unwrap();
            let unreliable = SessionConfig::point_to_point().unreliable();
            let session = alice.create_session(unreliable, &name("acme/ns/bob")).await.unwrap();
            for n in 0..200_u32 {
                let mut said = vec![0; 8000];
                said[..4].copy_from_slice(&n.to_be_bytes());
                session.publish(said).await.unwrap();
            }
            alice.shut_down().await;
        });
    });
    runtime.block_on(async {
        let session = bob.listen().await.unwrap();
        for n in 0..200_u32 {
            let message = session.recv_within(PATIENCE).await.unwrap_or_else(|error| panic!("{n}: {error}"));
            assert_eq!(message.payload[..4], n.to_be_bytes());
        }
    });
    program.join().unwrap();
    drop(node);
}
