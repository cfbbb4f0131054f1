//! One client with a great many names: all of them acknowledged in order, nobody else held up, nothing left when it leaves.
//!
//! A million names in an optimised build, fewer in a debug build; `SLIMLINE_NAMES` says otherwise. Times are printed and
//! decide nothing.

mod kit;

use kit::client::{Client, Link};
use kit::{PATIENCE, TestNode};
use slimline_wire::message::{MessageView, parse};
use slimline_wire::{ConnType, NameId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const STORM: [&str; 3] = ["org", "ns", "storm"];
const NEW: [&str; 3] = ["org", "ns", "newcomer"];

fn names() -> u64 {
    let default = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
    std::env::var("SLIMLINE_NAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Subscribes, publishes to itself from a second link, unsubscribes, again and again, until told to stop; the latencies of
/// the subscribes.
fn newcomer(node: &TestNode, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Duration>> {
    let (address, stop) = (node.address, Arc::clone(stop));
    std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let (mut link, mut other) = (client.link(ConnType::Edge), client.link(ConnType::Edge));
        let mut latencies = Vec::new();
        while !stop.load(Ordering::Acquire) || latencies.is_empty() {
            let id = NameId(latencies.len() as u128);
            let began = Instant::now();
            assert_eq!(client.subscribe(&mut link, NEW, id, 1), "");
            latencies.push(began.elapsed());
            client.publish(&mut other, NEW, id, 1, b"to the newcomer");
            assert_eq!(client.expect_payload(&mut link), b"to the newcomer");
            assert_eq!(client.unsubscribe(&mut link, NEW, id, 1), "");
            std::thread::sleep(Duration::from_millis(2));
        }
        latencies
    })
}

fn show(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    println!(
        "{what}: {} subscribes of a newcomer: p50 {:?}, p99 {:?}, max {:?}",
        latencies.len(),
        at(50),
        at(99),
        at(100)
    );
}

fn framed(link: &mut Link, id: u64) -> Vec<u8> {
    let message = link.subscribe_message(STORM, NameId(id.into()), id + 1, true);
    [&[0][..], &u32::try_from(message.len()).expect("short").to_be_bytes(), &message].concat()
}

#[test]
fn a_storm_of_names_is_acknowledged_in_order_and_delays_nobody() {
    let node = TestNode::with(2, "limits: {names_max: 12000000, names_per_connection_max: 11000000}", "");
    let count = names();
    let mut client = Client::connect(node.address);
    let mut link = client.link(ConnType::Edge);

    let stop = Arc::new(AtomicBool::new(false));
    let watcher = newcomer(&node, &stop);
    let began = Instant::now();
    let (mut acked, mut pending) = (0, Vec::new());
    let mut next = 0;
    while acked < count {
        while next < count && pending.len() < 256 * 1024 {
            pending.extend(framed(&mut link, next));
            next += 1;
        }
        let taken = client.try_octets(link.stream, &pending);
        pending.drain(..taken);
        client.pump(Duration::from_millis(1));
        while client.waiting_on(link.stream) > 0 {
            let ack = client.expect_message(link.stream);
            let Ok(MessageView::SubscriptionAck(ack)) = parse(&ack) else { panic!("an ack") };
            assert_eq!((ack.subscription_id, ack.success), (acked + 1, true), "in order: {}", ack.error);
            acked += 1;
        }
        assert!(began.elapsed() < PATIENCE * 10, "{acked} of {count} acknowledged");
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Release);
    println!("{count} names in {took:?}, signing included");
    show("during the storm", watcher.join().expect("served throughout"));
    node.wait_for("every name", |_| node.node().vitals().names as u64 == count);

    // They are all there.
    let mut publisher = Client::connect(node.address);
    let mut publisher_link = publisher.link(ConnType::Edge);
    for id in (0..count).step_by(usize::try_from(count / 50).expect("few")) {
        publisher.publish(&mut publisher_link, STORM, NameId(id.into()), 1, &id.to_le_bytes());
        assert_eq!(client.expect_payload(&mut link), id.to_le_bytes());
    }

    // The client leaves at once; its names go bit by bit, and nobody waits for that.
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = newcomer(&node, &stop);
    drop(client);
    let began = Instant::now();
    node.wait_for("the connection ends", |counters| counters.connections_ended >= 3);
    publisher.publish(&mut publisher_link, STORM, NameId(1), 1, b"nobody");
    node.wait_for("no route", |counters| counters.drop_no_route + counters.drop_next_hop_gone >= 1);
    node.wait_for("its names go", |_| node.node().vitals().names <= 1);
    println!("names swept after {:?}", began.elapsed());
    stop.store(true, Ordering::Release);
    show("while they go", watcher.join().expect("served throughout"));
}
