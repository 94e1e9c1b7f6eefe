//! `/v1/defrag` and `/v1/free`.

use serde::{Deserialize, Serialize};

use crate::etcd::client::Size;

/// What both are asked with.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct MaintenanceRequest {
    /// Wait until the database is free, for example while a snapshot is being saved; otherwise the answer is `busy`.
    pub wait: bool,
}

/// What a defragmentation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defragmented {
    /// The database before it.
    pub before: Size,
    /// And after.
    pub after: Size,
    /// Milliseconds for which this member answered nobody.
    pub took_ms: u64,
    /// Bytes that it may grow to; 0 if there is no limit.
    pub quota: u64,
    /// True if NOSPACE was raised, and was taken back.
    pub is_disarmed: bool,
}

/// What giving up history came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// There is no history before this any more.
    pub compact_revision: i64,
    /// False if there was none to give up.
    pub is_compacted: bool,
    /// What followed.
    #[serde(flatten)]
    pub defragmented: Defragmented,
}
