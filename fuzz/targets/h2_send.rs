//! HTTP/2 as sent: windows and frame sizes are kept, and what one half sends the other understands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_wire::h2::Limits;
use slimline_wire::testing::props::{send_windows_stay_in_range, what_is_sent_is_received};

fuzz_target!(|recipe: &[u8]| {
    send_windows_stay_in_range(recipe);
    what_is_sent_is_received(recipe, &Limits::default());
});
