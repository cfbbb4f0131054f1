//! Whole nodes under cases of scenario files: started afresh for each measurement, interleaved, every sample kept.

use super::progress::Progress;
use super::record::Sample;
use super::scenario::Case;
use super::{Flags, Suite};
use crate::peers::{Built, Target};
use crate::run;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one case may take against one node.
const CASE: Duration = Duration::from_secs(10 * 60);
/// What a quick run shortens every measurement to.
const QUICK: [&str; 6] = ["--duration", "0.2", "--warmup", "0.05", "--variants", "64"];
/// The same in seconds, with what starting takes.
const QUICK_S: f64 = 0.8;

/// Cases to be measured on targets, taking turns.
pub(crate) struct Sitting<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) built: &'a Built,
    /// What the tables call these cases together; the scenario's name if empty.
    pub(crate) name: &'a str,
    pub(crate) cases: Vec<Case>,
    pub(crate) targets: Vec<Target>,
    pub(crate) repeats: u32,
    /// CPUs for node and generator.
    pub(crate) cpus: Option<(u32, u32)>,
    /// What drives the generator's sockets, where it is not left to the generator.
    pub(crate) engine: Option<String>,
    /// Tiny inputs.
    pub(crate) quick: bool,
    /// Where the generator leaves reports, curves and plots.
    pub(crate) scratch: PathBuf,
}

/// What a sitting gave.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) samples: Vec<Sample>,
    /// Measurements that could not be made, and why: a node that died is a finding, and no reason to lose the others.
    pub(crate) failures: Vec<String>,
}

/// Where the generator leaves its files, emptied.
///
/// Errors: the disk.
pub(crate) fn scratch(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("bench/scratch");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The cases that were asked for on the command line.
///
/// Errors: a scenario or a case that is not there.
pub(crate) fn cases(workspace: &Workspace, flags: &Flags) -> Result<Vec<Case>> {
    let folder = workspace.root.join("bench/scenarios");
    let mut all: Vec<PathBuf> = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    all.sort();
    let files = if flags.scenarios.is_empty() {
        let small = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "smoke" || stem == "pingpong");
        all.retain(|path| small(path) || (!flags.quick && flags.suite == Suite::Node));
        all
    } else {
        let find = |wanted: &PathBuf| {
            let inside = folder.join(wanted).with_extension("toml");
            let found = [wanted.clone(), inside].into_iter().find(|path| path.is_file());
            found.with_context(|| format!("no scenario {}; there are {}", wanted.display(), names(&all)))
        };
        flags.scenarios.iter().map(find).collect::<Result<_>>()?
    };
    let mut cases = Vec::new();
    for file in &files {
        cases.extend(Case::read(file, &flags.cases)?);
    }
    Ok(cases)
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().filter_map(|path| path.file_stem()?.to_str()).collect::<Vec<_>>().join(", ")
}

impl Sitting<'_> {
    fn seconds(&self, case: &Case) -> f64 {
        if self.quick { QUICK_S } else { case.seconds }
    }

    /// Measurements, and the seconds they will take, about.
    pub(crate) fn size(&self) -> (u32, f64) {
        let each = f64::from(self.repeats) * self.targets.len() as f64;
        let count = self.repeats * u32::try_from(self.targets.len() * self.cases.len()).unwrap_or(u32::MAX);
        (count, self.cases.iter().map(|case| self.seconds(case) * each).sum())
    }

    /// Every case, every repeat, every target, in that order: A B A B, so that what drifts drifts for everybody.
    pub(crate) fn run(&self, progress: &mut Progress) -> Taken {
        let mut taken = Taken::default();
        for case in &self.cases {
            let mut given_up = vec![false; self.targets.len()];
            for repeat in 0..self.repeats {
                for (target, given_up) in self.targets.iter().zip(&mut given_up) {
                    progress.done(self.seconds(case));
                    if *given_up {
                        continue;
                    }
                    match self.measure(target, case, repeat) {
                        Ok(samples) => {
                            samples.iter().for_each(|sample| println!("{} {}", progress.line(), sample.line()));
                            taken.samples.extend(samples);
                        }
                        Err(error) => {
                            let label = case.label.as_deref().unwrap_or_default();
                            let text = format!("{} under {} {label}: {error:#}", target.name, case.stem());
                            println!("{} FAILED: {text}", progress.line());
                            taken.failures.push(text);
                            *given_up = true;
                        }
                    }
                }
            }
        }
        taken
    }

    /// The same, for those who cannot do with a part of it.
    ///
    /// Errors: one of the measurements could not be made.
    pub(crate) fn run_whole(&self) -> Result<Vec<Sample>> {
        let (count, seconds) = self.size();
        let taken = self.run(&mut Progress::new(count, seconds));
        ensure!(taken.failures.is_empty(), "{}", taken.failures.join("\n"));
        Ok(taken.samples)
    }

    /// One case against one freshly started node.
    fn measure(&self, target: &Target, case: &Case, repeat: u32) -> Result<Vec<Sample>> {
        let stem = case.stem();
        let part = if self.name.is_empty() { &stem } else { self.name };
        let mut node = target.start(self.workspace, self.cpus.map(|(node, _)| node))?;
        let label = case.label.clone().unwrap_or_default();
        let of_case = crate::peers::slug(&format!("{part} {label} {}", target.name));
        let base = self.scratch.join(&of_case);
        let json = base.with_file_name(format!("{of_case}-{repeat}.json"));
        let mut command = prefixed(&self.built.slimload);
        command.arg("run").arg(&case.file);
        command.args(["--node", &node.endpoint, "--peer", target.protocol(), "--node-pid", &node.pid().to_string()]);
        command.arg("--json").arg(&json);
        if let Some(socket) = node.stats() {
            command.arg("--node-stats").arg(socket); // a loss comes with what the node says it dropped
        }
        // A closed window's latencies say how much was queued: a curve of them would only invite misreading.
        if repeat == 0 && case.command != "throughput" {
            let named = crate::peers::slug(&format!("{part} {}", target.name));
            command.arg("--hgrm").arg(self.scratch.join(named).with_extension("hgrm"));
            command.arg("--plot").arg(base.with_extension("svg"));
        }
        if let Some((_, generator)) = self.cpus {
            command.args(["--pin", &generator.to_string()]);
        }
        if let Some(engine) = &self.engine {
            command.args(["--engine", engine]);
        }
        if !label.is_empty() {
            command.args(["--case", &label]);
        }
        if self.quick {
            command.args(QUICK);
        }
        let log = base.with_extension("txt");
        let _ = fs::remove_file(&log);
        let ended = run::logged(&mut command, CASE, &log)?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        node.check().with_context(said)?;
        // Exit code 1 means faults: a result, and it is in the report.
        let report = fs::read(&json).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let Some(mut report) = report else { bail!("no result:\n{}", said()) };
        if !ended.success() {
            println!("{}", said());
        }
        for measurement in report["measurements"].as_array_mut().into_iter().flatten() {
            add_counters(measurement, &node);
        }
        Ok(Sample::of_report(&target.name, part, &stem, repeat, &report))
    }
}

/// What only the node or the harness knows. Counters are those of the node's whole life: one case's, warm-up included.
fn add_counters(measurement: &mut Value, node: &crate::peers::Running) {
    let extra = &mut measurement["extra"];
    if let Some(counters) = node.counters() {
        let share = |of: &str, whole: &str| counters.sum(of) as f64 / counters.sum(whole).max(1) as f64;
        if counters.shards() > 1 {
            extra["crossed shards, share"] = json!(share("mesh_in", "messages_out"));
        }
        extra["messages per send"] = json!(share("messages_out", "sends"));
    }
    if let Some(sockets) = node.nodelay_sockets() {
        extra["sockets given TCP_NODELAY"] = json!(sockets);
    }
}

/// The generator, behind the command `SLIMLOAD_WITH` names (numactl, chrt, flock, ...).
fn prefixed(program: &Path) -> Command {
    let with = env::var("SLIMLOAD_WITH").unwrap_or_default();
    let mut words = with.split_whitespace();
    match words.next() {
        None => Command::new(program),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
    }
}
