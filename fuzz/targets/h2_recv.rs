//! HTTP/2 as received: what it means does not depend on how the octets were cut into reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::h2::Role;
use slimline_wire::testing::props::{cook, recv_does_not_see_cuts};

fuzz_target!(|input: &[u8]| {
    let Some(([control, cuts @ ..], octets)) = input.split_first_chunk::<4>() else { return };
    let role = if control & 1 == 0 { Role::Server } else { Role::Client };
    recv_does_not_see_cuts(octets, cuts, role);
    recv_does_not_see_cuts(&cook(octets, role), cuts, role);
});
