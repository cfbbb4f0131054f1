//! Development commands: `cargo xtask help`.

mod bench;
mod ci;
mod compare;
mod conformance;
mod demo;
mod flags;
mod fuzz;
mod interop;
mod memory;
mod peers;
mod run;
mod tally;
mod tidy;
mod tools;
mod workspace;

use flags::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    match flags::parse().and_then(dispatch) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; `false` when it ran and found something wrong.
fn dispatch(command: Command) -> anyhow::Result<bool> {
    let workspace = workspace::Workspace::find()?;
    match command {
        Command::Help => {
            print!("{}", flags::HELP);
            Ok(true)
        }
        Command::Bench(flags) => bench::run(&workspace, &flags),
        Command::Compare(flags) => compare::run(&workspace, &flags),
        Command::Peers(flags) => peers::run(&workspace, &flags),
        Command::Ci(flags) => ci::run(&workspace, &flags),
        Command::Demo(flags) => demo::run(&workspace, &flags),
        Command::Fuzz(flags) => fuzz::run(&workspace, &flags),
        Command::Interop(flags) => interop::run(&workspace, &flags),
        Command::Tidy => tidy::run(&workspace),
    }
}
