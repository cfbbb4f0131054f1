//! Once warm, a shard forwards without allocating: counted over every thread of this process.
//!
//! One test, alone in its file: the counter is the process's, so nothing else may run beside it.

mod kit;

use kit::TestNode;
use kit::client::Client;
use slimline_wire::{ConnType, NameId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts allocations made by threads other than the test's own.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_TEST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !IS_TEST.try_with(std::cell::Cell::get).unwrap_or(true) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BOB: [&str; 3] = ["org", "ns", "bob"];

/// What a node may allocate in a round of 3200 messages besides them: a stray timer, a log line.
const SLACK: u64 = 8;
const ROUNDS: usize = 5;

#[test]
fn a_warm_shard_forwards_without_allocating() {
    IS_TEST.set(true);
    for shards in [1, 2] {
        let node = TestNode::start(shards);
        let (mut bob, mut alice) = (Client::connect(node.address), Client::connect(node.address));
        let (mut bob_link, mut alice_link) = (bob.link(ConnType::Edge), alice.link(ConnType::Edge));
        assert_eq!(bob.subscribe(&mut bob_link, BOB, NameId(1), 1), "");
        let mut carol = Client::connect(node.address);
        let mut carol_link = carol.link(ConnType::Edge);
        assert_eq!(carol.subscribe(&mut carol_link, BOB, NameId(2), 1), "");
        let mut run = |messages: usize| {
            for size in [200usize, 1000, 6000, 16_000] {
                for _ in 0..messages {
                    alice.publish(&mut alice_link, BOB, NameId(1), 1, &vec![7; size]);
                    assert_eq!(bob.expect_payload(&mut bob_link).len(), size);
                    alice.publish(&mut alice_link, BOB, NameId::ANY, 2, &vec![7; size]);
                    assert_eq!(bob.expect_payload(&mut bob_link).len(), size);
                    assert_eq!(carol.expect_payload(&mut carol_link).len(), size);
                }
            }
        };
        // On a busy machine a round now and then still grows something to a new high-water mark: a list of completions, a
        // frame's head that came in two reads. Allocating per message shows in every round.
        run(200);
        let rounds: Vec<u64> = (0..ROUNDS)
            .map(|_| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                run(400);
                ALLOCATIONS.load(Ordering::Relaxed) - before
            })
            .collect();
        let least = rounds.iter().min().copied();
        assert!(least <= Some(SLACK), "allocations in rounds of 3200 messages on {shards} shards: {rounds:?}");
        assert!(node.counters().gathered_out > 0, "large bodies were gathered");
    }
}
