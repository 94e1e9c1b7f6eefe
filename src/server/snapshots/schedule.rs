//! Scheduled snapshots, with retention after each.
//!
//! `plan::schedule` decides when a slot is due; tokio-cron-scheduler wakes this task then. The wall clock is read again
//! at least every half minute, so that clock jumps are noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock;
use crate::config::SnapshotConfig;
use crate::error::{AppError, ErrorReport};
use crate::faults;
use crate::log_failure;
use crate::plan::schedule::{Due, Schedule, newest};
use crate::plan::snapshot_name::NamePrefix;
use crate::server::health::Health;
use crate::server::snapshots::on_failure;
use crate::server::snapshots::request::SaveOrder;
use crate::server::snapshots::save::save_snapshot;
use crate::server::snapshots::service::SnapshotService;
use crate::server::snapshots::service::{SCHEDULED, dir, owner, refresh_history};
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::{Removed, Store as _};
use crate::snapshot::{list, manifest, prune};
use crate::text::duration;

const PAUSE: Duration = Duration::from_secs(1);
/// The maximum sleep between two readings of the wall clock.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Takes scheduled snapshots until the server ends, once etcd was healthy for the first time.
pub async fn run(service: Arc<SnapshotService>) {
    let mut health = service.context.health.clone();
    if health.wait_for(|health| matches!(health, Health::Healthy(_))).await.is_err() {
        return;
    }
    tokio::task::block_in_place(|| {
        sweep_manifests(&service);
        announce_renamed(&service);
    });
    let timer = match Timer::new().await {
        Ok(timer) => timer,
        Err(error) => {
            tracing::error!(%error, "cannot take scheduled snapshots");
            return;
        }
    };
    let look_again = faults::tunable("QUORATE_TEST_LOOK_MS", POLL_INTERVAL);
    let mut settings = service.settings.clone();
    let mut seen = None;
    let mut announced = None;
    let mut announce_next = false;
    // A slot is attempted once, even if the attempt fails.
    let mut attempted: Option<DateTime<Local>> = None;
    loop {
        let config = settings.borrow_and_update().clone();
        // Commands on this node also delete, verify and copy.
        let present = present(&service, &config);
        if seen.as_ref() != Some(&present) {
            tokio::task::block_in_place(|| refresh_history(&service));
            seen = Some(present);
        }
        if announced.as_ref() != Some(&config) {
            announce(&config);
            announced = Some(config.clone());
            announce_next = true;
        }
        let Some(schedule) = &config.schedule else {
            service.note(|history| history.next = None);
            if std::mem::take(&mut announce_next) {
                tracing::warn!("scheduled snapshots are off: etcd-disable-snapshots");
            }
            tokio::select! {
                () = timer.sleep(look_again) => {}
                changed = settings.changed() => if changed.is_err() {
                    return;
                },
            }
            continue;
        };
        let now = DateTime::<Local>::from(clock::now());
        let known = service.history().last_scheduled.map(DateTime::from);
        let last = newest(&now, [attempted, known].into_iter().flatten());
        match schedule.due(&now, last.as_ref(), &data_created_at(&service)) {
            Due::Now(slot) => {
                attempted = Some(now);
                tracing::info!(event = "snapshot-due", slot = slot.to_rfc3339(), "a scheduled snapshot is due");
                run_slot(&service, &config).await;
                // Two slots never run in immediate succession, even if the clock jumps.
                timer.sleep(PAUSE).await;
                if *service.context.stopping.borrow() {
                    return;
                }
            }
            Due::At(next) => {
                let next = SystemTime::from(next);
                service.note(|history| history.next = Some(next));
                if std::mem::take(&mut announce_next) {
                    log_next(&config, schedule, next);
                }
                let wait = next.duration_since(clock::now()).unwrap_or_default().min(look_again);
                tokio::select! {
                    () = timer.sleep(wait) => {}
                    changed = settings.changed() => if changed.is_err() {
                        return;
                    },
                }
            }
            Due::Never => {
                tracing::warn!("the snapshot schedule has no future run; no more snapshots will be taken");
                if settings.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Logs when the next one is due, with retention and upload.
fn log_next(config: &SnapshotConfig, schedule: &Schedule, next: SystemTime) {
    let at = DateTime::<Local>::from(next).format("%Y-%m-%d %H:%M:%S %:z").to_string();
    let keep = if config.retention == 0 { "all".to_owned() } else { config.retention.to_string() };
    let s3 = if config.s3.is_on { "uploaded" } else { "not uploaded: etcd-s3 is off" };
    tracing::info!(event = "snapshot-scheduled", at, schedule = %schedule, keep, s3, "next scheduled snapshot");
}

/// The first log line of RKE1's service.
fn announce(config: &SnapshotConfig) {
    let Some(Schedule::Every(seconds)) = config.schedule.as_ref().filter(|_| config.is_rke1) else { return };
    let policy = config.policy();
    let retention = policy.within.map_or_else(|| policy.last.unwrap_or_default().to_string(), duration::format_go);
    tracing::info!(
        event = "rolling-backups",
        creation = duration::format_go(*seconds),
        retention,
        "Initializing Rolling Backups"
    );
}

/// The settings that require a new listing: directory, retention and base name.
fn present(service: &SnapshotService, config: &SnapshotConfig) -> (PathBuf, NamePrefix, [Option<i128>; 2]) {
    let dir = dir(service);
    let modified = |dir: &Path| std::fs::metadata(dir).ok().map(|dir| manifest::modified(&dir));
    let both = [modified(&dir), modified(&dir.join(manifest::DIR))];
    (dir, config.base.clone(), both)
}

/// The manifest of a snapshot that was deleted by hand.
fn sweep_manifests(service: &SnapshotService) {
    let dir = dir(service);
    for name in manifest::orphans(&dir).unwrap_or_default() {
        if manifest::remove(&dir, &name).is_ok() {
            tracing::info!(name, "removed the manifest of a deleted snapshot");
        }
    }
}

/// After a change of `node-name` or of the data: which snapshots count for retention, and which do not.
fn announce_renamed(service: &SnapshotService) {
    let (dir, node) = (dir(service), &service.context.config.node_name);
    let base = service.settings.borrow().base.clone();
    let renamed = prune::renamed(&list::list(&dir).unwrap_or_default(), &base, &owner(service));
    if !renamed.earlier.is_empty() {
        let count: usize = renamed.earlier.values().sum();
        let names = renamed.earlier.into_keys().collect::<Vec<_>>().join(", ");
        tracing::info!(
            event = "node-renamed",
            count,
            names,
            dir = %dir.display(),
            "this server took snapshots under an earlier node-name; retention counts and prunes them with those of {node}"
        );
    }
    if renamed.namesakes > 0 {
        tracing::warn!(
            event = "foreign-snapshots",
            count = renamed.namesakes,
            dir = %dir.display(),
            next = format!("quorate etcd-snapshot prune --name {base} --node {node}"),
            "there are snapshots of another server with this node-name; retention ignores them"
        );
    }
}

async fn run_slot(service: &Arc<SnapshotService>, config: &SnapshotConfig) {
    let order = SaveOrder {
        base: config.base.clone(),
        dir: None,
        packing: None,
        reason: SCHEDULED,
        labels: BTreeMap::new(),
        // Another snapshot may be on demand, and ends soon; wait, so that the slot is not lost.
        wait: true,
        s3: BTreeMap::new(),
    };
    let begun = clock::monotonic();
    let attempt = || async {
        tokio::select! {
            done = save_snapshot(service, order.clone(), |_, _| {}) => Some(done),
            () = service.context.stopped() => None,
        }
    };
    let Some(mut done) = attempt().await else { return };
    // Pruning may free space: retry then.
    let is_full = done.as_ref().is_err_and(AppError::is_out_of_space);
    let gone = if done.is_ok() || is_full { retain(service, config).await } else { 0 };
    if is_full && gone > 0 {
        let Some(again) = attempt().await else { return };
        done = again;
    }
    match done {
        Ok((manifest, path)) => {
            if config.is_rke1 {
                tracing::info!(name = manifest.name, runtime = ?begun.elapsed(), "Created backup");
            }
            if config.s3.is_on {
                upload(service, &manifest.name, &path);
            }
        }
        Err(failure) => {
            if let Some(command) = config.on_failure.clone() {
                // The next slot does not wait for this.
                tokio::spawn(on_failure::run(command, failure.to_report(), service.context.config.node_name.clone()));
            }
        }
    }
}

/// The next slot does not wait for this.
fn upload(service: &SnapshotService, name: &str, path: &Path) {
    let dir = path.parent().unwrap_or(path);
    if let Err(error) = service.uploads.submit(&service.context.data, dir, name, BTreeMap::new()) {
        log_failure!(error, ErrorReport::of(&error), "cannot upload a snapshot");
    }
}

/// Prunes older ones, and returns how many.
async fn retain(service: &SnapshotService, config: &SnapshotConfig) -> usize {
    let local = Directory(dir(service));
    let now = clock::unix_seconds(clock::now());
    let gone = async {
        let all = local.list().await?;
        let decided = prune::plan(&all, &config.base, &owner(service), &config.policy(), now);
        local.remove(&prune::dropped(&decided)).await
    };
    match gone.await {
        Ok(Removed { gone, failed, .. }) => {
            for name in &gone {
                tracing::info!(
                    event = "snapshot-deleted",
                    name,
                    "deleted an older snapshot that no retention rule keeps"
                );
            }
            if let Some(failure) = failed {
                log_failure!(error, failure.to_report(), "cannot delete some older snapshots");
            }
            gone.len()
        }
        Err(failure) => {
            log_failure!(error, failure.to_report(), "cannot delete older snapshots");
            0
        }
    }
}

/// When this server's data was created: the member name is written once, at its first start.
pub(crate) fn data_created_at(service: &SnapshotService) -> DateTime<Local> {
    let written = std::fs::symlink_metadata(service.context.data.etcd_name()).and_then(|found| found.modified());
    DateTime::<Local>::from(written.unwrap_or_else(|_| clock::now()))
}

struct Timer(JobScheduler);

impl Timer {
    async fn new() -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.start().await?;
        Ok(Self(scheduler))
    }

    async fn sleep(&self, wait: Duration) {
        let rung = Arc::new(Notify::new());
        let ring = rung.clone();
        let at = clock::monotonic() + wait;
        let job = Job::new_one_shot_at_instant_async(at, move |_, _| {
            let ring = ring.clone();
            Box::pin(async move { ring.notify_one() })
        });
        let id = match job {
            Ok(job) => self.0.add(job).await,
            Err(error) => Err(error),
        };
        let Ok(id) = id else {
            // Without the scheduler the clock is still polled.
            return tokio::time::sleep(wait).await;
        };
        // The scheduler has a resolution of seconds; add half a second as a timeout.
        if tokio::time::timeout(wait + Duration::from_secs(5), rung.notified()).await.is_err() {
            // A job that has run is removed.
            let _ = self.0.remove(&id).await;
        }
    }
}
