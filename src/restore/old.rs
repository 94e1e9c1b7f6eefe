//! The data directories that were set aside: which there are, how large they are, and which of them go.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exchange::Paths;
use crate::datadir::DataDir;
use crate::durable::{self, WriteError};
use crate::plan::restore::outdated;
use crate::plan::start::ClusterRecord;

/// What is remembered of the cluster that the data are of, within the directory itself.
const RECORD: &str = "cluster.json";

/// Data that were set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Where.
    pub path: PathBuf,
    /// When, in seconds since 1970.
    pub second: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// All of them, the newest first.
#[must_use]
pub fn list(data: &DataDir) -> Vec<Aside> {
    let beside = Paths::of(data, 0).current;
    let mut dirs = vec![data.db()];
    dirs.extend(beside.parent().map(Path::to_path_buf).filter(|dir| *dir != data.db()));
    let mut found: Vec<Aside> = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let second = name.strip_prefix("etcd-old-").or_else(|| name.strip_prefix("member-old-"))?;
            Some(Aside { second: second.parse().ok()?, bytes: size(&entry.path()), path: entry.path() })
        })
        .collect();
    found.sort_by_key(|aside| std::cmp::Reverse(aside.second));
    found
}

/// True if there is a database in a directory that is, or was, etcd's own or its `member`: only then is it worth going back to.
#[must_use]
pub fn holds_data(dir: &Path) -> bool {
    let is_database = |path: &str| fs::symlink_metadata(dir.join(path)).is_ok_and(|found| found.is_file());
    is_database("member/snap/db") || is_database("snap/db")
}

/// Bytes that all in it takes on the disk.
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match fs::symlink_metadata(entry.path()) {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Removes all but the newest `keep`. Gives what was removed.
///
/// # Errors
/// The first one that cannot be removed.
pub fn rotate(data: &DataDir, keep: usize) -> Result<Vec<Aside>, WriteError> {
    let aside = list(data).into_iter().map(|aside| (aside.second, aside)).collect();
    let mut removed = Vec::new();
    for aside in outdated(aside, keep) {
        durable::remove_dir_all(&aside.path)?;
        removed.push(aside);
    }
    Ok(removed)
}

/// Notes in data that were set aside which cluster they are of.
///
/// # Errors
/// If it cannot be written.
pub fn label(dir: &Path, record: &ClusterRecord) -> Result<(), WriteError> {
    let mut text = serde_json::to_vec_pretty(record).unwrap_or_default();
    text.push(b'\n');
    durable::write_file(&dir.join(RECORD), &text, durable::PRIVATE)
}

/// What [`label`] noted.
#[must_use]
pub fn labelled(dir: &Path) -> Option<ClusterRecord> {
    serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()
}

/// Removes what [`label`] noted: the data are in use again.
///
/// # Errors
/// If it cannot be removed.
pub fn unlabel(dir: &Path) -> Result<(), WriteError> {
    durable::remove_file(&dir.join(RECORD)).map(drop)
}
