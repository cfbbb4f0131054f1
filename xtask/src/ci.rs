//! `cargo xtask ci`: what CI runs, stage by stage, from fast to slow.

use crate::conformance;
use crate::flags::Ci;
use crate::fuzz;
use crate::interop;
use crate::memory;
use crate::run::{self, Ended};
use crate::tally::{self, Tally};
use crate::tidy;
use crate::tools::Missing;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Every stage, in the order it runs. To add one, add an entry.
///
/// Deadlines are there to end what hangs: several times what the stage takes on two idle cores that have built nothing yet.
const STAGES: &[Stage] = &[
    Stage::new("fmt", 2, Step::Check(&["fmt", "--all", "--check"])),
    Stage::new("tidy", 2, Step::Own(|run| tidy::stage(run.workspace, run.log))),
    Stage::new(
        "clippy",
        20,
        Step::Check(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-Dwarnings"]),
    ),
    Stage::new("test", 30, Step::Tests(&["test", "--workspace", "--no-fail-fast"])),
    Stage::new("doc", 15, Step::Check(&["doc", "--workspace", "--no-deps", "--document-private-items"])),
    Stage::new("loom", 15, Step::Own(loom)),
    Stage::new("simulator", 15, Step::Own(|run| simulator(run, 2_000))),
    Stage::new("sessions", 15, Step::Own(|run| sessions(run, 1_000))),
    Stage::new("conformance", 15, Step::Own(conformance::stage)),
    Stage::new("interop", 25, Step::Own(interop::stage)),
    Stage::new("interop-session", 20, Step::Own(interop::session)),
    Stage::new("bench-smoke", 15, Step::Own(bench_smoke)),
    Stage::deep("simulator-deep", 40, Step::Own(|run| simulator(run, 10_000))),
    Stage::deep("miri", 40, Step::Own(memory::miri)),
    Stage::deep("asan", 30, Step::Own(memory::asan)),
    Stage::deep("http2-tools", 30, Step::Own(conformance::tools_of_others)),
    Stage::deep("fuzz", 20, Step::Own(fuzz::stage)),
    Stage::deep("interop-session-hour", 40, Step::Own(interop::session_hour)),
    Stage::deep("interop-session-reference", 20, Step::Own(interop::session_reference)),
    Stage::deep("interop-control", 40, Step::Own(interop::controls)),
];

/// Models of what threads share, in every order of events.
fn loom(run: &Run<'_>) -> Result<Tally> {
    let mut command = run.workspace.cargo();
    command.args(["test", "--profile", "fast", "-p", "slimline-node", "--lib", "mesh::models"]);
    command.env("RUSTFLAGS", "--cfg loom").env("LOOM_MAX_PREEMPTIONS", "3");
    command.env("CARGO_TARGET_DIR", run.workspace.target.join("loom")); // other flags: not to rebuild everything
    run.tests(&mut command)
}

/// Whole shards under a fake kernel that misbehaves, so many runs of them; a failure names its seed.
fn simulator(run: &Run<'_>, seeds: u32) -> Result<Tally> {
    let mut command = run.workspace.cargo();
    command.args(["test", "--profile", "sim", "-p", "slimline-node", "--lib", "sim::", "--", "--nocapture"]);
    command.env("SLIMLINE_SIM_SEEDS", seeds.to_string());
    run.tests(&mut command)
}

/// Applications on one fake clock over bad links, and histories of groups against a model, so many of each.
fn sessions(run: &Run<'_>, seeds: u32) -> Result<Tally> {
    let mut command = run.workspace.cargo();
    command.args(["test", "--profile", "fast", "-p", "slimline-session"]);
    command.args(["--test", "pair", "--test", "group", "--test", "membership", "--test", "store", "--", "by_seed"]);
    command.env("SEEDS", seeds.to_string());
    run.tests(&mut command)
}

/// Every suite of the bench on tiny inputs: results are checked, times are not.
fn bench_smoke(run: &Run<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    tally += run.own(&["bench", "micro", "--quick"])?;
    tally += run.own(&["bench", "node", "--quick", "--dry", "--scenario", "bench/scenarios/smoke.toml"])?;
    Ok(tally)
}

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
        Self { deep: true, ..Self::new(name, deadline_minutes, step) }
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
            Err(error) if error.is::<Missing>() && (self.deep || !strict()) => {
                println!("{:<8} {}  {error:#}", verdict(Tally::SKIPPED), seconds(took));
                Tally::SKIPPED
            }
            Err(error) => {
                println!("{:<8} {}  {error:#}", verdict(Tally::FAILED), seconds(took));
                Tally::FAILED
            }
        };
        if tally.failed > 0 {
            show_failure(&log);
        }
        Done { name: self.name, tally, took }
    }

    fn step(&self, run: &Run<'_>) -> Result<Tally> {
        let cargo = |arguments: &[&str]| {
            let mut command = run.workspace.cargo();
            command.args(arguments);
            command
        };
        match self.step {
            Step::Check(arguments) => run.check(&mut cargo(arguments)),
            Step::Tests(arguments) => run.tests(&mut cargo(arguments)),
            Step::Own(own) => own(run),
        }
    }
}

impl Run<'_> {
    /// A command that passes or fails as a whole.
    pub(crate) fn check(&self, command: &mut Command) -> Result<Tally> {
        Ok(if self.logged(command)?.success() { Tally::PASSED } else { Tally::FAILED })
    }

    /// A command that prints what `cargo test` prints.
    pub(crate) fn tests(&self, command: &mut Command) -> Result<Tally> {
        let before = fs::metadata(self.log).map_or(0, |log| log.len());
        let ended = self.logged(command)?;
        let log = fs::read(self.log)?;
        let from = usize::try_from(before).unwrap_or(0).min(log.len());
        let mut tally = Tally::of_cargo_test(&String::from_utf8_lossy(&log[from..]));
        if !ended.success() && tally.failed == 0 {
            tally += Tally::FAILED; // it did not compile, or crashed
        }
        Ok(tally)
    }

    /// Another of our own commands.
    fn own(&self, arguments: &[&str]) -> Result<Tally> {
        let program = env::current_exe().context("cannot find this program")?;
        self.check(Command::new(program).args(arguments).current_dir(&self.workspace.root))
    }

    /// Runs a command at the root, warnings being errors, output into the log.
    fn logged(&self, command: &mut Command) -> Result<Ended> {
        command.env("RUSTDOCFLAGS", "-Dwarnings").env("CARGO_TERM_COLOR", "never");
        match run::logged(command, self.deadline, self.log)? {
            Ended::Deadline(limit) => bail!("not done after {}", seconds(limit)),
            ended => Ok(ended),
        }
    }
}

/// On a build machine a stage that cannot run has failed; a deep one may ask for what it lacks.
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

/// Prints what a failed stage's log says of the tests that failed, or its end where it names none.
fn show_failure(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let failures = tally::failures_of_cargo_test(&text);
    if failures.is_empty() {
        let lines: Vec<_> = text.lines().collect();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        println!("---- the last lines of {}", log.display());
        print_lines(&lines[skipped..]);
    } else {
        println!("---- the failures in {}", log.display());
        print_lines(&failures[..failures.len().min(FAILURE_LINES)]);
    }
    println!("----");
}

fn print_lines(lines: &[&str]) {
    for line in lines {
        println!("     {line}");
    }
}

const TAIL_LINES: usize = 60;
const FAILURE_LINES: usize = 200;
