//! What a shard must not hold on to: looked at when everything should be done, and when everybody has left.

use crate::conn::transport::Closing;
use crate::shard::core::Core;

/// What of this shard still waits for something; `None` when nothing does.
pub(super) fn unfinished(core: &Core) -> Option<String> {
    let shard = core.index;
    for connection in core.connections.iter() {
        let id = connection.id;
        if let Some(parked) = &connection.parked {
            return Some(format!("connection {id} is parked: {:?}", parked.wait));
        }
        if !connection.backlog.is_empty() || connection.requests > 0 {
            return Some(format!(
                "connection {id}: backlog {}, requests {}",
                connection.backlog.len(),
                connection.requests
            ));
        }
        if connection.age.waiting() > 0 || !connection.out.is_empty() {
            return Some(format!("connection {id}: {} octets queued", connection.age.waiting()));
        }
        if !connection.waiters.is_empty() {
            return Some(format!("connection {id}: {:?} wait for it", connection.waiters));
        }
    }
    for transport in core.transports.iter() {
        let tx = &transport.tx;
        if !tx.fill.is_empty() || tx.flight_octets > 0 || !tx.backlogged.is_empty() || transport.closing != Closing::No
        {
            let (slot, closing) = (transport.slot, transport.closing);
            return Some(format!("transport {slot} of shard {shard}: {} to send, {closing:?}", tx.fill.len()));
        }
    }
    let lists = [
        ("ready", core.ready.len()),
        ("parked elsewhere", core.parked_elsewhere.len()),
        ("farewells", core.farewells.len()),
        ("congested elsewhere", core.congested_elsewhere.len()),
        ("mesh", usize::from(core.mesh.has_input() || core.mesh.has_unsaid())),
    ];
    lists.iter().find(|(_, count)| *count > 0).map(|(name, count)| format!("shard {shard}: {name} {count}"))
}

/// Panics unless the shard's tables are empty and all their slots free.
pub(super) fn assert_empty(core: &Core) {
    let shard = core.index;
    assert_eq!(core.transports.len(), 0, "transports of shard {shard}");
    assert_eq!(core.connections.len(), 0, "connections of shard {shard}");
    assert_eq!(core.transports.held(), 0, "slots of transports of shard {shard} not released");
    assert_eq!(core.connections.held(), 0, "slots of connections of shard {shard} not released");
    assert_eq!(core.fib.names(), 0, "names in the replica of shard {shard}");
    assert_eq!(unfinished(core), None);
    assert!(core.aging.is_empty() && core.touched.is_empty() && core.ended_streams.is_empty());
    assert!(core.actions.is_empty(), "{:?}", core.actions);
    let counters = &core.counters;
    assert_eq!(counters.transports_accepted, counters.transports_closed, "transports of shard {shard}, all and gone");
    assert_eq!(core.octets_held(), 0, "octets held by shard {shard}");
}
