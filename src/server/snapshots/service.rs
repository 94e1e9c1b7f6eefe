//! The snapshot service: what it needs, its settings, and the history of its snapshots.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

use crate::clock;
use crate::cluster::record::MemberIdentity;
use crate::config::SnapshotConfig;
use crate::error::ErrorReport;
use crate::log_failure;
use crate::plan::owner::Owner;
use crate::server::context::Context;
use crate::server::database_lock::DatabaseLock;
use crate::server::health::Health;
use crate::server::snapshots::history::History;
use crate::server::snapshots::metrics::{SaveLabels, histogram};
use crate::server::snapshots::uploads::queue::Uploads;
use crate::snapshot::list::{self, SnapshotStatus};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::prune;

/// The reason of scheduled snapshots, as their manifests have it.
pub(crate) const SCHEDULED: &str = "scheduled";

/// The snapshot service of the server.
#[derive(Debug)]
pub struct SnapshotService {
    pub context: Arc<Context>,
    /// Shared with whatever must not happen during a snapshot.
    pub lock: Arc<DatabaseLock>,
    /// Held during a scheduled restore drill.
    pub drilling: tokio::sync::Mutex<()>,
    /// The configuration, which a reload changes.
    pub settings: watch::Receiver<SnapshotConfig>,
    /// The duration of saves, by result.
    pub save_seconds: Family<SaveLabels, Histogram>,
    history: Mutex<History>,
    /// The timestamp of the newest name.
    pub(crate) last_named: AtomicU64,
    pub uploads: Uploads,
}

impl SnapshotService {
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        lock: Arc<DatabaseLock>,
        settings: watch::Receiver<SnapshotConfig>,
        uploads: Uploads,
    ) -> Self {
        Self {
            context,
            lock,
            drilling: tokio::sync::Mutex::default(),
            settings,
            save_seconds: Family::new_with_constructor(histogram),
            history: Mutex::default(),
            last_named: AtomicU64::new(0),
            uploads,
        }
    }

    /// What became of them so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn durations(&self, is_success: bool) -> impl std::ops::Deref<Target = Histogram> + '_ {
        self.save_seconds.get_or_create(&[("status", if is_success { "success" } else { "error" })])
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[must_use]
pub fn dir(service: &SnapshotService) -> PathBuf {
    service.settings.borrow().place(&service.context.data)
}

/// The owner of this server's snapshots: also right after the first start, before the cluster is recorded.
pub(crate) fn owner(service: &SnapshotService) -> Owner {
    let present = match &*service.context.health.borrow() {
        Health::Healthy(facts) => {
            Some(MemberIdentity { cluster_id: facts.cluster_id.clone(), member_id: facts.member_id.clone() })
        }
        _ => None,
    };
    crate::cluster::file::owner(&service.context.data, &service.context.config.node_name, present)
}

/// Updates the facts about the directory.
pub(crate) fn refresh_history(service: &SnapshotService) {
    let mut listed = match list::list(&dir(service)) {
        Ok(listed) => listed,
        Err(error) => {
            let report = ErrorReport::of(&error);
            let why = report.to_string();
            log_failure!(error, report, "cannot list the snapshots; keeping the previous list");
            service.note(|history| history.unlisted = Some(why));
            return;
        }
    };
    // Timestamps of a wrong clock are never the newest.
    let now = clock::unix_seconds(clock::now());
    listed.retain(|listed| listed.created <= now);
    let base = service.settings.borrow().base.to_string();
    let owner = owner(service);
    let is_scheduled = |manifest: &Manifest| manifest.reason == SCHEDULED && manifest.base == base;
    let last_scheduled = listed
        .iter()
        .filter(|listed| listed.status != SnapshotStatus::Corrupt && listed.manifest.as_ref().is_some_and(is_scheduled))
        .filter(|listed| owner.of(&prune::origin(listed)).is_own())
        .map(|listed| SystemTime::UNIX_EPOCH + Duration::from_secs(listed.created))
        .max();
    let good = || {
        listed
            .iter()
            .filter(|listed| listed.status == SnapshotStatus::Good)
            .filter_map(|listed| listed.manifest.as_ref())
    };
    // With etcd-s3-only no local copy exists.
    let uploaded = service.uploads.last().map(|last| last.manifest);
    let last_scheduled = uploaded
        .as_ref()
        .filter(|manifest| is_scheduled(manifest))
        .and_then(|manifest| clock::parse_rfc3339(&manifest.created))
        .max(last_scheduled);
    let last_good = good().chain(&uploaded).max_by_key(|manifest| manifest.created.clone()).cloned();
    let last_verified = good().filter_map(|manifest| Some(manifest.verification.as_ref()?.at.clone())).max();
    service.note(|history| {
        history.last_good = last_good;
        history.last_scheduled = last_scheduled;
        history.last_verified = last_verified;
        history.unlisted = None;
    });
}
