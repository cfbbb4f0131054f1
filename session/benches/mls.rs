//! What encryption costs per message, and joining per member: 1 KiB payload, 420 octets of AAD, suite 0x0002.
//! Compare:  the same machine's `mls-rs` figures in the specification (27–38 µs to encrypt, 78–118 µs to decrypt).
#![allow(missing_docs)] // criterion's macros

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{SharedSecret, SigningKey};
use slimline_session::mls::Group;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_000_000;

fn member(kind: KeyKind, n: usize) -> Group {
    let key = SigningKey::generate(kind).unwrap();
    let identity = Arc::new(SharedSecret::with_subject(format!("acme/ns/member{n}_12345678"), SECRET, key).unwrap());
    Group::new(identity.clone(), identity).unwrap()
}

/// A moderator and `others`, all in one group.
fn group(kind: KeyKind, others: usize) -> (Group, Vec<Group>) {
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
        members.push(newcomer);
    }
    (moderator, members)
}

fn messages(criterion: &mut Criterion) {
    for (suite, kind) in [("p256", KeyKind::P256), ("ed25519", KeyKind::Ed25519)] {
        let (mut moderator, mut members) = group(kind, 3);
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
    for size in [2, 8, 64] {
        let (mut moderator, mut members) = group(KeyKind::P256, size - 2);
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

criterion_group!(benches, messages, joining);
criterion_main!(benches);
