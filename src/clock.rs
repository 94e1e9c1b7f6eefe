//! The clock: all readings of wall-clock and monotonic time go through this module, so that decisions take a time as an
//! argument and tests can shift it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, SecondsFormat, Utc};

/// Wall-clock time. May jump; never use it to measure how long something took.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> SystemTime {
    crate::faults::shifted(SystemTime::now())
}

#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Whole seconds since 1970-01-01 UTC; 0 for a time before that.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// `2026-11-21T03:04:05Z`: RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2026-11-21T04:04:05+01:00`: RFC 3339 in the local time zone with its offset, for people.
#[must_use]
pub fn local(at: SystemTime) -> String {
    DateTime::<Local>::from(at).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// Parses RFC 3339.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from)
}

/// `2026-11-21T03:04:05.678Z`: RFC 3339 in UTC with milliseconds, for log lines.
#[must_use]
pub fn rfc3339_millis(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc3339() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_millis(at), "2023-11-14T22:13:20.123Z");
        assert_eq!(unix_seconds(at), 1_700_000_000);
        assert_eq!(parse_rfc3339("2023-11-14T22:13:20Z").map(unix_seconds), Some(1_700_000_000));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(unix_seconds(UNIX_EPOCH - Duration::from_secs(5)), 0);
    }
}
