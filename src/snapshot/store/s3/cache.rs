//! A cache of manifests and the index of a bucket, by key and `ETag`.
//!
//! A local file, which may be lost at any time.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::durable::{self, PRIVATE_DIR, PRIVATE_FILE};
use crate::snapshot::store::s3::findings::Index;

const VERSION: u32 = 1;

/// By key: `ETag` and content.
#[derive(Debug, Default)]
pub(super) struct Cache {
    path: Option<PathBuf>,
    known: BTreeMap<String, (String, Value)>,
    /// All findings that this node has read or made about existing snapshots.
    index: Index,
    is_changed: bool,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    known: BTreeMap<String, (String, Value)>,
    #[serde(default)]
    index: Index,
}

impl Cache {
    /// Reads it; without a path nothing is stored.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let read = path.and_then(|path| std::fs::read(path).ok());
        let file = read.and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
        let (known, index) =
            file.filter(|file| file.version == VERSION).map(|file| (file.known, file.index)).unwrap_or_default();
        Self { path: path.map(Path::to_path_buf), known, index, is_changed: false }
    }

    /// The cached content of an object with this `ETag`.
    pub(super) fn get(&self, key: &str, etag: &str) -> Option<&Value> {
        self.known.get(key).filter(|(known, _)| known == etag).map(|(_, value)| value)
    }

    pub(super) fn put(&mut self, key: String, etag: String, value: Value) {
        self.known.insert(key, (etag, value));
        self.is_changed = true;
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// What is known of findings now.
    pub(super) fn remember(&mut self, index: Index) {
        self.is_changed |= self.index != index;
        self.index = index;
    }

    /// Drops entries of objects that do not exist any more.
    pub(super) fn forget(&mut self, present: &HashSet<&str>) {
        let before = self.known.len();
        self.known.retain(|key, _| present.contains(key.as_str()));
        self.is_changed |= self.known.len() != before;
    }

    /// Stores it. A failure only costs time.
    pub(super) fn save(self) {
        let Some(path) = self.path.filter(|_| self.is_changed) else { return };
        let file = File { version: VERSION, known: self.known, index: self.index };
        let bytes = serde_json::to_vec(&file).unwrap_or_default();
        let written = path.parent().map_or(Ok(false), |dir| durable::create_dir(dir, PRIVATE_DIR));
        if let Err(error) = written.and_then(|_| durable::write_file(&path, &bytes, PRIVATE_FILE)) {
            tracing::debug!(%error, "cannot write the cache of the bucket");
        }
    }
}
