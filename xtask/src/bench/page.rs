//! `bench page`: the table and the plot in the project's README, made of the newest recorded runs.

use super::record::{self, Sample, figures, ratios};
use super::stats::median;
use crate::peers::slug;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Between these lines of README.md the text is ours.
const BEGIN: &str = "<!-- numbers: written by `cargo xtask bench page` -->";
const END: &str = "<!-- /numbers -->";

/// The columns; ratios are to the first.
const COLUMNS: [(&str, &str); 5] = [
    ("slimline", "slimline"),
    ("reference", "reference 3.4.6"),
    ("reference+nodelay", "the same, TCP_NODELAY forced on"),
    ("nats", "nats-server"),
    ("relay", "relay"),
];

const CPU: &str = "/node_cpu_ns_per_message";
const P50: &str = "/latency/p50_us";
const P99: &str = "/latency/p99_us";

/// A row: what it says, the topic of the run, scenario, case, figure, and the figure's unit in nanoseconds.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, f64);

const ROWS: [Row; 10] = [
    ("CPU per message, 1→1, 64 B payload", "throughput", "throughput", "1->1, 64 B", CPU, 1.0),
    ("1→1, 256 B", "throughput", "throughput", "1->1, 256 B", CPU, 1.0),
    ("1→1, 1 KiB", "throughput", "throughput", "1->1, 1024 B", CPU, 1.0),
    ("1→1, 16 KiB", "throughput", "throughput", "1->1, 16384 B", CPU, 1.0),
    ("8→8, 256 B", "throughput", "throughput", "8->8, 256 B", CPU, 1.0),
    ("1→8, 256 B, per delivery", "throughput", "throughput", "1->8, 256 B", CPU, 1.0),
    ("64→64, 256 B", "throughput", "throughput", "64->64, 256 B", CPU, 1.0),
    ("p99 at half of the own capacity", "latency by load", "latency", "50 % load", P99, 1e3),
    ("p99 at 1 000 messages a second", "thousand a second", "sparse", "1000/s", P99, 1e3),
    (
        "round trip, client as SDKs are (Nagle on, acknowledgements)",
        "ping-pong",
        "pingpong",
        "Nagle on, with acknowledgements, as SDKs",
        P50,
        1e3,
    ),
];

/// The run whose plot is shown, the plot, and what it shows.
const PLOT: (&str, &str, &str) =
    ("throughput", "throughput-node-cpu-per-message-256-b.svg", "CPU per message at 256 B, by topology");

/// Writes the table.
///
/// Errors: no run of a topic, or no place for it in the README.
pub(super) fn run(workspace: &Workspace) -> Result<bool> {
    let path = workspace.root.join("README.md");
    let text = fs::read_to_string(&path)?;
    let place = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = place.with_context(|| format!("README.md has no lines `{BEGIN}` and `{END}`"))?;
    let mut runs: Vec<(&str, PathBuf, Vec<Sample>)> = Vec::new();
    for (_, topic, ..) in ROWS {
        if runs.iter().all(|(known, ..)| *known != topic) {
            let folder = newest(workspace, topic)?;
            let samples = record::read(&workspace.root.join(&folder))?;
            runs.push((topic, folder, samples));
        }
    }
    let of = |topic: &str| runs.iter().find(|(known, ..)| *known == topic).context("it was just read");
    let mut table = String::new();
    let heads: Vec<&str> = COLUMNS.iter().map(|(_, head)| *head).collect();
    let _ = writeln!(table, "| | {} | run |\n|---|{}---|", heads.join(" | "), "---:|".repeat(heads.len()));
    for row in ROWS {
        let (title, topic, ..) = row;
        let (_, folder, samples) = of(topic)?;
        let _ =
            writeln!(table, "| {title} | {} | [{topic}]({}) |", cells(samples, &row)?.join(" | "), folder.display());
    }
    let (topic, file, words) = PLOT;
    let (_, folder, _) = of(topic)?;
    ensure!(workspace.root.join(folder).join(file).is_file(), "{} has no {file}", folder.display());
    let plot = format!("[![{words}]({0}/{file})]({0})", folder.display());
    fs::write(&path, format!("{before}{BEGIN}\n\n{table}\n{plot}\n\n{END}{after}"))?;
    println!("README.md shows {} runs", runs.len());
    Ok(true)
}

/// A row's figures, with ratios to the first column in brackets.
fn cells(samples: &[Sample], (title, _, scenario, label, pointer, nanoseconds): &Row) -> Result<Vec<String>> {
    let first = COLUMNS[0].0;
    let mut cells = Vec::new();
    for (target, _) in COLUMNS {
        let values = figures(samples, scenario, label, target, pointer);
        if values.is_empty() {
            ensure!(target != first, "no figures of {first} for `{title}`");
            cells.push("-".into());
            continue;
        }
        let time = time(median(&values) * nanoseconds);
        let ratio = median(&ratios(samples, scenario, label, first, target, pointer));
        cells.push(if target == first { time } else { format!("{time} ({})", two_digits(ratio)) });
    }
    Ok(cells)
}

/// The folder, relative to the root, of the last run of a topic.
fn newest(workspace: &Workspace, topic: &str) -> Result<PathBuf> {
    let ending = format!("-{}", slug(topic));
    let runs = PathBuf::from("perf-results/runs");
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace.root.join(&runs))?.flatten() {
        let samples = fs::read_to_string(entry.path().join("samples.ndjson")).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        // A second run of a day ends with its number.
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
        if name.ends_with(&ending) || bare.ends_with(&ending) {
            let first: serde_json::Value = serde_json::from_str(samples.lines().next().unwrap_or("null"))?;
            found.push((first["unix_time"].as_u64(), name));
        }
    }
    found.sort();
    let (_, name) = found.pop().with_context(|| format!("no recorded run of `{topic}`: cargo xtask bench all"))?;
    Ok(runs.join(name))
}

/// Nanoseconds in the unit people would choose, two or three digits.
fn time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 * 1000.0 => format!("{} µs", two_digits(ns / 1e3)),
        _ => format!("{} ms", two_digits(ns / 1e6)),
    }
}

fn two_digits(value: f64) -> String {
    match value {
        _ if value >= 10.0 => format!("{value:.0}"),
        _ if value >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::RECORDINGS;
    use serde_json::json;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            (time(856.0), time(4_571.0), time(92_000_000.0)),
            ("0.86 µs".into(), "4.6 µs".into(), "92 ms".into())
        );
    }

    #[test]
    fn rows_come_from_runs_the_suite_records() {
        for (title, topic, scenario, ..) in ROWS {
            let recording = RECORDINGS.iter().find(|recording| recording.topic == topic);
            let parts = recording.unwrap_or_else(|| panic!("{title}: no recording {topic}")).parts;
            let part = parts.iter().find(|part| part.name == scenario).unwrap();
            assert!(COLUMNS.iter().all(|(target, _)| part.targets.contains(target)), "{title}");
        }
    }

    #[test]
    fn a_row_has_ratios_to_its_first_column() {
        let sample = |target: &str, value: f64| {
            let report = json!({
                "machine": {}, "command": "throughput", "unix_time": 1,
                "measurements": [{"label": "1->1, 256 B", "node_cpu_ns_per_message": value, "faults": {}}],
            });
            Sample::of_report(target, "throughput", "throughput", 0, &report).remove(0)
        };
        let samples = [sample("slimline", 900.0), sample("reference", 4050.0)];
        assert_eq!(cells(&samples, &ROWS[1]).unwrap()[..3], ["0.90 µs", "4.0 µs (4.5)", "-"]);
        assert!(cells(&samples[1..], &ROWS[1]).is_err());
    }
}
