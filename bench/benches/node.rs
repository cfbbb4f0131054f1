//! What the node does with a message besides reading and rewriting it: hand it to another shard, let it wait in a queue.
//! Compare:  cargo bench -p slimline-bench --bench node -- --save-baseline before, then --baseline before.
#![allow(clippy::cast_possible_truncation, reason = "inputs made here are small")]

mod hot;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut hot in hot::suite(&|name| name.starts_with("node/")) {
        let mut group = criterion.benchmark_group("node");
        group.throughput(Throughput::Elements(hot.elements));
        group.bench_function(hot.name.trim_start_matches("node/"), |bencher| bencher.iter(|| (hot.call)()));
        group.finish();
    }
    criterion.final_summary();
}
