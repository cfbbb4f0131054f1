//! Whole shards and control, the very code that runs, with a fake kernel, scripted clients and virtual time.
//!
//! ```text
//!  life (chance) ─┬─▶ peer ── pipe ──▶ Sim: Io ──▶ Shard::work · sleep ◀── mesh, log, orders ──▶ control::round
//!                 └─▶ node (who may go next)                  │
//!     history ◀──────── what clients sent and got ◀───────────┘        quiet (nothing is left behind)
//! ```
//!
//! A seed is a run. `SLIMLINE_SIM_SEEDS` says how many, `SLIMLINE_SIM_SEED` runs that one alone:
//!
//! ```text
//! SLIMLINE_SIM_SEEDS=2000 cargo test --profile sim -p slimline-node --lib sim::
//! SLIMLINE_SIM_SEED=1234  cargo test --profile sim -p slimline-node --lib sim::seeds
//! ```

mod accounts;
mod channel;
mod crowd;
mod harm;
mod history;
mod life;
mod node;
mod peer;
mod quiet;
mod scenarios;

use self::history::Summary;
use self::life::{Life, Outcome};
use crate::shard::stats::Counters;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

/// Runs one seed; whatever goes wrong is reported with it.
fn run(seed: u64) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| Life::by_seed(seed).go())).unwrap_or_else(|panic| {
        eprintln!("this was seed {seed}; again: SLIMLINE_SIM_SEED={seed} cargo test --profile sim -p slimline-node --lib sim::seeds");
        resume_unwind(panic)
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")))
}

#[test]
fn seeds() {
    if let Some(seed) = number("SLIMLINE_SIM_SEED") {
        // One run is looked at closely: with what the node and the clients say.
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).without_time().try_init();
        let outcome = run(seed);
        println!("{outcome:#?}");
        return;
    }
    let count = number("SLIMLINE_SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let total = std::thread::scope(|scope| {
        let share = |first| move || (first..count).step_by(threads).map(run).fold(Total::default(), Total::with);
        let shares: Vec<_> = (0..threads as u64).map(|first| scope.spawn(share(first))).collect();
        let ended = shares.into_iter().map(|share| share.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.fold(Total::default(), Total::plus)
    });
    println!("{count} seeds: {total:#?}");
    if count >= SEEDS_EVENTFUL {
        total.assert_eventful();
    }
}

/// What many runs came across.
#[derive(Debug, Default)]
struct Total {
    steps: u64,
    virtual_time: Duration,
    faults: u64,
    summary: Summary,
    counters: Counters,
}

impl Total {
    fn with(self, outcome: Outcome) -> Self {
        let Outcome { steps, virtual_time, summary, counters, injected } = outcome;
        self.plus(Self { steps, virtual_time, faults: injected.total(), summary, counters })
    }

    fn plus(mut self, other: Self) -> Self {
        self.steps += other.steps;
        self.virtual_time += other.virtual_time;
        self.faults += other.faults;
        self.summary.add(other.summary);
        self.counters.add(&other.counters);
        self
    }

    /// Runs that come across nothing prove nothing.
    fn assert_eventful(&self) {
        let Self { faults, counters, .. } = self;
        let Counters { mesh_in, parked_target, parked_settle, parked_control, stalled, cut, rerouted, .. } = counters;
        let Counters { drop_stalled, drop_mac, drop_malformed, .. } = counters;
        let flow = [
            *mesh_in,
            *parked_target,
            *parked_settle,
            *parked_control,
            *stalled,
            *cut,
            *rerouted,
            counters.gathered_out,
        ];
        let trouble = [*drop_stalled, *drop_mac, *drop_malformed, *faults, counters.starved];
        assert!(flow.iter().chain(&trouble).all(|&count| count > 0), "{flow:?} {trouble:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    let told = |seed| {
        let Outcome { steps, virtual_time, summary, counters, injected } = run(seed);
        (steps, virtual_time, summary, counters.named(), injected)
    };
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}

/// Seeds of an ordinary test run.
const SEEDS: u64 = 50;

/// As many seeds meet everything that is rare.
const SEEDS_EVENTFUL: u64 = 1000;
