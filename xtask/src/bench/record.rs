//! A run as a folder of `perf-results/runs`: README, every sample, summary, curves; and a line per metric in the history.

use super::chart::{self, Group};
use super::node::Taken;
use super::stats::{iqr, median};
use crate::compare;
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
    /// What the tables call the cases it belongs to.
    pub(crate) scenario: String,
    /// The scenario file.
    pub(crate) file: String,
    /// What that file runs.
    pub(crate) command: String,
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
    /// Commands it says something about; empty for all.
    commands: &'static [&'static str],
}

impl Metric {
    const fn less(pointer: &'static str, name: &'static str, unit: &'static str) -> Self {
        Self { pointer, name, unit, more_is_better: false, commands: &[] }
    }

    const fn more(pointer: &'static str, name: &'static str, unit: &'static str) -> Self {
        Self { more_is_better: true, ..Self::less(pointer, name, unit) }
    }

    const fn of(self, commands: &'static [&'static str]) -> Self {
        Self { commands, ..self }
    }

    /// Whether it says something about a sample.
    fn suits(&self, sample: &Sample) -> bool {
        self.commands.is_empty() || sample.command.is_empty() || self.commands.contains(&sample.command.as_str())
    }
}

/// Commands whose latencies are those of the node: a closed window's say how much was queued.
const UNHURRIED: &[&str] = &["latency", "pingpong", "names", "idle", "churn", "soak", "capacity"];
/// Commands at rates others set: what is delivered then says nothing.
const AT_FULL_SPEED: &[&str] = &["throughput", "fanout", "latency", "pingpong", "names", "churn"];

/// What summaries and comparisons show.
pub(crate) const METRICS: [Metric; 14] = [
    Metric::more("/delivered_per_s", "delivered", "1/s").of(AT_FULL_SPEED),
    Metric::less("/node_cpu_ns_per_message", "node CPU per message", "ns"),
    Metric::less("/latency/p50_us", "p50", "us").of(UNHURRIED),
    Metric::less("/latency/p99_us", "p99", "us").of(UNHURRIED),
    Metric::less("/latency/p99_9_us", "p99.9", "us").of(UNHURRIED),
    Metric::less("/latency/max_us", "max", "us").of(UNHURRIED),
    Metric::more("/subscriptions_per_s", "subscriptions", "1/s").of(&["names"]),
    Metric::less("/extra/octets per name", "memory per name", "octets"),
    Metric::less("/extra/octets per connection", "memory per connection", "octets"),
    Metric::less("/extra/crossed shards, share", "messages that crossed shards", "share"),
    Metric::more("/extra/messages per send", "messages per send", "messages").of(&[
        "throughput",
        "latency",
        "pingpong",
    ]),
    Metric::less("/node_rss_octets", "RSS", "octets"),
    Metric::less("/instructions", "instructions", "per call"),
    Metric::less("/ns_each", "time", "ns"),
];

impl Sample {
    /// The samples in a generator's report.
    pub(crate) fn of_report(target: &str, scenario: &str, file: &str, repeat: u32, report: &Value) -> Vec<Self> {
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
                    file: file.to_owned(),
                    command: report["command"].as_str().unwrap_or_default().to_owned(),
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

    /// A figure, where there is one: of nothing delivered there is neither cost nor latency.
    pub(crate) fn figure(&self, pointer: &str) -> Option<f64> {
        let counted = if pointer.starts_with("/latency/") { "/latency/count" } else { "/delivered" };
        if pointer.ends_with("_per_message") || counted == "/latency/count" {
            self.measurement.pointer(counted).is_none_or(|count| *count != 0).then_some(())?;
        }
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
            "{:<18} {:<34} {:>9}/s  node {:>8} ns/msg  p50 {:>8} us  p99 {:>8} us{}",
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
            "target": self.target, "scenario": self.scenario, "file": self.file, "command": self.command,
            "repeat": self.repeat, "unix_time": self.unix_time,
            "engine": self.engine, "machine": self.machine, "measurement": self.measurement,
        })
    }

    fn from_json(line: &Value) -> Option<Self> {
        Some(Self {
            target: line["target"].as_str()?.to_owned(),
            scenario: line["scenario"].as_str()?.to_owned(),
            // The first runs knew one name for both, and no command.
            file: line["file"].as_str().or(line["scenario"].as_str())?.to_owned(),
            command: line["command"].as_str().unwrap_or_default().to_owned(),
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
    /// What measures it again, behind `cargo xtask`; the command line we were called with if none is given.
    pub(crate) command: Option<String>,
    /// None for hot functions.
    pub(crate) targets: &'a [Target],
    pub(crate) samples: &'a [Sample],
    /// What could not be measured.
    pub(crate) failures: &'a [String],
    /// Where the generator left curves and plots.
    pub(crate) scratch: Option<&'a Path>,
    pub(crate) caveats: Vec<String>,
    /// Figures that say nothing here.
    pub(crate) hidden: Vec<&'static str>,
}

impl<'a> Run<'a> {
    /// What was taken, to be given a topic and a question.
    pub(crate) fn of(taken: &'a Taken) -> Self {
        Self {
            topic: String::new(),
            question: String::new(),
            command: None,
            targets: &[],
            samples: &taken.samples,
            failures: &taken.failures,
            scratch: None,
            caveats: Vec::new(),
            hidden: Vec::new(),
        }
    }
}

impl Run<'_> {
    /// Whether all was measured and every message accounted for.
    pub(crate) fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.samples.iter().all(Sample::is_clean)
    }

    /// Names of the columns.
    fn columns(&self) -> Vec<String> {
        let mut names: Vec<String> = self.targets.iter().map(|target| target.name.clone()).collect();
        for sample in self.samples {
            if !names.contains(&sample.target) {
                names.push(sample.target.clone());
            }
        }
        names
    }

    fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        METRICS.iter().filter(|metric| !self.hidden.contains(&metric.pointer))
    }

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
        fs::write(staging.join("summary.md"), self.summary())?;
        if self.samples.iter().any(|sample| sample.repeat > 0) {
            let judged = self.judged();
            fs::write(staging.join("ratios.json"), serde_json::to_string_pretty(&judged)?)?;
            fs::write(staging.join("ratios.md"), ratios_page(&judged))?;
        }
        let charts = self.charts();
        for (name, svg) in &charts {
            fs::write(staging.join(name), svg)?;
        }
        let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
        fs::write(staging.join("README.md"), self.readme(workspace, &names))?;
        let curves = self.scratch.map(fs::read_dir).transpose()?;
        for entry in curves.into_iter().flatten().filter_map(Result::ok) {
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
            for target in self.columns() {
                for metric in self.metrics() {
                    let figures = shown(self.samples, &scenario, &label, &target, metric);
                    if figures.is_empty() {
                        continue;
                    }
                    let line = json!({
                        "run": run, "commit": commit, "bench": format!("{scenario}/{label}/{target}/{}", metric.name),
                        "unit": metric.unit, "median": rounded(median(&figures)), "iqr": rounded(iqr(&figures)),
                        "samples": figures.len(),
                    });
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }

    /// Every column against the first of its table, pair by pair.
    fn judged(&self) -> Vec<Value> {
        let mut judged = Vec::new();
        for table in self.tables() {
            let Some((first, others)) = table.columns.split_first() else { continue };
            let samples: Vec<Sample> =
                self.samples.iter().filter(|sample| sample.scenario == table.scenario).cloned().collect();
            for other in others {
                for mut row in compare::judge(&samples, first, other, true) {
                    row["targets"] = json!([first, other]);
                    judged.push(row);
                }
            }
        }
        judged
    }

    /// Scenarios in the order measured, each with the columns it has.
    fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = Vec::new();
        for sample in self.samples {
            match tables.iter_mut().find(|table| table.scenario == sample.scenario) {
                Some(table) if table.columns.contains(&sample.target) => {}
                Some(table) => table.columns.push(sample.target.clone()),
                None => {
                    tables.push(Table { scenario: sample.scenario.clone(), columns: vec![sample.target.clone()] });
                }
            }
        }
        tables
    }

    /// The tables: one per scenario and metric, a column per target, with the ratio to the first.
    pub(crate) fn summary(&self) -> String {
        let mut out = String::from(
            "# Summary\n\nMedians over the repeats, with the distance between the quartiles; in brackets the ratio to the first \
             column, the median of ratios taken repeat by repeat.\n",
        );
        let cases = cases(self.samples);
        for Table { scenario, columns } in self.tables() {
            for metric in self.metrics() {
                let mut rows = String::new();
                for (_, label) in cases.iter().filter(|(s, _)| *s == scenario) {
                    let values = |target: &str| shown(self.samples, &scenario, label, target, metric);
                    if columns.iter().all(|column| values(column).is_empty()) {
                        continue;
                    }
                    let _ = write!(rows, "| {label} |");
                    for column in &columns {
                        let figures = values(column);
                        if figures.is_empty() {
                            rows.push_str(" - |");
                            continue;
                        }
                        let _ = write!(rows, " {} ± {}", short(median(&figures)), short(iqr(&figures)));
                        let ratio =
                            median(&ratios(self.samples, &scenario, label, &columns[0], column, metric.pointer));
                        if *column != columns[0] && ratio.is_finite() {
                            let _ = write!(rows, " ({ratio:.2})");
                        }
                        rows.push_str(" |");
                    }
                    rows.push('\n');
                }
                if !rows.is_empty() {
                    let _ = writeln!(out, "\n## {scenario}: {}, {}\n", metric.name, metric.unit);
                    let _ = writeln!(out, "| case | {} |", columns.join(" | "));
                    let _ = writeln!(out, "|---|{}\n{rows}", "---:|".repeat(columns.len()));
                    out.truncate(out.trim_end().len() + 1);
                }
            }
        }
        out
    }

    /// Bars of what a message costs and how long it takes, a file for each payload where labels name one.
    fn charts(&self) -> Vec<(String, String)> {
        let mut charts = Vec::new();
        let cases = cases(self.samples);
        for Table { scenario, columns } in self.tables() {
            let labels = || cases.iter().filter(|(s, _)| *s == scenario).map(|(_, label)| label.as_str());
            let mut payloads: Vec<&str> = labels().map(payload_of).collect();
            payloads.sort_unstable();
            payloads.dedup();
            for pointer in ["/node_cpu_ns_per_message", "/latency/p50_us", "/latency/p99_us", "/latency/p99_9_us"] {
                let Some(metric) = METRICS.iter().find(|metric| metric.pointer == pointer) else { continue };
                for payload in &payloads {
                    let group = |label: &str| {
                        let of = |target: &String| {
                            let figures = shown(self.samples, &scenario, label, target, metric);
                            (!figures.is_empty()).then(|| median(&figures))
                        };
                        Group { name: label.to_owned(), values: columns.iter().map(of).collect() }
                    };
                    let mut groups: Vec<Group> =
                        labels().filter(|label| payload_of(label) == *payload).map(group).collect();
                    groups.retain(|group| group.values.iter().flatten().count() > 0);
                    if groups.is_empty() {
                        continue;
                    }
                    let title = format!("{scenario}: {}, {}; less is better", metric.name, metric.unit);
                    let name = format!("{}.svg", slug(&format!("{scenario} {} {payload}", metric.name)));
                    charts.push((name, chart::bars(&title, &columns, &groups)));
                }
            }
        }
        charts
    }

    fn readme(&self, workspace: &Workspace, charts: &[&str]) -> String {
        let mut out = format!("# {}\n\nQuestion: {}\n\n", self.topic, self.question);
        let called = || {
            let quote = |word: String| if word.contains(' ') { format!("'{word}'") } else { word };
            std::env::args().skip(1).map(quote).collect::<Vec<_>>().join(" ")
        };
        let _ = writeln!(out, "Command: `cargo xtask {}`\n", self.command.clone().unwrap_or_else(called));
        let _ = writeln!(out, "Commit: `{}`\n", commit(workspace));
        if !self.targets.is_empty() {
            out.push_str("| target | version |\n|---|---|\n");
        }
        for target in self.targets {
            let _ = writeln!(out, "| {} | {} |", target.name, target.version);
        }
        if let Some(first) = self.samples.first() {
            let machine = &first.machine;
            let text = |key: &str| machine[key].as_str().unwrap_or("unknown").to_owned();
            let _ = writeln!(
                out,
                "\nMachine: {} x {}{}, {} MiB, Linux {}, governor {}, clock {}{}.",
                machine["cpus"],
                text("cpu"),
                if machine["virtual_machine"] == true { " (virtual machine)" } else { "" },
                machine["memory_mib"],
                text("kernel"),
                text("governor"),
                text("clock_source"),
                if self.targets.is_empty() { String::new() } else { format!("; generator engine {}", first.engine) },
            );
        }
        let _ = writeln!(out, "\nCaveats:\n");
        for text in &self.caveats {
            let _ = writeln!(out, "* {text}");
        }
        for text in self.failures {
            let _ = writeln!(out, "* Not measured: {}", text.lines().next().unwrap_or_default());
        }
        let waited: Vec<f64> = self.samples.iter().filter_map(|s| s.figure("/node_waited_cpus")).collect();
        if !waited.is_empty() {
            self.caveats_of_load(&waited, &mut out);
        }
        for name in charts {
            let _ = writeln!(out, "\n![{}]({name})", name.trim_end_matches(".svg"));
        }
        out.push_str(
            "\nWritten by `cargo xtask bench`; the figures are in [summary.md](summary.md), every sample in \
             [samples.ndjson](samples.ndjson)",
        );
        let several = self.samples.iter().any(|sample| sample.repeat > 0);
        out.push_str(if several { ", ratios with their spread in [ratios.md](ratios.md).\n" } else { ".\n" });
        out
    }

    /// What holds of every run that puts load on nodes.
    fn caveats_of_load(&self, waited: &[f64], out: &mut String) {
        out.push_str(
            "* Loopback TCP, node and generator on one machine; rates are ratios between the columns, not capacities of a network.\n",
        );
        let _ = writeln!(
            out,
            "* The node stood ready and waited for a CPU {:.1} % of the time in the median, {:.1} % at most: where that is much, \
             others used the machine, and CPU per message is the figure to trust.",
            median(waited) * 100.0,
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
    }
}

/// Every judgement for people: a table per scenario and pair.
fn ratios_page(judged: &[Value]) -> String {
    let mut out = String::from("# Ratios, pair by pair\n");
    let of = |row: &Value, at: usize| row["targets"][at].as_str().unwrap_or_default().to_owned();
    let same = |a: &Value, b: &Value| a["targets"] == b["targets"] && a["scenario"] == b["scenario"];
    for rows in judged.chunk_by(same) {
        let _ = writeln!(
            out,
            "\n## {}: {} over {}",
            rows[0]["scenario"].as_str().unwrap_or(""),
            of(&rows[0], 1),
            of(&rows[0], 0)
        );
        out.push_str(&compare::markdown(rows, &of(&rows[0], 0), &of(&rows[0], 1), true));
    }
    out
}

/// A scenario and the targets measured under it, in order.
struct Table {
    scenario: String,
    columns: Vec<String>,
}

/// What a label says of the payload, as in `8->8, 256 B`; empty if nothing.
fn payload_of(label: &str) -> &str {
    label.split(", ").find(|part| part.ends_with(" B")).unwrap_or("")
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

/// The same, where the metric says something about them.
pub(crate) fn shown(samples: &[Sample], scenario: &str, label: &str, target: &str, metric: &Metric) -> Vec<f64> {
    let is_wanted = |s: &&Sample| s.target == target && s.scenario == scenario && s.label() == label && metric.suits(s);
    samples.iter().filter(is_wanted).filter_map(|sample| sample.figure(metric.pointer)).collect()
}

/// One target's figures over another's, repeat by repeat; repeats that one of them lacks are left out.
pub(crate) fn ratios(samples: &[Sample], scenario: &str, label: &str, from: &str, to: &str, pointer: &str) -> Vec<f64> {
    let of = |target: &'_ str| -> Vec<(u32, f64)> {
        let wanted = samples.iter().filter(|s| s.target == target && s.scenario == scenario && s.label() == label);
        wanted.filter_map(|sample| Some((sample.repeat, sample.figure(pointer)?))).collect()
    };
    let (from, to) = (of(from), of(to));
    let pair = |(repeat, value): &(u32, f64)| Some(value / from.iter().find(|(other, _)| other == repeat)?.1);
    to.iter().filter_map(pair).collect()
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
        Sample::of_report(target, "throughput", "throughput", repeat, &report).remove(0)
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
    fn a_summary_has_medians_and_ratios_of_pairs() {
        let samples = vec![sample("a", 0, 100.0), sample("a", 1, 300.0), sample("b", 0, 50.0), sample("b", 1, 300.0)];
        let taken = Taken { samples, failures: vec!["c died\nat once".into()] };
        let run = Run::of(&taken);
        let text = run.summary();
        assert!(text.contains("| 1->1 | 200 ± 100 | 175 ± 125 (0.75) |"), "{text}");
        assert!(!text.contains("instructions"), "no table without figures");
        assert!(!run.is_clean());
        assert!(Run { hidden: vec!["/delivered_per_s"], ..run }.summary().lines().count() < 5);
    }

    #[test]
    fn ratios_pair_what_was_measured_together() {
        let samples = [sample("a", 0, 1.0), sample("a", 2, 4.0), sample("b", 1, 9.0), sample("b", 2, 8.0)];
        assert_eq!(ratios(&samples, "throughput", "1->1", "a", "b", "/delivered_per_s"), [2.0]);
    }

    #[test]
    fn charts_are_by_payload() {
        let mut samples = Vec::new();
        for label in ["1->1, 64 B", "8->8, 64 B", "1->1, 256 B"] {
            let mut sample = sample("a", 0, 1.0);
            sample.measurement["label"] = json!(label);
            sample.measurement["node_cpu_ns_per_message"] = json!(5.0);
            samples.push(sample);
        }
        let taken = Taken { samples, failures: vec![] };
        let names: Vec<String> = Run::of(&taken).charts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["throughput-node-cpu-per-message-256-b.svg", "throughput-node-cpu-per-message-64-b.svg"]);
    }

    #[test]
    fn nothing_delivered_cost_nothing_that_could_be_told() {
        let mut sample = sample("a", 0, 0.0);
        sample.measurement["latency"] = json!({"count": 0, "p50_us": 0.0});
        sample.measurement["delivered"] = json!(0);
        sample.measurement["node_cpu_ns_per_message"] = json!(5e6);
        assert_eq!(sample.figure("/latency/p50_us").or(sample.figure("/node_cpu_ns_per_message")), None);
        assert_eq!(sample.figure("/delivered_per_s"), Some(0.0));
        sample.measurement["delivered"] = json!(1);
        assert_eq!(sample.figure("/node_cpu_ns_per_message"), Some(5e6));
    }

    #[test]
    fn a_closed_window_shows_no_latency() {
        let mut sample = sample("a", 0, 1.0);
        let metric = |name: &str| METRICS.iter().find(|metric| metric.name == name).unwrap();
        sample.command = "throughput".into();
        assert!(!metric("p99").suits(&sample) && metric("delivered").suits(&sample));
        sample.command = "latency".into();
        assert!(metric("p99").suits(&sample));
    }
}
