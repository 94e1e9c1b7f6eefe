//! `S/drill.json`: the results of the last drills of this server's snapshots, by the server or a command. Fields are
//! added, never renamed.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::error::ErrorReport;
use crate::recovery::drill::Passed;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillRecord {
    pub last: Option<DrillOutcome>,
    /// When one passed last; RFC 3339.
    pub last_success: Option<String>,
    pub failures: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillOutcome {
    /// Which snapshot: its name or URL; `latest` if there was none.
    pub snapshot: String,
    /// When it ended; RFC 3339.
    pub at: String,
    pub passed: bool,
    pub failure: Option<String>,
    /// The etcd that ran on it; empty if it failed.
    pub etcd_version: String,
    /// Milliseconds; 0 if it failed.
    pub took_ms: u64,
}

impl DrillOutcome {
    /// A drill of `snapshot` that passed, and ended at `at`.
    #[must_use]
    pub fn passed(snapshot: &str, passed: &Passed, at: SystemTime) -> Self {
        Self {
            snapshot: snapshot.to_owned(),
            at: clock::rfc3339(at),
            passed: true,
            failure: None,
            etcd_version: passed.etcd.to_string(),
            took_ms: u64::try_from(passed.took.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// A failed one, with its report.
    #[must_use]
    pub fn failed(snapshot: &str, report: &ErrorReport, at: SystemTime) -> Self {
        let causes: String = report.because.iter().map(|cause| format!(": {cause}")).collect();
        let failure = Some(format!("{}{causes}", report.message));
        Self { snapshot: snapshot.to_owned(), at: clock::rfc3339(at), failure, ..Self::default() }
    }
}

impl DrillRecord {
    /// Reads it; an empty one if it is missing or unreadable.
    #[must_use]
    pub fn read(data: &DataDir) -> Self {
        let bytes = crate::host::read_small(&data.drills());
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    #[must_use]
    pub fn with(mut self, outcome: DrillOutcome) -> Self {
        if outcome.passed {
            self.last_success = Some(outcome.at.clone());
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        self.last = Some(outcome);
        self
    }

    pub fn write(&self, data: &DataDir) -> Result<(), WriteError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        durable::write_file(&data.drills(), &text, PRIVATE_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_success_is_remembered_through_failures() {
        let outcome = |at: &str, passed| DrillOutcome { at: at.into(), passed, ..DrillOutcome::default() };
        let record =
            DrillRecord::default().with(outcome("1", true)).with(outcome("2", false)).with(outcome("3", false));
        assert_eq!((record.failures, record.last_success.as_deref()), (2, Some("1")));
        assert_eq!(record.last.as_ref().map(|last| last.at.as_str()), Some("3"));
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        std::fs::create_dir(data.server()).unwrap();
        record.write(&data).unwrap();
        assert_eq!(DrillRecord::read(&data), record);
        std::fs::write(data.drills(), "{").unwrap();
        assert_eq!(DrillRecord::read(&data), DrillRecord::default());
    }
}
