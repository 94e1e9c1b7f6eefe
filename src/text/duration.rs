//! Durations as operators and Go write them.

use std::fmt::Write as _;

/// Seconds of each unit. A month is 30 days, a year 365.
const UNITS: [(&str, u64); 8] = [
    ("s", 1),
    ("m", 60),
    ("min", 60),
    ("h", 3600),
    ("d", 86_400),
    ("w", 604_800),
    ("mo", 2_592_000),
    ("y", 31_536_000),
];

/// `90m`, `36h`, `30d`, `2w`, or several in a row as in `1h30m0s`; in seconds.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let mut total = 0u64;
    for (number, unit) in parts(text)? {
        total = total.checked_add(number.checked_mul(unit_seconds(unit)?)?)?;
    }
    Some(total)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    #[error("must be a duration such as 36h, 30d or 8w")]
    Form,
    /// Minutes here, but months in other backup tools.
    #[error("must use `min` for minutes or `mo` for months: `m` alone is ambiguous")]
    Ambiguous,
}

/// A retention age in seconds: like [`parse`], but `m` alone is refused, because it is a month in restic. After an `h`,
/// as in Go's `1h30m0s`, it means minutes.
pub fn parse_age(text: &str) -> Result<u64, AgeError> {
    let parts = parts(text).ok_or(AgeError::Form)?;
    let is_ambiguous =
        parts.iter().enumerate().any(|(index, (_, unit))| *unit == "m" && (index == 0 || parts[index - 1].1 != "h"));
    if is_ambiguous { Err(AgeError::Ambiguous) } else { parse(text).ok_or(AgeError::Form) }
}

fn unit_seconds(unit: &str) -> Option<u64> {
    UNITS.into_iter().find(|(name, _)| *name == unit).map(|(_, seconds)| seconds)
}

/// The numbers and units, at least one of each.
fn parts(text: &str) -> Option<Vec<(u64, &str)>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let end = rest[unit..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| unit + length);
        parts.push((rest[..unit].parse().ok()?, &rest[unit..end]));
        rest = &rest[end..];
    }
    (!parts.is_empty()).then_some(parts)
}

/// In Go's format: `12h0m0s`, `5m0s`, `30s` (<https://pkg.go.dev/time#Duration.String>).
#[must_use]
pub fn format_go(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{seconds}s");
    text
}

/// In the format that [`crate::plan::retention::Policy`] parses: `72h`, `90min`, `45s`.
#[must_use]
pub fn format_age(seconds: u64) -> String {
    match seconds {
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}min", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_read() {
        for (text, expected) in [
            ("90m", Some(5400)),
            ("30d", Some(2_592_000)),
            ("2w", Some(1_209_600)),
            ("1h30m", Some(5400)),
            ("6h0s", Some(21_600)),
            ("90min", Some(5400)),
            ("2mo", Some(5_184_000)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("m", None),
            ("5x", None),
            ("-5m", None),
            ("1.5h", None),
            ("5m3", None),
            ("5é", None),
            ("99999999999999999999h", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn an_age_says_whether_it_means_minutes_or_months() {
        for (text, expected) in [
            ("36h", Ok(129_600)),
            ("2min", Ok(120)),
            ("2mo", Ok(5_184_000)),
            ("1y6mo", Ok(47_088_000)),
            ("24h0m0s", Ok(86_400)),
            ("1h30m", Ok(5400)),
            ("2m", Err(AgeError::Ambiguous)),
            ("2y5m7d3h", Err(AgeError::Ambiguous)),
            ("90m0s", Err(AgeError::Ambiguous)),
            ("", Err(AgeError::Form)),
            ("30", Err(AgeError::Form)),
            ("2M", Err(AgeError::Form)),
        ] {
            assert_eq!(parse_age(text), expected, "{text}");
        }
        for seconds in [1, 60, 90, 3600, 5400, 86_400, 259_200] {
            assert_eq!(parse_age(&format_age(seconds)), Ok(seconds));
        }
    }

    proptest! {
        #[test]
        fn what_go_writes_is_read_back(seconds in 0u64..1 << 40) {
            prop_assert_eq!(parse(&format_go(seconds)), Some(seconds));
        }

        #[test]
        fn nothing_makes_it_panic(text: String) {
            let _ = parse(&text);
        }
    }
}
