//! Medians and ratios as tables, and as bars.

use super::metric::METRICS;
use super::run::Run;
use super::sample::{cases, ratios, short, shown};
use crate::bench::chart::{self, Group};
use crate::bench::stats::{iqr, median};
use crate::compare;
use crate::peers::slug;
use serde_json::Value;
use std::fmt::Write as _;

impl Run<'_> {
    /// Scenarios in the order measured, each with the columns it has.
    pub(super) fn tables(&self) -> Vec<Table> {
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
        let tables = self.figures_by_case();
        if tables.contains(" - |") {
            out.push_str(
                "`-`: a figure the node does not tell, or one that was not measured; [README.md](README.md) says why.\n",
            );
        }
        out + &tables
    }

    fn figures_by_case(&self) -> String {
        let mut out = String::new();
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
    pub(super) fn charts(&self) -> Vec<(String, String)> {
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
}

/// Every judgement for people: a table per scenario and pair.
pub(super) fn ratios_page(judged: &[Value]) -> String {
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
pub(super) struct Table {
    pub(super) scenario: String,
    pub(super) columns: Vec<String>,
}

/// What a label says of the payload, as in `8->8, 256 B`; empty if nothing.
fn payload_of(label: &str) -> &str {
    label.split(", ").find(|part| part.ends_with(" B")).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::node::Taken;
    use crate::bench::record::sample::tests::sample;
    use serde_json::json;

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

    /// A part of the suite may leave a target out of its largest case: the row is there, and says so.
    #[test]
    fn a_case_that_one_target_lacks_keeps_its_row() {
        let mut million = sample("a", 0, 70.0);
        million.measurement["label"] = json!("1M names");
        let samples = vec![sample("a", 0, 100.0), sample("b", 0, 50.0), million];
        let taken = Taken { samples, failures: vec![] };
        let text = Run::of(&taken).summary();
        assert!(text.contains("| 1M names | 70.0 ± 0.00 | - |\n"), "{text}");
        assert!(text.contains("`-`: a figure the node does not tell"), "{text}");
        let whole = Taken { samples: taken.samples[..2].to_vec(), failures: vec![] };
        assert!(!Run::of(&whole).summary().contains("`-`"));
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
}
