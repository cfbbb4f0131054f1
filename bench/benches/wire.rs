//! What reading, authenticating and framing one message costs.
//! Compare:  cargo bench -p slimline-bench --bench wire -- --save-baseline before, then --baseline before.
#![allow(clippy::cast_possible_truncation, reason = "inputs made here are small")]

mod hot;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut hot in hot::suite(&|name| name.starts_with("wire/")) {
        let mut group = criterion.benchmark_group("wire");
        group.throughput(Throughput::Elements(hot.elements));
        group.bench_function(hot.name.trim_start_matches("wire/"), |bencher| bencher.iter(|| (hot.call)()));
        group.finish();
    }
    criterion.final_summary();
}
