//! The properties of `testing::props` on generated input; fuzz targets call the same functions.

use proptest::collection::vec;
use proptest::prelude::*;
use slimline_wire::h2::{Limits, Role};
use slimline_wire::testing::props;

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn recv_does_not_see_cuts(recipe in vec(any::<u8>(), 0..400), cuts in vec(any::<u8>(), 1..5), role in role()) {
        props::recv_does_not_see_cuts(&props::cook(&recipe, role), &cuts, role);
    }

    #[test]
    fn recv_survives_anything(octets in vec(any::<u8>(), 0..200), cuts in vec(0u8..10, 1..5), role in role()) {
        props::recv_does_not_see_cuts(&octets, &cuts, role);
    }

    /// One octet of an orderly exchange is flipped.
    #[test]
    fn recv_survives_damage(
        recipe in vec(any::<u8>(), 0..400),
        at in any::<prop::sample::Index>(),
        octet in any::<u8>(),
        cuts in vec(any::<u8>(), 1..5),
        role in role(),
    ) {
        let mut octets = props::cook(&recipe, role);
        *at.get_mut(&mut octets) = octet;
        props::recv_does_not_see_cuts(&octets, &cuts, role);
    }

    #[test]
    fn deframer_does_not_see_cuts(
        messages in vec(vec(any::<u8>(), 0..50), 0..20),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in vec(any::<u8>(), 1..5),
        max in 0u32..60,
    ) {
        let mut octets: Vec<u8> = messages
            .iter()
            .flat_map(|m| slimline_wire::grpc::prefix(u32::try_from(m.len()).unwrap()).into_iter().chain(m.clone()))
            .collect();
        if let Some((at, octet)) = damage && !octets.is_empty() {
            *at.get_mut(&mut octets) = octet;
        }
        props::deframer_does_not_see_cuts(&octets, &cuts, max);
    }

    #[test]
    fn hpack_decoding_is_bounded(blocks in vec(any::<u8>(), 0..300), max in 0u32..2000) {
        props::hpack_decoding_is_bounded(&blocks, max);
    }

    #[test]
    fn hpack_round_trips(
        fields in vec(("[a-z:-]{0,20}", vec(any::<u8>(), 0..200)), 0..20),
        table_octets in 0u32..10_000,
    ) {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        props::hpack_round_trips(&fields, table_octets);
    }

    #[test]
    fn huffman_round_trips(octets in vec(any::<u8>(), 0..60)) {
        props::huffman_round_trips(&octets);
    }

    #[test]
    fn what_is_sent_is_received(recipe in vec(any::<u8>(), 0..200), window in 1u32..100_000, frame in 16_384u32..40_000) {
        let limits = Limits { initial_window: window, max_frame_size: frame, ..Limits::default() };
        props::what_is_sent_is_received(&recipe, &limits);
    }

    #[test]
    fn send_windows_stay_in_range(recipe in vec(any::<u8>(), 0..200)) {
        props::send_windows_stay_in_range(&recipe);
    }
}
