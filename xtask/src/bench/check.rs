//! `bench check --against RUN`: today's figures against those of a recorded run.
//!
//! Absolute times differ from day to day on a shared machine; the ratio to a relay that parses nothing, measured in the
//! same sitting, hardly does, and instructions not at all. A tool for people: no test depends on it.

use super::node::{self, Sitting};
use super::record::Sample;
use super::scenario::Case;
use super::{Flags, icount, record, sitting, stats};
use crate::compare;
use crate::peers;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};

/// What both runs are measured in.
const YARDSTICK: &str = "relay";
/// By what factor a ratio may be worse: what repeats of it differ by on a machine shared with others.
const RATIO_THRESHOLD: f64 = 1.15;
/// By what factor a count may: it repeats to the instruction, but for how a hash map was seeded.
const COUNT_THRESHOLD: f64 = 1.03;
/// Repeats when nobody says how many.
const REPEATS: u32 = 3;

/// Measures the recorded run's cases again; `false` when one is worse by more than the threshold.
///
/// Errors: the recorded run has no yardstick, or is another machine's.
pub(super) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let folder = flags.against.as_ref().context("bench check needs --against FOLDER, a recorded run")?;
    let old = record::read(folder)?;
    let (new, pointer, threshold, yardstick) = if old.iter().all(|sample| sample.file == icount::SCENARIO) {
        (icount::count(workspace, flags.quick)?, "/instructions", COUNT_THRESHOLD, None)
    } else {
        let new = again(workspace, flags, &old)?;
        (new, "/node_cpu_ns_per_message", RATIO_THRESHOLD, Some(YARDSTICK))
    };
    if yardstick.is_some() {
        compare::comparable(&old, &new, flags.force)?;
    }
    let subject = old.first().map(|sample| sample.target.clone()).context("an empty run")?;
    let figure = |samples: &[Sample], scenario: &str, label: &str| {
        let of = |target: &str| stats::median(&record::figures(samples, scenario, label, target, pointer));
        of(&subject) / yardstick.map_or(1.0, of)
    };
    let threshold = flags.threshold.unwrap_or(threshold);
    let what = if yardstick.is_some() { "node CPU per message, as a multiple of the relay's" } else { "instructions" };
    println!("\n{what}; worse is more than {threshold} times what it was:");
    let (mut good, mut compared) = (true, 0);
    for (scenario, label) in record::cases(&new) {
        let (before, now) = (figure(&old, &scenario, &label), figure(&new, &scenario, &label));
        if !(before.is_finite() && now.is_finite()) {
            continue;
        }
        let worse = now / before > threshold;
        good &= !worse;
        compared += 1;
        println!("{scenario}: {label}: {before:.2} then, {now:.2} now{}", if worse { "  WORSE" } else { "" });
    }
    ensure!(compared > 0, "nothing of {} could be measured again", folder.display());
    Ok(good)
}

/// The recorded run's cases, its first target and the yardstick.
fn again(workspace: &Workspace, flags: &Flags, old: &[Sample]) -> Result<Vec<Sample>> {
    let subject = old.first().map(|sample| sample.target.clone()).context("an empty run")?;
    ensure!(old.iter().any(|s| s.target == YARDSTICK), "that run has no `{YARDSTICK}` to measure by");
    ensure!(subject != YARDSTICK, "that run begins with the yardstick itself");
    let built = peers::build(workspace, flags.quick)?;
    let targets = vec![peers::target(workspace, &built, &subject)?, peers::target(workspace, &built, YARDSTICK)?];
    let mut files: Vec<(&str, &str)> = old.iter().map(|s| (s.scenario.as_str(), s.file.as_str())).collect();
    files.dedup();
    let mut samples = Vec::new();
    let scratch = node::scratch(workspace)?;
    for (scenario, file) in files {
        let path = workspace.root.join("bench/scenarios").join(file).with_extension("toml");
        let mut cases = Case::read(&path, &flags.cases)?;
        let measured = |label: &str| old.iter().any(|s| s.scenario == scenario && s.label().starts_with(label));
        cases.retain(|case| case.label.as_deref().is_none_or(measured));
        let sitting = Sitting {
            workspace,
            built: &built,
            name: scenario,
            cases,
            targets: targets.clone(),
            repeats: flags.repeats.unwrap_or(REPEATS),
            cpus: flags.cpus.or_else(sitting::apart),
            quick: flags.quick,
            scratch: scratch.clone(),
        };
        samples.extend(sitting.run_whole()?);
    }
    Ok(samples)
}
