//! The report for tools: JSON, CSV, HdrHistogram text. Each file is written beside its place and moved there whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Report;
use super::plot::{self, Picture};
use crate::error::{BenchError, Result};

/// Where to write what; `-` is stdout for JSON and CSV.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
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
    /// Write plots, named after this, as SVG or PNG by its ending: the percentile curve, and rate against latency for a ladder
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) plot: Option<PathBuf>,
}

/// Whether a path means stdout.
fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Where a file is written before it takes its place.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    beside.into()
}

/// Where `path` leads: a file behind a link is replaced, not the link.
fn place(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether it is a device or a pipe, which is written to and never replaced.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn what(path: &Path) -> impl FnOnce(std::io::Error) -> BenchError {
    BenchError::system(format!("write {}", path.display()))
}

/// Writes all files whole, or none: each beside its place first, and moved there once all are written.
fn write_all(files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let written = files
        .iter()
        .filter(|(path, _)| !is_stdout(path) && !is_special(path))
        .try_for_each(|(path, content)| fs::write(beside(path), content).map_err(what(path)));
    if let Err(error) = written {
        for (path, _) in files {
            let _ = fs::remove_file(beside(path)); // some were not written
        }
        return Err(error);
    }
    for (path, content) in files {
        if is_stdout(path) {
            std::io::stdout().write_all(content).map_err(what(path))?;
        } else if is_special(path) {
            fs::write(path, content).map_err(what(path))?;
        } else {
            fs::rename(beside(path), path).map_err(what(path))?;
        }
    }
    Ok(())
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

    /// Refuses places that cannot be written to, before anything is measured for them.
    pub(crate) fn check(&self) -> Result<()> {
        let wanted = [("json", &self.json), ("csv", &self.csv), ("hgrm", &self.hgrm), ("plot", &self.plot)];
        let wanted: Vec<_> = wanted.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))).collect();
        for (at, (name, path)) in wanted.iter().enumerate() {
            let refuse = |reason: &str| Err(BenchError::Plan(format!("--{name} {}: {reason}", path.display())));
            if wanted[..at].iter().any(|(_, other)| other == path) {
                return refuse("another output goes there");
            }
            let many = matches!(*name, "hgrm" | "plot");
            if many && (is_stdout(path) || is_special(path)) {
                return refuse("files are named after this, so it must be a file's name");
            }
            if path.is_dir() {
                return refuse("it is a folder");
            }
            if !is_stdout(path) && !is_special(path) {
                let probe = beside(&place(path));
                fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(what(path))?;
            }
        }
        match &self.plot {
            Some(path) => Picture::of(path).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Writes everything asked for, or nothing.
    pub(crate) fn write(&self, report: &Report) -> Result<()> {
        let mut files = Vec::new();
        if let Some(path) = &self.json {
            let mut json = serde_json::to_vec_pretty(report).map_err(|e| BenchError::Plan(format!("JSON: {e}")))?;
            json.push(b'\n');
            files.push((place(path), json));
        }
        if let Some(path) = &self.csv {
            files.push((place(path), csv(report).into_bytes()));
        }
        if let Some(path) = &self.hgrm {
            for m in report.measurements.iter().filter(|m| m.latencies.count() > 0) {
                // Repeats of one rate, and labels that differ in signs only, are files of their own.
                let place = (1..)
                    .map(|number| match number {
                        1 => labelled(path, &m.label, "hgrm"),
                        _ => labelled(path, &format!("{} {number}", m.label), "hgrm"),
                    })
                    .find(|place| !files.iter().any(|(other, _)| other == place));
                files.extend(place.map(|place| (place, m.latencies.hgrm().into_bytes())));
            }
        }
        let curves = report.measurements.iter().filter(|m| m.latencies.count() > 0).count();
        if let Some(path) = &self.plot
            && curves == 0
        {
            eprintln!("slimload: no plot {}: no message arrived whose latency could be drawn", path.display());
        } else if let Some(path) = &self.plot {
            let picture = Picture::of(path)?;
            let mut plot = |name: &str, octets| files.push((labelled(path, name, picture.extension()), octets));
            plot("percentiles", plot::percentiles(report, picture)?);
            if plot::rates(report).count() > 1 {
                plot("rate-latency", plot::rate_latency(report, picture)?);
            }
        }
        write_all(&files)
    }
}

/// One header line, one line per measurement.
fn csv(report: &Report) -> String {
    let mut out = String::from(
        "label,offered_per_s,delivered_per_s,seconds,sent,delivered,unsent,p50_us,p90_us,p99_us,p99_9_us,p99_99_us,max_us,\
         node_cpu_ns_per_message,node_cpus,node_rss_octets,generator_cpu_ns_per_message,faults,engine\n",
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
            m.engine.into(),
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
    fn a_device_is_written_to_and_a_link_followed() {
        let folder = std::env::temp_dir().join(format!("slimload-special-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, link) = (folder.join("x.json"), folder.join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_all(&[(PathBuf::from("/dev/null"), b"{}".to_vec()), (place(&link), b"new".to_vec())]).unwrap();
        assert!(is_special(Path::new("/dev/null")) && !Path::new("/dev/null.part").exists());
        assert!(link.is_symlink() && fs::read(&file).unwrap() == b"new");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_are_all_there_and_whole_or_none_is() {
        let folder = std::env::temp_dir().join(format!("slimload-write-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (good, bad) = (folder.join("x.json"), folder.join("absent/x.json"));
        assert!(write_all(&[(good.clone(), b"{}".to_vec()), (bad, b"{}".to_vec())]).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        write_all(&[(good.clone(), b"{}".to_vec())]).unwrap();
        assert_eq!(fs::read(&good).unwrap(), b"{}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
