//! Where things are, and what cargo knows about them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The checkout this command works on.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where builds, virtual environments, logs and reports go.
    pub(crate) target: PathBuf,
    /// `cargo metadata --no-deps`, as it came.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// Asks cargo, starting at this package's manifest.
    ///
    /// Errors: cargo cannot be run, or does not understand the manifests.
    pub(crate) fn find() -> Result<Self> {
        let mut command = cargo();
        if let Some(manifest_dir) = env::var_os("CARGO_MANIFEST_DIR") {
            command.current_dir(manifest_dir);
        }
        let output = command.args(["metadata", "--no-deps", "--format-version", "1"]).output();
        let output = output.context("cannot run cargo")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let path = |key: &str| metadata[key].as_str().map(PathBuf::from).context("cargo metadata without its paths");
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, metadata })
    }

    /// Cargo, run at the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// Every file git tracks, relative to the root.
    ///
    /// Errors: this is not a git checkout, or git is missing.
    pub(crate) fn tracked_files(&self) -> Result<Vec<PathBuf>> {
        let output = Command::new("git").args(["ls-files", "-z"]).current_dir(&self.root).output();
        let output = output.context("cannot run git")?;
        ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
        let names = String::from_utf8(output.stdout).context("a tracked file's name is not UTF-8")?;
        // A file deleted but not yet staged is still listed.
        let files = names.split_terminator('\0').map(PathBuf::from).filter(|file| self.root.join(file).is_file());
        Ok(files.collect())
    }
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
