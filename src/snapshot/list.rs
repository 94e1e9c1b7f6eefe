//! The snapshots of a directory, with what is known of each without looking into it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::dir;
use super::manifest::{self, Manifest};
use super::name;
use crate::boltdb::database::Database;
use crate::boltdb::keyspace;
use crate::clock;
use crate::durable::WriteError;

/// Threads that read manifests.
const MOST_THREADS: usize = 4;
/// Manifests that are not worth another thread.
const FEW: usize = 256;

/// What is known of a snapshot's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Verified, and the same since.
    Good,
    /// Never verified.
    Unverified,
    /// Verified once, and another size or time of change since.
    Changed,
    /// Verified, and damaged.
    Corrupt,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unverified => "unverified",
            Self::Changed => "changed",
            Self::Corrupt => "corrupt",
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// File name.
    pub name: String,
    /// Bytes as stored.
    pub size: u64,
    /// Seconds since 1970: from the manifest, else the name, else the file's own time.
    pub created: u64,
    /// What is known of its health.
    pub status: Status,
    /// What was written down when it was taken.
    pub manifest: Option<Manifest>,
}

/// All of `dir`, the oldest first.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Listed>, WriteError> {
    let paths = dir::snapshots(dir)?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    let mut all: Vec<Listed> = std::thread::scope(|scope| {
        let share = paths.len().div_ceil(threads).max(FEW);
        let read = |paths: &[PathBuf]| paths.iter().filter_map(|path| one(dir, path.file_name()?)).collect::<Vec<_>>();
        let shares: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || read(paths))).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
    });
    all.sort_by(|left, right| (left.created, &left.name).cmp(&(right.created, &right.name)));
    Ok(all)
}

/// The revision of a snapshot that is not packed, from its head and the last page of its keys: for one without a manifest. Nothing
/// is verified.
#[must_use]
pub fn peek(path: &Path) -> Option<i64> {
    let file = File::open(path).ok()?;
    let last = Database::open_newest(&file).ok()?.last_key(b"key").ok()?;
    last.map_or(Some(1), |key| keyspace::revision(&key).ok().map(|(revision, _)| revision.main))
}

/// What is known of the snapshot `name` in `dir`; nothing if there is none, or none any more.
#[must_use]
pub fn one(dir: &Path, name: &OsStr) -> Option<Listed> {
    let found = fs::metadata(dir.join(name)).ok().filter(fs::Metadata::is_file)?;
    let name = name.to_string_lossy().into_owned();
    let manifest = Manifest::read(dir, &name);
    Some(Listed {
        size: found.len(),
        created: created(manifest.as_ref(), &name, &found),
        status: status(manifest.as_ref(), &found),
        manifest,
        name,
    })
}

fn created(manifest: Option<&Manifest>, name: &str, found: &fs::Metadata) -> u64 {
    let written = manifest.and_then(|manifest| clock::parse_rfc3339(&manifest.created)).map(clock::unix_seconds);
    let modified = || found.modified().map(clock::unix_seconds).unwrap_or_default();
    written.or_else(|| name::taken_at(name)).unwrap_or_else(modified)
}

fn status(manifest: Option<&Manifest>, found: &fs::Metadata) -> Status {
    let Some(verification) = manifest.and_then(|manifest| manifest.verification.as_ref()) else {
        return Status::Unverified;
    };
    if verification.size != found.len() || verification.modified != manifest::modified(found) {
        return Status::Changed;
    }
    if verification.status == "good" { Status::Good } else { Status::Corrupt }
}
