//! What is asked of a reset, restore or undo, and what was done.

use std::path::PathBuf;
use std::sync::Arc;

use crate::recovery::journal::OperationKind;

/// The options of a reset, restore or undo.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ResetOptions {
    /// Go back to the data from before the last reset or restore.
    pub undo: bool,
    /// Only report what would be done.
    pub dry_run: bool,
    /// Accept a raw copy of `member/snap/db`.
    pub skip_hash: bool,
    pub allow_empty: bool,
    /// Take no snapshot of the data in use first.
    pub no_pre_restore_snapshot: bool,
}

/// Receives the progress of long work: what is being done, bytes done, of how many.
pub type ProgressReporter = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// What was done, or would be.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    pub kind: Option<OperationKind>,
    /// The snapshot, or the returned data.
    pub from: Option<PathBuf>,
    /// The previous data; `None` if there was none.
    pub old: Option<PathBuf>,
    /// The snapshot of the previous data.
    pub pre_restore_snapshot: Option<PathBuf>,
    pub size: u64,
    pub revision: Option<(i64, i64)>,
    pub keys: Option<u64>,
    pub members_before: usize,
    pub cleared_alarms: Vec<String>,
    pub space: Option<(u64, u64)>,
    /// An etcd ran on the data and passed the gate.
    pub is_verified: bool,
    /// What else the operator should know.
    pub notes: Vec<String>,
}
