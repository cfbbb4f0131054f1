//! What encryption costs per message, publishing from end to end, and joining per member: 1 KiB payload, 420 octets of AAD.
//! Compare:  the same machine's `mls-rs` figures in the specification (27–38 µs to encrypt, 78–118 µs to decrypt).
#![allow(missing_docs)] // criterion's macros

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use prost::Message as _;
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{SharedSecret, SigningKey};
use slimline_session::mls::Group;
use slimline_session::{Credentials, Direction, Endpoint, Name, Now, Publish, SessionConfig};
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
        newcomer.join(&changed.welcome.unwrap()).unwrap();
        if members.len() < listening {
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
        let (mut moderator, mut members) = group(KeyKind::P256, size - 2, 1);
        bench.bench_function(BenchmarkId::from_parameter(size), |bench| {
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

/// An application on a link that loses nothing and takes no time.
fn endpoint(name: &str) -> Endpoint {
    let key = SigningKey::generate(KeyKind::P256).unwrap();
    let identity = SharedSecret::with_subject(format!("{name}_12345678"), SECRET, key).unwrap();
    let name: Name = name.parse().unwrap();
    let mut endpoint = Endpoint::new(&name, Credentials::new(identity), Direction::BOTH).unwrap();
    let now = Now { instant: Instant::now(), unix_s: NOW };
    endpoint.connected(now);
    endpoint.subscribe(now, &name);
    while endpoint.poll_transmit().is_some() {}
    endpoint
}

/// Carries all that is to be carried, in octets as it would be.
fn carry(now: Now, ends: &mut [Endpoint; 2]) {
    loop {
        let mut moved = false;
        for from in 0..2 {
            while let Some(message) = ends[from].poll_transmit() {
                if matches!(message.message_type, Some(pb::message::MessageType::Publish(_))) {
                    moved = true;
                    let octets = message.encode_to_vec();
                    ends[1 - from].handle(now, pb::Message::decode(&*octets).unwrap());
                }
            }
        }
        if !moved {
            return;
        }
    }
}

/// What one published message of 1 KiB costs both applications together: token, seal, protobuf, open, acknowledgement.
fn publishing(criterion: &mut Criterion) {
    for (kind, config) in
        [("mls", SessionConfig::point_to_point()), ("plain", SessionConfig::point_to_point().without_mls())]
    {
        let now = Now { instant: Instant::now(), unix_s: NOW };
        let mut ends = [endpoint("acme/ns/alice"), endpoint("acme/ns/bob")];
        let id = ends[0].create_session(now, config, &"acme/ns/bob".parse().unwrap()).unwrap();
        carry(now, &mut ends);
        criterion.bench_function(&format!("session/publish/{kind}"), |bench| {
            bench.iter(|| {
                let publish = Publish::from(vec![7; 1024]);
                ends[0].with_session(now, id, |session| session.publish(now, publish)).unwrap().unwrap();
                carry(now, &mut ends);
                let heard = ends[1].with_session(now, id, |session| session.recv()).unwrap();
                assert!(heard.is_some());
                for end in &mut ends {
                    while end.poll_event().is_some() {}
                }
            });
        });
    }
}

criterion_group!(benches, messages, publishing, joining);
criterion_main!(benches);
