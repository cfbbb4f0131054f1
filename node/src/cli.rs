//! The command line: arguments in, one [`Command`] out.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

/// What the process was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run a node until a signal stops it.
    Run {
        /// `None` runs the embedded default.
        config: Option<PathBuf>,
        /// Overrides `slimline.stats.interval`.
        stats_interval: Option<Duration>,
    },
    /// Check a configuration and say what is wrong with it.
    Check {
        /// `None` checks the embedded default.
        config: Option<PathBuf>,
    },
    /// Print a running node's counters.
    Stats {
        /// `None` looks where a node without a configuration file puts it.
        socket: Option<PathBuf>,
        json: bool,
    },
    /// Print [`version`].
    Version,
    /// Print [`HELP`].
    Help,
}

/// Arguments that make no sense. `Display` is the text for stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsageError {
    message: String,
    usage: &'static str,
}

impl UsageError {
    /// What a process that stops for this error exits with.
    pub(crate) const EXIT_CODE: u8 = 2;
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}\n\n{}\n\nFor more information, try '--help'.", self.message, self.usage)
    }
}

/// Reads the arguments after the program's name. `env` answers for environment variables.
///
/// Only `CONFIG` is asked for: the configuration file, when `--config` is not given; empty counts as unset.
///
/// Errors: an unknown or repeated option, a missing or malformed value, or options that exclude one another.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.peek().is_some_and(|first| first == "stats") {
        arguments.next();
        return parse_stats(&mut Parser::from_args(arguments))
            .map_err(|message| UsageError { message, usage: STATS_USAGE });
    }
    let env_config = || env("CONFIG").filter(|config| !config.is_empty()).map(PathBuf::from);
    parse_node(&mut Parser::from_args(arguments), env_config).map_err(|message| UsageError { message, usage: USAGE })
}

fn parse_node(parser: &mut Parser, env_config: impl Fn() -> Option<PathBuf>) -> Result<Command, String> {
    let (mut config, mut stats_interval, mut check, mut version) = (None, None, None, None);
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Arg::Short('c') | Arg::Long("config") => once(&mut config, "--config FILE", file(parser)?)?,
            Arg::Long("check") => once(&mut check, "--check", ())?,
            Arg::Long("stats-interval") => once(&mut stats_interval, "--stats-interval DURATION", duration(parser)?)?,
            Arg::Short('v' | 'V') | Arg::Long("version") => once(&mut version, "--version", ())?,
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            other => return Err(unexpected(&other)),
        }
    }
    if version.is_some() {
        // The variable may be set for a whole container; only what was typed here excludes `--version`.
        return match config {
            Some(_) => Err("the argument '--version' cannot be used with '--config FILE'".into()),
            None => Ok(Command::Version),
        };
    }
    let config = config.or_else(env_config);
    match (check, stats_interval) {
        (None, stats_interval) => Ok(Command::Run { config, stats_interval }),
        (Some(()), None) => Ok(Command::Check { config }),
        (Some(()), Some(_)) => Err("the argument '--check' cannot be used with '--stats-interval DURATION'".into()),
    }
}

fn parse_stats(parser: &mut Parser) -> Result<Command, String> {
    let (mut socket, mut json) = (None, None);
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Arg::Long("socket") => once(&mut socket, "--socket PATH", file(parser)?)?,
            Arg::Long("json") => once(&mut json, "--json", ())?,
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            other => return Err(unexpected(&other)),
        }
    }
    Ok(Command::Stats { socket, json: json.is_some() })
}

fn once<T>(slot: &mut Option<T>, argument: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("the argument '{argument}' cannot be used multiple times")),
    }
}

fn file(parser: &mut Parser) -> Result<PathBuf, String> {
    let value = parser.value().map_err(said)?;
    if value.is_empty() { Err("a file name is empty".into()) } else { Ok(PathBuf::from(value)) }
}

fn duration(parser: &mut Parser) -> Result<Duration, String> {
    let text = parser.value().and_then(ValueExt::string).map_err(said)?;
    match slimline_config::parse_duration(&text) {
        Ok(Duration::ZERO) => Err(format!("invalid duration '{text}': must be longer than zero")),
        Ok(value) => Ok(value),
        Err(reason) => Err(format!("invalid duration '{text}': {reason}; write a number and a unit, such as 10s")),
    }
}

fn unexpected(argument: &Arg<'_>) -> String {
    let shown = match argument {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(value) => OsStr::to_string_lossy(value).into_owned(),
    };
    format!("unexpected argument '{shown}' found")
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn said(error: lexopt::Error) -> String {
    error.to_string()
}

/// The four lines of `--version`, ending in a newline.
pub(crate) fn version() -> String {
    format!(
        "Version:\t{}\nBuild Date:\t{}\nGit SHA:\t{}\nProfile:\t{}\n",
        env!("CARGO_PKG_VERSION"),
        env!("SLIMLINE_BUILD_DATE"),
        env!("SLIMLINE_GIT_SHA"),
        env!("SLIMLINE_PROFILE"),
    )
}

const USAGE: &str = "Usage: slimline [OPTIONS]\n       slimline stats [--socket PATH] [--json]";
const STATS_USAGE: &str = "Usage: slimline stats [--socket PATH] [--json]";

/// The text of `--help`, ending in a newline.
pub(crate) const HELP: &str = "\
A messaging node for SLIM.

Usage: slimline [OPTIONS]
       slimline stats [--socket PATH] [--json]

Without a configuration file the node serves its data plane on 127.0.0.1:46357,
plain HTTP/2, for programs on this machine.

Options:
  -c, --config FILE              Configuration file, YAML [env: CONFIG]
      --check                    Check the configuration and exit
      --stats-interval DURATION  Log counters this often, such as 10s or 1m
  -v, --version                  Print version, build date, commit and profile
  -h, --help                     Print this text

Commands:
  stats                          Print a running node's counters
      --socket PATH              The node's stats socket
                                 [default: $XDG_RUNTIME_DIR/slimline/46357.sock]
      --json                     As JSON

Signals:
  SIGTERM, SIGINT                Close listeners, drain, and exit

Exit status:
  0  stopped cleanly
  1  the configuration was refused, or starting or stopping failed
  2  the arguments make no sense
";

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a line of arguments with `CONFIG` set as given.
    fn with_env(line: &str, config: Option<&str>) -> Result<Command, String> {
        let env = |name: &str| config.filter(|_| name == "CONFIG").map(OsString::from);
        parse(line.split_whitespace().map(OsString::from), &env).map_err(|error| error.message)
    }

    fn read(line: &str) -> Result<Command, String> {
        with_env(line, None)
    }

    fn run(config: Option<&str>) -> Result<Command, String> {
        Ok(Command::Run { config: config.map(PathBuf::from), stats_interval: None })
    }

    #[test]
    #[rustfmt::skip]
    fn commands() {
        assert_eq!(read(""),                    run(None));
        assert_eq!(read("-c a.yaml"),           run(Some("a.yaml")));
        assert_eq!(read("-ca.yaml"),            run(Some("a.yaml")));
        assert_eq!(read("--config a.yaml"),     run(Some("a.yaml")));
        assert_eq!(read("--config=a.yaml"),     run(Some("a.yaml")));
        assert_eq!(read("--check -c a.yaml"),   Ok(Command::Check { config: Some("a.yaml".into()) }));
        assert_eq!(read("--check"),             Ok(Command::Check { config: None }));
        assert_eq!(read("--stats-interval 1m"), Ok(Command::Run { config: None, stats_interval: Some(Duration::from_secs(60)) }));
        assert_eq!(read("-v"),                  Ok(Command::Version));
        assert_eq!(read("--version"),           Ok(Command::Version));
        assert_eq!(read("--config a --help"),   Ok(Command::Help));
        assert_eq!(read("stats"),               Ok(Command::Stats { socket: None, json: false }));
        assert_eq!(read("stats --json --socket /a"), Ok(Command::Stats { socket: Some("/a".into()), json: true }));
        assert_eq!(read("stats -h"),            Ok(Command::Help));
    }

    #[test]
    #[rustfmt::skip]
    fn config_from_the_environment() {
        assert_eq!(with_env("",          Some("e.yaml")), run(Some("e.yaml")));
        assert_eq!(with_env("",          Some("")),       run(None)); // empty is unset
        assert_eq!(with_env("-c a.yaml", Some("e.yaml")), run(Some("a.yaml")));
        assert_eq!(with_env("--version", Some("e.yaml")), Ok(Command::Version));
        assert_eq!(with_env("--check",   Some("e.yaml")), Ok(Command::Check { config: Some("e.yaml".into()) }));
    }

    #[test]
    #[rustfmt::skip]
    fn wrong_usage() {
        let refused = |line: &str| read(line).expect_err("refused");
        assert_eq!(refused("--foo"),            "unexpected argument '--foo' found");
        assert_eq!(refused("-x"),               "unexpected argument '-x' found");
        assert_eq!(refused("a.yaml"),           "unexpected argument 'a.yaml' found");
        assert_eq!(refused("-c a stats"),       "unexpected argument 'stats' found");
        assert_eq!(refused("stats -c a"),       "unexpected argument '-c' found");
        assert_eq!(refused("--config"),         "missing argument for option '--config'");
        assert_eq!(refused("--config="),        "a file name is empty");
        assert_eq!(refused("-c a -c b"),        "the argument '--config FILE' cannot be used multiple times");
        assert_eq!(refused("-c a -v"),          "the argument '--version' cannot be used with '--config FILE'");
        assert_eq!(refused("--stats-interval 5"),  "invalid duration '5': the number 5 has no unit; write a number and a unit, such as 10s");
        assert_eq!(refused("--stats-interval 0s"), "invalid duration '0s': must be longer than zero");
        assert!(refused("--check=yes").contains("--check"), "{}", refused("--check=yes"));
    }

    #[test]
    fn usage_errors_show_the_usage() {
        let error = parse([OsString::from("--foo")], &|_| None).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "error: unexpected argument '--foo' found\n\nUsage: slimline [OPTIONS]\n       slimline stats [--socket PATH] [--json]\n\n\
             For more information, try '--help'.\n"
        );
        assert_eq!(UsageError::EXIT_CODE, 2);
    }

    #[test]
    fn help_knows_the_usage_and_fits_a_terminal() {
        assert!(HELP.contains(USAGE));
        assert!(HELP.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn version_is_four_lines() {
        let text = version();
        let lines: Vec<_> = text.lines().map(|line| line.split_once('\t').expect("a tab")).collect();
        let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Version:", "Build Date:", "Git SHA:", "Profile:"]);
        let date = lines[1].1;
        assert_eq!(date.len(), "2026-01-02T03:04:05Z".len());
        assert!(date.ends_with('Z') && date.as_bytes()[10] == b'T', "{date}");
        let sha = lines[2].1;
        assert!(sha.is_empty() || (sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit())), "{sha}");
        assert!(["debug", "release"].contains(&lines[3].1));
    }
}
