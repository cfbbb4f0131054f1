//! How many lookups and updates a second one core makes, as the table grows past each cache level.
//! Compare:  cargo bench -p slimline-bench --bench fib -- --save-baseline before, then --baseline before.
#![allow(clippy::cast_possible_truncation, reason = "inputs made here are small")]

mod hot;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut hot in hot::suite(&|name| name.starts_with("fib/")) {
        let mut group = criterion.benchmark_group("fib");
        group.throughput(Throughput::Elements(hot.elements));
        group.bench_function(hot.name.trim_start_matches("fib/"), |bencher| bencher.iter(|| (hot.call)()));
        group.finish();
    }
    criterion.final_summary();
}
