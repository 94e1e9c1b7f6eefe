//! The history of this server's snapshots, for status, metrics and the schedule.

use std::time::{Duration, SystemTime};

use crate::clock;
use crate::error::ErrorReport;
use crate::log_failure;
use crate::server::snapshots::{SCHEDULED, dir, owner};
use crate::server::state::ServerState;
use crate::snapshot::list::{self, Status};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::prune;

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

/// Updates the facts about the directory.
pub(crate) fn refresh_history(shared: &ServerState) {
    let mut listed = match list::list(&dir(shared)) {
        Ok(listed) => listed,
        Err(error) => {
            let report = ErrorReport::of(&error);
            let why = report.to_string();
            log_failure!(error, report, "cannot list the snapshots; keeping the previous list");
            shared.snapshots.note(|history| history.unlisted = Some(why));
            return;
        }
    };
    // Timestamps of a wrong clock are never the newest.
    let now = clock::unix_seconds(clock::now());
    listed.retain(|listed| listed.created <= now);
    let base = shared.snapshots.settings.borrow().base.to_string();
    let owner = owner(shared);
    let is_scheduled = |manifest: &Manifest| manifest.reason == SCHEDULED && manifest.base == base;
    let last_scheduled = listed
        .iter()
        .filter(|listed| listed.status != Status::Corrupt && listed.manifest.as_ref().is_some_and(is_scheduled))
        .filter(|listed| owner.of(&prune::origin(listed)).is_own())
        .map(|listed| SystemTime::UNIX_EPOCH + Duration::from_secs(listed.created))
        .max();
    let good =
        || listed.iter().filter(|listed| listed.status == Status::Good).filter_map(|listed| listed.manifest.as_ref());
    // With etcd-s3-only no local copy exists.
    let uploaded = shared.snapshots.uploads.last().map(|last| last.manifest);
    let last_scheduled = uploaded
        .as_ref()
        .filter(|manifest| is_scheduled(manifest))
        .and_then(|manifest| clock::parse_rfc3339(&manifest.created))
        .max(last_scheduled);
    let last_good = good().chain(&uploaded).max_by_key(|manifest| manifest.created.clone()).cloned();
    let last_verified = good().filter_map(|manifest| Some(manifest.verification.as_ref()?.at.clone())).max();
    shared.snapshots.note(|history| {
        history.last_good = last_good;
        history.last_scheduled = last_scheduled;
        history.last_verified = last_verified;
        history.unlisted = None;
    });
}
