//! `bench node`: whole nodes under the scenario files of `bench/scenarios`, interleaved, recorded.

use super::Flags;
use super::record::{Run, Sample};
use crate::peers::{self, Built, Target};
use crate::run;
use crate::tools::Missing;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one scenario may take against one node.
const SCENARIO: Duration = Duration::from_secs(30 * 60);
/// What a quick run shortens every measurement to.
const QUICK: [&str; 6] = ["--duration", "0.2", "--warmup", "0.05", "--variants", "64"];

/// Measures; `false` when a message was lost, doubled, reordered, damaged or misrouted.
///
/// Errors: something could not be built, started or measured. Nothing is written to perf-results then.
pub(super) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let built = peers::build(workspace, flags.quick)?;
    let targets = targets(workspace, flags, &built)?;
    let samples = interleaved(workspace, flags, &built, &targets)?;
    let clean = samples.iter().all(Sample::is_clean);
    if flags.quick {
        println!("{} measurements, {}", samples.len(), if clean { "every message accounted for" } else { "FAULTS" });
        return Ok(clean);
    }
    let topic = flags.topic.clone().unwrap_or_else(|| "node".into());
    let question = flags.question.clone().unwrap_or_else(|| {
        format!(
            "What do {} cost per message, side by side?",
            targets.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ")
        )
    });
    let run = Run { topic, question, targets: &targets, samples: &samples, scratch: &scratch(workspace) };
    let folder = if flags.dry { workspace.target.join("bench/dry") } else { run.folder(workspace)? };
    run.write(workspace, &folder, flags.dry)?;
    println!("\nrecorded: {}", folder.display());
    Ok(clean)
}

/// Where the generator leaves reports, curves and plots of the sitting.
fn scratch(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bench/scratch")
}

/// Every scenario, every repeat, every target, in that order: A B A B, so that what drifts drifts for everybody.
///
/// Errors: something could not be started or measured.
pub(crate) fn interleaved(
    workspace: &Workspace,
    flags: &Flags,
    built: &Built,
    targets: &[Target],
) -> Result<Vec<Sample>> {
    let scenarios = scenarios(workspace, flags)?;
    let repeats = if flags.quick { 1 } else { flags.repeats };
    let scratch = scratch(workspace);
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let mut samples = Vec::new();
    for scenario in &scenarios {
        for repeat in 0..repeats {
            for target in targets {
                let taken = measure(workspace, built, target, scenario, repeat, flags, &scratch)?;
                for sample in &taken {
                    println!("{}", sample.line());
                }
                samples.extend(taken);
            }
        }
    }
    Ok(samples)
}

fn scenarios(workspace: &Workspace, flags: &Flags) -> Result<Vec<PathBuf>> {
    let folder = workspace.root.join("bench/scenarios");
    let mut all: Vec<PathBuf> = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    all.sort();
    if flags.scenarios.is_empty() {
        if flags.quick {
            all.retain(|path| path.file_stem().is_some_and(|stem| stem == "smoke" || stem == "pingpong"));
        }
        return Ok(all);
    }
    flags
        .scenarios
        .iter()
        .map(|wanted| {
            let inside = folder.join(wanted).with_extension("toml");
            let found = [wanted.clone(), inside].into_iter().find(|path| path.is_file());
            found.with_context(|| format!("no scenario {}; there are {}", wanted.display(), names(&all)))
        })
        .collect()
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().filter_map(|path| path.file_stem()?.to_str()).collect::<Vec<_>>().join(", ")
}

fn targets(workspace: &Workspace, flags: &Flags, built: &Built) -> Result<Vec<Target>> {
    let wanted = if flags.targets.is_empty() { vec!["slimline".to_owned()] } else { flags.targets.clone() };
    let mut targets = Vec::new();
    for name in wanted {
        match peers::target(workspace, built, &name) {
            Ok(target) => targets.push(target),
            Err(error) if error.is::<Missing>() => println!("left out: {name}: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    ensure!(!targets.is_empty(), "nothing to measure");
    Ok(targets)
}

/// One scenario against one freshly started node.
fn measure(
    workspace: &Workspace,
    built: &Built,
    target: &Target,
    scenario: &Path,
    repeat: u32,
    flags: &Flags,
    scratch: &Path,
) -> Result<Vec<Sample>> {
    let stem = scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut node = target.start(workspace, flags.cpus.map(|(node, _)| node))?;
    let base = scratch.join(format!("{stem}-{}-{repeat}", target.slug()));
    let json = base.with_extension("json");
    let mut command = prefixed(&built.slimload);
    command.arg("run").arg(scenario);
    command.args(["--node", &node.endpoint, "--peer", target.protocol(), "--node-pid", &node.pid().to_string()]);
    command.arg("--json").arg(&json);
    // A closed window's latencies say how much was queued: a curve of them would only invite misreading.
    let closed = fs::read_to_string(scenario)?.lines().any(|line| line.trim() == "command = \"throughput\"");
    if repeat == 0 && !closed {
        command.arg("--hgrm").arg(base.with_extension("hgrm")).arg("--plot").arg(base.with_extension("svg"));
    }
    if let Some((_, generator)) = flags.cpus {
        command.args(["--pin", &generator.to_string()]);
    }
    if let Some(case) = &flags.case {
        command.args(["--case", case]);
    }
    if flags.quick {
        command.args(QUICK);
    }
    let log = base.with_extension("txt");
    let ended = run::logged(&mut command, SCENARIO, &log)?;
    let said = || fs::read_to_string(&log).unwrap_or_default();
    node.check().with_context(|| format!("{} under {stem}: {}", target.name, said()))?;
    // Exit code 1 means faults: a result, and it is in the report.
    let report = fs::read(&json).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let Some(report) = report else {
        bail!("{} under {stem}: no result:\n{}", target.name, said());
    };
    if !ended.success() {
        println!("{}", said());
    }
    Ok(Sample::of_report(&target.name, &stem, repeat, &report))
}

/// The generator, behind the command `SLIMLOAD_WITH` names (numactl, chrt, flock, ...).
fn prefixed(program: &Path) -> Command {
    let with = env::var("SLIMLOAD_WITH").unwrap_or_default();
    let mut words = with.split_whitespace();
    match words.next() {
        None => Command::new(program),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
    }
}
