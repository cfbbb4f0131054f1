//! `bench micro`: the hot functions under criterion.

use super::node::Taken;
use super::record::{Run, Sample};
use super::{Flags, icount, sitting};
use crate::run;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How recordings of it are called.
pub(super) const TOPIC: &str = "hot functions";

const SCENARIO: &str = "micro";
/// How long one criterion suite may take.
const SUITE: Duration = Duration::from_secs(30 * 60);
/// The suites: `micro` is the bench crate's, `mls` the session crate's.
const SUITES: [&str; 2] = ["micro", "mls"];

/// Times one group of `micro` and leaves it at what criterion prints, compared with the last time.
///
/// Errors: the suite does not build.
pub(super) fn show(workspace: &Workspace, flags: &Flags, group: &str) -> Result<bool> {
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "-p", "slimline-bench", "--bench", "micro"]);
    if flags.quick {
        cargo.args(["--profile", "fast"]);
    }
    if flags.build {
        return Ok(run::until(cargo.arg("--no-run"), SUITE)?.success());
    }
    cargo.arg("--").arg(format!("{group}/"));
    if flags.quick {
        cargo.arg("--test");
    }
    Ok(run::until(&mut cargo, SUITE)?.success())
}

/// Times and records; quick runs each function once and times nothing.
///
/// Errors: a suite does not build.
pub(super) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "-p", "slimline-bench", "-p", "slimline-session"]);
    for suite in SUITES {
        cargo.args(["--bench", suite]);
    }
    if flags.build {
        return Ok(run::until(cargo.arg("--no-run"), SUITE)?.success());
    }
    let kept = workspace.target.join("criterion");
    if flags.quick {
        cargo.args(["--profile", "fast", "--", "--test"]);
    } else {
        let _ = fs::remove_dir_all(&kept); // only what this run measures shall be found afterwards
        cargo.args(["--", "--warm-up-time", "1", "--measurement-time", "3"]);
    }
    if !run::until(&mut cargo, SUITE)?.success() {
        return Ok(false);
    }
    if flags.quick {
        return Ok(true);
    }
    let mut taken = Taken::default();
    results(workspace, &kept, &mut taken.samples)?;
    let run = Run {
        topic: TOPIC.into(),
        question: "How long does each hot function take, inputs in cache and nothing else to do?".into(),
        command: Some("bench micro".into()),
        caveats: vec!["Medians of criterion; per message, lookup or delta where a call handles several.".into()],
        ..Run::of(&taken)
    };
    sitting::conclude(workspace, flags, &run)
}

/// What criterion left in `folder` and below, by name.
fn results(workspace: &Workspace, folder: &Path, samples: &mut Vec<Sample>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for path in entries.iter().map(fs::DirEntry::path).filter(|path| path.is_dir() && !path.ends_with("report")) {
        let new = path.join("new");
        let read = |file: &str| -> Option<Value> { serde_json::from_slice(&fs::read(new.join(file)).ok()?).ok() };
        let (Some(estimates), Some(benchmark)) = (read("estimates.json"), read("benchmark.json")) else {
            results(workspace, &path, samples)?; // a group
            continue;
        };
        let median =
            estimates["median"]["point_estimate"].as_f64().context("criterion's estimates without a median")?;
        let elements = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
        let name = benchmark["full_id"].as_str().context("criterion's benchmark without a name")?;
        samples.push(icount::hot_sample(workspace, SCENARIO, name, "ns_each", median / elements)?);
    }
    Ok(())
}
