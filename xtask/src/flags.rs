//! What can be asked for on the command line.

use anyhow::{Result, bail};
use pico_args::Arguments;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Development commands of slimline.

    cargo xtask ci [--deep] [--only STAGE]...   what CI runs, from fast to slow
    cargo xtask demo [--binary PROGRAM]         a node and two real SLIM programs that talk through it
    cargo xtask fuzz [TARGET]... [--seconds N]  each target, or those named, for a minute or N seconds
    cargo xtask interop [--against NODE] [--shards N] [--binary PROGRAM] [--suite SUITE]... [--case WORDS]
                                                software we did not write, against a node: slimline (the default),
                                                embedded (in the released SDK), reference (the released node), or
                                                HOST:PORT of one that runs
    cargo xtask bench wire|fib|forward          one part of the hot functions under criterion; forward then also measures this
                                                node beside a relay that parses nothing
    cargo xtask bench micro|icount              all hot functions, recorded: times (criterion), instructions (callgrind)
    cargo xtask bench mls-rs [--repeats N]      encryption beside the library that SLIM's applications stand on, recorded
    cargo xtask bench node [--scenario NAME]... [--case WORDS]... [--target NODE]... [--repeats N]
                      [--cpus NODE,GENERATOR] [--engine ENGINE] [--topic WORDS] [--question SENTENCE]
                                                cases of bench/scenarios on nodes, taking turns
    cargo xtask bench ablate [NAME]...          what each optimisation buys: this node, and the same without it
    cargo xtask bench all [--only TOPIC]... [--repeats N | --minutes N]
                                                everything that perf-results shows, a folder each; --only nodes leaves hot
                                                functions out; with --minutes as many repeats of nodes as fit, two at least
                                                what is recorded takes --quick for tiny inputs and no record, --dry to
                                                record below target, --build to build only; what loads nodes takes --cpus and
                                                --engine io-uring|epoll|glommio for the load generator;
                                                SLIMLOAD_WITH=COMMAND starts that through COMMAND
    cargo xtask bench check --against RUN [--threshold FACTOR] [--repeats N] [--force]
                                                ratios to a relay that parses nothing, or instructions, then and now
    cargo xtask bench page                      the table and the plot in README.md, from the newest recorded runs
    cargo xtask compare A B [--repeats N] [--scenario NAME]... [--case WORDS]... [--json FILE] [--markdown FILE]
                      [--quick] [--force]       A B A B ...; slimline[:BLOCK], reference[+nodelay], nats, relay[-DRIVE],
                                                without:OPTIMISATION, commit:SHA, a program, or two recorded runs
    cargo xtask peers [--reference PATH] [--nats PATH]
                                                provides what we measure against, or takes it from where it is
    cargo xtask tidy                            the house rules a compiler does not check
    cargo xtask help                            this page
";

pub(crate) enum Command {
    Help,
    Bench(crate::bench::Flags),
    Compare(crate::compare::Flags),
    Peers(crate::peers::Flags),
    Ci(Ci),
    Demo(Demo),
    Fuzz(Fuzz),
    Interop(Interop),
    Tidy,
}

/// `ci`: which stages, and how thorough.
pub(crate) struct Ci {
    /// Also what takes long or needs more than a build machine usually has.
    pub(crate) deep: bool,
    /// Stage names; empty for all.
    pub(crate) only: Vec<String>,
}

/// `demo`: which node.
pub(crate) struct Demo {
    /// The node's program; slimline is built when not given.
    pub(crate) binary: Option<PathBuf>,
}

/// `fuzz`: which targets, and for how long.
pub(crate) struct Fuzz {
    /// Names of targets; empty for all.
    pub(crate) targets: Vec<String>,
    pub(crate) seconds: u64,
}

/// `interop`: which node, and which cases.
pub(crate) struct Interop {
    pub(crate) against: String,
    /// Threads of slimline that forward.
    pub(crate) shards: u16,
    /// The node's program; built or installed when not given.
    pub(crate) binary: Option<PathBuf>,
    /// Names of suites; empty for all.
    pub(crate) suites: Vec<String>,
    /// Only cases whose title holds this.
    pub(crate) case: Option<String>,
}

impl Default for Interop {
    fn default() -> Self {
        Self { against: "slimline".to_owned(), shards: 1, binary: None, suites: Vec::new(), case: None }
    }
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
        Some("demo") => Command::Demo(Demo { binary: arguments.opt_value_from_str("--binary")? }),
        Some("fuzz") => {
            let seconds = arguments.opt_value_from_str("--seconds")?.unwrap_or(60);
            let mut targets = Vec::new();
            while let Some(target) = arguments.opt_free_from_str()? {
                targets.push(target);
            }
            Command::Fuzz(Fuzz { targets, seconds })
        }
        Some("interop") => {
            let default = Interop::default();
            Command::Interop(Interop {
                against: arguments.opt_value_from_str("--against")?.unwrap_or(default.against),
                shards: arguments.opt_value_from_str("--shards")?.unwrap_or(default.shards),
                binary: arguments.opt_value_from_str("--binary")?,
                suites: arguments.values_from_str("--suite")?,
                case: arguments.opt_value_from_str("--case")?,
            })
        }
        Some("bench") => Command::Bench(crate::bench::flags(&mut arguments)?),
        Some("compare") => Command::Compare(crate::compare::flags(&mut arguments)?),
        Some("peers") => Command::Peers(crate::peers::Flags {
            reference: arguments.opt_value_from_str("--reference")?,
            nats: arguments.opt_value_from_str("--nats")?,
        }),
        Some("tidy") => Command::Tidy,
        Some(other) => bail!("no command `{other}`; `cargo xtask help` lists them"),
    };
    let rest = arguments.finish();
    if let Some(first) = rest.first() {
        bail!("unexpected argument `{}`; `cargo xtask help` lists what each command takes", first.to_string_lossy());
    }
    Ok(command)
}
