//! Results of checks: the rows of `quorate doctor`.

use serde::Serialize;

use crate::text::age::short;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    Ok,
    Note,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckRow {
    /// What was checked: `disk`, `ports` and so on.
    pub check: &'static str,
    pub result: CheckResult,
    pub what: String,
    /// What to do or type, if anything.
    pub next: Option<String>,
}

impl CheckRow {
    #[must_use]
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Ok, what: what.into(), next: None }
    }

    #[must_use]
    pub fn note(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Note, what: what.into(), next: Some(next.into()) }
    }

    #[must_use]
    pub fn bad(check: &'static str, what: impl Into<String>, next: Option<String>) -> Self {
        Self { check, result: CheckResult::Bad, what: what.into(), next }
    }
}

/// A certificate that is valid for at most this many days is noted: leaves are renewed at start and while the server
/// runs.
const FEW_DAYS: u64 = 30;

/// The check of a certificate that is valid for `days_left` more days; `None` if it has expired.
#[must_use]
pub fn certificate(name: &str, days_left: Option<u64>) -> CheckRow {
    match days_left {
        None => CheckRow::bad(
            "certificates",
            format!("{name} has expired"),
            Some("start or restart the server, which renews its certificates (replace a CA by hand)".into()),
        ),
        Some(days) if days < FEW_DAYS => CheckRow::note(
            "certificates",
            format!("{name} expires in {days} days"),
            "a running server renews it automatically",
        ),
        Some(days) => {
            CheckRow::ok("certificates", format!("valid for {days} more days ({name} is the first to expire)"))
        }
    }
}

/// The check of the age of the newest good snapshot: at most one scheduled snapshot may be missing.
#[must_use]
pub fn snapshot_age(age_seconds: Option<u64>, interval_seconds: Option<u64>, save: &str) -> CheckRow {
    let limit = interval_seconds.map(|interval| interval.saturating_mul(2).saturating_add(600));
    match (age_seconds, limit) {
        (None, _) => CheckRow::bad("snapshots", "no good snapshot of this server was found", Some(save.into())),
        (Some(age), Some(limit)) if age > limit => CheckRow::bad(
            "snapshots",
            format!("the newest good one is {} old, and one is due every {}", short(age), short(limit / 2)),
            Some(save.into()),
        ),
        (Some(age), None) => CheckRow::note(
            "snapshots",
            format!("the newest good one is {} old, and none is scheduled", short(age)),
            "remove etcd-disable-snapshots, or schedule snapshots elsewhere",
        ),
        (Some(age), Some(_)) => CheckRow::ok("snapshots", format!("the newest good one is {} old", short(age))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_too_old_when_two_were_due_since() {
        let result = |age, interval| snapshot_age(age, interval, "save").result;
        assert_eq!(result(None, Some(3600)), CheckResult::Bad);
        assert_eq!(result(Some(3600), Some(3600)), CheckResult::Ok);
        assert_eq!(result(Some(2 * 3600 + 601), Some(3600)), CheckResult::Bad);
        assert_eq!(result(Some(10), None), CheckResult::Note);
    }

    #[test]
    fn certificates_are_judged_by_the_days_that_are_left() {
        for (days, expected) in [(None, CheckResult::Bad), (Some(3), CheckResult::Note), (Some(300), CheckResult::Ok)] {
            assert_eq!(certificate("client", days).result, expected);
        }
    }
}
