//! Uploads snapshots to object storage: one at a time, retried across restarts until they succeed or the snapshot is
//! deleted.
//!
//! Pending uploads are recorded (`server/uploads.json`, for root only: options of a single upload may include secrets)
//! before they begin, and removed when the object is verified in the store.

mod attempt;
pub mod error;
pub mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::s3::{S3Config, Target};
use crate::durable::{self, OnPath as _, WriteError};
use crate::error::{AppError, Code, ErrorReport};
use crate::faults;
use crate::log_failure;
use crate::plan::snapshot_name::NamePrefix;
use crate::plan::uploads::{self, QueueEntry};
use crate::server::snapshots::on_failure;
use crate::server::snapshots::service::SCHEDULED;
use crate::server::snapshots::service::SnapshotService;
use crate::server::snapshots::uploads::error::UploadError;
use crate::server::snapshots::uploads::queue::{Last, PendingUploadEntry};
use crate::snapshot::list::{self, SnapshotStatus};
use crate::snapshot::store::s3::Bucket;
use crate::snapshot::store::s3::store::Remote;
use crate::snapshot::store::{Removed, Store as _};
use crate::snapshot::{manifest, prune};
use attempt::{abort_stale_uploads, attempt};

/// The maximum sleep while nothing is due.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// The interval of attempts to abort stale multipart uploads.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(900);

/// Processes the upload queue until the server ends.
pub async fn run(service: Arc<SnapshotService>) {
    let mut settings = service.settings.clone();
    let mut connected: Option<(Target, Bucket)> = None;
    let tidy_every = faults::tunable("QUORATE_TEST_UPLOAD_MS", CLEAN_UP_INTERVAL);
    let mut tidied: Option<Instant> = None;
    loop {
        let config = settings.borrow_and_update().s3.clone();
        let now = clock::monotonic();
        let uploads = &service.uploads;
        let wanted = |pending: &PendingUploadEntry| config.is_on || !pending.options.is_empty();
        let all = uploads.pending();
        for unwanted in all.iter().filter(|pending| !wanted(pending) && uploads.is_waited_for(pending)) {
            uploads.answer_waiters(
                unwanted,
                &Err(AppError::from(UploadError::Disabled(unwanted.name.clone())).to_report()),
            );
        }
        let wanted: Vec<&PendingUploadEntry> = all.iter().filter(|pending| wanted(pending)).collect();
        let turn = |pending: &&PendingUploadEntry| QueueEntry {
            is_waited_for: uploads.is_waited_for(pending),
            due: pending.due,
        };
        if let Some(next) = uploads::next(&wanted.iter().map(turn).collect::<Vec<_>>(), now) {
            upload_one(&service, &config, wanted[next].clone(), &mut connected).await;
            // A multipart upload that it could not abort is retried soon.
            tidied = tidied.filter(|_| !uploads.has_stale_uploads());
            continue;
        }
        if tidied.is_none_or(|at| at.elapsed() >= tidy_every) {
            tidied = Some(clock::monotonic());
            if uploads.has_stale_uploads() {
                clean_up(&service, &config, &mut connected).await;
            }
            delete_local_copies(&service).await;
        }
        let next = wanted.iter().filter_map(|pending| pending.due).min();
        let wait =
            next.map_or(POLL_INTERVAL, |due| due.saturating_duration_since(now).min(POLL_INTERVAL)).min(tidy_every);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = uploads.wake.notified() => {}
            changed = settings.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Aborts stale multipart uploads, even if nothing is pending.
async fn clean_up(service: &SnapshotService, config: &S3Config, connected: &mut Option<(Target, Bucket)>) {
    if connected.is_none()
        && let Ok(target) = config.target()
        && let Ok(bucket) = Bucket::connect(target.clone(), None).await
    {
        *connected = Some((target, bucket));
    }
    if let Some((_, bucket)) = connected {
        abort_stale_uploads(service, bucket).await;
    }
}

async fn upload_one(
    service: &Arc<SnapshotService>,
    config: &S3Config,
    pending: PendingUploadEntry,
    connected: &mut Option<(Target, Bucket)>,
) {
    let uploads = &service.uploads;
    let begun = clock::monotonic();
    uploads.begin(Some(&pending));
    let done = attempt(service, config, &pending, connected).await;
    let took = begun.elapsed();
    let label = if done.is_ok() { "success" } else { "error" };
    uploads.seconds.get_or_create(&[("status", label)]).observe(took.as_secs_f64());
    uploads.begin(None);
    match done {
        Ok((url, manifest)) => {
            tracing::info!(
                event = "snapshot-uploaded",
                name = pending.name,
                url,
                size = manifest.size,
                took_ms = took.as_millis(),
                "snapshot uploaded and verified"
            );
            let scheduled = manifest.reason == SCHEDULED;
            let base: Option<NamePrefix> = manifest.base.parse().ok();
            let last = Last { url: url.clone(), at: clock::rfc3339(clock::now()), manifest };
            let remote_only = config.with(&pending.options).is_ok_and(|config| config.only);
            service.uploads.record(&service.context.data, |file| {
                file.complete(&pending);
                file.uploaded(last);
                if remote_only {
                    file.unwanted.push((pending.dir.clone(), pending.name.clone()));
                }
            });
            delete_local_copies(service).await;
            uploads.answer_waiters(&pending, &Ok(url));
            if let (true, Some(base), Some((_, bucket))) = (scheduled && pending.options.is_empty(), base, &*connected)
            {
                retain(service, config, bucket, &base).await;
            }
        }
        Err(error) => {
            let is_over = error.is_final();
            let cause = error.cause();
            let report = AppError::from(error).to_report();
            let failures = pending.failures + 1;
            let first = faults::tunable("QUORATE_TEST_UPLOAD_MS", uploads::first_pause());
            let pause = uploads::pause(failures, first, crate::random::jitter());
            log_failure!(
                error,
                report.clone(),
                cause = cause.map(Code::name),
                again_in_s = (!is_over).then_some(pause.as_secs()),
                "cannot upload a snapshot"
            );
            let due = clock::monotonic() + pause;
            service.uploads.record(&service.context.data, |file| {
                if is_over {
                    file.complete(&pending);
                } else if let Some(entry) = file.pending.iter_mut().find(|other| other.is(&pending)) {
                    entry.failures = failures;
                    entry.last_failure = Some(report.to_string());
                    entry.due = Some(due);
                }
            });
            uploads.answer_waiters(&pending, &Err(report.clone()));
            let command = service.settings.borrow().on_failure.clone();
            // Once, since it is retried without limit; and when it cannot succeed any more.
            if let Some(command) = command.filter(|_| failures == 1 || is_over) {
                tokio::spawn(on_failure::run(command, report, service.context.config.node_name.clone()));
            }
        }
    }
}

/// Deletes local copies of snapshots uploaded with `etcd-s3-only`, including those left over from an earlier run.
async fn delete_local_copies(service: &SnapshotService) {
    for unwanted in service.uploads.local_copies_to_delete() {
        let (dir, name) = unwanted.clone();
        let removed = tokio::task::spawn_blocking(move || {
            faults::point("snapshot::remove-uploaded").on("remove", &dir.join(&name))?;
            // A directory without manifests may be an unmounted disk; a snapshot with an unreadable manifest may be
            // held.
            let is_there = dir.join(manifest::DIR).is_dir();
            let listed = list::one(&dir, name.as_ref());
            if !is_there || listed.as_ref().is_some_and(|listed| listed.status == SnapshotStatus::Unreadable) {
                return Ok::<_, WriteError>(false);
            }
            if listed.and_then(|listed| listed.manifest).is_some_and(|manifest| manifest.held) {
                return Ok(true);
            }
            durable::remove_file(&dir.join(&name))?;
            manifest::remove(&dir, &name)?;
            Ok(true)
        });
        match removed.await {
            Ok(Ok(true)) => {
                service.uploads.record(&service.context.data, |file| file.unwanted.retain(|other| *other != unwanted));
            }
            Ok(Ok(false)) => tracing::warn!(
                name = unwanted.1,
                "etcd-s3-only: cannot read the local copy of the uploaded snapshot or its manifest; keeping it for now"
            ),
            Ok(Err(error)) => {
                log_failure!(
                    error,
                    ErrorReport::of(&error),
                    "etcd-s3-only: cannot delete the local copy of the uploaded snapshot; keeping it for now"
                );
            }
            Err(_) => {}
        }
    }
}

/// Prunes older scheduled ones of this node in the bucket.
async fn retain(service: &SnapshotService, config: &S3Config, bucket: &Bucket, base: &NamePrefix) {
    let remote = Remote::new(bucket.clone(), &service.context.data);
    let policy = service.settings.borrow().s3_policy(config);
    let now = clock::unix_seconds(clock::now());
    let done = async {
        let all = remote.list().await?;
        let unread = all.iter().filter(|listed| listed.status == SnapshotStatus::Unreadable).count();
        if unread > 0 {
            tracing::warn!(unread, place = remote.place(), "keeping snapshots with unreadable manifests");
        }
        let owner = crate::server::snapshots::service::owner(service);
        let namesakes = prune::renamed(&all, base, &owner).namesakes;
        if namesakes > 0 {
            tracing::info!(
                event = "foreign-snapshots",
                count = namesakes,
                place = remote.place(),
                next = format!("quorate etcd-snapshot prune --s3 --name {base} --node {}", owner.node),
                "there are snapshots of another server with this node-name; retention ignores them"
            );
        }
        let dropped = prune::dropped(&prune::plan(&all, base, &owner, &policy, now));
        if dropped.is_empty() {
            return Ok(Removed::default());
        }
        remote.remove(&dropped).await
    };
    match done.await {
        Ok(removed) => {
            for name in removed.gone {
                tracing::info!(
                    event = "snapshot-deleted",
                    name,
                    place = remote.place(),
                    "deleted an older snapshot that no retention rule keeps"
                );
            }
            if let Some(failure) = removed.failed {
                log_failure!(error, failure.to_report(), place = remote.place(), "cannot delete some older snapshots");
            }
            for (name, why) in removed.kept {
                tracing::info!(name, place = remote.place(), why, "an object lock keeps an older snapshot");
            }
        }
        Err(failure) => {
            log_failure!(error, failure.to_report(), place = remote.place(), "cannot delete older snapshots");
        }
    }
}
