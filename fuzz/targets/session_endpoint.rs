//! An application in a session, hearing anything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_session::testing;

fuzz_target!(|octets: &[u8]| testing::endpoint(octets));
