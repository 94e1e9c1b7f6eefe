//! `/v1/status`: everything that `quorate status` shows. docs/status.md has the fields; they are added to, never renamed.

use serde::{Deserialize, Serialize};

use crate::plan::health::{Condition, Problem};
use crate::recovery::drill::record::Outcome;
use crate::recovery::retired::RetiredData;

/// The state of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
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
    /// Where clients connect.
    pub client_url: String,
    /// The same over loopback.
    pub local_client_url: String,
    /// Where members connect.
    pub peer_url: String,
    /// `D`.
    pub data_dir: String,
    /// The launcher.
    pub launcher: Launcher,
    /// The etcd process.
    pub etcd: Child,
    /// What etcd says about itself; absent while it does not answer.
    pub member: Option<Member>,
    /// The snapshots.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// The certificates.
    pub certificates: Vec<Certificate>,
    /// The disk under the data.
    pub disk: Disk,
    /// Data directories that were set aside, the newest first.
    #[serde(default)]
    pub old_data: Vec<RetiredData>,
}

/// The launcher.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launcher {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// RFC 3339.
    pub started: String,
}

/// The etcd process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// `stopped`, `starting`, `ready`, `stopping`, `backoff` or `failed`.
    pub state: String,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
    /// Its version.
    pub version: String,
    /// Its executable.
    pub binary: String,
    /// RFC 3339.
    pub started: Option<String>,
    /// Milliseconds from its start to being ready.
    pub ready_after_ms: Option<u64>,
    /// Starts after the first.
    pub restarts: u64,
    /// How it ended the last time that it ended by itself.
    pub last_exit: Option<String>,
    /// Its last lines, while it is not healthy.
    pub last_lines: Vec<String>,
    /// Lines of its log that were dropped because there were too many.
    pub dropped_lines: u64,
}

/// What etcd says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Member name.
    pub name: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal.
    pub cluster_id: String,
    /// One more with every reset or restore.
    pub epoch: u64,
    /// Members, learners included.
    pub members: usize,
    /// True if this one leads.
    pub is_leader: bool,
    /// Hexadecimal.
    pub leader_id: String,
    /// Of the keyspace.
    pub revision: i64,
    /// Bytes.
    pub db_size: i64,
    /// Bytes.
    pub db_in_use: i64,
    /// Bytes.
    pub db_quota: u64,
    /// Such as `NOSPACE`.
    pub alarms: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// File name without ending.
    pub name: String,
    /// RFC 3339.
    pub expires: String,
    /// Whole days.
    pub days_left: u64,
}

/// The snapshots of this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshots {
    /// Where they are.
    pub dir: String,
    /// The newest good one.
    pub last_good: Option<LastGood>,
    /// When any was verified last and found good; RFC 3339.
    pub last_verified: Option<String>,
    /// Failures since the last success.
    pub failures: u64,
    /// The last failure.
    pub last_failure: Option<String>,
    /// When the next scheduled one is due; RFC 3339.
    pub next: Option<String>,
    /// Object storage, if snapshots are uploaded, or some are still to be.
    #[serde(default)]
    pub s3: Option<ObjectStorage>,
    /// Rehearsals of a restore, if there was any or some are scheduled.
    #[serde(default)]
    pub drill: Option<Drills>,
}

/// Rehearsals of a restore.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drills {
    /// What the last one found.
    pub last: Option<Outcome>,
    /// When one passed last; RFC 3339.
    pub last_success: Option<String>,
    /// Those that failed, ever.
    pub failures: u64,
    /// When the next one is due; RFC 3339.
    pub next: Option<String>,
}

/// Snapshots in object storage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObjectStorage {
    /// `s3://bucket/folder/`; empty if it cannot be told.
    pub place: String,
    /// Those that are still to be uploaded, the oldest first.
    pub pending: Vec<PendingUpload>,
    /// The newest one that is there, with the URL as its name.
    pub last: Option<LastGood>,
    /// When it was there; RFC 3339.
    pub last_at: Option<String>,
}

/// A snapshot that is still to be uploaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PendingUpload {
    /// File name.
    pub name: String,
    /// RFC 3339.
    pub since: String,
    /// Attempts that failed.
    pub failures: u32,
    /// Why the last one did.
    pub last_failure: Option<String>,
}

/// The newest good snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastGood {
    /// File name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Bytes as stored.
    pub size: u64,
    /// Of the keyspace.
    pub revision: i64,
}

/// The disk under the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes.
    pub free: Option<u64>,
    /// Milliseconds that 99 of 100 small writes took before the start.
    pub fsync_p99_ms: Option<f64>,
}
