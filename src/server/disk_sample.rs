//! The disk facts of the status. A disk may not respond for minutes: at most one thread waits for it, and a request
//! meanwhile gets what was seen last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::datadir::DataDir;
use crate::host;
use crate::recovery::drill::record::DrillRecord;
use crate::recovery::retired::{self, RetiredData};

/// How long a request waits for the disk.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub struct DiskSample {
    pub free: Option<u64>,
    /// Data that resets and restores replaced, the newest first.
    pub old_data: Vec<RetiredData>,
    pub drills: DrillRecord,
}

/// Looks at the disk when asked to.
#[derive(Debug, Default)]
pub struct DiskSampler {
    last: Mutex<Arc<DiskSample>>,
    running: tokio::sync::Mutex<Option<JoinHandle<DiskSample>>>,
}

impl DiskSampler {
    /// The present facts; if the disk does not respond within a second, the last ones.
    pub async fn sample(&self, data: &DataDir) -> Arc<DiskSample> {
        let _ = tokio::time::timeout(SAMPLE_TIMEOUT, self.refresh(data)).await;
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn refresh(&self, data: &DataDir) {
        let mut running = self.running.lock().await;
        let data = data.clone();
        // If the previous request is still blocked, wait for it: another thread would block, too.
        let task = running.get_or_insert_with(|| tokio::task::spawn_blocking(move || observe(&data)));
        let seen = task.await;
        *running = None;
        if let Ok(seen) = seen {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(seen);
        }
    }
}

fn observe(data: &DataDir) -> DiskSample {
    DiskSample {
        free: host::free_bytes(&data.storage()),
        old_data: retired::list(data),
        drills: DrillRecord::read(data),
    }
}
