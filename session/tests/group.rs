//! Groups on one fake clock: who is in, who hears what, and that a group survives bad links, silence and return.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Faults, Net, Random};
use slimline_session::error::SessionError;
use slimline_session::identity::SharedSecret;
use slimline_session::{AppEvent, CommandId, Event, Name, Outcome, Publish, SessionConfig, SessionId};
use slimline_wire::pb::SessionMessageType as Kind;

const SECOND: Duration = Duration::from_secs(1);

struct Group {
    net: Net,
    moderator: usize,
    id: SessionId,
    members: Vec<usize>,
}

fn found(seed: u64, config: SessionConfig) -> Group {
    let mut net = Net::new(seed);
    let moderator = net.app("acme/ns/mod");
    let now = net.now();
    let id = net.endpoint(moderator).create_session(now, config, &"acme/ns/chan".parse().unwrap()).unwrap();
    net.run(Duration::ZERO);
    Group { net, moderator, id, members: Vec::new() }
}

impl Group {
    fn command(&mut self, command: CommandId) -> Option<Result<(), SessionError>> {
        self.net.apps[self.moderator].events.iter().find_map(|event| match event {
            AppEvent::Session(_, Event::Done(done, result)) if *done == command => Some(result.clone()),
            _ => None,
        })
    }

    fn finish(&mut self, command: CommandId) -> Result<(), SessionError> {
        for _ in 0..1200 {
            if let Some(result) = self.command(command) {
                return result;
            }
            self.net.run(SECOND / 10);
        }
        panic!("{command:?} never finished");
    }

    fn invite(&mut self, name: &str) -> usize {
        let app = self.net.app(name);
        let name: Name = name.parse().unwrap();
        let command = self.net.with(self.moderator, self.id, |session, now| session.invite(now, &name)).unwrap();
        assert_eq!(self.finish(command), Ok(()));
        assert_eq!(self.net.arrived(app), Some(self.id));
        self.members.push(app);
        app
    }

    fn remove(&mut self, app: usize) {
        let name = self.net.name(app);
        let command =
            self.net.with(self.moderator, self.id, |session, now| session.remove(now, &name.without_id())).unwrap();
        assert_eq!(self.finish(command), Ok(()));
        self.members.retain(|member| *member != app);
    }

    fn say(&mut self, app: usize, text: &str) {
        let publish = Publish::from(text.as_bytes().to_vec());
        self.net.with(app, self.id, |session, now| session.publish(now, publish)).unwrap();
    }

    fn everybody(&self) -> Vec<usize> {
        std::iter::once(self.moderator).chain(self.members.iter().copied()).collect()
    }

    fn texts(&mut self, app: usize) -> Vec<String> {
        self.net.texts(app, self.id)
    }

    fn epochs_agree(&mut self) {
        let id = self.id;
        let epochs: Vec<_> =
            self.everybody().into_iter().map(|app| self.net.with(app, id, |session, _| session.epoch())).collect();
        assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    }

    fn rosters_agree(&mut self) {
        let id = self.id;
        for app in self.everybody() {
            let mut names: Vec<Name> =
                self.net.with(app, id, |session, _| session.participants()).into_iter().map(|p| p.name).collect();
            names.sort();
            let mut expected: Vec<Name> = self.everybody().into_iter().map(|app| self.net.name(app)).collect();
            expected.sort();
            assert_eq!(names, expected, "as {app} sees it");
        }
    }
}

fn kinds() -> Vec<SessionConfig> {
    let config = SessionConfig::group;
    vec![config(), config().without_mls(), config().unreliable(), config().unreliable().without_mls()]
}

/// The classic: a moderator founds a channel, invites, everybody talks to everybody, one goes, all end.
#[test]
fn a_channel() {
    for config in kinds() {
        let mut group = found(1, config);
        let a = group.invite("acme/ns/a");
        let b = group.invite("acme/ns/b");
        let c = group.invite("acme/ns/c");
        group.rosters_agree();
        group.epochs_agree();
        for app in group.everybody() {
            group.say(app, &format!("from {app}"));
        }
        group.net.run(SECOND);
        for app in group.everybody() {
            let mut expected: Vec<String> = group
                .everybody()
                .into_iter()
                .filter(|other| *other != app)
                .map(|other| format!("from {other}"))
                .collect();
            expected.sort();
            let mut texts = group.texts(app);
            texts.sort();
            assert_eq!(texts, expected);
        }

        group.remove(b);
        assert!(group.net.is_closed(b, group.id));
        assert!(group.net.saw(b, |event| *event == Event::Closed(SessionError::Removed)));
        group.rosters_agree();
        group.epochs_agree();
        group.say(a, "without b");
        group.net.run(SECOND);
        assert_eq!(group.texts(c), ["without b"]);
        assert_eq!(group.texts(group.moderator), ["without b"]);
        assert!(group.texts(b).is_empty());

        // To one alone.
        let to = Some(group.net.name(c));
        let publish = Publish { to, ..Publish::from(b"psst".to_vec()) };
        group.net.with(a, group.id, |session, now| session.publish(now, publish)).unwrap();
        group.net.run(SECOND);
        assert_eq!(group.texts(c), ["psst"]);
        assert!(group.texts(group.moderator).is_empty());

        // One leaves by itself, the moderator closes for the rest.
        group.net.with(a, group.id, |session, now| session.close(now)).unwrap();
        group.net.run(SECOND * 3);
        assert!(group.net.is_closed(a, group.id));
        group.members.retain(|member| *member != a);
        group.rosters_agree();
        group.epochs_agree();
        group.net.with(group.moderator, group.id, |session, now| session.close(now)).unwrap();
        group.net.run(SECOND * 3);
        assert!(group.net.is_closed(c, group.id) && group.net.is_closed(group.moderator, group.id));
    }
}

#[test]
fn refusals() {
    let mut group = found(1, SessionConfig::group().with_retries(SECOND, 2));
    let a = group.invite("acme/ns/a");
    let moderator = group.moderator;
    let invite = |group: &mut Group, name: &str| {
        let name: Name = name.parse().unwrap();
        let command = group.net.with(moderator, group.id, |session, now| session.invite(now, &name)).unwrap();
        group.finish(command)
    };
    assert!(matches!(invite(&mut group, "acme/ns/a"), Err(SessionError::AlreadyMember(_))));
    assert!(matches!(invite(&mut group, "acme/ns/nobody"), Err(SessionError::NoAnswer { .. })));
    let nobody: Name = "acme/ns/nobody".parse().unwrap();
    let command = group.net.with(moderator, group.id, |session, now| session.remove(now, &nobody)).unwrap();
    assert!(matches!(group.finish(command), Err(SessionError::NotMember(_))));
    let refused = group.net.with(a, group.id, |session, now| session.invite(now, &nobody));
    assert_eq!(refused, Err(SessionError::NotModerator("invite")));
    let alone = found(2, SessionConfig::group());
    let mut net = alone.net;
    let refused = net.with(alone.moderator, alone.id, |session, now| session.publish(now, vec![1].into()));
    assert_eq!(refused, Err(SessionError::NobodyOnline));
}

/// A member says goodbye, misses a change of membership, comes back, and reads on.
#[test]
fn away_and_back() {
    for mls in [true, false] {
        let config = SessionConfig::group();
        let mut group = found(3, if mls { config } else { config.without_mls() });
        let a = group.invite("acme/ns/a");
        let b = group.invite("acme/ns/b");
        group.say(b, "bye");
        group.net.run(SECOND);
        group.net.with(b, group.id, |session, now| session.go_offline(now)).unwrap();
        group.net.run(SECOND);
        assert!(group.net.saw(a, |event| matches!(event, Event::Offline(_))));
        group.say(a, "b does not hear this");
        let c = group.invite("acme/ns/c");
        group.net.run(SECOND * 30);
        assert!(group.texts(b).is_empty());
        group.net.with(b, group.id, |session, now| session.rejoin(now)).unwrap();
        group.net.run(SECOND * 5);
        group.epochs_agree();
        group.rosters_agree();
        for app in [a, c] {
            group.texts(app);
        }
        group.say(b, "back");
        group.say(a, "hello again");
        group.net.run(SECOND * 3);
        assert_eq!(group.texts(c), ["back", "hello again"]);
        assert_eq!(group.texts(b), ["hello again"]);
    }
}

/// A member that missed a commit learns of it by a heartbeat and asks for a new leaf.
#[test]
fn a_missed_commit_is_made_good() {
    let mut group = found(4, SessionConfig::group().with_retries(SECOND, 2));
    let a = group.invite("acme/ns/a");
    let b = group.invite("acme/ns/b");
    group.net.filter = Box::new(move |_, to, _| to != b);
    let c = group.invite("acme/ns/c");
    group.net.filter = Box::new(|_, _, _| true);
    group.net.run(SECOND * 40);
    group.epochs_agree();
    group.say(a, "all here");
    group.net.run(SECOND * 3);
    for app in [group.moderator, b, c] {
        assert_eq!(group.texts(app), ["all here"]);
    }
}

/// Messages to one member alone are known by their ids, so those that are remembered have different ones.
#[test]
fn alone_in_order() {
    use prost::Message as _;
    use slimline_wire::pb;
    let mut group = found(15, SessionConfig::group().without_mls());
    let a = group.invite("acme/ns/a");
    let (to, before) = (group.net.name(a), group.net.carried.len());
    for n in 0..5_u8 {
        let publish = Publish { to: Some(to.clone()), ..vec![n].into() };
        group.net.with(group.moderator, group.id, |session, now| session.publish(now, publish)).unwrap();
    }
    let said = group.net.carried[before..].iter().map(|octets| pb::Message::decode(&**octets).unwrap());
    let ids: Vec<u32> = said
        .filter_map(|message| match message.message_type {
            Some(pb::message::MessageType::Publish(publish)) => publish.session,
            _ => None,
        })
        .filter(|session| session.session_message_type() == Kind::Msg)
        .map(|session| session.message_id)
        .collect();
    assert_eq!(ids.len(), 5);
    let next = |id: u32| if id < u32::MAX - 2 { id + 1 } else { 1 << 31 };
    assert!(ids.windows(2).all(|pair| pair[1] == next(pair[0]) && pair[0] >= 1 << 31), "{ids:?}");
}

/// Hours pass: every leaf is renewed, nobody falls out.
#[test]
fn longer_than_a_token() {
    let mut group = found(5, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    let b = group.invite("acme/ns/b");
    for hour in 0..3 {
        group.net.run(SECOND * 3600);
        group.say(a, &format!("{hour}"));
        group.net.run(SECOND * 2);
    }
    assert_eq!(group.texts(b), ["0", "1", "2"]);
    assert_eq!(group.texts(group.moderator), ["0", "1", "2"]);
    group.epochs_agree();
    // Somebody who comes now is let in although the first tokens are long past.
    group.invite("acme/ns/c");
    group.rosters_agree();
}

/// What is accepted arrives at every member, once and in order, over bad links.
#[test]
fn by_seed() {
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        let config = SessionConfig::group().with_retries(SECOND, 10);
        let mut group = found(seed, if seed % 2 == 0 { config } else { config.without_mls() });
        let faults = Faults {
            loss: 40 * (seed % 4),
            duplication: 100 * (seed % 3),
            jitter: SECOND / 50 * u32::try_from(seed % 2).unwrap(),
        };
        group.net.faults = faults;
        for name in ["acme/ns/a", "acme/ns/b", "acme/ns/c"] {
            group.invite(name);
        }
        group.net.run(SECOND * 15);
        let mut random = Random::new(seed + 77);
        let mut sent = std::collections::BTreeMap::<usize, Vec<String>>::new();
        for n in 0..30 {
            let all = group.everybody();
            let who = all[usize::try_from(random.below(all.len() as u64)).unwrap()];
            let text = format!("{who}:{n}");
            group.say(who, &text);
            sent.entry(who).or_default().push(text);
            group.net.run(SECOND / 20);
        }
        group.net.run(SECOND * 30);
        for app in group.everybody() {
            let texts = group.texts(app);
            for (who, sent) in sent.iter().filter(|(who, _)| **who != app) {
                let prefix = format!("{who}:");
                let mut from: Vec<&String> = texts.iter().filter(|text| text.starts_with(&prefix)).collect();
                let mut sent: Vec<&String> = sent.iter().collect();
                // Whoever came later enters the stream in the middle: what was overtaken just then arrives late, once.
                if *who < app {
                    from.sort();
                    sent.sort();
                }
                assert_eq!(from, sent, "seed {seed} {faults:?} to {app}: {texts:?}");
            }
        }
        group.epochs_agree();
        group.rosters_agree();
    }
}

/// A stranger with a valid token can neither take a session over nor end it, and stray replies change nothing.
#[test]
fn strangers_and_strays() {
    use prost::Message as _;
    use slimline_wire::pb;
    let mut group = found(6, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    group.invite("acme/ns/b");
    // A second moderator founds a session, and its messages are given the first one's session id.
    let eve = group.net.app("acme/ns/eve");
    let now = group.net.now();
    let name: Name = "acme/ns/chan".parse().unwrap();
    let evil = group.net.endpoint(eve).create_session(now, SessionConfig::group(), &name).unwrap();
    let victim: Name = "acme/ns/a".parse().unwrap();
    group.net.with(eve, evil, |session, now| session.invite(now, &victim)).unwrap();
    group.net.run(SECOND * 3);
    // Everything that was ever carried arrives once more, at everybody.
    let before = group.net.apps.len();
    let carried = group.net.carried.clone();
    let now = group.net.now();
    for octets in carried {
        for app in 0..before {
            group.net.endpoint(app).handle(now, pb::Message::decode(&*octets).unwrap());
        }
    }
    group.net.run(SECOND * 30);
    group.rosters_agree();
    group.epochs_agree();
    group.texts(a);
    group.say(group.moderator, "still here");
    group.net.run(SECOND);
    assert_eq!(group.texts(a), ["still here"]);
}

/// A group of members whose tokens are JWTs that live so long.
fn found_with_tokens_of(seed: u64, life_s: u64) -> Group {
    use slimline_session::identity::jwt::{Algorithm, JwtProvider, JwtVerifier};
    use slimline_session::{Credentials, Event};
    let mut net = Net::new(seed);
    let apps: Vec<usize> = ["acme/ns/mod", "acme/ns/a", "acme/ns/b"]
        .into_iter()
        .map(|name| {
            let secret = common::SECRET.as_bytes();
            let provider = JwtProvider::new(name, "issuer", &["slim"], Algorithm::HS256, secret).unwrap();
            let mut credentials = Credentials::new(SharedSecret::new(name, common::SECRET).unwrap());
            credentials.provider = Arc::new(provider.with_duration_s(life_s));
            credentials.verifier = Arc::new(JwtVerifier::new(Algorithm::HS256, secret).unwrap());
            net.app_with(name, credentials)
        })
        .collect();
    let now = net.now();
    let channel = "acme/ns/chan".parse().unwrap();
    let id = net.endpoint(apps[0]).create_session(now, SessionConfig::group(), &channel).unwrap();
    for app in &apps[1..] {
        let name = net.name(*app).without_id();
        let command = net.with(apps[0], id, |session, now| session.invite(now, &name)).unwrap();
        net.run(SECOND);
        assert!(net.saw(apps[0], |event| *event == Event::Done(command, Ok(()))));
    }
    Group { net, moderator: apps[0], id, members: apps[1..].to_vec() }
}

/// Tokens that live five minutes, as those of SPIFFE do: leaves are renewed in their time, and not all the time.
#[test]
fn tokens_of_five_minutes() {
    let mut group = found_with_tokens_of(13, 300);
    let before = group.net.with(group.moderator, group.id, |session, _| session.epoch()).unwrap();
    for minute in 0..20 {
        group.net.run(SECOND * 60);
        group.say(group.members[0], &minute.to_string());
    }
    group.net.run(SECOND);
    group.epochs_agree();
    assert_eq!(group.texts(group.members[1]).len(), 20);
    for app in group.everybody() {
        assert!(!group.net.saw(app, |event| matches!(event, Event::Left(_) | Event::Closed(_))), "{app} saw one go");
    }
    let commits = group.net.with(group.moderator, group.id, |session, _| session.epoch()).unwrap() - before;
    assert!((12..=20).contains(&commits), "three leaves, each every four minutes: {commits} commits in twenty");
}

/// A renewal that the moderator did not answer is asked for again before the token ends.
#[test]
fn a_renewal_that_failed_comes_again() {
    let mut group = found(14, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    group.net.filter = Box::new(move |from, _, publish| {
        let kind = publish.session.as_ref().map(slimline_wire::pb::SessionHeader::session_message_type);
        !(from == a && kind == Some(Kind::RejoinRequest))
    });
    group.net.run(SECOND * 3100);
    group.net.filter = Box::new(|_, _, _| true);
    let before = group.net.carried.len();
    group.net.run(SECOND * 60);
    let (moderator, replies) = (group.net.name(group.moderator).to_wire(), &group.net.carried[before..]);
    let renewed = replies.iter().any(|octets| {
        use prost::Message as _;
        let message = slimline_wire::pb::Message::decode(&**octets).unwrap();
        let Some(slimline_wire::pb::message::MessageType::Publish(publish)) = message.message_type else {
            return false;
        };
        publish.header.unwrap().source.as_ref() == Some(&moderator)
            && publish.session.unwrap().session_message_type() == Kind::RejoinReply
    });
    assert!(renewed, "nobody asked again, and the leaf ends at 3600");
}

/// Members that cannot renew their leaf (the reference's cannot) are invited anew before it ends, where there are several.
#[test]
fn who_cannot_renew_is_invited_anew() {
    use slimline_wire::pb;
    let mut group = found(7, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    let b = group.invite("acme/ns/b");
    group.net.filter = Box::new(move |from, _, publish| {
        let kind = publish.session.as_ref().map(|session| session.session_message_type());
        !([a, b].contains(&from) && kind == Some(pb::SessionMessageType::RejoinRequest))
    });
    group.net.run(SECOND * 3250);
    let arrivals = |group: &Group, app: usize| {
        group.net.apps[app].events.iter().filter(|event| matches!(event, AppEvent::Arrived(_))).count()
    };
    assert_eq!((arrivals(&group, a), arrivals(&group, b)), (1, 1));
    group.net.run(SECOND * 200);
    assert_eq!((arrivals(&group, a), arrivals(&group, b)), (2, 2), "before 3450 s both were invited anew");
    assert!(group.net.is_closed(a, group.id), "the first session ended");
    group.net.run(SECOND * 600);
    let (second_a, second_b) = (group.net.arrived(a).unwrap(), group.net.arrived(b).unwrap());
    assert_ne!(second_a, group.id);
    let publish = Publish::from(b"beyond the hour".to_vec());
    group.net.with(a, second_a, |session, now| session.publish(now, publish)).unwrap();
    group.net.run(SECOND * 2);
    assert_eq!(group.net.texts(b, second_b), ["beyond the hour"]);
    assert_eq!(group.texts(group.moderator), ["beyond the hour"]);
}

/// They need not have come together: each is invited anew in its own time, while a member that renews itself stays.
#[test]
fn who_cannot_renew_need_not_be_two_at_a_time() {
    use slimline_wire::pb;
    let mut group = found(12, SessionConfig::group());
    let mut members = Vec::new();
    for name in ["acme/ns/a", "acme/ns/b", "acme/ns/c"] {
        members.push(group.invite(name));
        group.net.run(SECOND * 400);
    }
    let [a, b, c] = members[..] else { unreachable!() };
    group.net.filter = Box::new(move |from, _, publish| {
        let kind = publish.session.as_ref().map(|session| session.session_message_type());
        !([a, c].contains(&from) && kind == Some(pb::SessionMessageType::RejoinRequest))
    });
    let arrivals = |group: &Group, app: usize| {
        group.net.apps[app].events.iter().filter(|event| matches!(event, AppEvent::Arrived(_))).count()
    };
    for (until, expected) in [(3_250, [1, 1, 1]), (3_500, [2, 1, 1]), (4_050, [2, 1, 1]), (4_300, [2, 1, 2])] {
        let lived = group.net.clock - group.net.start;
        group.net.run(SECOND * until - lived);
        assert_eq!([a, b, c].map(|app| arrivals(&group, app)), expected, "{until}");
    }
}

/// Whoever was taken out and is invited again at once is not asked at once: the reference is not done with the first session.
#[test]
fn taken_out_and_invited_again() {
    use slimline_session::session::REST;
    let mut group = found(11, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    let b = group.invite("acme/ns/b");
    group.remove(a);
    let removed = group.net.clock;
    group.invite("acme/ns/c");
    assert!(group.net.clock < removed + REST, "others need not wait");
    let name: Name = "acme/ns/a".parse().unwrap();
    let command = group.net.with(group.moderator, group.id, |session, now| session.invite(now, &name)).unwrap();
    assert_eq!(group.finish(command), Ok(()));
    assert!(group.net.clock >= removed + REST, "{:?}", group.net.clock - removed);
    group.say(b, "all here");
    group.net.run(SECOND * 3);
    assert_eq!(group.texts(group.moderator), ["all here"]);
}

/// Whoever came later cannot ask for what was said before it came.
#[test]
fn a_newcomer_asks_for_the_past() {
    let mut group = found(8, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    let b = group.invite("acme/ns/b");
    group.say(a, "before");
    group.net.run(SECOND);
    let c = group.invite("acme/ns/c");
    group.say(a, "after");
    group.net.run(SECOND);
    assert_eq!(group.texts(c), ["after"]);
    group.texts(b);
    for (member, again) in [(b, true), (c, false)] {
        assert_eq!(group.net.asks_for(member, a, 1), Some(again), "{member}");
        assert!(group.texts(member).is_empty());
    }
}

/// Whoever is removed and invited again begins a new stream: what it said before, and what was sent again then, is no part of
/// it, although its epoch can still be opened. Late words of those who stayed are read, whoever else came and went.
#[test]
fn words_of_an_earlier_stay() {
    let mut group = found(10, SessionConfig::group());
    let b = group.invite("acme/ns/b");
    let a = group.invite("acme/ns/a");
    let c = group.invite("acme/ns/c");
    // b gets a's second word by a later send, and the reply to its request never; neither a's fourth word nor c's.
    let cut = std::rc::Rc::new(std::cell::Cell::new(true));
    let is_cut = cut.clone();
    group.net.filter = Box::new(move |from, to, publish| {
        let session = publish.session.as_ref().unwrap();
        let lost = match session.session_message_type() {
            Kind::Msg => (from, session.message_id) != (a, 1) && [a, c].contains(&from) && is_cut.get(),
            Kind::RtxReply => true,
            _ => false,
        };
        to != b || !lost
    });
    for text in ["first", "second"] {
        group.say(a, text);
    }
    cut.set(false);
    group.say(a, "third");
    group.net.run(SECOND * 3);
    assert_eq!(group.texts(b), ["first", "second", "third"]);
    cut.set(true);
    group.say(a, "fourth");
    group.say(c, "from one who stays");
    group.net.run(SECOND / 10);
    group.remove(a);
    let gone = group.net.apps[a].events.iter().any(|event| match event {
        AppEvent::Session(_, Event::Published(_, delivery)) => {
            delivery.recipients.contains(&(group.net.name(b), Outcome::Gone))
        }
        _ => false,
    });
    assert!(gone, "a was told that b did not get its fourth word");
    let name = group.net.name(a).without_id();
    let command = group.net.with(group.moderator, group.id, |session, now| session.invite(now, &name)).unwrap();
    assert_eq!(group.finish(command), Ok(()));
    let again = group.net.arrived(a).unwrap();
    assert_ne!(again, group.id, "a session of its own");

    let refused = group.net.endpoint(b).counters().refused;
    let (fourth, reply) = (group.net.carried_by(a, Kind::Msg, 4), group.net.carried_by(a, Kind::RtxReply, 2));
    assert!(!fourth.is_empty() && !reply.is_empty());
    let now = group.net.now();
    for message in fourth.iter().chain(&reply) {
        group.net.endpoint(b).handle(now, message.clone());
    }
    assert_eq!(group.net.endpoint(b).counters().refused, refused + (fourth.len() + reply.len()) as u64);
    assert_eq!(group.texts(b), [""; 0]);
    let late = group.net.carried_by(c, Kind::Msg, 1).remove(0);
    group.net.endpoint(b).handle(now, late);
    assert_eq!(group.texts(b), ["from one who stays"], "sealed two epochs ago");

    group.net.filter = Box::new(|_, _, _| true);
    for text in ["anew", "and on"] {
        let publish = Publish::from(text.as_bytes().to_vec());
        group.net.with(a, again, |session, now| session.publish(now, publish)).unwrap();
    }
    group.net.run(SECOND * 3);
    assert_eq!(group.texts(b), ["anew", "and on"]);
}

/// What was said to all while a member was away, or before it came, is not read later, although it could be opened: it was
/// not among the recipients. What was for it and was overtaken is read when it comes again, once.
#[test]
fn words_from_before_we_came_in() {
    let mut group = found(12, SessionConfig::group());
    let a = group.invite("acme/ns/a");
    let b = group.invite("acme/ns/b");
    let id = group.id;
    group.net.with(b, id, |session, now| session.go_offline(now)).unwrap();
    group.net.run(SECOND / 10);
    group.say(a, "b is away");
    group.net.run(SECOND / 10);
    group.net.with(b, id, |session, now| session.rejoin(now)).unwrap();
    group.net.run(SECOND / 10);
    group.epochs_agree();
    let lost = std::rc::Rc::new(std::cell::Cell::new(true));
    let is_lost = lost.clone();
    group.net.filter = Box::new(move |from, to, _| (from, to) != (a, b) || !is_lost.get());
    group.say(a, "overtaken");
    lost.set(false);
    group.say(a, "first heard");
    group.net.run(SECOND / 10);
    assert_eq!(group.texts(b), ["first heard"]);
    let refused = group.net.endpoint(b).counters().refused;
    let now = group.net.now();
    for id in [1, 2] {
        let to_all = group.net.carried_by(a, Kind::Msg, id).remove(0);
        group.net.endpoint(b).handle(now, to_all);
    }
    assert_eq!(group.net.endpoint(b).counters().refused, refused + 2);
    assert_eq!(group.texts(b), [""; 0]);
    group.net.run(SECOND * 2);
    assert_eq!(group.texts(b), ["overtaken"], "sent again to b alone");
    assert_eq!(group.net.asks_for(b, a, 1), Some(true), "a request in b's name, which b did not make");
    assert_eq!(group.texts(b), [""; 0]);
    let b = group.net.name(b);
    let delivered = group.net.apps[a].events.iter().filter(|event| match event {
        AppEvent::Session(_, Event::Published(_, delivery)) => {
            delivery.recipients.contains(&(b.clone(), Outcome::Delivered))
        }
        _ => false,
    });
    assert_eq!(delivered.count(), 2, "of three publishes, two had b among their recipients");
}

/// A member that gets a new leaf goes on with its stream: what it said before that and arrives after it is read, and its
/// publisher hears so.
#[test]
fn words_from_before_a_return() {
    let mut group = found(11, SessionConfig::group());
    let b = group.invite("acme/ns/b");
    let c = group.invite("acme/ns/c");
    group.net.filter = Box::new(move |from, to, publish| {
        let kind = publish.session.as_ref().unwrap().session_message_type();
        (from, to, kind) != (c, b, Kind::Msg)
    });
    group.say(c, "before I went");
    group.net.run(SECOND / 10);
    let id = group.id;
    group.net.with(c, id, |session, now| session.go_offline(now)).unwrap();
    group.net.run(SECOND / 10);
    group.invite("acme/ns/d");
    let before = group.net.with(c, id, |session, _| session.epoch());
    group.net.with(c, id, |session, now| session.rejoin(now)).unwrap();
    group.net.until(SECOND, "has a new leaf", |net| net.with(c, id, |session, _| session.epoch()) > before);
    group.net.run(SECOND / 10);
    assert_eq!(group.texts(b), [""; 0]);
    let late = group.net.carried_by(c, Kind::Msg, 1).remove(0);
    let now = group.net.now();
    group.net.endpoint(b).handle(now, late);
    assert_eq!(group.texts(b), ["before I went"]);
    group.net.run(SECOND / 10);
    let b = group.net.name(b);
    let told = group.net.saw(
        c,
        |event| matches!(event, Event::Published(_, delivery) if delivery.recipients.contains(&(b.clone(), Outcome::Delivered))),
    );
    assert!(told);
}

/// Back in the group, but the update with the list of members is late or lost: going away again waits for it, and whoever
/// gave up waiting asks anew, at its next tick or when it is back, although nobody sees that it is behind.
#[test]
fn back_without_the_list() {
    use slimline_wire::pb;
    for (lost, goes) in [(SECOND / 2, true), (SECOND * 40, true), (SECOND * 40, false)] {
        let mut group = found(9, SessionConfig::group().with_retries(SECOND, 5));
        group.invite("acme/ns/a");
        let b = group.invite("acme/ns/b");
        let c = group.invite("acme/ns/c");
        let id = group.id;
        group.net.with(b, id, |session, now| session.go_offline(now)).unwrap();
        group.net.run(SECOND);
        group.remove(c);
        let d = group.invite("acme/ns/d");
        let (moderator, until) = (group.moderator, group.net.clock + lost);
        let listed = std::rc::Rc::new(std::cell::Cell::new(false));
        let let_through = listed.clone();
        group.net.filter = Box::new(move |from, to, publish| {
            let kind = publish.session.as_ref().map(|session| session.session_message_type());
            let list = kind == Some(pb::SessionMessageType::GroupUpdate);
            (from, to) != (moderator, b) || !list || let_through.get()
        });
        group.net.with(b, id, |session, now| session.rejoin(now)).unwrap();
        group.net.until(SECOND, "is in the group again", |net| {
            let ours = net.with(b, id, |session, _| session.epoch());
            ours == net.with(moderator, id, |session, _| session.epoch())
        });
        // Away again at once: the epoch is everybody's now, and stays it.
        if goes {
            group.net.with(b, id, |session, now| session.go_offline(now)).unwrap();
        }
        group.net.run(until - group.net.clock);
        let away = |group: &mut Group| !group.net.with(b, id, |session, _| session.participants())[0].online;
        assert_eq!(away(&mut group), goes && lost > SECOND * 10, "it waits for the list until the retries end");
        listed.set(true);
        group.net.run(SECOND * 3);
        assert_eq!(away(&mut group), goes, "{lost:?}");
        if goes {
            group.net.with(b, id, |session, now| session.rejoin(now)).unwrap();
        }
        group.net.run(SECOND * if goes { 5 } else { 20 });
        group.rosters_agree();
        group.epochs_agree();
        group.say(d, "to the one who is back");
        group.say(b, "and back");
        group.net.run(SECOND * 3);
        assert_eq!(group.texts(b), ["to the one who is back"], "{lost:?}");
        assert_eq!(group.texts(d), ["and back"], "{lost:?}");
    }
}

/// Five streams with a gap each, and together more octets behind the gaps than a session holds: what does not fit is not
/// acknowledged, so it comes again, and everything is read in order.
#[test]
fn streams_share_the_room_for_order() {
    const EACH: u32 = 15;
    let mut group = found(12, SessionConfig::group().without_mls().with_retries(SECOND, 30));
    let reader = group.invite("acme/ns/reader");
    let speakers: Vec<usize> = (0..5).map(|n| group.invite(&format!("acme/ns/s{n}"))).collect();
    let cut = std::rc::Rc::new(std::cell::Cell::new(true));
    let is_cut = cut.clone();
    let theirs = speakers.clone();
    group.net.filter = Box::new(move |from, to, publish| {
        let first = publish.session.as_ref().unwrap();
        let data = matches!(first.session_message_type(), Kind::Msg | Kind::RtxReply);
        let payload = publish.msg.as_ref().is_some_and(|content| match &content.content_type {
            Some(slimline_wire::pb::content::ContentType::AppPayload(payload)) => payload.blob.starts_with(&[0; 4]),
            _ => false,
        });
        !(data && theirs.contains(&from) && to == reader && is_cut.get() && payload)
    });
    let before = group.net.endpoint(reader).counters().postponed;
    for n in 0..EACH {
        for speaker in &speakers {
            let octets = [n.to_be_bytes(), u32::try_from(*speaker).unwrap().to_be_bytes()].concat().repeat(1 << 17);
            group.net.with(*speaker, group.id, |session, now| session.publish(now, octets.into())).unwrap();
        }
    }
    group.net.run(SECOND / 2);
    for app in group.everybody().into_iter().filter(|app| *app != reader) {
        group.net.read(app, group.id);
    }
    group.net.carried.clear();
    let room = u64::try_from(slimline_session::reliable::HELD_OCTETS_MAX >> 20).unwrap();
    let held_back = group.net.endpoint(reader).counters().postponed - before;
    assert!(held_back >= u64::from(5 * (EACH - 1)) - room, "{held_back}");
    assert!(group.texts(reader).is_empty());
    cut.set(false);
    let mut heard: std::collections::BTreeMap<Name, Vec<u32>> = Default::default();
    for _ in 0..10 {
        group.net.run(SECOND);
        group.net.carried.clear();
        for item in group.net.read(reader, group.id) {
            let slimline_session::Item::Message(message) = item else { panic!("{item:?}") };
            let number = u32::from_be_bytes(message.payload[..4].try_into().unwrap());
            heard.entry(message.source).or_default().push(number);
        }
    }
    assert_eq!(heard.len(), 5);
    assert!(heard.values().all(|numbers| numbers.iter().copied().eq(0..EACH)), "{heard:?}");
}
