//! What all examples share: where the node is, the demo secret, and a little colour.
#![allow(dead_code, unreachable_pub)] // each example takes its part

use slimline_session::{App, ConnectConfig, ConnectError};

/// For a demo on one machine. A real deployment hands its own to each application: `SLIM_SHARED_SECRET`.
const DEMO_SECRET: &str = "a secret for demonstrations, known to everybody";

/// The arguments behind `--node URL`, which may stand anywhere.
pub struct Arguments {
    pub node: String,
    pub words: Vec<String>,
}

impl Arguments {
    pub fn read() -> Self {
        let mut node = std::env::var("SLIM_NODE").unwrap_or_else(|_| "http://127.0.0.1:46357".to_owned());
        let mut words = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--node" => node = arguments.next().unwrap_or(node),
                _ => words.push(argument),
            }
        }
        Self { node, words }
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

/// One colour per name, so that a reader tells speakers apart.
pub fn coloured(name: &str) -> String {
    const COLOURS: [u8; 6] = [31, 32, 33, 34, 35, 36];
    let sum: usize = name.bytes().map(usize::from).sum();
    format!("\x1b[1;{}m{name}\x1b[0m", COLOURS[sum % COLOURS.len()])
}
