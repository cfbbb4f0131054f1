//! MLS messages from nowhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_session::testing;

fuzz_target!(|octets: &[u8]| testing::mls(octets));
