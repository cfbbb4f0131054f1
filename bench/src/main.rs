//! slimload, the load generator: measures a SLIM node, and every run is also a correctness run.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times travel through f64, connection numbers through u32; lengths that meet the wire are bounded by the plan"
)]

mod churn;
mod client;
mod command;
mod drive;
mod engine;
mod error;
mod fate;
mod ledger;
mod machine;
mod measure;
mod node_stats;
mod pace;
mod payload;
mod plan;
mod process;
mod progress;
mod publisher;
mod random;
mod receiver;
mod record;
mod relay;
mod report;
mod scenario;
mod shared;
mod sizes;
mod topology;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}
