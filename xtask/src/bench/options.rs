//! Which options each suite takes: one that it would not look at is refused, not ignored.

use super::{Flags, Suite};
use anyhow::{Result, ensure};

/// What says how nodes are measured, of those that measure them.
const NODES: &[&str] = &["--repeats", "--cpus", "--engine"];
/// What chooses cases and nodes.
const CHOICE: &[&str] = &["--scenario", "--case", "--target"];
/// What becomes of a result.
const RECORD: &[&str] = &["--quick", "--dry", "--build"];

/// What `compare` takes besides its own.
pub(crate) const COMPARE: &[&[&str]] = &[NODES, &["--scenario", "--case", "--quick", "--force"]];

impl Suite {
    fn options(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Micro | Self::Icount => &[RECORD],
            Self::MlsRs => &[RECORD, &["--repeats"]],
            Self::Part("forward") | Self::Node => &[NODES, CHOICE, RECORD, &["--topic", "--question"]],
            Self::Part(_) => &[&["--quick", "--build"]],
            Self::Ablate => &[NODES, RECORD, &["--only"]],
            Self::All => &[NODES, RECORD, &["--only", "--minutes"]],
            Self::Check => &[NODES, &["--quick", "--case", "--against", "--threshold", "--force"]],
            Self::Page => &[],
        }
    }
}

impl Flags {
    /// Options that were given, as they are written.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("--quick", self.quick),
            ("--scenario", !self.scenarios.is_empty()),
            ("--case", !self.cases.is_empty()),
            ("--target", !self.targets.is_empty()),
            ("--repeats", self.repeats.is_some()),
            ("--minutes", self.minutes.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--engine", self.engine.is_some()),
            ("--topic", self.topic.is_some()),
            ("--question", self.question.is_some()),
            ("--dry", self.dry),
            ("--only", !self.only.is_empty()),
            ("--build", self.build),
            ("--against", self.against.is_some()),
            ("--threshold", self.threshold.is_some()),
            ("--force", self.force),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
    }

    /// Refuses what `command` would not look at, and values that make no sense.
    ///
    /// Errors: the first such option.
    pub(crate) fn ensure_taken(&self, command: &str, taken: &[&[&str]]) -> Result<()> {
        for option in self.given() {
            ensure!(taken.iter().any(|some| some.contains(&option)), "{command} takes no {option} (cargo xtask help)");
        }
        ensure!(self.repeats != Some(0), "--repeats 0: nothing would be measured");
        ensure!(self.minutes.is_none_or(|minutes| minutes > 0.0), "--minutes: more than none");
        ensure!(
            self.threshold.is_none_or(|factor| factor >= 1.0),
            "--threshold is by what factor a figure may be worse: 1 or more"
        );
        Ok(())
    }

    /// The same for the suite that was asked for.
    ///
    /// Errors: as [`Self::ensure_taken`].
    pub(super) fn ensure_suited(&self, name: &str) -> Result<()> {
        self.ensure_taken(&format!("bench {name}"), self.suite.options())
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::flags;
    use pico_args::Arguments;

    fn refused(line: &str) -> Option<String> {
        let mut arguments = Arguments::from_vec(line.split(' ').map(Into::into).collect());
        flags(&mut arguments).err().map(|error| error.to_string())
    }

    #[test]
    fn what_a_suite_would_ignore_is_refused() {
        for (line, said) in [
            ("micro --against run", "bench micro takes no --against"),
            ("icount --repeats 3", "bench icount takes no --repeats"),
            ("node --minutes 3", "bench node takes no --minutes"),
            ("all --target relay", "bench all takes no --target"),
            ("check --against run --dry", "bench check takes no --dry"),
            ("page --quick", "bench page takes no --quick"),
            ("wire --dry", "bench wire takes no --dry"),
            ("node --repeats 0", "--repeats 0: nothing would be measured"),
            ("all --minutes 0", "--minutes: more than none"),
            ("check --against run --threshold 0.5", "--threshold is by what factor"),
            ("check --against run --threshold NaN", "--threshold is by what factor"),
        ] {
            let refused = refused(line).unwrap_or_else(|| panic!("{line} is taken"));
            assert!(refused.starts_with(said), "{line}: {refused}");
        }
    }

    #[test]
    fn what_the_help_lists_is_taken() {
        for line in [
            "micro --quick",
            "icount --dry",
            "mls-rs --repeats 3 --build",
            "node --scenario smoke --case a --target relay --repeats 2 --cpus 0,1 --engine epoll --topic t --question q",
            "forward --quick --target relay",
            "ablate mesh --repeats 3",
            "all --only churn --minutes 30 --build",
            "check --against run --threshold 1.5 --repeats 3 --force",
            "page",
        ] {
            assert_eq!(refused(line), None, "{line}");
        }
    }
}
