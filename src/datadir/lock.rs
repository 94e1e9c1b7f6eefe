//! One launcher per data directory.
//!
//! The kernel drops the lock when the process ends, however it ends, so a stale file never blocks a start. The content
//! (pid and start time) is only for the message of the one that comes second.

use std::fs::File;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::datadir::DataDir;
use crate::durable::{self, OnPath as _, WriteError};
use crate::error::{Code, Diagnostic};
use crate::host;
use crate::host::open_files::identity;

/// Held for the life of the launcher.
#[derive(Debug)]
pub struct Lock(File);

#[derive(Serialize, Deserialize)]
struct Holder {
    pid: i32,
    started: String,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the data directory {} is in use by {holder}", path.display())]
    InUse {
        path: PathBuf,
        /// The holder, as far as known from the file.
        holder: String,
    },
    /// The file cannot be opened or written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for LockError {
    fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::DataDirInUse,
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => {
                Some("stop that one first (systemctl stop quorate-server), or use another --data-dir".into())
            }
            Self::Write(error) => error.next_step(),
        }
    }
}

impl Lock {
    /// True if the file that is locked is still the one at the lock's path: it is not if the data directory was removed,
    /// moved or unmounted.
    #[must_use]
    pub fn is_in_place(&self, data: &DataDir) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let held = self.0.metadata().map(|found| (found.dev(), found.ino()));
        held.is_ok_and(|held| identity(&data.lock()).is_ok_and(|found| found == held))
    }
}

pub fn take(data: &DataDir) -> Result<Lock, LockError> {
    let path = data.lock();
    let mut lock = durable::open_lock(&path)?;
    if !host::try_lock(&lock, false).on("lock", &path)? {
        return Err(LockError::InUse { path: data.root().to_path_buf(), holder: holder(data) });
    }
    let us =
        Holder { pid: i32::try_from(std::process::id()).unwrap_or_default(), started: clock::rfc3339(clock::now()) };
    let text = serde_json::to_vec(&us).unwrap_or_default();
    durable::rewrite_open(&mut lock, &path, &text)?;
    Ok(Lock(lock))
}

#[must_use]
pub fn is_taken(data: &DataDir) -> bool {
    let Ok(file) = host::open_regular(&data.lock()) else { return false };
    matches!(host::try_lock(&file, true), Ok(false))
}

fn holder(data: &DataDir) -> String {
    let written = host::read_small(&data.lock()).ok().and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
    if let Some(holder) = written {
        return format!("{}, started {}", host::describe(holder.pid), crate::text::escape_control(&holder.started));
    }
    let holder = host::open_regular(&data.lock()).ok().and_then(|file| host::lock_holder(&file));
    holder.map_or_else(|| "another process".into(), host::describe)
}
