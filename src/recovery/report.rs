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
    /// The snapshot may be a plain copy of `member/snap/db`.
    pub skip_hash: bool,
    /// The snapshot may hold no keys at all.
    pub allow_empty: bool,
    /// Take no snapshot of the data in use first.
    pub no_pre_restore_snapshot: bool,
}

/// Receives the progress of long work: what is being done, bytes done, of how many.
pub type ProgressReporter = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// What was done, or would be.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Which operation it was.
    pub kind: Option<OperationKind>,
    /// The snapshot, or the data that came back.
    pub from: Option<PathBuf>,
    /// Where the data from before are; `None` if there were none.
    pub old: Option<PathBuf>,
    /// The snapshot that was taken of them.
    pub pre_restore_snapshot: Option<PathBuf>,
    /// Bytes of the database.
    pub size: u64,
    /// Its revision before and after.
    pub revision: Option<(i64, i64)>,
    /// Its keys.
    pub keys: Option<u64>,
    /// Members that the cluster had.
    pub members_before: usize,
    /// Alarms that were cleared.
    pub cleared_alarms: Vec<String>,
    /// Bytes that are needed for it, and that are free there.
    pub space: Option<(u64, u64)>,
    /// An etcd ran on the data and passed the gate.
    pub is_verified: bool,
    /// What else the operator should know.
    pub notes: Vec<String>,
}
