//! The configuration of a slimline node: a YAML text goes in, a [`Config`] the node can trust comes out.
//!
//! ```text
//! text ─ yaml (tree with places) ─ reference (${…}) ─ raw (as written) ─ checked (as used)
//! ```
//!
//! Files of SLIM 3.4 nodes are read with the same strictness and the same error texts; every refusal also says at which
//! line and key it happened and what to do.

mod block;
mod checked;
mod duration;
mod error;
mod raw;
mod reference;
mod yaml;

use std::path::{Path, PathBuf};

pub use checked::client::{Backoff, Client, ClientKeepalive, ClientTls, Pem};
pub use checked::server::{Keepalive, Listen, Server};
pub use checked::slimline::{
    Engine, Io, IoFeature, Limits, SHARDS_MAX, ServerExt, Slimline, SlowReader, SlowReaderPolicy, Stats,
};
pub use checked::{Config, DefaultGateway, LogLevel, Runtime, Service, Tracing};
pub use duration::{format_duration, parse_duration};
pub use error::{ConfigError, Place, Warning};

/// What runs when no file is given: the data plane on 127.0.0.1:46357, plain HTTP/2.
pub const EMBEDDED: &str = include_str!("../base/embedded.yaml");

/// Reads and checks a configuration file. `env` answers for environment variables.
///
/// Errors: the first thing wrong, in the order a node would meet it; see [`ConfigError`].
pub fn load(path: &Path, env: &impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let source_name = path.display().to_string();
    let failed = |cause: String, help: &str| {
        ConfigError::new(None, "", "io error").because(cause).help(help).source_name(&source_name)
    };
    let octets = std::fs::read(path).map_err(|error| {
        failed(error.to_string(), "give the file with --config FILE or the environment variable CONFIG")
    })?;
    let text =
        String::from_utf8(octets).map_err(|error| failed(error.to_string(), "a configuration file is UTF-8 text"))?;
    parse(&text, &source_name, env)
}

/// Checks a configuration text; `source_name` is what messages call it.
///
/// `${file:…}` references are read from the file system, relative to the working directory.
///
/// Errors: as [`load`].
pub fn parse(text: &str, source_name: &str, env: &impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let mut config = read(text, env).map_err(|error| error.source_name(source_name))?;
    for warning in &mut config.warnings {
        source_name.clone_into(&mut warning.source_name);
    }
    Ok(config)
}

fn read(text: &str, env: &impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let mut warnings = Vec::new();
    let mut root = yaml::parse(text)?;
    reference::resolve(&mut root, "", env, &mut warnings)?;
    let document = raw::Document::read(&root, &mut warnings)?;
    Config::check(document, warnings)
}

/// Checks a client entry on its own, YAML or JSON: the file an application connects with. `${…}` works as in [`parse`].
///
/// Errors: as [`load`].
pub fn client(text: &str, source_name: &str, env: &impl Fn(&str) -> Option<String>) -> Result<Client, ConfigError> {
    let read = || {
        let mut warnings = Vec::new();
        let mut root = yaml::parse(text)?;
        reference::resolve(&mut root, "", env, &mut warnings)?;
        let node = block::At { value: &root, place: root.place, path: String::new() };
        let raw = raw::client::Client::read(node, &[], block::Unknown::Ignored, &mut warnings)?;
        Client::check(raw, warnings)
    };
    let mut client = read().map_err(|error: ConfigError| error.source_name(source_name))?;
    for warning in &mut client.warnings {
        source_name.clone_into(&mut warning.source_name);
    }
    Ok(client)
}

/// The configuration [`EMBEDDED`] describes.
pub fn embedded_default() -> Config {
    parse(EMBEDDED, "embedded default", &|_: &str| None).expect("a test parses the embedded default")
}

/// Where a node without a file puts its stats socket, and where `slimline stats` looks for it:
/// `$XDG_RUNTIME_DIR/slimline/<port>.sock`; `None` where there is no such directory.
pub fn default_stats_socket(port: u16, env: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let directory = PathBuf::from(env("XDG_RUNTIME_DIR")?);
    directory.is_absolute().then(|| directory.join("slimline").join(format!("{port}.sock")))
}
