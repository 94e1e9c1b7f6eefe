//! The upload queue, stored in a file.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::error::ErrorReport;
use crate::log_failure;
use crate::server::snapshots::metrics::{SaveLabels, histogram};
use crate::snapshot::manifest::{self, Manifest};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingUploadEntry {
    pub name: String,
    pub dir: PathBuf,
    /// Options for this upload, by name; includes secrets.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    /// RFC 3339.
    pub since: String,
    #[serde(default)]
    pub failures: u32,
    #[serde(default)]
    pub last_failure: Option<String>,
    #[serde(default)]
    pub(crate) begun: Vec<MultipartUpload>,
    #[serde(skip)]
    pub(crate) due: Option<Instant>,
}

impl PendingUploadEntry {
    /// True if the snapshot was deleted. A directory without manifests may be an unmounted disk.
    pub(crate) fn is_gone(&self) -> bool {
        let path = self.dir.join(&self.name);
        let is_missing = std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        is_missing && self.dir.join(manifest::DIR).is_dir()
    }

    /// True for the same snapshot, regardless of its progress.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.dir == other.dir
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipartUpload {
    pub bucket: String,
    pub key: String,
    pub id: String,
}

/// The newest one that is in object storage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Last {
    pub url: String,
    /// When it was uploaded; RFC 3339.
    pub at: String,
    pub manifest: Manifest,
}

impl Last {
    /// True if it was dated by a wrong clock.
    fn is_ahead(&self) -> bool {
        clock::parse_rfc3339(&self.manifest.created).is_none_or(|created| created > clock::now())
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QueueFile {
    pub(crate) pending: Vec<PendingUploadEntry>,
    pub(crate) last: Option<Last>,
    /// Multipart uploads of snapshots that are not pending any more, which could not be aborted yet.
    pub(crate) left: Vec<MultipartUpload>,
    /// Uploaded with `etcd-s3-only`, with a local copy still to delete: directory and name.
    pub(crate) unwanted: Vec<(PathBuf, String)>,
}

impl QueueFile {
    /// Removes a pending snapshot; its multipart uploads stay recorded until they are aborted.
    pub(crate) fn complete(&mut self, over: &PendingUploadEntry) {
        for entry in self.pending.extract_if(.., |entry| entry.is(over)) {
            self.left.extend(entry.begun);
        }
    }

    /// Records an uploaded one as the newest, unless it waited for long or was dated ahead by a wrong clock.
    pub(crate) fn uploaded(&mut self, last: Last) {
        if self.last.as_ref().is_none_or(|known| known.is_ahead() || known.manifest.created <= last.manifest.created) {
            self.last = Some(last);
        }
    }
}

/// The outcome of the first attempt, for the waiting client.
pub type Outcome = Result<String, ErrorReport>;

/// The clients that wait for the first attempt, by directory and name.
type Waiting = HashMap<(PathBuf, String), Vec<oneshot::Sender<Outcome>>>;

#[derive(Debug)]
pub struct Uploads {
    file: Mutex<QueueFile>,
    writing: Mutex<()>,
    waiting: Mutex<Waiting>,
    pub(crate) wake: Notify,
    /// Bytes done and total of the present upload.
    pub(crate) progress: (Arc<AtomicU64>, AtomicU64),
    under_way: Mutex<Option<(PathBuf, String)>>,
    /// The duration of uploads, by result.
    pub seconds: Family<SaveLabels, Histogram>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            file: Mutex::default(),
            writing: Mutex::default(),
            waiting: Mutex::default(),
            wake: Notify::new(),
            progress: (Arc::default(), AtomicU64::new(0)),
            under_way: Mutex::default(),
            seconds: Family::new_with_constructor(histogram),
        }
    }
}

impl Uploads {
    /// Loads the file. An unreadable file is renamed, not lost.
    #[must_use]
    pub fn resumed(data: &DataDir) -> Self {
        let path = data.uploads();
        let uploads = Self::default();
        match std::fs::read(&path).map(|bytes| serde_json::from_slice::<QueueFile>(&bytes)) {
            Ok(Ok(file)) => *uploads.file() = file,
            Ok(Err(error)) => {
                let kept_as = path.with_extension("unreadable");
                tracing::error!(%error, kept_as = %kept_as.display(), "the upload queue is unreadable; renamed it");
                let _ = durable::rename(&path, &kept_as);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, path = %path.display(), "cannot read the upload queue"),
        }
        uploads
    }

    fn file(&self) -> MutexGuard<'_, QueueFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn pending(&self) -> Vec<PendingUploadEntry> {
        self.file().pending.clone()
    }

    /// The pending snapshots that still exist; deleted ones are removed at the next attempt.
    #[must_use]
    pub fn present(&self) -> Vec<PendingUploadEntry> {
        self.pending().into_iter().filter(|pending| !pending.is_gone()).collect()
    }

    /// True if there are multipart uploads to abort.
    pub(crate) fn has_stale_uploads(&self) -> bool {
        let file = self.file();
        !file.left.is_empty() || file.pending.iter().any(|pending| !pending.begun.is_empty())
    }

    /// The multipart uploads to abort in this bucket.
    pub(crate) fn stale_uploads_in(&self, bucket: &str) -> Vec<MultipartUpload> {
        let file = self.file();
        let all = file.pending.iter().flat_map(|pending| &pending.begun).chain(&file.left);
        all.filter(|begun| begun.bucket == bucket).cloned().collect()
    }

    /// The local copies still to delete.
    pub(crate) fn local_copies_to_delete(&self) -> Vec<(PathBuf, String)> {
        self.file().unwanted.clone()
    }

    #[must_use]
    pub fn last(&self) -> Option<Last> {
        self.file().last.clone().filter(|last| !last.is_ahead())
    }

    /// The progress of a snapshot that a client waits for: bytes done, and total.
    #[must_use]
    pub fn progress_of(&self, dir: &Path, name: &str) -> (&'static str, u64, u64) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match &*under_way {
            Some(other) if *other != (dir.to_path_buf(), name.to_owned()) => {
                ("saved; waiting for another upload to end", 0, 0)
            }
            _ => ("uploading", self.progress.0.load(Ordering::Relaxed), self.progress.1.load(Ordering::Relaxed)),
        }
    }

    /// Records which one is being uploaded.
    pub(crate) fn begin(&self, pending: Option<&PendingUploadEntry>) {
        let key = pending.map(|pending| (pending.dir.clone(), pending.name.clone()));
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = key;
        self.progress.0.store(0, Ordering::Relaxed);
        self.progress.1.store(0, Ordering::Relaxed);
    }

    /// Changes the queue: on disk first, then in memory. If writing fails, nothing changes.
    fn change(&self, data: &DataDir, change: impl FnOnce(&mut QueueFile)) -> Result<(), WriteError> {
        tokio::task::block_in_place(|| {
            // An older state must not overwrite a newer one.
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let before = self.file().clone();
            let mut after = before.clone();
            change(&mut after);
            let written = Self::write(data, &after);
            match &written {
                Ok(()) => *self.file() = after,
                // Perhaps only the fsync failed, with the new state in place.
                Err(_) => drop(Self::write(data, &before)),
            }
            written
        })
    }

    fn write(data: &DataDir, file: &QueueFile) -> Result<(), WriteError> {
        durable::write_file(&data.uploads(), &serde_json::to_vec_pretty(file).unwrap_or_default(), PRIVATE_FILE)
    }

    /// Records an event, in memory even if writing fails, which is logged.
    pub(crate) fn record(&self, data: &DataDir, change: impl FnOnce(&mut QueueFile)) {
        let written = tokio::task::block_in_place(|| {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let after = {
                let mut file = self.file();
                change(&mut file);
                file.clone()
            };
            Self::write(data, &after)
        });
        if let Err(error) = written {
            log_failure!(error, ErrorReport::of(&error), "cannot write the upload queue");
        }
    }

    /// Adds a snapshot to the queue. Returns a receiver for the outcome of the first attempt.
    pub fn submit(
        &self,
        data: &DataDir,
        dir: &Path,
        name: &str,
        options: BTreeMap<String, String>,
    ) -> Result<oneshot::Receiver<Outcome>, WriteError> {
        let pending = PendingUploadEntry {
            name: name.to_owned(),
            dir: dir.to_path_buf(),
            options,
            since: clock::rfc3339(clock::now()),
            failures: 0,
            last_failure: None,
            begun: Vec::new(),
            due: None,
        };
        let (sender, receiver) = oneshot::channel();
        let key = (pending.dir.clone(), pending.name.clone());
        // Before it is visible: an attempt may begin at once.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().push(sender);
        if let Err(error) = self.change(data, |file| file.pending.push(pending)) {
            drop(receiver);
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(senders) = waiting.get_mut(&key) {
                senders.retain(|sender| !sender.is_closed());
            }
            waiting.retain(|_, senders| !senders.is_empty());
            return Err(error);
        }
        self.wake.notify_one();
        Ok(receiver)
    }

    pub(crate) fn is_waited_for(&self, pending: &PendingUploadEntry) -> bool {
        let key = (pending.dir.clone(), pending.name.clone());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    pub(crate) fn answer_waiters(&self, pending: &PendingUploadEntry, outcome: &Outcome) {
        let key = (pending.dir.clone(), pending.name.clone());
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        for sender in waiting.into_iter().flatten() {
            let _ = sender.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it fails, nothing is queued, in memory, on disk or among the waiting clients.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_recorded_is_not_queued() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let submit = |uploads: &Uploads, name: &str| uploads.submit(&data, dir.path(), name, BTreeMap::new());
        let uploads = Uploads::default();
        assert!(submit(&uploads, "early").is_err(), "there is no server directory yet");
        assert!(uploads.pending().is_empty() && uploads.waiting.lock().unwrap().is_empty());

        durable::create_dir(&data.server(), 0o700).unwrap();
        let waiting = submit(&uploads, "one").unwrap();
        // A directory cannot be replaced by a file.
        durable::remove_file(&data.uploads()).unwrap();
        durable::create_dir(&data.uploads(), 0o700).unwrap();
        assert!(submit(&uploads, "two").is_err());
        let pending = uploads.pending();
        assert_eq!(pending.iter().map(|pending| pending.name.as_str()).collect::<Vec<_>>(), ["one"]);
        assert_eq!(uploads.waiting.lock().unwrap().len(), 1);
        durable::remove_dir_all(&data.uploads()).unwrap();
        uploads.record(&data, |file| file.pending.clear());
        assert!(Uploads::resumed(&data).pending().is_empty());
        drop(waiting);
    }
}
