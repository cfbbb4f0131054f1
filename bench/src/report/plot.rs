//! Plots, as SVG text or PNG: the percentile curve of each measurement, and rate against latency.

use std::path::Path;

use plotters::prelude::*;

use super::Report;
use super::pixels::Pixels;
use crate::error::{BenchError, Result};

const SIZE: (u32, u32) = (960, 560);
/// A curve of so few points shows where they are.
const MARKED_POINTS: usize = 24;

/// The colour of one curve of `count`: distinct ones for a few, for many a rainbow, in which neighbours look alike.
fn colour(index: usize, count: usize) -> RGBColor {
    const COLOURS: [RGBColor; 6] = [
        RGBColor(0, 92, 175),
        RGBColor(208, 78, 24),
        RGBColor(27, 138, 90),
        RGBColor(140, 60, 150),
        RGBColor(120, 120, 30),
        RGBColor(90, 90, 90),
    ];
    if count <= COLOURS.len() {
        return COLOURS[index % COLOURS.len()];
    }
    let (r, g, b) = HSLColor(index as f64 / count as f64 * 0.8, 0.8, 0.42).rgb();
    RGBColor(r, g, b)
}

fn wrong(error: impl std::fmt::Display) -> BenchError {
    BenchError::Plan(format!("plot: {error}"))
}

/// Latency by percentile: the x axis is 1/(1-p), so that each further nine takes as much room.
pub(crate) fn percentiles(report: &Report, picture: Picture) -> Result<Vec<u8>> {
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
    let legend = SeriesLabelPosition::LowerRight;
    picture.draw(&Plot { title: &report.title, x_name: "percentile", curves: &curves, x_label: &label, legend })
}

/// p50, p99 and p99.9 by offered rate, the lowest first; of repeats at one rate the median.
pub(crate) fn rate_latency(report: &Report, picture: Picture) -> Result<Vec<u8>> {
    let of = |name: &str, pick: fn(&crate::record::Percentiles) -> f64| {
        let points = rates(report).map(|(rate, latency)| (rate, pick(latency).max(0.1)));
        (name.to_owned(), by_rate(points.collect()))
    };
    let curves = [of("p50", |l| l.p50_us), of("p99", |l| l.p99_us), of("p99.9", |l| l.p99_9_us)];
    let x_label = |x: &f64| format!("{x:.0}");
    let (x_name, legend) = ("offered messages/s", SeriesLabelPosition::UpperLeft);
    picture.draw(&Plot { title: &report.title, x_name, curves: &curves, x_label: &x_label, legend })
}

/// Offered rates with their latencies, where there are any.
pub(crate) fn rates(report: &Report) -> impl Iterator<Item = (f64, &crate::record::Percentiles)> {
    let measured = report.measurements.iter().filter(|m| m.latency.count > 0);
    measured.filter_map(|m| Some((m.offered_per_s?, &m.latency)))
}

/// Sorted by rate, the median where several have the same.
fn by_rate(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.chunk_by(|a, b| a.0 == b.0).map(|same| (same[0].0, same[same.len() / 2].1)).collect()
}

/// A span in which a power of ten lies: only those are labelled on every logarithmic axis.
fn with_decade(low: f64, high: f64) -> (f64, f64) {
    let decade = 10f64.powf(high.log10().floor());
    (low.min(decade), high)
}

/// What is drawn, whatever it is drawn on.
struct Plot<'a> {
    title: &'a str,
    x_name: &'a str,
    curves: &'a [(String, Vec<(f64, f64)>)],
    x_label: &'a dyn Fn(&f64) -> String,
    /// Where the curves are not.
    legend: SeriesLabelPosition,
}

/// The form of a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picture {
    /// Text; letters are the reader's fonts.
    Svg,
    /// Pixels; letters are drawn from our own few strokes, so that no font is needed.
    Png,
}

impl Picture {
    /// By the ending of a file's name.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("png") => Ok(Self::Png),
            Some("svg") | None => Ok(Self::Svg),
            Some(other) => Err(wrong(format!("`.{other}`: it can be .svg or .png"))),
        }
    }

    /// The ending.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }

    fn draw(self, plot: &Plot<'_>) -> Result<Vec<u8>> {
        match self {
            Self::Svg => {
                let mut svg = String::new();
                plot.draw(SVGBackend::with_string(&mut svg, SIZE))?;
                Ok(svg.into_bytes())
            }
            Self::Png => {
                let mut pixels = Pixels::new(SIZE);
                plot.draw(&mut pixels)?;
                pixels.png().map_err(wrong)
            }
        }
    }
}

impl Plot<'_> {
    fn draw<B: DrawingBackend>(&self, backend: B) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let points = || self.curves.iter().flat_map(|(_, points)| points.iter().copied());
        let span = |pick: fn((f64, f64)) -> f64| {
            points().map(pick).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((x0, x1), (y0, y1)) = (span(|p| p.0), span(|p| p.1));
        if !(x0.is_finite() && y0.is_finite()) {
            return Err(wrong("nothing was measured"));
        }
        // Above the curves there is room for a legend.
        let headroom = 1.25 * (y1 / y0).powf(0.25);
        let ((x0, x1), (y0, y1)) = (with_decade(x0, x1 * 1.001), with_decade(y0 * 0.8, y1 * headroom));
        let root = backend.into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 20))
            .margin(16)
            .margin_right(36)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d((x0..x1).log_scale(), (y0..y1).log_scale())
            .map_err(wrong)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.x_name).y_desc("latency, us").x_label_formatter(self.x_label);
        mesh.y_label_formatter(&|us| if *us < 1.0 { format!("{us:.1}") } else { format!("{us:.0}") });
        mesh.draw().map_err(wrong)?;
        for (index, (name, points)) in self.curves.iter().enumerate() {
            let style = colour(index, self.curves.len()).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))
                .map_err(wrong)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            if points.len() <= MARKED_POINTS {
                let marks = points.iter().map(|point| Circle::new(*point, 3, style.filled()));
                chart.draw_series(marks).map_err(wrong)?;
            }
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.4))
            .position(self.legend.clone())
            .draw()
            .map_err(wrong)?;
        root.present().map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(picture: Picture, curves: &[(String, Vec<(f64, f64)>)]) -> Result<Vec<u8>> {
        picture.draw(&Plot {
            title: "title",
            x_name: "x",
            curves,
            x_label: &|x| format!("{x}"),
            legend: SeriesLabelPosition::UpperLeft,
        })
    }

    #[test]
    fn a_plot_is_svg_with_its_legend_or_a_png_with_its_size() {
        let curves = [("one".to_owned(), vec![(1.0, 10.0), (10.0, 20.0), (1000.0, 90.0)])];
        let svg = String::from_utf8(draw(Picture::Svg, &curves).unwrap()).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("one"), "{svg}");
        let png = draw(Picture::Png, &curves).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
        assert_eq!((&png[16..20], &png[20..24]), (&SIZE.0.to_be_bytes()[..], &SIZE.1.to_be_bytes()[..]));
        for picture in [Picture::Svg, Picture::Png] {
            assert!(draw(picture, &[]).is_err());
        }
    }

    #[test]
    fn repeats_at_a_rate_are_one_point_and_rates_ascend() {
        let points = vec![(200.0, 9.0), (100.0, 3.0), (200.0, 7.0), (200.0, 8.0)];
        assert_eq!(by_rate(points), [(100.0, 3.0), (200.0, 8.0)]);
    }

    #[test]
    fn many_curves_have_a_colour_each() {
        let mut colours: Vec<_> = (0..20).map(|index| colour(index, 20)).map(|RGBColor(r, g, b)| (r, g, b)).collect();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 20);
    }

    #[test]
    fn an_axis_has_a_power_of_ten() {
        assert_eq!(with_decade(200.0, 300.0), (100.0, 300.0));
        assert_eq!(with_decade(50.0, 300.0), (50.0, 300.0));
        assert_eq!(with_decade(0.2, 0.3), (0.1, 0.3));
    }

    #[test]
    fn the_ending_says_the_form() {
        assert_eq!(Picture::of(Path::new("a/run.png")).unwrap(), Picture::Png);
        assert_eq!(Picture::of(Path::new("a/run")).unwrap(), Picture::Svg);
        assert!(Picture::of(Path::new("a/run.jpeg")).unwrap_err().to_string().contains(".jpeg"));
    }
}
