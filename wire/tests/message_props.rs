//! Properties of message views and rewriting, with prost as the oracle; the fuzz targets run the same functions.

mod recordings;

use proptest::prelude::*;
use slimline_wire::message::{MacOut, parse};
use slimline_wire::testing::message::{
    agrees_with_prost, compose, compose_and_spoil, is_read_alike_after, rewrites_as_prost_would, spoil,
};

fn mac_out() -> impl Strategy<Value = MacOut> {
    prop_oneof![Just(MacOut::Keep), Just(MacOut::Remove), any::<[u8; 32]>().prop_map(MacOut::Set)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_nothing_is_wrong_with_is_accepted(seed: u64) {
        let octets = compose(seed);
        if let Err(error) = parse(&octets) {
            panic!("{error}: {octets:02x?}");
        }
        agrees_with_prost(&octets);
    }

    #[test]
    fn spoiled_messages_are_read_as_prost_reads_them(seed: u64) {
        agrees_with_prost(&compose_and_spoil(seed));
    }

    #[test]
    fn any_octets_are_read_as_prost_reads_them(octets in prop::collection::vec(any::<u8>(), 0..64)) {
        agrees_with_prost(&octets);
    }

    #[test]
    fn names_known_change_nothing(seed: u64, other: u64) {
        let message = compose(seed);
        is_read_alike_after(&message, &compose(other));
        is_read_alike_after(&message, &spoil(message.clone(), other));
        is_read_alike_after(&compose_and_spoil(other), &message);
    }

    #[test]
    fn rewriting_is_decode_modify_encode(
        seed: u64, ttl in prop_oneof![0..130_u32, any::<u32>()], mac in mac_out()
    ) {
        rewrites_as_prost_would(&compose(seed), ttl, mac);
        rewrites_as_prost_would(&compose_and_spoil(seed), ttl, mac);
    }
}

#[test]
fn recorded_messages_spoiled_are_read_as_prost_reads_them() {
    let mut seed = 0;
    for (_, octets) in recordings::recorded_messages() {
        rewrites_as_prost_would(&octets, 7, MacOut::Set([7; 32]));
        rewrites_as_prost_would(&octets, 7, MacOut::Remove);
        for _ in 0..40 {
            seed += 1;
            let spoiled = spoil(octets.clone(), seed);
            agrees_with_prost(&spoiled);
            rewrites_as_prost_would(&spoiled, 7, MacOut::Keep);
        }
    }
}

/// The made-up messages reach all five kinds, patches and their absence.
#[test]
fn composed_messages_are_of_every_kind() {
    let mut kinds = [0; 5];
    let (mut patched, mut spoiled_accepted) = (0, 0);
    for seed in 0..2000 {
        let octets = compose(seed);
        let view = parse(&octets).unwrap();
        patched += usize::from(view.header().is_some_and(|header| header.patch().is_some()));
        kinds[match view {
            slimline_wire::message::MessageView::Subscribe(_) => 0,
            slimline_wire::message::MessageView::Unsubscribe(_) => 1,
            slimline_wire::message::MessageView::Publish(_) => 2,
            slimline_wire::message::MessageView::Link(_) => 3,
            slimline_wire::message::MessageView::SubscriptionAck(_) => 4,
        }] += 1;
        spoiled_accepted += usize::from(parse(&compose_and_spoil(seed)).is_ok());
    }
    assert!(kinds.iter().all(|count| *count > 100), "{kinds:?}");
    assert!(patched > 100, "{patched}");
    assert!((200..1800).contains(&spoiled_accepted), "{spoiled_accepted}");
}
