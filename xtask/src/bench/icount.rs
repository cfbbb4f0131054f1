//! `bench icount`: instructions per call of the hot functions, counted under callgrind: the same on a busy machine.

use crate::run;
use crate::tools::{self, Missing};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long the build may take.
const BUILD: Duration = Duration::from_secs(30 * 60);

/// Counts and prints; `false` never: a count is not right or wrong by itself.
///
/// Errors: [`Missing`] without valgrind; the suite does not build or run.
pub(super) fn run(workspace: &Workspace, quick: bool) -> Result<bool> {
    if !tools::succeeds(Command::new("valgrind").arg("--version")) {
        return Err(Missing("valgrind is not installed (apt: valgrind)".into()).into());
    }
    let program = build(workspace)?;
    let names = Command::new(&program).arg("list").output()?;
    let names = String::from_utf8(names.stdout)?;
    let calls = if quick { 20u64 } else { 200 };
    for name in names.lines() {
        // Twice as many calls minus as many: start-up, tables and the first, cold ones drop out.
        let (once, twice) = (instructions(&program, name, calls)?, instructions(&program, name, 2 * calls)?);
        let each = twice.saturating_sub(once) as f64 / calls as f64;
        println!("{name:<40} {each:>10.1} instructions");
    }
    Ok(true)
}

fn build(workspace: &Workspace) -> Result<std::path::PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", "fast", "-p", "slimline-bench", "--bench", "icount", "--message-format", "json"]);
    let output = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the counting suite does not build");
    let text = String::from_utf8(output.stdout)?;
    let program =
        text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|message| {
            (message["target"]["name"] == "icount").then(|| message["executable"].as_str().map(Into::into)).flatten()
        });
    program.context("cargo did not say where the counting suite is")
}

/// Instructions of one process that calls `name` `calls` times.
fn instructions(program: &std::path::Path, name: &str, calls: u64) -> Result<u64> {
    let log = std::env::temp_dir().join(format!("icount-{}.log", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args([name, &calls.to_string()]);
    let _ = std::fs::remove_file(&log);
    let ended = run::logged(&mut valgrind, BUILD, &log)?;
    let text = std::fs::read_to_string(&log)?;
    let _ = std::fs::remove_file(&log);
    ensure!(ended.success(), "{name}: {text}");
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    match collected {
        Some(count) => Ok(count),
        None => bail!("callgrind gave no count:\n{text}"),
    }
}
