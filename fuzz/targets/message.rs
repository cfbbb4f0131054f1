//! SLIM messages: views and rewriting, with prost as the oracle.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::targets;

fuzz_target!(|octets: &[u8]| targets::message(octets));
