//! Groups without encryption under a moderator of ours: lists of members that come late, or never; words of stays that ended.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::Net;
use slimline_session::{AppEvent, Event, Item, Name, Publish, SessionConfig, SessionId};
use slimline_wire::pb;
use slimline_wire::pb::SessionMessageType as Kind;
use slimline_wire::pb::message::MessageType;

const SECOND: Duration = Duration::from_secs(1);

/// A moderator (0) and three members, none of whose messages are lost unless `lost` says so.
struct Group {
    net: Net,
    id: SessionId,
}

const A: usize = 1;
const C: usize = 3;

impl Group {
    fn begin(seed: u64) -> Self {
        let mut net = Net::new(seed);
        for name in ["mod", "a", "b", "c", "d"] {
            net.app(&format!("acme/ns/{name}"));
        }
        let (now, config) = (net.now(), SessionConfig::group().without_mls());
        let id = net.endpoint(0).create_session(now, config, &"acme/ns/chan".parse().unwrap()).unwrap();
        let mut group = Self { net, id };
        for app in 1..=C {
            group.invite(app);
        }
        group
    }

    fn finish(&mut self, invites: bool, app: usize) {
        let name = self.net.name(app).without_id();
        let command =
            self.net.with(
                0,
                self.id,
                |session, now| {
                    if invites { session.invite(now, &name) } else { session.remove(now, &name) }
                },
            );
        let command = command.unwrap();
        self.net.until(SECOND * 20, "the command ends", |net| {
            net.saw(0, |event| matches!(event, Event::Done(done, Ok(())) if *done == command))
        });
        self.net.run(SECOND / 10);
    }

    fn invite(&mut self, app: usize) {
        self.finish(true, app);
    }

    fn remove(&mut self, app: usize) {
        self.finish(false, app);
    }

    fn say(&mut self, app: usize, text: &str) {
        let session = if app == 0 { self.id } else { self.net.arrived(app).unwrap() };
        let publish = Publish::from(text.as_bytes().to_vec());
        self.net.with(app, session, |session, now| session.publish(now, publish)).unwrap();
    }

    fn texts(&mut self, app: usize) -> Vec<String> {
        let session = self.net.arrived(app).unwrap();
        let items = self.net.read(app, session).into_iter().map(|item| match item {
            Item::Message(message) => {
                assert!(message.metadata.is_empty(), "{:?}", message.metadata);
                String::from_utf8(message.payload.to_vec()).unwrap()
            }
            Item::Lost { count, .. } => format!("<{count} lost>"),
        });
        items.collect()
    }

    fn knows(&mut self, app: usize, other: usize) -> bool {
        let (session, name) = (self.net.arrived(app).unwrap(), self.net.name(other));
        self.net.with(app, session, |session, _| session.participants().iter().any(|known| known.name == name))
    }

    /// What of that kind was sent by one application, as it was carried.
    fn carried(&self, from: usize, kind: Kind) -> Vec<pb::Message> {
        let from = self.net.name(from).to_wire();
        let all = self.net.carried.iter().map(|octets| prost::Message::decode(&**octets).unwrap());
        all.filter(|message: &pb::Message| {
            let Some(MessageType::Publish(publish)) = &message.message_type else { return false };
            publish.header.as_ref().unwrap().source.as_ref() == Some(&from) && kind_of(publish) == kind
        })
        .collect()
    }

    /// Messages come late, as they were.
    fn comes(&mut self, to: usize, messages: &[pb::Message]) {
        let now = self.net.now();
        for message in messages {
            self.net.endpoint(to).handle(now, message.clone());
        }
        self.net.run(SECOND / 10);
    }

    /// What of that kind goes to `to` is lost while the switch is on.
    fn lose(&mut self, kind: Kind, to: usize) -> Rc<Cell<bool>> {
        let lost = Rc::new(Cell::new(true));
        let switch = lost.clone();
        self.net.filter = Box::new(move |_, at, publish| !(lost.get() && at == to && kind_of(publish) == kind));
        switch
    }
}

fn kind_of(publish: &pb::Publish) -> Kind {
    publish.session.as_ref().unwrap().session_message_type()
}

/// An update that was overtaken by its own repetition, and by what came after that.
#[test]
fn an_old_list_changes_nothing() {
    let mut group = Group::begin(1);
    let lost = group.lose(Kind::GroupUpdate, A);
    let before = group.carried(0, Kind::GroupUpdate).len();
    let name = group.net.name(C).without_id();
    group.net.with(0, group.id, |session, now| session.remove(now, &name)).unwrap();
    group.net.run(SECOND / 2);
    let removal = group.carried(0, Kind::GroupUpdate).split_off(before);
    assert_eq!(removal.len(), 1);
    lost.set(false);
    group.net.run(SECOND * 2);
    assert!(!group.knows(A, C), "told again");
    group.invite(C);
    assert!(group.knows(A, C));

    group.comes(A, &removal);
    assert!(group.knows(A, C), "that it is removed is long known");
    group.say(C, "here");
    group.say(A, "there");
    group.net.run(SECOND);
    assert_eq!(group.texts(A), ["here"]);
    assert_eq!(group.texts(C), ["there"]);
    group.comes(C, &removal);
    assert!(!group.net.is_closed(C, group.net.arrived(C).unwrap()), "nor does it end the new stay");
}

/// Somebody speaks, is removed and comes again; then what it said before arrives, and a request to leave with it.
#[test]
fn a_word_of_an_earlier_stay() {
    let mut group = Group::begin(2);
    group.say(C, "first");
    group.net.run(SECOND / 2);
    let lost = group.lose(Kind::Msg, A);
    group.say(C, "never heard");
    group.net.run(SECOND / 10);
    group.remove(C);
    lost.set(false);
    assert_eq!(group.texts(A), ["first"]);
    let (said, leave) = (group.carried(C, Kind::Msg), group.carried(0, Kind::LeaveRequest));
    assert!(said.len() >= 2 && !leave.is_empty());
    group.invite(C);

    let refused = group.net.endpoint(A).counters().refused;
    group.comes(A, &said);
    assert_eq!(group.net.endpoint(A).counters().refused, refused + said.len() as u64);
    group.comes(C, &leave);
    group.say(C, "anew");
    group.say(C, "and on");
    group.net.run(SECOND);
    group.comes(A, &said);
    assert_eq!(group.texts(A), ["anew", "and on"]);
}

/// What a member acknowledged in its earlier stay is not given to it again, although its sender did not hear that.
#[test]
fn what_was_read_in_an_earlier_stay() {
    let mut group = Group::begin(3);
    let deaf = group.lose(Kind::MsgAck, A);
    group.say(A, "once");
    group.net.run(SECOND / 10);
    assert_eq!(group.texts(C), ["once"]);
    let said = group.carried(A, Kind::Msg);
    deaf.set(false);
    group.remove(C);
    group.invite(C);
    group.comes(C, &said);
    group.say(A, "anew");
    group.net.run(SECOND);
    assert_eq!(group.texts(C), ["anew"]);
}

/// A member that heard no update for longer than they are repeated.
#[test]
fn a_missed_list_is_asked_for() {
    let mut group = Group::begin(4);
    let lost = group.lose(Kind::GroupUpdate, A);
    group.remove(C);
    group.finish(true, 4);
    assert!(group.knows(A, C) && !group.knows(A, 4));
    let joined = group.net.name(4);
    lost.set(false);
    group.net.run(SECOND * 32);
    assert!(!group.knows(A, C) && group.knows(A, 4), "one list brought both");
    let id = group.net.arrived(A).unwrap();
    let events = &group.net.apps[A].events;
    assert!(events.contains(&AppEvent::Session(id, Event::Joined(joined))));
    let gone: Name = group.net.name(C);
    assert!(events.contains(&AppEvent::Session(id, Event::Left(gone))));
    group.say(4, "hello");
    group.net.run(SECOND);
    assert_eq!(group.texts(A), ["hello"]);
}

/// Nobody's answer to a goodbye was heard, so nobody seems to be there: the return is said all the same, and brings the list.
#[test]
fn a_return_is_said_whoever_seems_to_be_there() {
    let mut group = Group::begin(5);
    let session = group.net.arrived(C).unwrap();
    let change =
        |group: &mut Group, offline: bool| {
            let command = group
                .net
                .with(C, session, |session, now| if offline { session.go_offline(now) } else { session.rejoin(now) });
            let command = command.unwrap();
            group.net.until(SECOND * 20, "it is done", |net| {
                net.saw(C, |event| matches!(event, Event::Done(done, Ok(())) if *done == command))
            });
        };
    let lost = group.lose(Kind::GroupAck, C);
    change(&mut group, true);
    let (net, id) = (&mut group.net, session);
    let online = net.with(C, id, |session, _| session.participants().iter().filter(|known| known.online).count());
    assert_eq!(online, 0);
    lost.set(false);
    group.invite(4);
    assert!(!group.knows(C, 4));
    change(&mut group, false);
    group.net.run(SECOND);
    assert!(group.knows(C, 4));
}
