//! HTTP/2 as sent: windows and frame sizes are kept, and what one half sends the other understands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::targets;

fuzz_target!(|octets: &[u8]| targets::h2_send(octets));
