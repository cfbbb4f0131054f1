//! `cargo xtask bench`: the suites, and how their results become a folder of `perf-results/`.

mod check;
mod icount;
mod node;
pub(crate) mod record;
pub(crate) mod stats;

pub(crate) use node::interleaved;

use crate::run;
use crate::workspace::Workspace;
use anyhow::{Result, bail, ensure};
use pico_args::Arguments;
use std::path::PathBuf;
use std::time::Duration;

/// How long one criterion suite may take.
const SUITE: Duration = Duration::from_secs(30 * 60);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// Hot functions under criterion.
    Micro,
    /// Hot functions, instructions counted under callgrind.
    Icount,
    /// Whole nodes under the load generator.
    Node,
    /// All of them.
    All,
    /// Today's ratios against a recorded run.
    Check,
}

/// `bench`: what, against what, how thorough.
#[derive(Clone)]
pub(crate) struct Flags {
    suite: Suite,
    /// Tiny inputs: results are checked, times mean nothing.
    quick: bool,
    /// Scenario files; empty for all.
    scenarios: Vec<PathBuf>,
    /// Only cases whose label holds this.
    case: Option<String>,
    /// Nodes, in the order of the table; the first is what ratios are taken to.
    targets: Vec<String>,
    repeats: u32,
    /// CPUs for node and generator.
    cpus: Option<(u32, u32)>,
    /// The last part of the run's folder name.
    topic: Option<String>,
    /// What the run asks, for its README.
    question: Option<String>,
    /// Keep the result out of perf-results.
    dry: bool,
    /// A recorded run's folder.
    against: Option<PathBuf>,
    /// By what factor something may be worse.
    threshold: f64,
    /// Compare with another machine's run all the same.
    force: bool,
}

/// Reads what stands behind `bench`.
///
/// Errors: an unknown suite or a malformed value.
pub(crate) fn flags(arguments: &mut Arguments) -> Result<Flags> {
    let suite = match arguments.subcommand()?.as_deref() {
        Some("micro") => Suite::Micro,
        Some("icount") => Suite::Icount,
        Some("node") => Suite::Node,
        Some("all") => Suite::All,
        Some("check") => Suite::Check,
        other => bail!("bench what? micro, icount, node, all or check, not `{}`", other.unwrap_or("")),
    };
    Ok(Flags { suite, ..node_flags(arguments)? })
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
    Ok(Flags {
        suite: Suite::Node,
        quick: arguments.contains("--quick"),
        scenarios: arguments.values_from_str("--scenario")?,
        case: arguments.opt_value_from_str("--case")?,
        targets: arguments.values_from_str("--target")?,
        repeats: arguments.opt_value_from_str("--repeats")?.unwrap_or(3),
        cpus,
        topic: arguments.opt_value_from_str("--topic")?,
        question: arguments.opt_value_from_str("--question")?,
        dry: arguments.contains("--dry"),
        against: arguments.opt_value_from_str("--against")?,
        threshold: arguments.opt_value_from_str("--threshold")?.unwrap_or(1.15),
        force: arguments.contains("--force"),
    })
}

/// Runs a suite; `false` when a message was lost or a result was wrong.
///
/// Errors: something could not be built, started or measured.
pub(crate) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    match flags.suite {
        Suite::Micro => micro(workspace, flags),
        Suite::Icount => icount::run(workspace, flags.quick),
        Suite::Node => node::run(workspace, flags),
        Suite::All => {
            Ok(micro(workspace, flags)? & icount::run(workspace, flags.quick)? & node::run(workspace, flags)?)
        }
        Suite::Check => check::run(workspace, flags),
    }
}

/// The criterion suites; quick runs each function once.
fn micro(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "-p", "slimline-bench", "--bench", "wire", "--bench", "fib", "--bench", "forward"]);
    if flags.quick {
        cargo.args(["--profile", "fast", "--", "--test"]);
    }
    Ok(run::until(&mut cargo, SUITE)?.success())
}
