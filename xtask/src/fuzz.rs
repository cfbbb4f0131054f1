//! `cargo xtask fuzz`: coverage-guided fuzzing, each target for a while.

use crate::ci::Run;
use crate::flags::Fuzz;
use crate::run;
use crate::tally::Tally;
use crate::tools::{self, Missing};
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Fuzzes the targets asked for; `true` when nothing was found.
pub(crate) fn run(workspace: &Workspace, flags: &Fuzz) -> Result<bool> {
    let mut well = true;
    for target in wanted(workspace, &flags.targets)? {
        println!("fuzzing {target} for {} s", flags.seconds);
        let ended = run::until(&mut command(workspace, &target, flags.seconds)?, deadline(flags.seconds))?;
        well &= ended.success();
    }
    Ok(well)
}

/// The CI stage: every target for half a minute.
pub(crate) fn stage(run: &Run<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for target in wanted(run.workspace, &[])? {
        let ended = run::logged(&mut command(run.workspace, &target, CI_SECONDS)?, deadline(CI_SECONDS), run.log)?;
        tally += if ended.success() { Tally::PASSED } else { Tally::FAILED };
    }
    Ok(tally)
}

/// The targets of `fuzz/targets`, or those named.
fn wanted(workspace: &Workspace, named: &[String]) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(workspace.root.join("fuzz/targets"))? {
        let path = entry?.path();
        targets.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    targets.sort();
    for name in named {
        ensure!(targets.contains(name), "no fuzz target `{name}`; there are: {}", targets.join(", "));
    }
    Ok(if named.is_empty() { targets } else { named.to_vec() })
}

fn command(workspace: &Workspace, target: &str, seconds: u64) -> Result<Command> {
    let mut command = tools::nightly(workspace, "rustc")?;
    let tools = cargo_fuzz(workspace)?;
    let corpus = workspace.target.join("fuzz-corpus").join(target);
    fs::create_dir_all(&corpus)?;
    command.args(["fuzz", "run", target]).arg(corpus); // new finds go here
    let seeds = workspace.root.join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.args(["--", "-max_len=4096", "-print_final_stats=1"]).arg(format!("-max_total_time={seconds}"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&tools.join("bin")).chain(env::split_paths(&path)).collect::<Vec<_>>();
    command.env("PATH", env::join_paths(folders)?).env("CARGO_TARGET_DIR", workspace.target.join("fuzz"));
    Ok(command)
}

/// Where cargo-fuzz is, installed below `target/` if it was nowhere.
fn cargo_fuzz(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.target.join("tools");
    if !tools.join("bin/cargo-fuzz").is_file() && !tools::on_path("cargo-fuzz") {
        println!("installing cargo-fuzz into {}", tools.display());
        let mut install = workspace.cargo();
        install.args(["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(&tools);
        let installed = run::until(&mut install, Duration::from_secs(600)).context("cannot install cargo-fuzz")?;
        ensure!(installed.success(), Missing("cargo-fuzz cannot be installed".into()));
    }
    Ok(tools)
}

/// Building with instrumentation comes first, and takes its time.
fn deadline(seconds: u64) -> Duration {
    Duration::from_secs(seconds + 600)
}

const CI_SECONDS: u64 = 30;
