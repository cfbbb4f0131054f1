//! `cargo xtask bench`: the suites, and how their results become folders of `perf-results`.

pub(crate) mod ablate;
mod chart;
mod check;
mod icount;
mod micro;
mod mls_rs;
pub(crate) mod node;
pub(crate) mod options;
mod page;
mod progress;
pub(crate) mod record;
pub(crate) mod scenario;
mod sitting;
pub(crate) mod stats;
mod suite;

use crate::workspace::Workspace;
use anyhow::{Result, bail, ensure};
use pico_args::Arguments;
use std::path::PathBuf;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Hot functions under criterion.
    Micro,
    /// One part of them, only shown; `forward` beside the road over real sockets.
    Part(&'static str),
    /// Hot functions, instructions counted under callgrind.
    Icount,
    /// Encryption beside the library that SLIM's applications stand on.
    MlsRs,
    /// Whole nodes under the load generator, as the command line says.
    Node,
    /// Nodes that lack an optimisation each.
    Ablate,
    /// Everything that is recorded.
    All,
    /// Today's ratios and counts against a recorded run.
    Check,
    /// The README's table, from what is recorded.
    Page,
}

/// `bench`: what, against what, how thorough.
#[derive(Clone)]
pub(crate) struct Flags {
    pub(crate) suite: Suite,
    /// Tiny inputs: results are checked, times mean nothing.
    pub(crate) quick: bool,
    /// Scenario files; empty for all.
    pub(crate) scenarios: Vec<PathBuf>,
    /// Only cases whose label holds one of these; empty for all.
    pub(crate) cases: Vec<String>,
    /// Nodes, in the order of the table; the first is what ratios are taken to.
    pub(crate) targets: Vec<String>,
    pub(crate) repeats: Option<u32>,
    /// What `bench all` may take: repeats are given up for it.
    pub(crate) minutes: Option<f64>,
    /// CPUs for node and generator.
    pub(crate) cpus: Option<(u32, u32)>,
    /// What drives the generator's sockets; the generator's choice if nobody says.
    pub(crate) engine: Option<String>,
    /// The last part of the run's folder name.
    pub(crate) topic: Option<String>,
    /// What the run asks, for its README.
    pub(crate) question: Option<String>,
    /// Keep the result out of perf-results.
    pub(crate) dry: bool,
    /// Topics of `bench all`, or optimisations of `bench ablate`; empty for all.
    pub(crate) only: Vec<String>,
    /// Build what will be needed, and stop.
    pub(crate) build: bool,
    /// A recorded run's folder.
    pub(crate) against: Option<PathBuf>,
    /// By what factor something may be worse.
    pub(crate) threshold: Option<f64>,
    /// Compare with another machine's run all the same.
    pub(crate) force: bool,
}

impl Flags {
    /// Repeats: as asked for, else one of a quick run, else the usual number.
    pub(crate) fn repeats(&self, usual: u32) -> u32 {
        self.repeats.unwrap_or(if self.quick { 1 } else { usual })
    }
}

/// What can drive the load generator's sockets.
const ENGINES: [&str; 3] = ["io-uring", "epoll", "glommio"];

/// Reads what stands behind `bench`.
///
/// Errors: an unknown suite or a malformed value.
pub(crate) fn flags(arguments: &mut Arguments) -> Result<Flags> {
    let name = arguments.subcommand()?;
    let suite = match name.as_deref() {
        Some("micro") => Suite::Micro,
        Some("wire") => Suite::Part("wire"),
        Some("fib") => Suite::Part("fib"),
        Some("forward") => Suite::Part("forward"),
        Some("icount") => Suite::Icount,
        Some("mls-rs") => Suite::MlsRs,
        Some("node") => Suite::Node,
        Some("ablate") => Suite::Ablate,
        Some("all") => Suite::All,
        Some("check") => Suite::Check,
        Some("page") => Suite::Page,
        other => bail!(
            "bench what? wire, fib, forward, micro, icount, mls-rs, node, ablate, all, check or page, not `{}`",
            other.unwrap_or("")
        ),
    };
    let mut flags = Flags { suite, ..node_flags(arguments)? };
    while suite == Suite::Ablate
        && let Some(name) = arguments.opt_free_from_str()?
    {
        flags.only.push(name);
    }
    flags.ensure_suited(name.as_deref().unwrap_or_default())?;
    Ok(flags)
}

/// Reads the options that say how nodes are measured.
///
/// Errors: a malformed value.
pub(crate) fn node_flags(arguments: &mut Arguments) -> Result<Flags> {
    let cpus = match arguments.opt_value_from_str::<_, String>("--cpus")? {
        None => None,
        Some(text) => {
            let pair = text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            ensure!(pair.is_some(), "--cpus {text}: give the node's and the generator's, as 0,1");
            pair
        }
    };
    let engine: Option<String> = arguments.opt_value_from_str("--engine")?;
    if let Some(engine) = &engine {
        ensure!(ENGINES.contains(&engine.as_str()), "--engine {engine}: one of {}", ENGINES.join(", "));
    }
    Ok(Flags {
        suite: Suite::Node,
        quick: arguments.contains("--quick"),
        scenarios: arguments.values_from_str("--scenario")?,
        cases: arguments.values_from_str("--case")?,
        targets: arguments.values_from_str("--target")?,
        repeats: arguments.opt_value_from_str("--repeats")?,
        minutes: arguments.opt_value_from_str("--minutes")?,
        cpus,
        engine,
        topic: arguments.opt_value_from_str("--topic")?,
        question: arguments.opt_value_from_str("--question")?,
        dry: arguments.contains("--dry"),
        only: arguments.values_from_str("--only")?,
        build: arguments.contains("--build"),
        against: arguments.opt_value_from_str("--against")?,
        threshold: arguments.opt_value_from_str("--threshold")?,
        force: arguments.contains("--force"),
    })
}

/// Runs a suite; `false` when a message was lost or a result was wrong.
///
/// Errors: something could not be built, started or measured.
pub(crate) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    match flags.suite {
        Suite::Micro => micro::run(workspace, flags),
        Suite::Part("forward") => Ok(micro::show(workspace, flags, "forward")? && sitting::forward(workspace, flags)?),
        Suite::Part(group) => micro::show(workspace, flags, group),
        Suite::Icount => icount::run(workspace, flags),
        Suite::MlsRs => mls_rs::run(workspace, flags),
        Suite::Node => sitting::one(workspace, flags),
        Suite::Ablate => sitting::optimisations(workspace, flags),
        Suite::All => sitting::all(workspace, flags),
        Suite::Check => check::run(workspace, flags),
        Suite::Page => page::run(workspace),
    }
}
