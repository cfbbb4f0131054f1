//! What fuzzers found worth keeping, replayed: each file of `fuzz/seeds` once more through the target it was found for.

use slimline_wire::testing::targets;
use std::fs;
use std::path::Path;

/// Every seed of one target.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when it panics
        run(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{count} seeds in {}", folder.display());
}

#[test]
fn grpc() {
    replay("grpc", targets::grpc);
}

#[test]
fn h2_recv() {
    replay("h2_recv", targets::h2_recv);
}

#[test]
fn h2_send() {
    replay("h2_send", targets::h2_send);
}

#[test]
fn hpack() {
    replay("hpack", targets::hpack);
}

#[test]
fn message() {
    replay("message", targets::message);
}
