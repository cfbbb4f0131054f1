//! Whatever a peer sends: nobody panics, and who was in a session still talks to the others.

mod common;

use std::time::Duration;

use common::{Net, Random, SECRET};
use proptest::prelude::*;
use prost::Message as _;
use slimline_session::identity::{SharedSecret, SigningKey, Verifier as _, key::KeyKind};
use slimline_session::integrity::{is_control, sign};
use slimline_session::message::Kind;
use slimline_session::{Credentials, Name, Publish, SessionConfig, SessionId};
use slimline_wire::pb;
use slimline_wire::pb::message::MessageType;

const SECOND: Duration = Duration::from_secs(1);

/// A group of three with some history, and all that was carried.
fn group(mls: bool) -> (Net, usize, Vec<usize>, SessionId) {
    let mut net = Net::new(1);
    let moderator = net.app("acme/ns/mod");
    let now = net.now();
    let config = SessionConfig::group();
    let config = if mls { config } else { config.without_mls() };
    let channel: Name = "acme/ns/chan".parse().unwrap();
    let id = net.endpoint(moderator).create_session(now, config, &channel).unwrap();
    let mut members = Vec::new();
    for name in ["acme/ns/a", "acme/ns/b"] {
        members.push(net.app(name));
        let name: Name = name.parse().unwrap();
        net.with(moderator, id, |session, now| session.invite(now, &name)).unwrap();
        net.run(SECOND);
    }
    for app in [moderator, members[0], members[1]] {
        net.with(app, id, |session, now| session.publish(now, Publish::from(b"hello".to_vec()))).unwrap();
    }
    net.run(SECOND * 12);
    (net, moderator, members, id)
}

fn feed(net: &mut Net, message: &pb::Message) {
    let now = net.now();
    for app in 0..net.apps.len() {
        net.endpoint(app).handle(now, message.clone());
    }
    net.run(Duration::ZERO);
}

fn still_alive(net: &mut Net, moderator: usize, members: &[usize], id: SessionId) {
    net.run(SECOND * 30);
    for app in members {
        net.texts(*app, id);
    }
    net.with(moderator, id, |session, now| session.publish(now, Publish::from(b"still here".to_vec()))).unwrap();
    net.run(SECOND * 3);
    for app in members {
        assert_eq!(net.texts(*app, id).last().map(String::as_str), Some("still here"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Octets changed on the way.
    #[test]
    fn changed_octets(mls: bool, changes in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 1..200)) {
        let (mut net, moderator, members, id) = group(mls);
        let carried = net.carried.clone();
        for (which, at, value) in changes {
            let mut octets = carried[usize::from(which) % carried.len()].clone();
            let at = usize::from(at) % octets.len();
            octets[at] = value;
            if let Ok(message) = pb::Message::decode(&*octets) {
                // Without MLS nothing protects data on its way: that is the choice the application made.
                if mls || is_signed(&message) {
                    feed(&mut net, &message);
                }
            }
        }
        still_alive(&mut net, moderator, &members, id);
    }
}

fn is_signed(message: &pb::Message) -> bool {
    match &message.message_type {
        Some(MessageType::Publish(publish)) => publish
            .session
            .as_ref()
            .and_then(|session| Kind::try_from(session.session_message_type).ok())
            .is_some_and(is_control),
        _ => false,
    }
}

/// A stranger with a valid token signs all kinds of nonsense into the sessions of others, in its own name.
#[test]
fn a_stranger_with_a_token() {
    for mls in [true, false] {
        let (mut net, moderator, members, id) = group(mls);
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let eve = SharedSecret::with_subject("acme/ns/eve_12345678".into(), SECRET, key).unwrap();
        let subject = eve.verify(&slimline_session::identity::Provider::token(&eve, 5).unwrap(), 5).unwrap().subject;
        let name = "acme/ns/eve".parse::<Name>().unwrap().with_id(slimline_session::name::app_id(&subject));
        let credentials = Credentials::new(eve);
        let mut random = Random::new(7);
        let carried = net.carried.clone();
        for _ in 0..1500 {
            let pick = |random: &mut Random| {
                let which = usize::try_from(random.below(carried.len() as u64)).unwrap();
                pb::Message::decode(&*carried[which]).unwrap()
            };
            let (mut message, other) = (pick(&mut random), pick(&mut random));
            let (Some(MessageType::Publish(publish)), Some(MessageType::Publish(other))) =
                (&mut message.message_type, other.message_type)
            else {
                continue;
            };
            // Content of one message under the header of another, from the stranger, signed by it.
            if random.below(2) == 0 {
                publish.msg = other.msg;
            }
            let header = publish.header.as_mut().unwrap();
            header.source = Some(name.to_wire());
            header.identity = credentials.provider.token(net.now().unix_s).unwrap();
            let session = publish.session.as_mut().unwrap();
            session.message_id = u32::try_from(random.below(1 << 32)).unwrap();
            if random.below(3) == 0 {
                session.session_message_type = i32::try_from(5 + random.below(16)).unwrap();
            }
            sign(&mut message, &*credentials.provider).unwrap();
            feed(&mut net, &message);
        }
        still_alive(&mut net, moderator, &members, id);
    }
}
