//! `cargo xtask compare A B`: two nodes, interleaved in one sitting, judged pair by pair; or two recorded runs.

use crate::bench::node::{self, Sitting};
use crate::bench::options;
use crate::bench::record::{self, METRICS, Sample, short};
use crate::bench::stats::{iqr, median, signed_rank};
use crate::peers;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use pico_args::Arguments;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// `compare`: what with what.
pub(crate) struct Flags {
    a: String,
    b: String,
    node: crate::bench::Flags,
    /// Compare runs of different machines or engines all the same.
    force: bool,
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
}

/// Pairs when nobody says how many: with fewer than six, no result could look other than chance.
const PAIRS: u32 = 7;

/// Reads what stands behind `compare`.
///
/// Errors: not two things to compare, or a malformed value.
pub(crate) fn flags(arguments: &mut Arguments) -> Result<Flags> {
    let json = arguments.opt_value_from_str("--json")?;
    let markdown = arguments.opt_value_from_str("--markdown")?;
    let node = crate::bench::node_flags(arguments)?;
    let a = arguments.opt_free_from_str()?.context("compare what with what?")?;
    let b = arguments.opt_free_from_str()?.context("compare with what?")?;
    node.ensure_taken("compare", options::COMPARE)?;
    Ok(Flags { a, b, force: node.force, node, json, markdown })
}

/// Compares; `false` when a message was lost.
///
/// Errors: something could not be built, started or measured, or the two are not comparable.
pub(crate) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    for path in flags.markdown.iter().chain(&flags.json) {
        ensure_writable(path)?;
    }
    let recorded = |name: &str| PathBuf::from(name).join("samples.ndjson").is_file();
    let (samples, a, b, paired) = if recorded(&flags.a) && recorded(&flags.b) {
        let (mut a, mut b) = (record::read(flags.a.as_ref())?, record::read(flags.b.as_ref())?);
        comparable(&a, &b, flags.force)?;
        for (samples, name) in [(&mut a, &flags.a), (&mut b, &flags.b)] {
            // Of a run with several targets the first is the subject.
            let subject = samples.first().map(|s| s.target.clone()).unwrap_or_default();
            samples.retain(|s| s.target == subject);
            samples.iter_mut().for_each(|s| s.target.clone_from(name));
        }
        a.extend(b);
        (a, flags.a.clone(), flags.b.clone(), false)
    } else {
        for name in [&flags.a, &flags.b] {
            peers::ensure_known(workspace, name)?;
        }
        let cases = node::cases(workspace, &flags.node)?;
        let built = peers::build(workspace, flags.node.quick)?;
        let target = |name: &str| peers::target(workspace, &built, name);
        let sitting = Sitting {
            workspace,
            built: &built,
            name: "",
            cases,
            targets: vec![target(&flags.a)?, target(&flags.b)?],
            repeats: flags.node.repeats(PAIRS),
            cpus: flags.node.cpus,
            engine: flags.node.engine.clone(),
            quick: flags.node.quick,
            scratch: node::scratch(workspace)?,
        };
        for target in &sitting.targets {
            println!("{}: {}", target.name, target.version);
        }
        let samples = sitting.run_whole()?;
        (samples, flags.a.clone(), flags.b.clone(), true)
    };
    let judged = judge(&samples, &a, &b, paired);
    let text = markdown(&judged, &a, &b, paired);
    print!("{text}");
    if let Some(path) = &flags.markdown {
        fs::write(path, text.trim_start())?;
    }
    if let Some(path) = &flags.json {
        fs::write(path, serde_json::to_string_pretty(&judged)?)?;
    }
    Ok(samples.iter().all(Sample::is_clean))
}

/// Refuses to compare runs made under different conditions.
///
/// Errors: another machine, kernel or generator engine, each named with both values; an empty run.
pub(crate) fn comparable(a: &[Sample], b: &[Sample], force: bool) -> Result<()> {
    let conditions = |samples: &[Sample]| -> Result<[(&'static str, String); 4]> {
        let first = samples.first().context("an empty run")?;
        let machine = |key: &str| first.machine[key].as_str().map_or(first.machine[key].to_string(), str::to_owned);
        Ok([
            ("CPU", machine("cpu")),
            ("number of CPUs", machine("cpus")),
            ("kernel", machine("kernel")),
            ("generator engine", record::engines(samples).join(", ")),
        ])
    };
    let differing: Vec<String> = conditions(a)?
        .into_iter()
        .zip(conditions(b)?)
        .filter(|(a, b)| a != b)
        .map(|((what, a), (_, b))| format!("{what} {a} and {b}"))
        .collect();
    ensure!(
        force || differing.is_empty(),
        "the two were not measured alike: {} (--force compares them all the same)",
        differing.join("; ")
    );
    Ok(())
}

/// Refuses a place nothing can be written to, before anything is measured for it.
fn ensure_writable(path: &Path) -> Result<()> {
    let was_there = path.exists();
    let opened = fs::File::options().append(true).create(true).open(path);
    opened
        .and_then(|_| if was_there { Ok(()) } else { fs::remove_file(path) })
        .with_context(|| format!("write {}", path.display()))
}

/// One object per case and metric.
pub(crate) fn judge(samples: &[Sample], a: &str, b: &str, paired: bool) -> Vec<Value> {
    let mut judged = Vec::new();
    for (scenario, label) in record::cases(samples) {
        for metric in &METRICS {
            let of = |target| record::shown(samples, &scenario, &label, target, metric);
            let (from, to) = (of(a), of(b));
            if from.is_empty() || to.is_empty() {
                continue;
            }
            let ratios = record::ratios(samples, &scenario, &label, a, b, metric.pointer);
            if paired && !ratios.iter().all(|ratio| ratio.is_finite()) {
                continue; // both nothing: a ratio would say nothing either
            }
            let ratio = if paired { median(&ratios) } else { median(&to) / median(&from) };
            judged.push(json!({
                "scenario": scenario, "case": label, "metric": metric.name, "unit": metric.unit,
                "more_is_better": metric.more_is_better, "pointer": metric.pointer,
                "a": median(&from), "b": median(&to), "ratio": ratio,
                "ratio_iqr": if paired { json!(iqr(&ratios)) } else { Value::Null },
                "chance": if paired { json!(signed_rank(&ratios)) } else { Value::Null },
                "pairs": ratios.len(),
            }));
        }
    }
    judged
}

/// The judgement as a table.
pub(crate) fn markdown(judged: &[Value], a: &str, b: &str, paired: bool) -> String {
    let head = format!("| case | metric | A: {a} | B: {b} | B / A | spread | pairs | chance |");
    let mut out = format!("\n{head}\n|---|---|---:|---:|---:|---:|---:|---:|\n");
    let number = |value: &Value| value.as_f64().map_or_else(|| "-".into(), short);
    for row in judged {
        let _ = writeln!(
            out,
            "| {} | {}, {} | {} | {} | {:.3} | {} | {} | {} |",
            row["case"].as_str().unwrap_or(""),
            row["metric"].as_str().unwrap_or(""),
            row["unit"].as_str().unwrap_or(""),
            number(&row["a"]),
            number(&row["b"]),
            row["ratio"].as_f64().unwrap_or(f64::NAN),
            row["ratio_iqr"].as_f64().map_or_else(|| "-".into(), |v| format!("{v:.3}")),
            row["pairs"].as_u64().filter(|_| paired).map_or_else(|| "-".into(), |count| count.to_string()),
            row["chance"].as_f64().map_or_else(|| "-".into(), |v| format!("{v:.3}")),
        );
    }
    out.push_str(if paired {
        "\nB / A is the median of the pairs' ratios, spread the distance between their quartiles, chance how likely pairs this \
         one-sided are if neither is better (Wilcoxon signed-rank, two-sided, exact; equal differences share their mean rank, pairs \
         that do not differ do not count). N pairs cannot make it less than 2 / 2^N: below six it never says more than chance.\n"
    } else {
        "\nTwo recorded runs: medians only. For a judgement, compare the two in one sitting.\n"
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(target: &str, repeat: u32, delivered: f64, kernel: &str) -> Sample {
        let report = json!({
            "machine": {"cpus": 2, "cpu": "X", "kernel": kernel}, "engine": "epoll", "unix_time": 0,
            "measurements": [{"label": "1->1", "delivered_per_s": delivered, "faults": {"lost": 0}}],
        });
        Sample::of_report(target, "throughput", "throughput", repeat, &report).remove(0)
    }

    #[test]
    fn pairs_are_judged_by_their_ratios() {
        let mut samples = Vec::new();
        for (repeat, base) in [(0, 100.0), (1, 200.0), (2, 400.0), (3, 800.0), (4, 50.0)] {
            samples.push(sample("a", repeat, base, "6"));
            samples.push(sample("b", repeat, base * 1.5, "6"));
        }
        let judged = judge(&samples, "a", "b", true);
        assert_eq!(judged.len(), 1);
        assert_eq!(judged[0]["ratio"], 1.5);
        assert_eq!(judged[0]["chance"], 2.0 / 32.0);
        assert!(markdown(&judged, "a", "b", true).contains("| 1.500 | 0.000 | 5 | 0.062 |"));
    }

    #[test]
    fn two_runs_of_which_one_differs_in_a_condition() {
        let run = |edit: fn(&mut Sample)| {
            let mut run = [sample("a", 0, 1.0, "6"), sample("a", 1, 1.0, "6")];
            edit(&mut run[1]);
            edit(&mut run[0]);
            run
        };
        let like = run(|_| ());
        comparable(&like, &run(|_| ()), false).unwrap();
        for (edit, said) in [
            ((|s| s.machine["kernel"] = json!("5")) as fn(&mut Sample), "kernel 6 and 5"),
            (|s| s.machine["cpus"] = json!(64), "number of CPUs 2 and 64"),
            (|s| s.machine["cpu"] = json!("Y"), "CPU X and Y"),
            (|s| s.engine = "io-uring".into(), "generator engine epoll and io-uring"),
            (|s| s.engine = if s.repeat == 0 { "epoll" } else { "io-uring" }.into(), "epoll and epoll, io-uring"),
        ] {
            let refused = comparable(&like, &run(edit), false).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
            comparable(&like, &run(edit), true).unwrap();
        }
        assert!(comparable(&like, &[], true).is_err());
    }

    #[test]
    fn repeats_without_a_partner_make_no_pair_and_runs_apart_no_chance() {
        let samples = [sample("a", 0, 100.0, "6"), sample("b", 0, 200.0, "6"), sample("b", 1, 900.0, "6")];
        let paired = judge(&samples, "a", "b", true);
        assert_eq!((&paired[0]["ratio"], &paired[0]["pairs"]), (&json!(2.0), &json!(1)));
        let apart = judge(&samples, "a", "b", false);
        assert_eq!((&apart[0]["ratio"], &apart[0]["chance"]), (&json!(5.5), &Value::Null));
        assert!(markdown(&apart, "a", "b", false).contains("medians only"));
        assert!(judge(&samples, "a", "c", true).is_empty());
    }

    #[test]
    fn a_place_that_cannot_be_written_to() {
        assert!(
            ensure_writable(Path::new("/nonexistent/c.json")).unwrap_err().to_string().contains("/nonexistent/c.json")
        );
        let path = std::env::temp_dir().join(format!("compare-{}.json", std::process::id()));
        ensure_writable(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "what was there").unwrap();
        ensure_writable(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "what was there");
        fs::remove_file(path).unwrap();
    }
}
