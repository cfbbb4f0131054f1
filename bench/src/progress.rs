//! What people see while a run goes on: a bar on a terminal, a line every few seconds otherwise. All on stderr.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::measure::Sample;

/// How often plain lines come.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Progress {
    label: String,
    bar: Option<ProgressBar>,
    last_line: Cell<Instant>,
    /// The last p99 that was told: latencies come in larger steps than samples.
    p99_us: Cell<f64>,
}

impl Progress {
    /// Starts showing `label`.
    pub(crate) fn new(label: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        Self { label: label.to_owned(), bar, last_line: Cell::new(Instant::now()), p99_us: Cell::new(0.0) }
    }

    fn show(&self, share: f64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position((share * 1000.0) as u64);
            bar.set_message(text());
        } else if self.last_line.get().elapsed() >= LINE_EVERY {
            self.last_line.set(Instant::now());
            eprintln!("{}: {}", self.label, text());
        }
    }

    /// A stage before measuring: `done` of `wanted`.
    pub(crate) fn stage(&self, what: &str, done: u64, wanted: u64) {
        self.show(done as f64 / wanted.max(1) as f64, || format!("{what}: {done} of {wanted}"));
    }

    /// The measurement: live rate, p99, node CPU.
    pub(crate) fn sample(&self, sample: &Sample, share_done: f64, knows_node: bool) {
        if sample.p99_us > 0.0 {
            self.p99_us.set(sample.p99_us);
        }
        self.show(share_done, || live(sample, self.p99_us.get(), knows_node));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What goes on, in a line.
fn live(sample: &Sample, p99_us: f64, knows_node: bool) -> String {
    let cpu = if knows_node { format!(", node CPU {:.0} %", sample.node_cpu * 100.0) } else { String::new() };
    format!("{:.0} messages/s, p99 {p99_us:.0} us{cpu}", sample.delivered_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_rate_the_p99_and_the_nodes_cpu_where_it_is_known() {
        let sample = Sample {
            seconds: 1.0,
            sent_per_s: 0.0,
            delivered_per_s: 1234.4,
            p99_us: 0.0,
            p99_9_us: 0.0,
            node_cpu: 0.126,
            node_rss_octets: 0,
        };
        assert_eq!(live(&sample, 55.6, true), "1234 messages/s, p99 56 us, node CPU 13 %");
        assert_eq!(live(&sample, 55.6, false), "1234 messages/s, p99 56 us");
    }
}
