//! What the node is measured against, and how each is started: `cargo xtask peers` provides them below `target/peers`.

use crate::run::{self, Ended};
use crate::tools::{self, Missing};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The released node we compare with: package, version, program.
const REFERENCE: (&str, &str, &str) = ("agntcy-slim", "3.4.6", "slim");
/// How long a build may take.
const BUILD: Duration = Duration::from_secs(60 * 60);
/// How long a node may take until it listens.
const START: Duration = Duration::from_secs(15);

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
    /// What it says of itself, one line.
    pub(crate) version: String,
}

/// A started target; it ends when this is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) endpoint: String,
    /// What it logged.
    pub(crate) log: PathBuf,
}

/// What is built of this workspace, with the profile measurements use.
pub(crate) struct Built {
    pub(crate) slimload: PathBuf,
    pub(crate) slimline: PathBuf,
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
    Ok(Built { slimload: folder.join("slimload"), slimline: folder.join("slimline") })
}

/// Resolves a name: `slimline`, `slimline:shards: 2, engine: epoll`, `reference`, `nats`, `relay`, `relay-splice`,
/// `relay-tokio`, `commit:SHA`, or a path to a SLIM node's program.
///
/// Errors: [`Missing`] says what to install; anything else is not a target.
pub(crate) fn target(workspace: &Workspace, built: &Built, name: &str) -> Result<Target> {
    let (base, own) = match name.split_once(':') {
        Some(("slimline", own)) => ("slimline", own.trim().to_owned()),
        _ => (name, String::new()),
    };
    let (program, kind) = match base {
        "slimline" => {
            (built.slimline.clone(), Kind::Slim { own: if own.is_empty() { "shards: 1".into() } else { own } })
        }
        "reference" => (reference(workspace)?, Kind::Slim { own: String::new() }),
        "nats" => (nats()?, Kind::Nats),
        "relay" => (built.slimload.clone(), Kind::Relay { drive: "epoll".into() }),
        other => {
            if let Some(drive) = other.strip_prefix("relay-") {
                (built.slimload.clone(), Kind::Relay { drive: drive.to_owned() })
            } else if let Some(commit) = other.strip_prefix("commit:") {
                (commit_build(workspace, commit)?, Kind::Slim { own: "shards: 1".into() })
            } else {
                let path = PathBuf::from(other);
                ensure!(
                    path.is_file(),
                    "no target `{other}`: name one (cargo xtask peers lists them) or give a program's path"
                );
                (fs::canonicalize(path)?, Kind::Slim { own: String::new() })
            }
        }
    };
    let version = version(&program, &kind);
    Ok(Target { name: name.to_owned(), program, kind, version })
}

/// Builds the node of another commit in a checkout of its own.
fn commit_build(workspace: &Workspace, commit: &str) -> Result<PathBuf> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output =
            Command::new("git").args(arguments).current_dir(&workspace.root).output().context("cannot run git")?;
        ensure!(
            output.status.success(),
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sha = git(&["rev-parse", "--short=12", &format!("{commit}^{{commit}}")])?;
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

/// The released reference node, built once; `SLIM_REFERENCE` names one that is there already.
pub(crate) fn reference(workspace: &Workspace) -> Result<PathBuf> {
    let (package, version, program) = REFERENCE;
    if let Some(path) = std::env::var_os("SLIM_REFERENCE").map(PathBuf::from) {
        ensure!(path.is_file(), "SLIM_REFERENCE={} is no file", path.display());
        return Ok(path);
    }
    let root = workspace.target.join("peers").join(format!("{package}-{version}"));
    let path = root.join("bin").join(program);
    if path.is_file() {
        return Ok(path);
    }
    for (tool, package) in [("cmake", "cmake"), ("clang", "clang"), ("protoc", "protobuf-compiler")] {
        if !tools::succeeds(Command::new(tool).arg("--version")) {
            return Err(Missing(format!("the reference node needs {tool} to be built (apt: {package})")).into());
        }
    }
    println!("building {package} {version} into {} (several minutes, once)", root.display());
    let mut cargo = workspace.cargo();
    cargo.args(["install", package, "--version", version, "--locked", "--root"]).arg(&root);
    ensure!(run::until(&mut cargo, BUILD)?.success(), "{package} {version} does not build here");
    Ok(path)
}

fn nats() -> Result<PathBuf> {
    for candidate in ["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"] {
        if Path::new(candidate).is_file() {
            return Ok(candidate.into());
        }
    }
    Err(Missing("nats-server is not installed (apt: nats-server)".into()).into())
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

    /// Starts it on a free port of loopback, on CPU `cpu` if given, and waits until it listens.
    ///
    /// Errors: it does not start; its log is shown.
    pub(crate) fn start(&self, workspace: &Workspace, cpu: Option<u32>) -> Result<Running> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let folder = workspace.target.join("bench");
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{}-{port}.log", self.slug()));
        let mut command = match cpu {
            Some(cpu) if tools::succeeds(Command::new("taskset").arg("--version")) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &cpu.to_string()]).arg(&self.program);
                command
            }
            _ => Command::new(&self.program),
        };
        match &self.kind {
            Kind::Slim { own } => {
                let config = folder.join(format!("{}-{port}.yaml", self.slug()));
                fs::write(&config, configuration(port, own))?;
                command.arg("--config").arg(config);
            }
            Kind::Nats => {
                command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
            }
            Kind::Relay { drive } => {
                command.args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--drive", drive]);
            }
        }
        let file = fs::File::create(&log)?;
        command.env_remove("CONFIG").stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut running = Running { child, endpoint: format!("127.0.0.1:{port}"), log };
        running.wait_until_it_listens(&self.name)?;
        Ok(running)
    }
}

/// Lower case letters, digits and dashes.
pub(crate) fn slug(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    clean.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// A node's configuration: one listener without TLS.
fn configuration(port: u16, own: &str) -> String {
    let own = if own.is_empty() { String::new() } else { format!("slimline: {{{own}}}\n") };
    format!(
        "tracing: {{log_level: info}}\nservices:\n  slim/0:\n    dataplane:\n      servers:\n        \
         - endpoint: \"127.0.0.1:{port}\"\n          tls: {{insecure: true}}\n{own}"
    )
}

impl Running {
    /// Its process, for CPU time and memory.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_listens(&mut self, name: &str) -> Result<()> {
        let address: SocketAddr = self.endpoint.parse()?;
        let started = Instant::now();
        loop {
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended at once ({status}):\n{}", log());
            }
            ensure!(started.elapsed() < START, "{name} does not listen on {address} after {START:?}:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it is still there; a node that died during a measurement is a finding.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!(
                    "the node died ({status}); its last lines:\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                )
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        if let Ok(Ended::Deadline(_)) = run::wait(&mut self.child, Duration::from_secs(5)) {
            let _ = self.child.wait();
        }
    }
}

/// `cargo xtask peers`: provides everything and says where it is; `false` if something is missing.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let built = build(workspace, false)?;
    let mut complete = true;
    for name in ["slimline", "reference", "nats", "relay", "relay-splice", "relay-tokio"] {
        match target(workspace, &built, name) {
            Ok(target) => println!("{name:<13} {}  ({})", target.program.display(), target.version),
            Err(error) if error.is::<Missing>() => {
                println!("{name:<13} missing: {error:#}");
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
    fn a_strangers_node_gets_no_block_it_does_not_know() {
        assert!(!configuration(1, "").contains("slimline"));
        assert!(configuration(1, "shards: 1").contains("slimline: {shards: 1}"));
    }
}
