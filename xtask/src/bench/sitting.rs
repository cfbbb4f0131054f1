//! From what is asked to a folder of perf-results: one run of the command line, or everything the suite lists.

use super::node::{self, Sitting, Taken};
use super::progress::{Progress, clock};
use super::record::Run;
use super::scenario::Case;
use super::suite::{OPTIMISATIONS, Part, RECORDINGS, Recording};
use super::{Flags, icount, micro, mls_rs};
use crate::peers::{self, Built, Target};
use crate::tools::Missing;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::time::Instant;

/// Repeats when nobody says how many.
const REPEATS: u32 = 5;

/// `bench node`: cases and targets as the command line has them.
///
/// Errors: something could not be built or started. Nothing is written to perf-results then.
pub(super) fn one(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let wanted = if flags.targets.is_empty() { vec!["slimline".to_owned()] } else { flags.targets.clone() };
    wanted.iter().try_for_each(|name| peers::ensure_known(workspace, name))?;
    let cases = node::cases(workspace, flags)?;
    let built = peers::build(workspace, flags.quick)?;
    let targets = targets(workspace, &built, &wanted, &mut Vec::new())?;
    ensure!(!targets.is_empty(), "nothing to measure");
    if flags.build {
        return Ok(true);
    }
    let scratch = node::scratch(workspace)?;
    let sitting = Sitting {
        workspace,
        built: &built,
        name: "",
        cases,
        targets,
        repeats: flags.repeats(REPEATS),
        cpus: flags.cpus,
        engine: flags.engine.clone(),
        quick: flags.quick,
        scratch: scratch.clone(),
    };
    let (count, seconds) = sitting.size();
    let taken = sitting.run(&mut Progress::new(count, seconds));
    let names: Vec<_> = sitting.targets.iter().map(|target| target.name.as_str()).collect();
    let question = format!("What do {} cost per message, side by side?", names.join(", "));
    let run = Run {
        topic: flags.topic.clone().unwrap_or_else(|| "node".into()),
        question: flags.question.clone().unwrap_or(question),
        targets: &sitting.targets,
        scratch: Some(&scratch),
        ..Run::of(&taken)
    };
    conclude(workspace, flags, &run)
}

/// `bench forward`: this node beside the relay, by payload and topology, unless the command line says otherwise.
///
/// Errors: as [`one`].
pub(super) fn forward(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let mut flags = Flags { suite: super::Suite::Node, ..flags.clone() };
    if flags.scenarios.is_empty() {
        flags.scenarios.push("throughput".into());
    }
    if flags.targets.is_empty() {
        flags.targets.extend(["relay", "slimline"].map(String::from));
    }
    flags.topic.get_or_insert_with(|| "forward".into());
    one(workspace, &flags)
}

/// `bench ablate`: all optimisations, or those named.
///
/// Errors: a name that is none, or something could not be built.
pub(super) fn optimisations(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let recording = RECORDINGS.iter().find(|recording| recording.topic == OPTIMISATIONS).context("they are listed")?;
    for name in &flags.only {
        let names: Vec<_> = recording.parts.iter().map(|part| part.name).collect();
        ensure!(names.contains(&name.as_str()), "no optimisation `{name}`; there are {}", names.join(", "));
    }
    let chosen = |part: &Part| flags.only.is_empty() || flags.only.iter().any(|name| name == part.name);
    let session = Session::prepare(workspace, flags)?;
    let prepared = session.resolve(recording, &chosen)?;
    if flags.build {
        return Ok(true);
    }
    let (count, seconds) = prepared.size();
    let mut progress = Progress::new(count, seconds);
    session.measure(&prepared, &mut progress)
}

/// `bench all`: counts, times, and every recording, each in a folder of its own.
///
/// What cannot be measured is said and left out; the rest goes on.
/// Errors: a topic that is none, or something could not be built.
pub(super) fn all(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let topics = topics();
    for topic in flags.only.iter().filter(|topic| *topic != NODES) {
        ensure!(topics.contains(&topic.as_str()), "no topic `{topic}`; there are {}", topics.join(", "));
    }
    let chosen = |topic: &str| is_chosen(topic, &flags.only);
    let session = Session::prepare(workspace, flags)?;
    let (mut prepared, mut clean) = (Vec::new(), true);
    for recording in RECORDINGS.iter().filter(|recording| chosen(recording.topic)) {
        match session.resolve(recording, &|_| true) {
            Ok(one) => prepared.push(one),
            Err(error) => clean &= left_out(recording.topic, &error),
        }
    }
    if let Some(minutes) = flags.minutes {
        let all: f64 = prepared.iter().map(|one| one.size().1).sum();
        for part in prepared.iter_mut().flat_map(|one| &mut one.parts) {
            part.repeats = fewer(part.repeats, minutes * 60.0 / all);
        }
    }
    for one in &prepared {
        let (count, seconds) = one.size();
        println!("{:<20} {count:>4} measurements, about {} minutes", one.recording.topic, clock(seconds));
    }
    // They build first; none of them minds a busy machine as the rest does.
    if chosen(icount::TOPIC) {
        clean &= icount::run(workspace, flags).unwrap_or_else(|error| left_out(icount::TOPIC, &error));
    }
    if chosen(micro::TOPIC) {
        clean &= micro::run(workspace, flags).unwrap_or_else(|error| left_out(micro::TOPIC, &error));
    }
    if chosen(mls_rs::TOPIC) {
        clean &= mls_rs::run(workspace, flags).unwrap_or_else(|error| left_out(mls_rs::TOPIC, &error));
    }
    if flags.build {
        return Ok(clean);
    }
    let (count, seconds) = prepared.iter().map(Prepared::size).fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    let mut progress = Progress::new(count, seconds);
    for one in &prepared {
        clean &= session.measure(one, &mut progress).unwrap_or_else(|error| left_out(one.recording.topic, &error));
    }
    Ok(clean)
}

/// Everything that `bench all` records, in its order.
pub(super) fn topics() -> Vec<&'static str> {
    let hot = [icount::TOPIC, micro::TOPIC, mls_rs::TOPIC];
    hot.into_iter().chain(RECORDINGS.iter().map(|recording| recording.topic)).collect()
}

/// What `--only` takes for every topic that puts load on nodes.
const NODES: &str = "nodes";

fn is_chosen(topic: &str, only: &[String]) -> bool {
    let is_of_nodes = || RECORDINGS.iter().any(|recording| recording.topic == topic);
    only.is_empty() || only.iter().any(|only| only == topic || (only == NODES && is_of_nodes()))
}

/// As many repeats as a share of the time allows, and never fewer than two: one has no spread.
fn fewer(repeats: u32, share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to `repeats`")]
    let allowed = (f64::from(repeats) * share.clamp(0.0, 1.0)).floor() as u32;
    allowed.max(repeats.min(2))
}

fn left_out(topic: &str, error: &anyhow::Error) -> bool {
    println!("left out: {topic}: {error:#}");
    false
}

/// What all recordings of one sitting have in common.
struct Session<'a> {
    workspace: &'a Workspace,
    flags: &'a Flags,
    built: Built,
    cpus: Option<(u32, u32)>,
}

/// A recording whose files are read and whose programs are built.
struct Prepared<'a> {
    recording: &'static Recording,
    parts: Vec<Sitting<'a>>,
    /// Targets that are not there, and why.
    missing: Vec<String>,
}

impl Prepared<'_> {
    fn size(&self) -> (u32, f64) {
        let sizes = self.parts.iter().map(Sitting::size);
        sizes.fold((0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

impl<'a> Session<'a> {
    fn prepare(workspace: &'a Workspace, flags: &'a Flags) -> Result<Self> {
        let built = peers::build(workspace, flags.quick)?;
        Ok(Self { workspace, flags, built, cpus: flags.cpus.or_else(apart) })
    }

    /// Reads the files and builds the programs of a recording's chosen parts.
    fn resolve(&'a self, recording: &'static Recording, chosen: &dyn Fn(&Part) -> bool) -> Result<Prepared<'a>> {
        let (mut parts, mut missing) = (Vec::new(), Vec::new());
        for part in recording.parts.iter().filter(|part| chosen(part)) {
            let file = self.workspace.root.join("bench/scenarios").join(part.scenario).with_extension("toml");
            let quick = part.quick.filter(|_| self.flags.quick);
            let wanted: Vec<String> = match quick {
                Some(case) => vec![case.to_owned()],
                None => part.cases.iter().map(|case| (*case).to_owned()).collect(),
            };
            let names: Vec<String> = part.targets.iter().map(|name| (*name).to_owned()).collect();
            let targets = targets(self.workspace, &self.built, &names, &mut missing)?;
            if targets.first().is_none_or(|first| first.name != part.targets[0]) {
                missing.push(format!("{}: its first column is missing, so it was not measured", part.name));
                continue;
            }
            parts.push(Sitting {
                workspace: self.workspace,
                built: &self.built,
                name: part.name,
                cases: Case::read(&file, &wanted)?,
                targets,
                repeats: self.flags.repeats(part.repeats),
                cpus: self.cpus.filter(|_| !part.unpinned),
                engine: self.flags.engine.clone(),
                quick: self.flags.quick,
                scratch: self.workspace.target.join("bench/scratch"),
            });
        }
        Ok(Prepared { recording, parts, missing })
    }

    /// Measures a recording and writes it down.
    fn measure(&self, prepared: &Prepared<'_>, progress: &mut Progress) -> Result<bool> {
        let recording = prepared.recording;
        println!("\n{}: {}", recording.topic, recording.question);
        let started = Instant::now();
        let scratch = node::scratch(self.workspace)?;
        let mut taken = Taken::default();
        let mut targets: Vec<Target> = Vec::new();
        for part in &prepared.parts {
            let more = part.run(progress);
            taken.samples.extend(more.samples);
            taken.failures.extend(more.failures);
            for target in &part.targets {
                if targets.iter().all(|known| known.name != target.name) {
                    targets.push(target.clone());
                }
            }
        }
        let mut caveats: Vec<String> = recording.caveats.iter().map(|text| (*text).to_owned()).collect();
        caveats.extend(prepared.missing.iter().map(|text| format!("Left out: {text}")));
        let scaling_not_measured = recording.scaling && cpus_here() < 4;
        if scaling_not_measured {
            caveats.push(format!(
                "Scaling of rates over shards is not measured here: {} CPUs, one of them the generator's. CPU per message is.",
                cpus_here()
            ));
        }
        let run = Run {
            topic: recording.topic.into(),
            question: recording.question.into(),
            command: Some(command(recording, self.flags)),
            targets: &targets,
            scratch: Some(&scratch),
            caveats,
            hidden: if scaling_not_measured { vec!["/delivered_per_s"] } else { vec![] },
            ..Run::of(&taken)
        };
        let clean = conclude(self.workspace, self.flags, &run)?;
        println!("{} took {} minutes", recording.topic, clock(started.elapsed().as_secs_f64()));
        Ok(clean)
    }
}

/// The command that measures this recording alone.
fn command(recording: &Recording, flags: &Flags) -> String {
    let mut text = match (recording.topic, flags.suite) {
        (OPTIMISATIONS, super::Suite::Ablate) => format!("bench ablate {}", flags.only.join(" ")).trim_end().to_owned(),
        (topic, _) => format!("bench all --only '{topic}'"),
    };
    if let Some(repeats) = flags.repeats {
        text.push_str(&format!(" --repeats {repeats}"));
    }
    if let Some(minutes) = flags.minutes {
        text.push_str(&format!(" --minutes {minutes}"));
    }
    if let Some((node, generator)) = flags.cpus {
        text.push_str(&format!(" --cpus {node},{generator}"));
    }
    if let Some(engine) = &flags.engine {
        text.push_str(&format!(" --engine {engine}"));
    }
    text
}

/// Node and generator side by side where there is room: neither shall take the other's time.
pub(super) fn apart() -> Option<(u32, u32)> {
    (cpus_here() >= 2).then_some((0, 1))
}

fn cpus_here() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Resolves names; what is not there is said, and left out.
fn targets(workspace: &Workspace, built: &Built, wanted: &[String], missing: &mut Vec<String>) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for name in wanted {
        match peers::target(workspace, built, name) {
            Ok(target) => targets.push(target),
            Err(error) if error.is::<Missing>() => {
                println!("left out: {name}: {error:#}");
                missing.push(format!("{name}: {error:#}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(targets)
}

/// Writes a run down, unless it was a quick one; whether it was clean.
pub(super) fn conclude(workspace: &Workspace, flags: &Flags, run: &Run<'_>) -> Result<bool> {
    let clean = run.is_clean();
    if flags.quick && !flags.dry {
        println!(
            "{} measurements, {}",
            run.samples.len(),
            if clean { "every message accounted for" } else { "FAULTS" }
        );
        return Ok(clean);
    }
    let folder = if flags.dry {
        workspace.target.join("bench/dry").join(peers::slug(&run.topic))
    } else {
        run.folder(workspace)?
    };
    let mut run = run.clone();
    if flags.quick {
        run.caveats.insert(0, "A quick run, to see that all works: its figures say nothing.".into());
    }
    run.write(workspace, &folder, flags.dry)?;
    println!("recorded: {}", folder.display());
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_topics_or_all_of_nodes() {
        let chosen = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|only| (*only).to_owned()).collect();
            topics().into_iter().filter(|topic| is_chosen(topic, &only)).collect()
        };
        assert_eq!(chosen(&[]), topics());
        assert_eq!(chosen(&["churn", "instructions"]), ["instructions", "churn"]);
        assert_eq!(chosen(&["nodes"]).len(), RECORDINGS.len());
    }

    #[test]
    fn less_time_means_fewer_repeats_and_two_at_least() {
        assert_eq!([2.0, 1.0, 0.75, 0.5, 0.1, 0.0].map(|share| fewer(7, share)), [7, 7, 5, 3, 2, 2]);
        assert_eq!(fewer(1, 0.5), 1);
    }
}
