//! The books: at rest, what came in is what went out and what was dropped, each with its reason.

use super::channel::Stage;
use super::life::Life;
use crate::shard::stats::Counters;

/// Panics unless every message that was read has its one fate.
pub(super) fn check(life: &Life) {
    let counters = life.node.counters();
    let Counters {
        messages_in, publishes, subscribes, unsubscribes, links_up, ignored, drop_malformed, panics, ..
    } = counters;
    let kinds = publishes + subscribes + unsubscribes + links_up + ignored + drop_malformed;
    assert!(messages_in >= kinds && messages_in <= kinds + panics, "messages in, by kind: {:?}", counters.named());
    assert_eq!(counters.mesh_in, counters.mesh_out, "between shards: {:?}", counters.named());
    if life.history.is_all_for_one() {
        assert_eq!(publishes, counters.messages_out + drops(&counters), "publishes, by fate: {:?}", counters.named());
    }
    if counters.connections_ended == 0 && life.peers.iter().all(|peer| peer.is_open() && !peer.is_leaving) {
        everybody_stayed(life, &counters);
    }
}

/// Why a publish for one can go nowhere.
fn drops(counters: &Counters) -> u64 {
    let Counters { drop_no_route, drop_ttl, drop_mac, drop_stalled, drop_hard_cap, drop_memory, .. } = counters;
    drop_no_route + drop_ttl + drop_mac + drop_stalled + drop_hard_cap + drop_memory + counters.drop_next_hop_gone
}

/// What clients say they sent and got is what the node counted, to the octet.
fn everybody_stayed(life: &Life, counters: &Counters) {
    let history = &life.history;
    assert_eq!(counters.publishes, history.next_publish() as u64, "published");
    assert_eq!(counters.messages_out, history.copies(), "copies");
    let asked = history.subscribes + history.unsubscribes;
    assert_eq!((counters.subscribes, counters.unsubscribes), (history.subscribes, history.unsubscribes), "asked");
    assert_eq!(counters.acks_success + counters.acks_failure, asked, "answered");
    let up = life.peers.iter().flat_map(|peer| &peer.channels).filter(|channel| channel.stage == Stage::Up).count();
    assert_eq!(counters.links_up, up as u64, "links");
    let (wrote, read) = life.peers.iter().fold((0, 0), |(wrote, read), peer| (wrote + peer.wrote, read + peer.read));
    assert_eq!((counters.octets_in, counters.octets_out), (wrote, read), "octets in and out");
}
