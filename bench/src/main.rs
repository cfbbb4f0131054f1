//! slimload, the load generator.

fn main() {}
