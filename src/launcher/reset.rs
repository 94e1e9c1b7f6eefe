//! `quorate server --cluster-reset`, with or without a snapshot, and `--undo-reset`, as one command: finds the snapshot, takes the lock,
//! and does the recovery operation while it listens for signals.

use crate::config::Config;
use crate::datadir::{DataDir, lock};
use crate::durable;
use crate::error::{AppError, system_error};
use crate::etcd::data_state::data_state;
use crate::etcd::orphan;
use crate::host;
use crate::job::JobControl;
use crate::launcher::preflight;
use crate::launcher::signals::{SignalAction as Signal, Signals};
use crate::log_failure;
use crate::plan::start::DataState;
use crate::recovery::error::ResetError;
use crate::recovery::isolated_etcd::{IsolatedEtcdError, Program};
use crate::recovery::journal::Operation;
use crate::recovery::resume;
use crate::recovery::run::{Report, ResetOptions, ResetRun, Tell};
use crate::server::snapshots::known;
use crate::snapshot::list;
use crate::snapshot::store::locate::{Located, Notice, SnapshotLocator};
use std::path::PathBuf;

/// Does what is asked for, or says what would be done.
///
/// # Errors
/// Whatever keeps it from being done; the data are then as they were.
pub async fn run(config: &Config, asked: &ResetOptions, tell: Tell) -> Result<Report, AppError> {
    let mut signals = Signals::listen().map_err(system_error("listen for signals"))?;
    let course = JobControl::default();
    let mut acting = std::pin::pin!(reset(config, asked, &course, &tell));
    loop {
        tokio::select! {
            done = &mut acting => return done,
            asked = signals.next() => if let Signal::Stop(signal) = asked {
                tracing::warn!(signal, "signal received: cancelling, and rolling back what was changed");
                course.cancel();
            }
        }
    }
}

async fn reset(config: &Config, asked: &ResetOptions, course: &JobControl, tell: &Tell) -> Result<Report, AppError> {
    let data = &DataDir::new(&config.data_dir).with_etcd_user(config.etcd.user.clone());
    let named = config.cluster_reset_restore_path.as_deref().filter(|_| !asked.undo);
    let dirs = vec![config.snapshot.place(data), PathBuf::from(host::RKE1_SNAPSHOTS)];
    let tell_of_search: fn(Notice<'_>) = |notice| match notice {
        Notice::Unseen(failure) => {
            log_failure!(
                warn,
                failure.to_report(),
                "object storage was not looked into; the snapshot on this node is taken"
            );
        }
        Notice::Considered(line) => tracing::warn!("{line}"),
        Notice::Chosen(line) => tracing::info!("{line}"),
    };
    let places = SnapshotLocator {
        dirs,
        s3: config.snapshot.s3.clone(),
        lender: None,
        owner: crate::cluster::file::owner(data, &config.node_name, None),
        data: data.clone(),
        tell: tell_of_search,
    };
    let found = match named {
        Some(named) => {
            tracing::info!(snapshot = named, "looking for the snapshot");
            tokio::select! {
                found = places.locate(named) => Some(found?),
                () = course.cancelled() => return Err(IsolatedEtcdError::Cancelled.into()),
            }
        }
        None => None,
    };
    let what = match &found {
        _ if asked.undo => Operation::Undo,
        Some(_) => Operation::Restore,
        None => Operation::Reset,
    };
    let binary = crate::etcd::installed::find(config, data).await?;
    let program = Program {
        checked: binary.checked.clone(),
        version: binary.version,
        grace: crate::etcd::installed::stop_timeout(),
    };
    if config.server.is_some() {
        tracing::info!(
            event = "server-ignored",
            "`server` is ignored: what is reset or restored is a cluster of its own"
        );
    }
    let manifest = match &found {
        Some(Located::Local(path)) => list::at(path).and_then(|listed| listed.manifest),
        Some(Located::Remote(there)) => there.manifest().cloned(),
        None => None,
    };
    // Of another node's snapshot only the data are taken over, not what else that node has in a shared bucket.
    let manifest = manifest.filter(|manifest| manifest.node == config.node_name);
    let lineage = manifest.map(|manifest| manifest.write_lineage()).unwrap_or_default();
    let is_without_data = what == Operation::Reset && data_state(data)? != DataState::Present;
    let newest = if is_without_data { known::newest(config, data).await.newest } else { None };
    let mut run = ResetRun { config, data, program, course, tell, asked, lineage, newest, _binary: binary };
    if asked.dry_run {
        return match found {
            None => run.dry_run(what, None),
            Some(Located::Local(path)) => run.dry_run(what, Some(&path)),
            Some(Located::Remote(there)) => {
                let (path, _dir) = run.fetch_for_dry_run(&there).await?;
                let report = run.dry_run(what, Some(&path))?;
                Ok(Report { from: Some(there.url().into()), ..report })
            }
        };
    }
    data.prepare_for_lock()?.iter().for_each(preflight::log_fix);
    let _lock = lock::take(data)?;
    orphan::clear(data, crate::etcd::installed::stop_timeout()).await?;
    preflight::tighten_permissions(data, &config.snapshot.place(data))?;
    resume::settle(data)?;
    if !asked.undo {
        run.check_flag()?;
    }
    match found {
        None => run.all(what, None).await,
        Some(Located::Local(path)) => run.all(what, Some(path)).await,
        Some(Located::Remote(there)) => {
            let downloads = data.downloads();
            let path = there.fetch(&downloads, course, &mut run.downloading()).await;
            let path = path.map_err(|why| ResetError::Untouched { act: what.word(), why: why.to_report() })?;
            let named = path.display().to_string();
            let report = run.all(what, Some(path)).await;
            let report = report.map_err(|failure| failure.to_report().renamed(&named, &there.url()))?;
            // What was restored is not needed any more; what could not be need not come again.
            let _ = durable::remove_dir_all(&downloads);
            Ok(Report { from: Some(there.url().into()), ..report })
        }
    }
}
