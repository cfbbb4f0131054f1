//! Other identities than a shared secret.

use std::sync::Arc;

use serde_json::json;
use slimline_session::identity::Binding;
use slimline_session::identity::jwt::{Algorithm, JwtProvider, JwtVerifier};
use slimline_session::{App, Credentials, SessionConfig};

use crate::kit::{PATIENCE, Python, SECOND, create, name, text};
use crate::nodes::Node;

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
        let ours = tokio::time::timeout(PATIENCE, alice.listen()).await.unwrap().unwrap();
        bob.run(json!({"do": "publish", "session": theirs, "text": "and back", "wait": true}));
        assert_eq!(text(&ours).await, "and back");
    }
}
