//! Watches the files of a running server: that etcd's database and log are still where etcd opened them, that the disks
//! have space, and that the server's directory still exists.
//!
//! Checks every few seconds on a thread for blocking work, and reports a file system that does not respond instead of
//! waiting for it. If the server's directory was removed, it is created again with the files that commands need to
//! reach this server (socket, certificates) and that keep the next start from silently beginning an empty cluster
//! (`cluster.json`). Never touches etcd's data.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::config::SnapshotConfig;
use crate::datadir::DataDir;
use crate::datadir::lock::{self, Lock};
use crate::durable::{self, Access, PRIVATE_FILE, WriteError};
use crate::error::{AppError, ErrorReport};
use crate::etcd::child::ChildStatus;
use crate::faults;
use crate::host::disk::disk_usage;
use crate::host::open_files::{OpenFile, identity, open_files};
use crate::log_failure;
use crate::plan::health::{Presence, StorageFacts, WatchedDisk};

const INTERVAL: Duration = Duration::from_secs(3);
/// etcd replaces files itself (by a defragmentation or a new log segment), which is over after this time.
const CONFIRM_AFTER: Duration = Duration::from_millis(300);
/// The timeout after which a disk counts as not responding.
const UNANSWERED: Duration = Duration::from_secs(10);
/// Maximum size of a file that is restored, in bytes: certificates, a token, a small record.
const MAX_KEPT_BYTES: u64 = 64 << 10;
/// Maximum number of files that are kept for restoring.
const MAX_KEPT_FILES: usize = 64;

#[derive(Debug)]
pub struct StorageWatch {
    data: DataDir,
    snapshots: watch::Receiver<SnapshotConfig>,
    child: watch::Receiver<ChildStatus>,
    own: Arc<OwnFiles>,
    facts: watch::Sender<StorageFacts>,
}

impl StorageWatch {
    /// A watch, and the receiver of its results.
    #[must_use]
    pub fn new(
        data: &DataDir,
        lock: Lock,
        snapshots: watch::Receiver<SnapshotConfig>,
        child: watch::Receiver<ChildStatus>,
    ) -> (Self, watch::Receiver<StorageFacts>) {
        let (facts, seen) = watch::channel(StorageFacts::default());
        let own = Arc::new(OwnFiles {
            data: data.clone(),
            lock: Mutex::new(lock),
            kept: Mutex::default(),
            was_lost: false.into(),
        });
        (Self { data: data.clone(), snapshots, child, own, facts }, seen)
    }

    pub async fn run(self) {
        let interval = faults::tunable("QUORATE_TEST_STORAGE_MS", INTERVAL);
        loop {
            let status = self.child.borrow().clone();
            let (data, own) = (self.data.clone(), self.own.clone());
            let snapshots = self.snapshots.borrow().place(&self.data);
            let mut looking = tokio::task::spawn_blocking(move || {
                // For tests of a panicked task: nothing here fails otherwise.
                let _ = faults::point("server::storage_look");
                own.check();
                observe(&data, &snapshots, &status)
            });
            let begun = clock::monotonic();
            let found = loop {
                match tokio::time::timeout(UNANSWERED, &mut looking).await {
                    Ok(found) => break found,
                    // The thread is blocked in the kernel; another one would block, too.
                    Err(_) => self.facts.send_modify(|facts| facts.unanswered = Some(begun.elapsed())),
                }
            };
            match found {
                Ok(found) => drop(self.facts.send_replace(found)),
                // Ends the server in order, as any task that ends unexpectedly.
                Err(_) => return,
            }
            tokio::time::sleep(interval).await;
        }
    }
}

fn observe(data: &DataDir, snapshots: &Path, status: &ChildStatus) -> StorageFacts {
    let pid = status.pid.filter(|_| status.state.is_alive());
    let (mut database, mut log) = pid.map(|pid| presence(data, pid)).unwrap_or_default();
    let is_fine = |presence: &Presence| matches!(presence, Presence::Unknown | Presence::Present);
    if let (Some(pid), false) = (pid, is_fine(&database) && is_fine(&log)) {
        std::thread::sleep(CONFIRM_AFTER);
        (database, log) = presence(data, pid);
    }
    let disk = |path: PathBuf| WatchedDisk { usage: disk_usage(&path).ok(), path };
    StorageFacts {
        database,
        log,
        data_disk: Some(disk(data.storage())),
        snapshot_disk: snapshots.is_dir().then(|| disk(snapshots.to_path_buf())),
        unanswered: None,
    }
}

/// The database and the newest log segment that the process has open.
fn presence(data: &DataDir, pid: i32) -> (Presence, Presence) {
    let Ok(open) = open_files(pid) else { return Default::default() };
    // On a detached file system a path begins at its root, and the directory may have been renamed.
    let database = open.iter().filter(|file| file.path.ends_with("snap/db")).max_by_key(|file| !file.is_deleted);
    let segments = open.iter().filter(|file| {
        file.path.extension().is_some_and(|ending| ending == "wal")
            && file.path.parent().is_some_and(|dir| dir.ends_with("wal"))
    });
    // Names begin with a sequence number in hexadecimal digits of fixed length. etcd removes older ones while it has
    // them open.
    let newest = segments.max_by_key(|file| file.path.file_name().map(std::ffi::OsStr::to_os_string));
    let wal = data.etcd_member().join("wal");
    let expected = |file: &OpenFile| file.path.file_name().map(|name| wal.join(name));
    (
        database.map_or(Presence::Unknown, |file| compare(file, &data.etcd_bolt())),
        newest.and_then(|file| Some(compare(file, &expected(file)?))).unwrap_or_default(),
    )
}

fn compare(open: &OpenFile, expected: &Path) -> Presence {
    match identity(expected) {
        Ok(found) if found == open.identity => Presence::Present,
        Ok(_) => Presence::Replaced,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            // A path to the open file is its present location.
            let is_there = !open.is_deleted && identity(&open.path).is_ok_and(|found| found == open.identity);
            if is_there { Presence::Moved(open.path.clone()) } else { Presence::Missing }
        }
        Err(_) => Presence::Unknown,
    }
}

/// The server's directory: its lock, and the small essential files.
#[derive(Debug)]
struct OwnFiles {
    data: DataDir,
    lock: Mutex<Lock>,
    kept: Mutex<Vec<(PathBuf, Vec<u8>, Access)>>,
    /// The directory was removed once, and may be removed again.
    was_lost: AtomicBool,
}

impl OwnFiles {
    /// Keeps copies of the files while the lock file is in place; restores them if it is gone.
    fn check(&self) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_in_place(&self.data) {
            let now = self.read();
            // The copy of a file that is temporarily unreadable is kept.
            kept.retain(|(path, ..)| now.iter().all(|(found, ..)| found != path));
            kept.extend(now);
            kept.truncate(MAX_KEPT_FILES);
            if self.was_lost.load(Ordering::Relaxed)
                && let Err(error) = Self::write_missing(&kept)
            {
                log_failure!(error, ErrorReport::of(&error), "the server's directory is incomplete");
            }
            return;
        }
        if self.data.lock().exists() {
            // Another server's directory, or a copy: the ports prevent a second server there.
            return;
        }
        let dir = self.data.root().display();
        tracing::error!(
            %dir,
            "the data directory of this running server was removed or unmounted; restoring the files that commands need to reach the server"
        );
        self.was_lost.store(true, Ordering::Relaxed);
        match self.restore_files(&kept) {
            Ok(new) => *lock = new,
            Err(failure) => {
                log_failure!(error, failure.to_report(), "cannot restore the server's directory");
            }
        }
    }

    fn read(&self) -> Vec<(PathBuf, Vec<u8>, Access)> {
        let names = ["server-ca", "peer-ca", "server-client", "peer-server-client", "client", "launcher"];
        let mut paths =
            vec![(self.data.cluster(), Access::from(PRIVATE_FILE)), (self.data.token(), PRIVATE_FILE.into())];
        for name in names {
            let files = self.data.certificate(name);
            paths.push((files.certificate, files.certificate_access));
            paths.push((files.key, files.key_access));
        }
        let is_small = |path: &Path| fs::metadata(path).is_ok_and(|found| found.len() <= MAX_KEPT_BYTES);
        let read = |(path, access): (PathBuf, Access)| Some((fs::read(&path).ok()?, path, access));
        let small = paths.into_iter().filter(|(path, _)| is_small(path)).filter_map(read);
        small.map(|(bytes, path, access)| (path, bytes, access)).collect()
    }

    fn restore_files(&self, kept: &[(PathBuf, Vec<u8>, Access)]) -> Result<Lock, AppError> {
        self.data.prepare_for_lock()?;
        self.data.prepare()?;
        let lock = lock::take(&self.data)?;
        Self::write_missing(kept)?;
        Ok(lock)
    }

    fn write_missing(kept: &[(PathBuf, Vec<u8>, Access)]) -> Result<(), WriteError> {
        for (path, bytes, access) in kept.iter().filter(|(path, ..)| !path.exists()) {
            durable::write_file(path, bytes, *access)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compared_by_what_it_is_and_not_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("db"), dir.path().join("other"));
        fs::write(&path, "1").unwrap();
        let open = OpenFile { path: path.clone(), is_deleted: false, identity: identity(&path).unwrap() };
        assert_eq!(compare(&open, &path), Presence::Present);
        fs::rename(&path, &other).unwrap();
        assert_eq!(compare(&OpenFile { path: other.clone(), ..open.clone() }, &path), Presence::Moved(other.clone()));
        fs::write(&path, "2").unwrap();
        assert_eq!(compare(&OpenFile { path: other.clone(), ..open.clone() }, &path), Presence::Replaced);
        fs::remove_file(&path).unwrap();
        fs::remove_file(&other).unwrap();
        assert_eq!(compare(&OpenFile { is_deleted: true, ..open }, &path), Presence::Missing);
    }
}
