//! What encryption costs per message, a message from end to end, and joining per member: 1 KiB payload, 420 octets of AAD.
//! Compare:  `cargo xtask bench mls-rs`, the same beside the library that SLIM's applications stand on.
#![allow(missing_docs)] // criterion's macros

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use prost::Message as _;
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{SharedSecret, SigningKey};
use slimline_session::mls::Group;
use slimline_session::{Credentials, Direction, Endpoint, Name, Now, Publish, SessionConfig, Store, StoreKey};
use slimline_wire::pb;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_000_000;

fn member(kind: KeyKind, n: usize) -> Group {
    let key = SigningKey::generate(kind).unwrap();
    let identity = Arc::new(SharedSecret::with_subject(format!("acme/ns/member{n}_12345678"), SECRET, key).unwrap());
    Group::new(identity.clone(), identity).unwrap()
}

/// A moderator and `others` in one group; the first `listening` of them are there to hear it.
fn group(kind: KeyKind, others: usize, listening: usize) -> (Group, Vec<Group>) {
    let mut moderator = member(kind, 0);
    moderator.create(NOW).unwrap();
    let mut members: Vec<Group> = Vec::new();
    for n in 1..=others {
        let mut newcomer = member(kind, n);
        let changed = moderator.add(&newcomer.key_package(NOW).unwrap(), NOW).unwrap();
        for known in &mut members {
            known.apply(&changed.commit, NOW).unwrap();
        }
        if members.len() < listening {
            newcomer.join(&changed.welcome.unwrap()).unwrap();
            members.push(newcomer);
        }
    }
    (moderator, members)
}

fn messages(criterion: &mut Criterion) {
    for (suite, kind) in [("p256", KeyKind::P256), ("ed25519", KeyKind::Ed25519)] {
        let (mut moderator, mut members) = group(kind, 3, 3);
        let (payload, aad) = (vec![7; 1024], vec![9; 420]);
        criterion.bench_function(&format!("mls/encrypt/{suite}"), |bench| {
            bench.iter(|| moderator.seal(black_box(&payload), aad.clone()).unwrap());
        });
        // The bench above spent generations that the members never saw: a new epoch starts from zero.
        let fresh = moderator.refresh(NOW).unwrap();
        for member in &mut members {
            member.apply(&fresh.commit, NOW).unwrap();
        }
        criterion.bench_function(&format!("mls/decrypt/{suite}"), |bench| {
            bench.iter_batched(
                || moderator.seal(&payload, aad.clone()).unwrap(),
                |sealed| members[0].open(black_box(&sealed)).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
}

/// What the last member's coming costs: at the moderator, at a member that was there, at the newcomer.
fn joining(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("mls/join");
    bench.sample_size(10).measurement_time(Duration::from_secs(2));
    for size in [2, 8, 64, 256] {
        let mut made = None; // once, and only if it is asked for
        bench.bench_function(BenchmarkId::from_parameter(size), |bench| {
            let (moderator, members) = made.get_or_insert_with(|| group(KeyKind::P256, size - 2, 1));
            bench.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for round in 0..rounds {
                    let mut newcomer = member(KeyKind::P256, 1000 + usize::try_from(round).unwrap());
                    let package = newcomer.key_package(NOW).unwrap();
                    let started = Instant::now();
                    let changed = moderator.add(&package, NOW).unwrap();
                    if let Some(member) = members.first_mut() {
                        member.apply(&changed.commit, NOW).unwrap();
                    }
                    newcomer.join(&changed.welcome.unwrap()).unwrap();
                    spent += started.elapsed();
                    let name = format!("acme/ns/member{}_12345678", 1000 + round);
                    let removed = moderator.remove(&name).unwrap();
                    if let Some(member) = members.first_mut() {
                        member.apply(&removed.commit, NOW).unwrap();
                    }
                }
                spent
            });
        });
    }
    bench.finish();
}

/// What an application does with what it has to keep.
enum Keeps {
    /// It keeps nothing.
    Nothing,
    /// Records in memory: what finding out, writing and comparing them costs, without a file.
    InMemory(BTreeMap<Vec<u8>, Vec<u8>>),
    /// A store, on the disk when a message leaves.
    InFile(Box<Store>),
}

/// An application on a link that loses nothing and takes no time, and its store.
struct App {
    endpoint: Endpoint,
    keeps: Keeps,
}

/// A new store, on the disk that is built on: `/tmp` may be none.
fn store(name: &str) -> Store {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}.store"));
    let _ = std::fs::remove_file(&path);
    Store::open(&path, StoreKey::new([7; 32])).unwrap()
}

impl App {
    fn new(name: &str, keeping: &str) -> Self {
        let key = SigningKey::generate(KeyKind::P256).unwrap();
        let identity = SharedSecret::with_subject(format!("{name}_12345678"), SECRET, key).unwrap();
        let credentials = Credentials::new(identity);
        let name: Name = name.parse().unwrap();
        let (now, both) = (now(), Direction::BOTH);
        let mut endpoint = match keeping {
            "nothing" => Endpoint::new(&name, credentials, both).unwrap(),
            _ => Endpoint::reopen(&name, credentials, both, &store("empty"), now).unwrap(),
        };
        endpoint.connected(now);
        endpoint.subscribe(now, &name);
        let keeps = match keeping {
            "nothing" => Keeps::Nothing,
            "memory" => Keeps::InMemory(BTreeMap::new()),
            _ => Keeps::InFile(Box::new(store("kept"))),
        };
        let mut app = Self { endpoint, keeps };
        app.settle();
        while app.endpoint.poll_transmit().is_some() {}
        app
    }

    /// Writes what has to be written before anything leaves.
    fn settle(&mut self) {
        let Some(changes) = self.endpoint.changes() else { return };
        match &mut self.keeps {
            Keeps::Nothing => {}
            Keeps::InMemory(records) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(records.insert(key, value)),
                        None => drop(records.remove(&key)),
                    }
                }
            }
            Keeps::InFile(store) => store.commit(changes).unwrap(),
        }
        self.endpoint.written();
    }

    /// The publishes that may leave now, as octets.
    fn says(&mut self) -> Vec<Vec<u8>> {
        self.settle();
        let said = std::iter::from_fn(|| self.endpoint.poll_transmit());
        let publishes = said.filter(|said| matches!(said.message_type, Some(pb::message::MessageType::Publish(_))));
        publishes.map(|said| said.encode_to_vec()).collect()
    }

    fn hears(&mut self, now: Now, said: &[Vec<u8>]) {
        for octets in said {
            self.endpoint.handle(now, pb::Message::decode(&**octets).unwrap());
        }
        while self.endpoint.poll_event().is_some() {}
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), unix_s: NOW }
}

/// What one message of 1 KiB costs whoever publishes it (token, seal, protobuf, the acknowledgement taken in) and whoever
/// receives it (open, checks, the acknowledgement made), each alone, by what is kept over a restart.
fn messaging(criterion: &mut Criterion) {
    let plain = || SessionConfig::point_to_point().without_mls();
    for (kind, config, keeping) in [
        ("plain", plain(), "nothing"),
        ("mls", SessionConfig::point_to_point(), "nothing"),
        ("mls, kept in memory", SessionConfig::point_to_point(), "memory"),
        ("mls, kept in a file", SessionConfig::point_to_point(), "file"),
    ] {
        for publishes in [true, false] {
            let (title, keep) =
                if publishes { ("publish", [keeping, "nothing"]) } else { ("receive", ["nothing", keeping]) };
            let now = now();
            let mut from = App::new("acme/ns/alice", keep[0]);
            let mut to = App::new("acme/ns/bob", keep[1]);
            let id = from.endpoint.create_session(now, config.clone(), &"acme/ns/bob".parse().unwrap()).unwrap();
            loop {
                let (there, back) = (from.says(), to.says());
                if there.is_empty() && back.is_empty() {
                    break;
                }
                to.hears(now, &there);
                from.hears(now, &back);
            }
            let mut group = criterion.benchmark_group(format!("session/{title}"));
            if keeping == "file" {
                group.sample_size(10); // the disk decides
            }
            group.bench_function(kind, |bench| {
                bench.iter_custom(|rounds| {
                    let (mut publishing, mut receiving) = (Duration::ZERO, Duration::ZERO);
                    for _ in 0..rounds {
                        let publish = Publish::from(vec![7; 1024]);
                        let started = Instant::now();
                        from.endpoint.with_session(now, id, |session| session.publish(now, publish)).unwrap().unwrap();
                        let said = from.says();
                        publishing += started.elapsed();

                        let started = Instant::now();
                        to.hears(now, &said);
                        let heard = to.endpoint.with_session(now, id, |session| session.recv()).unwrap();
                        let acknowledged = to.says();
                        receiving += started.elapsed();
                        assert!(heard.is_some());

                        let started = Instant::now();
                        from.hears(now, &acknowledged);
                        from.settle();
                        publishing += started.elapsed();
                    }
                    if publishes { publishing } else { receiving }
                });
            });
            group.finish();
        }
    }
}

/// What of a kept message is the disk's: as many octets as a commit has, appended and synchronised, by nobody else's code.
fn disk(criterion: &mut Criterion) {
    let mut file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-disk")).unwrap();
    let mut group = criterion.benchmark_group("disk");
    group.sample_size(10);
    group.bench_function("append 16 KiB, fsync", |bench| {
        bench.iter(|| {
            file.write_all(&[7; 16 << 10]).unwrap();
            file.sync_data().unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, messages, messaging, disk, joining);
criterion_main!(benches);
