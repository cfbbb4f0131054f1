//! How many checks a stage made, and how they went.

use std::ops::AddAssign;

/// Counts of one stage, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// Adds up every `test result:` line of a `cargo test` log; ignored tests count as skipped, and so does each that passed
    /// by saying why it cannot be run: a line `SKIPPED …`.
    pub(crate) fn of_cargo_test(log: &str) -> Self {
        let mut sum = Self::default();
        let said = log.lines().filter(|line| line.starts_with("SKIPPED ")).count();
        for line in log.lines().filter_map(|line| line.trim_start().strip_prefix("test result: ")) {
            let counts = line.split_once(". ").map_or(line, |(_, counts)| counts);
            for count in counts.split(';') {
                let mut words = count.split_whitespace();
                let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse::<u32>), words.next()) else {
                    continue;
                };
                match word {
                    "passed" => sum.passed += number,
                    "failed" => sum.failed += number,
                    "ignored" => sum.skipped += number,
                    _ => {}
                }
            }
        }
        let said = u32::try_from(said).unwrap_or(u32::MAX).min(sum.passed);
        sum.passed -= said;
        sum.skipped += said;
        sum
    }
}

/// What a `cargo test` log says about the tests that failed: of each program the part from its first `failures:`, where the
/// captured output stands, to its `test result:`.
pub(crate) fn failures_of_cargo_test(log: &str) -> Vec<&str> {
    let mut is_failure = false;
    let mut said = Vec::new();
    for line in log.lines() {
        let ends = line.trim_start().starts_with("test result: ");
        is_failure |= line == "failures:";
        if is_failure {
            said.push(line);
        }
        is_failure &= !ends;
    }
    said
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cargo_test_log_is_added_up() {
        let log = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s
SKIPPED over_tls: the node says: not yet
test result: FAILED. 5 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s
";
        assert_eq!(Tally::of_cargo_test(log), Tally { passed: 6, failed: 4, skipped: 2 });
    }

    #[test]
    fn failures_are_found_wherever_they_stand() {
        let log = "\
running 2 tests
test one ... ok
test two ... FAILED

failures:

---- two stdout ----
thread 'two' panicked at src/lib.rs:7:5: no

failures:
    two

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/fine.rs
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let said = failures_of_cargo_test(log);
        assert_eq!((said.first(), said.len()), (Some(&"failures:"), 9));
        assert!(said[8].starts_with("test result: FAILED."));
        assert!(failures_of_cargo_test("test result: ok. 3 passed; 0 failed").is_empty());
    }

    #[test]
    fn a_log_without_results_counts_nothing() {
        assert_eq!(Tally::of_cargo_test("error: could not compile"), Tally::default());
    }
}
