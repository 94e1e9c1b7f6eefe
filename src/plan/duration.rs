//! Lengths of time, as people and Go write them.

use std::fmt::Write as _;

/// `90m`, `36h`, `30d`, `2w`, or several of them in a row as in `1h30m0s`; in seconds.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    const UNITS: [(char, u64); 6] =
        [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800), ('y', 31_536_000)];
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit = rest[end..].chars().next()?;
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(rest[..end].parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &rest[end + 1..];
    }
    (!text.is_empty()).then_some(total)
}

/// As Go writes it: `12h0m0s`, `5m0s`, `30s` (<https://pkg.go.dev/time#Duration.String>).
#[must_use]
pub fn go(seconds: u64) -> String {
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

    proptest! {
        #[test]
        fn what_go_writes_is_read_back(seconds in 0u64..1 << 40) {
            prop_assert_eq!(parse(&go(seconds)), Some(seconds));
        }

        #[test]
        fn nothing_makes_it_panic(text: String) {
            let _ = parse(&text);
        }
    }
}
