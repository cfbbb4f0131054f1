//! What all examples share: where the node is, the demo secret, how a program ends, and a little colour.
#![allow(dead_code, unreachable_pub)] // each example takes its part

use std::error::Error;
use std::process::ExitCode;

use slimline_session::{App, ConnectConfig, ConnectError};
use tokio::sync::mpsc;

/// For a demo on one machine. A real deployment hands its own to each application: `SLIM_SHARED_SECRET`.
const DEMO_SECRET: &str = "a secret for demonstrations, known to everybody";

/// What every example takes beside its own words.
const COMMON: &str = "
  --node URL           where the node is: http://, https://, ws://, wss://host:port or unix:///path
                       (default: $SLIM_NODE, else http://127.0.0.1:46357)
  --help               this text

  SLIM_SHARED_SECRET   the secret all sides share, at least 32 octets (default: one for demonstrations)
  SLIM_LAX             set: also use a node without header MACs";

/// What was said on the command line.
pub struct Arguments {
    usage: &'static str,
    node: String,
    words: Vec<String>,
}

impl Arguments {
    /// Reads them; `usage` is what `--help` shows.
    pub fn read(usage: &'static str) -> Result<Self, Box<dyn Error>> {
        let mut node = std::env::var("SLIM_NODE").unwrap_or_else(|_| "http://127.0.0.1:46357".to_owned());
        let mut words = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => {
                    println!("{usage}\n{COMMON}");
                    std::process::exit(0);
                }
                "--node" => node = arguments.next().ok_or("--node needs a URL behind it")?,
                option if option.starts_with("--") => return Err(format!("unknown option {option}, see --help").into()),
                _ => words.push(argument),
            }
        }
        Ok(Self { usage, node, words })
    }

    /// Nothing we know: how it is done.
    pub fn misused(&self) -> Box<dyn Error> {
        format!("{}\nsee --help", self.usage).into()
    }

    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// An application of that name on the node.
    pub async fn app(&self, name: &str) -> Result<App, ConnectError> {
        let secret = std::env::var("SLIM_SHARED_SECRET").unwrap_or_else(|_| DEMO_SECRET.to_owned());
        let mut config = ConnectConfig::new(&self.node);
        if std::env::var_os("SLIM_LAX").is_some() {
            config = config.lax(); // a node embedded in an SDK may run without header MACs
        }
        App::with_secret(name, &secret)?.connect(config).await
    }
}

/// Works until that is done, or until Ctrl-C; either way peers and node are told that we go.
pub async fn until_stopped(
    app: &App,
    work: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> Result<(), Box<dyn Error>> {
    let result = tokio::select! {
        result = work => result,
        interrupted = tokio::signal::ctrl_c() => {
            println!(); // after the ^C that terminals show
            interrupted.map_err(Into::into)
        }
    };
    app.clone().shut_down().await;
    result
}

/// The lines that are typed. They are read by a thread that does not keep the program from ending.
pub fn typed() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.blocking_send(line))
    });
    lines
}

/// Ends a program: an error is told in its own words.
pub fn exit(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// One colour per name, so that a reader tells speakers apart.
pub fn coloured(name: &str) -> String {
    use std::io::IsTerminal as _;
    if !std::io::stdout().is_terminal() {
        return name.to_owned();
    }
    const COLOURS: [u8; 6] = [31, 32, 33, 34, 35, 36];
    let sum: usize = name.bytes().map(usize::from).sum();
    format!("\x1b[1;{}m{name}\x1b[0m", COLOURS[sum % COLOURS.len()])
}
