//! SLIM messages: views and rewriting, with prost as the oracle.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::message::MacOut;
use slimline_wire::testing::message::{agrees_with_prost, compose_and_spoil, rewrites_as_prost_would};

fuzz_target!(|octets: &[u8]| {
    check(octets);
    // Eight octets more reach deep into well-formed messages, which random octets seldom do.
    if let Some((seed, _)) = octets.split_first_chunk() {
        check(&compose_and_spoil(u64::from_le_bytes(*seed)));
    }
});

fn check(octets: &[u8]) {
    agrees_with_prost(octets);
    let ttl = u32::from(octets.first().copied().unwrap_or_default()) << (octets.len() % 25);
    for mac in [MacOut::Keep, MacOut::Remove, MacOut::Set([0xa5; 32])] {
        rewrites_as_prost_would(octets, ttl, mac);
    }
}
