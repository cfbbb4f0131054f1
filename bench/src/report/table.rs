//! The report for people, on stdout.

use std::fmt::Write;

use super::{Measurement, Report};
use crate::scenario::Command;

/// A number short enough for a column.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e7 => format!("{:.1}M", v / 1e6),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e5 => format!("{:.0}k", v / 1e3),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), short)
}

/// Lays rows out in columns, the first to the left, the others to the right.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(out, "{cell:<width$}") } else { write!(out, "  {cell:>width$}") };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

fn row(command: Command, m: &Measurement) -> Vec<String> {
    let mut row = vec![m.label.clone()];
    if command != Command::Pingpong {
        row.push(optional(m.offered_per_s));
    }
    row.push(short(m.delivered_per_s));
    row.push(short(m.payload_mib_per_s));
    let l = &m.latency;
    row.extend([l.p50_us, l.p99_us, l.p99_9_us, l.p99_99_us, l.max_us].map(short));
    row.push(optional(m.node_cpu_ns_per_message));
    let percent = |cpus: Option<f64>| cpus.map_or_else(|| "-".into(), |cpus| format!("{:.0}%", cpus * 100.0));
    row.extend([percent(m.node_cpus), percent(m.node_waited_cpus)]);
    row.push(m.node_rss_octets.map_or_else(|| "-".into(), |octets| short(octets as f64 / f64::from(1 << 20))));
    row.push(short(m.generator_cpu_ns_per_message));
    row
}

/// The whole report as text.
pub(crate) fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} against {}{} ({} generator thread{}, engine {})",
        report.tool,
        report.peer,
        if report.node.is_empty() { String::new() } else { format!(" `{}`", report.node) },
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        report.engine,
    );
    let _ = writeln!(
        out,
        "{} x {}{}, Linux {}, governor {}, clock {}, load {:.1} before",
        machine.cpus,
        machine.cpu,
        if machine.virtual_machine { " (virtual)" } else { "" },
        machine.kernel,
        machine.governor,
        machine.clock_source,
        report.load_before.average_1min,
    );
    if let Some(why) = &report.engine_substituted {
        let _ = writeln!(out, "{why}");
    }
    out.push('\n');
    let ping_pong = report.command == Command::Pingpong;
    let rate = if ping_pong { "round trips/s" } else { "delivered/s" };
    let mut head = vec![""];
    if !ping_pong {
        head.push("offered/s");
    }
    head.extend([
        rate,
        "MiB/s",
        "p50 us",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "node ns/msg",
        "node CPU",
        "waiting",
        "RSS MiB",
        "gen ns/msg",
    ]);
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(report.measurements.iter().map(|m| row(report.command, m)));
    out.push_str(&columns(&rows));
    for m in &report.measurements {
        for (name, value) in &m.extra {
            let _ = writeln!(out, "{}: {name} {}", m.label, short(*value));
        }
        if report.command == Command::Names {
            let _ =
                writeln!(out, "{}: {} subscriptions at {}/s", m.label, m.subscriptions, short(m.subscriptions_per_s));
        }
        if !m.faults.none() {
            let f = &m.faults;
            let _ = writeln!(
                out,
                "{}: FAULTS lost {}, duplicated {}, reordered {}, corrupt {}, misrouted {}, foreign {}, mismatched flows {}",
                m.label, f.lost, f.duplicated, f.reordered, f.corrupt, f.misrouted, f.foreign, f.mismatched
            );
        }
        for warning in &m.warnings {
            let _ = writeln!(out, "{}: warning: {warning}", m.label);
        }
    }
    if report.faults().none() {
        out.push_str("every message accounted for: none lost, doubled, reordered, damaged or misrouted\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.5, "0.50"), (12.34, "12.3"), (999.0, "999"), (12_345.0, "12.3k"), (1_234_567.0, "1.23M")]
        {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["bbb".into(), "22".into()]];
        assert_eq!(columns(&rows), "a     1\nbbb  22\n");
    }
}
