//! One measurement of one target: from the generator's report, to a line of `samples.ndjson` and back.

use super::metric::Metric;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

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

impl Sample {
    /// The samples in a generator's report.
    pub(crate) fn of_report(target: &str, scenario: &str, file: &str, repeat: u32, report: &Value) -> Vec<Self> {
        let measurements = report["measurements"].as_array().cloned().unwrap_or_default();
        measurements
            .into_iter()
            .map(|mut measurement| {
                let engine =
                    measurement["engine"].as_str().or(report["engine"].as_str()).unwrap_or_default().to_owned();
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
                    engine,
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

    pub(super) fn to_json(&self) -> Value {
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

/// What drove the generator's sockets: one engine, but for a run that was to compare them.
pub(crate) fn engines(samples: &[Sample]) -> Vec<&str> {
    let mut engines: Vec<&str> = samples.iter().map(|sample| sample.engine.as_str()).collect();
    engines.sort_unstable();
    engines.dedup();
    engines
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(target: &str, repeat: u32, delivered: f64) -> Sample {
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
    fn ratios_pair_what_was_measured_together() {
        let samples = [sample("a", 0, 1.0), sample("a", 2, 4.0), sample("b", 1, 9.0), sample("b", 2, 8.0)];
        assert_eq!(ratios(&samples, "throughput", "1->1", "a", "b", "/delivered_per_s"), [2.0]);
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
}
