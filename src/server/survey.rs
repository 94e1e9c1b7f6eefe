//! What is in the child's data directory, before anything is decided about it.
//!
//! Only what is not there counts as not there: what cannot be read is an error, because data that is taken for gone would be
//! replaced by an empty cluster.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::boltdb::database::Database;
use crate::boltdb::page::ReadError;
use crate::boltdb::wal::{self, Segment};
use crate::datadir::DataDir;
use crate::error::{Exit, Explained};
use crate::etcd::supervisor::RestartCheck;
use crate::host;
use crate::plan::command::Invocation;
use crate::plan::start::DataState;

/// Buckets of etcd's that hold what users wrote; the others get something at every first start.
const PRECIOUS: [&[u8]; 4] = [b"key", b"lease", b"authUsers", b"authRoles"];

/// Something is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, so nothing can be said about the etcd data there", path.display())]
pub(super) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

impl Explained for Unreadable {
    fn next(&self) -> Option<String> {
        Some(match self.source.kind() {
            ErrorKind::PermissionDenied => {
                format!("run quorate as the user that owns it: ls -ld {}", self.path.display())
            }
            _ => "see dmesg for what the disk says; nothing was changed".into(),
        })
    }
}

/// What must hold before an etcd that was ready is started again: its data is still there.
pub(super) fn before_restart(data: &DataDir, invocation: &Invocation) -> RestartCheck {
    let (data, invocation) = (data.clone(), invocation.clone());
    RestartCheck(Arc::new(move || match data_state(&data)? {
        DataState::Present => Ok(()),
        DataState::Absent | DataState::Torn | DataState::NeverBegun => {
            Err(DataGone { etcd: data.etcd(), invocation: invocation.clone() }.into())
        }
    }))
}

/// The data of an etcd that ran is not there any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "etcd exited, and its data in {} is gone; it is not started again, because it would begin an empty cluster",
    etcd.display()
)]
struct DataGone {
    etcd: PathBuf,
    invocation: Invocation,
}

impl Explained for DataGone {
    fn exit(&self) -> Exit {
        Exit::Refused
    }

    fn next(&self) -> Option<String> {
        Some(format!(
            "is its disk mounted? If the data is lost, restore the newest snapshot: {}",
            self.invocation.restore("latest")
        ))
    }
}

/// The log is what counts: without it, etcd would begin anew over whatever else is there.
pub(super) fn data_state(data: &DataDir) -> Result<DataState, Unreadable> {
    let member = data.etcd_member();
    if absent_or(&member, fs::metadata(&member).map(drop))?.is_none() {
        return Ok(DataState::Absent);
    }
    match files(&member.join("wal"), "wal")?.as_slice() {
        [] => {}
        [only] => match host::open_regular(only).and_then(wal::read) {
            Ok(Segment::Uncommitted) => {}
            Ok(Segment::Committed) => return Ok(DataState::Present),
            Ok(Segment::Blank) => return Ok(DataState::Torn),
            // Damage is etcd's to judge, and it refuses.
            Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(DataState::Present),
            Err(source) => return Err(Unreadable { path: only.clone(), source }),
        },
        // A second segment begins after thousands of commits.
        _ => return Ok(DataState::Present),
    }
    let holds_nothing = files(&member.join("snap"), "snap")?.is_empty() && !holds_something(&data.etcd_bolt())?;
    Ok(if holds_nothing { DataState::NeverBegun } else { DataState::Torn })
}

fn holds_something(bolt: &Path) -> Result<bool, Unreadable> {
    let size = absent_or(bolt, fs::metadata(bolt).map(|found| found.len()))?;
    if size.is_none_or(|size| size == 0) {
        return Ok(false);
    }
    let unreadable = |source| Unreadable { path: bolt.to_path_buf(), source };
    let file = host::open_regular(bolt).map_err(unreadable)?;
    match Database::open_newest(&file).and_then(|database| database.any_bucket_holds(&PRECIOUS)) {
        Ok(holds) => Ok(holds),
        // Damaged is not empty.
        Err(ReadError::Damaged(_)) => Ok(true),
        Err(ReadError::Io { source, .. }) => Err(unreadable(source)),
    }
}

/// The files in `dir` that end so; none if there is no such directory.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, Unreadable> {
    let list = || fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut found = absent_or(dir, list())?.unwrap_or_default();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(found)
}

fn absent_or<T>(path: &Path, looked: io::Result<T>) -> Result<Option<T>, Unreadable> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unreadable { path: path.to_path_buf(), source }),
    }
}
