//! What reaches whom, one row per rule.

use slimline_fib::dump::{self, ConnText, Target};
use slimline_fib::{Change, ConnId, Delta, FanoutCursor, Fib, MatchFilter, Rib, RibError, RibLimits};
use slimline_wire::{ConnType, Name};

/// Each row: what is subscribed (`name@connection`), what arrives, which connections get it.
#[test]
#[rustfmt::skip]
fn match_all() {
    check_all("o/n/app/7@1 o/n/app/8@2", "o/n/app/7 from 9", "1");   // an id picks one instance
    check_all("o/n/app/7@1 o/n/app/8@2", "o/n/app/* from 2", "1");   // ANY reaches all but the sender
    check_all("o/n/app/7@1 o/n/app/7@1", "o/n/app/7 from 9", "1");   // two subscriptions, one copy
    check_all("o/n/app/7@1 o/n/app/8@1", "o/n/app/* from 9", "1");   // two ids of one connection, one copy
    check_all("o/n/app/*@1",             "o/n/app/7 from 9", "");    // an id does not match a subscription of ANY
    check_all("o/n/app/*@1 o/n/app/7@2", "o/n/app/* from 9", "1 2"); // but ANY does
    check_all("o/n/app/7@1",             "o/n/bpp/7 from 9", "");    // another service
    check_all("o/n/app/7@1",             "o/n/app/7 from 1", "");    // never back
    check_all("o/n/a/7@3 o/n/a/7@1 o/n/a/7@peer:4 o/n/a/7@local:5 o/n/a/7@remote:6", "o/n/a/7 from 9",
              "local:5 remote:6 peer:4 1 3");                        // all kinds, in their order
    check_all("o/n/a/7@3 o/n/a/7@peer:4", "o/n/a/7 from 9 mesh", "3"); // a full mesh sends nothing on to Peers
    check_all("o/n/a/7@peer:4",          "o/n/a/7 from 9 mesh", "");
}

/// Fanout 1, the same publish three times.
#[test]
#[rustfmt::skip]
fn match_one() {
    check_one("o/n/app/7@1",                         "o/n/app/7 from 9", "1 1 1");
    check_one("o/n/app/7@1 o/n/app/7@2",             "o/n/app/7 from 9", "1 2 1"); // in turn
    check_one("o/n/app/7@1 o/n/app/7@2",             "o/n/app/7 from 1", "2 2 2"); // never back
    check_one("o/n/app/7@1 o/n/app/7@2 o/n/app/7@3", "o/n/app/7 from 2", "1 3 1"); // the others still in turn
    check_one("o/n/app/7@1 o/n/app/7@peer:2",        "o/n/app/7 from 9", "peer:2 peer:2 peer:2"); // kinds do not mix
    check_one("o/n/app/7@1 o/n/app/7@remote:2 o/n/app/7@local:3 o/n/app/7@peer:4", "o/n/app/7 from 3", "remote:2 remote:2 remote:2");
    check_one("o/n/app/7@1 o/n/app/7@peer:2",        "o/n/app/7 from 2", "1 1 1"); // the next kind if the first has only the sender
    check_one("o/n/app/7@1 o/n/app/7@peer:2",        "o/n/app/7 from 9 mesh", "1 1 1");
    check_one("o/n/app/7@1 o/n/app/8@1 o/n/app/9@2", "o/n/app/* from 9", "1 2 1"); // ANY: a turn per connection, not per id
    check_one("o/n/app/*@1",                         "o/n/app/7 from 9", "- - -");
    check_one("o/n/app/7@1",                         "o/n/app/* from 9", "1 1 1");
    check_one("o/n/app/7@1",                         "o/n/app/8 from 9", "- - -");
}

/// Aggregates answer only where the exact prefix cannot, and only the longest that can.
#[test]
#[rustfmt::skip]
fn aggregates() {
    check_all("o/n/*@1 o/*@2",              "o/n/app/7 from 9", "1");
    check_all("o/n/*@1 o/*@2",              "o/m/app/7 from 9", "2");
    check_all("o/n/*@1 o/*@2",              "p/n/app/7 from 9", "");
    check_all("o/n/*@1 o/n/app/7@3",        "o/n/app/7 from 9", "3");    // no union
    check_all("o/n/*@1 o/n/app/7@3",        "o/n/app/* from 9", "3");
    check_all("o/n/*@1 o/n/app/7@3",        "o/n/app/7 from 3", "1");    // nobody eligible under the prefix
    check_all("o/n/*@1 o/n/app/8@3",        "o/n/app/7 from 9", "");     // somebody is, though not for this id
    check_all("o/n/*@1 o/n/app/8@3 o/n/app/9@3", "o/n/app/7 from 3", "1");
    check_all("o/n/*@1 o/*@2",              "o/n/app/7 from 1", "2");    // the longest with an eligible hop
    check_all("o/n/*@peer:1 o/*@2",         "o/n/app/7 from 9 mesh", "2");
    check_one("o/n/*@1 o/n/*@2 o/*@3",      "o/n/app/7 from 9", "1 2 1");
    check_one("o/n/*@1 o/n/app/8@3",        "o/n/app/7 from 9", "- - -");
    check_one("o/n/*@1 o/n/app/8@3 o/n/app/7@4", "o/n/app/7 from 4", "- - -");
    check_one("o/n/*@1 o/n/app/7@4",        "o/n/app/7 from 4", "1 1 1");
}

/// A fan-out to thousands comes in pieces, in order, and each shard can have its own part of it.
#[test]
fn large_fan_outs() {
    let name = dump::parse_name("o/n/app/7").expect("a name");
    let mut fib = Fib::new(0, 1);
    let mut conns = Vec::new();
    for n in 0..6_000u32 {
        // Slots come in no order, three shards, a Peer now and then.
        let conn = ConnId { shard: [0, 1, 2][n as usize % 3], slot: n.wrapping_mul(7_919) % 20_011, generation: n % 4 };
        let kind = if n % 50 == 0 { ConnType::Peer } else { ConnType::Edge };
        fib.apply(&Delta::Add { name, conn, kind });
        conns.push((kind, conn));
    }
    conns.sort_unstable();
    let from = conns[777].1;
    for exclude_peers in [false, true] {
        for (shard, start) in [
            (None, FanoutCursor::default()),
            (Some(0), FanoutCursor::of_shard(0)),
            (Some(2), FanoutCursor::of_shard(2)),
        ] {
            let is_wanted = |&&(kind, conn): &&(ConnType, ConnId)| {
                conn != from
                    && !(exclude_peers && kind == ConnType::Peer)
                    && shard.is_none_or(|shard| shard == conn.shard)
            };
            let expected: Vec<ConnId> = conns.iter().filter(is_wanted).map(|&(_, conn)| conn).collect();
            let (mut cursor, mut out, mut calls) = (start, Vec::new(), 1);
            while fib.match_all(&name, from, MatchFilter { exclude_peers }, &mut cursor, &mut out, 256) {
                assert!(out.len() <= 256 * calls);
                calls += 1;
            }
            assert_eq!(out, expected);
            assert!((expected.len().div_ceil(256)..=expected.len() / 256 + 2).contains(&calls), "{calls} calls");
        }
    }
    let turns: Vec<_> = (0..240).map(|_| fib.match_one(&name, from, MatchFilter::default())).collect();
    let peers: Vec<_> = conns.iter().filter(|(kind, _)| *kind == ConnType::Peer).map(|&(_, conn)| Some(conn)).collect();
    assert_eq!(turns[..120], peers, "the first kind in turn");
    assert_eq!(turns[120..], peers, "and round again");
}

/// Replicas begin their turns at different instances.
#[test]
fn turns_begin_at_the_shards_index() {
    let firsts: Vec<String> = (0..4)
        .map(|shard| {
            let mut fib = fib("o/n/a/7@10 o/n/a/7@11 o/n/a/7@12", shard);
            let (name, from, filter) = parse_publish("o/n/a/7 from 9");
            fib.match_one(&name, from, filter).map_or("-".to_owned(), |conn| conn.slot.to_string())
        })
        .collect();
    assert_eq!(firsts, ["10", "11", "12", "10"]);
}

/// A departed connection is skipped from its one delta on, and its slot's next user is somebody else.
#[test]
fn departed_connections_get_nothing() {
    let mut rib = Rib::new(RibLimits::default());
    let mut fib = Fib::new(0, 1);
    let mut deltas = Vec::new();
    let (conn, kind) = dump::parse_conn("s0.1#0").expect("a connection");
    let next = ConnId { generation: 1, ..conn };
    let (name, from, filter) = parse_publish("o/n/app/7 from 9");
    rib.subscribe(conn, kind, name, None, 1, &mut deltas).expect("room");
    deltas.drain(..).for_each(|delta| fib.apply(&delta));
    assert_eq!(fib.match_one(&name, from, filter), Some(conn));

    rib.disconnect(conn, &mut deltas);
    assert_eq!(deltas, [Delta::ConnGone { conn }]);
    deltas.drain(..).for_each(|delta| fib.apply(&delta));
    assert_eq!(fib.match_one(&name, from, filter), None);
    assert_eq!(
        rib.subscribe(next, kind, name, None, 1, &mut deltas).expect_err("not swept").to_string(),
        "connection slot not swept: s0.1#1"
    );
    assert_eq!(
        rib.subscribe(conn, kind, name, None, 2, &mut deltas).expect_err("gone").to_string(),
        "connection not found: s0.1#0"
    );

    let swept = rib.sweep(10, &mut deltas);
    assert_eq!((swept.records, swept.done, swept.withdrawn), (1, vec![conn], vec![name]));
    assert!(!fib.swept(conn));
    deltas.drain(..).for_each(|delta| fib.apply(&delta));
    assert!(fib.swept(conn));
    rib.subscribe(next, kind, name, None, 1, &mut deltas).expect("the slot is free");
    deltas.drain(..).for_each(|delta| fib.apply(&delta));
    assert_eq!(fib.match_one(&name, from, filter), Some(next));
    assert_eq!(fib.match_one(&name, next, filter), None);
    assert_eq!(fib.match_one(&name, conn, filter), Some(next), "a late message of the slot's last user");
}

/// Acknowledgements: texts, counts by distinct id, leniency.
#[test]
fn subscriptions_are_counted_by_id() {
    let mut rib = Rib::new(RibLimits { names_max: 4, names_per_connection_max: 3 });
    let mut deltas = Vec::new();
    let name = |text| dump::parse_name(text).expect("a name");
    let (conn, kind) = dump::parse_conn("1").expect("a connection");
    let (peer, peer_kind) = dump::parse_conn("peer:2").expect("a connection");
    let app = name("o/n/app/7");
    let refusal = |result: Result<Change, RibError>| result.expect_err("refused").to_string();

    assert_eq!(refusal(rib.unsubscribe(conn, kind, app, 1, &mut deltas)), "subscription not found");
    assert!(rib.subscribe(conn, kind, app, None, 1, &mut deltas).expect("room").transition);
    assert!(!rib.subscribe(conn, kind, app, None, 1, &mut deltas).expect("again").transition);
    assert!(!rib.subscribe(conn, kind, app, None, 2, &mut deltas).expect("room").transition);
    assert_eq!((rib.records_count(), rib.names(), deltas.len()), (2, 1, 1));
    assert_eq!(
        refusal(rib.unsubscribe(conn, kind, name("o/n/app/8"), 1, &mut deltas)),
        "id not found: 00000000-0000-0000-0000-000000000008"
    );
    assert_eq!(refusal(rib.unsubscribe(conn, kind, name("o/n/app/*"), 1, &mut deltas)), "id not found: NULL_COMPONENT");
    assert_eq!(refusal(rib.unsubscribe(conn, kind, app, 3, &mut deltas)), "subscription id not found: 3");
    assert_eq!(refusal(rib.unsubscribe(peer, peer_kind, app, 1, &mut deltas)), "subscription id not found: 1");

    assert!(rib.subscribe(peer, peer_kind, app, None, 1, &mut deltas).expect("room").transition, "first of its kind");
    rib.subscribe(conn, kind, app, None, 0, &mut deltas).expect("room");
    assert_eq!(refusal(rib.subscribe(conn, kind, app, None, 9, &mut deltas)), "too many names: limit 3");
    assert_eq!(refusal(rib.subscribe(peer, peer_kind, app, None, 9, &mut deltas)), "too many names: limit 4");
    rib.subscribe(conn, kind, app, None, 2, &mut deltas).expect("held already, so it is no question of room");

    assert!(!rib.unsubscribe(conn, kind, app, 77, &mut deltas).expect("lenient: the record with id 0 goes").transition);
    assert_eq!(refusal(rib.unsubscribe(conn, kind, app, 77, &mut deltas)), "subscription id not found: 77");
    assert!(!rib.unsubscribe(conn, kind, app, 1, &mut deltas).expect("held").transition);
    assert_eq!(deltas.len(), 2);
    assert!(rib.unsubscribe(conn, kind, app, 2, &mut deltas).expect("held").transition);
    assert!(matches!(deltas[2], Delta::Remove { conn: gone, .. } if gone == conn));
    rib.subscribe(peer, peer_kind, app, None, 2, &mut deltas).expect("room");
    assert!(rib.unsubscribe(peer, peer_kind, app, 99, &mut deltas).expect("a Peer's unknown id takes all").transition);
    assert_eq!((rib.records_count(), rib.names()), (0, 0));
}

fn check_all(subscribed: &str, publish: &str, expected: &str) {
    let fib = fib(subscribed, 0);
    let (name, from, filter) = parse_publish(publish);
    for outputs_max in [1, 2, 100] {
        let mut cursor = FanoutCursor::default();
        let mut out = Vec::new();
        while fib.match_all(&name, from, filter, &mut cursor, &mut out, outputs_max) {}
        assert_eq!(shown(subscribed, &out), expected, "{subscribed} | {publish} | {outputs_max} at a time");
    }
}

fn check_one(subscribed: &str, publish: &str, expected: &str) {
    let mut fib = fib(subscribed, 0);
    let (name, from, filter) = parse_publish(publish);
    let turns: Vec<String> = (0..3)
        .map(|_| fib.match_one(&name, from, filter).map_or("-".to_owned(), |conn| shown(subscribed, &[conn])))
        .collect();
    assert_eq!(turns.join(" "), expected, "{subscribed} | {publish}");
}

fn fib(subscribed: &str, shard: u16) -> Fib {
    let mut rib = Rib::new(RibLimits::default());
    let mut fib = Fib::new(shard, 1);
    let mut deltas = Vec::new();
    for (id, entry) in (1..).zip(subscribed.split_whitespace()) {
        let (target, conn) = entry.split_once('@').expect("name@connection");
        let (conn, kind) = dump::parse_conn(conn).expect(entry);
        match dump::parse_target(target).expect(entry) {
            Target::Name(name) => {
                rib.subscribe(conn, kind, name, None, id, &mut deltas).expect("room");
            }
            Target::Aggregate(aggregate) => rib.add_aggregate(conn, kind, aggregate, &mut deltas).expect("room"),
        }
    }
    deltas.iter().for_each(|delta| fib.apply(delta));
    fib
}

fn parse_publish(publish: &str) -> (Name, ConnId, MatchFilter) {
    let words: Vec<&str> = publish.split_whitespace().collect();
    let [name, "from", from, ref rest @ ..] = words[..] else { panic!("`{publish}` is not `name from connection`") };
    let filter = MatchFilter { exclude_peers: rest == ["mesh"] };
    (dump::parse_name(name).expect(name), dump::parse_conn(from).expect(from).0, filter)
}

/// The connections as the row wrote them.
fn shown(subscribed: &str, conns: &[ConnId]) -> String {
    let text = |&conn: &ConnId| {
        let written = subscribed.split_whitespace().map(|entry| entry.split_once('@').expect("name@connection").1);
        let (conn, kind) = written
            .map(|text| dump::parse_conn(text).expect(text))
            .find(|&(there, _)| there == conn)
            .expect("subscribed");
        ConnText(conn, kind).to_string()
    };
    conns.iter().map(text).collect::<Vec<_>>().join(" ")
}
