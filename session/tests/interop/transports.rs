//! Other ways to a node than plain HTTP/2.

use serde_json::json;
use slimline_session::{App, ConnectError, SessionConfig};

use crate::kit::{Python, SECRET, begun, create, name, text};
use crate::nodes::{Certificates, Node, Serving};

/// Sessions of two begun by each side, and groups moderated by each side, with words of any size both ways.
async fn both_ways(node: &Node) {
    let mut bob = Python::join(node, "acme/ns/bob");
    let alice = node.app("acme/ns/alice").await;
    let large = "x".repeat(300_000);
    let mut sessions = Vec::new();

    let waiting = bob.listen();
    let ours = alice.create_session(SessionConfig::point_to_point(), &name("acme/ns/bob")).await.unwrap();
    sessions.push((ours, bob.answer(waiting)["session"].clone()));
    let theirs = bob.run(create(&SessionConfig::point_to_point(), false, "acme/ns/alice"))["session"].clone();
    sessions.push((begun(&alice).await, theirs));

    let waiting = bob.listen();
    let ours = alice.create_session(SessionConfig::group(), &name("acme/ns/chan")).await.unwrap();
    ours.invite(&name("acme/ns/bob")).await.unwrap();
    sessions.push((ours, bob.answer(waiting)["session"].clone()));
    let theirs = bob.run(create(&SessionConfig::group(), true, "acme/ns/chan2"))["session"].clone();
    bob.run(json!({"do": "invite", "session": theirs, "name": "acme/ns/alice"}));
    sessions.push((begun(&alice).await, theirs));

    for (ours, theirs) in &sessions {
        for said in ["hello", large.as_str()] {
            let publication = ours.publish(said.as_bytes().to_vec()).await.unwrap();
            assert_eq!(bob.text(theirs), said);
            assert!(publication.delivered().await.unwrap().is_complete());
            bob.say(theirs, said);
            assert_eq!(text(ours).await, said);
        }
    }
    for (ours, theirs) in &sessions {
        ours.close().await.unwrap();
        if ours.is_initiator() {
            bob.sees_the_end(theirs);
        }
    }
}

/// What becomes of one who connects otherwise.
async fn refused(node: &Node, change: impl FnOnce(&mut slimline_session::ConnectConfig)) -> ConnectError {
    let mut config = node.config();
    change(&mut config);
    App::with_secret("acme/ns/carol", SECRET).unwrap().connect(config).await.expect_err("a refusal")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn over_websocket() {
    let Some(node) = Node::serving("over_websocket", Serving { web: true, ..Serving::default() }) else { return };
    both_ways(&node).await;
    let elsewhere = refused(&node, |config| config.endpoint.push_str("/elsewhere")).await;
    assert_eq!(elsewhere, ConnectError::Refused { status: 404 });
}

/// A private authority: who trusts it gets through, who does not is told why.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn over_tls() {
    let certificates = Certificates::make();
    let serving = Serving { tls: Some(certificates), ..Serving::default() };
    let Some(node) = Node::serving("over_tls", serving) else { return };
    both_ways(&node).await;
    let stranger = Certificates::make();
    let wary = refused(&node, |config| config.tls.authorities_pem = Some(stranger.read("ca.pem"))).await;
    assert!(matches!(&wary, ConnectError::Tls(why) if why.contains("invalid peer certificate")), "{wary:?}");
    let wary = refused(&node, |config| config.tls.server_name = Some("other.example".to_owned())).await;
    assert!(matches!(&wary, ConnectError::Tls(why) if why.contains("other.example")), "{wary:?}");
    let plain = refused(&node, |config| config.endpoint = node.url.replace("https", "http")).await;
    assert!(!plain.to_string().is_empty());
}

/// The node asks for a certificate: with one of its authority we get through, without one, or with a stranger's, not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn over_mutual_tls() {
    let certificates = Certificates::make();
    let serving = Serving { tls: Some(certificates), mutual: true, ..Serving::default() };
    let Some(node) = Node::serving("over_mutual_tls", serving) else { return };
    both_ways(&node).await;
    let without = refused(&node, |config| config.tls.client_pem = None).await;
    assert!(!matches!(without, ConnectError::Config(_)), "{without:?}");
    let stranger = Certificates::make();
    let theirs = (stranger.read("client.pem"), stranger.read("client.key"));
    let foreign = refused(&node, |config| config.tls.client_pem = Some(theirs)).await;
    assert!(!matches!(foreign, ConnectError::Config(_)), "{foreign:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs SLIMLINE_TEST_PYTHON"]
async fn over_websocket_and_tls() {
    let serving = Serving { web: true, tls: Some(Certificates::make()), ..Serving::default() };
    let Some(node) = Node::serving("over_websocket_and_tls", serving) else { return };
    both_ways(&node).await;
}
