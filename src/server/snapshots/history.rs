//! The history of this server's snapshots, for status, metrics and the schedule.

use std::time::SystemTime;

use crate::snapshot::manifest::Manifest;

#[derive(Clone, Debug, Default)]
pub struct History {
    /// The newest good one in the directory, of any server.
    pub last_good: Option<Manifest>,
    /// When the newest scheduled one of this node was taken.
    pub last_scheduled: Option<SystemTime>,
    /// When any of them was verified last, and found good; RFC 3339.
    pub last_verified: Option<String>,
    pub failures: u64,
    pub last_failure: Option<String>,
    /// When the next scheduled one is due.
    pub next: Option<SystemTime>,
    /// When the next drill is due.
    pub next_drill: Option<SystemTime>,
    /// Why the directory could not be listed last time; the fields above are outdated then.
    pub unlisted: Option<String>,
}
