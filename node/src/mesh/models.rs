//! Loom models: every order in which the threads' steps can happen, within the bound given on the command line.
//!
//! See `mod.rs` for the command. Models were seen to fail with each of the fences, and with each Release of the ring, taken
//! away; the Release of the log is hidden here by the lock inside the queue that stands in for crossbeam.

use super::log::delta_log;
use super::ring::{Class, RingOptions, ring};
use super::wake::Parking;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use slimline_fib::{ConnId, Delta};

/// What a thread blocks on: an eventfd's counter, in loom's terms. A wake that comes early is kept.
#[derive(Clone)]
struct Block(Arc<(Mutex<bool>, Condvar)>);

impl Block {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn wake(&self) {
        *self.0.0.lock().expect("no panic while locked") = true;
        self.0.1.notify_one();
    }

    fn wait(&self) {
        let mut is_woken = self.0.0.lock().expect("no panic while locked");
        while !*is_woken {
            is_woken = self.0.1.wait(is_woken).expect("no panic while locked");
        }
        *is_woken = false;
    }
}

const TINY: RingOptions = RingOptions { octets: 64, record_octets_max: 8, control_octets: 16, bodies_max: 1 };

/// The ring holds three of the records below besides its reserve, and has four places for them.
const RECORDS: u8 = 5;

/// Records arrive whole, in order, also where the room of the first is used again for the last.
#[test]
fn records_arrive_whole() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<u8>(TINY);
        let writer = thread::spawn(move || {
            for n in 1..=RECORDS {
                while producer.push(Class::Data, &[&[n; 8]]).is_err() {
                    thread::yield_now();
                }
                if n != 2 {
                    producer.publish();
                }
            }
        });
        for n in 1..=RECORDS {
            while !consumer.has_more() {
                thread::yield_now();
            }
            let record = consumer.next().expect("there is more");
            assert_eq!(record.octets, [n; 8]);
            consumer.release();
        }
        writer.join().expect("no panic");
    });
}

/// A body is there when its record is.
#[test]
fn bodies_arrive_with_their_records() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<u8>(TINY);
        let writer = thread::spawn(move || {
            for n in 1..=2u8 {
                while producer.grant_with_body(Class::Data, 0, n).is_err() {
                    thread::yield_now();
                }
                producer.publish();
            }
        });
        for n in 1..=2u8 {
            while !consumer.has_more() {
                thread::yield_now();
            }
            assert_eq!(consumer.next().expect("there is more").body, Some(n));
            consumer.release();
        }
        writer.join().expect("no panic");
    });
}

/// Nobody sleeps while there is something in its ring. Loom reports a deadlock if a wake is lost.
#[test]
fn no_wake_is_lost() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<()>(TINY);
        let block = Block::new();
        let rung = block.clone();
        let parking = Parking::new(move || rung.wake());
        let bell = parking.doorbell();
        let writer = thread::spawn(move || {
            for n in 1..=2u8 {
                producer.push(Class::Data, &[&[n]]).expect("room");
                producer.publish();
                bell.ring();
            }
        });
        for n in 1..=2u8 {
            while !consumer.has_more() {
                parking.park();
                if !consumer.has_more() {
                    block.wait();
                }
                parking.unpark();
            }
            assert_eq!(consumer.next().expect("there is more").octets, [n]);
        }
        writer.join().expect("no panic");
    });
}

/// How the shard's first turn goes in the models of acknowledgements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Work,
    Sleep,
    /// It parks, but its completions are there already: an enter that returns at once.
    Nap,
}

/// Once `have_all` said yes, whatever a shard handles afterwards it handles with the delta; and a writer that sleeps until
/// then is woken. The shard takes part as it does in the node: it drains or resumes first, then handles what has arrived.
fn acknowledgements_are_true(first: First) {
    let mut bound = loom::model::Builder::new();
    bound.preemption_bound = bound.preemption_bound.or(Some(3));
    bound.check(move || {
        let (shard_block, writer_block) = (Block::new(), Block::new());
        let (shard_wake, writer_wake) = (shard_block.clone(), writer_block.clone());
        // Room for eight batches, so that no bell is rung for want of room: its fence would hide that another is missing.
        let (mut writer, mut readers) = delta_log([move || shard_wake.wake()], move || writer_wake.wake(), 8);
        let mut reader = readers.pop().expect("one");
        let arrived = Arc::new(AtomicBool::new(false)); // the client's next message, sent when it has its acknowledgement
        let arrives = Arc::clone(&arrived);

        let shard = thread::spawn(move || {
            let mut applied = 0;
            let mut turn = first;
            loop {
                if turn == First::Work {
                    applied += reader.drain(1, |_| ());
                    if arrived.load(Ordering::Acquire) {
                        assert_eq!(applied, 1, "acknowledged, but a shard at work does not know of it");
                        return;
                    }
                }
                reader.park();
                if turn != First::Nap && !reader.has_more() && !arrived.load(Ordering::Acquire) {
                    shard_block.wait();
                }
                applied += reader.resume(|_| ());
                if arrived.load(Ordering::Acquire) {
                    assert_eq!(applied, 1, "acknowledged, but a shard that woke does not know of it");
                    return;
                }
                turn = First::Work;
            }
        });

        let conn = ConnId { shard: 0, slot: 0, generation: 0 };
        let version = writer.publish([Delta::ConnGone { conn }].into()).expect("room");
        while !writer.have_all(version) {
            writer.park();
            if !writer.have_all(version) {
                writer_block.wait();
            }
            writer.unpark();
        }
        arrives.store(true, Ordering::Release);
        writer.doorbell_of(0).ring();
        shard.join().expect("no panic");
    });
}

#[test]
fn acknowledgements_are_true_for_a_shard_at_work() {
    acknowledgements_are_true(First::Work);
}

#[test]
fn acknowledgements_are_true_for_a_shard_asleep() {
    acknowledgements_are_true(First::Sleep);
}

#[test]
fn acknowledgements_are_true_for_a_shard_that_only_nods_off() {
    acknowledgements_are_true(First::Nap);
}

/// A sleeper is woken once per sleep, however many have news.
#[test]
fn a_bell_rings_once() {
    loom::model(|| {
        let rung = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rung);
        let parking = Parking::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        parking.park();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let bell = parking.doorbell();
                thread::spawn(move || bell.ring())
            })
            .collect();
        let rings = others.into_iter().map(|other| usize::from(other.join().expect("no panic"))).sum::<usize>();
        assert_eq!((rings, rung.load(Ordering::Relaxed)), (1, 1));
    });
}
