//! `bench page`: the table and the plot in the project's README, made of the newest recorded runs, and the list of those in
//! that of perf-results.

use super::record::{self, Sample, figures, ratios};
use super::sitting;
use super::stats::median;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Between these lines of README.md the text is ours.
const BEGIN: &str = "<!-- numbers: written by `cargo xtask bench page` -->";
const END: &str = "<!-- /numbers -->";

/// Between these lines of perf-results/README.md the text is ours.
const RUNS_BEGIN: &str = "<!-- runs: written by `cargo xtask bench page` -->";
const RUNS_END: &str = "<!-- /runs -->";

/// The columns; ratios are to the first.
const COLUMNS: [(&str, &str); 5] = [
    ("slimline", "slimline"),
    ("reference", "reference 3.4.6"),
    ("reference+nodelay", "the same, TCP_NODELAY forced on"),
    ("nats", "nats-server"),
    ("relay", "relay"),
];

/// Where runs are, from the root.
const RUNS: &str = "perf-results/runs";

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

/// Writes the table and the list.
///
/// Errors: no run of a topic, or no place for it in the READMEs.
pub(super) fn run(workspace: &Workspace) -> Result<bool> {
    let (page, list) = (table(workspace)?, list(&recorded(workspace)?));
    put(&workspace.root.join("README.md"), (BEGIN, END), &page)?;
    put(&workspace.root.join("perf-results/README.md"), (RUNS_BEGIN, RUNS_END), &list)?;
    println!("README.md and perf-results/README.md show the newest runs");
    Ok(true)
}

/// Puts `text` between two lines of a file.
fn put(path: &Path, (begin, end): (&str, &str), text: &str) -> Result<()> {
    let page = fs::read_to_string(path)?;
    let place = page.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = place.with_context(|| format!("{} has no lines `{begin}` and `{end}`", path.display()))?;
    fs::write(path, format!("{before}{begin}\n\n{text}\n{end}{after}"))?;
    Ok(())
}

/// The table and the plot.
fn table(workspace: &Workspace) -> Result<String> {
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
    Ok(format!("{table}\n[![{words}]({0}/{file})]({0})\n", folder.display()))
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

/// A folder of perf-results/runs.
#[derive(Clone, Debug)]
struct Recorded {
    /// What it is a run of: the title of its README.
    topic: String,
    folder: String,
    unix_time: u64,
}

/// All recorded runs, the newest first.
fn recorded(workspace: &Workspace) -> Result<Vec<Recorded>> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(workspace.root.join(RUNS))?.flatten() {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let (page, samples) = (read("README.md"), read("samples.ndjson"));
        let title = page.lines().next().and_then(|line| line.strip_prefix("# "));
        let Some(topic) = title.map(str::to_owned) else { continue };
        let first: serde_json::Value = serde_json::from_str(samples.lines().next().unwrap_or("null"))?;
        runs.push(Recorded { topic, folder, unix_time: first["unix_time"].as_u64().unwrap_or(0) });
    }
    runs.sort_by(|a, b| b.unix_time.cmp(&a.unix_time).then_with(|| a.folder.cmp(&b.folder)));
    Ok(runs)
}

/// The folder, relative to the root, of the last run of a topic.
fn newest(workspace: &Workspace, topic: &str) -> Result<PathBuf> {
    let run = recorded(workspace)?.into_iter().find(|run| run.topic == topic);
    let run = run.with_context(|| format!("no recorded run of `{topic}`: cargo xtask bench all"))?;
    Ok(PathBuf::from(RUNS).join(run.folder))
}

/// Which run holds for each topic, and which do not any more. `runs` is sorted, the newest first.
fn list(runs: &[Recorded]) -> String {
    let topics = sitting::topics();
    let link = |run: &Recorded| format!("[{0}](runs/{0}/README.md)", run.folder);
    let mut out = String::from("| topic | the run that holds | superseded |\n|---|---|---|\n");
    for topic in &topics {
        let mut of_topic = runs.iter().filter(|run| run.topic == *topic).map(link);
        let newest = of_topic.next().unwrap_or_else(|| "not recorded".into());
        let _ = writeln!(out, "| {topic} | {newest} | {} |", of_topic.collect::<Vec<_>>().join(", "));
    }
    let others: Vec<String> = runs.iter().filter(|run| !topics.contains(&run.topic.as_str())).map(link).collect();
    if !others.is_empty() {
        let _ =
            writeln!(out, "\nOf topics that are not recorded any more, or were asked for once: {}.", others.join(", "));
    }
    out
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

    #[test]
    fn the_newest_run_of_a_topic_holds() {
        let run =
            |topic: &str, folder: &str, unix_time| Recorded { topic: topic.into(), folder: folder.into(), unix_time };
        let page = list(&[run("churn", "b", 2), run("churn", "a", 1), run("weather", "c", 1)]);
        assert!(page.contains("\n| churn | [b](runs/b/README.md) | [a](runs/a/README.md) |\n"), "{page}");
        assert!(page.contains("\n| shards | not recorded |  |\n"), "{page}");
        assert!(page.ends_with("asked for once: [c](runs/c/README.md).\n"), "{page}");
    }

    #[test]
    fn text_is_put_between_its_lines() {
        let path = std::env::temp_dir().join(format!("page-{}.md", std::process::id()));
        fs::write(&path, "above\n<a>\nold\n<b>\nbelow\n").unwrap();
        put(&path, ("<a>", "<b>"), "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "above\n<a>\n\nnew\n\n<b>\nbelow\n");
        assert!(put(&path, ("<c>", "<b>"), "").unwrap_err().to_string().contains("<c>"));
        fs::remove_file(&path).unwrap();
    }
}
