//! `/v1/defrag` and `/v1/free`.

use serde::{Deserialize, Serialize};

use crate::etcd::client::Size;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct MaintenanceRequest {
    /// Wait until the database is free, for example while a snapshot is being saved; otherwise the answer is `busy`.
    pub wait: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defragmented {
    pub before: Size,
    pub after: Size,
    /// Milliseconds without service of this member.
    pub took_ms: u64,
    /// The quota in bytes; 0 if there is no limit.
    pub quota: u64,
    /// True if NOSPACE was raised, and was disarmed.
    pub is_disarmed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    pub compact_revision: i64,
    /// False if it was compacted up to there already.
    pub is_compacted: bool,
    #[serde(flatten)]
    pub defragmented: Defragmented,
}
