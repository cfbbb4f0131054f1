//! A run as a folder of `perf-results/runs`: README, every sample, summary, curves; and a line per metric in the history.

use super::stats::{iqr, median};
use crate::peers::{Target, slug};
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One measurement of one target.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) target: String,
    pub(crate) scenario: String,
    pub(crate) repeat: u32,
    /// The measurement as the generator reported it, its time series left out.
    pub(crate) measurement: Value,
    /// The machine block of the report.
    pub(crate) machine: Value,
    /// Engine of the generator.
    pub(crate) engine: String,
    pub(crate) unix_time: u64,
}

/// A figure worth a column: where it stands in a measurement, its name, its unit, whether more is better.
pub(crate) struct Metric {
    pub(crate) pointer: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
}

/// What summaries and comparisons show.
pub(crate) const METRICS: [Metric; 6] = [
    Metric { pointer: "/delivered_per_s", name: "delivered", unit: "1/s", more_is_better: true },
    Metric { pointer: "/node_cpu_ns_per_message", name: "node CPU per message", unit: "ns", more_is_better: false },
    Metric { pointer: "/latency/p50_us", name: "p50", unit: "us", more_is_better: false },
    Metric { pointer: "/latency/p99_us", name: "p99", unit: "us", more_is_better: false },
    Metric { pointer: "/latency/p99_9_us", name: "p99.9", unit: "us", more_is_better: false },
    Metric { pointer: "/node_rss_octets", name: "RSS", unit: "octets", more_is_better: false },
];

impl Sample {
    /// The samples in a generator's report.
    pub(crate) fn of_report(target: &str, scenario: &str, repeat: u32, report: &Value) -> Vec<Self> {
        let measurements = report["measurements"].as_array().cloned().unwrap_or_default();
        measurements
            .into_iter()
            .map(|mut measurement| {
                if let Some(fields) = measurement.as_object_mut() {
                    fields.remove("samples");
                }
                Self {
                    target: target.to_owned(),
                    scenario: scenario.to_owned(),
                    repeat,
                    measurement,
                    machine: report["machine"].clone(),
                    engine: report["engine"].as_str().unwrap_or_default().to_owned(),
                    unix_time: report["unix_time"].as_u64().unwrap_or(0),
                }
            })
            .collect()
    }

    pub(crate) fn label(&self) -> &str {
        self.measurement["label"].as_str().unwrap_or("")
    }

    pub(crate) fn figure(&self, pointer: &str) -> Option<f64> {
        self.measurement.pointer(pointer)?.as_f64()
    }

    /// Whether every message was accounted for.
    pub(crate) fn is_clean(&self) -> bool {
        self.measurement["faults"].as_object().is_some_and(|faults| faults.values().all(|count| count == 0))
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let figure = |pointer| self.figure(pointer).map_or_else(|| "-".into(), short);
        format!(
            "{:<10} {:<34} {:>9}/s  node {:>8} ns/msg  p50 {:>8} us  p99 {:>8} us{}",
            self.target,
            self.label(),
            figure("/delivered_per_s"),
            figure("/node_cpu_ns_per_message"),
            figure("/latency/p50_us"),
            figure("/latency/p99_us"),
            if self.is_clean() { "" } else { "  FAULTS" },
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "target": self.target, "scenario": self.scenario, "repeat": self.repeat, "unix_time": self.unix_time,
            "engine": self.engine, "machine": self.machine, "measurement": self.measurement,
        })
    }

    fn from_json(line: &Value) -> Option<Self> {
        Some(Self {
            target: line["target"].as_str()?.to_owned(),
            scenario: line["scenario"].as_str()?.to_owned(),
            repeat: u32::try_from(line["repeat"].as_u64()?).ok()?,
            measurement: line["measurement"].clone(),
            machine: line["machine"].clone(),
            engine: line["engine"].as_str().unwrap_or_default().to_owned(),
            unix_time: line["unix_time"].as_u64().unwrap_or(0),
        })
    }
}

/// Reads a recorded run's samples.
///
/// Errors: no such run, or a line that is none of ours.
pub(crate) fn read(folder: &Path) -> Result<Vec<Sample>> {
    let path = folder.join("samples.ndjson");
    let text = fs::read_to_string(&path).with_context(|| format!("{} is no recorded run", folder.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).ok().as_ref().and_then(Sample::from_json))
        .map(|sample| sample.with_context(|| format!("{}: a line that is no sample", path.display())))
        .collect()
}

/// A number short enough for a table.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A run to be written.
pub(crate) struct Run<'a> {
    pub(crate) topic: String,
    pub(crate) question: String,
    pub(crate) targets: &'a [Target],
    pub(crate) samples: &'a [Sample],
    /// Where the generator left curves and plots.
    pub(crate) scratch: &'a Path,
}

impl Run<'_> {
    /// Its folder: date, machine, topic. A second run of a day gets a number.
    pub(crate) fn folder(&self, workspace: &Workspace) -> Result<PathBuf> {
        let first = self.samples.first().context("nothing was measured")?;
        let machine = machine_name(workspace, &first.machine)?;
        let name = format!("{}-{machine}-{}", date(first.unix_time), slug(&self.topic));
        let runs = workspace.root.join("perf-results/runs");
        let free = (1u32..)
            .map(|n| runs.join(if n == 1 { name.clone() } else { format!("{name}-{n}") }))
            .find(|path| !path.exists());
        free.context("no free name for the run")
    }

    /// Writes everything beside the folder and moves it there whole; then the history.
    ///
    /// Errors: the disk. Nothing half-written stays under the final name.
    pub(crate) fn write(&self, workspace: &Workspace, folder: &Path, dry: bool) -> Result<()> {
        let staging = folder.with_extension("part");
        let _ = fs::remove_dir_all(&staging);
        fs::create_dir_all(&staging)?;
        let mut lines = String::new();
        for sample in self.samples {
            let _ = writeln!(lines, "{}", sample.to_json());
        }
        fs::write(staging.join("samples.ndjson"), lines)?;
        fs::write(staging.join("summary.md"), summary(self.targets, self.samples))?;
        fs::write(staging.join("README.md"), self.readme(workspace))?;
        for entry in fs::read_dir(self.scratch)?.filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "hgrm" || extension == "svg") {
                fs::copy(&path, staging.join(entry.file_name()))?;
            }
        }
        if dry {
            let _ = fs::remove_dir_all(folder);
        }
        ensure!(!folder.exists(), "{} appeared meanwhile", folder.display());
        fs::rename(&staging, folder)?;
        if dry {
            return Ok(());
        }
        let run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut history =
            OpenOptions::new().create(true).append(true).open(workspace.root.join("perf-results/history.ndjson"))?;
        history.write_all(self.history(&run, &commit(workspace)).as_bytes())?;
        Ok(())
    }

    /// One line per target, case and metric.
    fn history(&self, run: &str, commit: &str) -> String {
        let mut out = String::new();
        for (scenario, label) in cases(self.samples) {
            for target in self.targets {
                for metric in &METRICS {
                    let figures = figures(self.samples, &scenario, &label, &target.name, metric.pointer);
                    if figures.is_empty() {
                        continue;
                    }
                    let bench = format!("{scenario}/{label}/{}/{}", target.name, metric.name);
                    let line = json!({
                        "run": run, "commit": commit, "bench": bench, "unit": metric.unit,
                        "median": rounded(median(&figures)), "iqr": rounded(iqr(&figures)), "samples": figures.len(),
                    });
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }

    fn readme(&self, workspace: &Workspace) -> String {
        let mut out = format!("# {}\n\nQuestion: {}\n\n", self.topic, self.question);
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let quoted: Vec<String> =
            arguments.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() }).collect();
        let _ = writeln!(out, "Command: `cargo xtask {}`\n", quoted.join(" "));
        let _ = writeln!(out, "Commit: `{}`\n", commit(workspace));
        out.push_str("| target | version |\n|---|---|\n");
        for target in self.targets {
            let _ = writeln!(out, "| {} | {} |", target.name, target.version);
        }
        if let Some(first) = self.samples.first() {
            let machine = &first.machine;
            let text = |key: &str| machine[key].as_str().unwrap_or("unknown").to_owned();
            let _ = writeln!(
                out,
                "\nMachine: {} x {}{}, {} MiB, Linux {}, governor {}, clock {}; generator engine {}.",
                machine["cpus"],
                text("cpu"),
                if machine["virtual_machine"] == true { " (virtual machine)" } else { "" },
                machine["memory_mib"],
                text("kernel"),
                text("governor"),
                text("clock_source"),
                first.engine,
            );
        }
        let waited: Vec<f64> = self.samples.iter().filter_map(|s| s.figure("/node_waited_cpus")).collect();
        let _ = writeln!(out, "\nCaveats:\n");
        let _ = writeln!(
            out,
            "* Loopback TCP, node and generator on one machine; rates are ratios between the columns, not capacities of a network."
        );
        let _ = writeln!(
            out,
            "* The node stood ready and waited for a CPU {:.1} % of the time in the median, {:.1} % at most: where that is much, \
             others used the machine, and CPU per message is the figure to trust.",
            median(&waited) * 100.0,
            waited.iter().copied().fold(0.0, f64::max) * 100.0
        );
        let generator: Vec<f64> =
            self.samples.iter().filter_map(|s| s.figure("/generator_cpu_ns_per_message")).collect();
        let _ = writeln!(
            out,
            "* The generator used {} ns of CPU per message in the median (it spins in open-loop runs).",
            short(median(&generator))
        );
        let bound =
            self.samples.iter().filter(|s| s.measurement["warnings"].to_string().contains("bottleneck")).count();
        let _ =
            writeln!(out, "* Measurements in which the generator was the limit: {bound} of {}.", self.samples.len());
        let faulty = self.samples.iter().filter(|s| !s.is_clean()).count();
        let _ =
            writeln!(out, "* Measurements with a lost, doubled, reordered, damaged or misrouted message: {faulty}.");
        out.push_str("\nWritten by `cargo xtask bench`; the figures are in [summary.md](summary.md), every sample in [samples.ndjson](samples.ndjson).\n");
        out
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The (scenario, label) pairs in the order measured. A ladder's labels hold its rate only when that is fixed.
pub(crate) fn cases(samples: &[Sample]) -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = Vec::new();
    for sample in samples {
        let case = (sample.scenario.clone(), sample.label().to_owned());
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
}

/// One metric's samples of one target in one case.
pub(crate) fn figures(samples: &[Sample], scenario: &str, label: &str, target: &str, pointer: &str) -> Vec<f64> {
    let wanted = samples.iter().filter(|s| s.target == target && s.scenario == scenario && s.label() == label);
    wanted.filter_map(|sample| sample.figure(pointer)).collect()
}

/// The tables: one per scenario and metric, a column per target, with the ratio to the first.
pub(crate) fn summary(targets: &[Target], samples: &[Sample]) -> String {
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let mut out = String::from(
        "# Summary\n\nMedians over the repeats, with the distance between the quartiles; in brackets the ratio to the first column.\n",
    );
    let cases = cases(samples);
    let mut scenarios: Vec<&str> = cases.iter().map(|(scenario, _)| scenario.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        for metric in &METRICS {
            let _ = writeln!(out, "\n## {scenario}: {}, {}\n", metric.name, metric.unit);
            let _ = writeln!(out, "| case | {} |", names.join(" | "));
            let _ = writeln!(out, "|---|{}", "---:|".repeat(names.len()));
            for (_, label) in cases.iter().filter(|(s, _)| s == scenario) {
                let mut row = format!("| {label} |");
                let first = names.first().map(|name| median(&figures(samples, scenario, label, name, metric.pointer)));
                for (column, name) in names.iter().enumerate() {
                    let values = figures(samples, scenario, label, name, metric.pointer);
                    if values.is_empty() {
                        row.push_str(" - |");
                        continue;
                    }
                    let middle = median(&values);
                    let _ = write!(row, " {} ± {}", short(middle), short(iqr(&values)));
                    if column > 0
                        && let Some(first) = first.filter(|first| *first > 0.0)
                    {
                        let _ = write!(row, " ({:.2})", middle / first);
                    }
                    row.push_str(" |");
                }
                let _ = writeln!(out, "{row}");
            }
        }
    }
    out
}

/// The commit measured; `+` when files differ from it.
pub(crate) fn commit(workspace: &Workspace) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(&workspace.root).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let sha = git(&["rev-parse", "--short=12", "HEAD"]);
    // Results of earlier runs do not make the code another one.
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!perf-results"]).is_empty();
    format!("{sha}{}", if dirty { "+" } else { "" })
}

/// The name under which a machine is known; a new one is written down.
pub(crate) fn machine_name(workspace: &Workspace, machine: &Value) -> Result<String> {
    let text = |key: &str| machine[key].as_str().unwrap_or("").to_owned();
    let host = text("host");
    let name = if host.is_empty() || host == "unnamed" {
        let kind = if machine["virtual_machine"] == true { "vm" } else { "metal" };
        slug(&format!("{}cpu {} {kind}", machine["cpus"], text("cpu")))
    } else {
        slug(&host)
    };
    let path = workspace.root.join("perf-results/machines").join(format!("{name}.toml"));
    if !path.exists() {
        let mut out = String::from("# Written by `cargo xtask bench`.\n");
        out.push_str(&machine_toml(machine));
        fs::create_dir_all(workspace.root.join("perf-results/machines"))?;
        fs::write(path, out)?;
    }
    Ok(name)
}

/// A machine's block: plain values first, since whatever follows a table's head belongs to the table.
fn machine_toml(machine: &Value) -> String {
    let mut out = String::new();
    let fields = || machine.as_object().into_iter().flatten();
    for (key, value) in fields().filter(|(_, value)| !value.is_object()) {
        let _ = writeln!(out, "{key} = {value}");
    }
    for (key, table) in fields().filter_map(|(key, value)| Some((key, value.as_object()?))) {
        let _ = writeln!(out, "\n[{key}]");
        for (key, value) in table {
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}

/// A UTC date of seconds since 1970, as YYYY-MM-DD.
fn date(unix_time: u64) -> String {
    // Days since 0000-03-01, in years that begin in March: the leap day comes last.
    let days = unix_time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_735_689_599, "2024-12-31"),
        ] {
            assert_eq!(date(seconds), wanted);
        }
    }

    fn sample(target: &str, repeat: u32, delivered: f64) -> Sample {
        let report = json!({
            "machine": {"cpus": 2, "cpu": "X", "host": "unnamed"}, "engine": "epoll", "unix_time": 0,
            "measurements": [{"label": "1->1", "delivered_per_s": delivered, "samples": [1, 2], "faults": {"lost": 0}}],
        });
        Sample::of_report(target, "throughput", repeat, &report).remove(0)
    }

    #[test]
    fn samples_survive_their_file() {
        let sample = sample("slimline", 1, 5.0);
        assert!(sample.is_clean());
        assert!(sample.measurement.get("samples").is_none());
        let again = Sample::from_json(&sample.to_json()).unwrap();
        assert_eq!((again.repeat, again.label(), again.figure("/delivered_per_s")), (1, "1->1", Some(5.0)));
    }

    #[test]
    fn plain_values_stand_before_tables() {
        let text = machine_toml(&json!({"a": 1, "b": {"c": "d"}, "e": true}));
        assert_eq!(text, "a = 1\ne = true\n\n[b]\nc = \"d\"\n");
    }

    #[test]
    fn a_summary_has_medians_and_ratios() {
        use crate::peers::Kind;
        let target = |name: &str| Target {
            name: name.into(),
            program: PathBuf::new(),
            kind: Kind::Nats,
            version: String::new(),
        };
        let samples = [sample("a", 0, 100.0), sample("a", 1, 300.0), sample("b", 0, 50.0), sample("b", 1, 50.0)];
        let text = summary(&[target("a"), target("b")], &samples);
        assert!(text.contains("| 1->1 | 200 ± 100 | 50.0 ± 0.00 (0.25) |"), "{text}");
    }
}
