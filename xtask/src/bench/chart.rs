//! Bars as SVG: one group per case, one bar per target.

use super::record::short;
use std::fmt::Write as _;

/// One group of bars: its name, and a value for each series that has one.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// Fills that can be told apart without telling red from green.
const FILLS: [&str; 8] = ["#0072b2", "#d55e00", "#e69f00", "#009e73", "#8c8c8c", "#cc79a7", "#56b4e9", "#444444"];
const BAR: u32 = 15;
/// What a letter takes, about.
const LETTER: u32 = 7;
/// How long the longest bar is; its number stands behind it.
const LENGTH: f64 = 520.0;
/// Values further apart than this are drawn on a logarithmic axis, which the title says.
const LOG_FROM: f64 = 60.0;

/// Draws groups of bars, `series` naming the bars of each group.
pub(crate) fn bars(title: &str, series: &[String], groups: &[Group]) -> String {
    let all = || groups.iter().flat_map(|group| group.values.iter().flatten().copied()).filter(|value| *value > 0.0);
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let is_log = most / least > LOG_FROM;
    let length = |value: f64| match is_log {
        _ if value <= 0.0 => 0.0,
        // The least one keeps a bar that can be seen.
        true => LENGTH * (value / (least / 2.0)).ln() / (most / (least / 2.0)).ln(),
        false => LENGTH * value / most,
    };
    let longest = groups.iter().map(|group| group.name.chars().count()).max().unwrap_or(0);
    let left = 16 + LETTER * u32::try_from(longest).unwrap_or(0); // where bars begin
    let width = left + 620;
    let mut body = String::new();
    let mut y = 34;
    let mut x = 10;
    for (name, fill) in series.iter().zip(FILLS.iter().cycle()) {
        let takes = 30 + LETTER * u32::try_from(name.chars().count()).unwrap_or(0);
        if x > 10 && x + takes > width {
            (x, y) = (10, y + 18);
        }
        let _ = writeln!(body, r#"<rect x="{x}" y="{y}" width="11" height="11" fill="{fill}"/>"#);
        let _ = writeln!(body, r#"<text x="{}" y="{}">{}</text>"#, x + 16, y + 10, escaped(name));
        x += takes;
    }
    y += 26;
    for group in groups {
        let there: Vec<_> =
            group.values.iter().zip(FILLS.iter().cycle()).filter(|(value, _)| value.is_some()).collect();
        let height = BAR * u32::try_from(there.len()).unwrap_or(0);
        let _ = writeln!(
            body,
            r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
            left - 8,
            y + height / 2 + 4,
            escaped(&group.name)
        );
        for (value, fill) in there {
            let value = value.unwrap_or_default();
            let long = length(value);
            let _ =
                writeln!(body, r#"<rect x="{left}" y="{y}" width="{long:.1}" height="{}" fill="{fill}"/>"#, BAR - 2);
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{}">{}</text>"#,
                f64::from(left) + long + 5.0,
                y + 11,
                short(value)
            );
            y += BAR;
        }
        y += 9;
    }
    let note = if is_log { " (logarithmic)" } else { "" };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" viewBox=\"0 0 {width} {y}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"{width}\" height=\"{y}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}{note}</text>\n{body}</svg>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, values: [Option<f64>; 2]) -> Group {
        Group { name: name.into(), values: values.into() }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let series = ["a".to_owned(), "b".to_owned()];
        let svg = bars("x < y", &series, &[group("1->1", [Some(50.0), Some(100.0)]), group("2", [None, Some(25.0)])]);
        assert!(svg.contains("x &lt; y</text>") && svg.contains(">1-&gt;1<"), "{svg}");
        for width in ["260.0", "520.0", "130.0"] {
            assert_eq!(svg.matches(&format!("width=\"{width}\"")).count(), 1, "{width} in {svg}");
        }
    }

    #[test]
    fn values_far_apart_get_a_logarithmic_axis_that_says_so() {
        let series = ["a".to_owned(), "b".to_owned()];
        let svg = bars("t", &series, &[group("1", [Some(1.0), Some(100.0)])]);
        assert!(svg.contains("t (logarithmic)") && svg.contains("width=\"520.0\""), "{svg}");
    }
}
