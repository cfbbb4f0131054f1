//! Histories of subscriptions, departures, sweeps and publishes, against plain maps.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slimline_fib::testing::check_history;

fuzz_target!(|history: &[u8]| check_history(history));
