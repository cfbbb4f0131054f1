//! Inner parts as closures, for the benchmark suites: no interface, and of no use to anybody else.

use crate::conn::out_queue::OutQueue;
use std::hint::black_box;

/// A queue in which eight copies of `message` wait: each call appends one, and takes the oldest.
pub fn out_queue(message: Vec<u8>) -> impl FnMut() {
    let mut queue = OutQueue::default();
    for _ in 0..8 {
        queue.back().extend_from_slice(&message);
    }
    move || {
        queue.back().extend_from_slice(black_box(&message));
        black_box(&queue.octets()[..message.len()]);
        queue.advance(message.len());
    }
}
