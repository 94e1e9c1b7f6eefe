//! The life of `quorate server`: lock, look, plan, act, ready, stop.
//!
//! Given a valid configuration, runs one etcd on the data directory until told to stop. `preflight` looks and mends
//! before the child starts, `health` watches it, this file reads top to bottom in the order in which things happen.
//! Parses no flags.

mod announce;
pub(crate) mod disk;
pub(crate) mod doctor;
mod ports;
pub(crate) mod preflight;
pub(crate) mod reload;
pub mod reset;
mod signals;
pub(crate) mod systemd;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock;
use crate::cluster;
use crate::config::{Config, MaintenanceConfig, SnapshotConfig};
use crate::control;
use crate::datadir::DataDir;
use crate::durable;
use crate::error::{AppError, ErrorReport, system_error};
use crate::etcd::child::{ChildStatus, Handle, State, SupervisorCommand};
use crate::etcd::installed::{self, InstalledEtcd, stop_timeout};
use crate::etcd::process::{self, Spawner};
use crate::etcd::settings::{Addresses, settings};
use crate::etcd::supervisor::{Ended, Launch, Supervisor};
use crate::etcd::{data_state, embedded};
use crate::faults;
use crate::log_failure;
use crate::pki::{self, EtcdState};
use crate::plan::health::{Rescued, StorageFacts};
use crate::recovery::retired;
use crate::server::health::{Health, HealthMonitor};
use crate::server::maintenance::{self, Maintenance};
use crate::server::snapshots::uploads::Uploads;
use crate::server::snapshots::{self, Snapshots};
use crate::server::state::ServerState;
use crate::server::storage::StorageWatch;
use crate::server::{condition, rescue};
use crate::snapshot::save;
use crate::text::format_bytes;

use preflight::Prepared;
use reload::ConfigReloader;
use signals::{SignalAction, Signals};

/// How long a snapshot may take to break off.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(15);
/// A second signal within this is the same one.
const SIGNAL_DEBOUNCE: Duration = Duration::from_millis(500);
/// How often certificates are looked at while running.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(3600);

/// Runs the server until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting, or from keeping etcd running.
pub async fn run(config: Config, reloader: ConfigReloader) -> Result<(), AppError> {
    let begun = clock::monotonic();
    let mut signals = Signals::listen().map_err(system_error("listen for signals"))?;
    let mut reload_asked = false;
    let prepared = {
        let mut preparing = std::pin::pin!(prepare(&config));
        loop {
            tokio::select! {
                prepared = &mut preparing => break prepared?,
                asked = signals.next() => match asked {
                    SignalAction::Stop(signal) => {
                        tracing::info!(signal, "told to stop before etcd was started");
                        return Ok(());
                    }
                    SignalAction::Reload => reload_asked = true,
                },
            }
        }
    };
    announce::log_start(&config, &reloader.config_file(), &prepared.1, &prepared.2);
    let (server, supervisor) = Launcher::assemble(config, reloader, prepared)?;
    tracing::debug!(took_ms = begun.elapsed().as_millis(), "ready to start etcd");
    server.run_loop(supervisor, signals, reload_asked).await
}

/// Everything before the child: nothing of the data directory is touched until the binary is known to be good.
async fn prepare(config: &Config) -> Result<(DataDir, InstalledEtcd, Prepared), AppError> {
    let user = config.etcd.user.clone();
    let data = DataDir::new(&config.data_dir).with_etcd_user(user.clone());
    if !data.certificate("server-ca").key.exists() {
        // Keys will have to be made; meanwhile etcd is asked for its version.
        tokio::task::spawn_blocking(pki::warm_up);
    }
    let found = installed::find(config, &data).await?;
    if let Some(dir) = &config.snapshot.dir {
        save::prepare_own_dir(dir)?;
    }
    let prepared = preflight::prepare(config, &data, found.version, stop_timeout()).await?;
    let facts = installed::unpack(config, &data, found).await?;
    Ok((data, facts, prepared))
}

/// Makes etcdctl ready for people, and removes what older executables left. After the start, which need not wait for it.
fn prune_unpacked(data: &DataDir) {
    if let Err(error) = embedded::unpack("etcdctl", data) {
        log_failure!(warn, ErrorReport::of(&error), "etcdctl could not be unpacked; it runs from memory");
    }
    for path in embedded::prune(data) {
        tracing::info!(path = %path.display(), "removed an older unpacked etcd");
    }
}

/// Removes the oldest of the data that were set aside: what is in use now is healthy.
fn prune_retired(data: &DataDir, keep: u32) {
    match retired::delete_oldest(data, usize::try_from(keep).unwrap_or(usize::MAX)) {
        Ok(removed) => {
            for old in removed {
                tracing::info!(
                    event = "old-data-removed",
                    path = %old.path.display(),
                    freed = format_bytes(old.bytes),
                    "removed old data that a reset had set aside; etcd-old-retention is {keep}"
                );
            }
        }
        Err(error) => log_failure!(warn, AppError::from(error).to_report(), "old data could not be removed"),
    }
}

/// The signals to stop that came so far.
#[derive(Default)]
struct Stops {
    first: Option<(Instant, &'static str)>,
}

struct Launcher {
    shared: Arc<ServerState>,
    handle: Handle,
    certificates: watch::Sender<Vec<pki::Expiry>>,
    stopping: watch::Sender<bool>,
    snapshot_settings: watch::Sender<SnapshotConfig>,
    maintenance_settings: watch::Sender<MaintenanceConfig>,
    health: watch::Receiver<Health>,
    storage: watch::Receiver<StorageFacts>,
    prober: Option<HealthMonitor>,
    storage_watch: Option<StorageWatch>,
    rescued: Option<watch::Sender<Option<Rescued>>>,
    listeners: Option<control::Listeners>,
    /// As far as it changes while running; routes see the one of the start.
    config: Config,
    reloader: ConfigReloader,
    /// The CAs that etcd has read.
    authorities: Vec<Vec<u8>>,
    watchdog: systemd::Watchdog,
    was_healthy: bool,
    /// Also the service manager.
    told_ready: bool,
    announced: condition::LoggedProblems,
}

impl Launcher {
    /// Puts the parts together; the child is not running yet.
    fn assemble(
        config: Config,
        reloader: ConfigReloader,
        (data, binary, prepared): (DataDir, InstalledEtcd, Prepared),
    ) -> Result<(Self, Supervisor), AppError> {
        let flags = settings(&config, &data, &prepared.identity, binary.version);
        let args: Vec<String> = flags.iter().map(crate::etcd::settings::Setting::flag).collect();
        preflight::write_identity(&data, &prepared, &args)?;
        faults::point("server::before_spawn").map_err(system_error("start etcd"))?;

        let spawner = Spawner::start().map_err(system_error("start a thread"))?;
        let launch = Launch {
            program: binary.checked.clone(),
            user: config.etcd.user.clone(),
            args,
            data: data.clone(),
            grace: stop_timeout(),
            restart_check: Some(data_state::before_restart(&data, &config.invocation)),
        };
        let (supervisor, handle) = Supervisor::new(launch, spawner);
        let (certificates, certificates_seen) = watch::channel(prepared.expiries);
        let (maintenance_settings, settings_seen) = watch::channel(config.maintenance.clone());
        let maintenance = Maintenance::new(settings_seen);
        let (prober, health) = HealthMonitor::new(
            &config,
            &data,
            &prepared.identity.name,
            handle.clone(),
            certificates_seen.clone(),
            &maintenance,
        );
        let listeners = control::Listeners::bind(&data, prepared.metrics_listener)?;
        let (stopping, stopping_seen) = watch::channel(false);
        let (snapshot_settings, settings_seen) = watch::channel(config.snapshot.clone());
        let (storage_watch, storage) = StorageWatch::new(&data, prepared.lock, settings_seen.clone(), handle.watch());
        let shared_storage = storage.clone();
        let (rescued, rescued_seen) = watch::channel(None);
        let shared = Arc::new(ServerState {
            started: clock::now(),
            started_alone: prepared.identity.is_alone,
            member_name: prepared.identity.name,
            epoch: prepared.epoch,
            fsync_p99: prepared.fsync_p99,
            child: handle.watch(),
            health: health.clone(),
            certificates: certificates_seen,
            storage,
            rescued: rescued_seen,
            snapshots: Snapshots::new(stopping_seen, settings_seen, Uploads::resumed(&data)),
            maintenance,
            binary,
            data,
            config: config.clone(),
        });
        let server = Self {
            shared,
            handle,
            certificates,
            health,
            storage: shared_storage,
            prober: Some(prober),
            storage_watch: Some(storage_watch),
            rescued: Some(rescued),
            listeners: Some(listeners),
            config,
            reloader,
            authorities: prepared.authorities,
            watchdog: systemd::Watchdog::from_environment(),
            stopping,
            snapshot_settings,
            maintenance_settings,
            was_healthy: false,
            told_ready: false,
            announced: condition::LoggedProblems::default(),
        };
        Ok((server, supervisor))
    }

    /// Runs the child and everything around it until told to stop.
    async fn run_loop(
        mut self,
        supervisor: Supervisor,
        mut signals: Signals,
        reload_asked: bool,
    ) -> Result<(), AppError> {
        if reload_asked {
            self.reload().await;
        }
        let mut helpers = tokio::task::JoinSet::new();
        if let Some(listeners) = self.listeners.take() {
            helpers.spawn(control::serve(listeners, self.shared.clone()));
        }
        helpers.spawn(snapshots::schedule::run(self.shared.clone()));
        helpers.spawn(snapshots::uploads::run(self.shared.clone()));
        helpers.spawn(snapshots::drill::run(self.shared.clone()));
        helpers.spawn(maintenance::run(self.shared.clone()));
        if let Some(rescued) = self.rescued.take() {
            helpers.spawn(rescue::run(self.shared.clone(), rescued));
        }
        if let Some(prober) = self.prober.take() {
            helpers.spawn(prober.run());
        }
        if let Some(watch) = self.storage_watch.take() {
            helpers.spawn(watch.run());
        }
        if std::process::id() == 1 {
            helpers.spawn(signals::reap_orphans(process::reap_adopted));
        }
        let mut owner = tokio::spawn(supervisor.run());
        let mut child = self.handle.watch();
        let period = faults::tunable("QUORATE_TEST_CERTIFICATE_MS", CERTIFICATE_INTERVAL);
        // They were looked at a moment ago.
        let mut certificate_check = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        let mut watchdog = tokio::time::interval(self.watchdog.interval());
        let mut assessed = tokio::time::interval(condition::INTERVAL);
        let mut stops = Stops::default();
        let mut lost_task = None;
        let ended = loop {
            tokio::select! {
                ended = &mut owner => break ended,
                asked = signals.next() => match asked {
                    SignalAction::Stop(signal) => self.stop(signal, &mut stops).await,
                    SignalAction::Reload if stops.first.is_some() => {}
                    SignalAction::Reload => self.reload().await,
                },
                Ok(()) = child.changed() => {
                    let status = child.borrow_and_update().clone();
                    self.child_changed(&status);
                }
                Ok(()) = self.health.changed() => {
                    let health = self.health.borrow_and_update().clone();
                    self.health_changed(&health);
                }
                _ = certificate_check.tick() => self.renew_certificates().await,
                _ = watchdog.tick() => self.watchdog.feed(),
                Ok(()) = self.storage.changed() => {
                    self.announced.update(&condition::assess_now(&self.shared));
                    // The record of the cluster was removed, or put back as it had been a moment before: the next start goes by it.
                    let health = self.health.borrow().clone();
                    self.record_cluster(&health);
                }
                _ = assessed.tick() => self.announced.update(&condition::assess_now(&self.shared)),
                // Each of them runs as long as the server: without one of them, what is shown would be wrong for ever.
                Some(ended) = helpers.join_next(), if stops.first.is_none() => {
                    let why = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                    tracing::error!(why, "a background task of the server ended unexpectedly; stopping in order");
                    lost_task = Some(why);
                    self.stop("no signal", &mut stops).await;
                }
            }
        };
        helpers.shutdown().await;
        let _ = durable::remove_file(&self.shared.data.socket());
        match ended {
            Ok(Ended::Stopped) if lost_task.is_some() => {
                let why = std::io::Error::other(lost_task.unwrap_or_default());
                Err(system_error("continue without a background task")(why).into())
            }
            Ok(Ended::Stopped) => {
                tracing::info!(event = "stopped", "stopped");
                Ok(())
            }
            Ok(Ended::GaveUp(why)) => Err(why.into()),
            Ok(Ended::Stuck(why)) => Err(why.into()),
            Ok(Ended::DataLost(why)) => Err(why),
            Err(panicked) => Err(system_error("supervise etcd")(std::io::Error::other(panicked)).into()),
        }
    }

    async fn stop(&self, signal: &'static str, stops: &mut Stops) {
        match stops.first {
            None => {
                tracing::info!(event = "stopping", signal, "stopping; a second signal kills etcd at once");
                stops.first = Some((clock::monotonic(), signal));
                systemd::stopping();
                // A snapshot that is being taken is cancelled, and removes what it has. Signals are heeded meanwhile.
                let _ = self.stopping.send(true);
                let (shared, handle) = (self.shared.clone(), self.handle.clone());
                tokio::spawn(async move {
                    // What is cancelled removes what it has.
                    let (saving, drilling) = (shared.snapshots.saving.lock(), shared.snapshots.drilling.lock());
                    let cancelled = async { tokio::join!(saving, drilling) };
                    let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await;
                    handle.send(SupervisorCommand::Stop).await;
                });
            }
            // One signal that arrives twice: timeout(1) and shells send it to the process and to its group.
            Some((at, first)) if first == signal && at.elapsed() < SIGNAL_DEBOUNCE => {}
            Some(_) => self.handle.send(SupervisorCommand::Kill).await,
        }
    }

    async fn reload(&mut self) {
        tracing::info!("reading the configuration anew");
        if self.told_ready {
            systemd::reloading();
        }
        let outcome = self.reloader.reload(&mut self.config);
        self.renew_certificates().await;
        let _ = self.snapshot_settings.send(self.config.snapshot.clone());
        let _ = self.maintenance_settings.send(self.config.maintenance.clone());
        tracing::info!(event = "reload-ended", "{outcome}");
        // Before the first READY=1 a reload must not say it.
        if self.told_ready {
            let line = self.ready_line();
            systemd::ready(&format!("{line}; {outcome}"));
        }
    }

    /// The first healthy moment of each life: only now is a reset over, and the cluster remembered.
    fn child_changed(&mut self, status: &ChildStatus) {
        let shared = self.shared.clone();
        match status.state {
            State::Ready => {
                let client_url = Addresses::client_url(&shared.config);
                match durable::remove_file(&shared.data.reset_flag()) {
                    Ok(true) => tracing::info!("the reset or restore is complete; its mark is removed"),
                    Ok(false) => {}
                    // Serving clients matters more than the mark.
                    Err(error) => log_failure!(error, ErrorReport::of(&error), "the mark of a reset stays"),
                }
                let health = self.health.borrow().clone();
                self.health_changed(&health);
                let etcd = &shared.binary.version;
                let took_ms = status.ready_after.unwrap_or_default().as_millis();
                tracing::info!(
                    event = "etcd-ready",
                    %etcd,
                    member = shared.member_name,
                    took_ms,
                    "etcd is ready; clients connect to {client_url}"
                );
                systemd::ready(&self.ready_line());
                if !self.told_ready {
                    self.told_ready = true;
                    let (data, keep) = (shared.data.clone(), shared.config.etcd_old_retention);
                    tokio::task::spawn_blocking(move || {
                        prune_unpacked(&data);
                        prune_retired(&data, keep);
                    });
                }
            }
            State::Starting => systemd::status("etcd is starting"),
            State::Backoff => {
                let exit = status.last_exit.as_deref().unwrap_or("an unknown end");
                systemd::status(&format!("etcd ended with {exit}; it will be started again"));
            }
            State::Stopping => systemd::status("etcd is stopping"),
            State::Stopped | State::Failed => {}
        }
    }

    /// Keeps what systemd shows and what is remembered of the cluster up to date.
    fn health_changed(&mut self, health: &Health) {
        let is_healthy = matches!(health, Health::Healthy(_));
        let state = self.shared.child.borrow().state;
        if let Health::Unhealthy(why) = health
            && matches!(state, State::Starting | State::Ready)
        {
            systemd::status(&format!("etcd is {}, not healthy: {why}", state.word()));
        } else if is_healthy && !self.was_healthy && state == State::Ready {
            systemd::status(&self.ready_line());
        }
        self.was_healthy = is_healthy;
        self.record_cluster(health);
    }

    fn record_cluster(&self, health: &Health) {
        let Health::Healthy(facts) = health else { return };
        match cluster::file::save_if_changed(&self.shared, facts) {
            Ok(Some(members)) if members > 1 && self.shared.started_alone => tracing::warn!(
                members,
                "this server is no longer the only member; restart it, so that etcd gets the timing of a cluster"
            ),
            Ok(_) => {}
            Err(error) => log_failure!(error, ErrorReport::of(&error), "the cluster cannot be remembered"),
        }
    }

    fn ready_line(&self) -> String {
        let url = Addresses::client_url(&self.shared.config);
        format!("etcd {} is ready at {url}", self.shared.binary.version)
    }

    async fn renew_certificates(&mut self) {
        match pki::ensure(&self.shared.data, &pki::Names::of(&self.config), EtcdState::Running) {
            Ok(ensured) => {
                if ensured.has_changed || *self.certificates.borrow() != ensured.expiries {
                    let _ = self.certificates.send(ensured.expiries);
                }
                // etcd reads its own certificate at each handshake, but whom it trusts only when it starts.
                if self.authorities != ensured.authorities {
                    tracing::warn!(
                        event = "ca-replaced",
                        "somebody has put other CAs in place; restarting etcd, so that it trusts them"
                    );
                    self.authorities = ensured.authorities;
                    if let Err(error) = pki::token::ensure(&self.shared.data, None) {
                        log_failure!(error, ErrorReport::of(&error), "the token could not be made to name the new CA");
                    }
                    self.handle.send(SupervisorCommand::Restart).await;
                }
            }
            Err(error) => {
                log_failure!(
                    error,
                    ErrorReport::of(&error),
                    "the certificates could not be checked; they are checked again later"
                );
            }
        }
    }
}
