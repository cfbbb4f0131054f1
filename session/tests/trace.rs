//! What an operator sees of a session: spans for connecting, for each session, and for each publish with its outcome.

#[path = "common/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node::TestNode;
use slimline_session::{App, ConnectConfig, SessionConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Every span there was: its name, what was recorded on it, and whether it ended.
#[derive(Default)]
struct Spans(BTreeMap<u64, (&'static str, BTreeMap<String, String>, usize)>);

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Spans>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("slimline_session")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut spans = self.0.lock().unwrap();
        let id = spans.0.len() as u64 + 1;
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        spans.0.insert(id, (attributes.metadata().name(), fields, 1));
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some((_, fields, _)) = self.0.lock().unwrap().0.get_mut(&span.into_u64()) {
            values.record(&mut Fields(fields));
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some((_, _, users)) = self.0.lock().unwrap().0.get_mut(&id.into_u64()) {
            *users += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.0.lock().unwrap();
        let Some((_, _, users)) = spans.0.get_mut(&id.into_u64()) else { return false };
        *users -= 1;
        *users == 0
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn spans() {
    let collector = Collector::default();
    let _guard = tracing::subscriber::set_default(collector.clone());
    let secret = "0123456789abcdef0123456789abcdef";
    let node = TestNode::start("127.0.0.1:0").await;
    let connect = |name| App::with_secret(name, secret).unwrap().connect(ConnectConfig::new(&node.url()));
    let (alice, bob) = (connect("acme/ns/alice").await.unwrap(), connect("acme/ns/bob").await.unwrap());
    let config = SessionConfig::point_to_point().with_retries(Duration::from_millis(50), 1);
    let ours = alice.create_session(config, &"acme/ns/bob".parse().unwrap()).await.unwrap();
    let _theirs = bob.listen().await.unwrap();
    ours.publish(b"the payload is nobody's business".to_vec()).await.unwrap().delivered().await.unwrap();
    // The node routes nothing to it any more, once it answered what came after that.
    bob.unsubscribe(&bob.name());
    bob.subscribe(&"acme/ns/another".parse().unwrap()).await.unwrap();
    assert!(!ours.publish(b"lost".to_vec()).await.unwrap().delivered().await.unwrap().is_complete());

    let spans = collector.0.lock().unwrap();
    let named = |wanted: &str| {
        let found = spans.0.values().filter(move |(name, _, _)| *name == wanted);
        found.map(|(_, fields, users)| (fields.clone(), *users)).collect::<Vec<_>>()
    };
    let connects = named("connect");
    assert_eq!(connects.len(), 2);
    assert_eq!(connects[0].0["endpoint"], format!("{:?}", node.url()));
    assert!(connects.iter().all(|(_, users)| *users == 0), "both ended");
    let sessions = named("session");
    assert_eq!(sessions.len(), 2, "one on each side");
    assert_eq!(sessions[0].0["local"], "acme/ns/alice");
    assert_eq!(sessions[0].0["remote"], "acme/ns/bob");
    assert_eq!(sessions[0].0["id"], ours.id().number.to_string());
    assert!(sessions[0].1 > 0, "the session goes on");
    let outcomes: Vec<_> = named("publish")
        .into_iter()
        .map(|(fields, users)| (fields["delivered"].clone(), fields["missed"].clone(), users))
        .collect();
    assert_eq!(outcomes, [("1".to_owned(), "0".to_owned(), 0), ("0".to_owned(), "1".to_owned(), 0)]);
    let all = format!("{:?}", spans.0);
    assert!(!all.contains("business") && !all.contains(secret));
}
