//! Plots as SVG text: the percentile curve of each measurement, and rate against latency.

use plotters::prelude::*;

use super::Report;
use crate::error::{BenchError, Result};

const SIZE: (u32, u32) = (960, 560);

fn colour(index: usize) -> RGBColor {
    const COLOURS: [RGBColor; 6] = [
        RGBColor(0, 92, 175),
        RGBColor(208, 78, 24),
        RGBColor(27, 138, 90),
        RGBColor(140, 60, 150),
        RGBColor(120, 120, 30),
        RGBColor(90, 90, 90),
    ];
    COLOURS[index % COLOURS.len()]
}

fn wrong(error: impl std::fmt::Display) -> BenchError {
    BenchError::Plan(format!("plot: {error}"))
}

/// Latency by percentile: the x axis is 1/(1-p), so that each further nine takes as much room.
pub(crate) fn percentiles(report: &Report) -> Result<String> {
    let curves: Vec<(String, Vec<(f64, f64)>)> = report
        .measurements
        .iter()
        .map(|m| {
            let highest = (m.latencies.count() as f64).max(10.0);
            let points = m.latencies.curve().into_iter().map(|(p, us)| ((1.0 / (1.0 - p)).min(highest), us.max(0.1)));
            (m.label.clone(), points.collect())
        })
        .collect();
    let label = |x: &f64| match x.log10().round() as i32 {
        0 => "0 %".into(),
        1 => "90 %".into(),
        nines => format!("99{}{} %", if nines > 2 { "." } else { "" }, "9".repeat(nines.max(2) as usize - 2)),
    };
    draw(&report.title, "percentile", "latency, us", &curves, &label)
}

/// p50, p99 and p99.9 by offered rate.
pub(crate) fn rate_latency(report: &Report) -> Result<String> {
    let of = |name: &str, pick: fn(&crate::record::Percentiles) -> f64| {
        let points = report.measurements.iter().filter_map(|m| Some((m.offered_per_s?, pick(&m.latency).max(0.1))));
        (name.to_owned(), points.collect::<Vec<_>>())
    };
    let curves = [of("p50", |l| l.p50_us), of("p99", |l| l.p99_us), of("p99.9", |l| l.p99_9_us)];
    draw(&report.title, "offered messages/s", "latency, us", &curves, &|x| format!("{x:.0}"))
}

fn draw(
    title: &str,
    x_name: &str,
    y_name: &str,
    curves: &[(String, Vec<(f64, f64)>)],
    x_label: &dyn Fn(&f64) -> String,
) -> Result<String> {
    let mut svg = String::new();
    {
        let points = || curves.iter().flat_map(|(_, points)| points.iter().copied());
        let span = |pick: fn((f64, f64)) -> f64| {
            points().map(pick).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((x0, x1), (y0, y1)) = (span(|p| p.0), span(|p| p.1));
        if !(x0.is_finite() && y0.is_finite()) {
            return Err(wrong("nothing was measured"));
        }
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d((x0..x1 * 1.001).log_scale(), (y0 * 0.8..y1 * 1.25).log_scale())
            .map_err(wrong)?;
        chart.configure_mesh().x_desc(x_name).y_desc(y_name).x_label_formatter(x_label).draw().map_err(wrong)?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let style = colour(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))
                .map_err(wrong)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.4))
            .position(SeriesLabelPosition::UpperLeft)
            .draw()
            .map_err(wrong)?;
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_svg_with_its_legend() {
        let curves = [("one".to_owned(), vec![(1.0, 10.0), (10.0, 20.0), (1000.0, 90.0)])];
        let svg = draw("title", "x", "y", &curves, &|x| format!("{x}")).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains(">\none\n<") || svg.contains("one"), "{svg}");
        assert!(draw("t", "x", "y", &[], &|x| format!("{x}")).is_err());
    }
}
