//! Two applications, one fake clock: point-to-point sessions over good and bad links.

mod common;

use std::time::Duration;

use common::{Faults, Net};
use slimline_session::error::SessionError;
use slimline_session::{Delivery, Event, Outcome, Publish, SessionConfig, SessionId};

const SECOND: Duration = Duration::from_secs(1);

fn open(net: &mut Net, config: SessionConfig) -> (usize, usize, SessionId) {
    let alice = net.app("acme/ns/alice");
    let bob = net.app("acme/ns/bob");
    let now = net.now();
    let id = net.endpoint(alice).create_session(now, config, &"acme/ns/bob".parse().unwrap()).unwrap();
    net.until(SECOND * 60, "established", |net| net.saw(alice, |event| *event == Event::Established));
    net.until(SECOND * 60, "arrived", |net| net.arrived(bob) == Some(id));
    (alice, bob, id)
}

fn say(net: &mut Net, app: usize, id: SessionId, text: &str) -> slimline_session::PublishId {
    net.with(app, id, |session, now| session.publish(now, Publish::from(text.as_bytes().to_vec()))).unwrap()
}

fn kinds() -> Vec<SessionConfig> {
    let config = SessionConfig::point_to_point;
    vec![config(), config().without_mls(), config().unreliable(), config().unreliable().without_mls()]
}

#[test]
fn both_ways_and_closed_from_either_side() {
    for config in kinds() {
        for closer in [0, 1] {
            let mut net = Net::new(1);
            let (alice, bob, id) = open(&mut net, config.clone().with_metadata("k1", "v1"));
            let told = net.with(bob, id, |session, _| session.config().metadata.clone());
            assert_eq!(
                told.into_iter().collect::<Vec<_>>(),
                [("k1".to_owned(), "v1".to_owned())],
                "nothing internal leaks"
            );
            for n in 0..5 {
                say(&mut net, alice, id, &format!("a{n}"));
                say(&mut net, bob, id, &format!("b{n}"));
            }
            net.run(SECOND);
            assert_eq!(net.texts(bob, id), ["a0", "a1", "a2", "a3", "a4"]);
            assert_eq!(net.texts(alice, id), ["b0", "b1", "b2", "b3", "b4"]);
            for app in [alice, bob] {
                let complete = |event: &Event| matches!(event, Event::Published(_, delivery) if delivery.is_complete());
                let settled = net.apps[app].events.iter().filter(|event| match event {
                    slimline_session::AppEvent::Session(_, event) => complete(event),
                    _ => false,
                });
                assert_eq!(settled.count(), 5);
            }
            let closer = [alice, bob][closer];
            net.with(closer, id, |session, now| session.close(now)).unwrap();
            net.run(SECOND);
            for app in [alice, bob] {
                assert!(net.is_closed(app, id));
                assert!(net.saw(app, |event| matches!(event, Event::Closed(_))));
            }
            let refused = net.with(alice, id, |session, now| session.publish(now, vec![1].into()));
            assert_eq!(refused, Err(SessionError::Closed));
            net.run(SECOND * 60);
            assert!(net.endpoint(alice).session(id).is_none(), "forgotten after a while");
        }
    }
}

#[test]
fn nothing_readable_is_carried() {
    let mut net = Net::new(1);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point());
    say(&mut net, alice, id, "the plaintext nobody else may see");
    net.run(SECOND);
    assert_eq!(net.texts(bob, id).len(), 1);
    assert!(!net.carried.iter().any(|octets| octets.windows(9).any(|window| window == b"plaintext")));
}

/// Over links that lose, repeat, delay and reorder: each message once, in order, or reported as lost.
#[test]
fn by_seed() {
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let config = SessionConfig::point_to_point().with_retries(SECOND, 10);
        let config = if seed % 2 == 0 { config } else { config.without_mls() };
        let mut net = Net::new(seed);
        let faults = Faults {
            loss: 50 * (seed % 5),
            duplication: 100 * (seed % 3),
            jitter: SECOND / 50 * u32::try_from(seed % 4).unwrap(),
        };
        net.faults = faults;
        let (alice, bob, id) = open(&mut net, config);
        let mut sent = (Vec::new(), Vec::new());
        for n in 0..40 {
            say(&mut net, alice, id, &format!("a{n}"));
            sent.0.push(format!("a{n}"));
            if n % 3 == 0 {
                say(&mut net, bob, id, &format!("b{n}"));
                sent.1.push(format!("b{n}"));
            }
            net.run(SECOND / 40);
        }
        net.run(SECOND * 30);
        assert_eq!(net.texts(bob, id), sent.0, "seed {seed} {faults:?}");
        assert_eq!(net.texts(alice, id), sent.1, "seed {seed} {faults:?}");
        for (app, count) in [(alice, 40), (bob, 14)] {
            let settled = net.apps[app].events.iter().filter(|event| {
                matches!(event, slimline_session::AppEvent::Session(_, Event::Published(_, delivery)) if delivery.is_complete())
            });
            assert_eq!(settled.count(), count, "seed {seed}");
        }
        net.with(alice, id, |session, now| session.close(now)).unwrap();
        net.run(SECOND * 20);
        assert!(net.is_closed(alice, id) && net.is_closed(bob, id), "seed {seed}");
    }
}

#[test]
fn nobody_answers() {
    let mut net = Net::new(1);
    let alice = net.app("acme/ns/alice");
    let now = net.now();
    let config = SessionConfig::point_to_point().with_retries(SECOND, 3);
    net.endpoint(alice).create_session(now, config, &"acme/ns/nobody".parse().unwrap()).unwrap();
    net.run(SECOND * 3);
    assert!(!net.saw(alice, |event| matches!(event, Event::Closed(_))));
    net.run(SECOND * 2);
    assert!(net.saw(alice, |event| matches!(
        event,
        Event::Closed(SessionError::NoAnswer { stage: "the discovery request", .. })
    )));
}

#[test]
fn a_dead_peer_is_reported() {
    let mut net = Net::new(1);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point().with_retries(SECOND, 2));
    net.apps[bob].up = false;
    let publish = say(&mut net, alice, id, "anybody?");
    net.run(SECOND * 4);
    let outcome = vec![(net.name(bob), Outcome::TimedOut)];
    assert!(net.saw(alice, |event| *event == Event::Published(publish, Delivery { recipients: outcome.clone() })));
    let refused = net.with(alice, id, |session, now| session.publish(now, vec![1].into()));
    assert_eq!(refused, Err(SessionError::NobodyOnline));
    // It was only cut off: its heartbeat brings it back, and the stream goes on where it was.
    net.apps[bob].up = true;
    net.run(SECOND * 25);
    assert!(net.saw(alice, |event| matches!(event, Event::Online(_))));
    say(&mut net, alice, id, "there you are");
    net.run(SECOND * 4);
    assert_eq!(net.texts(bob, id).last().map(String::as_str), Some("there you are"));
}

/// Thirty seconds of silence, and far more: nothing is delivered twice, nothing is asked for again.
#[test]
fn the_stream_survives_idleness() {
    let mut net = Net::new(1);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point());
    say(&mut net, alice, id, "before");
    net.run(SECOND * 600);
    assert!(!net.saw(alice, |event| matches!(event, Event::Offline(_))), "heartbeats keep both online");
    say(&mut net, alice, id, "after");
    net.run(SECOND * 5);
    assert_eq!(net.texts(bob, id), ["before", "after"]);
}

/// Past the hour for which a token is good, the session lives: both renew their leaf in time.
#[test]
fn longer_than_a_token() {
    let mut net = Net::new(1);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point());
    for hour in 0..3 {
        say(&mut net, alice, id, &format!("a{hour}"));
        say(&mut net, bob, id, &format!("b{hour}"));
        net.run(SECOND * 3600);
    }
    assert_eq!(net.texts(bob, id), ["a0", "a1", "a2"]);
    assert_eq!(net.texts(alice, id), ["b0", "b1", "b2"]);
    let epochs = [alice, bob].map(|app| net.with(app, id, |session, _| session.epoch()));
    assert_eq!(epochs[0], epochs[1]);
    assert!(epochs[0].unwrap() > 5, "leaves were renewed: {epochs:?}");
}

#[test]
fn too_large_is_refused_here() {
    let mut net = Net::new(1);
    let (alice, _, id) = open(&mut net, SessionConfig::point_to_point());
    let refused = net.with(alice, id, |session, now| session.publish(now, vec![0; 4 << 20].into()));
    let refused = refused.unwrap_err();
    assert!(matches!(refused, SessionError::TooLarge { limit: 4_194_304, .. }));
    assert!(refused.to_string().ends_with("the path takes 4194304"), "{refused}");
    // The largest that is taken fits, whatever encryption and headers add to it.
    let largest = vec![7; (4 << 20) - 8 * 1024];
    net.with(alice, id, |session, now| session.publish(now, largest.into())).unwrap();
    let carried = net.carried.iter().map(Vec::len).max().unwrap();
    assert!((4 << 20) - 8 * 1024 < carried && carried <= 4 << 20, "{carried}");
}

/// A connection that takes nothing: what waits for it stays bounded, and nothing reliable is lost when it moves again.
#[test]
fn a_stuck_connection_costs_no_more_than_its_bound() {
    let mut net = Net::new(1);
    let config = SessionConfig::point_to_point().without_mls().with_retries(SECOND, 100);
    let (alice, bob, id) = open(&mut net, config);
    let now = net.now();
    for n in 0..500_u16 {
        let octets = n.to_be_bytes().repeat(16_500); // all of them fit in the send window
        net.endpoint(alice).with_session(now, id, |session| session.publish(now, octets.into())).unwrap().unwrap();
    }
    for second in 1..20 {
        let now =
            slimline_session::Now { instant: now.instant + SECOND * second, unix_s: now.unix_s + u64::from(second) };
        net.endpoint(alice).handle_timeout(now);
    }
    let (messages, octets) = net.endpoint(alice).transmits();
    assert!(messages <= 4096 && octets <= (64 << 20) + 200_000, "{messages} messages, {octets} octets");
    assert!(net.endpoint(alice).counters().dropped > 5000);
    net.run(SECOND * 60);
    let read = net.read(bob, id);
    assert_eq!(read.len(), 500);
    for (n, item) in (0_u16..).zip(read) {
        let slimline_session::Item::Message(message) = item else { panic!("lost") };
        assert_eq!(message.payload[..2], n.to_be_bytes());
    }
}

#[test]
fn a_full_window_waits_for_acknowledgements() {
    let mut net = Net::new(1);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point().without_mls());
    net.apps[bob].up = false;
    for _ in 0..512 {
        say(&mut net, alice, id, "x");
    }
    let refused = net.with(alice, id, |session, now| session.publish(now, vec![1].into()));
    assert_eq!(refused, Err(SessionError::WindowFull { in_flight: 512 }));
    net.apps[bob].up = true;
    net.run(SECOND * 5);
    assert!(net.saw(alice, |event| *event == Event::Writable));
    assert_eq!(net.texts(bob, id).len(), 512);
}

/// Whoever does not read gets no more than its inbox holds; a reliable sender keeps the rest and sends it again.
#[test]
fn a_slow_reader_loses_nothing() {
    let mut net = Net::new(1);
    let config = SessionConfig::point_to_point().without_mls().with_retries(SECOND, 30);
    let (alice, bob, id) = open(&mut net, config);
    let mut sent = 0;
    let mut read = 0;
    while sent < 3000 {
        let more = net.with(alice, id, |session, now| session.publish(now, vec![1].into()).is_ok());
        sent += usize::from(more);
        if !more {
            net.run(SECOND);
            read += net.read(bob, id).len().min(3000);
        }
    }
    net.until(SECOND * 60, "all read", |net| {
        read += net.read(bob, id).len();
        read >= 3000
    });
    net.run(SECOND * 5);
    assert_eq!(read + net.read(bob, id).len(), 3000);
}

/// Large messages: the publisher waits while so many octets are unacknowledged, and the reader's inbox is full by octets long
/// before it is by number. What was refused for that comes again when there is room, in order.
#[test]
fn octets_are_bounded_too() {
    const MESSAGES: u32 = 150;
    let mut net = Net::new(1);
    let config = SessionConfig::point_to_point().without_mls().with_retries(SECOND, 30);
    let (alice, bob, id) = open(&mut net, config);
    let (mut sent, mut waited) = (0_u32, 0);
    let mut publish = |net: &mut Net| {
        while sent < MESSAGES {
            let octets = sent.to_be_bytes().repeat(1 << 18);
            match net.with(alice, id, |session, now| session.publish(now, octets.into())) {
                Ok(_) => sent += 1,
                Err(SessionError::WindowFull { in_flight }) => {
                    assert!(in_flight <= 16, "{in_flight} MiB in flight");
                    waited += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        sent
    };
    // Nobody reads: 64 fit in the inbox, 16 more wait at the sender.
    for _ in 0..20 {
        publish(&mut net);
        net.run(SECOND / 2);
        net.carried.clear();
    }
    assert_eq!(publish(&mut net), 64 + 16);
    assert!(net.endpoint(bob).counters().postponed > 0);
    let mut read = Vec::new();
    for _ in 0..60 {
        read.extend(net.read(bob, id));
        publish(&mut net);
        net.run(SECOND / 2);
        net.carried.clear();
    }
    assert_eq!(publish(&mut net), MESSAGES);
    assert!(waited > 10);
    let numbers = read.into_iter().map(|item| match item {
        slimline_session::Item::Message(message) => u32::from_be_bytes(message.payload[..4].try_into().unwrap()),
        lost => panic!("{lost:?}"),
    });
    assert!(numbers.eq(0..MESSAGES));
}

/// Suite 0x0001, by the keys of the identities; and one group has one suite.
#[test]
fn ed25519_where_all_are_ours() {
    use slimline_session::Credentials;
    use slimline_session::identity::SharedSecret;
    use slimline_session::identity::key::KeyKind;
    let mut net = Net::new(1);
    let of = |net: &mut Net, name: &str| {
        let identity = SharedSecret::with_kind(name, common::SECRET, KeyKind::Ed25519).unwrap();
        net.app_with(name, Credentials::new(identity))
    };
    let (alice, bob) = (of(&mut net, "acme/ns/alice"), of(&mut net, "acme/ns/bob"));
    let carol = net.app("acme/ns/carol");
    let now = net.now();
    let config = SessionConfig::point_to_point();
    let id = net.endpoint(alice).create_session(now, config.clone(), &"acme/ns/bob".parse().unwrap()).unwrap();
    net.until(SECOND * 10, "arrived", |net| net.arrived(bob) == Some(id));
    say(&mut net, alice, id, "short signatures");
    say(&mut net, bob, id, "and quick ones");
    net.run(SECOND);
    assert_eq!(net.texts(bob, id), ["short signatures"]);
    assert_eq!(net.texts(alice, id), ["and quick ones"]);
    assert!(net.with(bob, id, |session, _| session.epoch()).is_some());

    let now = net.now();
    net.endpoint(alice).create_session(now, config, &"acme/ns/carol".parse().unwrap()).unwrap();
    net.run(SECOND * 10);
    let told = |event: &Event| match event {
        Event::Closed(SessionError::Refused { why, .. }) => why.contains("cipher suite"),
        _ => false,
    };
    assert!(net.saw(alice, told), "{:?}", net.apps[alice].events);
    assert_eq!(net.arrived(carol), None);
}

/// Whoever asks for the same message all the time gets it so often, and no more often until time has passed.
#[test]
fn retransmissions_have_a_rate() {
    use slimline_wire::pb::SessionMessageType::{MsgAck, RtxReply, RtxRequest};
    use slimline_wire::pb::message::MessageType;
    let mut net = Net::new(1);
    let (alice, bob, id) = open(&mut net, SessionConfig::point_to_point().without_mls());
    say(&mut net, alice, id, "said once");
    net.run(SECOND);
    // An acknowledgement made a request: neither is signed.
    let mut request = net.carried_by(bob, MsgAck, 1).pop().unwrap();
    let Some(MessageType::Publish(publish)) = &mut request.message_type else { panic!("{request:?}") };
    publish.session.as_mut().unwrap().session_message_type = RtxRequest.into();
    let replies = |net: &mut Net, requests: usize| {
        let before = net.carried_by(alice, RtxReply, 1).len();
        for _ in 0..requests {
            let now = net.now();
            net.endpoint(alice).handle(now, request.clone());
            net.run(Duration::ZERO);
        }
        net.carried_by(alice, RtxReply, 1).len() - before
    };
    assert_eq!(replies(&mut net, 6000), 5120);
    net.run(SECOND * 11);
    assert_eq!(replies(&mut net, 3), 3);
    assert_eq!(net.texts(bob, id), ["said once"]);
}

/// A request under a name that its identity does not derive is answered by whoever does not mind; by default everybody does.
#[test]
fn names_belong_to_identities() {
    use prost::Message as _;
    use slimline_session::identity::{Binding, SharedSecret};
    use slimline_session::{Credentials, NameId};
    use slimline_wire::pb::message::MessageType;
    use slimline_wire::pb::{self, SessionMessageType::DiscoveryReply};
    let of = |name: &str| Credentials::new(SharedSecret::new(name, common::SECRET).unwrap());
    let as_it_comes = of("acme/ns/bob").binding;
    for (binding, answers) in [(Binding::Off, 2), (Binding::Warn, 2), (Binding::Enforce, 1), (as_it_comes, 1)] {
        let mut net = Net::new(1);
        let eves = of("acme/ns/eve");
        let eve = net.app_with("acme/ns/eve", eves.clone());
        let bob = net.app_with("acme/ns/bob", Credentials { binding, ..of("acme/ns/bob") });
        let now = net.now();
        let to = net.name(bob).without_id();
        net.endpoint(eve).create_session(now, SessionConfig::point_to_point(), &to).unwrap();
        net.run(SECOND);
        let discovery = |octets: &Vec<u8>| {
            let mut message = pb::Message::decode(&**octets).unwrap();
            let Some(MessageType::Publish(publish)) = &mut message.message_type else { return None };
            let session = publish.session.as_ref().unwrap();
            let id = session.message_id;
            let wanted = session.session_message_type() == pb::SessionMessageType::DiscoveryRequest;
            publish.header.as_mut().unwrap().source = Some(net.name(eve).with_id(NameId(7)).to_wire());
            wanted.then_some((id, message))
        };
        let (id, mut request) = net.carried.iter().find_map(discovery).unwrap();
        slimline_session::integrity::sign(&mut request, &*eves.provider).unwrap();
        let now = net.now();
        net.endpoint(bob).handle(now, request);
        net.run(SECOND);
        assert_eq!(net.carried_by(bob, DiscoveryReply, id).len(), answers, "{binding:?}");
    }
}
