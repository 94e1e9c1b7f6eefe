//! `etcd-snapshot-drill-cron`: rehearses the restore of the newest good snapshot on a schedule.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local};

use crate::clock;
use crate::error::{AppError, ErrorReport};
use crate::etcd::installed::stop_timeout;
use crate::job::JobControl;
use crate::log_failure;
use crate::plan::schedule::{Due, newest};
use crate::plan::select::LATEST;
use crate::recovery::drill::record::{DrillOutcome, DrillRecord};
use crate::recovery::drill::{Drill, DrillError, Passed};
use crate::recovery::isolated_etcd::IsolatedProgram;
use crate::server::health::Health;
use crate::server::snapshots::service::SnapshotService;
use crate::server::snapshots::service::{dir, owner};
use crate::server::snapshots::{on_failure, schedule};
use crate::snapshot::list;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::store::locate::{Located, Notice, SnapshotLocator};

/// The maximum sleep between two readings of the wall clock.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// The timeout of a drill, including the download: it must end before the next day.
const DRILL_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// The label of the hidden directory for a download.
const DOWNLOAD: &str = "quorate-drill-download";

/// Runs the scheduled drills until the server ends, once etcd was healthy for the first time.
pub async fn run(service: Arc<SnapshotService>) {
    let mut health = service.context.health.clone();
    if health.wait_for(|health| matches!(health, Health::Healthy(_))).await.is_err() {
        return;
    }
    let mut settings = service.settings.clone();
    // A slot is attempted once, even if its result cannot be recorded.
    let mut attempted: Option<DateTime<Local>> = None;
    loop {
        let config = settings.borrow_and_update().clone();
        let now = DateTime::<Local>::from(clock::now());
        let known = DrillRecord::read(&service.context.data)
            .last
            .and_then(|last| clock::parse_rfc3339(&last.at))
            .map(DateTime::from);
        let last = newest(&now, [attempted, known].into_iter().flatten());
        let due = config
            .drill
            .as_ref()
            .map(|schedule| schedule.due(&now, last.as_ref(), &schedule::data_created_at(&service)));
        let next = match due {
            Some(Due::Now(_)) if *service.context.stopping.borrow() => return,
            Some(Due::Now(slot)) => {
                attempted = Some(now);
                tracing::info!(event = "drill-due", slot = slot.to_rfc3339(), "a restore drill is due");
                run_slot(&service).await;
                continue;
            }
            Some(Due::At(next)) => Some(SystemTime::from(next)),
            Some(Due::Never) | None => None,
        };
        service.note(|history| history.next_drill = next);
        let wait =
            next.map_or(POLL_INTERVAL, |next| next.duration_since(clock::now()).unwrap_or_default().min(POLL_INTERVAL));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = service.context.stopped() => return,
            changed = settings.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn run_slot(service: &Arc<SnapshotService>) {
    let job = JobControl::default();
    let _drilling = service.drilling.lock().await;
    let (snapshot, done) = {
        let mut drilling = std::pin::pin!(drill_on_thread(service, &job));
        let mut late = std::pin::pin!(tokio::time::sleep(DRILL_TIMEOUT));
        loop {
            tokio::select! {
                done = &mut drilling => break done,
                () = service.context.stopped(), if !job.is_cancelled() => job.cancel(),
                () = &mut late, if !job.is_cancelled() => job.cancel(),
            }
        }
    };
    if *service.context.stopping.borrow() {
        return;
    }
    let outcome = match done {
        Ok(passed) => {
            tracing::info!(
                event = "drill-passed",
                snapshot,
                revision = passed.revision,
                keys = passed.keys,
                took_ms = passed.took.as_millis(),
                "restore drill passed: an etcd on the snapshot serves its contents"
            );
            DrillOutcome::passed(&snapshot, &passed, clock::now())
        }
        Err(failure) => {
            let report = failure.to_report();
            log_failure!(error, report.clone(), snapshot, "restore drill failed");
            if let Some(command) = service.settings.borrow().on_failure.clone() {
                tokio::spawn(on_failure::run(command, report.clone(), service.context.config.node_name.clone()));
            }
            DrillOutcome::failed(&snapshot, &report, clock::now())
        }
    };
    let written = DrillRecord::read(&service.context.data).with(outcome).write(&service.context.data);
    if let Err(error) = written {
        log_failure!(error, ErrorReport::of(&error), "cannot record the result of a restore drill");
    }
}

/// On a separate thread, which may block: the drill's client futures are not `Send`.
async fn drill_on_thread(service: &Arc<SnapshotService>, job: &JobControl) -> (String, Result<Passed, AppError>) {
    let (service, job) = (service.clone(), job.clone());
    let runtime = tokio::runtime::Handle::current();
    let drilling = tokio::task::spawn_blocking(move || {
        let mut snapshot = LATEST.to_owned();
        let done = runtime.block_on(drill(&service, &job, &mut snapshot));
        (snapshot, done)
    });
    drilling.await.unwrap_or_else(|lost| {
        let lost = DrillError::System(std::io::Error::other(lost));
        (LATEST.to_owned(), Err(lost.into()))
    })
}

/// Drills the newest good snapshot, on this node or in object storage; sets `name`.
async fn drill(service: &Arc<SnapshotService>, job: &JobControl, name: &mut String) -> Result<Passed, AppError> {
    let notify: fn(Notice<'_>) = |notice| match notice {
        Notice::Unseen(failure) => {
            log_failure!(warn, failure.to_report(), "cannot search object storage for the drill");
        }
        Notice::Considered(line) => tracing::warn!("{line}"),
        Notice::Chosen(line) => tracing::debug!("{line}"),
    };
    let places = SnapshotLocator {
        dirs: vec![dir(service)],
        s3: service.settings.borrow().s3.clone(),
        provider: None,
        owner: owner(service),
        data: service.context.data.clone(),
        notify,
    };
    let near = service.context.data.db();
    let mut download = None;
    let (path, manifest): (_, Option<Manifest>) = match places.locate(LATEST).await? {
        Located::Local(path) => {
            let listed = list::at(&path);
            *name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (path, listed.and_then(|listed| listed.manifest))
        }
        Located::Remote(there) => {
            *name = there.url();
            let _ = crate::durable::sweep_named(&near, DOWNLOAD);
            let draft = crate::durable::new_dir(&near.join(DOWNLOAD))?;
            let path = there.fetch(draft.path(), job, &mut |_, _| {}).await?;
            download = Some(draft);
            (path, there.manifest().cloned())
        }
    };
    let program = IsolatedProgram {
        checked: service.context.binary.checked.clone(),
        version: service.context.binary.version,
        grace: stop_timeout(),
    };
    let drill = Drill { config: &service.context.config, program: &program, dir: &near, skip_hash: false };
    let passed = drill.run(&path, manifest.as_ref(), job, |_, _| {}).await;
    drop(download);
    Ok(passed.map_err(|error| if error.is_cancelled() { DrillError::Cancelled } else { error })?)
}
