//! Provides the Python and npm packages that demo and interop need, privately below `target/`.

use crate::run;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Something this machine lacks, and what to do about it.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// May system packages be installed?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// As CI does: what is missing comes from apt, if we are root and there is one.
    Install,
    /// As on somebody's own machine: only say what is missing.
    LeaveAlone,
}

/// The interpreter of a private environment that holds the packages in `requirements`.
///
/// Errors: [`Missing`] when Python, its venv module or a package index is not there.
pub(crate) fn python(workspace: &Workspace, requirements: &Path, system: System) -> Result<PathBuf> {
    let venv = workspace.target.join("interop-venv");
    let python = venv.join("bin/python");
    let wanted = fs::read_to_string(requirements)?;
    let stamp = venv.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    need("python3", &["python3"], system)?;
    if !succeeds(Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 11))"])) {
        return Err(Missing("Python 3.11 or newer is needed".into()).into());
    }
    println!("installing the Python packages of {} into {}", requirements.display(), venv.display());
    if !succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        apt(&["python3-venv"], system)
            .context(Missing("Python's venv module is missing (apt: python3-venv)".into()))?;
    }
    let _ = fs::remove_dir_all(&venv);
    patiently(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    patiently(Command::new(&python).args(quiet).arg(requirements))?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

/// A folder whose `node_modules` holds what `manifest` (a package.json) asks for.
///
/// Errors: [`Missing`] when npm or its registry is not there.
pub(crate) fn npm(workspace: &Workspace, manifest: &Path, system: System) -> Result<PathBuf> {
    let folder = workspace.target.join("interop-js");
    let wanted = fs::read_to_string(manifest)?;
    let stamp = folder.join("installed.json");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    need("npm", &["npm"], system)?;
    println!("installing the npm packages of {} into {}", manifest.display(), folder.display());
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("package.json"), &wanted)?;
    patiently(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(&folder))?;
    fs::write(stamp, wanted)?;
    Ok(folder)
}

/// Cargo of the nightly toolchain, which has the component `component` (or is given one nobody lacks: `rustc`).
///
/// Errors: [`Missing`] when there is no such toolchain, or it lacks the component.
pub(crate) fn nightly(workspace: &Workspace, component: &str) -> Result<Command> {
    let asked: &[&str] =
        if component == "rustc" { &["rustc", "--version"] } else { &["cargo", component, "--version"] };
    if !succeeds(&mut nightly_command(workspace, asked)) {
        let advice = format!("a nightly toolchain with {component} is missing (rustup toolchain install nightly)");
        return Err(Missing(advice).into());
    }
    Ok(nightly_command(workspace, &["cargo"]))
}

fn nightly_command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(arguments).current_dir(&workspace.root);
    // The toolchain is chosen here; what the outer cargo exported would override it.
    for exported in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(exported);
    }
    command
}

/// The triple of the machine the nightly compiler runs on.
///
/// Errors: there is none, or it does not say.
pub(crate) fn host(workspace: &Workspace) -> Result<String> {
    let output = nightly_command(workspace, &["rustc", "-vV"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("rustc -vV names no host")
}

/// The program of a crate, installed once below `target/tools`.
///
/// Errors: [`Missing`] when it cannot be had or does not build.
pub(crate) fn cargo_installed(workspace: &Workspace, package: &str, version: &str, program: &str) -> Result<PathBuf> {
    let root = workspace.target.join("tools");
    let installed = root.join("bin").join(program);
    if installed.is_file() {
        return Ok(installed);
    }
    println!("installing {package} {version} into {}", root.display());
    let mut install = workspace.cargo();
    install.args(["install", "--quiet", "--locked", package, "--version", version, "--root"]).arg(&root);
    install.stdin(Stdio::null());
    if run::until(&mut install, CARGO_INSTALL_DEADLINE)?.success() {
        return Ok(installed);
    }
    Err(Missing(format!("{package} {version} cannot be installed")).into())
}

/// Makes sure `program` can be run, from apt `packages` if need be.
pub(crate) fn need(program: &str, packages: &[&str], system: System) -> Result<()> {
    if on_path(program) {
        return Ok(());
    }
    apt(packages, system).context(Missing(format!("{program} is missing (apt: {})", packages.join(" "))))
}

/// Whether a program of this name can be run.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn apt(packages: &[&str], system: System) -> Result<()> {
    let root = fs::metadata("/proc/self").is_ok_and(|owner| owner.uid() == 0);
    if system == System::LeaveAlone || !root || !on_path("apt-get") {
        return Err(Missing("system packages are not ours to install here".into()).into());
    }
    println!("installing system packages: {}", packages.join(" "));
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    patiently(apt_get().arg("update"))?;
    patiently(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// Runs an installer; that it fails means that something is missing, a network most often.
fn patiently(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null());
    let ended = run::until(command, INSTALL_DEADLINE)?;
    if ended.success() { Ok(()) } else { Err(Missing(format!("this failed: {command:?}")).into()) }
}

pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

const CARGO_INSTALL_DEADLINE: Duration = Duration::from_secs(20 * 60);
