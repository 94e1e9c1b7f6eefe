//! `quorate server --cluster-reset`, with or without a snapshot, and `--undo-reset`, as one command: locates the
//! snapshot, acquires the lock, and runs the recovery operation while it handles signals.

use crate::cluster::record::MemberIdentity;
use crate::config::Config;
use crate::datadir::{DataDir, lock};
use crate::durable;
use crate::error::{AppError, system_error};
use crate::etcd::data_state::data_state;
use crate::etcd::orphan;
use crate::etcd::settings::Addresses;
use crate::host;
use crate::job::JobControl;
use crate::launcher::preflight;
use crate::launcher::signals::{SignalAction as Signal, Signals};
use crate::log_failure;
use crate::plan::start::DataState;
use crate::random::random_digits;
use crate::recovery::error::ResetError;
use crate::recovery::expected::ExpectedCluster;
use crate::recovery::isolated_etcd::{IsolatedEtcdError, IsolatedProgram};
use crate::recovery::journal::OperationKind;
use crate::recovery::operation::Operation;
use crate::recovery::report::{ProgressReporter, RecoveryReport, ResetOptions};
use crate::recovery::resume::{self, Resumed};
use crate::server::snapshots::known;
use crate::snapshot::list;
use crate::snapshot::store::locate::{Located, Notice, SnapshotLocator};
use std::path::PathBuf;

/// Runs the operation, or a dry run. # Errors Any failure; the data is unchanged or rolled back then.
pub async fn run(
    config: &Config,
    options: &ResetOptions,
    progress: ProgressReporter,
) -> Result<RecoveryReport, AppError> {
    let mut signals = Signals::listen().map_err(system_error("listen for signals"))?;
    let control = JobControl::default();
    let mut acting = std::pin::pin!(reset(config, options, &control, &progress));
    loop {
        tokio::select! {
            done = &mut acting => return done,
            asked = signals.next() => if let Signal::Stop(signal) = asked {
                tracing::warn!(signal, "signal received: cancelling and rolling back");
                control.cancel();
            }
        }
    }
}

async fn reset(
    config: &Config,
    options: &ResetOptions,
    control: &JobControl,
    progress: &ProgressReporter,
) -> Result<RecoveryReport, AppError> {
    let data = &DataDir::new(&config.data_dir).with_etcd_user(config.etcd.user.clone());
    let found = find_snapshot(config, options, data, control).await?;
    let kind = match &found {
        _ if options.undo => OperationKind::Undo,
        Some(_) => OperationKind::Restore,
        None => OperationKind::Reset,
    };
    let (program, binary) = IsolatedProgram::find(config, data).await?;
    if config.server.is_some() {
        tracing::info!(event = "server-ignored", "`server` is ignored: a reset or restore creates a separate cluster");
    }
    let is_without_data = kind == OperationKind::Reset && data_state(data)? != DataState::Present;
    let newest = if is_without_data { known::newest(config, data).await.newest } else { None };
    let operation = Operation {
        config,
        data,
        program,
        control,
        progress,
        options,
        id: None,
        newest,
        lineage: found.as_ref().map(|found| lineage(found, &config.node_name)).unwrap_or_default(),
        replaced: None,
        _binary: binary,
    };
    if options.dry_run {
        dry_run(&operation, kind, found).await
    } else {
        Box::pin(run_locked(operation, kind, found)).await
    }
}

/// The snapshot that the configuration names, if it names one.
async fn find_snapshot(
    config: &Config,
    options: &ResetOptions,
    data: &DataDir,
    control: &JobControl,
) -> Result<Option<Located>, AppError> {
    let Some(named) = config.cluster_reset_restore_path.as_deref().filter(|_| !options.undo) else { return Ok(None) };
    let locator = SnapshotLocator {
        dirs: vec![config.snapshot.place(data), PathBuf::from(host::RKE1_SNAPSHOTS)],
        s3: config.snapshot.s3.clone(),
        provider: None,
        owner: crate::cluster::file::owner(data, &config.node_name, None),
        data: data.clone(),
        notify: log_notice,
    };
    tracing::info!(snapshot = named, "looking for the snapshot");
    tokio::select! {
        found = locator.locate(named) => found.map(Some),
        () = control.cancelled() => Err(IsolatedEtcdError::Cancelled.into()),
    }
}

fn log_notice(notice: Notice<'_>) {
    match notice {
        Notice::Unseen(failure) => {
            log_failure!(warn, failure.to_report(), "cannot search object storage; using the snapshot on this node");
        }
        Notice::Considered(line) => tracing::warn!("{line}"),
        Notice::Chosen(line) => tracing::info!("{line}"),
    }
}

/// The identities that the data in the snapshot had. From a snapshot of another node only the data is used, not the
/// ownership of its other snapshots in a shared bucket.
fn lineage(found: &Located, node: &str) -> Vec<MemberIdentity> {
    let manifest = match found {
        Located::Local(path) => list::at(path).and_then(|listed| listed.manifest),
        Located::Remote(there) => there.manifest().cloned(),
    };
    let own = manifest.filter(|manifest| manifest.node == node);
    own.map(|manifest| manifest.write_lineage()).unwrap_or_default()
}

async fn dry_run(
    operation: &Operation<'_>,
    kind: OperationKind,
    found: Option<Located>,
) -> Result<RecoveryReport, AppError> {
    match found {
        None => operation.dry_run(kind, None).await,
        Some(Located::Local(path)) => operation.dry_run(kind, Some(&path)).await,
        Some(Located::Remote(there)) => {
            let (path, _dir) = operation.fetch_for_dry_run(&there).await?;
            let report = operation.dry_run(kind, Some(&path)).await?;
            Ok(RecoveryReport { from: Some(there.url().into()), ..report })
        }
    }
}

/// Takes the lock, ends what is left of an earlier start or operation, and does it.
async fn run_locked(
    mut operation: Operation<'_>,
    kind: OperationKind,
    found: Option<Located>,
) -> Result<RecoveryReport, AppError> {
    let (config, data) = (operation.config, operation.data);
    data.prepare_for_lock()?.iter().for_each(preflight::log_fix);
    let _lock = lock::take(data)?;
    orphan::clear(data, crate::etcd::installed::stop_timeout()).await?;
    preflight::tighten_permissions(data, &config.snapshot.place(data))?;
    if let Resumed::Prepared(undecided) = resume::resume(data)? {
        return Err(undecided.into());
    }
    if kind != OperationKind::Undo {
        operation.check_flag()?;
    }
    let expected = expected_alone(config, data)?;
    match found {
        None => operation.run(kind, None, &expected).await,
        Some(Located::Local(path)) => operation.run(kind, Some(path), &expected).await,
        Some(Located::Remote(there)) => {
            let downloads = data.downloads();
            let path = there.fetch(&downloads, operation.control, &mut operation.downloading()).await;
            let path = path.map_err(|why| ResetError::Untouched { act: kind.word(), why: why.to_report() })?;
            let named = path.display().to_string();
            let report = operation.run(kind, Some(path), &expected).await;
            let report = report.map_err(|failure| failure.to_report().renamed(&named, &there.url()))?;
            // The download is removed after a restore, and kept after a failure.
            let _ = durable::remove_dir_all(&downloads);
            Ok(RecoveryReport { from: Some(there.url().into()), ..report })
        }
    }
}

/// This server alone, in a cluster with a unique token: members of the previous one can never join it.
fn expected_alone(config: &Config, data: &DataDir) -> Result<ExpectedCluster, AppError> {
    let digits = || random_digits().map_err(system_error("get random numbers"));
    // An unreadable record is refused when the operation is prepared.
    let recorded = || crate::cluster::file::load(data).ok().flatten().map(|record| record.member_name);
    let name = match data.member_name().or_else(recorded).filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => format!("{}-{}", config.node_name, digits()?),
    };
    let token = format!("quorate-{}{}", digits()?, digits()?);
    Ok(ExpectedCluster::alone(name, Addresses::peer_url(config), token))
}
