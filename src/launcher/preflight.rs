//! The checks before the child starts: fix what can be fixed, refuse what would do harm, warn about the rest.
//!
//! In this order: lock, orphan, owners and modes, cluster record and data, ports, clock, space, disk latency, file
//! systems, versions, certificates and token.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::cluster::record::ClusterRecord;
use crate::config::Config;
use crate::datadir::{DataDir, DataDirError, PermissionFix, lock};
use crate::durable::{self, DirError, PRIVATE_FILE};
use crate::error::{AppError, Code, Diagnostic, system_error};
use crate::etcd::data_state::data_state;
use crate::etcd::orphan;
use crate::etcd::settings::{Identity, StartMode};
use crate::faults;
use crate::host::{self, FileSystem};
use crate::job::blocking;
use crate::launcher::{disk, ports};
use crate::log_failure;
use crate::pki::{self, CaSource, CertificateStatus, EtcdState, Expiry, Names};
use crate::plan::space::{self, FreeSpace};
use crate::plan::start::{self, DataState, Observed, StartDecision, StartPlan};
use crate::random::random_digits;
use crate::recovery::resume;
use crate::recovery::workspace::RecoveryDirs;
use crate::server::snapshots::known::{self, KnownSnapshots};
use crate::version::Version;

/// The tolerated difference of a clock that was set back.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// Before this the clock is certainly wrong: 2020-01-01.
const NOT_BEFORE: Duration = Duration::from_secs(1_577_836_800);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PreflightError {
    /// Certificates issued now would have a wrong validity.
    #[error("the clock of this machine shows {0}, which is impossible")]
    ClockWrong(String),
    #[error("only {} are free under {}, but etcd needs {} to start", crate::text::format_bytes(*free), path.display(), crate::text::format_bytes(*needed))]
    Space { free: u64, needed: u64, path: PathBuf },
    /// The server is configured to join another cluster.
    #[error(
        "this server has no data and should join the cluster of {0}, which this version of quorate does not support yet"
    )]
    Join(String),
    #[error("cannot get random numbers from the operating system")]
    Random(#[source] std::io::Error),
}

impl Diagnostic for PreflightError {
    fn code(&self) -> Code {
        match self {
            Self::ClockWrong(_) => Code::ClockWrong,
            Self::Space { .. } => Code::NoSpace,
            Self::Join(_) => Code::JoinNotSupported,
            Self::Random(_) => Code::OsError,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::ClockWrong(_) => Some("set it, for example with: timedatectl set-ntp true".into()),
            Self::Space { path, .. } => Some(format!("see what uses the space: du -xsh {}/*", path.display())),
            Self::Join(_) => Some("remove `server` from the configuration to begin a new cluster".into()),
            Self::Random(_) => None,
        }
    }
}

pub(crate) struct PreparedStart {
    pub(crate) lock: lock::Lock,
    pub(crate) identity: Identity,
    pub(crate) epoch: u64,
    /// The record of a cluster that is about to begin.
    pub(crate) intended: Option<ClusterRecord>,
    /// The previous content of `cluster.json`.
    pub(crate) remembered: Option<ClusterRecord>,
    found: DataState,
    pub(crate) expiries: Vec<Expiry>,
    pub(crate) authorities: Vec<Vec<u8>>,
    pub(crate) fsync_p99: Option<Duration>,
    pub(crate) metrics_listener: TcpListener,
}

/// Runs all steps, each of which can refuse the start. `grace` is the grace period of an orphan.
pub(crate) async fn prepare(
    config: &Config,
    data: &DataDir,
    binary: Version,
    grace: Duration,
) -> Result<PreparedStart, AppError> {
    let lock = take_over(config, data, grace).await?;
    resume::resume(data)?;
    let found = inspect(data)?;
    let plan = decide(config, data, &found).await?;
    let metrics_listener = ports::claim(config)?;
    let is_new = plan.decision == StartDecision::NewCluster;
    join(config, is_new)?;
    let fsync_p99 = check_machine(data, is_new)?;
    check_version(&plan, &found, binary)?;
    let CertificateStatus { expiries, authorities, .. } = establish_trust(config, data).await?;
    let beginning = if is_new {
        StartMode::NewCluster { token: format!("quorate-{}", random_digits().map_err(PreflightError::Random)?) }
    } else {
        StartMode::ExistingData
    };
    let intended = is_new.then(|| plan.pending_record(found.remembered.clone(), binary));
    Ok(PreparedStart {
        lock,
        intended,
        remembered: found.remembered,
        found: found.state,
        identity: Identity { name: plan.name, beginning, is_alone: plan.is_alone },
        epoch: plan.epoch,
        expiries,
        authorities,
        fsync_p99,
        metrics_listener,
    })
}

/// Step 1: the data directory is this launcher's alone: the lock, no etcd of an earlier launcher, permissions, no leftovers.
async fn take_over(config: &Config, data: &DataDir, grace: Duration) -> Result<lock::Lock, AppError> {
    data.prepare_for_lock()?.iter().for_each(log_fix);
    let lock = lock::take(data)?;
    faults::point("server::locked").map_err(system_error("continue after the lock"))?;
    // It would still use the ports, and could still create files.
    orphan::clear(data, grace).await?;
    tighten_permissions(data, &config.snapshot.place(data))?;
    // A restore would have resumed it, but the server was started instead.
    if data.downloads().is_dir() {
        durable::remove_dir_all(&data.downloads())?;
        tracing::info!(dir = %data.downloads().display(), "removed leftovers of an interrupted download");
    }
    Ok(lock)
}

/// What is on the disk, after an interrupted recovery was finished or undone.
struct DiskState {
    /// The content of `cluster.json`.
    remembered: Option<ClusterRecord>,
    state: DataState,
}

/// Step 3 (step 2 resumes a recovery): looks at the record and at etcd's data.
fn inspect(data: &DataDir) -> Result<DiskState, AppError> {
    Ok(DiskState { remembered: crate::cluster::file::load(data)?, state: data_state(data)? })
}

/// Step 4: resume, begin, or refuse. Without data, snapshots of this server are looked for first.
async fn decide(config: &Config, data: &DataDir, found: &DiskState) -> Result<StartPlan, AppError> {
    let is_without_data = found.state != DataState::Present && !config.new_cluster;
    let known = if is_without_data { known::newest(config, data).await } else { KnownSnapshots::default() };
    let plan = start::plan(&Observed {
        cluster: found.remembered.clone(),
        data: found.state,
        name: data.member_name(),
        new_cluster: config.new_cluster,
        node_name: config.node_name.clone(),
        newest: known.newest,
        data_dir: data.root().to_path_buf(),
        invocation: config.invocation.clone(),
        random: random_digits().map_err(PreflightError::Random)?,
    })?;
    if let Some(failure) = known.unseen {
        log_failure!(warn, failure.to_report(), "cannot list the snapshots of this server in object storage");
    }
    Ok(plan)
}

/// Step 6 (step 5 claims the ports): a server without data that is to join others. Not implemented yet: it is refused.
fn join(config: &Config, is_new: bool) -> Result<(), PreflightError> {
    match &config.server {
        Some(server) if is_new => Err(PreflightError::Join(crate::text::escape_control(server))),
        Some(_) => {
            tracing::warn!(event = "server-ignored", "`server` is ignored: this server has its own data");
            Ok(())
        }
        None => Ok(()),
    }
}

/// Step 7: clock, space, the disk's speed, and what file system the data is on. Returns the fsync latency.
fn check_machine(data: &DataDir, is_new: bool) -> Result<Option<Duration>, AppError> {
    if let Some(behind) = check_clock(data)? {
        tracing::warn!(
            behind_s = behind.as_secs(),
            next = "check it with timedatectl, and set it with timedatectl set-ntp true",
            "the clock of this machine is behind the data: certificates and snapshot names depend on it"
        );
    }
    check_space(data, is_new)?;
    let fsync_p99 = measure_disk(data)?;
    check_file_systems(data);
    Ok(fsync_p99)
}

/// Step 8: this etcd can read data that another version wrote.
fn check_version(plan: &StartPlan, found: &DiskState, binary: Version) -> Result<(), AppError> {
    let last = found.remembered.as_ref().and_then(|cluster| cluster.etcd_version);
    let last = last.filter(|_| plan.decision != StartDecision::NewCluster);
    let notes = last.map(|last| start::check_versions(last, binary)).transpose()?;
    for note in plan.notes.iter().chain(notes.iter().flatten()) {
        tracing::warn!("{note}");
    }
    Ok(())
}

/// Step 9: certificates and token.
async fn establish_trust(config: &Config, data: &DataDir) -> Result<CertificateStatus, AppError> {
    pki::token::check_without_ca(data, config.token.as_ref())?;
    let ensured = ensure_certificates(data, config.certificate_names()).await?;
    for expiry in &ensured.expiries {
        data.set_certificate_modes(&data.certificate(expiry.name))?.iter().for_each(log_fix);
    }
    pki::token::ensure(data, config.token.as_ref())?;
    Ok(ensured)
}

/// On a thread for blocking work, most likely the one that `pki::warm_up` ran on.
async fn ensure_certificates(data: &DataDir, names: Names) -> Result<CertificateStatus, AppError> {
    let data = data.clone();
    Ok(blocking(move || pki::ensure(&data, &names, CaSource::Create, EtcdState::Stopped)).await??)
}

pub(crate) fn tighten_permissions(data: &DataDir, snapshots: &Path) -> Result<(), DataDirError> {
    data.prepare()?.iter().for_each(log_fix);
    let removed = |dir: &Path, names: Vec<OsString>| {
        for name in names {
            tracing::info!(file = %name.to_string_lossy(), dir = %dir.display(), "removed a leftover of an interrupted write");
        }
    };
    for dir in data.written_to(snapshots) {
        removed(&dir, durable::sweep(&dir));
    }
    if let Some(etcd) = data.open_etcd()? {
        removed(etcd.path(), etcd.sweep(None));
    }
    Ok(())
}

pub(crate) fn log_fix(fix: &PermissionFix) {
    match fix {
        PermissionFix::ModeTightened(path) => {
            tracing::warn!(
                event = "access-closed",
                path = %path.display(),
                "permissions were too open; fixed"
            );
        }
        PermissionFix::OwnerChanged(path) => {
            tracing::warn!(
                event = "owner-changed",
                path = %path.display(),
                "changed the owner to the user that etcd runs as"
            );
        }
    }
}

/// How far the clock is behind the newest file, if it is.
pub(crate) fn check_clock(data: &DataDir) -> Result<Option<Duration>, PreflightError> {
    let now = clock::now();
    if now < SystemTime::UNIX_EPOCH + NOT_BEFORE {
        return Err(PreflightError::ClockWrong(clock::rfc3339(now)));
    }
    let written = |path: PathBuf| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    let last = [data.cluster(), data.etcd_bolt(), data.token()].into_iter().filter_map(written).max();
    let behind = last.filter(|last| *last > now + CLOCK_TOLERANCE);
    Ok(behind.and_then(|last| last.duration_since(now).ok()))
}

fn check_space(data: &DataDir, is_new: bool) -> Result<(), PreflightError> {
    let dir = data.storage();
    let Some(free) = host::free_bytes(&dir) else { return Ok(()) };
    match space::assess(free, is_new) {
        FreeSpace::Enough => {}
        FreeSpace::Low => {
            tracing::warn!(free = crate::text::format_bytes(free), path = %dir.display(), "little disk space left");
        }
        FreeSpace::TooLittle(needed) => return Err(PreflightError::Space { free, needed, path: dir }),
    }
    Ok(())
}

fn measure_disk(data: &DataDir) -> Result<Option<Duration>, DataDirError> {
    let p99 = disk::fsync_p99(&data.open_storage()?)?;
    if p99 > disk::SLOW {
        tracing::warn!(
            event = "disk-slow",
            fsync_p99_ms = p99.as_millis(),
            wanted_ms = disk::SLOW.as_millis(),
            "the disk under the data is slow for etcd; with several members, raise etcd-heartbeat-interval and etcd-election-timeout"
        );
    }
    Ok(Some(p99))
}

fn check_file_systems(data: &DataDir) {
    for link in data.symlinks() {
        tracing::warn!(
            event = "data-behind-link",
            path = %link.display(),
            "this is a symbolic link; its target must be mounted before quorate starts"
        );
    }
    let dir = data.storage();
    match host::file_system(&dir) {
        FileSystem::Local => {}
        FileSystem::Network => {
            tracing::warn!(path = %dir.display(), "the data is on a network file system, where locks and fsync are not reliable; etcd needs a local disk");
        }
        FileSystem::Memory => {
            tracing::warn!(
                event = "data-in-memory",
                path = %dir.display(),
                "the data is in memory (tmpfs) and will be lost at a reboot"
            );
        }
    }
}

/// A new cluster begins in an empty directory: any old data there is moved to a retired directory.
fn retire_incomplete(data: &DataDir, found: DataState) -> Result<(), DirError> {
    match found {
        DataState::NeverInitialized => {
            tracing::warn!(
                event = "first-start-interrupted",
                "db/etcd contains a log without a committed entry and no data: a first start was interrupted"
            );
        }
        DataState::MissingWal => tracing::warn!("db/etcd contains data without a log to resume from"),
        DataState::Absent | DataState::Present => return Ok(()),
    }
    let Some(place) = RecoveryDirs::of(data)? else { return Ok(()) };
    if let Some(to) = place.retire(clock::unix_seconds(clock::now()))? {
        tracing::warn!(event = "data-set-aside", to = %to.display(), "moved the old data; beginning a new cluster");
    }
    Ok(())
}

/// Creates `db/etcd` with the member name and, for operators, its flags. A new cluster is recorded as intended before.
pub(crate) fn write_identity(data: &DataDir, prepared: &PreparedStart, flags: &[String]) -> Result<(), AppError> {
    let identity = &prepared.identity;
    if let Some(intended) = &prepared.intended {
        crate::cluster::file::write(data, intended)?;
        retire_incomplete(data, prepared.found)?;
    }
    data.prepare_etcd()?.iter().for_each(log_fix);
    let etcd = data.open_etcd()?.ok_or_else(|| DirError::Missing(data.etcd()))?;
    etcd.write_if_changed(DataDir::NAME_NAME, identity.name.as_bytes(), PRIVATE_FILE)?;
    let head = "# Written by quorate at each start, for reading only; changes have no effect.\n";
    let text = format!("{head}{}\n", flags.join("\n"));
    etcd.write_if_changed(DataDir::CONFIG_NAME, text.as_bytes(), PRIVATE_FILE)?;
    Ok(())
}
