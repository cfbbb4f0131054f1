//! The whole road of one message without the kernel: parse, verify, look up, copy, patch, sign.
//! Compare:  cargo bench -p slimline-bench --bench forward -- --save-baseline before, then --baseline before.
#![allow(clippy::cast_possible_truncation, reason = "inputs made here are small")]

mod hot;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut hot in hot::suite(&|name| name.starts_with("forward/")) {
        let mut group = criterion.benchmark_group("forward");
        group.throughput(Throughput::Elements(hot.elements));
        group.bench_function(hot.name.trim_start_matches("forward/"), |bencher| bencher.iter(|| (hot.call)()));
        group.finish();
    }
    criterion.final_summary();
}
