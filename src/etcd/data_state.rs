//! What is in the child's data directory, before anything is decided about it.
//!
//! Only what is not there counts as not there: what cannot be read is an error, because data that is taken for gone would be
//! replaced by an empty cluster.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::boltdb::database::Database;
use crate::boltdb::page::ReadError;
use crate::boltdb::wal::{self, SegmentState};
use crate::datadir::DataDir;
use crate::durable::{DirError, DirHandle, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::launch::RestartCheck;
use crate::plan::command::Invocation;
use crate::plan::start::DataState;

/// Buckets with data of users; the others are filled at every first start.
const USER_BUCKETS: [&[u8]; 4] = [b"key", b"lease", b"authUsers", b"authRoles"];

/// Something is there and cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataUnreadable {
    /// The system does not give it.
    #[error("cannot read {}, so nothing can be said about the etcd data there", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// It is not what it should be, or not followed.
    #[error("nothing can be said about the etcd data in this data directory")]
    Held(#[source] DirError),
}

impl From<DirError> for DataUnreadable {
    fn from(error: DirError) -> Self {
        match error {
            DirError::System(WriteError { path, source, .. }) => Self::Io { path, source },
            error => Self::Held(error),
        }
    }
}

impl Diagnostic for DataUnreadable {
    fn code(&self) -> Code {
        match self {
            Self::Io { .. } => Code::DataUnreadable,
            Self::Held(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Io { path, source } if source.kind() == ErrorKind::PermissionDenied => {
                Some(format!("run quorate as the user that owns it: ls -ld {}", path.display()))
            }
            Self::Io { .. } => Some("check the kernel log (dmesg) for disk errors; nothing was changed".into()),
            Self::Held(error) => error.next_step(),
        }
    }
}

/// What must hold before an etcd that was ready is started again: its data is still there.
pub(crate) fn before_restart(data: &DataDir, invocation: &Invocation) -> RestartCheck {
    let (data, invocation) = (data.clone(), invocation.clone());
    RestartCheck(Arc::new(move || match data_state(&data)? {
        DataState::Present => Ok(()),
        DataState::Absent | DataState::MissingWal | DataState::NeverInitialized => {
            Err(DataMissing { etcd: data.etcd(), invocation: invocation.clone() }.into())
        }
    }))
}

/// The data of an etcd that ran is not there any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "etcd exited, and its data in {} is gone; it is not started again, because it would begin an empty cluster",
    etcd.display()
)]
struct DataMissing {
    etcd: PathBuf,
    invocation: Invocation,
}

impl Diagnostic for DataMissing {
    fn code(&self) -> Code {
        Code::DataMissing
    }

    fn next_step(&self) -> Option<String> {
        Some(format!(
            "is its disk mounted? If the data is lost, restore the newest snapshot: {}",
            self.invocation.restore("latest")
        ))
    }
}

/// The log is decisive: without it, etcd would start a new cluster over any other files.
pub(crate) fn data_state(data: &DataDir) -> Result<DataState, DataUnreadable> {
    let Some(member) = data.open_member()? else { return Ok(DataState::Absent) };
    if let Some(log) = member.open_dir("wal")? {
        match named(&log, "wal")?.as_slice() {
            [] => {}
            [only] => match segment(&log, only)? {
                Some(SegmentState::Uncommitted) | None => {}
                Some(SegmentState::Committed) => return Ok(DataState::Present),
                Some(SegmentState::Blank) => return Ok(DataState::MissingWal),
            },
            // A second segment begins after thousands of commits.
            _ => return Ok(DataState::Present),
        }
    }
    let Some(snap) = member.open_dir("snap")? else { return Ok(DataState::NeverInitialized) };
    let holds_nothing = named(&snap, "snap")?.is_empty() && !has_user_data(&snap)?;
    Ok(if holds_nothing { DataState::NeverInitialized } else { DataState::MissingWal })
}

/// What the only segment of a log says; `None` if it was removed meanwhile.
fn segment(log: &DirHandle, name: &OsStr) -> Result<Option<SegmentState>, DataUnreadable> {
    let path = log.path().join(name);
    let unreadable = |source| DataUnreadable::Io { path: path.clone(), source };
    let Some(file) = log.file(name)? else { return Ok(None) };
    let size = file.metadata().map_err(unreadable)?.len();
    if size > wal::MAX_SEGMENT_BYTES {
        return Err(DirError::Large { path, size, limit: wal::MAX_SEGMENT_BYTES }.into());
    }
    match wal::segment_state(file) {
        Ok(segment) => Ok(Some(segment)),
        // Damage is etcd's to judge, and it refuses.
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Some(SegmentState::Committed)),
        Err(source) => Err(unreadable(source)),
    }
}

fn has_user_data(snap: &DirHandle) -> Result<bool, DataUnreadable> {
    let unreadable = |source| DataUnreadable::Io { path: snap.path().join("db"), source };
    let Some(file) = snap.file("db")? else { return Ok(false) };
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Ok(false);
    }
    match Database::open_newest(&file).and_then(|database| database.any_bucket_holds(&USER_BUCKETS)) {
        Ok(holds) => Ok(holds),
        // Damaged is not empty.
        Err(ReadError::Damaged(_)) => Ok(true),
        Err(ReadError::Io { source, .. }) => Err(unreadable(source)),
        Err(ReadError::Cancelled) => Err(unreadable(io::ErrorKind::Interrupted.into())),
    }
}

/// The names in `dir` that end so.
fn named(dir: &DirHandle, extension: &str) -> Result<Vec<OsString>, DataUnreadable> {
    let mut names = dir.names()?;
    names.retain(|name| Path::new(name).extension().is_some_and(|found| found == extension));
    Ok(names)
}
