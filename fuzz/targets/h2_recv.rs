//! HTTP/2 as received: what it means does not depend on how the octets were cut into reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::targets;

fuzz_target!(|octets: &[u8]| targets::h2_recv(octets));
