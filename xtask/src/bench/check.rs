//! `bench check --against RUN`: today's figures relative to a yardstick, against the same ratios of a recorded run.
//!
//! Absolute times differ from day to day on a shared machine; the ratio to a relay that parses nothing, measured in the
//! same sitting, hardly does. A tool for people: no test depends on it.

use super::{Flags, node, record, stats};
use crate::compare;
use crate::peers;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};

/// What both runs are measured in.
const YARDSTICK: &str = "relay";

/// Measures the recorded run's cases again; `false` when one is worse by more than the threshold.
///
/// Errors: the recorded run has no yardstick, or is another machine's.
pub(super) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let folder = flags.against.as_ref().context("bench check needs --against FOLDER, a recorded run")?;
    let old = record::read(folder)?;
    let subject = old.first().map(|s| s.target.clone()).context("an empty run")?;
    ensure!(old.iter().any(|s| s.target == YARDSTICK), "{} has no `{YARDSTICK}` to measure by", folder.display());
    ensure!(subject != YARDSTICK, "{} begins with the yardstick itself", folder.display());
    let built = peers::build(workspace, flags.quick)?;
    let targets = [peers::target(workspace, &built, &subject)?, peers::target(workspace, &built, YARDSTICK)?];
    let mut scenarios: Vec<String> = old.iter().map(|s| s.scenario.clone()).collect();
    scenarios.sort();
    scenarios.dedup();
    let again = Flags { scenarios: scenarios.into_iter().map(Into::into).collect(), ..flags.clone() };
    let new = node::interleaved(workspace, &again, &built, &targets)?;
    compare::comparable(&old, &new, flags.force)?;

    let pointer = "/node_cpu_ns_per_message";
    let ratio = |samples: &[record::Sample], scenario: &str, label: &str| {
        let of = |target: &str| stats::median(&record::figures(samples, scenario, label, target, pointer));
        of(&subject) / of(YARDSTICK)
    };
    let mut good = true;
    println!("\nnode CPU per message, as a multiple of the relay's:");
    for (scenario, label) in record::cases(&new) {
        let (before, now) = (ratio(&old, &scenario, &label), ratio(&new, &scenario, &label));
        if !(before.is_finite() && now.is_finite()) {
            continue;
        }
        let worse = now / before > flags.threshold;
        good &= !worse;
        println!("{scenario}: {label}: {before:.2} then, {now:.2} now{}", if worse { "  WORSE" } else { "" });
    }
    Ok(good)
}
