//! The hot functions for an instruction counter: `icount list`, or `icount NAME CALLS` (see `cargo xtask bench icount`).
//!
//! Counts repeat on a machine where times do not.
#![allow(clippy::cast_possible_truncation, reason = "inputs made here are small")]

mod hot;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            // A million names take callgrind minutes to insert; the lookup's instructions are those of 10k.
            for hot in hot::suite(&|name| !name.contains("M")) {
                println!("{}", hot.name);
            }
        }
        [name, calls] => {
            let calls: u64 = calls.parse().expect("a number of calls");
            let mut suite = hot::suite(&|other| other == *name);
            let hot = suite.first_mut().expect("a name of the list");
            for _ in 0..calls.div_ceil(hot.elements) {
                (hot.call)();
            }
        }
        // As `cargo bench` or `cargo test` start it: nothing to count without callgrind.
        _ => println!("usage: icount list | icount NAME CALLS"),
    }
}
