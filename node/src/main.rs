//! The `slimline` command: arguments → config → start → signals → drain.

mod cli;
mod failure;
mod serve;
mod show_stats;

use cli::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1), &|name: &str| std::env::var_os(name)) {
        Ok(command) => command,
        Err(usage) => {
            eprint!("{usage}");
            return ExitCode::from(cli::UsageError::EXIT_CODE);
        }
    };
    let env = |name: &str| std::env::var(name).ok();
    let outcome = match command {
        Command::Help => {
            print!("{}", cli::HELP);
            Ok(())
        }
        Command::Version => {
            print!("{}", cli::version());
            Ok(())
        }
        Command::Check { config } => serve::check(config.as_deref(), &env),
        Command::Stats { socket, json } => show_stats::run(socket, json, &env),
        Command::Run { config, stats_interval } => serve::run(config.as_deref(), stats_interval, &env),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::FAILURE
        }
    }
}
