//! gRPC messages as received: the same however cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::testing::props::deframer_does_not_see_cuts;

fuzz_target!(|input: &[u8]| {
    let Some((cuts, octets)) = input.split_first_chunk::<3>() else { return };
    deframer_does_not_see_cuts(octets, cuts, 1000);
});
