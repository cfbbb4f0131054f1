//! What becomes a folder, and how it is written: beside its place, and moved there whole.

use super::machine::{commit, date, machine_name};
use super::metric::{METRICS, Metric};
use super::sample::{Sample, cases, shown};
use super::summary::ratios_page;
use crate::bench::node::Taken;
use crate::bench::stats::{iqr, median};
use crate::compare;
use crate::peers::{Target, slug};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A run to be written.
#[derive(Clone)]
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

    pub(super) fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
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
        if let Err(error) = self.fill(workspace, &staging) {
            let _ = fs::remove_dir_all(&staging);
            return Err(error);
        }
        if dry {
            let _ = fs::remove_dir_all(folder);
        }
        if folder.exists() {
            let _ = fs::remove_dir_all(&staging);
            bail!("{} appeared meanwhile", folder.display());
        }
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

    /// The files of its folder.
    fn fill(&self, workspace: &Workspace, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut lines = String::new();
        for sample in self.samples {
            let _ = writeln!(lines, "{}", sample.to_json());
        }
        fs::write(folder.join("samples.ndjson"), lines)?;
        fs::write(folder.join("summary.md"), self.summary())?;
        if self.samples.iter().any(|sample| sample.repeat > 0) {
            let judged = self.judged();
            fs::write(folder.join("ratios.json"), serde_json::to_string_pretty(&judged)?)?;
            fs::write(folder.join("ratios.md"), ratios_page(&judged))?;
        }
        let charts = self.charts();
        for (name, svg) in &charts {
            fs::write(folder.join(name), svg)?;
        }
        let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
        fs::write(folder.join("README.md"), self.readme(workspace, &names))?;
        let curves = self.scratch.map(fs::read_dir).transpose()?;
        for entry in curves.into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "hgrm" || extension == "svg") {
                fs::copy(&path, folder.join(entry.file_name()))?;
            }
        }
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
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::sample::tests::sample;

    #[test]
    fn a_run_is_there_whole_or_not_at_all() {
        let root = std::env::temp_dir().join(format!("record-{}", std::process::id()));
        fs::create_dir_all(root.join("perf-results/runs")).unwrap();
        let workspace = Workspace { target: root.join("target"), metadata: Value::Null, root };
        let taken = Taken { samples: vec![sample("slimline", 0, 5.0)], failures: Vec::new() };
        let runs = || {
            let entries = fs::read_dir(workspace.root.join("perf-results/runs")).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let history = || fs::read_to_string(workspace.root.join("perf-results/history.ndjson"));

        let lacking = workspace.root.join("no such scratch");
        let run = Run { topic: "weather".into(), scratch: Some(&lacking), ..Run::of(&taken) };
        let folder = run.folder(&workspace).unwrap();
        assert!(run.write(&workspace, &folder, false).is_err());
        assert!(runs().is_empty() && history().is_err(), "half-written");

        let run = Run { scratch: None, ..run };
        run.write(&workspace, &folder, false).unwrap();
        assert_eq!(runs(), ["1970-01-01-2cpu-x-metal-weather"]);
        for file in ["README.md", "summary.md", "samples.ndjson"] {
            assert!(folder.join(file).is_file(), "{file}");
        }
        assert_eq!(history().unwrap().lines().count(), 1);
        assert!(run.write(&workspace, &folder, false).is_err(), "a second one takes another name");
        assert_eq!(runs().len(), 1);
        assert!(run.folder(&workspace).unwrap().ends_with("1970-01-01-2cpu-x-metal-weather-2"));
        fs::remove_dir_all(&workspace.root).unwrap();
    }
}
