//! What the node is measured against: `cargo xtask peers` provides it below `target/peers`.

mod nodelay;
mod start;

pub(crate) use start::Running;

use crate::bench::ablate;
use crate::run;
use crate::tools::{self, Missing};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The released node we compare with: package, version, program.
const REFERENCE: (&str, &str, &str) = ("agntcy-slim", "3.4.6", "slim");
/// How long a build may take.
pub(crate) const BUILD: Duration = Duration::from_secs(60 * 60);
/// What our own node is given unless the name says otherwise.
const OWN: &str = "shards: 1";

/// Who listens at the other end of the load generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A SLIM node, with what its `slimline:` block shall hold (empty for others' nodes).
    Slim {
        own: String,
    },
    Nats,
    /// The generator's own relay, and how it drives its sockets.
    Relay {
        drive: String,
    },
}

/// Something that can be started and measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As asked for on the command line, hence as reported.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) kind: Kind,
    /// TCP_NODELAY is set on its sockets from outside.
    pub(crate) nodelay: bool,
    /// Links without header MAC are allowed.
    pub(crate) lax: bool,
    /// What it says of itself, one line.
    pub(crate) version: String,
}

/// What is built of this workspace, with the profile measurements use.
pub(crate) struct Built {
    pub(crate) slimload: PathBuf,
    pub(crate) slimline: PathBuf,
    pub(crate) profile: &'static str,
}

/// Builds the node and the generator; `quick` takes the profile that links fast.
///
/// Errors: they do not build.
pub(crate) fn build(workspace: &Workspace, quick: bool) -> Result<Built> {
    let profile = if quick { "fast" } else { "release" };
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", profile, "-p", "slimline-node", "-p", "slimline-bench"]);
    match run::until(&mut cargo, BUILD)? {
        ended if ended.success() => {}
        _ => bail!("the node and the load generator do not build"),
    }
    let folder = workspace.target.join(profile);
    Ok(Built { slimload: folder.join("slimload"), slimline: folder.join("slimline"), profile })
}

/// A target's name taken apart.
///
/// Shape: BASE, then `+nodelay` and `+lax` in any order, then `:` and the node's own block. `commit:` and `without:`
/// belong to their base; a file's path is a base whatever it holds.
#[derive(Debug, PartialEq, Eq)]
struct Spelled<'a> {
    base: &'a str,
    nodelay: bool,
    lax: bool,
    own: Option<&'a str>,
}

impl<'a> Spelled<'a> {
    fn of(name: &'a str) -> Result<Self> {
        let scheme = ["commit:", "without:"].into_iter().find(|scheme| name.starts_with(scheme)).map_or(0, str::len);
        let (head, own) = match name[scheme..].find(':') {
            Some(at) => (&name[..scheme + at], Some(name[scheme + at + 1..].trim())),
            None => (name, None),
        };
        if Path::new(head).is_file() {
            return Ok(Self { base: head, nodelay: false, lax: false, own });
        }
        let mut parts = head.split('+');
        let base = parts.next().unwrap_or(head);
        let (mut nodelay, mut lax) = (false, false);
        for part in parts {
            match part {
                "nodelay" => nodelay = true,
                "lax" => lax = true,
                other => bail!("{name}: `+{other}` is neither +nodelay nor +lax"),
            }
        }
        Ok(Self { base, nodelay, lax, own })
    }
}

/// Resolves a name: `slimline`, `slimline:shards: 2, engine: epoll`, `slimline+lax`, `reference`, `reference+nodelay`,
/// `nats`, `relay`, `relay-splice`, `relay-tokio`, `without:mesh`, `commit:SHA` (or what else git understands), or a path to a
/// SLIM node's program.
///
/// Errors: [`Missing`] says what to install; anything else is not a target.
pub(crate) fn target(workspace: &Workspace, built: &Built, name: &str) -> Result<Target> {
    ensure_known(workspace, name)?;
    let Spelled { base, nodelay, lax, own } = Spelled::of(name)?;
    let ours = || Kind::Slim { own: own.unwrap_or(OWN).to_owned() };
    let relay = |drive: &str| -> Result<(PathBuf, Kind)> {
        ensure_drive(built, drive)?;
        Ok((built.slimload.clone(), Kind::Relay { drive: drive.into() }))
    };
    let (program, kind) = match base {
        "slimline" => (built.slimline.clone(), ours()),
        "reference" => (reference(workspace)?, Kind::Slim { own: String::new() }),
        "nats" => (nats(workspace)?, Kind::Nats),
        "relay" => relay("epoll")?,
        other => {
            if let Some(drive) = other.strip_prefix("relay-") {
                relay(drive)?
            } else if let Some(name) = other.strip_prefix("without:") {
                (ablate::build(workspace, built, name)?, ours())
            } else if let Some(commit) = other.strip_prefix("commit:") {
                (commit_build(workspace, commit)?, ours())
            } else if Path::new(other).is_file() {
                (fs::canonicalize(other)?, Kind::Slim { own: own.unwrap_or_default().to_owned() })
            } else {
                (commit_build(workspace, other)?, ours())
            }
        }
    };
    let mut version = version(&program, &kind);
    if nodelay {
        version.push_str("; TCP_NODELAY set on its sockets from outside");
    }
    Ok(Target { name: name.to_owned(), program, kind, nodelay, lax, version })
}

/// Whether a name is one of a target, before anything is built for it.
///
/// Errors: it is neither a target's, nor a file's, nor a commit's.
pub(crate) fn ensure_known(workspace: &Workspace, name: &str) -> Result<()> {
    let base = Spelled::of(name)?.base;
    if ["slimline", "reference", "nats", "relay"].contains(&base)
        || ["relay-", "without:"].iter().any(|scheme| base.starts_with(scheme))
        || Path::new(base).is_file()
    {
        return Ok(());
    }
    let commit = base.strip_prefix("commit:").unwrap_or(base);
    // What git adds to it is its own command line.
    ensure!(commit_sha(workspace, commit).is_ok(), "no target, file or commit `{base}` (cargo xtask help)");
    Ok(())
}

/// A commit's short name.
fn commit_sha(workspace: &Workspace, commit: &str) -> Result<String> {
    git(workspace, Path::new("."), &["rev-parse", "--short=12", "--verify", "--quiet", &format!("{commit}^{{commit}}")])
}

/// Whether the generator's relay can drive its sockets so.
fn ensure_drive(built: &Built, drive: &str) -> Result<()> {
    let help = Command::new(&built.slimload).args(["relay", "--help"]).stdin(Stdio::null()).output()?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let known = help.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == drive);
    if known { Ok(()) } else { Err(Missing(format!("slimload relay has no --engine {drive} here")).into()) }
}

/// One line of git, run at the root.
pub(crate) fn git(workspace: &Workspace, folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).current_dir(workspace.root.join(folder)).output();
    let output = output.context("cannot run git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds the node of another commit in a checkout of its own.
fn commit_build(workspace: &Workspace, commit: &str) -> Result<PathBuf> {
    let git = |arguments: &[&str]| git(workspace, Path::new("."), arguments);
    let sha = commit_sha(workspace, commit)?;
    let program = workspace.target.join("peers").join(format!("slimline-{sha}"));
    if program.is_file() {
        return Ok(program);
    }
    let checkout = workspace.target.join("peers").join(format!("checkout-{sha}"));
    if !checkout.is_dir() {
        git(&["worktree", "add", "--detach", &checkout.to_string_lossy(), &sha])?;
    }
    let mut cargo = workspace.cargo();
    cargo.current_dir(&checkout).args(["build", "--release", "-p", "slimline-node", "--target-dir"]);
    cargo.arg(workspace.target.join("peers/build"));
    ensure!(run::until(&mut cargo, BUILD)?.success(), "commit {sha} does not build");
    fs::copy(workspace.target.join("peers/build/release/slimline"), &program)?;
    git(&["worktree", "remove", "--force", &checkout.to_string_lossy()])?;
    Ok(program)
}

/// What `cargo xtask peers --reference PATH` or `--nats PATH` left.
fn given(workspace: &Workspace, name: &str) -> Option<PathBuf> {
    fs::canonicalize(workspace.target.join("peers").join(name)).ok().filter(|path| path.is_file())
}

/// The released reference node, built once; `SLIM_REFERENCE`, or `peers --reference`, names one that is there already.
pub(crate) fn reference(workspace: &Workspace) -> Result<PathBuf> {
    let (package, version, program) = REFERENCE;
    if let Some(path) = std::env::var_os("SLIM_REFERENCE").map(PathBuf::from) {
        ensure!(path.is_file(), "SLIM_REFERENCE={} is no file", path.display());
        return Ok(path);
    }
    if let Some(path) = given(workspace, "reference") {
        return Ok(path);
    }
    let root = workspace.target.join("peers").join(format!("{package}-{version}"));
    let path = root.join("bin").join(program);
    if path.is_file() {
        return Ok(path);
    }
    let needed = [("cmake", "cmake"), ("clang", "clang"), ("protoc", "protobuf-compiler")];
    let lacks = |tool: &str| !tools::succeeds(Command::new(tool).arg("--version"));
    let missing: Vec<_> = needed.into_iter().filter(|(tool, _)| lacks(tool)).collect();
    if !missing.is_empty() {
        let (tools, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        return Err(Missing(format!(
            "the reference node needs {} to be built (apt: {}); or name one that is built: cargo xtask peers --reference PATH",
            tools.join(" and "),
            packages.join(" ")
        ))
        .into());
    }
    println!("building {package} {version} into {} (several minutes, once)", root.display());
    let mut cargo = workspace.cargo();
    cargo.args(["install", package, "--version", version, "--locked", "--root"]).arg(&root);
    ensure!(run::until(&mut cargo, BUILD)?.success(), "{package} {version} does not build here");
    Ok(path)
}

fn nats(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = given(workspace, "nats-server") {
        return Ok(path);
    }
    for candidate in ["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"] {
        if Path::new(candidate).is_file() {
            return Ok(candidate.into());
        }
    }
    let text = "nats-server is not installed (apt: nats-server); or name one: cargo xtask peers --nats PATH";
    Err(Missing(text.into()).into())
}

fn version(program: &Path, kind: &Kind) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let line: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match kind {
        Kind::Relay { drive } => format!("{} relay, {drive}", line.join(" ")),
        _ => line.join(", ").replace('\t', " "),
    }
}

impl Target {
    /// What `slimload --peer` calls it.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.kind {
            Kind::Slim { .. } => "slim",
            Kind::Nats => "nats",
            Kind::Relay { .. } => "relay",
        }
    }

    /// A file name made of its name.
    pub(crate) fn slug(&self) -> String {
        slug(&self.name)
    }
}

/// Lower case letters, digits and dashes.
pub(crate) fn slug(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    clean.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// `peers`: what is there already.
#[derive(Default)]
pub(crate) struct Flags {
    /// The reference node's program.
    pub(crate) reference: Option<PathBuf>,
    /// A NATS server's program.
    pub(crate) nats: Option<PathBuf>,
}

/// What `cargo xtask peers` provides.
const NAMES: [&str; 9] = [
    "slimline",
    "reference",
    "reference+nodelay",
    "nats",
    "relay",
    "relay-uring",
    "relay-glommio",
    "relay-tokio",
    "relay-splice",
];

/// `cargo xtask peers`: provides everything and says where it is; `false` if something is missing.
///
/// Errors: a program that was named is none, or something does not build.
pub(crate) fn run(workspace: &Workspace, flags: &Flags) -> Result<bool> {
    let folder = workspace.target.join("peers");
    fs::create_dir_all(&folder)?;
    for (path, name) in [(&flags.reference, "reference"), (&flags.nats, "nats-server")] {
        let Some(path) = path else { continue };
        let program = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        ensure!(program.is_file(), "{} is no program", path.display());
        let _ = fs::remove_file(folder.join(name));
        symlink(program, folder.join(name))?;
    }
    // Before our own is built: what these lack takes a person to provide.
    for provided in [reference(workspace), nats(workspace)] {
        match provided {
            Err(error) if error.is::<Missing>() => println!("missing: {error:#}"),
            other => drop(other?),
        }
    }
    let built = build(workspace, false)?;
    let mut complete = true;
    for name in NAMES {
        match target(workspace, &built, name) {
            Ok(target) => println!("{name:<18} {}  ({})", target.program.display(), target.version),
            Err(error) if error.is::<Missing>() => {
                println!("{name:<18} missing: {error:#}");
                complete = false;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_file_names() {
        assert_eq!(slug("slimline:shards: 2, engine: epoll"), "slimline-shards-2-engine-epoll");
        assert_eq!(slug("/usr/bin/Slim"), "usr-bin-slim");
    }

    #[test]
    fn what_is_no_target_is_said_before_anything_is_built() {
        let workspace = Workspace::find().unwrap();
        for name in [
            "slimline:shards: 2",
            "reference+nodelay",
            "relay-splice",
            "without:mesh",
            "HEAD",
            "commit:HEAD",
            "/bin/sh",
        ] {
            ensure_known(&workspace, name).unwrap();
        }
        for name in ["nonsense", "commit:nonsense", "reference+nagle"] {
            let refused = ensure_known(&workspace, name).unwrap_err().to_string();
            assert!(refused.contains(name.trim_start_matches("commit:")), "{refused}");
        }
    }

    #[test]
    fn names_are_taken_apart() {
        let plain = |base| Spelled { base, nodelay: false, lax: false, own: None };
        assert_eq!(Spelled::of("relay-tokio").unwrap(), plain("relay-tokio"));
        assert_eq!(Spelled::of("reference+nodelay").unwrap(), Spelled { nodelay: true, ..plain("reference") });
        let own = Some("shards: 2, engine: epoll");
        assert_eq!(Spelled::of("slimline:shards: 2, engine: epoll").unwrap(), Spelled { own, ..plain("slimline") });
        let own = Some("shards: 2");
        assert_eq!(Spelled::of("slimline+lax: shards: 2").unwrap(), Spelled { own, lax: true, ..plain("slimline") });
        assert_eq!(Spelled::of("commit:v1.0").unwrap(), plain("commit:v1.0"));
        assert_eq!(Spelled::of("without:mesh:shards: 2").unwrap(), Spelled { own, ..plain("without:mesh") });
        assert!(Spelled::of("reference+nagle").is_err());
    }
}
