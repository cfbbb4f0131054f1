//! What others can do to a session with messages that are well signed: strangers to it, and members that misbehave.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Net, SECRET};
use prost::Message as _;
use slimline_session::error::SessionError;
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{Binding, Provider, SharedSecret, SigningKey};
use slimline_session::integrity;
use slimline_session::name::app_id;
use slimline_session::{AppEvent, Credentials, Event, Name, Publish, SessionConfig, SessionId};
use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;
use slimline_wire::pb::message::MessageType;
use slimline_wire::pb::{SessionMessageType as Kind, SessionType};

const SECOND: Duration = Duration::from_secs(1);

/// An application whose key the test holds.
struct Signer {
    identity: Arc<SharedSecret>,
    app: usize,
    name: Name,
    said: u32,
}

impl Signer {
    fn new(net: &mut Net, name: &str) -> Self {
        let identity = Arc::new(SharedSecret::new(name, SECRET).unwrap());
        let (provider, verifier) = (identity.clone(), identity.clone());
        let app = net.app_with(name, Credentials { provider, verifier, binding: Binding::Enforce });
        Self { identity, app, name: net.name(app), said: 0 }
    }

    /// Says something to an application, with every signature in its place.
    fn says(&mut self, net: &mut Net, to: usize, session: (SessionType, u32), kind: Kind, command: Command) {
        self.says_with(net, to, session, kind, command, &[]);
    }

    fn says_with(
        &mut self,
        net: &mut Net,
        to: usize,
        (session_type, session_id): (SessionType, u32),
        kind: Kind,
        command: Command,
        metadata: &[(&str, &str)],
    ) {
        self.said += 1;
        let now = net.now();
        let publish = pb::Publish {
            header: Some(pb::SlimHeader {
                source: Some(self.name.to_wire()),
                destination: Some(net.name(to).to_wire()),
                identity: self.identity.token(now.unix_s).unwrap(),
                fanout: 1,
                ttl: 8,
                ..Default::default()
            }),
            session: Some(pb::SessionHeader {
                session_type: session_type.into(),
                session_message_type: kind.into(),
                session_id,
                message_id: self.said,
            }),
            msg: Some(pb::Content {
                content_type: Some(pb::content::ContentType::CommandPayload(pb::CommandPayload {
                    command_payload_type: Some(command),
                })),
            }),
        };
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut message =
            pb::Message { metadata: metadata.collect(), message_type: Some(MessageType::Publish(publish)) };
        integrity::sign(&mut message, &*self.identity).unwrap();
        net.endpoint(to).handle(now, message);
    }
}

fn join() -> Command {
    Command::JoinRequest(pb::JoinRequestPayload {
        mls_settings: Some(pb::MlsSettings { header_integrity_validation_percent: 100 }),
        ..Default::default()
    })
}

fn found(net: &mut Net) -> (usize, SessionId) {
    let moderator = net.app("acme/ns/mod");
    let now = net.now();
    let channel = "acme/ns/chan".parse().unwrap();
    (moderator, net.endpoint(moderator).create_session(now, SessionConfig::group(), &channel).unwrap())
}

fn invite(net: &mut Net, moderator: usize, id: SessionId, app: usize) -> Option<Result<(), SessionError>> {
    let name = net.name(app).without_id();
    let command = net.with(moderator, id, |session, now| session.invite(now, &name)).unwrap();
    net.run(SECOND * 3);
    net.apps[moderator].events.iter().find_map(|event| match event {
        AppEvent::Session(_, Event::Done(done, result)) if *done == command => Some(result.clone()),
        _ => None,
    })
}

fn say(net: &mut Net, app: usize, id: SessionId, text: &str) {
    let publish = Publish::from(text.as_bytes().to_vec());
    net.with(app, id, |session, now| session.publish(now, publish)).unwrap();
    net.run(SECOND);
}

/// What members said is remembered, so that it counts once, however much strangers say meanwhile.
#[test]
fn strangers_are_not_remembered() {
    let mut net = Net::new(1);
    let (moderator, id) = found(&mut net);
    let a = net.app("acme/ns/a");
    assert_eq!(invite(&mut net, moderator, id, a), Some(Ok(())));
    net.with(a, id, |session, now| session.go_offline(now)).unwrap();
    net.run(SECOND);
    let goodbye = net.carried.iter().map(|octets| pb::Message::decode(&**octets).unwrap()).find(|message| {
        let Some(MessageType::Publish(publish)) = &message.message_type else { return false };
        publish.session.unwrap().session_message_type() == Kind::UpdateParticipantState
    });
    net.with(a, id, |session, now| session.rejoin(now)).unwrap();
    net.run(SECOND);
    let offline = |net: &Net| {
        let events = net.apps[moderator].events.iter();
        events.filter(|event| matches!(event, AppEvent::Session(_, Event::Offline(_)))).count()
    };
    assert_eq!(offline(&net), 1);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    for _ in 0..1100 {
        let beat = Command::Heartbeat(pb::HeartbeatPayload { epoch: 1 });
        eve.says(&mut net, moderator, (SessionType::Multicast, id.number), Kind::Heartbeat, beat);
        let leave = Command::LeaveRequest(pb::LeaveRequestPayload {});
        let (kind, leaving) = (Kind::LeaveRequest, [("LEAVING_SESSION", "TRUE")]);
        eve.says_with(&mut net, moderator, (SessionType::Multicast, id.number), kind, leave, &leaving);
    }
    let now = net.now();
    net.endpoint(moderator).handle(now, goodbye.unwrap());
    net.run(SECOND);
    assert_eq!(offline(&net), 1, "an old goodbye was believed again");
}

/// A member that says again and again that it leaves does not fill the queue of what the moderator has to do.
#[test]
fn a_leaver_leaves_once() {
    let mut net = Net::new(2);
    let (moderator, id) = found(&mut net);
    let mut a = Signer::new(&mut net, "acme/ns/a");
    let b = net.app("acme/ns/b");
    for app in [a.app, b] {
        assert_eq!(invite(&mut net, moderator, id, app), Some(Ok(())));
    }
    // The moderator is busy: whom it invites does not answer.
    net.with(moderator, id, |session, now| session.invite(now, &"acme/ns/nobody".parse().unwrap())).unwrap();
    for _ in 0..1000 {
        let leave = Command::LeaveRequest(pb::LeaveRequestPayload {});
        let (kind, leaving) = (Kind::LeaveRequest, [("LEAVING_SESSION", "TRUE")]);
        a.says_with(&mut net, moderator, (SessionType::Multicast, id.number), kind, leave, &leaving);
    }
    let command = net.with(moderator, id, |session, now| session.remove(now, &"acme/ns/b".parse().unwrap()));
    assert!(command.is_ok(), "{command:?}");
    net.run(SECOND * 30);
    assert_eq!(net.with(moderator, id, |session, _| session.participants().len()), 1);
}

/// A member that says that there are later epochs does not have all others ask for new leaves all the time.
#[test]
fn epochs_that_are_not() {
    let mut net = Net::new(3);
    let (moderator, id) = found(&mut net);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    let others = [net.app("acme/ns/b"), net.app("acme/ns/c")];
    for app in [eve.app].into_iter().chain(others) {
        assert_eq!(invite(&mut net, moderator, id, app), Some(Ok(())));
    }
    let before = net.with(moderator, id, |session, _| session.epoch()).unwrap();
    for _ in 0..60 {
        for other in others {
            let epoch = net.with(other, id, |session, _| session.epoch()).unwrap() + 1;
            let beat = Command::Heartbeat(pb::HeartbeatPayload { epoch });
            eve.says(&mut net, other, (SessionType::Multicast, id.number), Kind::Heartbeat, beat);
        }
        net.run(SECOND * 2);
    }
    let commits = net.with(moderator, id, |session, _| session.epoch()).unwrap() - before;
    assert!((2..=10).contains(&commits), "{commits} commits in two minutes");
}

/// A member that asks for one new leaf after the other gets one from time to time.
#[test]
fn readmitted_again_and_again() {
    use slimline_session::mls::Group;
    let mut net = Net::new(4);
    let (moderator, id) = found(&mut net);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    let b = net.app("acme/ns/b");
    for app in [eve.app, b] {
        assert_eq!(invite(&mut net, moderator, id, app), Some(Ok(())));
    }
    let before = net.with(moderator, id, |session, _| session.epoch()).unwrap();
    let mut leaves = Group::new(eve.identity.clone(), eve.identity.clone()).unwrap();
    for _ in 0..200 {
        let key_package = leaves.key_package(net.now().unix_s).unwrap();
        let participant = Some(eve.name.to_wire());
        let rejoin = Command::RejoinRequest(pb::RejoinRequestPayload { participant, key_package });
        eve.says(&mut net, moderator, (SessionType::Multicast, id.number), Kind::RejoinRequest, rejoin);
        net.run(SECOND / 40);
        eve.said -= 1; // an acknowledgement has the id of what it acknowledges, which has that of the request
        let ack = Command::GroupAck(pb::GroupAckPayload {});
        eve.says(&mut net, moderator, (SessionType::Multicast, id.number), Kind::GroupAck, ack);
        net.run(SECOND / 40);
    }
    let commits = net.with(moderator, id, |session, _| session.epoch()).unwrap() - before;
    assert!((1..=10).contains(&commits), "{commits} commits in ten seconds");
    say(&mut net, moderator, id, "to b");
    assert_eq!(net.texts(b, id), ["to b"]);
}

/// Whoever is first with the number of a session does not keep its moderator from inviting us to it.
#[test]
fn a_number_that_is_taken() {
    let mut net = Net::new(5);
    let (moderator, id) = found(&mut net);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    let [a, b] = ["acme/ns/a", "acme/ns/b"].map(|name| net.app(name));
    assert_eq!(invite(&mut net, moderator, id, a), Some(Ok(())));
    for app in [b, a, moderator] {
        eve.says(&mut net, app, (SessionType::PointToPoint, id.number), Kind::JoinRequest, join());
    }
    net.run(SECOND / 10);
    assert_eq!(invite(&mut net, moderator, id, b), Some(Ok(())), "the number was taken");
    let ours = net.arrived(b).unwrap();
    assert_eq!(ours.number, id.number);
    say(&mut net, moderator, id, "hello b");
    say(&mut net, b, ours, "hello all");
    say(&mut net, a, id, "hello too");
    assert_eq!(net.texts(b, ours), ["hello b", "hello too"]);
    assert_eq!(net.texts(a, id), ["hello b", "hello all"]);
    assert_eq!(net.texts(moderator, id), ["hello all", "hello too"]);
    // The other invitations came to nothing, and nobody was told of them.
    net.run(SECOND * 100);
    assert_eq!(net.arrived(b), Some(ours));
    say(&mut net, moderator, id, "still here");
    assert_eq!(net.texts(b, ours), ["still here"]);
}

/// One identity that invites and invites leaves room for others.
#[test]
fn room_for_other_invitations() {
    let mut net = Net::new(6);
    let (moderator, id) = found(&mut net);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    let a = net.app("acme/ns/a");
    for number in 0..1000 {
        eve.says(&mut net, a, (SessionType::PointToPoint, number), Kind::JoinRequest, join());
    }
    assert_eq!(invite(&mut net, moderator, id, a), Some(Ok(())));
}

/// A moderator may number its commits as it likes, up to the last number there is.
#[test]
fn commits_up_to_the_last_number() {
    use slimline_session::mls::Group;
    let mut net = Net::new(8);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    let a = net.app("acme/ns/a");
    let session = (SessionType::PointToPoint, 77);
    eve.says(&mut net, a, session, Kind::JoinRequest, join());
    net.run(SECOND / 10);
    let reply = net.carried_by(a, Kind::JoinReply, eve.said).remove(0);
    let Some(MessageType::Publish(publish)) = reply.message_type else { unreachable!() };
    let Some(pb::content::ContentType::CommandPayload(payload)) = publish.msg.unwrap().content_type else {
        unreachable!()
    };
    let Some(Command::JoinReply(reply)) = payload.command_payload_type else { unreachable!() };
    let mut group = Group::new(eve.identity.clone(), eve.identity.clone()).unwrap();
    let now = net.now().unix_s;
    group.create(now).unwrap();
    let welcome = group.add(&reply.key_package.unwrap(), now).unwrap().welcome.unwrap();
    let participant = |name: &Name| pb::Participant { name: Some(name.to_wire()), settings: None, status: 0 };
    let participants = vec![participant(&eve.name), participant(&net.name(a))];
    let mls = |commit_id, mls_content| Some(pb::MlsPayload { commit_id, mls_content });
    let welcome = pb::GroupWelcomePayload { participants: participants.clone(), mls: mls(u32::MAX - 1, welcome) };
    eve.says(&mut net, a, session, Kind::GroupWelcome, Command::GroupWelcome(welcome));
    net.run(SECOND / 10);
    let id = net.arrived(a).unwrap();
    assert_eq!(net.with(a, id, |session, _| session.epoch()), Some(1));
    let commit = group.refresh(now).unwrap().commit;
    let update = pb::GroupUpdatePayload {
        op: pb::GroupUpdateOp::Rejoin.into(),
        participant: Some(participant(&eve.name)),
        participants,
        mls: mls(u32::MAX, commit),
    };
    eve.says(&mut net, a, session, Kind::GroupUpdate, Command::GroupUpdate(update));
    net.run(SECOND);
    assert_eq!(net.with(a, id, |session, _| session.epoch()), Some(2));
    eve.says(&mut net, a, session, Kind::GroupClose, Command::GroupClose(pb::GroupClosePayload::default()));
    assert!(net.is_closed(a, id));
    assert_eq!(net.with(a, id, |session, _| session.epoch()), None, "the group's secrets are gone");
}

/// What is remembered as long as a session lives has a size.
#[test]
fn much_text() {
    let mut net = Net::new(7);
    let mut eve = Signer::new(&mut net, "acme/ns/eve");
    let a = net.app("acme/ns/a");
    let before = net.endpoint(a).counters();
    let large = "x".repeat(64 * 1024);
    eve.says_with(&mut net, a, (SessionType::PointToPoint, 1), Kind::JoinRequest, join(), &[("k", &large)]);
    assert_eq!(net.endpoint(a).counters().refused, before.refused + 1);
    eve.says_with(&mut net, a, (SessionType::PointToPoint, 1), Kind::JoinRequest, join(), &[("k", &large[1..])]);
    assert_eq!(net.endpoint(a).counters().refused, before.refused + 1, "64 KiB are taken");
    // A token is good, but as long as its owner's name.
    let mut long = Signer::new(&mut net, &format!("acme/ns/{}", "x".repeat(900)));
    let subject = "x".repeat(16 * 1024);
    let key = SigningKey::generate(KeyKind::P256).unwrap();
    long.name = long.name.with_id(app_id(&subject));
    long.identity = Arc::new(SharedSecret::with_subject(subject, SECRET, key).unwrap());
    let before = net.endpoint(a).counters();
    long.says(&mut net, a, (SessionType::PointToPoint, 2), Kind::JoinRequest, join());
    assert_eq!(net.endpoint(a).counters().unverified, before.unverified + 1);
    let config = SessionConfig::group().with_metadata("k", &large);
    let now = net.now();
    let refused = net.endpoint(a).create_session(now, config, &"acme/ns/chan".parse().unwrap());
    assert_eq!(refused, Err(SessionError::MetadataTooLarge { octets: 65_537, limit: 65_536 }));
}
