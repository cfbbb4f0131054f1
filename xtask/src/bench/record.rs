//! A run as a folder of `perf-results/runs`: README, every sample, summary, curves; and a line per metric in the history.

mod machine;
mod metric;
mod readme;
mod run;
mod sample;
mod summary;

pub(crate) use metric::METRICS;
pub(crate) use run::Run;
pub(crate) use sample::{Sample, cases, engines, figures, ratios, read, short, shown};
