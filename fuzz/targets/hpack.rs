//! Header compression: decoding is bounded, codes are unique.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::props::{hpack_decoding_is_bounded, huffman_round_trips};

fuzz_target!(|octets: &[u8]| {
    hpack_decoding_is_bounded(octets, 2000);
    huffman_round_trips(octets);
});
