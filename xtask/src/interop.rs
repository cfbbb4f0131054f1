//! `cargo xtask interop`: software we did not write, as peers of a node.

use crate::ci::Run;
use crate::flags::Interop;
use crate::peers;
use crate::run::{self, Ended};
use crate::tally::Tally;
use crate::tools::{self, System};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the suites are.
const SUITES: &str = "node/tests/interop";

/// Runs the suites as asked; `true` when nothing failed.
pub(crate) fn run(workspace: &Workspace, flags: &Interop) -> Result<bool> {
    let mut command = suites(workspace, flags, System::LeaveAlone)?;
    Ok(run::until(&mut command, DEADLINE)?.success())
}

/// The CI stage: slimline with one shard and with two.
pub(crate) fn stage(run: &Run<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for shards in [1, 2] {
        tally += counted(run, &Interop { shards, ..Interop::default() })?;
    }
    Ok(tally)
}

/// The CI stage: our own sessions with unmodified SDK apps, in every role, on the SDK's node and on slimline.
pub(crate) fn session(run: &Run<'_>) -> Result<Tally> {
    let slimline = build_node(run.workspace, System::Install)?;
    let mut tally = Tally::default();
    for node in [Path::new("embedded"), &slimline] {
        tally += run.tests(&mut sessions(run, node, Pace::OfTheClock)?)?;
    }
    Ok(tally)
}

/// The deep CI stage: the same through the released reference node.
pub(crate) fn session_reference(run: &Run<'_>) -> Result<Tally> {
    let reference = peers::reference(run.workspace)?;
    run.tests(&mut sessions(run, &reference, Pace::OfTheClock)?)
}

/// The deep CI stage: more than an hour of sessions with SDK apps, both sides living twelve times as fast as the clock, on the
/// SDK's node (which lives as fast as they do) and on slimline (which does not).
pub(crate) fn session_hour(run: &Run<'_>) -> Result<Tally> {
    let slimline = build_node(run.workspace, System::Install)?;
    tools::need("faketime", &["faketime"], System::Install)?;
    let mut tally = Tally::default();
    for node in [Path::new("embedded"), &slimline] {
        tally += run.tests(&mut sessions(run, node, Pace::TwelveTimes)?)?;
    }
    Ok(tally)
}

/// How fast applications live.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    OfTheClock,
    TwelveTimes,
}

/// The interop tests of `session` with that node: those that take an hour at their own pace, or all others.
fn sessions(run: &Run<'_>, node: &Path, pace: Pace) -> Result<Command> {
    let requirements = run.workspace.root.join(SUITES).join("requirements.txt");
    let python = tools::python(run.workspace, &requirements, System::Install)?;
    let mut command = run.workspace.cargo();
    if pace == Pace::TwelveTimes {
        command.args(["--config", r#"target.'cfg(all())'.runner = ["faketime", "-f", "+0 x12"]"#]);
    }
    command.args(["test", "--package", "slimline-session", "--test", "interop", "--", "--ignored"]);
    command.arg("--test-threads=2"); // each test is several processes
    command.args(if pace == Pace::TwelveTimes { ["one_hour"].as_slice() } else { &["--skip", "one_hour"] });
    command.env("SLIMLINE_TEST_PYTHON", python).env("SLIMLINE_TEST_NODE", node);
    Ok(command)
}

/// The deep CI stage: the same suites against nodes we did not write, to know that the suites are fair.
pub(crate) fn controls(run: &Run<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for against in ["embedded", "reference"] {
        tally += counted(run, &Interop { against: against.to_owned(), ..Interop::default() })?;
    }
    Ok(tally)
}

/// Runs the suites into the stage's log and counts their cases.
fn counted(run: &Run<'_>, flags: &Interop) -> Result<Tally> {
    let mut command = suites(run.workspace, flags, System::Install)?;
    let report = report(run.workspace, flags);
    let _ = fs::remove_file(&report);
    if let Ended::Deadline(limit) = run::logged(&mut command, run.deadline / 2, run.log)? {
        bail!("not done after {} s", limit.as_secs());
    }
    let text = fs::read_to_string(&report).context("the suites left no report")?;
    let report: Value = serde_json::from_str(&text)?;
    let count = |key: &str| report["counts"][key].as_u64().and_then(|count| u32::try_from(count).ok());
    let all = (count("passed"), count("failed"), count("skipped"));
    let (Some(passed), Some(failed), Some(skipped)) = all else { bail!("a report without counts") };
    Ok(Tally { passed, failed, skipped })
}

/// The command that runs the suites, with all it needs in place.
fn suites(workspace: &Workspace, flags: &Interop, system: System) -> Result<Command> {
    let folder = workspace.root.join(SUITES);
    let python = tools::python(workspace, &folder.join("requirements.txt"), system)?;
    let packages = tools::npm(workspace, &folder.join("package.json"), system)?;
    if system == System::Install {
        tools::need("curl", &["curl", "ca-certificates"], system)?;
        tools::need("h2load", &["nghttp2-client"], system)?;
    }
    let mut command = Command::new(python);
    command.current_dir(&workspace.root).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(folder.join("run.py")).args(["--against", &flags.against]);
    command.args(["--shards", &flags.shards.to_string()]);
    command.arg("--reports").arg(workspace.target.join("interop")).arg("--packages").arg(packages);
    let binary = match (&flags.binary, flags.against.as_str()) {
        (Some(binary), _) => Some(binary.clone()),
        (None, "slimline") => Some(build_node(workspace, system)?),
        (None, "reference") => Some(peers::reference(workspace)?),
        _ => None,
    };
    command.args(binary.iter().flat_map(|binary| [Path::new("--binary"), binary.as_path()]));
    for suite in &flags.suites {
        command.args(["--only", suite]);
    }
    if let Some(case) = &flags.case {
        command.args(["--case", case]);
    }
    Ok(command)
}

/// Builds the node, at release speed without the long link; the program's path.
///
/// In a CI stage cargo keeps its progress to itself.
pub(crate) fn build_node(workspace: &Workspace, system: System) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command.args(["build", "--profile", "fast", "--package", "slimline-node", "--bin", "slimline"]);
    if system == System::Install {
        command.arg("--quiet");
    }
    ensure!(run::until(&mut command, BUILD_DEADLINE)?.success(), "the node does not build");
    Ok(workspace.target.join("fast/slimline"))
}

/// Where `run.py` leaves its report for machines.
fn report(workspace: &Workspace, flags: &Interop) -> PathBuf {
    let shards = if flags.against == "slimline" { format!("-{}", flags.shards) } else { String::new() };
    workspace.target.join("interop").join(format!("{}{shards}.json", flags.against.replace(':', "-")))
}

/// All suites together; each has a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);
