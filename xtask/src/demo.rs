//! `cargo xtask demo`: a node, and two real SLIM programs that talk through it.

use crate::flags::Demo;
use crate::interop;
use crate::run::{self, Ended};
use crate::tools::{self, Missing, System};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Runs the demo; `true` when Alice and Bob understood each other and the node stopped cleanly.
///
/// Errors: the node does not build or start, or Python is missing; the text says what to do.
pub(crate) fn run(workspace: &Workspace, flags: &Demo) -> Result<bool> {
    let binary = if let Some(binary) = &flags.binary {
        binary.clone()
    } else {
        println!("Building the node (the first time takes a minute or two) …");
        interop::build_node(workspace, System::LeaveAlone)?
    };
    let requirements = workspace.root.join("node/tests/interop/requirements.txt");
    let python = match tools::python(workspace, &requirements, System::LeaveAlone) {
        Err(error) if error.is::<Missing>() => {
            bail!(
                "{error:#}. The demo's two programs are Python and use the released SLIM SDK from PyPI: it takes \
                   Python 3.11 or newer with venv and pip, and a network the first time"
            )
        }
        other => other?,
    };

    let folder = workspace.target.join("demo");
    fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let mut node = start_node(&binary, &folder, &address, None)?;
    println!(
        "node     I am {}, process {}, listening on {address}.",
        binary.file_name().unwrap_or_default().display(),
        node.0.id()
    );

    let program = workspace.root.join("xtask/demo/app.py");
    let app = |who: &str| {
        let mut command = Command::new(&python);
        command.arg(&program).args([&format!("http://{address}"), who]).env("RUST_LOG", "off");
        command
    };
    let bob = Spoken::start(&mut app("bob"), "bob", &folder)?;
    bob.wait_for_first_line()?;
    let alice = Spoken::start(&mut app("alice"), "alice", &folder)?;
    let well = alice.finish()? & bob.finish()?;
    let stopped = node.stop()?;

    if well && stopped {
        println!(
            "\nTwo unmodified SLIM programs found each other by name through this node, agreed on keys with each other \
             (MLS)\nand talked; the node forwarded what it could not read. Everything has been cleaned up; logs are in {}.",
            folder.display()
        );
    } else {
        println!("\nThat did not go as it should; the logs are in {}.", folder.display());
    }
    Ok(well && stopped)
}

/// Starts the node, with so many shards or as many as it likes, and waits until it accepts connections.
pub(crate) fn start_node(binary: &Path, folder: &Path, address: &str, shards: Option<u16>) -> Result<Running> {
    let config = folder.join("node.yaml");
    let server = format!("{{endpoint: \"{address}\", tls: {{insecure: true}}}}");
    let own = shards.map(|shards| format!("slimline: {{shards: {shards}}}\n")).unwrap_or_default();
    fs::write(&config, format!("{own}services:\n  slim/0:\n    dataplane:\n      servers: [{server}]\n"))?;
    let log = File::create(folder.join("node.log"))?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut node = Running(command.env("NO_COLOR", "1").spawn().context("cannot start the node")?);
    let patience = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        let log = || fs::read_to_string(folder.join("node.log")).unwrap_or_default();
        if let Some(status) = node.0.try_wait()? {
            bail!("the node ended with {status}:\n{}", log());
        }
        ensure!(Instant::now() < patience, "the node does not accept connections:\n{}", log());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(node)
}

/// A process that is gone when this value is.
pub(crate) struct Running(Child);

impl Running {
    /// Asks the process to end, and waits until it has, or until its time is over.
    pub(crate) fn ask_to_end(&mut self) -> Result<Ended> {
        let id = self.0.id().to_string();
        run::until(Command::new("kill").args(["-TERM", &id]), Duration::from_secs(5))?;
        run::wait(&mut self.0, Duration::from_secs(20))
    }

    /// Asks the process to end and says how that went; whether it did so in time and with status 0.
    fn stop(&mut self) -> Result<bool> {
        let ended = self.ask_to_end()?;
        println!(
            "node     {}",
            match ended {
                Ended::Exit(status) if status.success() => "I was asked to stop and did.".to_owned(),
                Ended::Exit(status) => format!("I ended with {status}."),
                Ended::Deadline(limit) => format!("I was asked to stop and did not within {} s.", limit.as_secs()),
            }
        );
        Ok(ended.success())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program whose lines are shown behind its name, as they come.
struct Spoken {
    process: Running,
    first: Receiver<()>,
    listener: JoinHandle<()>,
}

impl Spoken {
    fn start(command: &mut Command, who: &'static str, folder: &Path) -> Result<Self> {
        let log = File::create(folder.join(who).with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = Running(command.spawn().with_context(|| format!("cannot start {who}"))?);
        let output = process.0.stdout.take().context("a process without output")?;
        let (heard, first) = mpsc::channel();
        let listener = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("{who:<8} {line}");
                let _ = heard.send(());
            }
        });
        Ok(Self { process, first, listener })
    }

    /// Waits until the program has said something.
    fn wait_for_first_line(&self) -> Result<()> {
        self.first.recv_timeout(Duration::from_secs(20)).context("one of the programs said nothing")
    }

    /// Waits until the program has ended and everything it said was shown; whether it ended well.
    fn finish(mut self) -> Result<bool> {
        let ended = run::wait(&mut self.process.0, Duration::from_secs(40))?;
        let _ = self.listener.join();
        Ok(ended.success())
    }
}

/// An address of this machine nobody listens on.
pub(crate) fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
