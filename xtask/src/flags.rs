//! What can be asked for on the command line.

use anyhow::{Result, bail};
use pico_args::Arguments;

pub(crate) const HELP: &str = "\
Development commands of slimline.

    cargo xtask ci [--deep] [--only STAGE]...   what CI runs, from fast to slow
    cargo xtask tidy                            the house rules a compiler does not check
    cargo xtask help                            this page
";

pub(crate) enum Command {
    Help,
    Ci(Ci),
    Tidy,
}

/// `ci`: which stages, and how thorough.
pub(crate) struct Ci {
    /// Also what takes long or needs more than a build machine usually has.
    pub(crate) deep: bool,
    /// Stage names; empty for all.
    pub(crate) only: Vec<String>,
}

/// Reads the command line.
///
/// Errors: an unknown command or option, named in the text.
pub(crate) fn parse() -> Result<Command> {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        return Ok(Command::Help);
    }
    let command = match arguments.subcommand()?.as_deref() {
        None | Some("help") => Command::Help,
        Some("ci") => {
            Command::Ci(Ci { deep: arguments.contains("--deep"), only: arguments.values_from_str("--only")? })
        }
        Some("tidy") => Command::Tidy,
        Some(other) => bail!("no command `{other}`; `cargo xtask help` lists them"),
    };
    let rest = arguments.finish();
    if let Some(first) = rest.first() {
        bail!("unexpected argument `{}`; `cargo xtask help` lists what each command takes", first.to_string_lossy());
    }
    Ok(command)
}
