//! The fuzz targets of this crate: how octets become the arguments of the properties.
//!
//! Here, and not in the fuzz crate, so that the ordinary tests replay what fuzzers found worth keeping (`tests/seeds.rs`).

use super::message::{agrees_with_prost, compose_and_spoil, is_read_alike_after, rewrites_as_prost_would};
use super::props;
use crate::h2::{Limits, Role};
use crate::message::MacOut;

/// gRPC messages as received: the same however cut.
pub fn grpc(input: &[u8]) {
    let Some((cuts, octets)) = input.split_first_chunk::<3>() else { return };
    props::deframer_does_not_see_cuts(octets, cuts, 1000);
}

/// HTTP/2 as received: what it means does not depend on how the octets were cut into reads.
pub fn h2_recv(input: &[u8]) {
    let Some(([control, cuts @ ..], octets)) = input.split_first_chunk::<4>() else { return };
    let role = if control & 1 == 0 { Role::Server } else { Role::Client };
    props::recv_does_not_see_cuts(octets, cuts, role);
    props::recv_does_not_see_cuts(&props::cook(octets, role), cuts, role);
}

/// HTTP/2 as sent: windows and frame sizes are kept, and what one half sends the other understands.
pub fn h2_send(recipe: &[u8]) {
    props::send_windows_stay_in_range(recipe);
    props::what_is_sent_is_received(recipe, &Limits::default());
}

/// Header compression: decoding is bounded, codes are unique.
pub fn hpack(octets: &[u8]) {
    props::hpack_decoding_is_bounded(octets, 2000);
    props::huffman_round_trips(octets);
}

/// SLIM messages: views and rewriting, with prost as the oracle.
pub fn message(octets: &[u8]) {
    check_message(octets);
    // Eight octets more reach deep into well-formed messages, which random octets seldom do.
    if let Some((seed, _)) = octets.split_first_chunk() {
        let composed = compose_and_spoil(u64::from_le_bytes(*seed));
        check_message(&composed);
        is_read_alike_after(&composed, octets);
        is_read_alike_after(octets, &composed);
    }
}

fn check_message(octets: &[u8]) {
    agrees_with_prost(octets);
    let shift = u32::try_from(octets.len() % 25).unwrap_or_default();
    let ttl = u32::from(octets.first().copied().unwrap_or_default()) << shift;
    for mac in [MacOut::Keep, MacOut::Remove, MacOut::Set([0xa5; 32])] {
        rewrites_as_prost_would(octets, ttl, mac);
    }
}
