//! Header compression: decoding is bounded, codes are unique.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::targets;

fuzz_target!(|octets: &[u8]| targets::hpack(octets));
