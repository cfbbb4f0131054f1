//! Conformance, judged from outside: the clause suite and tools of others, against a node that runs.

use crate::ci::Run;
use crate::demo::{self, Running};
use crate::interop;
use crate::run::{self, Ended};
use crate::tally::Tally;
use crate::tools::{self, Missing};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What tools of others have to say at least, of 107 and of 147 cases; the best server known to us in C reaches as much.
const HTTPWG_PASSED_MIN: u32 = 104;
const H2SPEC_PASSED_MIN: u32 = 146;

/// The path that answers a GET.
const PATH: &str = "/healthz";

/// Streams per transport the node advertises, which the clause suite needs to know.
const STREAMS_MAX: u32 = 100;

/// The CI stage: RFC 9113 clause by clause, over a socket, with one shard and with two.
pub(crate) fn stage(run: &Run<'_>) -> Result<Tally> {
    let node = interop::build_node(run.workspace, tools::System::Install)?;
    let mut tally = Tally::default();
    for shards in [1, 2] {
        let (mut node, address) = start(run, &node, shards)?;
        let mut command = run.workspace.cargo();
        command.args(["test", "--package", "slimline-wire", "--test", "rfc9113"]).env("CARGO_TERM_COLOR", "never");
        command.env("RFC9113_TARGET", &address).env("RFC9113_PATH", PATH);
        command.env("RFC9113_STREAMS_MAX", STREAMS_MAX.to_string());
        let suite = run.tests(&mut command)?;
        tally += if suite == Tally::default() { Tally::FAILED } else { suite }; // no test is no proof
        tally += stopped_well(run, &mut node)?;
    }
    Ok(tally)
}

/// The deep CI stage: tools of others, each counted as one check with its own aim.
pub(crate) fn tools_of_others(run: &Run<'_>) -> Result<Tally> {
    let node = interop::build_node(run.workspace, tools::System::Install)?;
    let mut tally = Tally::default();
    for judge in [httpwg, h2spec] {
        tally += match judge(run, &node) {
            Err(error) if error.is::<Missing>() => {
                append(run, &format!("SKIPPED: {error}\n"))?;
                println!("SKIPPED {error}");
                Tally::SKIPPED
            }
            other => other?,
        };
    }
    Ok(tally)
}

/// The httpwg suite, from the package registry.
fn httpwg(run: &Run<'_>, node: &Path) -> Result<Tally> {
    let program = tools::cargo_installed(run.workspace, "httpwg-cli", "0.2.5", "httpwg")?;
    let (mut node, address) = start(run, node, 1)?;
    let mut command = Command::new(program);
    // One case after the other: cases that run together are cut off together when one of them is done with the process.
    command.args(["--address", &address, "--frame-timeout", "5000"]).env("SEQUENTIAL", "1").env("NO_COLOR", "1");
    let text = heard(run, &mut command)?;
    let passed = passed_of(&text).context("httpwg does not say how many cases passed")?;
    let mut tally = aimed("httpwg", passed, HTTPWG_PASSED_MIN);
    tally += stopped_well(run, &mut node)?;
    Ok(tally)
}

/// h2spec, where somebody has installed it.
fn h2spec(run: &Run<'_>, node: &Path) -> Result<Tally> {
    if !tools::on_path("h2spec") {
        return Err(
            Missing("h2spec is not on the PATH; it is a Go program, from github.com/summerwind/h2spec".into()).into()
        );
    }
    let (mut node, address) = start(run, node, 1)?;
    let (host, port) = address.rsplit_once(':').context("an address without a port")?;
    let mut command = Command::new("h2spec");
    command.args(["--host", host, "--port", port, "--path", PATH, "--timeout", "5"]);
    let text = heard(run, &mut command)?;
    let passed = passed_in_summary(&text).context("h2spec does not say how many cases passed")?;
    let mut tally = aimed("h2spec", passed, H2SPEC_PASSED_MIN);
    tally += stopped_well(run, &mut node)?;
    Ok(tally)
}

/// A node with so many shards, and where it listens.
fn start(run: &Run<'_>, program: &Path, shards: u16) -> Result<(Running, String)> {
    let folder = folder(run.workspace, shards)?;
    let address = demo::free_address()?;
    Ok((demo::start_node(program, &folder, &address, Some(shards))?, address))
}

fn folder(workspace: &Workspace, shards: u16) -> Result<PathBuf> {
    let folder = workspace.target.join(format!("conformance/{shards}"));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Whether the node, after all that, still ends as asked and with status 0.
fn stopped_well(run: &Run<'_>, node: &mut Running) -> Result<Tally> {
    let ended = node.ask_to_end()?;
    if ended.success() {
        return Ok(Tally::PASSED);
    }
    append(run, "the node did not stop cleanly when asked\n")?;
    Ok(Tally::FAILED)
}

/// Runs a tool into the stage's log; what it said.
fn heard(run: &Run<'_>, command: &mut Command) -> Result<String> {
    let log = run.log.with_extension("tool.log");
    let _ = fs::remove_file(&log);
    let ended = run::logged(command, TOOL_DEADLINE, &log)?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    append(run, &text)?;
    if let Ended::Deadline(limit) = ended {
        bail!("{} not done after {} s", command.get_program().display(), limit.as_secs());
    }
    Ok(text)
}

fn aimed(tool: &str, passed: u32, passed_min: u32) -> Tally {
    println!("{tool}: {passed} cases passed, {passed_min} needed");
    if passed >= passed_min { Tally::PASSED } else { Tally::FAILED }
}

/// The count in httpwg's last words, `Passed 106/107 tests …`, which it may colour.
fn passed_of(text: &str) -> Option<u32> {
    let line = plain(text.lines().rfind(|line| line.contains("Passed ") && line.contains('/'))?);
    let (_, counts) = line.split_once("Passed ")?;
    counts.split('/').next()?.trim().parse().ok()
}

/// The count in h2spec's last words, `147 tests, 146 passed, 0 skipped, 1 failed`.
fn passed_in_summary(text: &str) -> Option<u32> {
    let line = text.lines().rfind(|line| line.contains(" tests, ") && line.contains(" passed"))?;
    line.split(", ").find_map(|part| part.trim().strip_suffix(" passed"))?.trim().parse().ok()
}

/// A line without its colours.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            let _ = characters.by_ref().find(|end| *end == 'm');
        } else {
            plain.push(character);
        }
    }
    plain
}

fn append(run: &Run<'_>, text: &str) -> Result<()> {
    use std::io::Write;
    let folder = run.log.parent().context("a log without a folder")?;
    fs::create_dir_all(folder)?;
    let mut log = fs::File::options().create(true).append(true).open(run.log)?;
    Ok(log.write_all(text.as_bytes())?)
}

const TOOL_DEADLINE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_last_words() {
        let coloured =
            "\u{1b}[1mx\u{1b}[0m\n🚄 Passed \u{1b}[1;32m106/107\u{1b}[0m tests in 0.26 seconds\n❌ Some failed\n";
        assert_eq!(passed_of(coloured), Some(106));
        assert_eq!(passed_of("Test passed: x\n"), None);
        assert_eq!(passed_in_summary("147 tests, 146 passed, 0 skipped, 1 failed\n"), Some(146));
        assert_eq!(passed_in_summary(""), None);
    }
}
