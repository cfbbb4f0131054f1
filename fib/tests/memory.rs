//! What a name costs in memory, replica and RIB, in the shapes a large network has.

use peak_alloc::PeakAlloc;
use slimline_fib::{ConnId, Delta, Fib, Rib, RibLimits};
use slimline_wire::{ConnType, Name, NameId, Prefix};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Names each of their own service; instances of one service, a hundred to a connection; and what lies between.
///
/// One test, not several: the counter is the process's, so nothing may run beside it.
#[test]
fn octets_per_name() {
    // An eighth of a million fills the tables as a million does: both lie just past the point where every segment of them
    // has been split, the least favourable there is.
    check(1_000_000, "own service", 64, 200, |n| (n % 10_000, format!("agent-{n:07}"), 1));
    for names in [75_000, 120_000, 125_000] {
        check(names, "own service", 64, 200, |n| (n % 10_000, format!("agent-{n:07}"), 1));
        check(names, "instances of one service", 64, 200, |n| (n / 100, "agent".to_owned(), n));
        check(names, "16 instances each", 64, 200, |n| (n % 10_000, format!("agent-{:07}", n / 16), n));
    }
    // Pairs are the dearest: a service with two ids has a record, a group and two names.
    check(125_000, "2 instances each", 112, 200, |n| (n % 10_000, format!("agent-{:07}", n / 2), n));
}

fn check(names: u32, shape: &str, replica_max: usize, rib_max: usize, make: impl Fn(u32) -> (u32, String, u32)) {
    let mut deltas: Vec<Delta> = Vec::with_capacity(names as usize);
    let mut rib = Rib::new(RibLimits::default());
    let before = ALLOCATED.current_usage();
    for n in 0..names {
        let (slot, service, id) = make(n);
        let conn = ConnId { shard: 0, slot, generation: 0 };
        let name = Name { prefix: Prefix::of("organisation", "namespace", &service), id: NameId(id.into()) };
        let text = Some(["organisation", "namespace", &service]);
        rib.subscribe(conn, ConnType::Edge, name, text, n.into(), &mut deltas).expect("room");
    }
    assert_eq!((rib.names(), deltas.len()), (names as usize, names as usize));
    let rib_octets = (ALLOCATED.current_usage() - before) / names as usize;

    let before = ALLOCATED.current_usage();
    let mut fib = Fib::new(0, 1);
    deltas.iter().for_each(|delta| fib.apply(delta));
    assert_eq!(fib.names(), names as usize);
    let replica_octets = (ALLOCATED.current_usage() - before) / names as usize;
    println!("{names} names, {shape}: replica {replica_octets}, RIB {rib_octets} octets each");
    assert!(
        replica_octets <= replica_max,
        "{shape}: {replica_octets} octets per name in a replica, {replica_max} allowed"
    );
    assert!(rib_octets <= rib_max, "{shape}: {rib_octets} octets per name in the RIB, {rib_max} allowed");
}
