//! The page a run's folder opens with: the question, what was measured where, and what to beware of.

use super::machine::commit;
use super::run::Run;
use super::sample::{engines, short};
use crate::bench::stats::median;
use crate::workspace::Workspace;
use std::fmt::Write as _;

impl Run<'_> {
    pub(super) fn readme(&self, workspace: &Workspace, charts: &[&str]) -> String {
        let mut out = format!("# {}\n\nQuestion: {}\n\n", self.topic, self.question);
        let called = || {
            let quote = |word: String| if word.contains(' ') { format!("'{word}'") } else { word };
            std::env::args().skip(1).map(quote).collect::<Vec<_>>().join(" ")
        };
        let _ = writeln!(out, "Command: `cargo xtask {}`\n", self.command.clone().unwrap_or_else(called));
        let _ = writeln!(out, "Commit: `{}`\n", commit(workspace));
        if !self.targets.is_empty() {
            out.push_str("| target | version |\n|---|---|\n");
        }
        for target in self.targets {
            let _ = writeln!(out, "| {} | {} |", target.name, target.version);
        }
        if let Some(first) = self.samples.first() {
            let machine = &first.machine;
            let text = |key: &str| machine[key].as_str().unwrap_or("unknown").to_owned();
            let _ = writeln!(
                out,
                "\nMachine: {} x {}{}, {} MiB, Linux {}, governor {}, clock {}{}.",
                machine["cpus"],
                text("cpu"),
                if machine["virtual_machine"] == true { " (virtual machine)" } else { "" },
                machine["memory_mib"],
                text("kernel"),
                text("governor"),
                text("clock_source"),
                if self.targets.is_empty() {
                    String::new()
                } else {
                    format!("; generator engine {}", engines(self.samples).join(", "))
                },
            );
        }
        let _ = writeln!(out, "\nCaveats:\n");
        for text in &self.caveats {
            let _ = writeln!(out, "* {text}");
        }
        for text in self.failures {
            let _ = writeln!(out, "* Not measured: {}", text.lines().next().unwrap_or_default());
        }
        let waited: Vec<f64> = self.samples.iter().filter_map(|s| s.figure("/node_waited_cpus")).collect();
        if !waited.is_empty() {
            self.caveats_of_load(&waited, &mut out);
        }
        for name in charts {
            let _ = writeln!(out, "\n![{}]({name})", name.trim_end_matches(".svg"));
        }
        out.push_str(
            "\nWritten by `cargo xtask bench`; the figures are in [summary.md](summary.md), every sample in \
             [samples.ndjson](samples.ndjson)",
        );
        let several = self.samples.iter().any(|sample| sample.repeat > 0);
        out.push_str(if several { ", ratios with their spread in [ratios.md](ratios.md).\n" } else { ".\n" });
        out
    }

    /// What holds of every run that puts load on nodes.
    fn caveats_of_load(&self, waited: &[f64], out: &mut String) {
        out.push_str(
            "* Loopback TCP, node and generator on one machine; rates are ratios between the columns, not capacities of a network.\n",
        );
        let _ = writeln!(
            out,
            "* The node's threads stood ready and waited for a CPU {:.1} % of the time in the median, {:.1} % at most, all of them added \
             up: where that is much, others used the machine, and CPU per message is the figure to trust.",
            median(waited) * 100.0,
            waited.iter().copied().fold(0.0, f64::max) * 100.0
        );
        let generator: Vec<f64> =
            self.samples.iter().filter_map(|s| s.figure("/generator_cpu_ns_per_message")).collect();
        let _ = writeln!(
            out,
            "* The generator used {} ns of CPU per message in the median (it spins in open-loop runs).",
            short(median(&generator))
        );
        let bound =
            self.samples.iter().filter(|s| s.measurement["warnings"].to_string().contains("bottleneck")).count();
        let _ =
            writeln!(out, "* Measurements in which the generator was the limit: {bound} of {}.", self.samples.len());
        let faulty = self.samples.iter().filter(|s| !s.is_clean()).count();
        let _ =
            writeln!(out, "* Measurements with a lost, doubled, reordered, damaged or misrouted message: {faulty}.");
    }
}
