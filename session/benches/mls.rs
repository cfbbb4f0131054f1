//! What encryption costs per message, and joining per member: 1 KiB payload, 420 octets of AAD, suite 0x0002.
//! Compare:  the same machine's `mls-rs` figures in the specification (27–38 µs to encrypt, 78–118 µs to decrypt).
#![allow(missing_docs)] // criterion's macros

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use slimline_session::identity::key::KeyKind;
use slimline_session::identity::{SharedSecret, SigningKey};
use slimline_session::mls::Group;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_000_000;

/// Time on the processor, not on the wall: what a busy machine does beside us is not counted.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = Duration;

    /// Shape: `/proc/thread-self/schedstat` is three numbers, the first the nanoseconds this thread ran.
    fn start(&self) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds")
    }
    fn end(&self, started: u64) -> Duration {
        Duration::from_nanos(self.start() - started)
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        WallTime.add(one, other)
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

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

fn messages(criterion: &mut Criterion<CpuTime>) {
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
fn joining(criterion: &mut Criterion<CpuTime>) {
    let mut bench = criterion.benchmark_group("mls/join");
    bench.sample_size(10).measurement_time(Duration::from_secs(2));
    for size in [2, 8, 64] {
        let (mut moderator, mut members) = group(KeyKind::P256, size - 2);
        bench.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter_custom(|rounds| {
                let clock = CpuTime;
                let mut spent = Duration::ZERO;
                for round in 0..rounds {
                    let mut newcomer = member(KeyKind::P256, 1000 + usize::try_from(round).unwrap());
                    let package = newcomer.key_package(NOW).unwrap();
                    let started = clock.start();
                    let changed = moderator.add(&package, NOW).unwrap();
                    if let Some(member) = members.first_mut() {
                        member.apply(&changed.commit, NOW).unwrap();
                    }
                    newcomer.join(&changed.welcome.unwrap()).unwrap();
                    spent += clock.end(started);
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

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = messages, joining
}
criterion_main!(benches);
