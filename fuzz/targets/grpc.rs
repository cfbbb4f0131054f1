//! gRPC messages as received: the same however cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::targets;

fuzz_target!(|octets: &[u8]| targets::grpc(octets));
