//! A child that a killed launcher left behind: recognised, stopped in order, never doubled.
//!
//! The record of the last child (pid, start time, executable, boot) tells an orphan of ours from a program that has the
//! pid by chance. What does not match is left alone. Whatever the record says, the bolt file's lock has the last word:
//! etcd holds it for as long as it runs, so nothing is started while somebody has it.

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

/// How long an etcd that nobody recorded may take to let go of the data: it is on its way out if it was ours.
const LOCK_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the child cannot be started over what is there.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// An etcd that is not ours uses the data.
    #[error("the etcd data in {} is in use by {holder}, which this quorate did not start", path.display())]
    InUse { path: PathBuf, holder: String },
    /// An etcd uses the data, and it is not known whether it is ours.
    #[error("the etcd data in {} is in use by {holder}; whether this quorate started it is not known, because {record} cannot be read", path.display())]
    Unknown {
        path: PathBuf,
        holder: String,
        /// The record of the last child.
        record: String,
        source: io::Error,
    },
    /// Ours, and it does not end.
    #[error("an etcd left by an earlier quorate (pid {pid}) does not end")]
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
                format!("look at it: cat /proc/{pid}/status; it waits for a disk if its state is D")
            }
        })
    }
}

/// Remembers the child, so that the next launcher recognises it.
pub fn record(data: &DataDir, child: &ProcessIdentity) -> Result<(), WriteError> {
    let text = serde_json::to_vec(child).unwrap_or_default();
    durable::write_file(&data.child_record(), &text, durable::PRIVATE_FILE)
}

/// Forgets the child after it was reaped.
pub fn remove_record(data: &DataDir) -> Result<(), WriteError> {
    durable::remove_file(&data.child_record()).map(|_| ())
}

/// Ends a child that an earlier launcher left, and makes sure that nobody has the data.
pub async fn clear(data: &DataDir, grace: Duration) -> Result<(), OrphanError> {
    let (recorded, unread) = match recorded(data) {
        Ok(recorded) => (recorded, None),
        Err(error) => {
            tracing::warn!(
                path = %data.child_record().display(),
                %error,
                "the record of the last etcd cannot be read; whether one still runs is told by the lock on its data"
            );
            (None, Some(error))
        }
    };
    if let Some(recorded) = recorded {
        // Opened before it is looked at: what is judged is then what is signalled.
        let handle = ProcessHandle::open(recorded.pid).ok();
        match (identify(&recorded, host::identify(recorded.pid).as_ref()), handle) {
            (OrphanVerdict::Ours, Some(handle)) => stop_orphan(&handle, grace).await?,
            (OrphanVerdict::Foreign, _) => {
                tracing::info!(
                    pid = recorded.pid,
                    "the recorded etcd is gone; its pid belongs to another program now, left alone"
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

/// The child that was started last, if one was.
fn recorded(data: &DataDir) -> io::Result<Option<ProcessIdentity>> {
    match host::read_small(&data.child_record()) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn stop_orphan(orphan: &ProcessHandle, grace: Duration) -> Result<(), OrphanError> {
    let pid = orphan.pid;
    tracing::warn!(
        event = "orphan-found",
        pid,
        "an etcd left by an earlier quorate still runs; stopping it before another is started"
    );
    let stuck = |source| OrphanError::NotStopping { pid, source };
    // "No such process" means that it ended meanwhile, which is what is wanted.
    let _ = orphan.terminate();
    if let Ok(ended) = tokio::time::timeout(grace, orphan.ended()).await {
        return ended.map_err(stuck);
    }
    tracing::warn!(event = "orphan-killed", pid, grace_seconds = grace.as_secs(), "it did not end in time; killing it");
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

/// The database, if somebody has it: bbolt takes flock(2) on its file for as long as it is open.
fn locked(data: &DataDir) -> Option<File> {
    let file = data.bolt().ok().flatten()?;
    matches!(host::try_lock(&file, false), Ok(false)).then_some(file)
}
