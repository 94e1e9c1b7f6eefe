//! The results of verifying several snapshots.

use serde::Serialize;

use crate::cli::etcd_snapshot::verify::arguments::Args;
use crate::cli::output;
use crate::error::{AppError, Exit};

/// The results of all snapshots.
#[derive(Default)]
pub(super) struct Outcome {
    /// For JSON: all results.
    pub(super) all: Vec<serde_json::Value>,
    /// For the table: the good ones.
    summaries: Vec<String>,
    worst: Option<Exit>,
}

impl Outcome {
    pub(super) fn good(&mut self, item: &impl Serialize, summary: String) {
        self.all.push(serde_json::to_value(item).unwrap_or_default());
        self.summaries.push(summary);
    }

    /// `7 snapshots: 6 good, 1 failed`.
    fn summary(&self) -> String {
        let of = |status: &str| self.all.iter().filter(|item| item["status"] == status).count();
        let counts = ["good", "failed", "missing"].map(|status| (of(status), status));
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, status)| format!("{count} {status}")).collect();
        format!("{}: {}\n", output::plural(self.all.len(), "snapshot"), counts.join(", "))
    }

    /// All are verified. The exit code is that of the first failure, except that 1 has precedence: damaged is worse
    /// than missing.
    pub(super) fn bad(&mut self, path: &str, failure: &AppError) {
        output::failure(failure);
        let status = match failure.exit() {
            Exit::NotFound => "missing",
            _ => "failed",
        };
        self.all.push(serde_json::json!({
            "path": path, "status": status, "code": failure.code(), "finding": failure.to_report().to_string()
        }));
        let exit = failure.exit();
        self.worst = Some(if exit == Exit::Failed { exit } else { self.worst.unwrap_or(exit) });
    }

    /// Prints the good ones, and the totals.
    pub(super) fn print(&self, args: &Args) -> Result<Exit, AppError> {
        if !output::structured(&serde_json::json!({ "items": self.all }), args.output)? && !output::is_quiet() {
            for summary in &self.summaries {
                output::print_stdout(summary)?;
            }
            if self.all.len() > 1 || args.all {
                output::print_stdout(&self.summary())?;
            }
        }
        Ok(self.worst.unwrap_or(Exit::Done))
    }
}
