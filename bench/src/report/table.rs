//! The report for people, on stdout.

use std::fmt::Write;

use super::{Knee, Measurement, Report};
use crate::scenario::Command;

/// A number short enough for a column.
fn short(value: f64) -> String {
    if value < 0.0 {
        return format!("-{}", short(-value));
    }
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

/// Warnings of all measurements: one of a kind, where several differ in their figures only, with whose it is.
fn warnings(report: &Report) -> Vec<(String, &str)> {
    let kind = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let mut kinds: Vec<(String, &str, &str, usize)> = Vec::new();
    for m in &report.measurements {
        for warning in &m.warnings {
            let of = kind(warning);
            match kinds.iter_mut().find(|(known, ..)| *known == of) {
                Some((.., count)) => *count += 1,
                None => kinds.push((of, &m.label, warning, 1)),
            }
        }
    }
    let whose = |label: &str, count: usize| match count {
        1 => label.to_owned(),
        _ => format!("{label} and {} more", count - 1),
    };
    kinds.into_iter().map(|(_, label, warning, count)| (whose(label, count), warning)).collect()
}

fn knee_line(knee: &Knee) -> String {
    let hold = knee.hold_us;
    let rates: Vec<String> = knee.rates_per_s.iter().map(|rate| format!("{rate:.0}")).collect();
    if knee.median_per_s == 0.0 {
        return format!("capacity holding p99.9 <= {hold} us: none, even the lowest rate took longer");
    }
    format!(
        "capacity holding p99.9 <= {hold} us: {:.0} messages/s (median of {}: {})",
        knee.median_per_s,
        rates.len(),
        rates.join(", ")
    )
}

/// How many headers each publisher walks through.
fn signed(report: &Report) -> String {
    let counts = || report.measurements.iter().map(|m| m.signed_variants_per_publisher);
    match (report.options.fresh, counts().min(), counts().max()) {
        (true, ..) => ", every message signed anew".into(),
        (_, Some(fewest), Some(most)) if most > 0 => match fewest == most {
            true => format!(", {fewest} signed headers per publisher"),
            false => format!(", {fewest} to {most} signed headers per publisher"),
        },
        _ => String::new(),
    }
}

/// The whole report as text.
pub(crate) fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} against {}{} ({} generator thread{}, engine {}{})",
        report.tool,
        report.peer,
        if report.node.is_empty() { String::new() } else { format!(" `{}`", report.node) },
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        report.engine,
        signed(report),
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
    let _ = writeln!(out, "slimload {}", report.command_line);
    if let Some(why) = &report.engine_substituted {
        let _ = writeln!(out, "{why}");
    }
    out.push('\n');
    let ping_pong = report.command == Command::Pingpong;
    let churn = report.command == Command::Churn;
    let rate = match report.command {
        Command::Pingpong => "round trips/s",
        Command::Churn => "cycles/s",
        _ => "delivered/s",
    };
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
        if churn { "node ns/cycle" } else { "node ns/msg" },
        "node CPU",
        "waiting",
        "RSS MiB",
        if churn { "gen ns/cycle" } else { "gen ns/msg" },
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
    }
    for (labels, warning) in warnings(report) {
        let _ = writeln!(out, "{labels}: warning: {warning}");
    }
    for knee in &report.knees {
        let _ = writeln!(out, "{}", knee_line(knee));
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
        for (value, text) in [
            (0.5, "0.50"),
            (12.34, "12.3"),
            (999.0, "999"),
            (12_345.0, "12.3k"),
            (1_234_567.0, "1.23M"),
            (-45_678.0, "-45.7k"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_knee_says_its_repeats_or_that_there_is_none() {
        let line = |rates| knee_line(&Knee::of(std::time::Duration::from_millis(5), rates));
        assert_eq!(
            line(vec![400.0, 600.0]),
            "capacity holding p99.9 <= 5000 us: 500 messages/s (median of 2: 400, 600)"
        );
        assert!(line(vec![0.0]).contains("none"));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["bbb".into(), "22".into()]];
        assert_eq!(columns(&rows), "a     1\nbbb  22\n");
    }
}
