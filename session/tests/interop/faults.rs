//! What goes wrong between applications, and what may be seen on the way.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use slimline_session::error::SessionError;
use slimline_session::{Outcome, SessionConfig, SessionKind};

use crate::kit::{PATIENCE, Python, SECOND, begun, create, name, text};
use crate::nodes::Node;
use crate::relay::{Relay, Toward};

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

/// Passes everything on, and keeps a copy: what a node, or a wire, gets to see.
struct Tap {
    address: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = node.address().to_owned();
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
        let tapped = node.through(&tap.address);
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

/// One data message is lost on its way, from us and to us: the receiver asks for it, the sender repeats it, the application
/// reads everything once and in order.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn a_gap_is_asked_for() {
    let node = Node::start();
    let relay = Relay::before(&node).await;
    let mut bob = Python::join(&node, "acme/ns/bob");
    let alice = node.through(&relay.address()).app("acme/ns/alice").await;
    // Long waits: nothing is repeated for want of an acknowledgement.
    for config in [SessionConfig::point_to_point(), SessionConfig::group()] {
        for config in [config.clone(), config.without_mls()] {
            let config = config.with_retries(SECOND * 60, 3);
            let group = config.kind == SessionKind::Group;
            let waiting = bob.listen();
            let to = if group { "acme/ns/chan" } else { "acme/ns/bob" };
            let initiated = alice.create_session(config.clone(), &name(to)).await.unwrap();
            if group {
                initiated.invite(&name("acme/ns/bob")).await.unwrap();
            }
            let bobs_first = bob.answer(waiting)["session"].clone();
            let to = if group { "acme/ns/chan2" } else { "acme/ns/alice" };
            let bobs_second = bob.run(create(&config, group, to))["session"].clone();
            if group {
                bob.run(json!({"do": "invite", "session": bobs_second, "name": "acme/ns/alice"}));
            }
            let joined = begun(&alice).await;
            for (ours, theirs) in [(&initiated, &bobs_first), (&joined, &bobs_second)] {
                let before = [Toward::Node, Toward::App].map(|toward| relay.asked(toward));
                let lost = relay.lost();
                relay.lose_after(Toward::Node, 1);
                for n in 0..4 {
                    ours.publish(format!("hello {n}").into_bytes()).await.unwrap();
                }
                for n in 0..4 {
                    assert_eq!(bob.text(theirs), format!("hello {n}"));
                }
                relay.lose_after(Toward::App, 1);
                for n in 0..4 {
                    bob.run(json!({"do": "publish", "session": theirs, "text": format!("answer {n}")}));
                }
                for n in 0..4 {
                    assert_eq!(text(ours).await, format!("answer {n}"));
                }
                assert_eq!(relay.lost() - lost, 2, "one each way");
                let after = [Toward::Node, Toward::App].map(|toward| relay.asked(toward));
                // (asked, answered): theirs for ours, ours for theirs.
                assert_eq!((after[1].0 - before[1].0, after[0].1 - before[0].1), (1, 1), "they asked, we repeated");
                assert_eq!((after[0].0 - before[0].0, after[1].1 - before[1].1), (1, 1), "we asked, they repeated");
            }
            initiated.close().await.unwrap();
            joined.close().await.unwrap();
        }
    }
}
