//! Creates the services of a server; etcd is not running yet.

use std::sync::Arc;

use tokio::sync::watch;

use super::effects::Effects;
use super::main_loop::Launcher;
use super::preflight::{self, PreparedStart};
use super::reload::ConfigReloader;
use super::stop::Stop;
use super::tasks::Tasks;
use super::{signals, systemd};
use crate::clock;
use crate::config::Config;
use crate::control;
use crate::datadir::DataDir;
use crate::error::{AppError, system_error};
use crate::etcd::data_state;
use crate::etcd::installed::{InstalledEtcd, stop_timeout};
use crate::etcd::launch::Launch;
use crate::etcd::process::{self, Spawner};
use crate::etcd::settings::{Setting, settings};
use crate::etcd::supervisor::Supervisor;
use crate::faults;
use crate::server::condition::LoggedProblems;
use crate::server::context::Context;
use crate::server::database_lock::DatabaseLock;
use crate::server::disk_sample::DiskSampler;
use crate::server::health::Defragmentation;
use crate::server::health::HealthMonitor;
use crate::server::maintenance::{self as service_maintenance, MaintenanceService};
use crate::server::rescue;
use crate::server::snapshots::service::SnapshotService;
use crate::server::snapshots::uploads::queue::Uploads;
use crate::server::snapshots::{drill, schedule, uploads as upload_queue};
use crate::server::state::ServerState;
use crate::server::storage::StorageWatch;

/// A server with running tasks, and the arguments of its etcd.
pub(super) struct Assembled {
    pub(super) launcher: Launcher,
    pub(super) launch: Launch,
}

/// # Errors
/// If the identity cannot be written, a thread cannot be started, or the control socket cannot be bound.
pub(super) fn assemble(
    config: Config,
    reloader: ConfigReloader,
    (data, binary, prepared): (DataDir, InstalledEtcd, PreparedStart),
) -> Result<Assembled, AppError> {
    let flags = settings(&config, &data, &prepared.identity, binary.version);
    let args: Vec<String> = flags.iter().map(Setting::flag).collect();
    preflight::write_identity(&data, &prepared, &args)?;
    faults::point("server::before_spawn").map_err(system_error("start etcd"))?;

    let (supervisor, handle) = Supervisor::new(Spawner::start().map_err(system_error("start a thread"))?);
    let launch = Launch {
        program: binary.checked.clone(),
        user: config.etcd.user.clone(),
        args,
        data: data.clone(),
        grace: stop_timeout(),
        restart_check: Some(data_state::before_restart(&data, &config.invocation)),
    };
    let (certificates, certificates_seen) = watch::channel(prepared.expiries);
    let (maintenance_settings, maintenance_seen) = watch::channel(config.maintenance.clone());
    let defragmentation = Arc::<Defragmentation>::default();
    let (monitor, health) = HealthMonitor::new(
        &config,
        &data,
        &prepared.identity.name,
        handle.clone(),
        certificates_seen.clone(),
        defragmentation.clone(),
    );
    let listeners = control::Listeners::bind(&data, prepared.metrics_listener)?;
    let (stopping, stopping_seen) = watch::channel(false);
    let (snapshot_settings, snapshot_seen) = watch::channel(config.snapshot.clone());
    let (storage_watch, storage) = StorageWatch::new(&data, prepared.lock, snapshot_seen.clone(), handle.watch());
    let (rescued, rescued_seen) = watch::channel(None);
    let context = Arc::new(Context {
        started: clock::now(),
        started_alone: prepared.identity.is_alone,
        member_name: prepared.identity.name,
        epoch: prepared.epoch,
        fsync_p99: prepared.fsync_p99,
        child: handle.watch(),
        health: health.clone(),
        stopping: stopping_seen,
        binary,
        data,
        config: config.clone(),
    });
    let lock = Arc::<DatabaseLock>::default();
    let uploads = Uploads::resumed(&context.data);
    let snapshots = Arc::new(SnapshotService::new(context.clone(), lock.clone(), snapshot_seen, uploads));
    let maintenance = Arc::new(MaintenanceService::new(context.clone(), lock, defragmentation, maintenance_seen));
    let state = Arc::new(ServerState {
        context,
        snapshots: snapshots.clone(),
        maintenance: maintenance.clone(),
        storage: storage.clone(),
        rescued: rescued_seen,
        disk_sampler: DiskSampler::default(),
        certificates: certificates_seen,
    });

    let mut tasks = Tasks::default();
    tasks.spawn("supervisor", supervisor.run());
    tasks.spawn("control", control::serve(listeners, state.clone()));
    tasks.spawn("schedule", schedule::run(snapshots.clone()));
    tasks.spawn("uploads", upload_queue::run(snapshots.clone()));
    tasks.spawn("drill", drill::run(snapshots));
    tasks.spawn("maintenance", service_maintenance::run(maintenance));
    tasks.spawn("rescue", rescue::run(state.clone(), rescued));
    tasks.spawn("health", monitor.run());
    tasks.spawn("storage", storage_watch.run());
    if std::process::id() == 1 {
        tasks.spawn("reaper", signals::reap_orphans(process::reap_adopted));
    }
    let launcher = Launcher {
        state,
        handle,
        tasks,
        effects: Effects::default(),
        stop: Stop::default(),
        failure: None,
        health,
        storage,
        certificates,
        stopping,
        snapshot_settings,
        maintenance_settings,
        config,
        reloader,
        authorities: prepared.authorities,
        watchdog: systemd::Watchdog::from_environment(),
        was_healthy: false,
        is_ready: false,
        problems: LoggedProblems::default(),
        record_failure: None,
        reloaded: None,
    };
    Ok(Assembled { launcher, launch })
}
