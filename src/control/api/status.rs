//! `/v1/status`: everything that `quorate status` shows. docs/status.md has the fields; they are added to, never renamed.

use serde::{Deserialize, Serialize};

use crate::plan::condition::{Condition, Problem};
use crate::recovery::drill::record::DrillOutcome;
use crate::recovery::retired::RetiredData;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// True if all is well: `health` is `healthy`.
    pub healthy: bool,
    /// `healthy`, `degraded` or `unhealthy`.
    #[serde(default)]
    pub health: Condition,
    /// The worst of `problems`, in a sentence.
    pub reason: Option<String>,
    /// What is wrong, the worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// `node-name`.
    pub node: String,
    pub client_url: String,
    pub local_client_url: String,
    pub peer_url: String,
    /// `D`.
    pub data_dir: String,
    pub launcher: LauncherStatus,
    pub etcd: Child,
    /// The status of etcd; absent while it does not answer.
    pub member: Option<MemberStatus>,
    #[serde(default)]
    pub snapshots: Snapshots,
    pub certificates: Vec<Certificate>,
    pub disk: DataDisk,
    /// Retired data directories, the newest first.
    #[serde(default)]
    pub old_data: Vec<RetiredData>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LauncherStatus {
    pub version: String,
    pub pid: u32,
    /// RFC 3339.
    pub started: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// `stopped`, `starting`, `ready`, `stopping`, `backoff` or `failed`.
    pub state: String,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
    pub version: String,
    pub binary: String,
    /// RFC 3339.
    pub started: Option<String>,
    /// Milliseconds from its start to being ready.
    pub ready_after_ms: Option<u64>,
    pub restarts: u64,
    pub last_exit: Option<String>,
    /// Its last lines, while it is not healthy.
    pub last_lines: Vec<String>,
    /// Lines of its log that were dropped because there were too many.
    pub dropped_lines: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    pub name: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal.
    pub cluster_id: String,
    /// Incremented by every reset or restore.
    pub epoch: u64,
    pub members: usize,
    pub is_leader: bool,
    /// Hexadecimal.
    pub leader_id: String,
    pub revision: i64,
    pub db_size: i64,
    pub db_in_use: i64,
    pub db_quota: u64,
    /// Such as `NOSPACE`.
    pub alarms: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    pub name: String,
    /// RFC 3339.
    pub expires: String,
    pub days_left: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshots {
    pub dir: String,
    pub last_good: Option<LastGood>,
    /// The last successful verification of any snapshot; RFC 3339.
    pub last_verified: Option<String>,
    pub failures: u64,
    pub last_failure: Option<String>,
    /// When the next scheduled one is due; RFC 3339.
    pub next: Option<String>,
    /// Object storage, if uploads are enabled or pending.
    #[serde(default)]
    pub s3: Option<ObjectStorage>,
    /// Restore drills, if there was any or they are scheduled.
    #[serde(default)]
    pub drill: Option<Drills>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drills {
    pub last: Option<DrillOutcome>,
    /// When one passed last; RFC 3339.
    pub last_success: Option<String>,
    pub failures: u64,
    /// When the next one is due; RFC 3339.
    pub next: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObjectStorage {
    /// `s3://bucket/folder/`; empty if unknown.
    pub place: String,
    pub pending: Vec<PendingUpload>,
    /// The newest uploaded one, with its URL as the name.
    pub last: Option<LastGood>,
    /// When it was uploaded; RFC 3339.
    pub last_at: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PendingUpload {
    pub name: String,
    /// RFC 3339.
    pub since: String,
    pub failures: u32,
    pub last_failure: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastGood {
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Bytes as stored.
    pub size: u64,
    pub revision: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataDisk {
    pub free: Option<u64>,
    /// The 99th percentile of small writes before the start, in milliseconds.
    pub fsync_p99_ms: Option<f64>,
}
