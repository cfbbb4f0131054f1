//! The command line, and what each command makes of one or more measurements.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::drive::{Outcome, drive};
use crate::engine;
use crate::error::{BenchError, Result};
use crate::plan::Plan;
use crate::record::Recorder;
use crate::relay;
use crate::report::write::Outputs;
use crate::report::{Knee, Measurement, Report, table};
use crate::scenario::{Command, Options, Scenario, Spread};

/// Below the help.
const EXAMPLES: &str = "\
Examples:
  slimload throughput --node 127.0.0.1:46357 --node-stats /run/slimline/stats.sock
  slimload latency --rate 1000,10000,50000 --payload 1024 --hgrm run.hgrm --plot run.svg
  slimload capacity --hold-us 2000 --repeats 5
  slimload throughput --pubs 8 --subs 8 --names 64 --spread zipf --payload 64:70,1024:30

Exit codes: 0 all is well, 1 messages were lost, doubled, reordered, damaged or misrouted, 2 nothing could be measured.";

/// Measures a SLIM node. Every run is also a correctness run: the exit code is 1 when a message was lost, doubled,
/// reordered, damaged or misrouted, 2 when nothing could be measured.
#[derive(Debug, Parser)]
#[command(name = "slimload", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Closed window: as fast as the node takes it
    Throughput(Options),
    /// Open loop at one rate or a ladder of rates; latency from the intended send time
    Latency(Options),
    /// One request in flight per pair
    Pingpong(Options),
    /// One publisher, every subscriber gets each message
    Fanout(Options),
    /// A subscription storm, then lookups under that table; memory of each name, as with idle
    Names(Options),
    /// Idle connections: memory each (a node that has had more before shows less), and the latency of a canary among them
    Idle(Options),
    /// Connect, negotiate, subscribe, receive one message, leave; again and again
    Churn(Options),
    /// A long open-loop run: memory slope and drift of p99.9
    Soak(Options),
    /// The highest open-loop rate that holds a p99.9
    Capacity(Options),
    /// A scenario file; options given here win over the file's
    Run {
        /// The file
        file: PathBuf,
        /// Only cases whose label holds this
        #[arg(long)]
        case: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// A relay that parses nothing, to compare with
    Relay(relay::RelayOptions),
    /// This machine as reports describe it
    Machine,
}

/// Exit code of a run with faults.
const FAULTY: u8 = 1;
/// Exit code of a command that could not be run.
const FAILED: u8 = 2;

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("slimload: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn execute(arguments: Arguments) -> Result<ExitCode> {
    arguments.outputs.check()?;
    let (mut cases, mut source) = (Vec::new(), None);
    let (command, title, options) = match arguments.action {
        Action::Throughput(options) => (Command::Throughput, None, options),
        Action::Latency(options) => (Command::Latency, None, options),
        Action::Pingpong(options) => (Command::Pingpong, None, options),
        Action::Fanout(options) => (Command::Fanout, None, options),
        Action::Names(options) => (Command::Names, None, options),
        Action::Idle(options) => (Command::Idle, None, options),
        Action::Churn(options) => (Command::Churn, None, options),
        Action::Soak(options) => (Command::Soak, None, options),
        Action::Capacity(options) => (Command::Capacity, None, options),
        Action::Run { file, case, options } => {
            let scenario = Scenario::read(&file)?;
            source = Some(file.clone());
            cases = scenario.cases;
            if let Some(wanted) = case {
                cases.retain(|case| case.label.contains(&wanted));
                if cases.is_empty() {
                    return Err(BenchError::Plan(format!("no case of {} is called {wanted}", file.display())));
                }
            }
            (scenario.command, Some(scenario.title), options.over(scenario.options))
        }
        Action::Relay(options) => return relay::run(&options).map(|()| ExitCode::SUCCESS),
        Action::Machine => {
            let machine = crate::machine::Machine::read();
            let text = toml::to_string(&machine).map_err(|e| BenchError::Plan(e.to_string()))?;
            show(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    // Where a plan cannot be, a reader of several files and cases wants to know which.
    let check = |label: Option<&str>, options: Options| {
        Plan::check(command, options).map_err(|error| match (&source, error) {
            (Some(path), BenchError::Plan(reason)) => {
                let reason = label.map_or(reason.clone(), |label| format!("case `{label}`: {reason}"));
                BenchError::Scenario { path: path.clone(), reason }
            }
            (_, error) => error,
        })
    };
    let plan = check(None, options.clone())?;
    // All cases are checked before the first one runs: a wrong one should not cost the time of those before it.
    let mut plans = Vec::new();
    for case in cases {
        let plan = check(Some(&case.label), case.options.over(options.clone()))?;
        plans.push((Some(case.label), plan));
    }
    if plans.is_empty() {
        plans.push((None, plan.clone()));
    }
    let substitute = engine::choice::settle(plans.iter_mut().map(|(_, plan)| plan))?;
    if let Some(why) = &substitute {
        eprintln!("slimload: {why}");
    }
    let engines = plans.iter().map(|(_, plan)| plan.engine);
    let mut report = Report::new(&plan, &title.unwrap_or_else(|| describe(&plan)), engines, substitute);
    for (label, plan) in &plans {
        let first = report.measurements.len();
        measure(plan, &mut report)?;
        if let Some(label) = label {
            let several = report.measurements.len() > first + 1;
            for m in &mut report.measurements[first..] {
                m.label = if several { format!("{label}, {}", m.label) } else { label.clone() };
            }
        }
    }
    // First what a person sees: should a file not be written after all, the run was not in vain.
    if !arguments.outputs.takes_stdout() {
        show(&table::render(&report))?;
    }
    arguments.outputs.write(&report)?;
    Ok(if report.faults().none() { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) })
}

/// Writes to stdout; a reader who has seen enough is no error.
fn show(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(BenchError::system("write to stdout")(error))
        }
        _ => Ok(()),
    }
}

/// A plan in a few words.
fn describe(plan: &Plan) -> String {
    let command = format!("{:?}", plan.command).to_lowercase();
    let payload = plan.options.payload.as_deref().unwrap_or("256");
    match plan.command {
        Command::Pingpong => format!("{command} {} pair(s) {payload} B", plan.pubs),
        Command::Idle => format!("{command} {} connections", plan.connections),
        Command::Churn => format!("{command} {} at a time", plan.pubs),
        _ => format!("{command} {}->{} {payload} B", plan.pubs, plan.subs),
    }
}

fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut knees = Vec::new();
    for repeat in 0..plan.repeats {
        let suffix = if plan.repeats > 1 { format!(" #{}", repeat + 1) } else { String::new() };
        match plan.command {
            Command::Latency if plan.load.is_empty() => {
                for &rate in &plan.rates {
                    let step = Plan { rates: vec![rate], ..plan.clone() };
                    report.measurements.push(one(&step, at_rate(rate, &suffix))?);
                }
            }
            Command::Latency => {
                let full = Plan { rates: vec![], load: vec![], ..plan.clone() };
                let full = one(&full, format!("closed window{suffix}"))?;
                // In messages, not deliveries: that is what a publisher paces.
                let capacity = full.delivered_per_s / f64::from(plan.copies());
                report.measurements.push(full);
                for &share in &plan.load {
                    let step = Plan { rates: vec![capacity * share], ..plan.clone() };
                    report.measurements.push(one(&step, format!("{:.0} % load{suffix}", share * 100.0))?);
                }
            }
            Command::Capacity => knees.push(capacity(plan, &suffix, report)?),
            Command::Names => report.measurements.push(names(plan, format!("{} names{suffix}", plan.names))?),
            Command::Idle => report.measurements.push(idle(plan, format!("{} idle{suffix}", plan.connections))?),
            Command::Soak => report.measurements.push(soak(plan, format!("soak{suffix}"))?),
            Command::Throughput | Command::Fanout | Command::Pingpong => {
                report.measurements.push(one(plan, format!("{}{suffix}", describe(plan)))?);
            }
            Command::Churn => report.measurements.push(churn(plan, format!("{}{suffix}", describe(plan)))?),
        }
    }
    if plan.command == Command::Capacity {
        report.knees.push(Knee::of(plan.hold, knees));
    }
    Ok(())
}

/// The label of a measurement at a rate.
fn at_rate(rate: f64, suffix: &str) -> String {
    let rate = if rate < 10.0 { format!("{rate}") } else { format!("{rate:.0}") };
    format!("{rate}/s{suffix}")
}

fn one(plan: &Plan, label: String) -> Result<Measurement> {
    let outcome = drive(plan, &label)?;
    Ok(Measurement::of(plan, label, outcome))
}

/// Churn: cycles per second, and how long one takes.
fn churn(plan: &Plan, label: String) -> Result<Measurement> {
    let outcome = drive(plan, &label)?;
    let subscribed = outcome.subscribed_latencies.percentiles();
    let mut measurement = Measurement::of(plan, label, outcome);
    measurement.extra.insert("connect to subscribed, p50 us".into(), subscribed.p50_us);
    measurement.extra.insert("connect to subscribed, p99 us".into(), subscribed.p99_us);
    Ok(measurement)
}

/// Names: what one name costs in memory, beside the lookups.
fn names(plan: &Plan, label: String) -> Result<Measurement> {
    let plan =
        &Plan { spread: if plan.spread == Spread::Pair { Spread::Uniform } else { plan.spread }, ..plan.clone() };
    with_memory(plan, label, "octets per name", |outcome| (outcome.node_rss_connected_octets, outcome.subscriptions))
}

/// Idle: what one connection costs in memory, beside the canary.
fn idle(plan: &Plan, label: String) -> Result<Measurement> {
    with_memory(plan, label, "octets per connection", |outcome| (outcome.node_rss_before_octets, outcome.connections))
}

/// A measurement, and by how much the node grew before it for each of what `of` counts, from what `of` says it was.
fn with_memory(plan: &Plan, label: String, name: &str, of: fn(&Outcome) -> (u64, u64)) -> Result<Measurement> {
    let outcome = drive(plan, &label)?;
    let (before, count) = of(&outcome);
    let each = outcome.node_rss_subscribed_octets.saturating_sub(before) as f64 / count.max(1) as f64;
    let mut measurement = Measurement::of(plan, label, outcome);
    if plan.node_pid.is_some() {
        measurement.extra.insert(name.into(), each);
    }
    Ok(measurement)
}

/// Soak: the slope of memory, and p99.9 of the last third against the first.
fn soak(plan: &Plan, label: String) -> Result<Measurement> {
    let outcome = drive(plan, &label)?;
    let p99_9_us = |part: &Recorder| part.percentiles().p99_9_us;
    let drift = match outcome.thirds.as_slice() {
        [first, .., last] if first.count() > 0 && last.count() > 0 => Some(p99_9_us(last) / p99_9_us(first)),
        _ => None,
    };
    let mut measurement = Measurement::of(plan, label, outcome);
    if let Some(drift) = drift {
        measurement.extra.insert("p99.9 of the last third / first third".into(), drift);
    }
    if plan.node_pid.is_some() && measurement.samples.len() > 1 {
        let slope = slope(measurement.samples.iter().map(|s| (s.seconds / 3600.0, s.node_rss_octets as f64)));
        measurement.extra.insert("RSS slope, octets per hour".into(), slope);
    }
    Ok(measurement)
}

/// Least squares.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count().max(1) as f64;
    let (mean_x, mean_y) = points.clone().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - mean_x) * (y - mean_y);
        below += (x - mean_x) * (x - mean_x);
    }
    if below == 0.0 { 0.0 } else { above / below }
}

/// The knee, 0 if there is none.
fn capacity(plan: &Plan, suffix: &str, report: &mut Report) -> Result<f64> {
    knee(plan.rates.first().copied().unwrap_or(10_000.0), |rate| {
        let step = Plan { rates: vec![rate], ..plan.clone() };
        let measurement = one(&step, at_rate(rate, suffix))?;
        let holds = measurement.held == Some(true)
            && measurement.faults.none()
            && Duration::from_secs_f64(measurement.latency.p99_9_us / 1e6) <= plan.hold;
        report.measurements.push(measurement);
        // Let queues of an overloaded step empty themselves.
        std::thread::sleep(Duration::from_millis(200));
        Ok(holds)
    })
}

/// Between the highest rate that held and the lowest that did not.
const KNEE_SHARE: f64 = 1.05;
/// Below this nobody asks for a knee.
const KNEE_LEAST: f64 = 10.0;

/// The highest rate that holds, 0 if none does: doubles from `start` until one does not, then halves the gap.
fn knee(start: f64, mut holds: impl FnMut(f64) -> Result<bool>) -> Result<f64> {
    let (mut low, mut high, mut rate) = (0.0, f64::INFINITY, start);
    while high > low * KNEE_SHARE && high >= KNEE_LEAST {
        if holds(rate)? {
            low = rate;
        } else {
            high = rate;
        }
        rate = match (low, high) {
            (_, f64::INFINITY) => rate * 2.0,
            (0.0, _) => high / 4.0,
            _ => f64::midpoint(low, high),
        };
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_rate_below_ten_is_told_in_full() {
        assert_eq!((at_rate(0.5, ""), at_rate(1234.56, " #2")), ("0.5/s".into(), "1235/s #2".into()));
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for (start, limit) in [(10_000.0, 123_456.0), (10_000.0, 10_001.0), (10_000.0, 777.0), (10.0, 1e7), (1e6, 11.0)]
        {
            let mut steps = 0;
            let found = knee(start, |rate| {
                steps += 1;
                Ok(rate <= limit)
            });
            let found = found.unwrap();
            assert!(found <= limit && found * KNEE_SHARE >= limit, "{found} for {limit} from {start}");
            assert!(steps < 30, "{steps} steps for {limit} from {start}");
        }
        assert_eq!(knee(10_000.0, |_| Ok(false)).unwrap(), 0.0);
        assert!(knee(10_000.0, |_| Err(BenchError::Plan("stop".into()))).is_err());
    }

    #[test]
    fn slope_of_a_line() {
        let points = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x) + 1.0));
        assert!((slope(points) - 3.0).abs() < 1e-9);
        assert!(slope(std::iter::empty()).abs() < 1e-9);
    }
}
