//! Snapshots of the running server: one at a time, on demand and on schedule, with retention after each scheduled one.
//!
//! When a slot is due is decided by `plan::schedule`; tokio-cron-scheduler rings at the time. The wall clock is looked at again at
//! least every half minute, so that a clock that jumps is noticed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{Notify, watch};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::health::Health;
use super::state::Shared;
use crate::clock;
use crate::config::SnapshotConfig;
use crate::error::{Exit, Explained, Failure, Told};
use crate::etcd::client::{ClientError, EtcdClient, MemberFacts};
use crate::etcd::process::{clean_environment, kill_group};
use crate::etcd::settings::Addresses;
use crate::plan::schedule::Due;
use crate::snapshot::file::Packing;
use crate::snapshot::list::{self, Status};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::name::Base;
use crate::snapshot::save::{self, Wish};
use crate::snapshot::{manifest, prune};

/// What a scheduled snapshot is taken for.
const SCHEDULED: &str = "scheduled";
/// The longest sleep before the wall clock is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long the command that is run on failure may take.
const ON_FAILURE: Duration = Duration::from_secs(60);

/// Why no snapshot is begun.
#[derive(Debug, thiserror::Error)]
pub enum RefusedError {
    /// One at a time.
    #[error("a snapshot is being taken already")]
    Busy,
    /// etcd is not healthy.
    #[error("no snapshot can be taken: {0}")]
    NotReady(String),
    /// Told to stop.
    #[error("the server was told to stop; the snapshot was broken off, and nothing of it is left")]
    Stopping,
    /// No connection.
    #[error("etcd cannot be asked")]
    Client(#[source] ClientError),
}

impl Explained for RefusedError {
    fn exit(&self) -> Exit {
        match self {
            Self::Busy => Exit::Busy,
            Self::NotReady(_) | Self::Stopping | Self::Client(_) => Exit::NotRunning,
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::Busy => "try again, or --wait for it".into(),
            Self::NotReady(_) | Self::Client(_) => "see quorate status".into(),
            Self::Stopping => "try again when it runs".into(),
        })
    }
}

/// What to take.
#[derive(Clone, Debug)]
pub struct Order {
    /// First part of the name.
    pub base: Base,
    /// Another directory than the configured one.
    pub dir: Option<PathBuf>,
    /// Another packing than the configured one.
    pub packing: Option<Packing>,
    /// `on-demand` or `scheduled`.
    pub reason: &'static str,
    /// What to write on it.
    pub labels: BTreeMap<String, String>,
    /// Wait while another one is being taken.
    pub wait: bool,
}

/// What became of the snapshots.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The newest good one in the directory, whoever took it.
    pub last_good: Option<Manifest>,
    /// When any of them was verified last, and found good; RFC 3339.
    pub last_verified: Option<String>,
    /// How long the last one took that this server saved.
    pub took: Option<Duration>,
    /// Failures since the last success.
    pub failures: u64,
    /// The last failure.
    pub last_failure: Option<String>,
    /// When the next scheduled one is due.
    pub next: Option<SystemTime>,
}

/// The part of the server that takes snapshots.
#[derive(Debug)]
pub struct Snapshots {
    /// One at a time.
    pub saving: tokio::sync::Mutex<()>,
    /// True once the server was told to stop.
    pub stopping: watch::Receiver<bool>,
    /// The configuration, which a reload changes.
    pub settings: watch::Receiver<SnapshotConfig>,
    /// How long saves took, by how they ended.
    pub save_seconds: Family<SaveLabels, Histogram>,
    history: Mutex<History>,
}

/// `status` of a save: success or error, as in k3s.
pub type SaveLabels = [(&'static str, &'static str); 1];

fn histogram() -> Histogram {
    // The buckets of k3s: 8 ms, doubled 14 times.
    Histogram::new(exponential_buckets(0.008, 2.0, 15))
}

impl Snapshots {
    /// Nothing was taken yet.
    #[must_use]
    pub fn new(stopping: watch::Receiver<bool>, settings: watch::Receiver<SnapshotConfig>) -> Self {
        Self {
            saving: tokio::sync::Mutex::new(()),
            stopping,
            settings,
            save_seconds: Family::new_with_constructor(histogram),
            history: Mutex::default(),
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

    /// Returns when the server is told to stop.
    pub async fn stopped(&self) {
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }
}

/// Where the snapshots are.
#[must_use]
pub fn dir(shared: &Shared) -> PathBuf {
    shared.snapshots.settings.borrow().dir.clone().unwrap_or_else(|| shared.data.snapshots())
}

/// Brings what is known of the directory up to date.
fn look_around(shared: &Shared) {
    let listed = list::list(&dir(shared)).unwrap_or_default();
    let good =
        || listed.iter().filter(|listed| listed.status == Status::Good).filter_map(|listed| listed.manifest.as_ref());
    let last_good = good().max_by_key(|manifest| manifest.created.clone()).cloned();
    let last_verified = good().filter_map(|manifest| Some(manifest.verification.as_ref()?.at.clone())).max();
    shared.snapshots.note(|history| {
        history.last_good = last_good;
        history.last_verified = last_verified;
    });
}

/// Takes one. Dropped before it is done, it leaves nothing.
///
/// # Errors
/// Whatever keeps it from being whole, safe and good.
pub async fn take(
    shared: &Shared,
    order: Order,
    progress: impl FnMut(u64, u64),
) -> Result<(Manifest, PathBuf), Failure> {
    let begun = clock::monotonic();
    let done = try_to_take(shared, order, progress).await;
    match &done {
        Ok((manifest, _)) => {
            let took = begun.elapsed();
            let Manifest { name, size, revision, keys, reason, .. } = manifest;
            tracing::info!(name, size, revision, keys, reason, took_ms = took.as_millis(), "snapshot saved");
            shared.snapshots.durations(true).observe(took.as_secs_f64());
            shared.snapshots.note(|history| {
                history.took = Some(took);
                history.failures = 0;
                history.last_failure = None;
            });
            look_around(shared);
        }
        // Refusing is no failure of the snapshots.
        Err(failure) if failure.exit() == Exit::Busy => {}
        Err(failure) => {
            let told = failure.told();
            tracing::error!(error = %told.message, because = (!told.because.is_empty()).then(|| told.because.join(": ")), next = told.next, "no snapshot was saved");
            shared.snapshots.durations(false).observe(begun.elapsed().as_secs_f64());
            shared.snapshots.note(|history| {
                history.failures += 1;
                history.last_failure = Some(told.to_string());
            });
        }
    }
    done
}

async fn try_to_take(
    shared: &Shared,
    order: Order,
    progress: impl FnMut(u64, u64),
) -> Result<(Manifest, PathBuf), Failure> {
    let snapshots = &shared.snapshots;
    let _one_at_a_time = if order.wait {
        snapshots.saving.lock().await
    } else {
        snapshots.saving.try_lock().map_err(|_| RefusedError::Busy)?
    };
    let facts = facts(shared)?;
    let wish = Wish {
        dir: order.dir.unwrap_or_else(|| dir(shared)),
        base: order.base,
        node: shared.config.node_name.clone(),
        packing: order.packing.unwrap_or_else(|| snapshots.settings.borrow().packing),
        reason: order.reason,
        labels: order.labels,
    };
    let url = Addresses::local_client_url(&shared.config);
    let mut client = EtcdClient::connect(&shared.data, &url).await.map_err(RefusedError::Client)?;
    let manifest = save::save(&wish, &mut client, &facts, progress).await?;
    let path = wish.dir.join(&manifest.name);
    Ok((manifest, path))
}

/// What the member is like: a learner is not healthy, so nothing is saved of one. An alarm is no obstacle: this may be the last
/// chance.
fn facts(shared: &Shared) -> Result<MemberFacts, RefusedError> {
    match &*shared.health.borrow() {
        Health::Healthy(facts) => Ok(facts.clone()),
        Health::Unhealthy(why) => Err(RefusedError::NotReady(why.clone())),
        Health::Unknown => Err(RefusedError::NotReady("etcd is starting".into())),
    }
}

/// Takes the scheduled ones until the server ends. Begins once etcd was healthy for the first time.
pub async fn keep_schedule(shared: Arc<Shared>) {
    let mut health = shared.health.clone();
    if health.wait_for(|health| matches!(health, Health::Healthy(_))).await.is_err() {
        return;
    }
    sweep_manifests(&shared);
    look_around(&shared);
    let bell = match Bell::new().await {
        Ok(bell) => bell,
        Err(error) => {
            tracing::error!(%error, "scheduled snapshots cannot be taken");
            return;
        }
    };
    let mut settings = shared.snapshots.settings.clone();
    let mut seen = None;
    // A slot is attempted once, also if the attempt fails.
    let mut attempted: Option<DateTime<Local>> = None;
    loop {
        let config = settings.borrow_and_update().clone();
        // Commands on this node delete, verify and copy, too.
        let present = [dir(&shared), dir(&shared).join(manifest::DIR)]
            .map(|dir| std::fs::metadata(dir).ok().map(|dir| manifest::modified(&dir)));
        if seen.replace(present) != Some(present) {
            look_around(&shared);
        }
        let Some(schedule) = &config.schedule else {
            shared.snapshots.note(|history| history.next = None);
            tokio::select! {
                () = bell.ring_in(LOOK_AGAIN) => {}
                changed = settings.changed() => if changed.is_err() {
                    return;
                },
            }
            continue;
        };
        let now = DateTime::<Local>::from(clock::now());
        let last = attempted.max(last_scheduled(&shared, &config));
        match schedule.due(&now, last.as_ref(), &born(&shared)) {
            Due::Now(slot) => {
                attempted = Some(now);
                tracing::info!(slot = slot.to_rfc3339(), "a scheduled snapshot is due");
                run_slot(&shared, &config).await;
                if *shared.snapshots.stopping.borrow() {
                    return;
                }
            }
            Due::At(next) => {
                let next = SystemTime::from(next);
                shared.snapshots.note(|history| history.next = Some(next));
                let wait = next.duration_since(clock::now()).unwrap_or_default().min(LOOK_AGAIN);
                tokio::select! {
                    () = bell.ring_in(wait) => {}
                    changed = settings.changed() => if changed.is_err() {
                        return;
                    },
                }
            }
            Due::Never => {
                tracing::warn!("the schedule of snapshots never comes again");
                if settings.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What a snapshot left that was removed by hand.
fn sweep_manifests(shared: &Shared) {
    let dir = dir(shared);
    for name in manifest::orphans(&dir).unwrap_or_default() {
        if manifest::remove(&dir, &name).is_ok() {
            tracing::info!(name, "removed the manifest of a snapshot that is gone");
        }
    }
}

async fn run_slot(shared: &Shared, config: &SnapshotConfig) {
    let order = Order {
        base: config.base.clone(),
        dir: None,
        packing: None,
        reason: SCHEDULED,
        labels: BTreeMap::new(),
        wait: false,
    };
    let done = tokio::select! {
        done = take(shared, order, |_, _| {}) => done,
        () = shared.snapshots.stopped() => return,
    };
    // Also after a failure: it may be for want of the space that old ones take.
    retain(shared, config);
    match done {
        Ok(_) => {}
        Err(failure) if failure.exit() == Exit::Busy => {
            tracing::warn!("another snapshot is being taken; this slot is left out");
        }
        Err(failure) => {
            if let Some(command) = &config.on_failure {
                run_on_failure(command, &failure.told(), shared).await;
            }
        }
    }
}

fn retain(shared: &Shared, config: &SnapshotConfig) {
    let dir = dir(shared);
    let now = clock::unix_seconds(clock::now());
    let decided = prune::plan(&dir, &config.base, &shared.config.node_name, &config.policy(), now);
    match decided.and_then(|decided| prune::carry_out(&dir, &decided)) {
        Ok(gone) => {
            for name in gone {
                tracing::info!(name, "an older snapshot was deleted, as no rule of retention keeps it");
            }
        }
        Err(error) => tracing::error!(%error, "older snapshots could not be deleted"),
    }
}

/// When the newest scheduled snapshot of this node was taken.
fn last_scheduled(shared: &Shared, config: &SnapshotConfig) -> Option<DateTime<Local>> {
    let listed = list::list(&dir(shared)).ok()?;
    let is_ours = |manifest: &Manifest| {
        manifest.reason == SCHEDULED
            && manifest.node == shared.config.node_name
            && manifest.base == config.base.to_string()
    };
    let newest = listed
        .iter()
        .filter(|listed| listed.manifest.as_ref().is_some_and(is_ours) && listed.status != Status::Corrupt)
        .map(|listed| listed.created)
        .max()?;
    Some(DateTime::<Local>::from(SystemTime::UNIX_EPOCH + Duration::from_secs(newest)))
}

/// When this server's data began: the member's name is written once, at its first start.
fn born(shared: &Shared) -> DateTime<Local> {
    let written = std::fs::metadata(shared.data.etcd_name()).and_then(|found| found.modified());
    DateTime::<Local>::from(written.unwrap_or_else(|_| clock::now()))
}

async fn run_on_failure(command: &str, told: &Told, shared: &Shared) {
    let mut shell = std::process::Command::new("/bin/sh");
    clean_environment(&mut shell);
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.env("QUORATE_SNAPSHOT_ERROR", told.to_string()).env("QUORATE_SNAPSHOT_NODE", &shared.config.node_name);
    let mut child = match tokio::process::Command::from(shell).kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) => return tracing::error!(%error, "etcd-snapshot-on-failure cannot be run"),
    };
    match tokio::time::timeout(ON_FAILURE, child.wait()).await {
        Ok(Ok(status)) if status.success() => tracing::info!("etcd-snapshot-on-failure was run"),
        Ok(Ok(status)) => tracing::error!(%status, "etcd-snapshot-on-failure failed"),
        Ok(Err(error)) => tracing::error!(%error, "etcd-snapshot-on-failure was lost"),
        Err(_) => {
            tracing::error!(seconds = ON_FAILURE.as_secs(), "etcd-snapshot-on-failure took too long and was ended");
            if let Some(pid) = child.id() {
                kill_group(pid);
            }
        }
    }
}

/// Rings after a while.
struct Bell(JobScheduler);

impl Bell {
    async fn new() -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.start().await?;
        Ok(Self(scheduler))
    }

    async fn ring_in(&self, wait: Duration) {
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
            // Without the bell there is still the clock.
            return tokio::time::sleep(wait).await;
        };
        // The bell has seconds and half a second's patience; nothing waits for it for ever.
        let _ = tokio::time::timeout(wait + Duration::from_secs(5), rung.notified()).await;
        let _ = self.0.remove(&id).await;
    }
}
