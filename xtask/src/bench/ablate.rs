//! Nodes that lack one optimisation: what each is worth is measured against the node that has it.
//!
//! `bench/ablations/NAME.patch` takes an optimisation out of the current tree. No key of the product switches it off; a patch
//! that no longer applies is an offence to `cargo xtask tidy`.

use crate::peers::{BUILD, Built, git};
use crate::run;
use crate::tools::Missing;
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the patches lie.
pub(crate) const FOLDER: &str = "bench/ablations";

/// Names of all patches, sorted.
pub(crate) fn names(workspace: &Workspace) -> Vec<String> {
    let entries = fs::read_dir(workspace.root.join(FOLDER)).into_iter().flatten().flatten();
    let patches = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "patch"));
    let mut names: Vec<String> = patches.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// Builds the node of this tree without the optimisation `name`, unless it has been built before.
///
/// Errors: [`Missing`] when there is no such patch; it does not apply, or the rest does not build.
pub(crate) fn build(workspace: &Workspace, built: &Built, name: &str) -> Result<PathBuf> {
    let patch = workspace.root.join(FOLDER).join(name).with_extension("patch");
    if !patch.is_file() {
        let there = names(workspace).join(", ");
        return Err(Missing(format!("no {FOLDER}/{name}.patch; there are {there}")).into());
    }
    let here = Path::new(".");
    // What is changed and not yet committed belongs to the current tree; an empty answer says that nothing is.
    let changed = git(workspace, here, &["stash", "create"])?;
    let commit = if changed.is_empty() { git(workspace, here, &["rev-parse", "HEAD"])? } else { changed };
    let tree = git(workspace, here, &["rev-parse", "--short=12", &format!("{commit}^{{tree}}:node")])?;
    let wire = git(workspace, here, &["rev-parse", "--short=12", &format!("{commit}^{{tree}}:wire")])?;
    let hash = git(workspace, here, &["hash-object", &patch.to_string_lossy()])?;
    let folder = workspace.target.join("ablations");
    let program = folder.join(format!("slimline-without-{name}-{tree}-{wire}-{}-{}", &hash[..12], built.profile));
    if program.is_file() {
        return Ok(program);
    }
    println!("building the node without {name}");
    let checkout = folder.join("checkout");
    let path = checkout.to_string_lossy().into_owned();
    let _ = git(workspace, here, &["worktree", "remove", "--force", &path]);
    git(workspace, here, &["worktree", "add", "--force", "--detach", &path, &commit])?;
    git(workspace, &checkout, &["apply", &patch.to_string_lossy()])
        .with_context(|| format!("{FOLDER}/{name}.patch has to be made anew"))?;
    let mut cargo = workspace.cargo();
    cargo.current_dir(&checkout).args(["build", "--profile", built.profile, "-p", "slimline-node"]);
    cargo.arg("--target-dir").arg(folder.join("build"));
    // Into a file: what an optimisation leaves unused is warned about, and of no interest.
    let log = folder.join(name).with_extension("log");
    let _ = fs::remove_file(&log);
    let ended = run::logged(&mut cargo, BUILD, &log)?;
    ensure!(ended.success(), "the node without {name} does not build: see {}", log.display());
    fs::copy(folder.join("build").join(built.profile).join("slimline"), &program)?;
    git(workspace, here, &["worktree", "remove", "--force", &path])?;
    Ok(program)
}

/// Patches that do not apply to the files as they are, one line each.
///
/// Errors: git cannot be run.
pub(crate) fn stale(workspace: &Workspace) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for name in names(workspace) {
        let patch = format!("{FOLDER}/{name}.patch");
        if let Err(error) = git(workspace, Path::new("."), &["apply", "--check", &patch]) {
            stale.push(format!("{patch}: {error:#}"));
        }
    }
    Ok(stale)
}
