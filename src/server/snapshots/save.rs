//! Saves a snapshot, one at a time, and uploads it if that is configured or requested.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::control::api::snapshots::Saved;
use crate::error::{AppError, Exit};
use crate::etcd::client::EtcdClient;
use crate::etcd::settings::Addresses;
use crate::job::JobControl;
use crate::log_failure;
use crate::server::snapshots::request::{SaveOrder, SnapshotRefused};
use crate::server::snapshots::service::{SnapshotService, dir, refresh_history};
use crate::server::snapshots::uploads::error::UploadError;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::save::{self, LiveSource, SaveError, SaveRequest};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Takes one, and uploads it if configured or requested. A failed upload is not a failure of the snapshot.
pub async fn save_and_upload(
    service: &Arc<SnapshotService>,
    order: SaveOrder,
    progress: impl Fn(&'static str, u64, u64) + Clone + Send + 'static,
) -> Result<Saved, AppError> {
    let options = order.s3.clone();
    let s3 = service.settings.borrow().s3.with(&options)?;
    if s3.is_on && !options.is_empty() {
        // Invalid options in the request fail at once; an invalid configuration of object storage does not prevent a
        // local snapshot.
        s3.target()?;
    }
    let (saving, begun) = (progress.clone(), clock::monotonic());
    let (manifest, path) = save_snapshot(service, order, move |done, all| saving("saving", done, all)).await?;
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if !s3.is_on {
        return Ok(Saved { manifest, path, upload: None, remote_only: false, took_ms });
    }
    let uploads = &service.uploads;
    let dir = path.parent().unwrap_or(&path);
    let outcome = match uploads.submit(&service.context.data, dir, &manifest.name, options) {
        Err(error) => Err(AppError::from(error).to_report()),
        Ok(mut outcome) => loop {
            let stopping = || AppError::from(UploadError::Stopping).to_report();
            tokio::select! {
                outcome = &mut outcome => break outcome.unwrap_or_else(|_| Err(stopping())),
                () = service.context.stopped() => break Err(stopping()),
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
    service: &Arc<SnapshotService>,
    order: SaveOrder,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<(Manifest, PathBuf), AppError> {
    let turn = service.lock.acquire("a snapshot is being taken already", order.wait).await?;
    let job = JobControl::default();
    let unwanted = CancelOnDrop(job.clone());
    let service = service.clone();
    // On a separate task, because the client may disconnect, and a save must end in order.
    let taken = tokio::spawn(async move {
        let done = save_exclusive(&service, order, job, progress).await;
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
    service: &SnapshotService,
    order: SaveOrder,
    job: JobControl,
    progress: impl FnMut(u64, u64),
) -> Result<(Manifest, PathBuf), AppError> {
    let begun = clock::monotonic();
    let limit = service.settings.borrow().timeout;
    // Snapshots in other directories do not count for this node's history.
    let counts_for_history = order.dir.is_none();
    let (done, is_late) = {
        let mut saving = std::pin::pin!(save(service, order, &job, progress));
        let mut why = None;
        let late = tokio::time::sleep(limit.unwrap_or(Duration::MAX / 4));
        let mut late = std::pin::pin!(late);
        loop {
            tokio::select! {
                done = &mut saving => {
                    let is_late = matches!(why, Some(SnapshotRefused::TooLong(_)));
                    break (done.map_err(|failure| why.map_or(failure, AppError::from)), is_late);
                }
                () = service.context.stopped(), if why.is_none() => why = Some(SnapshotRefused::Stopping),
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
            service.durations(true).observe(took.as_secs_f64());
            if counts_for_history {
                service.note(|history| {
                    history.failures = 0;
                    history.last_failure = None;
                });
            }
            tokio::task::block_in_place(|| refresh_history(service));
        }
        Err(_) if job.is_cancelled() && !is_late && !*service.context.stopping.borrow() => {
            tracing::info!("client disconnected; the snapshot was cancelled, and no files are left");
        }
        Err(failure) => {
            let report = failure.to_report();
            log_failure!(error, report.clone(), "the snapshot failed");
            service.durations(false).observe(begun.elapsed().as_secs_f64());
            // Neither client errors nor a shutdown count.
            let is_failure = failure.exit() != Exit::Usage && (!job.is_cancelled() || is_late);
            if counts_for_history && is_failure {
                service.note(|history| {
                    history.failures += 1;
                    history.last_failure = Some(report.to_string());
                });
            }
        }
    }
    done
}

async fn save(
    service: &SnapshotService,
    order: SaveOrder,
    job: &JobControl,
    progress: impl FnMut(u64, u64),
) -> Result<(Manifest, PathBuf), AppError> {
    // With --dir, the snapshot goes there.
    if order.dir.is_none() {
        tokio::task::block_in_place(|| save::prepare_own_dir(&dir(service)))?;
    }
    let request = SaveRequest {
        dir: order.dir.unwrap_or_else(|| dir(service)),
        base: order.base,
        node: service.context.config.node_name.clone(),
        packing: order.packing.unwrap_or_else(|| service.settings.borrow().packing),
        reason: order.reason,
        labels: order.labels,
        lineage: crate::cluster::file::load(&service.context.data)
            .ok()
            .flatten()
            .map(|record| record.lineage)
            .unwrap_or_default(),
        live: service.settings.borrow().copy.then(|| pinned_database(service)),
        last_named: service.last_named.load(Ordering::Relaxed),
        job: job.clone(),
    };
    let url = Addresses::local_client_url(&service.context.config);
    let mut client = EtcdClient::connect(&service.context.data, &url).await.map_err(SnapshotRefused::Client)?;
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
    service
        .last_named
        .fetch_max(crate::plan::snapshot_name::taken_at(&manifest.name).unwrap_or_default(), Ordering::Relaxed);
    Ok((manifest, path))
}

/// The database of the running etcd.
fn pinned_database(service: &SnapshotService) -> LiveSource {
    let child = service.context.child.clone();
    let generation = child.borrow().generation;
    LiveSource {
        data: service.context.data.clone(),
        is_same: Arc::new(move || child.borrow().generation == generation),
    }
}
