//! Retired data directories: lists, measures, marks and removes them.
//!
//! They belong to etcd's user, and may be in a directory of that user, so all operations use open directories, and
//! removal is by descriptor.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::record::{ClusterRecord, RecordError};
use crate::datadir::DataDir;
use crate::durable::{self, DirError, DirHandle, OnPath as _};
use crate::faults;
use crate::plan::restore::outdated;
use crate::recovery::workspace::{RecoveryDirs, RetiredHandle};

/// The record of the data's cluster, in the directory itself.
const RECORD: &str = "cluster.json";
const MAX_RECORD_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredData {
    pub path: PathBuf,
    /// The time in its name, in seconds since 1970.
    pub second: u64,
    pub bytes: u64,
}

/// All of them, the newest first.
#[must_use]
pub fn list(data: &DataDir) -> Vec<RetiredData> {
    let mut found: Vec<RetiredData> = retired_dirs(data).iter().flat_map(|(dir, path)| in_dir(dir, path)).collect();
    found.sort_by_key(|aside| std::cmp::Reverse(aside.second));
    found
}

/// True if a data directory (or `member`) of etcd has no database, so it is useless for an undo. A database that is not
/// as expected counts, so that opening it is refused later.
fn lacks_database(dir: &DirHandle) -> bool {
    let below = |dir: &DirHandle, name: &str| match dir.stat(name) {
        Ok(None) => Some(None),
        Ok(Some(found)) if found.is_dir() => dir.open_dir(name).ok().flatten().map(Some),
        _ => None,
    };
    let Some(member) = below(dir, "member") else { return false };
    match below(member.as_ref().unwrap_or(dir), "snap") {
        Some(Some(snap)) => matches!(snap.stat("db"), Ok(None)),
        Some(None) => true,
        None => false,
    }
}

/// True if the data in use have a database.
#[must_use]
pub fn is_in_use(data: &DataDir) -> bool {
    data.open_member().ok().flatten().is_some_and(|member| !lacks_database(&member))
}

/// The directories with retired data: `db`, and the one in which `member` is renamed.
fn retired_dirs(data: &DataDir) -> Vec<(DirHandle, PathBuf)> {
    let inside = RecoveryDirs::of(data).ok().flatten().filter(|place| place.is_inside);
    let inside = inside.map(|place| (place.path().to_path_buf(), place.dir)).map(|(path, dir)| (dir, path));
    data.open_db().ok().flatten().map(|db| (db, data.db())).into_iter().chain(inside).collect()
}

fn in_dir(dir: &DirHandle, path: &Path) -> Vec<RetiredData> {
    let names = dir.names().unwrap_or_default();
    let aside = |name: &std::ffi::OsString| {
        let text = name.to_str()?;
        let second = text.strip_prefix("etcd-old-").or_else(|| text.strip_prefix("member-old-"))?.parse().ok()?;
        // Links are ignored.
        let held = dir.stat(name).ok()?.filter(std::fs::Metadata::is_dir).and_then(|_| dir.open_dir(name).ok()?)?;
        Some(RetiredData { path: path.join(name), second, bytes: held.size() })
    };
    names.iter().filter_map(aside).collect()
}

/// The newest retired data next to the data in use.
pub fn newest(data: &DataDir) -> Result<Option<(RetiredData, RetiredHandle)>, DirError> {
    let Some(place) = RecoveryDirs::of(data)? else { return Ok(None) };
    let aside = in_dir(&place.dir, place.path())
        .into_iter()
        .filter(|aside| aside.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(place.aside())));
    // Retired data without a database is useless.
    let holds = |aside: &RetiredData| {
        let name = aside.path.file_name().unwrap_or_default();
        place.dir.open_dir(name).ok().flatten().is_none_or(|dir| !lacks_database(&dir))
    };
    let Some(aside) = aside.filter(holds).max_by_key(|aside| aside.second) else { return Ok(None) };
    let name = aside.path.file_name().unwrap_or_default();
    Ok(RetiredHandle::of(&place, name)?.map(|held| (aside, held)))
}

/// Removes all but the newest `keep`. Returns the removed ones.
pub fn delete_oldest(data: &DataDir, keep: usize) -> Result<Vec<RetiredData>, DirError> {
    let dirs = retired_dirs(data);
    let found = dirs.iter().flat_map(|(dir, path)| {
        let aside = in_dir(dir, path);
        aside.into_iter().map(move |aside| (aside.second, (dir, aside)))
    });
    // Directories without data do not count for `keep`.
    let is_full = |(dir, aside): &(&DirHandle, RetiredData)| {
        let name = aside.path.file_name().unwrap_or_default();
        dir.open_dir(name).ok().flatten().is_none_or(|aside| !lacks_database(&aside))
    };
    let (full, empty): (Vec<_>, Vec<_>) = found.partition(|(_, aside)| is_full(aside));
    let mut removed = Vec::new();
    for (dir, aside) in outdated(full, keep).into_iter().chain(outdated(empty, keep)) {
        faults::point("restore::rotate").on("remove", &aside.path)?;
        dir.remove_all(aside.path.file_name().unwrap_or_default())?;
        removed.push(aside);
    }
    Ok(removed)
}

/// Writes the record of the cluster into retired data.
pub fn write_record(dir: &DirHandle, record: &ClusterRecord) -> Result<(), DirError> {
    Ok(dir.write_file(RECORD, &record.to_json(), durable::PRIVATE_FILE)?)
}

pub fn read_record(dir: &DirHandle) -> Result<Option<ClusterRecord>, DirError> {
    match dir.read(RECORD, MAX_RECORD_BYTES)?.map(|text| ClusterRecord::parse(&text)) {
        // It says what a start must not do.
        Some(Err(error @ RecordError::NewerVersion { .. })) => {
            Err(std::io::Error::other(error)).on("read", &dir.path().join(RECORD))?
        }
        found => Ok(found.and_then(Result::ok)),
    }
}

/// Removes the record: the data is in use again.
pub fn remove_record(dir: &DirHandle) -> Result<(), DirError> {
    Ok(dir.remove_file(RECORD).map(drop)?)
}
