//! `cargo xtask tidy`: the house rules a compiler does not check.

mod coverage;
mod rust_text;

use crate::bench::ablate;
use crate::tally::Tally;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Which crates of ours each may import, in any kind of dependency; a crate not listed may import all.
const ARROWS: &[(&str, &[&str])] = &[
    ("slimline-wire", &[]),
    ("slimline-config", &[]),
    ("slimline-fib", &["slimline-wire"]),
    ("slimline-node", &["slimline-wire", "slimline-fib", "slimline-config"]),
    ("slimline-session", &["slimline-wire", "slimline-config"]),
    ("xtask", &[]),
];

/// The rooms that may hold unsafe code, as path prefixes; each block argues its case there.
/// The test is here because an allocator that counts implements an unsafe trait.
const UNSAFE_ROOMS: &[&str] = &["node/src/io", "node/src/mesh", "node/tests/no_alloc.rs"];

/// Where people and build machines keep their checkouts; a path that starts so is true on one machine only.
const PRIVATE_PLACES: &[&str] = &["/home/", "/root/", "/Users/", "/work/", "/workspace/"];

/// The one place dependencies come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// One rule: reads what it needs, adds a line per offence.
type Rule = fn(&Workspace, &[PathBuf], &mut Vec<String>) -> Result<()>;

const RULES: &[(&str, Rule)] = &[
    ("arrows between crates", arrows),
    ("a README in every crate", readmes),
    ("unsafe in its rooms", unsafe_rooms),
    ("files say what they are", module_docs),
    ("no private paths", private_paths),
    ("relative links lead somewhere", links),
    ("coverage names what is there", coverage::rule),
    ("one registry", registry),
    ("ablations apply", ablations),
];

/// Checks every rule and prints offences; `true` when there are none.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let (tally, report) = check(workspace)?;
    print!("{report}");
    Ok(tally.failed == 0)
}

/// The same as a CI stage: one check per rule.
pub(crate) fn stage(workspace: &Workspace, log: &Path) -> Result<Tally> {
    let (tally, report) = check(workspace)?;
    fs::create_dir_all(log.parent().context("a log without a folder")?)?;
    fs::write(log, report)?;
    Ok(tally)
}

fn check(workspace: &Workspace) -> Result<(Tally, String)> {
    let files = workspace.tracked_files()?;
    let mut tally = Tally::default();
    let mut report = String::new();
    for (name, rule) in RULES {
        let mut offences = Vec::new();
        rule(workspace, &files, &mut offences)?;
        tally += if offences.is_empty() { Tally::PASSED } else { Tally::FAILED };
        writeln!(report, "{:<30} {}", name, if offences.is_empty() { "ok" } else { "FAILED" })?;
        for offence in offences {
            writeln!(report, "    {offence}")?;
        }
    }
    Ok((tally, report))
}

/// `wire ← fib ← node`, `wire ← session`, `config ← node, session`, and config imports none of ours.
fn arrows(workspace: &Workspace, _: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    let packages = workspace.metadata["packages"].as_array().context("metadata without packages")?;
    let names: Vec<_> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some((_, allowed)) = ARROWS.iter().find(|(of, _)| *of == name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(other) = dependency["name"].as_str().filter(|other| names.contains(other)) else { continue };
            let to_itself = other == name && dependency["kind"] == "dev"; // to switch a feature on in tests
            if !allowed.contains(&other) && !to_itself {
                offences.push(format!("{name} imports {other}"));
            }
        }
    }
    Ok(())
}

/// A patch that takes an optimisation out has to be kept with the code it is made of.
fn ablations(workspace: &Workspace, _: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    offences.extend(ablate::stale(workspace)?);
    Ok(())
}

fn readmes(workspace: &Workspace, _: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    for package in workspace.metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().context("a package without a manifest")?;
        let readme = Path::new(manifest).with_file_name("README.md");
        if !readme.is_file() {
            offences.push(format!("{} is missing", readme.strip_prefix(&workspace.root)?.display()));
        }
    }
    Ok(())
}

fn unsafe_rooms(workspace: &Workspace, files: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    for file in rust(files).filter(|file| !UNSAFE_ROOMS.iter().any(|room| file.starts_with(room))) {
        let text = read(workspace, file)?;
        for line in rust_text::lines_with_word(&text, "unsafe") {
            offences.push(format!("{}:{line}", file.display()));
        }
    }
    Ok(())
}

/// A reader should see at once where they stand.
fn module_docs(workspace: &Workspace, files: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    for file in rust(files) {
        let text = read(workspace, file)?;
        let documented = text.lines().any(|line| line.starts_with("//!"));
        if !documented {
            offences.push(format!("{} does not begin by saying what it is", file.display()));
        }
    }
    Ok(())
}

fn private_paths(workspace: &Workspace, files: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| !file.starts_with("xtask/src/tidy.rs")) {
        let Ok(text) = fs::read_to_string(workspace.root.join(file)) else { continue }; // golden bytes
        for (number, line) in (1..).zip(text.lines()) {
            for place in PRIVATE_PLACES {
                if line.match_indices(place).any(|(at, _)| !continues_a_path(&line[..at])) {
                    offences.push(format!("{}:{number}: a path below {place}", file.display()));
                }
            }
        }
    }
    Ok(())
}

/// Whether what precedes a slash makes it the middle of a longer path or an address.
fn continues_a_path(before: &str) -> bool {
    before
        .ends_with(|last: char| last.is_alphanumeric() || matches!(last, '.' | '-' | '_' | '~' | '}' | ')' | '/' | '*'))
}

/// Relative links of Markdown pages.
fn links(workspace: &Workspace, files: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    for page in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = read(workspace, page)?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split(['#', ' ']).next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let folder = page.parent().unwrap_or(Path::new(""));
            if !workspace.root.join(normal(&folder.join(path))).exists() {
                offences.push(format!("{} links to {target}", page.display()));
            }
        }
    }
    Ok(())
}

fn registry(workspace: &Workspace, _: &[PathBuf], offences: &mut Vec<String>) -> Result<()> {
    let lock = read(workspace, Path::new("Cargo.lock"))?;
    for source in lock.lines().filter_map(|line| line.strip_prefix("source = ")) {
        if source.trim_matches('"') != REGISTRY {
            offences.push(format!("Cargo.lock names {source}"));
        }
    }
    Ok(())
}

fn rust(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
}

fn read(workspace: &Workspace, file: &Path) -> Result<String> {
    fs::read_to_string(workspace.root.join(file)).with_context(|| file.display().to_string())
}

/// The path without `.` and `..`, which need not exist to be resolved.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_place_counts_only_at_the_start_of_a_path() {
        assert!(continues_a_path("https://example.org"));
        assert!(continues_a_path("target"));
        assert!(!continues_a_path("cd "));
        assert!(!continues_a_path("\""));
        assert!(!continues_a_path(""));
    }

    #[test]
    fn links_are_resolved_from_their_page() {
        assert_eq!(normal(Path::new("docs/../wire/./README.md")), Path::new("wire/README.md"));
    }
}
