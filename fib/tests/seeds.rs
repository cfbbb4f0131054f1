//! Histories that fuzzers found worth keeping, replayed.

use slimline_fib::testing::check_history;
use std::fs;
use std::path::Path;

#[test]
fn histories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/fib");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when it panics
        check_history(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{count} seeds in {}", folder.display());
}
