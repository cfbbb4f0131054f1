//! `slimline stats`: asks a running node over its local socket.

use crate::failure::Failure;
use slimline_node::stats;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Prints the state of the node behind the wanted socket, as text or JSON.
pub(crate) fn run(socket: Option<PathBuf>, json: bool, env: &impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let path = match socket {
        Some(path) => path,
        None => slimline_config::default_stats_socket(46357, env).ok_or_else(|| {
            Failure::new("no stats socket: give --socket PATH (XDG_RUNTIME_DIR is not set, so there is no default)")
        })?,
    };
    let asking = |error: std::io::Error| {
        let help = "is the node running, and is slimline.stats.socket set in its configuration?";
        Failure::because(format!("cannot ask {}: {help}", path.display()), &error)
    };
    let mut socket = UnixStream::connect(&path).map_err(asking)?;
    socket.set_read_timeout(Some(ANSWER_DEADLINE)).map_err(asking)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(asking)?;
    if json {
        print!("{answer}");
        return Ok(());
    }
    let document: serde_json::Value = serde_json::from_str(&answer)
        .map_err(|error| Failure::because(format!("{} does not answer as a slimline node", path.display()), &error))?;
    match document.as_array() {
        Some(services) => services.iter().for_each(|service| println!("{}", stats::text(service))),
        None => println!("{}", document["error"].as_str().unwrap_or(&answer)),
    }
    Ok(())
}
