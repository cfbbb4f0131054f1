//! A network in one thread: endpoints around a model of a node, one fake clock, and a link that misbehaves by seed.
#![allow(dead_code, unreachable_pub)] // each test file takes its part of this module

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use slimline_session::identity::{SharedSecret, SigningKey, key::KeyKind};
use slimline_session::{
    AppEvent, Credentials, Direction, Endpoint, Event, Item, Name, Now, SessionId, Store, StoreKey,
};
use slimline_wire::pb;
use slimline_wire::pb::message::MessageType;

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How a link misbehaves; per mille.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplication: u64,
    /// Up to this much delay, drawn for each message: so they overtake each other.
    pub jitter: Duration,
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Instant,
    order: u64,
    to: usize,
    octets: Vec<u8>,
}

pub struct App {
    pub endpoint: Endpoint,
    pub events: Vec<AppEvent>,
    pub items: BTreeMap<SessionId, Vec<Item>>,
    pub up: bool,
    /// Where it is kept, and under which service name it comes back.
    pub kept: Option<(Store, PathBuf, Name)>,
    /// When it comes back after a crash.
    pub back: Option<Instant>,
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some((_, path, _)) = &self.kept {
            let _ = std::fs::remove_file(path);
        }
    }
}

static STORES: AtomicU32 = AtomicU32::new(0);

/// A path nobody uses; in memory where the system has a place for that.
pub fn store_path() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() { memory } else { std::env::temp_dir() };
    directory.join(format!("slimline-store-{}-{}", std::process::id(), STORES.fetch_add(1, Ordering::Relaxed)))
}

pub fn open_store(path: &std::path::Path) -> Store {
    Store::open(path, StoreKey::new([7; 32])).unwrap()
}

/// Decides about each publish: true lets it through. Called with sender, receiver and message.
pub type Filter = Box<dyn FnMut(usize, usize, &pb::Publish) -> bool>;

pub struct Net {
    pub apps: Vec<App>,
    pub faults: Faults,
    pub filter: Filter,
    pub start: Instant,
    pub clock: Instant,
    random: Random,
    routes: BTreeMap<Vec<u64>, BTreeMap<[u64; 2], BTreeSet<usize>>>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    order: u64,
    turn: usize,
    pub carried: Vec<Vec<u8>>,
    /// Kept applications crash while they run: so often, per mille of their commits.
    pub crashes: u64,
    pub crashed: usize,
    running: bool,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            apps: Vec::new(),
            faults: Faults::default(),
            filter: Box::new(|_, _, _| true),
            start,
            clock: start,
            random: Random::new(seed),
            routes: BTreeMap::new(),
            in_flight: BinaryHeap::new(),
            order: 0,
            turn: 0,
            carried: Vec::new(),
            crashes: 0,
            crashed: 0,
            running: false,
        }
    }

    pub fn now(&self) -> Now {
        Now { instant: self.clock, unix_s: 1_000_000 + (self.clock - self.start).as_secs() }
    }

    /// An application that has subscribed its name.
    pub fn app(&mut self, name: &str) -> usize {
        let subject = format!("{name}_{:08}", self.apps.len());
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let identity = SharedSecret::with_subject(subject, SECRET, key).unwrap();
        self.app_with(name, Credentials::new(identity))
    }

    pub fn app_with(&mut self, name: &str, credentials: Credentials) -> usize {
        let name: Name = name.parse().unwrap();
        let mut endpoint = Endpoint::new(&name, credentials, Direction::BOTH).unwrap();
        endpoint.connected(self.now());
        endpoint.subscribe(self.now(), &name);
        self.add(endpoint, None)
    }

    fn add(&mut self, endpoint: Endpoint, kept: Option<(Store, PathBuf, Name)>) -> usize {
        self.apps.push(App { endpoint, events: Vec::new(), items: BTreeMap::new(), up: true, kept, back: None });
        self.run(Duration::ZERO);
        self.apps.len() - 1
    }

    /// An application that is kept in a store.
    pub fn kept_app(&mut self, name: &str) -> usize {
        let subject = format!("{name}_{:08}", self.apps.len());
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let identity = SharedSecret::with_subject(subject, SECRET, key).unwrap();
        let path = store_path();
        let (store, name) = (open_store(&path), name.parse::<Name>().unwrap());
        let credentials = Credentials::new(identity);
        let mut endpoint = Endpoint::reopen(&name, credentials, Direction::BOTH, &store, self.now()).unwrap();
        endpoint.connected(self.now());
        endpoint.subscribe(self.now(), &name);
        self.add(endpoint, Some((store, path, name)))
    }

    /// The application is gone, with all that was not written, and what was on its way to it; it comes back later.
    pub fn crash(&mut self, app: usize, later: Duration) {
        self.crashed += 1;
        self.apps[app].up = false;
        self.apps[app].back = Some(self.clock + later);
        for routes in self.routes.values_mut().flat_map(BTreeMap::values_mut) {
            routes.remove(&app);
        }
    }

    fn come_back(&mut self, app: usize) {
        let now = self.now();
        let (store, path, name) = self.apps[app].kept.take().unwrap();
        drop(store);
        let store = open_store(&path);
        let known = store.identity().unwrap().unwrap();
        let identity = SharedSecret::with_subject(known.subject, SECRET, known.key).unwrap();
        let credentials = Credentials::new(identity);
        let endpoint = Endpoint::reopen(&name, credentials, Direction::BOTH, &store, now).unwrap();
        let app = &mut self.apps[app];
        (app.endpoint, app.kept, app.up, app.back) = (endpoint, Some((store, path, name)), true, None);
        app.endpoint.connected(now);
    }

    pub fn name(&self, app: usize) -> Name {
        self.apps[app].endpoint.name().clone()
    }

    pub fn endpoint(&mut self, app: usize) -> &mut Endpoint {
        &mut self.apps[app].endpoint
    }

    /// Runs for that long on the fake clock.
    pub fn run(&mut self, time: Duration) {
        let end = self.clock + time;
        self.flush();
        self.running = true;
        loop {
            let arrival = self.in_flight.peek().map(|Reverse(next)| next.at);
            let arrival = arrival.into_iter().chain(self.apps.iter().filter_map(|app| app.back)).min();
            let timer = self.apps.iter().filter(|app| app.up).filter_map(|app| app.endpoint.poll_timeout()).min();
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|next| *next <= end) else { break };
            self.clock = self.clock.max(next);
            let now = self.now();
            for app in 0..self.apps.len() {
                if self.apps[app].back.is_some_and(|back| back <= self.clock) {
                    self.come_back(app);
                }
            }
            while self.in_flight.peek().is_some_and(|Reverse(next)| next.at <= self.clock) {
                let Some(Reverse(message)) = self.in_flight.pop() else { break };
                let app = &mut self.apps[message.to];
                if app.up {
                    app.endpoint.handle(now, pb::Message::decode(&*message.octets).unwrap());
                }
                self.flush();
            }
            for app in self.apps.iter_mut().filter(|app| app.up) {
                if app.endpoint.poll_timeout().is_some_and(|at| at <= now.instant) {
                    app.endpoint.handle_timeout(now);
                }
            }
            self.flush();
        }
        self.running = false;
        self.clock = end;
    }

    /// Runs until something holds; panics if it does not within that time.
    #[track_caller]
    pub fn until(&mut self, limit: Duration, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let end = self.clock + limit;
        while !holds(self) {
            assert!(self.clock < end, "{what}: not within {limit:?}");
            self.run(Duration::from_millis(20));
        }
    }

    fn flush(&mut self) {
        loop {
            let mut moved = false;
            for index in 0..self.apps.len() {
                self.keep(index);
                while let Some(message) = self.apps[index].endpoint.poll_transmit() {
                    moved = true;
                    if self.apps[index].up {
                        self.route(index, message);
                    }
                }
                while let Some(event) = self.apps[index].endpoint.poll_event() {
                    self.apps[index].events.push(event);
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Writes down what changed; a crash comes before that, or after it and before a message left.
    fn keep(&mut self, index: usize) {
        let app = &mut self.apps[index];
        let Some((store, _, _)) = app.kept.as_mut().filter(|_| app.up) else { return };
        let Some(changes) = app.endpoint.changes() else { return };
        let crash = self.running && self.random.below(1000) < self.crashes;
        let written = !crash || self.random.below(2) == 0;
        if written {
            store.commit(changes).unwrap();
        }
        if crash {
            let later = Duration::from_millis(self.random.below(3000));
            self.crash(index, later);
        } else {
            app.endpoint.written();
        }
    }

    /// Takes what sessions received into `items`.
    pub fn read(&mut self, app: usize, session: SessionId) -> Vec<Item> {
        let now = self.now();
        let items = self.apps[app]
            .endpoint
            .with_session(now, session, |session| std::iter::from_fn(|| session.recv()).collect::<Vec<_>>());
        self.flush(); // what was taken is taken, whatever comes next
        items.unwrap_or_default()
    }

    pub fn texts(&mut self, app: usize, session: SessionId) -> Vec<String> {
        let items = self.read(app, session).into_iter();
        items
            .map(|item| match item {
                Item::Message(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
                Item::Lost { count, .. } => format!("<{count} lost>"),
            })
            .collect()
    }

    fn key(name: &pb::Name) -> (Vec<u64>, [u64; 2]) {
        let encoded = name.name.as_ref().unwrap();
        let id = encoded.name_id.unwrap();
        (vec![encoded.component_0, encoded.component_1, encoded.component_2], [id.id_0, id.id_1])
    }

    fn route(&mut self, from: usize, message: pb::Message) {
        let octets = message.encode_to_vec();
        match message.message_type.as_ref().unwrap() {
            MessageType::Subscribe(subscribe) => {
                let (prefix, id) = Self::key(subscribe.header.as_ref().unwrap().destination.as_ref().unwrap());
                self.routes.entry(prefix).or_default().entry(id).or_default().insert(from);
                self.ack(from, subscribe.subscription_id);
            }
            MessageType::Unsubscribe(unsubscribe) => {
                let (prefix, id) = Self::key(unsubscribe.header.as_ref().unwrap().destination.as_ref().unwrap());
                if let Some(ids) = self.routes.get_mut(&prefix) {
                    ids.entry(id).or_default().remove(&from);
                }
                self.ack(from, unsubscribe.subscription_id);
            }
            MessageType::Publish(publish) => {
                self.carried.push(octets.clone());
                let header = publish.header.as_ref().unwrap();
                let (prefix, id) = Self::key(header.destination.as_ref().unwrap());
                let Some(ids) = self.routes.get(&prefix) else { return };
                let all: BTreeSet<usize> = if id == [u64::MAX; 2] {
                    ids.values().flatten().copied().filter(|to| *to != from).collect()
                } else {
                    ids.get(&id).into_iter().flatten().copied().filter(|to| *to != from).collect()
                };
                let all: Vec<usize> = all.into_iter().collect();
                let to = if header.fanout == 1 && !all.is_empty() {
                    self.turn += 1;
                    vec![all[self.turn % all.len()]]
                } else {
                    all
                };
                for to in to {
                    if !(self.filter)(from, to, publish) || self.random.below(1000) < self.faults.loss {
                        continue;
                    }
                    self.post(to, octets.clone(), true);
                    if self.random.below(1000) < self.faults.duplication {
                        self.post(to, octets.clone(), true);
                    }
                }
            }
            _ => panic!("an application does not send this"),
        }
    }

    fn ack(&mut self, to: usize, subscription_id: u64) {
        let ack = pb::SubscriptionAck { subscription_id, success: true, error: String::new() };
        let message = pb::Message { message_type: Some(MessageType::SubscriptionAck(ack)), ..Default::default() };
        self.post(to, message.encode_to_vec(), false);
    }

    fn post(&mut self, to: usize, octets: Vec<u8>, faulty: bool) {
        let jitter = if faulty { u64::try_from(self.faults.jitter.as_micros()).unwrap() } else { 0 };
        let delay = Duration::from_micros(100 + self.random.below(jitter + 1));
        self.order += 1;
        self.in_flight.push(Reverse(InFlight { at: self.clock + delay, order: self.order, to, octets }));
    }

    // --- what tests ask ---

    /// What an application sent, of that kind and id, in order.
    pub fn carried_by(&self, from: usize, kind: pb::SessionMessageType, id: u32) -> Vec<pb::Message> {
        let from = self.name(from).to_wire();
        let all = self.carried.iter().map(|octets| pb::Message::decode(&**octets).unwrap());
        let wanted = all.filter(|message| {
            let Some(MessageType::Publish(publish)) = &message.message_type else { return false };
            let session = publish.session.as_ref().unwrap();
            publish.header.as_ref().unwrap().source.as_ref() == Some(&from)
                && (session.session_message_type(), session.message_id) == (kind, id)
        });
        wanted.collect()
    }

    /// Has a member ask another for a message of its, and tells whether it got it; `None`: there was no reply.
    pub fn asks_for(&mut self, member: usize, of: usize, id: u32) -> Option<bool> {
        // Its last acknowledgement of something the other said, made a request.
        let (from, to) = (self.name(member).to_wire(), self.name(of).to_wire());
        let mut acks = self.carried.iter().rev().map(|octets| pb::Message::decode(&**octets).unwrap());
        let mut message = acks
            .find(|message| {
                let Some(MessageType::Publish(publish)) = &message.message_type else { return false };
                let header = publish.header.as_ref().unwrap();
                let kind = publish.session.as_ref().unwrap().session_message_type();
                (header.source.as_ref(), header.destination.as_ref()) == (Some(&from), Some(&to))
                    && kind == pb::SessionMessageType::MsgAck
            })
            .unwrap();
        let Some(MessageType::Publish(publish)) = &mut message.message_type else { unreachable!() };
        let session = publish.session.as_mut().unwrap();
        session.session_message_type = pb::SessionMessageType::RtxRequest.into();
        session.message_id = id;
        let (now, before) = (self.now(), self.carried.len());
        self.endpoint(of).handle(now, message);
        self.run(Duration::from_secs(1));
        self.carried[before..].iter().find_map(|octets| {
            let Some(MessageType::Publish(publish)) = pb::Message::decode(&**octets).unwrap().message_type else {
                return None;
            };
            let reply = publish.session.unwrap().session_message_type() == pb::SessionMessageType::RtxReply;
            reply.then(|| !publish.header.unwrap().error())
        })
    }

    pub fn arrived(&self, app: usize) -> Option<SessionId> {
        self.apps[app].events.iter().rev().find_map(|event| match event {
            AppEvent::Arrived(id) => Some(*id),
            _ => None,
        })
    }

    pub fn saw(&self, app: usize, wanted: impl Fn(&Event) -> bool) -> bool {
        self.apps[app].events.iter().any(|event| matches!(event, AppEvent::Session(_, event) if wanted(event)))
    }

    pub fn is_closed(&mut self, app: usize, id: SessionId) -> bool {
        self.endpoint(app).session(id).is_none_or(|session| session.is_closed())
    }

    pub fn with<T>(
        &mut self,
        app: usize,
        id: SessionId,
        run: impl FnOnce(&mut slimline_session::Session, Now) -> T,
    ) -> T {
        let now = self.now();
        let result =
            self.apps[app].endpoint.with_session(now, id, |session| run(session, now)).expect("the session lives");
        self.flush();
        result
    }
}
