//! Sessions of two: whoever begins, whoever ends, each kind.

use serde_json::json;
use slimline_session::error::SessionError;
use slimline_session::{Outcome, SessionConfig};

use crate::kit::{PATIENCE, Python, SECOND, begun, create, kinds, name, text};
use crate::nodes::Node;

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
        bob.sees_the_end(&theirs);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn one_to_one_they_initiate() {
    let node = Node::start();
    let mut alice = Python::join(&node, "acme/ns/alice");
    let bob = node.app("acme/ns/bob").await;
    for config in kinds(SessionConfig::point_to_point) {
        let theirs = alice.run(create(&config, false, "acme/ns/bob"))["session"].clone();
        let session = begun(&bob).await;
        assert_eq!(session.metadata().clone().into_iter().collect::<Vec<_>>(), [("k1".to_owned(), "v1".to_owned())]);
        for n in 0..20 {
            alice.run(json!({"do": "publish", "session": theirs, "text": format!("hello {n}"), "wait": true}));
            assert_eq!(text(&session).await, format!("hello {n}"));
            session.publish(format!("answer {n}").into_bytes()).await.unwrap().delivered().await.unwrap();
            assert_eq!(alice.text(&theirs), format!("answer {n}"));
        }
        alice.run(json!({"do": "close", "session": theirs}));
        assert_eq!(tokio::time::timeout(PATIENCE, session.closed()).await.unwrap(), SessionError::Closed);
    }
}

/// Whoever was called may end it too: the caller sees the end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn the_other_side_ends_it() {
    let node = Node::start();
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    for config in kinds(SessionConfig::point_to_point) {
        let waiting = bob.listen();
        let ours = alice.create_session(config.clone(), &name("acme/ns/bob")).await.unwrap();
        let theirs = bob.answer(waiting)["session"].clone();
        bob.run(json!({"do": "close", "session": theirs}));
        assert_eq!(tokio::time::timeout(PATIENCE, ours.closed()).await.expect("an end"), SessionError::Closed);
        assert_eq!(ours.publish(b"anybody?".to_vec()).await.err(), Some(SessionError::Closed));

        let theirs = bob.run(create(&config, false, "acme/ns/alice"))["session"].clone();
        let ours = begun(&alice).await;
        ours.close().await.unwrap();
        let after = bob.try_do(json!({"do": "receive", "session": theirs, "timeout": 20}));
        assert!(after["error"].as_str().unwrap().contains("participant disconnected: acme/ns/alice"), "{after}");
    }
}
