//! Takes snapshots of the running server, one at a time: requested over the control socket, or by `schedule`. Keeps the
//! history for status and metrics; `on_failure` runs the operator's command.

pub mod drill;
mod history;
pub mod known;
mod on_failure;
pub mod schedule;
pub mod uploads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::clock;
use crate::cluster::record::MemberIdentity;
use crate::compression::Compression;
use crate::config::SnapshotConfig;
use crate::control::api::snapshots::Saved;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::etcd::client::{ClientError, EtcdClient};
use crate::etcd::settings::Addresses;
use crate::job::JobControl;
use crate::log_failure;
use crate::plan::owner::Owner;
use crate::plan::snapshot_name::NamePrefix;
use crate::server::health::Health;
use crate::server::state::ServerState;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::save::{self, SaveError, SaveRequest, Source};
pub use history::History;
use history::refresh_history;
use uploads::Uploads;

const SCHEDULED: &str = "scheduled";

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefused {
    #[error("{0}")]
    Busy(&'static str),
    #[error("cannot take a snapshot: {0}")]
    NotReady(String),
    #[error("the server is stopping; the snapshot was cancelled, and no files are left")]
    Stopping,
    #[error("the snapshot took longer than etcd-snapshot-timeout ({} s) and was cancelled; no files are left", .0.as_secs())]
    TooLong(Duration),
    #[error("object storage did not answer within {} s", .0.as_secs())]
    StoreTimeout(Duration),
    #[error("cannot reach etcd")]
    Client(#[source] ClientError),
}

impl Diagnostic for SnapshotRefused {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Busy,
            Self::TooLong(_) => Code::SnapshotTimeout,
            Self::StoreTimeout(_) => Code::S3Timeout,
            Self::NotReady(_) | Self::Client(_) => Code::EtcdUnreachable,
            Self::Stopping => Code::Stopping,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::TooLong(_) => "see quorate status, and raise etcd-snapshot-timeout if the database has grown".into(),
            Self::StoreTimeout(_) => "quorate etcd-snapshot s3-check".into(),
            Self::Busy(_) => "try again, or add --wait".into(),
            Self::NotReady(_) | Self::Client(_) => "see quorate status".into(),
            Self::Stopping => "try again when it runs".into(),
        })
    }
}

#[derive(Clone, Debug)]
pub struct SaveOrder {
    pub base: NamePrefix,
    /// Another directory than the configured one.
    pub dir: Option<PathBuf>,
    /// Another compression than the configured one.
    pub packing: Option<Compression>,
    /// `on-demand` or `scheduled`.
    pub reason: &'static str,
    pub labels: BTreeMap<String, String>,
    /// Wait if another one is being taken.
    pub wait: bool,
    /// The options of object storage for this snapshot, by name.
    pub s3: BTreeMap<String, String>,
}

/// The snapshot service of the server.
#[derive(Debug)]
pub struct Snapshots {
    /// The database lock: a snapshot, or an operation that must not overlap with one.
    pub saving: Arc<tokio::sync::Mutex<()>>,
    /// Held during a scheduled restore drill.
    pub drilling: tokio::sync::Mutex<()>,
    doing: Mutex<&'static str>,
    /// True once the server is stopping.
    pub stopping: watch::Receiver<bool>,
    /// The configuration, which a reload changes.
    pub settings: watch::Receiver<SnapshotConfig>,
    /// The duration of saves, by result.
    pub save_seconds: Family<SaveLabels, Histogram>,
    history: Mutex<History>,
    /// The timestamp of the newest name.
    last_named: AtomicU64,
    pub uploads: Uploads,
}

/// `status` of a save: success or error, as in k3s.
pub type SaveLabels = [(&'static str, &'static str); 1];

fn histogram() -> Histogram {
    // The buckets of k3s: 8 ms, doubled 14 times.
    Histogram::new(exponential_buckets(0.008, 2.0, 15))
}

impl Snapshots {
    #[must_use]
    pub fn new(stopping: watch::Receiver<bool>, settings: watch::Receiver<SnapshotConfig>, uploads: Uploads) -> Self {
        Self {
            saving: Arc::default(),
            drilling: tokio::sync::Mutex::default(),
            doing: Mutex::new(""),
            stopping,
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

    fn durations(&self, is_success: bool) -> impl std::ops::Deref<Target = Histogram> + '_ {
        self.save_seconds.get_or_create(&[("status", if is_success { "success" } else { "error" })])
    }

    fn note(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Acquires the database lock; `doing` is reported to others that do not wait.
    pub async fn lock(&self, doing: &'static str, wait: bool) -> Result<OwnedMutexGuard<()>, SnapshotRefused> {
        let lock = || self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = match self.saving.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_) if wait => {
                tracing::debug!(event = "operation-queued", busy = *lock(), "waiting for the end of another operation");
                self.saving.clone().lock_owned().await
            }
            Err(_) => return Err(SnapshotRefused::Busy(*lock())),
        };
        *lock() = doing;
        Ok(turn)
    }

    /// Returns when the server is stopping.
    pub async fn stopped(&self) {
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }
}

#[must_use]
pub fn dir(shared: &ServerState) -> PathBuf {
    shared.snapshots.settings.borrow().place(&shared.data)
}

/// The owner of this server's snapshots: also right after the first start, before the cluster is recorded.
fn owner(shared: &ServerState) -> Owner {
    let present = match &*shared.health.borrow() {
        Health::Healthy(facts) => {
            Some(MemberIdentity { cluster_id: facts.cluster_id.clone(), member_id: facts.member_id.clone() })
        }
        _ => None,
    };
    crate::cluster::file::owner(&shared.data, &shared.config.node_name, present)
}

/// Takes one, and uploads it if configured or requested. A failed upload is not a failure of the snapshot.
pub async fn save_and_upload(
    shared: &Arc<ServerState>,
    order: SaveOrder,
    progress: impl Fn(&'static str, u64, u64) + Clone + Send + 'static,
) -> Result<Saved, AppError> {
    let options = order.s3.clone();
    let s3 = shared.snapshots.settings.borrow().s3.with(&options)?;
    if s3.is_on && !options.is_empty() {
        // Invalid options in the request fail at once; an invalid configuration of object storage does not prevent a
        // local snapshot.
        s3.target()?;
    }
    let (saving, begun) = (progress.clone(), clock::monotonic());
    let (manifest, path) = save_snapshot(shared, order, move |done, all| saving("saving", done, all)).await?;
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if !s3.is_on {
        return Ok(Saved { manifest, path, upload: None, remote_only: false, took_ms });
    }
    let uploads = &shared.snapshots.uploads;
    let dir = path.parent().unwrap_or(&path);
    let outcome = match uploads.submit(&shared.data, dir, &manifest.name, options) {
        Err(error) => Err(AppError::from(error).to_report()),
        Ok(mut outcome) => loop {
            let stopping = || AppError::from(uploads::UploadError::Stopping).to_report();
            tokio::select! {
                outcome = &mut outcome => break outcome.unwrap_or_else(|_| Err(stopping())),
                () = shared.snapshots.stopped() => break Err(stopping()),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                    let (what, done, all) = uploads.progress_of(dir, &manifest.name);
                    progress(what, done, all);
                }
            }
        },
    };
    let remote_only = s3.only && outcome.is_ok();
    Ok(Saved { manifest, path, upload: Some(outcome), remote_only, took_ms })
}

/// Takes one. Dropped before it is done, it is cancelled, and leaves no files; it holds the lock until it has ended.
pub async fn save_snapshot(
    shared: &Arc<ServerState>,
    order: SaveOrder,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<(Manifest, PathBuf), AppError> {
    let turn = shared.snapshots.lock("a snapshot is being taken already", order.wait).await?;
    let job = JobControl::default();
    let unwanted = CancelOnDrop(job.clone());
    let shared = shared.clone();
    // On a separate task, because the client may disconnect, and a save must end in order.
    let taken = tokio::spawn(async move {
        let done = save_exclusive(&shared, order, job, progress).await;
        drop(turn);
        done
    });
    let done = taken.await.unwrap_or_else(|_| Err(SaveError::WorkerPanicked.into()));
    drop(unwanted);
    done
}

/// Cancels a save when its waiter is gone.
struct CancelOnDrop(JobControl);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn save_exclusive(
    shared: &ServerState,
    order: SaveOrder,
    job: JobControl,
    progress: impl FnMut(u64, u64),
) -> Result<(Manifest, PathBuf), AppError> {
    let begun = clock::monotonic();
    let limit = shared.snapshots.settings.borrow().timeout;
    // Snapshots in other directories do not count for this node's history.
    let is_usual = order.dir.is_none();
    let (done, is_late) = {
        let mut saving = std::pin::pin!(save(shared, order, &job, progress));
        let mut why = None;
        let late = tokio::time::sleep(limit.unwrap_or(Duration::MAX / 4));
        let mut late = std::pin::pin!(late);
        loop {
            tokio::select! {
                done = &mut saving => {
                    let is_late = matches!(why, Some(SnapshotRefused::TooLong(_)));
                    break (done.map_err(|failure| why.map_or(failure, AppError::from)), is_late);
                }
                () = shared.snapshots.stopped(), if why.is_none() => why = Some(SnapshotRefused::Stopping),
                () = &mut late, if limit.is_some() && why.is_none() => why = limit.map(SnapshotRefused::TooLong),
            }
            job.cancel();
        }
    };
    match &done {
        Ok((manifest, _)) => {
            let took = begun.elapsed();
            let Manifest { name, size, revision, keys, reason, .. } = manifest;
            tracing::info!(
                event = "snapshot-saved",
                name,
                size,
                revision,
                keys,
                reason,
                took_ms = took.as_millis(),
                "snapshot saved"
            );
            shared.snapshots.durations(true).observe(took.as_secs_f64());
            if is_usual {
                shared.snapshots.note(|history| {
                    history.failures = 0;
                    history.last_failure = None;
                });
            }
            tokio::task::block_in_place(|| refresh_history(shared));
        }
        Err(_) if job.is_cancelled() && !is_late && !*shared.snapshots.stopping.borrow() => {
            tracing::info!("client disconnected; the snapshot was cancelled, and no files are left");
        }
        Err(failure) => {
            let report = failure.to_report();
            log_failure!(error, report.clone(), "the snapshot failed");
            shared.snapshots.durations(false).observe(begun.elapsed().as_secs_f64());
            // Neither client errors nor a shutdown count.
            let is_failure = failure.exit() != Exit::Usage && (!job.is_cancelled() || is_late);
            if is_usual && is_failure {
                shared.snapshots.note(|history| {
                    history.failures += 1;
                    history.last_failure = Some(report.to_string());
                });
            }
        }
    }
    done
}

async fn save(
    shared: &ServerState,
    order: SaveOrder,
    job: &JobControl,
    progress: impl FnMut(u64, u64),
) -> Result<(Manifest, PathBuf), AppError> {
    let snapshots = &shared.snapshots;
    // With --dir, the snapshot goes there.
    if order.dir.is_none() {
        tokio::task::block_in_place(|| save::prepare_own_dir(&dir(shared)))?;
    }
    let request = SaveRequest {
        dir: order.dir.unwrap_or_else(|| dir(shared)),
        base: order.base,
        node: shared.config.node_name.clone(),
        packing: order.packing.unwrap_or_else(|| snapshots.settings.borrow().packing),
        reason: order.reason,
        labels: order.labels,
        lineage: crate::cluster::file::load(&shared.data)
            .ok()
            .flatten()
            .map(|record| record.lineage)
            .unwrap_or_default(),
        live: snapshots.settings.borrow().copy.then(|| pinned_database(shared)),
        last_named: snapshots.last_named.load(Ordering::Relaxed),
        job: job.clone(),
    };
    let url = Addresses::local_client_url(&shared.config);
    let mut client = EtcdClient::connect(&shared.data, &url).await.map_err(SnapshotRefused::Client)?;
    // No health check: neither an alarm nor a missing leader prevents a snapshot, which may be the last chance.
    let facts = client.source().await.map_err(|why| SnapshotRefused::NotReady(why.to_string()))?;
    if !facts.alarms.is_empty() {
        tracing::warn!(
            event = "snapshot-with-alarms",
            alarms = facts.alarms.join(", "),
            "taking a snapshot although etcd has active alarms"
        );
    }
    let manifest = save::save(&request, &mut client, &facts, progress).await?;
    let path = request.dir.join(&manifest.name);
    snapshots
        .last_named
        .fetch_max(crate::plan::snapshot_name::taken_at(&manifest.name).unwrap_or_default(), Ordering::Relaxed);
    Ok((manifest, path))
}

/// The database of the running etcd.
fn pinned_database(shared: &ServerState) -> Source {
    let child = shared.child.clone();
    let generation = child.borrow().generation;
    Source { data: shared.data.clone(), is_same: Arc::new(move || child.borrow().generation == generation) }
}
