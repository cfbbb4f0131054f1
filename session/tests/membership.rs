//! Groups against a model of who is in them: random histories over bad links, by seed; and a group of sixty-four. Every fourth
//! history is without encryption, and is judged like the others.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Faults, Net, Random};
use slimline_session::error::SessionError;
use slimline_session::{
    AppEvent, CommandId, Delivery, Event, Name, Outcome, Publish, PublishId, SessionConfig, SessionId,
};

const SECOND: Duration = Duration::from_secs(1);
/// Applications a history is about, the moderator (0) included.
const APPS: usize = 6;

/// What the model knows of one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Out,
    In,
    /// It said goodbye for now.
    Away,
}

/// What may be done to or by one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Invite,
    Remove,
    Leave,
    Offline,
    Rejoin,
}

/// A message that was accepted for publishing.
struct Said {
    from: usize,
    session: SessionId,
    id: PublishId,
    text: String,
    /// Who had no part in the group then: it must never read this.
    outside: BTreeSet<usize>,
}

struct History {
    net: Net,
    random: Random,
    lossy: bool,
    group: SessionId,
    places: [Place; APPS],
    /// Every session an application was ever brought into, the last one last.
    sessions: [Vec<SessionId>; APPS],
    said: Vec<Said>,
    read: [Vec<String>; APPS],
    log: Vec<String>,
}

fn name(app: usize) -> Name {
    format!("acme/ns/app{app}").parse().unwrap()
}

impl History {
    fn begin(seed: u64) -> Self {
        let mut net = Net::new(seed);
        for app in 0..APPS {
            net.app(&name(app).to_string());
        }
        let mls = seed % 4 != 3;
        let config = SessionConfig::group().with_retries(SECOND, 10);
        let config = if mls { config } else { config.without_mls() };
        let now = net.now();
        let group = net.endpoint(0).create_session(now, config, &"acme/ns/chan".parse().unwrap()).unwrap();
        net.run(Duration::ZERO);
        let mut random = Random::new(seed);
        for _ in 0..4 {
            random.below(2); // the first words of near seeds are alike
        }
        net.faults = Faults {
            loss: [0, 30, 80, 120][usize::try_from(random.below(4)).unwrap()],
            duplication: [0, 50, 200][usize::try_from(random.below(3)).unwrap()],
            jitter: SECOND / 50 * u32::try_from(random.below(3)).unwrap(),
        };
        let lossy = net.faults.loss > 0;
        let log = vec![format!("seed {seed}, mls {mls}, {:?}", net.faults)];
        let mut sessions: [Vec<SessionId>; APPS] = Default::default();
        sessions[0].push(group);
        let mut places = [Place::Out; APPS];
        places[0] = Place::In;
        Self { net, random, lossy, group, places, sessions, said: Vec::new(), read: Default::default(), log }
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::try_from(self.random.below(n as u64)).unwrap()
    }

    fn run(&mut self, time: Duration) {
        self.net.run(time);
        for app in 1..APPS {
            if let Some(arrived) = self.net.arrived(app)
                && self.sessions[app].last() != Some(&arrived)
            {
                self.sessions[app].push(arrived);
            }
        }
        for app in 0..APPS {
            for session in self.sessions[app].clone() {
                let texts = self.net.texts(app, session);
                self.read[app].extend(texts);
            }
        }
    }

    fn members(&self) -> Vec<usize> {
        (0..APPS).filter(|app| self.places[*app] != Place::Out).collect()
    }

    /// One step: up to two acts at once on different applications, and things said meanwhile.
    fn step(&mut self) {
        let mut acts: Vec<(usize, Act)> = Vec::new();
        for _ in 0..=self.pick(2) {
            let app = 1 + self.pick(APPS - 1);
            let possible: &[Act] = match self.places[app] {
                Place::Out => &[Act::Invite],
                Place::In => &[Act::Remove, Act::Leave, Act::Offline],
                Place::Away => &[Act::Rejoin, Act::Rejoin, Act::Remove],
            };
            let act = possible[self.pick(possible.len())];
            if acts.iter().all(|(other, _)| *other != app) {
                acts.push((app, act));
            }
        }
        self.log.push(format!("{acts:?}"));
        for _ in 0..self.pick(4) {
            self.say(&acts);
        }
        let commands: Vec<_> = acts.iter().map(|(app, act)| (*app, *act, self.act(*app, *act))).collect();
        for _ in 0..self.pick(4) {
            self.say(&acts);
            self.run(SECOND / 20);
        }
        for (app, act, command) in commands {
            let result = self.finish(command);
            self.log.push(format!("  {app} {act:?} {result:?}"));
            self.settle(app, act, &result);
        }
        let pause = [0, 1, 3, 12][self.pick(4)];
        self.run(SECOND * pause);
    }

    /// Who was told to, in which session, under which number.
    fn act(&mut self, app: usize, act: Act) -> (usize, SessionId, CommandId) {
        let group = self.group;
        let own = self.sessions[app].last().copied();
        let (by, session) = match act {
            Act::Invite | Act::Remove => (0, group),
            Act::Leave | Act::Offline | Act::Rejoin => (app, own.unwrap()),
        };
        let victim = name(app);
        let command = self.net.with(by, session, |session, now| match act {
            Act::Invite => session.invite(now, &victim),
            Act::Remove => session.remove(now, &victim),
            Act::Leave => session.close(now),
            Act::Offline => session.go_offline(now),
            Act::Rejoin => session.rejoin(now),
        });
        (by, session, command.unwrap_or_else(|error| panic!("{act:?} {app}: {error}: {:#?}", self.log)))
    }

    fn finish(&mut self, (by, session, command): (usize, SessionId, CommandId)) -> Result<(), SessionError> {
        for _ in 0..1200 {
            let done = self.net.apps[by].events.iter().find_map(|event| match event {
                AppEvent::Session(of, Event::Done(done, result)) if *of == session && *done == command => {
                    Some(result.clone())
                }
                _ => None,
            });
            if let Some(done) = done {
                self.run(Duration::ZERO);
                return done;
            }
            self.run(SECOND / 10);
        }
        panic!("{command:?} of {by} never finished: {:#?}", self.log)
    }

    /// What an act's result makes of the model.
    fn settle(&mut self, app: usize, act: Act, result: &Result<(), SessionError>) {
        match (act, result) {
            (Act::Invite, Ok(())) => self.places[app] = Place::In,
            // Ten retries were all lost, or an application that had said goodbye did not answer.
            (Act::Invite, Err(SessionError::NoAnswer { .. } | SessionError::Refused { .. })) if self.lossy => {}
            (Act::Remove | Act::Leave, Ok(())) => self.places[app] = Place::Out,
            (Act::Offline, Ok(())) => self.places[app] = Place::Away,
            (Act::Rejoin, Ok(())) => self.places[app] = Place::In,
            (act, result) => panic!("{act:?} of {app}: {result:?}: {:#?}", self.log),
        }
    }

    fn say(&mut self, acts: &[(usize, Act)]) {
        let here: Vec<usize> = (0..APPS).filter(|app| self.places[*app] == Place::In).collect();
        let from = here[self.pick(here.len())];
        let session = *self.sessions[from].last().unwrap();
        let text = format!("{from}:{}", self.said.len());
        let publish = Publish::from(text.as_bytes().to_vec());
        let outside = (0..APPS)
            .filter(|app| self.places[*app] == Place::Out && acts.iter().all(|(other, _)| other != app))
            .collect();
        match self.net.with(from, session, |session, now| session.publish(now, publish)) {
            Ok(id) => self.said.push(Said { from, session, id, text, outside }),
            Err(SessionError::NobodyOnline | SessionError::Draining | SessionError::Closed | SessionError::Offline) => {
            }
            Err(error) => panic!("{from} cannot speak: {error}: {:#?}", self.log),
        }
    }

    /// The link heals, who is away comes back, time passes: everybody agrees.
    fn rest(&mut self) {
        self.net.faults = Faults::default();
        self.run(SECOND * 15);
        for app in 1..APPS {
            if self.places[app] == Place::Away {
                let command = self.act(app, Act::Rejoin);
                let result = self.finish(command);
                self.settle(app, Act::Rejoin, &result);
            }
        }
        self.run(SECOND * 60);
        let members = self.members();
        let mut expected: Vec<Name> = members.iter().map(|app| self.net.name(*app)).collect();
        expected.sort();
        let mut epochs = BTreeMap::new();
        for app in members {
            let session = *self.sessions[app].last().unwrap();
            let (mut names, epoch) =
                self.net.with(app, session, |session, _| (session.participants(), session.epoch()));
            names.sort_by(|a, b| a.name.cmp(&b.name));
            assert!(names.iter().all(|participant| participant.online), "{app}: {names:?} {:#?}", self.log);
            let names: Vec<Name> = names.into_iter().map(|participant| participant.name).collect();
            assert_eq!(names, expected, "as {app} sees it: {:#?}", self.log);
            epochs.insert(app, epoch);
        }
        let moderators = epochs.get(&0);
        assert!(epochs.values().all(|epoch| Some(epoch) == moderators), "{epochs:?}: {:#?}", self.log);
    }

    /// Everybody who is in hears everybody, and nobody else does.
    fn last_words(&mut self) {
        for from in self.members() {
            let session = *self.sessions[from].last().unwrap();
            let text = format!("last words of {from}");
            let publish = Publish::from(text.as_bytes().to_vec());
            if self.members().len() == 1 {
                continue;
            }
            let id = self.net.with(from, session, |session, now| session.publish(now, publish));
            let id = id.unwrap_or_else(|error| panic!("{from}: {error}: {:#?}", self.log));
            let outside = (0..APPS).filter(|app| self.places[*app] == Place::Out).collect();
            self.run(SECOND * 3);
            for app in self.members() {
                assert_eq!(self.read[app].contains(&text), app != from, "{text} at {app}: {:#?}", self.log);
            }
            self.said.push(Said { from, session, id, text, outside });
        }
    }

    /// What was said arrived once, or its speaker was told who missed it; nobody read what was not for it.
    fn account(&self) {
        for (app, read) in self.read.iter().enumerate() {
            let mut once = BTreeSet::new();
            for text in read.iter().filter(|text| !text.starts_with('<')) {
                assert!(once.insert(text), "{app} read {text} twice: {:#?}", self.log);
            }
        }
        for said in &self.said {
            let deliveries: Vec<&Delivery> = self.net.apps[said.from]
                .events
                .iter()
                .filter_map(|event| match event {
                    AppEvent::Session(session, Event::Published(id, delivery))
                        if *session == said.session && *id == said.id =>
                    {
                        Some(delivery)
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(deliveries.len(), 1, "{} was settled once: {:#?}", said.text, self.log);
            for (recipient, outcome) in &deliveries[0].recipients {
                let app = (0..APPS).find(|app| self.net.name(*app) == *recipient).unwrap();
                let heard = self.read[app].contains(&said.text);
                assert!(
                    heard || *outcome != Outcome::Delivered,
                    "{} at {app}: {outcome:?}: {:#?}",
                    said.text,
                    self.log
                );
            }
            for app in &said.outside {
                let heard = self.read[*app].contains(&said.text);
                assert!(!heard, "{app} read {} from outside: {:#?}", said.text, self.log);
            }
        }
    }

    /// All that was ever carried comes once more, to everybody: nobody reads a word of it again. (Replies that a message is
    /// no longer there are not authenticated in this protocol, so a stream may be made to skip.)
    fn replay(&mut self) {
        let words = |read: &[Vec<String>; APPS]| {
            read.clone().map(|read| read.into_iter().filter(|text| !text.starts_with('<')).collect::<Vec<_>>())
        };
        let before = words(&self.read);
        let now = self.net.now();
        for octets in self.net.carried.clone() {
            let message: slimline_wire::pb::Message = prost::Message::decode(&*octets).unwrap();
            for app in 0..APPS {
                self.net.endpoint(app).handle(now, message.clone());
            }
        }
        self.run(SECOND);
        assert_eq!(words(&self.read), before, "{:#?}", self.log);
    }

    fn end(&mut self) {
        let group = self.group;
        self.net.with(0, group, |session, now| session.close(now)).unwrap();
        self.run(SECOND * 60); // what was replayed may have given it something to do first
        for app in self.members() {
            let session = *self.sessions[app].last().unwrap();
            assert!(self.net.is_closed(app, session), "{app} is still in: {:#?}", self.log);
        }
    }
}

/// Each seed is a history of its own; a failure tells the history.
#[test]
fn histories_by_seed() {
    let (first, seeds) = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => (seed, 1),
        None => (0, std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(24)),
    };
    for seed in first..first + seeds {
        let mut history = History::begin(seed);
        for _ in 0..6 + seed % 7 {
            history.step();
        }
        history.rest();
        history.last_words();
        if seed % 8 == 0 {
            history.replay();
        }
        history.account();
        history.end();
    }
}

/// Sixty-four members: all come, all speak, some go, the rest agrees.
#[test]
fn sixty_four() {
    const MEMBERS: usize = 64;
    let mut net = Net::new(64);
    let moderator = net.app("acme/ns/mod");
    let now = net.now();
    let channel = "acme/ns/chan".parse().unwrap();
    let id = net.endpoint(moderator).create_session(now, SessionConfig::group(), &channel).unwrap();
    let mut members = vec![moderator];
    for n in 1..MEMBERS {
        let app = net.app(&format!("acme/ns/m{n}"));
        let name: Name = format!("acme/ns/m{n}").parse().unwrap();
        net.with(moderator, id, |session, now| session.invite(now, &name)).unwrap();
        net.until(SECOND * 10, "arrives", |net| net.arrived(app) == Some(id));
        members.push(app);
    }
    let agree = |net: &mut Net, members: &[usize]| {
        let seen: Vec<_> = members
            .iter()
            .map(|app| net.with(*app, id, |session, _| (session.epoch(), session.participants().len())))
            .collect();
        let epoch = seen[0].0;
        assert!(seen.iter().all(|one| *one == (epoch, members.len())), "{seen:?}");
        epoch
    };
    net.run(SECOND);
    let before = agree(&mut net, &members);
    let speak = |net: &mut Net, members: &[usize]| {
        for app in [members[0], members[members.len() / 2], members[members.len() - 1]] {
            let text = format!("from {app}");
            let publish = Publish::from(text.as_bytes().to_vec());
            net.with(app, id, |session, now| session.publish(now, publish)).unwrap();
            net.run(SECOND / 2);
            for other in members.iter().filter(|other| **other != app) {
                assert_eq!(net.texts(*other, id), [text.as_str()], "at {other}");
            }
        }
    };
    speak(&mut net, &members);
    for gone in [members[5], members[40]] {
        let name = net.name(gone).without_id();
        net.with(moderator, id, |session, now| session.remove(now, &name)).unwrap();
        net.run(SECOND * 2);
        assert!(net.is_closed(gone, id));
        members.retain(|app| *app != gone);
    }
    let leaver = members[20];
    net.with(leaver, id, |session, now| session.close(now)).unwrap();
    net.run(SECOND * 3);
    members.retain(|app| *app != leaver);
    assert_ne!(agree(&mut net, &members), before);
    speak(&mut net, &members);
}
