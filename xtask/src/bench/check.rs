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
    ensure!(!old.is_empty(), "{} holds no samples", folder.display());
    let (new, pointer, threshold, yardstick) = if old.iter().all(|sample| sample.file == icount::SCENARIO) {
        // Never the quick way: of fewer calls each takes up to a hundredth more than in the recorded run.
        (icount::count(workspace, false)?, "/instructions", COUNT_THRESHOLD, None)
    } else {
        let new = again(workspace, flags, &old)?;
        (new, "/node_cpu_ns_per_message", RATIO_THRESHOLD, Some(YARDSTICK))
    };
    if yardstick.is_some() {
        compare::comparable(&old, &new, flags.force)?;
    }
    let threshold = flags.threshold.unwrap_or(threshold);
    let what = if yardstick.is_some() { "node CPU per message, as a multiple of the relay's" } else { "instructions" };
    println!("\n{what}; worse is more than {threshold} times what it was:");
    let verdicts = judge(&old, &new, pointer, yardstick, threshold);
    for Verdict { case, before, now, is_worse } in &verdicts {
        println!("{case}: {before:.2} then, {now:.2} now{}", if *is_worse { "  WORSE" } else { "" });
    }
    ensure!(!verdicts.is_empty(), "nothing of {} could be measured again", folder.display());
    for (scenario, label) in gone(&old, &new).iter().filter(|_| flags.cases.is_empty()) {
        println!("{scenario}: {label}: not there any more, hence not compared");
    }
    let faulty = new.iter().filter(|sample| !sample.is_clean()).count();
    if faulty > 0 {
        println!("FAULTS in {faulty} of {} measurements", new.len());
    }
    Ok(faulty == 0 && verdicts.iter().all(|verdict| !verdict.is_worse))
}

/// Cases of the old run that the new one lacks: renamed or taken out since.
fn gone(old: &[Sample], new: &[Sample]) -> Vec<(String, String)> {
    let new = record::cases(new);
    record::cases(old).into_iter().filter(|case| !new.contains(case)).collect()
}

/// A case then and now.
struct Verdict {
    case: String,
    before: f64,
    now: f64,
    is_worse: bool,
}

/// The old run's first target in every case that both have: the median of its figures, or where there is a yardstick of
/// their ratios to it, repeat by repeat.
fn judge(old: &[Sample], new: &[Sample], pointer: &str, yardstick: Option<&str>, threshold: f64) -> Vec<Verdict> {
    let subject = old.first().map_or("", |sample| &sample.target);
    let figure = |samples: &[Sample], scenario: &str, label: &str| {
        stats::median(&match yardstick {
            Some(yardstick) => record::ratios(samples, scenario, label, yardstick, subject, pointer),
            None => record::figures(samples, scenario, label, subject, pointer),
        })
    };
    let of_case = |(scenario, label): (String, String)| {
        let (before, now) = (figure(old, &scenario, &label), figure(new, &scenario, &label));
        let is_worse = now / before > threshold;
        let case = format!("{scenario}: {label}");
        (before.is_finite() && now.is_finite()).then_some(Verdict { case, before, now, is_worse })
    };
    record::cases(new).into_iter().filter_map(of_case).collect()
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
    // As the recorded run was: another engine would be another measurement.
    let engine = match record::engines(old)[..] {
        [one] if flags.engine.is_none() => Some(one.to_owned()),
        _ => flags.engine.clone(),
    };
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
            repeats: flags.repeats(REPEATS),
            cpus: flags.cpus.or_else(sitting::apart),
            engine: engine.clone(),
            quick: flags.quick,
            scratch: scratch.clone(),
        };
        samples.extend(sitting.run_whole()?);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CPU: &str = "/node_cpu_ns_per_message";

    /// Two cases, three repeats, slimline and the relay; slimline at `ns` in the second case.
    fn run(ns: f64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (label, ours) in [("1->1, 64 B", 900.0), ("1->1, 256 B", ns)] {
            for repeat in 0..3u32 {
                for (target, value) in [("slimline", ours), ("relay", 500.0)] {
                    let measurement = json!({"label": label, "node_cpu_ns_per_message": value + f64::from(repeat)});
                    let report = json!({"machine": {}, "engine": "epoll", "measurements": [measurement]});
                    samples.extend(Sample::of_report(target, "throughput", "throughput", repeat, &report));
                }
            }
        }
        samples
    }

    #[test]
    fn a_case_that_got_worse_is_found_and_no_other() {
        let verdicts = judge(&run(1000.0), &run(1200.0), CPU, Some("relay"), RATIO_THRESHOLD);
        let worse: Vec<_> = verdicts.iter().map(|verdict| (verdict.case.as_str(), verdict.is_worse)).collect();
        assert_eq!(worse, [("throughput: 1->1, 64 B", false), ("throughput: 1->1, 256 B", true)]);
        assert!((verdicts[1].now / verdicts[1].before - 1.2).abs() < 0.01);
    }

    #[test]
    fn what_is_within_the_threshold_or_better_passes() {
        for ns in [1000.0, 1100.0, 500.0] {
            let verdicts = judge(&run(1000.0), &run(ns), CPU, Some("relay"), RATIO_THRESHOLD);
            assert_eq!(verdicts.len(), 2);
            assert!(verdicts.iter().all(|verdict| !verdict.is_worse), "{ns}");
        }
    }

    /// The machine slows down from repeat to repeat, and one of slimline's has a hitch besides: it decides one pair of three.
    #[test]
    fn a_hitch_spoils_its_pair_only() {
        let mut today = run(1000.0);
        for sample in &mut today {
            let day = [1.0, 2.0, 4.0][sample.repeat as usize];
            let hitch = if sample.repeat == 1 && sample.target == "slimline" { 1.5 } else { 1.0 };
            let slow = sample.figure(CPU).unwrap() * day * hitch;
            sample.measurement["node_cpu_ns_per_message"] = json!(slow);
        }
        let verdicts = judge(&run(1000.0), &today, CPU, Some("relay"), RATIO_THRESHOLD);
        assert!(verdicts.iter().all(|v| (v.now / v.before - 1.0).abs() < 0.01 && !v.is_worse));
    }

    #[test]
    fn cases_that_are_gone_are_told() {
        let (old, new) =
            (run(1000.0), run(1000.0).into_iter().filter(|s| s.label() == "1->1, 64 B").collect::<Vec<_>>());
        assert_eq!(gone(&old, &new), [("throughput".to_owned(), "1->1, 256 B".to_owned())]);
        assert!(gone(&new, &old).is_empty());
    }

    /// A day on which everything takes twice as long is no regression.
    #[test]
    fn the_yardstick_takes_the_day_out() {
        let mut today = run(1000.0);
        for sample in &mut today {
            let slow = sample.figure(CPU).unwrap() * 2.0;
            sample.measurement["node_cpu_ns_per_message"] = json!(slow);
        }
        assert!(judge(&run(1000.0), &today, CPU, Some("relay"), RATIO_THRESHOLD).iter().all(|v| !v.is_worse));
        assert!(judge(&run(1000.0), &today, CPU, None, RATIO_THRESHOLD).iter().all(|v| v.is_worse));
        assert!(judge(&run(1000.0), &[], CPU, None, RATIO_THRESHOLD).is_empty());
    }
}
