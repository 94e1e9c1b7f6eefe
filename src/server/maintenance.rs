//! Database maintenance: defragments on request or near the quota, compacts on request, and disarms NOSPACE when there
//! is space again. Never during a snapshot.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::boltdb::page::ReadError;
use crate::clock;
use crate::config::MaintenanceConfig;
use crate::control::api::maintenance::{Defragmented, Reclaimed};
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::etcd::client::{ClientError, EtcdClient, Size};
use crate::etcd::settings::Addresses;
use crate::faults;
use crate::host;
use crate::log_failure;
use crate::plan::defrag::{self, DatabaseStats, DefragAction};
use crate::server::context::Context;
use crate::server::database_lock::{DatabaseGuard, DatabaseLock};
use crate::server::health::Defragmentation;
use crate::server::health::Health;
use crate::server::snapshots::request::SnapshotRefused;
use crate::snapshot::live::PinnedDatabase;
use crate::snapshot::usage;
use crate::text::format_bytes;

const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes that stay free on the disk: etcd's log grows there, too.
const RESERVED_FREE_BYTES: u64 = 64 << 20;
/// etcd's alarm for a database that has reached its quota.
const NO_SPACE: &str = "NOSPACE";
/// How long to wait until the result is visible in the status.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// Defragmentation copies the pages in use to the same disk.
    #[error("defragmentation needs {} on the disk of the data, but only {} are free", format_bytes(*needed), format_bytes(*free))]
    Space { needed: u64, free: u64 },
    #[error("cannot reclaim database space now: {0}")]
    NotReady(String),
    #[error("cannot measure the pages in use of the database")]
    Count(#[source] ReadError),
    #[error("the server is stopping, and etcd with it; the outcome is unknown")]
    Stopping,
    #[error("etcd failed to {act}")]
    Etcd { act: &'static str, source: ClientError },
}

impl Diagnostic for MaintenanceError {
    fn code(&self) -> Code {
        match self {
            Self::Space { .. } => Code::NoSpace,
            Self::NotReady(_) => Code::EtcdUnreachable,
            Self::Count(_) => Code::DatabaseDamaged,
            Self::Stopping => Code::Stopping,
            Self::Etcd { .. } => Code::EtcdRequestFailed,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Space { .. } => {
                "free some space there: older snapshots, for example (quorate etcd-snapshot ls)".into()
            }
            Self::NotReady(_) => "see quorate status".into(),
            Self::Stopping => "try again when it runs; repeating the command is safe".into(),
            Self::Count(_) => {
                "run quorate etcd-snapshot save, which checks the whole database, and see journalctl -u quorate-server -e".into()
            }
            Self::Etcd { .. } => "see quorate status, and journalctl -u quorate-server -e".into(),
        })
    }
}

/// The maintenance service of the server.
#[derive(Debug)]
pub struct MaintenanceService {
    pub context: Arc<Context>,
    lock: Arc<DatabaseLock>,
    /// The configuration, which a reload changes.
    pub settings: watch::Receiver<MaintenanceConfig>,
    /// Shared with the health monitor.
    pub defragmentation: Arc<Defragmentation>,
    last: Mutex<Option<Instant>>,
    counted: Mutex<Option<MeasuredUse>>,
}

#[derive(Clone, Copy, Debug)]
struct MeasuredUse {
    /// The last compaction at that time.
    after: Option<i64>,
    in_use: u64,
}

impl MaintenanceService {
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        lock: Arc<DatabaseLock>,
        defragmentation: Arc<Defragmentation>,
        settings: watch::Receiver<MaintenanceConfig>,
    ) -> Self {
        Self { settings, defragmentation, context, lock, last: Mutex::default(), counted: Mutex::default() }
    }

    fn since_last(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    fn counted(&self) -> MutexGuard<'_, Option<MeasuredUse>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_defragmentation(&self) -> Defragmenting<'_> {
        *self.counted() = None;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::monotonic());
        self.defragmentation.is_running.store(true, Ordering::Relaxed);
        Defragmenting(self)
    }
}

/// Exists while etcd is being defragmented.
struct Defragmenting<'m>(&'m MaintenanceService);

impl Drop for Defragmenting<'_> {
    fn drop(&mut self) {
        self.0.defragmentation.is_running.store(false, Ordering::Relaxed);
        self.0.defragmentation.check_now.notify_one();
    }
}

/// Defragments. Once it has the lock and has begun, it continues even if the client disconnects: etcd cannot cancel it.
///
/// # Errors
/// If a snapshot is being taken and `wait` is false, etcd is not healthy, there is not enough space, or etcd fails.
pub async fn defragment(service: Arc<MaintenanceService>, wait: bool) -> Result<Defragmented, AppError> {
    // Waiting for the lock can be cancelled.
    let turn = lock(&service, wait).await?;
    detach(Box::pin(async move {
        let _turn = turn;
        try_to_defragment(&service).await
    }))
    .await
}

/// Compacts up to the present revision, and defragments. Continues as [`defragment`] does.
pub async fn compact_and_defrag(service: Arc<MaintenanceService>, wait: bool) -> Result<Reclaimed, AppError> {
    let turn = lock(&service, wait).await?;
    detach(Box::pin(async move {
        let _turn = turn;
        let size = connect(&service, Duration::from_secs(5)).await?.size().await;
        let size = size.map_err(|source| MaintenanceError::Etcd { act: "report the size of its database", source })?;
        let mut client = connect(&service, defrag::retry_after(size.file)).await?;
        let failed = |source| MaintenanceError::Etcd { act: "compact its history", source };
        let compact_revision = client.revision().await.map_err(failed)?;
        let is_compacted = client.compact(compact_revision).await.map_err(failed)?;
        tracing::info!(compact_revision, "compacted up to this revision, as requested");
        Ok(Reclaimed { compact_revision, is_compacted, defragmented: try_to_defragment(&service).await? })
    }))
    .await
}

async fn detach<T: Send + 'static>(
    work: Pin<Box<dyn Future<Output = Result<T, AppError>> + Send>>,
) -> Result<T, AppError> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(MaintenanceError::Stopping.into()))
}

async fn lock(service: &MaintenanceService, wait: bool) -> Result<DatabaseGuard, AppError> {
    let turn = service.lock.acquire("the database is being defragmented", wait).await?;
    match &*service.context.health.borrow() {
        Health::Healthy(_) => Ok(turn),
        Health::Unhealthy(why) => Err(MaintenanceError::NotReady(why.clone()).into()),
        Health::Unknown => Err(MaintenanceError::NotReady("etcd is starting".into()).into()),
        Health::Learner => Err(MaintenanceError::NotReady("this member is a learner".into()).into()),
    }
}

async fn connect(service: &MaintenanceService, timeout: Duration) -> Result<EtcdClient, SnapshotRefused> {
    let url = Addresses::local_client_url(&service.context.config);
    EtcdClient::connect_for(&service.context.data, &url, timeout).await.map_err(SnapshotRefused::Client)
}

async fn try_to_defragment(service: &MaintenanceService) -> Result<Defragmented, AppError> {
    let failed = |act| move |source| MaintenanceError::Etcd { act, source };
    let before = connect(service, Duration::from_secs(5)).await?.size().await;
    let before = before.map_err(failed("report the size of its database"))?;
    let in_use = require_room(service, before.in_use).await?;
    let before = Size { in_use, ..before };
    let mut client = connect(service, defrag::retry_after(before.in_use)).await?;
    tracing::info!(
        size = format_bytes(before.file),
        in_use = format_bytes(before.in_use),
        "defragmenting; etcd serves no requests meanwhile"
    );
    let begun = clock::monotonic();
    let defragmenting = service.begin_defragmentation();
    let done = client.defragment().await;
    drop(defragmenting);
    done.map_err(failed("defragment its database"))?;
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let after = client.size().await.map_err(failed("report the size of its database"))?;
    tracing::info!(
        event = "defragmented",
        before = format_bytes(before.file),
        after = format_bytes(after.file),
        took_ms,
        "defragmented"
    );
    let quota = service.context.config.etcd.effective_quota();
    let is_disarmed = defrag::has_room(after.file, quota) && disarm(service, &mut client).await?;
    // So that the status shows the result.
    service.defragmentation.check_now.notify_one();
    let mut health = service.context.health.clone();
    let is_seen = |health: &Health| match health {
        Health::Healthy(facts) => {
            let has_alarm = facts.alarms.iter().any(|alarm| alarm == NO_SPACE);
            !(is_disarmed && has_alarm) && (after == before || u64::try_from(facts.db_size) != Ok(before.file))
        }
        _ => false,
    };
    let _ = tokio::time::timeout(FINISH_TIMEOUT, health.wait_for(is_seen)).await;
    Ok(Defragmented { before, after, took_ms, quota, is_disarmed })
}

/// Checks that a copy of the pages in use fits on the disk. Returns their size: etcd's figure, or the measured one if
/// that would not fit.
async fn require_room(service: &MaintenanceService, in_use: u64) -> Result<u64, AppError> {
    let needed = |in_use: u64| in_use.saturating_add(RESERVED_FREE_BYTES);
    let Some(free) = host::free_bytes(&service.context.data.etcd()).filter(|free| *free < needed(in_use)) else {
        return Ok(in_use);
    };
    let counted = count_in_use(service, |live| usage::in_use(live, live.size())).await?;
    let needed = needed(counted);
    if free < needed { Err(MaintenanceError::Space { needed, free }.into()) } else { Ok(counted) }
}

/// Reads the live database on a separate thread.
async fn count_in_use<T: Send + 'static>(
    service: &MaintenanceService,
    work: impl FnOnce(&PinnedDatabase) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, AppError> {
    let mut client = connect(service, Duration::from_secs(5)).await?;
    let live = PinnedDatabase::pin(&mut client, &service.context.data).await?;
    let read = tokio::task::spawn_blocking(move || {
        let found = work(&live).map_err(MaintenanceError::Count);
        live.check().map(|()| found)
    });
    Ok(read.await.map_err(|_| MaintenanceError::Stopping)???)
}

/// The pages in use, measured once after each compaction: nothing else frees much.
async fn count(service: &MaintenanceService) -> Result<u64, AppError> {
    let known = *service.counted();
    let counted = count_in_use(service, move |live| {
        let compaction = usage::last_compaction(live, live.size())?;
        match known.filter(|known| known.after == compaction) {
            Some(known) => Ok(known),
            None => Ok(MeasuredUse { after: compaction, in_use: usage::in_use(live, live.size())? }),
        }
    })
    .await?;
    *service.counted() = Some(counted);
    Ok(counted.in_use)
}

async fn disarm(service: &MaintenanceService, client: &mut EtcdClient) -> Result<bool, MaintenanceError> {
    let done = client.disarm_no_space().await;
    let is_disarmed = done.map_err(|source| MaintenanceError::Etcd { act: "disarm its alarm", source })?;
    if is_disarmed {
        tracing::info!(
            event = "alarm-cleared",
            "the database is below its quota again; the alarm NOSPACE was disarmed, and etcd accepts writes"
        );
        service.defragmentation.check_now.notify_one();
    }
    Ok(is_disarmed)
}

/// Maintains the database automatically until the server ends.
pub async fn run(service: Arc<MaintenanceService>) {
    let period = faults::tunable("QUORATE_TEST_MAINTENANCE_MS", POLL_INTERVAL);
    let mut settings = service.settings.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            changed = settings.changed() => if changed.is_err() {
                return;
            },
        }
        let config = settings.borrow_and_update().clone();
        let Some(seen) = observe(&service, &config) else { continue };
        match apply(&service, seen).await {
            Err(failure) if failure.exit() != Exit::Busy => {
                log_failure!(error, failure.to_report(), "database maintenance failed");
            }
            _ => {}
        }
    }
}

async fn apply(service: &Arc<MaintenanceService>, mut seen: DatabaseStats) -> Result<(), AppError> {
    if defrag::should_count(&seen) {
        seen.in_use = count(service).await?;
    }
    match defrag::decide(&seen) {
        DefragAction::Nothing => return Ok(()),
        DefragAction::Disarm => return disarm_if_possible(service).await,
        DefragAction::NearQuota => tracing::warn!(
            event = "defragment-due",
            size = format_bytes(seen.size),
            quota = format_bytes(seen.quota),
            "the database is near its quota and most of it is free; defragmenting it"
        ),
        DefragAction::Worth => {}
    }
    defragment(service.clone(), false).await.map(drop)
}

async fn disarm_if_possible(service: &MaintenanceService) -> Result<(), AppError> {
    let mut client = connect(service, Duration::from_secs(5)).await?;
    disarm(service, &mut client).await?;
    Ok(())
}

fn observe(service: &MaintenanceService, config: &MaintenanceConfig) -> Option<DatabaseStats> {
    let health = service.context.health.borrow();
    let Health::Healthy(facts) = &*health else { return None };
    let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
    config.auto_defrag.then(|| DatabaseStats {
        size: bytes(facts.db_size),
        in_use: bytes(facts.db_in_use),
        quota: service.context.config.etcd.effective_quota(),
        is_alarmed: facts.alarms.iter().any(|alarm| alarm == NO_SPACE),
        members: facts.members,
        threshold: config.defrag_threshold,
        since_last: service.since_last(),
    })
}
