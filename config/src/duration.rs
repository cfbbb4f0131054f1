//! Durations as configuration files spell them: `10s`, `1m30s`, `2h 3m 4s`.

use std::time::Duration;

/// Units by size, smallest first: their spelling and their length in nanoseconds.
const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
    ("w", 604_800 * SECOND),
    ("y", 31_556_926 * SECOND), // a mean tropical year
];
const SECOND: u128 = 1_000_000_000;

/// Reads a duration such as `1m30s`.
///
/// Shape:  one or more `<whole number><unit>`, summed; white space is ignored.
/// Units:  ns us ms s m h d w y.
/// Errors: what is wrong, as a sentence; bare numbers, fractions, signs and sums above [`Duration::MAX`] are refused.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    if compact.is_empty() {
        return Err("an empty duration".into());
    }
    let mut rest = compact.as_str();
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = leading(rest, |character| character.is_ascii_digit());
        rest = &rest[digits.len()..];
        let unit = leading(rest, |character| !character.is_ascii_digit());
        rest = &rest[unit.len()..];
        if digits.is_empty() {
            return Err(format!("a number is missing before `{unit}`"));
        }
        if unit.is_empty() {
            return Err(format!("the number {digits} has no unit"));
        }
        let Some((_, unit_ns)) = UNITS.iter().find(|(spelling, _)| *spelling == unit) else {
            return Err(format!("`{unit}` is not a unit of time"));
        };
        total = digits
            .parse::<u128>()
            .ok()
            .and_then(|count| count.checked_mul(*unit_ns))
            .and_then(|ns| ns.checked_add(total))
            .ok_or_else(|| "the duration is too long".to_owned())?;
    }
    let seconds = u64::try_from(total / SECOND).map_err(|_| "the duration is too long".to_owned())?;
    let nanoseconds = u32::try_from(total % SECOND).unwrap_or(u32::MAX); // a remainder of 10^9 always fits
    Ok(Duration::new(seconds, nanoseconds))
}

/// Spells a duration with the largest unit that divides it evenly; zero is `0y`.
pub fn format_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let (unit, unit_ns) =
        UNITS.iter().rev().find(|(_, unit_ns)| ns.is_multiple_of(*unit_ns)).expect("one nanosecond divides everything");
    format!("{}{unit}", ns / unit_ns)
}

fn leading(text: &str, mut wanted: impl FnMut(char) -> bool) -> &str {
    let end = text.find(|character| !wanted(character)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[rustfmt::skip]
    fn table() {
        let ns = |text| parse_duration(text).map(|duration| duration.as_nanos());
        assert_eq!(ns("0s"),        Ok(0));
        assert_eq!(ns("1ns"),       Ok(1));
        assert_eq!(ns("1us"),       Ok(1_000));
        assert_eq!(ns("1ms"),       Ok(1_000_000));
        assert_eq!(ns("1m30s"),     Ok(90 * SECOND));
        assert_eq!(ns("2h3m4s"),    Ok(7_384 * SECOND));
        assert_eq!(ns(" 2h 3 m4s"), Ok(7_384 * SECOND));
        assert_eq!(ns("1d"),        Ok(86_400 * SECOND));
        assert_eq!(ns("1w"),        Ok(604_800 * SECOND));
        assert_eq!(ns("1y"),        Ok(31_556_926 * SECOND));
        assert_eq!(ns("1s1s"),      Ok(2 * SECOND));
        assert_eq!(ns(""),          Err("an empty duration".into()));
        assert_eq!(ns("10"),        Err("the number 10 has no unit".into()));
        assert_eq!(ns("1.5s"),      Err("`.` is not a unit of time".into()));
        assert_eq!(ns("-1s"),       Err("a number is missing before `-`".into()));
        assert_eq!(ns("1min"),      Err("`min` is not a unit of time".into()));
        assert_eq!(ns("1S"),        Err("`S` is not a unit of time".into()));
        assert_eq!(ns("99999999999999999999999999999999999999999s"), Err("the duration is too long".into()));
        assert_eq!(ns("18446744073709551616s"), Err("the duration is too long".into()));
        assert_eq!(ns("18446744073709551615s999999999ns"), Ok(Duration::MAX.as_nanos()));
    }

    #[test]
    fn formats_with_the_largest_unit() {
        assert_eq!(format_duration(Duration::ZERO), "0y");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_secs(7200)), "2h");
        assert_eq!(format_duration(Duration::from_nanos(1_500)), "1500ns");
    }

    proptest! {
        /// What is written is read back.
        #[test]
        fn round_trip(seconds: u64, nanoseconds in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanoseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        /// Groups add up, in whatever order they stand.
        #[test]
        fn groups_add(hours in 0u64..1_000_000, minutes in 0u64..1_000_000, ms in 0u64..1_000_000) {
            let expected = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format!("{hours}h{minutes}m{ms}ms")), Ok(expected));
            prop_assert_eq!(parse_duration(&format!("{ms} ms {hours}h {minutes}m")), Ok(expected));
        }

        /// Any text is answered, and what is accepted has only digits, units and white space in it.
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            if parse_duration(&text).is_ok() {
                prop_assert!(text.chars().all(|c| c.is_whitespace() || c.is_ascii_digit() || "numshdwy".contains(c)));
            }
        }

        #[test]
        fn never_panics_on_near_misses(text in "([0-9]{0,30}(ns|us|ms|s|m|h|d|w|y|é| )?){0,5}") {
            let _ = parse_duration(&text);
        }
    }
}
