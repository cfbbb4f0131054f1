//! The report for tools: JSON, CSV, HdrHistogram text. Each file is written beside its place and moved there whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Report, plot};
use crate::error::{BenchError, Result};

/// Where to write what; `-` is stdout for JSON and CSV.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Outputs {
    /// Write the report as JSON (`-`: stdout, instead of the table)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) json: Option<PathBuf>,
    /// Write one CSV line per measurement (`-`: stdout, instead of the table)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) csv: Option<PathBuf>,
    /// Write HdrHistogram text, one file per measurement, named after this
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) hgrm: Option<PathBuf>,
    /// Write SVG plots, named after this: the percentile curve, and rate against latency for a ladder
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) plot: Option<PathBuf>,
}

/// Whether a path means stdout.
fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a whole file or none.
pub(crate) fn whole(path: &Path, content: &[u8]) -> Result<()> {
    let what = |verb: &str| BenchError::system(format!("{verb} {}", path.display()));
    if is_stdout(path) {
        return std::io::stdout().write_all(content).map_err(what("write"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, content).map_err(what("write"))?;
    fs::rename(&beside, path).map_err(what("write"))
}

/// `base` with `-label` before its extension.
fn labelled(base: &Path, label: &str, extension: &str) -> PathBuf {
    let clean: String = label.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let stem = base.file_stem().unwrap_or_default().to_string_lossy();
    base.with_file_name(format!("{stem}-{clean}.{extension}"))
}

impl Outputs {
    /// Whether stdout is taken by a machine-readable form.
    pub(crate) fn takes_stdout(&self) -> bool {
        [&self.json, &self.csv].into_iter().flatten().any(|path| is_stdout(path))
    }

    /// Writes everything asked for.
    pub(crate) fn write(&self, report: &Report) -> Result<()> {
        if let Some(path) = &self.json {
            let mut json = serde_json::to_vec_pretty(report).map_err(|e| BenchError::Plan(format!("JSON: {e}")))?;
            json.push(b'\n');
            whole(path, &json)?;
        }
        if let Some(path) = &self.csv {
            whole(path, csv(report).as_bytes())?;
        }
        if let Some(path) = &self.hgrm {
            for m in report.measurements.iter().filter(|m| m.latencies.count() > 0) {
                whole(&labelled(path, &m.label, "hgrm"), m.latencies.hgrm().as_bytes())?;
            }
        }
        if let Some(path) = &self.plot {
            whole(&labelled(path, "percentiles", "svg"), plot::percentiles(report)?.as_bytes())?;
            if report.measurements.iter().filter(|m| m.offered_per_s.is_some()).count() > 1 {
                whole(&labelled(path, "rate-latency", "svg"), plot::rate_latency(report)?.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// One header line, one line per measurement.
fn csv(report: &Report) -> String {
    let mut out = String::from(
        "label,offered_per_s,delivered_per_s,seconds,sent,delivered,unsent,p50_us,p90_us,p99_us,p99_9_us,p99_99_us,max_us,\
         node_cpu_ns_per_message,node_cpus,node_rss_octets,generator_cpu_ns_per_message,faults\n",
    );
    let optional = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
    for m in &report.measurements {
        let l = &m.latency;
        let cells = [
            m.label.replace(',', ";"),
            optional(m.offered_per_s),
            format!("{:.3}", m.delivered_per_s),
            format!("{:.3}", m.seconds),
            m.sent.to_string(),
            m.delivered.to_string(),
            m.unsent.to_string(),
            format!("{:.3}", l.p50_us),
            format!("{:.3}", l.p90_us),
            format!("{:.3}", l.p99_us),
            format!("{:.3}", l.p99_9_us),
            format!("{:.3}", l.p99_99_us),
            format!("{:.3}", l.max_us),
            optional(m.node_cpu_ns_per_message),
            optional(m.node_cpus),
            m.node_rss_octets.map_or_else(String::new, |octets| octets.to_string()),
            format!("{:.3}", m.generator_cpu_ns_per_message),
            if m.faults.none() { "none".into() } else { "yes".into() },
        ];
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_file_names() {
        assert_eq!(labelled(Path::new("/a/run.hgrm"), "1 -> 8, 64 B", "hgrm"), Path::new("/a/run-1----8--64-B.hgrm"));
    }

    #[test]
    fn a_file_is_whole_or_absent() {
        let folder = std::env::temp_dir().join(format!("slimload-write-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.json");
        whole(&path, b"{}").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{}");
        assert!(whole(&folder.join("absent/x.json"), b"{}").is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
