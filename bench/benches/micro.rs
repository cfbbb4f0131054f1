//! The hot functions under criterion, in one program, for each one more is another long link.
//!
//! `wire/` reads, authenticates and frames one message; `fib/` looks up and updates, as the table grows past each cache level;
//! `forward/` is the whole road without the kernel; `node/` hands messages to another shard and lets them wait in a queue.
//! Compare:  cargo bench -p slimline-bench --bench micro -- wire/ --save-baseline before, then --baseline before.
#![allow(clippy::cast_possible_truncation, reason = "inputs made here are small")]

mod hot;

use criterion::{Criterion, Throughput};

const GROUPS: [&str; 4] = ["wire/", "fib/", "forward/", "node/"];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let asked = |group: &str| std::env::args().any(|argument| argument.starts_with(group));
    let none = !GROUPS.into_iter().any(asked);
    // Only inputs of what is asked for are made: a million names take their time.
    for prefix in GROUPS.into_iter().filter(|group| none || asked(group)) {
        for mut hot in hot::suite(&|name| name.starts_with(prefix)) {
            let mut group = criterion.benchmark_group(prefix.trim_end_matches('/'));
            group.throughput(Throughput::Elements(hot.elements));
            group.bench_function(hot.name.trim_start_matches(prefix), |bencher| bencher.iter(|| (hot.call)()));
            group.finish();
        }
    }
    criterion.final_summary();
}
