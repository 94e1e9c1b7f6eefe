//! The snapshots of a directory, with the facts known without reading them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::boltdb::database::{self, Database};
use crate::boltdb::keyspace;
use crate::clock;
use crate::compression::Compression;
use crate::durable::WriteError;
use crate::snapshot::dir;
use crate::snapshot::manifest::{self, Manifest, ManifestState};

const MAX_THREADS: usize = 4;
/// The number of manifests below which no thread is used.
const FEW: usize = 256;

/// The state of a snapshot, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    Good,
    Unverified,
    /// Verified once, but its size or modification time has changed since.
    Changed,
    Corrupt,
    /// Shorter than its meta page says, or without one: probably an unfinished copy.
    Partial,
    /// Its manifest cannot be read: verifications and holds are unknown.
    Unreadable,
}

impl SnapshotStatus {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unverified => "unverified",
            Self::Changed => "changed",
            Self::Corrupt => "corrupt",
            Self::Partial => "partial",
            Self::Unreadable => "unreadable",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub size: u64,
    /// Seconds since 1970: from the manifest, else the name, else the modification time.
    pub created: u64,
    /// Its state, as far as known.
    pub status: SnapshotStatus,
    pub manifest: Option<Manifest>,
}

impl Listed {
    /// A snapshot of which only the manifest is known.
    #[must_use]
    pub fn of_manifest(name: String, manifest: Manifest) -> Self {
        let created = clock::parse_rfc3339(&manifest.created).map(clock::unix_seconds).unwrap_or_default();
        Self { name, size: manifest.size, created, status: SnapshotStatus::Unverified, manifest: Some(manifest) }
    }
}

/// All of `dir`, the oldest first.
pub fn list(dir: &Path) -> Result<Vec<Listed>, WriteError> {
    let paths = dir::snapshots(dir)?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS));
    let mut all: Vec<Listed> = std::thread::scope(|scope| {
        let share = paths.len().div_ceil(threads).max(FEW);
        let read = |paths: &[PathBuf]| paths.iter().filter_map(|path| one(dir, path.file_name()?)).collect::<Vec<_>>();
        let shares: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || read(paths))).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
    });
    all.sort_by(|left, right| (left.created, &left.name).cmp(&(right.created, &right.name)));
    Ok(all)
}

/// The revision of an uncompressed snapshot without a manifest, from its meta page and the last page of its keys.
/// Nothing is verified.
#[must_use]
pub fn read_details(path: &Path) -> Option<i64> {
    let file = File::open(path).ok()?;
    let last = Database::open_newest(&file).ok()?.last_key(b"key").ok()?;
    last.map_or(Some(1), |key| keyspace::revision(&key).ok().map(|(revision, _)| revision.main))
}

/// The snapshot `name` in `dir`; `None` if it does not exist.
#[must_use]
pub fn one(dir: &Path, name: &OsStr) -> Option<Listed> {
    let found = fs::metadata(dir.join(name)).ok().filter(fs::Metadata::is_file)?;
    let name = name.to_string_lossy().into_owned();
    let (manifest, status) = match Manifest::find(dir, &name) {
        ManifestState::Read(manifest) => (Some(*manifest), None),
        ManifestState::Absent => (None, None),
        ManifestState::Unreadable => (None, Some(SnapshotStatus::Unreadable)),
    };
    let status = status.or_else(|| status_of(manifest.as_ref(), &found));
    let status = status.unwrap_or_else(|| {
        if is_partial(&dir.join(&name)) { SnapshotStatus::Partial } else { SnapshotStatus::Unverified }
    });
    Some(Listed { size: found.len(), created: created(manifest.as_ref(), &name, &found), status, manifest, name })
}

/// The snapshot at `path`.
#[must_use]
pub fn at(path: &Path) -> Option<Listed> {
    one(path.parent()?, path.file_name()?)
}

fn created(manifest: Option<&Manifest>, name: &str, found: &fs::Metadata) -> u64 {
    let written = manifest.and_then(|manifest| clock::parse_rfc3339(&manifest.created)).map(clock::unix_seconds);
    let modified = || found.modified().map(clock::unix_seconds).unwrap_or_default();
    written.or_else(|| crate::plan::snapshot_name::taken_at(name)).unwrap_or_else(modified)
}

/// The result of the last verification; `None` if there was none.
fn status_of(manifest: Option<&Manifest>, found: &fs::Metadata) -> Option<SnapshotStatus> {
    let verification = manifest.and_then(|manifest| manifest.verification.as_ref())?;
    Some(if verification.size != found.len() || verification.modified != manifest::modified(found) {
        SnapshotStatus::Changed
    } else if verification.status == "good" {
        SnapshotStatus::Good
    } else {
        SnapshotStatus::Corrupt
    })
}

/// Whether it is cut off, judging by its size and meta page; unknown for archives.
fn is_partial(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let Ok(Compression::Raw) = Compression::of_file(&file) else { return false };
    let length = file.metadata().map_or(0, |found| found.len());
    database::newest_meta_page(&file).map_or(true, |head| head.length().is_none_or(|needed| needed > length))
}
