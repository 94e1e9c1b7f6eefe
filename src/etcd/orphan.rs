//! Stops a child that a killed launcher left behind, and prevents a second etcd on the same data.
//!
//! The record of the last child (pid, start time, executable, boot) distinguishes an orphan from a program that reuses
//! the pid, which is left alone. In any case the lock of the bbolt file is decisive: etcd holds it while it runs, so
//! nothing is started while it is locked.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::datadir::DataDir;
use crate::durable::{self, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::process::ProcessHandle;
use crate::host::{self, ProcessIdentity};
use crate::plan::orphan::{OrphanVerdict, identify};

/// How long an etcd without a record may take to release the data: it is exiting if it was ours.
const LOCK_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the child cannot be started on the data.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    #[error("the etcd data in {} is in use by {holder}, which this quorate did not start", path.display())]
    InUse { path: PathBuf, holder: String },
    /// An etcd uses the data, and it is unknown whether it is ours.
    #[error("the etcd data in {} is in use by {holder}; it is unknown whether this quorate started it, because {record} cannot be read", path.display())]
    Unknown {
        path: PathBuf,
        holder: String,
        /// The record of the last child.
        record: String,
        source: io::Error,
    },
    /// An orphan of ours does not exit.
    #[error("an etcd left by an earlier quorate (pid {pid}) does not exit")]
    NotStopping { pid: i32, source: io::Error },
}

impl Diagnostic for OrphanError {
    fn code(&self) -> Code {
        match self {
            Self::InUse { .. } | Self::Unknown { .. } => Code::EtcdDataInUse,
            Self::NotStopping { .. } => Code::OrphanNotStopping,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::InUse { .. } | Self::Unknown { .. } => "stop that process first, or use another --data-dir".into(),
            Self::NotStopping { pid, .. } => {
                format!("check cat /proc/{pid}/status: in state D it waits for a disk")
            }
        })
    }
}

/// Records the child, so that the next launcher recognises it.
pub fn record(data: &DataDir, child: &ProcessIdentity) -> Result<(), WriteError> {
    let text = serde_json::to_vec(child).unwrap_or_default();
    durable::write_file(&data.child_record(), &text, durable::PRIVATE_FILE)
}

/// Removes the record after the child was reaped.
pub fn remove_record(data: &DataDir) -> Result<(), WriteError> {
    durable::remove_file(&data.child_record()).map(|_| ())
}

/// Stops a child that an earlier launcher left, and ensures that no process uses the data.
pub async fn clear(data: &DataDir, grace: Duration) -> Result<(), OrphanError> {
    let (recorded, unread) = match recorded(data) {
        Ok(recorded) => (recorded, None),
        Err(error) => {
            tracing::warn!(
                path = %data.child_record().display(),
                %error,
                "cannot read the record of the last etcd; relying on the lock of its data"
            );
            (None, Some(error))
        }
    };
    if let Some(recorded) = recorded {
        // Opened before it is checked, so that the checked process is the one that is signalled.
        let handle = ProcessHandle::open(recorded.pid).ok();
        match (identify(&recorded, host::identify(recorded.pid).as_ref()), handle) {
            (OrphanVerdict::Ours, Some(handle)) => stop_orphan(&handle, grace).await?,
            (OrphanVerdict::Foreign, _) => {
                tracing::info!(
                    pid = recorded.pid,
                    "the recorded etcd is gone; another program has its pid now and is left alone"
                );
            }
            _ => {}
        }
    }
    match (wait_for_lock(data).await, unread) {
        (Err(OrphanError::InUse { path, holder }), Some(source)) => {
            Err(OrphanError::Unknown { path, holder, record: data.child_record().display().to_string(), source })
        }
        (done, _) => done,
    }
}

/// The child that was started last, if any.
fn recorded(data: &DataDir) -> io::Result<Option<ProcessIdentity>> {
    match host::read_small(&data.child_record()) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn stop_orphan(orphan: &ProcessHandle, grace: Duration) -> Result<(), OrphanError> {
    let pid = orphan.pid;
    tracing::warn!(event = "orphan-found", pid, "an etcd left by an earlier quorate is still running; stopping it");
    let stuck = |source| OrphanError::NotStopping { pid, source };
    // "No such process" means that it has exited meanwhile.
    let _ = orphan.terminate();
    if let Ok(ended) = tokio::time::timeout(grace, orphan.ended()).await {
        return ended.map_err(stuck);
    }
    tracing::warn!(
        event = "orphan-killed",
        pid,
        grace_seconds = grace.as_secs(),
        "the orphan did not exit in time; killing it"
    );
    let _ = orphan.kill();
    match tokio::time::timeout(grace, orphan.ended()).await {
        Ok(ended) => ended.map_err(stuck),
        Err(_) => Err(stuck(io::Error::from(io::ErrorKind::TimedOut))),
    }
}

async fn wait_for_lock(data: &DataDir) -> Result<(), OrphanError> {
    let begun = clock::monotonic();
    while let Some(bolt) = locked(data) {
        if begun.elapsed() > LOCK_RELEASE_TIMEOUT {
            let holder = host::lock_holder(&bolt).map_or_else(|| "another process".to_owned(), host::describe);
            return Err(OrphanError::InUse { path: data.etcd(), holder });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The process that uses the database: bbolt holds flock(2) on its file while it is open.
fn locked(data: &DataDir) -> Option<File> {
    let file = data.bolt().ok().flatten()?;
    matches!(host::try_lock(&file, false), Ok(false)).then_some(file)
}
