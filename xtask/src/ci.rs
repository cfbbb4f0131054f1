//! `cargo xtask ci`: what CI runs, stage by stage, from fast to slow.

use crate::flags::Ci;
use crate::fuzz;
use crate::interop;
use crate::run::{self, Ended};
use crate::tally::Tally;
use crate::tidy;
use crate::tools::Missing;
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Every stage, in the order it runs. To add one, add an entry.
const STAGES: &[Stage] = &[
    Stage::new("fmt", 2, Step::Check(&["fmt", "--all", "--check"])),
    Stage::new("tidy", 2, Step::Own(|stage| tidy::stage(stage.workspace, stage.log))),
    Stage::new(
        "clippy",
        12,
        Step::Check(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-Dwarnings"]),
    ),
    Stage::new("test", 15, Step::Tests(&["test", "--workspace", "--no-fail-fast"])),
    Stage::new("doc", 8, Step::Check(&["doc", "--workspace", "--no-deps", "--document-private-items"])),
    Stage::new("interop", 16, Step::Own(interop::stage)),
    Stage::deep("fuzz", 20, Step::Own(fuzz::stage)),
    Stage::deep("interop-control", 40, Step::Own(interop::controls)),
];

/// One line of the report.
struct Stage {
    name: &'static str,
    deadline_minutes: u64,
    step: Step,
    /// Runs with `--deep` only.
    deep: bool,
}

enum Step {
    /// A cargo command that passes or fails as a whole.
    Check(&'static [&'static str]),
    /// A `cargo test` whose tests are counted one by one.
    Tests(&'static [&'static str]),
    /// Anything else; it writes to the log and counts for itself.
    Own(fn(&Run<'_>) -> Result<Tally>),
}

impl Stage {
    const fn new(name: &'static str, deadline_minutes: u64, step: Step) -> Self {
        Self { name, deadline_minutes, step, deep: false }
    }

    const fn deep(name: &'static str, deadline_minutes: u64, step: Step) -> Self {
        Self { name, deadline_minutes, step, deep: true }
    }
}

/// What a stage is given.
pub(crate) struct Run<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) deadline: Duration,
    pub(crate) log: &'a Path,
}

/// A stage that has run.
struct Done {
    name: &'static str,
    tally: Tally,
    took: Duration,
}

/// Runs the stages; `true` when nothing failed.
///
/// Errors: a stage was asked for that does not exist.
pub(crate) fn run(workspace: &Workspace, flags: &Ci) -> Result<bool> {
    for name in &flags.only {
        if !STAGES.iter().any(|stage| stage.name == name) {
            let known: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
            bail!("no stage `{name}`; there are: {}", known.join(", "));
        }
    }
    let logs = workspace.target.join("ci");
    let mut report = Vec::new();
    for stage in STAGES {
        let wanted = if flags.only.is_empty() {
            flags.deep || !stage.deep
        } else {
            flags.only.iter().any(|name| name == stage.name)
        };
        if wanted {
            report.push(stage.run(workspace, &logs));
        }
    }
    Ok(summary(&report))
}

impl Stage {
    fn run(&self, workspace: &Workspace, logs: &Path) -> Done {
        print!("{:<14} ", self.name);
        let _ = io::stdout().flush();
        let log = logs.join(self.name).with_extension("log");
        let _ = fs::remove_file(&log);
        let started = Instant::now();
        let outcome =
            self.step(&Run { workspace, deadline: Duration::from_secs(60 * self.deadline_minutes), log: &log });
        let took = started.elapsed();
        let tally = match outcome {
            Ok(tally) => {
                println!("{:<8} {}", verdict(tally), seconds(took));
                tally
            }
            Err(error) if error.is::<Missing>() && !strict() => {
                println!("{:<8} {}  {error:#}", verdict(Tally::SKIPPED), seconds(took));
                Tally::SKIPPED
            }
            Err(error) => {
                println!("{:<8} {}  {error:#}", verdict(Tally::FAILED), seconds(took));
                Tally::FAILED
            }
        };
        if tally.failed > 0 {
            show_tail(&log);
        }
        Done { name: self.name, tally, took }
    }

    fn step(&self, run: &Run<'_>) -> Result<Tally> {
        match self.step {
            Step::Check(arguments) => Ok(match run.cargo(arguments)? {
                ended if ended.success() => Tally::PASSED,
                Ended::Exit(_) => Tally::FAILED,
                Ended::Deadline(limit) => bail!("not done after {}", seconds(limit)),
            }),
            Step::Tests(arguments) => {
                let ended = run.cargo(arguments)?;
                let mut tally = Tally::of_cargo_test(&fs::read_to_string(run.log)?);
                if !ended.success() && tally.failed == 0 {
                    tally += Tally::FAILED; // it did not compile, crashed, or ran out of time
                }
                Ok(tally)
            }
            Step::Own(own) => own(run),
        }
    }
}

impl Run<'_> {
    /// Cargo at the root, warnings being errors, output into the log.
    fn cargo(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = self.workspace.cargo();
        command.args(arguments).env("RUSTDOCFLAGS", "-Dwarnings").env("CARGO_TERM_COLOR", "never");
        run::logged(&mut command, self.deadline, self.log)
    }
}

/// On a build machine a stage that cannot run has failed.
fn strict() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Prints the table and the line that says it all; `true` when nothing failed.
fn summary(report: &[Done]) -> bool {
    let mut sum = Tally::default();
    println!("\n{:<14} {:>7} {:>7} {:>7} {:>9}", "stage", "passed", "failed", "skipped", "time");
    for Done { name, tally, took } in report {
        println!("{name:<14} {:>7} {:>7} {:>7} {:>9}", tally.passed, tally.failed, tally.skipped, seconds(*took));
        sum += *tally;
    }
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    sum.failed == 0
}

const fn verdict(tally: Tally) -> &'static str {
    match tally {
        Tally { failed: 1.., .. } => "FAILED",
        Tally { passed: 0, .. } => "skipped",
        _ => "ok",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Prints the end of a failed stage's log.
fn show_tail(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    println!("---- the last lines of {}", PathBuf::from(log).display());
    for line in &lines[skipped..] {
        println!("     {line}");
    }
    println!("----");
}

const TAIL_LINES: usize = 60;
