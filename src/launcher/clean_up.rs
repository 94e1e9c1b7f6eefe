//! Cleanup once etcd is healthy on its data.

use crate::datadir::DataDir;
use crate::error::{AppError, ErrorReport};
use crate::etcd::embedded;
use crate::log_failure;
use crate::recovery::retired;
use crate::text::format_bytes;

/// Unpacks etcdctl, and removes programs unpacked by older executables and the oldest retired data.
pub(crate) fn after_start(data: &DataDir, keep: u32) {
    prune_unpacked(data);
    prune_retired(data, keep);
}

fn prune_unpacked(data: &DataDir) {
    if let Err(error) = embedded::unpack("etcdctl", data) {
        log_failure!(warn, ErrorReport::of(&error), "cannot unpack etcdctl; running it from memory");
    }
    for path in embedded::prune(data) {
        tracing::info!(path = %path.display(), "removed an older unpacked etcd");
    }
}

/// Removes the oldest retired data, since the data in use is healthy.
fn prune_retired(data: &DataDir, keep: u32) {
    match retired::delete_oldest(data, usize::try_from(keep).unwrap_or(usize::MAX)) {
        Ok(removed) => {
            for old in removed {
                tracing::info!(
                    event = "old-data-removed",
                    path = %old.path.display(),
                    freed = format_bytes(old.bytes),
                    "removed retired data; etcd-old-retention is {keep}"
                );
            }
        }
        Err(error) => log_failure!(warn, AppError::from(error).to_report(), "cannot remove retired data"),
    }
}
