//! Development commands: `cargo xtask help`.

mod ci;
mod flags;
mod run;
mod tally;
mod tidy;
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
        Command::Ci(flags) => ci::run(&workspace, &flags),
        Command::Tidy => tidy::run(&workspace),
    }
}
