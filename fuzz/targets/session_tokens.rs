//! Tokens, key sets and names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_session::testing;

fuzz_target!(|octets: &[u8]| testing::tokens(octets));
