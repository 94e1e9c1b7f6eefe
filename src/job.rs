//! Background work on threads of a lower priority, so that etcd's clients come first; and its cancellation.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{oneshot, watch};

use crate::error::{Code, Diagnostic};

/// The nice value, at most 19; the server has 0 (see nice(2)).
const NICE: i32 = 10;

/// Runs `work` on a separate thread. The returned receiver fails if the thread could not be created, or panicked.
pub(super) fn spawn_low_priority<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    // Without a thread the sender is dropped, which is the error.
    let _ = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
        // On Linux this applies to this thread and its children only. Failures are ignored.
        let _ = rustix::process::nice(NICE);
        let _ = done.send(work());
    });
    result
}

/// A worker thread ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error: a worker thread panicked")]
pub struct WorkerPanicked;

impl Diagnostic for WorkerPanicked {
    fn code(&self) -> Code {
        Code::InternalError
    }

    fn next_step(&self) -> Option<String> {
        Some("try again, and report it together with the log".into())
    }
}

/// Runs blocking `work` on a thread for it, off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkerPanicked> {
    tokio::task::spawn_blocking(work).await.map_err(|_| WorkerPanicked)
}

/// Progress and cancellation of a save. All of its threads check it, so that a cancelled save has ended, and left
/// nothing, when it returns.
#[derive(Clone, Debug)]
pub struct JobControl {
    done: Arc<AtomicU64>,
    is_cancelled: Arc<watch::Sender<bool>>,
}

impl Default for JobControl {
    fn default() -> Self {
        Self { done: Arc::default(), is_cancelled: Arc::new(watch::Sender::new(false)) }
    }
}

impl JobControl {
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
    }

    pub fn cancel(&self) {
        self.is_cancelled.send_replace(true);
    }

    /// True if it is to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.is_cancelled.borrow()
    }

    /// The same as the answer of a progress callback.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Returns when it is to end.
    pub async fn cancelled(&self) {
        let _ = self.is_cancelled.subscribe().wait_for(|is_cancelled| *is_cancelled).await;
    }
}
