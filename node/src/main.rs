//! The `slimline` command.

fn main() {}
