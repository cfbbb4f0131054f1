//! `bench icount`: instructions per call of the hot functions, counted under callgrind: the same on a busy machine.

use super::node::Taken;
use super::record::{Run, Sample};
use super::{Flags, sitting};
use crate::run;
use crate::tools::{self, Missing};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How recordings of it are called.
pub(super) const TOPIC: &str = "instructions";
/// What samples of it say where others name their scenario file.
pub(super) const SCENARIO: &str = "icount";
/// Whose functions they are.
pub(super) const SUBJECT: &str = "slimline";

/// How long the build, or one count, may take.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Counts, prints and records.
///
/// Errors: [`Missing`] without valgrind; the suite does not build or run.
pub(super) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    if flags.build {
        return build(workspace).map(|_| true);
    }
    let taken = Taken { samples: count(workspace, flags.quick)?, failures: Vec::new() };
    let run = Run {
        topic: TOPIC.into(),
        question: "How many instructions does one call of each hot function take?".into(),
        command: Some("bench icount".into()),
        caveats: vec![
            "Counted under callgrind: twice as many calls minus as many, so that start-up and the first, cold calls drop out. \
             It counts instructions of a CPU without SHA extensions: hashing takes far fewer where they exist."
                .into(),
        ],
        ..Run::of(&taken)
    };
    sitting::conclude(workspace, flags, &run)
}

/// One sample per function.
///
/// Errors: as [`run()`].
pub(super) fn count(workspace: &Workspace, quick: bool) -> Result<Vec<Sample>> {
    if !tools::succeeds(Command::new("valgrind").arg("--version")) {
        return Err(Missing("valgrind is not installed (apt: valgrind)".into()).into());
    }
    let program = build(workspace)?;
    let names = Command::new(&program).arg("list").output()?;
    let names = String::from_utf8(names.stdout)?;
    // A multiple of what any call handles: 64 messages.
    let calls = if quick { 64u64 } else { 256 };
    let mut samples = Vec::new();
    for name in names.lines() {
        let (once, twice) = (instructions(&program, name, calls)?, instructions(&program, name, 2 * calls)?);
        let each = twice.saturating_sub(once) as f64 / calls as f64;
        println!("{name:<40} {each:>10.1} instructions");
        samples.push(hot_sample(workspace, SCENARIO, name, "instructions", each)?);
    }
    Ok(samples)
}

/// A sample of one hot function.
pub(super) fn hot_sample(
    workspace: &Workspace,
    scenario: &str,
    name: &str,
    figure: &str,
    value: f64,
) -> Result<Sample> {
    let mut measurement = json!({"label": name, "faults": {}});
    measurement[figure] = json!(value);
    let report = json!({
        "measurements": [measurement], "machine": machine(workspace)?, "engine": scenario, "command": scenario,
        "unix_time": std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    });
    Ok(Sample::of_report(SUBJECT, scenario, scenario, 0, &report).remove(0))
}

/// This machine as the load generator describes it.
fn machine(workspace: &Workspace) -> Result<Value> {
    let built = ["release", "fast", "debug"].map(|profile| workspace.target.join(profile).join("slimload"));
    if !built.iter().any(|program| program.is_file()) {
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--profile", "fast", "-p", "slimline-bench", "--bin", "slimload"]);
        ensure!(run::until(&mut cargo, DEADLINE)?.success(), "the load generator does not build");
    }
    let program = built.into_iter().find(|program| program.is_file()).context("the load generator is not built")?;
    let output = Command::new(program).arg("machine").stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "slimload machine: {}", String::from_utf8_lossy(&output.stderr));
    Ok(toml::from_str(&String::from_utf8(output.stdout)?)?)
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", "fast", "-p", "slimline-bench", "--bin", "slimload", "--bench", "icount"]);
    let output = cargo.args(["--message-format", "json"]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the counting suite does not build");
    let text = String::from_utf8(output.stdout)?;
    let program = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        (message["target"]["name"] == "icount").then(|| message["executable"].as_str().map(Into::into)).flatten()
    });
    program.context("cargo did not say where the counting suite is")
}

/// Instructions of one process that calls `name` `calls` times.
fn instructions(program: &Path, name: &str, calls: u64) -> Result<u64> {
    let log = std::env::temp_dir().join(format!("icount-{}.log", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args([name, &calls.to_string()]);
    let _ = std::fs::remove_file(&log);
    let ended = run::logged(&mut valgrind, DEADLINE, &log)?;
    let text = std::fs::read_to_string(&log)?;
    let _ = std::fs::remove_file(&log);
    ensure!(ended.success(), "{name}: {text}");
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    match collected {
        Some(count) => Ok(count),
        None => bail!("callgrind gave no count:\n{text}"),
    }
}
