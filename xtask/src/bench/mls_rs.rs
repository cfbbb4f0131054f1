//! `bench mls-rs`: what encryption costs here and in mls-rs, which SLIM's applications stand on, in turns in one process.

use super::node::Taken;
use super::record::{Run, Sample};
use super::{Flags, icount, sitting};
use crate::run;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How recordings of it are called.
pub(super) const TOPIC: &str = "encryption beside mls-rs";

const SCENARIO: &str = "mls-rs";
/// A crate of its own beside the workspace: see its manifest.
const PACKAGE: &str = "bench/mls-rs";
/// How long building may take: both libraries, from nothing.
const BUILD: Duration = Duration::from_secs(30 * 60);

/// Measures, prints and records; quick opens and seals a few messages and times nothing.
///
/// Errors: it does not build, or a message is not what was sealed.
pub(super) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let program = build(workspace)?;
    if flags.build {
        return Ok(true);
    }
    let mut command = Command::new(program);
    match flags.repeats {
        _ if flags.quick => drop(command.arg("--quick")),
        Some(rounds) => drop(command.args(["--rounds", &rounds.to_string()])),
        None => {}
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the comparison with mls-rs failed");
    let mut taken = Taken::default();
    for line in String::from_utf8(output.stdout)?.lines() {
        taken.samples.push(sample(workspace, &serde_json::from_str(line)?)?);
    }
    let run = Run {
        topic: TOPIC.into(),
        question: "How long does it take to seal and to open one message of 1 KiB among four members, here and in mls-rs?".into(),
        command: Some("bench mls-rs".into()),
        caveats: vec![
            format!("Versions are those of `{PACKAGE}/Cargo.lock`: mls-rs as SLIM 3.4.6 has it, and for both sides the \
                     aws-lc it asks for, an older one than slimline's own."),
            "Built as cargo builds an application: release, no link-time optimisation.".into(),
            "From octets to octets, 420 octets of AAD, every message opened once and in order; a sample is the median of turns of \
             20 messages. Neither side writes its state anywhere. mls-rs checks no token where slimline looks up whose it is, \
             and pads what it seals."
                .into(),
        ],
        ..Run::of(&taken)
    };
    print!("{}", run.summary());
    sitting::conclude(workspace, flags, &run)
}

fn sample(workspace: &Workspace, line: &Value) -> Result<Sample> {
    let text = |key: &str| line[key].as_str().with_context(|| format!("a line without {key}: {line}"));
    let each = line["ns_each"].as_f64().context("a line without a time")?;
    let mut sample = icount::hot_sample(workspace, SCENARIO, text("label")?, "ns_each", each)?;
    sample.target = text("target")?.to_owned();
    sample.repeat = u32::try_from(line["round"].as_u64().context("a line without its round")?)?;
    Ok(sample)
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let target = workspace.target.join("mls-rs");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--manifest-path", &format!("{PACKAGE}/Cargo.toml")]);
    ensure!(run::until(cargo.env("CARGO_TARGET_DIR", &target), BUILD)?.success(), "{PACKAGE} does not build");
    Ok(target.join("release/slimline-bench-mls-rs"))
}
